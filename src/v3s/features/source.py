"""The backbone that a command was given: a run, a file of weights, or random weights as the baseline."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from v3s.backbones import create_backbone
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
        backbone: A run's folder, a safetensors file in one, random:NAME[@WIDTH] for random weights (random:r3d), or
            random:RUN for random weights in the network of a run.

    More options:
        clip_frames: Frames of a clip. Default: what the backbone was trained on.
        clip_size: Side of a clip in pixels. Default: what the backbone was trained on.
        num_clips: Clips of each video, evenly spaced.
        batch_size: Clips in a forward pass.
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
        name: what was given, for reports.
        architecture: the network's name in `v3s.BACKBONES`.
        width: its width multiplier.
        fingerprint: SHA-256 of its weights.
        clip_frames: frames of the clips that it was trained on, or expects.
        clip_size: side of these clips in pixels.
    """

    backbone: nn.Module
    name: str
    architecture: str
    width: float
    fingerprint: str
    clip_frames: int
    clip_size: int

    @property
    def network(self) -> str:
        """Name and width of the network, e.g. ``r2plus1d@0.25``."""
        return f"{self.architecture}@{self.width:g}"

    def view(
        self, *, clip_frames: int | None = None, clip_size: int | None = None, num_clips: int = 10, stride: int = 0
    ) -> View:
        """Clips for this backbone; sizes that are not given are its own."""
        return View(
            clip_frames=clip_frames or self.clip_frames,
            clip_size=clip_size or self.clip_size,
            num_clips=num_clips,
            stride=stride,
        )

    def on(self, compute: Compute) -> nn.Module:
        """The backbone on a device, channels last."""
        self.backbone.to(compute.device)
        return self.backbone.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload, no-any-return]


def open_source(given: str, *, seed: int = 0) -> Source:
    """Open what ``--backbone`` names.

    Args:
        given: a run's folder, the safetensors file in it, ``random:NAME`` or ``random:NAME@WIDTH`` for a network with
            random weights, or ``random:RUN`` for one like a run's.
        seed: of random weights.

    Raises:
        ValueError: there is no such run, file or network.
    """
    if not given.startswith(RANDOM):
        network, trained = open_trained(given)
        return _like(trained, network, given)
    name = given.removeprefix(RANDOM)
    if Path(name).exists():
        trained = describe_trained(name)
        return _like(trained, create_backbone(trained.backbone, trained.width, seed=seed), given)
    name, _, given_width = name.partition("@")
    try:
        width = float(given_width or 1)
        network = create_backbone(name, width, seed=seed)
    except ValueError as error:
        raise ValueError(f"backbone {given!r}: {error}") from error
    weights = fingerprint(network.state_dict())
    return Source(network.eval(), given, name, width, weights, network.clip_frames, network.clip_size)


def _like(trained: Trained, network: nn.Module, given: str) -> Source:
    """A network of a run's kind, with the run's weights or with random ones."""
    sampling, weights = trained.sampling, fingerprint(network.state_dict())
    return Source(
        network.eval(), given, trained.backbone, trained.width, weights, sampling.clip_frames, sampling.clip_size
    )
