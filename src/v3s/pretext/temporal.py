"""Temporal scale and temporal projection: labels that stand for a selection of frames (paper section 3.2)."""

from dataclasses import dataclass
from typing import Literal

Seam = Literal["first", "second"]
"""Which half's frame step is used between the two halves of a projection: the first (our reading) or the second."""


MAX_SPEED = 1000


def _check_speeds(*speeds: int) -> None:
    if not all(1 <= speed <= MAX_SPEED for speed in speeds):
        raise ValueError(f"a speed must be from 1 to {MAX_SPEED} source frames per frame; got {speeds}")


@dataclass(frozen=True, slots=True)
class TemporalScale:
    """T_S: every frame is ``speed`` source frames after the previous one.

    Source: paper section 3.2, "Scale"; the printed index is off by one, see docs/paper.md.
    """

    speed: int

    def __post_init__(self) -> None:
        _check_speeds(self.speed)

    def __str__(self) -> str:
        return f"speed {self.speed}"

    def steps(self, length: int, seam: Seam = "first") -> tuple[int, ...]:
        """The ``length - 1`` gaps between the frames of a clip, in source frames."""
        return (self.speed,) * (length - 1)


@dataclass(frozen=True, slots=True)
class TemporalProjection:
    """T_P: the first half of a clip plays at speed ``p[0]``, the second half at speed ``p[1]``.

    Source: paper section 3.2, "Projection"; 8 + 8 frames is our reading, see docs/paper.md.
    """

    p: tuple[int, int]

    def __post_init__(self) -> None:
        _check_speeds(*self.p)

    def __str__(self) -> str:
        return f"speed {self.p[0]} then {self.p[1]}"

    def steps(self, length: int, seam: Seam = "first") -> tuple[int, ...]:
        """The ``length - 1`` gaps between the frames of a clip, in source frames.

        With ``seam="first"``, the gap between the halves has the step of the first half.
        """
        first = length // 2
        gaps_at_first = first if seam == "first" else first - 1
        return (self.p[0],) * gaps_at_first + (self.p[1],) * (length - 1 - gaps_at_first)


TemporalTransform = TemporalScale | TemporalProjection


def offsets(transform: TemporalTransform, length: int, seam: Seam = "first") -> tuple[int, ...]:
    """Return the frames of a clip relative to its first frame, in source frames.

    >>> offsets(TemporalProjection((1, 2)), length=6)
    (0, 1, 2, 3, 5, 7)
    """
    places = [0]
    for step in transform.steps(length, seam):
        places.append(places[-1] + step)
    return tuple(places)


def span(transform: TemporalTransform, length: int, seam: Seam = "first") -> int:
    """Return the number of source frames that a clip covers, including its first and last frame.

    >>> span(TemporalScale(3), length=16)
    46
    """
    return sum(transform.steps(length, seam)) + 1
