"""Action similarity labelling: whether two videos show the same action (paper section 4.5).

Twelve similarities of a pair's features at each of three stages give 36 numbers, which a linear support vector machine
(SVM) classifies. It is trained on all folds of pairs except one and tested on that one; no class is in two folds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from v3s.files.text import counted, short_repr
from v3s.options import import_extra
from v3s.protocols.classify import C_GRID
from v3s.video.homography import FloatArray

BoolArray: TypeAlias = npt.NDArray[np.bool_]

_EPSILON = 1e-10
"""Added to numerator and denominator inside a logarithm, since a feature can be exactly 0."""


@dataclass(frozen=True, slots=True)
class SimilarityResult:
    """The result of the leave-one-fold-out evaluation.

    Attributes:
        fold_accuracy: accuracy on each fold in ascending order of its number, in [0, 1].
        mean: mean of ``fold_accuracy``.
        standard_error: standard error of the mean: standard deviation (ddof = 1) / sqrt(number of folds).
        auc: area under the ROC curve of all pairs, each scored by the SVM that was not trained on its fold.
        false_positive_rate: of the points of the ROC curve.
        true_positive_rate: of the points of the ROC curve.
    """

    fold_accuracy: tuple[float, ...]
    mean: float
    standard_error: float
    auc: float
    false_positive_rate: tuple[float, ...]
    true_positive_rate: tuple[float, ...]
    __repr__ = short_repr


def _dot(x: Tensor, y: Tensor) -> Tensor:
    """1: sum(x y)."""
    return (x * y).sum(dim=1)


def _root_dot(x: Tensor, y: Tensor) -> Tensor:
    """2: sqrt(sum(x y))."""
    return _dot(x, y).sqrt()


def _root_bhattacharyya(x: Tensor, y: Tensor) -> Tensor:
    """3: sqrt(sum(sqrt(x) sqrt(y)))."""
    return _root_dot(x.sqrt(), y.sqrt())


def _root_harmonic(x: Tensor, y: Tensor) -> Tensor:
    """4: sqrt(sum(x y / (x + y))), 0 / 0 = 0."""
    return _ratio(x * y, x + y).sum(dim=1).sqrt()


def _cosine(x: Tensor, y: Tensor) -> Tensor:
    """5: sum(x y) / (|x| |y|), 0 / 0 = 0."""
    return _ratio(_dot(x, y), x.norm(dim=1) * y.norm(dim=1))


def _chi(x: Tensor, y: Tensor) -> Tensor:
    """6: sqrt(sum((x - y)^2 / (x + y))), 0 / 0 = 0."""
    return _ratio((x - y).square(), x + y).sum(dim=1).sqrt()


def _manhattan(x: Tensor, y: Tensor) -> Tensor:
    """7: sum |x - y|."""
    return (x - y).abs().sum(dim=1)


def _hellinger(x: Tensor, y: Tensor) -> Tensor:
    """8: sqrt(sum((sqrt(x) - sqrt(y))^2))."""
    return _euclidean(x.sqrt(), y.sqrt())


def _euclidean(x: Tensor, y: Tensor) -> Tensor:
    """9: sqrt(sum((x - y)^2)), of vectors of unit length."""
    return (x - y).square().sum(dim=1).sqrt()


def _symmetric_divergence(x: Tensor, y: Tensor) -> Tensor:
    """10: (sum(x log(x / y)) + sum(y log(y / x))) / 2, of vectors of unit length; 1e-10 is added inside the log."""
    return ((x - y) * ((x + _EPSILON) / (y + _EPSILON)).log()).sum(dim=1) / 2


def _root_max_share(x: Tensor, y: Tensor) -> Tensor:
    """11: sum(sqrt(max(x, y)) / sqrt(x + y)), 0 / 0 = 0, of vectors of unit length."""
    return _ratio(torch.maximum(x, y), x + y).sqrt().sum(dim=1)


def _intersection(x: Tensor, y: Tensor) -> Tensor:
    """12: sum(min(x, y)) / (sum(x) sum(y)), 0 / 0 = 0, of vectors of unit length."""
    return _ratio(torch.minimum(x, y).sum(dim=1), x.sum(dim=1) * y.sum(dim=1))


_ON_FEATURES = (_dot, _root_dot, _root_bhattacharyya, _root_harmonic, _cosine, _chi, _manhattan, _hellinger)
_ON_UNIT_VECTORS = (_euclidean, _symmetric_divergence, _root_max_share, _intersection)


def similarities(a: Tensor, b: Tensor) -> Tensor:
    """Compute the twelve similarities and distances of each pair, in the order of Kliper-Gross et al.

    Numbers 1 to 8 use the features unchanged, 9 to 12 first divide each feature vector by its length. A zero vector
    stays zero.

    Args:
        a: features of the first videos, shape (P, D), all >= 0 (as after a ReLU).
        b: features of the second videos, shape (P, D), all >= 0.

    Returns:
        float64, shape (P, 12), finite.

    Raises:
        ValueError: the shapes differ, or a feature is negative or not finite.

    Source: paper section 4.5, "12 different distances for each feature as described in [14]".
    """
    if a.shape != b.shape or a.ndim != 2:
        raise ValueError(f"got features {tuple(a.shape)} and {tuple(b.shape)}; expected two equal shapes (P, D)")
    x, y = a.detach().double(), b.detach().double()
    if not all(bool((side >= 0).all() and side.isfinite().all()) for side in (x, y)):
        raise ValueError("a feature is negative, infinite or NaN; use features after a ReLU, such as a stage's mean")
    unit_x, unit_y = (_ratio(side, side.norm(dim=1, keepdim=True)) for side in (x, y))
    columns = [formula(x, y) for formula in _ON_FEATURES] + [formula(unit_x, unit_y) for formula in _ON_UNIT_VECTORS]
    return torch.stack(columns, dim=1)


def pair_features(stages_a: Sequence[Tensor], stages_b: Sequence[Tensor]) -> Tensor:
    """Concatenate the twelve similarities of each stage: 36 numbers per pair for the paper's three stages.

    Args:
        stages_a: one tensor (P, D_s) per stage for the first videos.
        stages_b: the same for the second videos.

    Returns:
        float64, shape (P, 12 * stages), stage by stage.

    Raises:
        ValueError: as :func:`similarities`, or the numbers of stages differ.

    Source: paper section 4.5, "a 36-dimensional feature".
    """
    if len(stages_a) != len(stages_b) or not stages_a:
        raise ValueError(f"got {len(stages_a)} and {len(stages_b)} stages; expected the same number, at least 1")
    return torch.cat([similarities(a, b) for a, b in zip(stages_a, stages_b, strict=True)], dim=1)


def evaluate_folds(features: FloatArray, same: BoolArray, fold: npt.NDArray[np.int64], c: float) -> SimilarityResult:
    """Test on each fold in turn, after training on all other folds.

    Mean and standard deviation of each feature come from the training folds. A pair is predicted as "same" if the
    SVM's decision value is positive.

    Args:
        features: features of the pairs, shape (P, F), from :func:`pair_features`.
        same: whether the videos show the same action, shape (P,).
        fold: number of each pair's fold, shape (P,).
        c: inverse strength of the SVM's penalty.

    Raises:
        ValueError: there are fewer than two folds, or a set of training pairs is all "same" or all "different".

    Source: paper section 4.5, "Finally, a linear SVM is used".
    """
    folds = np.unique(fold)
    if len(folds) < 2:
        raise ValueError(
            f"all {counted(len(fold), 'pair')} are in fold {', '.join(map(str, folds))}; the pairs must be in two "
            "folds or more, of which each is tested after training on the others"
        )
    decisions = np.empty(len(features))
    for held_out in folds:
        test = fold == held_out
        decisions[test] = _train_svm(features[~test], same[~test], c).decision_function(features[test])
    accuracy = np.array([np.mean((decisions > 0)[fold == held_out] == same[fold == held_out]) for held_out in folds])
    false_positives, true_positives, _ = import_sklearn().metrics.roc_curve(same, decisions)
    return SimilarityResult(
        fold_accuracy=tuple(accuracy.tolist()),
        mean=float(accuracy.mean()),
        standard_error=float(accuracy.std(ddof=1) / np.sqrt(len(folds))),
        auc=float(np.trapezoid(true_positives, false_positives)),
        false_positive_rate=tuple(false_positives.tolist()),
        true_positive_rate=tuple(true_positives.tolist()),
    )


def choose_c(train: FloatArray, train_same: BoolArray, test: FloatArray, test_same: BoolArray) -> float:
    """Choose the penalty on View-1: the one with the best accuracy on its test pairs.

    Args:
        train: features of the training pairs, shape (P, F).
        train_same: shape (P,).
        test: features of the test pairs, shape (Q, F).
        test_same: shape (Q,).

    Returns:
        The inverse strength; in a tie the smallest, which is the strongest penalty.

    Raises:
        ValueError: the training pairs are all "same" or all "different".
    """

    def accuracy(c: float) -> float:
        return float(np.mean((_train_svm(train, train_same, c).decision_function(test) > 0) == test_same))

    return max(C_GRID, key=accuracy)


def _train_svm(features: FloatArray, same: BoolArray, c: float) -> Any:
    """Fit a linear SVM on standardised features."""
    if same.all() or not same.any():
        kind = "the same action" if same.all() else "different actions"
        raise ValueError(
            f"{counted(len(same), 'training pair')}, all of {kind}; training needs pairs of both kinds, also without "
            "the fold that is tested: add pairs of the other kind"
        )
    sklearn = import_sklearn()
    svm = sklearn.svm.LinearSVC(C=c, dual=False, max_iter=10_000)  # primal: no random order, exact in 36 dimensions
    return sklearn.pipeline.make_pipeline(sklearn.preprocessing.StandardScaler(), svm).fit(features, same)


def import_sklearn() -> Any:
    """Import scikit-learn, an optional package, with the modules that are used here."""
    for module in ("metrics", "pipeline", "preprocessing", "svm"):
        import_extra(f"sklearn.{module}", "eval", "action similarity")
    return import_extra("sklearn", "eval", "action similarity")


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Divide; the result is 0 if the denominator is 0."""
    return torch.where(denominator > 0, numerator / denominator, 0)
