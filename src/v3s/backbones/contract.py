"""What a backbone promises, the chain of stages that the built-in ones are, and the check of that promise.

A backbone turns clips, float ``(B, 3, T, H, W)`` in [0, 1], into named stages and one vector a clip (paper 3.3). Every
built-in backbone has the same five stages, shallow to deep, each taken after its last ReLU (so values are >= 0) and
before the pooling that opens the next one:

========  =======================  ===========================  ==================================
stage     C3D                      R3D, R(2+1)D and their twins  S3D-G
========  =======================  ===========================  ==================================
conv1     conv1                    stem                         stem
conv2     conv2                    first residual stage         1x1x1, separable 3x3x3, gate
conv3     conv3a, conv3b           second residual stage        Inception 3b, 3c
conv4     conv4a, conv4b           third residual stage         Inception 4b to 4f
conv5     conv5a, conv5b           fourth residual stage        Inception 5b, 5c
========  =======================  ===========================  ==================================
"""

import copy
import math
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn

_LEAK_TOLERANCE = 1e-3  # of the largest feature: far above the rounding of two runs of one kernel


@runtime_checkable
class Backbone(Protocol):
    """A ``torch.nn.Module`` from clips to named stages and to one vector a clip.

    Any module with these members is a backbone; :func:`check_backbone` tells whether it keeps the promises.

    Attributes:
        num_features: length of the vector of a clip; the channels of the last stage.
        stages: stage name -> number of channels, shallow to deep.
        clip_frames: length of the clips that it expects, frames.
        clip_size: height and width of the clips that it expects, pixels.
    """

    num_features: int
    stages: dict[str, int]
    clip_frames: int
    clip_size: int

    def forward_stages(self, clips: Tensor) -> dict[str, Tensor]:
        """Map clips ``(B, 3, T, H, W)`` to the stages, each ``(B, channels, t, h, w)``, in the order of ``stages``."""
        ...

    def __call__(self, clips: Tensor) -> Tensor:
        """Map clips ``(B, 3, T, H, W)`` to features ``(B, num_features)``: the last stage's mean over t, h, w."""
        ...

    # The part of torch.nn.Module that the project relies on.
    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]: ...  # noqa: D102
    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...  # noqa: D102
    def state_dict(self) -> dict[str, Any]: ...  # noqa: D102
    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> Any: ...  # noqa: D102
    def train(self, mode: bool = True) -> Self: ...  # noqa: D102
    def eval(self) -> Self: ...  # noqa: D102
    def to(self, *args: Any, **kwargs: Any) -> Self: ...  # noqa: D102


class StagedBackbone(nn.Module):
    """A chain of named stages with a global average pool on the last: every built-in backbone is one.

    Args:
        blocks: stage name -> (module, number of its output channels), shallow to deep. The modules keep these names
            in ``state_dict``.
        clip_frames: length of the clips that it expects, frames.
        clip_size: height and width of the clips that it expects, pixels.
    """

    def __init__(self, blocks: dict[str, tuple[nn.Module, int]], *, clip_frames: int = 16, clip_size: int = 112):
        super().__init__()
        for name, (block, _) in blocks.items():
            self.add_module(name, block)
        self.stages = {name: num_channels for name, (_, num_channels) in blocks.items()}
        self.num_features = list(self.stages.values())[-1]
        self.clip_frames = clip_frames
        self.clip_size = clip_size

    def forward_stages(self, clips: Tensor) -> dict[str, Tensor]:
        """Map clips ``(B, 3, T, H, W)`` to the stages, each ``(B, channels, t, h, w)`` and >= 0."""
        outputs = {}
        for name in self.stages:
            clips = outputs[name] = self.get_submodule(name)(clips)
        return outputs

    def forward(self, clips: Tensor) -> Tensor:
        """Map clips ``(B, 3, T, H, W)`` to features ``(B, num_features)``, the mean of the last stage."""
        return list(self.forward_stages(clips).values())[-1].mean(dim=(2, 3, 4))


def scale_channels(num_channels: int, width: float) -> int:
    """Multiply a number of channels by ``width``: the nearest multiple of 8, and at least 8.

    Raises:
        ValueError: ``width`` is not a positive finite number.
    """
    if not (math.isfinite(width) and width > 0):
        raise ValueError(f"width = {width} given; a positive number is needed (1.0 is the paper's network)")
    return max(8, 8 * math.floor(num_channels * width / 8 + 0.5))


def check_backbone(module: object, *, clip_frames: int | None = None, clip_size: int | None = None) -> None:
    """Check that a module keeps the promises of :class:`Backbone`.

    Two random clips are run through a copy of the module, in training mode and in evaluation mode; the module itself
    and the global random state stay as they are.

    Args:
        module: the backbone; any ``torch.nn.Module`` with the members of :class:`Backbone`.
        clip_frames: length of the clips to try; the module's ``clip_frames`` by default.
        clip_size: height and width of the clips to try, pixels; the module's ``clip_size`` by default.

    Raises:
        ValueError: a promise is broken; the message names it, what was found and the fix.
    """
    network = _copy_declared(module)
    first = next((parameter for parameter in network.parameters() if parameter.is_floating_point()), torch.empty(0))
    shape = (2, 3, clip_frames or network.clip_frames, *2 * (clip_size or network.clip_size,))
    clips = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(first)
    with torch.random.fork_rng(devices=[first.device] if first.is_cuda else []):
        network.train()
        _check_gradients(network, _check_outputs(network, clips))
        network.eval()
        with torch.no_grad():
            _check_independence(network, clips, _check_outputs(network, clips))


