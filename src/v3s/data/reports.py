"""What a scan says of each file or span, and of all of them together."""

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from rich.console import Console
from rich.table import Table

from v3s.data.index_cache import ReadResult
from v3s.data.lists.spans import Bounds, span_name
from v3s.data.lists.splits import VideoList
from v3s.files.text import counted, say, size_text
from v3s.files.times import duration_text
from v3s.video.container import Failure
from v3s.video.index import VideoIndex
from v3s.video.light.mask import MOST_STILL, blanked_share
from v3s.video.light.window import window_text
from v3s.video.span import Span
from v3s.video.store import SHORT_SIDE, frame_bytes, stored_size

Verdict = Literal["usable", "too short", "partial", "unreadable"]
BAD = ("partial", "unreadable")

_NUM_KINDS_SHOWN, _NUM_NOTES_SHOWN = 5, 20
_MOST_DIFFERENCE = 1.2  # of the highest rate from the lowest: above it, labels of speed mean different things
_FEW = 0.05  # the share of files that may be slower than the rate that is advised


@dataclass(frozen=True, slots=True)
class FileReport:
    """What a scan says of one file. What is not known of a bad file is 0 or empty.

    Attributes:
        path: As in the list of videos.
        verdict: ``"usable"``, ``"too short"``, ``"partial"`` (some of its frames do not decode: it is skipped like an
            unreadable one) or ``"unreadable"``.
        reason: Why it is not usable, e.g. ``"29 frames; the task needs 69"``; empty for a usable file.
        stage: Where reading a bad file failed: ``"open"``, ``"demux"`` or ``"decode"``.
        frames: True length in frames; of a partial file, how many frames decode.
        height: In pixels, as displayed.
        width: In pixels, as displayed.
        fps: Frames per second: the mean over the file's timestamps.
        codec: FFmpeg's name of it.
        pixel_format: FFmpeg's name of it.
        seconds: Length in seconds.
        rate_varies: Whether frames are not evenly spaced in time.
        remarks: What is unusual about a file that can be read, e.g. ``"black throughout"``.
        still_share: The share of the file's pixels that never change, of those that are not dark; 0 to 1.
        blanked: The share of the picture that a mask blanks; 0 to 1.
        copy_of: The first listed file of the same content, if that is another.
        start_seconds: Where the span begins in the file.
        end_seconds: Where it ends; ``None`` for a whole file.
    """

    path: str
    verdict: Verdict
    reason: str
    stage: str = ""
    frames: int = 0
    height: int = 0
    width: int = 0
    fps: float = 0.0
    codec: str = ""
    pixel_format: str = ""
    seconds: float = 0.0
    rate_varies: bool = False
    remarks: str = ""
    still_share: float = 0.0
    blanked: float = 0.0
    copy_of: str = ""
    start_seconds: float = 0.0
    end_seconds: float | None = None

    @property
    def name(self) -> str:
        """The file, and the times of the span."""
        return self.path if self.end_seconds is None else span_name(self.path, (self.start_seconds, self.end_seconds))

    @property
    def is_bad(self) -> bool:
        """Whether the file itself is at fault: partial or unreadable, not merely too short."""
        return self.verdict in BAD


def report_on(
    path: str, outcome: ReadResult, min_frames: int, first: dict[int, str], bounds: Bounds | None = None
) -> FileReport:
    """Judge one file or span; `first` has, and gets, the first name of each fingerprint."""
    name = span_name(path, bounds) if bounds else path
    start, end = bounds or (0.0, None)
    if isinstance(outcome, Failure):
        verdict: Verdict = "partial" if outcome.num_frames else "unreadable"
        why = outcome.reason, outcome.stage, outcome.num_frames
        return FileReport(path, verdict, *why, start_seconds=start, end_seconds=end)
    original = first.setdefault(outcome.fingerprint, name)
    remarks = [*outcome.remarks]
    if outcome.window:
        remarks.append(window_text(outcome.window))
    if original != name:
        remarks.append(f"has the same content as {original!r}")
    file = outcome.video if isinstance(outcome, Span) else outcome
    still = (file.still_share, blanked_share(file.mask or "1x1:1")) if isinstance(file, VideoIndex) else (0.0, 0.0)
    enough = outcome.num_frames >= min_frames
    reason = "" if enough else f"{counted(outcome.num_frames, 'frame')}; the task needs {min_frames:,}"
    return FileReport(
        path,
        "usable" if enough else "too short",
        reason,
        frames=outcome.num_frames,
        height=outcome.height,
        width=outcome.width,
        fps=file.fps,
        codec=outcome.codec,
        pixel_format=outcome.pixel_format,
        seconds=outcome.duration_seconds,
        rate_varies=outcome.rate_varies,
        remarks="; ".join(remarks),
        still_share=still[0],
        blanked=round(still[1], 4),
        copy_of=original if original != name else "",
        start_seconds=start,
        end_seconds=end,
    )


