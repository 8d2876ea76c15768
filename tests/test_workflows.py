"""The workflows of .github: every command in them is one of ours that takes these options, every action is pinned."""

import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

from bigger_boat.cli import app
from bigger_boat.settings import PREFIX, Settings, load_settings

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PROGRAM = ".venv/bin/bigger-boat"


def parsed(path: Path) -> dict:
    return yaml.safe_load(path.read_text())


def steps(path: Path) -> list[dict]:
    return [step for job in parsed(path)["jobs"].values() for step in job["steps"]]


def lines(path: Path) -> list[str]:
    return [line for step in steps(path) for line in step.get("run", "").splitlines()]


def ours(path: Path) -> list[list[str]]:
    """Return the arguments of each call of our program, in its order."""
    found = [re.search(re.escape(PROGRAM) + r"([^)|;&]*)", line) for line in lines(path)]
    return [shlex.split(each.group(1)) for each in found if each]


def check(arguments: list[str]) -> None:
    """Parse a command line as the program does, without running it. Raises what Typer says of a wrong one."""
    command, context = typer.main.get_command(app), None
    while hasattr(command, "commands"):
        name, *arguments = arguments
        context, command = command.make_context(name, [name], parent=context), command.commands[name]
    command.make_context(command.name, arguments, parent=context)


def test_there_are_workflows_with_commands():
    assert [path.name for path in WORKFLOWS] == ["ci.yml", "deploy.yml"]
    assert len(ours(ROOT / ".github/workflows/deploy.yml")) >= 8


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_command_exists(path):
    for arguments in ours(path):
        check(arguments)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in lines(path):
        word, *rest = line.split()
        assert word != "make" or rest[0] in targets, line
        assert not word.startswith(".ci/") or (ROOT / word).stat().st_mode & 0o100, line


@pytest.mark.parametrize(
    "wrong", [["deploy", "plattform"], ["deploy", "platform", "--tag", "x"], ["replay-golden", "--x"]]
)
def test_a_command_that_is_not_ours_is_found(wrong):
    with pytest.raises((KeyError, typer.BadParameter.__base__), match=r"plattform|No such option"):
        check(wrong)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_by_commit_and_tokens_read_only(path):
    used = [step["uses"] for step in steps(path) if "uses" in step]
    assert used
    assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", each) for each in used)
    assert parsed(path)["permissions"] == {"contents": "read"}


def test_what_is_deployed_was_shown_and_approved_first():
    jobs = parsed(ROOT / ".github/workflows/deploy.yml")["jobs"]
    assert list(jobs) == ["preview", "deploy"]
    assert [jobs[name]["environment"] for name in jobs] == ["preview", "production"]
    assert jobs["deploy"]["needs"] == "preview"
    shown = [step.get("run", "") for step in jobs["preview"]["steps"]]
    assert not any("--yes" in each for each in shown)
    assert any("deploy platform" in each and "--dry-run" in each for each in shown)
    after = [step for step in jobs["deploy"]["steps"] if "failure()" in str(step.get("if", ""))]
    [back] = after
    assert jobs["deploy"]["steps"][-1] == back
    assert 'git checkout --force "$BEFORE"' in back["run"]


def test_its_settings_are_ours_and_enough(monkeypatch):
    told = parsed(ROOT / ".github/workflows/deploy.yml")["env"]
    settings = {name: value for name, value in told.items() if name.startswith(PREFIX)}
    assert {name.removeprefix(PREFIX).lower() for name in settings} <= set(Settings.model_fields)
    for name, value in settings.items():
        monkeypatch.setenv(name, "s3://bucket/data" if name.endswith("STORAGE") else value)
    assert load_settings(None).profile == "aws"
    assert not [name for name in told if "KEY" in name or "SECRET" in name]
