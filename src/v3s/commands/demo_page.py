"""The demo's page: what was shown to the network, how it learned, and what it can tell on videos it never saw."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from v3s.commands.evaluate import PretextScores
from v3s.commands.pretrain import PretrainResult
from v3s.commands.preview import cut_examples, show_examples
from v3s.data.index_table import IndexTable
from v3s.data.lists.splits import list_videos
from v3s.data.scan import Scan, scan
from v3s.features.saved import Trained, describe_trained, load_pretext_model
from v3s.files.writing import read_json, write_atomically
from v3s.pages.charts import confusion_matrix, line_chart
from v3s.pages.images import data_uri, mp4, png, small_frames
from v3s.pages.page import figure, page, paragraph, section, table, video, write_page
from v3s.pretext.scores import HeadScores
from v3s.protocols.explain import explain_clip, open_subject
from v3s.protocols.gradcam import contact_sheet, overlay
from v3s.protocols.retrieve import RetrievalResult
from v3s.protocols.speediness import Windows, curve_chart, measure_speediness
from v3s.train.run import MANIFEST, METRICS, read_metrics
from v3s.video.decode import Video
from v3s.video.index import index_video

_NEIGHBOURS = (1, 5, 10)
_EXPLAINED = "conv4"  # finer in time and space than the last stage
_CHANGING, _FASTER, _MOST_FRAMES, _PICTURE_WIDTH = "changing_speed.mp4", 3, 240, 320


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What a demo did.

    Attributes:
        scan: what reading all videos found.
        train: the list file of the videos that were trained on.
        test: the list file of the videos that were held out.
        trained: what the training reached.
        scores: both heads on the held-out videos.
        retrieval: name of the network -> how well the held-out videos find training videos of their class, by the
            trained network and by one of random weights; empty where the videos are not of several classes.
        seconds: that all of it took, less the report.
        made: whether the videos are the demo's own.
    """

    scan: Scan
    train: Path
    test: Path
    trained: PretrainResult
    scores: PretextScores
    retrieval: dict[str, RetrievalResult]
    seconds: float
    made: bool


def write_demo_page(path: Path, demo: DemoResult) -> None:
    """Write the page of a finished demo; it needs no other file."""
    trained = describe_trained(demo.trained.run)
    metrics = read_metrics(demo.trained.run / METRICS)
    counts = read_json(demo.trained.run / MANIFEST)["videos"]
    kind = "clips that the demo made" if demo.made else "videos of yours"
    num_left_out = len(demo.scan.reports) - demo.scan.num_usable
    left_out = f"{num_left_out:,} could not be used: see check.jsonl. " if num_left_out else ""
    lead = (
        f"{trained.backbone}, {trained.width:g} of its width, trained for {len(metrics)} epochs without labels on "
        f"{counts['train']:,} {kind}; {counts['validation']:,} others chose the epoch to keep. {left_out}"
        f"{demo.seconds:.0f} seconds in all. This shows that the road works, not what the method can reach."
    )
    sections = [
        _held_out(demo),
        _transforms(demo, trained),
        _curves(metrics, demo),
        _confusions(demo),
        *_neighbours(demo),
        _attention(demo),
        _speediness(path.parent / _CHANGING, demo, trained),
        _next_steps(),
    ]
    write_page(path, page("Video 3D Sampling: a demo", sections, lead=lead))


def _held_out(demo: DemoResult) -> str:
    scores = demo.scores
    rows = [
        (name, len(head.labels), f"{head.accuracy:.1%} ± {head.standard_error:.1%}", f"{head.chance:.1%}")
        for name, head in (("spatial", scores.spatial), ("temporal", scores.temporal))
    ]
    return section(
        "On videos that it never saw",
        paragraph(f"{scores.num_clips:,} clips of {scores.num_videos:,} held-out videos; accuracy ± standard error."),
        table(("head", "labels", "accuracy", "chance"), rows),
    )


def _transforms(demo: DemoResult, trained: Trained) -> str:
    videos = _table(demo.test)
    number = len(videos) // 2
    examples = cut_examples(videos[number], trained.task, trained.sampling, seed=0, number=number)
    return section("What the network is shown", *show_examples(videos[number], examples))


