"""Commands that change which version answers, and show what would change. The web UI's jobs do the same."""

import getpass
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from bigger_boat.cli.app import app
from bigger_boat.cli.process import prepare_process
from bigger_boat.errors import SettingsError
from bigger_boat.settings import Settings

if TYPE_CHECKING:
    import dagster as dg

    from bigger_boat.automation.control import Change

Endpoint = Annotated[str, typer.Argument(help="recommendation or intent")]
Reason = Annotated[str, typer.Option(help="why, in a sentence: it stands on the endpoint's asset")]


@app.command(epilog="Example: bigger-boat promote recommendation 20261123T093012123Z-ab12cd34 --reason 'it was better'")
def promote(
    name: Endpoint,
    version: Annotated[str, typer.Argument(help="published, or still among the champions' bundles")],
    reason: Reason,
) -> None:
    """Let a version serve after its gate: the only way back for one that was rolled back from."""
    settings = prepare_process()
    from bigger_boat.automation import control

    storage, host = _storage_and_host(settings, name)
    with _quiet(settings):
        change = control.promote(name, version, storage, host)
    _tell(change, reason, settings)


@app.command(epilog="Example: bigger-boat rollback recommendation --reason 'clicks fell'")
def rollback(
    name: Endpoint,
    version: Annotated[str | None, typer.Argument(help="default: the one that served before")] = None,
    reason: Reason = "",
) -> None:
    """Let an earlier version serve again."""
    settings = prepare_process()
    from bigger_boat.automation import control

    _tell(control.roll_back(name, version, _storage_and_host(settings, name)[1]), reason, settings)


@app.command(epilog="Example: bigger-boat canary recommendation 20261123T093012123Z-ab12cd34 --share 0.1")
def canary(
    name: Endpoint,
    version: Annotated[str | None, typer.Argument(help="who challenges; with --end: nobody")] = None,
    share: Annotated[float, typer.Option(help="of the sessions that it answers; at most 0.5")] = 0.1,
    shadow: Annotated[bool, typer.Option("--shadow", help="answer nobody: be asked everything, for the log")] = False,
    end: Annotated[bool, typer.Option("--end", help="let what serves answer alone again")] = False,
    reason: Reason = "",
) -> None:
    """Let a version answer a share of the sessions beside the one that serves, or be asked unseen; or end that."""
    if (version is None) != end:
        raise SettingsError("Name either a version that challenges, or --end.", "bigger-boat canary --help")
    settings = prepare_process()
    from bigger_boat.automation import control
    from bigger_boat.console import say

    storage, host = _storage_and_host(settings, name)
    if end:
        version, what = host.end_challenge(name), "challenge ended"
        say(f"{version} no longer challenges {name}." if version else f"{name} has no challenger.")
    else:
        what = "shadow" if shadow else f"canary, {share:.0%} of the sessions"
        with _quiet(settings):
            result = control.challenge(name, version, share, shadow, storage, host)
        say(escape(result.sentence))
    if version:
        _note(control.challenge_event(name, version, what, reason, _who()))


@app.command(epilog="Example: bigger-boat diff 20261122T090000000Z-11aa22bb 20261123T093012123Z-ab12cd34")
def diff(
    version_a: Annotated[str, typer.Argument(help="a version, such as the one that serves")],
    version_b: Annotated[str, typer.Argument(help="another version of the same endpoint")],
) -> None:
    """What would change from one version to another: answers, slices won and lost, data, configuration."""
    settings = prepare_process()
    from bigger_boat.assets.differences import compare, find_version
    from bigger_boat.console import say, show_table

    storage, host = _storage_and_host(settings)
    folders = [find_version(version, storage, host) for version in (version_a, version_b)]
    with _quiet(settings):
        found = compare(*folders, storage)
    say(escape(found.summary) + "\n")
    for title, rows in found.tables.items():
        if rows:
            show_table(title, rows)


@app.command(epilog="Example: bigger-boat replay-golden intent")
def replay_golden(
    name: Annotated[str | None, typer.Argument(help="recommendation or intent; default: both")] = None,
) -> None:
    """Ask the running server its golden requests: does it answer as the models did offline?"""
    settings = prepare_process()
    from bigger_boat.automation import control
    from bigger_boat.console import say
    from bigger_boat.data.vocabulary import ENDPOINTS
    from bigger_boat.resources.local_server import api_key

    _, host = _storage_and_host(settings, name)
    for each in [name] if name else ENDPOINTS:
        say(escape(control.replay_golden(each, host, api_key(settings))))


def _storage_and_host(settings: Settings, name: str | None = None):
    """Return where versions are written and published. Raises SettingsError for an endpoint that there is not."""
    from bigger_boat.data.vocabulary import ENDPOINTS
    from bigger_boat.profiles import endpoint_host, storage

    if name and name not in ENDPOINTS:
        raise SettingsError(f"There is no endpoint {name!r}.", f"There is {', '.join(ENDPOINTS)}.")
    return storage(settings), endpoint_host(settings)


def _tell(change: "Change", reason: str, settings: Settings) -> None:
    """Say what was done, and leave the event on the endpoint's asset."""
    from bigger_boat.automation.control import event_of
    from bigger_boat.console import say

    say(escape(change.result.sentence))
    with _quiet(settings):
        event = event_of(change, reason, _who(), *_storage_and_host(settings))
    _note(event)


def _quiet(settings: Settings) -> AbstractContextManager[None]:
    """Send what TensorFlow says while it loads a version to a log."""
    from bigger_boat.console import quiet

    return quiet(settings.data_dir / "logs" / "control.log")


def _note(event: "dg.AssetObservation") -> None:
    import dagster as dg

    with dg.DagsterInstance.get() as instance:
        instance.report_runless_asset_event(event)


def _who() -> str:
    return f"{getpass.getuser()} at the command line"
