"""What a fine-tuning reached, as a table for the terminal and as a page."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from v3s.files.text import text_table
from v3s.pages.charts import confusion_matrix, line_chart
from v3s.pages.page import figure, page, section, table
from v3s.protocols.recognition import RecognitionResult

_HEADER = ("", "accuracy", "standard error", "chance", "most frequent class")


def recognition_table(result: RecognitionResult) -> Table:
    """The accuracies beside chance."""
    title = f"{len(result.scores.labels):,} test videos, best epoch {result.best_epoch}"
    return text_table(title, _HEADER, _rows(result))


def recognition_page(
    result: RecognitionResult,
    metrics: Sequence[dict[str, Any]],
    *,
    name: str,
    num_clips: int,
    sources: Mapping[str, str],
) -> str:
    """The page of a fine-tuned network: accuracies, curves, and what it mixes up.

    Args:
        result: what it reached.
        metrics: the lines of the run's metrics.jsonl.
        name: what was fine-tuned.
        num_clips: clips of each test video.
        sources: what the videos were used for, and where they came from.
    """
    scores = result.scores
    lead = (
        f"{name}, fine-tuned for {len(metrics)} epochs; epoch {result.best_epoch} was best on the validation videos "
        f"and was tested on {len(scores.labels):,} others, {num_clips} clips each."
    )
    mixed = confusion_matrix(scores.confusion.numpy(), scores.classes, title="Test videos")
    per_class = scores.per_class.items()
    by_class = [(label, "no test video" if share is None else f"{share:.1%}") for label, share in per_class]
    sections = [
        section("The test", table(_HEADER, _rows(result))),
        section("How it learned", *_curves(result, metrics)),
        section("What it mixes up", figure(mixed, "Rows are the truth, columns what it said")),
        section("Class by class", table(("class", "top-1"), by_class)),
        section("The videos", table(("videos", "of"), list(sources.items()))),
    ]
    return page("Action recognition", sections, lead=lead)


def _rows(result: RecognitionResult) -> list[tuple[str, str, str, str, str]]:
    scores, chance = result.scores, result.chance
    error, majority = f"{scores.standard_error:.1%}", f"{result.majority:.1%}"
    return [
        ("test, top-1", f"{scores.top_1:.1%}", error, f"{chance:.1%}", majority),
        ("test, top-5", f"{scores.top_5:.1%}", "", f"{min(5 * chance, 1):.1%}", ""),
        ("validation, one clip", f"{result.validation['accuracy']:.1%}", "", f"{chance:.1%}", ""),
    ]


def _curves(result: RecognitionResult, metrics: Sequence[dict[str, Any]]) -> tuple[str, str]:
    def curve(term: str) -> dict[str, list[tuple[float, float]]]:
        return {part: [(line["epoch"], line[part][term]) for line in metrics] for part in ("train", "validation")}

    kept = {"kept": float(result.best_epoch)}
    loss = line_chart(curve("loss"), title="Cross entropy", x_label="epoch", y_label="loss", markers=kept)
    accuracy = line_chart(
        curve("accuracy"),
        title="Accuracy of single clips",
        x_label="epoch",
        y_label="accuracy",
        reference_lines={"chance": result.chance},
        markers=kept,
    )
    return figure(loss, "Loss"), figure(accuracy, "Random clips of training videos, centre clips of validation videos")
