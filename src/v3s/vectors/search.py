"""``v3s search``: find the videos of a collection that are most similar to a query video."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console
from rich.table import Table
from torch import Tensor

from v3s.backbones.device import ComputeOptions, choose_compute
from v3s.features.encoder import Encoder, make_encoder
from v3s.features.source import open_source
from v3s.files.text import counted, say, text_table
from v3s.files.writing import CheckpointError, write_json
from v3s.options import require_files, require_positive
from v3s.pages.images import data_uri, jpeg_uri, small_frames
from v3s.pages.page import figure, page, section, strip, write_page
from v3s.vectors.approximate import open_index
from v3s.vectors.collection import Vectors, VectorsError, open_vectors
from v3s.vectors.exact import Neighbours
from v3s.video.index import VideoError, index_video

_PICTURE_WIDTH = 320  # in pixels
_GREY = data_uri(
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 9"><rect width="16" height="9" fill="#888"/></svg>',
    "image/svg+xml",
)


@dataclass(frozen=True, kw_only=True)
class SearchConfig(ComputeOptions):
    """Find the videos that are most similar to a given one.

    Attributes:
        query: The video to search with.
        vectors: Folder of the vectors that v3s embed wrote.
        k: Number of videos to find.
        out: JSON file for the result.
        page: HTML page with thumbnails.

    More options:
        backbone: The network that computed these vectors. Default: the one that v3s embed used.
        approximate: Use the index that v3s index built.
    """

    query: Annotated[str, "QUERY"]
    vectors: Annotated[str, "--in"]
    backbone: str | None = None
    k: int = 10
    approximate: bool = False
    out: str | None = None
    page: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "k")
        require_files(self, "out", "page")


@dataclass(frozen=True, slots=True)
class Hit:
    """A search result.

    Attributes:
        rank: position in the results, from 1.
        score: cosine similarity, in [-1, 1] up to rounding; with one vector per clip, that of the most similar clips.
        path: path of the video as listed; posix.
        file: full path of the video.
        label: class of the video, if it was listed with one.
        start_frame: first frame of the best clip, or of the video.
        end_frame: the frame after the last.
        start_seconds: the same in seconds.
        end_seconds: the same in seconds.
    """

    rank: int
    score: float
    path: str
    file: str
    label: str | None
    start_frame: int
    end_frame: int
    start_seconds: float
    end_seconds: float


def search(config: SearchConfig, *, console: Console | None = None) -> list[Hit]:
    """Find the videos that are most similar to a query video.

    The query is cut into clips and encoded in the same way as the stored vectors. With one vector per clip, every clip
    of the query is compared with every stored clip, and a video's score is that of its best pair.

    Args:
        config: the query, the vectors, the number of videos.
        console: where to report; the terminal by default.

    Raises:
        ValueError: the query cannot be read, the vectors are damaged or incomplete, or they come from another network.
    """
    console = console or Console()
    vectors = open_vectors(config.vectors, verify=not config.approximate)
    nearest = open_index(vectors).nearest if config.approximate else vectors.nearest
    encoder = _open_encoder(vectors, config)
    per_clip = vectors.description.per_clip
    queries = encoder.encode_clips(config.query) if per_clip else encoder.encode([config.query])
    best = best_videos(nearest, queries, config.k, vectors)
    hits = [_hit(rank, row, score, vectors) for rank, (row, score) in enumerate(best, start=1)]
    say(console, _summary(vectors))
    console.print(_table(hits, per_clip=per_clip))
    if config.out is not None:
        write_json(Path(config.out), _result(config, vectors, hits))
    if config.page is not None:
        write_page(config.page, _page(config, vectors, hits))
    return hits


def _open_encoder(vectors: Vectors, config: SearchConfig) -> Encoder:
    """Open the network that the stored vectors come from, with the same settings.

    Raises:
        VectorsError: the network cannot be opened, or has other weights.
    """
    stored = vectors.description
    backbone = config.backbone or stored.backbone
    try:
        source = open_source(backbone, seed=stored.seed)
    except CheckpointError as error:
        raise VectorsError(
            f"{error}; {config.vectors} was embedded with this network: give its new location with --backbone"
        ) from error
    if source.fingerprint != stored.space.weights:
        raise VectorsError(
            f"{config.vectors} contains vectors of another model: they were embedded with the weights "
            f"{stored.space.weights[:12]} ({stored.network}), but {backbone} has the weights "
            f"{source.fingerprint[:12]}; give the network that embed used with --backbone, or embed again"
        )
    compute = choose_compute(config.device, config.precision)
    return make_encoder(source, stored.space.view, [stored.space.feature], compute)


def best_videos(
    nearest: Callable[[Tensor, int], Neighbours], queries: Tensor, k: int, vectors: Vectors
) -> list[tuple[int, float]]:
    """Find the ``k`` videos with the best pair of a query and a row.

    The number of rows grows until no further row can change the result.

    Args:
        nearest: exact or approximate search, from (queries, k) to rows of ``vectors``.
        queries: vectors of one video, float32, shape (Q, D), unit length.
        k: number of videos to find.
        vectors: the vectors to search.

    Returns:
        For each video, best first, (its best row, the score).
    """
    num_rows = min(k, len(vectors))
    while True:
        neighbours = nearest(queries, num_rows)
        best = _best_rows(neighbours, vectors)
        bound = float(neighbours.scores[:, -1].max())  # no other row has a higher score
        num_certain = sum(score >= bound for _, score in best)
        exhausted = num_rows == len(vectors) or bool((neighbours.indices[:, -1] < 0).all())
        if num_certain >= k or exhausted:
            return best[:k]
        num_rows = min(4 * num_rows, len(vectors))


def _best_rows(neighbours: Neighbours, vectors: Vectors) -> list[tuple[int, float]]:
    """Return the best row of each video, best first; in a tie the lower row."""
    pairs = zip(neighbours.indices.flatten().tolist(), neighbours.scores.flatten().tolist(), strict=True)
    best: dict[int, tuple[int, float]] = {}
    for row, score in sorted(((row, score) for row, score in pairs if row >= 0), key=lambda pair: (-pair[1], pair[0])):
        best.setdefault(vectors.video_of(row), (row, score))
    return list(best.values())


def _hit(rank: int, row: int, score: float, vectors: Vectors) -> Hit:
    video, (start, end) = vectors.video(vectors.video_of(row)), vectors.span_of(row)
    seconds = video.seconds / video.num_frames
    file = str(Path(vectors.description.root) / video.path)
    return Hit(rank, score, video.path, file, video.label, start, end, start * seconds, end * seconds)


def _table(hits: list[Hit], *, per_clip: bool) -> Table:
    """Return a table of the hits, with the times of clips."""
    rows = []
    for hit in hits:
        times = [f"{hit.start_seconds:.1f} to {hit.end_seconds:.1f}"] if per_clip else []
        rows.append((hit.path, str(hit.rank), f"{hit.score:.4f}", *times))
    return text_table("", ("video", "rank", "score", *(["seconds"] if per_clip else [])), rows)


def _summary(vectors: Vectors) -> str:
    stored = vectors.description
    skipped = f"; {counted(len(stored.left_out), 'unreadable video')} skipped" if stored.left_out else ""
    return f"{counted(len(vectors), 'vector')} of {counted(stored.num_videos, 'video')} ({stored.source}){skipped}"


def _result(config: SearchConfig, vectors: Vectors, hits: list[Hit]) -> dict[str, Any]:
    stored = vectors.description
    return {
        "query": config.query,
        "vectors": config.vectors,
        "backbone": stored.backbone,
        "network": stored.network,
        "fingerprint": stored.space.fingerprint,
        "view": asdict(stored.space.view),
        "per_clip": stored.per_clip,
        "approximate": config.approximate,
        "source": stored.source,
        "num_videos": stored.num_videos,
        "num_vectors": len(vectors),
        "hits": [asdict(hit) for hit in hits],
    }


def _page(config: SearchConfig, vectors: Vectors, hits: list[Hit]) -> str:
    per_clip = vectors.description.per_clip
    thumbnails = []
    for hit in hits:
        times = f", {hit.start_seconds:.1f} to {hit.end_seconds:.1f} s" if per_clip else ""
        middle = (hit.start_frame + hit.end_frame - 1) // 2
        thumbnails.append(_thumbnail(f"{hit.rank}. {hit.path}: {hit.score:.4f}{times}", hit.file, middle))
    kind = "approximate" if config.approximate else "exact"
    caption, picture = _thumbnail(config.query, config.query)
    blocks = [
        section("Query", figure(picture, caption)),
        section(f"The most similar videos ({kind} search; numbers are cosine similarities)", strip(thumbnails)),
    ]
    lead = f"Searched {_summary(vectors)}. Network: {vectors.description.network}."
    return page(f"Videos similar to {Path(config.query).name}", blocks, lead=lead)


def _thumbnail(caption: str, file: str, frame: int | None = None) -> tuple[str, str]:
    """Return a caption and a frame, the middle one by default; grey and with the reason if it cannot be read."""
    try:
        video = index_video(file)
        (picture,) = small_frames(video, [(video.num_frames - 1) // 2 if frame is None else frame], _PICTURE_WIDTH)
        return caption, jpeg_uri(picture)
    except VideoError as error:
        return f"{caption} (no image: {str(error).removeprefix(f'{file}: ')})", _GREY
