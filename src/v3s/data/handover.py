"""Batches handed from a process that reads to the main one, in shared memory that both keep.

Torch makes new shared memory for every tensor that is sent, which the system clears page by page: that took 0.6 ms a
clip, as long as reading its frames out of a store. Here a process lays its batches in a few places in turn. The main
process copies each out before it asks for the next one.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Laid(NamedTuple):
    """A tensor that lies in shared memory.

    Attributes:
        place: (number of the process, place in its shelf, which of the batch's tensors).
        memory: where it lies, bytes; ``None`` if it is the memory that came last time.
        dtype: of the tensor.
        shape: of the tensor.
        stride: of the tensor, in elements.
    """

    place: tuple[int, int, int]
    memory: Tensor | None
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class Shelf:
    """What a process that reads lays its batches on.

    Args:
        worker: number of the process.
        num_places: batches that lie there at once. The main process asks for a new one once it has taken, but perhaps
            not yet copied, the one ``prefetch`` before: so there must be one place more than that.
    """

    def __init__(self, worker: int, num_places: int) -> None:
        self._worker, self._num_places, self._turn = worker, num_places, 0
        self._memory: dict[tuple[int, int, int], Tensor] = {}

    def lay(self, batch: Any) -> Any:
        """Lay the tensors of a batch, if it is a tuple, in the next place; all else stays in it as it is."""
        if not isinstance(batch, tuple):
            return batch
        self._turn = (self._turn + 1) % self._num_places
        return tuple(self._lay(value, row) if isinstance(value, Tensor) else value for row, value in enumerate(batch))

    def _lay(self, tensor: Tensor, row: int) -> Laid:
        place = self._worker, self._turn, row
        memory, is_new = self._memory.get(place), False
        if memory is None or len(memory) < tensor.nbytes:
            memory, is_new = torch.empty(tensor.nbytes, dtype=torch.uint8).share_memory_(), True  # type: ignore[no-untyped-call]
            self._memory[place] = memory
        dense = torch.empty_like(tensor, device="meta")  # in the order in memory of the tensor
        laid = Laid(place, memory if is_new else None, tensor.dtype, tuple(tensor.shape), dense.stride())
        _view(laid, memory).copy_(tensor)
        return laid


class Taker:
    """The main process's side of all shelves of one set of processes.

    Args:
        pin_memory: copy to page-locked memory.
    """

    def __init__(self, *, pin_memory: bool) -> None:
        self._pin_memory = pin_memory
        self._memory: dict[tuple[int, int, int], Tensor] = {}

    def take(self, batch: Any) -> Any:
        """A batch as it was before :meth:`Shelf.lay`, in memory of its own."""
        return tuple(map(self._take, batch)) if isinstance(batch, tuple) else batch

    def _take(self, value: Any) -> Any:
        if not isinstance(value, Laid):
            return value
        if value.memory is not None:
            self._memory[value.place] = value.memory
        laid = _view(value, self._memory[value.place])
        return laid.pin_memory() if self._pin_memory else laid.clone()


def stack(samples: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Samples, each a tuple of tensors, as one tuple of batches that lie in memory as the samples do."""
    return tuple(map(_stack, zip(*samples, strict=True)))


def _stack(values: tuple[Tensor, ...]) -> Tensor:
    order = sorted(range(values[0].dim()), key=values[0].stride, reverse=True)
    batch = torch.stack([value.permute(order) for value in values])
    return batch.permute(0, *(1 + order.index(axis) for axis in range(len(order))))


def _view(laid: Laid, memory: Tensor) -> Tensor:
    return memory[: math.prod(laid.shape) * laid.dtype.itemsize].view(laid.dtype).as_strided(laid.shape, laid.stride)
