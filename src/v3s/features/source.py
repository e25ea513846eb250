"""Opens the backbone that ``--backbone`` describes: a run, weights from elsewhere, or random ones as the baseline."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from v3s.backbones import BACKBONES, StagedBackbone, create_backbone
from v3s.backbones.device import Compute, ComputeOptions
from v3s.backbones.foundation import FoundationBackbone
from v3s.data.views import Resize, View
from v3s.features.foundation_folder import open_foundation
from v3s.features.hub import HUGGING_FACE, hub_export
from v3s.features.saved import Kind, Trained, describe_trained, open_trained
from v3s.files.weights import fingerprint
from v3s.options import require_positive
from v3s.video.light.mask import read_mask

RANDOM = "random:"
Origin = Literal[Kind, "random", "foundation"]
"""Where weights come from: a training of v3s, another project, nowhere, or Hugging Face."""


@dataclass(frozen=True, kw_only=True)
class ClipCountOptions(ComputeOptions):
    """How many clips a video is seen in.

    More options:
        num_clips: Clips per video, evenly spaced. Default: 10.
        batch_size: Clips per forward pass.
    """

    num_clips: int | None = None
    batch_size: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "num_clips", "batch_size")

    @property
    def clips_per_video(self) -> int:
        """The number of clips of each video."""
        return self.num_clips or View().num_clips


@dataclass(frozen=True, kw_only=True)
class EncoderOptions(ClipCountOptions):
    """Which network, if any, and which clips it is shown.

    Attributes:
        backbone: Folder of a run, or a safetensors file in one; random:NAME[@WIDTH] for random weights (random:r3d);
            random:RUN for the network of a run with random weights; or hf:NAME for an exported model or a foundation
            model (V-JEPA 2, VideoMAE, CLIP, DINOv2 or ViT), in a folder or on the Hugging Face hub.

    More options:
        clip_frames: Frames per clip. Default: what the backbone was trained on.
        clip_size: Side of a clip in pixels. Default: what the backbone was trained on.
    """

    backbone: str | None = None
    clip_frames: int | None = None
    clip_size: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "clip_frames", "clip_size")


@dataclass(frozen=True, kw_only=True)
class BackboneOptions(EncoderOptions):
    """A network, and which clips it is shown."""

    backbone: str = field()


@dataclass(frozen=True, slots=True)
class Source:
    """A backbone ready to use.

    Attributes:
        backbone: in evaluation mode.
        name: value of ``--backbone``, for reports.
        architecture: name of the network in `v3s.BACKBONES`, or of a foundation model's architecture.
        width: width multiplier; 1 for a foundation model.
        fingerprint: SHA-256 of the weights.
        clip_frames: frames of the clips that it was trained on, or expects.
        clip_size: side of these clips in pixels.
        fps: frames per second at which its videos were sampled; ``None`` for every frame of the file.
        window: through which deep pictures were seen; ``None`` for "auto".
        mask: which pixels were blanked, as in :class:`v3s.data.views.View`; ``None`` for none.
        resize: how frames are resized before they are cropped; ``None`` as in the paper.
        origin: where the weights come from.
        licence: of a foundation model, as its model card states it; ``None`` if it does not.
        num_parameters: number of its parameters, before any are folded.
    """

    backbone: nn.Module
    name: str
    architecture: str
    width: float
    fingerprint: str
    clip_frames: int
    clip_size: int
    fps: float | None = None
    window: str | None = None
    mask: str | None = None
    resize: Resize | None = None
    origin: Origin = "random"
    licence: str | None = None
    num_parameters: int = 0

    @property
    def network(self) -> str:
        """Name and width of the network, e.g. ``r2plus1d@0.25``; of a foundation model its architecture."""
        return f"{self.architecture}@{self.width:g}" if self.architecture in BACKBONES else self.architecture

    def view(
        self,
        *,
        clip_frames: int | None = None,
        clip_size: int | None = None,
        num_clips: int = 10,
        stride: int = 0,
        fps: float | None = None,
        window: str | None = None,
        mask: str | None = None,
    ) -> View:
        """Return the clips for this backbone; by default with the sizes, rate, window and mask that it was trained on.

        Raises:
            ValueError: the backbone does not take clips of these sizes.
        """
        clip_frames, clip_size = clip_frames or self.clip_frames, clip_size or self.clip_size
        if isinstance(self.backbone, FoundationBackbone):
            self.backbone.check_clips(clip_frames, clip_size)
        return View(
            clip_frames=clip_frames,
            clip_size=clip_size,
            num_clips=num_clips,
            stride=stride,
            fps=fps or self.fps,
            window=None if (chosen := window or self.window) == "auto" else chosen,
            mask=read_mask(mask or self.mask),
            resize=self.resize,
        )

    def on(self, compute: Compute) -> nn.Module:
        """Move the backbone to a device, in channels-last format, and return it."""
        return compute.network(self.backbone)


def open_source(backbone: str, *, seed: int = 0) -> Source:
    """Open the network that ``--backbone`` describes.

    Args:
        backbone: a run's folder, the safetensors file in it, ``random:NAME`` or ``random:NAME@WIDTH`` for a network
            with random weights, ``random:RUN`` for the network of a run with random weights, or ``hf:NAME`` for an
            export of v3s or a foundation model.
        seed: seed of random weights.

    Raises:
        ValueError: the run, file or network does not exist.
    """
    if backbone.startswith(HUGGING_FACE) and hub_export(backbone.removeprefix(HUGGING_FACE)) is None:
        return _source_of_foundation(backbone)
    name = backbone.removeprefix(RANDOM)
    if backbone == RANDOM or (name == "random" and not Path(name).exists()):
        raise ValueError(f"backbone {backbone!r}: random weights are written {RANDOM}NETWORK, such as {RANDOM}r3d")
    if not backbone.startswith(RANDOM):
        network, trained = open_trained(backbone)
        return _source_of_run(trained, network, backbone)
    if Path(name).exists():
        trained = describe_trained(name)
        network = create_backbone(trained.backbone, trained.width, seed=seed)
        network.normalisation = trained.normalisation
        return _source_of_run(trained, network, backbone)
    name, _, width_text = name.partition("@")
    try:
        width = float(width_text or 1)
        network = create_backbone(name, width, seed=seed)
    except ValueError as error:
        raise ValueError(f"backbone {backbone!r}: {error}") from error
    weights = fingerprint(network.state_dict())
    clips = network.clip_frames, network.clip_size
    return Source(network.eval(), backbone, name, width, weights, *clips, num_parameters=_count_parameters(network))


def _source_of_foundation(name: str) -> Source:
    """Return a foundation model, with the clips that it expects."""
    found = open_foundation(name.removeprefix(HUGGING_FACE))
    network, clips = found.backbone, found.preprocessing
    return Source(
        network,
        name,
        found.architecture,
        1.0,
        found.fingerprint,
        network.clip_frames,
        network.clip_size,
        clips.fps,
        resize=clips.resize,
        origin="foundation",
        licence=found.licence,
        num_parameters=_count_parameters(network),
    )


def _source_of_run(trained: Trained, network: nn.Module, name: str) -> Source:
    """Return a run's network, with the run's weights or with random ones."""
    sampling, weights = trained.sampling, fingerprint(network.state_dict())
    return Source(
        network.eval(),
        name,
        trained.backbone,
        trained.width,
        weights,
        sampling.clip_frames,
        sampling.clip_size,
        trained.fps,
        trained.window,
        trained.mask,
        origin="random" if name.startswith(RANDOM) else trained.kind,
        num_parameters=_count_parameters(network),
    )


def _count_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@torch.no_grad()
def fold(backbone: nn.Module) -> nn.Module:
    """Return a faster copy of a network in evaluation mode with the same stages, up to rounding.

    A network that is not a :class:`StagedBackbone` is returned unchanged, since its forward pass may use the tensor
    between a convolution and its normalisation.
    """
    if not isinstance(backbone, StagedBackbone):
        return backbone
    folded = copy.deepcopy(backbone)
    _fold_within(folded)
    return folded


def _fold_within(module: nn.Module) -> None:
    """Replace every chain of layers in a module by a folded chain, at any depth."""
    for name, child in module.named_children():
        chain = nn.Sequential(*_fold_layers(list(_layers(child)))) if type(child) is nn.Sequential else child
        setattr(module, name, chain)
        _fold_within(chain)


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the layers of nested chains in order."""
    if type(module) is not nn.Sequential:
        yield module
        return
    for child in module:
        yield from _layers(child)


def _fold_layers(layers: list[nn.Module]) -> Iterator[nn.Module]:
    """Fold each normalisation that directly follows a convolution; other layers are unchanged."""
    while layers:
        layer, following = layers.pop(0), layers[0] if layers else None
        if type(layer) is nn.Conv3d and isinstance(following, nn.BatchNorm3d) and following.running_mean is not None:
            yield fuse_conv_bn_eval(layer, following)
            del layers[0]
        else:
            yield layer
