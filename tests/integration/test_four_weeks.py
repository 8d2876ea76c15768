"""Four weeks of a small shop, played: events come in, and everything else happens by itself, or because a person asks.

The web UI, its daemon and the server are real, and run; the clock is put forward. Each week is a function.
"""

import re
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from planted import popular_items, replace_candidate
from played_shop import ASKED_SESSIONS, Department, Outcome, PlayedShop, day, played_shop

from bigger_boat.assets.verdicts import RANGE_END, RANGE_START
from bigger_boat.automation.jobs import REASON_TAG
from bigger_boat.automation.runner import failures_of
from bigger_boat.data.landing_index import EVENT_TABLES
from bigger_boat.data.prediction_files import LOG_TABLES
from bigger_boat.data.vocabulary import ENDPOINTS
from bigger_boat.ml.online_metrics import HIT_RATE, OnlineMetric, read_metrics

SHOES_UNTIL, TOYS_FROM, LAST = 14, 15, 28


@pytest.mark.slow
def test_four_weeks(tmp_path: Path, played_clock: Path):
    shoes = Department(tmp_path / "shoes", 1, SHOES_UNTIL, seed=1)
    toys = Department(tmp_path / "toys", TOYS_FROM, LAST, seed=2)
    with played_shop(tmp_path / "shop", played_clock, [shoes, toys]) as shop:
        shop.ui.switch("watching_sensor", on=False)  # nobody watches at first; in the end all days are made at once
        first = the_first_week_teaches_the_first_models(shop, shoes)
        asked = in_the_second_week_nothing_arrives(shop, shoes, first)
        second = in_the_third_week_shoppers_want_something_else(shop, toys, first)
        in_the_fourth_week_a_bad_one_is_refused(shop, second)
        a_person_rolls_back(shop, toys, first, second)
        what_was_late_arrives_and_a_better_one_replaces_the_old(shop, shoes, toys, first)
        answers_were_watched(shop, first, second)
        no_event_was_lost_or_doubled(shop)
        an_answer_from_before_two_trainings_is_explained(shop, asked, first)


def the_first_week_teaches_the_first_models(shop: PlayedShop, shoes: Department) -> dict[str, Outcome]:
    shop.it_is(8, "00:10")
    shop.collect(shoes.events(1, 7))
    shop.it_is(8, "00:15")
    training = shop.wait_for_training(1)
    assert made_by_the_sensor(shop) == [(day(1), day(7))]
    assert "recommendation: retrains, nothing serves yet and 7 days are there." in training[REASON_TAG]
    outcome = shop.outcome(training["id"])
    assert all(one.version and "Nothing serves yet" in one.why for one in outcome.values()), outcome
    assert serving(shop) == {name: one.version for name, one in outcome.items()}
    return outcome


def in_the_second_week_nothing_arrives(
    shop: PlayedShop, shoes: Department, first: dict[str, Outcome]
) -> dict[str, Any]:
    """Its events are stuck at the shop. Its pages ask all the same; the answer is returned."""
    shop.it_is(13, "20:00")
    answers = ask_all(shop, shoes, 13)
    assert {name: answer["version"] for name, answer in answers.items()} == serving(shop)
    shop.it_is(14, "00:10")
    quiet = r"recommendation: no retraining, 0 new and 0 changed days of 7, drift not measured, 6\.0 of 30 days old"
    shop.wait_to_hear("retraining_sensor", quiet)
    assert len(shop.trainings()) == 1
    assert first["recommendation"].version == answers["recommendation"]["version"]
    return answers["recommendation"]


def in_the_third_week_shoppers_want_something_else(
    shop: PlayedShop, toys: Department, first: dict[str, Outcome]
) -> dict[str, Outcome]:
    shop.it_is(17, "20:00")
    assert any(one["fallback"] for one in ask_all(shop, toys, 17)["recommendation"]["predictions"])
    shop.it_is(21, "00:10")
    shop.collect(toys.events(15, 20))
    shop.it_is(21, "00:15")
    training = shop.wait_for_training(2)
    assert made_by_the_sensor(shop)[-1] == (day(15), day(20))
    moved = re.search(
        r"recommendation: retrains, the data have moved: PSI ([\d.]+) \(over 0.25\) in 6 new days", training[REASON_TAG]
    )
    assert moved, training[REASON_TAG]
    assert float(moved[1]) > 0.25
    outcome = shop.outcome(training["id"])
    a_better_challenger_was_promoted(outcome["recommendation"])
    each_decision_has_its_numbers_and_is_what_serves(shop, first, outcome)
    shop.it_is(21, "20:00")
    answers = ask_all(shop, toys, 21)
    assert answers["recommendation"]["version"] == outcome["recommendation"].version
    assert not all(one["fallback"] for one in answers["recommendation"]["predictions"])
    return outcome


