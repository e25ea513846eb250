"""Predictions as files, and the events that they make."""

import csv
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from v3s.data.lists.listfile import read_list
from v3s.files.writing import SaveError
from v3s.recognizers.predictions import (
    Event,
    Prediction,
    join_events,
    most_probable,
    number_of_classes,
    write_predictions,
)


def spans(classes: str, *, seconds: float = 2.0, stride: float | None = None, path: str = "a.mp4") -> list[Prediction]:
    """One span for each letter."""
    starts = [number * (stride or seconds) for number in range(len(classes))]
    return [
        Prediction(path, start, start + seconds, (name, "other"), (0.8, 0.2))
        for start, name in zip(starts, classes, strict=True)
    ]


def shapes(predictions: list[Prediction]) -> list[tuple[float, float, str]]:
    return [(event.start, event.end, event.name) for event in join_events(predictions)]


def test_consecutive_equal_spans_are_one_event() -> None:
    assert shapes(spans("aabbba")) == [(0, 4, "a"), (4, 10, "b"), (10, 12, "a")]
    assert shapes([]) == []


def test_an_event_states_how_many_spans_and_their_mean_probability() -> None:
    first, second = Prediction("a", 0, 2, ("x",), (0.9,)), Prediction("a", 2, 4, ("x",), (0.4,))
    assert list(join_events([first, second])) == [Event("a", 0, 4, "x", pytest.approx(0.65), 2)]  # type: ignore[arg-type]


def test_events_end_with_their_file() -> None:
    found = list(join_events([*spans("aa"), *spans("aa", path="b.mp4")]))
    assert [(event.path, event.start, event.end) for event in found] == [("a.mp4", 0, 4), ("b.mp4", 0, 4)]


def test_overlapping_spans_share_their_time() -> None:
    found = shapes(spans("aabba", seconds=4, stride=2))
    assert found == [(0, 5, "a"), (5, 9, "b"), (9, 12, "a")]
    assert all(before[1] == after[0] for before, after in pairwise(found))


def test_a_span_inside_of_another_takes_no_time_that_it_does_not_have() -> None:
    around, inside = Prediction("a", 0, 10, ("x",), (1.0,)), Prediction("a", 1, 2, ("y",), (1.0,))
    assert shapes([around, inside]) == [(0, 1.5, "x"), (1.5, 2, "y")]


def test_a_gap_ends_an_event() -> None:
    assert shapes(spans("aa", seconds=2, stride=5)) == [(0, 2, "a"), (5, 7, "a")]
    rounded = [Prediction("a", 0, 1.96, ("x",), (1.0,)), Prediction("a", 2.0, 4.0, ("x",), (1.0,))]
    assert shapes(rounded) == [(0, 4, "x")]


def test_a_list_that_jumps_back_makes_no_event_of_it() -> None:
    later, earlier = spans("aa")[1], spans("aa")[0]
    assert shapes([later, earlier]) == [(2, 4, "a"), (0, 2, "a")]


def test_the_most_probable_classes_in_a_tie_come_in_their_order() -> None:
    rows = torch.tensor([[0.2, 0.4, 0.4], [0.5, 0.3, 0.2]])
    best = list(most_probable([rows], ("a", "b", "c"), 2))
    assert [names for names, _ in best] == [("b", "c"), ("a", "b")]
    assert best[1][1] == pytest.approx((0.5, 0.3))


def test_more_classes_than_there_are_is_refused() -> None:
    assert (number_of_classes(None, ("a", "b"), 3), number_of_classes(2, ("a", "b"), 3)) == (2, 2)
    with pytest.raises(ValueError, match=r"k is 3; it must be from 1 to 2, the number of classes"):
        number_of_classes(3, ("a", "b"), 3)


NAMES = ("plain.mp4", "comma, quote\" and 'one'.mp4", "ümlaut 動画.avi", "a  b.mp4", "folder/x.mp4")
ODD = ("line\nbreak.mp4", "=SUM(A1).mp4", "bytes\udcff.mp4", "\x1b[31m.mp4")


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_files_are_read_as_they_were_written(ending: str, tmp_path: Path) -> None:
    names = NAMES + (ODD if ending == "jsonl" else ())
    given = [Prediction(name, 0.5, 2.25, ("ü, x", "b"), (0.61234, 0.38766)) for name in names]
    out, events = tmp_path / f"p.{ending}", tmp_path / f"e.{ending}"
    tally = write_predictions(out, events, given, k=2, unsure_below=0.5)
    assert (tally.num_spans, tally.num_unsure, tally.num_events) == (len(names), 0, len(names))
    assert tally.by_class == {"ü, x": len(names)}
    for file in (out, events):
        rows = read(file)
        assert [row["path"] for row in rows] == list(names)
        assert {(float(row["start"]), float(row["end"]), row["class"]) for row in rows} == {(0.5, 2.25, "ü, x")}
        assert {float(row["probability"]) for row in rows} == {0.6123}
        assert {str(row["unsure"]).lower() for row in rows} == {"false"}
    assert {(row["class_2"], float(row["probability_2"])) for row in read(out)} == {("b", 0.3877)}


