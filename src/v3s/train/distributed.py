"""One training run in several processes started by ``torchrun`` (DDP over gloo or NCCL)."""

import gc
import hashlib
import os
import platform
import re
import socket
import time
import traceback
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import zip_longest
from typing import Any

import torch
import torch.distributed.nn.functional  # before any group: see `process_group`
from torch import Tensor, distributed, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

_TIMEOUT = timedelta(minutes=10)  # every process must join a collective operation within it, or the run ends
_ROLL_CALL_SECONDS = 5.0


class ProcessLostError(ValueError):
    """Another process of the run has ended or hangs; the message names it."""


@dataclass(frozen=True, slots=True)
class Processes:
    """The place of this process among all processes of the run.

    Attributes:
        rank: 0 .. count - 1; rank 0 writes the files.
        count: number of processes in the run.
        local_rank: rank on this machine, which is also the GPU to use.
        local_count: number of processes of the run on this machine.
        names: names of all processes, by rank; empty outside `process_group`.
        store: key-value store that works even after a process has failed; None outside `process_group`.
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
    """Read the environment variables that ``torchrun`` sets; without them, the run has one process."""
    value_of = os.environ.get
    return Processes(
        int(value_of("RANK", "0")),
        int(value_of("WORLD_SIZE", "1")),
        int(value_of("LOCAL_RANK", "0")),
        int(value_of("LOCAL_WORLD_SIZE", "1")),
    )


@contextmanager
def process_group(processes: Processes, device: torch.device) -> Iterator[Processes]:
    """Join the process group for the duration of the context: NCCL on GPUs, gloo on CPUs.

    The group's threads end with the context, whichever exception ends it. Two details make this work:

    - DDP's reducer must be freed first. If it outlived the group, it would own the last reference to it and would join
      the group's threads while holding the interpreter's lock, which one of these threads may need to free a tensor: a
      deadlock. The frames of the exception refer to the wrapped model, so they are cleared here.
    - `torch.distributed.nn.functional`, which DDP imports, must be imported before any group exists. The defaults of
      its functions keep a reference to the current group, and a thread still running at interpreter exit aborts it.

    Raises:
        ProcessLostError: a collective operation failed because another process ended or did not join within `_TIMEOUT`.
            The host learns about failures in NCCL late or never; then torch itself ends the process, with a traceback.
    """
    if processes.count == 1:
        yield processes
        return
    shared, rank, count = next(rendezvous("env://", timeout=_TIMEOUT))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # the store outlives restarts, with stale entries
    store = distributed.distributed_c10d.PrefixStore(f"attempt-{attempt}", shared)
    backend, gpu = ("nccl", device) if device.type == "cuda" else ("gloo", None)  # otherwise NCCL guesses the GPU
    distributed.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=_TIMEOUT, device_id=gpu)
    store.set(f"name/{rank}", f"process {rank} of {count} (pid {os.getpid()} on {platform.node()})")
    names = tuple(store.get(f"name/{other}").decode() for other in range(count))
    joined = replace(processes, names=names, store=store)
    try:
        yield joined
    except RuntimeError as error:
        _clear_frames(error)
        if not (isinstance(error, distributed.DistError) or "gloo" in str(error)):
            raise
        lost = ", ".join(_lost_processes(joined)) or "none"
        reason = re.sub(r"^\[\S+\] ", "", str(error)).split(". ")[0]
        raise ProcessLostError(
            f"communication between the processes of the run failed ({reason}); processes that no longer respond: "
            f"{lost}. Their last output, if any, is above"
        ) from error
    except BaseException as error:
        _clear_frames(error)
        raise
    finally:
        gc.collect()  # the wrapped model is part of reference cycles
        distributed.destroy_process_group()


def _clear_frames(error: BaseException | None) -> None:
    """Free the local variables in the frames of an exception and of the exceptions that caused it."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _lost_processes(processes: Processes) -> list[str]:
    """The names of the processes that do not respond: every process that saw the failure signs in to the store."""
    store = processes.store
    assert store is not None
    time.sleep(1)  # a process that is shutting down may still answer; once it stops, torch prints a traceback
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
    except distributed.DistError:  # the first process ended just now
        return [processes.names[0]]
    return []


