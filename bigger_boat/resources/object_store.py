"""Write-once versions in an object store: a version is there once its list of files is, which is written last.

Belongs here: copying a folder there and back, digests, progress, encryption. What belongs elsewhere: what assets see
(``s3_storage.py``).

::

    ROOT/KIND/NAME/VERSION/...          the version's files, as they lie in its folder
    ROOT/KIND/NAME/VERSION/_files.json  their sizes and sha256 digests

An object appears whole or not at all, so that what a kill leaves is a version without a list, which is none: the same
upload later writes the same objects again. ROOT is any address that UPath knows; options are given for S3 only.
"""

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import dagster as dg

from bigger_boat.errors import CloudError
from bigger_boat.ml.bundle import file_digest
from bigger_boat.resources.aws import ATTEMPTS, aws_in_words

if TYPE_CHECKING:
    from upath import UPath

FILES = "_files.json"
PART_BYTES = 32 * 2**20
"""Size of the parts of a multipart upload; a file of less than two is sent at once."""
TOLD_BYTES = 256 * 2**20
"""From this size on, a file's progress is told."""

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Content:
    """What a listing says of an object's content; another ``tag`` (S3's ETag), another content."""

    size_bytes: int
    tag: str


class ObjectStore:
    """Versions under ``root``. Every method raises CloudError with what AWS said, where, and what to do."""

    def __init__(self, root: str, kms_key: str = "", part_bytes: int = PART_BYTES):
        self.root_address, self.kms_key, self.part_bytes = root.rstrip("/"), kms_key, part_bytes

    @cached_property
    def root(self) -> "UPath":
        """The root. A listing is never taken from a cache: other processes write, too."""
        from upath import UPath

        options = _s3_options(self.kms_key) if self.root_address.startswith("s3://") else {}
        return UPath(self.root_address, **options)

    def read_text(self, path: str) -> str | None:
        """Return a small object, None where there is none."""
        with self._named("read", path):
            try:
                return self.root.joinpath(path).read_text()
            except FileNotFoundError as error:
                _require_bucket(error)
                return None

    def write_text(self, path: str, text: str) -> None:
        """Replace a small object; readers see the old or the new one."""
        self.write_bytes(path, text.encode())

    def write_bytes(self, path: str, content: bytes) -> None:
        """Replace a small object; readers see the old or the new one."""
        with self._named("written", path):
            self.root.fs.pipe_file(self._address(path), content)

    def create_text(self, path: str, text: str) -> bool:
        """Write a small object that nobody has written; return whether it was this call that did."""
        with self._named("written", path):
            try:
                self.root.fs.pipe_file(self._address(path), text.encode(), mode="create")
                return True
            except FileExistsError:
                return False

    def read_bytes(self, path: str) -> bytes:
        """Return an object's content; there must be one."""
        with self._named("read", path):
            return self.root.fs.cat_file(self._address(path))

    def names(self, folder: str) -> list[str]:
        """Return the objects below a folder, relative to it, in order of their names."""
        with self._named("listed", folder):
            address = self._address(folder)
            return sorted(found.removeprefix(address).lstrip("/") for found in self.root.fs.find(address))

    def folders(self, folder: str) -> list[str]:
        """Return the names of the folders right in a folder, in order; what lies in them is not listed."""
        with self._named("listed", folder):
            try:
                found = self.root.fs.ls(self._address(folder), detail=True)
            except FileNotFoundError as error:
                _require_bucket(error)
                return []
            return sorted(PurePosixPath(each["name"]).name for each in found if each["type"] == "directory")

    def contents(self, folder: str) -> dict[str, "Content"]:
        """Return size and tag of the objects below a folder, by their names relative to it, in order."""
        with self._named("listed", folder):
            address = self._address(folder)
            found = self.root.fs.find(address, detail=True)
        each = {name.removeprefix(address).lstrip("/"): told for name, told in found.items()}
        return {name: Content(each[name]["size"], str(each[name].get("ETag", ""))) for name in sorted(each)}

    def read_many(self, paths: Sequence[str]) -> list[bytes]:
        """Return the content of objects, read side by side; those that have gone meanwhile are left out."""
        addresses = [self._address(path) for path in paths]
        with self._named("read", f"{paths[0]} and {len(paths) - 1} more" if paths else ""):
            found = self.root.fs.cat(addresses, on_error="return") if paths else {}
            for content in found.values():
                if isinstance(content, Exception) and not isinstance(content, FileNotFoundError):
                    raise content
        return [found[address] for address in addresses if isinstance(found[address], bytes)]

    def remove(self, path: str) -> None:
        """Remove an object, if it is there."""
        with self._named("removed", path), contextlib.suppress(FileNotFoundError):
            self.root.fs.rm_file(self._address(path))

    def create_file(self, local: Path, path: str) -> str:
        """Copy a file to where nobody has written one; return the digest of what lies there then, and here.

        Where one lies there already, it is copied here: one name, one content, whoever wrote it first.
        """
        progress = _progress(path, dg.get_dagster_logger("storage").info)
        with self._named("written", path):
            try:
                self.root.fs.put_file(
                    str(local), self._address(path), chunksize=self.part_bytes, callback=progress, mode="create"
                )
                return file_digest(local)
            except FileExistsError:
                pass
        self.fetch_file(path, local, None)
        return file_digest(local)

    def fetch_file(self, path: str, local: Path, digest: str | None) -> None:
        """Copy an object to ``local``, with one rename. Raises CloudError if it has not this sha256."""
        local.parent.mkdir(parents=True, exist_ok=True)
        draft = local.with_name(f".draft-{os.getpid()}-{local.name}")
        try:
            self._fetch(path, draft, digest, dg.get_dagster_logger("storage").info)
            draft.replace(local)
        finally:
            draft.unlink(missing_ok=True)

    def files(self, version: str) -> dict[str, dict[str, Any]] | None:
        """Return the list of files of a version (``bytes``, ``sha256`` by name), None where the version is not."""
        text = self.read_text(f"{version}/{FILES}")
        return json.loads(text) if text is not None else None

    def upload(self, folder: Path, version: str, tell: Tell | None = None) -> None:
        """Write a folder as ``version``. Raises FileExistsError if it is there with another content."""
        tell = tell or dg.get_dagster_logger("storage").info
        files = list_files(folder)
        if self._is_there(version, files):
            return
        for name in files:
            path = f"{version}/{name}"
            with self._named("written", path):
                self.root.fs.put_file(
                    str(folder / name), self._address(path), chunksize=self.part_bytes, callback=_progress(path, tell)
                )
        text = json.dumps(files, indent=2, sort_keys=True) + "\n"
        if not self.create_text(f"{version}/{FILES}", text):
            self._is_there(version, files)

    def download(self, version: str, target: Path, tell: Tell | None = None) -> bool:
        """Copy a version to ``target`` with one rename, verified; return whether there is one.

        Raises CloudError if an object is not what was written.
        """
        files = self.files(version)
        if files is None:
            return False
        tell = tell or dg.get_dagster_logger("storage").info
        draft = target.with_name(f".draft-{os.getpid()}-{uuid.uuid4().hex[:8]}")  # as Storage.sweep_drafts knows it
        try:
            for name, written in files.items():
                self._fetch(f"{version}/{name}", draft / name, written["sha256"], tell)
            if not target.exists():
                draft.rename(target)
        except OSError:
            if not target.exists():  # otherwise another process was faster
                raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return True

    def _fetch(self, path: str, target: Path, digest: str | None, tell: Tell) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        with self._named("read", path):
            self.root.fs.get_file(self._address(path), str(target), callback=_progress(path, tell))
        if digest is not None and file_digest(target) != digest:
            raise CloudError(
                f"{self.root_address}/{path} was altered: it does not match the digest it was written with.",
                "Materialize what it belongs to again; a version is never repaired by hand.",
            )

    def _is_there(self, version: str, files: dict[str, dict[str, Any]]) -> bool:
        known = self.files(version)
        if known is not None and known != files:
            raise FileExistsError(f"{self.root_address}/{version} is published already; versions are write-once")
        return known is not None

    def _address(self, path: str) -> str:
        return self.root.joinpath(path).path

    def _named(self, done: str, path: str) -> Any:
        return aws_in_words(f"{self.root_address}/{path} cannot be {done}")


