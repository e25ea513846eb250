"""What a training reports to other programs as it runs: the place to attach Weights & Biases, MLflow, TensorBoard."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from types import TracebackType
from typing import Any, Protocol

import torch
from torch import Tensor

from v3s.train.stop import TrainingStoppedError

_OF_EPOCH = ("learning_rate", "seconds", "clips_per_second", "waiting_share", "best_epoch")


class Callback(Protocol):
    """Receives the numbers of a training; it cannot change the training.

    Any object with these three methods is a callback; a class that inherits from this one needs only some of them.
    Steps are counted over the whole run, from 1. A resumed run starts with the first step after its checkpoint: what
    was done before it is not repeated, and what a kill undid is. With several processes, only the first calls them. An
    exception in a method ends the training, with a note that names the callback.
    """

    def on_step(self, step: int, values: dict[str, float]) -> None:
        """Receive a finished step.

        Args:
            step: number of finished steps.
            values: the terms of its batch, of the clips of the first process: ``step/loss``, ``step/accuracy_spatial``.
                On a GPU they arrive a few steps later, so that it need not wait.
        """
        return

    def on_epoch(self, epoch: int, step: int, values: dict[str, float]) -> None:
        """Receive a finished epoch, after its last step.

        Args:
            epoch: number of finished epochs.
            step: number of finished steps.
            values: its line of metrics.jsonl: ``train/loss``, ``validation/loss``, ``learning_rate``,
                ``clips_per_second``, ``waiting_share`` (of the time, in [0, 1]) and others.
        """
        return

    def on_end(self, error: BaseException | None) -> None:
        """Receive the end of the training.

        Args:
            error: what ended it before its last epoch, for example a `TrainingStoppedError` after a signal; else None.
        """
        return


class Callbacks(AbstractContextManager["Callbacks"]):
    """The callbacks of a training; without any, nothing is computed or copied.

    Args:
        callbacks: the callbacks, in the order in which they are called.
        lag: number of steps until the host reads a step's terms, so that it need not wait for the device.
        report: called with a line of text for each callback that fails.
    """

    def __init__(self, callbacks: Sequence[Callback], lag: int, report: Callable[[str], None]) -> None:
        self._callbacks, self._lag, self._report = callbacks, lag, report
        self._pending: deque[tuple[int, list[str], Tensor, torch.cuda.Event | None]] = deque()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Call every ``on_end``, also after an error, which stays the error that is raised."""
        ends = [partial(self._call, callback, "on_end", error) for callback in self._callbacks]
        last_steps = [partial(self._give_steps, 0)] if isinstance(error, TrainingStoppedError) else []
        failures = []
        for call in (*last_steps, *ends):
            try:
                call()
            except Exception as another:
                failures.append(another)
        if failures and error is None:
            raise failures[0]

    def step(self, step: int, terms: Mapping[str, Tensor]) -> None:
        """Report a finished step; a batch without clips has no terms and is not reported."""
        if not self._callbacks or not terms:
            return
        values = torch.stack([value.float() for value in terms.values()])
        on_host, arrived = values.to("cpu", non_blocking=True), None
        if values.is_cuda:
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record()
        self._pending.append((step, [f"step/{name}" for name in terms], on_host, arrived))
        self._give_steps(self._lag)

    def epoch(self, step: int, line: Mapping[str, Any]) -> None:
        """Report a finished epoch, given its line of metrics.jsonl."""
        self._give_steps(0)
        values = {f"{part}/{name}": value for part in ("train", "validation") for name, value in line[part].items()}
        values |= {name: float(line[name]) for name in _OF_EPOCH}
        for callback in self._callbacks:
            self._call(callback, "on_epoch", line["epoch"], step, dict(values))

    def _give_steps(self, lag: int) -> None:
        """Pass on the steps that are waiting, except for the newest ``lag``."""
        while len(self._pending) > lag:
            step, names, values, arrived = self._pending.popleft()
            if arrived is not None:
                arrived.synchronize()
            for callback in self._callbacks:
                self._call(callback, "on_step", step, dict(zip(names, values.tolist(), strict=True)))

    def _call(self, callback: Callback, method: str, *values: Any) -> None:
        """Call a method of a callback; an exception in it is reported, and gets a note that names the callback."""
        try:
            getattr(callback, method)(*values)
        except Exception as error:
            kind = type(callback)
            where = f"the callback {kind.__module__}.{kind.__qualname__} failed in {method}"
            self._report(f"{where}: {type(error).__name__}: {error}")
            error.add_note(where)
            raise
