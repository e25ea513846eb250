"""``v3s embed``: every video of a collection to a unit vector on disk, or to one for each clip.

A shard's rows are numbered by their place in the list, so a changed list cannot resume in the old folder. For a
collection that grows, embed the new files into a folder of their own and put both together with ``v3s merge``.
"""

import hashlib
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console
from torch import Tensor

from v3s.data.index_table import IndexTable
from v3s.data.lists.listing import Subset
from v3s.data.lists.splits import VideoList, VideoOptions
from v3s.data.scan import Scan
from v3s.data.usable import usable_videos
from v3s.data.views import View, count_padded
from v3s.features.encoder import Encoder, open_encoder
from v3s.features.extract import Feature, Pool
from v3s.features.source import RANDOM, BackboneOptions
from v3s.files.lock import only_writer
from v3s.files.text import say
from v3s.options import require_positive
from v3s.vectors.collection import (
    DTYPES,
    Description,
    Entry,
    Shard,
    Vectors,
    VectorsError,
    begin_folder,
    open_vectors,
    read_shard,
    save_shard,
    shard_path,
    video_lines,
)
from v3s.vectors.export import EXPORTS, import_pyarrow


@dataclass(frozen=True, kw_only=True)
class EmbedConfig(BackboneOptions, VideoOptions):
    """Turn every video into one vector, or one for each clip.

    Attributes:
        out: Folder for the vectors.
        per_clip: Keep a vector for each clip instead of their mean.
        export: Also write the vectors as npy, csv or parquet.
        overwrite: Replace the vectors in the folder.

    More options:
        subset: Part of the split.
        stage: The backbone's stage that the vectors come from.
        pool: mean averages the stage over time and space; max max-pools it by two.
        stride: Frames between the starts of a sliding window's clips; 0 takes num_clips clips instead.
        dtype: Type of the numbers in the files.
        shard: Embed only part i of n of the list, given as i/n from 1/n to n/n, into a folder of its own; v3s merge
            joins the folders.
        shard_videos: Videos in a file; a killed run loses at most one file's vectors.
    """

    out: str
    subset: Subset = "all"
    stage: str = "conv5"
    pool: Pool = "mean"
    stride: int = 0
    per_clip: bool = False
    dtype: Literal["float16", "float32"] = "float16"
    shard: str = "1/1"
    shard_videos: int = 1000
    export: Literal["npy", "csv", "parquet"] | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "shard_videos")
        _parse_shard(self.shard)


def _parse_shard(shard: str) -> tuple[int, int]:
    """``"2/5"`` to (2, 5).

    Raises:
        ValueError: it is not of that form, or not from 1/n to n/n.
    """
    number, _, count = shard.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise ValueError(f"shard is {shard!r}; it must be i/n from 1/n to n/n, such as 2/5")
    return int(number), int(count)


def embed(config: EmbedConfig, *, console: Console | None = None) -> Vectors:
    """Turn videos into vectors; a run that was killed resumes where it was.

    Args:
        config: which network, which videos, which vectors, where to.
        console: where to report; the terminal by default.

    Returns:
        The vectors, memory-mapped.

    Raises:
        ValueError: the network or the videos cannot be opened, none can be read, or the folder holds other vectors.
    """
    console = console or Console()
    if config.export == "parquet":
        import_pyarrow()  # hours before it is needed
    encoder = open_encoder(config, [Feature(config.stage, config.pool)], stride=config.stride)
    listed = config.list_videos()
    part = take_shard(listed, *_parse_shard(config.shard))
    found = usable_videos(part, min_frames=1, console=console, workers=config.workers)
    lines = video_lines(_videos(found))
    description = _describe(config, encoder, found, lines)
    folder = Path(config.out)
    with only_writer(folder):
        begin_folder(folder, description, lines, overwrite=config.overwrite)
        _write_shards(config, encoder, found.usable_table, description, console)
        vectors = open_vectors(folder)
        if config.export is not None:
            EXPORTS[config.export](vectors)
    _report(vectors, console)
    return vectors


