"""The command that tries configurations of a grid."""

import subprocess
import sys
from typing import Annotated

import typer

from bigger_boat.cli.app import Size, app
from bigger_boat.cli.process import prepare_process


@app.command(epilog="Example: bigger-boat sweep --at-once 2")
def sweep(
    at_once: Annotated[int, typer.Option(min=1, help="trainings side by side, each a process of its own")] = 2,
    only: Annotated[str | None, typer.Option(help="train this configuration, also if it has a result")] = None,
    size: Size = None,
) -> None:
    """Train the intent model's grid of configurations and compare them; only what has no result on this data."""
    import dagster as dg

    from bigger_boat.automation import sweep as sweeping
    from bigger_boat.console import quiet, say

    settings = prepare_process(size, max_workers=1)
    with dg.DagsterInstance.get() as instance:
        if only:
            from bigger_boat.definitions import defs

            with quiet(settings.data_dir / "logs" / f"sweep-{only}.log"):
                good = sweeping.run_one(defs, instance, only)
            raise typer.Exit(0 if good else 1)
        names = sweeping.missing(instance, settings.size)

    def train(name: str) -> bool:
        command = [sys.executable, "-m", "bigger_boat.cli", "sweep", "--only", name]
        return subprocess.run(command, check=False).returncode == 0

    say(f"{len(names)} configurations to train, {at_once} at a time.")
    failed = sweeping.run_all(names, at_once, train, lambda name, good: say(f"  {'✓' if good else '✗'} {name}"))
    say("The table is intent_sweep_table in the web UI (make up); every run is in bigger-boat experiments.")
    if failed:
        say(
            f"{len(failed)} failed; logs/sweep-NAME.log in the data folder says why. The same command tries them again."
        )
        raise typer.Exit(1)
