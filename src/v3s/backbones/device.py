"""The device and precision of a network, and the transfer of batches to the device."""

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
from v3s.files.text import counted
from v3s.options import CheckedOptions, require_not_negative, require_seed

Precision = Literal["auto", "bf16", "fp32"]
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class Compute:
    """A device and a precision.

    Attributes:
        device: device of the network.
        bf16: whether autocast runs convolutions and matrix products in bfloat16; weights stay float32.
    """

    device: torch.device
    bf16: bool

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """The context for a forward pass."""
        forms: AbstractContextManager[object] = nullcontext()
        if self.device.type == "cuda":
            forms = FastOnGpu()
        elif self.bf16 and torch.is_grad_enabled():
            forms = PadInTime()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16), forms:
            yield

    def clips(self, clips: Tensor) -> Tensor:
        """Move uint8 clips (B, 3, T, H, W) to the device as float in [0, 1], channels last."""
        moved = clips.to(self.device, non_blocking=True).to(memory_format=torch.channels_last_3d)
        return moved.to(torch.float32).div_(255)

    def network(self, network: Network) -> Network:
        """Move a network to the device, with weights over time in channels-last format; returns the same network."""
        network.to(self.device)
        for weight in network.parameters():
            if weight.dim() == 5:
                weight.data = weight.data.to(memory_format=torch.channels_last_3d)
        return network

    def __str__(self) -> str:
        return f"{self.device} in {'bf16' if self.bf16 else 'fp32'}"


@contextmanager
def fastest_convolutions(device: torch.device) -> Iterator[None]:
    """Let cuDNN benchmark its algorithms for each convolution inside the context, and use the fastest.

    This takes some seconds for each shape of batch. The choice may differ between runs, so steps are equal only up to
    rounding.
    """
    if device.type != "cuda":
        yield
        return
    with torch.backends.cudnn.flags(enabled=True, benchmark=True):
        yield


def choose_compute(device: str = "auto", precision: Precision = "auto", *, local_rank: int = 0) -> Compute:
    """Choose a device and the fastest precision on it.

    Args:
        device: "auto" (an NVIDIA GPU if there is one, else the CPU), "cpu", "cuda", "cuda:N", or "mps", the GPU of a
            Mac, which computes in fp32.
        precision: "auto" is bf16 if the device has hardware for it: GPUs from compute capability 8 on, and CPUs with
            AMX or AVX-512 BF16. Other CPUs emulate bf16. On Intel's CPUs without AMX, which a virtual machine may hide,
            fp32 is faster for R3D and C3D; the recipe own measures it.
        local_rank: the GPU of this process if several processes run on one machine.

    Raises:
        ValueError: the device does not exist on this machine, or does not compute in this precision.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    form = re.fullmatch(r"cpu|mps|cuda(?::(\d+))?", device)
    if form is None:
        raise ValueError(f"device is {device!r}; it must be auto, cpu, cuda, cuda:N or mps")
    chosen = torch.device(device)
    if chosen.type == "mps":
        if not torch.backends.mps.is_available():
            raise ValueError(f"device 'mps' was requested, but torch {torch.__version__} finds no Apple GPU here")
        if precision == "bf16":
            raise ValueError("device 'mps' computes in fp32; bf16 was requested")
        return Compute(chosen, False)
    if chosen.type == "cuda":
        if not torch.cuda.is_available():
            raise ValueError(f"device {device!r} was requested, but torch {torch.__version__} finds no GPU here")
        chosen = torch.device("cuda", int(form[1] or local_rank))
        if chosen.index >= (count := torch.cuda.device_count()):
            raise ValueError(
                f"process {local_rank} on this machine needs {chosen}, but only {counted(count, 'GPU')} can be used "
                "(from cuda:0 on); start at most one process per GPU, or choose another --device"
            )
        torch.cuda.set_device(chosen)
    fast = _multiplies_bf16(chosen) if precision == "auto" else precision == "bf16"
    return Compute(chosen, fast)


def usable_cores() -> int:
    """Return the number of cores that this process may use, where the system says so; else of all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def divide_cores(
    num_workers: int | None,
    device: torch.device,
    *,
    training: bool = False,
    stored: bool = False,
    num_processes: int = 1,
) -> int:
    """Divide the cores between torch and the workers that read videos; returns the number of workers.

    On a CPU, torch gets the cores that the workers do not use: more threads than cores wait for each other and run many
    times slower. A thread count that is set in the environment (OMP_NUM_THREADS, which ``torchrun`` also sets) is not
    changed. On a CPU, this process also keeps freed memory for the next step.

    Args:
        num_workers: number of workers. None with a GPU is one per core, at most 8. None on a CPU is half of the cores
            in training, and a quarter in inference, where the network takes most of the time.
        device: device of the network.
        training: whether gradients are computed.
        stored: whether frames are read from a store. On a CPU, None is then 0, because a core reserved for so little
            work would be idle.
        num_processes: number of processes of the run on this machine, which share the cores.
    """
    cores = max(1, usable_cores() // num_processes)
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
class DeviceOptions(CheckedOptions):
    """Where a network computes.

    More options:
        device: auto, cpu, cuda, cuda:N or mps.
        precision: auto is bf16 if the device can multiply matrices in bf16, else fp32.
    """

    device: str = "auto"
    precision: Precision = "auto"


@dataclass(frozen=True, kw_only=True)
class ComputeOptions(DeviceOptions):
    """Where and how fast.

    More options:
        workers: Processes that read videos; 0 reads in the main process. Default on CPUs: half of the cores in training
            (0 for a store), a quarter otherwise. Default with a GPU: one per core, at most 8.
        seed: Seed for all randomness. The same seed gives the same samples with any number of workers and processes.
    """

    workers: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_not_negative(self, "workers")
        require_seed(self)


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # parameters of glibc's mallopt; other C libraries ignore them


def keep_freed_memory() -> None:
    """Make the C library keep memory that a clip or step frees, for the next one.

    Requesting memory from the system again takes a third of the time of a clip, and half of the time of a batch in
    training with a small network.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for parameter, value in ((_MMAP_THRESHOLD, 32 << 20), (_TRIM_THRESHOLD, 256 << 20)):
            mallopt(parameter, value)
