"""A linear probe on the labels that were given in the page, and its answer for every span."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from v3s.data.groups import number_groups
from v3s.files.text import counted, short_repr
from v3s.protocols.classify import linear_probe, logistic_regression, top_k
from v3s.recognizers.linear import cross_validated, fit_linear
from v3s.serve.catalogue import Catalogue
from v3s.vectors.labels import stored_features

_ROWS_AT_ONCE = 100_000


@dataclass(frozen=True, slots=True, eq=False)
class ProbeAnswers:
    """What the probe says.

    Attributes:
        classes: the classes that have labels.
        probabilities: of each span and class, float32 (N, classes).
        num_labels: labels that it was trained on.
        num_held_out: labels that were also answered by a probe that saw no label of their group of files; 0 if none can
            be.
        num_right: answers among these that are right.
        majority: the most frequent class of the labels that were held out, or of all, if none was.
        num_majority: how many of those that were held out have it: what always answering it gets right.
    """

    classes: tuple[str, ...]
    probabilities: NDArray[np.float32]
    num_labels: int
    num_held_out: int
    num_right: int
    majority: str
    num_majority: int
    __repr__ = short_repr


def train_probe(catalogue: Catalogue, class_of: NDArray[np.int64], classes: list[str]) -> ProbeAnswers:
    """Train a linear probe as ``v3s probe`` does, and count how often it is right on files that it has not seen.

    Files of a group are seen or held out together: takes of one scene in UCF101, else each file alone.
    The accuracy that chose the penalty is no measure: it is the best of several, on a few labels.

    Args:
        catalogue: the spans.
        class_of: number of the class of each, -1 without a label, int64 (N,).
        classes: names of the classes.

    Raises:
        ValueError: fewer than two classes have labels, or an earlier version wrote the vectors.
    """
    rows = np.flatnonzero(class_of >= 0)
    present, labels = np.unique(class_of[rows], return_inverse=True)
    if len(present) < 2:
        have = f"all {counted(len(rows), 'label')} are {classes[present[0]]!r}" if len(present) else "no span has one"
        raise ValueError(f"training needs labels of two classes, and {have}; label spans of both")
    train, targets = stored_features(catalogue.vectors, torch.from_numpy(rows)), torch.from_numpy(labels)
    groups = number_groups([catalogue.paths[file] for file in catalogue.file_of[rows]])
    probe = linear_probe(train, targets, train[:1], generator=torch.Generator().manual_seed(0), groups=groups)
    layer = fit_linear(train, targets, probe.c, len(present))
    parts = torch.split(torch.arange(len(catalogue)), _ROWS_AT_ONCE)
    found = [layer(stored_features(catalogue.vectors, some)).softmax(dim=1) for some in parts]
    names = tuple(classes[number] for number in present)
    held_out = cross_validated(train, targets, probe.c, len(present), groups=groups, seed=0)
    hits, truth = (torch.zeros(0), targets[:0]) if held_out is None else (top_k(*held_out, 1), held_out[1])
    most = int(torch.bincount(truth if len(truth) else targets).argmax())
    return ProbeAnswers(
        names,
        torch.cat(found).numpy(),
        num_labels=len(rows),
        num_held_out=len(hits),
        num_right=int(hits.sum()),
        majority=names[most],
        num_majority=int((truth == most).sum()),
    )


def load_optimiser() -> None:
    """Load what the first probe would wait for: torch imports its optimisers in seconds."""
    logistic_regression(torch.eye(2), torch.arange(2), torch.eye(2), 1.0, 2)


def doubt(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """How unsure each answer is: 1 less the distance of the two most probable classes, float32 (N,)."""
    best = np.partition(probabilities, -2, axis=1)[:, -2:]
    return 1 - (best[:, 1] - best[:, 0])
