"""Vectors of videos on disk: what they are, which network made them, and the exact search in them.

========================  ===========================================================================================
vectors.json              `Description`: network, preprocessing, source, counts, which videos were skipped
videos.jsonl              one line for each video: its path, label, length in frames and in seconds
shard-00000.safetensors   ``vectors`` (n, D) of unit length; ``videos`` (line in videos.jsonl), ``starts`` and ``ends``
                          (first frame, and the one after the last), int32 (n,)
========================  ===========================================================================================

Every shard carries the stamp of its folder, so that vectors of two networks, or of two lists, never mix.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F

from v3s.data.views import View
from v3s.features.extract import Feature, Space
from v3s.files.lock import LOCK
from v3s.files.writing import read_json, write_json, write_whole
from v3s.vectors.exact import Neighbours, nearest

_FORMAT = 1
_VECTORS, _VIDEOS = "vectors.json", "videos.jsonl"
_DERIVED = ("vectors.npy", "rows.csv", "vectors.csv", "vectors.parquet", "index.faiss", "index.json")
DTYPES = {"float16": torch.float16, "float32": torch.float32}
_NUM_SPARE = 16
"""Rows that are scored again beyond the ``k`` asked for: half precision makes lengths differ by 1e-5, which can swap
near equals, and even put a copy of the query behind another vector."""


class VectorsError(ValueError):
    """Vectors that are missing, damaged, unfinished or of another network; the message names the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What vectors.json says.

    Attributes:
        backbone: the network as ``--backbone`` takes it; a path is absolute.
        seed: of random weights.
        network: its name and width, e.g. ``r2plus1d@0.25``.
        stages: its stages with their channels.
        space: what the vectors are comparable with.
        per_clip: one vector for each clip; otherwise one for each video, the mean over its clips.
        dimension: numbers in a vector.
        dtype: type of the numbers, ``float16`` or ``float32``.
        root: the folder that the paths of the videos start from.
        source: one line: what was listed.
        files_sha256: SHA-256 of videos.jsonl.
        num_videos: how many videos have vectors.
        num_vectors: how many vectors they have.
        num_padded: how many videos are shorter than a clip, so that their last frame is repeated.
        num_missing: how many listed videos do not exist.
        left_out: path and reason of each video that cannot be read.
        shard_videos: videos in a shard.
    """

    backbone: str
    seed: int
    network: str
    stages: dict[str, int]
    space: Space
    per_clip: bool
    dimension: int
    dtype: str
    root: str
    source: str
    files_sha256: str
    num_videos: int
    num_vectors: int
    num_padded: int
    num_missing: int
    left_out: dict[str, str]
    shard_videos: int

    @property
    def identity(self) -> dict[str, Any]:
        """What must be equal for two shards to lie in one folder."""
        own = {name: getattr(self, name) for name in ("per_clip", "dimension", "dtype", "files_sha256", "shard_videos")}
        return {"fingerprint": self.space.fingerprint, **own}

    @property
    def stamp(self) -> str:
        """SHA-256 over the identity: a shard or an index with another one is of other vectors."""
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()

    @property
    def num_shards(self) -> int:
        """How many shards the folder has when it is complete."""
        return -(-self.num_videos // self.shard_videos)

    def to_json(self) -> dict[str, Any]:
        """Plain values, the fingerprint among them."""
        return {"format": _FORMAT, "fingerprint": self.space.fingerprint, **asdict(self)}


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of videos.jsonl: path below the root (posix), label or None, length in frames and in seconds."""

    path: str
    label: str | None
    num_frames: int
    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class Shard:
    """Vectors (n, D), memory-mapped where read, and for each its video, first frame and end: int32 (n,)."""

    vectors: Tensor
    videos: Tensor
    starts: Tensor
    ends: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Vectors:
    """A complete folder of vectors, left on disk.

    Attributes:
        folder: where they lie.
        description: what they are.
        shards: all of them, in order; the rows of all shards are numbered on from 0.
        offsets: number of each shard's first row, and of all rows, int64 (shards + 1,).
    """

    folder: Path
    description: Description
    shards: tuple[Shard, ...]
    offsets: NDArray[np.int64]
    _lines: bytes
    _line_ends: NDArray[np.int64]

    def __len__(self) -> int:
        return int(self.offsets[-1])

    def video(self, number: int) -> Entry:
        """What is known of a video."""
        start = int(self._line_ends[number - 1]) + 1 if number else 0
        return Entry(**json.loads(self._lines[start : int(self._line_ends[number])]))

    def video_of(self, row: int) -> int:
        """Number of the video of a row."""
        shard, place = self._place(row)
        return int(shard.videos[place])

    def span_of(self, row: int) -> tuple[int, int]:
        """First frame of a row, and the one after its last."""
        shard, place = self._place(row)
        return int(shard.starts[place]), int(shard.ends[place])

    def take(self, rows: Tensor) -> Tensor:
        """Chosen vectors, scaled to length one in float32: int64 (M,) to (M, D)."""
        taken = torch.empty(len(rows), self.description.dimension)
        numbers = np.searchsorted(self.offsets, rows.numpy(), side="right") - 1
        for number in np.unique(numbers).tolist():
            mine = torch.from_numpy(numbers == number)
            taken[mine] = self.shards[number].vectors[rows[mine] - int(self.offsets[number])].float()
        return F.normalize(taken, dim=1)

    def nearest(self, queries: Tensor, k: int) -> Neighbours:
        """The rows with the largest cosine similarity to each query, by comparing with all of them.

        Args:
            queries: float32, shape (Q, D), unit length.
            k: rows wanted, 1 to all.
        """
        if not 1 <= k <= len(self):
            raise ValueError(f"k = {k} vectors asked of the {len(self):,} in {self.folder}")
        found = nearest(queries, [shard.vectors for shard in self.shards], min(k + _NUM_SPARE, len(self)))
        return self.best_of(queries, found.indices, k)

    def best_of(self, queries: Tensor, candidates: Tensor, k: int) -> Neighbours:
        """The best ``k`` of each query's candidates by exact cosine; between equal ones the lower row wins.

        Args:
            queries: float32, shape (Q, D), unit length.
            candidates: row numbers, int64, shape (Q, C), C at least k; -1 is none, and ends last with -inf.
            k: candidates to keep.
        """
        ordered = candidates.sort(dim=1).values
        found = zip(queries, ordered, strict=True)
        scores = torch.stack([self.take(rows.clamp(min=0)) @ query for query, rows in found])
        best = scores.masked_fill_(ordered < 0, -torch.inf).sort(dim=1, descending=True, stable=True)
        return Neighbours(ordered.gather(1, best.indices[:, :k]), best.values[:, :k])

    def _place(self, row: int) -> tuple[Shard, int]:
        number = int(np.searchsorted(self.offsets, row, side="right")) - 1
        return self.shards[number], row - int(self.offsets[number])


