"""Samples read by processes of their own: a bad file, or a process that dies or hangs over it, costs that file alone.

The processes and their queues are those of torch's DataLoader. Added to them: each process notes in shared memory
which sample it is at, so that the file is known if the process dies; all are killed if one hangs; and reading goes on,
in new processes, at the first batch that was not delivered.
"""

import multiprocessing
import os
import signal
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
from v3s.data.handover import Shelf, Taker, stack
from v3s.data.quarantine import Quarantine
from v3s.video.container import Failure, VideoError

SILENT_SECONDS = 120.0
"""How long nothing may come and no process begin a sample, before those at one count as hung."""

_MAX_IDLE_DEATHS = 3  # in a row, of processes that were at no sample: the fault is then no file's


_note_again: Callable[[], None] | None = None  # in a process that reads: notes again where it is

Key = TypeVar("Key")
_Key = TypeVar("_Key", contravariant=True)
_Batch = tuple[int, list[Key]]  # its number and its keys
_Place = tuple[int, int]  # number of a batch, row in it
_Death = tuple[_Place | None, str]  # the sample that a process was at, if any, and how it ended


class SampleSource(Protocol[_Key]):
    """Where samples are read from: each has a key and lies in one file."""

    def __getitem__(self, key: _Key, /) -> Any:
        """Read a sample."""

    def path(self, key: _Key, /) -> str:
        """The file of a sample."""


class _Read(NamedTuple):
    """A batch as a process sends it: the rows that it read, their samples collated, and why the others failed."""

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
    """Read batches in their order, without the samples of files in quarantine.

    What comes depends on the samples, the batches and the quarantine alone, not on how many processes read.

    Args:
        samples: where to read.
        batches: the keys of each batch; a `BatchOrder` may begin in the midst of a run, and numbers them from there.
        num_workers: processes that read; 0 reads in this one, unguarded against hangs and crashes.
        quarantine: files to leave out; those that fail are added. ``None`` stops at the first failure.
        collate: makes one value of the samples of a batch, in the process that read them.
        pin_memory: copy tensors to page-locked memory.
        prefetch: batches that each process reads ahead.

    Yields:
        (the keys that were read, their samples collated: ``None`` if there is none left).

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
    idle_deaths = 0
    while idle_deaths < _MAX_IDLE_DEATHS:
        notes = torch.zeros((num_workers, 4), dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]
        loader: DataLoader[_Read] = DataLoader(
            _NotedSamples(samples, collate, notes, num_places=prefetch + 1),
            batch_sampler=ledger.hand_out(),  # type: ignore[arg-type]
            num_workers=num_workers,
            collate_fn=_as_it_is,
            worker_init_fn=start_worker,
            prefetch_factor=prefetch,
        )
        with _Workers(loader, notes, Taker(pin_memory=pin_memory)) as workers:
            for read in workers:
                idle_deaths = 0
                yield ledger.settle(read)
        if not workers.deaths:
            return
        ledger.blame(workers.deaths)
        idle_deaths += all(place is None for place, _ in workers.deaths)
    raise RuntimeError(f"processes that read videos end before they read anything: {workers.deaths[0][1]}")


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
        (clips, labels) of every batch, of length 0 where every file of a batch is in quarantine.

    Raises:
        ValueError: as :func:`load`, or a batch has nothing left that others wait for.
    """
    read = load(clips, order, num_workers=num_workers, quarantine=quarantine, pin_memory=pin_memory, prefetch=prefetch)
    for _, data in read:
        if data is None and isinstance(order, BatchOrder) and order.num_processes > 1:
            raise ValueError("all files of a process's share of a batch went bad: choose a larger --batch-size")
        yield tuple(data) if data is not None else (torch.empty(0), torch.empty(0))


def still_reading() -> None:
    """Tell the watch, in the midst of a sample that takes long, that this process is not hung."""
    if _note_again is not None:
        _note_again()


def start_worker(worker: int) -> None:
    """What a process that reads videos does first: one thread, and no say about Ctrl-C."""
    torch.set_num_threads(1)
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process: the main one decides when to stop


class _Ledger(Generic[Key]):
    """Which batches are handed out and not yet delivered, and what is left out of them."""

    def __init__(
        self, samples: SampleSource[Key], batches: Iterator[_Batch[Key]], quarantine: Quarantine | None
    ) -> None:
        self.samples, self.quarantine = samples, quarantine
        self.undelivered: deque[_Batch[Key]] = deque()
        self._next_batches = batches

    def hand_out(self) -> Iterator[_Batch[Key]]:
        """Yield all batches that are not delivered, those that were handed out before first."""
        self._next_batches = chain(self.undelivered, self._next_batches)
        self.undelivered = deque()
        for number, keys in self._next_batches:
            self.undelivered.append((number, [key for key in keys if self._counts(key, number)]))
            yield self.undelivered[-1]

    def settle(self, read: _Read) -> tuple[list[Key], Any]:
        """Take the next batch in order: what is left of it once its failures, and those before it, are left out."""
        number, keys = self.undelivered.popleft()
        for row, failure in read.failures.items():
            self._add(self.samples.path(keys[row]), failure, number)
        kept = [place for place, row in enumerate(read.rows) if self._counts(keys[row], number)]
        return [keys[read.rows[place]] for place in kept], _choose(read.data, kept, len(read.rows))

    def blame(self, deaths: Sequence[_Death]) -> None:
        """Leave out the files over which processes died, from the next batch on."""
        handed_out = dict(self.undelivered)
        for place, reason in deaths:
            if place is not None:
                number, row = place
                self._add(self.samples.path(handed_out[number][row]), Failure("decode", reason), min(handed_out))

    def _counts(self, key: Key, number: int) -> bool:
        left_out = self.quarantine
        return not (left_out and left_out.failures and left_out.leaves_out(self.samples.path(key), number))

    def _add(self, path: str, failure: Failure, number: int) -> None:
        if self.quarantine is None:
            raise VideoError(f"{path}: {failure.reason}", failure.stage)
        self.quarantine.add(path, failure, number)


