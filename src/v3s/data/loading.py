"""Samples read by worker processes: if a file is bad, or makes a worker crash or hang, only that file is lost.

The workers and their queues are those of torch's DataLoader, with three additions. Each worker records its current
sample in shared memory, so that the file is known if the worker dies. If one worker hangs, all are killed. Reading then
resumes, with new workers, at the first batch that was not delivered.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from v3s.backbones.device import keep_freed_memory
from v3s.data.clips import BatchOrder, SampleKey
from v3s.data.handover import BatchReader, BatchWriter, check_room, stack
from v3s.data.quarantine import Quarantine
from v3s.files.remote.fetch import on_progress
from v3s.video.container import Failure, VideoError

SILENT_SECONDS = 120.0
"""Workers count as hung if for this long no batch arrives and no worker starts a sample."""

_START = "fork" if sys.platform == "linux" and "fork" in multiprocessing.get_all_start_methods() else "spawn"
_CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGILL)  # the file's content made the decoder fail
_MAX_IDLE_DEATHS = 3  # deaths in a row of workers that were reading no sample: no file is to blame


_heartbeat: Callable[[], None] | None = None  # in a worker: records its current sample again

Key = TypeVar("Key")
_Key = TypeVar("_Key", contravariant=True)
_Batch = tuple[int, list[Key]]  # number and keys
_Place = tuple[int, int]  # number of a batch, row in the batch
_Death = tuple[_Place | None, Failure]  # the sample that a worker was reading, if any, and how the worker ended


class SampleSource(Protocol[_Key]):
    """A source of samples; each sample has a key and comes from one file."""

    def __getitem__(self, key: _Key, /) -> Any:
        """Read a sample."""

    def path(self, key: _Key, /) -> str:
        """Return the file of a sample."""


class _Read(NamedTuple):
    """A batch as a worker sends it: the rows that it read, their collated samples, and why the other rows failed."""

    rows: list[int]
    data: Any
    failures: dict[int, Failure]


def load(
    samples: SampleSource[Key],
    batches: Iterable[list[Key]],
    *,
    num_workers: int,
    quarantine: Quarantine | None,
    collate: Callable[[list[Any]], Any] = stack,
    pin_memory: bool = False,
    prefetch: int = 2,
) -> Iterator[tuple[list[Key], Any]]:
    """Read batches in order, without the samples of files in quarantine.

    The result depends only on the samples, the batches and the quarantine, not on the number of workers.

    Args:
        samples: source of the samples.
        batches: the keys of each batch; a `BatchOrder` may start in the middle of a run and numbers its batches so.
        num_workers: number of workers; 0 reads in the main process, without protection against hangs and crashes.
        quarantine: files to skip; files that fail are added. ``None`` stops at the first failure.
        collate: combines the samples of a batch into one value, in the worker that read them.
        pin_memory: whether to copy tensors to page-locked memory.
        prefetch: number of batches that each worker reads ahead.

    Yields:
        The keys that were read, and their collated samples, or ``None`` if no sample is left.

    Raises:
        VideoError: a file failed and there is no quarantine.
        ValueError: more than half of the files failed.
    """
    first_batch = batches.first_batch if isinstance(batches, BatchOrder) else 0
    ledger = _Ledger(samples, enumerate(batches, first_batch), quarantine)
    if num_workers == 0:
        for _, keys in ledger.hand_out():
            yield ledger.settle(_read(samples, keys, collate, lambda row: None))
        return
    check_room(num_workers)
    idle_deaths = 0
    while idle_deaths < _MAX_IDLE_DEATHS:
        positions = torch.zeros((num_workers, 4), dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]
        loader: DataLoader[_Read] = DataLoader(
            _TrackedSamples(samples, collate, positions, num_slots=prefetch + 1),
            batch_sampler=ledger.hand_out(),  # type: ignore[arg-type]
            num_workers=num_workers,
            collate_fn=_identity,
            worker_init_fn=start_worker,
            prefetch_factor=prefetch,
            multiprocessing_context=_START,
        )
        with _Workers(loader, positions, BatchReader(pin_memory=pin_memory)) as workers:
            for read in workers:
                idle_deaths = 0
                yield ledger.settle(read)
        if not workers.deaths:
            return
        ledger.blame(workers.deaths)
        idle_deaths += all(place is None for place, _ in workers.deaths)
    raise RuntimeError(f"the workers that read videos end before reading anything: {workers.deaths[0][1].reason}")


def only(samples: list[Any]) -> Any:
    """Collate a batch of one sample: to the sample."""
    (sample,) = samples
    return sample


def load_batches(
    clips: SampleSource[SampleKey],
    order: BatchOrder | Sequence[list[SampleKey]],
    *,
    num_workers: int,
    pin_memory: bool = False,
    prefetch: int = 2,
    quarantine: Quarantine | None = None,
) -> Generator[tuple[Tensor, Tensor], None, None]:
    """Read training or validation clips; see :func:`load`.

    Yields:
        (clips, labels) of every batch, of length 0 if every file of the batch is in quarantine.

    Raises:
        ValueError: see :func:`load`; or one of several processes has no samples left in a batch.
    """
    read = load(clips, order, num_workers=num_workers, quarantine=quarantine, pin_memory=pin_memory, prefetch=prefetch)
    for _, data in read:
        if data is None and isinstance(order, BatchOrder) and order.num_processes > 1:
            raise ValueError("every file in one process's share of a batch failed: choose a larger --batch-size")
        yield tuple(data) if data is not None else (torch.empty(0), torch.empty(0))


def still_reading() -> None:
    """Signal, during a sample that takes long, that this worker is not hung."""
    if _heartbeat is not None:
        _heartbeat()


on_progress(still_reading)


def start_worker(worker: int) -> None:
    """Prepare a worker that reads videos: it uses one thread and ignores Ctrl-C."""
    torch.set_num_threads(1)
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process, but the main one decides when to stop


class _Ledger(Generic[Key]):
    """Tracks batches from the workers' queue to delivery, without the samples of files in quarantine."""

    def __init__(
        self, samples: SampleSource[Key], batches: Iterator[_Batch[Key]], quarantine: Quarantine | None
    ) -> None:
        self.samples, self.quarantine = samples, quarantine
        self.undelivered: deque[_Batch[Key]] = deque()
        self._next_batches = batches

    def hand_out(self) -> Iterator[_Batch[Key]]:
        """Yield all batches that were not delivered, starting with those that were handed out before."""
        self._next_batches = chain(self.undelivered, self._next_batches)
        self.undelivered = deque()
        for number, keys in self._next_batches:
            self.undelivered.append((number, [key for key in keys if self._is_used(key, number)]))
            yield self.undelivered[-1]

    def settle(self, read: _Read) -> tuple[list[Key], Any]:
        """Accept the next batch in order; returns the samples that remain after its own and all earlier failures."""
        number, keys = self.undelivered.popleft()
        for row, failure in read.failures.items():
            self._add(self.samples.path(keys[row]), failure, number)
        kept = [place for place, row in enumerate(read.rows) if self._is_used(keys[row], number)]
        return [keys[read.rows[place]] for place in kept], _select_rows(read.data, kept, len(read.rows))

    def blame(self, deaths: Sequence[_Death]) -> None:
        """Skip the files that workers died on, starting with the next batch."""
        handed_out = dict(self.undelivered)
        for place, failure in deaths:
            if place is not None:
                number, row = place
                self._add(self.samples.path(handed_out[number][row]), failure, min(handed_out))

    def _is_used(self, key: Key, number: int) -> bool:
        quarantine = self.quarantine
        return not (quarantine and quarantine.failures and quarantine.skips(self.samples.path(key), number))

    def _add(self, path: str, failure: Failure, number: int) -> None:
        if self.quarantine is None:
            raise VideoError(f"{path}: {failure.reason}", failure.stage)
        self.quarantine.add(path, failure, number)


