"""Vectors of videos on disk: their files, their description, and exact search.

========================  ===========================================================================================
vectors.json              `Description`: network, preprocessing, source, counts, which videos were skipped
videos.jsonl              one line per video: its path, label, length in frames and in seconds, content
shard-00000.safetensors   ``vectors`` (n, D) of unit length; ``videos`` (line in videos.jsonl), ``starts`` and ``ends``
                          (first frame, and the one after the last), int32 (n,); ``lengths``, float32 (n,), which the
                          network's own vectors had
========================  ===========================================================================================

Every shard contains the stamp of its folder, so that vectors of different networks or video lists are never mixed.
After ``v3s embed --append`` the names of list and shards contain a number, see `v3s.vectors.append`.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F

from v3s.files.reading import parse_as, read_bytes
from v3s.files.text import counted, short_repr
from v3s.files.writing import CheckpointError, write_whole
from v3s.vectors.description import DTYPES, VECTORS, Description, VectorsError, read_description
from v3s.vectors.entries import VIDEOS, Columns, Entry, Place, Shard, checksum_of, columns_of, entries_of, noun_of
from v3s.vectors.nearest.exact import Neighbours, nearest

NUM_SPARE = 16
"""Rows that are scored exactly in addition to the ``k`` requested: in half precision, lengths differ by 1e-5, which can
swap near ties and even rank another vector before a copy of the query."""


@dataclass(frozen=True, slots=True, eq=False)
class Vectors:
    """A complete folder of vectors, which stay on disk.

    Attributes:
        folder: path of the folder.
        description: content of vectors.json.
        shards: all shards in order; rows are numbered from 0 across shards.
        offsets: number of each shard's first row, then the number of all rows, int64 (shards + 1,).
    """

    folder: Path
    description: Description
    shards: tuple[Shard, ...]
    offsets: NDArray[np.int64]
    _lines: bytes
    _line_ends: NDArray[np.int64]
    __repr__ = short_repr

    def __len__(self) -> int:
        return int(self.offsets[-1])

    def video(self, number: int) -> Entry:
        """Return the entry of a video."""
        start = int(self._line_ends[number - 1]) + 1 if number else 0
        listed = videos_path(self.folder, self.description.generation)
        return parse_as(Entry, self._lines[start : int(self._line_ends[number])], listed)

    def video_of(self, row: int) -> int:
        """Return the number of a row's video."""
        shard, place = self._place(row)
        return int(shard.videos[place])

    def span_of(self, row: int) -> tuple[int, int]:
        """Return the first frame of a row, and the frame after its last."""
        shard, place = self._place(row)
        return int(shard.starts[place]), int(shard.ends[place])

    def place_of(self, row: int) -> "Place":
        """Return the file of a row and its span in it, in frames and in seconds."""
        number, (start, end) = self.video_of(row), self.span_of(row)
        entry = self.video(number)
        self._check_end(row, end, entry.num_frames)
        file = str(Path(self.description.root) / entry.path)
        return Place(entry, file, start, end, entry.time_of(start), entry.time_of(end))

    def take(self, rows: Tensor) -> Tensor:
        """Return the vectors of these rows (int64, (M,)), scaled to unit length: float32, shape (M, D)."""
        vectors = torch.empty(len(rows), self.description.dimension)
        numbers = np.searchsorted(self.offsets, rows.numpy(), side="right") - 1
        for number in np.unique(numbers).tolist():
            in_shard = torch.from_numpy(numbers == number)
            vectors[in_shard] = self.shards[number].vectors[rows[in_shard] - int(self.offsets[number])].float()
        return F.normalize(vectors, dim=1)

    def entries(self) -> Iterator[Entry]:
        """Yield the entry of each video, in order; a damaged line is a VectorsError."""
        try:
            yield from entries_of(self._lines, videos_path(self.folder, self.description.generation))
        except CheckpointError as error:
            raise VectorsError(str(error)) from error

    def row_times(self, columns: Columns) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """The entry of each row, int64 (N,), and the start and end of the row in its file in seconds, float64 (N,).

        Args:
            columns: `tabulate` of the entries.

        Raises:
            VectorsError: a row ends after its entry.
        """
        videos, first, end = (
            np.concatenate([getattr(shard, name).numpy() for shard in self.shards]).astype(np.int64)
            for name in ("videos", "starts", "ends")
        )
        for row in np.flatnonzero(end > columns.num_frames[videos])[:1].tolist():
            self._check_end(row, int(end[row]), int(columns.num_frames[videos[row]]))
        frame_seconds = columns.seconds / columns.num_frames
        starts, ends = (columns.starts[videos] + frames * frame_seconds[videos] for frames in (first, end))
        return videos, starts, ends

    def _check_end(self, row: int, end: int, num_frames: int) -> None:
        if end > num_frames:
            listed = videos_path(self.folder, self.description.generation)
            raise VectorsError(
                f"{listed}: vector {row:,} ends with frame {end:,}, and its video has {num_frames:,}; embed again with "
                "--overwrite"
            )

    def nearest(self, queries: Tensor, k: int) -> Neighbours:
        """Find the rows with the largest cosine similarity to each query by comparing all rows.

        Args:
            queries: float32, shape (Q, D), unit length.
            k: number of rows to find, 1 to all.
        """
        if not 1 <= k <= len(self):
            raise ValueError(f"k is {k}; it must be from 1 to {len(self):,}, the number of vectors in {self.folder}")
        candidates = nearest(queries, [shard.vectors for shard in self.shards], min(k + NUM_SPARE, len(self)))
        return self.best_of(queries, candidates.indices, k)

    def best_of(self, queries: Tensor, candidates: Tensor, k: int) -> Neighbours:
        """Find the best ``k`` of each query's candidates by exact cosine; in a tie the lower row wins.

        Args:
            queries: float32, shape (Q, D), unit length.
            candidates: row numbers, int64, shape (Q, C), C at least k; -1 means none and is ranked last with -inf.
            k: candidates to keep.
        """
        ordered = candidates.sort(dim=1).values
        pairs = zip(queries, ordered, strict=True)
        products = [self.take(rows.clamp(min=0)).double() @ query.double() for query, rows in pairs]
        scores = torch.stack(products).float()  # from double, so that equal rows have equal scores
        best = scores.masked_fill_(ordered < 0, -torch.inf).sort(dim=1, descending=True, stable=True)
        return Neighbours(ordered.gather(1, best.indices[:, :k]), best.values[:, :k])

    @property
    def lines(self) -> bytes:
        """The content of videos.jsonl."""
        return self._lines

    @property
    def has_spans(self) -> bool:
        """Whether some entries are spans that do not begin with their file."""
        return noun_of(self._lines) == "span"

    @property
    def counted(self) -> str:
        """How many entries it has, in words: ``343 spans``."""
        return counted(self.description.num_videos, noun_of(self._lines))

    def _place(self, row: int) -> tuple[Shard, int]:
        number = int(np.searchsorted(self.offsets, row, side="right")) - 1
        return self.shards[number], row - int(self.offsets[number])


