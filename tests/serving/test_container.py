"""SageMaker's container contract without Docker: what the image does, in an empty virtual environment, as another user.

Images cannot be built in a test. This does the steps of ``deploy/Dockerfile``'s serving target: the environment from
the same lock, the package copied beside it, the same command, the bundle as SageMaker unpacks it.
"""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_models import rank_offline

from bigger_boat.errors import ServerError
from bigger_boat.ml.golden import compare_golden
from bigger_boat.serving import client

PROJECT = Path(__file__).resolve().parent.parent.parent
NOBODY = 65534
PIN = re.compile(r"^([a-z0-9._-]+==[^ ;]+)", re.MULTILINE)


def test_the_serving_lock_is_a_part_of_the_lock():
    """Otherwise the container would answer with other libraries than the laptop."""
    whole = set(PIN.findall((PROJECT / "requirements.lock").read_text()))
    served = set(PIN.findall((PROJECT / "deploy" / "requirements-serving.lock").read_text()))
    assert len(served) > 20
    assert served <= whole


def test_the_image_runs_the_tested_command_as_no_root():
    image = (PROJECT / "deploy" / "Dockerfile").read_text()
    serving = image.split("AS serving")[1].split("AS training")[0]
    assert 'CMD ["serve"]' in serving
    assert "USER boat" in serving
    assert "requirements-serving.lock" in serving
    assert os.access(PROJECT / "deploy" / "serve", os.X_OK)


def test_a_job_may_write_to_its_data_folder():
    """The code is root's, and a job is not root: below the project's folder it could write nothing."""
    training = (PROJECT / "deploy" / "Dockerfile").read_text().split("AS training")[1]
    folder = re.search(r"^ENV BIGGER_BOAT_DATA_DIR=(/\S+)$", training, re.MULTILINE)[1]
    assert f"RUN install -d -o boat {folder}\n" in training
    assert training.index("bigger-boat prepare") < training.index("ENV BIGGER_BOAT_DATA_DIR")


@pytest.mark.slow
def test_the_containers_contract(bundles, container):
    bundle = bundles["first"]
    with tarfile.open(bundle.archive) as archive:
        archive.extractall(container.model, filter="data")
    with container.start() as url:
        container.wait_until_up(url)
        assert _status(f"{url}/ping") == 200
        answer = client.post_invocations(url, None, {"sessions": [["sku-a", "sku-é"], []], "k": 3})
        assert answer["version"] == bundle.version
        wanted = [rank_offline(["sku-a", "sku-é"], 3), rank_offline([], 3)]
        assert compare_golden(wanted, answer["predictions"]) == []
        for entry in bundle.golden:
            given = client.post_invocations(url, None, entry["request"])["predictions"]
            assert compare_golden(entry["predictions"], given) == []
        if os.getuid() == 0:
            assert container.user_id() == NOBODY
    assert container.exit_code == 0
    line = next(json.loads(line) for line in container.log().splitlines() if '"route":"/invocations"' in line)
    assert line["version"] == bundle.version


class Container:
    """``model`` is its /opt/ml/model; ``start`` runs its command."""

    def __init__(self, root: Path):
        self.root = root
        self.model = root / "opt" / "ml" / "model"
        self.model.mkdir(parents=True)
        self.exit_code: int | None = None

    @contextlib.contextmanager
    def start(self) -> Iterator[str]:
        for path in [self.root, *self.root.glob("opt/**/*")]:
            path.chmod(0o755 if path.is_dir() else path.stat().st_mode | 0o444)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        environment = {
            "PATH": f"{self.root / 'venv' / 'bin'}:/usr/bin:/bin",
            "PYTHONPATH": str(self.root / "opt" / "bigger-boat"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "LD_LIBRARY_PATH": str(self.root / "python" / "lib"),  # of a copied interpreter that is a shared library
            "HOME": "/nonexistent",
            "MODEL_DIR": str(self.model),
            "SERVE_HOST": "127.0.0.1",
            "SAGEMAKER_BIND_TO_PORT": str(port),
        }
        other = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.getuid() == 0 else {}
        with (self.root / "log").open("wb") as log:
            command = [str(self.root / "opt" / "serve")]
            self.process = subprocess.Popen(command, env=environment, cwd="/", stdout=log, stderr=log, **other)
        try:
            yield f"http://127.0.0.1:{port}"
        except BaseException:
            sys.stderr.write(self.log()[-3000:])
            raise
        finally:
            self.process.terminate()
            self.exit_code = self.process.wait(30)

    def wait_until_up(self, url: str) -> None:
        while self.process.poll() is None:
            with contextlib.suppress(ServerError):
                client.wait_until_up(url, 1)
                return
        pytest.fail(f"the server ended with {self.process.returncode}")

    def log(self) -> str:
        return (self.root / "log").read_text()

    def user_id(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"^Uid:\s+(\d+)", status, re.MULTILINE)[1])


@pytest.fixture(scope="module")
def container() -> Iterator[Container]:
    """An empty environment with the serving lock, outside of pytest's folders: those are closed to other users."""
    root = Path(tempfile.mkdtemp(prefix="bigger-boat-container-"))
    try:
        container = Container(root)
        uv = str(Path(sys.executable).parent / "uv")
        python = _python_for_others(root)
        subprocess.run([uv, "venv", "--quiet", "--python", str(python), str(root / "venv")], check=True)
        lock = str(PROJECT / "deploy" / "requirements-serving.lock")
        install = [uv, "--system-certs", "pip", "install", "--quiet", "--python", str(root / "venv" / "bin" / "python")]
        subprocess.run([*install, "--require-hashes", "-r", lock], check=True)
        package = root / "opt" / "bigger-boat" / "bigger_boat"
        shutil.copytree(PROJECT / "bigger_boat", package, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(PROJECT / "deploy" / "serve", root / "opt" / "serve")
        yield container
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _python_for_others(root: Path) -> Path:
    """Return an interpreter that every user may start: this one, or a copy where its folder is closed to others."""
    base = Path(sys.base_prefix).resolve()
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if all(folder.stat().st_mode & 0o001 for folder in (base, *base.parents)):
        return base / "bin" / name
    copied = root / "python"
    ignore = shutil.ignore_patterns("__pycache__", "test", "site-packages")
    shutil.copytree(base, copied, symlinks=True, ignore=ignore)
    return copied / "bin" / name


def _status(url: str) -> int:
    with urllib.request.urlopen(url, timeout=10) as response:
        return response.status
