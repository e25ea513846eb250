"""``v3s retrieve``: find videos of the same class by nearest neighbours (paper section 4.4, Tables 4 and 5).

The training videos are the gallery, the test videos the queries; every query counts.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor
from torch.nn import functional as F

from v3s.features.encoder import LAST, Feature, Pool
from v3s.files.text import counted, print_table, share_text, short_repr, text_table
from v3s.files.writing import write_json
from v3s.options import require_files, require_positive
from v3s.pages.images import jpeg_uri, outline, small_frames
from v3s.pages.templates import render, write_page
from v3s.protocols.errors import standard_error
from v3s.protocols.labelled.features import FeatureOptions, LabelledVectors, labelled_vectors
from v3s.protocols.labelled.parts import UNKNOWN, Parts, report_chance
from v3s.vectors.description import read_description
from v3s.vectors.nearest.exact import Neighbours, nearest, standardise
from v3s.video.decode import Video
from v3s.video.homography import corners

_HEADER = ("score", "retrieved", "chance")
_NUM_SHOWN = 5  # neighbours of a query on the page
_PICTURE_WIDTH, _BORDER = 240, 6  # in pixels
_RIGHT, _WRONG = (0, 158, 115), (213, 94, 0)  # Okabe and Ito's colour-blind safe green and orange


@dataclass(frozen=True, kw_only=True)
class RetrieveConfig(FeatureOptions):
    """Retrieve videos of the same class by nearest neighbours (paper section 4.4, Tables 4 and 5).

    Attributes:
        page: HTML page with queries and their neighbours as thumbnails.

    More options:
        stage: Stage of the backbone that the vectors come from; last is the deepest (conv5 of the built-in networks).
        pool: mean averages the stage over time and space; max is the paper's last pooling layer (9,216 numbers).
            Default: max, or that of the vectors of --in.
        page_queries: Number of queries shown on the page.

    For ablations:
        centre: Subtract the mean vector of the gallery from all vectors first.
    """

    stage: str = LAST
    pool: Pool | None = None
    centre: bool = False
    page: str | None = None
    page_queries: int = 12

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "page_queries")
        require_files(self, out=".json", page=".html")


@dataclass(frozen=True, slots=True)
class RetrievalResult:
    """How often a query's neighbours have its class.

    Attributes:
        num_gallery: number of videos in the gallery.
        num_queries: number of queries; all of them count.
        num_unknown: queries whose class is not in the gallery; they count as wrong.
        dimension: length of a vector.
        accuracy: k -> share of the queries with at least one of the first k neighbours of their class, in [0, 1].
        chance: k -> accuracy of random neighbours.
        mean_average_precision: over all queries, with the whole gallery ranked, in [0, 1].
        chance_precision: mean average precision of a random ranking.
        standard_error: standard error of the top-1 accuracy over groups of queries.
        hits: whether each query's first neighbour has its class, (Q,).
    """

    num_gallery: int
    num_queries: int
    num_unknown: int
    dimension: int
    accuracy: dict[int, float]
    chance: dict[int, float]
    mean_average_precision: float
    chance_precision: float
    standard_error: float
    hits: tuple[bool, ...]
    __repr__ = short_repr


def retrieve(config: RetrieveConfig, *, console: Console | None = None) -> RetrievalResult:
    """Rank the training videos for each test video by the cosine similarity of their mean features.

    Args:
        config: which network, which videos, which feature.
        console: where to report; the terminal by default.

    Raises:
        ValueError: the backbone or stage does not exist, a part of the videos is empty or has no labels, or the
            network's output contains NaN or infinity.

    Source: paper section 4.4.
    """
    console = console or Console()
    of_vectors = config.vectors and read_description(Path(config.vectors)).space.feature.pool
    found = labelled_vectors(config, Feature(config.stage, config.pool or of_vectors or "max"), console=console)
    parts, gallery, queries = found.parts, found.train, found.test
    ranked = rank(queries, gallery, len(gallery), centre=config.centre)
    result = score(
        parts.test_labels, parts.train_labels, ranked.indices, groups=parts.test_groups, dimension=gallery.shape[1]
    )
    groups = f" in {counted(parts.num_test_groups, 'group')}" if parts.num_test_groups < result.num_queries else ""
    gallery_text = counted(result.num_gallery, parts.train.noun)
    title = f"{counted(result.num_queries, 'query')}{groups}, and a gallery of {gallery_text}"
    print_table(console, text_table(title, _HEADER, _rows(result)))
    report_chance(parts, "first neighbour", result.accuracy[1], result.chance[1], result.standard_error, console)
    if config.out is not None:
        write_json(Path(config.out), _description(config, found, result))
    if config.page is not None:
        write_page(config.page, _page(config, found, ranked, result))
    return result


def score(
    query_labels: Tensor, gallery_labels: Tensor, ranked: Tensor, *, groups: Tensor, dimension: int
) -> RetrievalResult:
    """Score a ranking and compute the scores of chance.

    Args:
        query_labels: class of each query, int64, shape (Q,); -1 if the class is not in the gallery.
        gallery_labels: class of each gallery video, int64, shape (G,).
        ranked: the whole gallery for each query, best first, int64, shape (Q, G).
        groups: number of each query's group, int64, shape (Q,).
        dimension: length of a vector, for the report.
    """
    same = (query_labels[:, None] == gallery_labels).sum(dim=1).tolist()
    size, hits = len(gallery_labels), gallery_labels[ranked[:, 0]] == query_labels
    return RetrievalResult(
        num_gallery=size,
        num_queries=len(query_labels),
        num_unknown=same.count(0),
        dimension=dimension,
        accuracy=top_k_accuracy(query_labels, gallery_labels, ranked),
        chance={k: chance_accuracy(same, size, k) for k in PAPER_KS},
        mean_average_precision=mean_average_precision(query_labels, gallery_labels, ranked),
        chance_precision=chance_precision(same, size),
        standard_error=standard_error(hits, groups),
        hits=tuple(hits.tolist()),
    )


def chance_accuracy(same: Sequence[int], size: int, k: int) -> float:
    """Return the exact top-k accuracy of neighbours drawn without replacement: 1 - C(G - n, k) / C(G, k).

    Args:
        same: for each query, the number of gallery videos of its class (n).
        size: videos in the gallery (G).
        k: neighbours that count; a k above G means all of them.
    """
    num_drawn = min(k, size)
    miss_rate = {number: comb(size - number, num_drawn) / comb(size, num_drawn) for number in set(same)}
    return 1 - float(np.mean([miss_rate[number] for number in same]))


def chance_precision(same: Sequence[int], size: int) -> float:
    """Return the exact expected mean average precision of a random ranking.

    A hit at rank r is preceded by r - 1 videos, of which (r - 1) (n - 1) / (G - 1) are hits; this is summed over r.

    Args:
        same: for each query, the number of gallery videos of its class (n); n = 0 gives a precision of 0.
        size: videos in the gallery (G).
    """
    harmonic = float((1 / np.arange(1, size + 1)).sum())
    rest = (size - harmonic) / max(1, size - 1)
    return float(np.mean([(harmonic + (number - 1) * rest) / size if number else 0.0 for number in same]))


def _rows(result: RetrievalResult) -> list[tuple[str, str, str]]:
    rows = [
        (f"top {k}{' (whole gallery)' if k >= result.num_gallery else ''}", f"{share:.1%}", f"{result.chance[k]:.1%}")
        for k, share in result.accuracy.items()
    ]
    precision = f"{result.mean_average_precision:.1%}", f"{result.chance_precision:.1%}"
    name, _, chance = rows[0]
    rows[0] = (name, share_text(result.accuracy[1], result.standard_error), chance)
    return [*rows, ("mean average precision", *precision)]


def _description(config: RetrieveConfig, found: LabelledVectors, result: RetrievalResult) -> dict[str, Any]:
    parts = found.parts
    return {
        "backbone": found.backbone,
        "fingerprint": found.space.weights,
        "seed": config.seed,
        "view": asdict(found.space.view),
        "stage": found.space.feature.stage,
        "pool": found.space.feature.pool,
        "centre": config.centre,
        "gallery": parts.train_source,
        "queries": parts.test_source,
        **parts.to_json(),
        **asdict(result),
    }


def _page(config: RetrieveConfig, found: LabelledVectors, ranked: Neighbours, result: RetrievalResult) -> str:
    """Show the scores, then some queries with their first neighbours."""
    count = min(config.page_queries, result.num_queries)
    chosen = np.random.default_rng(config.seed).choice(result.num_queries, count, replace=False)
    queries = [_query(found.parts, ranked, query) for query in sorted(chosen.tolist())]
    return render("retrieve.html", found=found, seed=config.seed, header=_HEADER, rows=_rows(result), queries=queries)


def _query(parts: Parts, ranked: Neighbours, query: int) -> dict[str, Any]:
    """A query and its first neighbours, as (picture, caption)."""
    query_label = int(parts.test_labels[query])
    name = "class not in the gallery" if query_label == UNKNOWN else parts.classes[query_label]
    nearest = ranked.indices[query, :_NUM_SHOWN].tolist()
    labels = parts.train_labels[nearest].tolist()
    cosines = ranked.scores[query, :_NUM_SHOWN]
    standard = standardise(cosines, ranked.scores[query]).tolist()  # the whole gallery is ranked
    neighbours = []
    for row, label, cosine, z in zip(nearest, labels, cosines.tolist(), standard, strict=True):
        right = label == query_label
        caption = (
            f"{'✓' if right else '✗'} {parts.classes[label]}, cosine {cosine:.3f}, z {z:+.2f}; "
            f"{Path(parts.train_paths[row]).name}"
        )
        neighbours.append((_thumbnail(parts.train.video(row), _RIGHT if right else _WRONG), caption))
    return {
        "name": name,
        "path": parts.test_paths[query],
        "picture": (_thumbnail(parts.test.video(query)), f"query: {name}"),
        "neighbours": neighbours,
        "num_right": labels.count(query_label),
    }


def _thumbnail(video: Video, colour: tuple[int, int, int] | None = None) -> str:
    """Return a video's middle frame as a data URI, optionally with a coloured border."""
    (picture,) = small_frames(video, [video.num_frames // 2], _PICTURE_WIDTH)
    if colour is None:
        return jpeg_uri(picture)
    height, width, _ = picture.shape
    return jpeg_uri(outline(picture, corners(width, height), colour=colour, thickness=2 * _BORDER))


PAPER_KS = (1, 5, 10, 20, 50)
"""The columns of the paper's Tables 4 and 5."""


def rank(queries: Tensor, gallery: Tensor, k: int, *, centre: bool = False) -> Neighbours:
    """Rank the gallery by cosine similarity for each query; in a tie the lower gallery row comes first.

    The search is exact. A zero vector has similarity 0 with all vectors.

    Args:
        queries: features, shape (Q, D).
        gallery: features, shape (G, D).
        k: number of neighbours, 1 to G.
        centre: first subtract the gallery's mean from all features, which removes what all videos have in common.

    Raises:
        ValueError: the shapes do not match, ``k`` is out of range, or a feature is not finite.

    Source: paper section 4.4.
    """
    queries, gallery = queries.float(), gallery.float()
    if centre:
        mean = gallery.mean(dim=0)
        queries, gallery = queries - mean, gallery - mean
    return nearest(F.normalize(queries, dim=-1), F.normalize(gallery, dim=-1), k)


def top_k_accuracy(
    query_labels: Tensor, gallery_labels: Tensor, neighbours: Tensor, ks: Sequence[int] = PAPER_KS
) -> dict[int, float]:
    """Return the share of queries with at least one neighbour of their own class among the first k; all queries count.

    Args:
        query_labels: integers, shape (Q,).
        gallery_labels: integers, shape (G,).
        neighbours: gallery rows, best first, int64, shape (Q, K).
        ks: values of k. A k above K is allowed only if the whole gallery is ranked (K = G).

    Returns:
        k -> accuracy in [0, 1].

    Raises:
        ValueError: the shapes do not match, or a k exceeds the number of ranked neighbours.

    Source: paper section 4.4, "a correct retrieval is counted"; Tables 4 and 5.
    """
    hits = _matches(query_labels, gallery_labels, neighbours)
    num_ranked = hits.shape[1]
    if min(ks) < 1 or (max(ks) > num_ranked and num_ranked < len(gallery_labels)):
        raise ValueError(
            f"got ks = {tuple(ks)}; each must be from 1 to {num_ranked}, "
            f"since {num_ranked} of {len(gallery_labels)} gallery rows are ranked"
        )
    return {k: hits[:, :k].any(dim=1).double().mean().item() for k in ks}


def mean_average_precision(query_labels: Tensor, gallery_labels: Tensor, neighbours: Tensor) -> float:
    """Return the mean over all queries of the average precision of the full ranking.

    The average precision of a query is the mean of precision@r over the ranks r of its class; 0 if its class is not in
    the gallery.

    Args:
        query_labels: integers, shape (Q,).
        gallery_labels: integers, shape (G,).
        neighbours: the whole gallery ranked, best first, int64, shape (Q, G).

    Raises:
        ValueError: the shapes do not match, or only a part of the gallery is ranked.
    """
    hits = _matches(query_labels, gallery_labels, neighbours)
    if hits.shape[1] != len(gallery_labels):
        raise ValueError(
            f"{hits.shape[1]} of {len(gallery_labels)} gallery rows are ranked; mean average precision needs all"
        )
    precision = hits.cumsum(dim=1).double() / torch.arange(1, hits.shape[1] + 1, device=hits.device)
    average = (precision * hits).sum(dim=1) / hits.sum(dim=1).clamp(min=1)
    return average.mean().item()


def _matches(query_labels: Tensor, gallery_labels: Tensor, neighbours: Tensor) -> Tensor:
    """Return which neighbours have the query's class: bool, shape (Q, K)."""
    if neighbours.ndim != 2 or len(neighbours) != len(query_labels) or not len(query_labels):
        got = f"{len(query_labels)} query labels and neighbours {tuple(neighbours.shape)}"
        raise ValueError(f"got {got}; expected at least one query, and one row of neighbours per query")
    if int(neighbours.max()) >= len(gallery_labels):
        raise ValueError(
            f"got {len(gallery_labels)} gallery labels and neighbour number {int(neighbours.max())}; "
            "expected one label per gallery row"
        )
    return gallery_labels[neighbours] == query_labels[:, None]
