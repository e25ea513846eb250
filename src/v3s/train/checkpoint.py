"""Checkpoints for resuming: each one contains its own SHA-256, and the previous one is kept. And the saved epoch."""

import hashlib
import io
from pathlib import Path
from typing import Any

import torch

from v3s.files.reading import read_value
from v3s.files.writing import DESCRIPTION, CheckpointError, current, write_atomically

PREVIOUS = "previous.pt"
_DIGEST_LENGTH = 64  # SHA-256 in hexadecimal digits


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values with their SHA-256, and keep the existing checkpoint as ``PREVIOUS``.

    Raises:
        SaveError: the file cannot be written; the existing checkpoints stay intact.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getbuffer()
    digest = hashlib.sha256(content).hexdigest().encode()

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            file.write(content)
            file.write(digest)

    write_atomically(path, write, keep=path.with_name(PREVIOUS))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a file of `save_checkpoint`, without running any code that it contains.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist; the run may have been killed before its first checkpoint")
    stored = memoryview(path.read_bytes())
    content, digest = stored[:-_DIGEST_LENGTH], bytes(stored[-_DIGEST_LENGTH:])
    if hashlib.sha256(content).hexdigest().encode() != digest:
        raise CheckpointError(f"{path} is damaged: its {len(stored):,} bytes do not match their checksum")
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint ({error})") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} is not a checkpoint: it contains a {type(state).__name__}")
    return state


def load_newest_checkpoint(path: Path) -> tuple[dict[str, Any], str | None]:
    """Read a checkpoint, or the previous one if the checkpoint is damaged or a kill left only the previous one.

    Returns:
        The state, and what is wrong with the newest file if that file was not used.

    Raises:
        CheckpointError: neither can be read.
    """
    previous = path.with_name(PREVIOUS)
    if not path.exists() and previous.exists():  # killed between two renames: no progress is lost
        return load_checkpoint(previous), None
    try:
        return load_checkpoint(path), None
    except CheckpointError as error:
        if not previous.exists():
            raise CheckpointError(f"{error}; there is no earlier checkpoint: start again with --overwrite") from error
        return load_checkpoint(previous), str(error)


def saved_epoch(folder: Path) -> int:
    """The epoch after which the weights in a folder were saved.

    Raises:
        CheckpointError: config.json is missing or damaged, or does not contain the epoch.
    """
    file = current(folder, DESCRIPTION)
    epoch: int = read_value(file, "results.epoch", int)
    if epoch < 0:
        raise CheckpointError(f"{file}: results.epoch is {epoch}; it must be 0 or more")
    return epoch
