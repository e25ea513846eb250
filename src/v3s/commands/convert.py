"""``v3s convert``: weights from other projects, if their network matches ours tensor for tensor.

A file is read with ``weights_only=True``: no code in it runs. The names of its tensors identify the project; the file
must contain every tensor of our network in the right shape, so that no weight is guessed. What stands before the names
(``module.``, ``ema.module.``) does not matter: the network lies where all of its tensors are.
"""

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from rich.console import Console
from torch import Tensor

from v3s.backbones import BACKBONES, create_backbone
from v3s.backbones.normalisation import KINETICS, Normalisation
from v3s.features.saved import Trained, plain_sampling, write_trained
from v3s.files.lock import only_writer
from v3s.files.own import require_new
from v3s.files.text import counted, say
from v3s.files.writing import CheckpointError
from v3s.options import CheckedOptions, require_regular

Tensors = dict[str, Tensor]
_Rules = tuple[tuple[str, str], ...]  # pattern and replacement, applied in order to every name


@dataclass(frozen=True, kw_only=True)
class ConvertConfig(CheckedOptions):
    """Convert weights from VCOP, PRP, PacePred, RSPNet or torchvision, if the network matches ours tensor for tensor.

    Attributes:
        weights: A .pt or .pth file; it is read without running the code in it.
        out: New folder for backbone.safetensors and config.json; other commands accept it as --backbone.
    """

    weights: Annotated[str, "WEIGHTS"]
    out: str


@dataclass(frozen=True, slots=True)
class _Layout:
    """How another project names the tensors of one of our networks.

    Attributes:
        projects: the projects that use these names.
        backbones: our networks that have these tensors.
        rules: how to turn these names into ours.
        normalisation: of clips, as these projects trained; None if they trained on values in [0, 1].
    """

    projects: str
    backbones: tuple[str, ...]
    rules: _Rules
    normalisation: Normalisation | None = None


_UNIT: _Rules = ((r"conv1\.", "0."), (r"bn1\.", "1."))  # a convolution of S3D-G in PacePred
_SEPARABLE: _Rules = (*_UNIT, (r"conv2\.", "3."), (r"bn2\.", "4."))


def _below(prefix: str, target: str, rules: _Rules, offset: int) -> _Rules:
    """Rules for the numbered layers below a prefix; in our network they begin at ``offset``."""
    return tuple((f"^{prefix}\\.{pattern}", f"{target}.{int(place.rstrip('.')) + offset}.") for pattern, place in rules)


def _inception(name: str, target: str) -> _Rules:
    branches = f"{target}.branches"
    gates = ((0, 3), (1, 9), (2, 9), (3, 4))
    return (
        *_below(f"{name}\\.conv_b0", f"{branches}.0", _UNIT, 0),
        *_below(f"{name}\\.conv_b1_a", f"{branches}.1", _UNIT, 0),
        *_below(f"{name}\\.conv_b1_b", f"{branches}.1", _SEPARABLE, 3),
        *_below(f"{name}\\.conv_b2_a", f"{branches}.2", _UNIT, 0),
        *_below(f"{name}\\.conv_b2_b", f"{branches}.2", _SEPARABLE, 3),
        *_below(f"{name}\\.conv_b3_b", f"{branches}.3", _UNIT, 1),
        *((f"^{name}\\.gating_b{number}\\.fc\\.", f"{branches}.{number}.{place}.linear.") for number, place in gates),
    )


_S3DG: _Rules = (
    *_below("conv1", "conv1", _UNIT, 0),
    *_below("conv_2b", "conv2", _UNIT, 1),
    *_below("conv_2c", "conv2", _SEPARABLE, 4),
    (r"^gating\.fc\.", "conv2.10.linear."),
    *(rule for number, letter in enumerate("bc", 1) for rule in _inception(f"mixed_3{letter}", f"conv3.{number}")),
    *(rule for number, letter in enumerate("bcdef", 1) for rule in _inception(f"mixed_4{letter}", f"conv4.{number}")),
    *(rule for number, letter in enumerate("bc", 1) for rule in _inception(f"mixed_5{letter}", f"conv5.{number}")),
)

