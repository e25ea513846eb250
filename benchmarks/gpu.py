"""Everything that needs a GPU, in one call: ``python -m benchmarks.gpu --data DIR [--splits DIR]``.

It makes a store of the videos, compares clips made on the GPU and on the CPU, and measures the training speed of the
paper's networks in clips per second: with one constant batch, and with ``v3s pretrain`` from the store in GPU memory,
without and with ``--compile``. All networks are first compiled in parallel, then measured one after another. The table
reports as not measured what fails or does not fit into ``--minutes``. ``--device cpu --quick`` runs a small version on
any machine. All UCF101 training videos take 58 GB at the default ``--short-side``, too much for an H100 next to a
network; each batch is then gathered in host memory.

A machine with torch and numpy but without internet access needs one folder of wheels, 40 MB, made elsewhere (with
``--python-version`` and ``--platform`` of the GPU machine, if they differ)::

    pip download --only-binary :all: --no-deps -d wheels av safetensors pyyaml rich
    pip download --only-binary :all: --no-deps -d wheels markdown-it-py mdurl pygments
    pip wheel --no-deps -w wheels .

and on the GPU machine, in a checkout with that folder::

    pip install --no-index --find-links wheels --no-deps wheels/*.whl
    python -m benchmarks.gpu --data UCF-101 --splits ucfTrainTestlist
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import cast

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks.machine import describe_machine
from v3s import create_backbone, pretrain
from v3s.backbones.device import choose_compute, fastest_convolutions
from v3s.commands.prepare import PrepareConfig, prepare
from v3s.commands.pretrain import PretrainConfig
from v3s.data.clips import PretextClips
from v3s.data.index_table import IndexTable
from v3s.data.lists.splits import list_videos
from v3s.data.resident import ResidentFrames, resident_batches
from v3s.data.scan import scan
from v3s.data.store_folder import Store, is_store, open_store
from v3s.pretext.model import PretextModel, pretext_objective
from v3s.pretext.plan import Sampling
from v3s.pretext.task import TASKS
from v3s.train.distributed import Processes
from v3s.train.finite import FiniteGuard
from v3s.train.loop import train_step
from v3s.train.run import METRICS, read_metrics
from v3s.video.store import StoredVideo

TASK = TASKS["v3s"]
PAPER_CLIPS = 300  # clips per training video in the paper: one per epoch
NUM_COMPARED = 16  # clips made on both devices


@dataclass(frozen=True, slots=True)
class Goal:
    """A network, the side of its clips of 16 frames, and the target in clips per second on one H200."""

    backbone: str
    size: int
    clips_per_second: int | None

    def __str__(self) -> str:
        return f"{self.backbone}-{self.size}"


GOALS = (
    Goal("r3d", 112, 2600),
    Goal("r2plus1d", 112, 1800),
    Goal("c3d", 112, 1400),
    Goal("s3dg", 224, 1000),
    Goal("s3dg", 112, None),
)


@dataclass(frozen=True, slots=True)
class Scale:
    """How large everything is.

    Attributes:
        num_videos: number of videos; ``None`` uses all.
        width: width of the networks.
        clip_frames: frames per clip.
        shrink: divisor for the side of a clip.
        batch_size: clips per step.
        epoch_clips: approximate number of clips per epoch.
        epochs: epochs of each training; the first one warms up.
        steps: steps with one constant batch.
    """

    num_videos: int | None
    width: float
    clip_frames: int
    shrink: int
    batch_size: int
    epoch_clips: int
    epochs: int
    steps: int


FULL, QUICK = Scale(None, 1.0, 16, 1, 64, 4000, 3, 40), Scale(16, 0.125, 8, 4, 4, 16, 2, 3)


@dataclass(frozen=True, slots=True)
class Bench:
    """What all measurements share.

    Attributes:
        scratch: a folder for runs.
        store: the videos.
        splits: official lists, or ``None``.
        device: "cuda" or "cpu".
        scale: how large everything is.
        num_validation: number of held-out videos.
        num_train: number of training videos.
        train_clips: clips per training video and epoch.
    """

    scratch: Path
    store: Path
    splits: str | None
    device: str
    scale: Scale
    num_validation: int
    num_train: int
    train_clips: int

    def train(self, goal: Goal, *, compiled: bool) -> tuple[float, float]:
        """Clips per second of ``v3s pretrain``, and its share of time spent waiting for data: medians over epochs."""
        out = self.scratch / f"{goal}-{compiled}"
        config = PretrainConfig(
            data=str(self.store),
            splits=self.splits,
            out=str(out),
            backbone=goal.backbone,
            width=self.scale.width,
            clip_frames=self.scale.clip_frames,
            clip_size=goal.size // self.scale.shrink,
            epochs=self.scale.epochs,
            batch_size=self.scale.batch_size,
            train_clips=self.train_clips,
            validation_videos=self.num_validation,
            loading="resident",
            compile=compiled,
            device=self.device,
        )
        pretrain(config, console=Console(quiet=True))
        lines = read_metrics(out / METRICS)[1:]
        speeds, waits = ([line[name] for line in lines] for name in ("clips_per_second", "waiting_share"))
        return statistics.median(speeds), statistics.median(waits)

    def one_batch(self, goal: Goal, *, compiled: bool) -> float:
        """Clips per second of the same steps with one constant batch on the device."""
        step, device = self.repeated_step(goal, compiled=compiled), choose_compute(self.device).device
        start = 0.0
        for number in range(-self.scale.steps // 2, self.scale.steps):
            if number == 0:
                wait_for(device)
                start = time.perf_counter()
            step()
        wait_for(device)
        return self.scale.steps * self.scale.batch_size / (time.perf_counter() - start)

    def repeated_step(self, goal: Goal, *, compiled: bool) -> Callable[[], object]:
        """A training step that can be repeated, with one constant batch on the device."""
        scale, compute = self.scale, choose_compute(self.device)
        model = PretextModel(create_backbone(goal.backbone, scale.width), TASK)
        compute.network(model)
        trained = cast(nn.Module, torch.compile(model)) if compiled else model
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4, fused=True)
        guard = FiniteGuard(Processes(), compute.device)
        side = goal.size // scale.shrink
        shape = (scale.batch_size, 3, scale.clip_frames, side, side)
        clips = torch.randint(0, 256, shape, dtype=torch.uint8, device=compute.device)
        labels = torch.zeros(scale.batch_size, 2, dtype=torch.long, device=compute.device)
        return lambda: train_step(trained, (clips, labels), pretext_objective, optimizer, compute, guard)

    def measure(self, goal: Goal, *, compiled: bool, deadline: float) -> list[str]:
        """A row of the table."""
        scale = self.scale
        network = f"{goal.backbone} {scale.clip_frames}x{goal.size // scale.shrink}, width {scale.width:g}"
        row = [network, "compile" if compiled else "eager"]
        if time.monotonic() > deadline:
            return [*row, "not measured: no time left"]
        try:
            with fastest_convolutions(torch.device(self.device)) if compiled else nullcontext():
                alone = self.one_batch(goal, compiled=compiled)
            speed, waiting = self.train(goal, compiled=compiled)
        except RuntimeError as error:  # out of memory, or no compiler: still measure the others
            return [*row, f"not measured: {error}"]
        speed_target = goal.clips_per_second if scale is FULL else None
        target = f">= {speed_target:,}, < 3 %" if speed_target else ""
        row += [f"{alone:,.0f}", f"{speed:,.0f}", f"{speed / alone:.0%}", f"{waiting:.1%}", target]
        return [*row, f"{PAPER_CLIPS * self.num_train / speed / 60:,.1f} min"]

    def warm_up(self, goal: Goal) -> None:
        """Compile a network to fill the compiler's cache; a failure is reported when the network is measured."""
        with suppress(RuntimeError):
            step = self.repeated_step(goal, compiled=True)
            for _ in range(2):
                step()


