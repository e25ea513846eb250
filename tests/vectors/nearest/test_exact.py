"""Exact search: compared with a full sort and scikit-learn; ties, blocks, memory-mapped half-precision files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torch.nn import functional as F

from v3s.vectors.nearest import exact as module
from v3s.vectors.nearest.exact import nearest, zero_rows


def unit_vectors(num_vectors: int, length: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(num_vectors, length, generator=torch.Generator().manual_seed(seed)), dim=1)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_ELEMENTS", 7 * 32)  # blocks of 7 rows at 32 columns
    monkeypatch.setattr(module, "NUM_QUERIES", 3)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("k", [1, 5, 40, 100])
def test_agrees_with_scikit_learn_over_many_blocks(k: int) -> None:
    queries, vectors = unit_vectors(8, 32, 0), unit_vectors(100, 32, 1)
    neighbours = nearest(queries, vectors, k)
    distances, indices = NearestNeighbors(metric="cosine", algorithm="brute").fit(vectors).kneighbors(queries, k)
    np.testing.assert_array_equal(neighbours.indices, indices)
    np.testing.assert_allclose(neighbours.scores, 1 - distances, atol=1e-6)


@pytest.mark.usefixtures("small_blocks")
def test_parts_are_searched_as_one_matrix() -> None:
    queries, vectors = unit_vectors(8, 32, 0), unit_vectors(100, 32, 1)
    parts, whole = nearest(queries, torch.split(vectors, [3, 0, 40, 57]), 20), nearest(queries, vectors, 20)
    assert torch.equal(parts.indices, whole.indices)
    torch.testing.assert_close(parts.scores, whole.scores)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("k", [1, 3, 10, 60])
def test_ties_are_in_order_of_their_rows(k: int) -> None:
    rows = torch.randint(0, 4, (60,), generator=torch.Generator().manual_seed(3))  # 60 vectors, only 4 distinct
    vectors, queries = torch.eye(4, 32)[rows], torch.eye(4, 32)
    expected = (queries @ vectors.T).sort(dim=1, descending=True, stable=True)
    neighbours = nearest(queries, vectors, k)
    assert torch.equal(neighbours.indices, expected.indices[:, :k])
    assert torch.equal(neighbours.scores, expected.values[:, :k])


def test_block_size_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, vectors = unit_vectors(5, 24, 0), unit_vectors(333, 24, 1)
    whole = nearest(queries, vectors, 20)
    monkeypatch.setattr(module, "BLOCK_ELEMENTS", 1)
    one_by_one = nearest(queries, vectors, 20)
    assert torch.equal(whole.indices, one_by_one.indices)
    assert torch.allclose(whole.scores, one_by_one.scores, atol=1e-6)


def test_searches_a_memory_mapped_half_precision_file(tmp_path: Path) -> None:
    vectors = unit_vectors(500, 48, 1).half()
    np.save(tmp_path / "vectors.npy", vectors.numpy())
    mapped = torch.from_numpy(np.load(tmp_path / "vectors.npy", mmap_mode="c"))
    neighbours = nearest(unit_vectors(4, 48, 2), mapped, 10)
    expected = nearest(unit_vectors(4, 48, 2), vectors.float(), 10)
    assert torch.equal(neighbours.indices, expected.indices)
    assert neighbours.scores.dtype == torch.float32


def test_rows_of_zeros_are_numbered_across_parts() -> None:
    vectors = unit_vectors(60, 32, 1)
    vectors[[0, 9, 10, 44, 59]] = 0
    vectors[[3, 30], :31] = 0  # their last number is not
    assert zero_rows(torch.split(vectors, [10, 1, 0, 49])).tolist() == [0, 9, 10, 44, 59]


def test_no_queries_give_no_neighbours() -> None:
    assert nearest(torch.empty(0, 8), unit_vectors(9, 8, 0), 2).indices.shape == (0, 2)


@pytest.mark.parametrize("k", [0, 10])
def test_refuses_a_k_out_of_range(k: int) -> None:
    with pytest.raises(ValueError, match=rf"k is {k}; it must be from 1 to 9, the number of vectors"):
        nearest(unit_vectors(2, 8, 0), unit_vectors(9, 8, 1), k)


def test_refuses_shapes_that_do_not_match() -> None:
    with pytest.raises(ValueError, match=r"queries \(2, 8\) and vectors \(9, 7\)"):
        nearest(unit_vectors(2, 8, 0), unit_vectors(9, 7, 1), 1)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_refuses_values_that_are_not_finite(bad: float) -> None:
    vectors = unit_vectors(30, 32, 1)
    vectors[16, 5] = bad
    with pytest.raises(ValueError, match=r"vectors 14 to 20"):
        nearest(unit_vectors(2, 32, 0), vectors, 1)
