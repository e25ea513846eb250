"""Weights of other projects: the same features as a forward pass written from their names, or a refusal."""

import json
import pickle
import time
import warnings
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor

from v3s import ConvertConfig, PretrainConfig, convert, load_backbone, load_encoder
from v3s.backbones.device import Compute
from v3s.cli import main
from v3s.commands.convert import recognise
from v3s.commands.pretrain import set_up_pretraining
from v3s.data.views import read_clips
from v3s.files.writing import NEXT, CheckpointError
from v3s.train.distributed import Processes

QUIET = Console(quiet=True)
Tensors = dict[str, Tensor]


class Builder:
    """Draws tensors by name, as a project would have saved them."""

    def __init__(self) -> None:
        self.tensors: Tensors = {}
        self.generator = torch.Generator().manual_seed(0)

    def conv(self, name: str, num_in: int, num_out: int, kernel: tuple[int, int, int], *, bias: bool = False) -> None:
        """A convolution's weight, and its bias."""
        fan_in = num_in * kernel[0] * kernel[1] * kernel[2]
        self._draw(f"{name}.weight", (num_out, num_in, *kernel), (2 / fan_in) ** 0.5)
        if bias:
            self._draw(f"{name}.bias", (num_out,), 0.1)

    def norm(self, name: str, num: int) -> None:
        """The five tensors of a batch normalisation."""
        for part in ("weight", "bias", "running_mean", "running_var"):
            self._draw(f"{name}.{part}", (num,), 0.1)
        for part in ("weight", "running_var"):
            self.tensors[f"{name}.{part}"] += 1
        self.tensors[f"{name}.num_batches_tracked"] = torch.tensor(7)

    def linear(self, name: str, num_in: int, num_out: int) -> None:
        """A fully connected layer's weight and bias."""
        self._draw(f"{name}.weight", (num_out, num_in), 0.05)
        self._draw(f"{name}.bias", (num_out,), 0.1)

    def _draw(self, name: str, shape: tuple[int, ...], std: float) -> None:
        self.tensors[name] = torch.randn(shape, generator=self.generator) * std


