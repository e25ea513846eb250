"""A folder of vectors brought up to date: vectors of unchanged videos are copied, the others computed.

1. The vectors of new and changed videos are written to ``.append-<stamp>``, an ordinary folder of vectors: a killed run
   resumes there, and what it holds is also used if the list has changed once more.
2. List and shards of the whole new state are written beside the old ones, under names that contain its generation.
   Vectors of videos that are gone move to ``gone.<generation>``, which is not searched; if they return, they are used.
3. vectors.json is replaced, in one step: whoever opens the folder sees the old state before it, the new one after it.
4. The files of the old state are removed.

A killed run leaves a complete state, old or new. Videos are recognised by what they contain, not by their names.
"""

import hashlib
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rich.console import Console

from v3s.files.reading import parse_as, read_bytes
from v3s.files.text import counted, say
from v3s.files.writing import PART, CheckpointError, refuse_links, write_json, write_whole
from v3s.vectors.collection import read_shard, save_shard, shard_path, videos_path
from v3s.vectors.description import VECTORS, Description, VectorsError, read_description
from v3s.vectors.entries import Entry, Shard, cut_text, entries_of, join_shards, noun_of, segment_options, video_lines
from v3s.vectors.folder import EXPORTED, STAGING, check_comparable, gone_folder, in_words, remove_states
from v3s.vectors.nearest.approximate import INDEX_FILE


class _Rows(NamedTuple):
    """The rows of one video: from ``low`` to before ``high`` of a shard."""

    shard: Shard
    low: int
    high: int


@dataclass(frozen=True, slots=True, eq=False)
class _List:
    """The videos of a folder of vectors: as lines, and the path and the content of each."""

    description: Description
    lines: list[bytes]
    paths: list[str]
    contents: list[str]


def append_vectors(
    folder: Path,
    description: Description,
    entries: Sequence[Entry],
    lines: bytes,
    compute: Callable[[list[int], Path], None],
    console: Console,
) -> None:
    """Bring a folder of vectors to the state that a fresh embedding of a list would have.

    Args:
        folder: the folder, which the caller has locked.
        description: of the whole list; its generation does not count.
        entries: the videos of the list, in order.
        lines: the same as the content of videos.jsonl.
        compute: writes the vectors of some videos, by number in the list, into a folder of vectors.
        console: where to report.

    Raises:
        VectorsError: the folder contains vectors of another network, preprocessing or format, or of other videos
            altogether, or an earlier version wrote it.
        SaveError: a file cannot be written; the old state is complete.
    """
    old = read_description(folder)
    check_comparable(folder, old, description)
    refuse_links(folder)
    before = _read_list(folder, old)
    _check_list(folder, before, entries, same_root=old.root == description.root)
    remove_states(folder, but=old.generation)
    for partial in folder.glob(PART):  # from a killed run
        partial.unlink()
    gone_before = gone_folder(folder, old.generation)
    known: dict[str, _Rows] = {}
    for other in (gone_before, *folder.glob(STAGING)):
        known |= _known_rows(other, _list_if_complete(other), console)
    own = _known_rows(folder, before, console)
    known |= own
    missing = [number for number, entry in enumerate(entries) if entry.content not in known]
    gone = _gone([each for each in (_list_if_complete(gone_before), before) if each is not None], entries)
    num_kept = f"{len(entries) - len(missing):,} of {counted(len(entries), noun_of(lines))} already embedded"
    say(console, f"{num_kept}; new or changed: {len(missing):,}; gone from the list: {len(gone):,}")
    if description.files_sha256 == old.files_sha256 and all(entry.content in own for entry in entries):
        new = replace(description, shard_videos=old.shard_videos, generation=old.generation, num_gone=old.num_gone)
        write_json(folder / VECTORS, new.to_json())
    else:
        if missing:
            staging = folder / STAGING.replace("*", _stamp_of(description, entries, missing))
            compute(missing, staging)
            known |= _known_rows(staging, _list_if_complete(staging), console)
        new = replace(description, generation=old.generation + 1, num_gone=len(gone))
        _write_gone(folder, new, gone, known)
        _write_state(folder, new, lines, [entry.content for entry in entries], known)
        _forget_exports(folder, console)
        write_json(folder / VECTORS, new.to_json())
        remove_states(folder, but=new.generation)
    for staging in folder.glob(STAGING):
        shutil.rmtree(staging)


def _gone(before: Iterable[_List], entries: Sequence[Entry]) -> list[Entry]:
    """The videos that are no longer there: what they contain is not in the list, nor are they a file that changed."""
    contents, paths = {entry.content for entry in entries}, Counter(entry.path for entry in entries)
    latest: dict[str, list[bytes]] = {}
    for listed in before:
        own: dict[str, list[bytes]] = defaultdict(list)
        counts = Counter(listed.paths)
        for path, content, line in zip(listed.paths, listed.contents, listed.lines, strict=True):
            is_file = counts[path] == paths[path] == 1  # with other contents it is the same video; of spans each counts
            if content not in contents and not is_file:
                own[path].append(line)
        latest |= own
    return [parse_as(Entry, line, VECTORS) for lines in latest.values() for line in lines]


def _stamp_of(description: Description, entries: Sequence[Entry], missing: Sequence[int]) -> str:
    """Name what is computed: another list or network gets another folder."""
    lines = video_lines(entries[number] for number in missing)
    return replace(description, files_sha256=hashlib.sha256(lines).hexdigest()).stamp[:16]


