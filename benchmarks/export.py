"""An exported ONNX file in onnxruntime, compared with torch: ``python -m benchmarks.export [--quick] [BACKBONE ...]``.

All run the same clips of the same network on one thread, in turn: onnxruntime in float32, and torch as v3s runs it
(folded, channels last) in float32 and in bf16. Times are process CPU time, so that other programs on the machine count
less; the median of the rounds is shown.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.machine import describe_machine
from v3s.backbones import BACKBONES, create_backbone
from v3s.backbones.device import Compute
from v3s.export.graphs import INPUT, onnx_bytes
from v3s.export.model import open_model
from v3s.features.encoder import clip_features
from v3s.features.saved import Trained, plain_sampling, write_trained
from v3s.features.source import fold
from v3s.options import import_extra

ROUNDS, BATCH = 7, 2


def main() -> None:
    """Time each network in turn, check that the outputs agree, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backbones", nargs="*", metavar="BACKBONE", help="default: all")
    parser.add_argument("--quick", action="store_true", help="a quarter of the width, clips of 8 x 56 x 56")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    width, sizes = (0.25, (8, 56)) if arguments.quick else (1.0, (16, 112))
    table = Table("network", "onnxruntime, ms a clip", "torch fp32 takes", "torch bf16 takes", "largest difference")
    for name in arguments.backbones or BACKBONES:
        seconds, difference = time_network(name, width, *sizes)
        ratios = [f"{seconds[way] / seconds['onnxruntime']:.2f}x" for way in ("fp32", "bf16")]
        table.add_row(name, f"{1000 * seconds['onnxruntime'] / BATCH:.1f}", *ratios, f"{difference:.1e}")
    console = Console()
    version = import_extra("onnxruntime", "onnx", "this benchmark").__version__
    console.print(f"{describe_machine()}, onnxruntime {version}", highlight=False)
    console.print(f"width {width:g}, clips of {sizes[0]} x {sizes[1]} x {sizes[1]}, {BATCH} at a time, one thread")
    console.print(table)


def time_network(name: str, width: float, clip_frames: int, clip_size: int) -> tuple[dict[str, float], float]:
    """Return the median CPU seconds of a batch for each way, and how far onnxruntime is from torch in float32."""
    described = Trained(
        kind="converted", backbone=name, width=width, sampling=plain_sampling(clip_frames, clip_size), results={}
    )
    with TemporaryDirectory() as folder:
        write_trained(Path(folder), described, create_backbone(name, width), {})
        model = open_model(folder)
    runtime = import_extra("onnxruntime", "onnx", "this benchmark")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = runtime.InferenceSession(onnx_bytes(model), options, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    clips = torch.randint(256, (BATCH, *model.clip_shape), dtype=torch.uint8, generator=generator)
    compute = Compute(torch.device("cpu"), bf16=False)
    network = fold(compute.network(model.backbone))

    def by_torch(how: Compute) -> np.ndarray:
        return clip_features(network, clips, [model.feature], how)[0].numpy()

    ways: dict[str, Callable[[], np.ndarray]] = {
        "onnxruntime": lambda: session.run(None, {INPUT: clips.numpy().astype(np.float32) / 255})[0],
        "fp32": lambda: by_torch(compute),
        "bf16": lambda: by_torch(replace(compute, bf16=True)),
    }
    outputs = {way: run() for way, run in ways.items()}  # the first run of each is not timed
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way, run in ways.items():
            start = time.process_time()
            run()
            seconds[way].append(time.process_time() - start)
    difference = float(abs(outputs["onnxruntime"] - outputs["fp32"]).max())
    return {way: median(times) for way, times in seconds.items()}, difference


if __name__ == "__main__":
    main()
