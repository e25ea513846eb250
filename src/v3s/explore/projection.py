"""The map of a collection: two coordinates for every vector, by principal components or by t-SNE."""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from v3s.explore.matrix import Centred, Matrix, centred
from v3s.options import import_extra

MOST_FOR_TSNE = 50_000
"""Vectors that t-SNE takes: more than that need the better part of an hour."""

_TSNE_DIMENSIONS = 50  # principal components that t-SNE starts from, as usual
_PERPLEXITY = 30.0
_LEAST_RANGE = 1e-6  # below it, all points are the same up to rounding


def map_of(vectors: Matrix, *, method: Literal["pca", "tsne"] = "pca", seed: int = 0) -> NDArray[np.float32]:
    """Place vectors on a map, similar ones near each other.

    Args:
        vectors: shape (N, D), unit length.
        method: ``pca`` shows the two directions in which the collection differs most: at once, and distances mean
            something everywhere. ``tsne`` shows neighbourhoods, and nothing else (extra ``explore``).
        seed: of t-SNE.

    Returns:
        Coordinates (x, y) in [0, 1], with one scale for both axes, float32, shape (N, 2).

    Raises:
        ValueError: the vectors are not finite, or for t-SNE too many; or openTSNE is not installed.
    """
    shifted = centred(vectors)
    if method == "pca" or len(vectors) < 4:
        return _to_square(project(shifted, 2))
    if len(vectors) > MOST_FOR_TSNE:
        raise ValueError(f"t-SNE takes {MOST_FOR_TSNE:,} vectors at most, got {len(vectors):,}; choose the map pca")
    points = project(shifted, _TSNE_DIMENSIONS).astype(np.float64)
    library = import_extra("openTSNE", "explore", "a map by t-SNE")
    perplexity = min(_PERPLEXITY, (len(vectors) - 1) / 3)
    first = points[:, :2] / max(points[:, 0].std(), _LEAST_RANGE) * 1e-4
    tsne = library.TSNE(perplexity=perplexity, initialization=first, random_state=seed, neighbors="exact")
    return _to_square(np.asarray(tsne.fit(points), np.float32))


def project(vectors: Centred, dimensions: int) -> NDArray[np.float32]:
    """The first principal components of vectors: float32, shape (N, dimensions); 0 where there are fewer.

    Each component's sign is such that its largest weight is positive.
    """
    covariance = torch.zeros(len(vectors.mean), len(vectors.mean), dtype=torch.float64)
    for _, block in vectors.blocks():
        covariance += (block.T @ block).double()
    axes = torch.linalg.eigh(covariance).eigenvectors.flip(1)[:, :dimensions]
    axes = (axes * axes.gather(0, axes.abs().argmax(dim=0, keepdim=True)).sign()).float()
    projected = np.zeros((len(vectors), dimensions), np.float32)
    for rows, block in vectors.blocks():
        projected[rows, : axes.shape[1]] = (block @ axes).numpy()
    return projected


def _to_square(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Shift and scale points into the unit square, both axes alike."""
    low, high = points.min(axis=0).astype(np.float64), points.max(axis=0).astype(np.float64)
    size = float((high - low).max())
    if size < _LEAST_RANGE:
        return np.full(points.shape, 0.5, np.float32)
    square: NDArray[np.float32] = np.clip((points - (low + high) / 2) / size + 0.5, 0, 1).astype(np.float32)
    return square