def shard_path(folder: Path, number: int, generation: int = 0) -> Path:
    """Return the path of a shard's file."""
    return folder / f"shard-{number:05d}{f'.{generation}' if generation else ''}.safetensors"


def videos_path(folder: Path, generation: int = 0) -> Path:
    """Return the path of the list of videos."""
    return folder / (f"videos.{generation}.jsonl" if generation else VIDEOS)


def save_shard(folder: Path, number: int, shard: Shard, description: Description) -> None:
    """Write one shard atomically."""
    tensors = {name: tensor.contiguous() for name, tensor in shard.columns.items()}
    metadata = {
        "fingerprint": description.space.fingerprint,
        "stamp": description.stamp,
        "checksum": checksum_of(shard),
    }
    content = _with_metadata_in_order(save(tensors, metadata))
    write_whole(shard_path(folder, number, description.generation), content)


def _with_metadata_in_order(content: bytes) -> bytes:
    """The content of a safetensors file; the library writes metadata in another order each time."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode().ljust(start - 8)
    return b"".join((content[:8], text, memoryview(content)[start:]))


def read_shard(folder: Path, number: int, description: Description, *, verify: bool = True) -> Shard:
    """Map one shard into memory.

    Args:
        folder: the folder of vectors.
        number: number of the shard.
        description: what the shard must contain.
        verify: compare its content with its checksum, which reads all of it, and look for NaN and infinity; earlier
            versions wrote no checksum.

    Raises:
        VectorsError: the shard is missing, damaged, from another folder, or contains NaN or infinity.
    """
    path = shard_path(folder, number, description.generation)
    if not path.is_file():
        raise VectorsError(f"{path}: missing; run v3s embed again with the same options to complete the folder")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            shard = Shard(**{name: file.get_tensor(name) for name in columns_of(file.keys())})
    except Exception as error:  # safetensors raises its own error, and OSError
        raise VectorsError(f"{path}: damaged ({error}); run v3s embed again with the same options") from error
    if metadata.get("stamp") != description.stamp:
        other = metadata.get("fingerprint") != description.space.fingerprint
        differing = "network or preprocessing" if other else "video list or storage format"
        raise VectorsError(
            f"{path}: belongs to a different {differing} than {folder / VECTORS}; vectors from different runs cannot "
            "be mixed: embed again with --overwrite"
        )
    if not _fits(shard, description):
        raise VectorsError(f"{path}: does not fit {folder / VECTORS}: shapes, types or numbers of videos differ")
    first, size = number * description.shard_videos, description.shard_videos
    own = torch.arange(first, min(first + size, description.num_videos), dtype=torch.int32)
    if not torch.equal(torch.unique_consecutive(shard.videos), own):
        raise VectorsError(
            f"{path}: has vectors of other videos than shard {number:,} of {folder / VECTORS}, like a copy of another "
            "shard; run v3s embed again with the same options"
        )
    if verify and metadata.get("checksum") not in (None, checksum_of(shard)):
        raise VectorsError(
            f"{path}: damaged: its content does not match its checksum; run v3s embed again with the same options"
        )
    if verify and not _is_finite(shard):
        raise VectorsError(f"{path}: contains NaN or infinity; run v3s embed again with --overwrite")
    return shard


def _is_finite(shard: Shard) -> bool:
    """Whether all numbers are finite; the extremes show it, in a fiftieth of the time that asking each would take."""
    columns = (column for column in (shard.vectors, shard.lengths) if column is not None and column.numel())
    return all(math.isfinite(float(extreme)) for column in columns for extreme in column.aminmax())


def _fits(shard: Shard, description: Description) -> bool:
    """Whether the tensors of a shard have the shapes, types and ranges that its description states."""
    num_rows, places, lengths = len(shard.videos), (shard.videos, shard.starts, shard.ends), shard.lengths
    return (
        shard.vectors.dtype == DTYPES[description.dtype]
        and shard.vectors.shape == (num_rows, description.dimension)
        and all(place.dtype == torch.int32 and place.shape == (num_rows,) for place in places)
        and (lengths is None or (lengths.dtype == torch.float32 and lengths.shape == (num_rows,)))
        and not (lengths is not None and bool((lengths < 0).any()))
        and bool((shard.videos.diff() >= 0).all() & (shard.starts >= 0).all() & (shard.starts < shard.ends).all())
        and (not num_rows or 0 <= int(shard.videos[0]) <= int(shard.videos[-1]) < description.num_videos)
    )


def open_vectors(folder: str | Path, *, verify: bool = True) -> Vectors:
    """Open the vectors that ``v3s embed`` wrote.

    Args:
        folder: the folder.
        verify: compare the shards with their checksums, which reads all of them, as exact search does.

    Raises:
        VectorsError: the folder contains no vectors, or a file is missing, damaged or belongs to other vectors.
    """
    description = read_description(Path(folder))
    try:
        return _open(Path(folder), description, verify)
    except VectorsError:
        if read_description(Path(folder)) == description:
            raise
        return open_vectors(folder, verify=verify)  # v3s embed --append replaced its files meanwhile


def _open(folder: Path, description: Description, verify: bool) -> Vectors:
    listed = videos_path(folder, description.generation)
    try:
        lines = read_bytes(listed)
    except CheckpointError as error:
        raise VectorsError(f"{error}; embed again") from error
    if hashlib.sha256(lines).hexdigest() != description.files_sha256:
        raise VectorsError(f"{listed}: does not match {VECTORS}; embed again")
    shards = tuple(read_shard(folder, number, description, verify=verify) for number in range(description.num_shards))
    offsets = np.cumsum([0, *(len(shard.vectors) for shard in shards)], dtype=np.int64)
    if offsets[-1] != description.num_vectors or not description.num_vectors:
        raise VectorsError(
            f"{folder}: its shards contain {offsets[-1]:,} vectors, but {VECTORS} lists {description.num_vectors:,}; "
            "embed again with --overwrite"
        )
    line_ends = np.flatnonzero(np.frombuffer(lines, np.uint8) == ord("\n"))
    if len(line_ends) != description.num_videos:
        raise VectorsError(
            f"{listed}: has {len(line_ends):,} lines, but {VECTORS} lists "
            f"{description.num_videos:,} videos; embed again with --overwrite"
        )
    return Vectors(folder, description, shards, offsets, lines, line_ends)
