"""Storage of data sets, embeddings and bundles: write-once versions in folders, exchanged between assets by address.

Here live local files; the shape (draft, publish, fetch) is that of an object store.
What belongs elsewhere: what is inside a version (``data/``, ``ml/``).
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
from dagster._core.types.dagster_type import DagsterTypeKind

from bigger_boat.errors import DatasetError


@dataclass(frozen=True)
class Draft:
    """A version being written: ``path`` is a local folder; ``address`` is valid once it is published."""

    path: Path
    version: str
    address: str


class LocalStorage(dg.ConfigurableResource):
    """Versions under ``base_dir``/ADDRESS. An address is ``kind/name/version``, relative, the same on every machine."""

    base_dir: str

    @contextmanager
    def draft(self, name: str, version: str | None = None) -> Iterator[Draft]:
        """Yield a Draft of ``name`` (``datasets/intent_dataset``); leaving without an error publishes it by one rename.

        A published version is never written again: publishing an existing version raises FileExistsError.
        """
        version = version or f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"
        address = f"{name}/{version}"
        target = Path(self.base_dir) / address
        path = target.with_name(f".draft-{os.getpid()}-{version}")
        path.mkdir(parents=True)
        try:
            yield Draft(path, version, address)
            if target.exists():
                raise FileExistsError(f"{address} is published already; versions are write-once")
            path.rename(target)
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def fetch(self, address: str) -> Path:
        """Return the local folder of a published version. Raises DatasetError where there is none."""
        path = Path(self.base_dir) / address
        if not path.is_dir():
            raise DatasetError(
                f"There is no {address} under {self.base_dir}.",
                f"Materialize it again: bigger-boat run --select {address.split('/')[-2]}",
            )
        return path

    def folder(self, name: str) -> Path:
        """Return the local folder that holds the versions of ``name``, for what writes its own versions (bundles)."""
        return Path(self.base_dir) / name

    def checkpoints(self, *identity: object) -> Path:
        """Return the folder where training that is the same by ``identity`` keeps its last epoch, to resume from."""
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:16]
        path = Path(self.base_dir) / "checkpoints" / digest
        path.mkdir(parents=True, exist_ok=True)
        return path

    def address(self, path: Path) -> str:
        """Return the address of a folder below."""
        return path.relative_to(self.base_dir).as_posix()

    def sweep_drafts(self) -> list[Path]:
        """Remove what processes that are gone left unfinished; return what was removed."""
        base = Path(self.base_dir)
        found = [*base.glob("*/.draft-*"), *base.glob("*/*/.draft-*")]
        stale = [path for path in found if not _alive(int(path.name.split("-")[1]))]
        for path in stale:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return stale


class AddressIOManager(dg.ConfigurableIOManager):
    """Hands addresses from asset to asset: one small JSON file per asset, replaced atomically.

    An asset that was never made is None where the input says so (``str | None``), and an error elsewhere.
    """

    base_dir: str

    def _path(self, key: dg.AssetKey) -> Path:
        return Path(self.base_dir) / f"{'.'.join(key.path)}.json"

    def handle_output(self, context: dg.OutputContext, obj: str) -> None:
        path = self._path(context.asset_key)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".draft-{os.getpid()}-{uuid.uuid4().hex}")
        draft.write_text(json.dumps({"address": obj, "run_id": context.run_id}) + "\n")
        draft.replace(path)

    def load_input(self, context: dg.InputContext) -> str | None:
        path = self._path(context.asset_key)
        if not path.exists():
            if context.dagster_type.kind == DagsterTypeKind.NULLABLE:
                return None
            name = context.asset_key.to_user_string()
            raise DatasetError(
                f"{name} has not been made yet.", f"Materialize it first: bigger-boat run --select {name}"
            )
        return json.loads(path.read_text())["address"]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
