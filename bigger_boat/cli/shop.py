"""Commands about what a shop sends: making it up, landing it."""

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape

from bigger_boat import clock
from bigger_boat.cli.app import STOPPED, Day, app
from bigger_boat.errors import LandingError
from bigger_boat.settings import Settings, get_settings


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

    last = end_date.date() if end_date else clock.utc_now().date() - timedelta(days=1)
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
    land_shop(get_settings(), source, (first.date(), last.date()) if replace else None, shift, producer)


def land_shop(
    settings: Settings, source: Path, replace: tuple[date, date] | None = None, shift: int = 0, producer: str = "land"
) -> None:
    """Land files in the settings' landing zone, and say what became of them."""
    from bigger_boat.console import ProgressLine, show_landing
    from bigger_boat.data.landing import land as land_files

    with ProgressLine() as progress:
        report = land_files(
            source,
            settings.landing_dir,
            producer=producer,
            replace=replace,
            shift_weeks=shift,
            now=clock.utc_now(),
            progress=progress,
        )
    show_landing(report)
    share_landing(settings)


def share_landing(settings: Settings) -> None:
    """Share the landing zone with other machines, where there are any (``aws`` profile); say what was done."""
    if settings.profile == "aws":
        from bigger_boat.console import say
        from bigger_boat.profiles import landing_zone

        if done := landing_zone(settings).sync():
            say(f"  {done[:1].upper()}{done[1:]}.")


@app.command(epilog="Example: bigger-boat replay data/shop --speed 1000x --to 2026-10-07")
def replay(
    source: Annotated[Path | None, typer.Argument(help="a data set as for land; default: what has landed")] = None,
    speed: Annotated[str, typer.Option(help="1000x faster than it happened, 500/s events, or max")] = "max",
    first: Annotated[datetime | None, typer.Option("--from", formats=["%Y-%m-%d"])] = None,
    last: Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"])] = None,
    sessions: Annotated[int | None, typer.Option(min=1, help="only so many sessions, the first ones")] = None,
    shift: Annotated[int, typer.Option(help="move all times by so many whole weeks")] = 0,
    url: Annotated[str | None, typer.Option(help="default: this data folder's server")] = None,
) -> None:
    """Send a data set's events to /collect, in the order of their time; stopped, the same command goes on."""
    from tempfile import TemporaryDirectory

    from bigger_boat.console import ProgressLine, say
    from bigger_boat.data.landing import land as land_files
    from bigger_boat.data.landing_index import read_index
    from bigger_boat.resources import local_server
    from bigger_boat.serving import replay as replaying
    from bigger_boat.serving.collect_landing import land_now

    settings = get_settings()
    pace, where = replaying.Speed.parse(speed), url or local_server.running_url(settings)
    replaying.require_trust(where)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    told = replaying.Replayed()
    with TemporaryDirectory(prefix=".replay-", dir=settings.data_dir) as scratch, ProgressLine() as progress:
        root = Path(scratch) / "landing" if source else settings.landing_dir
        if source:
            land_files(source, root, now=clock.utc_now(), progress=progress)
        index = read_index(root)
        days = replaying.days_to_replay(index, first.date() if first else None, last.date() if last else None)
        total = replaying.rows_of(index, days)
        events = replaying.events_of(root, days, sessions, shift)
        key = local_server.api_key(settings)
        stopped = False
        try:
            replaying.replay(
                where, events, pace, told, api_key=key, progress=lambda sent: progress("replaying", sent, total)
            )
        except KeyboardInterrupt:
            stopped = True
    if url is None:
        land_now(settings.collect_dir, settings.landing_dir)
    say(
        f"{told.sent:,} of {total:,} events of {len(days)} days sent: {told.accepted:,} new,"
        f" {told.duplicates:,} known, {told.rejected:,} rejected."
    )
    for fault in told.faults:
        say(f"  [yellow]rejected[/yellow]: {escape(fault)}")
    if stopped:
        say("Stopped; the same command goes on from there.")
        raise typer.Exit(STOPPED)
