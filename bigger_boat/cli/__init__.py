"""The command line: parses, calls, prints. Every command exits non-zero on failure and shows an example in --help.

A module per room; importing it adds its commands to ``app``.
"""

import sys
import warnings

from rich.markup import escape

# in the order of --help
# isort: off
from bigger_boat.cli import shop, graph, serving, control, explain, sweeping, measuring, forget, doctor, deploy  # noqa: F401

# isort: on
from bigger_boat.cli.app import app
from bigger_boat.errors import BiggerBoatError

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line; an error that a person can act on is printed as a sentence."""
    if not sys.warnoptions:  # what libraries warn of while they are imported tells a person nothing to do
        warnings.simplefilter("ignore")
    try:
        app()
    except BiggerBoatError as error:
        from bigger_boat.console import console

        console.print(f"[red]{escape(error.message)}[/red]")
        if error.hint:
            console.print(f"What to do: {escape(error.hint)}")
        sys.exit(error.exit_code)
