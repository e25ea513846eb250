"""From files that were read to the spans that are used: entries of a list, or segments of equal length."""

from collections.abc import Sequence
from dataclasses import replace

from v3s.data.index_cache import ReadResult
from v3s.data.lists.spans import Bounds
from v3s.data.lists.splits import VideoList
from v3s.files.text import counted
from v3s.video.container import Failure
from v3s.video.span import Span


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
        source += f"; in segments of {videos.spans.segment:g} s: {counted(len(cut), 'segment')}"
    if videos.spans.fps is not None:
        source += f"; at {videos.spans.fps:g} frames per second"
    bounds = tuple((each.start_seconds, each.end_seconds) if isinstance(each, Span) else (0.0, None) for each in cut)
    paths, labels = (
        tuple(videos.paths[origin] for origin in origins),
        tuple(videos.labels[origin] for origin in origins),
    )
    is_cut = bool(videos.bounds) or videos.spans.segment is not None
    return replace(videos, paths=paths, labels=labels, source=source, bounds=bounds if is_cut else ()), cut


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
