"""Storage of data sets, embeddings and bundles: write-once versions in folders, exchanged between assets by address.

Belongs here: the interface, and local files. What belongs elsewhere: S3 (``s3_storage.py``), what is inside a version
(``data/``, ``ml/``).
"""

import hashlib
import json
import os
import shutil
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
from dagster._core.types.dagster_type import DagsterTypeKind

from bigger_boat import clock
from bigger_boat.errors import DatasetError


@dataclass(frozen=True)
class Draft:
    """A version being written: ``path`` is a local folder; ``address`` is valid once it is published."""

    path: Path
    version: str
    address: str


class Storage(dg.ConfigurableResource, ABC):
    """Versions by ADDRESS: ``kind/name/version``, with a path below it or without; the same on every machine.

    Whatever is written or read lies under ``base_dir`` on this machine; ``publish`` and ``fetch`` say where else.
    """

    base_dir: str

    @abstractmethod
    def publish(self, path: Path) -> str:
        """Let others fetch the version that ``path`` is or lies in; return the address of ``path``.

        The version lies whole under ``base_dir``. Publishing the same version again changes nothing.
        """

    @abstractmethod
    def fetch(self, address: str) -> Path:
        """Return the local folder of a published version. Raises DatasetError where there is none."""

    @contextmanager
    def draft(self, name: str, version: str | None = None) -> Iterator[Draft]:
        """Yield a Draft of ``name`` (``datasets/intent_dataset``); leaving without an error publishes it by one rename.

        A published version is never written again: publishing an existing version raises FileExistsError.
        """
        version = version or f"{clock.utc_now():%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"
        address = f"{name}/{version}"
        target = Path(self.base_dir) / address
        path = target.with_name(f".draft-{os.getpid()}-{version}")
        path.mkdir(parents=True)
        try:
            yield Draft(path, version, address)
            if target.exists():
                raise FileExistsError(f"{address} is published already; versions are write-once")
            path.rename(target)
            self.publish(target)
        finally:
            shutil.rmtree(path, ignore_errors=True)

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


class LocalStorage(Storage):
    """Versions on this machine's disk only."""

    def publish(self, path: Path) -> str:
        """Return the address: what lies under ``base_dir`` is published already."""
        return self.address(path)

    def fetch(self, address: str) -> Path:
        """Return the folder. Raises DatasetError where there is none."""
        path = Path(self.base_dir) / address
        if not path.is_dir():
            raise never_made(address, self.base_dir)
        return path


class AddressIOManager(dg.ConfigurableIOManager):
    """Hands addresses from asset to asset: one small JSON file per asset, replaced atomically.

    An asset that was never made is None where the input says so (``str | None``), and an error elsewhere.
    """

    base_dir: str

    def handle_output(self, context: dg.OutputContext, obj: str) -> None:
        self._write(f"{'.'.join(context.asset_key.path)}.json", json.dumps({"address": obj, "run_id": context.run_id}))

    def load_input(self, context: dg.InputContext) -> str | None:
        text = self._read(f"{'.'.join(context.asset_key.path)}.json")
        if text is not None:
            return json.loads(text)["address"]
        if context.dagster_type.kind == DagsterTypeKind.NULLABLE:
            return None
        name = context.asset_key.to_user_string()
        raise DatasetError(f"{name} has not been made yet.", f"Materialize it first: bigger-boat run --select {name}")

    def _write(self, file: str, text: str) -> None:
        path = Path(self.base_dir) / file
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".draft-{os.getpid()}-{uuid.uuid4().hex}")
        draft.write_text(text + "\n")
        draft.replace(path)

    def _read(self, file: str) -> str | None:
        path = Path(self.base_dir) / file
        return path.read_text() if path.exists() else None


def never_made(address: str, where: str) -> DatasetError:
    """Return the error of an address under which nothing lies."""
    return DatasetError(
        f"There is no {address} under {where}.",
        f"Materialize it again: bigger-boat run --select {address.split('/')[1]}",
    )


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
