"""The folder of new vectors: begun, resumed, or refused because it contains others, and written shard by shard."""

import hashlib
import re
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor
from torch.nn import functional as F

from v3s.data.index_table import IndexTable, content_of
from v3s.data.lists.splits import VideoList
from v3s.data.scan import Scan
from v3s.data.usable import usable_videos
from v3s.data.views import count_padded
from v3s.files.lock import is_free
from v3s.files.reading import read_bytes
from v3s.files.text import counted, say
from v3s.files.writing import PART, json_as_bytes, refuse_links, write_files
from v3s.scale.job import JOB, all_videos, missing_parts, read_job, read_outcomes, read_vectors
from v3s.vectors.collection import read_shard, save_shard, shard_path, videos_path
from v3s.vectors.description import DTYPES, VECTORS, Description, VectorsError, as_description, read_description
from v3s.vectors.entries import VIDEOS, Entry, Shard, cut_text, entries_of, noun_of, segment_options, video_lines
from v3s.video.light.mask import mask_text
from v3s.video.span import Span

EXPORTED = ("vectors.npy", "rows.csv", "vectors.csv", "vectors.parquet")
ROWS = "rows"
"""Folder of the job in a folder of vectors that an engine computes."""

STAGING = ".append-*"
"""Folders in a folder of vectors that v3s embed --append has not finished."""

MOST_IN_SHARD = 1000
_LEAST_IN_SHARD, _NUM_SHARDS = 10, 50

_DERIVED = (*EXPORTED, "index.faiss", "index.json")
_NUM_NAMED = 5


def begin_folder(folder: Path, description: Description, lines: bytes, *, overwrite: bool) -> Description:
    """Create the folder for new vectors, or resume one that is incomplete.

    Returns:
        The description; a resumed folder keeps its generation.

    Raises:
        VectorsError: the folder contains other vectors and ``overwrite`` is not set, or it contains something else,
            which is never overwritten.
    """
    if _has_vectors(folder):
        if overwrite:
            _clear(folder)
        else:
            old = read_description(folder)
            _check_same(folder, old, description, lines)
            description = replace(description, generation=old.generation, num_gone=old.num_gone)
    if folder.is_dir():
        refuse_links(folder)
    for part in folder.glob(PART):  # from a killed run
        part.unlink()
    described = json_as_bytes(description.to_json())
    write_files({folder / VECTORS: described, videos_path(folder, description.generation): lines})
    return description


def check_folder(folder: Path, description: Description, videos: VideoList, *, overwrite: bool) -> None:
    """Refuse a folder for new vectors before the videos are read, as far as the network and their names show.

    Args:
        folder: the folder.
        description: of the vectors of no video.
        videos: the list.
        overwrite: whether vectors that are there will be replaced.

    Raises:
        VectorsError: see :func:`begin_folder`.
    """
    if not _has_vectors(folder) or overwrite:
        return
    old = read_description(folder)
    file = videos_path(folder, old.generation)
    lines = read_bytes(file) if file.is_file() else b""
    is_whole = hashlib.sha256(lines).hexdigest() == old.files_sha256  # otherwise it is written again
    is_other = is_whole and not {entry.path for entry in entries_of(lines, file)} <= set(videos.paths)
    new = replace(description, source=videos.source, files_sha256="" if is_other else old.files_sha256)
    _check_same(folder, old, new, b"", videos)


def _has_vectors(folder: Path) -> bool:
    """Whether there are vectors in a folder for new ones.

    Raises:
        VectorsError: it is a file, or contains something else.
    """
    if folder.exists() and not folder.is_dir():
        raise VectorsError(f"{folder} is a file; vectors need a folder")
    if not folder.is_dir() or is_free(folder, ROWS):
        return False
    if not (folder / VECTORS).is_file():
        raise VectorsError(f"{folder} is not empty and does not contain vectors; choose another folder with --out")
    return True


