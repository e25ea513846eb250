"""SIGINT and SIGTERM as a request to stop: a step always completes, but waiting is interrupted at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequestedError(BaseException):
    """A signal requested a stop, and everything can be saved at this point.

    Like `KeyboardInterrupt`, it is not an `Exception`: raised while a video is read, it says nothing about the video.
    """


class TrainingStoppedError(Exception):
    """Training stopped on request; ``--resume`` continues from its last checkpoint.

    Attributes:
        number: number of the signal.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number


class StopRequest:
    """The signal that requested a stop, if any.

    Attributes:
        number: number of the signal, or None.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._immediate = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Handle both signals. A second SIGINT raises `KeyboardInterrupt` at once."""
        if self.number is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number
        if self._immediate:
            raise StopRequestedError

    def check(self) -> None:
        """Raise `StopRequestedError` if a signal has arrived."""
        if self.number is not None:
            raise StopRequestedError

    @contextmanager
    def cut_short(self) -> Iterator[None]:
        """A context for work that changes no saved state: a signal interrupts it at once."""
        self._immediate = True
        try:
            self.check()
            yield
        finally:
            self._immediate = False


@contextmanager
def listen_for_stop() -> Iterator[StopRequest]:
    """Handle SIGINT and SIGTERM as requests to stop for the duration of the context; main thread only."""
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
