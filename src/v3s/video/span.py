"""A span of a video as a video of its own: it has frames from 0 on, and they may follow another clock than the file's.

Everything that takes a video (plans, views, clips) takes a span too, and counts in its frames.
"""

import hashlib
import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace

from v3s.video.container import VideoError
from v3s.video.index import VideoIndex
from v3s.video.light.mask import check_mask
from v3s.video.light.window import ValueWindow, choose_window
from v3s.video.store import StoredVideo

_TIE_SECONDS, _TIE_SHARE = 1.1e-3, 0.1
"""Two frames count as equally near to an instant if their distances differ by less: containers round times to
milliseconds, and a tie must not be decided by that. For high rates so much of the step between the frames."""

_SLACK = 0.02  # of a step: a time so little before a frame's counts as the frame's; times are rounded


@dataclass(frozen=True, slots=True, eq=False)
class Span:
    """Some frames of a video, from an instant on.

    Attributes:
        video: Whose frames.
        first: Number of its frame that is shown at the start; unused with a rate.
        num_frames: How many frames the span has.
        start_seconds: The start, from the video's first frame on.
        end_seconds: The end.
        rate: Frames of the span per second: frame k is the video's frame that is nearest to the start + k / ``rate``,
            the earlier one of two that are equally near. ``None`` takes the video's frames one after another.
    """

    video: VideoIndex | StoredVideo
    first: int
    num_frames: int
    start_seconds: float
    end_seconds: float
    rate: float | None = None

    @property
    def path(self) -> str:
        """The video's file."""
        return self.video.path

    @property
    def height(self) -> int:
        """Of its frames, in pixels."""
        return self.video.height

    @property
    def width(self) -> int:
        """Of its frames, in pixels."""
        return self.video.width

    @property
    def fps(self) -> float:
        """Its frames per second: the chosen rate, else the video's mean."""
        return self.rate or self.video.fps

    @property
    def duration_seconds(self) -> float:
        """From its start to its end."""
        return self.end_seconds - self.start_seconds

    @property
    def codec(self) -> str:
        """FFmpeg's name of the decoder."""
        return self.video.codec

    @property
    def pixel_format(self) -> str:
        """FFmpeg's name of the pixel format."""
        return self.video.pixel_format

    @property
    def rate_varies(self) -> bool:
        """Whether its frames are not evenly spaced in time."""
        return self.rate is None and self.video.rate_varies

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is unusual about the file."""
        return self.video.remarks

    @property
    def window(self) -> ValueWindow | None:
        """Which values are shown as black and white."""
        return self.video.window

    @property
    def fingerprint(self) -> int:
        """64 bits, the same for the same span of every copy of a file."""
        text = f"{self.video.fingerprint} {self.start_seconds:.6f} {self.end_seconds:.6f} {self.rate or 0:g}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")

    def source_frames(self, frames: Sequence[int]) -> list[int]:
        """The video's numbers of some frames of the span.

        Raises:
            VideoError: If a number is out of range.
        """
        numbers = list(map(int, frames))
        for number in numbers:
            if not 0 <= number < self.num_frames:
                last = self.num_frames - 1
                raise VideoError(f"{self.path}: the span has frames 0 to {last}; frame {number} was asked for")
        if self.rate is None:
            return [self.first + number for number in numbers]
        return [nearest_frame(self.video, self.start_seconds + number / self.rate) for number in numbers]


def seen(video: VideoIndex | StoredVideo, window: str | None, mask: str | None) -> VideoIndex | StoredVideo:
    """A video through a window and a mask. A store has been written through both.

    Args:
        video: The video.
        window: ``None`` and "auto" for that of the file, or as `choose_window`.
        mask: ``None`` for none, "auto" for the file's own overlay, or as :func:`v3s.video.light.mask.read_mask` gives.

    Raises:
        VideoError: The mask does not fit the video's frames.
    """
    if isinstance(video, StoredVideo):
        return video
    if window not in (None, "auto") and video.window is not None:
        video = replace(video, window=choose_window(window, video.pixel_format, video.window))
    if mask not in (None, "auto"):
        try:
            check_mask(mask, video.width, video.height)
        except ValueError as error:
            raise VideoError(f"{video.path}: {error}", "open") from error
        return replace(video, mask=mask, overlay=None)
    if video.overlay is None:
        return video
    return replace(video, mask=video.overlay if mask else None, overlay=None)


def at_rate(video: VideoIndex | StoredVideo, rate: float | None) -> VideoIndex | StoredVideo | Span:
    """A whole video, sampled at a rate if there is one."""
    return video if rate is None else span_of(video, rate=rate)


def span_of(
    video: VideoIndex | StoredVideo, start: float = 0.0, end: float | None = None, rate: float | None = None
) -> Span:
    """The span of a video between two instants, in seconds from its first frame on.

    Args:
        video: The video.
        start: The first instant.
        end: The last, not included; by default the video's end, and no later than that.
        rate: As in :class:`Span`.

    Returns:
        Without a rate the frames whose times lie in the span; with one as many as instants lie in it. No frames if no
        frame of the video begins in it: its times jump there, or the span is shorter than a frame.
    """
    end = min(video.duration_seconds, video.duration_seconds if end is None else end)
    first, after = frame_at(video, start), frame_at(video, end)
    if end >= video.duration_seconds:
        after = video.num_frames
    count = max(0, after - first)
    if rate is not None and count:
        count = max(1, int((end - start) * rate + _SLACK))
    return Span(video, first, count, start, end, rate)


def frame_at(video: VideoIndex | StoredVideo, seconds: float) -> int:
    """The number of the first frame that begins at an instant or after it; ``num_frames`` if there is none."""
    slack = _SLACK / video.fps
    times, tick = _times(video)
    if not len(times):
        return min(video.num_frames, max(0, math.ceil((seconds - slack) * video.fps)))
    return bisect_left(times, times[0] + (seconds - slack) / tick)


def nearest_frame(video: VideoIndex | StoredVideo | Span, seconds: float) -> int:
    """The number of the frame of a video or a span that is nearest to an instant of the file.

    Of two frames of the file that are equally near it is the earlier one.
    """
    if isinstance(video, Span):
        if video.rate is None:
            number = nearest_frame(video.video, seconds) - video.first
        else:
            number = round((seconds - video.start_seconds) * video.rate)
        return min(max(number, 0), video.num_frames - 1)
    if video.num_frames == 1:
        return 0
    times, tick = _times(video)
    if not len(times):
        after = min(video.num_frames - 1, max(1, math.ceil(seconds * video.fps)))
        before_time, after_time = (after - 1) / video.fps, after / video.fps
    else:
        after = min(len(times) - 1, max(1, bisect_left(times, times[0] + seconds / tick)))
        before_time, after_time = ((times[number] - times[0]) * tick for number in (after - 1, after))
    tie = min(_TIE_SECONDS, _TIE_SHARE * (after_time - before_time))
    is_later = (seconds - before_time) - (after_time - seconds) > tie
    return after if is_later else after - 1


def time_of_frame(video: VideoIndex | StoredVideo | Span, number: int) -> float:
    """When a frame of a video or a span is shown, in seconds from the first frame of the file on."""
    if isinstance(video, Span):
        if video.rate is None:
            return time_of_frame(video.video, video.first + number)
        return video.start_seconds + number / video.rate
    times, tick = _times(video)
    return (times[number] - times[0]) * tick if len(times) else number / video.fps


def times_of(video: VideoIndex | StoredVideo | Span) -> tuple[float, float]:
    """Return where a video or a span begins and ends in its file, in seconds."""
    return (video.start_seconds, video.end_seconds) if isinstance(video, Span) else (0.0, video.duration_seconds)


def _times(video: VideoIndex | StoredVideo) -> tuple[Sequence[int], float]:
    """The times of frames in ticks, and the length of a tick in seconds; no times where they are not known."""
    if isinstance(video, StoredVideo) or not video.tick_seconds:
        return (), 0.0
    return video.timestamps, video.tick_seconds