def _clear(folder: Path) -> None:
    """Remove all but vectors.json, which the new one replaces: without it, labels would make the folder another's."""
    remove_states(folder)
    for staging in folder.glob(STAGING):
        shutil.rmtree(staging)
    for name in _DERIVED:
        (folder / name).unlink(missing_ok=True)


def gone_folder(folder: Path, generation: int) -> Path:
    """The vectors of videos that an earlier state of the folder had and its list no longer has."""
    return folder / f"gone.{generation}"


def remove_states(folder: Path, but: int | None = None) -> None:
    """Remove lists, shards and gone videos of a folder, except those of one generation."""
    for path in list(folder.iterdir()):
        found = re.fullmatch(r"(shard-\d+|videos|gone)(?:\.(\d+))?(\.safetensors|\.jsonl)?", path.name)
        if found is None or (found[1] == "gone") != path.is_dir() or (but is not None and int(found[2] or 0) == but):
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def check_comparable(folder: Path, old: Description, new: Description, videos: VideoList | None = None) -> None:
    """Refuse to append vectors of another network, preprocessing or format.

    Args:
        folder: the folder.
        old: of its vectors.
        new: of the vectors to append.
        videos: the list, if its files have not been read yet; the message then names the options that cut them, too.

    Raises:
        VectorsError: they differ.
    """
    same = replace(new, files_sha256=old.files_sha256, shard_videos=old.shard_videos)
    _check_same(folder, old, same, b"", videos)


def _check_same(
    folder: Path, old: Description, new: Description, lines: bytes, videos: VideoList | None = None
) -> None:
    differing = [name for name, value in new.identity.items() if old.identity[name] != value]
    if not differing:
        return
    before, now = _segments(folder, lines, videos)
    if "fingerprint" in differing:
        difference = f"from another network or preprocessing: {_summary(old)}; now {_summary(new)}"
    elif "files_sha256" in differing:
        changed = _changed_contents(folder, lines)
        shown = ", ".join(changed[:_NUM_NAMED]) + f" and {len(changed) - _NUM_NAMED:,} more" * (
            len(changed) > _NUM_NAMED
        )
        difference = f"of another list of videos: {old.source}; now {new.source}"
        if changed:
            difference = f"of other versions of {counted(len(changed), 'file')}, which changed since then: {shown}"
        was_cut, is_cut = map(cut_text, _both_lists(folder, lines))
        if changed and was_cut != is_cut:
            difference = f"cut with another --segment: {was_cut}, now {is_cut}"
        else:
            before = now  # no option makes other files the same
    else:
        values = (f"{name} {old.identity[name]}, now {new.identity[name]}" for name in differing)
        difference = f"with {', '.join(values)}"
    keep = "bring them up to date with v3s embed --append, " if differing == ["files_sha256"] else ""
    if options := _options_of(old, new, before, now):
        keep = f"to continue with them, {options}; to have others, "
    raise VectorsError(
        f"{folder} contains vectors {difference}; {keep}replace them with --overwrite or choose another folder with "
        "--out"
    )


def _segments(folder: Path, lines: bytes, videos: VideoList | None) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """The options that cut the videos of a folder, and those that cut the new ones; none where a list names spans."""
    if not lines and (videos is None or videos.bounds):
        return {}, {}
    before, after = map(list, _both_lists(folder, lines))
    now = segment_options(after, {}) if videos is None else videos.spans.segments
    return segment_options(before, now), now


