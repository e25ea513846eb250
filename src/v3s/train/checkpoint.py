"""Checkpoints to resume from: each carries its SHA-256, and the one before it is kept."""

import hashlib
import io
from pathlib import Path
from typing import Any

import torch

from v3s.files.writing import CheckpointError, write_atomically

PREVIOUS = "previous.pt"
_DIGEST_LENGTH = 64  # SHA-256 in hexadecimal digits


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
