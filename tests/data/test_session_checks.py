"""Each check of a day's sessions on real tables: a planted fault that it must catch, and the healthy case."""

from datetime import date, timedelta

import duckdb
import pytest

from bigger_boat.data import session_checks
from bigger_boat.data.session_checks import judge

DAYS = [(date(2026, 10, 5) + timedelta(days=offset)).isoformat() for offset in range(4)]
TABLES = {
    "sessions": (session_checks.SESSION_COUNTS, session_checks.SESSION_RULES),
    "session_stats": (session_checks.DUPLICATE_COUNTS, session_checks.DUPLICATE_RULES),
    "distinct_events": (session_checks.PRODUCT_COUNTS, session_checks.METADATA_RULES),
}


@pytest.fixture
def shop():
    """Four days of 120 sessions with 5 events in 100 s and 120 products, all in the catalogue; no duplicates."""
    connection = duckdb.connect()
    connection.execute(
        f"""
        create table sessions as select 's' || lpad(number::varchar, 3, '0') as session_id, day::date as session_date,
            100.0::double as duration_s, 5 as event_count
        from range(120) as numbers(number), unnest({DAYS}) as days(day);
        create table session_stats as select session_id, session_date as event_date, 5 as event_count,
            0 as duplicate_count from sessions;
        create table distinct_events as select session_id, session_date as event_date, 1000::bigint as timestamp_ms,
            'detail' as action, replace(session_id, 's', 'p') as sku, 1 as copies from sessions;
        insert into distinct_events select session_id, event_date, 2000, 'view', '', 1 from distinct_events;
        create table products as select distinct sku, 'a/b' as category, 3 as price_bucket,
            null::float[] as description_vector, null::float[] as image_vector from distinct_events where sku <> '';
        """
    )
    asked = []

    def query(sql, params):
        asked.append(sql)
        return connection.execute(sql, params).fetch_arrow_table().to_pylist()

    query.asked, query.connection = asked, connection
    return query


def findings(shop):
    made = [finding for sql, rules in TABLES.values() for finding in judge(rules, sql, DAYS, shop)]
    return {finding.spec.name: finding for finding in made}


def only_failure(shop):
    [finding] = [finding for finding in findings(shop).values() if not finding.passed]
    return finding, {day: found.reason for day, found in finding.days.items() if found.reason}


def test_a_healthy_shop_passes_with_one_query_per_table(shop):
    found = findings(shop)

    assert all(finding.passed for finding in found.values())
    assert len(shop.asked) == len(TABLES)
    assert {name: finding.value for name, finding in found.items()} == {
        "durations_not_negative": 0,
        "sessions_have_an_action": 0,
        "few_sessions_beyond_30_minutes": 0,
        "session_length_is_usual": 5,
        "few_duplicates": 0,
        "products_have_metadata": 0,
    }
    assert all(list(finding.days) == DAYS for finding in found.values())


@pytest.mark.parametrize("duration", ["-0.5", "null"])
def test_a_negative_duration_blocks(shop, duration):
    shop.connection.execute(f"update sessions set duration_s = {duration} where session_id = 's007'")

    finding, failed = only_failure(shop)

    shown = "session s007: -0.5 s" if duration != "null" else "session s007: no s"
    assert (finding.spec.name, finding.spec.blocking) == ("durations_not_negative", True)
    assert failed == dict.fromkeys(DAYS, f"1 of 120 sessions end before they start, or never, such as:\n    {shown}")


@pytest.mark.parametrize("count", ["0", "null"])
def test_a_session_without_an_action_blocks(shop, count):
    shop.connection.execute(
        f"update sessions set event_count = {count} where session_id = 's001' and session_date = '{DAYS[2]}'"
    )

    finding, failed = only_failure(shop)

    assert (finding.spec.name, finding.spec.blocking) == ("sessions_have_an_action", True)
    assert list(failed) == [DAYS[2]]
    assert "1 of 120 sessions have no action, such as:\n    session s001" in failed[DAYS[2]]


