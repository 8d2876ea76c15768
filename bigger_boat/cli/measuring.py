"""Commands that measure: recorded trainings, the project's own benchmarks, recommenders on anyone's clicks."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from bigger_boat.cli.app import app
from bigger_boat.settings import PROJECT_DIR, get_settings


@app.command(epilog="Example: bigger-boat experiments --port 5000")
def experiments(port: Annotated[int, typer.Option(help="of MLflow's web UI, on loopback")] = 5000) -> None:
    """Show every training with its parameters, metrics and bundle, in MLflow's web UI, until Ctrl-C."""
    import subprocess

    from bigger_boat.resources.tracking import ui_command

    subprocess.run(ui_command(get_settings(), port), check=False)


@app.command(epilog="Example: bigger-boat bench definitions_load")
def bench(names: Annotated[list[str] | None, typer.Argument(help="files of benchmarks/; default: all")] = None) -> None:
    """Run the benchmarks: one JSON object per result, each a ratio against a peer in the same run."""
    import subprocess

    folder = PROJECT_DIR / "benchmarks"
    for path in [folder / f"{name}.py" for name in names] if names else sorted(folder.glob("[a-z]*.py")):
        subprocess.run([sys.executable, str(path)], check=True)


@app.command(epilog="Example: bigger-boat benchmark train.txt test.txt --json result.json")
def benchmark(
    files: Annotated[list[Path], typer.Argument(help="clicks to split by time, or training and test clicks")],
    json_file: Annotated[Path | None, typer.Option("--json", help="write the result here, too")] = None,
    ladder_only: Annotated[bool, typer.Option("--ladder-only", help="without our own recommenders")] = False,
) -> None:
    """Measure our recommenders beside the published simple ones, on anyone's clicks.

    A file holds SessionId, ItemId and Time (session-rec's format), or it is the challenge's browsing_train.csv.
    """
    from bigger_boat.console import ProgressLine, say
    from bigger_boat.data.session_files import read_sessions
    from bigger_boat.errors import DatasetError
    from bigger_boat.ml.benchmark import Benchmark, report, split_by_time, write_result

    if len(files) > 2:
        raise DatasetError(f"{len(files)} files are given.", "Give one file to split by time, or training and test.")
    if json_file and not json_file.parent.is_dir():
        raise DatasetError(f"There is no folder {json_file.parent}.", "Make it, or name another file for --json.")
    sessions = [read_sessions(path) for path in files]
    train, test = sessions if len(sessions) == 2 else split_by_time(sessions[0])
    with ProgressLine() as progress:
        result = Benchmark(train, test).run(candidates=not ladder_only, progress=progress)
    say(escape(report(result)))
    if json_file:
        write_result(result, json_file)
