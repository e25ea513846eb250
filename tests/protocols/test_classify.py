"""Classifiers on frozen features: compared with scikit-learn and with hand-computed values."""

import math

import numpy as np
import pytest
import torch
from sklearn import metrics
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from v3s.protocols.classify import (
    C_GRID,
    FEW_LABELS_C,
    confusion_counts,
    few_label_subset,
    knn_predict,
    linear_probe,
    logistic_regression,
    per_class_accuracy,
    top_5_accuracy,
    top_k,
)


def blobs(num_rows: int, num_classes: int, spread: float, seed: int) -> tuple[Tensor, Tensor]:
    """Rows around one centre per class, in 10 dimensions of different scales."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num_rows) % num_classes
    centres = torch.randn(num_classes, 10, generator=torch.Generator().manual_seed(99))
    rows = centres[labels] + spread * torch.randn(num_rows, 10, generator=generator)
    return rows * torch.logspace(-2, 2, 10) + 3, labels


def test_few_label_subset_has_the_same_number_of_rows_per_class() -> None:
    labels = torch.tensor([3, 1, 1, 3, 3, 1, 8, 8, 8, 8])
    chosen = few_label_subset(labels, 2, torch.Generator().manual_seed(0))
    assert torch.unique(labels[chosen], return_counts=True)[1].tolist() == [2, 2, 2]
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert torch.equal(chosen, few_label_subset(labels, 2, torch.Generator().manual_seed(0)))
    draws = [few_label_subset(labels, 2, torch.Generator().manual_seed(seed)).tolist() for seed in range(5)]
    assert len({tuple(draw) for draw in draws}) > 1


def test_few_label_subset_reports_a_class_that_is_too_small() -> None:
    with pytest.raises(ValueError, match=r"cannot draw 3 rows from class 1, which has 2"):
        few_label_subset(torch.tensor([0, 0, 0, 1, 1]), 3, torch.Generator())


def test_knn_agrees_with_scikit_learn_at_a_temperature_of_0_07() -> None:
    gallery, labels = blobs(90, 4, spread=2.0, seed=0)
    queries, _ = blobs(25, 4, spread=2.0, seed=1)
    neighbours = KNeighborsClassifier(
        15, weights=lambda distances: np.exp((1 - distances) / 0.07), metric="cosine", algorithm="brute"
    )
    expected = neighbours.fit(gallery.double(), labels).predict_proba(queries.double())
    np.testing.assert_allclose(knn_predict(queries, gallery, labels, 15), expected, atol=1e-4)


def test_knn_vote_of_two_neighbours_by_hand() -> None:
    """With cosines 1 and 0.93, the nearer neighbour has e times the weight of the other."""
    gallery = torch.tensor([[1.0, 0.0], [0.93, math.sqrt(1 - 0.93**2)]])
    votes = knn_predict(torch.tensor([[1.0, 0.0]]), gallery, torch.tensor([0, 1]), 2)
    assert votes[0, 0] / votes[0, 1] == pytest.approx(math.e, rel=1e-4)


def test_knn_refuses_shapes_that_do_not_match() -> None:
    with pytest.raises(ValueError, match=r"got 2 labels for 3 gallery features"):
        knn_predict(torch.eye(3), torch.eye(3), torch.tensor([0, 1]), 1)


@pytest.mark.parametrize("c", [0.01, 1.0])
def test_logistic_regression_agrees_with_scikit_learn(c: float) -> None:
    train, labels = blobs(120, 5, spread=1.0, seed=0)
    test, _ = blobs(40, 5, spread=1.0, seed=1)
    scaler = StandardScaler().fit(train.double())
    oracle = LogisticRegression(C=c, tol=1e-8, max_iter=5000).fit(scaler.transform(train.double()), labels)
    expected = oracle.predict_proba(scaler.transform(test.double()))
    np.testing.assert_allclose(logistic_regression(train, labels, test, c, 5), expected, atol=2e-3)


def test_logistic_regression_ignores_a_constant_feature() -> None:
    train, labels = blobs(60, 3, spread=1.0, seed=0)
    with_constant = torch.cat([train, torch.full((60, 1), 0.3)], dim=1)
    test_with_other = torch.cat([train, torch.full((60, 1), 900.0)], dim=1)
    expected = logistic_regression(train, labels, train, 1.0, 3)
    torch.testing.assert_close(
        logistic_regression(with_constant, labels, test_with_other, 1.0, 3), expected, atol=1e-3, rtol=0
    )


def test_linear_probe_learns_true_labels_and_nothing_from_shuffled_ones() -> None:
    train, labels = blobs(400, 4, spread=0.5, seed=0)
    test, test_labels = blobs(200, 4, spread=0.5, seed=1)
    probe = linear_probe(train, labels, test, generator=torch.Generator().manual_seed(0))
    assert top_k(probe.probabilities, test_labels, 1).mean() > 0.95
    shuffled = labels[torch.randperm(400, generator=torch.Generator().manual_seed(1))]
    blind = linear_probe(train, shuffled, test, generator=torch.Generator().manual_seed(0))
    assert blind.validation_accuracy is not None
    assert blind.validation_accuracy < 0.4
    assert top_k(blind.probabilities, test_labels, 1).mean() < 0.5


def test_linear_probe_chooses_the_penalty_on_training_rows_only() -> None:
    train, labels = blobs(200, 3, spread=3.0, seed=0)
    choices = [
        linear_probe(train, labels, test, generator=torch.Generator().manual_seed(0)) for test in (train, -train)
    ]
    assert choices[0].c == choices[1].c
    assert choices[0].validation_accuracy == choices[1].validation_accuracy


def test_in_a_tie_the_strongest_penalty_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("v3s.protocols.classify.logistic_regression", lambda *given: torch.ones(len(given[2]), 3))
    train, labels = blobs(180, 3, spread=1.0, seed=0)
    assert linear_probe(train, labels, train, generator=torch.Generator()).c == min(C_GRID)


def test_linear_probe_holds_out_whole_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows that are fitted and those that choose the penalty share no group; the last fit is of all rows."""
    fits: list[tuple[list[float], list[float]]] = []

    def recorded(train: Tensor, labels: Tensor, test: Tensor, c: float, num_classes: int) -> Tensor:
        fits.append((train[:, 0].tolist(), test[:, 0].tolist()))
        return torch.full((len(test), num_classes), 1 / num_classes)

    monkeypatch.setattr("v3s.protocols.classify.logistic_regression", recorded)
    groups = torch.arange(180) // 4
    rows = torch.stack([groups.float(), torch.randn(180, generator=torch.Generator().manual_seed(0))], dim=1)
    for seed in range(5):
        fits.clear()
        linear_probe(
            rows, torch.arange(180) % 3, rows[:7], generator=torch.Generator().manual_seed(seed), groups=groups.numpy()
        )
        *chosen, last = fits
        assert len(chosen) == len(C_GRID)
        for fitted, held_out in chosen:
            assert not set(fitted) & set(held_out)
            assert (len(fitted), len(held_out)) == (144, 36)  # a fifth
        assert (len(last[0]), len(last[1])) == (180, 7)