def in_the_fourth_week_a_bad_one_is_refused(shop: PlayedShop, second: dict[str, Outcome]) -> None:
    """Somebody's candidate has learned nothing but what is popular; they ask for it in the web UI."""
    shop.it_is(24, "09:00")
    before = serving(shop)
    replace_candidate(shop.shop, popular_items(shop.shop))
    run = shop.ui.launch(["recommendation_champion", "recommendation_endpoint"])
    assert shop.ui.end_of(run) == "FAILURE"
    [(step, sentence)], is_refusal = failures_of(shop.shop.instance, run)
    assert (step, is_refusal) == ("recommendation_champion", True)
    why = r"is not promoted:\n  - The model does not beat popularity: MRR@20 0\.\d+ against 0\.\d+"
    assert re.search(why, sentence), sentence
    assert serving(shop) == before
    told = shop.ui.wait(lambda: [text for text in shop.alerts if "does not beat popularity" in text])
    assert f"recommendation: version {second['recommendation'].version} goes on serving." in told[0]


def a_person_rolls_back(
    shop: PlayedShop, toys: Department, first: dict[str, Outcome], second: dict[str, Outcome]
) -> None:
    """Whatever the evidence now says of the old version: it is not trained again on the very same data."""
    reason = "Sales fell on Thursday."
    run = shop.ui.launch_job("roll_back_job", endpoint="recommendation", reason=reason)
    assert shop.ui.end_of(run) == "SUCCESS"
    shop.it_is(24, "20:00")
    assert ask_all(shop, toys, 24)["recommendation"]["version"] == first["recommendation"].version
    [event] = shop.shop.instance.fetch_observations(dg.AssetKey("recommendation_endpoint"), limit=1).records
    told = {name: value.value for name, value in event.asset_observation.metadata.items()}
    assert (told["action"], told["reason"]) == ("rolled back", reason)
    assert (told["version_before"], told["by"]) == (second["recommendation"].version, f"run {run} of roll_back_job")
    shop.wait_to_hear(
        "retraining_sensor",
        r"recommendation: the data have moved: PSI [\d.]+ .* but it was trained on this very data at 2026-10-21 00:1",
    )
    assert len(shop.trainings()) == 2


def what_was_late_arrives_and_a_better_one_replaces_the_old(
    shop: PlayedShop, shoes: Department, toys: Department, first: dict[str, Outcome]
) -> None:
    shop.it_is(29, "00:10")
    shop.collect([*toys.events(21, LAST), *shoes.events(8, SHOES_UNTIL)])
    shop.it_is(29, "00:15")
    training = shop.wait_for_training(3)
    assert set(made_by_the_sensor(shop)[-2:]) == {(day(7), day(15)), (day(20), day(LAST))}
    due = rf"recommendation: retrains, 21 new and \d+ changed days since {day(7)} \(7 are enough\)"
    assert re.search(due, training[REASON_TAG]), training[REASON_TAG]
    outcome = shop.outcome(training["id"])
    a_better_challenger_was_promoted(outcome["recommendation"])
    each_decision_has_its_numbers_and_is_what_serves(shop, first, outcome)


def answers_were_watched(shop: PlayedShop, first: dict[str, Outcome], second: dict[str, Outcome]) -> None:
    """All answers are in the log of their days; what sessions then did says that the promotion was right."""
    shop.ui.switch("watching_sensor", on=True)
    metrics = shop.shop.root / "monitoring/online_metrics"
    shop.ui.wait(lambda: (metrics / f"date={day(LAST)}.parquet").exists() and not shop.running())
    shop.wait_to_hear("watching_sensor", rf"Nothing new: 21 days \({day(8)} to {day(LAST)}\) are made\.$")
    logged = pl.read_parquet(shop.shop.root / LOG_TABLES / "date=*.parquet", hive_partitioning=False)
    logged = logged.filter(pl.col("session_id").is_not_null())  # the asset of the API asks, too
    by_day = Counter(datetime.fromtimestamp(ms / 1000, UTC).date().isoformat() for ms in logged["answered_at_ms"])
    assert by_day == {day(number): len(ENDPOINTS) * ASKED_SESSIONS for number in (13, 17, 21, 24)}
    old = hit_rate(metrics, 17, first["recommendation"].version)
    new = hit_rate(metrics, 21, second["recommendation"].version)
    again = hit_rate(metrics, 24, first["recommendation"].version)
    assert new.low > max(old.high, again.high), (old, new, again)


