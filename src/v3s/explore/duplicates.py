"""Near-duplicates: spans of two files with nearly the same vectors, also of a stretch of one that the other repeats.

Every span is compared with the most similar spans of other files. Where a file was copied in part, spans of file A at
the times t match spans of file B at t + d, for consecutive t and one d: such a run is one duplicate, from the start of
its first span to the end of its last. That their offset is the same is evidence, too: beside a pair that is similar
enough, others of its run may be three times as far from each other. Another encoding, and spans that begin a little
later, make such distances.

How similar a pair must be is read from the collection itself (`least_similarity_of`): where unrelated spans are similar
already, as those of one cage or of a network that was trained briefly, a near-duplicate must be more similar.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from v3s.explore.matrix import Centred, centred
from v3s.explore.neighbours import nearest_others
from v3s.explore.spans import SpanTable, matrix_of, table_of
from v3s.vectors.collection import Vectors
from v3s.vectors.moments import overlaps

_LEAST, _MOST = 0.95, 0.99
"""The range of the least similarity of near-duplicates; another encoding of a copy stays above the upper end."""

_UNRELATED, _NEARER, _NUM_DRAWN = 0.1, 4.0, 20_000
"""A near-duplicate is four times nearer than the nearest tenth of the pairs of spans of two files, drawn at random."""

NUM_NEIGHBOURS = 16
"""Similar spans that are looked at for each span: where there are more copies, some pairs of them are not listed."""

_FARTHER, _FARTHEST = 3.0, 0.5
"""How many times a lone pair's relative distances those in a run may be, but no more than half an average pair's."""

_ROUNDING = 1e-6  # of times in seconds
_MOST_STEPS = 2.5  # between the starts of consecutive pairs of a run: one span in between may be missed


@dataclass(frozen=True, slots=True)
class Passage:
    """A part of a file, which one or more rows of a collection cover.

    Attributes:
        file: path of the file, as listed.
        start_seconds: start of the first row, in seconds from the start of the file on.
        end_seconds: end of the last.
        rows: the rows, in order of time.
    """

    file: str
    start_seconds: float
    end_seconds: float
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Two stretches of different files with nearly the same vectors, which may show the same.

    Attributes:
        first: the stretch of the file that comes first in the collection.
        second: the stretch that matches it.
        similarity: the mean over the pairs: 1 for copies, 0 for an average pair of spans of the collection.
        best: that of the most similar pair, which is at least the least similarity of near-duplicates.
        num_pairs: pairs of spans that match, one after another.
    """

    first: Passage
    second: Passage
    similarity: float
    best: float
    num_pairs: int

    @property
    def similarity_text(self) -> str:
        """The best similarity, with which thresholds are compared, and the mean if there are several pairs."""
        mean = f" (best pair; mean {self.similarity:.3f})" if self.num_pairs > 1 else ""
        return f"similarity {self.best:.3f}{mean}"


def near_duplicates(collection: Vectors, *, least: float | None = None, seed: int = 0) -> tuple[Duplicate, ...]:
    """Find the near-duplicates of a collection, as `duplicates_among`."""
    return duplicates_among(centred(matrix_of(collection)), table_of(collection), least=least, seed=seed)


def duplicates_among(
    vectors: Centred, table: SpanTable, *, least: float | None = None, seed: int = 0
) -> tuple[Duplicate, ...]:
    """Find near-duplicates among spans of different files.

    Args:
        vectors: shape (N, D), of unit length before they were centred.
        table: where each of them comes from.
        least: how similar a pair of spans is at least, between 0 and 1; in a run, the best pair. Similarity is 1 minus
            the relative distance (`v3s.explore.matrix`). None: see `least_similarity_of`.
        seed: see `v3s.explore.neighbours`; more than 4,096 vectors are compared with those of the nearest cells.

    Returns:
        The longest first, of equally long ones the most similar. Of runs between two files that are the same moments
        in both (`v3s.vectors.moments.overlaps`) only the first counts.

    Raises:
        ValueError: ``least`` is not between 0 and 1.
    """
    if least is None:
        least = least_similarity_of(vectors, table, seed=seed)
    if not 0 < least < 1:
        raise ValueError(f"the least similarity of near-duplicates is {least}; it must be between 0 and 1")
    rows, distances = nearest_others(vectors, min(NUM_NEIGHBOURS, len(vectors)), groups=table.file_of, seed=seed)
    farthest = max(1 - least, min(_FARTHER * (1 - least), _FARTHEST))
    is_near = np.isfinite(distances) & (distances <= np.minimum(farthest * vectors.unit, 2))
    pairs = np.stack([np.nonzero(is_near)[0], rows[is_near]], axis=1)
    is_turned = table.file_of[pairs[:, 0]] > table.file_of[pairs[:, 1]]
    pairs[is_turned] = pairs[is_turned, ::-1]
    pairs, places = np.unique(pairs, axis=0, return_index=True)
    similarities = 1 - distances[is_near][places].astype(np.float64) / vectors.unit
    return tuple(_distinct(_runs(pairs, similarities, table, least)))


