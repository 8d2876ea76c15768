"""The dbt project's manifest: parsed once per state of the project's files, then only read.

Importing this module costs nothing; dbt is imported where it parses. What belongs elsewhere: running dbt (``dbt.py``).
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from bigger_boat.errors import WarehouseError
from bigger_boat.settings import get_settings

if TYPE_CHECKING:
    from dbt.contracts.graph.manifest import Manifest

PROJECT_DIR = Path(__file__).resolve().parents[2] / "dbt_project"
DUCKDB, SNOWFLAKE = "duckdb", "snowflake"
PARSED = "partial_parse.msgpack"
DIGEST = "manifest.sha256"
SOURCES = ("*.yml", "*.sql")
WRITTEN_BY_DBT = ("target", "logs", "dbt_packages")
NAMED_IN_MANIFEST = ("DBT_SNOWFLAKE_DATABASE", "DBT_SNOWFLAKE_SCHEMA")
"""The variables of ``profiles.yml`` whose values stand in a manifest."""


def profile_target() -> str:
    """Return the target of this process's profile: which manifest the graph is drawn from."""
    return get_settings().dbt_target


def manifest_path(project_dir: Path = PROJECT_DIR, target: str = DUCKDB) -> Path:
    """Return where the manifest of a target lies: ``target/manifest.json``, others in a folder of their own."""
    folder = Path(project_dir) / "target"
    return (folder if target == DUCKDB else folder / target) / "manifest.json"


def ensure_manifest(
    project_dir: Path = PROJECT_DIR, target: str = DUCKDB, environment: Mapping[str, str] | None = None
) -> Path:
    """Return the path of the manifest, parsing the project (seconds) only if its files, dbt or database names changed.

    ``environment``: variables of ``profiles.yml``, which name Snowflake's database. Atomic and safe with several
    processes at once. Raises WarehouseError if the project cannot be parsed.
    """
    path = manifest_path(project_dir, target)
    environment = environment or {}
    digest = _digest(Path(project_dir), [environment.get(name, "") for name in NAMED_IN_MANIFEST])
    if _is_current(path, digest):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.parent / ".manifest.lock"):
        if not _is_current(path, digest):
            _parse(Path(project_dir), target, environment, path, digest)
    return path


def load_manifest(
    project_dir: Path = PROJECT_DIR, target: str = DUCKDB, environment: Mapping[str, str] | None = None
) -> "Manifest":
    """Return dbt's own manifest object for ``dbtRunner``: about 0.3 s, where parsing takes seconds."""
    from dbt.contracts.graph.manifest import Manifest

    path = ensure_manifest(project_dir, target, environment)
    manifest = Manifest.from_msgpack((path.parent / PARSED).read_bytes())
    manifest.build_flat_graph()
    return manifest


def _digest(project_dir: Path, names: Sequence[str]) -> str:
    """Return a digest of everything a manifest depends on: files, dbt's versions, database names."""
    digest = hashlib.sha256("\n".join(names).encode())
    for package in ("dbt-core", "dbt-adapters", "dbt-duckdb", "dbt-snowflake"):
        digest.update(f"{package}={metadata.version(package)}\n".encode())
    for path in sorted(path for pattern in SOURCES for path in project_dir.rglob(pattern)):
        relative = path.relative_to(project_dir)
        if relative.parts[0] in WRITTEN_BY_DBT or relative.name == ".user.yml":
            continue
        digest.update(f"{relative.as_posix()}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _is_current(path: Path, digest: str) -> bool:
    try:
        written = (path.parent / DIGEST).read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    return written == digest and path.exists() and (path.parent / PARSED).exists()


@contextmanager
def _locked(lock_file: Path) -> Iterator[None]:
    with lock_file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _parse(project_dir: Path, target: str, environment: Mapping[str, str], path: Path, digest: str) -> None:
    from dbt.cli.main import dbtRunner

    from bigger_boat.resources.dbt_flags import common_flags, project_environment

    with TemporaryDirectory(dir=path.parent, prefix=".parse-") as scratch, project_environment(environment):
        result = dbtRunner().invoke(["parse", *common_flags(project_dir, Path(scratch), target), "--no-partial-parse"])
        if not result.success:
            raise WarehouseError(
                f"The dbt project in {project_dir} cannot be parsed: {result.exception}",
                "Correct the file that the message names.",
            )
        (path.parent / DIGEST).unlink(missing_ok=True)
        for name in (PARSED, path.name):
            os.replace(Path(scratch) / name, path.parent / name)
        (Path(scratch) / DIGEST).write_text(digest, encoding="utf-8")
        os.replace(Path(scratch) / DIGEST, path.parent / DIGEST)
