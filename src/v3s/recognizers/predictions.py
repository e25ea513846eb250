"""What a recognizer says of videos: one prediction for each video or span, and events of consecutive equal ones."""

import csv
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TextIO

from torch import Tensor

from v3s.files.text import as_cell
from v3s.files.writing import write_keeping

_GAP_SECONDS = 0.1  # spans so little apart follow one another: times are rounded
_JSON_LINES = ".jsonl"
_COLUMNS = ("path", "start", "end", "class", "probability", "unsure")
_Cell = str | int | float | bool
_WriteRow = Callable[[Sequence[_Cell]], object]


@dataclass(frozen=True, slots=True)
class Prediction:
    """The most probable classes of a video or a span.

    Attributes:
        path: the file, as listed.
        start: in seconds from the first frame of the file on; 0 for a whole video.
        end: in seconds.
        classes: names, the most probable one first.
        probabilities: of these classes, each in [0, 1].
    """

    path: str
    start: float
    end: float
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Event:
    """Consecutive spans of a file with the same most probable class.

    Attributes:
        path: the file, as listed.
        start: in seconds.
        end: in seconds.
        name: of the class.
        probability: of this class, the mean over the spans, in [0, 1].
        num_spans: number of spans.
    """

    path: str
    start: float
    end: float
    name: str
    probability: float
    num_spans: int


def number_of_classes(k: int | None, classes: tuple[str, ...], default: int) -> int:
    """Return how many classes to name.

    Raises:
        ValueError: there are fewer classes than were asked for.
    """
    if k is not None and not 1 <= k <= len(classes):
        raise ValueError(f"k is {k}; it must be from 1 to {len(classes)}, the number of classes of the recognizer")
    return min(default, len(classes)) if k is None else k


def most_probable(
    rows: Iterable[Tensor], classes: tuple[str, ...], k: int
) -> Iterator[tuple[tuple[str, ...], tuple[float, ...]]]:
    """Yield the names and the probabilities of the most probable classes; in a tie the earlier class comes first.

    Args:
        rows: probabilities, blocks of shape (n, C).
        classes: their names, (C,).
        k: how many, 1 to C.
    """
    for block in rows:
        best = block.sort(dim=1, descending=True, stable=True)
        for numbers, values in zip(best.indices[:, :k].tolist(), best.values[:, :k].tolist(), strict=True):
            yield tuple([classes[number] for number in numbers]), tuple(values)


def join_events(predictions: Iterable[Prediction]) -> Iterator[Event]:
    """Join consecutive predictions of a file with the same most probable class.

    Spans that overlap share their time: an event ends in the middle of the overlap with a span of another class. A gap
    ends an event.

    Args:
        predictions: those of a file follow one another, in order of time.
    """
    event: Event | None = None
    last: Prediction | None = None
    for each in predictions:
        name, probability = each.classes[0], each.probabilities[0]
        follows = last is not None and each.path == last.path and last.start <= each.start <= last.end + _GAP_SECONDS
        last, start = each, each.start
        if event is not None and follows and name == event.name:
            number = event.num_spans + 1
            mean = event.probability + (probability - event.probability) / number
            event = replace(event, end=max(event.end, each.end), probability=mean, num_spans=number)
            continue
        if event is not None:
            if follows and start < event.end:
                start = (start + min(event.end, each.end)) / 2
                event = replace(event, end=start)
            yield event
        event = Event(each.path, start, each.end, name, probability, 1)
    if event is not None:
        yield event


@dataclass(slots=True)
class Tally:
    """What was written: spans, of them unsure ones, and events; and how many spans each class was predicted for.

    ``kept`` are earlier files with other answers, under the names that they have now.
    """

    num_spans: int = 0
    num_unsure: int = 0
    num_events: int = 0
    by_class: Counter[str] = field(default_factory=Counter)
    kept: list[Path] = field(default_factory=list)


def write_predictions(
    out: Path, events: Path | None, predictions: Iterable[Prediction], *, k: int, unsure_below: float
) -> Tally:
    """Write predictions as they come, and the events that they make; each file is written whole or not at all.

    An earlier file with other answers is kept under the first free name.

    A file whose name ends in .jsonl has JSON lines with exact names; any other is CSV, with names as text
    (`v3s.files.text.as_cell`). Both have the same columns. Times are rounded to milliseconds, probabilities to four
    decimals.

    Args:
        out: file for the predictions.
        events: file for the events, if they are wanted.
        predictions: with ``k`` classes each.
        k: number of classes.
        unsure_below: if the probability of the first class is smaller, the prediction is marked as unsure.

    Raises:
        SaveError: a file cannot be written; what was there before is unchanged.
    """
    tally = Tally()
    others = [column for number in range(2, k + 1) for column in (f"class_{number}", f"probability_{number}")]

    def passed(write_row: _WriteRow) -> Iterator[Prediction]:
        for each in predictions:
            (name, probability), *rest = zip(each.classes, each.probabilities, strict=True)
            is_unsure = probability < unsure_below
            further = [cell for other, share in rest for cell in (other, round(share, 4))]
            write_row((*_cells(each, name, probability), is_unsure, *further))
            tally.num_spans += 1
            tally.num_unsure += is_unsure
            tally.by_class[name] += 1
            yield each

    def write(rows: Path) -> None:
        with rows.open("w", encoding="utf-8", newline="") as opened:
            joined = join_events(passed(_row_writer(opened, out, (*_COLUMNS, *others))))
            if events is None:
                tally.num_events = sum(1 for _ in joined)
            else:
                keep(write_keeping(events, partial(write_events, _then_on_disk(joined, opened))))

    def write_events(joined: Iterator[Event], rows: Path) -> None:
        assert events is not None
        with rows.open("w", encoding="utf-8", newline="") as opened:
            write_row = _row_writer(opened, events, (*_COLUMNS, "num_spans"))
            for event in joined:
                is_unsure = event.probability < unsure_below
                write_row((*_cells(event, event.name, event.probability), is_unsure, event.num_spans))
                tally.num_events += 1

    def keep(earlier: Path | None) -> None:
        if earlier is not None:
            tally.kept.append(earlier)

    keep(write_keeping(out, write))
    return tally


def _then_on_disk(events: Iterable[Event], opened: TextIO) -> Iterator[Event]:
    """Yield events; after the last one, the rows that they come from are on the disk, else no file takes its place."""
    yield from events
    opened.flush()
    os.fsync(opened.fileno())


def _cells(span: Prediction | Event, name: str, probability: float) -> tuple[str, float, float, str, float]:
    return span.path, round(span.start, 3), round(span.end, 3), name, round(probability, 4)


def _row_writer(opened: TextIO, path: Path, header: tuple[str, ...]) -> _WriteRow:
    """Return a function that writes a row, in the form that the name of the file asks for."""
    if path.suffix.lower() == _JSON_LINES:
        return lambda row: opened.write(f"{json.dumps(dict(zip(header, row, strict=True)))}\n")
    write_row = csv.writer(opened, lineterminator="\n").writerow
    write_row(header)
    return lambda row: write_row([_as_csv(cell) for cell in row])


def _as_csv(cell: _Cell) -> _Cell:
    if isinstance(cell, str):
        return as_cell(cell)
    return str(cell).lower() if isinstance(cell, bool) else cell
