"""The study at the paper's size on one GPU, in ten minutes: ``python -m benchmarks.full_size --data DIR --splits DIR``.

R3D at full width on clips of 16 x 112 x 112: plain V3S and V3S with contrast, trained on equally many clips, and two
networks with random weights (ours, and PyTorch's own). Each is fine-tuned, retrieved with and probed. Two lanes of
commands share the GPU; three slowed each other down (docs/log.md, "The study at the paper's size"). Every step is one
v3s command with a log. The files are those of :mod:`benchmarks.study`, so
``python -m benchmarks.study_tables STUDY TABLE`` prints the tables. Finished steps are skipped, and a training that was
stopped resumes, so the same command can be repeated. After ``--minutes`` all steps are stopped; ``results.json``
contains what is finished by then. ``--quick`` runs all steps with a narrow network on small clips, on any machine.

A machine without internet access needs the wheel of PyAV and the videos; see :mod:`benchmarks.gpu`.
"""

import argparse
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.study import DEFAULT, RANDOM, Step, write_default
from v3s.files.reading import read_json
from v3s.files.writing import DESCRIPTION, write_json
from v3s.train.run import MANIFEST, METRICS, read_metrics

RESULTS = "results.json"


@dataclass(frozen=True, slots=True)
class Scale:
    """How large everything is.

    Attributes:
        width: width of R3D.
        clip_frames: frames per clip.
        clip_size: side of a clip, in pixels.
        canvas_size: side of the canvas that pre-training cuts clips from; larger ones would enlarge UCF101's 176 x 132.
        epochs: passes over the videos for plain V3S; with contrast, which takes two clips of each video, half of them.
        finetune_epochs: epochs of each fine-tuning.
        batch_size: clips per step.
        num_clips: clips per video for neighbours and probes.
    """

    width: float
    clip_frames: int
    clip_size: int
    canvas_size: int
    epochs: int
    finetune_epochs: int
    batch_size: int
    num_clips: int


FULL = Scale(1.0, 16, 112, 160, 200, 40, 32, 10)
QUICK = Scale(0.125, 8, 28, 40, 2, 2, 8, 2)


