"""Ranking and its metrics: compared with scikit-learn, and what counts as a hit."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from sklearn.neighbors import NearestNeighbors

from v3s.protocols.retrieve import mean_average_precision, rank, top_k_accuracy


def test_rank_agrees_with_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(0)
    queries, gallery = torch.rand(15, 20, generator=generator) * 9, torch.rand(80, 20, generator=generator) / 7
    ranked = rank(queries, gallery, 50)
    distances, indices = NearestNeighbors(metric="cosine", algorithm="brute").fit(gallery).kneighbors(queries, 50)
    np.testing.assert_array_equal(ranked.indices, indices)
    np.testing.assert_allclose(ranked.scores, 1 - distances, atol=1e-6)


def test_rank_ignores_the_length_of_vectors() -> None:
    generator = torch.Generator().manual_seed(1)
    queries, gallery = torch.randn(3, 6, generator=generator), torch.randn(10, 6, generator=generator)
    scales = torch.rand(10, 1, generator=generator) + 0.1
    assert torch.equal(rank(queries, gallery, 10).indices, rank(5 * queries, scales * gallery, 10).indices)


def test_centring_removes_what_all_videos_have_in_common() -> None:
    generator = torch.Generator().manual_seed(2)
    queries, gallery = torch.randn(4, 6, generator=generator), torch.randn(30, 6, generator=generator)
    gallery -= gallery.mean(dim=0)
    shared = 3 * torch.ones(6)
    centred = rank(queries + shared, gallery + shared, 30, centre=True)
    assert torch.equal(centred.indices, rank(queries, gallery, 30).indices)
    assert not torch.equal(rank(queries + shared, gallery + shared, 30).indices, centred.indices)


def test_a_zero_vector_is_similar_to_nothing() -> None:
    ranked = rank(torch.zeros(1, 3), torch.eye(3), 3)
    assert ranked.indices.tolist() == [[0, 1, 2]]
    assert ranked.scores.tolist() == [[0, 0, 0]]


def test_top_k_accuracy_by_hand() -> None:
    gallery_labels = torch.tensor([7, 7, 8, 9])
    neighbours = torch.tensor([[2, 0, 3], [3, 2, 0], [0, 1, 2], [0, 1, 2]])
    accuracy = top_k_accuracy(torch.tensor([7, 9, 9, 8]), gallery_labels, neighbours, ks=(1, 2, 3))
    assert accuracy == {1: 0.25, 2: 0.5, 3: 0.75}  # the third query has no hit and counts


def test_top_k_accuracy_grows_with_k() -> None:
    generator = torch.Generator().manual_seed(3)
    features, labels = torch.randn(140, 8, generator=generator), torch.randint(0, 11, (140,), generator=generator)
    neighbours = rank(features[:40], features[40:], 50).indices
    accuracy = list(top_k_accuracy(labels[:40], labels[40:], neighbours).values())
    assert len(accuracy) == 5
    assert accuracy == sorted(accuracy)
    assert accuracy[0] < accuracy[-1]


def test_a_k_larger_than_a_fully_ranked_gallery_is_the_whole_gallery() -> None:
    labels, neighbours = torch.tensor([0, 1, 2]), torch.tensor([[2, 1, 0]])
    assert top_k_accuracy(torch.tensor([0]), labels, neighbours, ks=(1, 50)) == {1: 0.0, 50: 1.0}
    with pytest.raises(
        ValueError, match=r"got ks = \(1, 50\); each must be from 1 to 2, since 2 of 3 gallery rows are"
    ):
        top_k_accuracy(torch.tensor([0]), labels, neighbours[:, :2], ks=(1, 50))


def test_mean_average_precision_agrees_with_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(4)
    queries, gallery = torch.randn(12, 5, generator=generator), torch.randn(60, 5, generator=generator)
    query_labels = torch.randint(0, 4, (12,), generator=generator)
    gallery_labels = torch.randint(0, 4, (60,), generator=generator)
    ranked = rank(queries, gallery, 60)
    scores = torch.zeros(12, 60).scatter_(1, ranked.indices, ranked.scores)
    expected = [
        average_precision_score(gallery_labels == label, row) for label, row in zip(query_labels, scores, strict=True)
    ]
    assert mean_average_precision(query_labels, gallery_labels, ranked.indices) == pytest.approx(np.mean(expected))


def test_a_query_whose_class_is_not_in_the_gallery_counts_as_zero() -> None:
    neighbours = torch.tensor([[0, 1], [0, 1]])
    assert mean_average_precision(torch.tensor([0, 5]), torch.tensor([0, 1]), neighbours) == 0.5


def test_mean_average_precision_needs_the_full_ranking() -> None:
    with pytest.raises(ValueError, match=r"1 of 2 gallery rows are ranked"):
        mean_average_precision(torch.tensor([0]), torch.tensor([0, 1]), torch.tensor([[0]]))


@pytest.mark.parametrize("num_queries", [0, 2])
def test_each_query_needs_a_row_of_neighbours(num_queries: int) -> None:
    with pytest.raises(ValueError, match=rf"{num_queries} query labels and neighbours \(3, 1\)"):
        top_k_accuracy(torch.zeros(num_queries).long(), torch.tensor([0]), torch.zeros(3, 1).long(), ks=(1,))


def test_each_neighbour_needs_a_label() -> None:
    with pytest.raises(ValueError, match=r"got 3 gallery labels and neighbour number 4; expected one label per"):
        top_k_accuracy(torch.tensor([0]), torch.tensor([0, 1, 2]), torch.tensor([[4]]), ks=(1,))
