"""Weak scaling of pre-training from a store: ``python -m benchmarks.scaling [--quick]``.

1 and 2 processes (``torchrun``, DDP over gloo) on the cores of this machine, with one torch thread each and the same
number of clips per step and process. Both see the same samples in an epoch. Speeds are those that the runs recorded,
without the first epoch; an efficiency of 100 % means that two processes train on twice the clips in the same time.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.machine import describe_machine
from v3s.commands.prepare import PrepareConfig, prepare
from v3s.data.clips import BatchOrder
from v3s.data.synthetic import make_clips
from v3s.train.run import METRICS, read_metrics

PROCESSES = (1, 2)
NUM_VIDEOS, NUM_VALIDATION, CLIPS_OF_EACH = 40, 8, 8
BATCH = 8  # clips per step and process


def same_samples(num_samples: int, num_epochs: int) -> bool:
    """Whether all processes together draw the same samples, whatever their number."""
    drawn = []
    for count in PROCESSES:
        orders = (
            BatchOrder(
                num_samples=num_samples,
                batch_size=BATCH * count,
                num_epochs=num_epochs,
                seed=0,
                rank=rank,
                num_processes=count,
            )
            for rank in range(count)
        )
        drawn.append({key for order in orders for keys in order for key in keys})
    return all(keys == drawn[0] for keys in drawn)


def train(store: Path, out: Path, processes: int, epochs: int, network: list[str]) -> tuple[list[float], list[float]]:
    """Clips per second, and the share of time spent waiting for data, of each epoch except the first."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    arguments = ["-m", "v3s", "pretrain", "--data", store, "--out", out, "--device", "cpu", "--batch-size"]
    arguments += [BATCH * processes, "--epochs", epochs, "--validation-videos", NUM_VALIDATION, "--train-clips"]
    arguments += [CLIPS_OF_EACH, "--workers", "0", "--batch-norm", "local", *network]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*launcher, *map(str, arguments)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if run.returncode:
        raise SystemExit(f"{' '.join(command)}\n{run.stdout}{run.stderr}")
    lines = read_metrics(out / METRICS)[1:]
    return [line["clips_per_second"] for line in lines], [line["waiting_share"] for line in lines]


def main() -> None:
    """Train with one process and with two, in turn, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tiny network, few epochs, one round")
    quick = parser.parse_args().quick
    network = ["--backbone", "r3d", "--width", "0.125" if quick else "0.25", "--clip-frames", "8", "--clip-size", "56"]
    epochs, rounds = (2, 1) if quick else (5, 3)
    speeds: dict[int, list[float]] = {count: [] for count in PROCESSES}
    waits: dict[int, list[float]] = {count: [] for count in PROCESSES}
    with tempfile.TemporaryDirectory() as folder:
        videos, store = Path(folder) / "videos", Path(folder) / "store"
        make_clips(videos, num_videos=NUM_VIDEOS, num_frames=80, height=120, width=160)
        prepare(PrepareConfig(data=str(videos), out=str(store)), console=Console(quiet=True))
        for turn in range(rounds):
            for count in PROCESSES:
                speed, waiting = train(store, Path(folder) / f"run-{turn}-{count}", count, epochs, network)
                speeds[count] += speed
                waits[count] += waiting
    console = Console()
    samples = (NUM_VIDEOS - NUM_VALIDATION) * CLIPS_OF_EACH
    title = "the same samples" if same_samples(samples, epochs) else "NOT the same samples"
    console.print(f"{describe_machine()}; {' '.join(network)}, {BATCH} clips per step and process", highlight=False)
    table = Table("processes", "clips/s (median)", "efficiency", "waiting for data", title=title)
    alone = statistics.median(speeds[1])
    for count in PROCESSES:
        together, waited = statistics.median(speeds[count]), statistics.median(waits[count])
        table.add_row(str(count), f"{together:.1f}", f"{together / alone / count:.0%}", f"{waited:.1%}")
    console.print(table)


if __name__ == "__main__":
    main()
