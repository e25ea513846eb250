"""The page of a run that is not finished: how often it is written."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from v3s.train.stop import TrainingStoppedError

SECONDS_BETWEEN = 30.0  # two pages, at least
SHARE = 0.01  # largest share of the time that pages may take


@dataclass(slots=True)
class RunningPage:
    """Has a page written after epochs, unless the last one is too recent, and when the run is stopped.

    Attributes:
        write: writes the page of all epochs so far.
    """

    write: Callable[[], None]
    _due: float = field(default_factory=lambda: time.monotonic() + SECONDS_BETWEEN)
    _is_old: bool = False

    def after_epoch(self) -> None:
        """Write the page if it is due.

        Raises:
            SaveError: the file cannot be written; the last page is unchanged.
        """
        self._is_old = True
        start = time.monotonic()
        if start >= self._due:
            self._update()
            end = time.monotonic()
            self._due = end + max(SECONDS_BETWEEN, (end - start) / SHARE)

    @contextmanager
    def written_when_stopped(self) -> Iterator[None]:
        """A context for the training: a stop in it has the page written if an epoch has ended since the last one."""
        try:
            yield
        except TrainingStoppedError:
            if self._is_old:
                self._update()
            raise

    def _update(self) -> None:
        self.write()
        self._is_old = False
