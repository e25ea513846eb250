"""vectors.json: what a folder of vectors contains."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from v3s.features.encoder import Space
from v3s.files.reading import read_as, read_json
from v3s.files.writing import CheckpointError

_FORMAT = 1
VECTORS = "vectors.json"
DTYPES = {"float16": torch.float16, "float32": torch.float32}


class VectorsError(ValueError):
    """Vectors that are missing, damaged, incomplete or from another network; the message contains the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """The content of vectors.json.

    Attributes:
        backbone: the value of ``--backbone``; a path is absolute.
        seed: seed of random weights.
        network: name and width of the network, e.g. ``r2plus1d@0.25``.
        stages: its stages in order, with their channels.
        space: network, clips and feature; vectors of the same space are comparable.
        per_clip: one vector per clip; otherwise one per video, the mean over its clips.
        dimension: length of a vector.
        dtype: type of the numbers, ``float16`` or ``float32``.
        root: the folder that the paths of the videos are relative to.
        source: one line that describes the list of videos.
        files_sha256: SHA-256 of videos.jsonl.
        num_videos: number of videos with vectors.
        num_vectors: number of vectors.
        num_padded: number of videos shorter than a clip, whose last frame is repeated.
        num_missing: number of listed videos that do not exist.
        left_out: path and reason of each skipped video.
        shard_videos: videos per shard.
        generation: how often ``v3s embed --append`` has replaced the state of the folder; names its files.
        num_gone: number of videos that an earlier state had and the list no longer has.
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
    generation: int = 0
    num_gone: int = 0

    def __post_init__(self) -> None:
        counts = (self.num_videos, self.num_vectors, self.num_padded, self.num_missing, self.generation, self.num_gone)
        if min(self.dimension, self.shard_videos) < 1 or min(counts) < 0 or self.dtype not in DTYPES:
            raise ValueError(
                "dimension and shard_videos must be 1 or more, counts 0 or more, and dtype float16 or float32; got "
                f"{self.dimension}, {self.shard_videos}, {counts} and {self.dtype}"
            )
        if self.space.feature.stage not in self.stages:
            stages = ", ".join(self.stages) or "none"
            raise ValueError(f"the feature's stage is {self.space.feature.stage}, and the network's are {stages}")

    @property
    def identity(self) -> dict[str, Any]:
        """The values that all shards in a folder have in common."""
        own = {name: getattr(self, name) for name in ("per_clip", "dimension", "dtype", "files_sha256", "shard_videos")}
        return {"fingerprint": self.space.fingerprint, **own}

    @property
    def stamp(self) -> str:
        """SHA-256 over the identity: a shard or an index with another stamp belongs to other vectors."""
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()

    @property
    def num_shards(self) -> int:
        """Number of shards in the complete folder."""
        return -(-self.num_videos // self.shard_videos)

    def to_json(self) -> dict[str, Any]:
        """Return plain values, including the fingerprint; those of networks without normalisation do not name one."""
        values = {"format": _FORMAT, "fingerprint": self.space.fingerprint, **asdict(self)}
        if self.space.normalisation is None:
            del values["space"]["normalisation"]
        return values


def read_description(folder: Path) -> Description:
    """Read vectors.json.

    Raises:
        VectorsError: the file does not exist, has another format or is incomplete.
    """
    path = folder / VECTORS
    if not folder.exists():
        raise VectorsError(f"{folder}: does not exist; give a folder of vectors, which v3s embed creates")
    if not path.is_file():
        raise VectorsError(f"{folder}: contains no vectors ({VECTORS} is missing); create them with v3s embed")
    try:
        return as_description(read_json(path), path)
    except CheckpointError as error:
        raise VectorsError(str(error)) from error


def as_description(values: dict[str, Any], path: Path) -> Description:
    """Check values that `Description.to_json` gave.

    Raises:
        ValueError: they have another format, are incomplete or were edited.
    """
    values = dict(values)
    if (version := values.pop("format", None)) != _FORMAT:
        raise VectorsError(f"{path}: has format {version}; this version of v3s reads format {_FORMAT}: embed again")
    fingerprint = values.pop("fingerprint", None)
    description = read_as(Description, values, path)
    if fingerprint != description.space.fingerprint:
        raise VectorsError(f"{path}: was edited: its fingerprint does not match its content; embed again")
    return description
