"""Exact search in stored vectors, compared with plain numpy: ``python -m benchmarks.search [--quick]``.

The folder is as ``v3s embed`` writes it, with 1,000,000 vectors of 512 numbers in float16. Plain numpy, in its usual
form: convert all vectors to float32 in memory, then one matrix product, ``argpartition`` and a sort of the best.

Two rows have no peer: moments among as many overlapping spans of 100 recordings, and appending 1 % to 100,000 vectors.
"""

import argparse
import hashlib
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from benchmarks.machine import describe_machine
from v3s.data.views import View
from v3s.features.encoder import Feature, Space
from v3s.vectors.append import append_vectors
from v3s.vectors.collection import Vectors, open_vectors, save_shard
from v3s.vectors.description import Description
from v3s.vectors.entries import Entry, Shard, video_lines
from v3s.vectors.folder import begin_folder
from v3s.vectors.moments import find_moments
from v3s.vectors.nearest.exact import best_scores

NUM_RECORDINGS, RECORDINGS_PER_SHARD, STEP, PERSISTENCE, NUM_MOMENTS = 100, 10, 4, 0.8, 50
NUM_APPENDED_TO = 100_000
MOMENTS_SECONDS, APPEND_SECONDS = 0.4, 2.0
NUM_VECTORS, QUICK_VECTORS, DIMENSION, SHARD_VIDEOS = 1_000_000, 100_000, 512, 1000
K = 10
TARGET_SECONDS, TARGET_GIGABYTES = {1: 0.3, 64: 2.0}, 2.5
ROUNDS = 3


def describe(lines: bytes, num_videos: int, num_vectors: int, shard_videos: int) -> Description:
    """The description of made vectors; of several per video if there are more vectors than videos."""
    return Description(
        backbone="random:r3d",
        seed=0,
        network="r3d@1",
        stages={"conv5": DIMENSION},
        space=Space("0" * 64, View(), Feature()),
        per_clip=num_vectors > num_videos,
        dimension=DIMENSION,
        dtype="float16",
        root="/",
        source="random numbers",
        files_sha256=hashlib.sha256(lines).hexdigest(),
        num_videos=num_videos,
        num_vectors=num_vectors,
        num_padded=0,
        num_missing=0,
        left_out={},
        shard_videos=shard_videos,
    )


def made_entries(first: int, end: int, num_frames: int = 100) -> list[Entry]:
    """Videos that do not exist."""
    return [Entry(f"{number}.mp4", None, num_frames, num_frames / 25, f"{number:016x}") for number in range(first, end)]


def make_vectors(folder: Path, entries: list[Entry], seed: int, console: Console) -> Vectors:
    """Write a folder of random unit vectors, one per video."""
    lines = video_lines(entries)
    description = describe(lines, len(entries), len(entries), SHARD_VIDEOS)
    begin_folder(folder, description, lines, overwrite=False)
    generator = torch.Generator().manual_seed(seed)
    for number in track(range(description.num_shards), "writing", console=console, transient=True):
        first = number * SHARD_VIDEOS
        videos = torch.arange(first, min(first + SHARD_VIDEOS, len(entries)), dtype=torch.int32)
        vectors = F.normalize(torch.randn(len(videos), DIMENSION, generator=generator), dim=1).half()
        spans = torch.zeros_like(videos), torch.full_like(videos, 100)
        save_shard(folder, number, Shard(vectors, videos, *spans, torch.ones(len(videos))), description)
    return open_vectors(folder)


def make_recordings(folder: Path, num_vectors: int, console: Console) -> Vectors:
    """Write vectors of the overlapping spans of 100 recordings: each is similar to those before and after it."""
    per_file = num_vectors // NUM_RECORDINGS
    entries = made_entries(0, NUM_RECORDINGS, num_frames=(per_file + 3) * STEP)
    lines = video_lines(entries)
    description = describe(lines, NUM_RECORDINGS, per_file * NUM_RECORDINGS, RECORDINGS_PER_SHARD)
    begin_folder(folder, description, lines, overwrite=False)
    generator = torch.Generator().manual_seed(1)
    starts = (torch.arange(per_file, dtype=torch.int32) * STEP).repeat(RECORDINGS_PER_SHARD)
    for number in track(range(description.num_shards), "writing", console=console, transient=True):
        rows = torch.randn(RECORDINGS_PER_SHARD, per_file, DIMENSION, generator=generator)
        for place in range(1, per_file):
            rows[:, place] += rows[:, place - 1] * PERSISTENCE
        files = torch.arange(RECORDINGS_PER_SHARD, dtype=torch.int32) + number * RECORDINGS_PER_SHARD
        vectors = F.normalize(rows.flatten(0, 1), dim=1).half()
        shard = Shard(vectors, files.repeat_interleave(per_file), starts, starts + 4 * STEP)
        save_shard(folder, number, shard, description)
    return open_vectors(folder)


