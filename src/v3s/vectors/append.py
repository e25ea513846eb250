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
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console

from v3s.files.reading import read_bytes
from v3s.files.text import counted, say
from v3s.files.writing import PART, CheckpointError, refuse_links, write_json, write_whole
from v3s.vectors.approximate import INDEX_FILE
from v3s.vectors.collection import (
    VECTORS,
    Description,
    Entry,
    Shard,
    VectorsError,
    entries_of,
    read_description,
    read_shard,
    save_shard,
    shard_path,
    video_lines,
    videos_path,
)
from v3s.vectors.folder import EXPORTED, STAGING, check_comparable, gone_folder, remove_states


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """The rows of one video: from ``low`` to before ``high`` of a shard."""

    shard: Shard
    low: int
    high: int


def append_vectors(
    folder: Path,
    description: Description,
    entries: Sequence[Entry],
    compute: Callable[[list[int], Path], None],
    console: Console,
) -> None:
    """Bring a folder of vectors to the state that a fresh embedding of a list would have.

    Args:
        folder: the folder, which the caller has locked.
        description: of the whole list; its generation does not count.
        entries: the videos of the list, in order.
        compute: writes the vectors of some videos, by number in the list, into a folder of vectors.
        console: where to report.

    Raises:
        VectorsError: the folder contains vectors of another network, preprocessing or format, or of other videos
            altogether, or an earlier version wrote it.
        SaveError: a file cannot be written; the old state is complete.
    """
    old = read_description(folder)
    check_comparable(folder, old, description, video_lines(entries))
    refuse_links(folder)
    before = _entries_in(folder, old)
    _check_entries(folder, before, entries, same_root=old.root == description.root)
    remove_states(folder, but=old.generation)
    for partial in folder.glob(PART):  # from a killed run
        partial.unlink()
    own, gone_before = _known_rows([folder], console), gone_folder(folder, old.generation)
    known = _known_rows([gone_before, *folder.glob(STAGING)], console) | own
    missing = [number for number, entry in enumerate(entries) if entry.content not in known]
    gone = _gone((*_listed(gone_before), *before), entries)
    num_kept = f"{len(entries) - len(missing):,} of {counted(len(entries), 'video')} already embedded"
    say(console, f"{num_kept}; new or changed: {len(missing):,}; gone from the list: {len(gone):,}")
    if description.files_sha256 == old.files_sha256 and all(entry.content in own for entry in entries):
        new = replace(description, shard_videos=old.shard_videos, generation=old.generation, num_gone=old.num_gone)
        write_json(folder / VECTORS, new.to_json())
    else:
        if missing:
            staging = folder / STAGING.replace("*", _stamp_of(description, entries, missing))
            compute(missing, staging)
            known |= _known_rows([staging], console)
        new = replace(description, generation=old.generation + 1, num_gone=len(gone))
        _write_gone(folder, new, gone, known)
        _write_state(folder, new, entries, known)
        _forget_exports(folder, console)
        write_json(folder / VECTORS, new.to_json())
        remove_states(folder, but=new.generation)
    for staging in folder.glob(STAGING):
        shutil.rmtree(staging)


def _gone(before: Iterable[Entry], entries: Sequence[Entry]) -> list[Entry]:
    """The videos that are no longer there: neither their path nor what they contain is in the list."""
    contents, paths = {entry.content for entry in entries}, {entry.path for entry in entries}
    latest = {entry.path: entry for entry in before}
    return [entry for entry in latest.values() if entry.path not in paths and entry.content not in contents]


def _stamp_of(description: Description, entries: Sequence[Entry], missing: Sequence[int]) -> str:
    """Name what is computed: another list or network gets another folder."""
    lines = video_lines(entries[number] for number in missing)
    return replace(description, files_sha256=hashlib.sha256(lines).hexdigest()).stamp[:16]


