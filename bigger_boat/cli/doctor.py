"""``doctor``: is everything there that the profile needs?"""

import typer
from rich.markup import escape

from bigger_boat.cli.app import app
from bigger_boat.errors import SettingsError
from bigger_boat.settings import load_settings

_COLOURS = {"pass": "green", "fail": "red", "not tried": "yellow"}


@app.command(epilog="Example: bigger-boat doctor")
def doctor() -> None:
    """Look at all that the profile needs; each line passes, fails or was not tried, with what to do."""
    from bigger_boat.console import say
    from bigger_boat.profiles import WAREHOUSES
    from bigger_boat.resources.doctor import FAIL, NOT_TRIED, aws_checks, examine, local_checks

    try:
        settings = load_settings()
    except SettingsError as error:
        say(f"[red]fail[/red]       settings: {escape(error.message)}\n           What to do: {escape(error.hint)}")
        say("[yellow]not tried[/yellow]  everything else: it needs the settings")
        raise typer.Exit(error.exit_code) from None
    say(f"[green]pass[/green]       settings: profile {settings.profile}, nothing is missing")
    checks = local_checks(settings, WAREHOUSES[settings.profile](settings))
    states = []
    for finding in examine(checks + (aws_checks(settings) if settings.profile == "aws" else [])):
        states.append(finding.state)
        colour, gap = _COLOURS[finding.state], " " * (11 - len(finding.state))
        say(f"[{colour}]{finding.state}[/{colour}]{gap}{finding.name}: {escape(finding.says)}")
        if finding.to_do:
            say(f"           What to do: {escape(finding.to_do)}")
    if FAIL in states or NOT_TRIED in states:
        raise typer.Exit(1)
