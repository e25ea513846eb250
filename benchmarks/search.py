"""Exact search in stored vectors, compared with plain numpy: ``python -m benchmarks.search [--quick]``.

The folder is as ``v3s embed`` writes it, with 1,000,000 vectors of 512 numbers in float16. Plain numpy, in its usual
form: convert all vectors to float32 in memory, then one matrix product, ``argpartition`` and a sort of the best.
"""

import argparse
import hashlib
import resource
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
from v3s.vectors.collection import (
    Description,
    Entry,
    Shard,
    Vectors,
    open_vectors,
    save_shard,
    video_lines,
)
from v3s.vectors.folder import begin_folder

NUM_VECTORS, QUICK_VECTORS, DIMENSION, SHARD_VIDEOS = 1_000_000, 100_000, 512, 1000
K = 10
TARGET_SECONDS, TARGET_GIGABYTES = {1: 0.3, 64: 2.0}, 2.5
ROUNDS = 3


def make_vectors(folder: Path, num_vectors: int, console: Console) -> Vectors:
    """Write a folder of random unit vectors, one per video."""
    lines = video_lines(Entry(f"{number}.mp4", None, 100, 4.0) for number in range(num_vectors))
    description = Description(
        backbone="random:r3d",
        seed=0,
        network="r3d@1",
        stages={"conv5": DIMENSION},
        space=Space("0" * 64, View(), Feature()),
        per_clip=False,
        dimension=DIMENSION,
        dtype="float16",
        root="/",
        source="random numbers",
        files_sha256=hashlib.sha256(lines).hexdigest(),
        num_videos=num_vectors,
        num_vectors=num_vectors,
        num_padded=0,
        num_missing=0,
        left_out={},
        shard_videos=SHARD_VIDEOS,
    )
    begin_folder(folder, description, lines, overwrite=False)
    generator = torch.Generator().manual_seed(0)
    for number in track(range(description.num_shards), "writing", console=console, transient=True):
        first = number * SHARD_VIDEOS
        videos = torch.arange(first, min(first + SHARD_VIDEOS, num_vectors), dtype=torch.int32)
        vectors = F.normalize(torch.randn(len(videos), DIMENSION, generator=generator), dim=1).half()
        spans = torch.zeros_like(videos), torch.full_like(videos, 100)
        save_shard(folder, number, Shard(vectors, videos, *spans), description)
    return open_vectors(folder)


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
        vectors = make_vectors(Path(folder) / "vectors", num_vectors, console)
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
    console.print(f"{describe_machine()}; {num_vectors:,} x {DIMENSION} float16, k = {K}", highlight=False)
    table = Table("queries", "ours", "target", "numpy float32", "ours is")
    for count, target in TARGET_SECONDS.items():
        aim = "" if arguments.quick else f"< {target} s"
        ratio = f"{peer[count] / ours[count]:.1f}x"
        table.add_row(str(count), f"{ours[count]:.3f} s", aim, f"{peer[count]:.3f} s", ratio)
    aim = "" if arguments.quick else f"< {TARGET_GIGABYTES} GB"
    table.add_row("peak memory", f"{peak:.2f} GB", aim, f"{peak_gigabytes():.2f} GB", "")
    console.print(table)
    console.print(f"{same.mean():.1%} of the neighbours are the same; half precision can swap almost equal scores")


if __name__ == "__main__":
    main()
