"""A linear classifier on the features of a network: what it takes, what it answers, and its files.

A folder of a recognizer contains, written together:

========================  =============================================================================================
backbone.safetensors      the network
classifier.safetensors    the linear layer: ``weight`` (classes, D) and ``bias`` (classes,)
config.json               `v3s.features.saved.Trained`: network, normalisation, fingerprint of its weights, names of the
                          classes; and under ``recognition`` a `Recognition`
========================  =============================================================================================

Both kinds of recognizers are of this form. `v3s finetune` writes the network that it trained. `v3s probe` writes the
frozen network as it was.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from v3s.backbones.normalisation import Normalisation
from v3s.data.views import View
from v3s.features.encoder import Feature, Space
from v3s.features.hub import HUGGING_FACE
from v3s.features.saved import (
    Trained,
    describe_trained,
    folder_of,
    load_head,
    network_of,
    plain_sampling,
    write_description,
    write_trained,
)
from v3s.features.source import Source
from v3s.files.reading import read_as, read_value
from v3s.files.text import short_repr
from v3s.files.weights import CLASSIFIER
from v3s.files.writing import DESCRIPTION, RESTORE, CheckpointError
from v3s.options import require_positive
from v3s.recognizers.calibration import Calibration, tempered

_RESULT = "result.json"  # of a fine-tuning run; states the clips of recognizers of earlier versions

Average = Literal["probabilities", "logits"]
"""What is averaged over the clips of a video: probabilities, as in the paper, or logits. The mean of the logits is the
logits of the mean feature, so that such a classifier also takes the vectors of v3s embed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognition:
    """How a recognizer answers for a video.

    Attributes:
        view: the clips of a video.
        feature: what the classifier takes of a clip.
        dimension: length of this feature, D.
        average: what is averaged over clips.
        calibration: how its probabilities are corrected; ``None`` if they are not.
        span_seconds: the median length of the spans that it learned from; ``None`` if these were whole videos.
    """

    view: View
    feature: Feature
    dimension: int
    average: Average
    calibration: Calibration | None = None
    span_seconds: float | None = None

    def __post_init__(self) -> None:
        if self.dimension < 1:
            raise ValueError(f"dimension is {self.dimension}; it must be 1 or more")
        require_positive(self, "span_seconds")


@dataclass(frozen=True, slots=True, eq=False)
class Classifier:
    """A linear layer on features of one network, and the names of its outputs.

    Attributes:
        classes: names of the classes, (C,).
        layer: D -> C, on the CPU.
        weights: SHA-256 of the network's weights.
        normalisation: of clips, as these weights expect it; ``None`` if they expect values in [0, 1].
        recognition: how it answers.
    """

    classes: tuple[str, ...]
    layer: nn.Linear
    weights: str
    normalisation: Normalisation | None
    recognition: Recognition
    __repr__ = short_repr

    @property
    def space(self) -> Space:
        """The network, the clips and the feature that it takes."""
        return Space(self.weights, self.recognition.view, self.recognition.feature, self.normalisation)

    def require_stage(self, stages: Iterable[str], path: str | Path) -> None:
        """Refuse a network that does not have the stage whose feature the classifier takes.

        Raises:
            CheckpointError: it does not; the message contains the path of the recognizer.
        """
        stage, known = self.recognition.feature.stage, list(stages)
        if stage not in known:
            raise CheckpointError(
                f"{folder_of(path) / DESCRIPTION}: the feature's stage is {stage!r}, and the network's are "
                f"{', '.join(known)}; restore the file"
            )

    def require_dimension(self, dimension: int, path: str | Path) -> None:
        """Refuse a network whose feature has another length than the classifier takes.

        Raises:
            CheckpointError: it does; the message contains the path of the recognizer.
        """
        if dimension != self.layer.in_features:
            raise CheckpointError(
                f"{path}: its classifier takes {self.layer.in_features:,} numbers, but the network gives "
                f"{dimension:,}; restore config.json"
            )

    @torch.inference_mode()
    def of_clips(self, features: Tensor) -> Tensor:
        """Return the probabilities of a video.

        Args:
            features: of its clips, float32, shape (clips, D).

        Returns:
            Float32, shape (C,).

        Source: paper section 4.3, "average the possibility of predictions".
        """
        if self.recognition.average == "logits":
            return self.of_vectors(features.mean(dim=0, keepdim=True))[0]
        return self._calibrated(self.layer(features).softmax(dim=1).mean(dim=0))

    @torch.inference_mode()
    def of_vectors(self, vectors: Tensor) -> Tensor:
        """Return the probabilities for mean features of videos, float32 (N, D), as the network gives them: (N, C)."""
        return self._calibrated(self.layer(vectors).softmax(dim=1))

    def _calibrated(self, probabilities: Tensor) -> Tensor:
        calibration = self.recognition.calibration
        return probabilities if calibration is None else tempered(probabilities, calibration.temperature)


