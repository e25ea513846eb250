"""Weights as safetensors files, and their fingerprint."""

import hashlib
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from v3s.files.writing import RESTORE, CheckpointError

WEIGHTS = "backbone.safetensors"
SPATIAL_HEAD, TEMPORAL_HEAD = "spatial_head.safetensors", "temporal_head.safetensors"
CLASSIFIER = "classifier.safetensors"
OF_RUN = (WEIGHTS, SPATIAL_HEAD, TEMPORAL_HEAD, CLASSIFIER)
"""All files of weights in the folder of a run."""
PUBLISHED = "model.safetensors"
"""The backbone in a folder that `v3s export` wrote: the name that the Hugging Face hub expects."""


def fingerprint(tensors: dict[str, Tensor]) -> str:
    """SHA-256 of the names, types, shapes and bytes of tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """The tensors of a module on the CPU, as `safetensors` expects them."""
    return {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}


def weights_as_bytes(module: nn.Module) -> bytes:
    """The tensors of a module as the content of a safetensors file."""
    return save(tensors_of(module))


def load_weights(path: Path, module: nn.Module) -> None:
    """Load the tensors of a safetensors file into a module.

    Raises:
        CheckpointError: the file does not exist, is damaged or is from another network; the message states the
            difference.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: this file of weights does not exist")
    try:
        tensors = load_file(path)
    except Exception as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error}); {RESTORE}") from error
    wanted = {name: _describe(value) for name, value in module.state_dict().items()}
    actual = {name: _describe(value) for name, value in tensors.items()}
    if wanted != actual:
        differing = sorted(name for name in wanted.keys() | actual.keys() if wanted.get(name) != actual.get(name))
        name = differing[0]
        raise CheckpointError(
            f"{path}: weights of another network: {len(differing)} tensors differ, first {name!r}: "
            f"the file has {actual.get(name, 'none')}, the network needs {wanted.get(name, 'none')}"
        )
    module.load_state_dict({name: tensor.clone() for name, tensor in tensors.items()}, assign=True)


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
