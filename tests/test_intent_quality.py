"""The judgement of docs/intent_quality.py on numbers made by hand, and its data on a small shop."""

import argparse
import importlib.util
from datetime import date

import numpy as np
import polars as pl
import pytest

from bigger_boat.settings import PROJECT_DIR

spec = importlib.util.spec_from_file_location("intent_quality", PROJECT_DIR / "docs" / "intent_quality.py")
quality = importlib.util.module_from_spec(spec)
spec.loader.exec_module(quality)


def test_the_gap_closed_by_hand():
    """Two buyers, two others. Truth orders all 4 pairs, counts none the right way (0 of 4), the LSTM 3 of 4."""
    scores = {
        quality.TRUTH: [0.9, 0.8, 0.2, 0.1],
        quality.COUNTS: [0.1, 0.2, 0.8, 0.9],
        quality.LSTM: [0.9, 0.3, 0.4, 0.1],
        quality.TREES: [0.5, 0.5, 0.5, 0.5],
        quality.FEATURE_TREES: [0.9, 0.8, 0.2, 0.1],
        "base rate": [0.5] * 4,
    }
    test = pl.DataFrame(
        {
            "session_id": list("abcd"),
            "session_date": [date(2026, 1, 1)] * 4,
            "cut": [0, 0, 0, 0],
            "label": [True, True, False, False],
            **scores,
        }
    )
    found = quality.judged(test)
    assert {name: round(value.value, 6) for name, value in found["gap_closed"].items()} == {
        quality.LSTM: 0.75,
        quality.TREES: 0.5,
        quality.FEATURE_TREES: 1.0,
    }
    assert found["above"][quality.TREES].value == pytest.approx(0.25)
    assert found["above"][quality.FEATURE_TREES].value == pytest.approx(-0.25)
    assert found["models"][quality.LSTM]["by_cut"][0]["auc"] == 0.75
    assert np.isnan(found["models"][quality.LSTM]["by_cut"][2]["auc"])
    page = quality.page({**found, "sessions": 4, "shop": "x", "days": 1, "products": 2, "seed": 1, "carts": 4})
    assert "| LSTM | 0.7500 | 75.0% (" in page


def test_every_example_of_a_shop_has_its_truth(tmp_path):
    asked = argparse.Namespace(shop="yoochoose", sessions=4_000, days=7, products=200, seed=2, embedding_epochs=1)
    frames, embeddings = quality.prepared(tmp_path, asked)
    assert {name: frame["session_date"].n_unique() for name, frame in frames.items()} == {
        "train": 5,
        "validation": 1,
        "test": 1,
    }
    everything = pl.concat(frames.values())
    assert everything["probability"].is_between(0, 1).all()
    bought, likely = everything["label"].to_numpy(), everything["probability"].to_numpy()
    assert likely[bought].mean() > likely[~bought].mean() + 0.05
    assert 50 < len(embeddings.skus) <= 200
    again, _ = quality.prepared(tmp_path, asked)
    assert all(again[name].equals(frame) for name, frame in frames.items())
