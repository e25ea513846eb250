"""The map: principal components against scikit-learn, one scale for both axes, t-SNE, and equal vectors."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from v3s.explore.matrix import centred
from v3s.explore.projection import map_of, project


def made(num_rows: int, dimension: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((num_rows, dimension)) * np.linspace(2, 0.1, dimension)
    scaled: np.ndarray = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return scaled


def test_components_are_those_of_scikit_learn() -> None:
    vectors = made(9000, 12)  # more than a block
    expected = PCA(3, svd_solver="full").fit(vectors.astype(np.float64))
    signs = np.sign(np.take_along_axis(expected.components_, np.abs(expected.components_).argmax(1)[:, None], 1))
    np.testing.assert_allclose(project(centred(vectors), 3), expected.transform(vectors) * signs.T, atol=1e-5)


def test_half_precision_gives_the_same_map() -> None:
    vectors = made(300, 16).astype(np.float16)
    np.testing.assert_array_equal(map_of(vectors), map_of(vectors.astype(np.float32)))


def test_a_map_fills_the_unit_square_with_one_scale() -> None:
    vectors = made(500, 8)
    points, plain = map_of(vectors), project(centred(vectors), 2)
    assert points.dtype == np.float32
    assert (float(points.min()), float(points.max()), points.shape) == (0, 1, (500, 2))
    scale = np.ptp(points, axis=0) / np.ptp(plain, axis=0)
    assert scale[0] == pytest.approx(scale[1], rel=1e-4)
    assert (points.min(0) + points.max(0)) / 2 == pytest.approx([0.5, 0.5], abs=1e-6)


@pytest.mark.parametrize(
    "vectors",
    [
        np.ones((1, 4), np.float32),
        np.ones((2, 4), np.float32),
        np.ones((50, 1), np.float32),
        np.zeros((3, 2), np.float32),
    ],
)
@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_vectors_that_do_not_differ_lie_in_the_middle(vectors: np.ndarray, method: str) -> None:
    points = map_of(vectors, method="pca" if method == "pca" else "tsne")
    if method == "pca" or len(vectors) < 4:
        assert (points == 0.5).all()
    assert points.shape == (len(vectors), 2)
    assert np.isfinite(points).all()


@pytest.mark.filterwarnings("ignore")
def test_tsne_keeps_neighbours_and_repeats() -> None:
    centres = np.eye(3, 10)[np.arange(90) % 3]
    vectors = (centres + 0.1 * np.random.default_rng(0).standard_normal((90, 10))).astype(np.float32)
    points = map_of(vectors, method="tsne", seed=1)
    distances = np.linalg.norm(points[:, None] - points[None], axis=2) + 9 * np.eye(90)
    assert (distances.argmin(axis=1) % 3 == np.arange(90) % 3).all()
    np.testing.assert_array_equal(points, map_of(vectors, method="tsne", seed=1))


def test_too_many_vectors_for_tsne() -> None:
    with pytest.raises(ValueError, match="t-SNE takes 50,000 vectors at most, got 50,001; choose the map pca"):
        map_of(np.zeros((50_001, 2), np.float16), method="tsne")


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.array([[1, 0], [np.nan, 1]], np.float32), "vector 1 of 2 contains NaN or infinity"),
        (np.array([[np.inf, 0]], np.float16), "vector 0 of 1 contains NaN"),
        (np.zeros((0, 4), np.float32), r"float32 of shape \(0, 4\); expected at least one vector"),
        (np.zeros(4, np.float32), r"shape \(4,\)"),
        (np.zeros((2, 2), np.int64), "got int64"),
    ],
)
def test_what_is_no_matrix_of_finite_numbers_is_refused(vectors: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        map_of(vectors)
