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
from v3s.data.lists.splits import VideoList, list_videos
from v3s.data.scan import Scan, scan
from v3s.features.saved import Trained, describe_trained, load_pretext_model
from v3s.files.reading import read_json
from v3s.files.text import share_text
from v3s.files.writing import write_atomically
from v3s.pages.charts import confusion_matrix, epoch_chart
from v3s.pages.images import data_uri, mp4, png, small_frames
from v3s.pages.templates import render, write_page
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
    videos = scan(demo.division.videos(TEST_LIST), min_frames=1).usable_table
    number = len(videos) // 2  # in the middle of the list: not chosen by how well the network does on it
    middle = videos[number]
    examples = cut_examples(middle, trained.task, trained.sampling, seed=0, number=number)
    heads = {"spatial": demo.scores.spatial, "temporal": demo.scores.temporal}
    html = render(
        "demo.html",
        demo=demo,
        trained=trained,
        counts=read_json(demo.trained.run / MANIFEST)["videos"],
        num_epochs=len(metrics),
        num_skipped=len(demo.scan.reports) - demo.scan.num_usable,
        accuracies=[
            (name, len(head.labels), share_text(head.accuracy, head.standard_error), f"{head.chance:.1%}")
            for name, head in heads.items()
        ],
        video=middle,
        examples=show_examples(middle, examples),
        curves=_curves(metrics, heads, float(demo.trained.best_epoch)),
        confusions=[
            (confusion_matrix(head.confusion, head.labels, title=f"{name} head, held-out clips"), f"{name} head")
            for name, head in heads.items()
        ],
        retrieval=_retrieval(demo.retrieval),
        middle=Path(middle.path).name,
        explained=_EXPLAINED,
        attention=_attention(demo.trained.run, middle),
        commands=_next_steps(demo),
        **_speediness(path.parent / _CHANGING, demo.trained.run, trained, middle),
    )
    write_page(path, html)


def _curves(metrics: Sequence[dict[str, Any]], heads: dict[str, HeadScores], best: float) -> list[tuple[Any, str]]:
    """Charts with captions."""
    charts = [(epoch_chart(metrics, "loss", title="Loss of both heads", y_label="loss"), "Training and validation")]
    for name, head in heads.items():
        shown = {"reference_lines": {"chance": head.chance}, "markers": {"kept": best}}
        title = f"Accuracy of the {name} head"
        chart = epoch_chart(metrics, f"accuracy_{name}", title=title, percent=True, y_label="accuracy", **shown)
        charts.append((chart, "Training and validation"))
    return charts


def _retrieval(results: dict[str, RetrievalResult]) -> tuple[tuple[str, ...], list[tuple[str, ...]]] | None:
    """Retrieval by both networks in one table; None if the videos have no classes."""
    if not results:
        return None
    one = next(iter(results.values()))
    rows = [
        (f"top {k}", *(f"{result.accuracy[k]:.1%}" for result in results.values()), f"{one.chance[k]:.1%}")
        for k in _NEIGHBOURS
    ]
    precision = (f"{result.mean_average_precision:.1%}" for result in results.values())
    return ("score", *results, "chance"), [*rows, ("mean average precision", *precision, f"{one.chance_precision:.1%}")]


def _attention(run: Path, source: Video) -> list[tuple[str, str]]:
    """What each head looks at, as (picture, caption)."""
    subject, figures = open_subject(run), []
    for head in subject.heads:
        shown = explain_clip(subject, source, head=head, stage=_EXPLAINED)
        sheet = png(contact_sheet(shown.clip, overlay(shown.clip, shown.heat)))
        figures.append((data_uri(sheet, "image/png"), f"{head} head: {shown.answer(shown.predicted)}"))
    return figures


def _speediness(file: Path, run: Path, trained: Trained, source: Video) -> dict[str, Any]:
    """A video, edited to change its speed, and what the temporal head predicts for it over time."""
    length = min(source.num_frames, _MAX_FRAMES)
    change = length // 3
    frames = [*range(change), *range(change, length, _FASTER)]
    film = mp4(small_frames(source, frames, _PICTURE_WIDTH), source.fps)
    write_atomically(file, lambda temporary: temporary.write_bytes(film))
    model, _ = load_pretext_model(run)
    curve = measure_speediness(model, trained, index_video(file), Windows(stride=1), console=Console(quiet=True))
    chart = curve_chart(curve, trained.task, video=file.name, markers={"faster": change / source.fps})
    return {"change": change, "faster": _FASTER, "speediness": chart, "film": data_uri(film, "video/mp4")}


def _next_steps(demo: DemoResult) -> list[tuple[str, str]]:
    """Commands that work on the same videos: with shorter clips if some are too short for those of the paper."""
    data = ["--data", demo.division.data, "--subset", "all"]
    group = ["--group", demo.division.group] if demo.division.group is not None else []
    shorter: list[str] = []
    least: list[str] = []
    if demo.scan.usable_table.num_frames.min() < TASKS["v3s"].longest_span(Sampling().clip_frames):
        shorter = ["--clip-frames", str(describe_trained(demo.trained.run).sampling.clip_frames)]
        least = ["--min-frames", str(demo.scan.min_frames)]
    own = ["pretrain", *data, *group, "--recipe", "own", "--minutes", "30", "--out", "RUN"]
    commands = {
        "your own videos under each transform": ["preview", *data, *shorter],
        "which of them are usable": ["check", *data, *least],
        "a network trained on them, with settings that suit them and this machine": own,
    }
    return [(shlex.join(["v3s", *words]), text) for text, words in commands.items()]
