"""A linear recognizer: a classifier on vectors of a frozen network, fitted, calibrated and saved."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from v3s.features.encoder import Space
from v3s.features.saved import kind_of_run
from v3s.features.source import Source
from v3s.files.lock import is_free, only_writer
from v3s.files.weights import CLASSIFIER, WEIGHTS
from v3s.files.writing import CheckpointError, current
from v3s.recognizers.calibration import Calibration, calibrate
from v3s.recognizers.classifier import Recognition, empty_layer, save_recognizer

_NUM_FOLDS = 5
_FOLDS = 6  # separates this random stream from those of the samples, and of what is held out or tested on


def fit_linear(train: Tensor, labels: Tensor, c: float, num_classes: int) -> nn.Linear:
    """Fit a multinomial logistic regression on standardised features.

    Minimises ``c * sum(cross entropy) + |weights|^2 / 2`` by L-BFGS; the biases are not penalised. Constant features
    are ignored. Mean and standard deviation are then made part of the layer.

    Args:
        train: features, shape (N, D).
        labels: classes, 0 to num_classes - 1, int64, shape (N,).
        c: inverse strength of the penalty.
        num_classes: number of classes.

    Returns:
        A layer D -> num_classes in float32, for features as they are.
    """
    train = train.detach().float()
    mean, deviation = train.mean(dim=0), train.std(dim=0, correction=0)
    deviation = torch.where(deviation > 1e-6 * mean.abs(), deviation, torch.inf)
    train = (train - mean) / deviation
    weights = train.new_zeros(num_classes, train.shape[1], requires_grad=True)
    biases = train.new_zeros(num_classes, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights, biases], max_iter=500, tolerance_grad=1e-5, line_search_fn="strong_wolfe")

    def objective() -> Tensor:
        optimiser.zero_grad()
        penalty = weights.square().sum() / (2 * c * len(train))
        loss = F.cross_entropy(F.linear(train, weights, biases), labels) + penalty
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(objective)  # type: ignore[no-untyped-call]
    scaled = weights.detach().double() / deviation.double()
    values = {"weight": scaled.float(), "bias": (biases.detach().double() - scaled @ mean.double()).float()}
    layer = empty_layer(train.shape[1], num_classes)
    layer.load_state_dict(values, assign=True)
    return layer.requires_grad_(False)


def calibrate_linear(
    train: Tensor,
    labels: Tensor,
    c: float,
    num_classes: int,
    *,
    groups: NDArray[np.int64] | None,
    seed: int,
    noun: str = "video",
) -> Calibration | None:
    """Calibrate a linear classifier on `cross_validated` predictions, whose arguments it takes.

    ``noun`` is what the rows are of: "video" or "span".

    Returns:
        None if no row can be predicted so.
    """
    found = cross_validated(train, labels, c, num_classes, groups=groups, seed=seed)
    return calibrate(*found, noun) if found else None


def cross_validated(
    train: Tensor, labels: Tensor, c: float, num_classes: int, *, groups: NDArray[np.int64] | None, seed: int
) -> tuple[Tensor, Tensor] | None:
    """Predict each row by a classifier fitted without it.

    Rows are divided into five folds, each group as a whole. A row is skipped if no other fold contains its class.

    Args:
        train: features, shape (N, D).
        labels: classes, 0 to num_classes - 1, int64, shape (N,).
        c: inverse strength of the penalty.
        num_classes: number of classes.
        groups: the group of each row, integers, shape (N,); None: each row is alone.
        seed: of the division.

    Returns:
        Probabilities, float32, shape (M, classes), and the labels of these rows, int64, shape (M,), M at most N; None
        if no row can be predicted so.
    """
    folds = _folds(np.arange(len(train)) if groups is None else groups, seed)
    predicted, truth = [], []
    for fold in np.unique(folds):
        fitted = torch.from_numpy(folds != fold)
        held_out = ~fitted & torch.isin(labels, labels[fitted])
        if held_out.any():
            layer = fit_linear(train[fitted], labels[fitted], c, num_classes)
            predicted.append(layer(train[held_out].float()).softmax(dim=1))
            truth.append(labels[held_out])
    return (torch.cat(predicted), torch.cat(truth)) if predicted else None


def _folds(groups: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """The fold of each row, int64: whole groups in random order, each into the smallest fold so far."""
    names, numbers, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    fold_of, filled = np.zeros(len(names), np.int64), np.zeros(_NUM_FOLDS, np.int64)
    for group in np.random.default_rng((seed, 0, 0, _FOLDS)).permutation(len(names)):
        fold_of[group] = filled.argmin()
        filled[fold_of[group]] += sizes[group]
    return fold_of[numbers]


def save_linear(
    folder: Path,
    source: Source,
    space: Space,
    vectors: Tensor,
    labels: Tensor,
    *,
    classes: tuple[str, ...],
    c: float,
    groups: NDArray[np.int64] | None,
    seed: int,
    results: dict[str, Any],
    noun: str = "video",
    span_seconds: float | None = None,
) -> Calibration | None:
    """Fit a classifier on all vectors, calibrate it, and write it with its network as a recognizer.

    Args:
        folder: a new or empty folder, or one of a recognizer that this function wrote, which is replaced.
        source: the frozen network, as it was opened: not folded.
        space: the network, the clips and the feature of the vectors.
        vectors: of the training videos, as the network gives them, shape (N, D).
        labels: numbers into ``classes``, int64, shape (N,).
        classes: names.
        c: inverse strength of the penalty.
        groups: the group of each row for the calibration, integers, shape (N,); None: each row is alone.
        seed: of the division for the calibration.
        results: what is known of the classifier, such as its accuracy.
        noun: what the rows are of: "video" or "span".
        span_seconds: the median length of these spans.

    Returns:
        The calibration; None if there are too few vectors.

    Raises:
        ValueError: the folder contains something else, or the network is not that of the vectors.
    """
    if source.fingerprint != space.weights:
        raise CheckpointError(
            f"{source.name} has other weights ({source.fingerprint[:12]}) than the network of the vectors "
            f"({space.weights[:12]}); embed again"
        )
    layer = fit_linear(vectors, labels, c, len(classes))
    calibration = calibrate_linear(vectors, labels, c, len(classes), groups=groups, seed=seed, noun=noun)
    with only_writer(folder):
        require_own_folder(folder)
        save_recognizer(
            folder,
            source.backbone,
            layer,
            source=source,
            classes=classes,
            recognition=Recognition(
                view=space.view,
                feature=space.feature,
                dimension=layer.in_features,
                average="logits",
                calibration=calibration,
                span_seconds=span_seconds,
            ),
            results={"c": c, "num_train": len(labels), **results},
        )
    return calibration


def require_own_folder(folder: Path) -> None:
    """Refuse a folder that contains anything else than a recognizer of `save_linear`, before the work begins.

    Raises:
        ValueError: it does.
    """
    if not folder.is_dir() or is_free(folder):
        return
    is_own = all(current(folder, name).is_file() for name in (WEIGHTS, CLASSIFIER))  # not so of a published model
    if not is_own or kind_of_run(folder) is not None:
        raise ValueError(
            f"save is {folder}, which contains something else than a recognizer of v3s probe; choose another"
        )
