"""Labels that are given in the page: an append-only file in the folder of the vectors, and a list for other commands.

=====================  ======================================================================================
labels/marks.jsonl     one line for each class that was added, and for each label that was given or taken
                       away, never changed; the last line of a span counts
labels/labels.csv      the spans that have a label now, as `v3s.data.lists.listfile` reads them
=====================  ======================================================================================

A line is on the disk before the page says so. A line that a killed process left half was never promised: it is cut off.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from v3s.data.lists.listfile import span_lines, write_spans
from v3s.data.store_folder import names_in_list
from v3s.files.lock import FolderInUseError, only_writer
from v3s.files.reading import parse_as, read_bytes
from v3s.files.text import as_cell, as_text
from v3s.files.writing import CheckpointError, SaveError, append_line, cut_torn_line, free_name
from v3s.serve.catalogue import Catalogue
from v3s.vectors.description import VectorsError
from v3s.vectors.labels import GIVEN

FOLDER, LIST = GIVEN
LOG = "marks.jsonl"
_MAX_BYTES = 1 << 28
_MAX_NAME = 100
_WAIT_SECONDS = 5.0  # for another process that writes a label
_ALONE = threading.RLock()  # the lock of a folder belongs to the process, not to a thread


@dataclass(frozen=True, slots=True)
class Mark:
    """A line of the file: a span has a label from now on, or none; or there is a class from now on.

    Attributes:
        path: the span's file as the collection lists it; empty where a class is added.
        start: in seconds from the start of the file on.
        end: in seconds; None if the span is the whole file.
        label: the name of its class; None removes the label.
        at: when, in UTC.
    """

    path: str
    start: float
    end: float | None
    label: str | None
    at: str

    def __post_init__(self) -> None:
        if not 0 <= self.start < (np.inf if self.end is None else self.end):
            raise ValueError(f"start is {self.start:g} and end {self.end}; a span begins at 0 or later and then ends")
        if self.label is not None:
            check_class(self.label)


def check_class(name: str) -> None:
    """Check the name of a class.

    Raises:
        ValueError: it is empty, too long, begins or ends with a space, or is not one line of text.
    """
    if not name or len(name) > _MAX_NAME or name != name.strip() or as_text(name) != name:
        raise ValueError(f"the class is {name[:_MAX_NAME]!r}; it must be 1 to {_MAX_NAME} letters on one line")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class Marks:
    """The labels of a collection's spans, shared by all windows and by all servers of the folder.

    Attributes:
        classes: names of the classes, in the order in which they were added: keys and colours stay as they are.
        class_of: number of each span's class, -1 without one, int64 (N,).
        version: number of lines of the file.
        notice: a word about a half line that was cut off, a list that others changed, or labels that could not be
            written; else empty.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.folder = catalogue.vectors.folder / FOLDER
        self.classes: list[str] = []
        self.class_of: NDArray[np.int64] = np.full(len(catalogue), -1, np.int64)
        self.version = 0
        self.notice = ""
        self._others: dict[tuple[str, float, float | None], str] = {}
        self._num_read = 0  # bytes
        self._written: tuple[int, int, int] | None = None  # the stamp of the list as this process wrote it
        if (self.folder / LOG).exists() or self.list_file.exists():
            try:
                self._mend()
            except SaveError as error:  # a collection on a read-only or full disk can be looked at
                self._read()
                self._note(f"labels could not be written when v3s serve started, and are shown as they were: {error}")

    def _mend(self) -> None:
        """Bring the files of a process that was killed, or that others changed, into one state."""
        with self._alone():
            if (self.folder / LOG).exists() and (dropped := cut_torn_line(self.folder / LOG)):
                self._note(f"{self.folder / LOG}: its last line was half written ({dropped} bytes) and is dropped")
            self._read()
            self._replace_list()

    def _note(self, text: str) -> None:
        self.notice = "; ".join(filter(None, (self.notice, text)))

    @property
    def list_file(self) -> Path:
        """The list of the spans that have a label."""
        return self.folder / LIST

    @property
    def num_others(self) -> int:
        """How many spans have a label and are not in the collection, or no longer."""
        return len(self._others)

    def refresh(self) -> None:
        """Read what other processes have written since.

        Raises:
            VectorsError: a line is damaged or forged; the message names it.
        """
        with _ALONE:
            self._read()

    def add(self, name: str) -> bool:
        """Add a class; on return it is on the disk. One that exists stays as it is. Returns whether it is new.

        Raises:
            ValueError: it is not a valid class name, a spreadsheet would take it for a formula in the list, or another
                process holds the file.
            SaveError: the file cannot be written.
        """
        check_class(name)
        if as_cell(name) != name:
            raise ValueError(f"the class is {name!r}, which a spreadsheet takes for a formula; begin it with a letter")
        with self._alone():
            self._read()
            is_new = name not in self.classes
            if is_new:
                self._append([Mark("", 0.0, None, name, _now())])
        return is_new

    def give(self, rows: Sequence[int], label: str | None) -> list[str | None]:
        """Give spans a label, or take theirs away; on return it is on the disk. Returns their labels until now.

        Raises:
            ValueError: there is no such class, a row does not exist, or another process holds the file.
            SaveError: the file cannot be written.
        """
        now = _now()
        lines = [self._mark(row, label, now) for row in rows]
        with self._alone():
            self._read()
            if label is not None and label not in self.classes:
                raise ValueError(f"there is no class {label[:_MAX_NAME]!r}; add it first")
            before = [self.label_of(row) for row in rows]
            if self._stamp() not in (None, self._written):
                self._replace_list()
            self._append(lines)
            self._write_list()
        return before

    def label_of(self, row: int) -> str | None:
        """The label that a span has now.

        Raises:
            ValueError: there is no such span.
        """
        self.catalogue.check_row(row)
        number = int(self.class_of[row])
        return None if number < 0 else self.classes[number]

    def _append(self, lines: Sequence[Mark]) -> None:
        if (self.folder / LOG).exists():
            cut_torn_line(self.folder / LOG)
        append_line(self.folder / LOG, "\n".join(json.dumps(asdict(line)) for line in lines))
        self._read()

    def _mark(self, row: int, label: str | None, now: str) -> Mark:
        catalogue = self.catalogue
        catalogue.check_row(row)
        path = catalogue.paths[catalogue.file_of[row]]
        if catalogue.has_whole_files:
            return Mark(path, 0.0, None, label, now)
        start, end = (round(float(seconds[row]), 6) for seconds in (catalogue.starts, catalogue.ends))
        return Mark(path, start, end, label, now)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Write alone: among the threads of this process, and among processes."""
        deadline = time.monotonic() + _WAIT_SECONDS
        with _ALONE:
            while True:
                try:
                    with only_writer(self.folder):
                        yield
                        return
                except FolderInUseError:
                    if time.monotonic() > deadline:
                        raise
                time.sleep(0.01)

    def _read(self) -> None:
        """Read the whole lines that are new."""
        path = self.folder / LOG
        if not path.exists() and self._num_read:
            raise VectorsError(f"{path}: was removed while it was in use; restore it, or start v3s serve again")
        if not path.exists() or path.stat().st_size == self._num_read:
            return
        try:
            content = read_bytes(path, max_bytes=_MAX_BYTES)
            if len(content) < self._num_read:
                raise VectorsError(f"{path}: was cut while it was in use; start v3s serve again")
            content = content[self._num_read : content.rfind(b"\n") + 1]
            for number, line in enumerate(content.split(b"\n")[:-1], start=self.version + 1):
                if line.strip():
                    self._apply(parse_as(Mark, line, f"{path}, line {number}"), number)
                self.version = number
                self._num_read += len(line) + 1
        except CheckpointError as error:
            raise VectorsError(str(error)) from error

    def _apply(self, mark: Mark, number: int) -> None:
        is_known = mark.label in self.classes
        if not mark.path and mark.label is not None and not is_known:
            self.classes.append(mark.label)
            return
        if not mark.path or not (is_known or mark.label is None):
            problem = f"the class {mark.label!r} was not added before" if mark.path else "it adds no new class"
            raise VectorsError(f"{self.folder / LOG}, line {number}: {problem}; restore the file")
        rows = self.catalogue.find(mark.path, mark.start, mark.end)
        self.class_of[rows] = -1 if mark.label is None else self.classes.index(mark.label)
        if not len(rows):
            key = mark.path, mark.start, mark.end
            self._others.pop(key, None)
            if mark.label is not None:
                self._others[key] = mark.label

    def _replace_list(self) -> None:
        """Write the list; keep one with lines that are not in the log: a person wrote them, or the log is gone."""
        if self.list_file.exists() and not self._knows(self.list_file.read_bytes().splitlines()):
            self.list_file.replace(kept := free_name(self.list_file))
            self._note(f"{self.list_file} had labels that {LOG} does not have; that list is now {kept}")
        self._write_list()

    def _write_list(self) -> None:
        write_spans(self.list_file, self._labelled(self._name_in_list))
        self._written = self._stamp()

    def _stamp(self) -> tuple[int, int, int] | None:
        """What shows whether the list is the one that this process wrote; None if there is none."""
        if not self.list_file.exists():
            return None
        found = self.list_file.stat()
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _knows(self, lines: list[bytes]) -> bool:
        """Whether the log has all labels of a list, which may be of the time before the videos were moved."""
        first = b"".join(lines[1:2]).decode("utf-8", "surrogateescape").removeprefix('"').replace('""', '"')
        names, given = (self._name_in_list, *map(names_in_list, Path(first).parents)), set(lines)
        return any(given <= set(self._known_lines(name_in_list)) for name_in_list in names)

    @property
    def _name_in_list(self) -> Callable[[str], str]:
        return names_in_list(Path(self.catalogue.vectors.description.root))

    def _known_lines(self, name_in_list: Callable[[str], str]) -> list[bytes]:
        """The lines of all labels of the log, also of spans that are no longer in the collection."""
        others = ((name_in_list(path), (start, end), label) for (path, start, end), label in self._others.items())
        return span_lines([*self._labelled(name_in_list), *others])

    def _labelled(self, name_in_list: Callable[[str], str]) -> list[tuple[str, tuple[float, float | None], str | None]]:
        """The spans of the collection that have a label, as a list names them."""
        spans = []
        for row in np.flatnonzero(self.class_of >= 0).tolist():
            mark = self._mark(row, self.classes[self.class_of[row]], "")
            spans.append((name_in_list(mark.path), (mark.start, mark.end), mark.label))
        return spans
