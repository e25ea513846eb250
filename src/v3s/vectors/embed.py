"""``v3s embed``: turn every video of a collection into a unit vector on disk, or into one per clip.

A shard's rows are numbered by their position in the list, so a changed list cannot resume in the old folder. For a
collection that changes, ``--append`` replaces the folder's state by another (`v3s.vectors.append`).
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from v3s.data.index_cache import file_key
from v3s.data.index_table import IndexTable
from v3s.data.lists.listing import Subset
from v3s.data.lists.splits import VideoList, VideoOptions
from v3s.data.scan import Scan
from v3s.data.store_folder import is_store, open_store
from v3s.data.usable import usable_videos
from v3s.features.encoder import LAST, Encoder, Feature, Pool, open_encoder
from v3s.features.hub import HUGGING_FACE
from v3s.features.source import RANDOM, BackboneOptions
from v3s.files.lock import only_writer
from v3s.files.parquet import import_pyarrow
from v3s.files.text import counted, say
from v3s.files.times import time_text
from v3s.options import require_folders, require_not_negative, require_positive
from v3s.scale.engine import EngineOptions, run_job
from v3s.scale.job import Job, begin_job
from v3s.vectors.append import append_vectors
from v3s.vectors.collection import Vectors, open_vectors
from v3s.vectors.description import VECTORS, Description, read_description
from v3s.vectors.entries import VIDEOS, video_lines
from v3s.vectors.export import EXPORTS
from v3s.vectors.folder import (
    MOST_IN_SHARD,
    ROWS,
    begin_folder,
    check_comparable,
    check_folder,
    complete_description,
    entries_in,
    gather_rows,
    shard_size,
    without_contents,
    write_shards,
)
from v3s.vectors.nearest.exact import zero_rows


@dataclass(frozen=True, kw_only=True)
class EmbedConfig(BackboneOptions, VideoOptions, EngineOptions):
    """Compute one feature vector per video, or one per clip.

    Attributes:
        out: Folder for the vectors.
        per_clip: Write one vector per clip instead of their mean.
        export: Also write the vectors as npy, csv or parquet.
        append: Bring the folder up to date: embed the videos that are new or changed, and no longer search those that
            are gone from the list.
        overwrite: Replace the vectors in the folder.

    More options:
        subset: Part of the split.
        stage: Stage of the backbone that the vectors come from; last is the deepest (conv5 of the built-in networks).
        pool: mean averages the stage over time and space; max applies 2 x 2 max pooling in space.
        stride: Frames between the starts of consecutive clips (a sliding window); 0 takes --num-clips clips instead.
        dtype: Type of the numbers in the files; float32 keeps every digit, float16 takes half the space.
        shard: Embed only part i of n of the list, given as i/n, such as 2/4, into its own folder; v3s merge joins the
            folders.
        shard_videos: Videos per file; a killed run loses at most the vectors of one file. Default: a fiftieth of the
            videos, from 10 to 1,000; in a folder that is continued, as many as there.
    """

    out: str
    subset: Subset = "all"
    stage: str = LAST
    pool: Pool = "mean"
    stride: int = 0
    per_clip: bool = False
    dtype: Literal["float16", "float32"] = "float16"
    shard: str = "1/1"
    shard_videos: int | None = None
    export: Literal["npy", "csv", "parquet"] | None = None
    append: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "shard_videos")
        require_not_negative(self, "stride")
        require_folders(self, "out")
        _parse_shard(self.shard)
        if self.append and (self.overwrite or self.shard != "1/1"):
            other = "--overwrite" if self.overwrite else "--shard"
            raise ValueError(f"--append and {other} were given; --append keeps what it can, for the whole list")
        if self.engine is not None and (self.append or self.shard != "1/1"):
            other = "--append" if self.append else "--shard"
            raise ValueError(f"--engine and {other} were given; the engine divides the whole list by itself")


def _parse_shard(shard: str) -> tuple[int, int]:
    """Parse ``"2/5"`` as (2, 5).

    Raises:
        ValueError: the text does not have this form, or is not from 1/n to n/n.
    """
    number, _, count = shard.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise ValueError(f"shard is {shard!r}; it must be i/n, from 1/n to n/n, such as 2/5")
    return int(number), int(count)


def embed(config: EmbedConfig, *, console: Console | None = None) -> Vectors:
    """Turn videos into vectors; a killed run resumes at the first missing shard.

    Args:
        config: which network, which videos, which vectors, which folder.
        console: where to report; the terminal by default.

    Returns:
        The vectors, memory-mapped.

    Raises:
        ValueError: the network or the videos cannot be opened, no video is readable, or the folder contains other
            vectors.
    """
    console = console or Console()
    if config.export == "parquet":
        import_pyarrow()  # fails before the long work
    encoder = _open(config)
    listed = config.list_videos(encoder.view)
    listed = take_shard(listed, *_parse_shard(config.shard))
    folder, description = Path(config.out), _describe(config, encoder)
    with only_writer(folder):
        if config.append and (folder / VECTORS).is_file():
            check_comparable(folder, read_description(folder), description, listed)
        else:
            check_folder(folder, description, listed, overwrite=config.overwrite)
        if config.engine is not None:
            rows = folder / ROWS
            job = begin_job(rows, listed, description.to_json(), overwrite=config.overwrite)
            _run_engine(rows, job, config, encoder, console)
            gather_rows(rows, folder, overwrite=config.overwrite, console=console)
        else:
            scan = usable_videos(listed, min_frames=1, console=console, workers=config.workers)
            if config.shard_videos is None and (config.append or config.overwrite or not (folder / VECTORS).is_file()):
                description = replace(description, shard_videos=shard_size(len(scan.usable)))
            _embed_here(folder, config, encoder, description, scan, console)
        vectors = open_vectors(folder)
        if config.export is not None:
            EXPORTS[config.export](vectors)
    _report(vectors, console)
    return vectors


def _open(config: EmbedConfig) -> Encoder:
    return open_encoder(config, [Feature(config.stage, config.pool)], stride=config.stride)


def _run_engine(rows: Path, job: Job, config: EmbedConfig, encoder: Encoder, console: Console) -> None:
    """Let an engine compute what is missing of a job; with a GPU, the cores of an actor read videos."""
    gpu = encoder.compute.device.type == "cuda"
    there = replace(config, backbone=absolute_backbone(config.backbone), workers=config.actor_cores if gpu else 0)
    run_job(rows, job, config, partial(_open, there), console, per_clip=config.per_clip, gpu=gpu)


def _embed_here(
    folder: Path, config: EmbedConfig, encoder: Encoder, description: Description, scan: Scan, console: Console
) -> None:
    """Compute the vectors in this process."""
    entries = list(entries_in(scan))
    lines = video_lines(entries)
    if not config.append:
        lines = _lines_of_folder(folder, lines)
    whole = scan.usable_table

    def write(into: Path, table: IndexTable, complete: Description) -> None:
        def encode(videos: Sequence[int]) -> Generator[tuple[int, Tensor], None, None]:
            return encoder.encode_table(table, per_clip=config.per_clip, videos=videos, console=console, scaled=False)

        write_shards(into, encode, table, complete, console)

    def compute(numbers: list[int], into: Path) -> None:
        new, listed = whole.subset(numbers), video_lines(entries[number] for number in numbers)
        part = begin_folder(into, complete_description(description, scan, new, listed), listed, overwrite=False)
        write(into, new, part)

    complete = complete_description(description, scan, whole, lines)
    if config.append and (folder / VECTORS).is_file():
        append_vectors(folder, complete, entries, lines, compute, console)
    else:
        write(folder, whole, begin_folder(folder, complete, lines, overwrite=config.overwrite))


def take_shard(listed: VideoList, number: int, count: int) -> VideoList:
    """Return part ``number`` (from 1) of ``count`` consecutive parts of a list, of nearly equal numbers of frames.

    Before a file is read, its size stands for its frames; seconds of listed spans and frames of a store are known.

    Raises:
        ValueError: there are fewer videos than parts.
    """
    if count == 1:
        return listed
    if len(listed) < count:
        raise ValueError(f"{listed.source}: cannot be divided into {count:,} parts; reduce n in --shard i/n")
    before, shares = np.cumsum(_lengths(listed)), np.arange(count + 1)
    crossing = np.searchsorted(before, before[-1] * shares[1:-1] // count)  # belongs to the share whose end it crosses
    ends = np.concatenate([[0], crossing + 1, [len(listed)]])
    ends = np.maximum.accumulate(ends - shares) + shares  # none is empty
    ends = np.minimum(ends, len(listed) - shares[::-1])
    part = slice(int(ends[number - 1]), int(ends[number]))
    paths = listed.paths[part]
    return replace(
        listed,
        paths=paths,
        labels=listed.labels[part],
        bounds=listed.bounds[part],
        source=f"{listed.source}; part {number} of {count}: {len(paths):,} videos",
        num_missing=listed.num_missing if number == 1 else 0,  # counted once over all parts
    )


def _lengths(listed: VideoList) -> NDArray[np.int64]:
    """What stands for the numbers of frames of entries; whole numbers, which every machine adds up alike."""
    if listed.bounds and all(end is not None for _, end in listed.bounds):
        lengths = [int(1000 * (end - start)) for start, end in listed.bounds if end is not None]
    elif is_store(listed.root):
        files = open_store(listed.root).files
        lengths = [files[path].outcome.num_frames for path in listed.paths]
    else:
        keys = (file_key(listed.root, path) for path in listed.paths)
        lengths = [0 if key is None else key[1] for key in keys]
    known: NDArray[np.int64] = np.array(lengths, np.int64)
    return known + 1 + int(known.sum()) // (1000 * len(known))  # opening a file takes time, too


def absolute_backbone(backbone: str) -> str:
    """Return the value of ``--backbone`` with an absolute path, valid in any working directory."""
    name = backbone.removeprefix(RANDOM).removeprefix(HUGGING_FACE)
    return backbone.removesuffix(name) + str(Path(name).resolve()) if Path(name).exists() else backbone


def _lines_of_folder(folder: Path, lines: bytes) -> bytes:
    """The lines of videos.jsonl; to resume in a folder of an earlier version, as that version wrote them."""
    written = folder / VIDEOS  # later generations have contents
    before = without_contents(lines, folder)
    return before if written.is_file() and written.read_bytes() == before else lines


def _describe(config: EmbedConfig, encoder: Encoder) -> Description:
    """Describe the vectors of no video."""
    return Description(
        backbone=absolute_backbone(config.backbone),
        seed=config.seed,
        network=encoder.source.network,
        stages=dict(encoder.backbone.stages),  # type: ignore[arg-type]
        space=encoder.space,
        per_clip=config.per_clip,
        dimension=encoder.dimension,
        dtype=config.dtype,
        root="",
        source="",
        files_sha256="",
        num_videos=0,
        num_vectors=0,
        num_padded=0,
        num_missing=0,
        left_out={},
        shard_videos=config.shard_videos or _shard_videos_in(Path(config.out), overwrite=config.overwrite),
    )


def _shard_videos_in(folder: Path, *, overwrite: bool) -> int:
    """Videos per shard of a folder, which is continued with as many; of one that an engine will write, the most."""
    is_continued = (folder / VECTORS).is_file() and not overwrite  # what is replaced may be unreadable
    return read_description(folder).shard_videos if is_continued else MOST_IN_SHARD


def _report(vectors: Vectors, console: Console) -> None:
    stored = vectors.description
    if stored.num_padded:
        short = f"{stored.num_padded:,} of {vectors.counted} are shorter than a clip"
        say(console, f"{short}: their last frame is repeated")
    zeros = zero_rows([shard.vectors for shard in vectors.shards])
    if len(zeros):
        place = vectors.place_of(int(zeros[0]))
        times = f"{time_text(place.start_seconds)} to {time_text(place.end_seconds)}"
        say(
            console,
            f"{counted(len(zeros), 'vector')} of zeros (black?), which nothing is similar to; "
            f"the first: {place.entry.path}, {times}",
        )
    skipped = f"; skipped: {len(stored.left_out):,}" if stored.left_out else ""
    skipped += f"; gone, not searched: {stored.num_gone:,}" if stored.num_gone else ""
    say(
        console,
        f"{counted(len(vectors), 'vector')} of {stored.dimension:,} numbers ({stored.dtype}) from "
        f"{vectors.counted} "
        f"in {vectors.folder}{skipped}",
    )