def _select_rows(data: Any, kept: list[int], num_rows: int) -> Any:
    """Select rows of collated samples; batches of more than one sample are tuples of tensors."""
    if len(kept) == num_rows:
        return data
    return tuple(values[kept] for values in data) if kept else None


class _TrackedSamples(Dataset[Any]):
    """Batches of samples in a worker that records its position: (process id, number of the batch, row + 1, ns)."""

    def __init__(
        self, samples: SampleSource[Any], collate: Callable[[list[Any]], Any], positions: Tensor, *, num_slots: int
    ) -> None:
        self.samples, self.collate, self.positions, self.num_slots = samples, collate, positions, num_slots
        self._writer: BatchWriter | None = None

    def __getitems__(self, batch: _Batch[Any]) -> _Read:
        """Read one batch; torch's loader calls this method for a whole batch."""
        worker = get_worker_info()
        assert worker is not None
        self._writer = self._writer or BatchWriter(worker.id, self.num_slots)
        number, keys = batch
        position = self.positions[worker.id].numpy()

        def record(row: int) -> None:
            position[:] = os.getpid(), number, row + 1, time.monotonic_ns()

        read = _read(self.samples, keys, self.collate, record)
        return read._replace(data=self._writer.write(read.data))


def _read(
    samples: SampleSource[Key], keys: list[Key], collate: Callable[[list[Any]], Any], record: Callable[[int], None]
) -> _Read:
    """Read a batch; record every row before it is read, and -1 at the end."""
    rows: list[int] = []
    data: list[Any] = []
    failures: dict[int, Failure] = {}
    global _heartbeat
    for row, key in enumerate(keys):
        record(row)
        _heartbeat = partial(record, row)
        try:
            data.append(samples[key])
            rows.append(row)
        except VideoError as error:
            failures[row] = Failure.of(error, samples.path(key))
    record(-1)
    return _Read(rows, collate(data) if data else None, failures)