def take_shard(listed: VideoList, number: int, count: int) -> VideoList:
    """Part ``number`` (from 1) of ``count`` equal parts of a list, in its order; all parts in a row are the list.

    Raises:
        ValueError: there are fewer videos than parts.
    """
    if count == 1:
        return listed
    if len(listed) < count:
        raise ValueError(f"{listed.source}: cannot be divided into {count:,} parts; give a smaller --shard i/n")
    part = slice((number - 1) * len(listed) // count, number * len(listed) // count)
    paths = listed.paths[part]
    return replace(
        listed,
        paths=paths,
        labels=listed.labels[part],
        source=f"{listed.source}; part {number} of {count}: {len(paths):,} videos",
        num_missing=listed.num_missing if number == 1 else 0,  # so that the parts together miss as many
    )


def absolute_backbone(given: str) -> str:
    """What ``--backbone`` names, such that it holds from any working folder."""
    name = given.removeprefix(RANDOM)
    return given.removesuffix(name) + str(Path(name).resolve()) if Path(name).exists() else given


def _videos(found: Scan) -> Iterator[Entry]:
    for position, index, label in zip(found.usable, found.usable_table, found.usable_labels, strict=True):
        yield Entry(found.videos.paths[position], label, index.num_frames, index.duration_seconds)


def _describe(config: EmbedConfig, encoder: Encoder, found: Scan, lines: bytes) -> Description:
    table, view = found.usable_table, encoder.view
    clips = (len(view.starts(int(num_frames))) for num_frames in table.num_frames)
    return Description(
        backbone=absolute_backbone(config.backbone),
        seed=config.seed,
        network=encoder.source.network,
        stages=dict(encoder.backbone.stages),  # type: ignore[arg-type]
        space=encoder.space,
        per_clip=config.per_clip,
        dimension=encoder.dimension,
        dtype=config.dtype,
        root=str(found.videos.root.resolve()),
        source=found.videos.source,
        files_sha256=hashlib.sha256(lines).hexdigest(),
        num_videos=len(table),
        num_vectors=sum(clips) if config.per_clip else len(table),
        num_padded=count_padded(table, view),
        num_missing=found.videos.num_missing,
        left_out={report.path: report.reason for report in found.reports if report.verdict != "usable"},
        shard_videos=config.shard_videos,
    )


def _write_shards(
    config: EmbedConfig, encoder: Encoder, table: IndexTable, description: Description, console: Console
) -> None:
    """Write the shards that are not there yet, and say how fast that went."""
    folder, size = Path(config.out), description.shard_videos
    parts = {
        number: range(number * size, min((number + 1) * size, len(table))) for number in range(description.num_shards)
    }
    missing = [number for number in parts if not _is_whole(folder, number, description, console)]
    videos = [video for number in missing for video in parts[number]]
    if len(videos) < len(table):
        say(console, f"{len(table) - len(videos):,} of {len(table):,} videos were done before")
    began = time.perf_counter()
    encoded = encoder.encode_table(table, per_clip=config.per_clip, videos=videos, console=console)
    with closing(encoded):  # the bar ends before anything else is printed
        for number in missing:
            shard = _collect(islice(encoded, len(parts[number])), table, encoder.view, description)
            save_shard(folder, number, shard, description)
    seconds = time.perf_counter() - began
    if missing:
        say(console, f"{len(videos):,} videos in {seconds:.1f} s: {len(videos) / seconds:.1f} videos/s")


def _is_whole(folder: Path, number: int, description: Description, console: Console) -> bool:
    if not shard_path(folder, number).exists():
        return False
    try:
        read_shard(folder, number, description)
    except VectorsError as error:
        say(console, f"computed again: {error}")
        return False
    return True


def _collect(found: Iterable[tuple[int, Tensor]], table: IndexTable, view: View, description: Description) -> Shard:
    """A shard of encoded videos."""
    vectors, spans = [], []
    for video, encoded in found:
        vectors.append(encoded.to(DTYPES[description.dtype]))
        num_frames = int(table.num_frames[video])
        starts, length = (view.starts(num_frames), view.clip_frames) if description.per_clip else ([0], num_frames)
        spans += [(video, start, min(start + length, num_frames)) for start in starts]
    return Shard(torch.cat(vectors), *torch.tensor(spans, dtype=torch.int32).T)


def _report(vectors: Vectors, console: Console) -> None:
    stored = vectors.description
    if stored.num_padded:
        short = f"{stored.num_padded:,} of {stored.num_videos:,} videos are shorter than a clip"
        say(console, f"{short}: their last frame is repeated")
    skipped = f"; skipped: {len(stored.left_out):,}" if stored.left_out else ""
    say(
        console,
        f"{len(vectors):,} vectors of {stored.dimension:,} numbers ({stored.dtype}) of {stored.num_videos:,} videos in "
        f"{vectors.folder}{skipped}",
    )
