"""What to label: one of each group before a second of any, the largest first; labelled groups come last."""

import numpy as np
import pytest

from v3s.explore.to_label import choose_to_label


def groups(sizes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    group = generator.permutation(np.repeat(np.arange(len(sizes)), sizes))
    rows = np.eye(len(sizes), 12)[group] + 0.02 * generator.standard_normal((len(group), 12))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), group


def test_one_of_each_group_is_chosen_the_largest_first() -> None:
    vectors, group = groups((20, 60, 40, 30, 50))
    chosen = choose_to_label(vectors, 5)
    assert group[chosen].tolist() == [1, 4, 2, 3, 0]
    for row in chosen:
        members = np.flatnonzero(group == group[row])
        distances = np.linalg.norm(vectors[members] - vectors[members].mean(axis=0), axis=1)
        assert members[distances.argmin()] == row


def test_groups_without_labels_come_first() -> None:
    vectors, group = groups((20, 60, 40, 30, 50))
    labelled = [int(np.flatnonzero(group == each)[0]) for each in (1, 4, 2)]
    assert set(group[choose_to_label(vectors, 2, labelled=labelled)].tolist()) == {0, 3}


def test_every_free_row_is_chosen_if_there_are_no_more() -> None:
    vectors = np.eye(6, dtype=np.float32)
    assert sorted(choose_to_label(vectors, 50).tolist()) == list(range(6))
    assert sorted(choose_to_label(vectors, 50, labelled=[1, 1, 4]).tolist()) == [0, 2, 3, 5]
    assert choose_to_label(vectors, 3, labelled=np.arange(6)).tolist() == []
    assert choose_to_label(vectors, 0).tolist() == []
    assert choose_to_label(vectors[:1]).tolist() == [0]
    assert choose_to_label(vectors[[2, 2, 2]]).tolist() == [0]


def test_the_same_seed_gives_the_same_choice_without_repetition() -> None:
    vectors = np.random.default_rng(0).standard_normal((400, 9)).astype(np.float32)
    chosen = choose_to_label(vectors, 40, seed=2)
    assert len(set(chosen.tolist())) == 40
    np.testing.assert_array_equal(chosen, choose_to_label(vectors, 40, seed=2))


@pytest.mark.parametrize("labelled", [[6], [-1]])
def test_labelled_rows_exist(labelled: list[int]) -> None:
    with pytest.raises(ValueError, match="asked for 2 of 6 vectors, with labelled rows up to"):
        choose_to_label(np.eye(6, dtype=np.float32), 2, labelled=labelled)