def time_moments(folder: Path, num_vectors: int, console: Console) -> tuple[float, int]:
    """Seconds to find 50 moments by one of them, and how many of the rows that come first overlap a better one."""
    vectors = make_recordings(folder, num_vectors, console)
    query = vectors.take(torch.tensor([num_vectors // 3]))
    seconds = timed(lambda: find_moments(vectors, query, NUM_MOMENTS), ROUNDS)
    moments = find_moments(vectors, query, NUM_MOMENTS)
    better = int((best_scores(query, [shard.vectors for shard in vectors.shards]) >= moments[-1].score).sum())
    return seconds, better - len(moments)


def time_append(folder: Path, console: Console) -> tuple[float, float]:
    """Seconds to append 1 % to 100,000 vectors, and those of them in which the 1 % is written."""
    make_vectors(folder, made_entries(0, NUM_APPENDED_TO), 0, console)
    entries = made_entries(0, NUM_APPENDED_TO + NUM_APPENDED_TO // 100)
    inside = 0.0

    def compute(numbers: list[int], into: Path) -> None:
        nonlocal inside
        begin = time.perf_counter()
        make_vectors(into, [entries[number] for number in numbers], 2, console)
        inside += time.perf_counter() - begin

    begin = time.perf_counter()
    lines = video_lines(entries)
    description = describe(lines, len(entries), len(entries), SHARD_VIDEOS)
    append_vectors(folder, description, entries, lines, compute, console)
    vectors = open_vectors(folder)
    seconds = time.perf_counter() - begin
    if len(vectors) != len(entries):
        raise SystemExit(f"{len(vectors):,} vectors instead of {len(entries):,}")
    return seconds, inside


def numpy_search(queries: NDArray[np.float32], vectors: Vectors, k: int) -> NDArray[np.int64]:
    """The rows of the best ``k`` vectors for each query, best first."""
    matrix = np.concatenate([shard.vectors.numpy() for shard in vectors.shards]).astype(np.float32)
    scores = queries @ matrix.T
    best = np.argpartition(-scores, k, axis=1)[:, :k]
    order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1)
    return np.take_along_axis(best, order, axis=1)


def timed(search: Callable[[], object], rounds: int) -> float:
    """Median seconds over the rounds, after one round to warm up."""
    seconds = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        search()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def peak_gigabytes() -> float:
    """Peak resident memory of this process so far, including the vectors that are mapped into it."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def main() -> None:
    """Write the vectors, time our search and that of numpy, check that both find the same, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_VECTORS:,} vectors; the targets do not apply")
    parser.add_argument("--folder", help="folder for 1 GB of temporary files; default: that of the system")
    arguments = parser.parse_args()
    num_vectors = QUICK_VECTORS if arguments.quick else NUM_VECTORS
    console = Console()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        vectors = make_vectors(Path(folder) / "vectors", made_entries(0, num_vectors), 0, console)
        queries: dict[int, Tensor] = {
            count: F.normalize(torch.randn(count, DIMENSION, generator=torch.Generator().manual_seed(count)), dim=1)
            for count in TARGET_SECONDS
        }
        ours = {count: timed(lambda given=given: vectors.nearest(given, K), ROUNDS) for count, given in queries.items()}  # type: ignore[misc]
        peak = peak_gigabytes()
        peer = {
            count: timed(lambda given=given: numpy_search(given.numpy(), vectors, K), 1)  # type: ignore[misc]
            for count, given in queries.items()
        }
        many = max(queries)
        same = vectors.nearest(queries[many], K).indices.numpy() == numpy_search(queries[many].numpy(), vectors, K)
        shutil.rmtree(vectors.folder)
        moments_seconds, num_suppressed = time_moments(Path(folder) / "recordings", num_vectors, console)
        append_seconds, inside = time_append(Path(folder) / "growing", Console(quiet=True))
    console.print(f"{describe_machine()}; {num_vectors:,} x {DIMENSION} float16, k = {K}", highlight=False)
    table = Table("queries", "ours", "target", "numpy float32", "ours is")
    for count, target in TARGET_SECONDS.items():
        aim = "" if arguments.quick else f"< {target} s"
        ratio = f"{peer[count] / ours[count]:.1f}x"
        table.add_row(str(count), f"{ours[count]:.3f} s", aim, f"{peer[count]:.3f} s", ratio)
    aim = "" if arguments.quick else f"< {TARGET_GIGABYTES} GB"
    table.add_row("peak memory", f"{peak:.2f} GB", aim, f"{peak_gigabytes():.2f} GB", "")
    aim = "" if arguments.quick else f"< {MOMENTS_SECONDS} s"
    table.add_row(f"{NUM_MOMENTS} moments of {NUM_RECORDINGS} recordings", f"{moments_seconds:.3f} s", aim, "", "")
    table.add_row(
        f"append 1 % to {NUM_APPENDED_TO:,}, without computing it",
        f"{append_seconds - inside:.2f} s",
        f"< {APPEND_SECONDS} s",
        "",
        "",
    )
    console.print(table)
    console.print(f"{num_suppressed:,} spans overlapped a better one of the {NUM_MOMENTS} moments")
    console.print(f"{same.mean():.1%} of the neighbours are the same; half precision can swap almost equal scores")


if __name__ == "__main__":
    main()