def say_notes(console: Console, videos: VideoList) -> None:
    """Print what cutting the videos showed."""
    for note in videos.notes[:_NUM_NOTES_SHOWN]:
        say(console, f"note: {note}")
    if len(videos.notes) > _NUM_NOTES_SHOWN:
        say(console, f"and {len(videos.notes) - _NUM_NOTES_SHOWN:,} more notes like these")


def rate_advice(reports: Iterable[FileReport], min_frames: int, fps: float | None) -> str | None:
    """Say how frame rates differ, and which common rate to choose; ``None`` if they hardly differ, or one was chosen.

    Args:
        reports: of readable files; one of a single frame has no rate.
        min_frames: frames of the longest label; 1 where no labels are learned.
        fps: the chosen rate.
    """
    rate_of = {report.path: report.fps for report in reports if report.fps and report.frames > 1}
    rates = sorted(rate_of.values())
    if fps is not None or not rates or rates[-1] <= _MOST_DIFFERENCE * rates[0]:
        return None
    chosen = rates[int(_FEW * (len(rates) - 1))]  # the few slowest may repeat frames
    chosen = float(f"{chosen:.3g}")
    num_slower = sum(rate < chosen / 1.01 for rate in rates)
    repeat = f"; {counted(num_slower, 'slower file')} would repeat frames" if num_slower else ""
    longest = f"; the longest label ({min_frames} frames) then needs {min_frames / chosen:.1f} s"
    return (
        f"frame rates differ by more than a fifth, from {rates[0]:.4g} to {rates[-1]:.4g} frames per second: "
        f"the same label then means different speeds; --fps {chosen:g} samples all alike"
        f"{longest if min_frames > 1 else ''}{repeat}"
    )


def summary(reports: Sequence[FileReport], videos: VideoList) -> Table:
    """Return the table of counts, durations, sizes, rates, codecs and lengths."""
    readable = [report for report in reports if report.verdict in ("usable", "too short")]
    verdicts = Counter(report.verdict for report in reports)
    table = Table(show_header=False, box=None)
    table.add_column(style="bold")
    noun = "span" if videos.bounds else "file"
    for verdict in get_args(Verdict):
        length = "" if verdict in BAD else f", {_length(reports, verdict)}"  # not known of what cannot be decoded
        table.add_row(verdict, counted(verdicts[verdict], noun) + length)
    if videos.num_missing:
        table.add_row("missing", f"{videos.num_missing:,} listed files")
    if videos.classes:
        table.add_row("classes", f"{len(videos.classes):,}")
    if readable:
        table.add_row("sizes", _most_common(f"{report.width}x{report.height}" for report in readable))
        table.add_row("frame rates", _most_common(f"{report.fps:.4g}" for report in readable))
        table.add_row("codecs", _most_common(report.codec for report in readable))
        table.add_row("pixel formats", _most_common(report.pixel_format for report in readable))
        table.add_row("still pixels", _still_text(readable, has_mask=videos.spans.mask is not None))
        if any(report.blanked for report in readable):
            table.add_row("masked pixels", _shares_text([report.blanked for report in readable]))
        lengths = [report.frames for report in readable]
        median = statistics.median_low(lengths)
        if not videos.bounds and videos.spans.fps is None:
            table.add_row("as a store", f"{size_text(_store_bytes(readable))} (v3s prepare with its defaults)")
        table.add_row("frames", f"shortest {min(lengths):,}, median {median:,}, longest {max(lengths):,}")
    return table


def _still_text(readable: Sequence[FileReport], *, has_mask: bool) -> str:
    """How much of the pictures never changes, and what to do about that."""
    shares = [report.still_share for report in readable]
    text = f"{_shares_text(shares)} of the picture never changes"
    if not has_mask and any(0 < share <= MOST_STILL for share in shares):
        text += "; if that is text, a scale or a logo, --mask auto makes it black"
    if still_scenes := sum(share > MOST_STILL for share in shares):
        text += f"; more than {MOST_STILL:.0%} in {still_scenes:,}: a still scene, where --mask auto changes nothing"
    return text


def _shares_text(shares: Sequence[float]) -> str:
    """The middle and the greatest one of some shares."""
    return f"median {statistics.median(shares):.1%}, most {max(shares):.1%}"


def _store_bytes(readable: Iterable[FileReport]) -> int:
    """What the frames of readable files take in a store of the default format."""
    return sum(
        report.frames * frame_bytes("yuv", *stored_size(report.height, report.width, SHORT_SIDE)) for report in readable
    )


def _length(reports: Iterable[FileReport], verdict: str) -> str:
    """Return the total length of the files with a verdict."""
    return duration_text(sum(report.seconds for report in reports if report.verdict == verdict))


def _most_common(kinds: Iterable[str]) -> str:
    """Return the most frequent kinds with their counts."""
    counts = Counter(kinds)
    shown = ", ".join(f"{kind} ({count:,})" for kind, count in counts.most_common(_NUM_KINDS_SHOWN))
    others = len(counts) - _NUM_KINDS_SHOWN
    return f"{shown} and {counted(others, 'other kind')}" if others > 0 else shown
