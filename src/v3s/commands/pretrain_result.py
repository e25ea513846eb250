"""The end of a pre-training: what is kept, and what the run says of itself."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console

from v3s.features.saved import describe_trained
from v3s.files.text import counted, say
from v3s.files.weights import WEIGHTS
from v3s.pretext.task import PretextTask
from v3s.protocols.errors import heads_at_chance
from v3s.train.progress import describe
from v3s.train.run import METRICS, RunFolder, open_log, read_metrics, reporter

CLIPS_TO_LEAVE_CHANCE = 60_000
"""Training clips by which the spatial head, the later one, was clearly above chance on UCF101: 30,000 with a quarter of
R3D's width on clips of 8 frames, 60,000 at the paper's size (docs/log.md, "The study at the paper's size")."""

_ANEW = (
    "train again into another --out, or start there from these weights with --init (this run cannot be resumed with "
    "more: the schedule cosine ends with its epochs)"
)
_STILL_FALLS = 0.01  # of the training loss, over the last tenth of the epochs
_FEWEST_EPOCHS = 10  # that show whether it falls


@dataclass(frozen=True, slots=True)
class PretrainResult:
    """The result of a pre-training.

    Attributes:
        run: the folder of the run.
        best_epoch: the epoch (from 1) whose weights were kept.
        validation: mean validation losses and accuracies of both heads in that epoch.
        verdict: sentences on what the run has learned, see :func:`verdict`.
    """

    run: Path
    best_epoch: int
    validation: dict[str, float]
    verdict: tuple[str, ...]


def judge_run(
    run: RunFolder,
    task: PretextTask,
    *,
    num_clips: int,
    noun: str,
    clips_per_epoch: int,
    can_go_on: bool,
    console: Console,
    is_first: bool,
) -> PretrainResult:
    """Report which epoch is kept and the verdict on it, also in train.log, and, if it is bad, what shows more.

    Args:
        run: the folder of a finished run.
        task: its label tables.
        num_clips: number of validation clips.
        noun: what they are of: "video" or "span".
        clips_per_epoch: number of training clips in an epoch.
        can_go_on: whether it can be resumed with more epochs.
        console: where to print.
        is_first: whether this is the first process of the run, which writes the log.
    """
    results = dict(describe_trained(run.path).results)
    best_epoch = int(results.pop("epoch"))
    epochs = read_metrics(run.path / METRICS)
    at_chance = heads_at_chance(task, results, num_clips, noun)
    judged = verdict(at_chance, epochs, len(epochs) * clips_per_epoch, can_go_on)
    worth = []
    if at_chance:
        command = f"v3s compare DATA --backbones {shlex.quote(str(run.path))} --out FOLDER"
        worth = [
            f"on labelled videos, {command} shows whether its vectors are worth using (DATA may also be "
            "labels/labels.csv of v3s serve)"
        ]
    with open_log(run if is_first else None) as log:
        report = reporter(log, console)
        for line in (f"kept epoch {best_epoch}: validation {describe(results)}", *judged, *worth):
            report(line)
    say(console, str(run.path / WEIGHTS))
    return PretrainResult(run.path, best_epoch, results, tuple(judged))


def verdict(
    at_chance: Mapping[str, str], epochs: Sequence[Mapping[str, Any]], clips: int, can_go_on: bool = True
) -> list[str]:
    """Judge a pre-training by its curves.

    Args:
        at_chance: what `heads_at_chance` found.
        epochs: the lines of metrics.jsonl.
        clips: number of training clips that the run has seen.
        can_go_on: whether it can be resumed with more epochs.

    Returns:
        Sentences: which heads are at chance, whether the run has seen too few clips, whether the loss still falls.
    """
    sentences = list(at_chance.values())
    longer = "more --epochs will probably help" + ("" if can_go_on else f": {_ANEW}")
    if sentences and clips < CLIPS_TO_LEAVE_CHANCE:
        sentences.append(
            f"the run has seen {counted(clips, 'clip')}; on UCF101 both heads left chance within "
            f"{CLIPS_TO_LEAVE_CHANCE:,}: {longer}"
        )
    if still_improving([line["train"]["loss"] for line in epochs]):
        sentences.append(f"the training loss was still falling at the end: {longer}")
    return sentences


def still_improving(losses: Sequence[float]) -> bool:
    """Whether the mean loss of the last tenth of the epochs is clearly below that of the tenth before."""
    if len(losses) < _FEWEST_EPOCHS:
        return False
    tenth = len(losses) // 10
    last, before = fmean(losses[-tenth:]), fmean(losses[-2 * tenth : -tenth])
    return last < before * (1 - _STILL_FALLS)
