"""Groups of videos by their paths."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from v3s.data.groups import GroupOptions, hold_out, number_groups, unite


def test_without_a_pattern_each_video_is_alone() -> None:
    assert number_groups(["a/x.mp4", "a/y.mp4", "b/x.mp4"]).tolist() == [0, 1, 2]


def test_names_of_ucf101_have_groups() -> None:
    paths = [
        "Punch/v_Punch_g08_c01.avi",
        "Punch/v_Punch_g08_c02.avi",
        "Punch/v_Punch_g09_c01.avi",
        "v_Lunges_g08_c01.avi",
    ]
    assert number_groups(paths).tolist() == [0, 0, 1, 2]
    assert number_groups([*paths, "own.mp4", "own2.mp4"]).tolist() == [0, 0, 1, 2, 3, 4]  # a foreign file is alone


def test_a_group_is_the_parenthesised_part_or_the_whole_match() -> None:
    paths = ["cage1/monday.mp4", "cage2/monday.mp4", "cage1/tuesday.mp4"]
    assert number_groups(paths, "cage.").tolist() == [0, 1, 0]
    assert number_groups(paths, "/(.+)day").tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("(", "group is '\\(', which is not a regular expression: missing \\)"),
        ("cage2", "group is 'cage2', which does not match 1 of 2 paths; first: cage1/x.mp4"),
        ("x.mp4", "group is 'x.mp4', which puts all 2 videos in one group, 'x.mp4'"),
    ],
)
def test_a_pattern_that_makes_no_groups_is_refused(pattern: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        number_groups(["cage1/x.mp4", "cage2/x.mp4"], pattern)


# Division


@given(st.lists(st.integers(0, 6), min_size=2, max_size=60), st.data())
def test_a_group_is_never_on_both_sides(groups: list[int], data: st.DataObject) -> None:
    """The number asked for is missed by at most half of the smallest group that is left for training."""
    wanted, seed = data.draw(st.integers(1, len(groups) - 1)), data.draw(st.integers(0, 1000))
    if len(set(groups)) == 1:
        with pytest.raises(ValueError, match=f"all {len(groups)} usable videos belong together"):
            hold_out(len(groups), wanted, seed, groups=np.array(groups))
        return
    train, validation = hold_out(len(groups), wanted, seed, groups=np.array(groups))
    assert sorted([*train, *validation]) == list(range(len(groups)))
    sides = [{groups[number] for number in side} for side in (train, validation)]
    assert all(sides)
    assert not sides[0] & sides[1]
    sizes = Counter(groups)
    if len(sides[0]) > 1 and len(sides[1]) > 1:
        assert abs(len(validation) - wanted) <= max(sizes.values()) / 2
    if set(sizes.values()) == {1}:
        assert len(validation) == wanted


def test_small_groups_meet_the_number_exactly_and_all_are_drawn() -> None:
    """Of 100 groups of 5, 20 videos are four groups; over many seeds, every group is drawn."""
    groups, drawn = np.arange(500) // 5, Counter[int]()
    for seed in range(200):
        _, validation = hold_out(500, 20, seed, groups=groups)
        assert len(validation) == 20
        drawn.update(set(groups[validation].tolist()))
    assert len(drawn) == 100
    assert len(hold_out(500, 18, 0, groups=groups)[1]) == 20  # nearer than 15
    assert len(hold_out(500, 17, 0, groups=groups)[1]) == 15
    assert len(hold_out(500, 1, 0, groups=groups)[1]) == 5  # never none
    assert len(hold_out(40, 6, 0, groups=np.arange(40) // 4)[1]) == 4  # 8 is not nearer


@pytest.mark.parametrize(("num_videos", "held_out"), [(9537, 800), (240_000, 800), (954, 80), (2, 1)])
def test_the_default_is_the_paper_s_800_of_ucf101_s_9537_or_that_share(num_videos: int, held_out: int) -> None:
    assert len(hold_out(num_videos, None, 0)[1]) == held_out


def test_a_group_is_named_for_a_message() -> None:
    paths, starts = ["Surf/v_Surf_g01_c01.avi", "Surf/v_Surf_g02_c01.avi"], np.array([0.0, 9.0])
    assert GroupOptions().example(paths) == "v_Surf_g01"
    assert GroupOptions(group=r"g\d+").example(paths) == "g01"
    assert GroupOptions().example(["a.avi", *paths]) == "a.avi"
    assert GroupOptions().example(["a.avi"] * 2, starts) == "a stretch of the recording"


def test_copies_and_groups_are_one_relation() -> None:
    """Video 1 is of the group of 0 and a copy of 2, which is of the group of 3: all four are on one side."""
    contents, groups = np.array([7, 8, 8, 9, 5, 6]), np.array([0, 0, 1, 1, 2, 3])
    assert unite(contents, groups).tolist() == [0, 0, 0, 0, 1, 2]
    for seed in range(20):
        _, validation = hold_out(6, 2, seed, contents, groups)
        assert validation.tolist() == [4, 5]


@given(st.data())
def test_union_is_the_finest_that_keeps_both(data: st.DataObject) -> None:
    """As the components of a graph, found by joining pairs."""
    num = data.draw(st.integers(1, 25))
    relations = [np.array(data.draw(st.lists(st.integers(0, 12), min_size=num, max_size=num))) for _ in range(2)]
    parent = list(range(num))
    for first in range(num):
        for second in range(first):
            if any(relation[first] == relation[second] for relation in relations):
                old, new = parent[first], parent[second]
                parent = [new if each == old else each for each in parent]
    united = unite(*relations)
    assert [[a == b for b in united] for a in united] == [[a == b for b in parent] for a in parent]


def test_videos_without_groups_are_divided_as_before() -> None:
    """The first videos of a seeded permutation: runs of earlier versions can be repeated."""
    for seed in range(20):
        first = np.random.default_rng((seed, 0, 0, 3)).permutation(37)[:5]
        alone = np.arange(37)
        assert hold_out(37, 5, seed, alone + 100, alone)[1].tolist() == sorted(first)
