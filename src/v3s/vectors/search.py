"""``v3s search``: the videos of a collection that are most like a given one."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor

from v3s.backbones.device import ComputeOptions, choose_compute
from v3s.features.encoder import Encoder, make_encoder
from v3s.features.source import open_source
from v3s.files.text import as_text, say
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
        backbone: The network of these vectors. Default: the one that v3s embed used.
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
    """A video that was found.

    Attributes:
        rank: from 1.
        score: cosine similarity, in [-1, 1] up to rounding; with a vector for each clip that of the two clips that
            are most alike.
        path: as it was listed; posix.
        file: where it is.
        label: its class, where it was listed with one.
        start_frame: first frame of what was compared: of the clip, or of the video.
        end_frame: the one after the last.
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
    """Find the videos that are most like a given one.

    The query is cut and encoded as the stored vectors were. With a vector for each clip, every clip of the query is
    compared with every stored one, and a video's score is that of the best pair.

    Args:
        config: the query, the vectors, how many videos.
        console: where to report; the terminal by default.

    Raises:
        ValueError: the query cannot be read, the vectors are damaged or incomplete, or the network is not theirs.
    """
    console = console or Console()
    vectors = open_vectors(config.vectors)
    nearest = open_index(vectors).nearest if config.approximate else vectors.nearest
    encoder = _encoder_of(vectors, config)
    per_clip = vectors.description.per_clip
    queries = encoder.encode_clips(config.query) if per_clip else encoder.encode([config.query])
    found = best_videos(nearest, queries, config.k, vectors)
    hits = [_hit(rank, row, score, vectors) for rank, (row, score) in enumerate(found, start=1)]
    say(console, _in_words(vectors))
    console.print(_table(hits, per_clip=per_clip))
    if config.out is not None:
        write_json(Path(config.out), _result(config, vectors, hits))
    if config.page is not None:
        write_page(config.page, _page(config, vectors, hits))
    return hits


def _encoder_of(vectors: Vectors, config: SearchConfig) -> Encoder:
    """The network that made stored vectors, set up as it was then.

    Raises:
        VectorsError: it cannot be opened, or has other weights.
    """
    stored = vectors.description
    given = config.backbone or stored.backbone
    try:
        source = open_source(given, seed=stored.seed)
    except CheckpointError as error:
        raise VectorsError(f"{error}; {config.vectors} was made with it: give its place with --backbone") from error
    if source.fingerprint != stored.space.weights:
        raise VectorsError(
            f"{config.vectors} holds vectors of another model: weights {stored.space.weights[:12]} "
            f"({stored.network}), while {given} has {source.fingerprint[:12]}; give the network that embed used "
            "with --backbone, or embed again"
        )
    compute = choose_compute(config.device, config.precision)
    return make_encoder(source, stored.space.view, [stored.space.feature], compute)


def best_videos(
    nearest: Callable[[Tensor, int], Neighbours], queries: Tensor, k: int, vectors: Vectors
) -> list[tuple[int, float]]:
    """The ``k`` videos with the best pair of a query and a row; asks for more rows until no other can be among them.

    Args:
        nearest: exact or approximate, from (queries, k) to rows of ``vectors``.
        queries: float32, shape (Q, D), unit length: of one video.
        k: videos wanted.
        vectors: what is searched.

    Returns:
        For each video, best first, (its best row, the score).
    """
    wanted = min(k, len(vectors))
    while True:
        found = nearest(queries, wanted)
        best = _best_rows(found, vectors)
        bar = float(found.scores[:, -1].max())  # no row that was not named scores higher
        certain = sum(score >= bar for _, score in best)
        exhausted = wanted == len(vectors) or bool((found.indices[:, -1] < 0).all())
        if certain >= k or exhausted:
            return best[:k]
        wanted = min(4 * wanted, len(vectors))


def _best_rows(found: Neighbours, vectors: Vectors) -> list[tuple[int, float]]:
    """The best row of each video, best first; between equal scores the lower row."""
    pairs = zip(found.indices.flatten().tolist(), found.scores.flatten().tolist(), strict=True)
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
    """What was found; for clips also when."""
    table = Table()
    for column in ("rank", "score"):
        table.add_column(column, justify="right")
    table.add_column("video", overflow="fold")
    if per_clip:
        table.add_column("seconds", justify="right")
    for hit in hits:
        when = [f"{hit.start_seconds:.1f} to {hit.end_seconds:.1f}"] if per_clip else []
        path = Text(as_text(hit.path))
        table.add_row(str(hit.rank), f"{hit.score:.4f}", path, *when)
    return table


def _in_words(vectors: Vectors) -> str:
    stored = vectors.description
    skipped = f"; {len(stored.left_out):,} could not be read and were skipped" if stored.left_out else ""
    return f"{len(vectors):,} vectors of {stored.num_videos:,} videos ({stored.source}){skipped}"


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
    pictures = []
    for hit in hits:
        when = f", {hit.start_seconds:.1f} to {hit.end_seconds:.1f} s" if per_clip else ""
        middle = (hit.start_frame + hit.end_frame - 1) // 2
        pictures.append(_picture(f"{hit.rank}. {hit.path}: {hit.score:.4f}{when}", hit.file, middle))
    kind = "approximate" if config.approximate else "exact"
    query, picture = _picture(config.query, config.query)
    blocks = [
        section("Query", figure(picture, query)),
        section(f"The {len(hits):,} videos that are most like it ({kind} search)", strip(pictures)),
    ]
    return page(f"Like {Path(config.query).name}", blocks, lead=f"{_in_words(vectors)}. {vectors.description.network}.")


def _picture(caption: str, file: str, frame: int | None = None) -> tuple[str, str]:
    """A caption and its picture, by default the middle frame; grey and with the reason where it cannot be read."""
    try:
        video = index_video(file)
        (picture,) = small_frames(video, [(video.num_frames - 1) // 2 if frame is None else frame], _PICTURE_WIDTH)
        return caption, jpeg_uri(picture)
    except VideoError as error:
        return f"{caption} (no picture: {str(error).removeprefix(f'{file}: ')})", _GREY