def video_lines(videos: Iterable[Entry]) -> bytes:
    """What videos.jsonl holds."""
    return b"".join(json.dumps(asdict(video)).encode() + b"\n" for video in videos)


def shard_path(folder: Path, number: int) -> Path:
    """The file of a shard."""
    return folder / f"shard-{number:05d}.safetensors"


def begin_folder(folder: Path, description: Description, lines: bytes, *, overwrite: bool) -> None:
    """Make the folder for new vectors, or resume one whose writing was stopped.

    Raises:
        VectorsError: it holds other vectors and ``overwrite`` was not given, or something else, which stays.
    """
    if folder.exists() and not folder.is_dir():
        raise VectorsError(f"{folder} is a file; vectors need a folder")
    if folder.is_dir() and any(file.name != LOCK for file in folder.iterdir()):
        if not (folder / _VECTORS).is_file():
            raise VectorsError(f"{folder} is not empty and holds no vectors; choose another folder with --out")
        if overwrite:
            _clear(folder)
        else:
            _check_same(folder, read_description(folder), description)
    for partial in folder.glob(".shard-*.part"):  # of a killed run
        partial.unlink()
    write_json(folder / _VECTORS, description.to_json())
    write_whole(folder / _VIDEOS, lines)


def _clear(folder: Path) -> None:
    for path in (*folder.glob("shard-*.safetensors"), *(folder / name for name in (_VIDEOS, *_DERIVED))):
        path.unlink(missing_ok=True)
    (folder / _VECTORS).unlink()  # last: without it the folder would not be known as one of vectors


