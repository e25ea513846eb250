"""Stages of a backbone by name, and those that are not trained."""

from collections.abc import Iterable

from torch import nn

from v3s.backbones.contract import Backbone
from v3s.options import closest


def check_stage(backbone: nn.Module | Backbone, stage: str) -> None:
    """Refuse a stage that a backbone does not have.

    Raises:
        ValueError: the stage does not exist; the message lists those that do.
    """
    stages = list(backbone.stages)  # type: ignore[arg-type]
    if stage not in stages:
        raise ValueError(f"the backbone has no stage {stage!r}; it has: {', '.join(stages)}{closest(stage, stages)}")


def freeze_stages(backbone: nn.Module, stages: Iterable[str]) -> None:
    """Let the weights of these stages get no gradient, so that no optimizer changes them.

    No backward pass runs through stages before which nothing is trained. Batch norm's statistics still change in
    training mode; see `v3s.train.loop.set_training_mode`.

    Raises:
        ValueError: a stage does not exist, or is not a module of the backbone.
    """
    for stage in stages:
        check_stage(backbone, stage)
    for module in stage_modules(backbone, stages):
        module.requires_grad_(False)


def stage_modules(backbone: nn.Module, stages: Iterable[str]) -> list[nn.Module]:
    """The modules of these stages: those of the same names, as in every built-in network.

    Raises:
        ValueError: the backbone has no such module.
    """
    modules = dict(backbone.named_children())
    if missing := [stage for stage in stages if stage not in modules]:
        raise ValueError(
            f"{type(backbone).__name__} has no module called {missing[0]!r}, so this stage cannot be frozen; call the "
            f"module that computes it {missing[0]}"
        )
    return [modules[stage] for stage in stages]
