"""The results of a fine-tuning run as a table for the terminal and as an HTML page."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from v3s.files.text import counted, text_table
from v3s.pages.charts import confusion_matrix, line_chart
from v3s.pages.page import figure, page, section, table
from v3s.protocols.recognition import RecognitionResult

_HEADER = ("", "accuracy", "standard error", "chance", "most frequent class")


def recognition_table(result: RecognitionResult) -> Table:
    """Return the accuracies next to chance."""
    title = f"{counted(len(result.scores.labels), 'test video')}, weights of epoch {result.best_epoch}"
    return text_table(title, _HEADER, _rows(result))


def recognition_page(
    result: RecognitionResult,
    metrics: Sequence[dict[str, Any]],
    *,
    name: str,
    num_clips: int,
    sources: Mapping[str, str],
) -> str:
    """Return the page of a fine-tuned network: accuracies, training curves, confusion matrix.

    Args:
        result: the result of the run.
        metrics: the lines of the run's metrics.jsonl.
        name: name of the backbone.
        num_clips: clips of each test video.
        sources: use of the videos -> where they come from.
    """
    scores = result.scores
    lead = (
        f"{name}, fine-tuned for {counted(len(metrics), 'epoch')}. The weights of epoch {result.best_epoch} were kept; "
        f"they were tested on {counted(len(scores.labels), 'test video')} with {counted(num_clips, 'clip')} each."
    )
    confusion = confusion_matrix(scores.confusion.numpy(), scores.classes, title="Test videos")
    per_class = scores.per_class.items()
    by_class = [(label, "no test videos" if share is None else f"{share:.1%}") for label, share in per_class]
    sections = [
        section("Test accuracy", table(_HEADER, _rows(result))),
        section("Training curves", *_curves(result, metrics)),
        section("Confusion matrix", figure(confusion, "Rows are true classes, columns are predicted classes")),
        section("Accuracy per class", table(("class", "top-1"), by_class)),
        section("Videos", table(("videos", "source"), list(sources.items()))),
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

    best = {"kept": float(result.best_epoch)}
    loss = line_chart(curve("loss"), title="Cross entropy", x_label="epoch", y_label="loss", markers=best)
    accuracy = line_chart(
        curve("accuracy"),
        title="Single-clip accuracy",
        x_label="epoch",
        y_label="accuracy",
        reference_lines={"chance": result.chance},
        markers=best,
    )
    return figure(loss, "Loss"), figure(accuracy, "Random clips of training videos, centre clips of validation videos")
