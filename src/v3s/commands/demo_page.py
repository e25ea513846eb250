"""The page of the demo: transformed clips, learning curves, and results on held-out videos."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from v3s.commands.evaluate import PretextScores
from v3s.commands.pretrain_result import PretrainResult
from v3s.commands.preview import cut_examples, show_examples
from v3s.commands.scores import HeadScores
from v3s.data.index_table import IndexTable
from v3s.data.lists.splits import VideoList, list_videos
from v3s.data.scan import Scan, scan
from v3s.features.saved import Trained, describe_trained, load_pretext_model
from v3s.files.reading import read_json
from v3s.files.text import counted
from v3s.files.writing import write_atomically
from v3s.pages.charts import confusion_matrix, line_chart
from v3s.pages.images import data_uri, mp4, png, small_frames
from v3s.pages.page import figure, page, paragraph, section, table, video, write_page
from v3s.pretext.plan import Sampling
from v3s.pretext.task import TASKS
from v3s.protocols.explain import explain_clip, open_subject
from v3s.protocols.gradcam import contact_sheet, overlay
from v3s.protocols.retrieve import RetrievalResult
from v3s.protocols.speediness import Windows, curve_chart, measure_speediness
from v3s.train.run import MANIFEST, METRICS, read_metrics
from v3s.video.decode import Video
from v3s.video.index import index_video

_NEIGHBOURS = (1, 5, 10)
_EXPLAINED = "conv4"  # finer in time and space than the last stage
_CHANGING, _FASTER, _MAX_FRAMES, _PICTURE_WIDTH = "changing_speed.mp4", 3, 240, 320


TRAIN_LIST, TEST_LIST = "train.txt", "test.txt"


@dataclass(frozen=True, slots=True)
class Division:
    """The videos that a demo trains on and those that it holds out.

    Attributes:
        root: the folder of the videos.
        out: the folder of the demo, with a list of each part: paths relative to `root`.
        group: the regular expression that finds groups, as for ``--group``; None for the default.
        test_group: the same for the held-out videos; None also if they are of one group.
        remark: how videos were held out, in words; empty for generated clips.
        data: what the user gave as ``--data``.
    """

    root: Path
    out: Path
    group: str | None
    test_group: str | None
    remark: str
    data: str

    def videos(self, part: str) -> VideoList:
        """One of the parts, by the name of its list."""
        return list_videos(self.root, splits=self.out / part, subset="all")


@dataclass(frozen=True, slots=True)
class DemoResult:
    """The results of a demo.

    Attributes:
        scan: the result of reading all videos.
        division: the training videos and the held-out ones.
        trained: the result of the training.
        scores: the scores of both heads on the held-out videos.
        retrieval: name of the network -> how well it retrieves training videos of the same class for held-out videos,
            for the trained network and for random weights; empty if the videos do not have several classes.
        seconds: the total time without writing the report.
        is_generated: whether the demo generated the videos.
    """

    scan: Scan
    division: Division
    trained: PretrainResult
    scores: PretextScores
    retrieval: dict[str, RetrievalResult]
    seconds: float
    is_generated: bool


def write_demo_page(path: Path, demo: DemoResult) -> None:
    """Write the page of a finished demo; it needs no other file."""
    trained = describe_trained(demo.trained.run)
    metrics = read_metrics(demo.trained.run / METRICS)
    counts = read_json(demo.trained.run / MANIFEST)["videos"]
    kind = "generated clips" if demo.is_generated else "of your videos"
    num_skipped = len(demo.scan.reports) - demo.scan.num_usable
    skipped = f"{counted(num_skipped, 'file')} skipped: see check.jsonl. " if num_skipped else ""
    lead = (
        f"{trained.backbone} at {trained.width:g} of its full width, trained for {counted(len(metrics), 'epoch')} "
        f"without labels on {counts['train']:,} {kind}; the epoch to keep was chosen on {counts['validation']:,} more. "
        f"{skipped}It took {demo.seconds:.0f} seconds. This shows that the pipeline works, not what the method can "
        "achieve."
    )
    sections = [
        _held_out(demo),
        _transforms(demo, trained),
        _curves(metrics, demo),
        _confusions(demo),
        *_neighbours(demo),
        _attention(demo),
        _speediness(path.parent / _CHANGING, demo, trained),
        _next_steps(demo),
    ]
    write_page(path, page("Video 3D Sampling: a demo", sections, lead=lead))


def _held_out(demo: DemoResult) -> str:
    scores = demo.scores
    rows = [
        (name, len(head.labels), f"{head.accuracy:.1%} ± {head.standard_error:.1%}", f"{head.chance:.1%}")
        for name, head in (("spatial", scores.spatial), ("temporal", scores.temporal))
    ]
    return section(
        "Accuracy on held-out videos",
        paragraph(
            f"{counted(scores.num_clips, 'clip')} of {counted(scores.num_videos, 'held-out video')}; accuracy ± "
            "standard error."
        ),
        *([paragraph(f"{demo.division.remark[0].upper()}{demo.division.remark[1:]}.")] if demo.division.remark else []),
        table(("head", "labels", "accuracy", "chance"), rows),
    )


def _transforms(demo: DemoResult, trained: Trained) -> str:
    videos = _table(demo)
    number = len(videos) // 2
    examples = cut_examples(videos[number], trained.task, trained.sampling, seed=0, number=number)
    return section("Transformed clips", *show_examples(videos[number], examples))


def _table(demo: DemoResult) -> IndexTable:
    """The held-out videos."""
    return scan(demo.division.videos(TEST_LIST), min_frames=1).usable_table


def _curves(metrics: Sequence[dict[str, Any]], demo: DemoResult) -> str:
    def curve(part: str, term: str) -> list[tuple[float, float]]:
        return [(line["epoch"], line[part][term]) for line in metrics]

    losses = line_chart(
        {part: curve(part, "loss") for part in ("train", "validation")},
        title="Loss of both heads",
        x_label="epoch",
        y_label="loss",
    )
    scores = demo.scores
    accuracies = line_chart(
        {
            f"{head}, {part}": curve(part, f"accuracy_{head}")
            for head in ("spatial", "temporal")
            for part in ("train", "validation")
        },
        title="Accuracy of each head",
        x_label="epoch",
        y_label="accuracy",
        reference_lines={
            "chance (spatial)": scores.spatial.chance,
            "chance (temporal)": scores.temporal.chance,
        },
        markers={"kept": float(demo.trained.best_epoch)},
    )
    return section("Learning curves", figure(losses, "Training and validation loss"), figure(accuracies, "Accuracy"))


def _confusions(demo: DemoResult) -> str:
    def matrix(name: str, head: HeadScores) -> str:
        drawn = confusion_matrix(head.confusion, head.labels, title=f"{name} head, held-out clips")
        return figure(drawn, f"{name} head: rows are the true labels, columns the predictions")

    scores = demo.scores
    return section("Confusion matrices", matrix("Spatial", scores.spatial), matrix("Temporal", scores.temporal))


def _neighbours(demo: DemoResult) -> list[str]:
    """Retrieval by both networks in one table; no section if the videos have no classes."""
    results = demo.retrieval
    if not results:
        return []
    one = next(iter(results.values()))
    rows = [
        (f"top {k}", *(f"{result.accuracy[k]:.1%}" for result in results.values()), f"{one.chance[k]:.1%}")
        for k in _NEIGHBOURS
    ]
    precision = (f"{result.mean_average_precision:.1%}" for result in results.values())
    rows.append(("mean average precision", *precision, f"{one.chance_precision:.1%}"))
    text = (
        f"{counted(one.num_queries, 'held-out video')}, each with the nearest of "
        f"{counted(one.num_gallery, 'training video')}; a hit has the same class. Neither network was trained with "
        "classes. With this few videos, differences of a few percent are noise."
    )
    return [section("Video retrieval", paragraph(text), table(("score", *results, "chance"), rows))]


def _middle(demo: DemoResult) -> Video:
    """The held-out video in the middle of the list: it is not chosen by how well the network does on it."""
    videos = _table(demo)
    return videos[len(videos) // 2]


def _attention(demo: DemoResult) -> str:
    subject, source = open_subject(demo.trained.run), _middle(demo)
    pictures = []
    for head in subject.heads:
        shown = explain_clip(subject, source, head=head, stage=_EXPLAINED)
        sheet = data_uri(png(contact_sheet(shown.clip, overlay(shown.clip, shown.heat))), "image/png")
        pictures.append(figure(sheet, f"{head} head: {shown.answer(shown.predicted)}"))
    text = (
        f"Grad-CAM of {_EXPLAINED} on the clip in the middle of {Path(source.path).name}, without a transform: frames "
        "above, heat maps below. Brighter places contribute more to the prediction of the head. The spatial head has "
        "no class for an untransformed clip, so it predicts the nearest one."
    )
    return section("Grad-CAM", paragraph(text), *pictures)


def _speediness(file: Path, demo: DemoResult, trained: Trained) -> str:
    """A held-out video, edited to change its speed, and what the temporal head predicts for it over time."""
    source = _middle(demo)
    length = min(source.num_frames, _MAX_FRAMES)
    change = length // 3
    frames = [*range(change), *range(change, length, _FASTER)]
    film = small_frames(source, frames, _PICTURE_WIDTH)
    write_atomically(file, lambda temporary: temporary.write_bytes(mp4(film, source.fps)))
    model, _ = load_pretext_model(demo.trained.run)
    curve = measure_speediness(model, trained, index_video(file), Windows(stride=1), console=Console(quiet=True))
    chart = curve_chart(curve, trained.task, video=file.name, markers={"faster": change / source.fps})
    text = (
        f"{Path(source.path).name} was held out. It plays at its original speed up to frame {change}, then {_FASTER} "
        f"times as fast. Each point is a window of {trained.sampling.clip_frames} frames, drawn at its middle. "
        "Speediness is 1 - P(s = 1) / P(all speeds); acceleration is P(p2 > p1) / P(all patterns)."
    )
    shown = video(data_uri(file.read_bytes(), "video/mp4"), "the video that was measured")
    return section("Speediness over time", paragraph(text), figure(chart, "Speediness and acceleration"), shown)


def _next_steps(demo: DemoResult) -> str:
    """Commands that work on the same videos: with shorter clips if some are too short for those of the paper."""
    data = ["--data", demo.division.data, "--subset", "all"]
    group = ["--group", demo.division.group] if demo.division.group is not None else []
    shorter: list[str] = []
    least: list[str] = []
    if demo.scan.usable_table.num_frames.min() < TASKS["v3s"].longest_span(Sampling().clip_frames):
        shorter = ["--clip-frames", str(describe_trained(demo.trained.run).sampling.clip_frames)]
        least = ["--min-frames", str(demo.scan.min_frames)]
    commands = {
        "your own videos under each transform": ["preview", *data, *shorter],
        "which of them are usable": ["check", *data, *least],
        "a network of them, with settings that suit them and this machine": [
            "pretrain",
            *data,
            *group,
            "--recipe",
            "own",
            "--minutes",
            "30",
            "--out",
            "RUN",
        ],
    }
    rows = [(shlex.join(["v3s", *words]), text) for text, words in commands.items()]
    return section("Next", table(("command", "what it does"), rows))
