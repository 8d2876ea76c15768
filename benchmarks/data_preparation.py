"""How fast a shop's files become data sets, stage by stage, beside row-by-row pandas.

python benchmarks/data_preparation.py --events 200000 1000000 5000000 --write    # the table in docs/performance.md, too

The commands are the real ones, each a fresh process with all checks. Their stages are told apart by the times of
Dagster's steps. The peer makes the same intent examples (checked, row by row) at the largest size up to a million.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import polars as pl

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from _measure import Measured, commit, machine, measure, print_result  # noqa: E402

from bigger_boat.data.landing_index import read_index  # noqa: E402
from bigger_boat.data.vocabulary import SPLITS  # noqa: E402

PAGE = ROOT / "docs" / "performance.md"
EVENTS_PER_SESSION = 7.5
MANY = 10_000_000
"""From so many events on, the shop has 91 days and 60,000 products, as the challenge has; below 28 and 20,000."""
LAST_DAY = date(2026, 6, 28)
DAY_MS = 86_400_000
SELECTION = "+intent_dataset,+recommendation_dataset"
WAREHOUSE_DAYS = ("stg_browsing", "stg_search", "distinct_events", "session_stats", "sessions", "cart_sessions")
STAGES = ("land", "raw", "warehouse", "data sets", "checks", "around", "all")
"""``checks``: steps that only check; ``around``: process start, planning, what Dagster writes between steps."""

PEERS = {
    "session_by_session": "row-by-row pandas (groupby, iterrows)",
    "in_one_pass": "one pass over pandas rows (itertuples)",
}


@dataclass
class Size:
    """What was measured at one size."""

    events: int
    stages: dict[str, Measured] = field(default_factory=dict)
    set_work: dict[str, float] = field(default_factory=dict)
    peers: dict[str, dict] = field(default_factory=dict)

    def rate(self, stage: str) -> float:
        return self.events / self.stages[stage].wall_s


def main() -> None:
    """Measure every size, print results and table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, nargs="+", default=[200_000, 1_000_000])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shops", type=Path, help="a folder that keeps simulated shops, to be measured again")
    parser.add_argument("--set-work-up-to", type=int, default=5_000_000, help="set work is not taken apart above")
    parser.add_argument("--peer-up-to", type=int, default=1_000_000, help="the peer is too slow for more events")
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    options = parser.parse_args()
    with_peer = max((events for events in options.events if events <= options.peer_up_to), default=0)
    sizes = []
    for events in sorted(options.events):
        with tempfile.TemporaryDirectory(prefix="bigger-boat-bench-") as folder:
            sizes.append(measure_size(Path(folder), events, options, events == with_peer))
        print_size(sizes[-1], sizes[0])
    print(f"\n{table(sizes)}")
    if options.write:
        write_page(sizes)


# -- the real commands


def measure_size(folder: Path, events: int, options: argparse.Namespace, with_peer: bool) -> Size:
    """Simulate a shop, land it, make both data sets, and let the peer do the same."""
    data_dir = folder / "data"
    environment = {"BIGGER_BOAT_DATA_DIR": str(data_dir)}
    shop = simulated(events, options.seed, options.shops or folder, environment)
    landed = measure([*boat(), "land", str(shop)], environment)
    size = Size(
        sum(day.rows["browsing"] + day.rows.get("search", 0) for day in read_index(data_dir / "landing").days.values())
    )
    ran = measure([*boat(), "run", "--select", SELECTION], environment)
    peak = max(landed.peak_mib, ran.peak_mib)
    size.stages = {
        "land": landed,
        **stages_of(ran, data_dir),
        "all": Measured(landed.wall_s + ran.wall_s, landed.cpu_s + ran.cpu_s, peak),
    }
    if events > options.set_work_up_to:
        return size
    ours, size.set_work = set_work(data_dir, folder / "again")
    require_same(published(data_dir), ours, "the data set that the run published")
    for how in PEERS if with_peer else ():
        size.peers[how] = run_peer(shop, folder, how, ours)
    return size


def simulated(events: int, seed: int, shops: Path, environment: dict[str, str]) -> Path:
    """Return the folder of a shop of that size, simulated unless it is there."""
    shop = shops / f"{events}-{seed}"
    if not shop.exists():
        unfinished = shops / f"{events}-{seed}.unfinished"
        days, products = (91, 60_000) if events >= MANY else (28, 20_000)
        command = ["simulate", "--out", unfinished, "--sessions", int(events / EVENTS_PER_SESSION), "--days", days]
        command += ["--products", products, "--seed", seed, "--end-date", LAST_DAY]
        measure([*boat(), *map(str, command)], environment)
        plant_oddities(unfinished)
        unfinished.rename(shop)
    return shop


def boat() -> list[str]:
    return [sys.executable, "-c", "from bigger_boat.cli import main; main()"]


