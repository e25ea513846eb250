"""What weights expect of the values of a clip."""

from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor, nn

_Channels = tuple[float, float, float]  # red, green, blue


@dataclass(frozen=True, slots=True)
class Normalisation:
    """The mean and standard deviation by which clips in [0, 1] are normalised: (clip - mean) / std.

    Attributes:
        mean: of each channel: red, green, blue.
        std: of each channel, more than 0.

    Raises:
        ValueError: a number is not finite, or a standard deviation is not more than 0.
    """

    mean: _Channels
    std: _Channels

    def __post_init__(self) -> None:
        if not all(map(isfinite, (*self.mean, *self.std))) or min(self.std) <= 0:
            raise ValueError(f"mean is {self.mean} and std {self.std}; both must be finite, and std more than 0")

    def __str__(self) -> str:
        mean, std = (", ".join(f"{value:g}" for value in values) for values in (self.mean, self.std))
        return f"mean {mean}; std {std}"


KINETICS = Normalisation((0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989))
"""Of Kinetics-400, as torchvision's video networks expect it."""


class Normalising(nn.Module):
    """A network that takes clips in [0, 1] and normalises them itself, as its weights expect it.

    The normalisation is not part of ``state_dict``.
    """

    _mean: Tensor
    _std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.normalisation = None

    @property
    def normalisation(self) -> Normalisation | None:
        """The normalisation of clips that the weights expect; None (at first) if they expect values in [0, 1].

        Set it before the network is moved to a device.
        """
        return self._normalisation

    @normalisation.setter
    def normalisation(self, expected: Normalisation | None) -> None:
        self._normalisation = expected
        for name in ("mean", "std"):
            values = None if expected is None else torch.tensor(getattr(expected, name)).view(1, 3, 1, 1, 1)
            self.register_buffer(f"_{name}", values, persistent=False)

    def normalise(self, clips: Tensor) -> Tensor:
        """Return clips (B, 3, T, H, W) in [0, 1] as the weights expect them; the argument does not change."""
        return clips if self._normalisation is None else (clips - self._mean) / self._std
