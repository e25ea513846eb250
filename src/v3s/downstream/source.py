"""The backbone that a command was given: a run, a file of weights, or random weights as the baseline."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from v3s.backbones import create_backbone
from v3s.data.views import View
from v3s.train.checkpoint import fingerprint
from v3s.train.device import Compute
from v3s.train.trained import describe_trained, load_backbone

RANDOM = "random:"


@dataclass(frozen=True, slots=True)
class Source:
    """A backbone ready to use.

    Attributes:
        backbone: in evaluation mode.
        name: what was given, for reports.
        fingerprint: SHA-256 of its weights.
        clip_frames: frames of the clips that it was trained on, or expects.
        clip_size: side of these clips in pixels.
    """

    backbone: nn.Module
    name: str
    fingerprint: str
    clip_frames: int
    clip_size: int

    def view(
        self, *, clip_frames: int | None = None, clip_size: int | None = None, num_clips: int = 10, stride: int = 0
    ) -> View:
        """Clips for this backbone; sizes left out are its own."""
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
        trained = describe_trained(given)
        sampling = trained.sampling
        return _source(load_backbone(given), given, sampling.clip_frames, sampling.clip_size)
    name = given.removeprefix(RANDOM)
    if Path(name).exists():
        trained = describe_trained(name)
        network = create_backbone(trained.backbone, trained.width, seed=seed)
        return _source(network, given, trained.sampling.clip_frames, trained.sampling.clip_size)
    name, _, width = name.partition("@")
    try:
        network = create_backbone(name, float(width or 1), seed=seed)
    except ValueError as error:
        raise ValueError(f"backbone {given!r}: {error}") from error
    return _source(network, given, network.clip_frames, network.clip_size)


def _source(network: nn.Module, name: str, clip_frames: int, clip_size: int) -> Source:
    return Source(network.eval(), name, fingerprint(network.state_dict()), clip_frames, clip_size)
