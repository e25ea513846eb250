"""Speed of training steps: ``python -m benchmarks.train_step [--quick]``.

Two tables: the network alone, by precision and memory layout; and whole steps of ``v3s pretrain``, with one resident
batch, with a store in memory, and with a store that separate processes read. A reading process takes a core from the
network, so the second table also shows CPU time: of the network with its optimizer, and of reading.
"""

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.machine import describe_machine
from v3s import create_backbone
from v3s.backbones.device import Compute, choose_compute, divide_cores
from v3s.commands.prepare import PrepareConfig, prepare
from v3s.data.clips import PretextClips, SampleKey
from v3s.data.lists.splits import list_videos
from v3s.data.loading import load_batches
from v3s.data.resident import ResidentFrames, resident_batches
from v3s.data.scan import scan
from v3s.data.synthetic import make_clips
from v3s.pretext.model import PretextModel, pretext_objective
from v3s.pretext.plan import Sampling
from v3s.pretext.task import TASKS
from v3s.train.distributed import Processes
from v3s.train.finite import FiniteGuard
from v3s.train.loop import train_step

CPU, BATCH = torch.device("cpu"), 8
NUM_WARMING = 3  # steps that do not count: a reading process may have prepared their batches in advance
VARIANTS = {
    "fp32": (Compute(CPU, bf16=False), torch.contiguous_format),
    "fp32, channels last": (Compute(CPU, bf16=False), torch.channels_last_3d),
    "bf16": (Compute(CPU, bf16=True), torch.contiguous_format),
    "bf16, channels last": (Compute(CPU, bf16=True), torch.channels_last_3d),
}
Batches = Generator[tuple[Tensor, Tensor], None, None]


class Step:
    """One network in one precision and layout, with a resident batch."""

    def __init__(
        self, name: str, width: float, shape: tuple[int, int, int], compute: Compute, layout: torch.memory_format
    ):
        backbone = create_backbone(name, width)
        self.model = nn.Sequential(backbone, nn.Linear(backbone.num_features, 29))
        self.model.to(memory_format=layout)  # type: ignore[call-overload]
        self.clips = torch.rand(BATCH, 3, *shape).to(memory_format=layout)
        self.labels = torch.arange(BATCH)
        self.compute = compute
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9)

    def __call__(self) -> float:
        """Run one step; returns clips per second."""
        start = time.perf_counter()
        with self.compute.autocast():
            loss = F.cross_entropy(self.model(self.clips), self.labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return BATCH / (time.perf_counter() - start)


@dataclass
class Spent:
    """Wall-clock and CPU time of the steps with one source of batches, in seconds.

    Attributes:
        seconds: time of whole steps.
        waiting: the part of it spent waiting for the next batch.
        network: CPU time of the steps themselves.
        reading: CPU time for making their batches, here or in reading processes.
        steps: number of steps.
    """

    seconds: float = 0.0
    waiting: float = 0.0
    network: float = 0.0
    reading: float = 0.0
    steps: int = 0

    def add(self, batches: Batches, num_steps: int, step: Callable[[tuple[Tensor, Tensor]], object]) -> None:
        """Run steps, after some that do not count."""
        before = _cpu_of_ended_processes()
        with closing(batches):
            for _ in range(NUM_WARMING):
                step(next(batches))
            for _ in range(num_steps):
                start, began = time.perf_counter(), time.process_time()
                batch = next(batches)
                self.waiting += time.perf_counter() - start
                self.reading += (ready := time.process_time()) - began
                step(batch)
                self.network += time.process_time() - ready
                self.seconds += time.perf_counter() - start
        share = num_steps / (num_steps + NUM_WARMING)
        self.reading += share * (_cpu_of_ended_processes() - before)
        self.steps += num_steps


def _cpu_of_ended_processes() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def feed(
    name: str, width: float, shape: tuple[int, int, int], num_steps: int, rounds: int
) -> dict[tuple[str, int], Spent]:
    """Measure whole training steps by (source of batches, threads of the network), in turn."""
    with tempfile.TemporaryDirectory() as folder:
        clips = _stored_clips(Path(folder), shape)
        compute = choose_compute("cpu")
        model = PretextModel(create_backbone(name, width), TASKS["v3s"])
        model.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9, fused=True)
        guard = FiniteGuard(Processes(), compute.device)
        order: list[list[SampleKey]] = [
            [(epoch, number) for number in range(BATCH)] for epoch in range(NUM_WARMING + num_steps)
        ]
        frames = ResidentFrames(clips.table, compute.device)
        (one_batch,) = resident_batches(clips, frames, order[:1])
        workers = divide_cores(None, CPU, training=True)
        ways: list[tuple[str, int, Callable[[], Batches]]] = [
            ("one resident batch", 0, lambda: (batch for batch in repeat(one_batch))),
            ("a store in memory", 0, lambda: resident_batches(clips, frames, order)),
            ("one resident batch", workers, lambda: (batch for batch in repeat(one_batch))),
            (f"a store, {workers} reading", workers, lambda: load_batches(clips, order, num_workers=workers)),
        ]
        spent: dict[tuple[str, int], Spent] = {}
        for _ in range(rounds):
            for way, num_reading, batches in ways:
                divide_cores(num_reading, CPU, training=True)
                kept = spent.setdefault((way, torch.get_num_threads()), Spent())
                kept.add(
                    batches(),
                    num_steps,
                    lambda batch: train_step(model, batch, pretext_objective, optimizer, compute, guard),
                )
    return spent


