"""``v3s convert``: weights from other projects, if their network matches ours tensor for tensor.

A file is read with ``weights_only=True``: no code in it runs. The names of its tensors identify the project; the file
must contain every tensor of our network in the right shape, so that no weight is guessed.
"""

import re
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
from v3s.files.lock import LOCK, only_writer
from v3s.files.text import counted, say
from v3s.files.writing import CheckpointError

Tensors = dict[str, Tensor]
_Rules = tuple[tuple[str, str], ...]  # pattern and replacement, applied in order to every name


@dataclass(frozen=True, kw_only=True)
class ConvertConfig:
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

_WRAPPERS = (
    "module.", "model.", "net.", "network.", "encoder_q.", "encoder.", "backbone.", "base_network.",
)  # fmt: skip
"""Prefixes that wrappers add to the names, in any nesting; the backbone is what follows them."""
_TRANSPARENT = re.compile(r"\b(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""Parts of names, at any place, that torch adds to modules which it compiles, shards or recomputes."""

_OTHERS: tuple[tuple[str, str], ...] = (
    (
        r"^(0\.)?(Conv_1a|block1)\.",
        "CoCLR's S3D: its stem is separable, and only its s3dg has gates",
    ),
    (
        r"^(feature\.)?sepConv1\.",
        "RSPNet's S3D-G: its stem is separable, and it gates other convolutions than S3D-G does",
    ),
    (r"^(features\.)?0\.0\.0\.", "torchvision's s3d: its stem is separable, and it has no gates"),
    (r"^layer1\.0\.bn1\.", "a 3D ResNet with pooling after its stem, such as RSPNet's resnet18"),
)
"""Tensor names of networks that resemble ours but differ: a pattern, and what the network is."""


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
    theirs = _read_tensors(source)
    name, layout, ours, used = recognise(_without_wrappers(theirs), source)
    network = create_backbone(name)
    network.load_state_dict(ours)
    network.normalisation = layout.normalisation
    with only_writer(folder):
        if any(file.name != LOCK for file in folder.iterdir()):
            raise ValueError(f"{folder} is not empty; choose another folder with --out")
        trained = Trained(
            kind="converted",
            backbone=name,
            width=1.0,
            sampling=plain_sampling(network.clip_frames, network.clip_size),
            results={},
            converted_from=source.name,
        )
        write_trained(folder, trained, network, {})
    say(
        console,
        f"{name} ({layout.projects}): {counted(len(used), 'tensor')} converted{_unused(theirs, used)}",
        f"The network normalises clips as these weights expect it: {layout.normalisation}"
        if layout.normalisation
        else "The network receives clips in [0, 1]; weights trained on normalised clips need fine-tuning first",
    )
    return folder


def _read_tensors(path: Path) -> Tensors:
    """The named tensors of a ``.pt`` or ``.pth`` file, read without running code.

    Raises:
        CheckpointError: the file does not exist or does not contain named tensors.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(
            f"{path}: cannot be read without running code in it, or was not written by torch.save; if you trust it, "
            f"load it and save only its state_dict ({reason[0]})"
        ) from error
    tensors = max(map(_named_tensors, _nested(loaded)), key=len)  # of several as large, the first
    if not tensors:
        raise CheckpointError(f"{path}: does not contain named tensors; give a state_dict written by torch.save")
    return tensors


def _named_tensors(value: Any) -> Tensors:
    """The tensors of a dictionary with names as keys; nothing else has any."""
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        return {}
    return {name: tensor for name, tensor in value.items() if isinstance(tensor, Tensor)}


def _nested(value: Any, depth: int = 5) -> Iterator[Any]:
    """A value and the dictionaries in it: a checkpoint also holds an optimizer, an epoch, options."""
    yield value
    if isinstance(value, dict) and depth:
        for each in value.values():
            yield from _nested(each, depth - 1)


def _without_wrappers(tensors: Tensors) -> Tensors:
    """Keep the tensors inside wrappers, in any nesting, and remove the prefix that all names share."""
    tensors = {_TRANSPARENT.sub("", name): value for name, value in tensors.items()}
    while True:
        first = next(iter(tensors)).partition(".")[0] + "."
        shared = (first,) if len(tensors) > 1 and all(name.startswith(first) for name in tensors) else ()
        for prefix in (*shared, *_WRAPPERS):
            if inside := {name.removeprefix(prefix): each for name, each in tensors.items() if name.startswith(prefix)}:
                tensors = inside
                break
        else:
            return tensors


def _unused(theirs: Tensors, used: Sequence[Tensor]) -> str:
    """What of the file is not part of the backbone, such as the layers of its own task."""
    taken = set(map(id, used))
    unused = [name for name, value in theirs.items() if id(value) not in taken]
    return f"; {len(unused)} others of the file are not used, the first of them {unused[0]}" if unused else ""


def recognise(theirs: Tensors, source: Path) -> tuple[str, _Layout, Tensors, list[Tensor]]:
    """Find the network that these tensors belong to.

    Returns:
        The name of the backbone, the layout of the tensor names, the tensors with our names, and those of the file
        that were used.

    Raises:
        CheckpointError: they match none of our networks; the message names the closest one.
    """
    for pattern, what in _OTHERS:
        if any(re.search(pattern, name) for name in theirs):
            raise CheckpointError(f"{source}: {what}; this network is not supported, so it cannot be converted")
    misfits = []
    for layout in _LAYOUTS:
        renamed = {_rename(name, layout.rules): value for name, value in theirs.items()}
        for backbone in layout.backbones:
            with torch.device("meta"):
                wanted = BACKBONES[backbone](1.0).state_dict()
            taken = {name: _take(name, value, renamed) for name, value in wanted.items()}
            wrong = [name for name, value in taken.items() if value is None or value.shape != wanted[name].shape]
            if not wrong:
                ours = {name: value for name, value in taken.items() if value is not None}
                return backbone, layout, ours, [renamed[name] for name in wanted if name in renamed]
            misfits.append((len(wrong) / len(wanted), backbone, layout.projects, wrong[0]))
    share, backbone, projects, first = min(misfits)
    raise CheckpointError(
        f"{source}: does not match any supported network; the closest is {backbone} of {projects}, but {share:.0%} of "
        f"its tensors are missing or have another shape, the first of them {first}"
    )


def _rename(name: str, rules: _Rules) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _take(name: str, wanted: Tensor, renamed: Tensors) -> Tensor | None:
    """One of our tensors, taken from theirs; old files have no batch counter for batch norm."""
    if name in renamed:
        return renamed[name].to(wanted.dtype)
    return torch.zeros((), dtype=wanted.dtype) if name.endswith("num_batches_tracked") else None
