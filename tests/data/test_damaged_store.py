"""Damaged frames of a store: the file is skipped by name like a bad file, and no other sample changes."""

import json
import random
import re
from pathlib import Path

import pytest
import torch
from rich.console import Console

from v3s.commands.prepare import PrepareConfig, prepare
from v3s.data.clips import PretextClips
from v3s.data.lists.splits import list_videos
from v3s.data.loading import load_batches
from v3s.data.quarantine import Quarantine
from v3s.data.resident import ResidentFrames
from v3s.data.scan import scan
from v3s.data.store_folder import open_store
from v3s.data.synthetic import make_clips
from v3s.pretext.plan import Sampling
from v3s.pretext.task import TASKS
from v3s.video import store as store_module
from v3s.video.index import VideoError
from v3s.video.store import PixelFormat, StoredVideo

SAMPLING = Sampling(clip_frames=4, clip_size=24, canvas_size=48)
KEYS = [[(0, number) for number in range(6)], [(1, number) for number in range(6)]]


def prepared(folder: Path, pixel_format: PixelFormat) -> Path:
    make_clips(folder / "videos", num_videos=6, num_frames=24, height=48, width=64)
    config = PrepareConfig(data=str(folder / "videos"), out=str(folder / "store"), pixel_format=pixel_format, workers=0)
    prepare(config, console=Console(quiet=True))
    return folder / "store"


def damage(store: Path, number: int) -> StoredVideo:
    """Flip a bit in the middle of every frame of a video; what a process knows of the store is forgotten."""
    file = open_store(store).files[list_videos(store).paths[number]]
    assert isinstance(file.outcome, StoredVideo)
    video, shard = file.outcome, Path(file.outcome.shard)
    data = bytearray(shard.read_bytes())
    for frame in range(video.num_frames):
        data[video.offset + (2 * frame + 1) * video.num_bytes // (2 * video.num_frames)] ^= 1
    shard.write_bytes(data)
    store_module._Checks._known.clear()
    return video


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("pixel_format", ["yuv", "rgb", "jpeg"])
def test_a_damaged_video_is_skipped_by_name(tmp_path: Path, pixel_format: PixelFormat, num_workers: int) -> None:
    store = prepared(tmp_path, pixel_format)
    clips = PretextClips(scan(list_videos(store), min_frames=20).usable_table, TASKS["ts"], SAMPLING, seed=1)
    whole = [clips for clips, _ in load_batches(clips, KEYS, num_workers=0, quarantine=None)]
    video, reports = damage(store, 2), list[str]()
    bad = Quarantine(num_files=6, report=reports.append)
    read = [clips for clips, _ in load_batches(clips, KEYS, num_workers=num_workers, quarantine=bad)]
    assert list(bad.failures) == [video.path]
    assert "damaged" in bad.failures[video.path].reason
    assert video.shard in bad.failures[video.path].reason
    assert len(reports) == 1
    for before, after in zip(whole, read, strict=True):
        assert torch.equal(after, before[[0, 1, 3, 4, 5]])


@pytest.mark.parametrize("pixel_format", ["yuv", "rgb"])
def test_frames_that_are_held_in_memory_are_compared_too(tmp_path: Path, pixel_format: PixelFormat) -> None:
    store = prepared(tmp_path, pixel_format)
    table = scan(list_videos(store), min_frames=20).usable_table
    ResidentFrames(table, torch.device("cpu"))
    video = damage(store, 2)
    with pytest.raises(VideoError, match=rf"{Path(video.path).name}: its frames in .* are damaged"):
        ResidentFrames(table, torch.device("cpu"))


def test_a_check_names_it(tmp_path: Path) -> None:
    store = prepared(tmp_path, "jpeg")
    damage(store, 2)
    reports = scan(list_videos(store), min_frames=20, verify=True).reports
    assert [report.verdict for report in reports] == ["usable", "usable", "unreadable", *["usable"] * 3]
    assert "damaged" in reports[2].reason


def test_every_byte_of_a_list_is_covered(tmp_path: Path) -> None:
    """A bit that flips is an error that names the list; nothing is read by a wrong height or range."""
    store = prepared(tmp_path, "yuv")
    (listed,) = (store / "shards").glob("*.jsonl")
    whole, files = listed.read_bytes(), open_store(store).files
    generator = random.Random(0)
    for place in generator.sample(range(len(whole) - 1), 200):
        listed.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << generator.randrange(8)]) + whole[place + 1 :])
        with pytest.raises(ValueError, match=re.escape(f"{listed} is damaged")):
            open_store(store)
    listed.write_bytes(whole)
    assert open_store(store).files == files


def test_lists_of_earlier_versions_open(tmp_path: Path) -> None:
    """Without a checksum at the end of each line, without a digest, and without what videos have gained since."""
    store = prepared(tmp_path, "yuv")
    (listed,) = (store / "shards").glob("*.jsonl")
    lines = [json.loads(line) for line in listed.read_text().splitlines()]
    gained = {"rate_varies", "remarks", "fingerprint", "table_checksum"}
    for num_values in (6, 5):
        old = [
            [*line[:4], {name: value for name, value in line[4].items() if name not in gained}, *line[5:num_values]]
            for line in lines
        ]
        listed.write_text("".join(f"{json.dumps(line)}\n" for line in old))
        files = open_store(store).files
        assert len(files) == 6
        stored = [file.outcome for file in files.values() if isinstance(file.outcome, StoredVideo)]
        assert len({video.fingerprint for video in stored}) == 6
        assert all(video.table_checksum is None for video in stored)
        assert scan(list_videos(store), min_frames=20, verify=True).num_usable == 6
