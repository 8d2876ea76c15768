"""Commands that bring what is at AWS up to date, and take it down. Changes are shown before they are made."""

import sys
from collections.abc import Callable
from typing import Annotated

import typer
from rich.markup import escape

from bigger_boat.cli.app import DryRun, app
from bigger_boat.errors import SettingsError
from bigger_boat.resources import prices
from bigger_boat.settings import PROJECT_DIR, Settings, load_settings

deploy = typer.Typer(no_args_is_help=True, help="What is at AWS: bring it up to date, or take it down.")
app.add_typer(deploy, name="deploy")

_OF = f"by prices of {prices.AS_OF:%d %B %Y} (docs/aws.md)"
Yes = Annotated[bool, typer.Option("--yes", help="make the changes that are shown without asking")]


@deploy.command(epilog="Example: bigger-boat deploy platform --set AlertEmail=team@shop.example --set BudgetUsd=50")
def platform(
    given: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE, a parameter of deploy/platform.yaml; it is kept")
    ] = None,
    image: Annotated[str | None, typer.Option(help="tag that deploy image has told: jobs and endpoints run it")] = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Bring bucket, queues, roles and alarms up to date, and print the settings that they make."""
    from bigger_boat.console import heading, say
    from bigger_boat.resources.platform import (
        IMAGE_TAG,
        outputs_of,
        parameters_of,
        platform_stack,
        settings_lines,
        update_platform,
    )

    settings, parameters = load_settings(complete=False), parameters_of(given or [])
    if image:
        parameters[IMAGE_TAG] = image
    stack = platform_stack(settings, _tell)
    _tell(
        f"What it makes bills about {prices.STANDING_USD_PER_MONTH:.1f} USD a month while nothing runs, jobs "
        f"{prices.JOB_USD_PER_HOUR['gpu']:.2f} (GPU) and {prices.JOB_USD_PER_HOUR['cpu']:.2f} (CPU) an hour each, "
        f"{_OF}."
    )
    changes = update_platform(settings, stack, parameters, _agreement(yes, dry_run))
    if dry_run:
        say("Nothing was made: this was a dry run.")
        return
    say(f"Stack {stack.name}: {len(changes)} changes made." if changes else f"Stack {stack.name} stays as it is.")
    heading("Lines for .env")
    for line in settings_lines(outputs_of(stack)):
        print(line)


@deploy.command(epilog="Example: bigger-boat deploy team --set DatabaseHost=dagster.abc.eu-west-1.rds.amazonaws.com")
def team(
    given: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE, a parameter of deploy/team.yaml; it is kept")
    ] = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Bring a team's Dagster on ECS up to date: web UI and daemon, the settings they read, what a run is started as."""
    from bigger_boat.console import say
    from bigger_boat.resources.platform import outputs_of, parameters_of, platform_stack
    from bigger_boat.resources.team import team_stack, update_team

    settings = load_settings()
    _tell(
        f"What it makes bills about {prices.TEAM_SERVICE_USD_PER_HOUR:.2f} USD an hour, and each run "
        f"{prices.TEAM_RUN_USD_PER_HOUR:.2f} an hour, {_OF}."
    )
    stack, platform = team_stack(settings, _tell), outputs_of(platform_stack(settings, _tell))
    changes = update_team(settings, stack, platform, parameters_of(given or []), _agreement(yes, dry_run))
    if dry_run:
        say("Nothing was made: this was a dry run.")
        return
    say(f"Stack {stack.name}: {len(changes)} changes made." if changes else f"Stack {stack.name} stays as it is.")


