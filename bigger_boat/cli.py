"""The command line: parses, calls, prints. Every command exits non-zero on failure and shows an example in --help."""

import os
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape

from bigger_boat.errors import BiggerBoatError, LandingError, ServerError
from bigger_boat.settings import PROJECT_DIR, Settings, get_settings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="From shopping events to live endpoints.",
)

Day = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"])]
STOPPED = 130
"""The exit code of what Ctrl-C ended, as shells have it."""

Size = Annotated[str | None, typer.Option(help="quick or full; default: BIGGER_BOAT_SIZE")]


@app.command(epilog="Example: bigger-boat simulate --out data/shop --sessions 27000 --days 28 --products 2000")
def simulate(
    out: Annotated[Path, typer.Option(help="folder to write the three files into")],
    sessions: Annotated[int, typer.Option(min=1, help="number of sessions; each has about 7 events")] = 27_000,
    days: Annotated[int, typer.Option(min=1, help="number of days")] = 28,
    products: Annotated[int, typer.Option(min=10, help="number of products")] = 2_000,
    seed: Annotated[int, typer.Option(help="the same seed makes the same files")] = 1,
    shop: Annotated[Literal["yoochoose", "challenge"], typer.Option(help="whose shoppers they resemble")] = "yoochoose",
    end_date: Day = None,
) -> None:
    """Make a shop's events, in the format of the SIGIR eCom 2021 challenge."""
    from bigger_boat.console import ProgressLine, say
    from bigger_boat.data.simulator import SHOPS
    from bigger_boat.data.simulator import simulate as make_shop

    last = end_date.date() if end_date else datetime.now(UTC).date() - timedelta(days=1)
    with ProgressLine() as progress:
        report = make_shop(
            out,
            sessions=sessions,
            days=days,
            products=products,
            seed=seed,
            end_date=last,
            progress=progress,
            parameters=SHOPS[shop],
        )
    say(f"{report.events:,} events of {report.sessions:,} sessions over {days} days until {last} are in {out}")


@app.command(epilog="Example: bigger-boat land data/shop")
def land(
    source: Annotated[Path, typer.Argument(help="folder or file: .csv, .csv.gz, .zip or .parquet")],
    replace: Annotated[bool, typer.Option(help="supersede what landed before, on each day --from to --to")] = False,
    first: Annotated[datetime | None, typer.Option("--from", formats=["%Y-%m-%d"])] = None,
    last: Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"])] = None,
    shift: Annotated[int, typer.Option(help="move all times by so many whole weeks")] = 0,
    producer: Annotated[str, typer.Option(help="whose files these are")] = "land",
) -> None:
    """Check shopping events, split them by day and add them to the landing zone."""
    if replace != bool(first and last):
        raise LandingError("--replace needs --from and --to, and they need it.", "Name the first and the last day.")
    _land(get_settings(), source, (first.date(), last.date()) if replace else None, shift, producer)


@app.command(epilog="Example: bigger-boat run --select '+recommendation_endpoint'")
def run(
    select: Annotated[str, typer.Option(help="assets, in Dagster's selection syntax")] = "*",
    max_workers: Annotated[int, typer.Option(min=1, help="steps side by side; 1: all in one process")] = 1,
    size: Size = None,
    force: Annotated[bool, typer.Option(help="make everything selected again, also what is up to date")] = False,
    demo: Annotated[bool, typer.Option(help="simulate a shop if none has landed, start the endpoint, ask it")] = False,
) -> None:
    """Bring the graph up to date with what has landed: only what is missing or behind is made."""
    from bigger_boat import demo as tour

    settings = _prepare(size or ("quick" if demo else None), max_workers)
    if demo:
        tour.open_shop(settings, _land)
    _run(settings, select, force, before=tour.start_server if demo else None)
    if demo:
        tour.ask(settings)


@app.command(epilog="Example: bigger-boat backfill --from 2026-11-01 --to 2026-11-07")
def backfill(
    first: Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="first day")],
    last: Annotated[datetime, typer.Option("--to", formats=["%Y-%m-%d"], help="last day")],
    select: Annotated[str, typer.Option(help="partitioned assets, in Dagster's selection syntax")] = "+cart_sessions",
) -> None:
    """Make the tables of these days again, also where they are up to date."""
    settings = _prepare(None, max_workers=1)
    days = [(first + timedelta(days=n)).date().isoformat() for n in range((last - first).days + 1)]
    _run(settings, select, force=True, days=days)


