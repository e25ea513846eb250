"""Progress of a training: a progress bar on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import Progress as Bar

from v3s.data.clips import BatchOrder
from v3s.files.text import progress_bar, say
from v3s.train.loop import Clock, Sums

_LINE_SECONDS = 30.0  # least time between two plain lines
_SHARE_SEEN = 0.1  # of the minutes that a training was meant to take, after which it is seen whether it does
_SHARE_OFF = 0.25  # of these minutes, by which it may miss them in silence
_BAR_SECONDS = 0.5  # least time between two updates of the bar: reading a loss waits for the device


class Progress(AbstractContextManager["Progress"]):
    """Reports finished steps and epochs.

    Args:
        order: order of the remaining batches.
        report: called with a line of text for each epoch.
        console: where to show steps.
        minutes: how long the training was meant to take. Once, after an epoch, a line says if it takes a quarter more
            or less; of a resumed training, all of it, as if it had this speed from the start.
        chooses: whether validation chooses the epoch that is kept.
    """

    def __init__(
        self,
        order: BatchOrder,
        report: Callable[[str], None],
        console: Console,
        minutes: float | None = None,
        *,
        chooses: bool = True,
    ) -> None:
        self._num_epochs, self._steps = order.num_epochs, order.steps_per_epoch
        self._report, self._console, self._chooses = report, console, chooses
        self._minutes, self._first_step = minutes, order.first_batch
        self._began: tuple[int, float] | None = None  # steps and time, when this process had done its first one
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
        now, done = time.monotonic(), epoch * self._steps + step
        if self._began is None:  # what starts up is not counted
            self._began = done, now
        is_recent = now - self._last_shown < (_LINE_SECONDS if self._bar is None else _BAR_SECONDS)
        if is_recent or not clock.seconds:  # the first step is not timed yet
            return
        self._last_shown = now
        text = f"epoch {epoch + 1}/{self._num_epochs} {describe(sums.local_means())} {_speed(clock)}"
        if self._bar is None:
            say(self._console, f"{text} step {step}/{self._steps}{self._left(done)}")
        else:
            self._bar.update(self._task, description=text, completed=done)

    def end_epoch(self, line: dict[str, Any]) -> None:
        """Report a finished epoch, given its line of metrics.jsonl."""
        done = line["epoch"] * self._steps
        text = (
            f"epoch {line['epoch']}/{self._num_epochs} train {describe(line['train'])} | "
            f"validation {describe(line['validation'])} | {line['clips_per_second']:.1f} clips/s, "
            f"{line['waiting_share']:.0%} waiting for data"
        )
        if self._chooses:
            text += f" | kept: epoch {line['best_epoch']}"
        self._report(text + self._left(done))
        self._compare(done)
        self._last_shown = time.monotonic()

    def _left(self, done: int) -> str:
        """How long the training will still take, at its mean speed so far; empty before that is known."""
        num_left = self._num_epochs * self._steps - done
        if self._began is None or done <= self._began[0] or not num_left:
            return ""
        seconds = (time.monotonic() - self._began[1]) / (done - self._began[0]) * num_left
        return f", about {max(seconds / 60, 1):.0f} min left"

    def _compare(self, done: int) -> None:
        """Say if the training will not take the time that it was meant to take, as soon as that can be seen."""
        if self._minutes is None or self._began is None or done <= self._began[0]:
            return
        taken = time.monotonic() - self._began[1]
        if taken < min(60, 60 * self._minutes * _SHARE_SEEN):
            return
        asked, self._minutes = self._minutes, None
        needed = taken / (done - self._began[0]) * self._num_epochs * self._steps / 60
        fit = max(1, int(self._num_epochs * asked / needed))
        if abs(needed / asked - 1) > _SHARE_OFF and fit != self._num_epochs:
            shorter = f". To take {asked:g}, stop it and give the same command with --epochs {fit} --overwrite; or"
            self._report(
                f"at this speed the training takes about {needed:.0f} min{' in all' * bool(self._first_step)}, not "
                f"{asked:g}{';' if self._first_step else shorter} stop it at any time, and --resume later"
            )


def describe(means: dict[str, float]) -> str:
    """Format the terms of an objective: the loss, its terms that are of no head, and the accuracies.

    The accuracy of a head with only one label, whose loss is 0, is not shown. The loss is that of the heads alone, if
    there are any, so that training can be compared with validation, which has no other terms.
    """
    terms = {name.removeprefix("loss_"): value for name, value in means.items() if name.startswith("loss_")}
    of_heads = [value for term, value in terms.items() if f"accuracy_{term}" in means]
    parts = [f"loss {sum(of_heads) if of_heads else means['loss']:.3f}"] if "loss" in means else []
    parts += [f"{term} {value:.3f}" for term, value in terms.items() if f"accuracy_{term}" not in means]
    for name in sorted(means):
        head = name.removeprefix("accuracy")
        if head != name and means.get(f"loss{head}") != 0:
            parts.append(f"{head.removeprefix('_') or 'accuracy'} {means[name]:.1%}")
    return " ".join(parts)


def _speed(clock: Clock) -> str:
    return f"{clock.samples_per_second:.1f} clips/s, {clock.waiting_share:.0%} waiting"
