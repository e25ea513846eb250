"""Where and in which precision a network runs, and how a batch gets there."""

import ctypes
import os
import re
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from v3s.backbones.forms import FastOnGpu, PadInTime
from v3s.options import require_not_negative, seed_problem

Precision = Literal["auto", "bf16", "fp32"]
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class Compute:
    """A device and a precision.

    Attributes:
        device: where the network lives.
        bf16: run convolutions and matrix products in bfloat16 by autocast; weights stay float32.
    """

    device: torch.device
    bf16: bool

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """The context that a forward pass runs in."""
        forms: AbstractContextManager[object] = nullcontext()
        if self.device.type == "cuda":
            forms = FastOnGpu()
        elif self.bf16 and torch.is_grad_enabled():
            forms = PadInTime()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16), forms:
            yield

    def clips(self, clips: Tensor) -> Tensor:
        """Clips uint8 (B, 3, T, H, W) to the device as float in [0, 1], channels last."""
        moved = clips.to(self.device, non_blocking=True).to(memory_format=torch.channels_last_3d)
        return moved.to(torch.float32).div_(255)

    def network(self, network: Network) -> Network:
        """Move a network to the device, its weights channels last; returns the same network."""
        network.to(self.device)
        return network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload, no-any-return]

    def __str__(self) -> str:
        return f"{self.device} in {'bf16' if self.bf16 else 'fp32'}"


@contextmanager
def fastest_convolutions(device: torch.device) -> Iterator[None]:
    """Within it, cuDNN times its ways of doing each convolution that it meets, and takes the fastest.

    That takes some seconds for each shape of batch, and may choose otherwise the next time: steps are then equal up to
    rounding.
    """
    if device.type != "cuda":
        yield
        return
    with torch.backends.cudnn.flags(enabled=True, benchmark=True):
        yield


def choose_compute(device: str = "auto", precision: Precision = "auto", *, local_rank: int = 0) -> Compute:
    """Pick a device and the precision that is fastest on it.

    Args:
        device: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N".
        precision: "auto" takes bf16 where the device multiplies matrices in it: GPUs of compute capability 8 and up,
            CPUs with AMX or AVX-512 BF16. Other CPUs emulate it.
        local_rank: the GPU of this process where several run on one machine.

    Raises:
        ValueError: the device does not exist here.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    form = re.fullmatch(r"cpu|cuda(?::(\d+))?", device)
    if form is None:
        raise ValueError(f"device is {device!r}; it must be auto, cpu, cuda or cuda:N")
    chosen = torch.device(device)
    if chosen.type == "cuda":
        if not torch.cuda.is_available():
            raise ValueError(f"device {device!r} was asked for, but torch {torch.__version__} sees no GPU here")
        chosen = torch.device("cuda", int(form[1] or local_rank))
        if chosen.index >= (count := torch.cuda.device_count()):
            raise ValueError(
                f"process {local_rank} of this machine asks for {chosen}, but sees only {count} of its GPUs, from "
                "cuda:0 on: start no more processes than GPUs, or choose another --device"
            )
        torch.cuda.set_device(chosen)
    fast = _multiplies_bf16(chosen) if precision == "auto" else precision == "bf16"
    return Compute(chosen, fast)


def divide_cores(
    num_workers: int | None,
    device: torch.device,
    *,
    training: bool = False,
    stored: bool = False,
    num_processes: int = 1,
) -> int:
    """Share the cores between torch and the processes that read videos; returns the number of these processes.

    On a CPU, torch gets the cores that they leave: more threads than cores wait for each other and run many times
    slower. A thread count set from outside (OMP_NUM_THREADS, which ``torchrun`` sets too) is left alone. There, this
    process also keeps the memory that one step frees for the next one.

    Args:
        num_workers: reading processes; None takes one for each core, at most 8, beside a GPU; on a CPU half of the
            cores in training, and a quarter in inference, where the network takes most of the time.
        device: where the network lives.
        training: whether gradients are computed.
        stored: whether frames come decoded from a store: on a CPU None then takes no process at all, since a core kept
            for so little reading would be idle.
        num_processes: processes of the run on this machine, each of which takes its share.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = max(1, cores // num_processes)
    on_cpu = device.type == "cpu"
    if num_workers is None:
        if not on_cpu:
            num_workers = min(cores, 8)
        elif stored:
            num_workers = 0
        else:
            num_workers = max(1, cores // 2) if training else cores // 4
    if on_cpu:
        keep_freed_memory()
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(max(1, cores - num_workers))
    return num_workers


def _multiplies_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    able = torch.cpu.get_capabilities()
    return bool(able.get("amx_bf16", False) or able.get("avx512_bf16", False))


@dataclass(frozen=True, kw_only=True)
class ComputeOptions:
    """Where and how fast.

    More options:
        workers: Processes that read videos; 0 reads in the main process. Default on CPUs: half of the cores in training
            (none for a store), else a quarter. Default beside a GPU: one for each core, at most 8.
        device: auto, cpu, cuda or cuda:N.
        precision: auto is bf16 where the device multiplies matrices in bf16, else fp32.
        seed: Seed for all randomness. The same seed gives the same samples on any number of workers and processes.
    """

    workers: int | None = None
    device: str = "auto"
    precision: Precision = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        require_not_negative(self, "workers")
        if problem := seed_problem(self.seed):
            raise ValueError(problem)


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's mallopt; other C libraries ignore them


def keep_freed_memory() -> None:
    """Have the C library keep what one clip or step frees for the next one.

    Getting it anew costs a third of a clip's time, and half of that of a batch made beside a small network.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for parameter, value in ((_MMAP_THRESHOLD, 32 << 20), (_TRIM_THRESHOLD, 256 << 20)):
            mallopt(parameter, value)
