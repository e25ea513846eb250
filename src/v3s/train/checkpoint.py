"""Files of weights: checkpoints to resume from, and backbones to use.

Every file is written beside its place, flushed to the disk and renamed, so that a full disk or a kill leaves the old
one whole. A checkpoint carries its SHA-256, and the one before it is kept. Files that belong together are replaced
together.
"""

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

WEIGHTS, DESCRIPTION = "backbone.safetensors", "config.json"
PREVIOUS = "previous.pt"
NEXT = ".next"  # holds a set of files until all of them are written
PART = ".*.part"  # what a kill may leave of a file that was being written
_DIGEST_LENGTH = 64  # SHA-256 in hexadecimal digits


class CheckpointError(ValueError):
    """A file of weights that is missing, damaged or of another network; the message names the file."""


class SaveError(OSError):
    """A file that could not be written, on a full disk for one; the message names it and says why."""


def write_atomically(path: Path, write: Callable[[Path], object], *, keep: Path | None = None) -> None:
    """Let ``write`` make a file beside ``path``, then put it in its place.

    Args:
        path: the file.
        write: makes it, given where.
        keep: where the file that was there is moved to; by default it is replaced.

    Raises:
        SaveError: it cannot be written; the file that was there is as it was.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(beside)
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
        if keep is not None and path.exists():
            path.replace(keep)
        beside.replace(path)
        _flush_folder(path.parent)
    except OSError as error:
        raise SaveError(
            f"{path} cannot be written: {error.strerror or error}; what was saved before is whole"
        ) from error
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


def write_together(folder: Path, files: dict[str, bytes]) -> None:
    """Replace several files of a folder as one: a kill leaves all of the old ones or all of the new ones.

    They are written into a folder of their own, the last one last. Once that one is there the new set counts
    (`current`), and the files are moved to their places, again the last one last.

    Args:
        folder: where the files are.
        files: name -> content; the last must be ``DESCRIPTION``.
    """
    assert list(files)[-1] == DESCRIPTION
    finish_together(folder)
    for name, content in files.items():
        write_atomically(folder / NEXT / name, lambda beside, content=content: beside.write_bytes(content))  # type: ignore[misc]
    finish_together(folder)


def finish_together(folder: Path) -> None:
    """Move a set of files that a kill left complete to its place, and forget an incomplete one."""
    beside = folder / NEXT
    if (beside / DESCRIPTION).is_file():
        for file in sorted(beside.iterdir(), key=lambda file: file.name == DESCRIPTION):
            file.replace(folder / file.name)
        _flush_folder(folder)
    shutil.rmtree(beside, ignore_errors=True)


def current(folder: Path, name: str) -> Path:
    """Where the file of that name is that belongs to the newest complete set of a folder."""
    beside = folder / NEXT
    complete = (beside / DESCRIPTION).is_file() and (beside / name).is_file()
    return beside / name if complete else folder / name


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values with their SHA-256; the checkpoint that was there is kept as ``PREVIOUS``.

    Raises:
        SaveError: it cannot be written; the checkpoints that were there are whole.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getbuffer()
    digest = hashlib.sha256(content).hexdigest().encode()

    def write(beside: Path) -> None:
        with beside.open("wb") as file:
            file.write(content)
            file.write(digest)

    write_atomically(path, write, keep=path.with_name(PREVIOUS))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote; no code in it is run.

    Raises:
        CheckpointError: there is no such file, or it is damaged.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no checkpoint there; the run may have been killed before its first one")
    whole = memoryview(path.read_bytes())
    content, digest = whole[:-_DIGEST_LENGTH], bytes(whole[-_DIGEST_LENGTH:])
    if hashlib.sha256(content).hexdigest().encode() != digest:
        raise CheckpointError(f"{path}: damaged: {len(whole):,} bytes that do not match their checksum")
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(f"{path}: not a readable checkpoint ({error})") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: not a checkpoint but a {type(state).__name__}")
    return state


def load_newest_checkpoint(path: Path) -> tuple[dict[str, Any], str | None]:
    """Read a checkpoint, or the one before it where it is damaged or a kill left only that.

    Returns:
        The state, and what is wrong with the newest file where it was not used.

    Raises:
        CheckpointError: none of the two can be read.
    """
    previous = path.with_name(PREVIOUS)
    if not path.exists() and previous.exists():  # killed between two renames: nothing is lost
        return load_checkpoint(previous), None
    try:
        return load_checkpoint(path), None
    except CheckpointError as error:
        if not previous.exists():
            raise CheckpointError(f"{error}; there is no earlier one: start again with --overwrite") from error
        return load_checkpoint(previous), str(error)


def fingerprint(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over the names, types, shapes and bytes of tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """A module's tensors on the CPU, as `safetensors` takes them."""
    return {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}


def weights_as_bytes(module: nn.Module) -> bytes:
    """A module's tensors as the content of a safetensors file."""
    return save(tensors_of(module))


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
    wanted = {name: _describe(value) for name, value in module.state_dict().items()}
    given = {name: _describe(value) for name, value in tensors.items()}
    if wanted != given:
        differing = sorted(name for name in wanted.keys() | given.keys() if wanted.get(name) != given.get(name))
        name = differing[0]
        raise CheckpointError(
            f"{path}: weights of another network: {len(differing)} tensors differ, first {name!r}: "
            f"the file has {given.get(name, 'none')}, the network {wanted.get(name, 'none')}"
        )
    module.load_state_dict(tensors)


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a value as readable JSON."""
    write_atomically(path, lambda beside: beside.write_bytes(json_as_bytes(value)))


def json_as_bytes(value: dict[str, Any]) -> bytes:
    """A value as readable JSON."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


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