def _copy_declared(module: object) -> Backbone:
    """Copy a module that has all members of a backbone, so that the check leaves no trace on the original."""
    name = type(module).__name__
    if not isinstance(module, nn.Module):
        raise ValueError(f"{name} given; a backbone is a torch.nn.Module")
    members = ("num_features", "stages", "clip_frames", "clip_size", "forward_stages")
    if missing := [member for member in members if not hasattr(module, member)]:
        raise ValueError(f"{name} has no {', '.join(missing)}; define what v3s.backbones.Backbone describes")
    assert isinstance(module, Backbone)
    if not module.stages or list(module.stages.values())[-1] != module.num_features:
        raise ValueError(
            f"{name}.num_features = {module.num_features}, stages = {module.stages}; "
            "num_features must be the number of channels of the last stage"
        )
    return copy.deepcopy(module)


def _check_outputs(network: Backbone, clips: Tensor) -> Tensor:
    """Run the network both ways; check shapes, values and the untouched input; return the features."""
    name, given = type(network).__name__, clips.clone()
    stages = network.forward_stages(clips)
    features = network(clips)
    if not torch.equal(clips, given):
        raise ValueError(f"{name} changes its input; write `x = x * 2`, not `x *= 2`, on the clips")
    if list(stages) != list(network.stages):
        raise ValueError(f"{name}.forward_stages gave {list(stages)}; stages declares {list(network.stages)}, in order")
    for stage, num_channels in network.stages.items():
        output = stages[stage]
        if output.ndim != 5 or output.shape[:2] != (len(clips), num_channels):
            raise ValueError(
                f"{name}.forward_stages gave {stage!r} with shape {tuple(output.shape)}; "
                f"stages[{stage!r}] = {num_channels} needs ({len(clips)}, {num_channels}, t, h, w)"
            )
        _check_finite(f"{name}, stage {stage!r}", output)
    if features.shape != (len(clips), network.num_features):
        raise ValueError(
            f"{name} gave features of shape {tuple(features.shape)}; "
            f"num_features = {network.num_features} needs {(len(clips), network.num_features)}"
        )
    _check_finite(f"{name}, features", features)
    return features


def _check_finite(what: str, values: Tensor) -> None:
    """Refuse NaN and infinity."""
    if num_bad := int((~values.isfinite()).sum()):
        raise ValueError(
            f"{what}: {num_bad} of {values.numel()} values are NaN or infinite for clips in [0, 1]; "
            "look for a division by zero, a logarithm of zero, or an initialisation that is too large"
        )


def _check_gradients(network: Backbone, features: Tensor) -> None:
    """Every trainable parameter must get a finite gradient from the features, in training mode."""
    features.square().sum().backward()  # type: ignore[no-untyped-call]
    name = type(network).__name__
    trainable = {key: parameter for key, parameter in network.named_parameters() if parameter.requires_grad}
    if unused := [key for key, parameter in trainable.items() if parameter.grad is None]:
        raise ValueError(
            f"{name}: no gradient reaches {', '.join(unused)}; use it in forward, remove it, or set "
            "requires_grad = False (distributed training stops at a parameter without a gradient)"
        )
    for key, parameter in trainable.items():
        if parameter.grad is not None:
            _check_finite(f"{name}, gradient of {key}", parameter.grad)


def _check_independence(network: Backbone, clips: Tensor, features: Tensor) -> None:
    """In evaluation mode features are the last stage's mean, and a clip's do not depend on the rest of its batch."""
    name, tolerance = type(network).__name__, _LEAK_TOLERANCE * float(features.abs().max())
    pooled = network.forward_stages(clips)[list(network.stages)[-1]].mean(dim=(2, 3, 4))
    if (difference := float((features - pooled).abs().max())) > tolerance:
        raise ValueError(
            f"{name}: the features differ by {difference:.3g} from the mean of the last stage in evaluation mode; "
            "return forward_stages(clips)[last].mean(dim=(2, 3, 4)), and let nothing be random in evaluation mode"
        )
    black_neighbour = torch.stack([clips[0], torch.zeros_like(clips[1])])
    with_black = _check_outputs(network, black_neighbour)
    if (difference := float((features[0] - with_black[0]).abs().max())) > tolerance:
        raise ValueError(
            f"{name}: in evaluation mode the features of a clip change by {difference:.3g} with another clip in its "
            "batch; use running statistics (BatchNorm3d in eval mode), and never reduce over dim 0"
        )