def _table(listed: Path) -> IndexTable:
    return scan(list_videos(listed, subset="all"), min_frames=1).usable_table


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
    return section("How it learned", figure(losses, "Training and validation loss"), figure(accuracies, "Accuracy"))


def _confusions(demo: DemoResult) -> str:
    def matrix(name: str, head: HeadScores) -> str:
        drawn = confusion_matrix(head.confusion, head.labels, title=f"{name} head, held-out clips")
        return figure(drawn, f"{name} head: rows are the truth, columns what it said")

    scores = demo.scores
    return section("What it mixes up", matrix("Spatial", scores.spatial), matrix("Temporal", scores.temporal))


def _neighbours(demo: DemoResult) -> list[str]:
    """Retrieval by both networks in one table; no section where the videos have no classes."""
    found = demo.retrieval
    if not found:
        return []
    one = next(iter(found.values()))
    rows = [
        (f"top {k}", *(f"{result.accuracy[k]:.1%}" for result in found.values()), f"{one.chance[k]:.1%}")
        for k in _NEIGHBOURS
    ]
    precision = (f"{result.mean_average_precision:.1%}" for result in found.values())
    rows.append(("mean average precision", *precision, f"{one.chance_precision:.1%}"))
    text = (
        f"{one.num_queries:,} held-out videos look for videos of their class among the {one.num_gallery:,} that were "
        "trained on; no network was shown a class. With so few videos, differences of some percent are noise."
    )
    return [section("Nearest videos", paragraph(text), table(("score", *found, "a guess"), rows))]


def _middle(demo: DemoResult) -> Video:
    """The held-out video in the middle of the list: not chosen by what the network makes of it."""
    videos = _table(demo.test)
    return videos[len(videos) // 2]


def _attention(demo: DemoResult) -> str:
    subject, source = open_subject(demo.trained.run), _middle(demo)
    pictures = []
    for head in subject.heads:
        found = explain_clip(subject, source, head=head, stage=_EXPLAINED)
        sheet = data_uri(png(contact_sheet(found.clip, overlay(found.clip, found.heat))), "image/png")
        pictures.append(figure(sheet, f"{head} head: {found.answer(found.predicted)}"))
    text = (
        f"Grad-CAM from {_EXPLAINED} on the clip in the middle of {Path(source.path).name}, as it is, untransformed: "
        "frames above, heat below. The brighter, the more the place spoke for the head's answer. No class of the "
        "spatial head stands for an untransformed clip: its answer is the nearest."
    )
    return section("Where it looks", paragraph(text), *pictures)


def _speediness(file: Path, demo: DemoResult, trained: Trained) -> str:
    """A held-out video that is made to change its speed, and what the temporal head says of it over time."""
    source = _middle(demo)
    length = min(source.num_frames, _MOST_FRAMES)
    change = length // 3
    frames = [*range(change), *range(change, length, _FASTER)]
    film = small_frames(source, frames, _PICTURE_WIDTH)
    write_atomically(file, lambda beside: beside.write_bytes(mp4(film, source.fps)))
    model, _ = load_pretext_model(demo.trained.run)
    curve = measure_speediness(model, trained, index_video(file), Windows(stride=1), console=Console(quiet=True))
    chart = curve_chart(curve, trained.task, video=file.name, markers={"faster": change / source.fps})
    text = (
        f"{Path(source.path).name}, which was held out, plays at its own speed up to frame {change} and {_FASTER} "
        f"times as fast from there on. Each point is a window of {trained.sampling.clip_frames} frames, at its middle. "
        "Speediness is 1 - P(s = 1) / P(all speeds); acceleration is P(p2 > p1) / P(all patterns)."
    )
    shown = video(data_uri(file.read_bytes(), "video/mp4"), "the video that was asked about")
    return section("How fast it seems to play", paragraph(text), figure(chart, "Over time"), shown)


def _next_steps() -> str:
    rows = [
        ("v3s preview --data VIDEOS", "your own videos under each transform"),
        ("v3s check --data VIDEOS", "which of them are usable"),
        ("v3s pretrain --data VIDEOS --out RUN", "the paper's network and recipe"),
    ]
    return section("Next", table(("command", "what it does"), rows))
