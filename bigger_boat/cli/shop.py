"""Commands about what a shop sends: making it up, landing it."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

import typer

from bigger_boat.cli.app import Day, app
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
            now=datetime.now(UTC),
            progress=progress,
        )
    show_landing(report)
