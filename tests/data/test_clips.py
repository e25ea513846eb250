"""Which clip is drawn when: the order of a run, and samples that depend only on their key."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from v3s.data.clips import VALIDATION_EPOCH, BatchOrder, PretextClips, SampleKey, validation_batches
from v3s.data.groups import hold_out
from v3s.data.index_table import IndexTable
from v3s.data.letterbox import detect_bars
from v3s.data.loading import load_batches
from v3s.data.synthetic import make_clips
from v3s.pages.images import mp4
from v3s.pretext.plan import Bars, Picture, Sampling, Short, max_samples, sample_generator
from v3s.pretext.task import TASKS
from v3s.pretext.temporal import offsets, span
from v3s.video.decode import Video, index_video, read_frames
from v3s.video.warp import warp

V3S = TASKS["v3s"]
SMALL = Sampling(clip_frames=8, clip_size=24, canvas_size=48)
seeds = st.integers(0, 2**32 - 1)
quick = settings(deadline=None, max_examples=40)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> IndexTable:
    """Five moving videos of 60 frames, 64 x 48."""
    folder = tmp_path_factory.mktemp("videos")
    paths = make_clips(folder, num_videos=5, num_frames=60, height=48, width=64)
    return IndexTable.of(index_video(path) for path in paths)


def with_lengths(table: IndexTable, *lengths: int) -> IndexTable:
    """Videos that claim to have these lengths: for plans, which read no file."""
    return IndexTable.of(replace(table[0], num_frames=length) for length in lengths)


# Order


@quick
@given(st.integers(1, 60), st.integers(1, 20), seeds)
def test_an_epoch_shows_every_video_at_most_once_and_a_full_one_each(num_samples: int, batch: int, seed: int) -> None:
    order = BatchOrder(num_samples=num_samples, batch_size=batch, num_epochs=3, seed=seed)
    batches = list(order)
    assert len(batches) == 3 * order.steps_per_epoch
    for epoch in range(3):
        own = batches[epoch * order.steps_per_epoch : (epoch + 1) * order.steps_per_epoch]
        keys = [key for keys in own for key in keys]
        assert {key[0] for key in keys} == {epoch}
        assert len({index for _, index in keys}) == len(keys)
        assert all(0 <= index < num_samples for _, index in keys)
        if num_samples >= batch:
            assert {len(keys) for keys in own} == {batch}
            assert num_samples - len(keys) < batch
        else:
            assert len(keys) == num_samples


def test_epochs_and_seeds_have_different_orders() -> None:
    def epoch_orders(seed: int) -> set[tuple[int, ...]]:
        batches = BatchOrder(num_samples=40, batch_size=40, num_epochs=4, seed=seed)
        return {tuple(index for _, index in keys) for keys in batches}

    orders = [order for seed in range(4) for order in epoch_orders(seed)]
    assert len(set(orders)) == 16
    assert tuple(range(40)) not in orders


def test_videos_left_over_come_in_other_epochs() -> None:
    order = BatchOrder(num_samples=7, batch_size=4, num_epochs=200, seed=0)
    shown = Counter(index for keys in order for _, index in keys)
    assert min(shown.values()) > 200 * 4 / 7 - 4 * np.sqrt(200 * 4 / 7 * 3 / 7)


@quick
@given(st.integers(0, 3), st.integers(0, 4), seeds, st.sampled_from([1, 2]))
def test_run_resumed_anywhere_continues_as_if_never_stopped(epoch: int, step: int, seed: int, num_parts: int) -> None:
    whole = BatchOrder(num_samples=23, batch_size=4, num_epochs=4, seed=seed, num_parts=num_parts)
    assert whole.steps_per_epoch == 5
    tail = replace(whole, first_epoch=epoch, first_step=step)
    assert list(tail) == list(whole)[5 * epoch + step :]


@quick
@given(st.integers(1, 5), st.integers(1, 4), seeds)
def test_processes_share_every_batch(num_processes: int, per_process: int, seed: int) -> None:
    alone = BatchOrder(num_samples=50, batch_size=num_processes * per_process, num_epochs=2, seed=seed)
    parts = [list(replace(alone, rank=rank, num_processes=num_processes)) for rank in range(num_processes)]
    for together, *shares in zip(alone, *parts, strict=True):
        assert {len(share) for share in shares} == {per_process}
        assert sorted(key for share in shares for key in share) == sorted(together)


@quick
@given(st.sampled_from([1, 2, 3, 4, 6, 12]), st.integers(12, 60), st.integers(1, 3), seeds)
def test_process_sees_only_its_parts_and_all_together_see_what_one_sees(
    num_processes: int, num_samples: int, per_part: int, seed: int
) -> None:
    """Twelve parts: their order is the same for every number of processes that divides 12."""
    alone = BatchOrder(num_samples=num_samples, batch_size=12 * per_part, num_epochs=2, seed=seed, num_parts=12)
    shares = [list(replace(alone, rank=rank, num_processes=num_processes)) for rank in range(num_processes)]
    for batch, *parts in zip(alone, *shares, strict=True):
        assert sorted(key for part in parts for key in part) == sorted(batch)
        assert len(set(batch)) == len(batch)
        counts = Counter(index % 12 for _, index in batch)
        assert len(counts) == 12
        assert len(set(counts.values())) == 1
    for rank, share in enumerate(shares):
        assert {index % num_processes for keys in share for _, index in keys} == {rank}


def test_an_epoch_in_parts_shows_every_video_once() -> None:
    order = BatchOrder(num_samples=48, batch_size=8, num_epochs=3, seed=1, num_parts=4)
    epochs = [[index for step in range(6) for _, index in order.batch(epoch, step)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(48)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    own_places = {tuple(index // 4 for index in epochs[0] if index % 4 == part) for part in range(4)}
    assert len(own_places) == 4  # each part has its own permutation


def test_order_hold_out_and_samples_draw_from_different_streams() -> None:
    """Numpy pads seeds with zeros: (seed, epoch) and (seed, epoch, 0) would be one stream."""
    num = 50
    order = BatchOrder(num_samples=num, batch_size=num, num_epochs=3, seed=7)
    orders = [tuple(index for _, index in keys) for keys in order]
    samples = [
        tuple(sample_generator(7, epoch, index).permutation(num).tolist())
        for epoch in (*range(5), VALIDATION_EPOCH)
        for index in range(num)
    ]
    assert len(set(orders + samples)) == len(orders) + len(samples)
    held_out = hold_out(num, 10, 7)[1].tolist()
    assert held_out not in [sorted(permutation[:10]) for permutation in orders + samples]


# Hold-out and validation


@quick
@given(st.integers(2, 80), st.data(), seeds)
def test_hold_out_divides_the_videos(num_videos: int, data: st.DataObject, seed: int) -> None:
    num_validation = data.draw(st.integers(1, num_videos - 1))
    train, validation = hold_out(num_videos, num_validation, seed)
    assert len(validation) == num_validation
    assert sorted([*train, *validation]) == list(range(num_videos))
    assert (np.diff(train) > 0).all()
    assert (np.diff(validation) > 0).all()
    again = hold_out(num_videos, num_validation, seed)
    assert np.array_equal(train, again[0])
    assert np.array_equal(validation, again[1])


def test_hold_out_depends_on_the_seed_and_favours_no_video() -> None:
    drawn = Counter(int(video) for seed in range(400) for video in hold_out(10, 3, seed)[1])
    assert len(drawn) == 10
    assert all(abs(count - 120) < 4 * np.sqrt(400 * 0.3 * 0.7) for count in drawn.values())


@pytest.mark.parametrize("num_validation", [0, 10, 11, -1])
def test_hold_out_needs_videos_on_both_sides(num_validation: int) -> None:
    with pytest.raises(ValueError, match=rf"^{num_validation} of 10 usable videos .* at least one each"):
        hold_out(10, num_validation, 0)


@quick
@given(st.integers(1, 30), st.integers(1, 4), st.integers(1, 9), st.integers(1, 4))
def test_validation_skips_no_clip(videos: int, clips_per_video: int, batch: int, num_processes: int) -> None:
    parts = [
        validation_batches(videos, clips_per_video, batch, rank=rank, num_processes=num_processes)
        for rank in range(num_processes)
    ]
    keys = [key for part in parts for keys in part for key in keys]
    assert sorted(keys) == [(VALIDATION_EPOCH, number) for number in range(videos * clips_per_video)]
    assert max(len(keys) for part in parts for keys in part) <= batch
    assert parts[0] == validation_batches(videos, clips_per_video, batch, num_processes=num_processes)
    assert Counter(number % videos for _, number in keys) == dict.fromkeys(range(videos), clips_per_video)


def test_validation_clips_of_one_video_differ(table: IndexTable) -> None:
    clips = PretextClips(table, V3S, SMALL, seed=0)
    plans = [clips.plan(VALIDATION_EPOCH, number) for number in range(3 * len(table))]
    assert [video for video, _ in plans] == 3 * list(range(len(table)))
    assert len({plan.to_clip for _, plan in plans}) == len(plans)


@pytest.mark.parametrize("num_clips", [5, 17, 40])
@pytest.mark.parametrize("seed", [0, 1])
def test_balanced_clips_show_each_label_equally_often(table: IndexTable, num_clips: int, seed: int) -> None:
    clips = PretextClips(table, V3S, SMALL, seed=seed).balanced(num_clips)
    drawn = [clips.plan(VALIDATION_EPOCH, number)[1].labels for number in range(num_clips)]
    for size, rows in ((18, [label.spatial for label in drawn]), (11, [label.temporal for label in drawn])):
        counts = np.bincount(rows, minlength=size)
        assert counts.max() - counts.min() <= 1
    assert [clips.plan(VALIDATION_EPOCH, number)[1].labels for number in range(num_clips)] == drawn
    pairs = {(label.spatial, label.temporal) for label in drawn}
    assert len(pairs) > num_clips / 2  # the labels of both heads are independent
    plain = PretextClips(table, V3S, SMALL, seed=seed)
    assert clips.plan(3, 2) == plain.plan(3, 2)  # samples of training stay as they are


def test_the_seed_chooses_the_balanced_labels(table: IndexTable) -> None:
    drawn = []
    for seed in (0, 0, 1):
        clips = PretextClips(table, V3S, SMALL, seed=seed).balanced(40)
        drawn.append([clips.plan(VALIDATION_EPOCH, number)[1].labels for number in range(40)])
    assert drawn[0] == drawn[1] != drawn[2]


def test_balance_keeps_the_shares_of_the_families(table: IndexTable) -> None:
    clips = PretextClips(table, V3S, replace(SMALL, label_prior="family"), seed=0).balanced(61)
    rows = [clips.plan(VALIDATION_EPOCH, number)[1].labels.temporal for number in range(61)]
    counts = np.bincount(rows, minlength=11)
    speeds, patterns = counts[:3], counts[3:]
    assert abs(int(speeds.sum()) - int(patterns.sum())) == 1
    assert speeds.max() - speeds.min() <= 1
    assert patterns.max() - patterns.min() <= 1


# Samples


def test_sample_is_the_warp_of_its_plan(table: IndexTable) -> None:
    clips = PretextClips(table, V3S, SMALL, seed=3)
    video, plan = clips.plan(1, 4)
    clip, labels = clips[1, 4]
    assert (clip.shape, clip.dtype) == ((3, 8, 24, 24), torch.uint8)
    assert (labels.tolist(), labels.dtype) == ([plan.labels.spatial, plan.labels.temporal], torch.int64)
    assert video == 4
    frames = read_frames(table[4], plan.frames)
    samples = max_samples(V3S, SMALL, Picture(frames.width, frames.height))
    assert torch.equal(clip, warp(frames, plan.to_clip, 24, 24, samples=samples))


def test_sample_depends_only_on_its_key(table: IndexTable) -> None:
    clips = PretextClips(table, V3S, SMALL, seed=3)
    first, _ = clips[1, 4]
    clips[0, 4], clips[1, 0]
    torch.rand(3), np.random.default_rng().random()
    assert torch.equal(clips[1, 4][0], first)
    assert not torch.equal(clips[2, 4][0], first)
    assert not torch.equal(PretextClips(table, V3S, SMALL, seed=4)[1, 4][0], first)


def collect(clips: PretextClips, keys: list[list[SampleKey]] | BatchOrder, num_workers: int) -> list[list[Tensor]]:
    return [list(batch) for batch in load_batches(clips, keys, num_workers=num_workers)]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_number_of_workers_changes_nothing(table: IndexTable) -> None:
    clips = PretextClips(table, V3S, SMALL, seed=0)
    order = BatchOrder(num_samples=5, batch_size=2, num_epochs=2, seed=0)
    inline, shared_out = collect(clips, order, 0), collect(clips, order, 2)
    assert len(inline) == len(shared_out) == 4
    assert [batch[0].shape for batch in inline] == [(2, 3, 8, 24, 24)] * 4
    for one, other in zip(inline, shared_out, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_processes_see_together_what_one_sees_alone(table: IndexTable) -> None:
    clips = PretextClips(table, V3S, SMALL, seed=0)
    alone = BatchOrder(num_samples=5, batch_size=4, num_epochs=1, seed=0)
    (clips_alone, labels_alone), *_ = collect(clips, alone, 0)
    for rank in (0, 1):
        (part, labels), *_ = collect(clips, replace(alone, rank=rank, num_processes=2), 0)
        assert torch.equal(part, clips_alone[rank::2])
        assert torch.equal(labels, labels_alone[rank::2])


def test_clip_shows_the_frames_of_its_label(tmp_path: Path) -> None:
    """The grey level of each frame encodes its number, so the clip reveals which frames were read."""
    greys = (30 + 3 * np.arange(70)).astype(np.uint8)
    (tmp_path / "clock.mp4").write_bytes(mp4(np.broadcast_to(greys[:, None, None, None], (70, 48, 64, 3)), 25))
    table = IndexTable.of([index_video(tmp_path / "clock.mp4")])
    clips = PretextClips(table, V3S, Sampling(clip_size=16, canvas_size=32), seed=0)
    seen = set()
    for epoch in range(25):
        clip, labels = clips[epoch, 0]
        row = V3S.temporal[int(labels[1])]
        numbers = ((clip.double().mean(dim=(0, 2, 3)) - 30) / 3).round().int()
        assert (numbers - numbers[0]).tolist() == list(offsets(row, 16)), row
        seen.add(row)
    assert len(seen) > 6


def test_bars_are_left_top_right_bottom(tmp_path: Path) -> None:
    """White bars of four widths around a black picture: if they are trimmed, no clip contains white."""
    pixels = np.full((30, 96, 128, 3), 255, np.uint8)
    pixels[:, 8:-32, 24:-16] = 0
    (tmp_path / "boxed.mp4").write_bytes(mp4(pixels, 25))
    table = IndexTable.of([index_video(tmp_path / "boxed.mp4")])
    for trim, white in ((True, False), (False, True)):
        clips = PretextClips(table, TASKS["ss+sp"], replace(SMALL, trim_bars=trim), seed=0)
        assert clips.num_with_bars == trim
        brightest = max(int(clips[epoch, 0][0].max()) for epoch in range(25))
        assert (brightest > 128) == white


def test_bars_are_detected_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Subsets of the videos and other samplings reuse the bars of the whole table."""
    pixels = np.random.default_rng(0).integers(40, 255, (2, 30, 96, 128, 3), np.uint8)
    pixels[1, :, :, :24] = 0
    for number in (0, 1):
        (tmp_path / f"{number}.mp4").write_bytes(mp4(pixels[number], 25))
    table, detected = IndexTable.of(index_video(tmp_path / f"{number}.mp4") for number in (0, 1)), []

    def detect(video: Video) -> Bars:
        detected.append(Path(video.path).name)
        return detect_bars(video)

    monkeypatch.setattr("v3s.data.letterbox.detect_bars", detect)
    trimming = replace(SMALL, trim_bars=True)
    clips = PretextClips(table, TASKS["ss"], trimming, seed=0)
    part = clips.subset(np.array([1]))
    assert (part.num_with_bars, clips.subset(np.array([0])).num_with_bars) == (1, 0)
    assert clips.cut_by(replace(trimming, zoom="even")).num_with_bars == 1
    assert clips.cut_by(SMALL).num_with_bars == 0
    assert detected == ["0.mp4", "1.mp4"]
    whole, own = (PretextClips(table.subset([1]), TASKS["ss"], sampling, seed=0) for sampling in (SMALL, trimming))
    assert torch.equal(part[3, 0][0], own[3, 0][0])
    assert torch.equal(whole.cut_by(trimming)[3, 0][0], own[3, 0][0])
    assert not torch.equal(whole[3, 0][0], own[3, 0][0])


