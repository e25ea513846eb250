"""The study behind docs/study.md: train its rows with the same budget, then evaluate all networks in the same way.

    python -m benchmarks.study --out STUDY --data UCF-101 --splits LISTS --rows random,v3s,v3s-plus --seeds 0,1,2

Options that are not listed by ``--help`` are passed to every ``v3s pretrain``. Each step is one v3s command, printed
before it runs. Finished steps are skipped, and a training that was stopped or killed resumes from its last checkpoint,
so the same command can be repeated. ``python -m benchmarks.study_tables STUDY TABLE`` prints the tables.

    STUDY/pixels.json                 what pixel statistics reveal, without a network
    STUDY/<network>-<row>-<seed>/     a run of pretrain (an ordinary folder for the row "random"; the network that
                                      PyTorch's layers start with for the row "random-default"), and in addition
        retrieve.json probe.json evaluate.json audit.json finetune/result.json
"""

import argparse
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch
from torch import nn

from v3s.backbones import BACKBONES
from v3s.cli import main as v3s
from v3s.features.saved import Trained, plain_sampling, write_trained
from v3s.files.weights import WEIGHTS
from v3s.pretext.task import TASKS
from v3s.train.run import METRICS, read_metrics

RANDOM, DEFAULT = "random", "random-default"
"""Rows of random weights: those of `v3s.create_backbone`, and those that PyTorch's layers start with."""
CHANGES = {
    "v3s-even": ["--zoom=even"],
    "v3s-trimmed": ["--trim-bars"],
    "v3s-colour": ["--flip", "--colour-jitter=0.4", "--grey=0.2"],
    "v3s-plus": ["--recipe=v3s-plus"],
    "v3s-augmented": ["--flip", "--colour-jitter=0.4", "--grey=0.2", "--trim-bars"],
    "v3s-contrast": ["--recipe=v3s-contrast"],
    "contrast-alone": ["--recipe=v3s-contrast", "--heads=0"],
    "v3s-relative": ["--recipe=v3s-contrast", "--contrast=0", "--relative=1", "--clips-together=4"],
    "v3s-both": ["--recipe=v3s-contrast", "--relative=1", "--clips-together=4"],
}
"""Rows that are not tasks: the options that they add to the task v3s."""
TOGETHER = {"v3s-contrast": 2, "contrast-alone": 2, "v3s-relative": 4, "v3s-both": 4}
"""Clips of each video in an epoch, where it is not one: these rows get as many times fewer epochs."""
ROWS = (RANDOM, DEFAULT, "ss", "sp", "ss+sp", "ts", "tp", "ts+tp", "v3s", *CHANGES)
NEED_HEADS = ("evaluate", "audit")  # which random weights do not have
PROTOCOLS = ("retrieve", "probe", "similarity", *NEED_HEADS)


@dataclass(frozen=True, slots=True)
class Step:
    """One v3s command, and how to tell that it is finished.

    Attributes:
        arguments: the arguments of the command.
        written: the file that it writes.
        epochs: for a training, whose file is metrics.jsonl: the number of epochs that it must contain.
        weights: the weights that the file was computed from, if any; an older file is computed again.
    """

    arguments: list[str]
    written: Path
    epochs: int = 0
    weights: Path | None = None

    def is_done(self) -> bool:
        """Whether the step is finished."""
        if not self.written.is_file():
            return False
        if self.epochs:
            lines = read_metrics(self.written)
            return bool(lines) and lines[-1]["epoch"] >= self.epochs
        older_than = self.weights.stat().st_mtime if self.weights is not None and self.weights.is_file() else 0
        return self.written.stat().st_mtime >= older_than


def plan_steps(options: argparse.Namespace, pretraining: Sequence[str]) -> Iterator[Step]:
    """Yield the steps of a study in their order: seed by seed, row by row, fine-tuning last.

    Args:
        options: the options of the study.
        pretraining: more options for every ``v3s pretrain``.
    """
    study = Path(options.out)
    compute = [f"--{name}={value}" for name in ("workers", "device") if (value := getattr(options, name)) is not None]
    videos = [f"--data={options.data}", f"--splits={options.splits}", f"--split={options.split}", *compute]
    size = [f"--clip-frames={options.clip_frames}", f"--clip-size={options.clip_size}"]
    pixels = study / "pixels.json"
    page = f"--page={study / 'pixels.html'}"
    yield Step(["audit", *videos, *size, "--trim-bars", f"--out={pixels}", page], pixels)
    last = []
    for seed in options.seeds.split(","):
        for network in options.networks.split(","):
            for row in options.rows.split(","):
                run = study / f"{network}-{row}-{seed}"
                backbone = f"--backbone=random:{network}@{options.width}" if row == RANDOM else f"--backbone={run}"
                if row not in (RANDOM, DEFAULT):
                    epochs = options.epochs // TOGETHER.get(row, 1)
                    own = [f"--backbone={network}", f"--width={options.width}", f"--epochs={epochs}"]
                    own += [f"--seed={seed}", *CHANGES.get(row, [f"--task={row}"]), f"--out={run}", "--resume"]
                    yield Step(["pretrain", *videos, *size, *pretraining, *own], run / METRICS, epochs)
                weights = None if row == RANDOM else run / WEIGHTS
                shared = [*videos, backbone, f"--seed={seed}"]
                for name in options.protocols.split(","):
                    if row not in (RANDOM, DEFAULT) or name not in NEED_HEADS:
                        written = run / f"{name}.json"
                        extra = _protocol_options(name, run, options, size)
                        yield Step([name, *shared, *extra, f"--out={written}"], written, weights=weights)
                if options.finetune is not None:
                    folder = run / "finetune"
                    own = [*size, *shlex.split(options.finetune), f"--out={folder}", "--resume"]
                    last.append(Step(["finetune", *shared, *own], folder / "result.json"))
    yield from last


