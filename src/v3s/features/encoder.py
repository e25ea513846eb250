"""Videos to vectors: the only path from files to the features of a network.

An encoder computes the features of clips. Retrieval and probes use their mean over a video's clips; search scales it to
unit length.
"""

import hashlib
import json
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional as F

from v3s.backbones.contract import normalisation_of
from v3s.backbones.device import Compute, Precision, choose_compute, divide_cores
from v3s.backbones.normalisation import Normalisation
from v3s.backbones.stages import check_stage
from v3s.data.index_table import IndexTable
from v3s.data.streams import ClipRun, complete_rows, load_runs
from v3s.data.views import View
from v3s.features.source import EncoderOptions, Source, fold, open_source
from v3s.files.text import progress_bar
from v3s.video.index import index_video

Pool = Literal["mean", "max"]


_PREPROCESSING = 1  # increase it if frames are resized differently: vectors from before and after cannot be mixed


LAST = "last"
"""As the name of a stage: the last of the network."""

_POSITIONS_ON_CPU = 16 * 112 * 112
"""Frames x height x width of a forward pass on a CPU, one clip of the paper; larger passes exceed the caches."""


@dataclass(frozen=True, slots=True)
class Feature:
    """A stage of a backbone, pooled to a vector.

    Attributes:
        stage: name of the stage; `LAST` stands for the network's last.
        pool: "mean" averages over time and space (D = channels); "max" max-pools height and width by two and flattens,
            the retrieval protocol's last pooling layer (512 x 2 x 3 x 3 = 9,216 numbers from 512 x 2 x 7 x 7).

    Source: paper section 4.4, "features at the last pooling layer"; VCOP pools conv5 by (1, 2, 2).
    """

    stage: str = "conv5"
    pool: Pool = "mean"

    def among(self, stages: Mapping[str, int]) -> "Feature":
        """Return this feature with the name of its stage, given those of a network in order."""
        return replace(self, stage=list(stages)[-1]) if self.stage == LAST else self

    def of(self, backbone: nn.Module) -> "Feature":
        """Return this feature with the name of the stage in a network.

        Raises:
            ValueError: the network does not have the stage.
        """
        feature = self.among(backbone.stages)  # type: ignore[arg-type]
        check_stage(backbone, feature.stage)
        return feature

    def extract(self, stages: dict[str, Tensor]) -> Tensor:
        """Return the vectors of a batch from its stages: float32, shape (B, D)."""
        stage = stages[self.stage].float()
        if self.pool == "mean":
            return stage.mean(dim=(2, 3, 4))
        return F.max_pool3d(stage, (1, 2, 2), ceil_mode=min(stage.shape[-2:]) < 2).flatten(1)


