"""A comparison as a verdict in sentences, a table, a page and Markdown."""

from collections.abc import Sequence
from pathlib import PurePath

from v3s.features.hub import HUGGING_FACE
from v3s.features.source import RANDOM
from v3s.files.text import as_text, counted, share_text
from v3s.pages.charts import bar_chart
from v3s.pages.templates import render
from v3s.protocols.comparison.rows import MEASURES, Compared, Comparison, Estimate

NUM_LABELS = 5  # of each class
_GAIN = "Gain over random weights, in points"
_TITLE = "Should I train my own?"
_DIFFERENCES = ("", "linear probe", "neighbours", "retrieval")
_NOTES = (
    "Vectors are the mean over the clips of a video, frozen. Linear probe: the classes by logistic regression. "
    f"Neighbours: the vote of the nearest training videos. {NUM_LABELS} labels: a linear probe on {NUM_LABELS} labels "
    "per class. Retrieval: whether the nearest training video has the same class. Most frequent class: the accuracy of "
    "always answering with the most frequent class of the training videos.",
    "± is one standard error over groups of test videos, which are right or wrong together; with few labels, over "
    "draws of the labels. A difference is paired by video. The best of several was chosen on these test videos, which "
    "favours it a little.",
    "Clips/s: read and encoded here, in this comparison. A licence is what the model's card states; look it up before "
    "you rely on it.",
)


def short_names(found: Comparison) -> list[str]:
    """What the backbones are called in tables: the last part of a path, or all of it if two are the same."""
    names = [row.backbone for row in found.rows]
    short = [_short(name) for name in names]
    return names if len(set(short)) < len(short) else short


def _short(name: str) -> str:
    prefix = next((prefix for prefix in (RANDOM, HUGGING_FACE) if name.startswith(prefix)), "")
    return prefix + (PurePath(name.removeprefix(prefix)).name or name.removeprefix(prefix))


def header(found: Comparison) -> tuple[str, ...]:
    """The columns of the table."""
    neighbours = f"{found.rows[0].k} neighbours"
    return (
        "",
        "linear probe",
        neighbours,
        f"{NUM_LABELS} labels",
        "retrieval",
        "clips/s",
        "M parameters",
        "licence",
    )


def table_rows(found: Comparison) -> list[tuple[str, ...]]:
    """The table: a row for each backbone, and what needs no video: a guess, and always the most frequent class."""
    rows = [_row(found, row, name) for row, name in zip(found.rows, short_names(found), strict=True)]
    without = {"chance": found.chance, "most frequent class": found.majority}
    return [*rows, *((name, *[f"{share:.1%}"] * 4, "", "", "") for name, share in without.items())]


def _row(found: Comparison, row: Compared, name: str) -> tuple[str, ...]:
    shares = [found.share(row, measure) for measure in MEASURES]
    linear, neighbours, retrieval = (_unbroken(share.value, share.error) for share in shares)
    few = "too few videos" if row.few_labels is None else _unbroken(row.few_labels, row.few_labels_error)
    costs = f"{row.clips_per_second:.3g}", f"{row.num_parameters / 1e6:.3g}"
    return (name, linear, neighbours, few, retrieval, *costs, _licence(row))


def _unbroken(share: float, error: float | None) -> str:
    return share_text(share, error).replace(" ", "\u00a0")  # no line breaks there


def _licence(row: Compared) -> str:
    if row.is_own:
        return "yours"
    if row.origin == "random":
        return "no weights"
    return "of its source" if row.origin == "converted" else row.licence or "not stated"