def _choose(data: Any, kept: list[int], num_rows: int) -> Any:
    """Choose rows of collated samples, which are tuples of tensors wherever a batch has more than one."""
    if len(kept) == num_rows:
        return data
    return tuple(values[kept] for values in data) if kept else None


class _NotedSamples(Dataset[Any]):
    """Batches of samples, in a process that notes where it is: (its id, number of the batch, row + 1, time in ns)."""

    def __init__(
        self, samples: SampleSource[Any], collate: Callable[[list[Any]], Any], notes: Tensor, *, num_places: int
    ) -> None:
        self.samples, self.collate, self.notes, self.num_places = samples, collate, notes, num_places
        self._shelf: Shelf | None = None

    def __getitems__(self, batch: _Batch[Any]) -> _Read:
        """Read one batch; the name is that by which torch's loader asks for a whole batch."""
        worker = get_worker_info()
        assert worker is not None
        self._shelf = self._shelf or Shelf(worker.id, self.num_places)
        number, keys = batch
        own_note = self.notes[worker.id].numpy()

        def note(row: int) -> None:
            own_note[:] = os.getpid(), number, row + 1, time.monotonic_ns()

        read = _read(self.samples, keys, self.collate, note)
        return read._replace(data=self._shelf.lay(read.data))


def _read(
    samples: SampleSource[Key], keys: list[Key], collate: Callable[[list[Any]], Any], note: Callable[[int], None]
) -> _Read:
    """Read a batch, with a note at every row, and one of -1 at its end."""
    rows: list[int] = []
    found: list[Any] = []
    failures: dict[int, Failure] = {}
    global _note_again
    for row, key in enumerate(keys):
        note(row)
        _note_again = partial(note, row)
        try:
            found.append(samples[key])
            rows.append(row)
        except VideoError as error:
            failures[row] = Failure.of(error, samples.path(key))
    note(-1)
    return _Read(rows, collate(found) if found else None, failures)


def _as_it_is(read: Any) -> Any:
    return read


class _Workers:
    """The processes of one loader, iterated for what they read until all is read or one of them is dead.

    A loader by itself tells of a death in the midst of whatever the main process does, by a signal, and waits for ever
    for a stopped process: so that signal's handler is put back, and a thread kills all processes if all are silent.
    """

    def __init__(self, loader: DataLoader[_Read], notes: Tensor, taker: Taker) -> None:
        self.deaths: list[_Death] = []
        self._taker = taker
        self._notes, self._waiting_since = notes, 0
        self._silent: list[BaseProcess] = []
        self._ended = threading.Event()
        others, handler = set(multiprocessing.active_children()), signal.getsignal(signal.SIGCHLD)
        self._batches = iter(loader)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, handler)
        self._processes = [process for process in multiprocessing.active_children() if process not in others]
        self._watch = threading.Thread(target=self._kill_the_silent, daemon=True)

    def __enter__(self) -> "_Workers":
        self._watch.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._watch.join()
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
        # One that was killed as it looked at this event keeps its lock, on which the loader would wait for ever.
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
                    raise  # by the code that reads
                self.deaths = [self._death(process) for process in dead]
                return
            self._waiting_since = 0
            if read is None:
                return
            yield read._replace(data=self._taker.take(read.data))

    def _dead(self) -> list[BaseProcess]:
        """The processes that ended, or are about to, within a second."""
        ended = wait([process.sentinel for process in self._processes], timeout=1.0)
        dead = [process for process in self._processes if process.sentinel in ended]
        for process in dead:
            process.join()
        return dead

    def _death(self, process: BaseProcess) -> _Death:
        places = {pid: (number, row - 1) for pid, number, row, _ in self._notes.tolist() if row}
        code = process.exitcode or 0
        if code == -signal.SIGTERM:  # torchrun sends it to all processes: it is up to the main one when to stop
            return None, "was told to end"
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        if process in self._silent:
            how = f"was silent for {SILENT_SECONDS:g} seconds and was ended"
        return places.get(process.pid), f"the process that read it {how}"

    def _kill_the_silent(self) -> None:
        while not self._ended.wait(0.5):
            began = max(self._waiting_since, int(self._notes[:, 3].max()))
            if self._waiting_since and time.monotonic_ns() - began > SILENT_SECONDS * 1e9:
                self._silent = [process for process in self._processes if process.is_alive()]
                for process in self._silent:
                    process.kill()
                return