def _options_of(old: Description, new: Description, before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What to give and what to omit for vectors like the old ones; empty where no option does it, as for weights."""
    if _without_options(old) != _without_options(new):
        return ""
    return in_words({**before, **_as_options(old)}, {**now, **_as_options(new)})


def in_words(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What to give and what to omit for the options of before; empty if they are those of now."""
    given = [f"--{name.replace('_', '-')} {value}".rstrip() for name, value in before.items() if now.get(name) != value]
    omitted = [f"--{name.replace('_', '-')}" for name in now if name not in before]
    words = {"give": given, "omit": omitted}
    return " and ".join(f"{verb} {' '.join(options)}" for verb, options in words.items() if options)


def _without_options(description: Description) -> object:
    """What no option of v3s embed but --backbone decides."""
    space = description.space
    picture = None if space.view.mask == "auto" else space.view.mask
    return space.weights, space.normalisation, space.view.resize, picture


def _as_options(description: Description) -> dict[str, str]:
    """The options that give such vectors from the same network; a default that needs none is not among them."""
    view, feature = description.space.view, description.space.feature
    values = {
        "stage": feature.stage,
        "pool": feature.pool,
        **{name: getattr(view, name) for name in ("clip_frames", "clip_size", "num_clips", "stride", "fps")},
        "window": view.window or "auto",
        "mask": mask_text(view.mask),
        "per_clip": "" if description.per_clip else None,
        "dtype": description.dtype,
        "shard_videos": description.shard_videos,
    }
    return {name: str(value) for name, value in values.items() if value is not None}


def _changed_contents(folder: Path, lines: bytes) -> list[str]:
    """The videos whose contents differ from those that a folder of vectors was made from."""
    before: dict[str, set[str]] = defaultdict(set)
    now: dict[str, set[str]] = defaultdict(set)
    for contents, entries in zip((before, now), _both_lists(folder, lines), strict=True):
        for entry in entries:
            contents[entry.path].add(entry.content)
    return [path for path, contents in now.items() if before.get(path, contents) not in ({""}, contents)]


def _both_lists(folder: Path, lines: bytes) -> tuple[Iterator[Entry], Iterator[Entry]]:
    """What a folder has vectors of, and what new lines name."""
    listed = videos_path(folder, read_description(folder).generation)
    return entries_of(read_bytes(listed), listed), entries_of(lines, listed)


def without_contents(lines: bytes, folder: Path) -> bytes:
    """The content of videos.jsonl as an earlier version wrote it."""
    return video_lines(replace(entry, content="") for entry in entries_of(lines, folder / VIDEOS))


def _summary(description: Description) -> str:
    space = description.space
    return (
        f"{description.network} (weights {space.weights[:8]}), {space.feature.stage}, {space.feature.pool}, "
        f"{space.view.clip_frames} frames of {space.view.clip_size} pixels, "
        + (f"stride {space.view.stride}" if space.view.stride else counted(space.view.num_clips, "clip"))
        + (f", {space.view.fps:g} frames per second" if space.view.fps else "")
        + (f", window {space.view.window}" if space.view.window else "")
        + (f", mask {mask_text(space.view.mask)}" if space.view.mask else "")
        + (f", normalised by {space.normalisation}" if space.normalisation else "")
    )


def complete_description(description: Description, scan: Scan, table: IndexTable, lines: bytes) -> Description:
    """Describe the vectors of all usable videos of a scan, or of some: those of the table and the lines."""
    view = description.space.view
    clips = (len(view.starts(int(num_frames))) for num_frames in table.num_frames)
    return replace(
        description,
        root=str(scan.videos.root.resolve()),
        source=scan.videos.source,
        files_sha256=hashlib.sha256(lines).hexdigest(),
        num_videos=len(table),
        num_vectors=sum(clips) if description.per_clip else len(table),
        num_padded=count_padded(table, view),
        num_missing=scan.videos.num_missing,
        left_out=scan.skipped,
    )


def gather_rows(rows: Path, folder: Path, *, overwrite: bool, console: Console) -> None:
    """Write the rows of a job as a folder of vectors: the one that a single process would have written.

    Raises:
        ValueError: parts of the job are missing, or no video is usable.
    """
    job = read_job(rows)
    if missing := missing_parts(rows, job):
        raise VectorsError(
            f"{rows}: {len(missing):,} of {counted(job.num_parts, 'part')} are missing; run v3s embed --engine again"
        )
    videos = all_videos(rows, job)
    scan = usable_videos(videos, min_frames=1, console=console, outcomes=read_outcomes(rows, job))
    lines, table = video_lines(entries_in(scan)), scan.usable_table
    description = complete_description(as_description(job.made, rows / JOB), scan, table, lines)
    description = begin_folder(folder, description, lines, overwrite=overwrite)
    write_shards(folder, partial(read_vectors, rows, job, scan), table, description, console)


def entries_in(scan: Scan) -> Iterator[Entry]:
    """Yield the entry of each usable video of a scan."""
    for position, index, label in zip(scan.usable, scan.usable_table, scan.usable_labels, strict=True):
        start = index.start_seconds if isinstance(index, Span) else 0.0
        length = index.num_frames, index.duration_seconds
        yield Entry(scan.videos.paths[position], label, *length, content_of(index), start)


def shard_size(num_videos: int) -> int:
    """Videos per shard, where none is asked for: a killed run loses a fiftieth of a small collection, too.

    >>> shard_size(16), shard_size(2_000), shard_size(1_000_000)
    (10, 40, 1000)
    """
    return min(max(num_videos // _NUM_SHARDS, _LEAST_IN_SHARD), MOST_IN_SHARD)


def write_shards(
    folder: Path,
    encode: Callable[[Sequence[int]], Generator[tuple[int, Tensor], None, None]],
    table: IndexTable,
    description: Description,
    console: Console,
) -> None:
    """Write the missing shards, and report the speed; if it is stopped, what is saved.

    Args:
        folder: the folder, which `begin_folder` has begun.
        encode: yields what the network gives for videos, by number: (number, float32 of shape (clips or 1, D)).
        table: the videos.
        description: what the folder contains.
        console: where to report.
    """
    size, noun = description.shard_videos, noun_of(read_bytes(videos_path(folder, description.generation)))
    parts = {
        number: range(number * size, min((number + 1) * size, len(table))) for number in range(description.num_shards)
    }
    missing = [number for number in parts if not _is_complete(folder, number, description, console)]
    videos = [video for number in missing for video in parts[number]]
    if len(videos) < len(table):
        say(console, f"{len(table) - len(videos):,} of {counted(len(table), noun)} are already embedded")
    began = time.perf_counter()
    encoded, num_saved = encode(videos), len(table) - len(videos)
    try:
        with closing(encoded):  # ends the progress bar before anything else is printed
            for number in missing:
                shard = _collect(islice(encoded, len(parts[number])), table, description)
                save_shard(folder, number, shard, description)
                num_saved += len(parts[number])
    except (KeyboardInterrupt, SystemExit):
        say(console, f"{num_saved:,} of {counted(len(table), noun)} are saved; continue with the same command")
        raise
    seconds = time.perf_counter() - began
    if missing:
        say(console, f"{counted(len(videos), noun)} in {seconds:.1f} s: {len(videos) / seconds:.1f} {noun}s/s")


def _is_complete(folder: Path, number: int, description: Description, console: Console) -> bool:
    if not shard_path(folder, number, description.generation).exists():
        return False
    try:
        read_shard(folder, number, description)
    except VectorsError as error:
        say(console, f"recomputing a shard: {error}")
        return False
    return True


def _collect(encoded: Iterable[tuple[int, Tensor]], table: IndexTable, description: Description) -> Shard:
    """Collect the vectors of videos in a shard."""
    view = description.space.view
    vectors, lengths, spans = [], [], []
    for video, rows in encoded:
        vectors.append(F.normalize(rows, dim=1).to(DTYPES[description.dtype]))
        lengths.append(rows.norm(dim=1))
        num_frames = int(table.num_frames[video])
        starts, length = (view.starts(num_frames), view.clip_frames) if description.per_clip else ([0], num_frames)
        spans += [(video, start, min(start + length, num_frames)) for start in starts]
    videos, starts, ends = torch.tensor(spans, dtype=torch.int32).T
    return Shard(torch.cat(vectors), videos, starts, ends, torch.cat(lengths))
