"""``doctor``: is everything there that the profile needs?"""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from bigger_boat.cli.app import app
from bigger_boat.errors import SettingsError
from bigger_boat.settings import load_settings

if TYPE_CHECKING:
    from bigger_boat.resources.doctor import Check
    from bigger_boat.settings import Settings

_COLOURS = {"pass": "green", "fail": "red", "not tried": "yellow"}


@app.command(epilog="Example: bigger-boat doctor")
def doctor(
    gpu: Annotated[
        bool, typer.Option("--gpu", help="run a step where trainings run, and say which GPUs it has")
    ] = False,
) -> None:
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
    checks += aws_checks(settings) if settings.profile == "aws" else []
    for finding in examine([*checks, *([_gpu_check(settings)] if gpu else [])]):
        states.append(finding.state)
        colour, gap = _COLOURS[finding.state], " " * (11 - len(finding.state))
        say(f"[{colour}]{finding.state}[/{colour}]{gap}{finding.name}: {escape(finding.says)}")
        if finding.to_do:
            say(f"           What to do: {escape(finding.to_do)}")
    if FAIL in states or NOT_TRIED in states:
        raise typer.Exit(1)


def _gpu_check(settings: "Settings") -> "Check":
    """The one check that costs something: a step of its own, which waits for a machine where steps go to AWS Batch."""
    from bigger_boat.resources.doctor import Check

    def run() -> str:
        import dagster as dg

        from bigger_boat.automation.gpu_probe import gpu_probe_job, probe_gpus
        from bigger_boat.cli.process import prepare_process

        prepare_process()
        from bigger_boat.definitions import defs

        with dg.DagsterInstance.get() as instance:
            return probe_gpus(defs.resolve_job_def(gpu_probe_job.name), instance)

    return Check("GPU", run, ("gpu queue and job definition",) if settings.remote_steps else ())