def test_linear_probe_does_not_choose_the_penalty_on_a_few_labels() -> None:
    """A fifth of few labels often has no right answer with any penalty: then the strongest wins, and answers badly."""
    train, labels = blobs(200, 20, spread=0.5, seed=0)
    test, test_labels = blobs(200, 20, spread=0.5, seed=1)
    few = torch.cat([(labels == label).nonzero()[:2, 0] for label in range(20)])
    probe = linear_probe(train[few], labels[few], test, generator=torch.Generator().manual_seed(0))
    assert (probe.c, probe.validation_accuracy) == (FEW_LABELS_C, None)
    expected = logistic_regression(train[few], labels[few], test, FEW_LABELS_C, 20)
    assert torch.equal(probe.probabilities, expected)
    one_group = torch.zeros(200).long().numpy()
    assert linear_probe(train, labels, test, generator=torch.Generator(), groups=one_group).c == FEW_LABELS_C
    assert top_k(probe.probabilities, test_labels, 1).mean() > 0.5


def test_five_of_six_classes_say_something_and_five_of_five_nothing() -> None:
    descending = torch.tensor([[6.0, 5.0, 4.0, 3.0, 2.0, 1.0]]).repeat(3, 1)
    assert top_5_accuracy(descending, torch.tensor([0, 4, 5])) == pytest.approx(2 / 3)
    assert top_5_accuracy(descending[:, :5], torch.tensor([0, 4, 4])) is None


def test_linear_probe_needs_a_label_for_each_row() -> None:
    with pytest.raises(ValueError, match=r"got 2 training rows and 1 labels; expected one label per row"):
        linear_probe(torch.ones(2, 2), torch.zeros(1).long(), torch.ones(1, 2), generator=torch.Generator())


def test_top_k_agrees_with_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.rand(50, 7, generator=generator).softmax(dim=1)
    labels = torch.randint(0, 7, (50,), generator=generator)
    for k in (1, 3, 6):
        expected = metrics.top_k_accuracy_score(labels, probabilities, k=k, labels=range(7))
        assert float(top_k(probabilities, labels, k).mean()) == pytest.approx(expected)


def test_top_k_breaks_ties_by_the_lower_class() -> None:
    assert top_k(torch.full((2, 4), 0.25), torch.tensor([0, 1]), 1).tolist() == [1, 0]
    with pytest.raises(ValueError, match=r"k = 5, probabilities \(2, 4\)"):
        top_k(torch.full((2, 4), 0.25), torch.tensor([0, 1]), 5)


def test_confusion_counts_agrees_with_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(0)
    labels, predictions = torch.randint(0, 5, (2, 200), generator=generator)
    confusion = confusion_counts(labels, predictions, 6)
    np.testing.assert_array_equal(confusion, metrics.confusion_matrix(labels, predictions, labels=range(6)))
    accuracy = per_class_accuracy(confusion)
    np.testing.assert_allclose(accuracy[:5], metrics.recall_score(labels, predictions, average=None))
    assert accuracy[5].isnan()


def test_confusion_counts_refuses_invalid_classes_and_shapes() -> None:
    with pytest.raises(ValueError, match=r"got classes 0 to 3; expected 0 to 2"):
        confusion_counts(torch.tensor([0, 1]), torch.tensor([3, 1]), 3)
    with pytest.raises(ValueError, match=r"labels \(2,\) and predictions \(1,\)"):
        confusion_counts(torch.tensor([0, 1]), torch.tensor([1]), 3)


@pytest.mark.parametrize(("num_rows", "is_chosen"), [(24, False), (140, False), (160, True)])
def test_the_penalty_is_chosen_on_thirty_rows_at_least(num_rows: int, is_chosen: bool) -> None:
    train, labels = blobs(num_rows, 2, spread=3.0, seed=0)
    probe = linear_probe(train, labels, train, generator=torch.Generator().manual_seed(0))
    assert (probe.validation_accuracy is not None) == is_chosen
    assert is_chosen or probe.c == FEW_LABELS_C
