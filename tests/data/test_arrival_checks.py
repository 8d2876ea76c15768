"""Each check of what arrived: a fault that it must catch, the healthy case, and the bounds between."""

from datetime import date, timedelta

import polars as pl
import pytest

from bigger_boat.data import arrival_checks
from bigger_boat.data.arrival_checks import FEW_REJECTS, REJECTS, rejected_examples, rejected_rows
from bigger_boat.data.landing_index import DayEntry, LandingIndex

FIRST = date(2026, 10, 5)
DAYS = [(FIRST + timedelta(days=offset)).isoformat() for offset in range(28)]


def entry(browsing=900, search=100, rejected=0, **reasons):
    rows = {"browsing": browsing, "search": search, "rejected": rejected}
    return DayEntry(1, "print", rows, {}, reasons)


def index(changes=None, **parts):
    days = {day: entry() for day in DAYS} | (changes or {})
    return LandingIndex({day: found for day, found in days.items() if found}, **parts)


def no_examples(_day, _reasons):
    return []


def failed(finding):
    assert finding.passed == (not finding.also and not any(day.reason for day in finding.days.values()))
    return {day: found.reason for day, found in finding.days.items() if found.reason}


def test_days_up_to_the_last_expected_have_arrived():
    finding = arrival_checks.days_have_arrived(index(), ["2026-10-04", *DAYS, "2026-11-02"], last_over=DAYS[-1])

    assert finding.passed
    assert finding.value == 0
    assert list(finding.days) == DAYS, "before the first and after the last landed day nothing is missing"


@pytest.mark.parametrize(("behind", "passes"), [(0, True), (2, True), (3, False), (40, False)])
def test_the_last_landed_day_may_be_two_days_behind(behind, passes):
    last_over = (date.fromisoformat(DAYS[-1]) + timedelta(days=behind)).isoformat()

    finding = arrival_checks.days_have_arrived(index(), DAYS, last_over)

    assert (finding.passed, finding.value) == (passes, behind)
    if not passes:
        assert finding.also == f"The last landed day is 2026-11-01, {behind} days before {last_over}"


def test_a_day_that_never_came_or_is_empty_is_missed():
    gaps = index({DAYS[3]: None, DAYS[9]: entry(0, 0, rejected=4)})

    finding = arrival_checks.days_have_arrived(gaps, DAYS, DAYS[-1])

    assert failed(finding) == dict.fromkeys((DAYS[3], DAYS[9]), "no row is in force for this day")


def test_nothing_has_landed():
    finding = arrival_checks.days_have_arrived(LandingIndex(), DAYS, DAYS[-1])

    assert (finding.passed, finding.value, finding.also) == (False, None, "Nothing has landed yet")


@pytest.mark.parametrize(("rows", "passes"), [(500, True), (499, False), (2000, True), (2001, False), (0, False)])
def test_volume_is_held_against_the_same_weekday_before(rows, passes):
    finding = arrival_checks.volume_is_usual(index({DAYS[27]: entry(rows, 0)}), DAYS[21:])

    assert (DAYS[27] not in failed(finding)) == passes
    assert finding.days[DAYS[27]].value == rows / 1000
    assert finding.days[DAYS[26]].value == 1.0
    assert finding.value == rows / 1000, "of several days the oddest is plotted"


def test_what_is_usual_is_the_median_of_up_to_four_weeks():
    counts = dict(zip(range(6, 28, 7), (100, 1000, 200, 260), strict=True))
    changed = index({DAYS[place]: entry(rows, 0) for place, rows in counts.items()})

    finding = arrival_checks.volume_is_usual(changed, [DAYS[6], DAYS[13], DAYS[27]])

    assert finding.days[DAYS[6]].value is None, "the first week has nothing before it"
    assert failed(finding) == {DAYS[13]: "1,000 rows are 1000% of the 100 usual on this weekday"}
    assert finding.days[DAYS[27]].value == 260 / 200


def test_the_rhythm_of_the_week_is_no_fault_and_neither_are_few_rows():
    weekly = index({day: entry(100 if date.fromisoformat(day).weekday() > 4 else 1000, 0) for day in DAYS})
    tiny = index({day: entry(1 + 7 * (place % 2), 0) for place, day in enumerate(DAYS)})

    assert arrival_checks.volume_is_usual(weekly, DAYS).passed
    assert arrival_checks.volume_is_usual(tiny, DAYS).passed