def least_similarity_of(vectors: Centred, table: SpanTable, *, seed: int = 0) -> float:
    """How similar near-duplicates of a collection are at least, as they must stand out from unrelated spans.

    Args:
        vectors: shape (N, D), of unit length before they were centred.
        table: where each of them comes from.
        seed: of the pairs that are drawn.

    Returns:
        From 0.95 to 0.99: at this similarity a pair is four times nearer than the nearest tenth of the pairs of spans
        of two files that are drawn at random.
    """
    pairs = np.random.default_rng(seed).integers(len(vectors), size=(_NUM_DRAWN, 2))
    pairs = pairs[table.file_of[pairs[:, 0]] != table.file_of[pairs[:, 1]]]
    if not len(pairs):
        return _LEAST
    differences = vectors.rows(pairs[:, 0]) - vectors.rows(pairs[:, 1])
    near = float(np.quantile(differences.square().sum(dim=1).numpy() / vectors.unit, _UNRELATED))
    return min(max(1 - near / _NEARER, _LEAST), _MOST)


def _runs(
    pairs: NDArray[np.int64], similarities: NDArray[np.float64], table: SpanTable, least: float
) -> Iterator[Duplicate]:
    """Join pairs of two files whose offsets are the same up to a step between spans, and whose times are consecutive.

    A run without a pair of at least this similarity is none.

    Offsets are sorted into bins that are two steps wide and begin at every step: each pair is in two of them, so that
    offsets that differ by less than a step are together in one.
    """
    if not len(pairs):
        return
    steps = _steps(table)
    step = steps[table.file_of[pairs]].max(axis=1)
    lower = np.floor((table.starts[pairs[:, 1]] - table.starts[pairs[:, 0]]) / step + _ROUNDING).astype(np.int64)
    first, second = np.tile(pairs.T, 2)
    step, values, bins = np.tile(step, 2), np.tile(similarities, 2), np.concatenate([lower, lower - 1])
    order = np.lexsort((second, -values, first, table.starts[first], bins, table.file_of[second], table.file_of[first]))
    first, second, step, values, bins = (each[order] for each in (first, second, step, values, bins))
    keys = np.stack([table.file_of[first], table.file_of[second], bins], axis=1)
    is_same = (keys[1:] == keys[:-1]).all(axis=1)
    best = np.concatenate([[True], ~is_same | (first[1:] != first[:-1])])  # of a span's partners in a bin
    first, second, step, values, keys = (each[best] for each in (first, second, step, values, keys))
    is_next = (keys[1:] == keys[:-1]).all(axis=1) & (np.diff(table.starts[first]) <= _MOST_STEPS * step[1:])
    for part in np.split(np.arange(len(first)), np.flatnonzero(~is_next) + 1):
        if values[part].max() < least:
            continue
        sides = _passage(first[part], table), _passage(second[part], table)
        yield Duplicate(*sides, float(values[part].mean()), float(values[part].max()), len(part))


def _steps(table: SpanTable) -> NDArray[np.float64]:
    """The usual time between the starts of consecutive spans of each file; of a file with one span, its length."""
    order = np.lexsort((table.starts, table.file_of))
    files, starts = table.file_of[order], table.starts[order]
    gaps = np.diff(starts)
    is_gap = (files[1:] == files[:-1]) & (gaps > _ROUNDING)
    steps = np.zeros(len(table.files))
    np.maximum.at(steps, table.file_of, table.ends - table.starts)
    by_size = np.lexsort((gaps[is_gap], files[1:][is_gap]))
    names, firsts, counts = np.unique(files[1:][is_gap][by_size], return_index=True, return_counts=True)
    steps[names] = gaps[is_gap][by_size][firsts + counts // 2]
    return np.maximum(steps, _ROUNDING)


def _passage(rows: NDArray[np.int64], table: SpanTable) -> Passage:
    ordered = np.unique(rows)
    ordered = ordered[np.argsort(table.starts[ordered], kind="stable")]
    start, end = float(table.starts[ordered[0]]), float(table.ends[ordered].max())
    return Passage(table.files[table.file_of[ordered[0]]], start, end, tuple(ordered.tolist()))


def _distinct(runs: Iterable[Duplicate]) -> Iterator[Duplicate]:
    """Yield runs from the longest on, without those that are the same moments in both files as an earlier one."""
    kept: dict[tuple[str, str], list[Duplicate]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: (-run.num_pairs, -run.similarity, run.first.rows, run.second.rows)):
        others = kept[run.first.file, run.second.file]
        if not any(overlaps(run.first, each.first) and overlaps(run.second, each.second) for each in others):
            others.append(run)
            yield run
