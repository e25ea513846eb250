"""The page of a pre-training: a verdict in sentences, then the curves and clips that it rests on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from v3s.commands.scores import HeadScores
from v3s.files.text import counted
from v3s.pages.charts import confusion_matrix, line_chart
from v3s.pages.page import figure, page, paragraph, section, side_by_side, table

_NUM_NAMED = 3

_OF_HEADS = ("loss_spatial", "loss_temporal")


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What is known of a run after an epoch.

    Attributes:
        lead: the network and its videos, in a sentence.
        sentences: the verdict.
        metrics: the lines of metrics.jsonl, at least one.
        heads: name -> the scores of a head with more than one label, on the validation clips.
        weights: of which epoch the answers are, in words.
        num_still: number of validation videos without motion.
        num_videos: number of validation videos.
        unused: why videos are not used, how many, and the names and reasons that are known.
        wrong: (picture, caption) of clips that a head gets wrong, as data URIs.
        neighbours: for each query, (picture, caption) of each network.
    """

    lead: str
    sentences: Sequence[str]
    metrics: Sequence[Mapping[str, Any]]
    heads: Mapping[str, HeadScores]
    weights: str
    num_still: int
    num_videos: int
    unused: Sequence[tuple[str, int, Sequence[str]]]
    wrong: Sequence[tuple[str, str]]
    neighbours: Sequence[Sequence[tuple[str, str]]] = ()


def findings_page(found: Findings) -> str:
    """Return the page; it needs no other file."""
    sections = [
        section("What it has learned", *map(paragraph, found.sentences), *_scores(found)),
        section("Learning curves", side_by_side(*_curves(found))),
        section("Videos that are not used", *map(paragraph, _unused(found))),
        section("Motion", paragraph(_motion(found))),
        section("Speed", *_speed(found)),
        section("Confusion matrices", side_by_side(*_confusions(found))),
    ]
    if found.wrong:
        text = f"Answers of {found.weights}. A picture shows four frames of a validation clip as the network sees it."
        pictures = (figure(picture, caption) for picture, caption in found.wrong)
        sections.append(section("Clips that it gets wrong", paragraph(text), side_by_side(*pictures)))
    if found.neighbours:
        text = (
            "A validation clip, then the nearest clips of other videos: by the features of the kept weights and, for a "
            "network of v3s, by those of the same network with random weights. Clips are warped as in validation."
        )
        pairs = (side_by_side(*(figure(*shown) for shown in pair)) for pair in found.neighbours)
        sections.append(section("Neighbours", paragraph(text), *pairs))
    return page("Pre-training", sections, lead=found.lead)


def head_sentence(name: str, head: HeadScores) -> str:
    """Say that a head is above chance, with what it is compared with."""
    return (
        f"the {name} head is above chance: {head.accuracy:.1%} of {head.confusion.sum():,} clips of held-out videos, "
        f"chance is {head.chance:.1%}"
    )


def _scores(found: Findings) -> list[str]:
    heads = found.heads.values()
    if not heads:
        return []
    rows = [
        ("labels", *(len(head.labels) for head in heads)),
        ("accuracy", *(f"{head.accuracy:.1%}" for head in heads)),
        ("standard error", *(f"{head.standard_error:.1%}" for head in heads)),
        ("chance", *(f"{head.chance:.1%}" for head in heads)),
        ("best single answer", *(f"{head.best_single_answer:.1%}" for head in heads)),
        ("most frequent answer", *(f"{head.most_frequent_answer:.1%}" for head in heads)),
    ]
    head = next(iter(heads))
    text = (
        f"Answers of {found.weights} to {counted(int(head.confusion.sum()), 'clip')} of "
        f"{counted(found.num_videos, 'validation video')}; standard errors are over "
        f"{counted(head.num_groups, 'group')} of videos. The best single answer is the share of clips that one answer "
        "to everything gets right; the most frequent answer is the share of clips that the head gives its favourite to."
    )
    return [table(("", *(f"{name} head" for name in found.heads)), rows), paragraph(text)]


