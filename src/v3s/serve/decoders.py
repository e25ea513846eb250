"""Processes that decode for the server: a file that makes FFmpeg crash or hang costs its own picture, nothing else."""

import multiprocessing
import signal
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from queue import SimpleQueue

import torch

from v3s.backbones.device import usable_cores
from v3s.serve.previews import Preview, make_preview, warm_up
from v3s.video.index import VideoError

_SECONDS = 120.0  # for one preview; a file that no scan has read is decoded as a whole first
_MAX_BYTES = 256 << 20


class Decoder:
    """A process that makes one preview after another; a new one takes the place of one that ended."""

    def __init__(self) -> None:
        self._process: BaseProcess | None = None
        self._connection: Connection | None = None

    def start(self) -> None:
        """Start the process, which takes some seconds to import what it needs."""
        context = multiprocessing.get_context("spawn")  # a fork of a server with threads may hang
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=answer, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def make(self, asked: Preview) -> bytes:
        """Make a preview.

        Raises:
            VideoError: the file cannot be read, or the process crashed or hung on it.
        """
        if self._process is None or not self._process.is_alive():
            self.stop()
            self.start()
        assert self._connection is not None
        assert self._process is not None
        try:
            self._connection.send(asked)
            if not self._connection.poll(_SECONDS):
                self.stop()
                raise VideoError(f"{asked.place.file}: reading it takes longer than {_SECONDS:.0f} s")
            made, reason = self._connection.recv()
        except (EOFError, OSError) as error:
            self._process.join()
            number = -(self._process.exitcode or 0)
            name = signal.Signals(number).name if number in list(signal.Signals) else "an error"
            self.stop()
            raise VideoError(f"{asked.place.file}: reading it ended the process ({name})") from error
        if reason:
            raise VideoError(reason)
        return bytes(made)

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process.close()
        if self._connection is not None:
            self._connection.close()
        self._process = self._connection = None


def answer(connection: Connection) -> None:
    """Make previews until the server is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal reaches all processes; the server ends this one
    torch.set_num_threads(1)
    warm_up()
    while True:
        try:
            asked = connection.recv()
        except EOFError:
            return
        try:
            made, reason = make_preview(asked), ""
        except (VideoError, OSError, ValueError) as error:
            made, reason = b"", str(error) or type(error).__name__
        connection.send((made, reason))


class Previews:
    """Previews, each made once while it is among the latest 256 MB.

    Args:
        num_decoders: number of processes.
    """

    def __init__(self, num_decoders: int = 0) -> None:
        num_decoders = num_decoders or min(4, usable_cores())
        self._decoders = [Decoder() for _ in range(num_decoders)]
        self._free: SimpleQueue[Decoder] = SimpleQueue()
        for decoder in self._decoders:
            self._free.put(decoder)
        self._threads = ThreadPoolExecutor(num_decoders)
        self._lock = threading.Lock()
        self._made: OrderedDict[Preview, bytes] = OrderedDict()
        self._num_bytes = 0
        self._pending: dict[Preview, Future[bytes]] = {}

    def start(self) -> None:
        """Start the processes."""
        for decoder in self._decoders:
            decoder.start()

    def stop(self) -> None:
        """End them."""
        for decoder in self._decoders:
            decoder.stop()
        self._threads.shutdown(cancel_futures=True)

    def get(self, asked: Preview) -> "Future[bytes]":
        """A preview, which is made now if it is not kept; its exception is a `VideoError`."""
        with self._lock:
            if asked in self._made:
                self._made.move_to_end(asked)
                done: Future[bytes] = Future()
                done.set_result(self._made[asked])
                return done
            if asked not in self._pending:
                self._pending[asked] = self._threads.submit(self._make, asked)
            return self._pending[asked]

    def _make(self, asked: Preview) -> bytes:
        decoder, made = self._free.get(), None
        try:
            made = decoder.make(asked)
        finally:
            self._free.put(decoder)
            with self._lock:  # at once: a preview is pending or made, so nobody makes it again
                self._pending.pop(asked, None)
                if made is not None:
                    self._keep(asked, made)
        return made

    def _keep(self, asked: Preview, made: bytes) -> None:
        self._made[asked] = made
        self._num_bytes += len(made)
        while self._num_bytes > _MAX_BYTES:
            _, dropped = self._made.popitem(last=False)
            self._num_bytes -= len(dropped)
