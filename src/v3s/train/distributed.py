"""One training run over several processes, as ``torchrun`` starts them (DDP over gloo or NCCL)."""

import gc
import os
import platform
import re
import socket
import time
import traceback
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed.nn.functional  # before any group: see `process_group`
from torch import Tensor, distributed, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

_EXCHANGE = timedelta(minutes=10)  # within which every process must join an exchange: one that hangs ends the run
_ROLL_CALL_SECONDS = 5.0


class ProcessLostError(ValueError):
    """Another process of the run ended or hangs; the message names it."""


@dataclass(frozen=True, slots=True)
class Processes:
    """This process's place among the run's.

    Attributes:
        rank: 0 .. count - 1; rank 0 writes the files.
        count: processes in the run.
        local_rank: place on this machine: the GPU to use.
        local_count: processes of the run on this machine.
        names: of all processes, by rank; empty outside of `process_group`.
        store: what all of them can read and write, however they are; None outside of `process_group`.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1
    names: tuple[str, ...] = ()
    store: distributed.distributed_c10d.Store | None = None

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0


def launched_processes() -> Processes:
    """Read what ``torchrun`` set in the environment; one process where it did not."""
    read = os.environ.get
    return Processes(
        int(read("RANK", "0")),
        int(read("WORLD_SIZE", "1")),
        int(read("LOCAL_RANK", "0")),
        int(read("LOCAL_WORLD_SIZE", "1")),
    )


@contextmanager
def process_group(processes: Processes, device: torch.device) -> Iterator[Processes]:
    """Join the processes' group for as long as the context lasts: NCCL on GPUs, gloo on CPUs.

    The group's threads end with the context, by whatever exception it ends. DDP's reducer must be freed before: freed
    after, it would be the last to hold the group, and join its threads while it holds the interpreter's lock, which one
    of these threads may wait for to free a tensor (a deadlock). So the frames of the exception are cleared here; they
    hold the wrapped model. `torch.distributed.nn.functional`, which DDP imports, must be imported before any group: the
    defaults of its functions hold the group of then, and a thread that lives at the end of the interpreter aborts it.

    Raises:
        ProcessLostError: an exchange failed since another process ended, or did not come within `_EXCHANGE`. Of NCCL's
            exchanges the host hears late or never: there torch itself ends the process, with a trace of its own.
    """
    if processes.count == 1:
        yield processes
        return
    shared, rank, count = next(rendezvous("env://", timeout=_EXCHANGE))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # the store outlives a restart: what is in it is stale
    store = distributed.distributed_c10d.PrefixStore(f"attempt-{attempt}", shared)
    backend, gpu = ("nccl", device) if device.type == "cuda" else ("gloo", None)  # without it NCCL guesses by the rank
    distributed.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=_EXCHANGE, device_id=gpu)
    store.set(f"name/{rank}", f"process {rank} of {count} (pid {os.getpid()} on {platform.node()})")
    names = tuple(store.get(f"name/{other}").decode() for other in range(count))
    joined = replace(processes, names=names, store=store)
    try:
        yield joined
    except RuntimeError as error:
        _clear_frames(error)
        if not (isinstance(error, distributed.DistError) or "gloo" in str(error)):
            raise
        lost = ", ".join(_absent(joined)) or "none"
        reason = re.sub(r"^\[\S+\] ", "", str(error)).split(". ")[0]
        raise ProcessLostError(
            f"an exchange between the processes of the run failed ({reason}); no longer there: {lost}. "
            "What it said last, if it did, is above"
        ) from error
    except BaseException as error:
        _clear_frames(error)
        raise
    finally:
        gc.collect()  # a wrapped model is part of reference cycles
        distributed.destroy_process_group()


def _clear_frames(error: BaseException | None) -> None:
    """Free the local variables of the frames that an exception, and those that led to it, ended."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _absent(processes: Processes) -> list[str]:
    """Names of the processes that do not answer: every one that met a failed exchange says so in the store."""
    store = processes.store
    assert store is not None
    time.sleep(1)  # a process that is ending may still answer, and torch prints a trace of its own when it stops to
    if not _store_answers():
        return [processes.names[0]]
    others = [rank for rank in range(processes.count) if rank != processes.rank]
    deadline = time.monotonic() + _ROLL_CALL_SECONDS
    try:
        store.set(f"here/{processes.rank}", "")
        while missing := [rank for rank in others if not store.check([f"here/{rank}"])]:
            if time.monotonic() > deadline:
                return [processes.names[rank] for rank in missing]
            time.sleep(0.1)
    except distributed.DistError:  # it ended just now
        return [processes.names[0]]
    return []


def _store_answers() -> bool:
    """Whether the store is still there: without ``torchrun`` it is in the first process, and dies with it."""
    try:
        socket.create_connection((os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])), timeout=5).close()
    except OSError:
        return False
    return True


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


def _largest_over(values: Tensor, processes: Processes) -> Tensor:
    """The largest of each number over all processes."""
    if processes.count > 1:
        distributed.all_reduce(values, distributed.ReduceOp.MAX)
    return values


def gather(value: Any, processes: Processes) -> list[Any]:
    """What every process gives, by rank; plain values."""
    found = [value] * processes.count
    if processes.count > 1:
        distributed.all_gather_object(found, value)
    return found


def wait_for_all(processes: Processes) -> None:
    """Return once every process is here."""
    if processes.count > 1:
        distributed.barrier()


def first_is_done(processes: Processes, work: str) -> None:
    """Say in the first process that its work is done; wait for that, however long it takes, in the others."""
    if processes.store is None:
        return
    if processes.is_first:
        processes.store.set(f"done/{work}", "")
    else:
        while not processes.store.check([f"done/{work}"]):  # torch's own wait hears no signal
            time.sleep(0.1)


class Agreement:
    """Numbers that every process gives at every step, and of which all learn the largest, some steps later.

    A GPU is told its steps ahead of time, by each process as fast as it can. One that stopped at a step which another
    did not stop at would leave that one waiting for ever in an exchange.

    Args:
        processes: the run's.
        lag: steps until the host looks at a number; it then need not wait for the device. On a CPU it can be 0.
    """

    def __init__(self, processes: Processes, lag: int) -> None:
        self._lag, self._processes = lag, processes
        self._underway: deque[tuple[Tensor, torch.cuda.Event | None]] = deque()

    def step(self, *given: Tensor) -> list[float]:
        """Give the numbers of this step; returns the largest of those of ``lag`` steps ago, 0 where there was none."""
        largest = _largest_over(torch.stack(given), self._processes)
        here, arrived = largest.to("cpu", non_blocking=True), None
        if largest.is_cuda:
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record()
        self._underway.append((here, arrived))
        if len(self._underway) <= self._lag:
            return [0.0] * len(given)
        here, arrived = self._underway.popleft()
        if arrived is not None:
            arrived.synchronize()
        return here.tolist()
