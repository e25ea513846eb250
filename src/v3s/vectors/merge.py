"""``v3s merge``: join folders of vectors that were computed on several machines or at different times."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
from rich.console import Console

from v3s.files.lock import only_writer
from v3s.files.text import counted, say
from v3s.files.writing import folder_beside
from v3s.options import CheckedOptions
from v3s.scale.job import is_job
from v3s.vectors.collection import Vectors, open_vectors, save_shard
from v3s.vectors.description import Description, VectorsError
from v3s.vectors.entries import Entry, Shard, join_shards, video_lines
from v3s.vectors.folder import begin_folder, gather_rows


@dataclass(frozen=True, kw_only=True)
class MergeConfig(CheckedOptions):
    """Join folders of vectors, such as those of v3s embed --shard.

    Attributes:
        parts: Folders of vectors, in the order that their videos will have in the result; also the Parquet of --engine
            (the folder rows).
        out: Folder for the joined vectors.
        overwrite: Replace the vectors in the folder.
    """

    parts: Annotated[tuple[str, ...], "PART"]
    out: str
    overwrite: bool = False


def merge(config: MergeConfig, *, console: Console | None = None) -> Vectors:
    """Write the vectors of several folders into one; the parts of a list give the folder of the whole list.

    Args:
        config: the parts, in order, and the new folder.
        console: where to report; the terminal by default.

    Raises:
        ValueError: a part is incomplete or damaged, its vectors are not comparable with those of the first, a video
            is in two parts, or the new folder contains other vectors.
    """
    console = console or Console()
    if len(config.parts) < 2 and not any(map(is_job, config.parts)):
        given = f"only {config.parts[0]} was given" if config.parts else "none was given"
        raise ValueError(f"merge joins two or more folders of vectors, but {given}; name all of them before --out")
    if Path(config.out).resolve() in {Path(part).resolve() for part in config.parts}:
        raise ValueError(f"{config.out} is one of the parts; choose another folder for the merged vectors with --out")
    with folder_beside(Path(config.out)) as temporary:
        parts = [_open(part, temporary / str(number)) for number, part in enumerate(config.parts)]
        merged = _merge(parts, Path(config.out), overwrite=config.overwrite)
    say(
        console,
        f"merged {counted(len(parts), 'folder')}: {counted(len(merged), 'vector')} of {merged.counted} in {config.out}",
    )
    return merged


def _open(part: str, gathered: Path) -> Vectors:
    """Open a folder of vectors, or gather the Parquet of an engine first."""
    if not is_job(part):
        return open_vectors(part)
    gather_rows(Path(part), gathered, overwrite=False, console=Console(quiet=True))
    return replace(open_vectors(gathered), folder=Path(part))  # which messages name


def _merge(parts: Sequence[Vectors], folder: Path, *, overwrite: bool) -> Vectors:
    for part in parts[1:]:
        _check_comparable(parts[0], part)
    root = os.path.commonpath([part.description.root for part in parts])
    videos = [video for part in parts for video in _videos_below(root, part)]
    _check_disjoint(parts, videos)
    lines = video_lines(videos)
    description = _describe(parts, root, lines)
    with only_writer(folder):
        description = begin_folder(folder, description, lines, overwrite=overwrite)
        for number, shard in enumerate(_reshard(parts, description)):
            save_shard(folder, number, shard, description)
        return open_vectors(folder)


def _check_comparable(first: Vectors, other: Vectors) -> None:
    """Refuse vectors with another network, preprocessing or storage format."""
    ours, theirs = (
        {"fingerprint": stored.space.fingerprint, "per_clip": stored.per_clip, "dtype": stored.dtype}
        for stored in (first.description, other.description)
    )
    differing = [f"{name} {ours[name]} and {theirs[name]}" for name in ours if ours[name] != theirs[name]]
    if differing:
        raise VectorsError(
            f"the vectors in {first.folder} and {other.folder} cannot be mixed: {'; '.join(differing)}; "
            "embed one of them again with the options of the other"
        )


def _videos_below(root: str, part: Vectors) -> Iterator[Entry]:
    """Yield the videos of a part, with paths relative to the common root of all parts."""
    stored = part.description
    for number in range(stored.num_videos):
        video = part.video(number)
        path = os.path.relpath(Path(stored.root) / video.path, root) if stored.root != root else video.path
        yield replace(video, path=Path(path).as_posix())


def _check_disjoint(parts: Sequence[Vectors], videos: Sequence[Entry]) -> None:
    """Refuse a video, or a span of one, that is in two parts."""
    owners: dict[tuple[str, float, float], int] = {}
    numbers = (number for number, part in enumerate(parts) for _ in range(part.description.num_videos))
    for video, number in zip(videos, numbers, strict=True):
        if (other := owners.setdefault((video.path, video.start_seconds, video.seconds), number)) != number:
            raise VectorsError(
                f"{video.path} is in both {parts[other].folder} and {parts[number].folder}; keep it in only one of them"
            )


def _describe(parts: Sequence[Vectors], root: str, lines: bytes) -> Description:
    descriptions = [part.description for part in parts]
    left_out = {
        Path(os.path.relpath(Path(stored.root) / path, root)).as_posix(): reason
        for stored in descriptions
        for path, reason in stored.left_out.items()
    }
    first = descriptions[0]
    return replace(
        first,
        root=root,
        source=f"{len(descriptions)} folders of vectors, the first of {first.source}",
        files_sha256=hashlib.sha256(lines).hexdigest(),
        num_videos=sum(stored.num_videos for stored in descriptions),
        num_vectors=sum(stored.num_vectors for stored in descriptions),
        num_padded=sum(stored.num_padded for stored in descriptions),
        num_missing=sum(stored.num_missing for stored in descriptions),
        left_out=left_out,
        generation=0,
        num_gone=0,
    )


def _reshard(parts: Sequence[Vectors], description: Description) -> Iterator[Shard]:
    """Yield all rows in order, in shards with as many videos as those of the first part."""
    pieces, first_video = [], 0
    for part in parts:
        pieces += [replace(shard, videos=shard.videos + first_video) for shard in part.shards]
        first_video += part.description.num_videos
    for number in range(description.num_shards):
        bounds = torch.tensor([number, number + 1], dtype=torch.int32) * description.shard_videos
        yield join_shards([piece.cut(*torch.searchsorted(piece.videos, bounds).tolist()) for piece in pieces])
