"""The demo's page: what was shown to the network, how it learned, and what it can tell on videos it never saw."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from v3s.data.index_table import IndexTable
from v3s.data.scan import scan
from v3s.data.splits import list_videos
from v3s.demo import Outcome
from v3s.evaluate import HeadScores
from v3s.pages.charts import confusion_matrix, line_chart
from v3s.pages.page import figure, page, paragraph, section, table, write_page
from v3s.preview import cut_examples, show_examples
from v3s.train.checkpoint import read_json
from v3s.train.run import MANIFEST, METRICS, read_metrics
from v3s.train.trained import Trained, describe_trained


def write_report(path: Path, outcome: Outcome) -> None:
    """Write the page of a finished demo; it needs no other file."""
    trained = describe_trained(outcome.trained.run)
    metrics = read_metrics(outcome.trained.run / METRICS)
    counts = read_json(outcome.trained.run / MANIFEST)["videos"]
    kind = "clips that the demo made" if outcome.made else "videos of yours"
    num_left_out = len(outcome.scan.reports) - outcome.scan.num_usable
    left_out = f"{num_left_out:,} could not be used: see check.jsonl. " if num_left_out else ""
    lead = (
        f"{trained.backbone}, {trained.width:g} of its width, trained for {len(metrics)} epochs without labels on "
        f"{counts['train']:,} {kind}; {counts['validation']:,} others chose the epoch to keep. {left_out}"
        f"{outcome.seconds:.0f} seconds in all. This shows that the road works, not what the method can reach."
    )
    sections = [
        _held_out(outcome),
        _transforms(outcome, trained),
        _curves(metrics, outcome),
        _confusions(outcome),
        _next_steps(),
    ]
    write_page(path, page("Video 3D Sampling: a demo", sections, lead=lead))


def _held_out(outcome: Outcome) -> str:
    scores = outcome.scores
    rows = [
        (name, len(head.labels), f"{head.accuracy:.1%} ± {head.standard_error:.1%}", f"{head.chance:.1%}")
        for name, head in (("spatial", scores.spatial), ("temporal", scores.temporal))
    ]
    return section(
        "On videos that it never saw",
        paragraph(f"{scores.num_clips:,} clips of {scores.num_videos:,} held-out videos; accuracy ± standard error."),
        table(("head", "labels", "accuracy", "chance"), rows),
    )


def _transforms(outcome: Outcome, trained: Trained) -> str:
    videos = _table(outcome.test)
    number = len(videos) // 2
    examples = cut_examples(videos[number], trained.task, trained.sampling, seed=0, number=number)
    return section("What the network is shown", *show_examples(videos[number], examples))


def _table(listed: Path) -> IndexTable:
    return scan(list_videos(listed, subset="all"), min_frames=1).usable_table


def _curves(metrics: Sequence[dict[str, Any]], outcome: Outcome) -> str:
    def curve(part: str, term: str) -> list[tuple[float, float]]:
        return [(line["epoch"], line[part][term]) for line in metrics]

    losses = line_chart(
        {part: curve(part, "loss") for part in ("train", "validation")},
        title="Loss of both heads",
        x_label="epoch",
        y_label="loss",
    )
    scores = outcome.scores
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
        markers={"kept": float(outcome.trained.best_epoch)},
    )
    return section("How it learned", figure(losses, "Training and validation loss"), figure(accuracies, "Accuracy"))


def _confusions(outcome: Outcome) -> str:
    def matrix(name: str, head: HeadScores) -> str:
        drawn = confusion_matrix(head.confusion, head.labels, title=f"{name} head, held-out clips")
        return figure(drawn, f"{name} head: rows are the truth, columns what it said")

    scores = outcome.scores
    return section("What it mixes up", matrix("Spatial", scores.spatial), matrix("Temporal", scores.temporal))


def _next_steps() -> str:
    rows = [
        ("v3s preview --data VIDEOS", "your own videos under each transform"),
        ("v3s check --data VIDEOS", "which of them are usable"),
        ("v3s pretrain --data VIDEOS --out RUN", "the paper's network and recipe"),
    ]
    return section("Next", table(("command", "what it does"), rows))
