"""The videos that a command works on: every file is read first, and what is left out is named before work starts."""

from collections import Counter

from rich.console import Console

from v3s.data.check import scan_with_bar
from v3s.data.scan import Scan
from v3s.data.splits import VideoList


def usable_videos(listed: VideoList, *, min_frames: int, console: Console, workers: int | None = None) -> Scan:
    """Read every listed file (or recall what an earlier scan found) and say which are left out, and why.

    Args:
        listed: the files.
        min_frames: frames that a usable video has at least.
        console: where to say it.
        workers: processes that read; one a processor by default.

    Raises:
        ValueError: no video is usable; the message has the counts and the first reason.
    """
    console.print(listed.source, highlight=False, markup=False, soft_wrap=True)
    found = scan_with_bar(listed, min_frames=min_frames, workers=workers, console=console)
    counts = Counter(report.verdict for report in found.reports)
    told = ", ".join(f"{counts[verdict]:,} {verdict}" for verdict in ("usable", "too short", "unreadable"))
    console.print(f"{told} (a video needs {min_frames} frames)", highlight=False)
    for report in found.reports:
        if report.verdict == "unreadable":
            console.print(f"left out: {report.path}: {report.reason}", highlight=False, markup=False, soft_wrap=True)
    if not found.num_usable:
        first = found.reports[0]
        raise ValueError(
            f"no usable video: {counts['too short']:,} too short, {counts['unreadable']:,} unreadable; "
            f"first: {first.path}: {first.reason}"
        )
    return found
