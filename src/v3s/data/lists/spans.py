"""Which spans of listed videos are used: those of a list, or segments of equal length; and on which clock."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from math import inf

from v3s.data.views import View
from v3s.files.times import time_text
from v3s.options import CheckedOptions, check_rate, require_positive
from v3s.video.index import VideoIndex
from v3s.video.light.mask import read_mask
from v3s.video.light.window import parse_window
from v3s.video.span import Span, span_of
from v3s.video.store import StoredVideo

Bounds = tuple[float, float | None]
"""Start and end of a span in seconds from the video's first frame on; without an end, to the video's end."""

_SLACK_SECONDS = 0.06  # by which an end may lie outside of a file: lists are rounded to tenths
_MOST_SEGMENTS = 1_000_000  # of one entry: eleven days of seconds
_LEAST_REST = 0.5  # of a segment: a rest at the end of a span that is shorter is skipped


@dataclass(frozen=True, kw_only=True)
class SpanOptions(CheckedOptions):
    """Segments instead of whole files, a common frame rate, a window of values, and a mask.

    More options:
        segment: Cut every video, or every span of a list, into segments of this many seconds, each used like a video.
            What remains at the end is a segment if it is at least half as long; a shorter video is one segment.
        segment_stride: Seconds between the starts of segments. Default: the length of a segment.
        fps: Frames per second at which videos are sampled, by their time stamps. Clips of files with different or
            varying rates then show the same instants. Default: that of the run or recognizer that the command uses,
            else every frame of the file.
        window: The values that are shown as black and as white, for pictures of more than 8 bits. auto takes the
            percentiles 0.1 and 99.9 of a whole file, full the range of the format, LOW,HIGH these values. Default:
            that of a store, else of the run or recognizer that the command uses, else auto.
        mask: Make text, scales and logos black in every frame, before clips are cut. auto blanks what never changes in
            a file, if that is at most a quarter of what is not dark. A picture (PNG) of the frames' shape blanks what
            is white in it. none blanks nothing. Default: that of a store, else of the run or recognizer that the
            command uses, else none.
    """

    segment: float | None = None
    segment_stride: float | None = None
    fps: float | None = None
    window: str | None = None
    mask: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_spans()

    def check_spans(self) -> None:
        """Check the values.

        Raises:
            ValueError: a value is not positive, a segment is shorter than a frame, there is a stride alone, or the
                window or the mask is not valid.
        """
        require_positive(self, "segment", "segment_stride")
        check_rate(self.fps)
        parse_window("auto" if self.window is None else self.window)
        read_mask(self.mask)
        if self.segment_stride is not None and self.segment is None:
            raise ValueError(f"segment_stride is {self.segment_stride:g}, without segments; give --segment too")
        if self.segment and self.fps and self.segment * self.fps < 1:
            raise ValueError(f"a segment of {self.segment:g} s has no frame at {self.fps:g} frames per second")

    def spans_for(self, view: View | None = None) -> "SpanOptions":
        """Return these options alone, checked; the picture of a mask is read here.

        Args:
            view: of the network that the videos are for; its frame rate, window and mask are the defaults.
        """
        view = view or View()
        segments = {"segment": self.segment, "segment_stride": self.segment_stride}
        mask = read_mask(self.mask or view.mask)
        return SpanOptions(**segments, fps=self.fps or view.fps, window=self.window or view.window, mask=mask)

    @property
    def segments(self) -> dict[str, str]:
        """The options that cut videos, as far as they are given; a stride that is the length of a segment is none."""
        stride = None if self.segment_stride == self.segment else self.segment_stride
        values = {"segment": self.segment, "segment_stride": stride}
        return {name: f"{value:g}" for name, value in values.items() if value is not None}

    @property
    def is_default(self) -> bool:
        """Whether whole files with all of their frames are used."""
        return self.segment is None and self.fps is None

    def cut(self, video: VideoIndex | StoredVideo, bounds: Bounds | None) -> list[Span]:
        """Return the spans of a video that are used, in order of time.

        Args:
            video: The video.
            bounds: The part of it that is listed; ``None`` for all of it.

        Raises:
            ValueError: The part lies outside of the video, or is too many segments; the message does not name it.
        """
        start, end = _inside(video, bounds or (0.0, None))
        step = self.segment_stride or self.segment or inf
        if (end - start) / step > _MOST_SEGMENTS:
            raise ValueError(
                f"one every {step:g} s would be more than {_MOST_SEGMENTS:,} segments; give a longer --segment or "
                "--segment-stride"
            )
        spans = (span_of(video, *part, self.fps) for part in self._parts(start, end))
        return [span for span in spans if span.num_frames]

    def _parts(self, start: float, end: float) -> Iterator[tuple[float, float]]:
        """The segments from start to end."""
        if self.segment is None or end - start <= self.segment:
            yield start, end
            return
        stride = self.segment_stride or self.segment
        for number in count():
            begin = start + number * stride
            if end - begin < _LEAST_REST * self.segment:
                return
            yield begin, min(begin + self.segment, end)
            if begin + self.segment >= end:
                return


def _inside(video: VideoIndex | StoredVideo, bounds: Bounds) -> tuple[float, float]:
    """Start and end of a part of a video, in seconds."""
    (start, end), length = bounds, video.duration_seconds
    if reason := outside(bounds, length):
        raise ValueError(reason)
    return start, length if end is None else min(end, length)


def outside(bounds: Bounds, length: float) -> str:
    """Why a part lies outside a video of this length in seconds; empty if it does not."""
    start, end = bounds
    if start < length and (end or 0.0) <= length + _SLACK_SECONDS:
        return ""
    asked = f"{time_text(start)} to {'its end' if end is None else time_text(end)}"
    return f"{asked} is outside of the video: it is {time_text(length)} long"


WHOLE_VIDEOS = SpanOptions()


def span_name(path: str, bounds: Bounds) -> str:
    """A file and the times of a span in it, as text."""
    start, end = bounds
    if end is None:
        return path if start == 0 else f"{path} {time_text(start)} to its end"
    return f"{path} {time_text(start)}-{time_text(end)}"


def check_overlaps(spans: Iterable[tuple[str, Bounds, str | None]], title: str) -> None:
    """Refuse spans of one file that overlap and have different labels.

    Args:
        spans: file, bounds and label of each.
        title: describes the list.

    Raises:
        ValueError: two do; the message names them.
    """
    before: dict[str, tuple[str, Bounds, str | None]] = {}
    for path, bounds, label in sorted(spans, key=lambda span: (span[0], span[1][0])):
        other = before.get(path)
        if other and label != other[2] and (other[1][1] is None or bounds[0] < other[1][1]):
            one, two = (f"{span_name(path, span)} ({name!r})" for span, name in ((other[1], other[2]), (bounds, label)))
            raise ValueError(f"{title}: spans with different labels overlap: {one} and {two}; change their times")
        if not other or other[1][1] is None or (bounds[1] is not None and bounds[1] < other[1][1]):
            before[path] = other or (path, bounds, label)
        else:
            before[path] = (path, bounds, label)