def _check_same(folder: Path, old: Description, new: Description) -> None:
    differing = [name for name, value in new.identity.items() if old.identity[name] != value]
    if not differing:
        return
    if "fingerprint" in differing:
        what = f"of another network or preprocessing: {_in_words(old)}; now {_in_words(new)}"
    elif "files_sha256" in differing:
        what = f"of another list of videos: {old.source}; now {new.source}"
    else:
        what = "with " + ", ".join(f"{name} {old.identity[name]}, now {new.identity[name]}" for name in differing)
    raise VectorsError(f"{folder} holds vectors {what}; replace them with --overwrite, or choose another --out")


def _in_words(description: Description) -> str:
    space = description.space
    return (
        f"{description.network} (weights {space.weights[:8]}), {space.feature.stage}, {space.feature.pool}, "
        f"{space.view.clip_frames} frames of {space.view.clip_size} pixels, "
        + (f"stride {space.view.stride}" if space.view.stride else f"{space.view.num_clips} clips")
    )


def save_shard(folder: Path, number: int, shard: Shard, description: Description) -> None:
    """Write one shard whole or not at all."""
    tensors = {field.name: getattr(shard, field.name).contiguous() for field in fields(Shard)}
    metadata = {"fingerprint": description.space.fingerprint, "stamp": description.stamp}
    write_whole(shard_path(folder, number), save(tensors, metadata))


def read_shard(folder: Path, number: int, description: Description) -> Shard:
    """Map one shard into memory.

    Raises:
        VectorsError: it is missing, damaged, or of another folder.
    """
    path = shard_path(folder, number)
    if not path.is_file():
        raise VectorsError(f"{path}: missing; run v3s embed again with the same options to finish the folder")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            shard = Shard(**{field.name: file.get_tensor(field.name) for field in fields(Shard)})
    except Exception as error:  # safetensors raises its own error, and OSError
        raise VectorsError(f"{path}: damaged ({error}); run v3s embed again with the same options") from error
    if metadata.get("stamp") != description.stamp:
        other = metadata.get("fingerprint") != description.space.fingerprint
        differing = "another network or preprocessing" if other else "another list of videos, or stored otherwise,"
        raise VectorsError(
            f"{path}: of {differing} than "
            f"{folder / _VECTORS} says: vectors of two cannot be mixed; embed again with --overwrite"
        )
    return shard


def read_description(folder: Path) -> Description:
    """Read vectors.json.

    Raises:
        VectorsError: there is none, or it is of another format or incomplete.
    """
    path = folder / _VECTORS
    if not path.is_file():
        raise VectorsError(f"{folder}: no vectors there ({_VECTORS} is missing); v3s embed writes them")
    values = read_json(path)
    if values.pop("format", None) != _FORMAT:
        raise VectorsError(f"{path}: this version reads vectors of format {_FORMAT}; embed again")
    try:
        fingerprint, space = values.pop("fingerprint"), values.pop("space")
        read = Space(space["weights"], View(**space["view"]), Feature(**space["feature"]))
        description = Description(space=read, **values)
    except (KeyError, TypeError, ValueError) as error:
        raise VectorsError(f"{path}: incomplete description ({error}); embed again with --overwrite") from error
    if fingerprint != read.fingerprint:
        raise VectorsError(f"{path}: was changed by hand: its fingerprint does not match its content; embed again")
    return description


def open_vectors(folder: str | Path) -> Vectors:
    """Open the vectors that ``v3s embed`` wrote.

    Raises:
        VectorsError: there are none, a part is missing, damaged or of other vectors, or there is no vector in them.
    """
    folder = Path(folder)
    description = read_description(folder)
    try:
        lines = (folder / _VIDEOS).read_bytes()
    except OSError as error:
        raise VectorsError(f"{folder / _VIDEOS}: cannot be read ({error.strerror}); embed again") from error
    if hashlib.sha256(lines).hexdigest() != description.files_sha256:
        raise VectorsError(f"{folder / _VIDEOS}: not the list that {_VECTORS} was written with; embed again")
    shards = tuple(read_shard(folder, number, description) for number in range(description.num_shards))
    offsets = np.cumsum([0, *(len(shard.vectors) for shard in shards)], dtype=np.int64)
    if offsets[-1] != description.num_vectors or not description.num_vectors:
        raise VectorsError(
            f"{folder}: its shards hold {offsets[-1]:,} vectors, {_VECTORS} says {description.num_vectors:,}; "
            "embed again with --overwrite"
        )
    line_ends = np.flatnonzero(np.frombuffer(lines, np.uint8) == ord("\n"))
    return Vectors(folder, description, shards, offsets, lines, line_ends)
