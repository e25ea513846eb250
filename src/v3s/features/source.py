"""Opens the backbone that ``--backbone`` describes: a run, a file of weights, or random weights as the baseline."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from v3s.backbones import StagedBackbone, create_backbone
from v3s.backbones.device import Compute, ComputeOptions
from v3s.data.views import View
from v3s.features.saved import Trained, describe_trained, open_trained
from v3s.files.weights import fingerprint
from v3s.options import require_positive

RANDOM = "random:"


@dataclass(frozen=True, kw_only=True)
class BackboneOptions(ComputeOptions):
    """Which network, and which clips it is shown.

    Attributes:
        backbone: Folder of a run, a safetensors file in one, random:NAME[@WIDTH] for random weights (random:r3d), or
            random:RUN for the network of a run with random weights.

    More options:
        clip_frames: Frames per clip. Default: what the backbone was trained on.
        clip_size: Side of a clip in pixels. Default: what the backbone was trained on.
        num_clips: Clips per video, evenly spaced.
        batch_size: Clips per forward pass.
    """

    backbone: str
    clip_frames: int | None = None
    clip_size: int | None = None
    num_clips: int = 10
    batch_size: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "clip_frames", "clip_size", "num_clips", "batch_size")


@dataclass(frozen=True, slots=True)
class Source:
    """A backbone ready to use.

    Attributes:
        backbone: in evaluation mode.
        name: value of ``--backbone``, for reports.
        architecture: name of the network in `v3s.BACKBONES`.
        width: width multiplier.
        fingerprint: SHA-256 of the weights.
        clip_frames: frames of the clips that it was trained on, or expects.
        clip_size: side of these clips in pixels.
        fps: frames per second at which its videos were sampled; ``None`` for every frame of the file.
        window: through which deep pictures were seen; ``None`` for "auto".
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

    @property
    def network(self) -> str:
        """Name and width of the network, e.g. ``r2plus1d@0.25``."""
        return f"{self.architecture}@{self.width:g}"

    def view(
        self,
        *,
        clip_frames: int | None = None,
        clip_size: int | None = None,
        num_clips: int = 10,
        stride: int = 0,
        fps: float | None = None,
        window: str | None = None,
    ) -> View:
        """Return the clips for this backbone; by default with the sizes, rate and window that it was trained on."""
        return View(
            clip_frames=clip_frames or self.clip_frames,
            clip_size=clip_size or self.clip_size,
            num_clips=num_clips,
            stride=stride,
            fps=fps or self.fps,
            window=None if (chosen := window or self.window) == "auto" else chosen,
        )

    def on(self, compute: Compute) -> nn.Module:
        """Move the backbone to a device, in channels-last format, and return it."""
        self.backbone.to(compute.device)
        return self.backbone.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload, no-any-return]


def open_source(backbone: str, *, seed: int = 0) -> Source:
    """Open the network that ``--backbone`` describes.

    Args:
        backbone: a run's folder, the safetensors file in it, ``random:NAME`` or ``random:NAME@WIDTH`` for a network
            with random weights, or ``random:RUN`` for the network of a run with random weights.
        seed: seed of random weights.

    Raises:
        ValueError: the run, file or network does not exist.
    """
    if not backbone.startswith(RANDOM):
        network, trained = open_trained(backbone)
        return _source_of_run(trained, network, backbone)
    name = backbone.removeprefix(RANDOM)
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
    return Source(network.eval(), backbone, name, width, weights, network.clip_frames, network.clip_size)


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
    )


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
