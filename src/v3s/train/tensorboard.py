"""``--log tensorboard``: the numbers of a training as event files, a callback like any other."""

import io
import os
import platform
import time
from pathlib import Path
from typing import Any

from v3s.files.writing import SaveError
from v3s.options import import_extra
from v3s.train.callbacks import Callback

EVENTS = "tensorboard"
"""The folder of the event files in that of a run."""


class TensorBoard(Callback):
    """Writes event files; TensorBoard shows those of a resumed run as one curve.

    The file of a resumed run says from which step on it replaces what earlier files have, so no step is shown twice. A
    step is in the file as soon as it is reported, so a kill loses none.

    Args:
        folder: the folder of the event files; it is created with the first step.

    Raises:
        ValueError: the extra ``tensorboard`` is not installed.
    """

    def __init__(self, folder: Path) -> None:
        self._records, self._messages, self._summaries = (
            import_extra(f"tensorboard.{name}", "tensorboard", "log tensorboard")
            for name in ("summary.writer.record_writer", "compat.proto.event_pb2", "compat.proto.summary_pb2")
        )
        self._folder = folder
        self._file: Any = None

    def on_step(self, step: int, values: dict[str, float]) -> None:
        """Write the terms of a step.

        Raises:
            SaveError: the file cannot be written.
        """
        try:
            if self._file is None:
                self._start(step)
            shown = [self._summaries.Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
            self._write(step=step, summary=self._summaries.Summary(value=shown))
        except OSError as error:
            raise SaveError(f"{self._folder} cannot be written: {error.strerror or error}") from error

    def on_epoch(self, epoch: int, step: int, values: dict[str, float]) -> None:
        """Write the numbers of an epoch, at its last step.

        Raises:
            SaveError: the file cannot be written.
        """
        self.on_step(step, {"epoch": float(epoch), **values})

    def on_end(self, error: BaseException | None) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _start(self, step: int) -> None:
        """Start a file, whose name follows those of earlier ones; it replaces what they have from this step on."""
        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns():020}.{platform.node()}.{os.getpid()}"
        self._file = (self._folder / name).open("xb", buffering=0)
        self._write(file_version="brain.Event:2")
        self._write(step=step, session_log=self._messages.SessionLog(status=self._messages.SessionLog.START))

    def _write(self, **fields: Any) -> None:
        event, memory = self._messages.Event(wall_time=time.time(), **fields), io.BytesIO()
        self._records.RecordWriter(memory).write(event.SerializeToString())
        record = memory.getvalue()
        while record:  # a full disk takes a part, then nothing
            record = record[self._file.write(record) :]
