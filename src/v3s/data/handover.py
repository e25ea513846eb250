"""Batches passed from a worker to the main process in shared memory that is reused.

Torch allocates new shared memory for every tensor that it sends, which the system clears page by page. This took 0.6 ms
per clip, as long as reading its frames from a store. Here each worker writes its batches into a few slots in turn, and
the main process copies each batch out before it requests the next one.
"""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SHARED_MEMORY = Path("/dev/shm")
_LEAST_SHARED_BYTES = 1 << 18
_FILES_OF_MAIN, _FILES_PER_WORKER = 64, 24
_SPARE_SHARE = 4  # as much shared memory stays free for others: writing into more than there is ends the process


def check_room(num_workers: int) -> None:
    """Check that the system lets reading processes start: shared memory for their locks, and enough open files.

    Raises:
        ValueError: it does not; the message says what to change.
    """
    if _free_shared_bytes() < _LEAST_SHARED_BYTES:
        raise ValueError(
            f"{SHARED_MEMORY} has {_free_shared_bytes() / 1e3:.0f} kB free, but reading processes need shared memory; "
            "give the container more (docker run --shm-size=1g), or use --workers 0"
        )
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    needed, (soft, hard) = _FILES_OF_MAIN + _FILES_PER_WORKER * num_workers, resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        if hard != resource.RLIM_INFINITY and hard < needed:
            raise ValueError(
                f"only {hard:,} files may be open at once, but {num_workers} reading processes need {needed:,}; "
                "raise the limit (ulimit -n), or use --workers 0"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _free_shared_bytes() -> float:
    return shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else math.inf


class SharedTensor(NamedTuple):
    """A reference to a tensor in shared memory.

    Attributes:
        slot: (number of the worker, number of the slot, position of the tensor in its batch).
        memory: the bytes of the slot; ``None`` if they are the same memory as last time. An array is a copy, sent
            through a pipe because shared memory is short.
        dtype: type of the tensor.
        shape: shape of the tensor.
        stride: strides of the tensor, in elements.
    """

    slot: tuple[int, int, int]
    memory: Tensor | NDArray[np.uint8] | None
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class BatchWriter:
    """A worker's side: writes batches to shared memory.

    Args:
        worker: number of the worker.
        num_slots: number of batches in shared memory at once. The main process requests a batch as soon as it has
            received, but perhaps not yet copied, the one ``prefetch`` batches earlier. So ``prefetch + 1`` slots are
            needed.
    """

    def __init__(self, worker: int, num_slots: int) -> None:
        self._worker, self._num_slots, self._slot = worker, num_slots, 0
        self._memory: dict[tuple[int, int, int], Tensor] = {}

    def write(self, batch: Any) -> Any:
        """Replace the tensors of a batch that is a tuple by references to the next slot; leave other values alone."""
        if not isinstance(batch, tuple):
            return batch
        self._slot = (self._slot + 1) % self._num_slots
        return tuple(self._write(value, row) if isinstance(value, Tensor) else value for row, value in enumerate(batch))

    def _write(self, tensor: Tensor, row: int) -> SharedTensor:
        slot = self._worker, self._slot, row
        memory, is_new = self._memory.get(slot), False
        dense = torch.empty_like(tensor, device="meta")  # in the tensor's order of axes
        if (memory is None or len(memory) < tensor.nbytes) and _free_shared_bytes() < _SPARE_SHARE * tensor.nbytes:
            memory = torch.empty(tensor.nbytes, dtype=torch.uint8)
            shared = SharedTensor(slot, memory.numpy(), tensor.dtype, tuple(tensor.shape), dense.stride())
            _view(shared, memory).copy_(tensor)
            return shared
        if memory is None or len(memory) < tensor.nbytes:
            memory = torch.empty(tensor.nbytes, dtype=torch.uint8).share_memory_()  # type: ignore[no-untyped-call]
            self._memory[slot], is_new = memory, True
        shared = SharedTensor(slot, memory if is_new else None, tensor.dtype, tuple(tensor.shape), dense.stride())
        _view(shared, memory).copy_(tensor)
        return shared


class BatchReader:
    """The main process's side: reads the batches of all workers.

    Args:
        pin_memory: whether to copy to page-locked memory.
    """

    def __init__(self, *, pin_memory: bool) -> None:
        self._pin_memory = pin_memory
        self._memory: dict[tuple[int, int, int], Tensor] = {}

    def read(self, batch: Any) -> Any:
        """Copy a batch out of shared memory, as it was before :meth:`BatchWriter.write`."""
        return tuple(map(self._read, batch)) if isinstance(batch, tuple) else batch

    def _read(self, value: Any) -> Any:
        if not isinstance(value, SharedTensor):
            return value
        if isinstance(value.memory, Tensor):
            self._memory[value.slot] = value.memory
        is_copy = isinstance(value.memory, np.ndarray)
        memory = torch.from_numpy(value.memory) if is_copy else self._memory[value.slot]
        shared = _view(value, memory)
        return shared.pin_memory() if self._pin_memory else shared.clone()


def stack(samples: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Stack samples, each a tuple of tensors, into one tuple of batches with the memory layout of the samples."""
    return tuple(map(_stack, zip(*samples, strict=True)))


def _stack(values: tuple[Tensor, ...]) -> Tensor:
    order = sorted(range(values[0].dim()), key=values[0].stride, reverse=True)
    batch = torch.stack([value.permute(order) for value in values])
    return batch.permute(0, *(1 + order.index(axis) for axis in range(len(order))))


def _view(tensor: SharedTensor, memory: Tensor) -> Tensor:
    num_bytes = math.prod(tensor.shape) * tensor.dtype.itemsize
    return memory[:num_bytes].view(tensor.dtype).as_strided(tensor.shape, tensor.stride)