def require_probabilities(probabilities: Tensor, source: object) -> Tensor:
    """Return probabilities as they are; refuse those that contain NaN, which overflowing logits give.

    Args:
        probabilities: any shape.
        source: the file that they are of, for messages.

    Raises:
        ValueError: one is not finite.
    """
    if not probabilities.isfinite().all():
        raise ValueError(
            f"{source}: the recognizer gives NaN for it, since numbers of its classifier are too large; restore its "
            f"{CLASSIFIER}, or train again"
        )
    return probabilities


def save_recognizer(
    folder: Path,
    network: nn.Module,
    layer: nn.Linear,
    *,
    source: Source,
    classes: tuple[str, ...],
    recognition: Recognition,
    results: dict[str, Any],
) -> Trained:
    """Write a recognizer into a folder, which every command also accepts as a backbone; returns its description.

    Args:
        folder: the folder.
        network: the backbone.
        layer: the classifier.
        source: the backbone's name and width.
        classes: names of the layer's outputs.
        recognition: how it answers.
        results: what is known of its training, such as epoch, loss and accuracy.
    """
    view = recognition.view
    trained = Trained(
        kind="recognizer",
        backbone=source.architecture,
        width=source.width,
        sampling=plain_sampling(view.clip_frames, view.clip_size),
        results=results,
        classes=classes,
        fps=view.fps,
        window=view.window,
        mask=view.mask,
    )
    return write_trained(folder, with_answers(trained, recognition), network, {CLASSIFIER: layer})


def save_answers(folder: Path, recognition: Recognition) -> None:
    """Record how a recognizer answers, after its weights were saved: its clips, its average and its calibration."""
    write_description(folder, with_answers(describe_trained(folder), recognition))


def with_answers(trained: Trained, recognition: Recognition) -> Trained:
    """Return the description of a recognizer that answers in this way."""
    values = asdict(recognition)
    return replace(trained, recognition=values, answers=_digest(values))


def _digest(recognition: dict[str, Any]) -> str:
    """SHA-256 of how a recognizer answers: of an edited description it is another."""
    return sha256(json.dumps(recognition, sort_keys=True).encode()).hexdigest()


def load_classifier(path: str | Path) -> Classifier:
    """Load the classifier of a recognizer, without its network.

    Args:
        path: the folder of a run of v3s finetune, or of a recognizer that v3s probe saved.

    Raises:
        CheckpointError: there is no such folder, it does not contain a recognizer, or its files are damaged.
    """
    if not str(path).startswith(HUGGING_FACE) and not Path(path).exists():
        raise CheckpointError(f"{path}: no such recognizer; v3s finetune makes one, and v3s probe --save")
    trained = describe_trained(path)
    if trained.kind != "recognizer":
        raise CheckpointError(
            f"{path}: contains a {trained.kind} network without classes; give a v3s finetune run, or a recognizer that "
            "v3s probe --save wrote"
        )
    description = folder_of(path) / DESCRIPTION
    classes = trained.classes
    if not classes or len(set(classes)) < len(classes) or not all(classes):
        raise CheckpointError(f"{description}: classes must be names that differ; {RESTORE}")
    recognition = _recognition(trained, path)
    layer = empty_layer(recognition.dimension, len(classes))
    load_head(path, CLASSIFIER, layer)
    if not (layer.weight.isfinite().all() and layer.bias.isfinite().all()):
        raise CheckpointError(f"{folder_of(path) / CLASSIFIER}: contains NaN or infinity; restore it, or train again")
    if trained.answers not in ("", _digest(trained.recognition)):
        raise CheckpointError(f"{description}: was edited: answers does not match recognition; restore the file")
    return Classifier(
        classes, layer.requires_grad_(False).eval(), trained.fingerprint, trained.normalisation, recognition
    )


def empty_layer(dimension: int, num_classes: int) -> nn.Linear:
    """Return a layer without values, which takes no memory, to load a state into by assignment."""
    with torch.device("meta"):
        return nn.Linear(dimension, num_classes)


def _recognition(trained: Trained, path: str | Path) -> Recognition:
    """How a recognizer answers; for one of an earlier version, as its fine-tuning tested it."""
    folder = folder_of(path)
    if trained.recognition:
        return read_as(Recognition, trained.recognition, folder / DESCRIPTION)
    network, tested = network_of(trained, path), folder / _RESULT
    num_clips = read_value(tested, "view", View).num_clips if tested.is_file() else View().num_clips
    average: Average = read_value(tested, "average", Average) if tested.is_file() else "probabilities"
    return Recognition(
        view=replace(trained.view, num_clips=num_clips),
        feature=Feature(list(network.stages)[-1]),  # type: ignore[arg-type]
        dimension=int(network.num_features),  # type: ignore[arg-type]
        average=average,
    )
