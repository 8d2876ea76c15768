"""The commit that a bundle names: git's in a checkout, what the archive says in an image, which has no git."""

import shutil
import subprocess
import zipfile
from io import BytesIO

from bigger_boat.assets import common
from bigger_boat.settings import PROJECT_DIR


def commit_of(folder, monkeypatch) -> str:
    monkeypatch.setattr(common, "COMMIT_FILE", folder / "bigger_boat" / "commit.txt")
    return common.git_commit()


def test_a_checkout_an_archive_and_neither_say_which_commit(tmp_path, monkeypatch):
    clone, image = tmp_path / "clone", tmp_path / "image"
    (clone / "bigger_boat").mkdir(parents=True)
    for name in (".gitattributes", "bigger_boat/commit.txt"):
        shutil.copy(PROJECT_DIR / name, clone / name)
    git = ["git", "-C", str(clone), "-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "a"]):
        subprocess.run([*git, *arguments], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    archive = subprocess.run([*git, "archive", "--format=zip", "HEAD"], capture_output=True, check=True).stdout
    zipfile.ZipFile(BytesIO(archive)).extractall(image)
    assert len(commit) == 40
    assert commit_of(clone, monkeypatch) == commit
    monkeypatch.setenv("PATH", str(tmp_path))  # no git
    assert commit_of(image, monkeypatch) == commit
    assert commit_of(clone, monkeypatch) == ""
