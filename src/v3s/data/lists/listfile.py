"""A list file: one video per line, as ``path`` or ``path label``."""

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TextIO

from v3s.data.lists.folder import names_video
from v3s.data.lists.listing import ListedVideo, Listing, class_order, numbered_lines
from v3s.data.lists.remote import names_remote_video
from v3s.data.lists.spans import Bounds
from v3s.files.reading import BLANKS, read_lines
from v3s.files.remote.address import is_url
from v3s.files.times import parse_time
from v3s.files.writing import Writer, write_atomically

_HEADERS = (["path"], ["path", "label"])
_SPANS = ("path", "start", "end")
_SEPARATORS = r"[,;\t| \"]+"
_COLUMNS = frozenset(("path", "youtube_id"))
_SPECIAL = frozenset(f'",{BLANKS}')


def read_list(file: Path, root: Path, is_video: Callable[[Path], bool] = names_video) -> Listing:
    """Read a list of paths, with or without labels.

    The label is the last word of a line, or the text after its last comma or tab, and may be a name or an integer.
    Names in double quotes, as in CSV, may contain anything. If the whole line is the path of an existing file, it has
    no label, even if it contains spaces or commas. Blank lines are skipped; a first line ``path`` or ``path,label`` is
    a header, in capitals and with spaces too. ``#`` does not start a comment, since file names contain it.

    A first line ``path,start,end`` or ``path,start,end,label`` makes it a list of spans, in CSV, or with tabs: start
    and end are seconds from the first frame of the video on, or h:mm:ss; an empty start is 0, an empty end that of the
    video.

    Args:
        file: The list.
        root: The folder that paths are relative to.
        is_video: Whether a path names a video, which decides between possible readings of a line.

    Raises:
        ValueError: The list contains no videos, or cannot be read as a list, or a line of spans cannot be read.
    """
    entries = _read_spans(file) or _read_entries(file, root, is_video)
    return Listing(f"list {file}", entries, class_order(entry.label for entry in entries))


def _read_entries(file: Path, root: Path, is_video: Callable[[Path], bool]) -> tuple[ListedVideo, ...]:
    """Read a list of whole files."""
    lines = [line for _, line in numbered_lines(file)]
    if lines and _words(lines[0]) in _HEADERS:
        del lines[0]
    elif lines and _is_other_header(lines[0]) and not any(is_video(root / path) for path, _ in _readings(lines[0])):
        raise ValueError(
            f"{file}: the first line, {lines[0][:60]!r}, is not a header that a list may have; write path,label or "
            "path,start,end,label, with commas or tabs, or no header"
        )
    if not lines:
        raise ValueError(f"{file} contains no videos; write one path per line, with or without a label")
    return tuple(_entry(line, root, is_video) for line in lines)