@pytest.mark.parametrize(("sessions", "passes"), [(18, True), (19, False)])
def test_many_sessions_beyond_30_minutes_warn(shop, sessions, passes):
    shop.connection.execute(
        f"update sessions set duration_s = 1800 + substr(session_id, 2)::int where session_date = '{DAYS[0]}'"
        f" and session_id between 's001' and 's{sessions:03d}'"
    )
    if passes:
        assert all(finding.passed for finding in findings(shop).values())
        return

    finding, failed = only_failure(shop)

    assert (finding.spec.blocking, finding.value) == (False, 19 / 120)
    assert failed == {
        DAYS[0]: "19 of 120 sessions (15.8%) last over 30 minutes, such as:"
        + "".join(f"\n    session s0{number}: 18{number}.0 s" for number in (19, 18, 17, 16, 15))
    }


@pytest.mark.parametrize(("events", "passes"), [(3, False), (4, True), (10, True), (11, False)])
def test_sessions_of_unusual_length_warn(shop, events, passes):
    shop.connection.execute(f"update sessions set event_count = {events} where session_date = '{DAYS[3]}'")
    if passes:
        assert all(finding.passed for finding in findings(shop).values())
        return

    finding, failed = only_failure(shop)

    assert (finding.spec.name, finding.spec.blocking) == ("session_length_is_usual", False)
    assert finding.value == events
    assert list(failed) == [DAYS[3]]
    assert failed[DAYS[3]].startswith(f"120 sessions have {events}.0 events in the mean, and 4 to 10 are usual")
    assert failed[DAYS[3]].count("session s") == 5


def test_duplicates_warn_and_are_shown(shop):
    shop.connection.execute(f"update session_stats set duplicate_count = 1 where event_date = '{DAYS[1]}'")
    shop.connection.execute(
        f"update distinct_events set copies = 2 + (session_id = 's042')::int where event_date = '{DAYS[1]}'"
        " and action = 'detail'"
    )

    finding, failed = only_failure(shop)

    assert (finding.spec.blocking, finding.value) == (False, 120 / 720)
    assert list(failed) == [DAYS[1]]
    assert failed[DAYS[1]].startswith(
        "120 of 720 rows (16.7%) repeat another one exactly, such as:\n    session s042: detail p042 at 1000, 3 times\n"
    )
    assert failed[DAYS[1]].count("2 times") == 4


def test_products_that_the_catalogue_does_not_know_warn(shop):
    shop.connection.execute("delete from products where sku < 'p040'")
    shop.connection.execute("update products set category = null, price_bucket = null where sku < 'p073'")
    shop.connection.execute(f"insert into distinct_events select session_id, '{DAYS[0]}', 1, 'add', 'p003', 1 "
                            f"from sessions where session_date = '{DAYS[0]}'")  # fmt: skip

    finding, failed = only_failure(shop)

    assert (finding.spec.blocking, finding.value) == (False, 73 / 120)
    assert failed[DAYS[0]] == (
        "of 73 of 120 products (60.8%) the catalogue knows nothing, such as:\n    product p003: 121 events"
        + "".join(f"\n    product p00{number}: 1 events" for number in (0, 1, 2, 4))
    )
    shop.connection.execute("update products set price_bucket = 1 where sku = 'p072'")
    assert all(finding.passed for finding in findings(shop).values()), "some metadata is metadata"


def test_few_rows_never_warn_but_do_block(shop):
    shop.connection.execute("delete from sessions where session_id > 's050'")
    shop.connection.execute("update sessions set event_count = 1, duration_s = 9999")
    assert all(finding.passed for finding in findings(shop).values())

    shop.connection.execute("update sessions set duration_s = -1")
    finding, failed = only_failure(shop)
    assert finding.spec.name == "durations_not_negative"
    assert list(failed) == DAYS


def test_days_without_rows_have_nothing_to_judge(shop):
    shop.connection.execute("delete from sessions")

    found = findings(shop)["session_length_is_usual"]

    assert found.passed
    assert found.value is None
    assert {day.value for day in found.days.values()} == {None}