def plant_oddities(shop: Path) -> None:
    """Append what the simulator does not make: rows sent twice, ids that go on for a second and a third day."""
    browsing = shop / "browsing_train.csv"
    rows, session = pl.scan_csv(browsing), pl.col("session_id_hash")
    chosen = rows.filter(session.str.slice(0, 2).is_in(["00", "01", "02"])).collect()

    def later(ids: list[str], days: int) -> pl.DataFrame:
        moved = pl.col("server_timestamp_epoch_ms") + days * DAY_MS
        return chosen.filter(session.str.slice(0, 2).is_in(ids)).with_columns(server_timestamp_epoch_ms=moved)

    with browsing.open("ab") as file:
        for more in (later(["00"], 0), later(["01", "02"], 1), later(["02"], 2)):
            more.write_csv(file, include_header=False)


def stages_of(run: Measured, data_dir: Path) -> dict[str, Measured]:
    """Return what each stage took of a run, by the times of its steps."""
    os.environ |= {"DAGSTER_HOME": str(ROOT), "DAGSTER_INSTANCE_DIR": str(data_dir / "dagster")}
    import dagster as dg

    spans: dict[str, list[tuple[float, float]]] = {stage: [] for stage in STAGES[1:5]}
    with dg.DagsterInstance.get() as instance:
        for made in instance.get_runs():
            for step in instance.get_run_step_stats(made.run_id):
                spans[stage_of(step.step_key)].append((step.start_time, step.end_time))
    stages = {stage: run.part(times) for stage, times in spans.items()}
    first = min(start for times in spans.values() for start, _ in times)
    rest = [run.wall_s, run.cpu_s]
    for stage in stages.values():
        rest = [rest[0] - stage.wall_s, rest[1] - stage.cpu_s]
    before = run.part([(run.samples[0].at, first)])
    return {**stages, "around": Measured(*rest, before.peak_mib)}


def stage_of(step: str) -> str:
    if step.startswith("raw"):
        return "raw"
    if step in ("warehouse_days", "warehouse_catalog"):
        return "warehouse"
    return "data sets" if step in ("intent_dataset", "recommendation_dataset") else "checks"


# -- set work: from the raw tables to intent rows, without process start and checks


def set_work(data_dir: Path, folder: Path) -> tuple[pl.DataFrame, dict[str, float]]:
    """Make the intent rows of the landed days in this process; return them, and seconds by part."""
    from bigger_boat.assets.datasets import ordered_sessions
    from bigger_boat.data.intent_dataset import SESSION_COLUMNS, build_intent_dataset
    from bigger_boat.data.splits import split_days
    from bigger_boat.resources.dbt import DbtInProcess
    from bigger_boat.resources.duckdb_warehouse import DuckDBWarehouse
    from bigger_boat.resources.landing_zone import LandingZone

    warehouse = DuckDBWarehouse(path=str(folder / "warehouse.duckdb"), memory_limit="2GiB")
    dbt = DbtInProcess(
        project_dir=str(ROOT / "dbt_project"),
        state_dir=str(folder / "dbt"),
        environment=warehouse.dbt_environment(),
    )
    zone = LandingZone(path=str(data_dir / "landing"))
    days = sorted(zone.index().days)
    for raw, table in (("browsing_train", "browsing"), ("search_train", "search")):
        warehouse.load_days(raw, zone.files_by_day(table, days))
    started = time.perf_counter()
    models = run_models(dbt)
    built = time.perf_counter()

    dates = [date.fromisoformat(day) for day in days]
    sessions = ordered_sessions(warehouse, "cart_sessions", SESSION_COLUMNS.names, dates)
    target = folder / "intent"
    target.mkdir()
    build_intent_dataset(sessions, split_days(dates), target)
    rows_s = time.perf_counter() - built
    seconds = {**models, "intent rows": rows_s, "set work": sum(models.values()) + rows_s}
    return read_splits(target), {**seconds, "with dbt around it": built - started + rows_s}


def run_models(dbt) -> dict[str, float]:
    """Run dbt's models, without tests; return the seconds of each."""
    from bigger_boat.resources.dbt_manifest import ensure_manifest

    manifest = json.loads(ensure_manifest(ROOT / "dbt_project").read_bytes())
    invocation = dbt.cli(["run", "--quiet", "--select", *WAREHOUSE_DAYS], manifest=manifest)
    list(invocation.stream())
    return {result.node.name: result.execution_time for result in invocation.results}


def read_splits(folder: Path) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(folder / f"{split}.parquet") for split in SPLITS])


def published(data_dir: Path) -> pl.DataFrame:
    (version,) = (path.parent for path in (data_dir / "datasets" / "intent_dataset").glob("*/dataset.json"))
    return read_splits(version)