def list_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Return size and digest of every file below a folder, by its path in it."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [PurePosixPath(path.relative_to(folder)).as_posix() for path in found]
    described = [{"bytes": path.stat().st_size, "sha256": file_digest(path)} for path in found]
    return dict(zip(names, described, strict=True))


def _s3_options(kms_key: str) -> dict[str, Any]:
    encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key} if kms_key else None
    return {
        "s3_additional_kwargs": encryption or {"ServerSideEncryption": "AES256"},
        "config_kwargs": {"retries": {"mode": "standard", "max_attempts": ATTEMPTS}, "connect_timeout": 10},
        "use_listings_cache": False,
    }


def _require_bucket(error: FileNotFoundError) -> None:
    """A key that is not there is an answer; a bucket that is not there is a mistake."""
    response = getattr(error.__cause__, "response", None) or {}
    if response.get("Error", {}).get("Code") == "NoSuchBucket":
        raise error


def _progress(path: str, tell: Tell) -> Any:
    """Return what fsspec reports copied bytes to: each tenth of a large file is told."""
    from fsspec.callbacks import Callback

    class Progress(Callback):
        told = 0

        def call(self, hook_name: str | None = None, **kwargs: Any) -> None:  # noqa: ARG002
            if not self.size or self.size < TOLD_BYTES:
                return
            tenth = int(10 * self.value / self.size)
            if tenth > self.told:
                self.told = tenth
                tell(f"{path}: {tenth * 10} % of {self.size / 2**20:.0f} MiB")

    return Progress()
