"""Trained backbones as files: ``backbone.safetensors``, its heads, and config.json that says what they are."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from v3s.backbones import create_backbone
from v3s.files.weights import WEIGHTS, fingerprint, load_weights, weights_as_bytes
from v3s.files.writing import DESCRIPTION, CheckpointError, current, json_as_bytes, read_json, write_together
from v3s.pretext.model import PretextModel
from v3s.pretext.plan import Sampling
from v3s.pretext.task import PretextTask, task_from_table

RUN_FORMAT = 1
SPATIAL_HEAD, TEMPORAL_HEAD = "spatial_head.safetensors", "temporal_head.safetensors"


@dataclass(frozen=True, slots=True)
class Trained:
    """What config.json says of a trained backbone.

    Attributes:
        backbone: its name in `v3s.BACKBONES`, or ``package.module:factory`` of a user's own.
        width: its width multiplier.
        task: the label tables that it was trained on.
        sampling: the clips that it saw.
        results: what it reached: epoch, losses and accuracies.
        fingerprint: SHA-256 of its weights.
    """

    backbone: str
    width: float
    task: PretextTask
    sampling: Sampling
    results: dict[str, Any]
    fingerprint: str


def save_trained(
    folder: Path,
    model: PretextModel,
    *,
    backbone: str,
    width: float,
    task: PretextTask,
    sampling: Sampling,
    results: dict[str, Any],
) -> Trained:
    """Write a pre-trained model into a run's folder, all files as one; returns its description."""
    trained = Trained(backbone, width, task, sampling, results, fingerprint(model.backbone.state_dict()))
    description = {
        "format": RUN_FORMAT,
        "backbone": backbone,
        "width": width,
        "task": task.to_table(),
        "sampling": asdict(sampling),
        "results": results,
        "fingerprint": trained.fingerprint,
    }
    files = {
        WEIGHTS: weights_as_bytes(model.backbone),
        SPATIAL_HEAD: weights_as_bytes(model.spatial_head),
        TEMPORAL_HEAD: weights_as_bytes(model.temporal_head),
        DESCRIPTION: json_as_bytes(description),
    }
    write_together(folder, files)
    return trained


def describe_trained(path: str | Path) -> Trained:
    """Read the description of a trained backbone.

    Args:
        path: a run's folder, or the safetensors file in it.

    Raises:
        CheckpointError: there is no trained backbone, or its description is damaged.
    """
    folder = _folder(path)
    values = read_json(current(folder, DESCRIPTION))
    if values.get("format") != RUN_FORMAT:
        raise CheckpointError(
            f"{folder / DESCRIPTION}: written in format {values.get('format')}; this version reads format {RUN_FORMAT}"
        )
    try:
        return Trained(
            values["backbone"],
            values["width"],
            task_from_table(values["task"]),
            Sampling(**values["sampling"]),
            values["results"],
            values["fingerprint"],
        )
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / DESCRIPTION}: incomplete description ({error})") from error


def load_backbone(path: str | Path, *, backbone: nn.Module | None = None) -> nn.Module:
    """Load a trained backbone, in evaluation mode.

    Args:
        path: a run's folder, or the safetensors file in it.
        backbone: the module to fill; needed only for a user's own network.

    Returns:
        A module that takes float clips (B, 3, T, H, W) in [0, 1] and gives features (B, num_features).

    Raises:
        CheckpointError: no such file, or weights of another network.
    """
    trained = describe_trained(path)
    network = backbone if backbone is not None else _build(trained, path)
    weights = current(_folder(path), WEIGHTS)
    load_weights(weights, network)
    if fingerprint(network.state_dict()) != trained.fingerprint:
        raise CheckpointError(f"{weights}: damaged, or not the weights that {DESCRIPTION} beside it describes")
    return network.eval()


def load_pretext_model(path: str | Path, *, backbone: nn.Module | None = None) -> tuple[PretextModel, Trained]:
    """Load a trained backbone with its two heads, in evaluation mode, and its description.

    Raises:
        CheckpointError: a file is missing, or holds weights of another network or another task's label table.
    """
    trained, folder = describe_trained(path), _folder(path)
    if not current(folder, SPATIAL_HEAD).is_file():
        raise CheckpointError(
            f"{path}: holds a backbone without the heads of the pretext task ({SPATIAL_HEAD} is missing), as "
            "fine-tuning leaves it; give the run of v3s pretrain"
        )
    model = PretextModel(load_backbone(path, backbone=backbone), trained.task)
    load_weights(current(folder, SPATIAL_HEAD), model.spatial_head)
    load_weights(current(folder, TEMPORAL_HEAD), model.temporal_head)
    return model.eval(), trained


def _build(trained: Trained, path: str | Path) -> nn.Module:
    if ":" in trained.backbone:
        raise CheckpointError(
            f"{path}: holds weights of {trained.backbone}, a network of your own; give it: "
            f"load_backbone({str(path)!r}, backbone=your_network())"
        )
    return create_backbone(trained.backbone, trained.width)


def _folder(path: str | Path) -> Path:
    path = Path(path)
    if path.is_dir():
        if not current(path, DESCRIPTION).is_file():
            raise CheckpointError(
                f"{path}: no trained backbone there ({DESCRIPTION} is missing); a run writes it after its first epoch"
            )
        return path
    if not path.is_file():
        raise CheckpointError(f"{path}: no such run folder or file of weights")
    return path.parent