# Short videos


def count_labels(clips: PretextClips, num_epochs: int) -> tuple[list[int], list[int]]:
    """Count how often each temporal label and each video was drawn."""
    temporal, videos = Counter[int](), Counter[int]()
    for epoch in range(num_epochs):
        for index in range(len(clips)):
            video, plan = clips.plan(epoch, index)
            assert plan.frames[-1] < clips.table.num_frames[video]
            assert clips.table.num_frames[video] >= span(V3S.temporal[plan.labels.temporal], 16)
            temporal[plan.labels.temporal] += 1
            videos[video] += 1
    return [temporal[row] for row in range(11)], [videos[video] for video in range(len(clips))]


@pytest.mark.parametrize(("short", "lengths"), [("fit", (16, 20, 30, 45, 60, 69, 90, 300)), ("leave-out", (69,) * 8)])
def test_labels_are_uniform_whatever_the_lengths(table: IndexTable, short: Short, lengths: tuple[int, ...]) -> None:
    """Otherwise the length of a clip's video would reveal its label."""
    clips = PretextClips(with_lengths(table, *lengths), V3S, Sampling(short=short), seed=0)
    labels, videos = count_labels(clips, 300)
    expected = 300 * len(lengths) / 11
    assert sum((count - expected) ** 2 / expected for count in labels) < 29.59  # 99.9 % of chi-square, 10 degrees
    if short == "fit":
        assert videos[0] < videos[3] < videos[6]
        assert min(videos) > 0


def test_fit_keeps_the_video_where_it_is_long_enough(table: IndexTable) -> None:
    clips = PretextClips(with_lengths(table, 80, 16, 70), V3S, Sampling(short="fit"), seed=0)
    assert all(clips.plan(epoch, index)[0] == index for epoch in range(60) for index in (0, 2))
    replaced = [clips.plan(epoch, 1) for epoch in range(200)]
    assert {video for video, plan in replaced if plan.labels.temporal == 0} == {1}
    others = Counter(video for video, plan in replaced if plan.labels.temporal != 0)
    assert set(others) == {0, 2}
    assert min(others.values()) > 60


def test_video_that_should_have_been_skipped_is_an_error(table: IndexTable) -> None:
    """No other video replaces it."""
    clips = PretextClips(with_lengths(table, 80, 22), TASKS["tp"], Sampling(), seed=0)  # the shortest pattern needs 23
    for epoch in range(20):
        assert clips.plan(epoch, 0)[0] == 0
        with pytest.raises(ValueError, match=r"the video has 22 frames; speed \d then \d needs \d+$"):
            clips.plan(epoch, 1)