_LAYOUTS = (
    _Layout(
        "VCOP, PRP, PacePred (and RSPNet's R(2+1)D)",
        ("r3d", "r2plus1d"),
        (
            (r"^bn1\.", "conv1.1."),
            (r"^(conv[2-5])\.block1\.", r"\1.0."),
            (r"\.bn([12])\.", r".conv\1.1."),
            (r"\.downsamplebn\.", ".downsample.1."),
            (r"\.downsampleconv\.", ".downsample."),
            (r"\.temporal_spatial_conv\.", ".0."),
            (r"\.spatial_conv\.", ".0.0."),
            (r"\.bn\.", ".0.1."),
            (r"\.temporal_conv\.", ".0.3."),
        ),
    ),
    _Layout(
        "VCOP, PacePred and RSPNet",
        ("c3d",),
        (
            (r"^conv1\.", "conv1.0."),
            (r"^bn1\.", "conv1.1."),
            (r"^conv([2-5])a?\.", r"conv\1.1."),
            (r"^bn([2-5])a?\.", r"conv\1.2."),
            (r"^conv([3-5])b\.", r"conv\1.4."),
            (r"^bn([3-5])b\.", r"conv\1.5."),
        ),
    ),
    _Layout(
        "PRP",
        ("c3d",),
        (
            (r"^conv1\.conv3d\.", "conv1."),
            (r"^conv2\.conv3d\.0\.", "conv2.1."),
            (r"^conv2\.conv3d\.1\.", "conv2.2."),
            (r"^conv([3-5])_1\.conv3d\.0\.", r"conv\1.1."),
            (r"^conv([3-5])_1\.conv3d\.1\.", r"conv\1.2."),
            (r"^conv([3-5])_2\.conv3d\.0\.", r"conv\1.4."),
            (r"^conv([3-5])_2\.conv3d\.1\.", r"conv\1.5."),
        ),
    ),
    _Layout("PacePred", ("s3dg",), _S3DG),
    _Layout(
        "torchvision (r3d_18, r2plus1d_18)",
        ("r3d18", "r2plus1d18"),
        ((r"^stem\.", "conv1."), *((f"^layer{number}\\.", f"conv{number + 1}.") for number in range(1, 5))),
        KINETICS,
    ),
)

