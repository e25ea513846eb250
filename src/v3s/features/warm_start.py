"""``--init``: a training that starts from the weights of another one."""

import shlex
from dataclasses import asdict
from typing import Any

from rich.console import Console
from torch import nn

from v3s.backbones import BACKBONES
from v3s.backbones.contract import expect_normalised, normalisation_of
from v3s.backbones.normalisation import Normalisation
from v3s.features.hub import HUGGING_FACE
from v3s.features.saved import InitialWeights, Trained, describe_trained, open_trained
from v3s.features.source import RANDOM
from v3s.files.reading import read_json, read_value
from v3s.files.text import counted, say
from v3s.files.writing import CheckpointError
from v3s.train.run import MANIFEST, RunFolder

_INIT, _NORMALISATION = "init", "normalisation"


def refuse_weights(backbone: str) -> None:
    """Refuse weights, as other commands take them, where the network to train is named.

    Raises:
        ValueError: they are random ones, or of a model of Hugging Face; the message says how to start from them.
    """
    if backbone.startswith(RANDOM):
        name, _, width = backbone.removeprefix(RANDOM).partition("@")
        alone = f"{name if name in BACKBONES else 'r3d'}{f' --width {width}' if width else ''}"
        raise ValueError(
            f"backbone is {backbone!r}; name the network alone, such as --backbone {alone}: its weights are random "
            "unless --init is given"
        )
    if backbone.startswith(HUGGING_FACE):
        trained = describe_trained(backbone)
        raise ValueError(
            f"backbone is {backbone!r}; to start from its weights, give "
            f"--backbone {trained.backbone} --width {trained.width:g} --init {shlex.quote(backbone)}"
        )


def warm_start(
    network: nn.Module, name: str, width: float, weights: str | None, run: RunFolder | None, console: Console
) -> InitialWeights | None:
    """Load the backbone's weights of another training, and let the network normalise clips as they expect it.

    Args:
        network: the backbone that will be trained.
        name: its name in `v3s.BACKBONES`, or a reference to your own.
        width: its width multiplier.
        weights: a run, its folder ``last``, or what ``v3s convert`` wrote; None keeps the network as it is.
        run: the run to resume, or None. With a checkpoint it needs only its own files: nothing is loaded here.
        console: where to say what was loaded.

    Raises:
        CheckpointError: there are no such weights, they are damaged, or they are of another network or width.
    """
    if weights is None:
        return None
    started = _recorded(run)
    if run is not None and started is not None and run.has_checkpoint:
        expect_normalised(network, read_value(run.path / MANIFEST, _NORMALISATION, Normalisation | None))
        return started
    trained = describe_trained(weights)
    _check_network(trained, name, width, weights)
    if run is not None and started is not None and started.fingerprint != trained.fingerprint:
        raise CheckpointError(
            f"{weights}: its weights changed since {run.path} started from them ({started.fingerprint[:8]} then, "
            f"{trained.fingerprint[:8]} now); restore them, or start a new run with another --out"
        )
    open_trained(weights, backbone=network)
    say(console, _loaded(trained, network, weights))
    return InitialWeights(weights, trained.fingerprint)


def _recorded(run: RunFolder | None) -> InitialWeights | None:
    """What a run started from, as its manifest.json says; None if it has none yet, or started from random weights."""
    if run is None or not (run.path / MANIFEST).is_file() or _INIT not in read_json(run.path / MANIFEST):
        return None
    started: InitialWeights = read_value(run.path / MANIFEST, _INIT, InitialWeights)
    return started


def _check_network(trained: Trained, name: str, width: float, weights: str) -> None:
    """Refuse weights of another network; of two networks of your own, the tensors decide."""
    same = trained.backbone == name and trained.width == width
    if not same and not (":" in trained.backbone and ":" in name):
        raise CheckpointError(
            f"{weights}: contains {trained.backbone} of width {trained.width:g}, and this run trains {name} of width "
            f"{width:g}; give --backbone {trained.backbone} --width {trained.width:g}, or other weights"
        )


def _loaded(trained: Trained, network: nn.Module, weights: str) -> str:
    """One line: what was loaded, and what was not."""
    left = {
        "pretrained": "the heads of its pretext task are not",
        "recognizer": f"its classifier of {counted(len(trained.classes), 'class')} is not",
        "converted": "it has no heads",
    }[trained.kind]
    clips = f"; clips are normalised ({trained.normalisation})" if trained.normalisation else ""
    return (
        f"started from {weights} ({trained.kind}, weights {trained.fingerprint[:8]}): all "
        f"{counted(len(network.state_dict()), 'tensor')} of its {trained.backbone} are loaded, {left}: the heads of "
        f"this run are random{clips}"
    )


def facts_of_start(started: InitialWeights | None, network: nn.Module) -> dict[str, Any]:
    """What manifest.json records, so that a resumed run needs the initial weights no more."""
    if started is None:
        return {}
    normalisation = normalisation_of(network)
    return {_INIT: asdict(started), _NORMALISATION: asdict(normalisation) if normalisation else None}