def _check_entries(folder: Path, before: Sequence[Entry], entries: Sequence[Entry], *, same_root: bool) -> None:
    if any(not entry.content for entry in before):
        raise VectorsError(
            f"{folder} was written by an earlier version, which did not record what videos contain; embed again with "
            "--overwrite"
        )
    known = {entry.content for entry in before} | {entry.path for entry in before if same_root}
    if not any(entry.content in known or entry.path in known for entry in entries):
        raise VectorsError(
            f"{folder} contains {counted(len(before), 'video')}, and none of them is in this list; --append takes the "
            "list of all videos. To join collections, embed into another folder and use v3s merge"
        )


def _entries_in(folder: Path, description: Description) -> list[Entry]:
    listed = videos_path(folder, description.generation)
    lines = read_bytes(listed)
    if hashlib.sha256(lines).hexdigest() != description.files_sha256:
        raise VectorsError(f"{listed}: does not match {VECTORS}; embed again with --overwrite")
    return list(entries_of(lines, folder))


def _listed(folder: Path) -> list[Entry]:
    """The videos of a folder of vectors; none if it is not complete."""
    try:
        return _entries_in(folder, read_description(folder))
    except (VectorsError, CheckpointError):
        return []


def _known_rows(folders: Iterable[Path], console: Console) -> dict[str, _Rows]:
    """The rows of each video, by content, in the complete shards of some folders."""
    known: dict[str, _Rows] = {}
    for folder in folders:
        entries = _listed(folder)
        if not entries:
            continue
        description, size = read_description(folder), read_description(folder).shard_videos
        for number in range(description.num_shards):
            if not shard_path(folder, number, description.generation).exists():
                continue
            try:
                shard = read_shard(folder, number, description)
            except VectorsError as error:
                say(console, f"recomputing a shard: {error}")
                continue
            part = range(number * size, min((number + 1) * size, len(entries)))
            bounds = torch.searchsorted(shard.videos, torch.arange(part.start, part.stop + 1, dtype=torch.int32))
            for video, low, high in zip(part, bounds.tolist(), bounds[1:].tolist(), strict=False):
                if low < high:
                    known[entries[video].content] = _Rows(shard, low, high)
    return known


def _write_state(folder: Path, description: Description, entries: Sequence[Entry], known: dict[str, _Rows]) -> None:
    """Write list and shards of some videos, under the names of the description's generation."""
    write_whole(videos_path(folder, description.generation), video_lines(entries))
    size = description.shard_videos
    for number in range(description.num_shards):
        first = number * size
        chosen = [known[entry.content] for entry in entries[first : first + size]]
        counts = torch.tensor([rows.high - rows.low for rows in chosen])
        videos = torch.arange(first, first + len(chosen), dtype=torch.int32).repeat_interleave(counts)
        pieces = list(_runs(chosen))
        vectors, starts, ends = (
            torch.cat([getattr(rows.shard, name)[rows.low : rows.high] for rows in pieces])
            for name in ("vectors", "starts", "ends")
        )
        save_shard(folder, number, Shard(vectors, videos, starts, ends), description)


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
    own = replace(
        description,
        files_sha256=hashlib.sha256(video_lines(kept)).hexdigest(),
        num_videos=len(kept),
        num_vectors=sum(known[entry.content].high - known[entry.content].low for entry in kept),
        num_padded=0,
        num_missing=0,
        left_out={},
        generation=0,
        num_gone=0,
    )
    place = gone_folder(folder, description.generation)
    _write_state(place, own, kept, known)
    write_json(place / VECTORS, own.to_json())


def _forget_exports(folder: Path, console: Console) -> None:
    """Remove exports of the old state; an index of it stays, and is refused by its stamp."""
    for name in EXPORTED:
        if (folder / name).exists():
            (folder / name).unlink()
            say(console, f"removed {folder / name}, which is out of date; write it again with --export")
    if (folder / INDEX_FILE).exists():
        say(console, f"{folder / INDEX_FILE} is out of date; build it again with v3s index --vectors {folder}")