def _check_list(folder: Path, before: _List, entries: Sequence[Entry], *, same_root: bool) -> None:
    if not all(before.contents):
        raise VectorsError(
            f"{folder} was written by an earlier version, which did not record what videos contain; embed again with "
            "--overwrite"
        )
    known = {*before.contents, *(before.paths if same_root else ())}
    if not any(entry.content in known or entry.path in known for entry in entries):
        embedded = [parse_as(Entry, line, VECTORS) for line in before.lines]
        now = segment_options(entries, {})
        if options := in_words(segment_options(embedded, now), now):
            raise VectorsError(
                f"{folder} contains {cut_text(embedded)}, and this list has {cut_text(entries)}, none of them in "
                f"common; to continue with them, {options}"
            )
        raise VectorsError(
            f"{folder} contains {counted(len(before.lines), 'video')}, and none of them is in this list; --append "
            "takes the list of all videos. To join collections, embed into another folder and use v3s merge"
        )


def _read_list(folder: Path, description: Description) -> _List:
    """Read the list of a folder in one go: 100,000 lines in a second."""
    listed = videos_path(folder, description.generation)
    try:
        content = read_bytes(listed)
    except CheckpointError as error:
        raise VectorsError(f"{error}; embed again with --overwrite") from error
    if hashlib.sha256(content).hexdigest() != description.files_sha256:
        raise VectorsError(f"{listed}: does not match {VECTORS}; embed again with --overwrite")
    if content.count(b"\n") != description.num_videos:
        raise VectorsError(f"{listed}: has another number of lines than {VECTORS} lists videos; use --overwrite")
    paths, contents = [], []
    for entry in entries_of(content, listed):
        paths.append(entry.path)
        contents.append(entry.content)
    return _List(description, content.splitlines(), paths, contents)


def _list_if_complete(folder: Path) -> _List | None:
    """The list of a folder of vectors; None if a killed run has not finished writing it, or there is none."""
    try:
        return _read_list(folder, read_description(folder))
    except (VectorsError, CheckpointError):
        return None


def _known_rows(folder: Path, listed: _List | None, console: Console) -> dict[str, _Rows]:
    """The rows of each video, by content, in the complete shards of a folder."""
    known: dict[str, _Rows] = {}
    if listed is None:
        return known
    description, size = listed.description, listed.description.shard_videos
    for number in range(description.num_shards):
        if not shard_path(folder, number, description.generation).exists():
            continue
        try:
            shard = read_shard(folder, number, description)
        except VectorsError as error:
            say(console, f"recomputing a shard: {error}")
            continue
        first = number * size
        contents = listed.contents[first : first + size]
        bounds = np.searchsorted(shard.videos.numpy(), np.arange(first, first + len(contents) + 1, dtype=np.int32))
        for content, low, high in zip(contents, bounds.tolist(), bounds[1:].tolist(), strict=False):
            if low < high:
                known[content] = _Rows(shard, low, high)
    return known


def _write_state(
    folder: Path, description: Description, lines: bytes, contents: Sequence[str], known: dict[str, _Rows]
) -> None:
    """Write list and shards of some videos, under the names of the description's generation."""
    write_whole(videos_path(folder, description.generation), lines)
    size = description.shard_videos
    for number in range(description.num_shards):
        first = number * size
        chosen = [known[content] for content in contents[first : first + size]]
        counts = [rows.high - rows.low for rows in chosen]
        videos = np.repeat(np.arange(first, first + len(chosen), dtype=np.int32), counts)
        joined = join_shards([rows.shard.cut(rows.low, rows.high) for rows in _runs(chosen)])
        save_shard(folder, number, replace(joined, videos=torch.from_numpy(videos)), description)


def _runs(chosen: Iterable[_Rows]) -> Iterator[_Rows]:
    """Join rows that follow each other in a shard, so that few pieces are copied."""
    run: _Rows | None = None
    for rows in chosen:
        if run is not None and rows.shard is run.shard and rows.low == run.high:
            run = _Rows(run.shard, run.low, rows.high)
            continue
        if run is not None:
            yield run
        run = rows
    if run is not None:
        yield run


def _write_gone(folder: Path, description: Description, gone: Sequence[Entry], known: dict[str, _Rows]) -> None:
    """Keep the vectors of videos that are gone in a folder of their own."""
    kept = [entry for entry in gone if entry.content in known]
    if not kept:
        return
    lines = video_lines(kept)
    own = replace(
        description,
        files_sha256=hashlib.sha256(lines).hexdigest(),
        num_videos=len(kept),
        num_vectors=sum(known[entry.content].high - known[entry.content].low for entry in kept),
        num_padded=0,
        num_missing=0,
        left_out={},
        generation=0,
        num_gone=0,
    )
    place = gone_folder(folder, description.generation)
    _write_state(place, own, lines, [entry.content for entry in kept], known)
    write_json(place / VECTORS, own.to_json())


def _forget_exports(folder: Path, console: Console) -> None:
    """Remove exports of the old state; an index of it stays, and is refused by its stamp."""
    for name in EXPORTED:
        if (folder / name).exists():
            (folder / name).unlink()
            say(console, f"removed {folder / name}, which is out of date; write it again with --export")
    if (folder / INDEX_FILE).exists():
        say(console, f"{folder / INDEX_FILE} is out of date; build it again with v3s index --vectors {folder}")
