"""``v3s retrieve``: find videos of the same class by their nearest neighbours (paper section 4.4, Tables 4 and 5).

The training videos are the gallery, the test videos the queries, and every one of them counts.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from torch import Tensor

from v3s.features.encoder import Encoder, open_encoder
from v3s.features.extract import Feature, Pool
from v3s.features.source import BackboneOptions
from v3s.files.text import text_table
from v3s.files.writing import write_json
from v3s.options import require_files, require_positive
from v3s.pages.images import jpeg_uri, outline, small_frames
from v3s.pages.page import page, paragraph, section, strip, table, write_page
from v3s.protocols.labelled import UNKNOWN, LabelledOptions, Parts, labelled_vectors
from v3s.protocols.ranking import PAPER_KS, mean_average_precision, rank, top_k_accuracy
from v3s.vectors.exact import Neighbours
from v3s.video.decode import Video
from v3s.video.homography import corners

_HEADER = ("score", "retrieved", "chance")
_NUM_SHOWN = 5  # neighbours of a query on the page
_PICTURE_WIDTH, _BORDER = 240, 6  # in pixels
_RIGHT, _WRONG = (0, 158, 115), (213, 94, 0)  # Okabe and Ito's green and orange, for colour-blind readers


@dataclass(frozen=True, kw_only=True)
class RetrieveConfig(BackboneOptions, LabelledOptions):
    """Retrieve videos of the same class by nearest neighbours (paper section 4.4, Tables 4 and 5).

    Attributes:
        out: JSON file for the result.
        page: HTML page with queries and their neighbours as thumbnails.

    More options:
        stage: The backbone's stage that the vectors come from.
        pool: mean averages the stage over time and space; max is the paper's last pooling layer (9,216 numbers).
        page_queries: Queries shown on the page.

    For ablations:
        centre: Subtract the mean vector of the gallery first.
    """

    stage: str = "conv5"
    pool: Pool = "max"
    centre: bool = False
    out: str | None = None
    page: str | None = None
    page_queries: int = 12

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "page_queries")
        require_files(self, "out", "page")


@dataclass(frozen=True, slots=True)
class RetrievalResult:
    """How often the neighbours of a query are of its class.

    Attributes:
        num_gallery: videos that were searched.
        num_queries: videos that were searched for; all of them count.
        num_unknown: queries whose class the gallery does not have: they cannot be right.
        dimension: numbers in a vector.
        accuracy: k -> share of the queries with at least one of the first k neighbours right, in [0, 1].
        chance: k -> what random neighbours reach.
        mean_average_precision: over all queries, of the whole gallery ranked, in [0, 1].
        chance_precision: the mean average precision of a random ranking.
    """

    num_gallery: int
    num_queries: int
    num_unknown: int
    dimension: int
    accuracy: dict[int, float]
    chance: dict[int, float]
    mean_average_precision: float
    chance_precision: float


def retrieve(config: RetrieveConfig, *, console: Console | None = None) -> RetrievalResult:
    """Rank the training videos for each test video by the cosine of their mean features.

    Args:
        config: which network, which videos, which feature.
        console: where to report; the terminal by default.

    Raises:
        ValueError: there is no such backbone or stage, a part of the videos is empty or has no labels, or the network
            gives NaN or infinity.

    Source: paper section 4.4.
    """
    console = console or Console()
    encoder = open_encoder(config, [Feature(config.stage, config.pool)])
    parts, gallery, queries = labelled_vectors(config, encoder, workers=config.workers, console=console)
    ranked = rank(queries, gallery, len(gallery), centre=config.centre)
    result = score(parts.test_labels, parts.train_labels, ranked.indices, dimension=gallery.shape[1])
    title = f"{result.num_queries:,} queries in a gallery of {result.num_gallery:,} videos"
    console.print(text_table(title, _HEADER, _rows(result)))
    if config.out is not None:
        write_json(Path(config.out), _description(config, encoder, parts, result))
    if config.page is not None:
        write_page(config.page, _page(config, parts, ranked, result))
    return result


def score(query_labels: Tensor, gallery_labels: Tensor, ranked: Tensor, *, dimension: int) -> RetrievalResult:
    """Score a ranking beside chance.

    Args:
        query_labels: class of each query, int64, shape (Q,); -1 where the gallery lacks the class.
        gallery_labels: class of each gallery video, int64, shape (G,).
        ranked: the whole gallery for each query, best first, int64, shape (Q, G).
        dimension: numbers in a vector, for the record.
    """
    same = (query_labels[:, None] == gallery_labels).sum(dim=1).tolist()
    size = len(gallery_labels)
    return RetrievalResult(
        num_gallery=size,
        num_queries=len(query_labels),
        num_unknown=same.count(0),
        dimension=dimension,
        accuracy=top_k_accuracy(query_labels, gallery_labels, ranked),
        chance={k: chance_accuracy(same, size, k) for k in PAPER_KS},
        mean_average_precision=mean_average_precision(query_labels, gallery_labels, ranked),
        chance_precision=chance_precision(same, size),
    )


def chance_accuracy(same: Sequence[int], size: int, k: int) -> float:
    """The top-k accuracy of neighbours drawn at random without replacement: 1 - C(G - n, k) / C(G, k), exact.

    Args:
        same: for each query, how many gallery videos are of its class (n).
        size: videos in the gallery (G).
        k: neighbours that count; all where k is above G.
    """
    drawn = min(k, size)
    missed = {number: comb(size - number, drawn) / comb(size, drawn) for number in set(same)}
    return 1 - float(np.mean([missed[number] for number in same]))


def chance_precision(same: Sequence[int], size: int) -> float:
    """The mean average precision that a random order of the gallery is expected to have, exact.

    A hit at rank r has r - 1 others before it, of which (r - 1) (n - 1) / (G - 1) are hits; summed over the ranks.

    Args:
        same: for each query, how many gallery videos are of its class (n); 0 counts as 0.
        size: videos in the gallery (G).
    """
    harmonic = float((1 / np.arange(1, size + 1)).sum())
    rest = (size - harmonic) / max(1, size - 1)
    return float(np.mean([(harmonic + (number - 1) * rest) / size if number else 0.0 for number in same]))


def _rows(result: RetrievalResult) -> list[tuple[str, str, str]]:
    rows = [
        (f"top {k}{' (all there are)' if k >= result.num_gallery else ''}", f"{share:.1%}", f"{result.chance[k]:.1%}")
        for k, share in result.accuracy.items()
    ]
    precision = f"{result.mean_average_precision:.1%}", f"{result.chance_precision:.1%}"
    return [*rows, ("mean average precision", *precision)]


def _description(config: RetrieveConfig, encoder: Encoder, parts: Parts, result: RetrievalResult) -> dict[str, Any]:
    return {
        "backbone": config.backbone,
        "fingerprint": encoder.source.fingerprint,
        "seed": config.seed,
        "view": asdict(encoder.view),
        "stage": config.stage,
        "pool": config.pool,
        "centre": config.centre,
        "gallery": parts.train_source,
        "queries": parts.test_source,
        "left_out": parts.left_out,
        **asdict(result),
    }


def _page(config: RetrieveConfig, parts: Parts, ranked: Neighbours, result: RetrievalResult) -> str:
    """Scores, then some queries with their first neighbours."""
    count = min(config.page_queries, result.num_queries)
    chosen = np.random.default_rng(config.seed).choice(result.num_queries, count, replace=False)
    lead = (
        f"Network: {config.backbone}. Gallery: {parts.train_source}. Queries: {parts.test_source}. "
        f"{count} queries drawn at random (seed {config.seed}). A neighbour of the query's class has a green border "
        "and a ✓, any other an orange border and a ✗."
    )
    scores = section("Scores", table(_HEADER, _rows(result)))
    return page(
        "Nearest videos", [scores, *(_show_query(parts, ranked, int(query)) for query in sorted(chosen))], lead=lead
    )


def _show_query(parts: Parts, ranked: Neighbours, query: int) -> str:
    label = int(parts.test_labels[query])
    name = "a class that the gallery lacks" if label == UNKNOWN else parts.classes[label]
    columns = [(f"query: {name}", _picture(parts.test_table[query]))]
    nearest = ranked.indices[query, :_NUM_SHOWN].tolist()
    labels = parts.train_labels[nearest].tolist()
    for row, found, cosine in zip(nearest, labels, ranked.scores[query].tolist(), strict=False):
        right = found == label
        caption = (
            f"{'✓' if right else '✗'} {parts.classes[found]}, cosine {cosine:.3f}; {Path(parts.train_paths[row]).name}"
        )
        columns.append((caption, _picture(parts.train_table[row], _RIGHT if right else _WRONG)))
    text = f"{parts.test_paths[query]}: {labels.count(label)} of the first {len(nearest)} are of its class."
    return section(name, paragraph(text), strip(columns))


def _picture(video: Video, colour: tuple[int, int, int] | None = None) -> str:
    """The frame in the middle of a video as a data URI, with a border if a colour is given."""
    (picture,) = small_frames(video, [video.num_frames // 2], _PICTURE_WIDTH)
    if colour is None:
        return jpeg_uri(picture)
    height, width, _ = picture.shape
    return jpeg_uri(outline(picture, corners(width, height), colour=colour, thickness=2 * _BORDER))
