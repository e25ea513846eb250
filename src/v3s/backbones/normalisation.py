"""What weights expect of the values of a clip."""

from dataclasses import dataclass
from math import isfinite

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
