"""Exact cosine search in a matrix of unit vectors, which may be larger than memory. All exact searches use it.

Vectors are usually stored in float16. They are converted to float32 block by block in one buffer that stays in the
cache, which is the fastest way on processors without half-precision arithmetic (see ``BLOCK_ELEMENTS``).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from v3s.files.text import short_repr

BLOCK_ELEMENTS = 2**20
"""Numbers converted at a time: 4 MiB of float32, 2048 rows of 512 columns. A block of 16 MiB or more exceeds the cache
and takes twice as long for one query; with 1 MiB, the overhead of starting operations on two threads costs as much."""

NUM_QUERIES = 1024
"""Queries processed together, which limits the table of scores to 8 MiB at 512 columns."""


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """The nearest vectors of each query, best first.

    Attributes:
        indices: row numbers in the matrix, int64, shape (Q, k).
        scores: cosine similarities, float32, shape (Q, k), in [-1, 1] up to rounding.
    """

    indices: Tensor
    scores: Tensor
    __repr__ = short_repr


def nearest(queries: Tensor, vectors: Tensor | Sequence[Tensor], k: int) -> Neighbours:
    """Find the ``k`` vectors with the largest inner product with each query; in a tie the lower row wins.

    Every vector is compared with every query. The matrix is read once per 1024 queries and never copied as a whole, so
    a memory-mapped matrix stays on disk.

    Args:
        queries: floating point, shape (Q, D), unit length; the search runs on their device.
        vectors: floating point, shape (N, D), unit length; float16 is sufficient. May be memory-mapped, or a sequence
            of tensors, whose rows are numbered consecutively.
        k: number of neighbours, 1 to N.

    Raises:
        ValueError: the shapes do not match, ``k`` is out of range, or a score is not finite.
    """
    parts = [vectors] if isinstance(vectors, Tensor) else list(vectors)
    for part in parts:
        if queries.ndim != 2 or part.ndim != 2 or queries.shape[1] != part.shape[1]:
            got = f"queries {tuple(queries.shape)} and vectors {tuple(part.shape)}"
            raise ValueError(f"got {got}; expected shapes (Q, D) and (N, D) with the same D")
    num_vectors = sum(map(len, parts))
    if not 1 <= k <= num_vectors:
        raise ValueError(f"k is {k}; it must be from 1 to {num_vectors}, the number of vectors")
    chunks = [_nearest_of_chunk(chunk.float(), parts, k) for chunk in torch.split(queries.detach(), NUM_QUERIES)]
    indices, scores = zip(*chunks, strict=True)
    return Neighbours(torch.cat(indices), torch.cat(scores))


def _nearest_of_chunk(queries: Tensor, parts: Sequence[Tensor], k: int) -> tuple[Tensor, Tensor]:
    """Read all vectors once and keep the best ``k`` of each query."""
    best_scores = queries.new_full((len(queries), k), -torch.inf)
    best_indices = torch.full((len(queries), k), -1, device=queries.device)
    for start, scores in _scored_blocks(queries, parts):
        best_indices, best_scores = _merge(best_indices, best_scores, scores, start)
    return best_indices, best_scores


def _scored_blocks(queries: Tensor, parts: Sequence[Tensor]) -> Iterator[tuple[int, Tensor]]:
    """Read all vectors once; yield the number of a block's first row, and its scores (Q, rows)."""
    num_rows = max(1, BLOCK_ELEMENTS // max(1, queries.shape[1]))
    buffer = queries.new_empty(min(num_rows, max(map(len, parts))), queries.shape[1])
    start = 0
    for rows in (block for part in parts for block in torch.split(part.detach(), num_rows)):
        scores = queries @ buffer[: len(rows)].copy_(rows).T
        if not scores.sum().isfinite():
            last = start + len(rows) - 1
            raise ValueError(
                f"the queries or the vectors {start} to {last} contain NaN or infinity; compute them again"
            )
        yield start, scores
        start += len(rows)


def best_scores(queries: Tensor, parts: Sequence[Tensor]) -> Tensor:
    """Return for each vector the largest inner product with any of the queries: float32, shape (N,).

    Args:
        queries: floating point, shape (Q, D), Q at least 1; the search runs on their device.
        parts: floating point, shapes (n, D), whose rows are numbered consecutively; may be memory-mapped.

    Raises:
        ValueError: a score is not finite.
    """
    best = queries.new_full((sum(map(len, parts)),), -torch.inf, dtype=torch.float32)
    for chunk in torch.split(queries.detach().float(), NUM_QUERIES):
        for start, scores in _scored_blocks(chunk, parts):
            rows = best[start : start + scores.shape[1]]
            torch.maximum(rows, scores.amax(dim=0), out=rows)
    return best


def zero_rows(parts: Sequence[Tensor]) -> Tensor:
    """Return the rows that are zero, such as those of black clips: int64 (M,), ascending, numbered across parts."""
    found, start = [], 0
    for part in parts:
        rows = (~part[:, :16].any(dim=1)).nonzero()[:, 0]  # the first numbers exclude nearly all rows
        found.append(rows[~part[rows].any(dim=1)] + start)
        start += len(part)
    return torch.cat(found)


def standardise(scores: Tensor, among: Tensor) -> Tensor:
    """Standard scores: how many standard deviations scores lie above the mean of a query's scores in a collection.

    The vectors of one network share most of their direction, so that cosines crowd below 1 and their distance from each
    other depends on the network. A standard score does not: 0 is an average row, whatever the network. It grows with
    the cosine, so that the order stays, and needs no second matrix, as centred vectors would. `v3s search` and
    `v3s retrieve` show it beside the cosine.

    Args:
        scores: cosines with one query, float, any shape.
        among: its cosines with all rows of the collection, or with a sample of them, float, shape (N,).

    Returns:
        Float32, of the shape of ``scores``; 0 where the rows do not differ.
    """
    values = among.double()
    deviation, mean = values.std(unbiased=False), values.mean()
    if deviation < 1e-7:  # rounding of float32
        return torch.zeros_like(scores, dtype=torch.float32)
    return ((scores.double() - mean) / deviation).float()


def _merge(indices: Tensor, best: Tensor, scores: Tensor, start: int) -> tuple[Tensor, Tensor]:
    """Merge the scores of a block, whose first row has the number ``start``, into the best scores of earlier rows.

    Only scores above the worst kept one can enter: in a tie the kept row has the lower number. The number of candidates
    is that of the query with the most such scores, so ``topk`` returns all of them for every query; which of several
    equal scores it returns in addition has no effect. Sorting by number before a stable sort by score orders ties.
    """
    num_candidates = int((scores > best[:, -1:]).sum(dim=1).max()) if len(scores) else 0
    if num_candidates == 0:
        return indices, best
    columns = scores.topk(num_candidates, dim=1).indices.sort(dim=1).values
    all_scores = torch.cat([best, scores.gather(1, columns)], dim=1)
    all_indices = torch.cat([indices, columns + start], dim=1)
    order = all_scores.sort(dim=1, descending=True, stable=True).indices[:, : best.shape[1]]
    return all_indices.gather(1, order), all_scores.gather(1, order)
