"""Training steps a second by precision and memory layout: ``python -m benchmarks.train_step [--quick]``."""

import argparse
import platform
import statistics
import time

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn import functional as F

from v3s import create_backbone

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


def main() -> None:
    """Measure the variants in turn, round by round, and print one table."""
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


if __name__ == "__main__":
    main()
