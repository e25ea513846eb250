"""The contract of a backbone, the chain of stages that implements it, and a check of the contract.

A backbone maps clips, float ``(B, 3, T, H, W)`` in [0, 1], to named stages and to one vector per clip (paper 3.3). All
built-in backbones have the same five stages, from shallow to deep. The output of a stage is taken after its last ReLU
(so values are >= 0) and before the pooling at the start of the next stage:

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

from v3s.backbones.normalisation import Normalisation, Normalising

_LEAK_TOLERANCE = 1e-3  # relative to the largest feature; far above the rounding differences between two runs


@runtime_checkable
class Backbone(Protocol):
    """A ``torch.nn.Module`` that maps clips to named stages and to one vector per clip.

    Any module with these members is a backbone; :func:`check_backbone` checks whether it satisfies the contract.

    Attributes:
        num_features: length of the vector of a clip: the number of channels of the last stage.
        stages: stage name -> number of channels, from shallow to deep.
        clip_frames: expected length of clips, in frames.
        clip_size: expected height and width of clips, in pixels.
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

    # The part of torch.nn.Module that the project uses.
    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]: ...  # noqa: D102
    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...  # noqa: D102
    def state_dict(self) -> dict[str, Any]: ...  # noqa: D102
    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> Any: ...  # noqa: D102
    def train(self, mode: bool = True) -> Self: ...  # noqa: D102
    def eval(self) -> Self: ...  # noqa: D102
    def to(self, *args: Any, **kwargs: Any) -> Self: ...  # noqa: D102


class StagedBackbone(Normalising):
    """A chain of named stages, with global average pooling after the last. All built-in backbones are of this class.

    Clips are in [0, 1]. If the weights expect normalised clips, the network normalises them itself, before the first
    stage; this is not part of ``state_dict``.

    Args:
        blocks: stage name -> (module, number of output channels), from shallow to deep. ``state_dict`` uses the same
            names.
        clip_frames: expected length of clips, in frames.
        clip_size: expected height and width of clips, in pixels.
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
        clips, outputs = self.normalise(clips), {}
        for name in self.stages:
            clips = outputs[name] = self.get_submodule(name)(clips)
        return outputs

    def forward(self, clips: Tensor) -> Tensor:
        """Map clips ``(B, 3, T, H, W)`` to features ``(B, num_features)``, the mean of the last stage."""
        return list(self.forward_stages(clips).values())[-1].mean(dim=(2, 3, 4))


def normalisation_of(backbone: nn.Module) -> Normalisation | None:
    """The normalisation of clips that a network's weights expect; a network that is your own does that by itself."""
    return backbone.normalisation if isinstance(backbone, Normalising) else None


def expect_normalised(backbone: nn.Module, normalisation: Normalisation | None) -> None:
    """Let a network normalise its clips, as its weights expect it, or not.

    Raises:
        ValueError: it cannot, since it is a network of your own.
    """
    if isinstance(backbone, Normalising):
        backbone.normalisation = normalisation
    elif normalisation is not None:
        raise ValueError(
            f"these weights expect normalised clips ({normalisation}), and {type(backbone).__name__} is not a "
            "StagedBackbone, which normalises them; derive it from v3s.backbones.StagedBackbone"
        )


def scale_channels(num_channels: int, width: float) -> int:
    """Multiply a number of channels by ``width``, rounded to the nearest multiple of 8 and at least 8.

    Raises:
        ValueError: ``width`` is not a positive finite number.
    """
    if not (math.isfinite(width) and width > 0):
        raise ValueError(f"width is {width}; it must be a positive number (1.0 is the network of the paper)")
    return max(8, 8 * math.floor(num_channels * width / 8 + 0.5))


