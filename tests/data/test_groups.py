"""Groups of videos by their paths."""

import pytest

from v3s.data.groups import number_groups


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
    assert number_groups([*paths, "own.mp4"]).tolist() == [0, 1, 2, 3, 4]  # not all are named like that


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
