"""Videos to vectors: the one road from files to the features of a network.

An encoder gives the features of clips. Retrieval and probes take the mean over the clips of a video; search scales it
to length one.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn import functional as F

from v3s.backbones.device import Compute, Precision, choose_compute, divide_cores
from v3s.data.index_table import IndexTable
from v3s.data.views import View, load_views
from v3s.features.extract import Feature, Pool, Space, check_stage, clip_features, mean_features
from v3s.features.folding import fold
from v3s.features.source import BackboneOptions, Source, open_source
from v3s.video.index import index_video


@dataclass(frozen=True, slots=True, eq=False)
class Encoder:
    """A network that turns videos into vectors.

    Attributes:
        source: the network, folded, on its device.
        view: the clips of a video that it is shown.
        features: the kinds of vector that are taken; the first one where only one is wanted.
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
        """Its weights' fingerprint, the clips that it is shown, the feature that is taken."""
        return Space(self.source.fingerprint, self.view, self.features[0])

    @property
    def fingerprint(self) -> str:
        """SHA-256 over weights and preprocessing: vectors are comparable where it is equal."""
        return self.space.fingerprint

    @property
    def dimension(self) -> int:
        """Numbers in a vector, D: as many as one clip gives."""
        size = self.view.clip_size
        clip = torch.zeros(1, 3, self.view.clip_frames, size, size, dtype=torch.uint8)
        (vector,) = clip_features(self.backbone, clip, self.features[:1], self.compute)
        return vector.shape[1]

    def encode(self, paths: str | Path | Sequence[str | Path]) -> Tensor:
        """One unit vector for each video: the mean of the features of its clips, scaled to length one.

        Args:
            paths: video files; a video shorter than a clip repeats its last frame.

        Returns:
            float32 on the CPU, shape (len(paths), D); for a single path shape (D,).

        Raises:
            VideoError: a file cannot be read; the message names it. All are read before the first is encoded.
        """
        if isinstance(paths, str | Path):
            return self.encode([paths])[0]
        table = IndexTable.of(index_video(path) for path in paths)
        found = [vectors for _, vectors in self.encode_table(table)]
        return torch.cat(found) if found else torch.empty(0, self.dimension)

    def encode_clips(self, path: str | Path) -> Tensor:
        """A unit vector for each clip of a video: float32 on the CPU, shape (clips, D)."""
        ((_, vectors),) = self.encode_table(IndexTable.of([index_video(path)]), per_clip=True)
        return vectors

    def encode_table(
        self,
        table: IndexTable,
        *,
        per_clip: bool = False,
        videos: Sequence[int] | None = None,
        console: Console | None = None,
    ) -> Generator[tuple[int, Tensor], None, None]:
        """Unit vectors of videos that were indexed before.

        Args:
            table: the indices.
            per_clip: a vector for each clip instead of one for their mean.
            videos: numbers of the videos wanted; all by default.
            console: where a bar is shown; nowhere by default.

        Yields:
            (number of the video, float32 of shape (clips of the video or 1, D), unit length). A feature of zeros
            stays zeros, which is like nothing.

        Raises:
            ValueError: a vector is not finite; the message names the video.
        """
        for video, (clips, *_) in self.encode_features(table, videos=videos, console=console):
            yield video, F.normalize(clips if per_clip else clips.mean(dim=0, keepdim=True), dim=1)

    def mean_vectors(self, table: IndexTable, *, console: Console | None = None, what: str = "videos") -> Tensor:
        """One vector for each video, the mean over its clips, of any length: float32, shape (len(table), D)."""
        return mean_features(self.encode_features(table, console=console, what=what))[0]

    def encode_features(
        self,
        table: IndexTable,
        *,
        videos: Sequence[int] | None = None,
        console: Console | None = None,
        what: str = "videos",
    ) -> Iterator[tuple[int, list[Tensor]]]:
        """The features of the clips of each video, as the network gives them.

        Clips of neighbouring videos share forward passes, so that every pass is a full one.

        Args:
            table: the indices.
            videos: numbers of the videos wanted, in this order; all by default.
            console: where a bar is shown; nowhere by default.
            what: text of the bar.

        Yields:
            (number of the video, for each kind of vector float32 of shape (clips of the video, D)).

        Raises:
            ValueError: a number is not finite; the message names the video.
        """
        items = load_views(table, self.view, num_workers=self.num_workers, videos=videos)
        found = (encoded for group in _full_passes(items, self.batch_size) for encoded in self._run(group))
        for video, kinds in _with_bar(found, len(table if videos is None else videos), what, console):
            if not all(vectors.isfinite().all() for vectors in kinds):
                raise ValueError(
                    f"{table[video].path}: {self.source.name} gives NaN or infinity for it; use --precision fp32, or "
                    "another --backbone: its weights may be damaged"
                )
            yield video, kinds

    def _run(self, items: Sequence[tuple[int, Tensor]]) -> Iterator[tuple[int, list[Tensor]]]:
        """The features of some videos' clips, divided again by video."""
        counts = [len(clips) for _, clips in items]
        clips = torch.cat([clips for _, clips in items])
        found = clip_features(self.backbone, clips, self.features, self.compute, batch_size=self.batch_size)
        by_video = zip(*(torch.split(vectors, counts) for vectors in found), strict=True)
        for (video, _), kinds in zip(items, by_video, strict=True):
            yield video, list(kinds)