def wait_for(device: torch.device) -> None:
    """Wait until the device has finished all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def make_store(arguments: argparse.Namespace, scratch: Path, scale: Scale, console: Console) -> Store:
    """Decode the videos once, and print the speed."""
    if is_store(arguments.data):
        return open_store(arguments.data)
    data, splits = str(arguments.data), arguments.splits
    if scale.num_videos is not None:
        listed = list_videos(data, subset="all")
        chosen = np.linspace(0, len(listed) - 1, scale.num_videos).astype(int)
        lines = [str((listed.root / listed.paths[place]).resolve()) for place in chosen]
        (scratch / "videos.txt").write_text("\n".join(lines), encoding="utf-8")
        data, splits = str(scratch / "videos.txt"), None
    config = PrepareConfig(
        data=data,
        splits=splits,
        subset="train" if splits else "all",
        out=str(scratch / "store"),
        short_side=arguments.short_side,
    )
    start = time.perf_counter()
    store = prepare(config, console=console)
    seconds = time.perf_counter() - start
    stored = [file.outcome for file in store.files.values() if isinstance(file.outcome, StoredVideo)]
    frames = sum(video.num_frames for video in stored)
    console.print(f"prepared in {seconds:.1f} s: {frames / seconds:,.0f} frames/s", highlight=False)
    return store


def compare_devices(table: IndexTable, device: torch.device, scale: Scale, console: Console) -> bool:
    """Make the same clips on the CPU and on the device; print how much they differ and how fast they are made.

    Returns:
        Whether all values differ by at most one level.
    """
    size = 112 // scale.shrink
    sampling = Sampling(clip_frames=scale.clip_frames, clip_size=size, canvas_size=2 * size)
    clips = PretextClips(table.subset(list(range(min(NUM_COMPARED, len(table))))), TASK, sampling, seed=0)
    frames = ResidentFrames(clips.table, device)
    keys = [(0, number) for number in range(NUM_COMPARED)]
    ((actual, _),) = resident_batches(clips, frames, [keys])
    expected = torch.stack([clips[key][0] for key in keys])
    difference = (actual.cpu().int() - expected.int()).abs()
    share = float((difference > 0).double().mean())
    console.print(
        f"clips on {device} and on the CPU: at most {int(difference.max())} levels apart (target 1), {share:.3%} of "
        "all values differ",
        highlight=False,
    )
    batch = [(0, number) for number in range(scale.batch_size)]
    for compiled in (False, True) if device.type == "cuda" else (False,):
        for _ in resident_batches(clips, frames, [batch] * 2, compiled=compiled):
            pass
        wait_for(device)
        start = time.perf_counter()
        for _ in resident_batches(clips, frames, [batch] * scale.steps, compiled=compiled):
            pass
        wait_for(device)
        speed = scale.steps * scale.batch_size / (time.perf_counter() - start)
        mode = "compiled" if compiled else "eager"
        console.print(f"only drawing, gathering and warping, {mode}: {speed:,.0f} clips/s", highlight=False)
    return int(difference.max()) <= 1


def measure_all(bench: Bench, goals: Sequence[Goal], modes: Sequence[bool], deadline: float) -> Table:
    """Measure networks while time allows: first compile all in parallel, then measure them one after another."""
    columns = ("network", "mode", "one batch, clips/s", "pretrain, clips/s", "of one batch", "waiting", "target, H200")
    table = Table(*columns, f"{bench.num_train:,} videos x {PAPER_CLIPS}")
    if True in modes:
        with ProcessPoolExecutor(len(goals), mp_context=get_context("spawn")) as executor:
            list(executor.map(bench.warm_up, goals))
    for goal, compiled in product(goals, modes):
        row = bench.measure(goal, compiled=compiled, deadline=deadline)
        print("; ".join(row), flush=True)  # a run that is stopped has printed its results so far
        table.add_row(*row)
    return table


def main() -> None:
    """Make the store, compare the devices, measure, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of videos, or a store")
    parser.add_argument("--splits", help="official split lists; uses only the training videos")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=8.0, help="start no new measurement after this time")
    parser.add_argument("--short-side", type=int, default=128, help="short side of the stored frames, in pixels")
    parser.add_argument("--networks", nargs="*", help="such as c3d-112; default: all")
    parser.add_argument("--quick", action="store_true", help="a few videos and narrow networks")
    arguments = parser.parse_args()
    deadline = time.monotonic() + 60 * arguments.minutes
    scale, console = QUICK if arguments.quick else FULL, Console()
    compute = choose_compute(arguments.device)
    name = torch.cuda.get_device_name(compute.device) if compute.device.type == "cuda" else "no GPU"
    console.print(f"{describe_machine()}; {name}, {compute}; batches of {scale.batch_size}", highlight=False)
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(arguments, Path(folder), scale, console)
        splits = None if scale.num_videos else arguments.splits
        listed = list_videos(store.folder, splits=splits, subset="train" if splits else "all")
        videos = scan(listed, min_frames=TASK.longest_span(scale.clip_frames)).usable_table
        same = compare_devices(videos, compute.device, scale, console)
        num_validation = max(1, min(scale.batch_size, len(videos) // 4))
        num_train = len(videos) - num_validation
        train_clips = max(1, round(scale.epoch_clips / num_train))
        bench = Bench(
            Path(folder), store.folder, splits, arguments.device, scale, num_validation, num_train, train_clips
        )
        goals = [goal for goal in GOALS if not arguments.networks or str(goal) in arguments.networks]
        modes = [False] if arguments.quick else [False, True]
        console.print(measure_all(bench, goals, modes, deadline))
    if not same:
        raise SystemExit("clips on the two devices differ by more than one level")


if __name__ == "__main__":
    main()
