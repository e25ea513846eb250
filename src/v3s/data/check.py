"""``v3s check``: is this data fit to train on? Every file is read and every bad one is named."""

import dataclasses
import json
import os
import statistics
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from v3s.data.listing import Subset
from v3s.data.scan import FileReport, Scan, Verdict, default_workers, scan
from v3s.data.splits import VideoList, list_videos
from v3s.video.store import SHORT_SIDE, frame_bytes, stored_size

NUM_BAD_SHOWN = 20
NUM_KINDS_SHOWN = 5


def check(
    data: str | Path,
    *,
    splits: str | Path | None = None,
    split: int = 1,
    subset: Subset = "train",
    allow_missing: bool = False,
    min_frames: int = 69,
    out: Path | None = None,
    workers: int | None = None,
    console: Console | None = None,
) -> Scan:
    """Read every file once and print what is usable, too short, partial and unreadable.

    Args:
        data: A folder or a list file, as in :func:`v3s.data.splits.list_videos`; so are `splits`, `split`, `subset` and
            `allow_missing`.
        splits: The official lists of the videos in `data`.
        split: Which official split.
        subset: Which part of it.
        allow_missing: Go on without the listed videos that do not exist.
        min_frames: The longest span of the task, in frames; 69 is that of the paper's task.
        out: Where to write one JSON line a file, with the fields of :class:`v3s.data.scan.FileReport`.
        workers: How many processes decode; by default one a processor.
        console: Where to print; by default the terminal.

    Raises:
        ValueError: The data cannot be listed, or `out` is a folder.
    """
    console = console or Console()
    if out is not None and out.is_dir():
        raise ValueError(f"{out} is a folder; give the report the name of a file, e.g. {out / 'report.jsonl'}")
    videos = list_videos(data, splits=splits, split=split, subset=subset, allow_missing=allow_missing)
    console.print(Text(_printable(videos.source)))
    result = scan_with_bar(videos, min_frames=min_frames, workers=workers, console=console, verify=True)
    console.print(summary(result))
    _print_bad(result, console, out)
    if out is not None:
        write_report(result.reports, out)
    return result


def scan_with_bar(
    videos: VideoList, *, min_frames: int, workers: int | None, console: Console, verify: bool = False
) -> Scan:
    """Scan while a bar shows the files done; `workers` is one a processor by default."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:  # the bar vanishes when all are done
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
        table.add_row(verdict, f"{verdicts[verdict]:,} files, {_hours(result.reports, verdict)}")
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
        table.add_row("as a store", f"{_store_bytes(readable) / 1e9:,.2f} GB (v3s prepare with its defaults)")
        table.add_row("frames", f"shortest {min(lengths):,}, median {median:,}, longest {max(lengths):,}")
    return table


def _store_bytes(readable: Iterable[FileReport]) -> int:
    """What the frames of readable files take in a store of the default format."""
    return sum(
        report.frames * frame_bytes("yuv", *stored_size(report.height, report.width, SHORT_SIDE)) for report in readable
    )


def write_report(reports: Iterable[FileReport], out: Path) -> None:
    """Write one JSON line a file; the file `out` is either the old one or the whole new one."""
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        with beside.open("w", encoding="ascii") as file:
            file.writelines(f"{json.dumps(dataclasses.asdict(report))}\n" for report in reports)
        beside.replace(out)
    finally:
        beside.unlink(missing_ok=True)


def _print_bad(result: Scan, console: Console, out: Path | None) -> None:
    """Name the files that are not usable, those that are too short last."""
    bad = [report for report in result.reports if report.verdict != "usable"]
    bad.sort(key=lambda report: report.verdict == "too short")
    for report in bad[:NUM_BAD_SHOWN]:
        stage = f" ({report.stage})" if report.stage else ""
        console.print(Text(_printable(f"{report.verdict}: {report.path}: {report.reason}{stage}")), soft_wrap=True)
    if len(bad) > NUM_BAD_SHOWN:
        where = f"all are in {out}" if out else "give --out report.jsonl to see all"
        console.print(Text(f"and {len(bad) - NUM_BAD_SHOWN:,} more; {where}"))


def _hours(reports: Iterable[FileReport], verdict: str) -> str:
    """Return the total length of the files with a verdict."""
    seconds = sum(report.seconds for report in reports if report.verdict == verdict)
    return f"{seconds / 3600:.2f} hours"


def _most_common(kinds: Iterable[str]) -> str:
    """Return the most frequent kinds with their counts."""
    counts = Counter(kinds)
    shown = ", ".join(f"{kind} ({count:,})" for kind, count in counts.most_common(NUM_KINDS_SHOWN))
    others = len(counts) - NUM_KINDS_SHOWN
    return f"{shown} and {others:,} other kinds" if others > 0 else shown


def _printable(text: str) -> str:
    """Replace what a terminal cannot encode: file names may hold any bytes."""
    return text.encode(errors="replace").decode()
