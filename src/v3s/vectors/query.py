"""What a collection is searched with: a video or a span of one, as unit vectors of the collection's network."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from v3s.data.index_cache import default_cache, file_key, read_cache
from v3s.data.index_table import IndexTable
from v3s.data.store_folder import is_store, open_store
from v3s.data.views import read_clips
from v3s.features.encoder import Encoder, clip_features
from v3s.files.times import time_text
from v3s.vectors.collection import Vectors
from v3s.video.container import Failure
from v3s.video.decode import Video
from v3s.video.index import VideoError, index_video

_TOLERANCE_SECONDS = 0.06  # an end that was printed, rounded to a tenth, may be pasted


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """A video, or a span of one, to search with.

    Attributes:
        video: its index.
        start_frame: first frame of the span.
        end_frame: the frame after its last.
        vectors: float32 (Q, D), unit length: one per clip, or one in all if the collection has one per video.
        num_zero: clips whose features are all zero; ``vectors`` does not contain them.
    """

    video: Video
    start_frame: int
    end_frame: int
    vectors: Tensor
    num_zero: int

    @property
    def times(self) -> tuple[float, float]:
        """Start and end in seconds."""
        seconds = self.video.duration_seconds / self.video.num_frames
        return self.start_frame * seconds, self.end_frame * seconds


def known_video(vectors: Vectors, file: Path) -> Video:
    """Return the index of a file: what a scan of the collection has learned, else by decoding the whole file.

    Raises:
        VideoError: the file cannot be read.
    """
    root = Path(vectors.description.root)
    whole = file.resolve()
    path = whole.relative_to(root).as_posix() if whole.is_relative_to(root) else ""
    if path and is_store(root) and (stored := open_store(root).files.get(path)) is not None:
        if isinstance(stored.outcome, Failure):
            raise VideoError(f"{file}: {stored.outcome.reason}")
        return stored.outcome
    if path and (key := file_key(root, path)) is not None:
        found = read_cache(default_cache(root), root, json.dumps([path])[:-1]).get(key)
        if found is not None and not isinstance(found, Failure):
            return found
    return index_video(file)


def encode_query(encoder: Encoder, vectors: Vectors, file: Path, start: float | None, end: float | None) -> Query:
    """Encode a video or a span of one as the collection was encoded.

    Args:
        encoder: the network of the collection, with its view.
        vectors: the collection.
        file: the video; it need not be in the collection.
        start: start of the span in seconds; None is the start of the video.
        end: its end in seconds; None is that of the video. A span shorter than a clip is widened on both sides.

    Raises:
        ValueError: the span lies outside of the video, or the collection has one vector per video, which cannot be
            compared with that of a span; or all features are zero, which nothing is similar to.
        VideoError: the video cannot be read.
    """
    is_span, per_clip = start is not None or end is not None, vectors.description.per_clip
    if is_span and not per_clip:
        raise ValueError(
            f"{vectors.folder} has one vector per video, and a span of a video is not comparable with whole videos: "
            "leave out --start and --end, or embed with --per-clip"
        )
    video = known_video(vectors, file)
    first, after = span_in_frames(video, str(file), start, end) if is_span else (0, video.num_frames)
    if is_span:
        rows = torch.cat(list(_encode_span(encoder, video, *_widened(first, after, encoder, video))))
    else:
        ((_, rows),) = encoder.encode_table(IndexTable.of([video]), per_clip=per_clip)
    is_zero = ~rows.any(dim=1)
    if is_zero.all():
        raise ValueError(
            f"{file}: the network gives only zeros for {'this span' if is_span else 'this video'} (is it black?), and "
            "nothing is similar to a zero vector"
        )
    return Query(video, first, after, rows[~is_zero], int(is_zero.sum()))


def span_in_frames(video: Video, name: str, start: float | None, end: float | None) -> tuple[int, int]:
    """Return the first frame of a span and the frame after its last: those nearest to its times, one at least.

    Raises:
        ValueError: the span lies outside of the video.
    """
    length = video.duration_seconds
    for option, value in (("start", start), ("end", end)):
        if value is not None and value > length + _TOLERANCE_SECONDS:
            raise ValueError(
                f"{option} is {time_text(value)}, which is outside of {name}: it is {time_text(length)} long"
            )
    rate = video.num_frames / length if length else 0.0
    first = min(round((start or 0) * rate), video.num_frames - 1)
    after = video.num_frames if end is None else min(round(end * rate), video.num_frames)
    return first, max(after, first + 1)


def _widened(start: int, end: int, encoder: Encoder, video: Video) -> tuple[int, int]:
    """Widen a span to one clip at least, evenly to both sides, as far as the video reaches."""
    missing = max(0, encoder.view.clip_frames - (end - start))
    start = max(0, min(start - missing // 2, video.num_frames - (end - start) - missing))
    return start, min(max(end, start + encoder.view.clip_frames), video.num_frames)


def _encode_span(encoder: Encoder, video: Video, start: int, end: int) -> Iterator[Tensor]:
    """Yield the unit vectors of a span's clips, in groups that share a forward pass: float32 (clips, D)."""
    clips = [tuple(start + frame for frame in clip) for clip in encoder.view.clips(end - start)]
    table = IndexTable.of([video])
    for place in range(0, len(clips), encoder.batch_size):
        pixels = read_clips(table, 0, encoder.view, clips[place : place + encoder.batch_size])
        features = clip_features(encoder.backbone, pixels, encoder.features[:1], encoder.compute)
        encoder.require_finite(features, table, 0)
        yield F.normalize(features[0], dim=1)
