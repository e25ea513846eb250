"""``--log tensorboard``: the numbers of a training as event files, a callback like any other."""

from pathlib import Path
from typing import Any

from v3s.options import import_extra
from v3s.train.callbacks import Callback

EVENTS = "tensorboard"
_FLUSH_SECONDS = 10  # of steps, at most, are missing after a kill


class TensorBoard(Callback):
    """Writes event files; TensorBoard shows those of a resumed run as one curve.

    The file of a resumed run says from which step on it replaces what earlier files have, so no step is shown twice.

    Args:
        folder: the folder of the event files; it is created with the first step.

    Raises:
        ValueError: the extra ``tensorboard`` is not installed.
    """

    def __init__(self, folder: Path) -> None:
        import_extra("tensorboard", "tensorboard", "log tensorboard")
        self._folder = folder
        self._writer: Any = None

    def on_step(self, step: int, values: dict[str, float]) -> None:
        """Write the terms of a step."""
        self._write(step, values)

    def on_epoch(self, epoch: int, step: int, values: dict[str, float]) -> None:
        """Write the numbers of an epoch at its last step, and flush the file."""
        self._write(step, {"epoch": float(epoch), **values})
        self._writer.flush()

    def on_end(self, error: BaseException | None) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()

    def _write(self, step: int, values: dict[str, float]) -> None:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder), purge_step=step, flush_secs=_FLUSH_SECONDS)
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
