"""A PostgreSQL of its own: Debian's package, in a folder that goes afterwards, asked over loopback with a password."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

USER, DATABASE = "dagster", "postgres"


@dataclass(frozen=True)
class Database:
    """Where it listens."""

    port: int
    host: str = "127.0.0.1"


@contextmanager
def postgres(password: str) -> Iterator[Database]:
    """Run a server whose only user, USER, needs the password."""
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    owner = _somebody()
    try:
        (folder / "password").write_text(password)
        for path in (folder, folder / "password"):
            if owner:
                os.chown(path, int(owner["user"]), int(owner["group"]))
        make = [_program("initdb"), "-D", folder / "data", "-U", USER, "-A", "scram-sha-256"]
        make += ["--pwfile", folder / "password", "--no-sync", "-E", "UTF8", "--locale", "C"]
        subprocess.run(make, check=True, capture_output=True, cwd=folder, **owner)
        with _listening(folder, owner) as port:
            _await(port, password)
            yield Database(port)
    finally:
        shutil.rmtree(folder)


@contextmanager
def _listening(folder: Path, owner: dict) -> Iterator[int]:
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve = [_program("postgres"), "-D", folder / "data", "-p", str(port), "-k", folder, "-h", "127.0.0.1"]
    serve += ["-c", "fsync=off"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(serve, stdout=log, stderr=log, cwd=folder, **owner)
    try:
        yield port
    finally:
        server.send_signal(2)  # a fast shutdown: sessions are ended
        server.wait(60)


def _await(port: int, password: str) -> None:
    import psycopg2

    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg2.connect(host="127.0.0.1", port=port, user=USER, password=password, dbname=DATABASE).close()
        except psycopg2.OperationalError:
            assert time.monotonic() < deadline, "PostgreSQL does not answer"
            time.sleep(0.05)
        else:
            return


def _program(name: str) -> str:
    found = [*Path("/usr/lib/postgresql").glob(f"*/bin/{name}")]
    program = str(max(found)) if found else shutil.which(name)
    assert program, f"There is no {name}: install Debian's package postgresql, or another PostgreSQL, on the PATH."
    return program


def _somebody() -> dict:
    """PostgreSQL refuses to run as root: return whom to be instead, nothing where this process is somebody else."""
    if os.geteuid():
        return {}
    try:
        found = pwd.getpwnam("postgres")
    except KeyError:
        found = pwd.getpwnam("nobody")
    return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
