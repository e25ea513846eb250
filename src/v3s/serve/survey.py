"""What is worth knowing of a whole collection: its map, its clusters, its duplicates; each is computed once."""

import threading
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from v3s.explore.clusters import clusters_of, typical_members
from v3s.explore.duplicates import Duplicate, duplicates_among
from v3s.explore.matrix import centred
from v3s.explore.outliers import outlier_scores
from v3s.explore.projection import map_of
from v3s.explore.spans import SpanTable, matrix_of
from v3s.explore.to_label import choose_to_label
from v3s.files.reading import checked
from v3s.serve.catalogue import Catalogue

NUM_TO_LABEL = 50
_NUM_SHOWN = 4  # spans of a cluster


class Survey:
    """The survey of a collection: each finding is computed when it is first asked for, one at a time."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self._lock = threading.Lock()
        self._found: dict[str, Any] = {}

    def points(self, method: str) -> NDArray[np.float32]:
        """The map: similar spans lie near each other, float32 (N, 2) in [0, 1].

        Raises:
            ValueError: there is no such method, or openTSNE is not installed.
        """
        known = checked(Literal["pca", "tsne"], method, "the map")
        found: NDArray[np.float32] = self._once(f"map:{known}", lambda: map_of(self._matrix, method=known))
        return found

    def clusters(self) -> NDArray[np.int64]:
        """The cluster of each span, from 0, the largest first, int64 (N,)."""
        found: NDArray[np.int64] = self._once("clusters", lambda: clusters_of(self._matrix))
        return found

    def typical(self) -> list[dict[str, Any]]:
        """Of each cluster its number, its size, and the spans that are nearest to its mean."""
        clusters = self.clusters()

        def find() -> list[dict[str, Any]]:
            sizes, members = np.bincount(clusters), typical_members(self._matrix, clusters, _NUM_SHOWN)
            return [
                {"cluster": number, "size": int(size), "rows": rows.tolist()}
                for number, (size, rows) in enumerate(zip(sizes, members, strict=True))
            ]

        found: list[dict[str, Any]] = self._once("typical", find)
        return found

    def duplicates(self) -> tuple[Duplicate, ...]:
        """Stretches of different files with nearly the same vectors, the longest first."""
        catalogue = self.catalogue
        places = catalogue.file_of, catalogue.starts, catalogue.ends
        table = SpanTable(catalogue.paths, *places, catalogue.has_whole_files)
        found: tuple[Duplicate, ...] = self._once("duplicates", lambda: duplicates_among(centred(self._matrix), table))
        return found

    def outliers(self) -> NDArray[np.float32]:
        """How far each span is from others, float32 (N,)."""
        found: NDArray[np.float32] = self._once("outliers", lambda: outlier_scores(self._matrix))
        return found

    def to_label(self, labelled: NDArray[np.int64]) -> NDArray[np.float32]:
        """Which spans to label next: the larger the earlier, -inf for those that need not be, float32 (N,)."""
        number = min(NUM_TO_LABEL, len(self.catalogue) - len(labelled))
        scores = np.full(len(self.catalogue), -np.inf, np.float32)
        if number > 0:
            with self._lock:
                rows = choose_to_label(self._matrix, number, labelled=labelled)
            scores[rows] = -np.arange(len(rows))
        return scores

    @property
    def _matrix(self) -> Any:
        return matrix_of(self.catalogue.vectors)

    def _once(self, name: str, find: Callable[[], Any]) -> Any:
        with self._lock:
            if name not in self._found:
                self._found[name] = find()
            return self._found[name]
