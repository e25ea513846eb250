"""``v3s merge``: folders of vectors, made on several machines or at several times, put together as one."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
from rich.console import Console

from v3s.files.text import say
from v3s.vectors.collection import (
    Description,
    Entry,
    Shard,
    Vectors,
    VectorsError,
    begin_folder,
    open_vectors,
    save_shard,
    video_lines,
)


@dataclass(frozen=True, kw_only=True)
class MergeConfig:
    """Join folders of vectors, such as those of v3s embed --shard.

    Attributes:
        parts: Folders of vectors, in the order that their videos will have.
        out: Folder for all of them.
        overwrite: Replace the vectors in the folder.
    """

    parts: Annotated[tuple[str, ...], "PART"]
    out: str
    overwrite: bool = False


def merge(config: MergeConfig, *, console: Console | None = None) -> Vectors:
    """Write one folder with the vectors of several; of the parts of one list it is the folder of the whole list.

    Args:
        config: the parts, in order, and where to.
        console: where to report; the terminal by default.

    Raises:
        ValueError: a part is incomplete or damaged, its vectors are not comparable with those of the first, a video
            is in two parts, or the folder holds other vectors.
    """
    console = console or Console()
    if len(config.parts) < 2:
        raise ValueError(f"{len(config.parts)} folders to merge given; two or more are needed")
    if Path(config.out).resolve() in {Path(part).resolve() for part in config.parts}:
        raise ValueError(f"{config.out} is one of the parts; give the merged vectors a folder of their own with --out")
    parts = [open_vectors(part) for part in config.parts]
    for part in parts[1:]:
        _check_comparable(parts[0], part)
    root = os.path.commonpath([part.description.root for part in parts])
    videos = [video for part in parts for video in _videos_below(root, part)]
    _check_disjoint(parts, videos)
    lines = video_lines(videos)
    description = _describe(parts, root, lines)
    folder = Path(config.out)
    begin_folder(folder, description, lines, overwrite=config.overwrite)
    for number, shard in enumerate(_cut(parts, description)):
        save_shard(folder, number, shard, description)
    merged = open_vectors(folder)
    say(console, f"{len(merged):,} vectors of {description.num_videos:,} videos from {len(parts)} folders in {folder}")
    return merged


def _check_comparable(first: Vectors, other: Vectors) -> None:
    """Refuse vectors of another network or preprocessing, or stored otherwise."""
    ours, theirs = (
        {"fingerprint": one.space.fingerprint, "per_clip": one.per_clip, "dtype": one.dtype}
        for one in (first.description, other.description)
    )
    differing = [f"{name} {ours[name]} and {theirs[name]}" for name in ours if ours[name] != theirs[name]]
    if differing:
        raise VectorsError(
            f"{first.folder} and {other.folder} hold vectors that cannot be mixed: {'; '.join(differing)}; "
            "embed one of them again with the options of the other"
        )


def _videos_below(root: str, part: Vectors) -> Iterator[Entry]:
    """The videos of a part, with paths from a root that all parts share."""
    stored = part.description
    for number in range(stored.num_videos):
        video = part.video(number)
        path = os.path.relpath(Path(stored.root) / video.path, root) if stored.root != root else video.path
        yield replace(video, path=Path(path).as_posix())


def _check_disjoint(parts: Sequence[Vectors], videos: Sequence[Entry]) -> None:
    """Refuse a video that is in two parts."""
    owners: dict[str, int] = {}
    numbers = (number for number, part in enumerate(parts) for _ in range(part.description.num_videos))
    for video, number in zip(videos, numbers, strict=True):
        if (other := owners.setdefault(video.path, number)) != number:
            raise VectorsError(
                f"{video.path} is in {parts[other].folder} and in {parts[number].folder}; leave it in one of them"
            )


def _describe(parts: Sequence[Vectors], root: str, lines: bytes) -> Description:
    stored = [part.description for part in parts]
    left_out = {
        Path(os.path.relpath(Path(one.root) / path, root)).as_posix(): reason
        for one in stored
        for path, reason in one.left_out.items()
    }
    return replace(
        stored[0],
        root=root,
        source=f"{len(stored)} folders of vectors, the first of {stored[0].source}",
        files_sha256=hashlib.sha256(lines).hexdigest(),
        num_videos=sum(one.num_videos for one in stored),
        num_vectors=sum(one.num_vectors for one in stored),
        num_padded=sum(one.num_padded for one in stored),
        num_missing=sum(one.num_missing for one in stored),
        left_out=left_out,
    )


def _cut(parts: Sequence[Vectors], description: Description) -> Iterator[Shard]:
    """All rows in order, cut into shards of as many videos as the first part's have."""
    pieces, first_video = [], 0
    for part in parts:
        pieces += [replace(shard, videos=shard.videos + first_video) for shard in part.shards]
        first_video += part.description.num_videos
    for number in range(description.num_shards):
        bounds = torch.tensor([number, number + 1], dtype=torch.int32) * description.shard_videos
        taken = []
        for piece in pieces:
            low, high = torch.searchsorted(piece.videos, bounds).tolist()
            taken.append([getattr(piece, name)[low:high] for name in Shard.__slots__])
        yield Shard(*map(torch.cat, zip(*taken, strict=True)))
