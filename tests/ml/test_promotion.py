"""The promotion rule: which configuration becomes the champion."""

import json
from dataclasses import asdict
from datetime import date
from pathlib import Path

import pytest

from bigger_boat.errors import GateRefused
from bigger_boat.ml.bundle import Bundle
from bigger_boat.ml.gate import Comparison, GateCheck, require
from bigger_boat.ml.hybrid_recommender import HybridConfig
from bigger_boat.ml.intent_model import IntentConfig
from bigger_boat.ml.intent_task import IntentTask
from bigger_boat.ml.intervals import Interval
from bigger_boat.ml.lstm_recommender import LstmConfig
from bigger_boat.ml.prod2vec import Prod2VecConfig
from bigger_boat.ml.promotion import decide
from bigger_boat.ml.recommendation_task import RecommendationTask
from bigger_boat.ml.recommender_kinds import configuration_of

PROD2VEC = asdict(Prod2VecConfig.quick())
INTENT = IntentTask.configuration_of(IntentConfig.quick(), PROD2VEC)
GOOD = [GateCheck("good", True, "It is good.")]


class Asked:
    """A task that notes what it is asked, and compares by ``low``, the lower bound of the difference."""

    def __init__(self, low, current=IntentTask.current):
        self.low, self.current, self.asked = low, current, []

    def load(self, bundle):
        return bundle.version

    def fit_configuration(self, configuration):
        self.asked.append(("fitted", configuration))
        return "refitted", {"epochs": 2}

    def compare(self, candidate, incumbent, after=None):
        self.asked.append((candidate, incumbent, after))
        return Comparison("PR-AUC", 0.5, 0.4, Interval(0.1, self.low, 0.2, 9), 3)


def bundle(version, configuration):
    info = {"configuration": json.loads(json.dumps(configuration)), "chosen": {"epochs": 1}}
    return Bundle(Path(), 1, "intent", "lstm", version, "", info | {"refit": {"last": "2026-10-28"}}, {}, [])


def with_model(**changes):
    return INTENT | {"model": INTENT["model"] | changes}


@pytest.mark.parametrize("theirs", [INTENT, with_model(jit=True)])
def test_the_same_configuration_must_not_be_worse_on_days_that_are_new(theirs):
    """An incumbent of older code names an option that is gone: it is the same configuration all the same."""
    task = Asked(low=-0.001)
    decision = decide(task, bundle("new", INTENT), bundle("old", theirs), GOOD, require)
    assert task.asked == [("new", "old", date(2026, 10, 28))]
    assert (decision.configuration, decision.chosen) == (INTENT, {"epochs": 1})
    assert [check.name for check in decision.checks] == ["good", "not_worse_than_incumbent"]
    with pytest.raises(GateRefused, match="may not replace"):
        decide(Asked(low=-0.3), bundle("new", INTENT), bundle("old", theirs), GOOD, require)


@pytest.mark.parametrize(("low", "chosen"), [(0.01, {"epochs": 1}), (-0.01, {"epochs": 2})])
def test_another_configuration_must_be_clearly_better_on_the_same_days(low, chosen):
    theirs = with_model(units=7)
    task = Asked(low)
    decision = decide(task, bundle("new", INTENT), bundle("old", with_model(units=7, jit=False)), GOOD, require)
    assert task.asked == [("fitted", theirs), ("new", "refitted", None)]
    assert (decision.configuration, decision.chosen) == (INTENT if low > 0 else theirs, chosen)


def test_nothing_serves_yet_and_a_bad_candidate_is_never_compared():
    decision = decide(Asked(0.0), bundle("new", INTENT), None, GOOD, require)
    assert (decision.configuration, decision.chosen, decision.checks) == (INTENT, {"epochs": 1}, tuple(GOOD))
    task = Asked(0.0)
    with pytest.raises(GateRefused, match="It is bad"):
        decide(task, bundle("new", INTENT), None, [GateCheck("bad", False, "It is bad.")], require)
    assert not task.asked


def test_a_setting_that_older_code_did_not_know_has_its_default():
    hybrid = HybridConfig(without=("near",))
    written = json.loads(json.dumps(configuration_of("hybrid", PROD2VEC, lstm=LstmConfig(), hybrid=hybrid)))
    assert RecommendationTask.current(written) == written
    older = {**written, "lstm": {name: value for name, value in written["lstm"].items() if name != "forget_times"}}
    assert RecommendationTask.current(older) == written
    assert RecommendationTask.current({**written, "lstm": {**written["lstm"], "units": 9}}) != written
