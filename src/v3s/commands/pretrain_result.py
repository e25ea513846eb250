"""The end of a pre-training: what is kept, and what the run says of itself."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from v3s.features.saved import describe_trained
from v3s.files.text import say
from v3s.files.weights import WEIGHTS
from v3s.pretext.task import PretextTask
from v3s.pretext.verdict import verdict
from v3s.train.progress import describe
from v3s.train.run import METRICS, RunFolder, open_log, read_metrics, reporter


@dataclass(frozen=True, slots=True)
class PretrainResult:
    """The result of a pre-training.

    Attributes:
        run: the folder of the run.
        best_epoch: the epoch (from 1) whose weights were kept.
        validation: mean validation losses and accuracies of both heads in that epoch.
        verdict: sentences on what the run has learned, see `v3s.pretext.verdict`.
    """

    run: Path
    best_epoch: int
    validation: dict[str, float]
    verdict: tuple[str, ...]


def judge_run(
    run: RunFolder, task: PretextTask, *, num_videos: int, clips_per_epoch: int, console: Console, is_first: bool
) -> PretrainResult:
    """Report which epoch is kept and the verdict on it, also in train.log.

    Args:
        run: the folder of a finished run.
        task: its label tables.
        num_videos: number of validation videos.
        clips_per_epoch: number of training clips in an epoch.
        console: where to print.
        is_first: whether this is the first process of the run, which writes the log.
    """
    results = dict(describe_trained(run.path).results)
    best_epoch = int(results.pop("epoch"))
    epochs = read_metrics(run.path / METRICS)
    judged = verdict(task, results, num_videos, epochs, len(epochs) * clips_per_epoch)
    with open_log(run if is_first else None) as log:
        report = reporter(log, console)
        for line in (f"kept epoch {best_epoch}: validation {describe(results)}", *judged):
            report(line)
    say(console, str(run.path / WEIGHTS))
    return PretrainResult(run.path, best_epoch, results, tuple(judged))
