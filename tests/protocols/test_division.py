"""A list without test videos is divided: a quarter of each class, in whole groups, by the seed."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from v3s.data.groups import GroupOptions
from v3s.data.lists.splits import VideoList, list_videos
from v3s.protocols.labelled.division import LISTS, divide, next_to, undivided, write_division
from v3s.protocols.labelled.parts import Labelled, make_parts

VIDEOS = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 9)), min_size=2, max_size=60)


@given(VIDEOS, st.integers(0, 1000))
def test_groups_are_whole_and_no_class_is_lost_from_training(videos: list[tuple[str, int]], seed: int) -> None:
    """Also if groups span classes."""
    labels, groups = [label for label, _ in videos], np.array([group for _, group in videos])
    of_class = {label: {group for own, group in videos if own == label} for label in labels}
    if not any(all(len(of_class[own]) > 1 for own, other in videos if other == group) for _, group in videos):
        with pytest.raises(ValueError, match="no class has videos in two groups"):
            divide(labels, groups, seed)
        return
    is_test = divide(labels, groups, seed)
    assert not set(groups[is_test].tolist()) & set(groups[~is_test].tolist())
    assert {label for label, side in zip(labels, is_test, strict=True) if not side} == set(labels)


@given(VIDEOS, st.integers(0, 1000))
def test_every_class_with_two_groups_is_on_both_sides(videos: list[tuple[str, int]], seed: int) -> None:
    """Where a group is of one class, as in UCF101; and the share is the nearest to a quarter that a group allows."""
    labels = [label for label, _ in videos]
    groups = np.array([ord(label) * 10 + group for label, group in videos])
    per_class = Counter(chr(group // 10) for group in set(groups.tolist()))
    if max(per_class.values()) == 1:
        with pytest.raises(ValueError, match="no class has videos in two groups"):
            divide(labels, groups, seed)
        return
    is_test = divide(labels, groups, seed)
    assert undivided(labels, is_test) == {label: "training" for label, number in per_class.items() if number == 1}
    tested = Counter(label for label, side in zip(labels, is_test, strict=True) if side)
    sizes = Counter(groups.tolist())
    for label, number in Counter(labels).items():
        own = [size for group, size in sizes.items() if group // 10 == ord(label)]
        if len(own) > 1:
            assert tested[label] <= max(number / 4 + max(own) / 2, min(own))


def test_a_quarter_of_single_videos() -> None:
    labels = ["a"] * 40 + ["b"] * 8 + ["c"] * 2
    draws = [divide(labels, np.arange(50), seed) for seed in range(20)]
    for is_test in draws:
        assert [is_test[:40].sum(), is_test[40:48].sum(), is_test[48:].sum()] == [10, 2, 1]
    assert len({is_test.tobytes() for is_test in draws}) == 20
    assert np.array_equal(draws[3], divide(labels, np.arange(50), 3))


def test_a_group_that_is_larger_than_a_quarter_is_passed_over() -> None:
    """Three takes of 9, 2 and 1 videos: a quarter is 3."""
    groups = np.repeat([0, 1, 2], [9, 2, 1])
    sizes = {int(divide(["a"] * 12, groups, seed).sum()) for seed in range(30)}
    assert sizes == {3}


def test_spans_next_to_test_spans_are_on_neither_side() -> None:
    starts = np.arange(0, 200, 5.0)
    is_test = (starts >= 100) & (starts < 120)
    near = next_to(starts, starts + 5, is_test)
    assert starts[near].tolist() == [90, 95, 120, 125]  # ten seconds on both sides
    assert not (near & is_test).any()


def test_the_gap_that_a_recording_lacks_is_a_spans_length(tmp_path: Path) -> None:
    bounds = ((0.0, 60.0), (30.0, 90.0), (60.0, 120.0))
    spans = VideoList(tmp_path, ("a.mp4",) * 3, ("x", "y", "x"), ("x", "y"), "", bounds=bounds)
    with pytest.raises(ValueError, match="of one recording, and none is 60 s away from those that would be tested on"):
        make_parts(
            [Labelled(spans, np.arange(3), {})], GroupOptions(), seed=0, divides=False, console=Console(quiet=True)
        )


@pytest.mark.parametrize("label", ["walk", "a, b", 'say "x"', "é 1"])
def test_written_lists_are_read_as_they_are(tmp_path: Path, label: str) -> None:
    data = tmp_path / "data"
    names = ("plain.mp4", "with, comma.mp4", 'quo"te 3.mp4', "ünï/x y.mp4")
    for name in names:
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).touch()
    train = VideoList(data, names[:2], (label, "other"), (label, "other"), "")
    test = VideoList(data, names[2:], (label,) * 2, (label,), "")
    assert write_division(tmp_path / "split", test, train) == []
    assert write_division(tmp_path / "split", test, train) == []  # the same again
    kept = [tmp_path / "split" / name for name in ("train-1.csv", "test-1.csv")]
    assert write_division(tmp_path / "split", train, test) == kept
    assert [path.read_bytes() for path in kept] == [(tmp_path / "split" / name).read_bytes() for name in LISTS[::-1]]
    for subset, listed in (("train", train), ("test", test)):
        again = list_videos(data, splits=tmp_path / "split", subset=subset)  # type: ignore[arg-type]
        assert (again.paths, again.labels) == (listed.paths, listed.labels)


def test_written_spans_are_read_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a, b.mp4").touch()
    bounds = ((0.0, 1 / 3), (1 / 3, 2 / 3), (3600.0, None))
    spans = VideoList(tmp_path / "data", ("a, b.mp4",) * 3, ("x", "y", "x"), ("x", "y"), "", bounds=bounds)
    write_division(tmp_path / "split", spans, spans)
    assert sorted(path.name for path in (tmp_path / "split").iterdir()) == sorted(LISTS)
    again = list_videos(tmp_path / "data", splits=tmp_path / "split", subset="train")
    assert (again.paths, again.labels) == (spans.paths, spans.labels)
    assert again.bounds[:2] == ((0, 0.333333), (0.333333, 0.666667))
    assert again.bounds[2] == (3600, None)
