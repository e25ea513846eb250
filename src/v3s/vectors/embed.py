"""``v3s embed``: turn every video of a collection into a unit vector on disk, or into one per clip.

A shard's rows are numbered by their position in the list, so a changed list cannot resume in the old folder. For a
collection that changes, ``--append`` replaces the folder's state by another (`v3s.vectors.append`).
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
from torch.nn import functional as F

from v3s.data.index_table import IndexTable, content_of
from v3s.data.lists.listing import Subset
from v3s.data.lists.splits import VideoList, VideoOptions
from v3s.data.scan import Scan
from v3s.data.usable import usable_videos
from v3s.data.views import View, count_padded
from v3s.features.encoder import LAST, Encoder, Feature, Pool, open_encoder
from v3s.features.hub import HUGGING_FACE
from v3s.features.source import RANDOM, BackboneOptions
from v3s.files.lock import only_writer
from v3s.files.reading import read_bytes
from v3s.files.text import counted, say
from v3s.files.times import time_text
from v3s.options import require_folders, require_not_negative, require_positive
from v3s.vectors.append import append_vectors
from v3s.vectors.collection import (
    DTYPES,
    VECTORS,
    Description,
    Vectors,
    VectorsError,
    open_vectors,
    read_shard,
    save_shard,
    shard_path,
    videos_path,
)
from v3s.vectors.entries import VIDEOS, Entry, Shard, noun_of, video_lines
from v3s.vectors.exact import zero_rows
from v3s.vectors.export import EXPORTS, import_pyarrow
from v3s.vectors.folder import begin_folder, without_contents
from v3s.video.span import Span


@dataclass(frozen=True, kw_only=True)
class EmbedConfig(BackboneOptions, VideoOptions):
    """Compute one feature vector per video, or one per clip.

    Attributes:
        out: Folder for the vectors.
        per_clip: Write one vector per clip instead of their mean.
        export: Also write the vectors as npy, csv or parquet.
        append: Bring the folder up to date: compute the videos that are new or changed, and no longer search those
            that are gone from the list.
        overwrite: Replace the vectors in the folder.

    More options:
        subset: Part of the split.
        stage: Stage of the backbone that the vectors come from; last is the deepest (conv5 of the built-in networks).
        pool: mean averages the stage over time and space; max applies 2 x 2 max pooling in space.
        stride: Frames between the starts of consecutive clips (a sliding window); 0 takes --num-clips clips instead.
        dtype: Type of the numbers in the files.
        shard: Embed only part i of n of the list, written as i/n (1/n to n/n), into its own folder; v3s merge joins the
            folders.
        shard_videos: Videos per file; a killed run loses at most the vectors of one file.
    """

    out: str
    subset: Subset = "all"
    stage: str = LAST
    pool: Pool = "mean"
    stride: int = 0
    per_clip: bool = False
    dtype: Literal["float16", "float32"] = "float16"
    shard: str = "1/1"
    shard_videos: int = 1000
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
    encoder = open_encoder(config, [Feature(config.stage, config.pool)], stride=config.stride)
    listed = config.list_videos(encoder.view.fps, encoder.view.window, encoder.view.mask)
    part = take_shard(listed, *_parse_shard(config.shard))
    scan = usable_videos(part, min_frames=1, console=console, workers=config.workers)
    folder, entries = Path(config.out), list(_entries(scan))
    lines = video_lines(entries)
    if not config.append:
        lines = _lines_of_folder(folder, lines)
    table = scan.usable_table
    description = _describe(config, encoder, scan, table, lines)
    with only_writer(folder):
        if config.append and (folder / VECTORS).is_file():

            def compute(numbers: list[int], into: Path) -> None:
                new, listed = table.subset(numbers), video_lines(entries[number] for number in numbers)
                part = begin_folder(into, _describe(config, encoder, scan, new, listed), listed, overwrite=False)
                _write_shards(into, encoder, new, part, console)

            append_vectors(folder, description, entries, lines, compute, console)
        else:
            description = begin_folder(folder, description, lines, overwrite=config.overwrite)
            _write_shards(folder, encoder, table, description, console)
        vectors = open_vectors(folder)
        if config.export is not None:
            EXPORTS[config.export](vectors)
    _report(vectors, console)
    return vectors


def take_shard(listed: VideoList, number: int, count: int) -> VideoList:
    """Return part ``number`` (from 1) of ``count`` nearly equal, consecutive parts of a list.

    Raises:
        ValueError: there are fewer videos than parts.
    """
    if count == 1:
        return listed
    if len(listed) < count:
        raise ValueError(f"{listed.source}: cannot be divided into {count:,} parts; reduce n in --shard i/n")
    part = slice((number - 1) * len(listed) // count, number * len(listed) // count)
    paths = listed.paths[part]
    return replace(
        listed,
        paths=paths,
        labels=listed.labels[part],
        bounds=listed.bounds[part],
        source=f"{listed.source}; part {number} of {count}: {len(paths):,} videos",
        num_missing=listed.num_missing if number == 1 else 0,  # counted once over all parts
    )


def absolute_backbone(backbone: str) -> str:
    """Return the value of ``--backbone`` with an absolute path, valid in any working directory."""
    name = backbone.removeprefix(RANDOM).removeprefix(HUGGING_FACE)
    return backbone.removesuffix(name) + str(Path(name).resolve()) if Path(name).exists() else backbone


def _entries(scan: Scan) -> Iterator[Entry]:
    for position, index, label in zip(scan.usable, scan.usable_table, scan.usable_labels, strict=True):
        start = index.start_seconds if isinstance(index, Span) else 0.0
        length = index.num_frames, index.duration_seconds
        yield Entry(scan.videos.paths[position], label, *length, content_of(index), start)


def _lines_of_folder(folder: Path, lines: bytes) -> bytes:
    """The lines of videos.jsonl; to resume in a folder of an earlier version, as that version wrote them."""
    written = folder / VIDEOS  # later generations have contents
    before = without_contents(lines, folder)
    return before if written.is_file() and written.read_bytes() == before else lines


def _describe(config: EmbedConfig, encoder: Encoder, scan: Scan, table: IndexTable, lines: bytes) -> Description:
    """Describe the vectors of all usable videos of a scan, or of some: those of the table and the lines."""
    view = encoder.view
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
        root=str(scan.videos.root.resolve()),
        source=scan.videos.source,
        files_sha256=hashlib.sha256(lines).hexdigest(),
        num_videos=len(table),
        num_vectors=sum(clips) if config.per_clip else len(table),
        num_padded=count_padded(table, view),
        num_missing=scan.videos.num_missing,
        left_out=scan.skipped,
        shard_videos=config.shard_videos,
    )


def _write_shards(
    folder: Path, encoder: Encoder, table: IndexTable, description: Description, console: Console
) -> None:
    """Write the missing shards, and report the speed."""
    size, noun = description.shard_videos, noun_of(read_bytes(videos_path(folder, description.generation)))
    parts = {
        number: range(number * size, min((number + 1) * size, len(table))) for number in range(description.num_shards)
    }
    missing = [number for number in parts if not _is_complete(folder, number, description, console)]
    videos = [video for number in missing for video in parts[number]]
    if len(videos) < len(table):
        say(console, f"{len(table) - len(videos):,} of {counted(len(table), noun)} are already embedded")
    began = time.perf_counter()
    encoded = encoder.encode_table(table, per_clip=description.per_clip, videos=videos, console=console, scaled=False)
    with closing(encoded):  # ends the progress bar before anything else is printed
        for number in missing:
            shard = _collect(islice(encoded, len(parts[number])), table, encoder.view, description)
            save_shard(folder, number, shard, description)
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


def _collect(encoded: Iterable[tuple[int, Tensor]], table: IndexTable, view: View, description: Description) -> Shard:
    """Collect the vectors of videos in a shard."""
    vectors, lengths, spans = [], [], []
    for video, rows in encoded:
        vectors.append(F.normalize(rows, dim=1).to(DTYPES[description.dtype]))
        lengths.append(rows.norm(dim=1))
        num_frames = int(table.num_frames[video])
        starts, length = (view.starts(num_frames), view.clip_frames) if description.per_clip else ([0], num_frames)
        spans += [(video, start, min(start + length, num_frames)) for start in starts]
    videos, starts, ends = torch.tensor(spans, dtype=torch.int32).T
    return Shard(torch.cat(vectors), videos, starts, ends, torch.cat(lengths))


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