def read(file: Path) -> list[dict[str, str]]:
    text = file.read_text()
    return [json.loads(line) for line in text.splitlines()] if file.suffix == ".jsonl" else list(
        csv.DictReader(text.splitlines())
    )  # fmt: skip


def test_odd_names_are_text_in_a_table(tmp_path: Path) -> None:
    given = [Prediction(name, 0, 1, ("a",), (1.0,)) for name in ODD]
    write_predictions(tmp_path / "p.csv", None, given, k=1, unsure_below=0.5)
    shown = [row["path"] for row in read(tmp_path / "p.csv")]
    assert shown == [r"line\nbreak.mp4", "'=SUM(A1).mp4", r"bytes\xff.mp4", r"\x1b[31m.mp4"]


def test_unsure_is_below_the_threshold(tmp_path: Path) -> None:
    given = [Prediction("a", number, number + 1, ("x",), (share,)) for number, share in enumerate((0.49999, 0.5))]
    tally = write_predictions(tmp_path / "p.csv", tmp_path / "e.csv", given, k=1, unsure_below=0.5)
    assert [row["unsure"] for row in read(tmp_path / "p.csv")] == ["true", "false"]
    assert tally.num_unsure == 1
    assert [row["unsure"] for row in read(tmp_path / "e.csv")] == ["true"]


def test_nothing_is_written_if_a_prediction_fails(tmp_path: Path) -> None:
    for name in ("p.csv", "e.csv"):
        (tmp_path / name).write_text("before")

    def failing() -> object:
        yield from spans("ab")
        raise ValueError("a.mp4 cannot be read")

    with pytest.raises(ValueError, match="cannot be read"):
        write_predictions(tmp_path / "p.csv", tmp_path / "e.csv", failing(), k=2, unsure_below=0.5)  # type: ignore[arg-type]
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"p.csv": "before", "e.csv": "before"}


def test_a_full_disk_leaves_what_was_there(
    tmp_path: Path, full_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    (tmp_path / "p.csv").write_text("before")
    with full_disk(100), pytest.raises(SaveError, match="cannot be written"):
        write_predictions(tmp_path / "p.csv", tmp_path / "e.csv", spans("ab" * 500), k=2, unsure_below=0.5)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"p.csv": "before"}


def test_events_take_their_place_only_after_the_rows_that_make_them(
    tmp_path: Path, full_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    """Rows that fit into a buffer, but not onto the disk: neither is there, and earlier ones are where they were."""
    out, events = tmp_path / "rows.csv", tmp_path / "events.csv"
    with full_disk(1000), pytest.raises(SaveError, match="cannot be written"):
        write_predictions(out, events, spans("a" * 50), k=2, unsure_below=0.5)
    assert list(tmp_path.iterdir()) == []
    write_predictions(out, events, spans("ab"), k=2, unsure_below=0.5)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with full_disk(1000), pytest.raises(SaveError, match="cannot be written"):
        write_predictions(out, events, spans("a" * 50), k=2, unsure_below=0.5)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_rows_are_written_as_they_come(tmp_path: Path) -> None:
    """A million spans take no more memory than the buffer of a file."""
    sizes: list[int] = []

    def watched() -> object:
        yield from spans("ab" * 20_000)
        sizes.extend(path.stat().st_size for path in tmp_path.iterdir())

    write_predictions(tmp_path / "p.csv", tmp_path / "e.csv", watched(), k=2, unsure_below=0.5)  # type: ignore[arg-type]
    assert len(sizes) == 2
    assert min(sizes) > 1_000_000


def test_events_make_a_list_of_labelled_spans(tmp_path: Path) -> None:
    """With the first four columns, which is what the commands with labels take."""
    write_predictions(tmp_path / "p.csv", tmp_path / "e.csv", spans("aabb"), k=2, unsure_below=0.5)
    rows = [list(row.values())[:4] for row in read(tmp_path / "e.csv")]
    listed = tmp_path / "labels.csv"
    listed.write_text("path,start,end,label\n" + "".join(f"{','.join(row)}\n" for row in rows))
    assert [(entry.bounds, entry.label) for entry in read_list(listed, tmp_path).entries] == [
        ((0.0, 4.0), "a"), ((4.0, 8.0), "b"),
    ]  # fmt: skip
