"""Measure what bad videos and failures do to a run: ``python -m benchmarks.reliability.videos --data DIR``.

``--data`` is a folder of real videos: their first frames are re-encoded, small, in ten kinds of file, and damaged.
Parts: fuzz, tricks, deaths, memory, odd (a table of verdicts on the files in ``--data``); default: all except odd.
"""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from collections import Counter
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.reliability.tricks import Watch, write_tricks
from benchmarks.reliability.variants import KINDS, NUM_FRAMES, count_frames, encode, first_frames, write_variants
from v3s.data import loading
from v3s.data.clips import BatchOrder, PretextClips
from v3s.data.index_table import IndexTable
from v3s.data.lists.splits import list_videos
from v3s.data.loading import load_batches
from v3s.data.quarantine import Quarantine
from v3s.data.scan import Scan, scan
from v3s.pretext.plan import Sampling
from v3s.pretext.task import TASKS

SAMPLING = Sampling(clip_frames=8, clip_size=32, canvas_size=64)
MIN_FRAMES = TASKS["v3s"].longest_span(SAMPLING.clip_frames, SAMPLING.seam)
DEADLY = ("killed by signal", "exited with code", "made no progress")
PARTS = ("fuzz", "tricks", "deaths", "memory", "odd")
Row = tuple[str, str, str]


def read_epoch(table: IndexTable, quarantine: Quarantine, num_workers: int = 2) -> int:
    """Read one sample of every video as in training; returns the number of samples."""
    clips = PretextClips(table, TASKS["v3s"], SAMPLING, seed=0)
    order = BatchOrder(num_samples=len(table), batch_size=16, num_epochs=1, seed=0)
    return sum(len(labels) for _, labels in load_batches(clips, order, num_workers=num_workers, quarantine=quarantine))


def fuzz(data: Path, folder: Path, num_variants: int) -> list[Row]:
    """Damaged files in a scan, in an epoch of the usable files, and in an epoch during which files go bad."""
    started = time.monotonic()
    real = random.Random(0).sample([data / path for path in list_videos(data, subset="all").paths], 3)
    originals = []
    for number, frames in enumerate(map(first_frames, real)):
        for kind in KINDS:
            originals.append(encode(frames, folder / f"{number}.{kind}", kind))
    sources = write_variants(folder / "variants", originals, num_variants, seed=0)
    found = scan(list_videos(folder / "variants"), min_frames=MIN_FRAMES, workers=2, cache=None)
    skipped = Quarantine(report=lambda text: None)
    num_read = read_epoch(found.usable_table, skipped)
    goes_bad = _epoch_that_goes_bad(folder, sources)
    seconds = time.monotonic() - started
    reasons = [report.reason for report in found.reports] + [f.reason for f in skipped.failures.values()]
    counts = Counter(report.verdict for report in found.reports)
    return [
        ("variants; seconds", f"{num_variants:,}; {seconds:.0f} s", "2,000 in 300 s"),
        ("crashes and hangs", f"{sum(any(how in reason for how in DEADLY) for reason in reasons)}", "0"),
        ("verdicts", ", ".join(f"{count:,} {verdict}" for verdict, count in counts.items()), ""),
        (
            "bad files without stage or reason",
            str(sum(r.is_bad and not (r.stage and r.reason) for r in found.reports)),
            "0",
        ),
        ("clips read of usable variants", f"{num_read:,}; {len(skipped.failures)} skipped on the way", ""),
        ("bad after the scan", goes_bad, "0 reported twice"),
        *_partial_rows(found),
    ]