def load_encoder(
    path: str | Path,
    *,
    device: str = "auto",
    precision: Precision = "auto",
    stage: str = "conv5",
    pool: Pool = "mean",
    num_clips: int = 10,
) -> Encoder:
    """Load a trained network as an encoder of videos.

    Args:
        path: a run's folder or the safetensors file in it; also ``random:NAME[@WIDTH]``, the untrained baseline.
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: "auto", "bf16" or "fp32".
        stage: the backbone's stage that the vectors come from.
        pool: "mean" averages it, "max" max-pools it by two.
        num_clips: clips of each video, evenly spaced.

    Raises:
        ValueError: there is no such run, stage or device.
    """
    source = open_source(str(path))
    view = source.view(num_clips=num_clips)
    return make_encoder(source, view, [Feature(stage, pool)], choose_compute(device, precision))


def open_encoder(options: BackboneOptions, features: Sequence[Feature], *, stride: int = 0) -> Encoder:
    """The encoder that the options of a command ask for.

    Args:
        options: network, clips, device, reading processes.
        features: the kinds of vector that are taken.
        stride: frames between the starts of a video's clips; 0 takes ``options.num_clips`` clips.

    Raises:
        ValueError: there is no such network, stage or device.
    """
    compute = choose_compute(options.device, options.precision)
    source = open_source(options.backbone, seed=options.seed)
    sizes = {"clip_frames": options.clip_frames, "clip_size": options.clip_size}
    view = source.view(**sizes, num_clips=options.num_clips, stride=stride)
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
    """An encoder of an opened network, which is moved to its device and folded.

    Raises:
        ValueError: the network has no such stage.
    """
    for feature in features:
        check_stage(source.backbone, feature.stage)
    folded = replace(source, backbone=fold(source.on(compute)))
    return Encoder(folded, view, tuple(features), compute, num_workers, batch_size)


def _full_passes(items: Iterable[tuple[int, Tensor]], batch_size: int) -> Iterator[list[tuple[int, Tensor]]]:
    """Group neighbouring videos until their clips fill a forward pass."""
    waiting: list[tuple[int, Tensor]] = []
    for item in items:
        waiting.append(item)
        if sum(len(clips) for _, clips in waiting) >= batch_size:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def _with_bar(
    found: Iterable[tuple[int, list[Tensor]]], total: int, what: str, console: Console | None
) -> Iterator[tuple[int, list[Tensor]]]:
    """Pass features on while a bar shows how many videos are done."""
    if console is None:
        yield from found
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        yield from progress.track(found, total, description=what)