def _curves(found: Findings) -> list[str]:
    last = found.metrics[-1]
    kept = {"kept": float(last["best_epoch"])} if last["best_epoch"] else {}
    clips = "Random clips of training videos; the same clips of validation videos in every epoch"
    charts = [_chart(_terms(found, *_OF_HEADS), "Loss of both heads", "loss", clips, markers=kept)]
    for term in sorted({term for line in found.metrics for term in line["train"] if term.startswith("loss_")}):
        if term not in _OF_HEADS:
            title = f"Loss of the {term.removeprefix('loss_')} term"
            charts.append(_chart(_terms(found, term), title, "loss", "Clips of a batch of training videos"))
    for name, head in found.heads.items():
        levels = {"chance": head.chance, "best single answer": head.best_single_answer}
        curves, title = _terms(found, f"accuracy_{name}"), f"Accuracy of the {name} head"
        charts.append(_chart(curves, title, "accuracy", clips, reference_lines=levels, markers=kept))
    rates = {"learning rate": [(line["epoch"], line["learning_rate"]) for line in found.metrics]}
    charts.append(_chart(rates, "Learning rate", "learning rate", "Of the backbone"))
    return [chart for chart in charts if chart]


def _terms(found: Findings, *terms: str) -> dict[str, list[tuple[float, float]]]:
    """The curves of a sum of terms in both parts; an epoch whose batches were all empty has none."""
    return {
        part: [
            (line["epoch"], sum(line[part][term] for term in terms))
            for line in found.metrics
            if set(terms) <= line[part].keys()
        ]
        for part in ("train", "validation")
    }


def _chart(
    curves: Mapping[str, Sequence[tuple[float, float]]], title: str, y_label: str, caption: str, **more: Any
) -> str:
    drawn = {name: points for name, points in curves.items() if points}
    return figure(line_chart(drawn, title=title, x_label="epoch", y_label=y_label, **more), caption) if drawn else ""


def _unused(found: Findings) -> list[str]:
    sentences = []
    for why, number, names in found.unused:
        more = f" | and {len(names) - _NUM_NAMED:,} more" if len(names) > _NUM_NAMED else ""
        if number:
            named = ": " + " | ".join(names[:_NUM_NAMED]) + more if names else ""
            sentences.append(f"{counted(number, 'video')} {why}{named}.")
    return sentences or ["All listed videos are used."]


def _motion(found: Findings) -> str:
    share = found.num_still / max(found.num_videos, 1)
    if not found.num_still:
        return f"All of {counted(found.num_videos, 'validation video')} show motion."
    return (
        f"{found.num_still:,} of {counted(found.num_videos, 'validation video')} ({share:.0%}) show no motion in any "
        "of their clips: no 8 x 8 pixels change by two levels of 255. Such a video does not show its speed; about "
        "the same share of the training videos is like this."
    )


def _speed(found: Findings) -> list[str]:
    def curve(name: str) -> dict[str, list[tuple[float, float]]]:
        return {"train": [(line["epoch"], line[name]) for line in found.metrics]}

    last = found.metrics[-1]
    text = (
        f"Epoch {last['epoch']:,}: {last['clips_per_second']:,.1f} training clips per second, "
        f"{last['waiting_share']:.0%} of the time waiting for data."
    )
    speed = _chart(curve("clips_per_second"), "Training clips per second", "clips/s", "All processes together")
    waiting = _chart(
        curve("waiting_share"), "Waiting for data", "share of the time", "In the first process", y_range=(0.0, 1.0)
    )
    return [paragraph(text), side_by_side(speed, waiting)]


def _confusions(found: Findings) -> list[str]:
    return [
        figure(
            confusion_matrix(head.confusion, head.labels, title=f"{name} head"),
            f"Answers of {found.weights}: the darker a cell, the larger its share of its row",
        )
        for name, head in found.heads.items()
    ]
