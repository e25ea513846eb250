"""Clips of whole videos: where they start, how short videos are padded, and the map from frame to clip."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from v3s.data.index_table import IndexTable
from v3s.data.lists.splits import list_videos
from v3s.data.scan import scan
from v3s.data.views import View, count_padded, evenly_spaced, read_clips
from v3s.video.decode import read_frames
from v3s.video.warp import warp


@pytest.fixture(scope="module")
def table(small_videos: Path) -> IndexTable:
    return scan(list_videos(small_videos), min_frames=1).usable_table


def test_ten_clips_of_a_real_length() -> None:
    assert View().starts(164) == [0, 16, 33, 49, 66, 82, 99, 115, 132, 148]
    assert View().starts(16) == [0] * 10
    assert View(clip_frames=64, num_clips=1).starts(100) == [18]


@given(st.integers(1, 80), st.integers(1, 3000), st.integers(2, 12))
def test_centres_are_evenly_spaced_and_starts_reach_both_ends(length: int, room: int, num_clips: int) -> None:
    view = View(clip_frames=length, num_clips=num_clips)
    starts = view.starts(length + room)
    assert (len(starts), starts[0], starts[-1]) == (num_clips, 0, room)
    centres = np.array(starts) + length / 2
    assert np.abs(centres - np.linspace(length / 2, room + length / 2, num_clips)).max() <= 0.5 + 1e-9
    clips = view.clips(length + room)
    assert clips[-1][-1] == length + room - 1
    assert all(np.diff(clip).tolist() == [1] * (length - 1) for clip in clips)


def test_evenly_spaced_rounds_halves_up() -> None:
    assert evenly_spaced(3, 3) == [0, 2, 3]
    assert evenly_spaced(7, 1) == [3]


def test_a_sliding_window_covers_all_but_the_end() -> None:
    assert View(stride=8).starts(45) == [0, 8, 16, 24]
    assert View(stride=8).starts(40) == [0, 8, 16, 24]
    assert View(stride=8).starts(39) == [0, 8, 16]


def test_a_short_video_repeats_its_last_frame() -> None:
    view = View(clip_frames=5, num_clips=2)
    assert view.clips(3) == [(0, 1, 2, 2, 2)] * 2
    assert View(clip_frames=5, stride=2).clips(3) == [(0, 1, 2, 2, 2)]
    assert view.clips(1) == [(0, 0, 0, 0, 0)] * 2


@pytest.mark.parametrize("wrong", [{"clip_frames": 0}, {"clip_size": 0}, {"num_clips": 0}, {"stride": -1}])
def test_invalid_views_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}={next(iter(wrong.values()))}"):
        View(**wrong)


def test_clip_is_the_centre_of_a_frame_of_128_by_171() -> None:
    to_clip = View().to_clip(320, 240)
    corners = to_clip([(0, 0), (320, 240)])
    assert corners == pytest.approx(np.array([(-(171 - 112) / 2, -(128 - 112) / 2), (171 - 29.5, 128 - 8)]))


def test_other_sizes_keep_the_proportions() -> None:
    assert View(clip_size=56).resized(320, 240) == (64, 85.5)
    assert View(clip_size=56).to_clip(320, 240)([(0, 0), (320, 240)]) == pytest.approx(
        View().to_clip(320, 240)([(0, 0), (320, 240)]) / 2
    )


def test_networks_of_224_get_frames_of_256() -> None:
    corners = View(clip_size=224).to_clip(320, 240)([(0, 0), (320, 240)])
    assert corners == pytest.approx(np.array([(-16, -16), (240, 240)]))


def test_pixels_are_those_of_resize_and_crop_by_hand() -> None:
    """Compared with F.interpolate, for an enlarged frame and a crop at whole pixels."""
    frames = torch.randint(0, 256, (2, 3, 90, 130), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    to_clip = View().to_clip(130, 90, left=20 / (171 - 112), top=10 / (128 - 112))
    resized = F.interpolate(frames.float(), (128, 171), mode="bilinear", align_corners=False)
    by_hand = resized[:, :, 10 : 10 + 112, 20 : 20 + 112].transpose(0, 1)
    assert (warp(frames, to_clip, 112, 112).float() - by_hand).abs().max() <= 0.51


def test_flip_only_mirrors_the_clip() -> None:
    frames = torch.randint(0, 256, (1, 3, 90, 130), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    plain, flipped = (
        warp(frames, View(clip_size=40).to_clip(130, 90, left=0.2, top=0.9, flip=flip), 40, 40)
        for flip in (False, True)
    )
    assert (plain.flip(-1).int() - flipped.int()).abs().max() <= 1
    assert not torch.equal(plain, flipped)


def test_read_clips_returns_the_given_frames(table: IndexTable) -> None:
    view, source = View(clip_frames=4, clip_size=32, num_clips=3), table[0]
    clips = read_clips(table, 0, view, [(0, 1, 2, 3), (2, 3, 39, 39)])
    assert (clips.shape, clips.dtype) == ((2, 3, 4, 32, 32), torch.uint8)
    alone = warp(read_frames(source, [39]), view.to_clip(source.width, source.height), 32, 32)[:, 0]
    assert torch.equal(clips[1, :, 2], alone)
    assert torch.equal(clips[1, :, 3], alone)
    assert torch.equal(clips[0, :, 2:], clips[1, :, :2])


def test_count_padded_counts_videos_shorter_than_a_clip(table: IndexTable) -> None:
    assert count_padded(table, View(clip_frames=40)) == 0
    assert count_padded(table, View(clip_frames=41)) == len(table)
