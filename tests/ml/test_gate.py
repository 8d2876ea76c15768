"""The gate: each rule's two sides and its edge, with numbers worked out by hand."""

from pathlib import Path

import numpy as np
import pytest

from bigger_boat.errors import GateRefused
from bigger_boat.ml import gate
from bigger_boat.ml.bundle import write_bundle
from bigger_boat.ml.gate import Comparison, GateCheck
from bigger_boat.ml.intervals import Interval, paired_interval

PREDICTIONS = [{"skus": ["a", "b"], "scores": [0.9, 0.5], "fallback": False, "unknown_skus": []}]
GOLDEN = [{"request": {"sessions": [["x"]]}, "predictions": PREDICTIONS}]


def comparison(low: float, high: float = 0.1, incumbent: float = 0.25, days: int = 2) -> Comparison:
    middle = (low + high) / 2
    return Comparison("MRR@20", incumbent + middle, incumbent, Interval(middle, low, high, 500), days)


def test_an_intact_bundle_passes_and_a_flipped_byte_does_not(tmp_path):
    def export(directory: Path) -> None:
        directory.mkdir()
        (directory / "saved_model.pb").write_bytes(b"graph")

    bundle = write_bundle(tmp_path, name="intent", kind="lstm", export=export, golden=GOLDEN, info={})
    assert gate.check_digests(bundle.directory).passed
    (bundle.saved_model / "saved_model.pb").write_bytes(b"graqh")
    check = gate.check_digests(bundle.directory)
    assert not check.passed
    assert "1/saved_model.pb" in check.description


def test_golden_answers():
    assert gate.check_golden(GOLDEN, [PREDICTIONS]) == GateCheck(
        "endpoint_agrees_with_offline", True, "All 1 golden requests are answered as offline.", 0.0
    )
    reversed_order = [{**PREDICTIONS[0], "skus": ["b", "a"], "scores": [0.5, 0.9]}]
    refused = gate.check_golden(GOLDEN, [reversed_order])
    assert not refused.passed
    assert "request 0, prediction 0: rank 2, product a" in refused.description
    assert not gate.check_golden(GOLDEN, []).passed
    assert not gate.check_golden([], []).passed


def test_baselines_must_be_beaten_not_equalled():
    popularity, session = gate.check_recommendation_baselines(0.25, 0.25, 0.2)
    assert (popularity.name, popularity.passed) == ("beats_popularity", False)
    assert popularity.description == "The model does not beat popularity: MRR@20 0.2500 against 0.2500."
    assert (session.name, session.passed, session.value) == ("beats_session_popularity", True, pytest.approx(0.05))
    assert not gate.check_intent_baseline(float("nan"), 0.2)[0].passed
    assert (
        gate.check_intent_baseline(0.3, 0.2)[0].description
        == "The model beats base rate: PR-AUC 0.3000 against 0.2000."
    )


def test_one_event_must_not_turn_a_list_over():
    steady = gate.check_steadiness({"repeated": 0.9, "removed": 0.25})
    assert (steady.name, steady.passed, steady.value) == ("lists_are_steady", True, 0.25)
    assert steady.description == (
        "Of a list stays 90% with an event repeated and 25% with an event removed; at least 25% must."
    )
    assert not gate.check_steadiness({"repeated": 0.9, "removed": 0.24}).passed
    assert gate.check_steadiness({"repeated": 0.9, "removed": None}).passed
    assert not gate.check_steadiness({"repeated": None, "removed": None}).passed


def test_the_data_set_must_carry_passed_checks():
    def check(name, passed, blocking=True):
        return {"name": name, "passed": passed, "blocking": blocking, "description": f"{name} says so."}

    assert gate.check_dataset("intent_dataset", "v1", [check("a", True), check("warns", False, blocking=False)]).passed
    failed = gate.check_dataset("intent_dataset", "v1", [check("a", True), check("no_leak", False)])
    assert not failed.passed
    assert "no_leak: no_leak says so." in failed.description
    assert not gate.check_dataset("intent_dataset", "v1", []).passed
    assert not gate.check_dataset("intent_dataset", "v1", [check("warns", True, blocking=False)]).passed


def test_a_bundle_from_other_data():
    assert gate.check_data_versions({"intent_dataset": "v1", "more": "x"}, {"intent_dataset": "v1"}).passed
    other = gate.check_data_versions({"intent_dataset": "v1"}, {"intent_dataset": "v2"})
    assert not other.passed
    assert "intent_dataset v1 instead of v2" in other.description
    assert not gate.check_data_versions({}, {"intent_dataset": "v2"}).passed


@pytest.mark.parametrize(
    ("low", "high", "winner"),
    [(0.001, 0.1, "candidate"), (0.0, 0.1, "incumbent"), (-0.01, 0.1, "incumbent"), (-0.2, -0.1, "incumbent")],
)
def test_another_configuration_needs_an_interval_clear_of_zero(low, high, winner):
    choice = gate.choose_configuration(comparison(low, high))
    assert choice.winner == winner
    assert f"[{low:+.4f}, {high:+.4f}]" in choice.sentence


def test_the_first_candidate_is_chosen():
    assert gate.choose_configuration(None).winner == "candidate"


@pytest.mark.parametrize(
    ("low", "passed"), [(0.01, True), (0.0, True), (-0.00499, True), (-0.005, True), (-0.0051, False)]
)
def test_a_refresh_may_lose_two_percent_at_the_lower_bound(low, passed):
    """The incumbent has 0.25: 2 % of it are 0.005."""
    check = gate.check_not_worse(comparison(low))
    assert check.passed is passed
    assert check.value == pytest.approx(low)


def test_without_new_days_the_baselines_decide():
    for nothing in (None, comparison(-0.2, days=0)):
        check = gate.check_not_worse(nothing)
        assert check.passed
        assert "the baselines decide" in check.description


def test_an_unbounded_interval_promotes_nothing():
    one_example = paired_interval(np.array([1.0]), np.array([0.5]), ["one session"])
    assert one_example.low == -np.inf
    check = gate.check_not_worse(Comparison("MRR@20", 1.0, 0.5, one_example, 1))
    assert (check.passed, check.value) == (False, None)


def test_require_gives_every_reason():
    checks = [GateCheck("a", True, "Fine."), GateCheck("b", False, "Too low."), GateCheck("c", False, "Too old.")]
    with pytest.raises(GateRefused) as refusal:
        gate.require(checks, "The kNN")
    assert refusal.value.message == "The kNN is not promoted:\n  - Too low.\n  - Too old."
    assert refusal.value.exit_code == 3
    gate.require(checks[:1])
    with pytest.raises(GateRefused, match="No check ran"):
        gate.require([])
