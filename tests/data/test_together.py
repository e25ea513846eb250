"""Clips of one video in one batch: whole groups in every share, different labels, one video, each label as often."""

from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from v3s.data.clips import VALIDATION_EPOCH, BatchOptions, BatchOrder, PretextClips
from v3s.data.index_table import IndexTable
from v3s.data.loading import load_batches
from v3s.data.quarantine import Quarantine
from v3s.data.synthetic import make_clips
from v3s.pretext.plan import Sampling
from v3s.pretext.task import TASKS
from v3s.pretext.temporal import span
from v3s.video.index import VideoIndex, index_video

V3S = TASKS["v3s"]
SMALL = Sampling(clip_frames=4, clip_size=24, canvas_size=48)
seeds = st.integers(0, 2**32 - 1)
quick = settings(deadline=None, max_examples=40)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> IndexTable:
    """Five moving videos of 30 frames, 64 x 48."""
    paths = make_clips(tmp_path_factory.mktemp("videos"), num_videos=5, num_frames=30, height=48, width=64)
    return IndexTable.of(index_video(path) for path in paths)


@quick
@given(st.integers(1, 40), st.integers(1, 6), st.integers(2, 4), seeds)
def test_an_epoch_shows_every_video_once_as_a_group(num_videos: int, groups: int, together: int, seed: int) -> None:
    order = BatchOrder(num_samples=num_videos, batch_size=groups * together, num_epochs=2, seed=seed, together=together)
    batches = list(order)
    assert len(batches) == 2 * order.steps_per_epoch == 2 * max(1, num_videos // groups)
    for epoch in range(2):
        own = batches[epoch * order.steps_per_epoch : (epoch + 1) * order.steps_per_epoch]
        for batch in own:
            firsts = batch[::together]
            assert batch == [(epoch, first + clip * num_videos) for _, first in firsts for clip in range(together)]
            assert len(firsts) == min(groups, num_videos)
        videos = [index for batch in own for _, index in batch[::together]]
        assert len(set(videos)) == len(videos)
        assert all(0 <= video < num_videos for video in videos)


@quick
@given(st.integers(1, 4), st.integers(1, 3), st.integers(2, 3), seeds)
def test_a_process_gets_whole_groups(num_processes: int, groups: int, together: int, seed: int) -> None:
    size = num_processes * groups * together
    alone = BatchOrder(num_samples=40, batch_size=size, num_epochs=1, seed=seed, together=together)
    shares = [list(replace(alone, rank=rank, num_processes=num_processes)) for rank in range(num_processes)]
    for batch, *parts in zip(alone, *shares, strict=True):
        assert sorted(key for part in parts for key in part) == sorted(batch)
        for part in parts:
            assert len(part) == groups * together
            assert set(Counter(index % 40 for _, index in part).values()) == {together}


@quick
@given(st.integers(0, 2), st.integers(0, 4), seeds)
def test_groups_resume_anywhere(epoch: int, step: int, seed: int) -> None:
    whole = BatchOrder(num_samples=11, batch_size=4, num_epochs=3, seed=seed, together=2)
    assert list(replace(whole, first_epoch=epoch, first_step=step)) == list(whole)[5 * epoch + step :]


def test_without_groups_nothing_changes() -> None:
    order = BatchOrder(num_samples=23, batch_size=4, num_epochs=3, seed=9)
    assert list(replace(order, together=1)) == list(order)


@pytest.mark.parametrize("together", [2, 3])
def test_clips_of_a_group_share_the_video_but_no_label(table: IndexTable, together: int) -> None:
    clips = PretextClips(table, V3S, SMALL, seed=0, together=together)
    rows: Counter[tuple[str, int, int]] = Counter()
    num_epochs = 400
    for epoch in range(num_epochs):
        for video in range(5):
            drawn = [clips.plan(epoch, video + clip * 5) for clip in range(together)]
            assert {number for number, _ in drawn} == {video}
            assert len({plan.labels.spatial for _, plan in drawn}) == together
            assert len({plan.labels.temporal for _, plan in drawn}) == together
            assert len({(plan.frames, plan.to_clip) for _, plan in drawn}) == together
            for clip, (_, plan) in enumerate(drawn):
                rows["spatial", clip, plan.labels.spatial] += 1
                rows["temporal", clip, plan.labels.temporal] += 1
    limits = {"spatial": (18, 40.79), "temporal": (11, 29.59)}  # 99.9 % of chi-square, 17 and 10 degrees
    for head, (size, limit) in limits.items():
        expected = num_epochs * 5 / size
        for clip in range(together):
            counts = [rows[head, clip, row] for row in range(size)]
            assert sum((count - expected) ** 2 / expected for count in counts) < limit


def test_of_a_table_that_is_too_small_labels_repeat(table: IndexTable) -> None:
    clips = PretextClips(table, TASKS["ts-2"], SMALL, seed=0, together=3)
    for epoch in range(20):
        labels = [clips.plan(epoch, clip * 5)[1].labels for clip in range(3)]
        assert {label.temporal for label in labels} == {0, 1}
        assert {label.spatial for label in labels} == {0}


def test_with_short_videos_a_group_is_of_one_video_that_is_long_enough(table: IndexTable) -> None:
    """Labels first, then the video: each label stays as likely as the others."""
    lengths = (16, 20, 30, 45, 60, 69, 90, 300)
    videos = IndexTable.of(replace(table[0], num_frames=length) for length in lengths)
    clips, rows, shown = PretextClips(videos, V3S, Sampling(short="fit"), seed=0, together=2), Counter[int](), set()
    for epoch in range(300):
        for video in range(8):
            (first, one), (second, other) = (clips.plan(epoch, video + clip * 8) for clip in (0, 1))
            assert first == second
            assert clips.path((epoch, video)) == clips.path((epoch, video + 8))
            for plan in (one, other):
                assert span(V3S.temporal[plan.labels.temporal], 16) <= lengths[first]
                rows[plan.labels.temporal] += 1
            shown.add(first)
    assert shown == set(range(2, 8))  # 16 and 20 frames show one label only, and a group needs two
    expected = 300 * 16 / 11
    assert sum((rows[row] - expected) ** 2 / expected for row in range(11)) < 29.59


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_workers_and_processes_see_the_same_groups(table: IndexTable) -> None:
    clips = PretextClips(table, V3S, SMALL, seed=0, together=2)
    order = BatchOrder(num_samples=5, batch_size=4, num_epochs=2, seed=0, together=2)

    def read(order: BatchOrder, num_workers: int) -> list[list[Tensor]]:
        return [list(batch) for batch in load_batches(clips, order, num_workers=num_workers)]

    alone = read(order, 0)
    assert len(alone) == 4
    for pixels, targets in alone:
        assert pixels.shape == (4, 3, 4, 24, 24)
        assert targets[::2, 2].tolist() == targets[1::2, 2].tolist()
    for workers in (1, 2):
        for one, other in zip(alone, read(order, workers), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    for rank in (0, 1):
        for one, other in zip(alone, read(replace(order, rank=rank, num_processes=2), 0), strict=True):
            assert all(torch.equal(a[2 * rank : 2 * rank + 2], b) for a, b in zip(one, other, strict=True))


def test_validation_clips_have_no_groups(table: IndexTable) -> None:
    grouped, plain = (PretextClips(table, V3S, SMALL, seed=0, together=together) for together in (2, 1))
    for number in range(10):
        assert grouped.plan(VALIDATION_EPOCH, number) == plain.plan(VALIDATION_EPOCH, number)


def test_a_file_that_fails_takes_its_whole_group(table: IndexTable, tmp_path: Path) -> None:
    """So that no clip is left without its partner."""
    videos = (index for index in table if isinstance(index, VideoIndex))
    copies = [replace(index, path=str(tmp_path / f"{number}.mp4")) for number, index in enumerate(islice(videos, 5))]
    for number in (0, 1, 3, 4):
        Path(copies[number].path).write_bytes(Path(table[number].path).read_bytes())
    Path(copies[2].path).write_bytes(b"no video")
    clips = PretextClips(IndexTable.of(copies), V3S, SMALL, seed=0, together=2)
    order = BatchOrder(num_samples=5, batch_size=10, num_epochs=2, seed=0, together=2)
    quarantine = Quarantine(num_files=5, log=None, stream="train", report=lambda text: None)
    for _, targets in load_batches(clips, order, num_workers=0, quarantine=quarantine):
        assert Counter(targets[:, 2].tolist()) == {0: 2, 1: 2, 3: 2, 4: 2}


def test_batches_that_cannot_hold_groups_are_refused() -> None:
    with pytest.raises(ValueError, match=r"batch_size is 8; it must be a multiple of clips_together \(3\)"):
        BatchOptions(batch_size=8, clips_together=3).check_batches()
    with pytest.raises(ValueError, match=r"multiple of the number of processes \(4\) times clips_together \(2\)"):
        BatchOptions(batch_size=12, clips_together=2).check_shares(4)
    with pytest.raises(ValueError, match="clips_together is 2; it needs at least 2 training videos"):
        BatchOptions(clips_together=2).check_train_videos(1, 1)