def _identity(read: Any) -> Any:
    return read


def _child_handler() -> Any:
    """What this process does when a child ends; None where there is no such signal."""
    return signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None


class _Workers:
    """The workers of one loader; iterate it for their batches until everything is read or a worker dies.

    A loader by itself reports a death by a signal that interrupts the main process anywhere, and waits forever for a
    stopped worker. So the handler of that signal is restored, and a thread kills all workers if none makes progress.
    """

    def __init__(self, loader: DataLoader[_Read], positions: Tensor, reader: BatchReader) -> None:
        self.deaths: list[_Death] = []
        self._reader = reader
        self._positions, self._waiting_since = positions, 0
        self._hung: list[BaseProcess] = []
        self._ended = threading.Event()
        others, handler = set(multiprocessing.active_children()), _child_handler()
        self._batches = iter(loader)
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, handler)
        self._processes = [process for process in multiprocessing.active_children() if process not in others]
        self._watchdog = threading.Thread(target=self._kill_if_hung, daemon=True)

    def __enter__(self) -> "_Workers":
        self._watchdog.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._watchdog.join()
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
        # A worker that was killed while checking this event keeps its lock, and the loader would wait for it forever.
        self._batches._workers_done_event = multiprocessing.Event()  # type: ignore[attr-defined]
        del self._batches  # closes the queues

    def __iter__(self) -> Iterator[_Read]:
        while True:
            self._waiting_since = time.monotonic_ns()
            try:
                read = next(self._batches, None)
            except Exception:
                dead = self._dead()
                if not dead:
                    raise  # an error in the code, not the death of a worker
                self.deaths = [self._death(process) for process in dead]
                return
            self._waiting_since = 0
            if read is None:
                return
            yield read._replace(data=self._reader.read(read.data))

    def _dead(self) -> list[BaseProcess]:
        """The workers that have ended, or end within a second."""
        ended = wait([process.sentinel for process in self._processes], timeout=1.0)
        dead = [process for process in self._processes if process.sentinel in ended]
        for process in dead:
            process.join()
        return dead

    def _death(self, process: BaseProcess) -> _Death:
        places = {pid: (number, row - 1) for pid, number, row, _ in self._positions.tolist() if row}
        code = process.exitcode or 0
        if code == -signal.SIGTERM:  # torchrun sends it to all processes, but the main one decides when to stop
            return None, Failure("decode", "was terminated by SIGTERM", may_pass=True)
        how = f"was killed by signal {-code}" if code < 0 else f"exited with code {code}"
        if process in self._hung:
            how = f"made no progress for {SILENT_SECONDS:g} seconds and was killed"
        crashed = -code in _CRASHES  # else the system ended it, or it waited, maybe for the disk
        return places.get(process.pid), Failure("decode", f"the worker that read it {how}", may_pass=not crashed)

    def _kill_if_hung(self) -> None:
        while not self._ended.wait(0.5):
            last_progress = max(self._waiting_since, int(self._positions[:, 3].max()))
            if self._waiting_since and time.monotonic_ns() - last_progress > SILENT_SECONDS * 1e9:
                self._hung = [process for process in self._processes if process.is_alive()]
                for process in self._hung:
                    process.kill()
                return
