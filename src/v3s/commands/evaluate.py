"""``v3s evaluate``: the accuracy of both heads on videos that the model has not seen (paper section 3.3)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from v3s.backbones.device import ComputeOptions, choose_compute, divide_cores
from v3s.commands.scores import HeadScores, one_answer_sentence, predict_labels, score_heads
from v3s.data.clips import PretextClips, validation_batches
from v3s.data.groups import GroupOptions, number_groups
from v3s.data.lists.splits import VideoOptions
from v3s.data.loading import load_batches
from v3s.data.scan import Scan
from v3s.data.usable import usable_videos
from v3s.features.saved import Trained, load_pretext_model
from v3s.files.text import counted, print_table, say, text_table
from v3s.files.writing import write_json
from v3s.options import require_files, require_positive
from v3s.train.contents import seen_sentence


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(ComputeOptions, GroupOptions, VideoOptions):
    """Measure the accuracy of both heads of a pre-trained model on videos that it has not seen.

    With split lists, and with folders train and test, give --subset test: the default is the training part.

    Attributes:
        backbone: Folder of a run.
        out: JSON file for the accuracies and confusion matrices.

    More options:
        clips: Clips per video; the seed determines which.
        batch_size: Clips per batch.
    """

    backbone: str
    clips: int = 4
    batch_size: int = 32
    out: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "clips", "batch_size")
        require_files(self, out=".json")


@dataclass(frozen=True, slots=True, eq=False)
class PretextScores:
    """The scores of a pre-trained model on a list of videos.

    Attributes:
        num_videos: number of usable videos.
        num_clips: number of clips cut from them.
        skipped: path and reason of each video that was not usable.
        spatial: the scores of the spatial head.
        temporal: the scores of the temporal head.
    """

    num_videos: int
    num_clips: int
    skipped: dict[str, str]
    spatial: HeadScores
    temporal: HeadScores


def evaluate(config: EvaluateConfig, *, console: Console | None = None) -> PretextScores:
    """Cut fixed clips from videos and predict their labels with both heads.

    Starts and crops are drawn with the seed in an epoch of their own, as in validation, so that every call uses the
    same clips. Each label is equally often among them, to within one.

    Args:
        config: the model, the videos and the number of clips per video.
        console: where to print; the terminal by default.

    Raises:
        CheckpointError: the folder does not contain a trained model with both heads.
        ValueError: the videos cannot be listed, or none of them is usable.
    """
    console = console or Console()
    compute = choose_compute(config.device, config.precision)
    model, trained = load_pretext_model(config.backbone)
    scanned = _read_videos(config, trained, console)
    table, groups = scanned.usable_table, config.groups_of(scanned)
    clips = PretextClips(table, trained.task, trained.sampling, seed=config.seed).balanced(len(table) * config.clips)
    batches = validation_batches(len(table), config.clips, config.batch_size)
    workers = divide_cores(config.workers, compute.device)
    loader = load_batches(clips, batches, num_workers=workers, pin_memory=compute.device.type == "cuda")
    predictions, truth = predict_labels(model, loader, compute)
    of_clips = groups[[number % len(table) for batch in batches for _, number in batch]]
    spatial, temporal = score_heads(trained.task, trained.sampling.label_prior, truth, predictions, of_clips)
    scores = PretextScores(len(table), len(truth), scanned.skipped, spatial, temporal)
    print_table(console, _scores_table(scores))
    for name, head in (("spatial", spatial), ("temporal", temporal)):
        if head.one_answer is not None:
            say(console, one_answer_sentence(name, head))
    if config.out is not None:
        write_json(Path(config.out), _description(config, scores))
    if sentence := seen_sentence(Path(config.backbone), table, scanned.videos.noun):
        say(console, sentence)
    return scores


def _scores_table(scores: PretextScores) -> Table:
    """The accuracies of both heads next to chance."""
    title = f"{counted(scores.num_clips, 'clip')} of {counted(scores.num_videos, 'video')}"
    if scores.spatial.num_groups < scores.num_videos:
        title += f" in {counted(scores.spatial.num_groups, 'group')}"
    rows = []
    for name, head in (("spatial", scores.spatial), ("temporal", scores.temporal)):
        shares = (head.accuracy, head.standard_error, head.chance, head.most_frequent_answer)
        rows.append((name, str(len(head.labels)), *(f"{share:.1%}" for share in shares)))
    header = ("head", "labels", "accuracy", "standard error", "chance", "most frequent answer")
    return text_table(title, header, rows)


def _read_videos(config: EvaluateConfig, trained: Trained, console: Console) -> Scan:
    listed = config.list_videos(trained.view)
    number_groups(listed.paths, config.group)  # fails before the videos are read
    needed = trained.task.longest_span(trained.sampling.clip_frames, trained.sampling.seam)
    return usable_videos(listed, min_frames=needed, console=console, workers=config.workers)


def _description(config: EvaluateConfig, scores: PretextScores) -> dict[str, Any]:
    return {
        "backbone": config.backbone,
        "data": config.data,
        "seed": config.seed,
        "num_videos": scores.num_videos,
        "num_clips": scores.num_clips,
        "left_out": scores.skipped,
        "spatial": scores.spatial.to_json(),
        "temporal": scores.temporal.to_json(),
    }
