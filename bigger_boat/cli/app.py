"""The one Typer app, and the types that several commands share."""

from datetime import datetime
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="From shopping events to live endpoints.",
)

STOPPED = 130
"""The exit code of what Ctrl-C ended, as shells have it."""

Day = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"])]
Size = Annotated[str | None, typer.Option(help="quick or full; default: BIGGER_BOAT_SIZE")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="say what would be done and about how long; do nothing")]
