"""One training run over several processes, as ``torchrun`` starts them (DDP over gloo or NCCL)."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True, slots=True)
class Processes:
    """This process's place among the run's.

    Attributes:
        rank: 0 .. count - 1; rank 0 writes the files.
        count: processes in the run.
        local_rank: place on this machine: the GPU to use.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0


def launched_processes() -> Processes:
    """Read what ``torchrun`` set in the environment; one process where it did not."""
    read = os.environ.get
    return Processes(int(read("RANK", "0")), int(read("WORLD_SIZE", "1")), int(read("LOCAL_RANK", "0")))


@contextmanager
def process_group(processes: Processes, device: torch.device) -> Iterator[None]:
    """Join the processes' group for as long as the context lasts: NCCL on GPUs, gloo on CPUs."""
    if processes.count == 1:
        yield
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def wrap(model: nn.Module, processes: Processes, device: torch.device) -> nn.Module:
    """The model as DDP trains it: gradients are averaged over all processes."""
    if processes.count == 1:
        return model
    return DistributedDataParallel(model, device_ids=[device.index] if device.type == "cuda" else None)


def sum_over(values: Tensor, processes: Processes) -> Tensor:
    """Add a tensor over all processes."""
    if processes.count > 1:
        distributed.all_reduce(values)
    return values


def wait_for_all(processes: Processes) -> None:
    """Return once every process is here."""
    if processes.count > 1:
        distributed.barrier()