def plan_lanes(arguments: argparse.Namespace, scale: Scale) -> tuple[list[Step], list[list[Step]]]:
    """The steps that come first, one after another, and then the lanes that run side by side."""
    study: Path = arguments.out
    store = study / "store"
    prepare = Step(["prepare", f"--data={arguments.data}", f"--out={store}", "--short-side=128"], store / "store.json")
    videos = [f"--data={store}", f"--splits={arguments.splits}", f"--workers={arguments.workers}"]
    size = [f"--clip-frames={scale.clip_frames}", f"--clip-size={scale.clip_size}"]

    def folder(name: str) -> Path:
        return study / f"r3d-{name}-0"

    def pretrain(name: str, epochs: int, *own: str) -> Step:
        out = folder(name)
        options = ["--backbone=r3d", f"--width={scale.width}", f"--epochs={epochs}", "--learning-rate=0.01"]
        options += [f"--batch-size={scale.batch_size}", f"--canvas-size={scale.canvas_size}", "--schedule=cosine"]
        options += ["--keep=last", "--subset=train", *own, f"--out={out}", "--resume"]
        return Step(["pretrain", *videos, *size, *options], out / METRICS, epochs)

    def finetune(name: str, backbone: str) -> Step:
        out = folder(name) / "finetune"
        options = [f"--epochs={scale.finetune_epochs}", f"--batch-size={scale.batch_size}", "--learning-rate=0.01"]
        options += ["--schedule=cosine", "--keep=last", f"--backbone={backbone}", f"--out={out}", "--resume"]
        return Step(["finetune", *videos, *size, *options], out / "result.json")

    def ask(name: str, backbone: str) -> list[Step]:
        view = [*videos, *size, f"--backbone={backbone}", f"--num-clips={scale.num_clips}", "--batch-size=64"]
        asked = {
            "retrieve": ["retrieve"],
            "retrieve-conv4": ["retrieve", "--stage=conv4", "--pool=mean"],
            "probe": ["probe", "--few-labels=5"],
        }
        files = {file: folder(name) / f"{file}.json" for file in asked}
        return [Step([*words, *view, f"--out={files[file]}"], files[file]) for file, words in asked.items()]

    def trained(name: str, epochs: int, *own: str) -> list[Step]:
        run, out = str(folder(name)), folder(name) / "evaluate.json"
        heads = Step(["evaluate", *videos, f"--backbone={run}", "--subset=test", f"--out={out}"], out)
        return [pretrain(name, epochs, *own), finetune(name, run), *ask(name, run), heads]

    def random(name: str, backbone: str) -> list[Step]:
        return [finetune(name, backbone), *ask(name, backbone)]

    lanes = [
        [*trained("v3s", scale.epochs), *random(RANDOM, f"random:r3d@{scale.width}")],
        [
            *trained("v3s-contrast", scale.epochs // 2, "--recipe=v3s-contrast"),
            *random(DEFAULT, str(folder(DEFAULT))),
        ],
    ]
    return [prepare], lanes


@dataclass(frozen=True, slots=True)
class Conductor:
    """Runs lanes of steps until a deadline.

    Attributes:
        study: the folder of the study.
        deadline: time of `time.monotonic` at which running steps are stopped.
        lock: held while results are written.
    """

    study: Path
    deadline: float
    lock: threading.Lock

    def run(self, steps: Sequence[Step]) -> bool:
        """Run steps one after another; returns whether all are finished."""
        return all(step.is_done() or self.run_step(step) for step in steps)

    def run_step(self, step: Step) -> bool:
        """Run one command; returns whether it succeeded before the deadline."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            return False
        name = "-".join(step.written.relative_to(self.study).with_suffix("").parts)
        step.written.parent.mkdir(parents=True, exist_ok=True)
        start = time.monotonic()
        with (self.study / f"{name}.log").open("a", encoding="utf-8") as log:
            threads = {"OMP_NUM_THREADS": "4"}  # a lane's share: more would wait for those of the other
            command = [sys.executable, "-m", "v3s", *step.arguments]
            process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | threads)
            try:
                code = process.wait(left)
            except subprocess.TimeoutExpired:
                process.terminate()  # a training writes a checkpoint, from which it resumes
                code = process.wait()
        print(f"{name}: exit code {code} after {time.monotonic() - start:.0f} s", flush=True)
        with self.lock:
            write_json(self.study / RESULTS, collect(self.study))
        return code == 0


def collect(study: Path) -> dict[str, Any]:
    """All results of a study: path -> result, and path of the metrics -> lines of all epochs."""
    files = sorted([*study.glob("*/*.json"), *study.glob("*/finetune/result.json")])
    results: dict[str, Any] = {
        str(file.relative_to(study)): read_json(file) for file in files if file.name not in (MANIFEST, DESCRIPTION)
    }
    for file in sorted([*study.glob(f"*/{METRICS}"), *study.glob(f"*/finetune/{METRICS}")]):
        results[str(file.relative_to(study))] = read_metrics(file)
    return results


def main() -> None:
    """Prepare the store, then run the lanes side by side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of the UCF101 files, in class folders")
    parser.add_argument("--splits", required=True, help="the official lists")
    parser.add_argument("--out", type=Path, required=True, help="folder of the study")
    parser.add_argument("--minutes", type=float, default=10.0, help="stop after this time")
    parser.add_argument("--workers", type=int, default=5, help="processes per command that read videos")
    parser.add_argument("--quick", action="store_true", help="a narrow network, small clips, few epochs")
    arguments = parser.parse_args()
    scale = QUICK if arguments.quick else FULL
    conductor = Conductor(arguments.out, time.monotonic() + 60 * arguments.minutes, threading.Lock())
    arguments.out.mkdir(parents=True, exist_ok=True)
    default = arguments.out / f"r3d-{DEFAULT}-0"
    write_default(default, "r3d", scale.width, 0, scale.clip_frames, scale.clip_size)
    first, lanes = plan_lanes(arguments, scale)
    finished = conductor.run(first)
    if finished:
        with ThreadPoolExecutor(len(lanes)) as executor:
            finished = all(list(executor.map(conductor.run, lanes)))
    print(f"{'finished' if finished else 'not finished'}: {arguments.out / RESULTS}", flush=True)
    sys.exit(0 if finished else 1)


if __name__ == "__main__":
    main()
