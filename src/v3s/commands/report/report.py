"""RUN/report.html: written after epochs while a run trains, and once more, with result.json, for the kept weights."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from v3s.backbones.contract import normalisation_of
from v3s.commands.pretrain_result import still_improving, verdict
from v3s.commands.report.answers import Answered, Answers, KeptAnswers
from v3s.commands.report.page import Findings, findings_page, head_sentence
from v3s.commands.scores import HeadScores, one_answer_sentence, score_head
from v3s.data.clips import VALIDATION_EPOCH, BatchOrder, PretextClips
from v3s.data.scan import Scan
from v3s.features.saved import describe_trained
from v3s.files.text import as_sentence, counted, say
from v3s.files.writing import write_json
from v3s.pages.images import Pixels, jpeg_uri, tile
from v3s.pages.templates import write_page
from v3s.protocols.errors import heads_at_chance
from v3s.train.distributed import Processes
from v3s.train.loop import validate
from v3s.train.optimizer import Keep
from v3s.train.run import METRICS, REPORT, RESULT, RunFolder, read_metrics
from v3s.train.running_page import RunningPage
from v3s.train.training import TrainingJob, kept_sentence
from v3s.video.container import VideoError
from v3s.video.warp import to_width, warp

_NUM_WRONG, _NUM_FRAMES = 8, 4
_MOST_IN_GALLERY, _NUM_QUERIES, _NUM_NEIGHBOURS = 64, 4, 3
_WIDTH = 112  # of a frame on the page, at most

_Shown = tuple[str, str]  # a picture as a data URI, and its caption


@dataclass(slots=True)
class RunReport:
    """Writes the report of a pre-training; every process has one, and the first writes.

    Attributes:
        run: the folder of the run.
        scan: the videos, with the verdict on each.
        clips: the validation clips.
        held_out: the rows of the usable videos that are validated on, in the order of ``clips``.
        groups: the group of each usable video.
        order: the training batches of the whole run.
        answers: the objective of the validation passes, which keeps the answers.
        processes: this process among those of the run.
        network: its name and width, in words.
        keep: which epoch is kept.
        num_train: number of training videos.
        can_go_on: whether the finished run can be resumed with more epochs.
        page: when the report is written while the run trains.
    """

    run: RunFolder
    scan: Scan
    clips: PretextClips
    held_out: NDArray[np.int64]
    groups: NDArray[np.int64]
    order: BatchOrder
    answers: Answers
    processes: Processes
    network: str
    keep: Keep
    num_train: int
    can_go_on: bool
    page: RunningPage = field(init=False)
    _newest: Answered = field(init=False)
    _pictures: dict[tuple[int, int], Pixels | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.page = RunningPage(lambda: self._write(self._newest, "the last epoch"))

    def after_epoch(self) -> None:
        """Keep the answers of the epoch, and write the report if it is due; every process must call it.

        Raises:
            SaveError: the file cannot be written; the last report is unchanged.
        """
        self._newest = self.answers.take(self.processes)
        if self.processes.is_first:
            self.page.after_epoch()

    def finish(self, steps: TrainingJob, untrained: nn.Module | None) -> None:
        """Write the report and the scores of a finished run, with one validation pass of the kept weights.

        Every process must call it.

        Args:
            steps: the training, whose model gets the kept weights.
            untrained: the network as it was before the training; None if that is not known.

        Raises:
            SaveError: the file cannot be written; the last report is unchanged.
        """
        assert steps.load is not None
        steps.load(self.run.path)
        training, stream = steps.training, steps.validation
        if untrained is not None:
            untrained.normalisation = normalisation_of(training.model.backbone)  # type: ignore[assignment, arg-type]
        others = {} if untrained is None else {"random weights": training.compute.network(untrained).eval()}
        answers = KeptAnswers(_MOST_IN_GALLERY, len(self.clips), others)
        report = partial(say, steps.console)
        failed = self.run.quarantine(stream.name, stream.num_files, repeats=True, report=report)
        batches = stream.read(steps.fixed, failed)
        validate(training.model, batches, answers, training.compute, self.processes)
        answered = answers.take(self.processes)
        if self.processes.is_first:
            self._write(answered, "the kept weights", self._neighbours(answers))
            self._write_scores(answered)
            say(steps.console, str(self.run.path / REPORT))

    def _write(self, answered: Answered, weights: str, neighbours: Sequence[Sequence[_Shown]] = ()) -> None:
        metrics = read_metrics(self.run.path / METRICS)
        if not metrics or not len(answered.numbers):
            return
        videos, last = self._videos(answered.numbers), metrics[-1]
        heads = self._scores(answered, videos)
        noun = self.scan.videos.noun
        lead = (
            f"{self.network}, after epoch {last['epoch']:,} of {self.order.num_epochs:,}, on "
            f"{counted(self.num_train, f'training {noun}')} and {counted(len(self.clips), f'validation {noun}')}. "
            f"{kept_sentence(self.keep, last['best_epoch'])}"
        )
        found = Findings(
            lead=lead,
            sentences=list(map(as_sentence, self._sentences(answered, heads, metrics))),
            metrics=metrics,
            keep=self.keep,
            heads=heads,
            weights=weights,
            num_still=len(np.setdiff1d(videos, videos[~answered.still])),
            num_videos=len(np.unique(videos)),
            noun=noun,
            unused=self._unused(),
            wrong=self._wrong(answered, videos, heads),
            neighbours=neighbours,
        )
        write_page(self.run.path / REPORT, findings_page(found))

    def _write_scores(self, answered: Answered) -> None:
        """Write the accuracy of each head and its standard error over groups, for the model card."""
        if not len(answered.numbers):
            return
        videos = self._videos(answered.numbers)
        scores: dict[str, object] = {
            "fingerprint": describe_trained(self.run.path).fingerprint,
            "num_validation": len(np.unique(videos)),
            "num_validation_groups": len(np.unique(self.groups[self.held_out[videos]])),
        }
        for name, head in self._scores(answered, videos).items():
            scores |= {f"accuracy_{name}": head.accuracy, f"standard_error_{name}": head.standard_error}
        write_json(self.run.path / RESULT, scores)

    def _videos(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The video of each clip, as a row of the validation videos; it is drawn if short videos are among them."""
        if self.clips.sampling.short == "leave-out":
            return numbers % len(self.clips)
        return np.array([self.clips.plan(VALIDATION_EPOCH, int(number))[0] for number in numbers], np.int64)

    def _scores(self, answered: Answered, videos: NDArray[np.int64]) -> dict[str, HeadScores]:
        groups = self.groups[self.held_out[videos]]
        task, prior = self.clips.task, self.clips.sampling.label_prior
        rows = {"spatial": task.spatial, "temporal": task.temporal}
        return {
            name: score_head(rows[name], prior, truth, answers, groups)
            for name, truth, answers in answered.by_head()
            if len(rows[name]) > 1
        }

    def _sentences(
        self, answered: Answered, heads: dict[str, HeadScores], metrics: Sequence[dict[str, Any]]
    ) -> list[str]:
        accuracies, noun = {f"accuracy_{name}": head.accuracy for name, head in heads.items()}, self.scan.videos.noun
        at_chance = heads_at_chance(self.clips.task, accuracies, len(answered.numbers), noun)
        above = [head_sentence(name, head, noun) for name, head in heads.items() if name not in at_chance]
        constant = [one_answer_sentence(name, head) for name, head in heads.items() if head.one_answer is not None]
        if len(metrics) >= self.order.num_epochs:
            num_seen = len(metrics) * self.order.clips_per_epoch
            return [*above, *verdict(at_chance, metrics, num_seen, self.can_go_on), *constant]
        falls = still_improving([line["train"].get("loss", inf) for line in metrics])
        return [*above, *at_chance.values(), *(["the training loss is still falling"] if falls else []), *constant]

    def _unused(self) -> list[tuple[str, int, list[str]]]:
        reasons: dict[str, list[str]] = {}
        for report in self.scan.reports:
            if report.verdict != "usable":
                reasons.setdefault(report.verdict, []).append(f"{report.name}: {report.reason}")
        reasons["failed after the scan"] = [f"{path}: {reason}" for path, reason in self.run.failed_videos.items()]
        unused = [(why, len(videos), videos) for why, videos in reasons.items()]
        return [*unused, ("listed, but not on the disk", self.scan.videos.num_missing, [])]

    def _wrong(self, answered: Answered, videos: NDArray[np.int64], heads: dict[str, HeadScores]) -> list[_Shown]:
        """Clips of different videos that a head gets wrong, in the order of their numbers: not the worst ones."""
        shown: dict[int, _Shown] = {}
        for place, video in enumerate(videos.tolist()):
            said = [
                (name, heads[name].labels[truth[place]], heads[name].labels[answers[place]])
                for name, truth, answers in answered.by_head()
                if name in heads
            ]
            if video in shown or all(truth == answer for _, truth, answer in said):
                continue
            if (picture := self._picture(int(answered.numbers[place]), _NUM_FRAMES)) is not None:
                text = "; ".join(
                    f"{name}: {truth}, {'right' if truth == answer else f'but the answer is {answer}'}"
                    for name, truth, answer in said
                )
                shown[video] = jpeg_uri(picture), f"{self._name(video)}: {text}"
            if len(shown) == _NUM_WRONG:
                break
        return list(shown.values())

    def _neighbours(self, kept: KeptAnswers) -> list[list[_Shown]]:
        """For some clips, their neighbours by each network; nothing if there are too few groups to choose from."""
        numbers = kept.gallery.numbers
        videos = self._videos(np.array(numbers, np.int64))
        groups = self.groups[self.held_out[videos]]
        if len(np.unique(groups)) <= _NUM_NEIGHBOURS + 1:
            return []
        pairs = []
        for query in np.linspace(0, len(numbers) - 1, _NUM_QUERIES).astype(int).tolist():
            pair = []
            for network in kept.gallery.vectors:
                found = [query, *kept.gallery.nearest(network, query, groups, _NUM_NEIGHBOURS)]
                names = [self._name(videos[place]) for place in found]
                pictures = [self._picture(numbers[place], 1) for place in found]
                sheet = [picture for picture in pictures if picture is not None]
                if len(sheet) == len(found):
                    pair.append((jpeg_uri(tile(np.stack(sheet), len(sheet))), f"{network}: {' | '.join(names)}"))
            pairs.append(pair)
        return pairs

    def _name(self, video: int) -> str:
        return self.scan.videos.names[int(self.scan.usable[self.held_out[video]])]

    def _picture(self, number: int, num_frames: int) -> Pixels | None:
        """Evenly spaced frames of a clip in a row, read once; None if its video can no longer be read."""
        key = number, num_frames
        if key not in self._pictures:
            try:
                self._pictures[key] = frames_in_a_row(self.clips[VALIDATION_EPOCH, number][0], num_frames)
            except VideoError:
                self._pictures[key] = None
        return self._pictures[key]


def frames_in_a_row(clip: torch.Tensor, num_frames: int) -> Pixels:
    """Evenly spaced frames of a clip, small, side by side.

    Args:
        clip: uint8, shape (3, T, H, W).
        num_frames: how many.
    """
    frames = clip.permute(1, 0, 2, 3)
    times = ((torch.arange(num_frames) + 0.5) * len(frames) / num_frames).long()
    to_picture, height, width = to_width(clip.shape[3], clip.shape[2], _WIDTH)
    return tile(warp(frames[times], to_picture, height, width).permute(1, 2, 3, 0), num_frames)
