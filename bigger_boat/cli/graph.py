"""Commands that bring the graph up to date."""

from contextlib import nullcontext
from datetime import datetime
from typing import Annotated

import typer

from bigger_boat.cli.app import STOPPED, DryRun, Size, app
from bigger_boat.cli.past import Past, as_it_stood, without_publishing
from bigger_boat.cli.process import prepare_process
from bigger_boat.cli.shop import land_shop, share_landing
from bigger_boat.errors import LandingError
from bigger_boat.resources.importing import importing
from bigger_boat.settings import Settings, get_settings


@app.command(epilog="Example: bigger-boat run --select '+recommendation_endpoint'")
def run(
    select: Annotated[
        str | None, typer.Option(help="assets, in Dagster's selection syntax; default: all (see --demo)")
    ] = None,
    max_workers: Annotated[int, typer.Option(min=1, help="steps side by side; 1: all in one process")] = 1,
    size: Size = None,
    force: Annotated[bool, typer.Option(help="make everything selected again, also what is up to date")] = False,
    demo: Annotated[
        bool,
        typer.Option(
            help="simulate a shop if none has landed, start the endpoint, ask it; small models, by default without the "
            "LSTM, ProdB and hybrid recommenders"
        ),
    ] = False,
    as_of: Annotated[
        datetime | None,
        typer.Option("--as-of", formats=["%Y-%m-%d"], help="from what had landed by the end of this day (UTC), apart"),
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Bring the graph up to date with what has landed: only what is missing or behind is made."""
    from bigger_boat import demo as tour

    select = select or (tour.SELECTION if demo else "*")
    if as_of:
        past = as_it_stood(get_settings(), as_of.date())
        run_graph(prepare_process(size, max_workers, past.data_dir), select, force, past=past, dry_run=dry_run)
        return
    settings = prepare_process(size or ("quick" if demo else None), max_workers)
    if dry_run:
        run_graph(settings, select, force, dry_run=True)
        return
    if demo:
        tour.open_shop(settings, land_shop)
    run_graph(settings, select, force, before=tour.start_server if demo else None)
    if demo:
        tour.ask(settings)


@app.command(epilog="Example: bigger-boat backfill --from 2026-11-01 --to 2026-11-07")
def backfill(
    first: Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="first day")],
    last: Annotated[datetime, typer.Option("--to", formats=["%Y-%m-%d"], help="last day")],
    select: Annotated[str, typer.Option(help="partitioned assets, in Dagster's selection syntax")] = "+cart_sessions",
    chunk_days: Annotated[int, typer.Option(min=0, help="days computed at a time; 0: about 3 M events")] = 0,
    restart: Annotated[bool, typer.Option("--restart", help="begin anew, also after one that was killed")] = False,
    dry_run: DryRun = False,
) -> None:
    """Make the tables of these days again, also where they are up to date. After a kill, it goes on where it was."""
    from bigger_boat.automation.backfills import Begun, days_of
    from bigger_boat.console import say

    settings = prepare_process(None, max_workers=1)
    from bigger_boat.partitions import daily_partitions

    days = days_of(first.date(), last.date(), daily_partitions)
    begun = Begun(settings.data_dir, days, select)
    since = None if restart else begun.since
    if since:
        at = datetime.fromtimestamp(since)
        say(f"  Going on with the backfill begun {at:%Y-%m-%d %H:%M}; --restart begins anew.")
    with nullcontext() if dry_run else begun.noted(anew=restart):
        run_graph(settings, select, force=True, days=days, since=since, chunk_days=chunk_days, dry_run=dry_run)


@app.command(hidden=True)
def prepare() -> None:
    """Build what importing the definitions reads: dbt's manifest."""
    prepare_process()


def run_graph(
    settings: Settings,
    select: str,
    force: bool,
    days=None,
    before=None,
    since: float | None = None,
    chunk_days: int = 0,
    past: Past | None = None,
    dry_run: bool = False,
) -> None:
    """Plan, say what will be done, do it, and leave with an exit code where it failed."""
    with importing():
        import dagster as dg

        from bigger_boat.automation import plan as planning
        from bigger_boat.automation import runner
        from bigger_boat.automation.past_runs import SIZE_TAG, foresee
        from bigger_boat.automation.selection import select_assets
        from bigger_boat.console import RunPrinter, heading, quiet, say, show_failures, show_plan
        from bigger_boat.data.landing_index import read_index

    with (
        runner.one_at_a_time(settings.data_dir, lambda who: say(f"Waiting for {who} ...")),
        dg.DagsterInstance.get() as instance,
    ):
        if past:
            past.open()
        share_landing(settings)
        index = read_index(settings.landing_dir)
        if not index.days:
            raise LandingError(
                "Nothing has landed yet.", "bigger-boat simulate --out data/shop, then bigger-boat land data/shop"
            )
        if not dry_run:
            _tidy_up(settings, instance, index)
        with importing():
            from bigger_boat.assets.warehouse import CHUNK_DAYS_TAG
            from bigger_boat.definitions import defs

        graph = defs.resolve_asset_graph()
        selected = select_assets(select, graph)
        if past:
            selected = without_publishing(selected, graph)
        plan = planning.make_plan(graph, instance, selected, index, settings.size, days, force, since)
        if before:
            before(settings)
        heading("Graph")
        if plan.empty:
            say("  Everything selected is up to date; --force makes it again.")
            return
        size = settings.snowflake_warehouse_size if settings.profile == "aws" else None
        foreseen = foresee(plan, graph, instance, index, settings.size)
        show_plan(plan, foreseen, size, _costs(settings, plan, foreseen))
        if dry_run:
            say("  Nothing was done: this was a dry run.")
            return
        tags = {SIZE_TAG: settings.size} | ({CHUNK_DAYS_TAG: str(chunk_days)} if chunk_days else {})
        with quiet(settings.data_dir / "logs" / "run.log"), RunPrinter() as printer:
            outcome = runner.execute(plan, instance, printer.on_event, printer.on_log, tags)
    if outcome.stopped:
        say("\n  Stopped. What is done stays done: the same command goes on from there.")
        raise typer.Exit(STOPPED)
    if not outcome.success:
        show_failures(outcome.failures, outcome.refused)
        say("\n  What is done stays done: the same command goes on from there. See the run in the web UI: make up")
        raise typer.Exit(3 if outcome.refused else 1)


def _costs(settings: Settings, plan, foreseen) -> list[str]:
    """Return what a plan costs at AWS, in sentences; nothing in the local profile."""
    from bigger_boat.automation.costs import cost_lines

    if settings.profile != "aws":
        return []
    assets = [key.to_user_string() for key in plan.unpartitioned]
    return cost_lines(foreseen, assets, settings.endpoint_instance, settings.endpoint_instances, settings.remote_steps)


def _tidy_up(settings: Settings, instance, index) -> None:
    """End what dead processes left, and note in the instance what has landed."""
    from bigger_boat.assets.landing import new_observations
    from bigger_boat.automation import runner
    from bigger_boat.console import say
    from bigger_boat.resources.storage import LocalStorage

    for run_id in runner.end_orphans(instance, runner.web_ui_is_up(settings.data_dir)):
        say(f"Run {run_id[:8]} had lost its process: marked failed, its slots freed.")
    LocalStorage(base_dir=str(settings.data_dir)).sweep_drafts()
    for observation in new_observations(instance, index):
        instance.report_runless_asset_event(observation)
