"""Moments: the rows of a collection that are most similar to a query, where overlapping rows of a file count once."""

import os
from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from v3s.data.index_table import content_of
from v3s.vectors.collection import NUM_SPARE, Vectors
from v3s.vectors.entries import Place
from v3s.vectors.nearest.approximate import ApproximateIndex
from v3s.vectors.nearest.exact import best_scores, standardise
from v3s.video.container import VideoError
from v3s.video.index import VideoIndex
from v3s.video.span import Span, frame_at, span_of
from v3s.video.store import StoredVideo

OVERLAP = 0.25
"""Two spans of a file that share more than this part of the shorter one are the same moment: neighbours in a sliding
window of half a clip are, those that merely touch are not."""

_ROWS_PER_MOMENT, _MIN_ROWS = 4, 64
_ROUNDING = 1e-6  # of times in seconds
_NUM_SAMPLED = 4096  # rows that estimate the mean and the deviation of all scores; its error is 2 % of a deviation

Proposal = tuple[Tensor, Tensor, bool]
"""Rows, int64 (M,), best first; their scores, float32 (M,); whether there are no more."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A row, its cosine with the query in [-1, 1] up to rounding, the standard score of this, and its place."""

    row: int
    score: float
    z: float
    place: Place


class Timed(Protocol):
    """A part of a file: its start and its end in seconds."""

    @property
    def start_seconds(self) -> float: ...  # noqa: D102
    @property
    def end_seconds(self) -> float: ...  # noqa: D102


def find_moments(
    vectors: Vectors,
    queries: Tensor,
    k: int,
    index: ApproximateIndex | None = None,
    *,
    query: tuple[str, float, float] | None = None,
    without: str | None = None,
) -> list[Moment]:
    """Find the ``k`` best moments by non-maximum suppression.

    A row's score is its cosine with the most similar query. Rows are taken from the best on; one that overlaps
    (`OVERLAP`) a better one of the same file is skipped. In a tie the lower row wins.

    Args:
        vectors: the vectors to search.
        queries: vectors of one video or span, float32, shape (Q, D), unit length.
        k: number of moments to find; fewer are returned if there are fewer.
        query: file, start and end in seconds of a query that is a span: of the rows in it only the best counts.
        without: a file whose rows are not found.
        index: searches the candidates of this index only. Standard scores then come from a sample of the rows.
    """
    if index is None:
        scores = best_scores(queries, [shard.vectors for shard in vectors.shards])
        sample = scores

        def propose(num_rows: int) -> Proposal:
            return _best_rows(vectors, queries, scores, num_rows)
    else:
        sampled = torch.linspace(0, len(vectors) - 1, min(_NUM_SAMPLED, len(vectors)), dtype=torch.float64).long()
        sample = _score(vectors, queries, sampled)

        def propose(num_rows: int) -> Proposal:
            return _proposed_rows(vectors, queries, index, num_rows)

    kept = keep_moments(vectors, propose, k, query, without)
    standard = standardise(torch.tensor([score for _, score, _ in kept]), sample).tolist()
    return [Moment(row, score, z, place) for (row, score, place), z in zip(kept, standard, strict=True)]


def _score(vectors: Vectors, queries: Tensor, rows: Tensor) -> Tensor:
    """The exact cosine of each row with its most similar query: float32 (M,), the same for equal rows."""
    return (vectors.take(rows).double() @ queries.T.double()).amax(dim=1).float()


def _best_rows(vectors: Vectors, queries: Tensor, scores: Tensor, num_rows: int) -> Proposal:
    """The best rows by scores in storage precision, ordered by exact cosine, and these cosines.

    Some spare rows are scored, because lengths in half precision differ by 1e-5 (see `v3s.vectors.collection`).
    """
    num_scored = min(num_rows + NUM_SPARE, len(scores))
    worst = scores.topk(num_scored).values[-1]
    better, level = (scores > worst).nonzero()[:, 0], (scores == worst).nonzero()[:, 0]
    rows = torch.cat([better, level[: num_scored - len(better)]]).sort().values  # topk takes any of equal scores
    exact, order = _score(vectors, queries, rows).sort(descending=True, stable=True)
    return rows[order[:num_rows]], exact[:num_rows], num_rows == len(vectors)