def _epoch_that_goes_bad(folder: Path, sources: list[Path]) -> str:
    """Index good files, replace them by damaged files of the same size, and read an epoch."""
    target = folder / "goes-bad"
    target.mkdir()
    variants = sorted((folder / "variants").iterdir())
    changed = []
    for variant, source in zip(variants, sources, strict=True):
        if variant.stat().st_size == source.stat().st_size:
            shutil.copy(source, target / variant.name)
            changed.append(variant)
    table = scan(list_videos(target), min_frames=MIN_FRAMES, workers=2, cache=None).usable_table
    for variant in changed:
        shutil.copy(variant, target / variant.name)
    reports: list[str] = []
    quarantine = Quarantine(report=reports.append)
    num_read = read_epoch(table, quarantine)
    num_batches = len(table) // 16 * 16
    twice = len(reports) - len(quarantine.failures)
    return f"{num_read:,} of {num_batches:,} read, {len(reports):,} reported and skipped, {twice} reported twice"


def _partial_rows(found: Scan) -> list[Row]:
    """The verdicts on the files that give some frames, but under 90 % of the original number."""
    verdicts: dict[str, Counter[str]] = {}
    for report in found.reports:
        num_frames, promises = count_frames(found.videos.root / report.path)
        if 0 < num_frames < 0.9 * NUM_FRAMES:
            group = "the header promises more" if promises else "the header has no number (ts, mpg)"
            verdicts.setdefault(group, Counter())[report.verdict] += 1
    return [
        (
            f"under 90 % of the original: {group}",
            ", ".join(f"{n} {verdict}" for verdict, n in counts.items()),
            "95 % partial",
        )
        for group, counts in verdicts.items()
    ]


def tricks(folder: Path) -> list[Row]:
    """Check each malicious file alone, in its own process."""
    outside, inside = folder / "outside", folder / "data"
    rows, report, alone = [], folder / "report.json", folder / "alone"
    paths = write_tricks(inside, outside)
    with Watch(outside) as watch:
        for path in paths:
            alone.mkdir()
            path.rename(alone / path.name)
            code = f"from benchmarks.reliability.videos import check_one; check_one({str(alone)!r}, {str(report)!r})"
            subprocess.run([sys.executable, "-c", code], check=True, timeout=100)
            shutil.rmtree(alone)
            seconds, megabytes, line = json.loads(report.read_text())
            rows.append((path.name, f"{line['verdict']}: {line['reason'][:70]}; {seconds:.2f} s, {megabytes} MB", ""))
        rows.append(("opened files outside the folder", ", ".join(watch.opened()) or "none", "none"))
    return rows


def check_one(folder: str, report: str) -> None:
    """Scan a folder of one file as ``v3s check`` does; write seconds, peak memory in MB and the verdict."""
    import resource

    started = time.monotonic()
    (line,) = scan(list_videos(folder), min_frames=1, workers=1, cache=None).reports
    seconds = time.monotonic() - started
    megabytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    answer = [seconds, megabytes, {"verdict": line.verdict, "reason": line.reason}]
    Path(report).write_text(json.dumps(answer))


