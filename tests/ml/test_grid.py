"""Grids and their comparison, by hand."""

import pytest

from bigger_boat.ml.grid import comparison, configurations


def test_every_combination_has_a_name_that_tells_it():
    assert configurations({"units": (16, 32), "dropout": (0.1, 0.3)}) == {
        "units_16-dropout_0.1": {"units": 16, "dropout": 0.1},
        "units_16-dropout_0.3": {"units": 16, "dropout": 0.3},
        "units_32-dropout_0.1": {"units": 32, "dropout": 0.1},
        "units_32-dropout_0.3": {"units": 32, "dropout": 0.3},
    }
    with pytest.raises(ValueError, match="units_1"):
        configurations({"units": (1, "1")})


def result(name: str, loss: float, dataset: str = "now") -> dict:
    return {"name": name, "parameters": {"units": 8}, "scores": {"log_loss": loss}, "dataset": dataset}


def test_the_best_stands_first_and_other_data_behind():
    rows = comparison(
        [result("b", 0.5), result("old", 0.1, "before"), result("c", 0.4), result("a", 0.5)], "log_loss", "now"
    )
    assert [(row["configuration"], row["log_loss"], row["data"]) for row in rows] == [
        ("c", 0.4, "this"),
        ("a", 0.5, "this"),
        ("b", 0.5, "this"),
        ("old", 0.1, "older"),
    ]
    assert comparison([], "log_loss", "now") == []
