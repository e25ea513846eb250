"""When the frames of a video are shown, how many there are a second, and whether that varies."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

ASSUMED_RATE = 25.0  # frames per second, as FFmpeg assumes where a file keeps no times and its codec states no rate
HIGHEST_RATE = 1000.0  # that is believed of a codec's header, in frames per second
UNUSUAL = 0.1  # of the usual step: a step that is so much longer or shorter, and a tick at least, is not usual
STEADY_SHARE = 0.9  # of all steps are usual, or the rate varies
MOST_DRIFT = 0.01  # of the mean step from the usual ones, or the rate varies; and of a stated rate from the mean


@dataclass(frozen=True, slots=True)
class Timing:
    """When frames are shown.

    Attributes:
        timestamps: The presentation time of every frame in the stream's time base, strictly increasing: a ``range``
            where they are evenly spaced; empty where the file's own are missing, repeated or out of order.
        fps: Mean rate in frames per second.
        duration_seconds: From the first frame's start to the last frame's end.
        varies: Whether frames are not evenly spaced, by more than rounding.
    """

    timestamps: Sequence[int]
    fps: float
    duration_seconds: float
    varies: bool


def timing_of(
    times: Sequence[int | None], time_base: Fraction | None, stated: Fraction | float | None
) -> Timing | None:
    """The timing of frames.

    The mean rate is that of the timestamps: as many frames as there are, from the first one's start to the last one's
    end. The last frame lasts one step, where the rate varies a short one: few containers state its duration, and the
    rate must not depend on the container. The header's rate replaces the mean where the two agree, since timestamps may
    be rounded, and where there are no timestamps.

    Args:
        times: Of the frames in the order in which they are decoded, in ticks.
        time_base: Of a tick, in seconds.
        stated: The rate that the header states, in frames per second; ``None`` or 0 where it does not.

    Returns:
        ``None`` if neither times nor header give a rate.
    """
    timestamps = _increasing(times)
    if len(timestamps) < 2 or not time_base:
        return Timing(timestamps, float(stated), len(times) / float(stated), False) if stated else None
    steps = np.diff(np.array(timestamps))
    usual = usual_steps(steps)
    step, span = float(usual.mean()), timestamps[-1] - timestamps[0]
    if len(usual) < STEADY_SHARE * len(steps) or abs(steps.mean() / step - 1) > MOST_DRIFT:
        seconds = (span + float(np.quantile(steps, 0.25))) * float(time_base)
        return Timing(timestamps, len(times) / seconds, seconds, True)
    seconds = (span + step) * float(time_base)
    if stated and abs(len(times) / float(stated) - seconds) <= MOST_DRIFT * seconds + float(time_base):
        return Timing(timestamps, float(stated), float(span * time_base) + 1 / float(stated), False)
    return Timing(timestamps, len(times) / seconds, seconds, False)


def usual_steps(steps: np.ndarray) -> np.ndarray:
    """Those of the steps between times, in ticks, that are about as long as the median one."""
    middle = float(np.sort(steps)[(len(steps) - 1) // 2])
    return steps[np.abs(steps - middle) <= max(1.0, UNUSUAL * middle)]


def steady_step(times: Sequence[int]) -> int:
    """The usual step between times, in any order; 0 where fewer than nine in ten are about as long."""
    steps = np.diff(np.sort(np.array(times)))
    is_steady = len(steps) and len(usual_steps(steps)) >= STEADY_SHARE * len(steps)
    return int(np.median(steps)) if is_steady else 0


def _increasing(times: Sequence[int | None]) -> Sequence[int]:
    if not len(times) or (not isinstance(times, array) and None in times):
        return ()
    known = np.array(times, np.int64)
    steps = np.diff(known)
    if (steps <= 0).any():
        return ()
    if len(steps) and (steps != steps[0]).any():
        return array("q", known.tobytes())
    first, step = int(known[0]), int(steps[0]) if len(steps) else 1
    return range(first, first + step * len(known), step)
