"""``bigger-boat run --as-of``: what a day's end had is made again, apart, whatever was corrected since."""

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from forked_cli import ForkedCli
from whole_shop import Shop, environment, make_source

from bigger_boat.data.dataset_manifest import read_manifest
from bigger_boat.data.landing import land
from bigger_boat.data.landing_index import files_for

DATASETS = "+recommendation_dataset or +intent_dataset"
LANDED, CORRECTED = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 5, tzinfo=UTC)
BETWEEN = "2026-11-03"
DAY = date(2026, 10, 25)


@pytest.fixture(scope="module")
def forked(tmp_path_factory) -> Iterator[ForkedCli]:
    cli = ForkedCli(environment(tmp_path_factory.mktemp("forked")))
    yield cli
    cli.close()


@pytest.fixture(scope="module")
def corrected(forked, tmp_path_factory) -> Path:
    """A small shop with its data sets; then a day was corrected, its tables not made again."""
    folder = tmp_path_factory.mktemp("corrected")
    root = folder / "data"
    source = make_source(folder / "source", sessions=1_500, days=7, products=120)
    land(source, root / "landing", now=LANDED)
    code, said = forked.run(root, "run", "--select", DATASETS)
    assert code == 0, said
    correct(root, folder / "correction")
    return root


def correct(root: Path, folder: Path) -> None:
    """Land a day's browsing again on 2026-11-05, without every third session."""
    [file] = files_for(root / "landing", "browsing", DAY)
    rows = pl.read_parquet(file).filter(pl.col("session_id_hash").hash(seed=0) % 3 > 0)
    folder.mkdir()
    rows.drop("event_id", "request_id").write_csv(folder / "browsing_train.csv")
    land(folder, root / "landing", replace=(DAY, DAY), now=CORRECTED)


def manifest(root: Path, name: str):
    address = json.loads((root / "addresses" / f"{name}.json").read_text())["address"]
    return read_manifest(root / address)


def test_data_sets_are_those_of_that_day(corrected, forked):
    code, said = forked.run(corrected, "run", "--as-of", BETWEEN, "--select", DATASETS)
    assert code == 0, said
    past = corrected / "as-of" / BETWEEN
    assert f"As of the end of {BETWEEN} (UTC), in {past}; nothing is published." in said
    for name in ("intent_dataset", "recommendation_dataset"):
        now, then = manifest(corrected, name), manifest(past, name)
        assert then.data_version == now.data_version
        assert (then.days, then.inputs, then.rows) == (now.days, now.inputs, now.rows)
    assert not (past / "endpoints").exists()
    assert all((past / "landing" / table).is_symlink() for table in ("browsing", "search", "catalog"))
    code, said = forked.run(corrected, "run", "--as-of", BETWEEN, "--select", DATASETS)
    assert code == 0
    assert "Everything selected is up to date" in said


def test_a_later_day_has_the_correction_and_the_present_is_untouched(corrected, forked):
    before = {name: manifest(corrected, name) for name in ("intent_dataset", "recommendation_dataset")}
    code, said = forked.run(corrected, "run", "--as-of", "2026-11-05", "--select", DATASETS)
    assert code == 0, said
    past = corrected / "as-of" / "2026-11-05"
    was, then = before["recommendation_dataset"], manifest(past, "recommendation_dataset")
    assert {name.split("/")[1] for name in was.inputs if was.inputs[name] != then.inputs[name]} == {
        *("2026-10-24", "2026-10-25", "2026-10-26")
    }
    assert sum(then.rows.values()) < sum(was.rows.values())
    assert {name: manifest(corrected, name) for name in before} == before


@pytest.mark.parametrize(
    ("day", "arguments", "code", "told"),
    [
        ("2999-01-01", (), 2, "2999-01-01 is not over yet (UTC)."),
        ("2026-10-31", (), 1, "Nothing had landed by the end of 2026-10-31."),
        (BETWEEN, ("--select", "recommendation_endpoint"), 2, "A past state is never published."),
    ],
)
def test_what_cannot_be_made(corrected, forked, day, arguments, code, told):
    ended, said = forked.run(corrected, "run", "--as-of", day, *arguments)
    assert ended == code, said
    assert told in said
    assert "What to do: " in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_models_and_champions_are_those_of_that_day(snapshot, forked, tmp_path):
    root = Path(shutil.copytree(snapshot, tmp_path / "shop"))
    correct(root, tmp_path / "correction")
    code, said = forked.run(root, "run", "--as-of", BETWEEN, "--select", "+intent_champion,+recommendation_champion")
    assert code == 0, said
    now, then = Shop(root), Shop(root / "as-of" / BETWEEN)
    for asset in ("intent_model", "knn_recommender", "intent_champion", "recommendation_champion"):
        ours, theirs = (json.loads((shop.folder(asset) / "golden.json").read_text()) for shop in (then, now))
        assert [entry["request"] for entry in ours] == [entry["request"] for entry in theirs]
        assert np.allclose(scores(ours), scores(theirs), rtol=0, atol=1e-3)
    assert {version(then, name) for name in DATASETS.replace("+", "").split(" or ")} == {
        version(now, name) for name in DATASETS.replace("+", "").split(" or ")
    }
    now.instance.dispose()
    then.instance.dispose()


def version(shop: Shop, dataset: str) -> str:
    return read_manifest(shop.folder(dataset)).data_version


def scores(golden: list[dict]) -> list[float]:
    """Every score and probability, in order."""
    answers = [answer for entry in golden for answer in entry["predictions"]]
    return [score for answer in answers for score in answer.get("scores", [answer.get("purchase_probability", 0.0)])]
