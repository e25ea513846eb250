"""``hf:NAME``: a foundation model from a folder as Hugging Face writes them, or from its hub.

Files are read here and checked: JSON, safetensors and the licence of the model card. Pickled weights and code are never
opened. The hub is asked only for a name that is not a folder.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import load_file
from torch import Tensor

from v3s.backbones.foundation import FoundationBackbone, build_foundation
from v3s.features.hub import HUB_NAME, HUGGING_FACE, asking_hub
from v3s.features.preprocessing import PREPROCESSORS, Preprocessing, read_preprocessing
from v3s.files.reading import read_json, read_text
from v3s.files.weights import fingerprint
from v3s.files.writing import CheckpointError
from v3s.options import import_extra

_CONFIG, _WEIGHTS, _INDEX, _CARD = "config.json", "model.safetensors", "model.safetensors.index.json", "README.md"
_NEEDED = (_CONFIG, _WEIGHTS, "model-*.safetensors", _INDEX, _CARD, *PREPROCESSORS)
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


@dataclass(frozen=True, slots=True)
class Foundation:
    """A foundation model that was read from its files.

    Attributes:
        backbone: the network, in evaluation mode.
        architecture: its name in transformers, such as ``vjepa2``.
        fingerprint: SHA-256 of the tensors in its files.
        preprocessing: how it expects its clips.
        licence: as the model card states it; ``None`` if there is no card, or it does not.
    """

    backbone: FoundationBackbone
    architecture: str
    fingerprint: str
    preprocessing: Preprocessing
    licence: str | None


def open_foundation(name: str) -> Foundation:
    """Open a foundation model.

    Args:
        name: a folder, or the name of a model on the hub, such as ``facebook/dinov2-small``; without ``hf:``.

    Raises:
        ValueError: transformers is not installed, there is no such model, or a file of it is missing, damaged or of an
            unknown architecture.
    """
    import_extra("transformers", "hf", f"backbone {HUGGING_FACE}{name}")
    folder = _folder_of(name)
    if not (folder / _CONFIG).exists():
        raise CheckpointError(f"{folder}: has no {_CONFIG}, so it is not the folder of a Hugging Face model")
    values, preprocessing = read_json(folder / _CONFIG), read_preprocessing(folder)
    tensors = _read_tensors(folder)
    try:
        backbone = build_foundation(
            values,
            tensors,
            clip_frames=preprocessing.clip_frames,
            clip_size=preprocessing.clip_size,
            normalisation=preprocessing.normalisation,
        )
    except ValueError as error:
        raise CheckpointError(f"{folder}: {error}") from error
    architecture = str(values["model_type"])
    return Foundation(backbone, architecture, fingerprint(tensors), preprocessing, _licence(folder / _CARD))


def _folder_of(name: str) -> Path:
    """The folder of a model; of one on the hub, where the files of its cache lie."""
    if os.path.isdir(name):
        return Path(name)
    if os.path.lexists(name) or not HUB_NAME.fullmatch(name):
        raise CheckpointError(
            f"{name}: no folder with a model; give {HUGGING_FACE}FOLDER, or {HUGGING_FACE}NAME for one on the hub"
        )
    with asking_hub(name) as hub:
        return Path(hub.snapshot_download(name, allow_patterns=list(_NEEDED)))


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    """Read the tensors of all files of weights.

    Raises:
        CheckpointError: there are none, or only pickled ones, or one is damaged.
    """
    files = [_WEIGHTS]
    if not (folder / _WEIGHTS).exists() and (folder / _INDEX).exists():
        files = _parts(folder / _INDEX)
    elif not (folder / _WEIGHTS).exists():
        pickled = sorted(file.name for file in folder.iterdir() if file.suffix in _PICKLED)
        have = (
            f"only pickled weights ({pickled[0]}), which can run code and are not opened" if pickled else "no weights"
        )
        raise CheckpointError(f"{folder}: has {have}; bring {_WEIGHTS} from the model's page")
    tensors: dict[str, Tensor] = {}
    for name in files:
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder / name}: there is no such file of weights; bring it from the model's page")
        try:
            tensors |= load_file(folder / name)
        except Exception as error:
            raise CheckpointError(f"{folder / name}: not a readable safetensors file ({error})") from error
    return tensors


def _parts(index: Path) -> list[str]:
    """The files of weights that an index names, all in its folder."""
    named: Any = read_json(index).get("weight_map")
    names = set(named.values()) if isinstance(named, dict) and all(map(_is_name, named.values())) else set()
    if not names:
        raise CheckpointError(f"{index}: weight_map must give the name of a safetensors file in this folder per tensor")
    return sorted(names)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and "/" not in value and "\0" not in value and value.endswith(".safetensors")


def _licence(card: Path) -> str | None:
    """The licence that the front matter of a model card states, in one line."""
    if not card.is_file():
        return None
    try:
        front = re.match(r"\ufeff?---\s*\n(.*?)\n---\s*(\n|$)", read_text(card, max_bytes=1 << 24), re.DOTALL)
        lines = [line for line in front[1].splitlines() if re.match("license(_name)?:", line)] if front else []
        values = {key: value for line in lines for key, value in yaml.safe_load(line).items()}
    except (ValueError, yaml.YAMLError, RecursionError, AttributeError):
        return None
    licence = values.get("license_name") if values.get("license") == "other" else values.get("license")
    return " ".join(licence.split())[:100] if isinstance(licence, str) and licence.strip() else None