def conclusion(found: Comparison) -> list[str]:
    """The answer in sentences, by linear probe."""
    names = dict(zip(found.rows, short_names(found), strict=True))
    own, other, random = found.best(own=True), found.best(own=False), found.random
    assert other is not None  # since random weights are always among them
    sentences = []
    if own is None:
        sentences.append("None of these backbones is a run of yours, so this does not say whether to train your own.")
    else:
        difference = found.difference(own, other, "linear")
        short = "No clear difference"
        if found.is_clear(difference):
            short = "Yes" if difference.value > 0 else "Not like this"
        sentences.append(
            f"{short}: the linear probe on {names[own]}, your best run, is {_apart(difference)} that on "
            f"{names[other]}, the best of the others."
        )
    if all(row.is_own or row.origin == "random" for row in found.rows):
        sentences.append("No converted or foundation model was compared.")
    for best in filter(None, (own, other) if other.origin != "random" else ()):
        difference = found.difference(best, random, "linear")
        clear = "" if found.is_clear(difference) else ", which is no clear difference"
        sentences.append(f"{names[best]} is {_apart(difference)} random weights{clear}.")
    return sentences


def _apart(difference: Estimate) -> str:
    if difference.value == difference.error == 0:
        return "level with"
    side = "above" if difference.value >= 0 else "below"
    return f"{_with_error(f'{100 * abs(difference.value):.1f}', difference)} points {side}"


def _difference_text(difference: Estimate) -> str:
    return _with_error(f"{100 * difference.value:+.1f}", difference).replace(" ", "\u00a0")  # no line breaks there


def _with_error(points: str, difference: Estimate) -> str:
    """A difference in points, and its error; where all pairs differ alike, none can be estimated."""
    return f"{points} ± {100 * difference.error:.1f}" if difference.error else points


def _difference_rows(found: Comparison) -> list[tuple[str, ...]]:
    return [
        (name, *(_difference_text(found.difference(row, found.random, measure)) for measure in MEASURES))
        for row, name in zip(found.rows, short_names(found), strict=True)
        if row is not found.random
    ]


def _facts(found: Comparison) -> list[tuple[str, ...]]:
    return [
        (name, row.backbone, row.network, row.clips, f"{row.dimension:,}", row.fingerprint[:12])
        for row, name in zip(found.rows, short_names(found), strict=True)
    ]


_FACTS = ("", "given as", "network", "clips", "numbers in a vector", "weights")


def _lead(found: Comparison) -> str:
    groups = len(set(found.test_groups))
    return (
        f"{counted(len(found.rows), 'backbone')} on {counted(len(found.test_groups), 'test video')} in "
        f"{counted(groups, 'group')} and {counted(found.num_train, 'training video')} of "
        f"{counted(len(found.classes), 'class')}; {counted(found.num_clips, 'clip')} of each video. "
        f"Training: {found.train_source}. Test: {found.test_source}."
    )


def comparison_page(found: Comparison) -> str:
    """Return the page; it needs no other file."""
    names = short_names(found)
    shares = {name: 100 * found.share(row, "linear").value for name, row in zip(names, found.rows, strict=True)}
    chart = bar_chart(shares, title="Linear probe, % of the test videos", reference=100 * found.chance, note="chance")
    return render(
        "compare.html",
        title=_TITLE,
        lead=_lead(found),
        answer=conclusion(found),
        numbers=(header(found), table_rows(found)),
        notes=_NOTES,
        chart=chart,
        gain=_GAIN,
        differences=(_DIFFERENCES, _difference_rows(found)),
        facts=(_FACTS, _facts(found)),
    )


def comparison_markdown(found: Comparison) -> str:
    """Return verdict and tables as Markdown."""
    lines = [f"# {_TITLE}", "", _markdown(_lead(found)), ""]
    lines += [f"{_markdown(sentence)}\n" for sentence in conclusion(found)]
    lines += _markdown_table(header(found), table_rows(found))
    lines += ["", f"{_GAIN}:", "", *_markdown_table(_DIFFERENCES, _difference_rows(found))]
    lines += ["", *_markdown_table(_FACTS, _facts(found)), "", *(f"{note}\n" for note in _NOTES)]
    return "\n".join(lines)


def _markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    first, *others = (f"| {' | '.join(map(_markdown, cells))} |" for cells in (columns, *rows))
    return [first, f"|---|{'--:|' * (len(columns) - 1)}", *others]


def _markdown(text: str) -> str:
    """Plain text in Markdown: nothing in it is markup."""
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>|" else letter for letter in as_text(text))
