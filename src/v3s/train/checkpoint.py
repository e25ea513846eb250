"""Files of weights: checkpoints to resume from, and backbones to use.

Every file is written beside its place, flushed to the disk and renamed, so that a full disk or a kill leaves the old
one whole.
"""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

WEIGHTS, DESCRIPTION = "backbone.safetensors", "config.json"


class CheckpointError(ValueError):
    """A file of weights that is missing, damaged or of another network; the message names the file."""


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` make a file beside ``path``, then put it in its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(beside)
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
        beside.replace(path)
        _flush_folder(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values; only what `load_checkpoint` can read without running code."""
    write_atomically(path, lambda beside: torch.save(state, beside))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote.

    Raises:
        CheckpointError: there is no such file, or it is damaged.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no checkpoint there; the run may have been killed before its first one")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(f"{path}: not a readable checkpoint ({error})") from error
    assert isinstance(state, dict)
    return state


def fingerprint(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over the names, types, shapes and bytes of tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()


def save_weights(path: Path, module: nn.Module) -> str:
    """Write a module's tensors as safetensors; returns their fingerprint."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}
    write_atomically(path, lambda beside: beside.write_bytes(save(tensors)))
    return fingerprint(tensors)


def load_weights(path: Path, module: nn.Module) -> None:
    """Fill a module with the tensors of a safetensors file.

    Raises:
        CheckpointError: no such file, a damaged one, or one of another network; the message says what differs.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file of weights")
    try:
        tensors = load_file(path)
    except Exception as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from error
    wanted = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in tensors.items()}
    if wanted != given:
        differing = sorted(name for name in wanted.keys() | given.keys() if wanted.get(name) != given.get(name))
        name = differing[0]
        raise CheckpointError(
            f"{path}: weights of another network: {len(differing)} tensors differ, first {name!r}: "
            f"the file has {given.get(name, 'none')}, the network {wanted.get(name, 'none')}"
        )
    module.load_state_dict(tensors)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a value as readable JSON."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    write_atomically(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: no such file, or no JSON object in it.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON ({error})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: holds no JSON object")
    return value