@app.command(epilog="Example: bigger-boat up")
def up() -> None:
    """Start the web UI and the endpoint, until Ctrl-C."""
    import dagster as dg

    from bigger_boat import demo as tour
    from bigger_boat.automation import runner

    settings = _prepare()
    with runner.web_ui(settings.data_dir):
        with dg.DagsterInstance.get() as instance:
            runner.end_orphans(instance, ui_is_up=False)
        tour.up(settings)


@app.command(epilog="Example: bigger-boat serve --port 8080")
def serve(
    port: Annotated[int | None, typer.Option(help="default: BIGGER_BOAT_PORT")] = None,
    host: Annotated[str, typer.Option(help="loopback unless told otherwise")] = "127.0.0.1",
    bundle: Annotated[Path | None, typer.Option(help="serve this one bundle, as the container does")] = None,
    stop: Annotated[bool, typer.Option(help="stop the server that a run left in the background")] = False,
) -> None:
    """Serve the endpoints; new versions are loaded without a restart."""
    import logging

    from bigger_boat.console import say
    from bigger_boat.resources import local_server

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    settings = get_settings()
    if stop:
        pid = local_server.stop(settings.endpoints_dir)
        say(f"Stopped process {pid}." if pid else "No server of this data folder is running.")
        return
    local_server.serve(settings, host, port or settings.port, bundle)


@app.command(epilog="Example: bigger-boat predict --x start,view,detail,add,view,end")
def predict(
    x: Annotated[str | None, typer.Option(help="actions of a session: will it buy?")] = None,
    session: Annotated[str | None, typer.Option(help="SKUs of a session: which products come next?")] = None,
    url: Annotated[str | None, typer.Option(help="default: this data folder's server")] = None,
) -> None:
    """Ask the endpoint."""
    import json

    from bigger_boat.console import say
    from bigger_boat.resources import local_server

    if (x is None) == (session is None):
        raise ServerError("Give either --x or --session.", "bigger-boat predict --x start,view,detail,add,view,end")
    answer = local_server.ask(url or local_server.running_url(get_settings()), x=x, session=session)
    say(escape(json.dumps(answer, indent=2)))


@app.command(epilog="Example: bigger-boat rollback recommendation")
def rollback(
    name: Annotated[str, typer.Argument(help="recommendation or intent")],
    version: Annotated[str | None, typer.Argument(help="default: the one that served before")] = None,
) -> None:
    """Let an earlier version serve again."""
    from bigger_boat.console import say
    from bigger_boat.profiles import endpoint_host

    say(escape(endpoint_host(get_settings()).rollback(name, version).require().sentence))


@app.command(epilog="Example: bigger-boat bench definitions_load")
def bench(names: Annotated[list[str] | None, typer.Argument(help="files of benchmarks/; default: all")] = None) -> None:
    """Run the benchmarks: one JSON object per result, each a ratio against a peer in the same run."""
    import subprocess

    folder = PROJECT_DIR / "benchmarks"
    for path in [folder / f"{name}.py" for name in names] if names else sorted(folder.glob("[a-z]*.py")):
        subprocess.run([sys.executable, str(path)], check=True)


@app.command(epilog="Example: bigger-boat benchmark train.txt test.txt --json result.json")
def benchmark(
    files: Annotated[list[Path], typer.Argument(help="clicks to split by time, or training and test clicks")],
    json_file: Annotated[Path | None, typer.Option("--json", help="write the result here, too")] = None,
    ladder_only: Annotated[bool, typer.Option("--ladder-only", help="without our own recommenders")] = False,
) -> None:
    """Measure our recommenders beside the published simple ones, on anyone's clicks.

    A file holds SessionId, ItemId and Time (session-rec's format), or it is the challenge's browsing_train.csv.
    """
    from bigger_boat.console import ProgressLine, say
    from bigger_boat.data.session_files import read_sessions
    from bigger_boat.errors import DatasetError
    from bigger_boat.ml.benchmark import Benchmark, report, split_by_time, write_result

    if len(files) > 2:
        raise DatasetError(f"{len(files)} files are given.", "Give one file to split by time, or training and test.")
    if json_file and not json_file.parent.is_dir():
        raise DatasetError(f"There is no folder {json_file.parent}.", "Make it, or name another file for --json.")
    sessions = [read_sessions(path) for path in files]
    train, test = sessions if len(sessions) == 2 else split_by_time(sessions[0])
    with ProgressLine() as progress:
        result = Benchmark(train, test).run(candidates=not ladder_only, progress=progress)
    say(escape(report(result)))
    if json_file:
        write_result(result, json_file)


