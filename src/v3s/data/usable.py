"""What a command says of the videos that it was given: which are skipped and why, and what shorter ones need."""

from collections import Counter
from collections.abc import Mapping
from typing import get_args

from rich.console import Console
from rich.table import Table

from v3s.data.index_cache import ReadResult
from v3s.data.index_table import IndexTable
from v3s.data.lists.splits import VideoList
from v3s.data.reports import Verdict, rate_advice, say_notes, summary
from v3s.data.scan import Scan, default_workers, judge, scan
from v3s.data.views import View, count_padded
from v3s.files.text import counted, print_table, progress_bar, say, text_table, verb

_FEW = 5  # videos that are too short, so that they are named; more are only counted


def usable_videos(
    listed: VideoList,
    *,
    min_frames: int,
    console: Console,
    workers: int | None = None,
    shorter: Mapping[str, int] | None = None,
    outcomes: Mapping[str, ReadResult] | None = None,
) -> Scan:
    """Read every listed file (or recall what an earlier scan found) and report which are skipped, and why.

    Args:
        listed: the files.
        min_frames: frames that a usable video has at least.
        console: where to say it.
        workers: processes that read; one a processor by default.
        shorter: settings that need fewer frames -> how many; if videos are too short, a table shows how many videos
            each setting would use, if any would use more.
        outcomes: what reading each file gave, if an engine has read them.

    Raises:
        ValueError: no video is usable, or more than half of them are bad: then a table was printed; the message has
            the counts and the first reason.
    """
    say(console, listed.description)
    if outcomes is None:
        found = scan_with_bar(listed, min_frames=min_frames, workers=workers, console=console)
    else:
        found = judge(listed, min_frames, outcomes)
    say_notes(console, found.videos)
    readable = [report for report in found.reports if not report.is_bad]
    if advice := rate_advice(readable, min_frames, listed.spans.fps):
        say(console, advice)
    counts = Counter(report.verdict for report in found.reports)
    faults = ", ".join(f"{counts[verdict]:,} {verdict}" for verdict in get_args(Verdict) if verdict != "usable")
    noun = found.videos.noun
    usable = f"{counts['usable']:,} of {counted(len(found.reports), noun)} usable"
    say(console, f"{usable}, {faults} (a {noun} needs {counted(min_frames, 'frame')})")
    if copies := [report.path for report in found.reports if report.copy_of]:
        of_files = f" of {counted(len(set(copies)), 'file')}" if found.videos.bounds else ""
        say(
            console,
            f"{counted(len(copies), noun)}{of_files} with the same content as another one; v3s check names them",
        )
    bad = [report for report in found.reports if report.is_bad]
    short = [report for report in found.reports if report.verdict == "too short"]
    for report in (*bad, *(short if len(short) <= _FEW else ())):
        say(console, f"skipped: {report.name}: {report.reason}")
    table = shorter_table(found, shorter or {})
    if table is not None:
        print_table(console, table)
    if not found.num_usable:
        first = found.reports[0]
        way_out = "" if table is None else "; the table shows which settings use more videos"
        raise ValueError(f"no usable video: {faults}; first: {first.name}: {first.reason}{way_out}")
    if is_mostly_bad(found):
        print_table(console, summary(found.reports, found.videos))
        raise ValueError(
            f"{len(bad):,} of {len(found.reports):,} files are bad, more than half, so nothing was started; "
            f"first: {bad[0].name}: {bad[0].reason}; v3s check --out report.jsonl lists all; remove them or give a list"
        )
    return found


def is_mostly_bad(found: Scan) -> bool:
    """Whether more than half of the files are bad, so that nothing is started with them."""
    return 2 * sum(report.is_bad for report in found.reports) > len(found.reports)


def require_length(found: Scan, num_frames: int) -> None:
    """Check that at least one usable video is long enough for every label.

    Raises:
        ValueError: none is.
    """
    most = int(found.usable_table.num_frames.max())
    if most < num_frames:
        raise ValueError(
            f"no video is long enough for every label: the longest has {most} frames, the task needs {num_frames}; "
            "choose fewer --clip-frames or --task v3s-short"
        )


def shorter_table(found: Scan, shorter: Mapping[str, int], *, chosen: str = "these settings") -> Table | None:
    """How many of the videos that can be read each setting would use that uses more of them; None if none does.

    Args:
        found: the scan.
        shorter: settings -> number of frames that a video needs with them.
        chosen: the settings that the scan was for.
    """
    lengths = found.table.num_frames
    num_usable = {words: int((lengths >= need).sum()) for words, need in shorter.items()}
    better = {words: need for words, need in shorter.items() if num_usable[words] > found.num_usable}
    if not better:
        return None
    num_usable[chosen] = found.num_usable
    rows = [
        (words, f"{need:,}", f"{num_usable[words]:,} of {len(lengths):,}")
        for words, need in {chosen: found.min_frames, **better}.items()
    ]
    return text_table("Shorter videos need other settings", ("settings", "frames needed", "usable videos"), rows)


def report_padded(tables: Mapping[str, IndexTable], view: View, console: Console) -> None:
    """Report how many videos are shorter than a clip, so that their last frame is repeated.

    Args:
        tables: what the videos are called in the report -> the videos.
        view: the length of a clip.
        console: where to report.
    """
    for name, table in tables.items():
        if padded := count_padded(table, view):
            text = f"{padded:,} of {len(table):,} {name} {verb(padded, 'are')} shorter than {view.clip_frames} frames"
            say(console, f"{text}: their last frame is repeated")


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
