"""What a collection is searched with: a video or a span of one, as unit vectors of the collection's network."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from torch import Tensor

from v3s.backbones.device import Compute
from v3s.data.index_cache import default_cache, file_key, read_cache
from v3s.data.index_table import IndexTable
from v3s.data.scan import check_store
from v3s.data.store_folder import is_store, open_store
from v3s.data.views import View
from v3s.features.encoder import Encoder, make_encoder
from v3s.features.source import open_source
from v3s.files.times import time_text
from v3s.files.writing import CheckpointError
from v3s.vectors.collection import Vectors
from v3s.vectors.description import VectorsError
from v3s.vectors.entries import Place
from v3s.vectors.moments import video_of
from v3s.video.container import Failure
from v3s.video.decode import Video
from v3s.video.index import VideoError, VideoIndex, index_video
from v3s.video.span import Span, at_rate, nearest_frame, seen, time_of_frame, times_of
from v3s.video.store import StoredVideo

_TOLERANCE_SECONDS = 0.06  # an end that was printed, rounded to a tenth, may be pasted


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """A video, or a span of one, to search with.

    Attributes:
        video: the whole video at the rate of the collection, or the span.
        vectors: float32 (Q, D), unit length: one per clip, or one in all if the collection has one per video.
        widened: start and end in seconds of what was encoded, if the span was shorter than a clip; else None.
        num_zero: clips whose features are all zero; ``vectors`` does not contain them.
    """

    video: Video
    vectors: Tensor
    widened: tuple[float, float] | None
    num_zero: int

    @property
    def is_span(self) -> bool:
        """Whether a part of the video was asked for."""
        return isinstance(self.video, Span) and self.video.duration_seconds < self.video.video.duration_seconds

    @property
    def times(self) -> tuple[float, float]:
        """Start and end in seconds."""
        return times_of(self.video)


def place_opener(vectors: Vectors) -> Callable[[Place], Video]:
    """Return what opens what a row of a collection shows, as `video_of`; each file is looked up once."""
    root, view = Path(vectors.description.root), vectors.description.space.view
    known = cache(lambda file: known_video(root, Path(file), view))
    return lambda place: video_of(place, known(place.file), view.fps)


def known_video(root: Path, file: Path, view: View) -> VideoIndex | StoredVideo:
    """Return the index of a file, with the window and the mask of a view.

    It is what a scan has learned, else the whole file is decoded.

    Args:
        root: the folder of the collection's videos.
        file: the video; it need not be in it.
        view: the collection's.

    Raises:
        VideoError: the file cannot be read, or the mask does not fit it.
        ValueError: it is in a store of videos that were seen through another window or mask.
    """
    return seen(_index_of(root, file, view), view.window, view.mask)


def as_in_collection(root: Path, file: Path) -> Path:
    """Return a file as a collection names it: one that a store was made of, by its name in the store.

    Args:
        root: the folder of the collection's videos.
        file: the video; it need not be in the collection.
    """
    whole = file.resolve()
    if is_store(root):
        store = open_store(root)
        source = Path(store.settings.source).resolve()
        path = whole.relative_to(source).as_posix() if whole.is_relative_to(source) else ""
        if path in store.files and not store.changed(path):
            return root / path
    return whole


def _index_of(root: Path, file: Path, view: View) -> VideoIndex | StoredVideo:
    whole = file.resolve()
    path = whole.relative_to(root).as_posix() if whole.is_relative_to(root) else ""
    if path and is_store(root) and (stored := (store := open_store(root)).files.get(path)) is not None:
        check_store(store, view.window, view.mask)
        if isinstance(stored.outcome, Failure):
            raise VideoError(f"{file}: {stored.outcome.reason}")
        return stored.outcome
    if path and (key := file_key(root, path)) is not None:
        found = read_cache(default_cache(root), root, json.dumps([path])[:-1]).get(key)
        if isinstance(found, VideoIndex):
            return found
    return index_video(file)


def open_query_encoder(vectors: Vectors, backbone: str | None, compute: Compute) -> Encoder:
    """Open the network that the vectors of a collection come from, with the same settings.

    Args:
        vectors: the collection.
        backbone: where the network is now, if not where it was when the collection was embedded.
        compute: the device.

    Raises:
        VectorsError: the network cannot be opened, or has other weights.
    """
    stored, name = vectors.description, backbone or vectors.description.backbone
    try:
        source = open_source(name, seed=stored.seed)
    except CheckpointError as error:
        raise VectorsError(
            f"{error}; {vectors.folder} was embedded with this network: give its new location with --backbone"
        ) from error
    if source.fingerprint != stored.space.weights:
        raise VectorsError(
            f"{vectors.folder} contains vectors of another model: they were embedded with the weights "
            f"{stored.space.weights[:12]} ({stored.network}), but {name} has the weights "
            f"{source.fingerprint[:12]}; give the network that embed used with --backbone, or embed again"
        )
    return make_encoder(source, stored.space.view, [stored.space.feature], compute)


def encode_query(encoder: Encoder, vectors: Vectors, file: Path, start: float | None, end: float | None) -> Query:
    """Encode a video or a span of one as the collection was encoded.

    Args:
        encoder: the network of the collection, with its view.
        vectors: the collection.
        file: the video; it need not be in the collection.
        start: start of the span in seconds; None is the start of the video.
        end: its end in seconds; None is that of the video. A span shorter than a clip is widened on both sides.

    Raises:
        ValueError: the span lies outside of the video, or the collection has one vector per whole video, which cannot
            be compared with that of a span; or all features are zero, which nothing is similar to.
        VideoError: the video cannot be read.
    """
    is_span, per_clip = start is not None or end is not None, vectors.description.per_clip
    if is_span and not (per_clip or vectors.has_spans):
        raise ValueError(
            f"{vectors.folder} has one vector per video, and a span of a video is not comparable with whole videos: "
            "omit --start and --end, or embed with --per-clip or --segment"
        )
    known = known_video(Path(vectors.description.root), file, encoder.view)
    video = asked = at_rate(known, encoder.view.fps)
    if is_span:
        asked = asked_span(known, str(file), start, end, encoder.view.fps)
        video = _widened(asked, encoder.view.clip_frames)
    ((_, rows),) = encoder.encode_table(IndexTable.of([video]), per_clip=per_clip)
    is_zero = ~rows.any(dim=1)
    if is_zero.all():
        raise ValueError(
            f"{file}: the network gives only zeros for {'this span' if is_span else 'this video'} (is it black?), and "
            "nothing is similar to a zero vector"
        )
    widened = None
    if video.num_frames > asked.num_frames:
        widened = time_of_frame(video, 0), time_of_frame(video, video.num_frames - 1) + 1 / video.fps
    return Query(asked, rows[~is_zero], widened, int(is_zero.sum()))


def asked_span(
    video: VideoIndex | StoredVideo, name: str, start: float | None, end: float | None, rate: float | None
) -> Span:
    """The span between two times: from the frame nearest to its start to that before the one nearest to its end.

    Raises:
        ValueError: the span lies outside of the video.
    """
    length = video.duration_seconds
    for option, value in (("start", start), ("end", end)):
        if value is not None and value > length + _TOLERANCE_SECONDS:
            raise ValueError(
                f"{option} is {time_text(value)}, which is outside of {name}: it is {time_text(length)} long"
            )
    first_time, end_time = min(start or 0.0, length), length if end is None else min(end, length)
    nearest = time_of_frame(video, nearest_frame(video, (first_time + end_time) / 2))
    if not first_time - 1 / video.fps <= nearest <= end_time + 1 / video.fps:
        raise ValueError(
            f"{name}: no frame is shown from {time_text(first_time)} to {time_text(end_time)}: its time stamps jump; "
            f"the nearest one is at {time_text(nearest)}"
        )
    if rate is not None:
        return Span(video, 0, max(1, round((end_time - first_time) * rate)), first_time, end_time, rate)
    first = nearest_frame(video, first_time)
    is_to_end = end_time >= length - 0.5 / video.fps
    after = video.num_frames if is_to_end else nearest_frame(video, end_time)
    return Span(video, first, max(1, after - first), first_time, end_time)


def _widened(span: Span, num_frames: int) -> Span:
    """Widen a span to at least that number of frames, evenly on both sides, as far as the video reaches."""
    missing = num_frames - span.num_frames
    if missing <= 0:
        return span
    if span.rate is not None:
        latest = max(0.0, span.video.duration_seconds - num_frames / span.rate)
        start = min(max(0.0, span.start_seconds - missing // 2 / span.rate), latest)
        fitting = max(1, min(num_frames, round((span.video.duration_seconds - start) * span.rate)))
        return replace(span, num_frames=fitting, start_seconds=start)
    first = max(0, min(span.first - missing // 2, span.video.num_frames - num_frames))
    return replace(span, first=first, num_frames=min(num_frames, span.video.num_frames))
