"""What every dbt invocation of ours has in common: its flags and its environment. No dbt and no Dagster in here."""

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_ONE_AT_A_TIME = threading.Lock()
"""dbt keeps flags, adapters and its working directory per process."""


def common_flags(project_dir: Path, target_path: Path, target: str) -> list[str]:
    """Return the flags: everything written goes to ``target_path``, nothing is printed, nobody is told."""
    return [
        "--project-dir",
        str(project_dir),
        "--profiles-dir",
        str(project_dir),
        "--target",
        target,
        "--target-path",
        str(target_path),
        "--log-path",
        str(target_path),
        "--log-level",
        "none",
        "--log-level-file",
        "debug",
        "--no-use-colors",
        "--no-send-anonymous-usage-stats",
    ]


@contextmanager
def project_environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set the variables that ``profiles.yml`` reads while dbt runs here; restore them and the directory after."""
    with _ONE_AT_A_TIME:
        directory, before = os.getcwd(), {name: os.environ.get(name) for name in variables}
        os.environ.update(variables)
        try:
            yield
        finally:
            os.chdir(directory)
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