def norm(tensors: Tensors, name: str, values: Tensor) -> Tensor:
    mean, variance, weight, bias = (
        tensors[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return F.batch_norm(values, mean, variance, weight, bias)


def conv(tensors: Tensors, name: str, values: Tensor, stride: Any = 1) -> Tensor:
    weight = tensors[f"{name}.weight"]
    padding = [size // 2 for size in weight.shape[2:]]
    return F.conv3d(values, weight, tensors.get(f"{name}.bias"), stride, padding)


# VCOP, PRP, PacePred, RSPNet: R3D and R(2+1)D

STAGES = ((64, 64), (64, 128), (128, 256), (256, 512))


def vcop_residual(*, factored: bool) -> Tensors:
    made = Builder()

    def unit(name: str, num_in: int, num_out: int, kernel: tuple[int, int, int]) -> None:
        time, height, width = kernel
        if not factored:
            return made.conv(f"{name}.temporal_spatial_conv", num_in, num_out, kernel)
        middle = time * height * width * num_in * num_out // (height * width * num_in + time * num_out)
        made.conv(f"{name}.spatial_conv", num_in, middle, (1, height, width))
        made.norm(f"{name}.bn", middle)
        return made.conv(f"{name}.temporal_conv", middle, num_out, (time, 1, 1))

    unit("conv1", 3, 64, (3, 7, 7))
    made.norm("bn1", 64)
    for number, (num_in, num_out) in enumerate(STAGES, start=2):
        block = f"conv{number}.block1"
        unit(f"{block}.conv1", num_in, num_out, (3, 3, 3))
        made.norm(f"{block}.bn1", num_out)
        unit(f"{block}.conv2", num_out, num_out, (3, 3, 3))
        made.norm(f"{block}.bn2", num_out)
        if num_in != num_out:
            unit(f"{block}.downsampleconv", num_in, num_out, (1, 1, 1))
            made.norm(f"{block}.downsamplebn", num_out)
    made.linear("linear", 512, 101)
    return made.tensors


def vcop_residual_features(tensors: Tensors, clips: Tensor) -> Tensor:
    def unit(name: str, values: Tensor, stride: tuple[int, int, int]) -> Tensor:
        if f"{name}.temporal_spatial_conv.weight" in tensors:
            return conv(tensors, f"{name}.temporal_spatial_conv", values, stride)
        middle = F.relu(norm(tensors, f"{name}.bn", conv(tensors, f"{name}.spatial_conv", values, (1, *stride[1:]))))
        return conv(tensors, f"{name}.temporal_conv", middle, (stride[0], 1, 1))

    values = F.relu(norm(tensors, "bn1", unit("conv1", clips, (1, 2, 2))))
    for number in range(2, 6):
        block, stride = f"conv{number}.block1", (1, 1, 1) if number == 2 else (2, 2, 2)
        inner = F.relu(norm(tensors, f"{block}.bn1", unit(f"{block}.conv1", values, stride)))
        inner = norm(tensors, f"{block}.bn2", unit(f"{block}.conv2", inner, (1, 1, 1)))
        if number > 2:
            values = norm(tensors, f"{block}.downsamplebn", unit(f"{block}.downsampleconv", values, stride))
        values = F.relu(values + inner)
    return values.mean(dim=(2, 3, 4))


# C3D in both namings

C3D = (("1", 3, 64), ("2", 64, 128), ("3a", 128, 256), ("3b", 256, 256), ("4a", 256, 512), ("4b", 512, 512),
       ("5a", 512, 512), ("5b", 512, 512))  # fmt: skip


def vcop_c3d() -> Tensors:
    made = Builder()
    for name, num_in, num_out in C3D:
        made.conv(f"conv{name}", num_in, num_out, (3, 3, 3), bias=True)
        made.norm(f"bn{name}", num_out)
    made.linear("linear", 512, 101)
    return made.tensors


def prp_c3d() -> Tensors:
    renamed = {}
    for name, value in vcop_c3d().items():
        module, _, part = name.partition(".")
        place = module.removeprefix("conv").removeprefix("bn").replace("a", "_1").replace("b", "_2")
        if module != "linear":
            renamed[f"conv{place}.conv3d.{0 if module.startswith('conv') else 1}.{part}"] = value
    return {**renamed, "fc8.weight": torch.zeros(4, 512)}


def c3d_features(tensors: Tensors, clips: Tensor) -> Tensor:
    values = clips
    for name, _, _ in C3D:
        if name in ("2", "3a", "4a", "5a"):
            kernel = (1, 2, 2) if name == "2" else (2, 2, 2)
            values = F.max_pool3d(values, kernel, kernel)
        values = F.relu(norm(tensors, f"bn{name}", conv(tensors, f"conv{name}", values)))
    return values.mean(dim=(2, 3, 4))


# PacePred: S3D-G

WIDTHS = {
    "3b": (192, 64, 96, 128, 16, 32, 32), "3c": (256, 128, 128, 192, 32, 96, 64),
    "4b": (480, 192, 96, 208, 16, 48, 64), "4c": (512, 160, 112, 224, 24, 64, 64),
    "4d": (512, 128, 128, 256, 24, 64, 64), "4e": (512, 112, 144, 288, 32, 64, 64),
    "4f": (528, 256, 160, 320, 32, 128, 128),
    "5b": (832, 256, 160, 320, 32, 128, 128), "5c": (832, 384, 192, 384, 48, 128, 128),
}  # fmt: skip


def pace_s3dg() -> Tensors:
    made = Builder()

    def unit(name: str, num_in: int, num_out: int, kernel: tuple[int, int, int], *, separable: bool = False) -> None:
        made.conv(f"{name}.conv1", num_in, num_out, (1, *kernel[1:]) if separable else kernel)
        made.norm(f"{name}.bn1", num_out)
        if separable:
            made.conv(f"{name}.conv2", num_out, num_out, (kernel[0], 1, 1))
            made.norm(f"{name}.bn2", num_out)

    unit("conv1", 3, 64, (3, 7, 7))
    unit("conv_2b", 64, 64, (1, 1, 1))
    unit("conv_2c", 64, 192, (3, 3, 3), separable=True)
    made.linear("gating.fc", 192, 192)
    for name, (num_in, zero, one_a, one_b, two_a, two_b, three) in WIDTHS.items():
        block = f"mixed_{name}"
        unit(f"{block}.conv_b0", num_in, zero, (1, 1, 1))
        unit(f"{block}.conv_b1_a", num_in, one_a, (1, 1, 1))
        unit(f"{block}.conv_b1_b", one_a, one_b, (3, 3, 3), separable=True)
        unit(f"{block}.conv_b2_a", num_in, two_a, (1, 1, 1))
        unit(f"{block}.conv_b2_b", two_a, two_b, (3, 3, 3), separable=True)
        unit(f"{block}.conv_b3_b", num_in, three, (1, 1, 1))
        for number, num_out in enumerate((zero, one_b, two_b, three)):
            made.linear(f"{block}.gating_b{number}.fc", num_out, num_out)
    made.linear("fc", 1024, 4)
    return made.tensors


def pace_s3dg_features(tensors: Tensors, clips: Tensor) -> Tensor:
    def unit(name: str, values: Tensor, stride: int = 1) -> Tensor:
        values = F.relu(norm(tensors, f"{name}.bn1", conv(tensors, f"{name}.conv1", values, stride)))
        if f"{name}.conv2.weight" in tensors:
            values = F.relu(norm(tensors, f"{name}.bn2", conv(tensors, f"{name}.conv2", values)))
        return values

    def gate(name: str, values: Tensor) -> Tensor:
        linear = F.linear(values.mean(dim=(2, 3, 4)), tensors[f"{name}.fc.weight"], tensors[f"{name}.fc.bias"])
        return values * torch.sigmoid(linear)[:, :, None, None, None]

    def pool(values: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
        """Zeros around: half of kernel - stride before, the rest behind."""
        along = [max(size - step, 0) for size, step in zip(kernel, stride, strict=True)]
        around = [amount for total in reversed(along) for amount in (total // 2, total - total // 2)]
        return F.max_pool3d(F.pad(values, around), kernel, stride, ceil_mode=True)

    def inception(name: str, values: Tensor) -> Tensor:
        pooled = F.max_pool3d(values, 3, 1, 1)
        branches = (
            unit(f"{name}.conv_b0", values),
            unit(f"{name}.conv_b1_b", unit(f"{name}.conv_b1_a", values)),
            unit(f"{name}.conv_b2_b", unit(f"{name}.conv_b2_a", values)),
            unit(f"{name}.conv_b3_b", pooled),
        )
        return torch.cat([gate(f"{name}.gating_b{number}", branch) for number, branch in enumerate(branches)], dim=1)

    values = pool(unit("conv1", clips, 2), (1, 3, 3), (1, 2, 2))
    values = gate("gating", unit("conv_2c", unit("conv_2b", values)))
    pools = {"3b": ((1, 3, 3), (1, 2, 2)), "4b": ((3, 3, 3), (2, 2, 2)), "5b": ((2, 2, 2), (2, 2, 2))}
    for name in WIDTHS:
        if name in pools:
            values = pool(values, *pools[name])
        values = inception(f"mixed_{name}", values)
    return values.mean(dim=(2, 3, 4))


# torchvision


TORCHVISION_NORMALISATION = ((0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989))
"""Mean and standard deviation of Kinetics-400, by which its video networks normalise clips in [0, 1]."""


def torchvision_residual(*, factored: bool) -> Tensors:
    made = Builder()

    def unit(name: str, num_in: int, num_out: int, middle: int) -> None:
        if not factored:
            return made.conv(name, num_in, num_out, (3, 3, 3))
        made.conv(f"{name}.0", num_in, middle, (1, 3, 3))
        made.norm(f"{name}.1", middle)
        return made.conv(f"{name}.3", middle, num_out, (3, 1, 1))

    made.conv("stem.0", 3, 45 if factored else 64, (1, 7, 7) if factored else (3, 7, 7))
    made.norm("stem.1", 45 if factored else 64)
    if factored:
        made.conv("stem.3", 45, 64, (3, 1, 1))
        made.norm("stem.4", 64)
    for number, (first_in, num_out) in enumerate(STAGES, start=1):
        for block, num_in in ((f"layer{number}.0", first_in), (f"layer{number}.1", num_out)):
            middle = num_in * num_out * 27 // (num_in * 9 + 3 * num_out)
            unit(f"{block}.conv1.0", num_in, num_out, middle)
            made.norm(f"{block}.conv1.1", num_out)
            unit(f"{block}.conv2.0", num_out, num_out, middle)
            made.norm(f"{block}.conv2.1", num_out)
            if num_in != num_out:
                made.conv(f"{block}.downsample.0", num_in, num_out, (1, 1, 1))
                made.norm(f"{block}.downsample.1", num_out)
    made.linear("fc", 512, 400)
    return made.tensors


def torchvision_features(tensors: Tensors, clips: Tensor) -> Tensor:
    def unit(name: str, values: Tensor, stride: int) -> Tensor:
        if f"{name}.weight" in tensors:
            return conv(tensors, name, values, stride)
        middle = F.relu(norm(tensors, f"{name}.1", conv(tensors, f"{name}.0", values, (1, stride, stride))))
        return conv(tensors, f"{name}.3", middle, (stride, 1, 1))

    mean, std = (torch.tensor(values).view(3, 1, 1, 1) for values in TORCHVISION_NORMALISATION)
    values = (clips - mean) / std
    values = F.relu(norm(tensors, "stem.1", conv(tensors, "stem.0", values, (1, 2, 2))))
    if "stem.3.weight" in tensors:
        values = F.relu(norm(tensors, "stem.4", conv(tensors, "stem.3", values)))
    for number in range(1, 5):
        for block, stride in ((f"layer{number}.0", 1 if number == 1 else 2), (f"layer{number}.1", 1)):
            inner = F.relu(norm(tensors, f"{block}.conv1.1", unit(f"{block}.conv1.0", values, stride)))
            inner = norm(tensors, f"{block}.conv2.1", unit(f"{block}.conv2.0", inner, 1))
            if f"{block}.downsample.0.weight" in tensors:
                values = norm(tensors, f"{block}.downsample.1", conv(tensors, f"{block}.downsample.0", values, stride))
            values = F.relu(values + inner)
    return values.mean(dim=(2, 3, 4))


def prefixed(tensors: Tensors, prefix: str) -> Tensors:
    return {**{f"{prefix}{name}": value for name, value in tensors.items()}, "other.weight": torch.zeros(2)}


Features = Callable[[Tensors, Tensor], Tensor]
CASES: dict[str, tuple[Callable[[], Tensors], Features, str, Callable[[Tensors], Any]]] = {
    "VCOP r3d": (
        lambda: vcop_residual(factored=False), vcop_residual_features, "r3d",
        lambda tensors: prefixed(tensors, "base_network."),
    ),
    "PRP r21d": (
        lambda: vcop_residual(factored=True), vcop_residual_features, "r2plus1d",
        lambda tensors: prefixed(tensors, "module.base_network."),
    ),
    "PacePred c3d": (
        vcop_c3d, c3d_features, "c3d",
        lambda tensors: {"epoch": 17, "state_dict": prefixed(tensors, "module."), "opt_dict": {"state": {}}},
    ),
    "RSPNet c3d": (
        vcop_c3d, c3d_features, "c3d",
        lambda tensors: {"epoch": 9, "arch": "c3d", "model": prefixed(tensors, "encoder_q.encoder.")},
    ),
    "PRP c3d": (
        prp_c3d, lambda _, clips: c3d_features(vcop_c3d(), clips), "c3d",
        lambda tensors: prefixed(tensors, "module.base_network."),
    ),
    "PacePred s3d": (pace_s3dg, pace_s3dg_features, "s3dg", lambda tensors: {"state_dict": tensors}),
    "torchvision r3d_18": (
        lambda: torchvision_residual(factored=False), torchvision_features, "r3d18", lambda tensors: tensors,
    ),
    "torchvision r2plus1d_18": (
        lambda: torchvision_residual(factored=True), torchvision_features, "r2plus1d18", lambda tensors: tensors,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_converted_weights_give_the_features_of_their_own_network(case: str, tmp_path: Path) -> None:
    make, features, name, wrap = CASES[case]
    tensors = make()
    torch.save(wrap(tensors), tmp_path / "weights.pth")
    folder = convert(ConvertConfig(weights=str(tmp_path / "weights.pth"), out=str(tmp_path / "run")), console=QUIET)
    described = json.loads((folder / "config.json").read_text())
    assert (described["backbone"], described["converted_from"]) == (name, "weights.pth")
    mean, std = map(list, TORCHVISION_NORMALISATION)
    assert described.get("normalisation") == ({"mean": mean, "std": std} if case.startswith("torchvision") else None)
    clips = torch.rand(2, 3, 16, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours, theirs = load_backbone(folder)(clips), features(tensors, clips)
    assert theirs.std() > 0.01
    assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()


@pytest.mark.parametrize("case", ["torchvision r3d_18", "torchvision r2plus1d_18"])
def test_kinetics_weights_see_in_a_video_what_they_saw_in_torchvision(
    case: str, small_videos: Path, tmp_path: Path
) -> None:
    """With an encoder, and as the network from which a pre-training starts."""
    make, features, name, _ = CASES[case]
    tensors, printed = make(), StringIO()
    torch.save(tensors, tmp_path / "kinetics.pth")
    config = ConvertConfig(weights=str(tmp_path / "kinetics.pth"), out=str(tmp_path / "weights"))
    folder = convert(config, console=Console(file=printed, width=200))
    assert "normalises clips as these weights expect it: mean 0.43216, 0.394666, 0.37645; std" in printed.getvalue()
    encoder = load_encoder(folder, device="cpu", precision="fp32", num_clips=1)
    path = next(small_videos.rglob("*.mp4"))
    table = encoder.table_of([path])
    pixels = read_clips(table, 0, encoder.view, encoder.view.clips(int(table.num_frames[0])))
    with torch.no_grad():
        theirs = features(tensors, pixels.float() / 255)
        vectors = encoder.encode_clips(path)
        assert (vectors - F.normalize(theirs, dim=1)).abs().max() < 1e-5
        options = PretrainConfig(
            data=str(small_videos), out=str(tmp_path / "run"), backbone=name, init=str(folder), task="ts",
            clip_frames=8, workers=0, validation_videos=4, batch_size=4,
        )  # fmt: skip
        compute = Compute(torch.device("cpu"), bf16=False)
        job = set_up_pretraining(options, compute=compute, processes=Processes(), console=QUIET)
        ours = job.network.eval()(compute.clips(pixels))
    assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()


WRAPS: dict[str, Callable[[Tensors], Any]] = {
    "compiled, in parallel": lambda tensors: {f"module._orig_mod.{name}": value for name, value in tensors.items()},
    "the other way round": lambda tensors: {f"_orig_mod.module.model.{name}": each for name, each in tensors.items()},
    "model_state": lambda tensors: {"epoch": 3, "model_state": tensors, "optimizer": {"state": {0: torch.zeros(2)}}},
    "deeper": lambda tensors: {"train": {"nets": {f"a.b.{name}": value for name, value in tensors.items()}}},
    "layers compiled": lambda tensors: {name.replace("1.", "1._orig_mod.", 1): each for name, each in tensors.items()},
}


@pytest.mark.parametrize("wrap", WRAPS)
def test_wrappers_are_taken_off_and_the_rest_is_counted(
    wrap: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = vcop_c3d()
    torch.save(WRAPS[wrap](tensors | {"fc7.weight": torch.zeros(2), "fc7.bias": torch.zeros(2)}), tmp_path / "w.pt")
    convert(ConvertConfig(weights=str(tmp_path / "w.pt"), out=str(tmp_path / "run")))
    used, unused = len(tensors) - 2, 4  # the file's own linear layer is not part of the backbone either
    printed = capsys.readouterr().out
    assert f"c3d (VCOP, PacePred and RSPNet): {used} tensors converted; not used: {unused} other tensors" in printed


def changed(tensors: Tensors, prefix: str = "") -> Tensors:
    """Other weights of the same network, below a prefix."""
    return {f"{prefix}{name}": value + 1 for name, value in tensors.items()}


def without_last(tensors: Tensors) -> Tensors:
    return {name: value for name, value in tensors.items() if name != "conv5b.weight"}


FOREIGN: Tensors = {
    "queue": torch.zeros(4),
    "optimizer.0.exp_avg": torch.zeros(4),
    "optimizer.1.exp_avg": torch.zeros(4),
}
BESIDE: dict[str, Callable[[Tensors], Any]] = {
    "other names": lambda c3d: FOREIGN | {f"ema.module.{name}": value for name, value in c3d.items()},
    "a network that lacks a tensor": lambda c3d: (
        changed(without_last(c3d), "model.") | {f"ema.module.{name}": value for name, value in c3d.items()}
    ),
    "a larger dictionary": lambda c3d: {"ema": c3d, "teacher": {f"{n}.weight": torch.zeros(1) for n in range(200)}},
    "the same weights again": lambda c3d: {"model": c3d, "ema": {f"module.{name}": each for name, each in c3d.items()}},
}


@pytest.mark.parametrize("beside", BESIDE)
def test_the_network_lies_below_the_prefix_where_all_its_tensors_are(
    beside: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    c3d = vcop_c3d()
    torch.save(BESIDE[beside](c3d), tmp_path / "w.pt")
    folder = convert(ConvertConfig(weights=str(tmp_path / "w.pt"), out=str(tmp_path / "run")))
    printed = capsys.readouterr().out
    assert "c3d (VCOP, PacePred and RSPNet): 56 tensors converted; " in printed
    assert "networks of the file fit" not in printed
    assert load_backbone(folder).state_dict()["conv5.4.weight"].equal(c3d["conv5b.weight"])


@pytest.mark.parametrize(("first", "second"), [("student.", "teacher."), ("model.", "ema.module."), ("", "ema.")])
def test_of_two_networks_that_fit_the_first_in_the_file_is_converted_and_both_are_named(
    first: str, second: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    c3d = vcop_c3d()
    torch.save({f"{first}{name}": each for name, each in c3d.items()} | changed(c3d, second), tmp_path / "w.pt")
    folder = convert(ConvertConfig(weights=str(tmp_path / "w.pt"), out=str(tmp_path / "run")))
    shown = repr(first) if first else "no prefix"
    assert f"2 networks of the file fit, below {shown} and {second!r}; converted: {shown}, " in capsys.readouterr().out
    assert load_backbone(folder).state_dict()["conv5.4.weight"].equal(c3d["conv5b.weight"])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["encoder_q.0.Conv_1a.conv1.weight", "encoder_q.0.block1.0.conv1.weight"], "CoCLR's S3D"),
        (["encoder_q.encoder.feature.sepConv1.sep_conv.0.conv3d.weight"], "RSPNet's S3D-G"),
        (["features.0.0.0.weight", "classifier.1.weight"], "torchvision's s3d"),
        (["layer1.0.bn1.weight", "conv1.weight"], "a 3D ResNet with pooling"),
        (["blocks.0.attn.qkv.weight"], "does not match any supported network; the closest is"),
    ],
)
def test_other_networks_are_refused(names: list[str], message: str, tmp_path: Path) -> None:
    torch.save(dict.fromkeys(names, torch.zeros(1)), tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=message):
        convert(ConvertConfig(weights=str(tmp_path / "weights.pth"), out=str(tmp_path / "run")), console=QUIET)
    assert not (tmp_path / "run").exists()


def test_one_tensor_of_another_shape_is_enough_to_refuse() -> None:
    tensors = vcop_residual(factored=False)
    tensors["conv5.block1.bn2.weight"] = torch.zeros(256)
    with pytest.raises(CheckpointError, match=r"closest is r3d of .* the first of them conv5\.0\.conv2\.1\.weight"):
        recognise(tensors, Path("weights.pth"))
    del tensors["conv5.block1.bn2.weight"]
    with pytest.raises(CheckpointError, match=r"first of them conv5\.0\.conv2\.1\.weight"):
        recognise(tensors, Path("weights.pth"))


def test_an_output_must_be_empty_but_for_what_a_killed_conversion_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_text("a")
    assert main(["convert", str(tmp_path / "none.pt"), "--out", str(tmp_path / "mine")]) == 1  # before it is read
    assert capsys.readouterr().err == f"error: {tmp_path / 'mine'} is not empty; choose another folder with --out\n"
    (tmp_path / "run" / NEXT).mkdir(parents=True)
    (tmp_path / "run" / NEXT / "backbone.safetensors").write_bytes(b"half")
    torch.save(vcop_c3d(), tmp_path / "w.pt")
    load_backbone(convert(ConvertConfig(weights=str(tmp_path / "w.pt"), out=str(tmp_path / "run")), console=QUIET))


class Payload:
    """Runs code when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


NO_WEIGHTS = ": is not a file of weights, or is damaged; give a .pt or .pth file that torch.save wrote\n"
NO_NAMES = ": does not contain named tensors; give a state_dict written by torch.save\n"
CODE = ": contains an object of "
NEEDED = {"torch": CODE, "legacy": CODE, "pickle": NO_WEIGHTS, "empty": NO_WEIGHTS, "text": NO_WEIGHTS,
          "list": NO_NAMES, "missing": ": no such file\n", "folder": " is a folder; give a regular file\n"}  # fmt: skip


@pytest.mark.parametrize("kind", [*NEEDED, "folder"])
def test_a_file_with_code_or_nothing_is_refused(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, mark = tmp_path / "weights.pth", tmp_path / "executed"
    value = {"state_dict": {"conv1.weight": torch.zeros(1)}, "extra": Payload(mark)}
    if kind in ("torch", "legacy"):
        torch.save(value, path, _use_new_zipfile_serialization=kind == "torch")
    elif kind == "list":
        torch.save([1, 2], path)
    elif kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes({"pickle": pickle.dumps(value), "empty": b"", "text": b"weights"}[kind])
    start = time.process_time()
    with warnings.catch_warnings(record=True, action="always") as shown:  # torch warns of some pickles
        assert main(["convert", f"--weights={path}", f"--out={tmp_path / 'run'}"]) == 1
    assert time.process_time() - start < 1
    assert not shown
    error = capsys.readouterr().err
    assert error.startswith(f"error: {path}{NEEDED[kind]}")
    assert len(error.splitlines()) == 1
    assert not mark.exists()