@app.command(hidden=True)
def prepare() -> None:
    """Build what importing the definitions reads: dbt's manifest."""
    _prepare()


def _prepare(size: str | None = None, max_workers: int | None = None) -> Settings:
    """Set up this process and its children for Dagster; return the settings."""
    if size:
        os.environ["BIGGER_BOAT_SIZE"] = size
    if max_workers:
        os.environ["BIGGER_BOAT_MAX_WORKERS"] = str(max_workers)
    get_settings.cache_clear()
    settings = get_settings()
    instance_dir = settings.data_dir / "dagster"
    instance_dir.mkdir(parents=True, exist_ok=True)
    os.environ["BIGGER_BOAT_DATA_DIR"] = str(settings.data_dir)
    os.environ["DAGSTER_INSTANCE_DIR"] = str(instance_dir)
    os.environ["DAGSTER_HOME"] = str(PROJECT_DIR)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from bigger_boat.resources.dbt_manifest import ensure_manifest

    ensure_manifest(settings.dbt_project_dir)
    return settings


def _land(
    settings: Settings, source: Path, replace: tuple[date, date] | None = None, shift: int = 0, producer: str = "land"
) -> None:
    from bigger_boat.console import ProgressLine, show_landing
    from bigger_boat.data.landing import land as land_files

    with ProgressLine() as progress:
        report = land_files(
            source,
            settings.landing_dir,
            producer=producer,
            replace=replace,
            shift_weeks=shift,
            now=datetime.now(UTC),
            progress=progress,
        )
    show_landing(report)


def _run(settings: Settings, select: str, force: bool, days=None, before=None) -> None:
    """Plan, say what will be done, do it, and leave with an exit code where it failed."""
    import warnings

    warnings.simplefilter("ignore")
    import dagster as dg

    from bigger_boat.automation import plan as planning
    from bigger_boat.automation import runner
    from bigger_boat.automation.selection import select_assets
    from bigger_boat.console import RunPrinter, heading, quiet, say, show_failures, show_plan
    from bigger_boat.data.landing_index import read_index
    from bigger_boat.resources.storage import LocalStorage

    index = read_index(settings.landing_dir)
    if not index.days:
        raise LandingError(
            "Nothing has landed yet.", "bigger-boat simulate --out data/shop, then bigger-boat land data/shop"
        )
    with (
        runner.one_at_a_time(settings.data_dir, lambda who: say(f"Waiting for {who} ...")),
        dg.DagsterInstance.get() as instance,
    ):
        for run_id in runner.end_orphans(instance, runner.web_ui_is_up(settings.data_dir)):
            say(f"Run {run_id[:8]} had lost its process: marked failed, its slots freed.")
        LocalStorage(base_dir=str(settings.data_dir)).sweep_drafts()
        from bigger_boat.assets.landing import new_observations
        from bigger_boat.definitions import defs

        for observation in new_observations(instance, index):
            instance.report_runless_asset_event(observation)
        graph = defs.resolve_asset_graph()
        selected = select_assets(select, graph)
        plan = planning.make_plan(graph, instance, selected, index, settings.size, days, force)
        if before:
            before(settings)
        heading("Graph")
        if plan.empty:
            say("  Everything selected is up to date; --force makes it again.")
            return
        show_plan(plan)
        with quiet(settings.data_dir / "logs" / "run.log"), RunPrinter() as printer:
            outcome = runner.execute(plan, instance, printer.on_event)
    if outcome.stopped:
        say("\n  Stopped. What is done stays done: the same command goes on from there.")
        raise typer.Exit(STOPPED)
    if not outcome.success:
        show_failures(outcome.failures, outcome.refused)
        say("\n  What is done stays done: the same command goes on from there. See the run in the web UI: make up")
        raise typer.Exit(3 if outcome.refused else 1)


def main() -> None:
    """Run the command line; an error that a person can act on is printed as a sentence."""
    try:
        app()
    except BiggerBoatError as error:
        from bigger_boat.console import console

        console.print(f"[red]{escape(error.message)}[/red]")
        if error.hint:
            console.print(f"What to do: {escape(error.hint)}")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
