"""Holds the layering of the design: who may import whom, who may read the environment, what import costs."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "bigger_boat"
BASE = {"errors", "clock"}
MAY_IMPORT = {
    "errors": set(),
    "clock": set(),
    "settings": BASE,
    "data": BASE | {"data"},
    "ml": BASE | {"data", "ml"},
    "serving": BASE | {"data", "ml", "serving"},
    "partitions": BASE | {"settings", "data"},
    "resources": BASE | {"settings", "data", "ml", "serving", "resources"},
    "profiles": BASE | {"settings", "data", "ml", "serving", "resources"},
    "assets": BASE | {"data", "ml", "serving", "resources", "assets", "partitions"},
    "automation": BASE | {"settings", "data", "ml", "serving", "resources", "assets", "partitions", "automation"},
    "definitions": BASE | {"settings", "data", "resources", "assets", "partitions", "automation", "profiles"},
    "console": BASE | {"data", "automation"},
    "demo": BASE | {"settings", "data", "serving", "resources", "profiles", "console"},
    "cli": None,
}
KNOWS_DAGSTER = {"assets", "automation", "partitions", "resources", "profiles", "definitions", "cli", "console"}
CLOUD = {"boto3", "botocore", "sagemaker", "snowflake", "dagster_aws", "dagster_snowflake"}
STANDARD_LIBRARY_ONLY = ["errors.py", "clock.py", "data/vocabulary.py", "serving/contract.py", "serving/handler.py"]
LAMBDA = "serving/lambda_entry.py"
"""Runs in Lambda: beside the standard library it knows boto3, which is there, and it reads its own variables."""


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imports(path: Path, top_level_only: bool = False) -> set[str]:
    """Every module that a file imports, absolute."""
    found = set()
    tree = ast.parse(path.read_text())
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def layer(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_layers_import_only_what_the_design_allows(path):
    own = layer(path)
    if own == "__init__":
        assert not imports(path)
        return
    ours = {name.split(".")[1] for name in imports(path) if name.startswith("bigger_boat.")}
    foreign = {name.split(".")[0] for name in imports(path)}
    allowed = MAY_IMPORT[own]
    if allowed is not None:
        assert ours <= allowed, f"{own} may not import {ours - allowed}"
    if own not in KNOWS_DAGSTER:
        assert not {name for name in foreign if name.startswith("dagster")}
    if own != "resources":
        known = {"boto3", "botocore"} if path == PACKAGE / LAMBDA else set()
        assert not foreign & CLOUD - known


@pytest.mark.parametrize("name", [*STANDARD_LIBRARY_ONLY, LAMBDA])
def test_what_lambda_imports_is_standard_library(name):
    path = PACKAGE / name
    for imported in imports(path):
        top = imported.split(".")[0]
        if top == "bigger_boat":
            assert imported.rsplit(".", 1)[0].replace("bigger_boat.", "").replace(".", "/") + ".py" in (
                *STANDARD_LIBRARY_ONLY,
            ), f"{name} imports {imported}"
        else:
            at_hand = {"boto3", "botocore"} if name == LAMBDA else set()
            assert top in sys.stdlib_module_names | at_hand, f"{name} imports {imported}"


@pytest.mark.parametrize(
    ("what", "home", "spells"),
    [
        (
            "the source's time column",
            "data/event_rules.py",
            lambda node: isinstance(node, ast.Constant) and node.value == "server_timestamp_epoch_ms",
        ),
        (
            "syncing a directory",
            "data/durable.py",
            lambda node: isinstance(node, ast.Attribute) and node.attr == "O_RDONLY",
        ),
    ],
)
def test_what_is_spelled_once_has_one_home(what, home, spells):
    trees = {str(path.relative_to(PACKAGE)): ast.parse(path.read_text()) for path in modules()}
    assert [name for name, tree in trees.items() if any(map(spells, ast.walk(tree)))] == [home], what


READS_ENVIRONMENT = {"settings.py", "cli/process.py", LAMBDA}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_settings_read_the_environment(path):
    if str(path.relative_to(PACKAGE)) in READS_ENVIRONMENT:
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
            assert node.attr not in {"getenv", "environb"}, f"{path}:{node.lineno}"
            assert node.attr != "environ" or "resources" in path.parts, f"{path}:{node.lineno}"


def test_importing_the_definitions_is_light(tmp_path):
    """No heavy package, no network, no file of the warehouse: watched by an audit hook in a fresh process."""
    code = """
import json, sys
touched = []
def watch(event, args):
    if event in ("socket.connect", "socket.getaddrinfo"):
        touched.append(f"{event} {args}")
    if event == "open" and isinstance(args[0], str) and args[0].endswith(".duckdb"):
        touched.append(args[0])
sys.addaudithook(watch)
import bigger_boat.definitions
heavy = {"tensorflow", "keras", "gensim", "boto3", "botocore", "snowflake.connector", "pandera", "mlflow", "sagemaker",
         "sklearn", "matplotlib", "torch"}
print(json.dumps({"heavy": sorted(heavy & set(sys.modules)), "touched": touched}))
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout.splitlines()[-1]) == {"heavy": [], "touched": []}