def require_same(rows: pl.DataFrame, ours: pl.DataFrame, whose: str) -> None:
    from polars.testing import assert_frame_equal

    try:
        assert_frame_equal(rows.select(ours.columns).cast(ours.schema), ours)
    except AssertionError as error:
        sys.exit(f"The intent rows are not the same as those of {whose}: {error}")


def run_peer(shop: Path, folder: Path, how: str, ours: pl.DataFrame) -> dict:
    """Let the peer make the same rows from the same files, hold them against ours, and return what it took."""
    out = folder / f"{how}.parquet"
    ran = measure([sys.executable, str(ROOT / "benchmarks" / "_pandas_reference.py"), str(shop), str(out), how])
    require_same(pl.read_parquet(out), ours, PEERS[how])
    return {**json.loads(ran.output.splitlines()[-1]), "wall_s": ran.wall_s, "peak_mib": ran.peak_mib}


# -- results


def print_size(size: Size, smallest: Size) -> None:
    """Print a JSON object per stage (its peer: itself at the smallest size, so 1 is linear) and per peer."""
    for stage in STAGES:
        took = size.stages[stage]
        more = {"wall_s": round(took.wall_s, 2), "cpu_s": round(took.cpu_s, 2), "peak_mib": round(took.peak_mib)}
        name = f"data_preparation: {stage}, {size.events:,} events"
        ratio = size.rate(stage) / smallest.rate(stage)
        print_result(name, size.rate(stage), "events/s", f"the same at {smallest.events:,} events", ratio, **more)
    for how, peer in size.peers.items():
        seconds = {"read_s": round(peer["read_s"], 2), "rows_s": round(peer["rows_s"], 2)}
        name = f"data_preparation: raw table to intent rows, {size.events:,} events"
        taken, ratio = ratios(size, peer)[0]
        parts = {part: round(value, 3) for part, value in size.set_work.items()}
        print_result(name, size.events / taken, "events/s", PEERS[how], ratio, **seconds, seconds=parts)
        name = f"data_preparation: files to data sets, {size.events:,} events"
        taken, ratio = ratios(size, peer)[1]
        print_result(name, size.events / taken, "events/s", f"{PEERS[how]}, intent only", ratio, **seconds)


def ratios(size: Size, peer: dict) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return (our seconds, peer's over ours) from raw table to intent rows, and of the whole chain."""
    work, chain = size.set_work["set work"], size.stages["all"].wall_s
    return (work, peer["rows_s"] / work), (chain, peer["wall_s"] / chain)


def table(sizes: list[Size]) -> str:
    """Return what was measured as Markdown."""
    head = "| events | | " + " | ".join(STAGES) + " |"
    lines = [head, "|---|---|" + "---|" * len(STAGES)]
    for size in sizes:
        took = [size.stages[stage] for stage in STAGES]
        lines += [
            f"| {size.events:,} | wall, s | " + " | ".join(f"{stage.wall_s:.1f}" for stage in took) + " |",
            "| | CPU, s | " + " | ".join(f"{stage.cpu_s:.1f}" for stage in took) + " |",
            "| | thousand events/s | " + " | ".join(f"{size.rate(stage) / 1000:,.0f}" for stage in STAGES) + " |",
            "| | peak memory, MiB | " + " | ".join(f"{stage.peak_mib:,.0f}" for stage in took) + " |",
        ]
    parts = list(sizes[0].set_work)
    lines += ["", "| raw table to intent rows, s | " + " | ".join(parts) + " |", "|---|" + "---|" * len(parts)]
    for size in (size for size in sizes if size.set_work):
        lines.append(f"| {size.events:,} events | " + " | ".join(f"{size.set_work[part]:.2f}" for part in parts) + " |")
    lines += ["", "| peer, same intent rows | events | peer, s | ours, s | ratio |", "|---|---|---|---|---|"]
    for size in sizes:
        for how, peer in size.peers.items():
            (work, faster), (chain, whole) = ratios(size, peer)
            rows = f"| {size.events:,} | {peer['rows_s']:.1f} | {work:.2f} | **{faster:.0f}** |"
            lines.append(f"| {PEERS[how]}: rows alone, against set work {rows}")
            rows = f"| {size.events:,} | {peer['wall_s']:.1f} | {chain:.1f} | {whole:.1f} |"
            lines.append(f"| {PEERS[how]}: from files, against everything {rows}")
    return "\n".join(lines)


def write_page(sizes: list[Size]) -> None:
    """Put machine, commit and table between the page's markers."""
    begin, end = "<!-- data preparation: written by benchmarks/data_preparation.py -->", "<!-- end -->"
    before, rest = PAGE.read_text().split(begin)
    measured = f"Measured at commit {commit()} on {machine()}."
    PAGE.write_text(f"{before}{begin}\n{measured}\n\n{table(sizes)}\n{end}{rest.split(end, 1)[1]}")


if __name__ == "__main__":
    main()
