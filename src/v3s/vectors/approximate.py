"""Approximate search in stored vectors: an index (FAISS) names candidates, which are ranked by exact cosine."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from v3s.files.writing import read_json
from v3s.vectors.collection import Vectors, VectorsError
from v3s.vectors.exact import Neighbours

INDEX_FILE, MEASURED_FILE = "index.faiss", "index.json"
_CANDIDATES_PER_NEIGHBOUR, _FEWEST_CANDIDATES = 4, 100
_LISTS_VISITED = 32


@dataclass(frozen=True, slots=True, eq=False)
class ApproximateIndex:
    """An index over stored vectors, and these vectors."""

    vectors: Vectors
    index: Any

    def nearest(self, queries: Tensor, k: int) -> Neighbours:
        """The best ``k`` rows of those that the index names, by exact cosine.

        Args:
            queries: float32, shape (Q, D), unit length.
            k: rows wanted. Where the index names fewer, the last ones are -1 with a score of -inf.
        """
        wanted = min(max(_CANDIDATES_PER_NEIGHBOUR * k, _FEWEST_CANDIDATES), len(self.vectors))
        _widen(self.index, wanted)
        _, rows = self.index.search(queries.numpy(), wanted)
        return self.vectors.best_of(queries, torch.from_numpy(rows), k)


def open_index(vectors: Vectors) -> ApproximateIndex:
    """Open the index of a folder of vectors.

    Raises:
        VectorsError: there is none, it is damaged, or of other vectors.
        ValueError: FAISS is not installed.
    """
    faiss = import_faiss()
    path, measured = vectors.folder / INDEX_FILE, vectors.folder / MEASURED_FILE
    if not (path.is_file() and measured.is_file()):
        raise VectorsError(f"{path}: no index there; v3s index --vectors {vectors.folder} builds it")
    if read_json(measured).get("stamp") != vectors.description.stamp:
        raise VectorsError(f"{path}: index of other vectors; build it again: v3s index --vectors {vectors.folder}")
    try:
        index = faiss.read_index(str(path))
    except RuntimeError as error:
        raise VectorsError(f"{path}: damaged index ({error}); build it again with v3s index") from error
    if (index.ntotal, index.d) != (len(vectors), vectors.description.dimension):
        raise VectorsError(
            f"{path}: holds {index.ntotal:,} vectors of {index.d}, the folder {len(vectors):,} of "
            f"{vectors.description.dimension}; build it again with v3s index"
        )
    return ApproximateIndex(vectors, index)


def _widen(index: Any, num_candidates: int) -> None:
    """Let a search look at enough of the index to find this number of candidates."""
    if hasattr(index, "hnsw"):
        index.hnsw.efSearch = num_candidates
    else:
        import_faiss().extract_index_ivf(index).nprobe = _LISTS_VISITED


def import_faiss() -> Any:
    """FAISS, an optional package.

    Raises:
        ValueError: it is not installed.
    """
    try:
        return import_module("faiss")
    except ImportError as error:
        raise ValueError(
            f"an approximate index needs FAISS, which is not installed ({error}): pip install 'v3s[ann]'"
        ) from error
