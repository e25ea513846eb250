"""A recognizer on vectors that ``v3s embed`` stored: no video is read."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from v3s.features.encoder import Space
from v3s.recognizers.classifier import Classifier, require_probabilities
from v3s.recognizers.predictions import Prediction, most_probable
from v3s.vectors.collection import Vectors
from v3s.vectors.description import VectorsError
from v3s.vectors.labels import stored_features
from v3s.video.light.mask import mask_text

_ROWS = 4096  # in memory at a time


def predict_vectors(classifier: Classifier, vectors: Vectors, k: int) -> Iterator[Prediction]:
    """Return the predictions for vectors, row by row, which are computed as they are taken.

    Args:
        classifier: of a recognizer that averages logits, as those of v3s probe.
        vectors: a collection of the same network.
        k: number of classes of each prediction.

    Raises:
        VectorsError: the vectors are of another network, other clips or another feature, or the recognizer averages
            the probabilities of clips, so that it takes no vectors.
    """
    require_same_network(classifier, vectors)
    return _predictions(vectors, most_probable(probabilities_of(classifier, vectors), classifier.classes, k))


def probabilities_of(classifier: Classifier, vectors: Vectors) -> Iterator[Tensor]:
    """Yield the probabilities of all rows, in blocks of float32, shape (n, C).

    Raises:
        ValueError: a vector or an answer contains NaN or infinity, or an earlier version wrote the folder, without
            lengths.
    """
    for first, end in pairwise(vectors.offsets.tolist()):  # shard by shard
        for rows in torch.split(torch.arange(first, end), _ROWS):
            answers = classifier.of_vectors(stored_features(vectors, rows))
            yield require_probabilities(answers, vectors.folder)


def _predictions(vectors: Vectors, best: Iterator[tuple[tuple[str, ...], tuple[float, ...]]]) -> Iterator[Prediction]:
    number = -1
    for shard in vectors.shards:
        for video, start, end in zip(
            *(each.tolist() for each in (shard.videos, shard.starts, shard.ends)), strict=True
        ):
            if video != number:
                number, entry = video, vectors.video(video)
            yield Prediction(entry.path, entry.time_of(start), entry.time_of(end), *next(best))


def require_same_network(classifier: Classifier, vectors: Vectors) -> None:
    """Refuse vectors that the classifier cannot be applied to; the number of clips of a video may differ.

    Raises:
        VectorsError: the vectors are of another network, other clips or another feature; the message has the first
            difference.
    """
    if classifier.recognition.average != "logits":
        raise VectorsError(
            f"{vectors.folder} cannot be predicted: this recognizer averages the probabilities of clips, and vectors "
            "are means of their features; give the videos, or a recognizer that v3s probe --save wrote"
        )
    ours, theirs = (_parts(space) for space in (classifier.space, vectors.description.space))
    for name, needed in ours.items():
        if theirs[name] != needed:
            raise VectorsError(
                f"{vectors.folder} contains vectors of another model: their {name} is {theirs[name]}, and the "
                f"recognizer was fitted on vectors whose {name} is {needed}; embed the videos with its network"
            )


def _parts(space: Space) -> dict[str, Any]:
    """What has to be the same for a classifier, by name."""
    view = space.view
    return {
        "network (its weights)": space.weights[:12],
        "clip": f"{view.clip_frames} frames of {view.clip_size} pixels",
        "resizing": view.resize or "that of the paper",
        "frame rate": "that of the file" if view.fps is None else f"{view.fps:g}",
        "window": view.window or "auto",
        "mask": mask_text(view.mask),
        "feature": f"{space.feature.stage}, {space.feature.pool}",
        "normalisation": space.normalisation or "none",
    }
