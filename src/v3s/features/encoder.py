"""Videos to unit vectors, from Python: load a trained network, encode files."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from v3s.backbones.device import Compute, Precision, choose_compute
from v3s.data.index_table import IndexTable
from v3s.data.views import View
from v3s.features.extract import Feature, Pool, Space, check_stage, clip_features, video_features
from v3s.features.folding import fold
from v3s.features.source import Source, open_source
from v3s.video.index import index_video

BATCH_SIZE = 16  # clips in a forward pass


@dataclass(frozen=True, slots=True, eq=False)
class Encoder:
    """A network that turns video files into unit vectors.

    Attributes:
        backbone: in evaluation mode, on its device, folded.
        space: its weights' fingerprint, the clips that it is shown, the feature that is taken.
        compute: device and precision.
        dimension: numbers in a vector, D.
    """

    backbone: nn.Module
    space: Space
    compute: Compute
    dimension: int

    @property
    def fingerprint(self) -> str:
        """SHA-256 over weights and preprocessing: vectors are comparable where it is equal."""
        return self.space.fingerprint

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
        num_workers: int = 0,
        batch_size: int = BATCH_SIZE,
    ) -> Iterator[tuple[int, Tensor]]:
        """Encode videos that were indexed before.

        Args:
            table: the indices.
            per_clip: a vector for each clip instead of one for their mean.
            videos: numbers of the videos wanted; all by default.
            num_workers: processes that read.
            batch_size: clips in a forward pass.

        Yields:
            (number of the video, float32 of shape (clips of the video or 1, D), unit length). A feature of zeros
            stays zeros, which is like nothing.

        Raises:
            ValueError: a vector is not finite; the message names the video.
        """
        found = video_features(
            self.backbone,
            table,
            self.space.view,
            [self.space.feature],
            self.compute,
            num_workers=num_workers,
            batch_size=batch_size,
            videos=videos,
        )
        for video, (features,) in found:
            if not features.isfinite().all():
                raise ValueError(f"{table[video].path}: the network gives NaN or infinity; its weights are damaged")
            yield video, F.normalize(features if per_clip else features.mean(dim=0, keepdim=True), dim=1)


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
    return make_encoder(
        source, source.view(num_clips=num_clips), Feature(stage, pool), choose_compute(device, precision)
    )


def make_encoder(source: Source, view: View, feature: Feature, compute: Compute) -> Encoder:
    """An encoder of an opened network; one clip is run through it to see how long its vectors are.

    Raises:
        ValueError: the network has no such stage.
    """
    check_stage(source.backbone, feature.stage)
    backbone = fold(source.on(compute))
    clip = torch.zeros(1, 3, view.clip_frames, view.clip_size, view.clip_size, dtype=torch.uint8)
    (vector,) = clip_features(backbone, clip, [feature], compute)
    return Encoder(backbone, Space(source.fingerprint, view, feature), compute, vector.shape[1])