@deploy.command(epilog="Example: bigger-boat deploy image")
def image(
    which: Annotated[bool, typer.Option("--which", help="build nothing: print the tag that the platform runs")] = False,
) -> None:
    """Have the images of the present commit built at AWS and pushed; say their tag."""
    from bigger_boat.console import say
    from bigger_boat.resources.images import ImageBuild
    from bigger_boat.resources.platform import IMAGE_TAG, outputs_of, platform_stack

    stack = platform_stack(load_settings(complete=False), _tell)
    if not which:
        _tell(f"A build bills about {prices.BUILD_USD:.2f} USD, {_OF}.")
    if which:
        print(outputs_of(stack)[IMAGE_TAG])
        return
    tag = ImageBuild(stack.name, outputs_of(stack), _tell).make(PROJECT_DIR)
    say(f"Images of {tag} are there. To have them run: bigger-boat deploy platform --image {tag}")


@deploy.command(epilog="Example: bigger-boat deploy api --dry-run")
def api(dry_run: DryRun = False) -> None:
    """Materialize prediction_api: bring the public API up to date, and ask both endpoints through it."""
    from bigger_boat.cli.process import prepare_process
    from bigger_boat.console import say

    if load_settings(complete=False).profile != "aws":
        raise SettingsError("The public API of the local profile is the server.", "Set BIGGER_BOAT_PROFILE=aws.")
    settings = prepare_process()
    _tell(f"It bills about {prices.API_USD_PER_MILLION:.0f} USD per million requests, {_OF}.")
    if dry_run:
        from bigger_boat.profiles import public_api

        def show(changes: list[str]) -> bool:
            for change in changes:
                _tell(f"Stack {settings.api_stack} will {change}")
            return False

        public_api(settings).deploy(show)
        say("Nothing was made: this was a dry run.")
        return
    _materialize("prediction_api", settings)


@deploy.command(epilog="Example: bigger-boat deploy destroy --delete-data bigger-boat-platform-bucket-1a2b3c")
def destroy(
    delete_data: Annotated[str, typer.Option(help="name of the bucket, to delete it with all that is in it")] = "",
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Take down all that bills: endpoints, the API, queues, images; the bucket only if its name is given."""
    from bigger_boat.console import say
    from bigger_boat.resources.teardown import Teardown

    teardown = Teardown(load_settings(complete=False), _tell)
    things, bucket = teardown.things(), teardown.bucket
    if bucket:
        things.append(f"bucket {bucket} and all that is in it" if delete_data == bucket else f"(bucket {bucket} stays)")
    for thing in things or ["nothing: there is nothing of it"]:
        say(f"  to be deleted: {escape(thing)}")
    if things and _agreement(yes, dry_run)(things):
        teardown.run(delete_data)
    elif dry_run:
        say("Nothing was deleted: this was a dry run.")


def _tell(line: str) -> None:
    print(line, flush=True)


def _agreement(yes: bool, dry_run: bool) -> Callable[[list[str]], bool]:
    """Return who agrees to changes that were shown: nobody, the option, or the person at the terminal."""
    if not (yes or dry_run or sys.stdin.isatty()):
        raise SettingsError("There is nobody to ask whether to make the changes.", "--yes makes them.")

    def agree(changes: list[str]) -> bool:
        if dry_run or yes:
            return not dry_run
        return typer.confirm(f"Make these {len(changes)} changes?")

    return agree


def _materialize(name: str, settings: Settings) -> None:
    import dagster as dg

    from bigger_boat.automation import runner
    from bigger_boat.automation.plan import Plan
    from bigger_boat.console import RunPrinter, quiet, show_failures

    plan = Plan(days=(), partitioned=(), unpartitioned=(dg.AssetKey(name),))
    with (
        runner.one_at_a_time(settings.data_dir, lambda who: _tell(f"Waiting for {who} ...")),
        dg.DagsterInstance.get() as instance,
        quiet(settings.data_dir / "logs" / "deploy.log"),
        RunPrinter() as printer,
    ):
        outcome = runner.execute(plan, instance, printer.on_event, printer.on_log)
    if not outcome.success:
        show_failures(outcome.failures, outcome.refused)
        raise typer.Exit(3 if outcome.refused else 1)
