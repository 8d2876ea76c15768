"""The benchmark's split, protocol and table, on a few made sessions."""

import json
from math import log2

import numpy as np
import pytest

from bigger_boat.data.session_files import ClickSessions
from bigger_boat.errors import DatasetError
from bigger_boat.ml.benchmark import Benchmark, report, split_by_time, write_result
from bigger_boat.ml.hybrid_recommender import HybridConfig
from bigger_boat.ml.lstm_recommender import LstmConfig
from bigger_boat.ml.prod2vec import Prod2VecConfig
from bigger_boat.ml.prodb_recommender import ProdbConfig

FAST = {
    "prod2vec": Prod2VecConfig(dim=4, epochs=1),
    "lstm": LstmConfig(units=4, epochs=1, batch_size=16),
    "prodb": ProdbConfig(units=4, layers=1, epochs=1, batch_size=16),
    "hybrid": HybridConfig(judged_predictions=50),
}
CANDIDATES = ["knn_recommender", "lstm_recommender", "prodb_recommender", "hybrid_recommender"]
LADDER = ["popularity", "session_popularity", "prod2vec_mean", "prod2vec_last", "markov", "sequential_rules"]
NEIGHBOURS = ["sknn", "vsknn", "vstan"]


def sessions_of(*items):
    return ClickSessions([list(each) for each in items], np.arange(len(items), dtype=np.float64))


def test_the_last_sessions_are_for_testing():
    train, test = split_by_time(sessions_of(*["ab"] * 17, "cd", "ef", "gh"))
    assert len(train) == 17
    assert test.items == [["c", "d"], ["e", "f"], ["g", "h"]]
    assert test.ended_s.tolist() == [17.0, 18.0, 19.0]
    assert [len(part) for part in split_by_time(sessions_of("ab", "cd"))] == [1, 1]


def test_one_session_cannot_be_split():
    with pytest.raises(DatasetError, match="Two sessions at least"):
        split_by_time(sessions_of("ab"))


def test_items_new_to_training_are_left_out_of_the_test_sessions():
    benchmark = Benchmark(sessions_of("abc", "ab"), sessions_of("axb", "cx", "ba"), **FAST)
    assert list(benchmark.test) == [["a", "b"], ["b", "a"]]
    assert benchmark.run(candidates=False)["split"] == {
        "training_sessions": 2,
        "training_clicks": 5,
        "items": 3,
        "test_sessions": 2,
        "test_clicks_of_unknown_items": 2,
        "predictions": 2,
    }


def test_without_a_prediction_there_is_nothing_to_measure():
    with pytest.raises(DatasetError, match="No test session"):
        Benchmark(sessions_of("ab", "ab"), sessions_of("ax", "b"), **FAST)


def measured() -> tuple[dict, list[tuple]]:
    """Return the result of every method on a few clicks, and what was told on the way."""
    train, steps = sessions_of(*["ab", "bc", "ca", "abc"] * 10), []
    result = Benchmark(train, sessions_of("ab", "bca"), **FAST).run(progress=lambda *step: steps.append(step))
    return result, steps


@pytest.fixture(scope="module")
def measured_once() -> tuple[dict, list[tuple]]:
    return measured()


def test_every_method_is_measured_beside_the_others(measured_once):
    result, steps = measured_once
    assert [row["recommender"] for row in result["results"]] == [*LADDER, *NEIGHBOURS, *CANDIDATES]
    assert [step[0] for step in steps] == [*LADDER, *NEIGHBOURS, *CANDIDATES]
    assert {row["kind"] for row in result["results"][:-4]} == {"ladder"}
    assert {row["kind"] for row in result["results"][-4:]} == {"candidate"}
    peers = [(row["recommender"], row["peer"]) for row in result["differences"]]
    assert peers[:3] == [("knn_recommender", peer) for peer in ("popularity", "vsknn", "vstan")]
    assert [peer for name, peer in peers if name == "hybrid_recommender"] == [
        "popularity",
        "vsknn",
        "vstan",
        "knn_recommender",
    ]
    assert json.loads(json.dumps(result)) == result

    # counts: a 30, b 30, c 30, so popularity always says a, b, c; targets b, c, a are at 2, 3, 1
    popularity = result["results"][0]
    assert popularity["hit_rate"] == 1
    assert popularity["mrr"] == pytest.approx((1 / 2 + 1 / 3 + 1) / 3)
    assert popularity["ndcg"] == pytest.approx((1 / log2(3) + 1 / 2 + 1) / 3)
    assert popularity["mrr_low"] <= popularity["mrr"] <= popularity["mrr_high"]

    # after a comes b, after b c, after c a: Markov knows
    markov = result["results"][LADDER.index("markov")]
    assert (markov["hit_rate"], markov["mrr"], markov["ndcg"]) == (1, 1, 1)
    text = report(result)
    assert "90 clicks of 40 training sessions on 3 items; 3 predictions in 2 test sessions" in text
    assert all(name in text for name in (*LADDER, *NEIGHBOURS, "hybrid_recommender minus vsknn"))


def test_the_same_clicks_give_the_same_figures(measured_once):
    def figures(result):
        return [{name: value for name, value in row.items() if name != "cpu_s"} for row in result["results"]]

    assert figures(measured()[0]) == figures(measured_once[0])


def test_a_result_is_written_whole_or_not_at_all(tmp_path):
    write_result({"k": 20}, tmp_path / "result.json")
    assert json.loads((tmp_path / "result.json").read_text()) == {"k": 20}
    (tmp_path / "folder").mkdir()
    with pytest.raises(DatasetError, match="cannot be written"):
        write_result({"k": 20}, tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "result.json"]
