"""Progress of a training: a progress bar on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import Progress as Bar

from v3s.data.clips import BatchOrder
from v3s.files.text import progress_bar
from v3s.train.loop import Clock, Sums

_LINE_SECONDS = 30.0  # least time between two plain lines
_BAR_SECONDS = 0.5  # least time between two updates of the bar: reading a loss waits for the device


class Progress(AbstractContextManager["Progress"]):
    """Reports finished steps and epochs.

    Args:
        order: order of the remaining batches.
        report: called with a line of text for each epoch.
        console: where to show steps.
        chooses: whether validation chooses the epoch that is kept.
    """

    def __init__(
        self, order: BatchOrder, report: Callable[[str], None], console: Console, *, chooses: bool = True
    ) -> None:
        self._num_epochs, self._steps = order.num_epochs, order.steps_per_epoch
        self._report, self._console, self._chooses = report, console, chooses
        self._last_shown = time.monotonic()
        self._bar: Bar | None = None
        if console.is_terminal:
            self._bar = progress_bar(console, transient=False)
            total = self._num_epochs * self._steps
            self._task = self._bar.add_task("starting", total=total, completed=order.first_batch)

    def __enter__(self) -> "Progress":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self, epoch: int, step: int, sums: Sums, clock: Clock) -> None:
        """Report a finished step, unless the last report is too recent."""
        now = time.monotonic()
        is_recent = now - self._last_shown < (_LINE_SECONDS if self._bar is None else _BAR_SECONDS)
        if is_recent or not clock.seconds:  # the first step is not timed yet
            return
        self._last_shown = now
        text = f"epoch {epoch + 1}/{self._num_epochs} {describe(sums.local_means())} {_speed(clock)}"
        if self._bar is None:
            self._console.print(
                f"{text} step {step}/{self._steps} {self._remaining(epoch, step, clock)}", highlight=False
            )
        else:
            self._bar.update(self._task, description=text, completed=epoch * self._steps + step)

    def _remaining(self, epoch: int, step: int, clock: Clock) -> str:
        steps_left = (self._num_epochs - epoch) * self._steps - step
        minutes = clock.seconds / max(1, clock.steps) * steps_left / 60
        return f"about {minutes:.0f} min left"

    def end_epoch(self, line: dict[str, Any]) -> None:
        """Report a finished epoch, given its line of metrics.jsonl."""
        text = (
            f"epoch {line['epoch']}/{self._num_epochs} train {describe(line['train'])} | "
            f"validation {describe(line['validation'])} | {line['clips_per_second']:.1f} clips/s, "
            f"{line['waiting_share']:.0%} waiting for data"
        )
        if self._chooses:
            text += f" | kept: epoch {line['best_epoch']}"
        self._report(text)
        self._last_shown = time.monotonic()


def describe(means: dict[str, float]) -> str:
    """Format the terms of an objective: the loss, its terms that are of no head, and the accuracies.

    A head with only one label, whose loss is 0, has none.
    """
    parts = [f"loss {means['loss']:.3f}"] if "loss" in means else []
    for name, value in means.items():
        term = name.removeprefix("loss_")
        if term != name and f"accuracy_{term}" not in means:
            parts.append(f"{term} {value:.3f}")
    for name in sorted(means):
        head = name.removeprefix("accuracy")
        if head != name and means.get(f"loss{head}") != 0:
            parts.append(f"{head.removeprefix('_') or 'accuracy'} {means[name]:.1%}")
    return " ".join(parts)


def _speed(clock: Clock) -> str:
    return f"{clock.samples_per_second:.1f} clips/s, {clock.waiting_share:.0%} waiting"
