"""The results of a fine-tuning run as a table for the terminal and as an HTML page."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from v3s.files.text import counted, error_text, text_table
from v3s.pages.charts import confusion_matrix, epoch_chart
from v3s.pages.templates import render
from v3s.protocols.recognition import RecognitionResult
from v3s.train.optimizer import Keep
from v3s.train.training import kept_sentence

_HEADER = ("", "accuracy", "standard error", "chance", "most frequent class")


def recognition_table(result: RecognitionResult, noun: str = "video") -> Table:
    """Return the accuracies next to chance; the noun is that of `recognition_page`."""
    title = f"{counted(len(result.scores.labels), f'test {noun}')}, weights of epoch {result.best_epoch}"
    return text_table(title, _HEADER, _rows(result))


def recognition_page(
    result: RecognitionResult | None,
    metrics: Sequence[dict[str, Any]],
    *,
    name: str,
    num_epochs: int,
    num_clips: int,
    chance: float,
    keep: Keep,
    sources: Mapping[str, str],
    noun: str = "video",
) -> str:
    """Return the page of a fine-tuned network: accuracies, training curves, confusion matrix.

    Args:
        result: the result of the run; None while it trains.
        metrics: the lines of the run's metrics.jsonl, at least one.
        name: name of the backbone.
        num_epochs: epochs of the whole run.
        num_clips: clips of each test video.
        chance: top-1 accuracy of a uniform guess.
        keep: which epoch is kept.
        sources: use of the videos -> where they come from.
        noun: what was tested: "video" or "span".
    """
    best = metrics[-1]["best_epoch"] if result is None else result.best_epoch
    kept = {"kept": float(best)} if keep != "last" else {}
    loss = epoch_chart(metrics, "loss", title="Cross entropy", y_label="loss", markers=kept)
    accuracy = epoch_chart(
        metrics,
        "accuracy",
        title="Single-clip accuracy",
        percent=True,
        y_label="accuracy",
        markers=kept,
        reference_lines={"chance": chance},
    )
    return render(
        "finetune.html",
        tested=None if result is None else _tested(result, noun),
        best=best,
        kept=kept_sentence(keep, best),
        metrics=metrics,
        name=name,
        num_epochs=num_epochs,
        num_clips=num_clips,
        sources=sources,
        noun=noun,
        curves=[(loss, "Loss"), (accuracy, "Accuracy")],
    )


def _tested(result: RecognitionResult, noun: str) -> dict[str, Any]:
    scores = result.scores
    per_class = scores.per_class.items()
    return {
        "num_videos": len(scores.labels),
        "accuracies": (_HEADER, _rows(result)),
        "confusion": confusion_matrix(scores.confusion.numpy(), scores.classes, title=f"Test {noun}s"),
        "by_class": [(label, f"no test {noun}s" if share is None else f"{share:.1%}") for label, share in per_class],
    }


def _rows(result: RecognitionResult) -> list[tuple[str, str, str, str, str]]:
    scores, chance = result.scores, result.chance
    error, majority = error_text(scores.standard_error), f"{result.majority:.1%}"
    top_5 = [] if scores.top_5 is None else [("test, top-5", f"{scores.top_5:.1%}", "", f"{5 * chance:.1%}", "")]
    return [
        ("test, top-1", f"{scores.top_1:.1%}", error, f"{chance:.1%}", majority),
        *top_5,
        ("validation, one clip", f"{result.validation['accuracy']:.1%}", "", f"{chance:.1%}", ""),
    ]
