"""Files that go bad after the scan: each is left out from where it failed on, and nothing takes its place."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from v3s.video.container import Failure


@dataclass(slots=True, kw_only=True)
class Quarantine:
    """Which files are left out of a stream of batches, from which batch on, and why.

    With the log of an earlier process it leaves out the same samples of the same batches.

    Attributes:
        num_files: How many files there are in all, of which at most half may be bad; ``None`` takes any number.
        log: A file that gets one line of JSON for each bad file, and is read first; ``None`` keeps nothing.
        stream: Whose files these are, e.g. ``"train 0"``: a log may be shared.
        repeats: The batches are the same in every pass: a bad file is left out of all of them.
        tell: Called with a line of text for each file that is added.
    """

    num_files: int | None = None
    log: Path | None = None
    stream: str = ""
    repeats: bool = False
    tell: Callable[[str], None] = print
    failures: dict[str, Failure] = field(default_factory=dict)
    _first_batches: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        text = self.log.read_text("utf-8") if self.log and self.log.exists() else ""
        for line in map(json.loads, text.splitlines()):
            if line["stream"] == self.stream:
                self.failures[line["path"]] = Failure(line["stage"], line["reason"])
                self._first_batches[line["path"]] = line["batch"]

    def leaves_out(self, path: str, batch: int) -> bool:
        """Whether the samples of a file are left out of a batch."""
        return batch >= self._first_batches.get(path, batch + 1)

    def add(self, path: str, failure: Failure, batch: int) -> None:
        """Leave a file out, from the batch on in which it failed. It is told and written once.

        Raises:
            ValueError: More than half of the files are bad.
        """
        if self.leaves_out(path, batch):
            return
        batch = 0 if self.repeats else batch
        self.failures[path], self._first_batches[path] = failure, batch
        self.tell(f"left out from now on: {path}: {failure.reason} ({failure.stage})")
        if self.log:
            entry = {"stream": self.stream, "path": path, "stage": failure.stage, "reason": failure.reason}
            _append(self.log, json.dumps({**entry, "batch": batch}))
        if self.num_files is not None and 2 * len(self.failures) > self.num_files:
            raise ValueError(
                f"{len(self.failures):,} of {self.num_files:,} files went bad since they were scanned, more than half; "
                f"the last is {path}: {failure.reason}; see that the disk is there and whole"
            )


def _append(log: Path, line: str) -> None:
    """Add a line in one write, so that several processes may share the file, and see it on disk."""
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(descriptor, f"{line}\n".encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