def _stored_clips(folder: Path, shape: tuple[int, int, int]) -> PretextClips:
    make_clips(folder / "videos", num_videos=16, num_frames=80, height=240, width=320)
    prepare(PrepareConfig(data=str(folder / "videos"), out=str(folder / "store")), console=Console(quiet=True))
    found = scan(list_videos(folder / "store"), min_frames=69)
    sampling = Sampling(clip_frames=shape[0], clip_size=shape[1], canvas_size=2 * shape[1])
    return PretextClips(found.usable_table, TASKS["v3s"], sampling, seed=0)


def network_table(name: str, width: float, shape: tuple[int, int, int], rounds: int) -> Table:
    """The network alone; in each round, all variants in turn."""
    steps = {variant: Step(name, width, shape, *setting) for variant, setting in VARIANTS.items()}
    speeds: dict[str, list[float]] = {variant: [] for variant in steps}
    for turn in range(rounds + 1):
        for variant, step in steps.items():
            speed = step()
            if turn:  # the first round warms up
                speeds[variant].append(speed)
    table = Table("the network alone", "clips/s (median)", "of fp32")
    base = statistics.median(speeds["fp32"])
    for variant, measured in speeds.items():
        median = statistics.median(measured)
        table.add_row(variant, f"{median:.2f}", f"{median / base:.2f}x")
    return table


def fed_table(spent: dict[tuple[str, int], Spent]) -> Table:
    """Whole steps by source of batches; the first row is one resident batch, with every core for the network."""
    table = Table(
        "whole steps, batches from",
        "threads",
        "clips/s",
        "of one batch",
        "waiting",
        "network, ms",
        "reading, ms",
        "share",
        caption="ms: CPU time per clip; share: reading, of both",
    )
    best = next(iter(spent.values()))
    for (source, threads), some in spent.items():
        clips = BATCH * some.steps
        table.add_row(
            source,
            str(threads),
            f"{clips / some.seconds:.2f}",
            f"{some.steps / some.seconds / (best.steps / best.seconds):.1%}",
            f"{some.waiting / some.seconds:.1%}",
            f"{1000 * some.network / clips:.1f}",
            f"{1000 * some.reading / clips:.1f}",
            f"{some.reading / (some.network + some.reading):.1%}",
        )
    return table


def main() -> None:
    """Measure and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a narrow network and few rounds")
    parser.add_argument("--backbone", default="r3d")
    quick = parser.parse_args().quick
    name = parser.parse_args().backbone
    width, shape, num_steps, rounds = (0.25, (8, 56, 56), 10, 2) if quick else (1.0, (16, 112, 112), 4, 2)
    console = Console()
    divide_cores(0, CPU, training=True)
    cpu = torch.cpu.get_capabilities()
    units = ", ".join(kind for kind in ("avx512_bf16", "amx_bf16") if cpu.get(kind)) or "none"
    console.print(
        f"{describe_machine()}; bf16 units: {units}; {name}, width {width}, clips {shape}, batch {BATCH}",
        highlight=False,
    )
    console.print(network_table(name, width, shape, 3))
    console.print(fed_table(feed(name, width, shape, num_steps, rounds)))


if __name__ == "__main__":
    main()