@torch.inference_mode()
def clip_features(
    backbone: nn.Module, clips: Tensor, features: Sequence[Feature], compute: Compute, *, batch_size: int = 16
) -> list[Tensor]:
    """Compute the features of clips.

    Args:
        backbone: in evaluation mode, on ``compute.device``.
        clips: uint8, shape (N, 3, T, H, W).
        features: the features to compute.
        compute: device and precision.
        batch_size: maximum clips in a forward pass; fewer on a CPU.

    Returns:
        For each feature, float32 on the CPU, shape (N, D).
    """
    parts: list[list[Tensor]] = [[] for _ in features]
    if compute.device.type == "cpu" and len(clips):
        batch_size = min(batch_size, max(1, _POSITIONS_ON_CPU // clips[0, 0].numel()))
    for batch in torch.split(clips, batch_size):
        with compute.autocast():
            stages = backbone.forward_stages(compute.clips(batch))  # type: ignore[operator]
        for part, feature in zip(parts, features, strict=True):
            part.append(feature.extract(stages).cpu())
    return [torch.cat(part) for part in parts]


def mean_features(encoded: Iterable[tuple[int, list[Tensor]]]) -> list[Tensor]:
    """Average over the clips of each video: for each feature float32 of shape (videos, D)."""
    rows = [[vectors.mean(dim=0) for vectors in features] for _, features in encoded]
    return [torch.stack(column) for column in zip(*rows, strict=True)]


def restored(vectors: Tensor) -> Tensor:
    """Return vectors (N, D) as a collection gives them back: their directions times their lengths, float32.

    They differ from the given ones by rounding. What is computed from videos goes through it too, so that it is equal
    to what is computed from stored vectors, bit by bit.
    """
    lengths: Tensor = vectors.norm(dim=1, keepdim=True)
    return F.normalize(vectors, dim=1) * lengths


@dataclass(frozen=True, slots=True)
class Space:
    """What makes two vectors comparable: one network, one way to cut clips, one feature.

    Attributes:
        weights: SHA-256 of the network's weights.
        view: the clips that represent a video.
        feature: stage and pooling.
        normalisation: of clips, as the network's weights expect it; ``None`` if they expect values in [0, 1].
    """

    weights: str
    view: View
    feature: Feature
    normalisation: Normalisation | None = None

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the weights and the preprocessing."""
        values = {"format": _PREPROCESSING, **asdict(self)}
        for name in ("fps", "window", "mask", "resize"):
            if getattr(self.view, name) is None:
                del values["view"][name]  # vectors of earlier versions keep their fingerprint
        if self.normalisation is None:
            del values["normalisation"]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class Encoder:
    """A network that turns videos into vectors.

    Attributes:
        source: the network, folded, on its device.
        view: the clips that represent a video.
        features: the features to compute; methods that return one vector use the first.
        compute: device and precision.
        num_workers: processes that read videos.
        batch_size: clips in a forward pass.
    """

    source: Source
    view: View
    features: tuple[Feature, ...]
    compute: Compute
    num_workers: int = 0
    batch_size: int = 16

    @property
    def backbone(self) -> nn.Module:
        """The network, in evaluation mode, on its device, folded."""
        return self.source.backbone

    @property
    def space(self) -> Space:
        """What makes this encoder's vectors comparable: weights, clips and their normalisation, and feature."""
        return Space(self.source.fingerprint, self.view, self.features[0], normalisation_of(self.backbone))

    @property
    def fingerprint(self) -> str:
        """SHA-256 over weights and preprocessing: vectors with equal fingerprints are comparable."""
        return self.space.fingerprint

    @property
    def dimension(self) -> int:
        """Length of a vector, D."""
        clip = torch.zeros(1, 3, self.view.clip_frames, *2 * (self.view.clip_size,), dtype=torch.uint8)
        (vector,) = clip_features(self.backbone, clip, self.features[:1], self.compute)
        return vector.shape[1]

    def encode(self, paths: str | Path | Sequence[str | Path]) -> Tensor:
        """Return one unit vector per video: the mean of the features of its clips, scaled to unit length.

        Args:
            paths: video files; a video shorter than a clip repeats its last frame.

        Returns:
            float32 on the CPU, shape (len(paths), D); for a single path shape (D,).

        Raises:
            VideoError: a file cannot be read; the message contains its path. All files are checked first.
        """
        if isinstance(paths, str | Path):
            return self.encode([paths])[0]
        table = self.table_of(paths)
        rows = [vectors for _, vectors in self.encode_table(table)]
        return torch.cat(rows) if rows else torch.empty(0, self.dimension)

    def table_of(self, paths: Iterable[str | Path]) -> IndexTable:
        """Index video files, as the view samples them.

        Raises:
            VideoError: a file cannot be read.
        """
        return IndexTable.of(self.view.sample(index_video(path)) for path in paths)

    def encode_clips(self, path: str | Path) -> Tensor:
        """Return one unit vector per clip of a video: float32 on the CPU, shape (clips, D)."""
        ((_, vectors),) = self.encode_table(self.table_of([path]), per_clip=True)
        return vectors

    def encode_table(
        self,
        table: IndexTable,
        *,
        per_clip: bool = False,
        videos: Sequence[int] | None = None,
        console: Console | None = None,
        scaled: bool = True,
    ) -> Generator[tuple[int, Tensor], None, None]:
        """Yield unit vectors of indexed videos.

        Args:
            table: the indices.
            per_clip: one vector per clip instead of one for their mean.
            videos: numbers of the videos to encode; all by default.
            console: where to show progress; nowhere by default.
            scaled: scale them to unit length; otherwise they are as the network outputs them.

        Yields:
            (number of the video, float32 of shape (clips of the video or 1, D), unit length). A zero vector stays
            zero and is similar to nothing.

        Raises:
            ValueError: a vector is not finite; the message contains the video.
        """
        for video, (clips, *_) in self.encode_features(table, videos=videos, console=console):
            vectors = clips if per_clip else clips.mean(dim=0, keepdim=True)
            yield video, F.normalize(vectors, dim=1) if scaled else vectors

    def mean_vectors(self, table: IndexTable, *, console: Console | None = None, what: str = "") -> Tensor:
        """Return the mean vector of each video's clips, not normalised: float32, shape (len(table), D)."""
        return mean_features(self.encode_features(table, console=console, what=what))[0]

    def encode_features(
        self,
        table: IndexTable,
        *,
        videos: Sequence[int] | None = None,
        console: Console | None = None,
        what: str = "",
    ) -> Iterator[tuple[int, list[Tensor]]]:
        """Yield the features of each video's clips as the network outputs them.

        Clips of consecutive videos fill a forward pass; on a CPU those of one file, so that no bit depends on others.

        Args:
            table: the indices.
            videos: numbers of the videos to encode, in this order; all by default.
            console: where to show progress; nowhere by default.
            what: description of the progress bar; empty for what the table has, "videos" or "spans".

        Yields:
            (number of the video, for each feature float32 of shape (clips of the video, D)).

        Raises:
            ValueError: a number is not finite; the message contains the video.
        """
        numbers = range(len(table)) if videos is None else videos
        runs = load_runs(table, self.view, num_workers=self.num_workers, videos=numbers)
        groups = _full_passes(runs, 1 if self.compute.device.type == "cpu" else self.batch_size)
        encoded = complete_rows(chain.from_iterable(map(self._run, groups)), table, self.view, numbers)
        name = what or ("videos" if table.spans is None else "spans")
        for video, features in _with_bar(encoded, len(numbers), name, console):
            self.require_finite(features, table, video)
            yield video, features

    def require_finite(self, features: Iterable[Tensor], table: IndexTable, video: int) -> None:
        """Refuse features of a video that contain NaN or infinity.

        Raises:
            ValueError: they do; the message contains the video.
        """
        if not all(vectors.isfinite().all() for vectors in features):
            raise ValueError(
                f"{table[video].path}: {self.source.name} outputs NaN or infinity for this video; use "
                "--precision fp32, or another --backbone if the weights are damaged"
            )

    def _run(self, runs: Sequence[tuple[ClipRun, Tensor]]) -> Iterator[tuple[ClipRun, list[Tensor]]]:
        """Yield the features of each run's clips."""
        counts = [len(run) for run, _ in runs]
        clips = torch.cat([clips for _, clips in runs])
        encoded = clip_features(self.backbone, clips, self.features, self.compute, batch_size=self.batch_size)
        by_run = zip(*(torch.split(vectors, counts) for vectors in encoded), strict=True)
        for (run, _), features in zip(runs, by_run, strict=True):
            yield run, list(features)


def load_encoder(
    path: str | Path,
    *,
    device: str = "auto",
    precision: Precision = "auto",
    stage: str = LAST,
    pool: Pool = "mean",
    num_clips: int = 10,
) -> Encoder:
    """Load a trained network as an encoder of videos.

    Args:
        path: a run's folder or the safetensors file in it; also ``random:NAME[@WIDTH]``, the untrained baseline, and
            ``hf:NAME``, a foundation model.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        precision: "auto", "bf16" or "fp32".
        stage: the backbone's stage that the vectors come from; "last" for its last.
        pool: "mean" averages the stage, "max" max-pools it by two.
        num_clips: clips of each video, evenly spaced.

    Raises:
        ValueError: the run, stage or device does not exist.
    """
    source = open_source(str(path))
    compute = choose_compute(device, precision)
    return make_encoder(source, source.view(num_clips=num_clips), [Feature(stage, pool)], compute)


def open_encoder(options: EncoderOptions, features: Sequence[Feature], *, stride: int = 0) -> Encoder:
    """Open the encoder that a command's options describe.

    Args:
        options: network, clips, device, reading processes; and frame rate, window and mask, where there are.
        features: the features to compute.
        stride: frames between the starts of a video's clips; 0 takes ``options.num_clips`` clips.

    Raises:
        ValueError: the network, stage or device does not exist.
    """
    assert options.backbone is not None
    compute = choose_compute(options.device, options.precision)
    source = open_source(options.backbone, seed=options.seed)
    sizes = {"clip_frames": options.clip_frames, "clip_size": options.clip_size}
    fps, window, mask = (getattr(options, name, None) for name in ("fps", "window", "mask"))
    view = source.view(**sizes, num_clips=options.clips_per_video, stride=stride, fps=fps, window=window, mask=mask)
    num_workers = divide_cores(options.workers, compute.device)
    return make_encoder(source, view, features, compute, num_workers=num_workers, batch_size=options.batch_size)


def make_encoder(
    source: Source,
    view: View,
    features: Sequence[Feature],
    compute: Compute,
    *,
    num_workers: int = 0,
    batch_size: int = 16,
) -> Encoder:
    """Make an encoder from a network, which is moved to its device and folded.

    Raises:
        ValueError: the network does not have one of the stages.
    """
    named = tuple(feature.of(source.backbone) for feature in features)
    return Encoder(replace(source, backbone=fold(source.on(compute))), view, named, compute, num_workers, batch_size)


def _full_passes(runs: Iterable[tuple[ClipRun, Tensor]], least: int) -> Iterator[list[tuple[ClipRun, Tensor]]]:
    """Group consecutive runs until they have at least this many clips."""
    group: list[tuple[ClipRun, Tensor]] = []
    for item in runs:
        group.append(item)
        if sum(len(run) for run, _ in group) >= least:
            yield group
            group = []
    if group:
        yield group


def _with_bar(
    encoded: Iterable[tuple[int, list[Tensor]]], total: int, what: str, console: Console | None
) -> Iterator[tuple[int, list[Tensor]]]:
    """Yield encoded videos while a progress bar shows how many are done."""
    if console is None:
        yield from encoded
        return
    with progress_bar(console) as progress:
        yield from progress.track(encoded, total, description=what)
