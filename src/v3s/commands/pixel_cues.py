"""How much a few pixel statistics of a clip reveal about its label, without a network: a linear probe on them.

Each sample is cut with several settings from the same frames, so that settings can be compared clip by clip.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from v3s.commands.scores import HeadScores, score_head
from v3s.data.clips import PretextClips, SampleKey
from v3s.pretext.cut import cut_clip
from v3s.protocols.classify import logistic_regression
from v3s.video.decode import read_frames

CUES = ("gradients", "borders", "motion")
ALL_CUES = "all three"
_PENALTY_C = 1.0
_SCALES = (1, 2, 4)  # side in pixels of the squares that are averaged before gradients are computed
_FLOOR = 1e-2  # below any real energy: keeps the logarithm of a constant clip finite


def clip_cues(clip: Tensor) -> dict[str, Tensor]:
    """The statistics that the probe sees.

    Args:
        clip: uint8, shape (3, T, H, W), at least 8 pixels high and wide.

    Returns:
        gradients: log energy of the horizontal and vertical differences at three scales and in the four halves of the
        picture, (14,); borders: mean, standard deviation, minimum and share of black pixels of the four border lines,
        (16,); motion: log energy of the change from each frame to the next, (T - 1,). All are of the grey clip.
    """
    grey = clip.float().mean(dim=0)
    height, width = grey.shape[1:]
    pictures = [F.avg_pool2d(grey, scale) for scale in _SCALES]
    pictures += [grey[:, :, : width // 2], grey[:, :, width // 2 :], grey[:, : height // 2], grey[:, height // 2 :]]
    energies = [picture.diff(dim=axis).square().mean() for picture in pictures for axis in (2, 1)]
    lines = [grey[:, 0], grey[:, -1], grey[:, :, 0], grey[:, :, -1]]
    borders = [number for line in lines for number in (line.mean(), line.std(), line.min(), (line < 4).float().mean())]
    motion = grey.diff(dim=0).square().mean(dim=(1, 2))
    return {
        "gradients": (torch.stack(energies) + _FLOOR).log(),
        "borders": torch.stack(borders),
        "motion": (motion + _FLOOR).log(),
    }


class CueClips:
    """The cues of each sample with every setting: tensors of shape (settings, numbers), the labels and the video.

    Args:
        settings: clips of the same videos, task and seed; their options may differ only in ways that keep the frames,
            such as zoom, jitter or bars.
    """

    def __init__(self, settings: Sequence[PretextClips]) -> None:
        self.settings = settings

    def path(self, key: SampleKey) -> str:
        """The file of a sample."""
        return self.settings[0].path(key)

    def __getitem__(self, key: SampleKey) -> tuple[dict[str, Tensor], Tensor, int]:
        plans = [clips.plan(*key) for clips in self.settings]
        video, first = plans[0]
        assert all(plan.frames == first.frames for _, plan in plans)
        frames = read_frames(self.settings[0].table[video], first.frames)
        cues_by_setting = [
            clip_cues(cut_clip(frames, plan, clips.sampling.clip_size))
            for clips, (_, plan) in zip(self.settings, plans, strict=True)
        ]
        stacked = {name: torch.stack([cues[name] for cues in cues_by_setting]) for name in CUES}
        return stacked, torch.tensor([first.labels.spatial, first.labels.temporal]), video


def probe_cues(
    clips: PretextClips,
    cues: Mapping[str, Tensor],
    labels: Tensor,
    videos: Tensor,
    parts: tuple[NDArray[np.int64], NDArray[np.int64]],
    groups: Tensor,
) -> dict[str, tuple[HeadScores, HeadScores]]:
    """Train a linear probe for each head on each kind of cue and on all of them, and test it on other videos.

    Args:
        clips: the clips that the cues are from, with their task and label prior.
        cues: the cues of one setting, each of shape (N, numbers).
        labels: int64, shape (N, 2).
        videos: the video number of each sample, shape (N,).
        parts: numbers of the videos that the probe is trained on, and of those that it is tested on.
        groups: the group of each video, by its number, int64: standard errors are over groups.

    Returns:
        The scores for the labels of the spatial and of the temporal head, by cue.
    """
    is_trained, is_tested = (torch.isin(videos, torch.from_numpy(part)) for part in parts)
    test_groups = groups[videos[is_tested]].numpy()
    inputs = {**cues, ALL_CUES: torch.cat([cues[name] for name in CUES], dim=1)}

    def score(numbers: Tensor, head: int, rows: tuple[object, ...]) -> HeadScores:
        train, test = numbers[is_trained], numbers[is_tested]
        probabilities = logistic_regression(train, labels[is_trained, head], test, _PENALTY_C, len(rows))
        predictions, truth = probabilities.argmax(dim=1).numpy(), labels[is_tested, head].numpy()
        return score_head(rows, clips.sampling.label_prior, truth, predictions, test_groups)

    return {
        name: (score(numbers, 0, clips.task.spatial), score(numbers, 1, clips.task.temporal))
        for name, numbers in inputs.items()
    }
