"""A bundle that was frozen in the repository stays readable, and answers as it did when it was written."""

from pathlib import Path

import pytest

from bigger_boat.errors import BundleError
from bigger_boat.ml import bundle as module
from bigger_boat.serving.predictor import Predictor
from bigger_boat.serving.server import replay_golden

FROZEN = Path(__file__).resolve().parent.parent / "fixtures" / "bundle-contract-1"
"""Written on 2026-11-25 by contract version 1. Never write it again: a new contract gets a bundle of its own."""


def test_the_frozen_bundle_serves_today():
    predictor = Predictor.load(FROZEN)
    assert predictor.bundle.contract_version == 1
    replay_golden(predictor)


def test_the_frozen_bundle_serves_when_its_contract_is_the_one_before(monkeypatch):
    monkeypatch.setattr(module, "CONTRACT_VERSION", 2)
    monkeypatch.setattr(module, "OLDEST_CONTRACT_VERSION", 1)
    replay_golden(Predictor.load(FROZEN))


@pytest.mark.parametrize(("newest", "oldest", "hint"), [(3, 2, "Materialize the model again"), (0, 0, "Update")])
def test_any_other_contract_is_refused_with_what_to_do(monkeypatch, newest, oldest, hint):
    monkeypatch.setattr(module, "CONTRACT_VERSION", newest)
    monkeypatch.setattr(module, "OLDEST_CONTRACT_VERSION", oldest)
    with pytest.raises(BundleError, match="follows contract version 1") as refused:
        Predictor.load(FROZEN)
    assert refused.value.hint.startswith(hint)