_TRANSPARENT = re.compile(r"\b(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""Parts of names, at any place, that torch adds to modules which it compiles, shards or recomputes."""
_MAX_PREFIX_PARTS = 12  # of a prefix: what wraps a network is nested less deeply

_OTHERS: tuple[tuple[str, str], ...] = (
    (
        r"^Conv_1a\.",
        "CoCLR's S3D: its stem is separable, and only its s3dg has gates",
    ),
    (
        r"^sepConv1\.",
        "RSPNet's S3D-G: its stem is separable, and it gates other convolutions than S3D-G does",
    ),
    (r"^features\.0\.0\.0\.", "torchvision's s3d: its stem is separable, and it has no gates"),
    (r"^layer1\.0\.bn1\.", "a 3D ResNet with pooling after its stem, such as RSPNet's resnet18"),
)
"""Tensor names of networks that resemble ours but differ: a pattern, and what the network is."""


@dataclass(frozen=True, slots=True, eq=False)
class _Match:
    """One of our networks in a file.

    Attributes:
        prefix: what stands before the names of its tensors, such as ``ema.module.``.
        backbone: its name.
        layout: how its tensors are named.
        ours: the tensors with our names; those that it lacks are absent.
        missing: our names of those that it lacks or has in another shape.
        used: the names of its tensors in the file.
    """

    prefix: str
    backbone: str
    layout: _Layout
    ours: Tensors
    missing: tuple[str, ...]
    used: tuple[str, ...]

    @property
    def share_missing(self) -> float:
        """The share of our tensors that it lacks or has in another shape, in [0, 1]."""
        return len(self.missing) / (len(self.missing) + len(self.ours))


def convert(config: ConvertConfig, *, console: Console | None = None) -> Path:
    """Write ``backbone.safetensors`` and ``config.json`` from the weights of another project.

    Args:
        config: the file, and the folder to write.
        console: where to print; the terminal by default.

    Returns:
        The folder; other commands accept it as ``--backbone``.

    Raises:
        ValueError: the file cannot be read without running code, its network is not supported, or the folder is not
            empty.
    """
    console, source, folder = console or Console(), Path(config.weights), Path(config.out)
    require_new(folder)
    theirs = _read_tensors(source)
    found, *others = recognise(theirs, source)
    network = create_backbone(found.backbone)
    network.load_state_dict(found.ours)
    network.normalisation = found.layout.normalisation
    with only_writer(folder):
        require_new(folder)
        trained = Trained(
            kind="converted",
            backbone=found.backbone,
            width=1.0,
            sampling=plain_sampling(network.clip_frames, network.clip_size),
            results={},
            converted_from=source.name,
        )
        write_trained(folder, trained, network, {})
    say(
        console,
        f"{found.backbone} ({found.layout.projects}): "
        f"{counted(len(found.used), 'tensor')} converted{_unused(theirs, found)}",
        *_choice(found, others),
        f"The network normalises clips as these weights expect it: {found.layout.normalisation}"
        if found.layout.normalisation
        else "The network receives clips in [0, 1]; weights trained on normalised clips need fine-tuning first",
    )
    return folder


def _read_tensors(path: Path) -> Tensors:
    """The named tensors of a ``.pt`` or ``.pth`` file, read without running code.

    Raises:
        ValueError: the file does not exist, is not one, or does not contain named tensors.
    """
    require_regular(path)
    if not path.exists():
        raise CheckpointError(f"{path}: no such file")
    try:
        with warnings.catch_warnings(action="ignore"):  # torch's, of what the error says or what it reads all the same
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if code := re.search(r"GLOBAL (\S+)", str(error)):
            raise CheckpointError(
                f"{path}: contains an object of {code[1]} and cannot be read without running code; if you trust it, "
                "load it and save only its state_dict"
            ) from error
        raise CheckpointError(
            f"{path}: is not a file of weights, or is damaged; give a .pt or .pth file that torch.save wrote"
        ) from error
    tensors = dict(_named_tensors(loaded))
    if not tensors:
        raise CheckpointError(f"{path}: does not contain named tensors; give a state_dict written by torch.save")
    return tensors


def _named_tensors(value: Any, prefix: str = "", depth: int = 5) -> Iterator[tuple[str, Tensor]]:
    """The tensors in dictionaries, by all of their keys: a checkpoint also holds an optimizer, an epoch, options."""
    if not isinstance(value, dict):
        return
    for key, each in value.items():
        if isinstance(each, Tensor) and isinstance(key, str):
            yield prefix + _TRANSPARENT.sub("", key), each
        elif depth:
            yield from _named_tensors(each, f"{prefix}{key}.", depth - 1)


def _unused(theirs: Tensors, found: _Match) -> str:
    """What of the file is not part of the backbone, such as the layers of its own task."""
    taken = set(found.used)
    unused = [name for name in theirs if name not in taken]
    return f"; not used: {counted(len(unused), 'other tensor')} of the file, first {unused[0]}" if unused else ""


def _choice(found: _Match, others: Sequence[_Match]) -> list[str]:
    """What to say if the file has several networks that fit, such as a student and its teacher."""
    if not others:
        return []
    first, *rest = (repr(match.prefix) if match.prefix else "no prefix" for match in (found, *others))
    return [
        f"{len(others) + 1} networks of the file fit, below {' and '.join([first, *rest])}; converted: {first}, the "
        "first in the file; for another one, load the file and save only its tensors"
    ]


def recognise(theirs: Tensors, source: Path) -> list[_Match]:
    """Find the networks that are in a file.

    Returns:
        Those of which the file has every tensor in the right shape, in the order of the file, each with other weights;
        at least one.

    Raises:
        CheckpointError: they match none of our networks; the message names the closest one.
    """
    below = _by_prefix(theirs)
    matches = list(_matches(below))
    fitting = [match for match in matches if not match.missing]
    distinct = [one for place, one in enumerate(fitting) if not any(_same(one, other) for other in fitting[:place])]
    if distinct:
        order = list(theirs)
        return sorted(distinct, key=lambda match: order.index(match.used[0]))
    for pattern, what in _OTHERS:
        if any(re.search(pattern, name) for names in below.values() for name in names):
            raise CheckpointError(f"{source}: {what}; this network is not supported, so it cannot be converted")
    closest = min(matches, key=lambda match: match.share_missing)
    raise CheckpointError(
        f"{source}: does not match any supported network; "
        f"the closest is {closest.backbone} of {closest.layout.projects}"
        f"{f' below {closest.prefix!r}' if closest.prefix else ''}, but {closest.share_missing:.0%} of its tensors are "
        f"missing or have another shape, the first of them {closest.missing[0]}"
    )


def _by_prefix(theirs: Tensors) -> dict[str, Tensors]:
    """The tensors whose names begin with a prefix, without it, for each prefix; for none first."""
    below: dict[str, Tensors] = {"": theirs}
    for name, value in theirs.items():
        parts = name.split(".")
        for length in range(1, min(len(parts), _MAX_PREFIX_PARTS + 1)):
            prefix = ".".join(parts[:length]) + "."
            below.setdefault(prefix, {})[name.removeprefix(prefix)] = value
    return below


def _matches(below: dict[str, Tensors]) -> Iterator[_Match]:
    """Compare each of our networks, in each naming, with the tensors below each prefix that may hold it."""
    for layout in _LAYOUTS:
        networks = {}
        for backbone in layout.backbones:
            with torch.device("meta"):
                networks[backbone] = BACKBONES[backbone](1.0).state_dict()
        fewest = min(map(len, networks.values())) // 2
        for prefix, inside in below.items():
            if prefix and len(inside) < fewest:
                continue
            names = {_rename(name, layout.rules): name for name in inside}
            for backbone, wanted in networks.items():
                taken = {name: _take(name, value, inside.get(names.get(name, ""))) for name, value in wanted.items()}
                ours = {name: value for name, value in taken.items() if value is not None}
                missing = tuple(name for name in wanted if name not in ours)
                used = tuple(prefix + names[name] for name in ours if name in names)
                yield _Match(prefix, backbone, layout, ours, missing, used)


def _same(one: _Match, other: _Match) -> bool:
    """Whether two networks have the same weights."""
    pairs = ((value, other.ours.get(name)) for name, value in one.ours.items())
    return one.backbone == other.backbone and all(b is not None and torch.equal(a, b) for a, b in pairs)


def _rename(name: str, rules: _Rules) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _take(name: str, wanted: Tensor, theirs: Tensor | None) -> Tensor | None:
    """One of our tensors, taken from theirs; old files have no batch counter for batch norm."""
    if theirs is not None:
        return theirs.to(wanted.dtype) if theirs.shape == wanted.shape else None
    return torch.zeros((), dtype=wanted.dtype) if name.endswith("num_batches_tracked") else None
