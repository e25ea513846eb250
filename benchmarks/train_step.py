"""Training steps a second: ``python -m benchmarks.train_step [--quick]``.

Two tables: the network alone by precision and memory layout; and whole steps of ``v3s pretrain`` fed from a store in
memory against the same steps fed one resident batch, so that all that is not the network shows.
"""

import argparse
import platform
import statistics
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn import functional as F

from v3s import create_backbone
from v3s.config import PrepareConfig
from v3s.data.clips import PretextClips
from v3s.data.resident import ResidentFrames, resident_batches
from v3s.data.scan import scan
from v3s.data.splits import list_videos
from v3s.data.synthetic import make_clips
from v3s.prepare import prepare
from v3s.pretext.model import PretextModel, pretext_objective
from v3s.pretext.plan import Sampling
from v3s.pretext.task import TASKS
from v3s.train.device import choose_compute
from v3s.train.distributed import Processes
from v3s.train.finite import FiniteGuard
from v3s.train.loop import train_step

VARIANTS = {
    "fp32": (False, torch.contiguous_format),
    "fp32, channels last": (False, torch.channels_last_3d),
    "bf16": (True, torch.contiguous_format),
    "bf16, channels last": (True, torch.channels_last_3d),
}


class Step:
    """One network in one precision and layout, with a resident batch."""

    def __init__(self, name: str, width: float, shape: tuple[int, int, int], bf16: bool, layout: torch.memory_format):
        backbone = create_backbone(name, width)
        self.model = nn.Sequential(backbone, nn.Linear(backbone.num_features, 29))
        self.model.to(memory_format=layout)  # type: ignore[call-overload]
        self.clips = torch.rand(8, 3, *shape).to(memory_format=layout)
        self.labels = torch.arange(8)
        self.bf16 = bf16
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9)

    def __call__(self) -> float:
        """Clips a second of one step."""
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            loss = F.cross_entropy(self.model(self.clips), self.labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return len(self.clips) / (time.perf_counter() - start)


def fed_steps(name: str, width: float, shape: tuple[int, int, int], num_steps: int) -> dict[str, float]:
    """Clips a second of whole training steps: fed one resident batch, and fed from a store in memory, in turn."""
    frames, size = shape[:2]
    with tempfile.TemporaryDirectory() as folder:
        make_clips(Path(folder) / "videos", num_videos=16, num_frames=80, height=240, width=320)
        prepare(PrepareConfig(data=f"{folder}/videos", out=f"{folder}/store"), console=Console(quiet=True))
        found = scan(list_videos(f"{folder}/store"), min_frames=69)
        sampling = Sampling(clip_frames=frames, clip_size=size, canvas_size=2 * size)
        clips = PretextClips(found.usable_table, TASKS["v3s"], sampling, seed=0)
        compute = choose_compute("cpu")
        model = PretextModel(create_backbone(name, width), TASKS["v3s"])
        model.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9, fused=True)
        guard = FiniteGuard(Processes(), compute.device)
        order = [[(epoch, number) for number in range(8)] for epoch in range(num_steps + 1)]
        fed = resident_batches(clips, ResidentFrames(clips.table, compute.device), order)
        first = next(fed)
        seconds = {"one resident batch": 0.0, "a store in memory": 0.0}
        train_step(model, first, pretext_objective, optimizer, compute, guard)
        for _ in range(num_steps):
            for way in seconds:
                start = time.perf_counter()
                batch = first if way == "one resident batch" else next(fed)
                train_step(model, batch, pretext_objective, optimizer, compute, guard)
                seconds[way] += time.perf_counter() - start
    return {way: 8 * num_steps / spent for way, spent in seconds.items()}


def main() -> None:
    """Measure the variants in turn, round by round, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a narrow network and few rounds")
    parser.add_argument("--backbone", default="r3d")
    quick = parser.parse_args().quick
    name = parser.parse_args().backbone
    width, shape, rounds = (0.25, (8, 56, 56), 3) if quick else (1.0, (16, 112, 112), 3)
    steps = {variant: Step(name, width, shape, *setting) for variant, setting in VARIANTS.items()}
    speeds: dict[str, list[float]] = {variant: [] for variant in steps}
    for turn in range(rounds + 1):
        for variant, step in steps.items():
            speed = step()
            if turn:  # the first round warms up
                speeds[variant].append(speed)
    cpu = torch.cpu.get_capabilities()
    console = Console()
    console.print(
        f"{name}, width {width}, clips {shape}, batch 8; {cpu['cpu_name']}, AMX {cpu['amx_bf16']}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, {platform.machine()}"
    )
    table = Table("variant", "clips/s (median)", "of fp32")
    base = statistics.median(speeds["fp32"])
    for variant, measured in speeds.items():
        median = statistics.median(measured)
        table.add_row(variant, f"{median:.2f}", f"{median / base:.2f}x")
    console.print(table)
    fed = fed_steps(name, width, shape, 20 if quick else 4)
    table = Table("whole steps, fed", "clips/s", "of the resident batch")
    for way, speed in fed.items():
        table.add_row(way, f"{speed:.2f}", f"{speed / fed['one resident batch']:.1%}")
    console.print(table)


if __name__ == "__main__":
    main()
