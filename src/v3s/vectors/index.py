"""``v3s index``: build an approximate index (FAISS) over stored vectors, and measure its recall.

Up to a million vectors are indexed as a graph (HNSW) in half precision; larger collections are grouped into lists and
compressed (PCA, IVF and product quantisation). In both cases the index only proposes candidates, which are ranked by
exact cosine.
"""

import math
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from v3s.files.text import progress_bar, say
from v3s.files.writing import json_as_bytes, write_set
from v3s.options import CheckedOptions, require_positive, require_seed
from v3s.vectors.collection import Vectors, open_vectors
from v3s.vectors.nearest.approximate import INDEX_FILE, MEASURED_FILE, ApproximateIndex, import_faiss
from v3s.vectors.nearest.exact import Neighbours

MAX_GRAPH_VECTORS = 1_000_000  # a larger graph would not fit into typical memory
_ROWS_AT_ONCE = 16_384
_TRAINING_ROWS_PER_LIST = 64
_TOLERANCE = 1e-6  # closer cosines count as equal: finding a copy instead of its original is not a miss


@dataclass(frozen=True, kw_only=True)
class IndexConfig(CheckedOptions):
    """Build an approximate index (FAISS) over vectors, for more than a million clips, and measure its recall.

    Attributes:
        vectors: Folder of the vectors that v3s embed wrote.

    More options:
        recall_queries: Number of vectors to measure the recall with.
        k: Number of neighbours to measure the recall at.
        seed: Seed for choosing these vectors.
    """

    vectors: Annotated[str, "VECTORS", "--in"]
    recall_queries: int = 200
    k: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "recall_queries", "k")
        require_seed(self)


@dataclass(frozen=True, slots=True)
class IndexReport:
    """The properties and the recall of an index.

    Attributes:
        kind: FAISS's description of the index, e.g. ``HNSW32,SQfp16``.
        num_vectors: number of vectors in the index.
        k: neighbours that the recall was measured at.
        num_queries: stored vectors used as queries; each is excluded from its own results.
        recall: share of the exact neighbours that the index finds, in [0, 1].
        build_seconds: time to build the index.
        search_ms: time per query, in milliseconds.
        exact_ms: time per query by exact search, with all queries at once.
    """

    kind: str
    num_vectors: int
    k: int
    num_queries: int
    recall: float
    build_seconds: float
    search_ms: float
    exact_ms: float


def index(config: IndexConfig, *, console: Console | None = None) -> IndexReport:
    """Build an index over a folder of vectors, and measure its recall against exact search.

    Args:
        config: which vectors, how to measure the recall.
        console: where to report; the terminal by default.

    Raises:
        ValueError: FAISS is not installed, or there are fewer than two vectors.
    """
    console = console or Console()
    faiss = import_faiss()
    vectors = open_vectors(config.vectors)
    if len(vectors) < 2:
        raise ValueError(f"{config.vectors}: contains only one vector; an index needs at least two")
    kind = choose_kind(len(vectors), vectors.description.dimension)
    began = time.perf_counter()
    faiss_index = _build(faiss, kind, vectors, np.random.default_rng(config.seed), console)
    seconds = time.perf_counter() - began
    report = measure_recall(ApproximateIndex(vectors, faiss_index), kind, seconds, config)
    stamp = {"fingerprint": vectors.description.space.fingerprint, "stamp": vectors.description.stamp}
    measured = {**stamp, **{name: getattr(report, name) for name in report.__slots__}}
    index_file, measured_file = vectors.folder / INDEX_FILE, vectors.folder / MEASURED_FILE
    write_set(
        {
            index_file: partial(_write_index, faiss, faiss_index),
            measured_file: lambda path: path.write_bytes(json_as_bytes(measured)),
        },
        before=partial(measured_file.unlink, missing_ok=True),  # it must never describe another index
    )
    say(
        console,
        f"{report.kind} over {report.num_vectors:,} vectors, built in {report.build_seconds:.1f} s; recall@{report.k} "
        f"{report.recall:.1%} ({report.num_queries:,} queries); {report.search_ms:.2f} ms per query, exact search "
        f"{report.exact_ms:.2f} ms",
    )
    return report


def _write_index(faiss: Any, index: Any, path: Path) -> None:
    try:
        faiss.write_index(index, str(path))
    except RuntimeError as error:
        raise OSError(f"FAISS: {str(error).splitlines()[-1].rpartition(' failed: ')[2]}") from error


def choose_kind(num_vectors: int, dimension: int) -> str:
    """Return FAISS's description of the index to use for a number of vectors.

    "np" skips the training of polysemous codes, which takes minutes and is not needed for this search.

    >>> choose_kind(50_000, 512)
    'HNSW32,SQfp16'
    """
    if num_vectors <= MAX_GRAPH_VECTORS:
        return "HNSW32,SQfp16"
    reduced = min(dimension, 256)
    num_codes = math.gcd(reduced, 64)  # bytes per compressed vector
    return f"PCAR{reduced},IVF{_num_lists(num_vectors)},PQ{num_codes}np"


def _num_lists(num_vectors: int) -> int:
    return 1 << round(math.log2(4 * math.sqrt(num_vectors)))


def measure_recall(index: ApproximateIndex, kind: str, build_seconds: float, config: IndexConfig) -> IndexReport:
    """Compare both searches on stored vectors as queries; a query's own vector is excluded from both results."""
    vectors = index.vectors
    k = min(config.k, len(vectors) - 1)
    generator = np.random.default_rng(config.seed)
    rows = generator.choice(len(vectors), min(config.recall_queries, len(vectors)), replace=False)
    chosen = torch.from_numpy(np.sort(rows))
    queries = vectors.take(chosen)
    began = time.perf_counter()
    exact = vectors.nearest(queries, k + 1)
    between = time.perf_counter()
    approximate = index.nearest(queries, k + 1)
    ended = time.perf_counter()
    worst = _scores_of_others(exact, chosen, k)[:, -1:]
    hits = _scores_of_others(approximate, chosen, k) >= worst - _TOLERANCE
    ms_per_query = 1000 / len(chosen)
    return IndexReport(
        kind,
        len(vectors),
        k,
        len(chosen),
        float(hits.float().mean()),
        build_seconds,
        (ended - between) * ms_per_query,
        (between - began) * ms_per_query,
    )


def _scores_of_others(neighbours: Neighbours, own: Tensor, k: int) -> Tensor:
    """Return the ``k`` best scores without the query's own row, (Q, k)."""
    scores = neighbours.scores.masked_fill(neighbours.indices == own[:, None], -torch.inf)
    return scores.sort(dim=1, descending=True).values[:, :k]


def _build(faiss: Any, kind: str, vectors: Vectors, generator: np.random.Generator, console: Console) -> Any:
    # L2 distances between unit vectors rank like cosines; PCA moves the origin, which does not change this order.
    index = faiss.index_factory(vectors.description.dimension, kind, faiss.METRIC_L2)
    if not index.is_trained:
        num_rows = min(len(vectors), _TRAINING_ROWS_PER_LIST * _num_lists(len(vectors)))
        rows = np.sort(generator.choice(len(vectors), num_rows, replace=False))
        index.train(vectors.take(torch.from_numpy(rows)).numpy())
    with progress_bar(console) as progress:
        for start in progress.track(range(0, len(vectors), _ROWS_AT_ONCE), description="indexing"):
            index.add(vectors.take(torch.arange(start, min(start + _ROWS_AT_ONCE, len(vectors)))).numpy())
    return index
