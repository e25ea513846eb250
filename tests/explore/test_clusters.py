"""Clusters: separated groups are found by both methods, numbered by size; fewer vectors than clusters; repeats."""

import sys

import numpy as np
import pytest

from v3s.explore.clusters import clusters_of, typical_members


def groups(sizes: tuple[int, ...], dimension: int = 16, noise: float = 0.02) -> tuple[np.ndarray, np.ndarray]:
    """Vectors near one of several directions, in random order, and the direction of each."""
    generator = np.random.default_rng(3)
    group = generator.permutation(np.repeat(np.arange(len(sizes)), sizes))
    rows = np.eye(len(sizes), dimension)[group] + noise * generator.standard_normal((len(group), dimension))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), group


@pytest.mark.parametrize("number", [4, 0])
def test_separated_groups_are_the_clusters_the_largest_first(number: int) -> None:
    vectors, group = groups((10, 40, 20, 30))
    assert clusters_of(vectors, number).tolist() == np.array([3, 0, 2, 1])[group].tolist()


def test_what_is_in_no_dense_place_is_in_no_cluster() -> None:
    vectors, _ = groups((40, 40))
    strange = np.eye(16, dtype=np.float32)[10:13]
    clusters = clusters_of(np.concatenate([vectors, strange]), 0)
    assert (clusters[-3:] == -1).all()
    assert set(clusters[:-3].tolist()) <= {-1, 0, 1}
    assert (clusters[:-3] >= 0).mean() > 0.9


@pytest.mark.parametrize(("num_vectors", "expected"), [(1, 1), (2, 1), (8, 2), (200, 10), (5000, 30)])
def test_the_number_of_clusters_follows_from_the_number_of_vectors(num_vectors: int, expected: int) -> None:
    vectors = np.random.default_rng(0).standard_normal((num_vectors, 6)).astype(np.float32)
    clusters = clusters_of(vectors)
    assert sorted(set(clusters.tolist())) == list(range(expected))
    sizes = np.bincount(clusters)
    assert (np.diff(sizes) <= 0).all()


def test_there_are_no_more_clusters_than_different_vectors() -> None:
    vectors = np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1, 0]]
    assert clusters_of(vectors, 5).tolist() == [0, 1, 2, 0, 1, 0]
    assert clusters_of(np.ones((7, 3), np.float32), 5).tolist() == [0] * 7
    assert clusters_of(np.ones((1, 3), np.float32), 5).tolist() == [0]
    assert clusters_of(np.ones((2, 3), np.float32), 0).tolist() == [0, 0]


def test_the_rest_joins_the_clusters_of_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["v3s.explore.clusters"], "MOST_SAMPLED", 60)
    vectors, group = groups((100, 80, 60))
    for number in (3, 0):
        clusters = clusters_of(vectors, number)
        assert [len(set(clusters[group == each].tolist())) for each in range(3)] == [1, 1, 1]
        assert len(set(clusters.tolist())) == 3


def test_the_same_seed_gives_the_same_clusters() -> None:
    vectors = np.random.default_rng(0).standard_normal((900, 12)).astype(np.float32)
    np.testing.assert_array_equal(clusters_of(vectors, 12, seed=5), clusters_of(vectors, 12, seed=5))
    assert (clusters_of(vectors, 12, seed=5) != clusters_of(vectors, 12, seed=6)).any()


def test_a_negative_number_is_refused() -> None:
    with pytest.raises(ValueError, match="the number of clusters is -1; it must be 1 or more, or 0 for HDBSCAN"):
        clusters_of(np.ones((4, 2), np.float32), -1)


def test_members_go_from_the_centre_of_a_cluster_outwards() -> None:
    vectors = np.array([[0, 0], [1, 0], [-1, 0], [3, 0], [-3, 0], [9, 9], [5, 5]], np.float32)
    clusters = np.array([0, 0, 0, 0, 0, 1, -1])
    first, second = typical_members(vectors, clusters, 3)
    assert first[0] == 0
    assert np.abs(vectors[first, 0]).tolist() == [0, 1, 3]
    assert second.tolist() == [5]
    assert typical_members(vectors, np.full(7, -1), 3) == []
