"""SIGINT and SIGTERM as a request: a step is never cut in half, and waiting is cut short at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopAskedError(BaseException):
    """A signal asked for an end at a point where everything can be saved.

    As `KeyboardInterrupt`, no `Exception`: it may be raised while a video is read, and is not the video's fault.
    """


class TrainingStoppedError(Exception):
    """Training was asked to stop; ``--resume`` goes on from its last checkpoint.

    Attributes:
        number: the signal's.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number


class StopRequest:
    """Which signal asked for an end, if one did.

    Attributes:
        number: the signal's, or None.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._at_once = False

    def ask(self, number: int, frame: FrameType | None) -> None:
        """The handler of both signals. A second SIGINT stops at once, wherever that is."""
        if self.number is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number
        if self._at_once:
            raise StopAskedError

    def check(self) -> None:
        """Raise `StopAskedError` if a signal came."""
        if self.number is not None:
            raise StopAskedError

    @contextmanager
    def cut_short(self) -> Iterator[None]:
        """Work that changes nothing that is saved: a signal ends it at once."""
        self._at_once = True
        try:
            self.check()
            yield
        finally:
            self._at_once = False


@contextmanager
def listen_for_stop() -> Iterator[StopRequest]:
    """Take SIGINT and SIGTERM as a request for as long as the context lasts; only in the main thread."""
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