def check_backbone(module: object, *, clip_frames: int | None = None, clip_size: int | None = None) -> None:
    """Check that a module satisfies the contract of :class:`Backbone`.

    Two random clips are passed through a copy of the module, in training mode and in evaluation mode. The module itself
    and the global random state do not change.

    Args:
        module: the backbone; any ``torch.nn.Module`` with the members of :class:`Backbone`.
        clip_frames: length of the test clips; by default the module's ``clip_frames``.
        clip_size: height and width of the test clips in pixels; by default the module's ``clip_size``.

    Raises:
        ValueError: the contract is violated; the message states where, the actual value and the fix.
    """
    network = _copy_checked(module)
    first = next((parameter for parameter in network.parameters() if parameter.is_floating_point()), torch.empty(0))
    shape = (2, 3, clip_frames or network.clip_frames, *2 * (clip_size or network.clip_size,))
    clips = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(first)
    with torch.random.fork_rng(devices=[first.device] if first.is_cuda else []):
        network.train()
        _check_gradients(network, _check_outputs(network, clips))
        network.eval()
        with torch.no_grad():
            _check_independence(network, clips, _check_outputs(network, clips))


def _copy_checked(module: object) -> Backbone:
    """Check the members of a module, and copy it so that the other checks leave no trace on the original."""
    name = type(module).__name__
    if not isinstance(module, nn.Module):
        raise ValueError(f"a {name} is not a backbone; a backbone must be a torch.nn.Module")
    members = ("num_features", "stages", "clip_frames", "clip_size", "forward_stages")
    if missing := [member for member in members if not hasattr(module, member)]:
        raise ValueError(f"{name} has no {', '.join(missing)}; define them as described in v3s.backbones.Backbone")
    assert isinstance(module, Backbone)
    if not module.stages or list(module.stages.values())[-1] != module.num_features:
        raise ValueError(
            f"{name}.num_features = {module.num_features}, stages = {module.stages}; "
            "num_features must be the number of channels of the last stage"
        )
    return copy.deepcopy(module)


def _check_outputs(network: Backbone, clips: Tensor) -> Tensor:
    """Run the network both ways; check shapes and values, and that the input is unchanged; return the features."""
    name, original = type(network).__name__, clips.clone()
    stages = network.forward_stages(clips)
    features = network(clips)
    if not torch.equal(clips, original):
        raise ValueError(f"{name} changes its input; on the clips, write `x = x * 2`, not `x *= 2`")
    if list(stages) != list(network.stages):
        raise ValueError(f"{name}.forward_stages returned {list(stages)}; stages requires {list(network.stages)}")
    for stage, num_channels in network.stages.items():
        output = stages[stage]
        if output.ndim != 5 or output.shape[:2] != (len(clips), num_channels):
            raise ValueError(
                f"{name}.forward_stages returned {stage!r} with shape {tuple(output.shape)}; "
                f"stages[{stage!r}] = {num_channels} requires ({len(clips)}, {num_channels}, t, h, w)"
            )
        _check_finite(f"{name}, stage {stage!r}", output)
    if features.shape != (len(clips), network.num_features):
        raise ValueError(
            f"{name} returned features of shape {tuple(features.shape)}; "
            f"num_features = {network.num_features} requires {(len(clips), network.num_features)}"
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
            "requires_grad = False (distributed training fails on parameters without a gradient)"
        )
    for key, parameter in trainable.items():
        if parameter.grad is not None:
            _check_finite(f"{name}, gradient of {key}", parameter.grad)


def _check_independence(network: Backbone, clips: Tensor, features: Tensor) -> None:
    """In evaluation mode, features must be the mean of the last stage, and not depend on other clips in the batch."""
    name, tolerance = type(network).__name__, _LEAK_TOLERANCE * float(features.abs().max())
    pooled = network.forward_stages(clips)[list(network.stages)[-1]].mean(dim=(2, 3, 4))
    if (difference := float((features - pooled).abs().max())) > tolerance:
        raise ValueError(
            f"{name}: the features differ by {difference:.3g} from the mean of the last stage in evaluation mode; "
            "return forward_stages(clips)[last].mean(dim=(2, 3, 4)), without randomness in evaluation mode"
        )
    black_neighbour = torch.stack([clips[0], torch.zeros_like(clips[1])])
    with_black = _check_outputs(network, black_neighbour)
    if (difference := float((features[0] - with_black[0]).abs().max())) > tolerance:
        raise ValueError(
            f"{name}: in evaluation mode the features of a clip change by {difference:.3g} with another clip in its "
            "batch; use running statistics (BatchNorm3d in eval mode), and never reduce over dim 0"
        )
