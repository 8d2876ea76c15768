"""``bigger-boat run --as-of``: what a day's end had is made again, apart, whatever was corrected since; ``forget``."""

import json
import random
import shutil
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import polars as pl
import pytest
from whole_shop import make_source

sys.path.insert(0, str(Path(__file__).parent.parent / "data"))  # importlib mode puts no test folder on the path

from prediction_lines import line, write_log

from bigger_boat.data.dataset_manifest import read_manifest
from bigger_boat.data.landing import land
from bigger_boat.data.landing_index import files_for
from bigger_boat.ml.bundle import Bundle, read_bundle
from bigger_boat.ml.golden import compare_golden

DATASETS = "+recommendation_dataset or +intent_dataset"
MODELS = ("intent_model", "intent_champion", "knn_recommender")
WITH_MODELS = "+intent_champion or +knn_recommender"
LANDED, CORRECTED = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 5, tzinfo=UTC)
BETWEEN = "2026-11-03"
DAY = date(2026, 10, 25)


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def corrected(made_once, forked, tmp_path_factory) -> Path:
    """A small shop with its data sets and models; then a training day was corrected, nothing made again."""

    def make(folder: Path) -> None:
        source = make_source(folder / "source", sessions=900, days=5, products=60)
        land(source, folder / "data" / "landing", now=LANDED)
        code, said = forked.run(folder / "data", "run", "--select", WITH_MODELS)
        assert code == 0, said
        correct(folder / "data", folder / "correction")

    made = made_once("corrected", make)
    return Path(shutil.copytree(made / "data", tmp_path_factory.mktemp("corrected") / "data"))


def correct(root: Path, folder: Path) -> None:
    """Land a day's browsing again on 2026-11-05, without every third session."""
    [file] = files_for(root / "landing", "browsing", DAY)
    rows = pl.read_parquet(file).filter(pl.col("session_id_hash").hash(seed=0) % 3 > 0)
    folder.mkdir()
    rows.drop("event_id", "request_id").write_csv(folder / "browsing_train.csv")
    land(folder, root / "landing", replace=(DAY, DAY), now=CORRECTED)


def folder_of(root: Path, asset: str) -> Path:
    return root / json.loads((root / "addresses" / f"{asset}.json").read_text())["address"]


def manifest(root: Path, name: str):
    return read_manifest(folder_of(root, name))


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


def test_bundles_are_those_of_that_day(corrected, forked):
    code, said = forked.run(corrected, "run", "--as-of", BETWEEN, "--select", WITH_MODELS)
    assert code == 0, said
    past = corrected / "as-of" / BETWEEN
    for name in MODELS:
        now, then = (read_bundle(folder_of(root, name)) for root in (corrected, past))
        assert then.version != now.version  # fitted again, not copied
        assert trained_on(past, then) == trained_on(corrected, now)
        for same in ("training_window", "configuration"):
            assert then.info[same] == now.info[same]
        for ours, theirs in zip(then.golden, now.golden, strict=True):
            assert ours["request"] == theirs["request"]
            assert compare_golden(theirs["predictions"], ours["predictions"], tolerance=1e-3) == []


def trained_on(root: Path, bundle: Bundle) -> dict[str, str]:
    """Return the data version of each data set that a bundle names."""
    versions = bundle.info["data_versions"]
    return {name: read_manifest(root / "datasets" / name / version).data_version for name, version in versions.items()}


@pytest.fixture(scope="module")
def past(corrected, forked) -> Path:
    """The data folder of the state as of the correction."""
    code, said = forked.run(corrected, "run", "--as-of", "2026-11-05", "--select", DATASETS)
    assert code == 0, said
    return corrected / "as-of" / "2026-11-05"


def test_a_later_day_has_the_correction_and_the_present_is_untouched(corrected, past):
    was, then = manifest(corrected, "recommendation_dataset"), manifest(past, "recommendation_dataset")
    assert {name.split("/")[1] for name in was.inputs if was.inputs[name] != then.inputs[name]} == {
        *("2026-10-24", "2026-10-25", "2026-10-26")
    }
    assert sum(then.rows.values()) < sum(was.rows.values())


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


@pytest.fixture
def copied(corrected, past, tmp_path) -> tuple[Path, str]:
    """A copy to change, and a session of it that is in both data sets and in its past."""
    root = Path(shutil.copytree(corrected, tmp_path / "data", symlinks=True))
    session = min(dataset_sessions(past, "intent_dataset") & dataset_sessions(past, "recommendation_dataset"))
    return root, session


