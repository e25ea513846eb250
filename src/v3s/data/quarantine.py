"""Files that fail after the scan: each is skipped from the failing batch on, and no other sample takes its place."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from v3s.files.reading import lines_of, parse_as, read_text
from v3s.files.writing import append_line
from v3s.video.container import Failure, Stage


@dataclass(frozen=True, slots=True)
class _Entry:
    """A line of the log: from this batch of the stream on, the file is skipped."""

    stream: str
    path: str
    stage: Stage
    reason: str
    batch: int


def _read_log(log: Path) -> Iterator[_Entry]:
    if log.exists():
        complete = read_text(log).rpartition("\n")[0]  # a full disk may have cut the last line short
        for line in lines_of(complete):
            yield parse_as(_Entry, line, log)


def failures_in(log: Path) -> dict[str, str]:
    """Path and reason of each file in a log, of whichever stream."""
    return {entry.path: entry.reason for entry in _read_log(log)}


@dataclass(slots=True, kw_only=True)
class Quarantine:
    """Which files of a stream of batches are skipped, from which batch on, and why.

    With the log of an earlier process, the same samples of the same batches are skipped.

    Attributes:
        num_files: Total number of files, of which at most half may be bad; with ``None`` any number may be bad.
        log: A file with one line of JSON for each bad file; it is read first, then appended to. ``None`` logs nothing.
        stream: Name of the stream in the log, e.g. ``"train 0"``: several streams may share a log.
        repeats: Whether the batches are the same in every pass, so that a bad file is skipped in all of them.
        report: Called with a line of text for each file that is added.
        failures: Why each bad file failed, by path.
    """

    num_files: int | None = None
    log: Path | None = None
    stream: str = ""
    repeats: bool = False
    report: Callable[[str], None] = print
    failures: dict[str, Failure] = field(default_factory=dict)
    _first_batches: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for entry in _read_log(self.log) if self.log is not None else ():
            if entry.stream == self.stream:
                self.failures[entry.path] = Failure(entry.stage, entry.reason)
                self._first_batches[entry.path] = entry.batch

    def skips(self, path: str, batch: int) -> bool:
        """Whether the samples of a file are skipped in a batch."""
        return batch >= self._first_batches.get(path, batch + 1)

    def add(self, path: str, failure: Failure, batch: int) -> None:
        """Skip a file, starting with the batch in which it failed. It is reported and logged once.

        Raises:
            ValueError: More than half of all files are bad.
        """
        if self.skips(path, batch):
            return
        batch = 0 if self.repeats else batch
        self.failures[path], self._first_batches[path] = failure, batch
        self.report(f"skipped from now on: {path}: {failure.reason}")
        if self.log:
            entry = _Entry(self.stream, path, failure.stage, failure.reason, batch)
            append_line(self.log, json.dumps(asdict(entry)))
        if self.num_files is not None and 2 * len(self.failures) > self.num_files:
            raise ValueError(
                f"{len(self.failures):,} of {self.num_files:,} files failed after the scan, more than half; "
                f"the latest is {path}: {failure.reason}; check that the disk is mounted and intact"
            )
