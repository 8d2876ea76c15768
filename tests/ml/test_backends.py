"""Model bodies are Keras operations alone, so that they train where a GPU machine has another backend."""

import ast
from pathlib import Path

import pytest

import bigger_boat.ml

FOLDER = Path(bigger_boat.ml.__file__).parent
BODIES = sorted([*FOLDER.glob("*_network.py"), FOLDER / "item_vectors.py", FOLDER / "item_losses.py"])
BACKENDS = {"tensorflow", "torch", "jax"}


@pytest.mark.parametrize("path", BODIES, ids=lambda path: path.name)
def test_a_model_body_names_no_backend(path):
    tree = ast.parse(path.read_text())
    imported = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    imported += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert BACKENDS.isdisjoint(name.split(".")[0] for name in imported)
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id in {"tf", *BACKENDS}]
    assert any(name.split(".")[0] == "keras" for name in imported), "it is a body of Keras operations"
