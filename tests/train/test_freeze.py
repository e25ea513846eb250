"""Frozen stages keep weights and statistics bit by bit, get no gradient, and take part in no backward pass."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor, nn

from v3s import PretrainConfig, finetune, pretrain
from v3s.backbones import StagedBackbone, create_backbone
from v3s.backbones.device import Compute
from v3s.backbones.stages import freeze_stages, stage_modules
from v3s.commands.pretrain import pretraining, set_up_pretraining
from v3s.protocols.finetune import FinetuneConfig
from v3s.train.checkpoint import load_checkpoint
from v3s.train.distributed import Processes
from v3s.train.loop import set_training_mode
from v3s.train.statistics import estimate_statistics, layers_to_estimate

QUIET = Console(quiet=True)
PLAIN = Compute(torch.device("cpu"), bf16=False)


def changed_stages(weights: dict[str, Tensor], start: dict[str, Tensor]) -> set[str]:
    """The stages of which a weight or a statistic is not the same, bit by bit."""
    return {name.partition(".")[0] for name, value in weights.items() if not torch.equal(value, start[name])}


def everywhere(run: Path) -> list[dict[str, Tensor]]:
    """The backbone in all places in which a run keeps it."""
    saved = [load_file(folder / "backbone.safetensors") for folder in (run, run / "last")]
    model = load_checkpoint(run / "checkpoints/last.pt")["model"]
    inside = {name.removeprefix("backbone."): each for name, each in model.items() if name.startswith("backbone.")}
    return [*saved, inside]


START = create_backbone("r3d", 0.125).state_dict()
OTHERS = {"conv1", "conv2", "conv3", "conv4", "conv5"}


@pytest.mark.parametrize(
    ("freeze", "options"),
    [
        (("conv1", "conv2"), {}),
        (("conv3",), {}),
        (("conv2", "conv1"), {"batch_norm": "frozen"}),
        (("conv1",), {"batch_norm": "local", "statistics_clips": 0, "head_rate": 10.0}),
        (("conv1", "conv2", "conv3", "conv4", "conv5"), {"precision": "bf16"}),
    ],
)
def test_frozen_stages_are_the_same_bit_by_bit(
    freeze: tuple[str, ...], options: dict[str, object], small_pretraining: PretrainConfig, tmp_path: Path
) -> None:
    config = replace(small_pretraining, out=str(tmp_path), freeze=freeze, **options)  # type: ignore[arg-type]
    pretrain(config, console=QUIET)
    for weights in everywhere(tmp_path):
        assert changed_stages(weights, START) == OTHERS - set(freeze)


def test_a_fine_tuning_keeps_them_too(small_finetuning: FinetuneConfig, tmp_path: Path) -> None:
    finetune(replace(small_finetuning, out=str(tmp_path), freeze=("conv1", "conv2")), console=QUIET)
    for weights in everywhere(tmp_path):
        assert changed_stages(weights, START) == {"conv3", "conv4", "conv5"}


@pytest.mark.parametrize("steps", [2, 4])
def test_resuming_is_exact(
    steps: int,
    small_pretraining: PretrainConfig,
    tmp_path: Path,
    killed_after: Callable[[int], AbstractContextManager[None]],
) -> None:
    whole, killed = (
        replace(small_pretraining, out=str(tmp_path / name), freeze=("conv1", "conv2")) for name in ("whole", "killed")
    )
    pretrain(whole, console=QUIET)
    with killed_after(steps):
        pretrain(killed, console=QUIET)
    with pytest.raises(ValueError, match=r"freeze was \('conv1', 'conv2'\), now \('conv1',\)"):
        pretrain(replace(killed, resume=True, freeze=("conv1",)), console=QUIET)
    pretrain(replace(killed, resume=True), console=QUIET)
    for name in ("backbone.safetensors", "last/backbone.safetensors", "config.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_no_backward_pass_runs_through_them(small_pretraining: PretrainConfig, tmp_path: Path) -> None:
    config = replace(small_pretraining, out=str(tmp_path), freeze=("conv1", "conv2"))
    training = pretraining(
        set_up_pretraining(config, compute=PLAIN, processes=Processes(), console=QUIET),
    )
    set_training_mode(training.trained, training.frozen)
    outputs: dict[str, Tensor] = {}
    backbone = training.model.backbone
    assert isinstance(backbone, StagedBackbone)
    for stage, module in zip(backbone.stages, stage_modules(backbone, backbone.stages), strict=True):
        module.register_forward_hook(lambda _, __, output, stage=stage: outputs.update({stage: output}))
    batch = torch.randint(256, (4, 3, 8, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    training.objective(training.trained, PLAIN.clips(batch), torch.zeros(4, 2, dtype=torch.int64))["loss"].backward()  # type: ignore[no-untyped-call]
    assert {stage: output.requires_grad for stage, output in outputs.items()} == {
        "conv1": False, "conv2": False, "conv3": True, "conv4": True, "conv5": True
    }  # fmt: skip
    assert outputs["conv2"].grad_fn is None
    for name, parameter in backbone.named_parameters():
        assert (parameter.grad is None) == name.startswith(("conv1.", "conv2.")), name


def test_statistics_outside_of_them_are_estimated() -> None:
    network = create_backbone("r3d", 0.125)
    frozen = stage_modules(network, ["conv1"])
    clips = torch.randint(256, (4, 3, 4, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    estimate_statistics(network.eval(), [(clips, torch.empty(4))], PLAIN, Processes(), frozen)
    assert changed_stages(network.state_dict(), START) == OTHERS - {"conv1"}
    assert not network.training
    assert not layers_to_estimate(network, [network])
    assert len(layers_to_estimate(network, [])) == len(layers_to_estimate(network, frozen)) + 1


class _Nameless(nn.Module):
    """A network whose stages are not modules of their names."""

    def __init__(self) -> None:
        super().__init__()
        self.stages, self.layer = {"first": 8}, nn.Conv3d(3, 8, 1)


def test_a_stage_without_a_module_is_refused() -> None:
    with pytest.raises(ValueError, match="_Nameless has no module called 'first', so this stage cannot be frozen"):
        freeze_stages(_Nameless(), ["first"])
