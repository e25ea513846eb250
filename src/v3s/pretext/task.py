"""Pretext tasks as two finite tables of labels (paper section 3.3, Tables 1 and 3).

A label is a row number. A head has one output per row of its table. An ablation uses another table, and with a table of
one row there is nothing to learn.
"""

from dataclasses import asdict, dataclass
from typing import Any

from v3s.options import closest
from v3s.pretext.spatial import HEADS, SpatialProjection, SpatialScale, SpatialTransform
from v3s.pretext.temporal import Seam, TemporalProjection, TemporalScale, TemporalTransform, span


@dataclass(frozen=True, slots=True)
class PretextTask:
    """The labels that the two heads distinguish.

    Attributes:
        spatial: the rows of the spatial head.
        temporal: the rows of the temporal head.
    """

    spatial: tuple[SpatialTransform, ...]
    temporal: tuple[TemporalTransform, ...]

    def longest_span(self, length: int, seam: Seam = "first") -> int:
        """Number of source frames that the longest clip of ``length`` frames covers."""
        return max(span(row, length, seam) for row in self.temporal)

    def shortest_span(self, length: int, seam: Seam = "first") -> int:
        """Number of source frames that the shortest clip of ``length`` frames covers."""
        return min(span(row, length, seam) for row in self.temporal)

    def to_table(self) -> dict[str, list[dict[str, Any]]]:
        """Return both tables as plain values, as stored in config.json, where a row has its class as ``kind``."""
        return {
            "spatial": [_row(entry) for entry in self.spatial],
            "temporal": [_row(entry) for entry in self.temporal],
        }


def _row(transform: SpatialTransform | TemporalTransform) -> dict[str, Any]:
    return {"kind": type(transform).__name__, **asdict(transform)}


def scales(*stretches: float) -> tuple[SpatialScale, ...]:
    """S_S of Table 1: first the height is stretched by each value, then the width."""
    return tuple(SpatialScale(1.0, b) for b in stretches) + tuple(SpatialScale(a, 1.0) for a in stretches)


def projections(*heads: float) -> tuple[SpatialProjection, ...]:
    """S_P of Table 1: each head length, on each of the four sides."""
    return tuple(SpatialProjection(c, side) for c in heads for side in HEADS)


def speeds(*values: int) -> tuple[TemporalScale, ...]:
    """T_S of Table 1: each playback speed."""
    return tuple(TemporalScale(s) for s in values)


def patterns(*pairs: tuple[int, int]) -> tuple[TemporalProjection, ...]:
    """T_P of Table 1: each pattern of two speeds."""
    return tuple(TemporalProjection(p) for p in pairs)


SAME_SIZE = (SpatialScale(1.0, 1.0),)
SAME_SPEED = speeds(1)
S_S = scales(1.15, 1.3, 1.45)
S_P = projections(0.8, 0.65, 0.5)
T_S = speeds(1, 2, 3)
T_P = patterns((1, 2), (2, 3), (3, 4), (4, 5), (2, 1), (3, 2), (4, 3), (5, 4))

TASKS: dict[str, PretextTask] = {
    # the rows of Table 3
    "ss": PretextTask(S_S, SAME_SPEED),
    "sp": PretextTask(S_P, SAME_SPEED),
    "ss+sp": PretextTask(S_S + S_P, SAME_SPEED),
    "ts": PretextTask(SAME_SIZE, T_S),
    "tp": PretextTask(SAME_SIZE, T_P),
    "ts+tp": PretextTask(SAME_SIZE, T_S + T_P),
    "v3s": PretextTask(S_S + S_P, T_S + T_P),
    # not of the paper: v3s with the temporal rows that short videos can show, 22 frames for clips of 8
    "v3s-short": PretextTask(S_S + S_P, T_S + patterns((1, 2), (2, 3), (2, 1), (3, 2))),
    # the rows of Table 1, named after their largest stretch, smallest head, or number of speeds or patterns
    "ss-1.45": PretextTask(S_S, SAME_SPEED),
    "ss-1.9": PretextTask(scales(1.3, 1.6, 1.9), SAME_SPEED),
    "ss-2.35": PretextTask(scales(1.45, 1.9, 2.35), SAME_SPEED),
    "sp-0.7": PretextTask(projections(0.8, 0.75, 0.7), SAME_SPEED),
    "sp-0.6": PretextTask(projections(0.8, 0.7, 0.6), SAME_SPEED),
    "sp-0.5": PretextTask(S_P, SAME_SPEED),
    "ts-2": PretextTask(SAME_SIZE, speeds(1, 2)),
    "ts-3": PretextTask(SAME_SIZE, T_S),
    "ts-4": PretextTask(SAME_SIZE, speeds(1, 2, 3, 4)),
    "tp-4": PretextTask(SAME_SIZE, patterns((1, 2), (2, 3), (2, 1), (3, 2))),
    "tp-6": PretextTask(SAME_SIZE, patterns((1, 2), (2, 3), (3, 4), (2, 1), (3, 2), (4, 3))),
    "tp-8": PretextTask(SAME_SIZE, T_P),
}


def needs_of_shorter_clips(name: str, clip_frames: int) -> dict[str, int]:
    """The settings that use shorter videos than a task with clips of ``clip_frames`` frames does.

    Args:
        name: the name of the task, one of `TASKS`.
        clip_frames: number of frames of its clips.

    Returns:
        Options of the command line -> number of source frames that every video needs with them, the longest first.
    """
    needed = {}
    for task in dict.fromkeys((name, "v3s-short")):
        for frames in (16, 12, 8):
            words = [f"--task {task}"] * (task != name) + [f"--clip-frames {frames}"] * (frames != clip_frames)
            needed[" ".join(words)] = TASKS[task].longest_span(frames)
    longest = TASKS[name].longest_span(clip_frames)
    return {words: need for words, need in sorted(needed.items(), key=lambda item: -item[1]) if need < longest}


def get_task(name: str) -> PretextTask:
    """Return the task with the given name.

    Raises:
        ValueError: there is no such task; the message lists all tasks.
    """
    if name not in TASKS:
        raise ValueError(f"no pretext task is called {name!r}{closest(name, TASKS)}; available: {', '.join(TASKS)}")
    return TASKS[name]