def _store_answers() -> bool:
    """Whether the store can be reached: without ``torchrun`` it lives in the first process, and ends with it."""
    try:
        socket.create_connection((os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])), timeout=5).close()
    except OSError:
        return False
    return True


def wrap(model: nn.Module, processes: Processes, device: torch.device) -> nn.Module:
    """Wrap a model in DDP, which averages gradients over all processes; a single process needs no wrapper."""
    if processes.count == 1:
        return model
    return DistributedDataParallel(model, device_ids=[device.index] if device.type == "cuda" else None)


def sum_over(values: Tensor, processes: Processes) -> Tensor:
    """Sum a tensor over all processes."""
    if processes.count > 1:
        distributed.all_reduce(values)
    return values


def _largest_over(values: Tensor, processes: Processes) -> Tensor:
    """The elementwise maximum over all processes."""
    if processes.count > 1:
        distributed.all_reduce(values, distributed.ReduceOp.MAX)
    return values


def gather(value: Any, processes: Processes) -> list[Any]:
    """Collect one plain value from every process, ordered by rank."""
    gathered = [value] * processes.count
    if processes.count > 1:
        distributed.all_gather_object(gathered, value)
    return gathered


def check_same(contents: Mapping[str, str], what: str, processes: Processes) -> None:
    """Check that all processes of a run have the same files with the same contents, or the same options.

    Args:
        contents: what identifies the content of each file, by path; or the value of each option, by name.
        what: the files or options, for messages.
        processes: all processes of the run.

    Raises:
        ValueError: they differ; the message has both counts and the first difference. All processes raise it.
    """
    items = [f"{path} ({content})" for path, content in contents.items()]
    digest = hashlib.sha256("\0".join(items).encode(errors="surrogateescape")).hexdigest()
    if len(set(gather(digest, processes))) == 1:
        return
    lists = gather(items, processes)
    rank, other = next((rank, each) for rank, each in enumerate(lists) if each != lists[0])
    place, pair = next(
        (place, pair) for place, pair in enumerate(zip_longest(lists[0], other, fillvalue="none")) if pair[0] != pair[1]
    )
    raise ValueError(
        f"the processes of this run have different {what}: process 0 has {len(lists[0]):,}, process {rank} has "
        f"{len(other):,}; the first difference is number {place + 1:,}: {pair[0]} and {pair[1]}; give all of them the "
        f"same {what}"
    )


def wait_for_all(processes: Processes) -> None:
    """Return once every process has reached this call."""
    if processes.count > 1:
        distributed.barrier()


def first_is_done(processes: Processes, work: str) -> None:
    """In the first process, announce that its work is done; in the others, wait for that, however long it takes."""
    if processes.store is None:
        return
    if processes.is_first:
        processes.store.set(f"done/{work}", "")
    else:
        while not processes.store.check([f"done/{work}"]):  # torch's own wait ignores signals
            time.sleep(0.1)


class Agreement:
    """Shares stop and NaN flags between processes, so that all of them stop at the same step.

    Every process contributes its numbers at every step, and some steps later all processes see the maximum. Each
    process queues steps on its GPU ahead of time. If one stopped earlier than the others, they would wait for it
    forever in a collective operation.

    Args:
        processes: all processes of the run.
        lag: number of steps until the host reads a number, so that it need not wait for the device. On a CPU 0 is fine.
    """

    def __init__(self, processes: Processes, lag: int) -> None:
        self._lag, self._processes = lag, processes
        self._pending: deque[tuple[Tensor, torch.cuda.Event | None]] = deque()

    def step(self, *numbers: Tensor) -> list[float]:
        """Contribute the numbers of this step; returns the maxima of ``lag`` steps ago, or zeros before that."""
        largest = _largest_over(torch.stack(numbers), self._processes)
        on_host, arrived = largest.to("cpu", non_blocking=True), None
        if largest.is_cuda:
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record()
        self._pending.append((on_host, arrived))
        if len(self._pending) <= self._lag:
            return [0.0] * len(numbers)
        on_host, arrived = self._pending.popleft()
        if arrived is not None:
            arrived.synchronize()
        return on_host.tolist()