def _proposed_rows(vectors: Vectors, queries: Tensor, index: ApproximateIndex, num_rows: int) -> Proposal:
    """The rows that an index proposes for any query, down to the worst score that is certain; ordered by cosine."""
    found = index.nearest(queries, num_rows)
    rows = torch.from_numpy(np.unique(found.indices[found.indices >= 0].numpy()))
    exact, order = _score(vectors, queries, rows).sort(descending=True, stable=True)
    is_all = num_rows == len(vectors) or bool((found.indices[:, -1] < 0).all())
    certain = len(rows) if is_all else int((exact >= found.scores[:, -1].max()).sum())
    return rows[order[:certain]], exact[:certain], is_all


def keep_moments(
    vectors: Vectors,
    propose: Callable[[int], Proposal],
    k: int,
    query: tuple[str, float, float] | None = None,
    without: str | None = None,
) -> list[tuple[int, float, Place]]:
    """Keep the best rows that do not overlap; more rows are asked for until there are ``k`` or no more rows.

    Args:
        vectors: the collection.
        propose: how many of the best rows it returns.
        k: number of rows to keep.
        query: as for `find_moments`.
        without: as for `find_moments`.

    Returns:
        Row, score and place of each, best first.
    """
    num_rows = min(max(_ROWS_PER_MOMENT * k, _MIN_ROWS), len(vectors))
    real_path = cache(os.path.realpath)  # a collection may list a link, also beside its file
    own, left_out = (None if file is None else real_path(file) for file in (query and query[0], without))
    while True:
        kept: list[tuple[int, float, Place]] = []
        of_file: dict[str, _Disjoint] = defaultdict(_Disjoint)
        rows, scores, is_all = propose(num_rows)
        for row, score in zip(rows.tolist(), scores.tolist(), strict=True):
            place = vectors.place_of(row)
            file = real_path(place.file)
            if file != left_out and not of_file[file].overlap(place):
                kept.append((row, score, place))
                of_file[file].add(place)
                if query is not None and file == own:
                    asked = replace(place, start_seconds=query[1], end_seconds=query[2])
                    if overlaps(place, asked):
                        of_file[file].add(asked)
            if len(kept) == k:
                return kept
        if is_all:
            return kept
        num_rows = min(4 * num_rows, len(vectors))


class _Disjoint:
    """Spans of one file, of which one is compared with those near to it only: there may be thousands."""

    def __init__(self) -> None:
        self.places: list[Place] = []  # by their start
        self.longest = 0.0  # in seconds

    def add(self, place: Place) -> None:
        insort(self.places, place, key=_start)
        self.longest = max(self.longest, place.end_seconds - place.start_seconds)

    def overlap(self, place: Place) -> bool:
        first = bisect_left(self.places, place.start_seconds - self.longest, key=_start)
        after = bisect_right(self.places, place.end_seconds, key=_start)
        return any(overlaps(place, other) for other in self.places[first:after])


def _start(place: Place) -> float:
    return place.start_seconds


def overlaps(one: Timed, other: Timed) -> bool:
    """Whether two spans of one file are the same moment: they share more than `OVERLAP` of the shorter one."""
    shared = min(one.end_seconds, other.end_seconds) - max(one.start_seconds, other.start_seconds)
    shorter = min(one.end_seconds - one.start_seconds, other.end_seconds - other.start_seconds)
    return shared > OVERLAP * shorter + _ROUNDING


def video_of(place: Place, file: VideoIndex | StoredVideo, rate: float | None) -> Span:
    """The span of a row as a video of its own, which has all frames of the file that lie in it.

    Args:
        place: where the row comes from.
        file: the index of its file.
        rate: frames per second at which the collection was sampled; ``None`` for every frame.

    Raises:
        VideoError: the file has changed since it was embedded.
    """
    entry = place.entry
    whole = span_of(file, entry.start_seconds, entry.start_seconds + entry.seconds, rate)
    if entry.content not in ("", content_of(whole), content_of(file)) or whole.num_frames < place.end_frame:
        raise VideoError(f"{place.file}: changed since it was embedded; run v3s embed with --append")
    first, last = whole.source_frames((place.start_frame, place.end_frame - 1))
    if rate is not None:  # up to the frame before the next sample
        last = max(last, frame_at(file, place.end_seconds) - 1)
    return Span(file, first, last + 1 - first, place.start_seconds, place.end_seconds)
