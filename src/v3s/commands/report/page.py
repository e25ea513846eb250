"""The page of a pre-training: a verdict in sentences, then the curves and clips that it rests on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from v3s.commands.scores import HeadScores
from v3s.files.text import counted, error_text
from v3s.pages.charts import confusion_matrix, epoch_chart, line_chart
from v3s.pages.templates import render
from v3s.protocols.errors import beside_chance
from v3s.train.optimizer import Keep

_NUM_NAMED = 3

_OF_HEADS = ("loss_spatial", "loss_temporal")

_Figure = tuple[Markup, str]  # a chart and its caption


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What is known of a run after an epoch.

    Attributes:
        lead: the network and its videos, in a sentence.
        sentences: the verdict.
        metrics: the lines of metrics.jsonl, at least one.
        keep: which epoch is kept.
        heads: name -> the scores of a head with more than one label, on the validation clips.
        weights: of which epoch the answers are, in words.
        num_still: number of validation videos without motion.
        num_videos: number of validation videos.
        noun: what they are: "video" or "span".
        unused: why videos are not used, how many, and the names and reasons that are known.
        wrong: (picture, caption) of clips that a head gets wrong, as data URIs.
        neighbours: for each query, (picture, caption) of each network.
    """

    lead: str
    sentences: Sequence[str]
    metrics: Sequence[Mapping[str, Any]]
    keep: Keep
    heads: Mapping[str, HeadScores]
    weights: str
    num_still: int
    num_videos: int
    noun: str
    unused: Sequence[tuple[str, int, Sequence[str]]]
    wrong: Sequence[tuple[str, str]]
    neighbours: Sequence[Sequence[tuple[str, str]]] = ()


def findings_page(found: Findings) -> str:
    """Return the page; it needs no other file."""
    return render(
        "report.html",
        found=found,
        scores=_scores(found),
        curves=_curves(found),
        unused=_unused(found),
        speed=_speed(found),
        confusions=[
            (
                confusion_matrix(head.confusion, head.labels, title=f"{name} head"),
                f"Answers of {found.weights}: the darker a cell, the larger its share of its row",
            )
            for name, head in found.heads.items()
        ],
    )


def head_sentence(name: str, head: HeadScores, noun: str) -> str:
    """Say that a head is above chance, with what it is compared with."""
    return (
        f"the {name} head is above chance: {beside_chance(head.accuracy, head.chance, int(head.confusion.sum()), noun)}"
    )


def _scores(found: Findings) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    heads = found.heads.values()
    return ("", *(f"{name} head" for name in found.heads)), [
        ("labels", *(len(head.labels) for head in heads)),
        ("accuracy", *(f"{head.accuracy:.1%}" for head in heads)),
        ("standard error", *(error_text(head.standard_error) for head in heads)),
        ("chance", *(f"{head.chance:.1%}" for head in heads)),
        ("best single answer", *(f"{head.best_single_answer:.1%}" for head in heads)),
        ("most frequent answer", *(f"{head.most_frequent_answer:.1%}" for head in heads)),
    ]


def _curves(found: Findings) -> list[_Figure]:
    last = found.metrics[-1]
    is_chosen = last["best_epoch"] and found.keep != "last"
    shown: dict[str, Any] = {"markers": {"kept": float(last["best_epoch"])} if is_chosen else {}}
    noun = found.noun
    clips = f"Random clips of training {noun}s; the same clips of validation {noun}s in every epoch"
    charts = [(epoch_chart(found.metrics, *_OF_HEADS, title="Loss of both heads", y_label="loss", **shown), clips)]
    for term in sorted({term for line in found.metrics for term in line["train"] if term.startswith("loss_")}):
        if term not in _OF_HEADS:
            chart = epoch_chart(
                found.metrics, term, title=f"Loss of the {term.removeprefix('loss_')} term", y_label="loss"
            )
            charts.append((chart, f"Clips of a batch of training {noun}s"))
    for name, head in found.heads.items():
        shown["reference_lines"] = {"chance": head.chance, "best single answer": head.best_single_answer}
        shown["title"] = f"Accuracy of the {name} head"
        chart = epoch_chart(found.metrics, f"accuracy_{name}", percent=True, y_label="accuracy", **shown)
        charts.append((chart, clips))
    rate = _of_run(found, "learning_rate", "Of the backbone", title="Learning rate", y_label="learning rate")
    return [*((chart, caption) for chart, caption in charts if chart), rate]


def _of_run(found: Findings, name: str, caption: str, *, scale: float = 1, **more: Any) -> _Figure:
    """A number of the whole run by epoch."""
    points = [(line["epoch"], scale * line[name]) for line in found.metrics]
    return line_chart({more["y_label"]: points}, x_label="epoch", **more), caption


def _speed(found: Findings) -> list[_Figure]:
    clips: dict[str, Any] = {"title": "Training clips per second", "y_label": "clips/s"}
    waiting: dict[str, Any] = {
        "title": "Waiting for data",
        "y_label": "% of the time",
        "y_range": (0, 100),
        "scale": 100,
    }
    return [
        _of_run(found, "clips_per_second", "All processes together", **clips),
        _of_run(found, "waiting_share", "In the first process", **waiting),
    ]


def _unused(found: Findings) -> list[str]:
    sentences = []
    for why, number, names in found.unused:
        more = f" | and {len(names) - _NUM_NAMED:,} more" if len(names) > _NUM_NAMED else ""
        if number:
            named = ": " + " | ".join(names[:_NUM_NAMED]) + more if names else ""
            sentences.append(f"{counted(number, found.noun)} {why}{named}.")
    return sentences or [f"All listed {found.noun}s are used."]
