"""``v3s prepare`` compared with decoding alone: a table of :mod:`benchmarks.data_path`."""

import shutil
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path

from rich.console import Console
from rich.table import Table

from v3s.commands.prepare import PrepareConfig, prepare
from v3s.video.container import open_video


def prepare_table(folders: Mapping[str, Path], scratch: Path, num_processes: Sequence[int]) -> Table:
    """Frames per second of ``v3s prepare`` and of decoding alone, with the same number of processes and their start.

    Args:
        folders: folders of videos, by their name in the table.
        scratch: folder for temporary stores.
        num_processes: number of processes, for each measurement.
    """
    columns = ("files", "processes", "decoding alone, frames/s", "prepare, frames/s", "ratio", "again, s", "target")
    table = Table(*columns, title="v3s prepare")
    for (name, folder), workers in product(folders.items(), num_processes):
        files = [str(path) for path in sorted(folder.iterdir())]
        out = scratch / "prepared"
        config = PrepareConfig(data=str(folder), out=str(out), workers=workers)
        start = time.perf_counter()
        num_frames = sum(_decode_all(files, workers))
        decoded = time.perf_counter()
        prepare(config, console=Console(quiet=True))
        prepared = time.perf_counter()
        prepare(config, console=Console(quiet=True))
        again = time.perf_counter() - prepared
        shutil.rmtree(out)
        speeds = num_frames / (decoded - start), num_frames / (prepared - decoded)
        shown = (f"{speed:,.0f}" for speed in speeds)
        ratio = f"{speeds[1] / speeds[0]:.0%}"
        table.add_row(name, str(workers), *shown, ratio, f"{again:.2f}", ">= 80 %, instant")
    return table


def _decode_all(files: list[str], workers: int) -> list[int]:
    if workers == 1:
        return list(map(count_frames, files))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as executor:
        return list(executor.map(count_frames, files))


def count_frames(path: str) -> int:
    """Decode a file and only count its frames."""
    with open_video(path) as (container, stream):
        return sum(1 for _ in container.decode(stream))
