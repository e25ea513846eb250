"""Samples read by processes of their own: a bad file, and a process that dies or hangs over one, costs that file only.

The processes and their queues are torch's DataLoader. Added to it: each process notes in shared memory which sample it
is at, so that the file is known if the process dies; one that hangs is killed; and reading goes on, in new processes,
at the first batch that was not delivered.
"""

import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from threading import Event, Thread
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate, get_worker_info

from v3s.data.quarantine import Failure, Quarantine
from v3s.video.index import VideoError

SILENT_SECONDS = 120.0
"""How long a process may be at one sample before it counts as hung."""

MAX_IDLE_DEATHS = 3  # in a row, of processes that were at no sample: then the fault is no file's

Key = TypeVar("Key")
Key_contra = TypeVar("Key_contra", contravariant=True)


class Samples(Protocol[Key_contra]):
    """What samples are read from: each has a key and lies in one file."""

    def __getitem__(self, key: Key_contra) -> Any:
        """Read a sample."""

    def path(self, key: Key_contra) -> str:
        """The file that the sample with this key is read from."""


class Part(NamedTuple, Generic[Key]):
    """What could be read of a batch: its keys, and its samples collated; ``None`` where there is none."""

    keys: list[Key]
    data: Any


class _Read(NamedTuple):
    """A batch as a process sends it: the rows of the keys that it read, and why the others failed."""

    rows: list[int]
    data: Any
    failures: dict[int, Failure]


def load(
    samples: Samples[Key],
    batches: Iterable[list[Key]],
    *,
    num_workers: int,
    quarantine: Quarantine | None,
    first_batch: int = 0,
    collate: Callable[[list[Any]], Any] = default_collate,
    pin_memory: bool = False,
    prefetch: int = 2,
    context: str | None = None,
) -> Iterator[Part[Key]]:
    """Read batches in their order.

    What is yielded depends on the samples, the batches and the quarantine alone: numbers of processes, of batches read
    ahead, and deaths change nothing else.

    Args:
        samples: where to read.
        batches: the keys of each batch.
        num_workers: processes that read; 0 reads in this one, where nothing guards against a hang.
        quarantine: files to leave out, to which those that fail are added. ``None`` stops at the first failure.
        first_batch: the number of the first batch, by which the quarantine tells before from after.
        collate: makes one value of the samples of a batch, in the process that read them.
        pin_memory: copy tensors to page-locked memory.
        prefetch: batches that each process reads ahead.
        context: how processes start, as in :mod:`multiprocessing`; ``None`` is the platform's way.

    Raises:
        VideoError: a file failed and there is no quarantine.
        ValueError: so many files failed that the quarantine is full.
    """
    reading = _Reading(samples, enumerate(batches, first_batch), quarantine)
    if not num_workers:
        for number, keys in reading.hand_out():
            yield reading.deliver(number, _read(samples, keys, collate, lambda row: None))
        return
    num_idle_deaths = 0
    while num_idle_deaths < MAX_IDLE_DEATHS:
        notes = torch.zeros((num_workers, 4), dtype=torch.int64).share_memory_()
        loader = DataLoader(
            _Noted(samples, collate, notes),
            batch_sampler=reading.hand_out(),  # type: ignore[arg-type]
            num_workers=num_workers,
            collate_fn=_as_it_is,
            worker_init_fn=start_worker,
            pin_memory=pin_memory,
            prefetch_factor=prefetch,
            multiprocessing_context=context,
        )
        with _workers(loader, notes) as (read_batches, workers, waiting):
            try:
                while True:
                    waiting.set()
                    read = next(read_batches, None)
                    waiting.clear()
                    if read is None:
                        return
                    num_idle_deaths = 0
                    yield reading.deliver(*read)
            except Exception:
                if all(worker.is_alive() for worker in workers):
                    raise  # no death: a fault of the code, or of who takes the batches
                deaths = _deaths(workers, notes)
                if signal.SIGTERM in deaths.values():
                    raise  # somebody wants all of it to stop
        num_idle_deaths += not reading.blame(deaths)
    raise RuntimeError(f"processes that read videos die before they read: {deaths}")