def _read_spans(file: Path) -> tuple[ListedVideo, ...] | None:
    """Read a list of spans; ``None`` if its first line is no header of one."""
    header = next(numbered_lines(file), (0, ""))[1]
    first = _words(header)
    if tuple(first[:3]) != _SPANS:
        words = set(re.split(r"[,;|]", ",".join(first)))
        if words >= set(_SPANS):
            raise ValueError(
                f"{file}: the first line must be path,start,end or path,start,end,label, with commas or tabs"
            )
        return None
    if first[3:] not in ([], ["label"]):
        raise ValueError(f"{file}: the header is {','.join(first)}; it must be path,start,end or path,start,end,label")
    entries, begins = [], 1  # the line with which a row begins
    delimiter = "\t" if "\t" in header else ","
    rows = csv.reader(read_lines(file), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        for row in rows:
            begins = rows.line_num + 1
            cells = [cell.strip(BLANKS) for cell in row]
            if not any(cells) or [cell.lower() for cell in cells] == first:
                continue
            entries.append(_span(f"{file}, line {rows.line_num}", cells, len(first)))
    except csv.Error as error:
        raise ValueError(f'{file}: the quote (") in line {begins:,} is not closed ({error}); close it') from error
    if not entries:
        raise ValueError(f"{file} contains no spans; write path,start,end on each line")
    return tuple(entries)


def _is_other_header(line: str) -> bool:
    """Whether a line looks like the header of a table, and not like a file with a label."""
    return not {".", "/", "\\"}.intersection(line) and not _COLUMNS.isdisjoint(re.split(_SEPARATORS, line.lower()))


def _words(line: str) -> list[str]:
    """The words of a header, between commas or tabs."""
    return [word.strip('"') for word in re.split(r"[,\t]", line.lower().replace(" ", ""))]


def _span(place: str, row: list[str], num_columns: int) -> ListedVideo:
    """Read one line of a list of spans."""
    if len(row) != num_columns:
        raise ValueError(f"{place}: has {len(row)} values, but the header has {num_columns}; quote a path with commas")
    path, start_text, end_text, *label = row
    if not path:
        raise ValueError(f"{place}: has no path")
    start = parse_time(start_text, f"{place}: start") if start_text else 0.0
    end = parse_time(end_text, f"{place}: end") if end_text else None
    if end is not None and end <= start:
        raise ValueError(f"{place}: end is {end_text}, which is not after the start, {start_text or '0'}")
    return ListedVideo((path,), (label[0] if label else "") or None, (start, end))


def write_list(file: Path, videos: Iterable[tuple[str, str | None]]) -> None:
    """Write a list of (path, label) pairs that `read_list` reads as they are, whatever the names contain."""
    write_atomically(file, list_writer(videos))


def list_writer(videos: Iterable[tuple[str, str | None]]) -> Writer:
    """What writes the file of `write_list`."""

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as opened:
            opened.writelines(f"{_line(*filter(None, video))}\n" for video in videos)

    return write


def write_spans(file: Path, spans: Iterable[tuple[str, Bounds, str | None]]) -> None:
    """Write a list of spans (path, start and end in seconds, label) that `read_list` reads, to the microsecond."""
    write_atomically(file, spans_writer(spans))


def spans_writer(spans: Iterable[tuple[str, Bounds, str | None]]) -> Writer:
    """What writes the file of `write_spans`."""

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as opened:
            _write_spans(opened, spans)

    return write


def span_lines(spans: Iterable[tuple[str, Bounds, str | None]]) -> list[bytes]:
    """The lines of the file of `write_spans`, the header among them."""
    text = io.StringIO(newline="")
    _write_spans(text, spans)
    return text.getvalue().encode("utf-8", "surrogateescape").splitlines()


def _write_spans(opened: TextIO, spans: Iterable[tuple[str, Bounds, str | None]]) -> None:
    writer = csv.writer(opened, lineterminator="\n")
    writer.writerow([*_SPANS, "label"])
    for path, bounds, label in spans:
        writer.writerow([path, *("" if time is None else f"{time:.6f}" for time in bounds), label or ""])


def _line(*names: str) -> str:
    if all(name == name.strip() and not _SPECIAL.intersection(name) for name in names):
        return ",".join(names)
    return ",".join('"' + name.replace('"', '""') + '"' for name in names)


def _entry(line: str, root: Path, is_video: Callable[[Path], bool]) -> ListedVideo:
    """Return the first interpretation of a line that names an existing file, or simply the first one."""
    readings = list(_readings(line))
    names = names_remote_video if is_url(readings[0][0]) else lambda path: is_video(root / path)
    path, label = next((reading for reading in reversed(readings) if names(reading[0])), readings[0])
    return ListedVideo((path,), label or None)


def _readings(line: str) -> Iterator[tuple[str, str]]:
    """Yield the possible interpretations of a line as (path, label); the last one is the whole line as a path."""
    if line.startswith('"'):
        name, *labels = next(csv.reader([line]))
        yield name, labels[0] if len(labels) == 1 else ""
    for mark in ",\t":
        if mark in line:
            *path, label = next(csv.reader([line], delimiter=mark, skipinitialspace=True))
            yield mark.join(path).strip(BLANKS), label.strip(BLANKS)
    if (last := line.rfind(" ")) > 0:
        yield line[:last].rstrip(BLANKS), line[last + 1 :]
    yield line, ""
