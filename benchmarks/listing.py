"""A list of a million files for the Ray engine, in the process that starts it: ``python -m benchmarks.listing``.

The files are empty, 1,000 in a folder. CPU seconds, because a disk and other work decide how long it takes; memory is
the most that this process had. Linux and macOS.
"""

import argparse
import resource
import sys
import tempfile
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import v3s.vectors.embed  # noqa: F401 (what the command itself imports)
from benchmarks.machine import describe_machine
from v3s.data.lists.splits import list_videos
from v3s.files.parquet import import_pyarrow
from v3s.scale.job import begin_job

_IN_A_FOLDER = 1000
_BYTES = 1 if sys.platform == "darwin" else 1024  # the unit in which the system counts memory


def make_files(folder: Path, number: int) -> None:
    """Make empty files that are named like videos."""
    for file in range(number):
        name = f"class{file // _IN_A_FOLDER:04d}"
        if file % _IN_A_FOLDER == 0:
            (folder / name).mkdir(parents=True)
        with open(f"{folder}/{name}/v_{name}_{file:08d}_name.mp4", "wb"):
            pass


def report(done: str, since: float) -> float:
    """Print a line, and return the CPU seconds until now."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _BYTES / 1e6
    print(f"{done}: {time.process_time() - since:.1f} CPU seconds; {most:.0f} MB at most so far")
    return time.process_time()


def main() -> None:
    """Make the files, list them, write them for the engine, and import Ray if it is installed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1_000_000)
    given = parser.parse_args()
    print(describe_machine())
    import_pyarrow()
    with tempfile.TemporaryDirectory() as temporary:
        folder, before = Path(temporary), report("imports", 0.0)
        make_files(folder / "data", given.files)
        before = report(f"{given.files:,} files made", before)
        listed = list_videos(folder / "data")
        before = report("listed", before)
        job = begin_job(folder / "rows", listed, {})
        before = report(f"written for the engine, {job.num_parts:,} parts", before)
        if find_spec("ray"):
            import_module("ray.data")
            report("Ray imported", before)


if __name__ == "__main__":
    main()
