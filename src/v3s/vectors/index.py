"""``v3s index``: an approximate index (FAISS) over stored vectors, and how much of the exact answer it finds.

Up to a million vectors a graph (HNSW) keeps them in half precision; beyond, they are grouped into lists and compressed
(PCA, IVF and product quantisation). In both cases the index only names candidates: they are ranked by exact cosine.
"""

import math
import time
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from v3s.files.text import say
from v3s.files.writing import write_atomically, write_json
from v3s.options import require_positive
from v3s.vectors.approximate import INDEX_FILE, MEASURED_FILE, ApproximateIndex, import_faiss
from v3s.vectors.collection import Vectors, open_vectors
from v3s.vectors.exact import Neighbours

LARGEST_GRAPH = 1_000_000  # vectors; beyond, a graph would not fit into a usual memory
_ROWS_AT_ONCE = 16_384
_TRAINING_ROWS_PER_LIST = 64
_EQUAL = 1e-6  # cosines closer than that are the same: a copy found instead of its original is not a miss


@dataclass(frozen=True, kw_only=True)
class IndexConfig:
    """Build an approximate index (FAISS) over vectors, for more than a million clips, and measure its recall.

    Attributes:
        vectors: Folder of the vectors that v3s embed wrote.

    More options:
        recall_queries: Vectors that the recall is measured with.
        k: Neighbours that the recall is measured at.
        seed: Seed of the choice of these vectors.
    """

    vectors: Annotated[str, "VECTORS", "--in"]
    recall_queries: int = 200
    k: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        require_positive(self, "recall_queries", "k")


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What building an index gave.

    Attributes:
        kind: FAISS's name of it, e.g. ``HNSW32,SQfp16``.
        num_vectors: how many vectors it holds.
        k: neighbours that the recall was measured at.
        num_queries: stored vectors that it was measured with; each was held out of its own answers.
        recall: share of the exact neighbours that the index finds, in [0, 1].
        build_seconds: time to build it.
        search_ms: time of one query, in milliseconds.
        exact_ms: time of one query by exact search, all queries at once.
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
        config: which vectors, how the recall is measured.
        console: where to report; the terminal by default.

    Raises:
        ValueError: FAISS is not installed, or there are no vectors.
    """
    console = console or Console()
    faiss = import_faiss()
    vectors = open_vectors(config.vectors)
    if len(vectors) < 2:
        raise ValueError(f"{config.vectors}: holds one vector; an index needs two or more")
    kind = choose_kind(len(vectors), vectors.description.dimension)
    began = time.perf_counter()
    built = _build(faiss, kind, vectors, np.random.default_rng(config.seed), console)
    seconds = time.perf_counter() - began
    report = measure_recall(ApproximateIndex(vectors, built), kind, seconds, config)
    (vectors.folder / MEASURED_FILE).unlink(missing_ok=True)  # an old one never describes a new index
    write_atomically(vectors.folder / INDEX_FILE, lambda beside: faiss.write_index(built, str(beside)))
    stamp = {"fingerprint": vectors.description.space.fingerprint, "stamp": vectors.description.stamp}
    write_json(vectors.folder / MEASURED_FILE, {**stamp, **{name: getattr(report, name) for name in report.__slots__}})
    say(
        console,
        f"{report.kind} over {report.num_vectors:,} vectors in {report.build_seconds:.1f} s; finds {report.recall:.1%} "
        f"of the {report.k} exact neighbours ({report.num_queries:,} queries); {report.search_ms:.2f} ms a query, "
        f"exact {report.exact_ms:.2f} ms",
    )
    return report


def choose_kind(num_vectors: int, dimension: int) -> str:
    """FAISS's description of the index that suits a number of vectors.

    "np" skips the training of polysemous codes, which takes minutes and which this search does not use.

    >>> choose_kind(50_000, 512)
    'HNSW32,SQfp16'
    """
    if num_vectors <= LARGEST_GRAPH:
        return "HNSW32,SQfp16"
    reduced = min(dimension, 256)
    num_codes = math.gcd(reduced, 64)  # bytes of a compressed vector
    return f"PCAR{reduced},IVF{_num_lists(num_vectors)},PQ{num_codes}np"


def _num_lists(num_vectors: int) -> int:
    return 1 << round(math.log2(4 * math.sqrt(num_vectors)))


def measure_recall(index: ApproximateIndex, kind: str, build_seconds: float, config: IndexConfig) -> IndexReport:
    """Ask both searches for the neighbours of stored vectors, the vector itself is skipped in both answers."""
    vectors = index.vectors
    k = min(config.k, len(vectors) - 1)
    generator = np.random.default_rng(config.seed)
    rows = generator.choice(len(vectors), min(config.recall_queries, len(vectors)), replace=False)
    chosen = torch.from_numpy(np.sort(rows))
    queries = vectors.take(chosen)
    began = time.perf_counter()
    exact = vectors.nearest(queries, k + 1)
    between = time.perf_counter()
    found = index.nearest(queries, k + 1)
    ended = time.perf_counter()
    worst = _others(exact, chosen, k)[:, -1:]
    hits = _others(found, chosen, k) >= worst - _EQUAL
    each = 1000 / len(chosen)
    return IndexReport(
        kind,
        len(vectors),
        k,
        len(chosen),
        float(hits.float().mean()),
        build_seconds,
        (ended - between) * each,
        (between - began) * each,
    )


def _others(found: Neighbours, own: Tensor, k: int) -> Tensor:
    """The ``k`` best scores of other rows than the query's own, (Q, k)."""
    scores = found.scores.masked_fill(found.indices == own[:, None], -torch.inf)
    return scores.sort(dim=1, descending=True).values[:, :k]


def _build(faiss: Any, kind: str, vectors: Vectors, generator: np.random.Generator, console: Console) -> Any:
    # Between unit vectors the order is that of cosines, and PCA, which moves the origin, does not change it.
    index = faiss.index_factory(vectors.description.dimension, kind, faiss.METRIC_L2)
    if not index.is_trained:
        wanted = min(len(vectors), _TRAINING_ROWS_PER_LIST * _num_lists(len(vectors)))
        rows = np.sort(generator.choice(len(vectors), wanted, replace=False))
        index.train(vectors.take(torch.from_numpy(rows)).numpy())
    for start in track(range(0, len(vectors), _ROWS_AT_ONCE), "indexing", console=console, transient=True):
        index.add(vectors.take(torch.arange(start, min(start + _ROWS_AT_ONCE, len(vectors)))).numpy())
    return index
