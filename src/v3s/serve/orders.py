"""In which order spans are shown: as listed, or by a score of each one, the largest first."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from v3s.files.text import short_repr
from v3s.serve.filters import Chosen
from v3s.vectors.collection import Vectors
from v3s.vectors.moments import Proposal, keep_moments
from v3s.vectors.nearest.exact import best_scores


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """An order of all spans.

    Attributes:
        scores: of each span, float32 (N,), -inf for those that are not shown; None leaves the order of the list.
        caption: what the scores are, for the page.
        shows_scores: whether the scores say anything to a reader.
        is_similarity: of spans of a file that overlap only the best is shown, as in ``v3s search``.
        query: file, start and end in seconds of the stretch that was searched with, of which only the best span counts.
        row: the span that was searched with, or the one whose file the stretch is of.
    """

    scores: NDArray[np.float32] | None
    caption: str
    shows_scores: bool = True
    is_similarity: bool = False
    query: tuple[str, float, float] | None = None
    row: int | None = None
    __repr__ = short_repr


AS_LISTED = Order(None, "as listed")


def rows_in(order: Order, chosen: Chosen) -> NDArray[np.int64]:
    """The chosen spans that an order shows, ascending."""
    return np.flatnonzero(chosen if order.scores is None else chosen & (order.scores > -np.inf))


def order_by_similarity(
    vectors: Vectors, queries: Tensor, caption: str, row: int, query: tuple[str, float, float] | None = None
) -> Order:
    """The order by cosine with the most similar query.

    Args:
        vectors: the collection.
        queries: float32 (Q, D), unit length.
        caption: what was searched with.
        row: as in `Order`.
        query: as in `Order`.
    """
    scores = best_scores(queries, [shard.vectors for shard in vectors.shards]).numpy()
    return Order(scores, caption, is_similarity=True, query=query, row=row)


def page_of(
    vectors: Vectors, order: Order, rows: NDArray[np.int64], offset: int, limit: int
) -> list[tuple[int, float | None]]:
    """The rows and scores of one page of some spans, in order.

    Args:
        vectors: the collection.
        order: the order; equal scores are in the order of the list.
        rows: the spans to show, ascending.
        offset: how many come before this page.
        limit: how many are on it; fewer are returned at the end.
    """
    if order.scores is None:
        return [(row, None) for row in rows[offset : offset + limit].tolist()]
    scores = order.scores[rows]

    def propose(num_rows: int) -> Proposal:
        best = _best(scores, num_rows)
        return torch.from_numpy(rows[best]), torch.from_numpy(scores[best]), num_rows >= len(rows)

    if order.is_similarity:
        kept = keep_moments(vectors, propose, offset + limit, order.query) if len(rows) else []
        return [(row, score) for row, score, _ in kept[offset:]]
    found, values, _ = propose(offset + limit)
    return list(zip(found[offset:].tolist(), values[offset:].tolist(), strict=True))


def _best(scores: NDArray[np.float32], number: int) -> NDArray[np.int64]:
    """Places of the largest scores, best first; of equal ones the first."""
    number = min(number, len(scores))
    if number == 0:
        return np.zeros(0, np.int64)
    worst = np.partition(scores, len(scores) - number)[len(scores) - number]
    better, level = np.flatnonzero(scores > worst), np.flatnonzero(scores == worst)
    places = np.sort(np.concatenate([better, level[: number - len(better)]]))
    return places[np.argsort(-scores[places], kind="stable")]
