"""From files that were read to the spans that are used: entries of a list, or segments of equal length."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from v3s.data.index_cache import ReadResult
from v3s.data.lists.spans import Bounds
from v3s.data.lists.splits import VideoList
from v3s.files.text import counted
from v3s.files.times import time_text
from v3s.video.container import Failure
from v3s.video.index import VideoIndex
from v3s.video.span import Span
from v3s.video.store import StoredVideo

_LITTLE_MORE, _LITTLE_SECONDS = 1.01, 0.1
_JUMP_SECONDS, _JUMP_STEPS = 1.0, 10.0
"""A step between time stamps that is longer than both, in seconds and in usual steps, is a jump."""


def cut_videos(videos: VideoList, outcomes: Sequence[ReadResult]) -> tuple[VideoList, list[ReadResult]]:
    """Cut videos into the spans that their list asks for.

    Args:
        videos: The list, with one entry per file or per listed span.
        outcomes: What reading the file of each entry gave.

    Returns:
        The list with one entry per span, or per file that cannot be used, and what each entry is.
    """
    if videos.spans.is_default and not videos.bounds:
        return videos, list(outcomes)
    origins: list[int] = []
    cut: list[ReadResult] = []
    for number, outcome in enumerate(outcomes):
        spans = _spans_of(videos, outcome, videos.bounds[number] if videos.bounds else None)
        origins += [number] * len(spans)
        cut += spans
    source = videos.source
    if videos.spans.segment is not None:
        num_spans = sum(isinstance(each, Span) for each in cut)  # a file that cannot be used has none
        source += f"; in segments of {videos.spans.segment:g} s: {counted(num_spans, 'span')}"
    if videos.spans.fps is not None:
        source += f"; at {videos.spans.fps:g} frames per second"
    listed = videos.bounds or ((0.0, None),) * len(videos)
    bounds = tuple(
        (each.start_seconds, each.end_seconds) if isinstance(each, Span) else listed[origin]
        for origin, each in zip(origins, cut, strict=True)
    )
    paths, labels = (
        tuple(videos.paths[origin] for origin in origins),
        tuple(videos.labels[origin] for origin in origins),
    )
    is_cut = bool(videos.bounds) or videos.spans.segment is not None
    notes = tuple(_notes(videos, outcomes, cut))
    cut_list = replace(videos, paths=paths, labels=labels, source=source, bounds=bounds if is_cut else (), notes=notes)
    return cut_list, cut


def _notes(videos: VideoList, outcomes: Sequence[ReadResult], cut: Sequence[ReadResult]) -> Iterator[str]:
    """What is worth knowing of the clocks and lengths of the files."""
    segment, fps = videos.spans.segment, videos.spans.fps
    read = {
        path: outcome
        for path, outcome in zip(videos.paths, outcomes, strict=True)
        if isinstance(outcome, VideoIndex | StoredVideo)
    }
    for path, video in read.items():
        if fps is not None and fps > (usual := usual_rate(video)) * _LITTLE_MORE:
            yield f"{path}: has {usual:.4g} frames per second, fewer than --fps {fps:g}: frames repeat"
        if remark := clock_remark(video):
            yield f"{path}: {remark}"
    if segment is None:
        return
    if short := sum(video.duration_seconds < segment - _LITTLE_SECONDS for video in read.values()):
        yield f"{counted(short, 'video')} shorter than a segment of {segment:g} s: each is one segment"
    if (gap := (videos.spans.segment_stride or 0.0) - segment) > 0:
        yield f"{gap:g} s between segments are used in none"
    elif not videos.bounds:
        ends = {spans.path: spans.end_seconds for spans in cut if isinstance(spans, Span)}  # of the last of each
        rests = [video.duration_seconds - ends.get(video.path, video.duration_seconds) for video in read.values()]
        if (num_rests := sum(rest > _LITTLE_SECONDS for rest in rests)) and sum(rests) > _LITTLE_SECONDS:
            why = "less than half a segment"
            yield f"{sum(rests):.1f} s at the end of {counted(num_rests, 'video')} are skipped: {why} each"


def usual_rate(video: VideoIndex | StoredVideo) -> float:
    """Frames per second by the median step between frames, which a pause does not change."""
    if isinstance(video, StoredVideo) or isinstance(video.timestamps, range) or not len(video.timestamps):
        return video.fps
    step = float(np.median(np.diff(video.timestamps))) * video.tick_seconds if len(video.timestamps) > 1 else 0.0
    return 1 / step if step else video.fps


def clock_remark(video: VideoIndex | StoredVideo) -> str | None:
    """What is unusual about the times of a video's frames; ``None`` if nothing is."""
    if isinstance(video, StoredVideo):
        return "its store has no time stamps: frames are taken as evenly spaced" if video.rate_varies else None
    if not len(video.timestamps):
        return "its time stamps are missing, repeat or run backwards: frames are taken as evenly spaced"
    if isinstance(video.timestamps, range) or not video.tick_seconds:
        return None
    steps = np.diff(video.timestamps) * video.tick_seconds
    number = int(steps.argmax())
    if steps[number] < max(_JUMP_SECONDS, _JUMP_STEPS * float(np.median(steps))):
        return None
    before, after = ((video.timestamps[at] - video.timestamps[0]) * video.tick_seconds for at in (number, number + 1))
    return f"its time stamps jump from {time_text(before)} to {time_text(after)}; no frame is shown anew in between"


def _spans_of(videos: VideoList, outcome: ReadResult, bounds: Bounds | None) -> Sequence[ReadResult]:
    """The spans of one entry, or why there are none."""
    if isinstance(outcome, Failure):
        return [outcome]
    assert not isinstance(outcome, Span)
    try:
        spans = videos.spans.cut(outcome, bounds)
    except ValueError as error:
        return [Failure("open", str(error))]
    return spans or [Failure("open", "no frame begins in this span: it is shorter than a frame, or time stamps jump")]
