"""``v3s check``: is this data fit for training? Read every file and report every bad one."""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from v3s.data.lists.splits import VideoList, VideoOptions
from v3s.data.reports import FileReport, rate_advice, say_notes, summary
from v3s.data.scan import Scan, judge
from v3s.data.usable import scan_with_bar, shorter_table
from v3s.files.remote.mirror import address_of
from v3s.files.text import print_table, say, size_text
from v3s.files.writing import write_atomically
from v3s.options import require_files, require_not_negative
from v3s.pretext.task import TASKS, needs_of_shorter_clips
from v3s.scale.engine import EngineOptions, run_job
from v3s.scale.job import begin_job, is_job, read_outcomes, remove_job

_NUM_SHOWN = 20
_PAPER_FRAMES = 16
_PAPER_SPAN = TASKS["v3s"].longest_span(_PAPER_FRAMES)  # 69
_DEFAULTS = f"--task v3s --clip-frames {_PAPER_FRAMES}"


@dataclass(frozen=True, kw_only=True)
class CheckConfig(VideoOptions, EngineOptions):
    """Read every video once and report which are usable, too short, partial or unreadable.

    Attributes:
        out: File for the report (.jsonl), with one JSON line per video.

    More options:
        min_frames: Number of frames that a usable video needs; 69 is the longest span of the paper's task.
        workers: Processes that read videos. Default: one per core.
    """

    min_frames: int = _PAPER_SPAN
    out: str | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_not_negative(self, "min_frames", "workers")
        require_files(self, out=".jsonl")
        if self.engine is not None and self.out is None:
            raise ValueError("--engine needs --out: the rows of the engine are beside the report until it is written")


def check(config: CheckConfig, *, console: Console | None = None) -> Scan:
    """Read every file once and print which are usable, too short, partial and unreadable.

    Args:
        config: which videos, and where to write the report: one JSON line per file, with the fields of
            :class:`v3s.data.scan.FileReport`.
        console: where to print; the terminal by default.

    Raises:
        ValueError: the data cannot be listed.
    """
    console = console or Console()
    listed = config.list_videos()
    say(console, listed.description)
    scanned = _scan_by_engine(config, listed, console) if config.engine else _scan_here(config, listed, console)
    if address_of(listed.root / listed.paths[0]) or scanned.num_fetched_bytes:
        say(console, f"fetched {size_text(scanned.num_fetched_bytes)}; the rest is in the cache, or known from before")
    print_table(console, summary(scanned.reports, scanned.videos))
    if any(report.verdict == "too short" for report in scanned.reports) and config.min_frames == _PAPER_SPAN:
        meaning = f"too short means shorter than the {_PAPER_SPAN} frames of {_DEFAULTS}, the defaults of v3s pretrain"
        table = shorter_table(scanned, needs_of_shorter_clips("v3s", _PAPER_FRAMES), chosen=_DEFAULTS)
        if table is not None:
            print_table(console, table)
            meaning += "; --recipe own chooses settings that nearly all videos are long enough for"
        say(console, meaning)
    _print_bad(scanned, console, config.out)
    say_notes(console, scanned.videos)
    readable = (report for report in scanned.reports if not report.is_bad)
    if advice := rate_advice(readable, config.min_frames, config.fps):
        say(console, advice)
    _print_remarks(scanned, console, config.out)
    if config.out is not None:
        _write_reports(scanned.reports, Path(config.out))
        if is_job(rows := _rows_beside(config.out)):
            remove_job(rows)
    return scanned


def _scan_here(config: CheckConfig, listed: VideoList, console: Console) -> Scan:
    return scan_with_bar(listed, min_frames=config.min_frames, workers=config.workers, console=console, verify=True)


def _scan_by_engine(config: CheckConfig, listed: VideoList, console: Console) -> Scan:
    assert config.out is not None
    rows = _rows_beside(config.out)
    job = begin_job(rows, listed, {})
    run_job(rows, job, config, None, console, verify=True)
    return judge(listed, config.min_frames, read_outcomes(rows, job))


def _rows_beside(out: str) -> Path:
    return Path(f"{out}.rows")


def _write_reports(reports: Iterable[FileReport], out: Path) -> None:
    """Write one JSON line per file."""

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="ascii") as file:
            file.writelines(f"{json.dumps(dataclasses.asdict(report))}\n" for report in reports)

    write_atomically(out, write)


def _print_bad(result: Scan, console: Console, out: str | None) -> None:
    """Print the files that are not usable; those that are too short come last."""
    bad = [report for report in result.reports if report.verdict != "usable"]
    bad.sort(key=lambda report: report.verdict == "too short")
    _print_first([f"{report.verdict}: {report.name}: {report.reason}" for report in bad], "more", console, out)


def _print_remarks(result: Scan, console: Console, out: str | None) -> None:
    """Print what is unusual about files that can be read: a rate that varies, a video that is black throughout."""
    by_file = {report.path: report for report in result.reports if report.remarks}  # once, not for each span
    notes = [f"note: {report.name}: {report.remarks}" for report in by_file.values()]
    _print_first(notes, "more with notes", console, out)


def _print_first(lines: Sequence[str], more: str, console: Console, out: str | None) -> None:
    """Print the first of some lines, and how many more there are."""
    say(console, *lines[:_NUM_SHOWN])
    if len(lines) > _NUM_SHOWN:
        where = f"{out} lists all of them" if out else "use --out report.jsonl to list all of them"
        say(console, f"and {len(lines) - _NUM_SHOWN:,} {more}; {where}")
