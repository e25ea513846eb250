"""The nearest others: all of a small collection; of a large one, copies always and most of the rest."""

import numpy as np
import pytest

from v3s.explore.matrix import centred
from v3s.explore.neighbours import nearest_others
from v3s.explore.outliers import outlier_scores


def unit(rows: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)
    return scaled


def brute_force(vectors: np.ndarray, k: int, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    distances = np.square(vectors[:, None].astype(np.float64) - vectors[None]).sum(axis=2)
    distances[groups[:, None] == groups] = np.inf
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(distances, order, axis=1)


@pytest.mark.parametrize("num_groups", [3, 300])
def test_all_are_found_in_a_small_collection(num_groups: int) -> None:
    generator = np.random.default_rng(0)
    vectors, groups = unit(generator.standard_normal((300, 8))), generator.permutation(300) % num_groups
    rows, distances = nearest_others(centred(vectors), 7, groups=groups)
    expected_rows, expected = brute_force(vectors, 7, groups)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_allclose(distances, expected, atol=1e-5)


def test_where_there_are_no_more() -> None:
    rows, distances = nearest_others(centred(unit(np.ones((3, 2)))), 2, groups=np.array([0, 0, 1]))
    assert rows.tolist() == [[2, -1], [2, -1], [0, 1]]
    assert np.isinf(distances[:2, 1]).all()


def test_a_large_collection_is_searched_in_cells() -> None:
    generator = np.random.default_rng(1)
    vectors = unit(generator.standard_normal((12_000, 5)) * (2, 1, 1, 0.5, 0.2))
    vectors[7000:7100] = unit(vectors[:100] + 1e-4 * generator.standard_normal((100, 5)))
    rows, distances = nearest_others(centred(vectors), 5)
    assert (rows[:100, 0] == np.arange(7000, 7100)).all()
    assert (rows[7000:7100, 0] == np.arange(100)).all()
    some = generator.choice(12_000, 200, replace=False)
    exact = np.square(vectors[some][:, None] - vectors[None]).sum(axis=2)
    exact[np.arange(200), some] = np.inf
    worst = np.sort(exact, axis=1)[:, 4]
    assert (distances[some] <= worst[:, None] + 1e-5).mean() > 0.98
    assert not (rows == np.arange(12_000)[:, None]).any()
    again, _ = nearest_others(centred(vectors), 5)
    np.testing.assert_array_equal(rows, again)


def test_many_equal_vectors_are_not_compared_with_all_others() -> None:
    rows, distances = nearest_others(centred(np.ones((20_000, 2), np.float16)), 3)
    assert (distances == 0).all()
    assert (rows >= 0).all()


def test_scores_are_mean_relative_distances() -> None:
    vectors = unit(np.random.default_rng(2).standard_normal((200, 6)))
    _, distances = brute_force(vectors, 10, np.arange(200))
    among = np.square(vectors[:, None].astype(np.float64) - vectors[None]).sum(axis=2).mean()
    np.testing.assert_allclose(outlier_scores(vectors), distances.mean(axis=1) / among, rtol=1e-4)


def test_planted_outliers_have_the_largest_scores() -> None:
    generator = np.random.default_rng(4)
    vectors = unit(np.eye(2, 20)[generator.integers(2, size=400)] + 0.05 * generator.standard_normal((400, 20)))
    vectors[[17, 230, 399]] = np.eye(20)[[7, 11, 15]]
    scores = outlier_scores(vectors)
    assert set(np.argsort(-scores)[:3].tolist()) == {17, 230, 399}
    assert scores[17] > 5 * np.median(scores)


@pytest.mark.parametrize(("vectors", "expected"), [(np.ones((1, 3)), [0]), (np.ones((4, 3)), [0] * 4)])
def test_scores_of_vectors_that_do_not_differ_are_zero(vectors: np.ndarray, expected: list[int]) -> None:
    assert outlier_scores(vectors.astype(np.float32)).tolist() == expected


def test_no_neighbours_are_refused() -> None:
    with pytest.raises(ValueError, match="neighbours is 0; it must be more than 0"):
        outlier_scores(np.ones((4, 2), np.float32), 0)