def no_event_was_lost_or_doubled(shop: PlayedShop) -> None:
    """The same events everywhere: acknowledged, landed, loaded, distinct; what was sent twice is there once."""
    assert shop.told.rejected == 0, shop.told.faults
    assert shop.told.accepted == len(shop.sent)
    assert shop.told.duplicates == shop.told.sent - len(shop.sent) > 0
    landed = shop.shop.index
    assert list(landed.days) == [day(number) for number in range(1, LAST + 1)]
    assert sum(entry.rows.get(table, 0) for entry in landed.days.values() for table in EVENT_TABLES) == len(shop.sent)
    loaded = shop.rows("select event_id from raw.browsing_train union all select event_id from raw.search_train")
    assert sorted(event_id for (event_id,) in loaded) == sorted(shop.sent)
    columns = "session_id, timestamp_ms, action, sku, url"
    distinct = Counter(shop.rows(f"select {columns} from distinct_events"))
    assert distinct == Counter(distinct_events(shop.sent.values()))
    assert shop.shop.plan(select="group:raw or group:warehouse").days == ()


def an_answer_from_before_two_trainings_is_explained(
    shop: PlayedShop, answer: dict[str, Any], first: dict[str, Outcome]
) -> None:
    told = shop.explain(answer["request_id"])
    assert {one["version"] for one in told["answers"]} == {first["recommendation"].version}
    assert told["bundle"]["version"] == first["recommendation"].version
    trained, *_ = shop.trainings()
    assert {made["run_id"] for made in told["runs"]} == {trained["id"]}
    assert [one["days"]["last"] for one in told["datasets"]] == [day(7)]
    files = {one["day"]: one["files"] for one in told["landed"]}
    assert list(files) == [day(number) for number in range(1, 8)]
    for landed in files.values():
        assert landed
        assert all((shop.shop.root / "landing" / file).exists() for file in landed)


def a_better_challenger_was_promoted(outcome: Outcome) -> None:
    """Better than what served, clear of zero; of another configuration, it was held against that on the same days."""
    told = re.search(
        r"(may replace|is chosen|is kept and refreshed).*: MRR@20 [\d.]+ against [\d.]+ on \d+ validation days, "
        r"difference \S+ \[([-+\d.]+),",
        outcome.why,
    )
    assert outcome.version, outcome
    assert told, outcome
    assert float(told[2]) > 0 or told[1] == "is kept and refreshed", outcome


def each_decision_has_its_numbers_and_is_what_serves(
    shop: PlayedShop, before: dict[str, Outcome], decided: dict[str, Outcome]
) -> None:
    """Whether an intent model of so few carts is better is chance: whatever was decided has its reason, and holds."""
    for name, outcome in decided.items():
        assert re.search(r"\d\.\d{4} against \d\.\d{4}", outcome.why), outcome
        assert serving(shop)[name] == (outcome.version or before[name].version), outcome
        assert bool(outcome.version) != ("is not promoted" in outcome.why), outcome


def serving(shop: PlayedShop) -> dict[str, str]:
    """Return the versions that should serve."""
    return {name: shop.shop.current(name) for name in ENDPOINTS}


def ask_all(shop: PlayedShop, department: Department, number: int) -> dict[str, dict[str, Any]]:
    sessions = department.begun_sessions(number)
    return {name: shop.ask(name, sessions) for name in ENDPOINTS}


def made_by_the_sensor(shop: PlayedShop) -> list[tuple[str, str]]:
    """Return the ranges of days that the arrival sensor has had made, oldest first; all of them succeeded."""
    runs = shop.ui.runs_by_sensor("arrival_sensor")
    assert {run["status"] for run in runs} == {"SUCCESS"}, runs
    return [(run[RANGE_START], run[RANGE_END]) for run in runs if RANGE_START in run]


def hit_rate(metrics: Path, number: int, version: str) -> OnlineMetric:
    [found] = [
        one
        for one in read_metrics(metrics / f"date={day(number)}.parquet")
        if (one.metric, one.version) == (HIT_RATE, version)
    ]
    assert found.enough, found
    return found


def distinct_events(sent: Any) -> set[tuple[str, int, str, str, str]]:
    """Return what the warehouse should hold: a view that doubles a product's page is none, a click is one more."""
    products = {_place(event) for event in sent if event["event_type"] == "event_product"}
    found = set()
    for event in sent:
        session, at_ms, url = _place(event)
        if event["event_type"] == "search":
            found.add((session, at_ms, "search", "", ""))
            found |= {(session, at_ms, "click", sku, "") for sku in event.get("clicked_skus_hash") or ()}
        elif event["event_type"] == "event_product":
            found.add((session, at_ms, event["product_action"], event["product_sku_hash"], url))
        elif _place(event) not in products:
            found.add((session, at_ms, "view", "", url))
    return found


def _place(event: dict[str, Any]) -> tuple[str, int, str]:
    return event["session_id"], event["timestamp_ms"], event.get("hashed_url") or ""