def write_default(folder: Path, network: str, width: float, seed: int, clip_frames: int, clip_size: int) -> None:
    """Write a network with the random weights that PyTorch's layers start with, as in the paper's baselines."""
    if (folder / WEIGHTS).is_file():
        return
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        backbone: nn.Module = BACKBONES[network](width)
    described = Trained(
        kind="converted",
        backbone=network,
        width=width,
        sampling=plain_sampling(clip_frames, clip_size),
        results={},
        converted_from=f"PyTorch's first weights, seed {seed}",
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_trained(folder, described, backbone, {})


def _protocol_options(name: str, run: Path, options: argparse.Namespace, size: list[str]) -> list[str]:
    if name == "evaluate":
        return ["--subset=test"]
    if name == "audit":
        return ["--subset=test", "--clips=2", f"--page={run / 'audit.html'}"]
    view = [*size, f"--num-clips={options.num_clips}"]
    return view + {
        "retrieve": [f"--page={run / 'retrieve.html'}"],
        "similarity": ["--subset=test", "--stride=0"],
    }.get(name, [])


def conduct(steps: Sequence[Step]) -> int:
    """Run the unfinished steps; stop at the first one that fails, with its exit code."""
    for number, step in enumerate(steps, 1):
        head = f"[{number}/{len(steps)}] v3s {shlex.join(step.arguments)}"
        if step.is_done():
            print(f"{head}\n  skipped: already finished", flush=True)
            continue
        print(f"{head}\n  started {time.strftime('%Y-%m-%d %H:%M:%S')}", flush=True)
        start = time.monotonic()
        step.written.parent.mkdir(parents=True, exist_ok=True)
        if code := v3s(step.arguments):
            print(f"  exit code {code}", flush=True)
            return code
        print(f"  finished in {(time.monotonic() - start) / 60:.1f} min", flush=True)
    return 0


def read_options(arguments: Sequence[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """The options of the study, and those that are passed to every ``v3s pretrain``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="folder of the study")
    parser.add_argument("--data", required=True)
    parser.add_argument("--splits", required=True)
    parser.add_argument("--split", type=int, default=1)
    parser.add_argument("--rows", default=",".join(ROWS), help=f"from {', '.join(ROWS)}, or any other task")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--networks", default="r2plus1d")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--clip-frames", type=int, default=16)
    parser.add_argument("--clip-size", type=int, default=112)
    parser.add_argument("--epochs", type=int, default=300, help="epochs of pre-training, with one clip of each video")
    parser.add_argument("--protocols", default="retrieve,probe,evaluate,audit", help=f"from {', '.join(PROTOCOLS)}")
    parser.add_argument("--num-clips", type=int, default=10, help="clips per video, for retrieve, probe and similarity")
    parser.add_argument("--finetune", help='fine-tune at the end, with these options, such as --finetune="--epochs=20"')
    parser.add_argument("--workers", type=int)
    parser.add_argument("--device")
    options, pretraining = parser.parse_known_args(arguments)
    unknown = set(options.rows.split(",")) - {*ROWS, *TASKS} or set(options.protocols.split(",")) - set(PROTOCOLS)
    if unknown:
        parser.error(f"unknown row or protocol: {', '.join(sorted(unknown))}")
    return options, pretraining


def main() -> int:
    """Run the study; returns the exit code."""
    options, pretraining = read_options()
    if DEFAULT in options.rows.split(","):
        for network, seed in product(options.networks.split(","), map(int, options.seeds.split(","))):
            folder = Path(options.out) / f"{network}-{DEFAULT}-{seed}"
            write_default(folder, network, options.width, seed, options.clip_frames, options.clip_size)
    return conduct(list(plan_steps(options, pretraining)))


if __name__ == "__main__":
    sys.exit(main())
