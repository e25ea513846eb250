"""The laws of the house: imports point one way, a verb is a file of its name, one word has one meaning."""

import ast
from collections import defaultdict
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch

import v3s
from v3s.cli import load_command
from v3s.commands import COMMANDS
from v3s.files.text import short_repr

SOURCE = Path(__file__).resolve().parents[1] / "src/v3s"
ROOMS = (
    "options", "argv", "files", "video", "backbones", "pages", "pretext", "data", "train", "features", "scale",
    "vectors", "recognizers", "protocols", "explore", "serve", "export", "commands", "cli",
)  # fmt: skip
"""From the ground up: a room imports from those before it."""
VERB_ROOMS = ("commands", "protocols", "vectors", "recognizers", "explore", "serve", "export")
USERS_OF_VERBS = {"demo", "demo_page", "reproduce", "replay", "own", "compare"}
"""The only files that use other commands."""
MODULES = sorted(SOURCE.rglob("*.py"))


def name_of(path: Path) -> str:
    return ".".join(("v3s", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")


NAMES = frozenset(map(name_of, MODULES))


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else "cli"


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imported(path: Path) -> list[str]:
    """The modules of this project that a file imports, also inside of functions."""
    found = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "v3s":
            below = [f"{node.module}.{alias.name}" for alias in node.names]
            modules = [name for name in below if name in NAMES]
            found += modules if len(modules) == len(below) else [node.module, *modules]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] == "v3s"]
    return found


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_down(path: Path) -> None:
    own = ROOMS.index(room_of(name_of(path)).removeprefix("_" * 2).replace("main__", "cli"))
    for name in imported(path):
        assert ROOMS.index(room_of(name)) <= own, f"{path} imports {name}"


def test_no_circle_also_none_inside_of_a_function() -> None:
    arrows = {name_of(path): imported(path) for path in MODULES}
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " -> ".join((*above[above.index(module) :], module))
        if module not in done:
            for below in arrows.get(module, ()):
                visit(below, (*above, module))
            done.add(module)

    for module in arrows:
        visit(module, ())


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_files_are_small_and_say_what_they_are(path: Path) -> None:
    assert path.read_text().count("\n") <= 400
    assert ast.get_docstring(tree_of(path))
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 75, f"{path}: {node.name} is {node.end_lineno - node.lineno} lines"


def test_rooms_are_small() -> None:
    assert len(list(SOURCE.glob("*.py"))) <= 5
    for folder in {path.parent for path in MODULES} - {SOURCE}:
        assert len(list(folder.glob("*.py"))) <= 18, folder


@pytest.mark.parametrize("verb", COMMANDS)
def test_a_verb_is_a_file_of_its_name_with_its_options(verb: str) -> None:
    _, room, file = COMMANDS[verb].module.split(".")
    assert (room in VERB_ROOMS, file) == (True, verb)
    function, options = load_command(verb)
    assert {function.__module__, options.__module__} == {COMMANDS[verb].module}
    assert options.__name__ == f"{verb.capitalize()}Config"


def test_only_a_few_files_use_commands() -> None:
    verbs = {command.module for command in COMMANDS.values()}
    for path in MODULES:
        if path.stem not in USERS_OF_VERBS and room_of(name_of(path)) in VERB_ROOMS:
            assert not verbs & set(imported(path)), f"{path}: {verbs & set(imported(path))}"


def test_train_knows_no_task() -> None:
    """What moves weights, and what reads files, does not know what is learned."""
    for path in MODULES:
        if room_of(name_of(path)) == "train":
            assert not [name for name in imported(path) if room_of(name) == "pretext"], path


def test_a_public_name_has_one_meaning() -> None:
    homes = defaultdict(set)
    for path in MODULES:
        for node in tree_of(path).body:
            names = [node.name] if isinstance(node, ast.FunctionDef | ast.ClassDef) else []
            if isinstance(node, ast.Assign):
                names = [name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)]
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                names = [node.target.id]
            for name in names:
                if not name.startswith("_"):
                    homes[name].add(name_of(path))
    several = {name: sorted(modules) for name, modules in homes.items() if len(modules) > 1}
    assert not several


WRITERS = {"write_text", "write_bytes"}
MAY_WRITE = {"v3s.files.writing", "v3s.files.lock"}


def test_what_writes_a_file_stands_on_files() -> None:
    """``write_text`` and ``write_bytes`` are called inside of ``write_atomically`` and ``write_set`` alone."""
    for path in MODULES:
        if name_of(path) in MAY_WRITE:
            continue
        calls = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)]
        inside = {
            id(call)
            for outer in calls
            if isinstance(outer.func, ast.Name) and outer.func.id in ("write_atomically", "write_set")
            for call in ast.walk(outer)
        }
        for call in calls:
            if isinstance(call.func, ast.Attribute) and call.func.attr in WRITERS:
                assert id(call) in inside, f"{path}:{call.lineno}"


def test_core_never_imports_an_extra() -> None:
    """Extras are imported where they are used, so that a plain install works."""
    extras = {"sklearn", "scipy", "h5py", "faiss", "pyarrow", "tensorboard", "torchvision", "PIL", "cv2", "matplotlib"}
    for path in MODULES:
        for node in tree_of(path).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not extras & {name.split(".")[0] for name in names}, path


def test_no_result_of_a_public_function_floods_the_terminal() -> None:
    """A dataclass in a result shows tensors, arrays and bytes by their sizes."""
    seen: dict[type[Any], bool] = {}

    def visit(kind: Any) -> bool:
        """Whether a type is, or contains in its arguments, what is large; visits dataclasses on the way."""
        if is_dataclass(kind) and isinstance(kind, type) and kind not in seen:
            seen[kind] = False
            hints = get_type_hints(kind)
            seen[kind] = any(list(map(visit, (hints[field.name] for field in fields(kind)))))
        is_large = kind in (torch.Tensor, bytes) or get_origin(kind) is np.ndarray
        return is_large or any(list(map(visit, get_args(kind))))

    for name in (*COMMANDS, "load_encoder", "load_recognizer"):
        visit(get_type_hints(getattr(v3s, name))["return"])
    holds = {kind.__name__: kind for kind, is_large in seen.items() if is_large}
    assert holds.keys() >= {"Vectors", "Shard", "IndexTable", "Audit", "HeadScores", "RecognitionScores"}
    assert not [name for name, kind in holds.items() if vars(kind)["__repr__"] is not short_repr]
