"""The frames, map and labels of every sample of a run are the same on every machine, however it is read.

The digests are recorded. A change that alters one makes old runs impossible to reproduce: mention it in the changelog,
and record the new digest.
"""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from v3s.data.clips import BatchOrder, PretextClips, SampleKey
from v3s.data.index_table import IndexTable
from v3s.data.loading import load_batches
from v3s.pretext.plan import Sampling
from v3s.pretext.task import TASKS
from v3s.video.index import VideoIndex

GOLDEN = {
    "as in the paper": "1a727aa70e4745c0909694ded31e0c796c8ab88bd2f6ffea5ecf0e1b183a1ea9",
    "even, flipped, short side": "53a7f89cf6c169ff0e5a9fa11f73c3d24421c5a6a8195dae54ca2c37d71b310b",
    "short videos fit": "825e73b4f7eb98c3067ac6cc804bd9af853158be6ae35002d37240bc86e5307f",
}
SAMPLINGS = {
    "as in the paper": Sampling(),
    "even, flipped, short side": Sampling(zoom="even", flip=True, pre_resize="short-side", label_prior="family"),
    "short videos fit": Sampling(seam="second", short="fit"),
}
ORDER = BatchOrder(num_samples=24, batch_size=8, num_epochs=3, seed=5)


class Plans(PretextClips):
    """Samples that are the digests of their plans; no file is opened."""

    def __getitem__(self, key: SampleKey) -> tuple[Tensor, Tensor]:
        """The plan's digest, uint8 of shape (32,), and the labels."""
        video, plan = self.plan(*key)
        # Rounded: the last digits of a matrix product depend on the machine.
        numbers = [video, *plan.frames, *np.round(plan.to_clip.matrix.ravel(), 6) + 0.0]
        digest = hashlib.sha256(np.array(numbers, "<f8").tobytes()).digest()
        return torch.tensor(list(digest), dtype=torch.uint8), torch.tensor([plan.labels.spatial, plan.labels.temporal])


def plans(name: str) -> Plans:
    sampling = SAMPLINGS[name]
    shortest = 30 if sampling.short == "fit" else 70
    table = IndexTable.of(
        VideoIndex(
            path=f"{number}.mp4", num_bytes=1, num_frames=shortest + 11 * number, num_corrupt=0,
            height=240 - number, width=320 + 2 * number, rotation=0, fps=25.0, duration_seconds=1.0, codec="h264",
            pixel_format="yuv420p", timestamps=range(0, 400), packets_match=True, key_frames=(), known_format="mov",
            fingerprint=number,
        )
        for number in range(24)
    )  # fmt: skip
    return Plans(table, TASKS["v3s"], sampling, seed=5)


def batches(name: str, order: BatchOrder = ORDER, num_workers: int = 0, prefetch: int = 2) -> list[list[bytes]]:
    """Every sample of every batch as bytes."""
    loaded = load_batches(plans(name), order, num_workers=num_workers, prefetch=prefetch)
    return [
        [bytes(digest.tolist() + pair.tolist()) for digest, pair in zip(digests, labels, strict=True)]
        for digests, labels in loaded
    ]


def digest(read: list[list[bytes]]) -> str:
    return hashlib.sha256(b"".join(b"".join(batch) for batch in read)).hexdigest()


@pytest.mark.parametrize("name", SAMPLINGS)
def test_plans_match_the_recorded_digests(name: str) -> None:
    assert digest(batches(name)) == GOLDEN[name]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize(("num_workers", "prefetch"), [(1, 1), (1, 4), (2, 1), (2, 4)])
def test_workers_change_nothing(num_workers: int, prefetch: int) -> None:
    read = batches("as in the paper", num_workers=num_workers, prefetch=prefetch)
    assert digest(read) == GOLDEN["as in the paper"]


def test_two_ranks_share_the_batches_of_one() -> None:
    ranks = [batches("as in the paper", replace(ORDER, rank=rank, num_processes=2)) for rank in (0, 1)]
    together = [
        [sample for pair in zip(*shares, strict=True) for sample in pair] for shares in zip(*ranks, strict=True)
    ]
    assert digest(together) == GOLDEN["as in the paper"]
