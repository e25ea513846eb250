"""Imports point one way, files and functions stay small, every module says what it is."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src/v3s"
LAYERS = ("video", "backbones", "pages", "pretext", "data", "train", "downstream")
"""Rooms from the bottom up: a room imports from those before it. What lies outside of them is above all."""
BELOW_CONFIG = {"config", "config_file", "recipes"}
MODULES = sorted(SOURCE.rglob("*.py"))


def room(module: str) -> int:
    """The height of a module's room."""
    name = module.split(".")[1] if "." in module else ""
    return LAYERS.index(name) if name in LAYERS else len(LAYERS)


def imported(path: Path) -> list[str]:
    """The modules of this project that a file imports."""
    found = [node.module or "" for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    return [name for name in found if name.split(".")[0] == "v3s"]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_down(path: Path) -> None:
    own = room("v3s." + path.relative_to(SOURCE).with_suffix("").as_posix().replace("/", "."))
    for name in imported(path):
        above_all = room(name) == len(LAYERS)
        if above_all and own < len(LAYERS):
            assert own == LAYERS.index("downstream"), f"{path} imports {name}"
            assert name.split(".")[1] in BELOW_CONFIG, f"{path} imports {name}"
        else:
            assert room(name) <= own, f"{path} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_files_are_small_and_say_what_they_are(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 400
    tree = ast.parse(text)
    assert ast.get_docstring(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 75, f"{path}: {node.name} is {node.end_lineno - node.lineno} lines"


def test_core_never_imports_an_extra() -> None:
    """Extras are imported where they are used, so that a plain install works."""
    extras = {"sklearn", "scipy", "h5py", "faiss", "pyarrow", "torchvision", "PIL", "cv2", "matplotlib"}
    for path in MODULES:
        for node in ast.parse(path.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not extras & {name.split(".")[0] for name in names}, path
