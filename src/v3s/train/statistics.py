"""Batch norm's statistics of finished weights, re-estimated on training clips.

The running averages of training follow weights that change with every step, and a few unusual batches move them. For
weights that no longer change, the plain mean over many batches is closer to what the network saw in training.
"""

from collections.abc import Collection, Iterable

import torch
from torch import nn

from v3s.backbones.device import Compute
from v3s.train.distributed import Processes, sum_over
from v3s.train.loop import Batch, batch_norms, set_training_mode


def layers_to_estimate(model: nn.Module, frozen: Iterable[nn.Module]) -> list[nn.modules.batchnorm._BatchNorm]:
    """The batch norms with running statistics that are not in frozen modules."""
    kept = {id(each) for module in frozen for each in module.modules()}
    return [layer for layer in batch_norms(model) if layer.running_mean is not None and id(layer) not in kept]


@torch.no_grad()
def estimate_statistics(
    model: nn.Module,
    batches: Iterable[Batch],
    compute: Compute,
    processes: Processes,
    frozen: Collection[nn.Module] = (),
) -> None:
    """Replace the running mean and variance of every batch norm by the means of those of whole batches.

    Args:
        model: its other tensors do not change.
        batches: training batches; each process needs as many as the others.
        compute: device and precision.
        processes: the results are means over all of them.
        frozen: modules whose batch norms keep their statistics.
    """
    layers = layers_to_estimate(model, frozen)
    momenta, was_training = [layer.momentum for layer in layers], model.training
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the mean over all batches
    set_training_mode(model, frozen)
    for clips, _ in batches:
        if len(clips):
            with compute.autocast():
                model(compute.clips(clips))
    model.train(was_training)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
        for average in (layer.running_mean, layer.running_var):
            assert average is not None
            average.copy_(sum_over(average, processes) / processes.count)
