"""Finding the source's three files and opening their bytes: .csv, .csv.gz, .zip or Parquet.

What belongs elsewhere: reading rows (``source_batches.py``), what a row must look like (``source_rows.py``).
"""

import struct
import zipfile
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from bigger_boat.errors import LandingError

TABLE_OF_STEM = {"browsing_train": "browsing", "search_train": "search", "sku_to_content": "catalog"}
SUFFIXES = (".csv", ".csv.gz", ".parquet")


@dataclass(frozen=True)
class SourceFile:
    """One of the three files: ``table`` is what it holds, ``member`` its name inside ``path`` if that is a .zip."""

    table: str
    path: Path
    member: str | None = None

    @property
    def label(self) -> str:
        """How messages call it."""
        return f"{self.path}, in it {self.member}" if self.member else str(self.path)

    @property
    def name(self) -> str:
        """The name without its folders."""
        return Path(self.member).name if self.member else self.path.name


def find_source_files(source: Path) -> list[SourceFile]:
    """Return what there is of the three files in a directory, one folder below, in a .zip, or as a single file.

    Raises LandingError if there is nothing, or one of the three twice.
    """
    source = Path(source)
    try:
        if not source.exists():
            raise LandingError(f"There is no {source}.", "Give the directory, the .zip or the file to land.")
        found = _in_directory(source) if source.is_dir() else _in_file(source)
    except PermissionError as error:
        raise LandingError(
            f"{error.filename or source} may not be read by this user.", "Grant read permission."
        ) from error
    except OSError as error:
        raise LandingError(f"{source} cannot be read: {error.strerror}.", "Check the path and the disk.") from error
    for table in TABLE_OF_STEM.values():
        same = [file for file in found if file.table == table]
        if len(same) > 1:
            names = " and ".join(file.label for file in same)
            raise LandingError(
                f"There are two files for the {table} table: {names}.", "Keep one of them and land again."
            )
    if not found:
        names = ", ".join(TABLE_OF_STEM)
        hint = "Name the files like the challenge's, in CSV (plain, .gz or .zip) or Parquet."
        raise LandingError(f"{source} holds none of {names}.", hint)
    return sorted(found, key=lambda file: list(TABLE_OF_STEM.values()).index(file.table))


def open_bytes(file: SourceFile, stack: ExitStack) -> tuple[pa.NativeFile, Callable[[], int], int]:
    """Open a file's bytes, unpacked; return the stream, a function for the bytes read so far, and their total."""
    if file.path.suffix.lower() == ".zip":
        archive = stack.enter_context(zipfile.ZipFile(file.path))
        member = stack.enter_context(closing(archive.open(file.member)))
        stream, position, total = pa.PythonFile(member), member.tell, archive.getinfo(file.member).file_size
    else:
        stream = stack.enter_context(pa.OSFile(str(file.path)))
        position, total = stream.tell, file.path.stat().st_size
    if not total:
        raise LandingError(f"{file.label} is empty.", "Its first line must name the columns: write it again.")
    if file.name.endswith(".gz"):
        return stack.enter_context(pa.CompressedInputStream(stream, "gzip")), position, total
    return stream, position, total


def _in_directory(directory: Path) -> list[SourceFile]:
    for folder in (directory, *sorted(path for path in directory.iterdir() if path.is_dir())):
        found = [match for path in sorted(folder.iterdir()) if path.is_file() for match in _in_file(path, strict=False)]
        if found:
            return found
    return []


def _in_file(path: Path, strict: bool = True) -> list[SourceFile]:
    if path.suffix.lower() != ".zip":
        table = _table_of(path.name)
        return [SourceFile(table, path)] if table else []
    try:
        with zipfile.ZipFile(path) as archive:
            members = [name for name in archive.namelist() if not name.endswith("/")]
    except PermissionError:
        raise
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError, struct.error) as error:
        table = _table_of(path.stem) or _table_of(path.stem + ".csv")
        if table:
            return [SourceFile(table, path)]  # reading it will say what is wrong, and the other files still land
        if strict:
            message = f"{path} is no readable .zip: {error}."
            raise LandingError(message, "It may be cut short: fetch it again.") from error
        return []
    matches = [(name, _table_of(Path(name).name)) for name in members]
    return [SourceFile(table, path, name) for name, table in matches if table]


def _table_of(name: str) -> str | None:
    for stem, table in TABLE_OF_STEM.items():
        if name.lower() in {stem + suffix for suffix in SUFFIXES}:
            return table
    return None
