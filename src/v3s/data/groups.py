"""Groups of videos that resemble each other: takes of one scene, videos of one animal, patient or camera.

Videos of a group, and copies of a video, stay on one side of every division into training and validation.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from v3s.data.index_table import IndexTable
from v3s.data.scan import Scan

_UCF101 = re.compile(r"v_\w+_g\d+(?=_c\d+)")
_PAPER_VALIDATION = 800
PAPER_SHARE = 800 / 9537  # of UCF101's first training split
_NUM_STRETCHES = 20
_HOLD_OUT = 3  # separates this random stream from those of the samples

GAP_SECONDS = 10.0

_Parts = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True, kw_only=True)
class GroupOptions:
    """Which videos resemble each other.

    More options:
        group: Regular expression that finds a video's group in its path, such as 'mouse[0-9]+'. Videos of a group
            resemble each other: they are trained on or held out together, and standard errors are over groups.
            Default: the groups of UCF101 for its file names (v_Class_g01_c01), and every other file alone; of a single
            recording, 20 equal stretches of time.
    """

    group: str | None = None

    def groups_of(self, found: Scan) -> NDArray[np.int64]:
        """The number of each usable video's group, as `number_groups`; of spans of a single file, as `stretches`."""
        table, paths = found.usable_table, [found.videos.paths[place] for place in found.usable]
        is_recording = table.spans is not None and len(np.unique(table.contents)) == 1
        return self.groups_by(paths, table.spans.starts if table.spans and is_recording else None)

    def groups_by(self, paths: Sequence[str], starts: NDArray[np.float64] | None = None) -> NDArray[np.int64]:
        """The number of each video's group, by the paths; by the starts of spans, if they are of a single recording."""
        if self.group is None and starts is not None:
            return stretches(starts)
        return number_groups(paths, self.group)

    def example(self, paths: Sequence[str], starts: NDArray[np.float64] | None = None) -> str:
        """Name the first group of `groups_by`, whose arguments it takes, for a message."""
        is_recording = self.group is None and starts is not None
        return "a stretch of the recording" if is_recording else _names(paths, self.group)[0]


def stretches(starts: NDArray[np.float64]) -> NDArray[np.int64]:
    """Divide the time from the first span of a recording to its last into equal stretches.

    Args:
        starts: of the spans, in seconds, shape (N,).

    Returns:
        The number of each span's stretch from 0, shape (N,); stretches without a span do not count.
    """
    edges = np.linspace(starts.min(), starts.max(), _NUM_STRETCHES + 1)[1:-1]
    return np.unique(np.searchsorted(edges, starts, side="right"), return_inverse=True)[1]


def number_groups(paths: Sequence[str], pattern: str | None = None) -> NDArray[np.int64]:
    """Number the groups of videos in the order in which they first occur.

    Args:
        paths: path of each video, as listed.
        pattern: regular expression that is searched for in every path. Videos for which its first parenthesised group
            (or, without one, the whole match) is the same text belong together. None: the groups of UCF101 for names of
            its form, ``v_Class_g01_c01``, and every other file alone: spans of a file have the same path.

    Returns:
        The number of each video's group, shape (N,).

    Raises:
        ValueError: the pattern is not a regular expression, does not match a path, or puts all videos in one group.
    """
    names = _names(paths, pattern)
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], np.int64)


def _names(paths: Sequence[str], pattern: str | None) -> list[str]:
    """The name of each video's group."""
    if pattern is None:
        return [match[0] if (match := _UCF101.search(path)) else path for path in paths]
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"group is {pattern!r}, which is not a regular expression: {error}") from error
    matches = [(path, compiled.search(path)) for path in paths]
    if missing := [path for path, match in matches if match is None]:
        raise ValueError(
            f"group is {pattern!r}, which does not match {len(missing):,} of {len(paths):,} paths; first: {missing[0]}"
        )
    names = [match[1 if compiled.groups else 0] or "" for _, match in matches if match]
    if len(names) > 1 and len(set(names)) == 1:
        raise ValueError(f"group is {pattern!r}, which puts all {len(names):,} videos in one group, {names[0]!r}")
    return names


def unite(*relations: np.ndarray) -> NDArray[np.int64]:
    """Number what belongs together by any of several relations, also through others: the finest such numbering.

    Args:
        relations: integers, each of shape (N,): equal numbers belong together.

    Returns:
        Numbers from 0 in the order in which they first occur, shape (N,).
    """
    kinds = [np.unique(relation, return_inverse=True)[1] for relation in relations]
    numbers = np.arange(len(kinds[0]))
    while True:
        before = numbers
        for kind in kinds:
            least = np.full(int(kind.max()) + 1, len(kind), np.int64)
            np.minimum.at(least, kind, numbers)
            numbers = least[kind]
        if np.array_equal(before, numbers):
            return np.unique(numbers, return_inverse=True)[1]


