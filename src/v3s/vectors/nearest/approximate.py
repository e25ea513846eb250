"""Approximate search in stored vectors: an index (FAISS) proposes candidates, which are ranked by exact cosine."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from v3s.files.reading import read_json
from v3s.options import import_extra
from v3s.vectors.collection import Vectors
from v3s.vectors.description import VectorsError
from v3s.vectors.nearest.exact import Neighbours

INDEX_FILE, MEASURED_FILE = "index.faiss", "index.json"
_CANDIDATES_PER_NEIGHBOUR, _MIN_CANDIDATES = 4, 100
_NUM_PROBED_LISTS = 32


@dataclass(frozen=True, slots=True, eq=False)
class ApproximateIndex:
    """Stored vectors and an index over them."""

    vectors: Vectors
    index: Any

    def nearest(self, queries: Tensor, k: int) -> Neighbours:
        """Find the best ``k`` of the index's candidates by exact cosine.

        Args:
            queries: float32, shape (Q, D), unit length.
            k: number of rows to find. If the index proposes fewer, the last ones are -1 with a score of -inf.
        """
        num_candidates = min(max(_CANDIDATES_PER_NEIGHBOUR * k, _MIN_CANDIDATES), len(self.vectors))
        _set_search_depth(self.index, num_candidates)
        _, rows = self.index.search(queries.numpy(), num_candidates)
        return self.vectors.best_of(queries, torch.from_numpy(rows), k)


def open_index(vectors: Vectors) -> ApproximateIndex:
    """Open the index of a folder of vectors.

    Raises:
        VectorsError: the index does not exist, is damaged, or belongs to other vectors.
        ValueError: FAISS is not installed.
    """
    faiss = import_faiss()
    path, measured = vectors.folder / INDEX_FILE, vectors.folder / MEASURED_FILE
    if not (path.is_file() and measured.is_file()):
        raise VectorsError(f"{path}: does not exist; build it with v3s index --vectors {vectors.folder}")
    if read_json(measured).get("stamp") != vectors.description.stamp:
        raise VectorsError(
            f"{path}: belongs to other vectors than the folder; build it again with v3s index "
            f"--vectors {vectors.folder}"
        )
    try:
        index = faiss.read_index(str(path))
    except RuntimeError as error:
        raise VectorsError(f"{path}: damaged index ({error}); build it again with v3s index") from error
    if (index.ntotal, index.d) != (len(vectors), vectors.description.dimension):
        raise VectorsError(
            f"{path}: contains {index.ntotal:,} vectors of length {index.d}, but the folder contains {len(vectors):,} "
            f"of length {vectors.description.dimension}; build it again with v3s index"
        )
    return ApproximateIndex(vectors, index)


def _set_search_depth(index: Any, num_candidates: int) -> None:
    """Make searches explore enough of the index to find this number of candidates."""
    if hasattr(index, "hnsw"):
        index.hnsw.efSearch = num_candidates
    else:
        import_faiss().extract_index_ivf(index).nprobe = _NUM_PROBED_LISTS


def import_faiss() -> Any:
    """Import FAISS, an optional package."""
    return import_extra("faiss", "ann", "an approximate index")
