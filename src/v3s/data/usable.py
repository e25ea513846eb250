"""The videos that a command works on: every file is read first, and what is left out is named before work starts."""

from collections import Counter
from typing import get_args

from rich.console import Console

from v3s.data.check import scan_with_bar, summary
from v3s.data.scan import Scan, Verdict
from v3s.data.splits import VideoList


def usable_videos(listed: VideoList, *, min_frames: int, console: Console, workers: int | None = None) -> Scan:
    """Read every listed file (or recall what an earlier scan found) and say which are left out, and why.

    Args:
        listed: the files.
        min_frames: frames that a usable video has at least.
        console: where to say it.
        workers: processes that read; one a processor by default.

    Raises:
        ValueError: no video is usable, or more than half of them are bad: then a table was printed; the message has
            the counts and the first reason.
    """
    console.print(listed.source, highlight=False, markup=False, soft_wrap=True)
    found = scan_with_bar(listed, min_frames=min_frames, workers=workers, console=console)
    counts = Counter(report.verdict for report in found.reports)
    told = ", ".join(f"{counts[verdict]:,} {verdict}" for verdict in get_args(Verdict))
    console.print(f"{told} (a video needs {min_frames} frames)", highlight=False)
    bad = [report for report in found.reports if report.is_bad]
    for report in bad:
        console.print(f"left out: {report.path}: {report.reason}", highlight=False, markup=False, soft_wrap=True)
    if not found.num_usable:
        first = found.reports[0]
        raise ValueError(f"no usable video: {told}; first: {first.path}: {first.reason}")
    if 2 * len(bad) > len(found.reports):
        console.print(summary(found))
        raise ValueError(
            f"{len(bad):,} of {len(found.reports):,} files are bad, more than half: too many to go on; "
            f"first: {bad[0].path}: {bad[0].reason}; v3s check --out report.jsonl lists all; remove them or give a list"
        )
    return found
