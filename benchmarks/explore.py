"""What `v3s explore` computes, timed: ``python -m benchmarks.explore [--quick | --million]``.

The folder is as ``v3s embed`` writes it: 100,000 vectors of 512 numbers in float16, spans of 100 recordings, of which
stretches are copied into others. Pictures are not part of it: there are at most 294 of them, however many vectors.
"""

import argparse
import hashlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.nn import functional as F

from benchmarks.machine import describe_machine
from benchmarks.search import STEP, describe, made_entries, peak_gigabytes
from v3s.explore.clusters import clusters_of
from v3s.explore.duplicates import duplicates_among
from v3s.explore.matrix import centred
from v3s.explore.outliers import outlier_scores
from v3s.explore.projection import map_of
from v3s.explore.spans import matrix_of, table_of
from v3s.explore.to_label import choose_to_label
from v3s.vectors.collection import Vectors, open_vectors, save_shard
from v3s.vectors.entries import Shard, video_lines
from v3s.vectors.folder import begin_folder

NUM_VECTORS, QUICK_VECTORS, MANY_VECTORS = 100_000, 10_000, 1_000_000
NUM_FILES, FILES_PER_SHARD, DIMENSION, NUM_TOPICS = 100, 10, 512, 40
PERSISTENCE, COPIED, NUM_COPIES = 0.8, 30, 20
TARGET_SECONDS, TARGET_GIGABYTES = 60, 2.0


def make_recordings(folder: Path, num_vectors: int) -> Vectors:
    """Write vectors of overlapping spans: each resembles those before and after it, and those of the same topic.

    The last 20 files begin with a stretch of 30 spans of one of the first 20, slightly changed.
    """
    per_file = num_vectors // NUM_FILES
    entries = made_entries(0, NUM_FILES, num_frames=(per_file + 3) * STEP)
    lines = video_lines(entries)
    description = describe(lines, NUM_FILES, per_file * NUM_FILES, FILES_PER_SHARD)
    assert description.files_sha256 == hashlib.sha256(lines).hexdigest()
    begin_folder(folder, description, lines, overwrite=False)
    generator = torch.Generator().manual_seed(1)
    topics = 2 * torch.randn(NUM_TOPICS, DIMENSION, generator=generator)
    starts = torch.arange(per_file, dtype=torch.int32) * STEP
    first: list[torch.Tensor] = []
    for number in range(description.num_shards):
        shard = []
        for file in range(number * FILES_PER_SHARD, (number + 1) * FILES_PER_SHARD):
            rows = torch.randn(per_file, DIMENSION, generator=generator)
            for place in range(1, per_file):
                rows[place] += PERSISTENCE * rows[place - 1]
            rows += topics[torch.arange(file, file + per_file) // COPIED % NUM_TOPICS]
            if file < NUM_COPIES:
                first.append(rows[-COPIED:].clone())
            if (copied := file - NUM_FILES + NUM_COPIES) >= 0:
                change = torch.randn(COPIED, DIMENSION, generator=generator)
                rows[:COPIED] = first[copied] + 0.1 * change
            shard.append(rows)
        files = torch.arange(number * FILES_PER_SHARD, (number + 1) * FILES_PER_SHARD, dtype=torch.int32)
        vectors = F.normalize(torch.cat(shard), dim=1).half()
        times = starts.repeat(FILES_PER_SHARD)
        save_shard(
            folder, number, Shard(vectors, files.repeat_interleave(per_file), times, times + 4 * STEP), description
        )
    return open_vectors(folder)


def main() -> None:
    """Write the vectors, time each step, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_VECTORS:,} vectors; the targets do not apply")
    parser.add_argument("--million", action="store_true", help=f"{MANY_VECTORS:,} vectors; the targets do not apply")
    arguments = parser.parse_args()
    num_vectors = QUICK_VECTORS if arguments.quick else MANY_VECTORS if arguments.million else NUM_VECTORS
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        collection = make_recordings(Path(folder) / "vectors", num_vectors)
        before = peak_gigabytes()
        vectors, table = matrix_of(collection), table_of(collection)
        steps: dict[str, Callable[[], object]] = {
            "map by PCA": lambda: map_of(vectors),
            "clusters": lambda: clusters_of(vectors),
            "outliers": lambda: outlier_scores(vectors),
            "near-duplicates": lambda: duplicates_among(centred(vectors), table),
            "fifty to label": lambda: choose_to_label(vectors),
        }
        shown = Table("step", "wall", "target", "on all threads")
        wall, work = 0.0, 0.0
        found: dict[str, object] = {}
        for name, step in steps.items():
            begin, began = time.perf_counter(), time.process_time()
            found[name] = step()
            seconds, worked = time.perf_counter() - begin, time.process_time() - began
            shown.add_row(name, f"{seconds:.1f} s", "", f"{worked:.1f} s")
            wall, work = wall + seconds, work + worked
    is_target = num_vectors == NUM_VECTORS
    shown.add_row("all together", f"{wall:.1f} s", f"< {TARGET_SECONDS} s" * is_target, f"{work:.1f} s")
    shown.add_row("peak memory", f"{peak_gigabytes():.2f} GB", f"< {TARGET_GIGABYTES} GB" * is_target, "")
    duplicates = found["near-duplicates"]
    assert isinstance(duplicates, tuple)
    lengths = np.array([each.num_pairs for each in duplicates])
    console.print(f"{describe_machine()}; {num_vectors:,} x {DIMENSION} float16", highlight=False)
    console.print(shown)
    console.print(
        f"{len(duplicates)} near-duplicates, {(lengths == COPIED).sum()} of {COPIED} spans; {NUM_COPIES} were copied; "
        f"peak memory was {before:.2f} GB once the vectors were written",
        highlight=False,
    )


if __name__ == "__main__":
    main()