def hold_out_rows(table: IndexTable, num_validation: int | None, seed: int, groups: np.ndarray) -> _Parts:
    """Split the rows of a table into training and validation, both sorted.

    Whole videos are divided as by `hold_out`. Of spans, whole files and groups are held out; of these, as many evenly
    spaced spans are used as were asked for, and no other. Where all spans are of one file, or of copies of it, one
    stretch of time is drawn, and spans next to it are used on neither side.

    Args:
        table: the videos or spans.
        num_validation: number of rows for validation; by default the paper's share.
        seed: seed of the draw.
        groups: the group of each row, integers, shape (N,); spans of a file are of one group.

    Raises:
        ValueError: training or validation would be empty, or all rows belong together.
    """
    if table.spans is None:
        return hold_out(len(table), num_validation, seed, table.contents, groups)
    wanted = _number(len(table), num_validation)
    generator = np.random.default_rng((seed, 0, 0, _HOLD_OUT))
    if len(np.unique(table.contents)) == 1:
        return _hold_out_stretch(table, wanted, generator)
    belongs = unite(table.contents, groups)
    number = max(wanted, int(np.median(np.bincount(belongs))))  # so that not only the smallest group may be drawn
    is_held = take_whole(generator.permutation(len(table)), number, belongs)
    held = np.flatnonzero(is_held)
    chosen = np.linspace(0, len(held) - 1, min(wanted, len(held))).round().astype(np.int64)
    return np.flatnonzero(~is_held), held[np.unique(chosen)]


def gap_between(starts: NDArray[np.float64], ends: NDArray[np.float64]) -> float:
    """How many seconds lie between held-out spans and training spans of one file at least: 10, and a span's length.

    Args:
        starts: of the spans, in seconds, shape (N,).
        ends: of the spans, in seconds, shape (N,).
    """
    return max(GAP_SECONDS, float(np.median(ends - starts)))


def _hold_out_stretch(table: IndexTable, wanted: int, generator: np.random.Generator) -> _Parts:
    """Hold out spans of one file that follow one another, and leave out those next to them."""
    spans = table.spans
    assert spans is not None
    order = np.argsort(spans.starts, kind="stable")
    first = int(generator.integers(len(order) - wanted + 1))
    held = order[first : first + wanted]
    gap = gap_between(spans.starts, spans.ends)
    start, end = spans.starts[held].min() - gap, spans.ends[held].max() + gap
    train = np.flatnonzero((spans.ends <= start) | (spans.starts >= end))
    if not len(train):
        raise ValueError(
            f"all spans are of one recording, and none is {gap:.0f} s away from the {wanted} that were drawn for "
            "validation; add recordings, or choose fewer --validation-videos or a shorter --segment"
        )
    return train, np.sort(held)


def hold_out(
    num_videos: int,
    num_validation: int | None,
    seed: int,
    fingerprints: np.ndarray | None = None,
    groups: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Split video numbers into training and validation, both sorted; None uses the paper's share for validation.

    Videos that belong together are on one side. Where that does not allow the number asked for, it is missed by at most
    half of the smallest group that is left for training, if that is more than one group; no side is ever empty.

    Args:
        num_videos: number of videos.
        num_validation: number of them to draw for validation.
        seed: seed of the draw.
        fingerprints: the content of each video, shape (N,): copies belong together.
        groups: the group of each video, integers, shape (N,): those of a group belong together.

    Raises:
        ValueError: training or validation would have no videos.
    """
    num_validation = _number(num_videos, num_validation)
    order = np.random.default_rng((seed, 0, 0, _HOLD_OUT)).permutation(num_videos)
    relations = [numbers for numbers in (fingerprints, groups) if numbers is not None]
    is_held = take_whole(order, num_validation, unite(*relations) if relations else np.arange(num_videos))
    return np.flatnonzero(~is_held), np.flatnonzero(is_held)


def _number(num_videos: int, num_validation: int | None) -> int:
    """How many videos to hold out: the paper's share, or the given number."""
    if num_videos < 2:
        raise ValueError(
            f"only {num_videos} usable video; training needs at least 2, one of them for validation; add videos, or "
            "cut a recording into segments with --segment"
        )
    if num_validation is None:
        return min(_PAPER_VALIDATION, max(1, round(PAPER_SHARE * num_videos)))
    if not 0 < num_validation < num_videos:
        raise ValueError(
            f"{num_validation} of {num_videos} usable videos were requested for validation, but training and "
            "validation need at least one each; change --validation-videos"
        )
    return num_validation


def take_whole(order: np.ndarray, number: int, groups: np.ndarray) -> NDArray[np.bool_]:
    """Take as nearly as possible a number of videos in an order, each with its whole group.

    A group that would exceed the number is passed over, and later ones may fit. At the end, the smallest that was
    passed over is added if nothing was taken, or if it leads nearer to the number.

    Args:
        order: the numbers of all videos, in any order, shape (N,).
        number: how many to take, 1 to N - 1.
        groups: the group of each video, integers from 0, shape (N,).

    Returns:
        Whether each video is taken, shape (N,). Neither none is taken nor all are.

    Raises:
        ValueError: all videos are of one group.
    """
    sizes = np.bincount(groups)
    if (sizes > 0).sum() < 2:
        raise ValueError(
            f"all {len(groups):,} usable videos belong together, by their content or their group, so they cannot be "
            "divided into training and validation; add others (v3s check names copies) or change --group"
        )
    first = dict.fromkeys(groups[order].tolist())
    taken: set[int] = set()
    left = number
    for group in first:
        if not left:
            break
        if sizes[group] <= left:
            taken.add(group)
            left -= int(sizes[group])
    passed = [group for group in first if group not in taken]
    smallest = min(passed, key=lambda group: sizes[group])
    if not taken or (len(passed) > 1 and sizes[smallest] - left < left):
        taken.add(smallest)
    return np.isin(groups, list(taken))