def deaths(data: Path) -> list[Row]:
    """Kill, then stop, one of two reading processes, each five times in an epoch."""
    loading.SILENT_SECONDS = 5.0
    found = scan(list_videos(data, subset="all"), min_frames=69, workers=2)
    table = found.usable_table.subset(range(min(400, found.num_usable)))
    rows = []
    for number in (signal.SIGKILL, signal.SIGSTOP):
        clips = PretextClips(table, TASKS["v3s"], Sampling(), seed=0)
        order = BatchOrder(num_samples=len(table), batch_size=16, num_epochs=1, seed=0)
        quarantine = Quarantine(num_files=len(table), report=lambda text: None)
        batches = load_batches(clips, order, num_workers=2, quarantine=quarantine)
        num_hit = num_read = 0
        for step, (_, labels) in enumerate(batches):
            num_read += len(labels)
            if step % (order.steps_per_epoch // 5) == 1 and num_hit < 5:
                threading.Timer(0.02, os.kill, (multiprocessing.active_children()[0].pid, number)).start()
                num_hit += 1
        orphans = multiprocessing.active_children()
        result = f"{num_hit} times; {num_read} of {16 * order.steps_per_epoch} clips read"
        result += f"; {len(quarantine.failures)} files skipped; {len(orphans)} orphans"
        rows.append((f"{number.name} of a worker", result, "5 files at most, 0 orphans"))
    return rows


def memory(data: Path, num_clips: int) -> list[Row]:
    """The memory of a million paths, and the growth of a reading process."""
    found = scan(list_videos(data, subset="all"), min_frames=MIN_FRAMES, workers=2)
    clips = PretextClips(found.usable_table, TASKS["v3s"], SAMPLING, seed=0)
    num_epochs = -(-num_clips // len(clips)) + 1
    order = BatchOrder(num_samples=len(clips), batch_size=10, num_epochs=num_epochs, seed=0)
    sizes: list[float] = []
    for step, _ in enumerate(load_batches(clips, order, num_workers=1, quarantine=None), start=1):
        if step % (num_clips // 100) == 0:
            (worker,) = multiprocessing.active_children()
            sizes.append(_megabytes(worker.pid or 0))
        if 10 * step >= num_clips:
            break
    first, last = sizes[len(sizes) // 10], sizes[-1]
    growth = (last - first) / (num_clips * 0.9 / 1000)
    text = f"{first:.0f} MB after a tenth, {last:.0f} MB at the end: {last / first - 1:+.1%}"
    text += f", {growth:+.2f} MB per 1,000 clips"
    return [*_million_paths(), (f"a reading process, {num_clips:,} clips", text, "5 %, 1 MB per 1,000")]


def _megabytes(process: int) -> float:
    (line,) = [line for line in Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def _million_paths() -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(100):
            (folder / f"class_{number:03}").mkdir()
            for file in range(10_000):
                (folder / f"class_{number:03}" / f"video_{file:05}.mp4").touch()
        started = time.monotonic()
        tracemalloc.start()
        videos = list_videos(folder)
        kept, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    text = f"{kept / 1e6:.0f} MB kept, {peak / 1e6:.0f} MB while listing, {time.monotonic() - started:.0f} s"
    return [(f"{len(videos):,} paths listed", text, "200 MB")]


def odd(data: Path, console: Console) -> None:
    """Print the verdict on every file of a folder, at any depth and with any name, as a Markdown table."""
    with tempfile.TemporaryDirectory() as name:
        listed = Path(name, "list.txt")
        listed.write_text("".join(f"{path.resolve()}\n" for path in sorted(data.rglob("*")) if path.is_file()))
        found = scan(list_videos(listed), min_frames=1, workers=2, cache=None)
    console.print("| file | verdict | frames | size | codec | why |\n|---|---|---|---|---|---|", soft_wrap=True)
    for report in found.reports:
        size = f"{report.width}x{report.height}, {report.pixel_format}" if report.codec else ""
        why = f"{report.reason} ({report.stage})" if report.stage else report.remarks
        cells = [Path(report.path).name, report.verdict, str(report.frames or ""), size, report.codec, why]
        console.print(f"| {' | '.join(cells)} |", soft_wrap=True, highlight=False, markup=False)


def _measure(part: str, data: Path, folder: Path, share: int) -> list[Row]:
    if part == "fuzz":
        return fuzz(data, folder, 2000 // share)
    if part == "tricks":
        return tricks(folder)
    return deaths(data) if part == "deaths" else memory(data, 10_000 // share)


def main() -> None:
    """Measure the chosen parts and print a table for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=list(PARTS[:-1]), help=", ".join(PARTS))
    parser.add_argument("--data", type=Path, required=True, help="a folder of real videos")
    parser.add_argument("--quick", action="store_true", help="a tenth of the variants and clips")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(soft_wrap=True)
    for part in arguments.parts:
        with tempfile.TemporaryDirectory() as name:
            if part == "odd":
                odd(arguments.data, console)
                continue
            rows = _measure(part, arguments.data, Path(name), 10 if arguments.quick else 1)
        table = Table(part, "measured", "target")
        for row in rows:
            table.add_row(*row)
        console.print(table)


if __name__ == "__main__":
    main()
