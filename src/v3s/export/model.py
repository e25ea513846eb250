"""What is given away: a trained network in plain float32 on the CPU, with the layers on it, and their description."""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from v3s.data.views import View
from v3s.features.encoder import Feature
from v3s.features.saved import Trained, describe_trained, load_pretext_model, open_trained
from v3s.files.text import short_repr
from v3s.files.weights import CLASSIFIER, SPATIAL_HEAD, TEMPORAL_HEAD
from v3s.files.writing import CheckpointError
from v3s.recognizers.classifier import load_classifier, with_answers

FEATURES = "features"
"""Name of the first output."""


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A trained network and the layers on its features.

    Attributes:
        trained: its description, without any path or file name.
        backbone: in evaluation mode, float32, contiguous, on the CPU, not folded.
        view: the clips that it takes.
        feature: what is taken of a clip, D numbers.
        heads: linear layers from D numbers to logits, by the name of their output.
        files: the file of each of them.
    """

    trained: Trained
    backbone: nn.Module
    view: View
    feature: Feature
    heads: dict[str, nn.Module] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    __repr__ = short_repr

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs of `as_module`, in order."""
        return FEATURES, *self.heads

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        """Shape of a clip: 3, frames, height and width."""
        return 3, self.view.clip_frames, self.view.clip_size, self.view.clip_size

    def as_module(self, backbone: nn.Module | None = None) -> nn.Module:
        """Return the whole as one module, from clips (B, 3, T, H, W) in [0, 1] to a tuple of `outputs`.

        Args:
            backbone: another form of the same network, such as a folded one.
        """
        return _Outputs(backbone or self.backbone, self.feature, list(self.heads.values())).eval()


class _Outputs(nn.Module):
    """A network, the feature of its stages, and the layers on it."""

    def __init__(self, backbone: nn.Module, feature: Feature, heads: list[nn.Module]) -> None:
        super().__init__()
        self.backbone, self.feature, self.heads = backbone, feature, nn.ModuleList(heads)

    def forward(self, clips: Tensor) -> tuple[Tensor, ...]:
        """Map clips (B, 3, T, H, W) in [0, 1] to the feature, (B, D), and the logits of each head."""
        features = self.feature.extract(self.backbone.forward_stages(clips))  # type: ignore[operator]
        return features, *(head(features) for head in self.heads)


def open_model(path: str | Path) -> Model:
    """Open a trained network to give it away.

    Args:
        path: as `v3s.load_backbone` takes it.

    Raises:
        CheckpointError: there are no weights, they are damaged or do not belong together, or the network is your own.
    """
    trained = describe_trained(path)
    if ":" in trained.backbone:
        raise CheckpointError(
            f"{path}: contains weights of {trained.backbone}, a network of your own, whose code v3s does not have; "
            "only networks of v3s can be exported"
        )
    if trained.kind == "recognizer":
        return _recognizer(path)
    if trained.kind == "pretrained":
        both, trained = load_pretext_model(path)
        heads: dict[str, nn.Module] = {"spatial_logits": both.spatial_head, "temporal_logits": both.temporal_head}
        files = {"spatial_logits": SPATIAL_HEAD, "temporal_logits": TEMPORAL_HEAD}
        return Model(_without_names(trained), both.backbone, trained.view, _last(both.backbone), heads, files)
    network, trained = open_trained(path)
    return Model(_without_names(trained), network, trained.view, _last(network))


def _recognizer(path: str | Path) -> Model:
    classifier = load_classifier(path)
    network, trained = open_trained(path)
    described = with_answers(_without_names(trained), classifier.recognition)
    classifier.require_stage(network.stages, path)  # type: ignore[arg-type]
    view, feature = classifier.recognition.view, classifier.recognition.feature
    model = Model(described, network, view, feature, {"logits": classifier.layer}, {"logits": CLASSIFIER})
    with torch.inference_mode():
        stages = network.forward_stages(torch.zeros(1, *model.clip_shape))  # type: ignore[operator]
        dimension = feature.extract(stages).shape[1]
    classifier.require_dimension(dimension, path)
    return model


def _last(backbone: nn.Module) -> Feature:
    """The feature that `v3s.load_backbone` gives: the mean of the last stage."""
    return Feature(list(backbone.stages)[-1])  # type: ignore[arg-type]


def _without_names(trained: Trained) -> Trained:
    """A description without names of files and folders; of the weights that the training started from, the hash."""
    started = trained.init and replace(trained.init, weights="")
    if started and not re.fullmatch("[0-9a-f]{64}", started.fingerprint):
        started = None
    results = {
        name: value
        for name, value in trained.results.items()
        if isinstance(value, int | float) or (name, value) == ("noun", "span")
    }
    return replace(trained, init=started, converted_from=None, results=results)
