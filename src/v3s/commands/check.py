"""``v3s check``: is this data fit to train on? Every file is read and every bad one is named."""

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

from v3s.data.lists.listing import Subset
from v3s.data.lists.splits import VideoOptions, list_videos
from v3s.data.scan import FileReport, Scan
from v3s.data.usable import scan_with_bar, summary
from v3s.files.writing import write_atomically
from v3s.options import require_not_negative

NUM_BAD_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class CheckConfig(VideoOptions):
    """Read every video once and report which are usable, too short, partial or unreadable.

    Attributes:
        min_frames: Frames that a usable video needs; 69 is the longest span of the paper's task.
        out: File for one JSON line for each video.
        workers: Processes that read. Default: one for each core.
    """

    min_frames: int = 69
    out: str | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        require_not_negative(self, "min_frames", "workers")


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
        data: A folder or a list file, as in :func:`v3s.data.lists.splits.list_videos`; so are `splits`, `split`,
            `subset` and `allow_missing`.
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


def write_report(reports: Iterable[FileReport], out: Path) -> None:
    """Write one JSON line a file; the file `out` is either the old one or the whole new one."""
    lines = "".join(f"{json.dumps(dataclasses.asdict(report))}\n" for report in reports)
    write_atomically(out, lambda beside: beside.write_text(lines, encoding="ascii"))


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


def _printable(text: str) -> str:
    """Replace what a terminal cannot encode: file names may hold any bytes."""
    return text.encode(errors="replace").decode()