@pytest.mark.parametrize(
    ("rejected", "few", "below"), [(0, True, True), (10, True, True), (11, False, True), (250, False, False)]
)
def test_share_of_rejected_rows(rejected, few, below):
    changed = index({DAYS[5]: entry(rejected=rejected)})

    findings = [rejected_rows(changed, DAYS, no_examples, spec) for spec in (FEW_REJECTS, REJECTS)]

    assert [finding.passed for finding in findings] == [few, below]
    assert [finding.value for finding in findings] == [rejected / (1000 + rejected)] * 2
    assert (REJECTS.blocking, FEW_REJECTS.blocking) == (True, False)


def test_a_fifth_is_too_much_and_is_shown():
    asked = []

    def examples(day, reasons):
        asked.append((day, reasons))
        return ["browsing_train.csv line 7: product_missing (s1)"]

    finding = rejected_rows(index({DAYS[5]: entry(rejected=250)}), DAYS, examples, REJECTS)

    sentence = "250 of 1,250 rows (20.0%) were rejected, such as:\n    browsing_train.csv line 7: product_missing (s1)"
    assert failed(finding) == {DAYS[5]: sentence}
    assert asked == [(DAYS[5], ())], "files of rejected rows are read for bad days only"


def test_a_day_of_rejects_only_is_too_much():
    lost = {DAYS[-1]: DayEntry(1, "", {"browsing": 0, "search": 0, "rejected": 3})}
    changed = index({DAYS[-1]: None}, rejected_only_days=lost)

    assert list(failed(rejected_rows(changed, DAYS, no_examples, REJECTS))) == [DAYS[-1]]


def test_rows_without_a_usable_time_warn():
    undated = {count: index(undated=entry(0, 0, rejected=count)) for count in (200, 400)}

    findings = {count: rejected_rows(found, DAYS, no_examples, FEW_REJECTS) for count, found in undated.items()}

    assert findings[200].passed
    assert findings[400].also.startswith("400 of all 28,400 rows (1.4%) have no usable time")
    assert rejected_rows(undated[400], DAYS, no_examples, REJECTS).passed, "they are of no day"


def test_unknown_actions_are_counted_and_shown():
    bad = entry(rejected=5, product_action_unknown=2, event_type_unknown=1, product_missing=2)

    finding = arrival_checks.actions_are_known(index({DAYS[2]: bad}), DAYS, lambda day, reasons: [f"{day} {reasons}"])

    shown = f"{DAYS[2]} ('event_type_unknown', 'product_action_unknown')"
    assert failed(finding) == {DAYS[2]: f"3 rows have an unknown event type or action, such as:\n    {shown}"}
    assert finding.value == 3
    assert arrival_checks.actions_are_known(index({DAYS[2]: entry(rejected=9)}), DAYS, no_examples).passed


def test_examples_are_five_of_many_reasons(tmp_path):
    raw = '{"session_id_hash":"s 1","product_sku_hash":null,"server_timestamp_epoch_ms":5}'
    rows = [("b.csv", line, "product_missing", None, raw) for line in range(2, 50)]
    rows += [("b.csv", 60, "url_malformed", None, "x" * 500), ("b.csv", 61, "timestamp_missing", None, "t")]
    names = ["file", "line", "reason", "day", "raw"]
    for part, chosen in enumerate((rows[::2], rows[1::2])):
        pl.DataFrame(chosen, schema=names, orient="row").write_parquet(tmp_path / f"{part}.parquet")
    files = sorted(tmp_path.glob("*.parquet"))

    shown = rejected_examples(files)

    assert len(shown) == 5
    assert shown[:3] == [
        "b.csv line 2: product_missing (s 1,,5)",
        f"b.csv line 60: url_malformed ({'x' * 100} ...)",
        "b.csv line 61: timestamp_missing (t)",
    ]
    assert rejected_examples(files, ["timestamp_missing"]) == ["b.csv line 61: timestamp_missing (t)"]
    assert rejected_examples([]) == []
