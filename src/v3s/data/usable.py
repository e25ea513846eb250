"""What a command says of the videos that it was given: which are skipped and why, and what shorter ones need."""

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import get_args

from rich.console import Console
from rich.table import Table

from v3s.data.lists.splits import VideoList
from v3s.data.scan import FileReport, Scan, Verdict, default_workers, scan
from v3s.files.text import counted, progress_bar, say, size_text, text_table
from v3s.video.store import SHORT_SIDE, frame_bytes, stored_size

_NUM_KINDS_SHOWN = 5


def usable_videos(
    listed: VideoList,
    *,
    min_frames: int,
    console: Console,
    workers: int | None = None,
    shorter: Mapping[str, int] | None = None,
) -> Scan:
    """Read every listed file (or recall what an earlier scan found) and report which are skipped, and why.

    Args:
        listed: the files.
        min_frames: frames that a usable video has at least.
        console: where to say it.
        workers: processes that read; one a processor by default.
        shorter: settings that need fewer frames -> how many; if videos are too short, a table shows how many videos
            each setting would use.

    Raises:
        ValueError: no video is usable, or more than half of them are bad: then a table was printed; the message has
            the counts and the first reason.
    """
    say(console, listed.description)
    found = scan_with_bar(listed, min_frames=min_frames, workers=workers, console=console)
    counts = Counter(report.verdict for report in found.reports)
    verdicts = ", ".join(f"{counts[verdict]:,} {verdict}" for verdict in get_args(Verdict))
    say(console, f"{verdicts} (a video needs {min_frames} frames)")
    if num_copies := sum(bool(report.copy_of) for report in found.reports):
        say(console, f"{counted(num_copies, 'video')} with the same content as another one; v3s check names them")
    bad = [report for report in found.reports if report.is_bad]
    for report in bad:
        say(console, f"skipped: {report.path}: {report.reason}")
    if counts["too short"] and shorter:
        console.print(shorter_table(found, shorter))
    if not found.num_usable:
        first = found.reports[0]
        way_out = "; the table shows which settings use more videos" if counts["too short"] and shorter else ""
        raise ValueError(f"no usable video: {verdicts}; first: {first.path}: {first.reason}{way_out}")
    if 2 * len(bad) > len(found.reports):
        console.print(summary(found))
        raise ValueError(
            f"{len(bad):,} of {len(found.reports):,} files are bad, more than half, so nothing was started; "
            f"first: {bad[0].path}: {bad[0].reason}; v3s check --out report.jsonl lists all; remove them or give a list"
        )
    return found


def shorter_table(found: Scan, shorter: Mapping[str, int]) -> Table:
    """How many of the videos that can be read each setting would use.

    Args:
        found: the scan.
        shorter: settings -> number of frames that a video needs with them.
    """
    lengths = found.table.num_frames
    needs = {"these settings": found.min_frames, **shorter}
    rows = [
        (words, f"{need:,}", f"{int((lengths >= need).sum()):,} of {len(lengths):,}") for words, need in needs.items()
    ]
    return text_table("Shorter videos need other settings", ("settings", "frames needed", "usable videos"), rows)


def scan_with_bar(
    videos: VideoList, *, min_frames: int, workers: int | None, console: Console, verify: bool = False
) -> Scan:
    """Scan while a bar shows the files done; `workers` is one a processor by default."""
    with progress_bar(console) as progress:  # the bar vanishes when all are done
        task = progress.add_task("reading")
        return scan(
            videos,
            min_frames=min_frames,
            workers=default_workers() if workers is None else workers,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
            verify=verify,
        )


def summary(result: Scan) -> Table:
    """Return the table of counts, hours, sizes, rates, codecs and lengths."""
    readable = [report for report in result.reports if report.verdict in ("usable", "too short")]
    verdicts = Counter(report.verdict for report in result.reports)
    table = Table(show_header=False, box=None)
    table.add_column(style="bold")
    for verdict in get_args(Verdict):
        table.add_row(verdict, f"{counted(verdicts[verdict], 'file')}, {_hours(result.reports, verdict)}")
    if result.videos.num_missing:
        table.add_row("missing", f"{result.videos.num_missing:,} listed files")
    if result.videos.classes:
        table.add_row("classes", f"{len(result.videos.classes):,}")
    if readable:
        table.add_row("sizes", _most_common(f"{report.width}x{report.height}" for report in readable))
        table.add_row("frame rates", _most_common(f"{report.fps:.4g}" for report in readable))
        table.add_row("codecs", _most_common(report.codec for report in readable))
        table.add_row("pixel formats", _most_common(report.pixel_format for report in readable))
        lengths = [report.frames for report in readable]
        median = statistics.median_low(lengths)
        table.add_row("as a store", f"{size_text(_store_bytes(readable))} (v3s prepare with its defaults)")
        table.add_row("frames", f"shortest {min(lengths):,}, median {median:,}, longest {max(lengths):,}")
    return table


def _store_bytes(readable: Iterable[FileReport]) -> int:
    """What the frames of readable files take in a store of the default format."""
    return sum(
        report.frames * frame_bytes("yuv", *stored_size(report.height, report.width, SHORT_SIDE)) for report in readable
    )


def _hours(reports: Iterable[FileReport], verdict: str) -> str:
    """Return the total length of the files with a verdict."""
    seconds = sum(report.seconds for report in reports if report.verdict == verdict)
    return f"{seconds / 3600:.2f} hours"


def _most_common(kinds: Iterable[str]) -> str:
    """Return the most frequent kinds with their counts."""
    counts = Counter(kinds)
    shown = ", ".join(f"{kind} ({count:,})" for kind, count in counts.most_common(_NUM_KINDS_SHOWN))
    others = len(counts) - _NUM_KINDS_SHOWN
    return f"{shown} and {others:,} other kinds" if others > 0 else shown
