"""Classifiers on frozen features, and accuracy metrics (paper section 4.3)."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from v3s.data.groups import take_whole
from v3s.recognizers.linear import fit_linear
from v3s.vectors.nearest.exact import nearest

_TEMPERATURE = 0.07
"""Temperature of the neighbours' vote, as in DINO: low values favour the nearest, high ones weight all equally."""

FEW_LABELS, FEW_HELD_OUT, FEW_LABELS_C = 5, 30, 1.0
"""With fewer labels of a class, groups or held-out rows, too few to choose the penalty on them, C has the last value.

Of 24 labels of two classes, for example, five would be held out: a strong penalty, right by chance, would win a tie.
"""

_VALIDATION_SHARE = 0.2  # of the training rows, held out to choose the penalty

C_GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Inverse penalty strengths to try, the strongest penalty first; it wins ties."""


@dataclass(frozen=True, slots=True, eq=False)
class LinearProbe:
    """The predictions of a linear probe.

    Attributes:
        probabilities: class probabilities of the test rows, float32, shape (M, classes).
        c: the chosen inverse strength of the L2 penalty; `FEW_LABELS_C` if there are too few labels to choose it.
        validation_accuracy: accuracy on the validation rows with this penalty, in [0, 1]; None if it was not chosen.
    """

    probabilities: Tensor
    c: float
    validation_accuracy: float | None


def few_label_subset(labels: Tensor, per_class: int, generator: torch.Generator) -> Tensor:
    """Draw the same number of rows from each class.

    Args:
        labels: integers, shape (N,).
        per_class: rows to draw from each class.
        generator: source of randomness.

    Returns:
        Row numbers in ascending order, int64, shape (classes * per_class,).

    Raises:
        ValueError: a class has fewer rows.
    """
    chosen = []
    for label in torch.unique(labels).tolist():
        rows = (labels == label).nonzero()[:, 0]
        if not 1 <= per_class <= len(rows):
            raise ValueError(f"cannot draw {per_class} rows from class {label}, which has {len(rows)}")
        chosen.append(rows[torch.randperm(len(rows), generator=generator)[:per_class]])
    return torch.cat(chosen).sort().values


def knn_predict(queries: Tensor, gallery: Tensor, labels: Tensor, k: int) -> Tensor:
    """Classify by a weighted vote of the nearest neighbours; each has the weight exp(cosine / 0.07).

    Args:
        queries: features, shape (Q, D).
        gallery: features with known classes, shape (G, D).
        labels: classes of the gallery, 0 to classes - 1, int64, shape (G,).
        k: number of neighbours, 1 to G.

    Returns:
        Each class's share of the vote, float32, shape (Q, classes); rows sum to 1.

    Raises:
        ValueError: the shapes do not match, or ``k`` is out of range.
    """
    if len(labels) != len(gallery):
        raise ValueError(f"got {len(labels)} labels for {len(gallery)} gallery features; expected one label each")
    neighbours = nearest(F.normalize(queries.float(), dim=-1), F.normalize(gallery.float(), dim=-1), k)
    weights = (neighbours.scores / _TEMPERATURE).softmax(dim=1)
    votes = weights.new_zeros(len(queries), int(labels.max()) + 1)
    return votes.scatter_add_(1, labels[neighbours.indices], weights)


def linear_probe(
    train: Tensor, labels: Tensor, test: Tensor, *, generator: torch.Generator, groups: NDArray[np.int64] | None = None
) -> LinearProbe:
    """Classify by multinomial logistic regression on standardised features.

    The penalty is chosen on held-out training rows, if there are at least `FEW_HELD_OUT` of them, and `FEW_LABELS` of
    each class and as many groups: a few held-out rows would choose it by chance. The model is then fitted on all
    training rows. The test rows are only predicted: mean and standard deviation come from the rows that the model is
    fitted on.

    Args:
        train: features, shape (N, D).
        labels: classes of the training rows, 0 to classes - 1, int64, shape (N,).
        test: features, shape (M, D).
        generator: chooses the held-out rows.
        groups: the group of each training row, integers from 0, shape (N,): a group is held out as a whole. None: each
            row is alone.

    Raises:
        ValueError: the shapes do not match, there are no rows, or no groups can be held out.
    """
    if len(labels) != len(train) or not len(train):
        raise ValueError(f"got {len(train)} training rows and {len(labels)} labels; expected one label per row")
    num_classes, order = int(labels.max()) + 1, torch.randperm(len(train), generator=generator)
    groups = np.arange(len(train)) if groups is None else groups
    num_validation = round(_VALIDATION_SHARE * len(train))
    fewest = min(int(np.unique(labels.numpy(), return_counts=True)[1].min()), len(np.unique(groups)))
    if fewest < FEW_LABELS or num_validation < FEW_HELD_OUT:
        probabilities = logistic_regression(train, labels, test, FEW_LABELS_C, num_classes)
        return LinearProbe(probabilities, FEW_LABELS_C, None)
    is_held = torch.from_numpy(take_whole(order.numpy(), num_validation, groups))[order]
    held_out, fitted = order[is_held], order[~is_held]
    accuracy = {}
    for c in C_GRID:
        probabilities = logistic_regression(train[fitted], labels[fitted], train[held_out], c, num_classes)
        accuracy[c] = float(top_k(probabilities, labels[held_out], 1).mean())
    c = max(accuracy, key=lambda key: accuracy[key])
    return LinearProbe(logistic_regression(train, labels, test, c, num_classes), c, accuracy[c])


def logistic_regression(train: Tensor, labels: Tensor, test: Tensor, c: float, num_classes: int) -> Tensor:
    """Fit a multinomial logistic regression, as `fit_linear`; return the probabilities of the test rows.

    Args:
        train: features, shape (N, D).
        labels: classes, 0 to num_classes - 1, int64, shape (N,).
        test: features, shape (M, D).
        c: inverse strength of the penalty.
        num_classes: number of classes.

    Returns:
        Probabilities, float32, shape (M, num_classes).
    """
    logits: Tensor = fit_linear(train, labels, c, num_classes)(test.detach().float())
    return logits.softmax(dim=1)


def top_k(probabilities: Tensor, labels: Tensor, k: int) -> Tensor:
    """Return for each row whether its class is among the k most probable; in a tie the lower class comes first.

    Args:
        probabilities: shape (N, classes).
        labels: int64, shape (N,).
        k: 1 to classes.

    Returns:
        float64 of shape (N,): 1 for a hit, else 0.

    Raises:
        ValueError: ``k`` is out of range, or the shapes do not match.
    """
    if not 1 <= k <= probabilities.shape[1] or not len(labels) == len(probabilities) > 0:
        got = f"k = {k}, probabilities {tuple(probabilities.shape)} and {len(labels)} labels"
        raise ValueError(f"got {got}; k must be from 1 to the number of classes, with one label per row")
    order = probabilities.argsort(dim=1, descending=True, stable=True)[:, :k]
    return (order == labels[:, None]).any(dim=1).double()


def top_5_accuracy(probabilities: Tensor, labels: Tensor) -> float | None:
    """Return the share of rows, in [0, 1], whose class is among the five most probable ones; see `top_k`.

    It is None if there are no more than five classes, one of which is always the right one.
    """
    return float(top_k(probabilities, labels, 5).mean()) if probabilities.shape[1] > 5 else None


def confusion_counts(labels: Tensor, predictions: Tensor, num_classes: int) -> Tensor:
    """Count the samples of each (true class, predicted class): int64, shape (classes, classes), one row per true class.

    Raises:
        ValueError: the lengths differ, or a class is out of range.
    """
    if labels.shape != predictions.shape or labels.ndim != 1:
        got = f"labels {tuple(labels.shape)} and predictions {tuple(predictions.shape)}"
        raise ValueError(f"got {got}; expected two equal shapes (N,)")
    both = torch.cat([labels, predictions])
    if len(both) and not 0 <= int(both.min()) <= int(both.max()) < num_classes:
        raise ValueError(f"got classes {int(both.min())} to {int(both.max())}; expected 0 to {num_classes - 1}")
    return torch.bincount(labels * num_classes + predictions, minlength=num_classes**2).view(num_classes, num_classes)


def per_class_accuracy(confusion: Tensor) -> Tensor:
    """Return the accuracy of each class: float64, shape (classes,); NaN for a class without samples."""
    return confusion.diagonal().double() / confusion.sum(dim=1)