def dataset_sessions(root: Path, name: str) -> set[str]:
    return {session for file in folder_of(root, name).glob("*.parquet") for session in ids_in(file, "session_id")}


def ids_in(file: Path, column: str) -> list[str]:
    frame = pl.read_parquet(file)
    return frame[column].to_list() if column in frame.columns else []


def assert_forgotten(root: Path, session: str, past: Path) -> None:
    """The session is nowhere that it should not be; the other sessions are those of the undisturbed past."""
    for file in [*root.glob("landing/**/*.parquet"), *root.glob("datasets/**/*.parquet")]:
        assert session not in ids_in(file, "session_id_hash") + ids_in(file, "session_id"), file
    for folder in ("landing", "datasets", "dbt", "addresses"):
        assert not [p for p in (root / folder).rglob("*") if p.is_file() and session.encode() in p.read_bytes()]
    assert session.encode() not in (root / "warehouse.duckdb").read_bytes()
    assert not [*root.glob("as-of/*")]
    assert not (root / "forgetting.json").exists()
    with duckdb.connect(str(root / "warehouse.duckdb"), read_only=True) as connection:
        left = connection.execute("select count(*) from stg_browsing where session_id = ?", [session]).fetchone()[0]
        rows = connection.execute("select * exclude (event_id, request_id) from stg_browsing").pl()
    assert left == 0
    with duckdb.connect(str(past / "warehouse.duckdb"), read_only=True) as connection:
        before = connection.execute("select * exclude (event_id, request_id) from stg_browsing").pl()
    columns = before.columns
    assert rows.sort(columns).equals(before.filter(pl.col("session_id") != session).sort(columns))
    for name in ("intent_dataset", "recommendation_dataset"):
        assert dataset_sessions(root, name) == dataset_sessions(past, name) - {session}
        assert len([*root.glob(f"datasets/{name}/*")]) == 1


def with_golden(root: Path, session: str) -> None:
    """Let a bundle's golden request be the products that the session looked at."""
    with duckdb.connect(str(root / "warehouse.duckdb"), read_only=True) as connection:
        query = "select sku, timestamp_ms from distinct_events where session_id = ? and sku <> ''"
        rows = connection.execute(query, [session]).fetchall()
    events = [{"action": "detail", "sku": sku, "timestamp_ms": at} for sku, at in rows]
    golden = [{"request": {"sessions": [["another"], events]}, "predictions": []}]
    (root / "bundles" / "intent_model" / "with_it" / "bundle" / "golden.json").write_text(json.dumps(golden))


def test_forget_leaves_no_trace_and_names_what_was_trained(copied, past, forked):
    root, session = copied
    version = folder_of(root, "intent_dataset").name
    for name, dataset in (("with_it", version), ("without", "20250101T000000-00000000")):
        bundle = root / "bundles" / "intent_model" / name / "bundle" / "bundle.json"
        bundle.parent.mkdir(parents=True)
        bundle.write_text(json.dumps({"info": {"data_versions": {"intent_dataset": dataset}}}))
    with_golden(root, session)
    log = write_log(root / "predictions", DAY.isoformat(), line("r-1", session_id=session), line("r-2"))
    code, said = forked.run(root, "forget", session, "nobody")
    assert code == 0, said
    assert "nobody is in no file, table, data set or answer: unknown, or forgotten already." in said
    assert "1 in the log of answers" in said
    assert "1 rows left the log of answers." in said
    assert [json.loads(row)["request_id"] for row in log.read_text().splitlines()] == ["r-2"]
    assert "golden requests hold events of these sessions: bundles/intent_model/with_it/bundle" in said
    assert f"{session}: " in said
    assert "trained on data with these sessions: bundles/intent_model/with_it/bundle" in said
    assert "without/bundle" not in said
    assert_forgotten(root, session, past)

    code, said = forked.run(root, "forget", session)
    assert code == 1
    assert "None of these sessions is here." in said


@pytest.mark.parametrize("seed", range(3))
def test_forget_killed_at_a_random_moment_is_finished_by_the_same_command(copied, past, forked, seed):
    root, session = copied
    chance = random.Random(seed)
    for trace in ("rows landed", "left the landing zone", "✓ sessions")[seed:]:
        killed = forked.start(root, "forget", session).kill_after(lambda run, t=trace: t in run.said, 2, chance)
        if killed and (root / "forgetting.json").exists():
            break
    code, said = forked.run(root, "forget", session)
    assert code == 0 or "None of these sessions is here." in said, said
    assert_forgotten(root, session, past)
