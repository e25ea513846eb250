"""Trained backbones as files: ``backbone.safetensors``, its heads, and their description in config.json."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from torch import nn

from v3s.backbones import BACKBONES, check_name
from v3s.backbones.contract import expect_normalised, normalisation_of
from v3s.backbones.normalisation import Normalisation
from v3s.data.views import View
from v3s.features.hub import HUGGING_FACE, hub_export
from v3s.files.reading import read_as, read_json, read_text
from v3s.files.weights import (
    PUBLISHED,
    SPATIAL_HEAD,
    TEMPORAL_HEAD,
    WEIGHTS,
    fingerprint,
    load_weights,
    weights_as_bytes,
)
from v3s.files.writing import DESCRIPTION, CheckpointError, current, json_as_bytes, write_together
from v3s.options import check_rate
from v3s.pretext.model import PretextModel
from v3s.pretext.plan import ClipOptions, Sampling
from v3s.pretext.task import PretextTask
from v3s.train.run import CONFIG, MANIFEST, warn_if_training
from v3s.video.light.mask import require_mask
from v3s.video.light.window import parse_window

_RUN_FORMAT = 1
_NO_TASK = PretextTask((), ())

Kind = Literal["pretrained", "recognizer", "converted"]


@dataclass(frozen=True, slots=True)
class InitialWeights:
    """The weights that a training started from.

    Attributes:
        weights: value of ``--init``.
        fingerprint: SHA-256 of the weights.
    """

    weights: str
    fingerprint: str


_OPTIONAL = frozenset(
    "classes converted_from fps init window mask normalisation recognition answers heads".split()  # noqa: SIM905
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """The description of a trained backbone in config.json.

    Attributes:
        kind: what the folder contains in addition to the backbone: the heads of the pretext task ("pretrained"), a
            classifier ("recognizer"), or nothing ("converted", from another project's file).
        backbone: name in `v3s.BACKBONES`, or ``package.module:factory`` of a custom network.
        width: width multiplier.
        task: the label tables that it was trained on; empty unless it was pre-trained.
        sampling: the clips that it was trained on.
        results: epoch, losses and accuracies.
        classes: names of a recognizer's classes.
        converted_from: name of the other project's file.
        fingerprint: SHA-256 of the weights; set by `write_trained`.
        fps: frames per second at which its videos were sampled; ``None`` for every frame of the file.
        window: through which deep pictures were seen, as in :class:`v3s.data.views.View`; ``None`` for "auto".
        mask: which pixels were blanked, as in :class:`v3s.data.views.View`; ``None`` for none.
        init: the weights that its training started from; ``None`` if they were random.
        normalisation: of clips, as the weights expect it; ``None`` if they expect values in [0, 1]. Set by
            `write_trained`.
        recognition: how a recognizer answers, see `v3s.recognizers.classifier.Recognition`; empty for other kinds, and
            in recognizers of earlier versions.
        answers: SHA-256 of ``recognition``; empty for other kinds, and in recognizers of earlier versions.
        heads: file of each layer beside the backbone -> SHA-256 of its tensors and the classes; set by `write_trained`.
    """

    kind: Kind
    backbone: str
    width: float
    task: PretextTask = _NO_TASK
    sampling: Sampling
    results: dict[str, Any]
    classes: tuple[str, ...] = ()
    converted_from: str | None = None
    fingerprint: str = ""
    fps: float | None = None
    window: str | None = None
    mask: str | None = None
    init: InitialWeights | None = None
    normalisation: Normalisation | None = None
    recognition: dict[str, Any] = field(default_factory=dict)
    answers: str = ""
    heads: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind == "pretrained" and not (self.task.spatial and self.task.temporal):
            raise ValueError("task has a table without labels; both heads need at least one")
        if (self.kind == "recognizer") != bool(self.classes):
            raise ValueError(f"kind is {self.kind}, with {len(self.classes)} classes; only recognizers have some")
        if ":" not in self.backbone:
            check_name(self.backbone, self.width)
        parse_window(self.window or "auto")
        check_rate(self.fps)
        require_mask(self.mask)
        if any(not re.fullmatch(r"[0-9a-f]{64}", digest) for digest in self.heads.values()):
            raise ValueError("heads contains what is no SHA-256")

    @property
    def view(self) -> View:
        """The clips that it was trained on."""
        return View(
            clip_frames=self.sampling.clip_frames,
            clip_size=self.sampling.clip_size,
            fps=self.fps,
            window=None if self.window == "auto" else self.window,
            mask=self.mask,
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain values, without those that do not apply to this kind."""
        values = {"format": _RUN_FORMAT, **asdict(self), "task": self.task.to_table(), "classes": list(self.classes)}
        return {name: value for name, value in values.items() if name not in _OPTIONAL or value}


def write_trained(folder: Path, trained: Trained, backbone: nn.Module, heads: Mapping[str, nn.Module]) -> Trained:
    """Write a backbone, its heads and their description into a folder, all files atomically together.

    Args:
        folder: the folder to write to.
        trained: the description, without the fingerprints and the normalisation.
        backbone: the network.
        heads: file name -> layer.

    Returns:
        The description with them.
    """
    trained = replace(
        trained,
        fingerprint=fingerprint(backbone.state_dict()),
        normalisation=normalisation_of(backbone),
        heads={name: _head_fingerprint(head, trained.classes) for name, head in heads.items()},
    )
    weights = {name: weights_as_bytes(module) for name, module in {WEIGHTS: backbone, **heads}.items()}
    write_together(folder, {**weights, DESCRIPTION: json_as_bytes(trained.to_json())})
    return trained


def _head_fingerprint(head: nn.Module, classes: Sequence[str]) -> str:
    """SHA-256 of the tensors of a layer, and of the names of its outputs in their order."""
    return sha256(json.dumps([fingerprint(head.state_dict()), *classes]).encode()).hexdigest()


def write_description(folder: Path, trained: Trained) -> None:
    """Replace the description of a trained backbone, whose files stay as they are."""
    write_together(folder, {DESCRIPTION: json_as_bytes(trained.to_json())})


def save_trained(folder: Path, model: PretextModel, trained: Trained) -> Trained:
    """Write a pre-trained model into a run's folder; as `write_trained`, with its two heads."""
    heads = {SPATIAL_HEAD: model.spatial_head, TEMPORAL_HEAD: model.temporal_head}
    return write_trained(folder, trained, model.backbone, heads)


def refuse_foundation(backbone: str) -> None:
    """Refuse a model of Hugging Face that v3s did not export, where weights are trained or saved.

    Raises:
        CheckpointError: the name is of one.
    """
    if backbone.startswith(HUGGING_FACE):
        folder_of(backbone)


def plain_sampling(clip_frames: int, clip_size: int) -> Sampling:
    """Return the clip settings of a network that was not trained on a pretext task."""
    return ClipOptions().sampling(clip_frames, clip_size)


def describe_trained(path: str | Path) -> Trained:
    """Read the description of a trained backbone.

    Args:
        path: a run's folder, or the safetensors file in it.

    Raises:
        CheckpointError: the folder does not contain a trained backbone, or its description is damaged.
    """
    folder = folder_of(path)
    values = read_json(current(folder, DESCRIPTION))
    if values.get("format") != _RUN_FORMAT:
        raise CheckpointError(
            f"{folder / DESCRIPTION}: has format {values.get('format')}; this version of v3s reads format {_RUN_FORMAT}"
        )
    described = {"kind": _old_kind(values)} | {name: value for name, value in values.items() if name != "format"}
    if unknown := sorted(described.keys() - {field.name for field in fields(Trained)}):
        raise CheckpointError(
            f"{folder / DESCRIPTION}: contains {unknown[0]!r}, which this version of v3s does not know; restore the "
            "file that v3s wrote, or use the version that wrote it"
        )
    return read_as(Trained, described, folder / DESCRIPTION)


def _old_kind(values: dict[str, Any]) -> Kind:
    """Infer the kind of a folder that was written before config.json contained it."""
    if "converted_from" in values:
        return "converted"
    return "recognizer" if "classes" in values else "pretrained"


def kind_of_run(run: Path) -> Kind | None:
    """Return the kind of a training run, which is known before the first epoch writes config.json.

    Args:
        run: a folder; the result is None if it does not contain a run.
    """
    if not (run / CONFIG).is_file():
        return None
    kind: Any = read_json(run / MANIFEST).get("kind") if (run / MANIFEST).is_file() else None
    if kind not in get_args(Kind):  # started before manifest.json contained it: only pre-training has a task
        is_pretext = re.search("^task:", read_text(run / CONFIG), re.MULTILINE)
        return "pretrained" if is_pretext else "recognizer"
    return cast(Kind, kind)


def refuse_other_kind(run: Path, kind: Kind) -> None:
    """Refuse a run's folder for a run of another kind, also to replace it.

    Raises:
        ValueError: it contains one, or what it contains cannot be read.
    """
    try:
        found = kind_of_run(run)
    except CheckpointError as error:
        raise ValueError(f"{error}, or choose another folder with --out") from error
    if found not in (None, kind):
        other = "fine-tuning" if kind == "pretrained" else "pre-training"
        raise ValueError(f"{run} contains a {other} run; choose another folder with --out")


def open_trained(path: str | Path, *, backbone: nn.Module | None = None) -> tuple[nn.Module, Trained]:
    """Load a trained backbone, in evaluation mode, with its description; warn if its run is still training.

    Args:
        path: a run's folder, or the safetensors file in it.
        backbone: the module to load the weights into; needed only for a custom network.

    Raises:
        CheckpointError: the file does not exist, or contains weights of another network.
    """
    trained = describe_trained(path)
    warn_if_training(folder_of(path))
    network = backbone if backbone is not None else network_of(trained, path)
    weights = _weights_of(folder_of(path))
    load_weights(weights, network)
    if fingerprint(network.state_dict()) != trained.fingerprint:
        raise CheckpointError(f"{weights}: damaged, or not the weights described by the {DESCRIPTION} next to it")
    expect_normalised(network, trained.normalisation)
    return network.eval(), trained


def _weights_of(folder: Path) -> Path:
    """The weights in the folder of a run, or of an export."""
    weights, published = current(folder, WEIGHTS), current(folder, PUBLISHED)
    return published if published.is_file() and not weights.exists() else weights


def load_backbone(path: str | Path, *, backbone: nn.Module | None = None) -> nn.Module:
    """Load a trained backbone, in evaluation mode.

    Args:
        path: a run's folder, the safetensors file in it, the folder of an export, or ``hf:OWNER/NAME[@REVISION]`` for
            an export on the Hugging Face hub.
        backbone: the module to load the weights into; needed only for a custom network.

    Returns:
        A module that maps float clips (B, 3, T, H, W) in [0, 1] to features (B, num_features). If its weights expect
        normalised clips, it normalises them itself.

    Raises:
        CheckpointError: the file does not exist, or contains weights of another network.
    """
    network, _ = open_trained(path, backbone=backbone)
    return network


def load_head(path: str | Path, name: str, head: nn.Module) -> None:
    """Load the weights of a layer that was saved with a backbone.

    Args:
        path: a run's folder, or a safetensors file in it.
        name: the layer's file.
        head: the layer to load the weights into.

    Raises:
        CheckpointError: the file does not exist, contains another layer, or it or the classes were exchanged.
    """
    trained, file = describe_trained(path), current(folder_of(path), name)
    load_weights(file, head)
    if trained.heads.get(name, own := _head_fingerprint(head, trained.classes)) != own:
        classes = " and classes" if trained.classes else ""
        raise CheckpointError(f"{file}: damaged, or not the weights{classes} described by the {DESCRIPTION} next to it")


def load_pretext_model(path: str | Path) -> tuple[PretextModel, Trained]:
    """Load a trained backbone with its two heads, in evaluation mode, and its description.

    Raises:
        CheckpointError: a file is missing, or contains weights of another network or for another label table.
    """
    network, trained = open_trained(path)
    if trained.kind != "pretrained":
        own = {"recognizer": "is a recognizer", "converted": "contains weights of v3s convert"}[trained.kind]
        raise CheckpointError(f"{path}: {own}, without the heads of the pretext task; give a run of v3s pretrain")
    model = PretextModel(network, trained.task)
    _load_heads(path, model)
    return model.eval(), trained


def load_saved(folder: Path, model: PretextModel) -> Trained:
    """Load what `save_trained` wrote into the same model; a projector keeps its weights. Returns the description.

    Raises:
        CheckpointError: a file is missing, or contains other weights.
    """
    load_weights(current(folder, WEIGHTS), model.backbone)
    _load_heads(folder, model)
    return describe_trained(folder)


def _load_heads(path: str | Path, model: PretextModel) -> None:
    load_head(path, SPATIAL_HEAD, model.spatial_head)
    load_head(path, TEMPORAL_HEAD, model.temporal_head)


def network_of(trained: Trained, path: str | Path) -> nn.Module:
    """Return a described network without values, for `open_trained` to load.

    Raises:
        CheckpointError: it is a network of your own, which only your code can build.
    """
    if ":" in trained.backbone:
        raise CheckpointError(
            f"{path}: contains weights of {trained.backbone}, a network of your own; give it as an argument: "
            f"load_backbone({str(path)!r}, backbone=your_network())"
        )
    with torch.device("meta"):  # takes no memory before the weights are known to fit
        return BACKBONES[trained.backbone](trained.width)


def _export_on_hub(name: str) -> Path:
    folder = hub_export(name.removeprefix(HUGGING_FACE))
    if folder is None:
        raise CheckpointError(
            f"{name}: is not a model that v3s export wrote; another model of Hugging Face gives vectors (embed, probe, "
            "retrieve, similarity, compare), and is neither trained here nor saved with a classifier"
        )
    return folder


def folder_of(path: str | Path) -> Path:
    """Return the folder of a trained backbone, given it, the safetensors file in it, or its name on the hub.

    Raises:
        CheckpointError: there is none.
        ValueError: the name is on the hub, and huggingface_hub is not installed.
    """
    if str(path).startswith(HUGGING_FACE):
        return _export_on_hub(str(path))
    path = Path(path)
    if path.is_dir():
        if not current(path, DESCRIPTION).is_file():
            raise CheckpointError(
                f"{path}: contains no trained backbone ({DESCRIPTION} is missing); a run saves it after its first epoch"
            )
        return path
    if not path.is_file():
        raise CheckpointError(f"{path}: no such run folder or file of weights")
    if path.suffix != Path(WEIGHTS).suffix or not current(path.parent, DESCRIPTION).is_file():
        raise CheckpointError(
            f"{path}: not a file that v3s wrote ({WEIGHTS}); convert weights of another project with v3s convert"
        )
    return path.parent
