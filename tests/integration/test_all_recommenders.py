"""A whole run on top of ``make run``'s: LSTM, ProdB, hybrid come in and compete with the kNN that serves."""

import json

import pytest
from whole_shop import cli

from bigger_boat.ml.bundle import read_bundle
from bigger_boat.ml.recommender_kinds import KINDS

pytestmark = pytest.mark.slow


def test_a_run_of_everything_adds_the_candidates_and_serves_the_best(shop):
    before = shop.current("recommendation")
    code, said = cli(shop.root, "run", "--size", "quick")
    assert code == 0, said
    assert all(f"✓ {kind}_recommender" in said for kind in ("lstm", "prodb", "hybrid")), said
    assert "✓ intent_model" not in said

    report = json.loads((shop.folder("recommender_leaderboard") / "report.json").read_text())
    mrr = {split: {name: row["mrr"] for name, row in report[split].items()} for split in ("validation", "test")}
    for scores in mrr.values():
        assert all(scores[kind] > scores["popularity"] for kind in KINDS), scores
        assert scores["hybrid"] > scores["session_popularity"], scores
    assert "left out" not in report["chosen"]["reason"]

    champion = read_bundle(shop.folder("recommendation_champion"))
    chosen, serves = report["chosen"]["asset"], read_bundle(shop.host.serving_bundle("recommendation"))
    assert champion.info["candidate"]["asset"] == chosen
    kept = "The incumbent's configuration is kept" in champion.info["candidate"]["reason"]
    assert champion.kind == ("knn" if kept else chosen.removesuffix("_recommender"))
    assert serves.version == champion.version == shop.current("recommendation") != before
    assert shop.plan().empty
