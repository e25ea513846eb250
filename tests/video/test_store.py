"""Frames in a store: those of the video, bit for bit or with a measured loss, and damage that is noticed."""

import errno
import math
import os
import tempfile
import zlib
from contextlib import suppress
from dataclasses import replace
from fcntl import F_GETFL, fcntl
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from v3s.data.synthetic import make_clips
from v3s.video import store as store_module
from v3s.video import store_writer as storing
from v3s.video.decode import index_video, read_frames, video_from_json
from v3s.video.frames import Frames
from v3s.video.index import VideoError
from v3s.video.store import PixelFormat, StoredVideo, frame_bytes, plane_shapes, stored_size, verify_stored
from v3s.video.store_writer import BLOCK, ShardWriter, store_video

NUMBERS = [17, 3, 3, 19, 0]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    make_clips(folder, num_videos=1, num_frames=20, height=50, width=66)
    (path,) = folder.rglob("*.mp4")
    return path


def store(path: Path, folder: Path, pixel_format: PixelFormat = "yuv", short_side: int = 1000) -> StoredVideo:
    shard = folder / f"{path.stem}-{pixel_format}-{short_side}.bin"
    with ShardWriter(shard) as writer:
        writer.write(np.frombuffer(b"before", np.uint8))
        return store_video(path, writer, pixel_format=pixel_format, short_side=short_side, shard_name=str(shard))


def psnr(some: Frames, others: Frames) -> float:
    error = float((some.rgb().double() - others.rgb().double()).square().mean())
    return 10 * math.log10(255**2 / max(error, 1e-9))


def test_planes_are_kept_bit_for_bit(video: Path, tmp_path: Path) -> None:
    stored, index = store(video, tmp_path), index_video(video)
    ours, decoded = read_frames(stored, NUMBERS), read_frames(index, NUMBERS)
    assert ours.colour == decoded.colour
    assert all(map(torch.equal, ours.planes, decoded.planes))
    assert (stored.num_frames, stored.fps, stored.codec) == (index.num_frames, index.fps, index.codec)


def test_rgb_is_the_same_picture(video: Path, tmp_path: Path) -> None:
    ours = read_frames(store(video, tmp_path, "rgb"), NUMBERS)
    assert ours.colour is None
    assert torch.equal(ours.rgb(), read_frames(index_video(video), NUMBERS).rgb())


def test_jpeg_loses_little_and_takes_little(video: Path, tmp_path: Path) -> None:
    stored = store(video, tmp_path, "jpeg")
    assert psnr(read_frames(stored, NUMBERS), read_frames(index_video(video), NUMBERS)) > 36
    assert stored.num_bytes < 0.35 * store(video, tmp_path).num_bytes


@pytest.mark.parametrize("turn", [90, 180, 270])
@pytest.mark.parametrize("pixel_format", ["yuv", "jpeg", "rgb"])
def test_turned_frames_are_stored_upright(video: Path, tmp_path: Path, pixel_format: PixelFormat, turn: int) -> None:
    path = tmp_path / "turned.mp4"
    with av.open(str(video)) as given, av.open(str(path), "w") as output:
        stream = output.add_stream_from_template(given.streams.video[0])
        stream.set_display_rotation(turn)
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = stream
                output.mux(packet)
    stored, index = store(path, tmp_path, pixel_format), index_video(path)
    assert (index.rotation, stored.height, stored.width) == (turn, index.height, index.width)
    ours, decoded = read_frames(stored, NUMBERS), read_frames(index, NUMBERS)
    assert psnr(ours, decoded) > 36 if pixel_format == "jpeg" else torch.equal(ours.rgb(), decoded.rgb())


@pytest.mark.parametrize("pixel_format", ["yuv", "jpeg", "rgb"])
def test_large_frames_shrink_and_keep_their_shape(video: Path, tmp_path: Path, pixel_format: PixelFormat) -> None:
    stored = store(video, tmp_path, pixel_format, short_side=25)
    assert (stored.height, stored.width) == (25, 33)
    small = read_frames(stored, NUMBERS).rgb().double()
    large = read_frames(index_video(video), NUMBERS).rgb().double()
    assert small.shape == (5, 3, 25, 33)
    assert (torch.nn.functional.avg_pool2d(large, 2) - small).abs().mean() < 6


def test_bytes_of_a_frame_are_those_of_its_planes(video: Path, tmp_path: Path) -> None:
    for pixel_format, per_pixel in (("yuv", 1.5), ("rgb", 3.0)):
        assert frame_bytes(pixel_format, 50, 66) == 50 * 66 * per_pixel  # type: ignore[arg-type]
        assert store(video, tmp_path, pixel_format).num_bytes == 20 * 50 * 66 * per_pixel  # type: ignore[arg-type]
    assert plane_shapes("yuv", 5, 7) == ((1, 5, 7), (2, 3, 4))
    assert (stored_size(240, 320, 256), stored_size(1080, 1920, 256)) == ((240, 320), (256, 455))


@pytest.mark.parametrize("name", ["bt709_full_range.mp4", "decord_video_90.mov", "animated.gif", "h264_10bits.mp4"])
def test_ranges_rotations_palettes_and_depths(shared: Path, tmp_path: Path, name: str) -> None:
    path = shared / "data" / "odd" / name
    stored, index = store(path, tmp_path), index_video(path)
    assert (stored.height, stored.width, stored.num_frames) == (index.height, index.width, index.num_frames)
    assert psnr(read_frames(stored, [0, 1]), read_frames(index, [0, 1])) > 40
    small = read_frames(store(path, tmp_path, short_side=24), [0])
    for some, other, most in zip(small.planes, read_frames(stored, [0]).planes, (1, 4), strict=False):
        assert (some.double().mean(dim=(2, 3)) - other.double().mean(dim=(2, 3))).abs().max() < most


def test_entry_survives_its_json(video: Path, tmp_path: Path) -> None:
    stored, index = store(video, tmp_path), index_video(video)
    assert video_from_json(stored.to_json()) == stored
    assert video_from_json(index.to_json()) == index


def damage(stored: StoredVideo, place: int) -> None:
    """Change a byte, counted from where the video's frames begin; what a process knows of the store is forgotten."""
    shard = Path(stored.shard)
    data = bytearray(shard.read_bytes())
    data[stored.offset + place] ^= 1
    shard.write_bytes(data)
    store_module._Checks._known.clear()


@pytest.mark.parametrize("pixel_format", ["yuv", "rgb", "jpeg"])
def test_every_byte_is_covered_by_a_checksum(video: Path, tmp_path: Path, pixel_format: PixelFormat) -> None:
    """A changed byte is noticed where its frame is read, whichever it is, and by a check; no other error comes."""
    stored, generator = store(video, tmp_path, pixel_format), np.random.default_rng(0)
    verify_stored(stored)
    whole = Path(stored.shard).read_bytes()
    length = len(whole) - stored.offset
    table = length - stored.num_bytes
    assert table == 20 * 4 + (21 * 8 if pixel_format == "jpeg" else 0)
    places = [0, stored.num_bytes - 1, stored.num_bytes, length - 1, *generator.integers(0, length, 20).tolist()]
    for place in places:
        damage(stored, place)
        with pytest.raises(VideoError, match=r"clip_000\.mp4: .* in .*\.bin.* damaged"):
            verify_stored(stored)
        with pytest.raises(VideoError, match=r"clip_000\.mp4: .* in .*\.bin.* damaged"):
            read_frames(stored, range(20))
        Path(stored.shard).write_bytes(whole)
    assert len(read_frames(stored, range(20))) == 20


def test_damage_elsewhere_costs_nothing(video: Path, tmp_path: Path) -> None:
    stored = store(video, tmp_path)
    damage(stored, 19 * (50 * 66 * 3 // 2) + 7)
    assert len(read_frames(stored, range(19))) == 19
    with pytest.raises(VideoError, match=r"frame 19 in .* is damaged"):
        read_frames(stored, [3, 19])


def test_a_frame_is_compared_once(video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored, calls = store(video, tmp_path), []
    store_module._Checks._known.clear()

    def counted(values: bytes, start: int = 1) -> int:
        calls.append(1)
        return zlib.adler32(values, start)

    monkeypatch.setattr(store_module, "adler32", counted)
    for _ in range(3):
        read_frames(stored, [2, 5])
    assert len(calls) == 1 + 2 * 2  # the table, and two planes of two frames
    read_frames(stored, [2, 6])
    assert len(calls) == 1 + 2 * 2 + 1 + 2


def test_what_a_process_remembers_is_bounded(video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "MOST_REMEMBERED", 3)
    stored = store(video, tmp_path)
    for number in range(10):
        read_frames(
            replace(stored, path=f"{number}.mp4", shard=f"{tmp_path}/{'./' * number}{Path(stored.shard).name}"), [0]
        )
        assert len(store_module._Checks._known) <= 3


def test_a_store_of_an_earlier_version_is_read_as_before(video: Path, tmp_path: Path) -> None:
    """Its frames have no checksums of their own; its pictures that are damaged are errors all the same."""
    index = index_video(video)
    for pixel_format in ("yuv", "jpeg"):
        stored = replace(store(video, tmp_path, pixel_format), table_checksum=None)
        verify_stored(stored)
        assert psnr(read_frames(stored, NUMBERS), read_frames(index, NUMBERS)) > 36
    whole, errors = Path(stored.shard).read_bytes(), 0
    for place in (stored.num_bytes + 7, stored.num_bytes + 8 * 3 + 7, stored.num_bytes + 8 * 20, 2, 20):
        damage(stored, place)
        with suppress(VideoError):
            read_frames(stored, range(20))
            errors -= 1
        errors += 1
        Path(stored.shard).write_bytes(whole)
    assert errors >= 2


def test_a_shard_that_is_short_or_gone(video: Path, tmp_path: Path) -> None:
    stored = store(video, tmp_path, "jpeg")
    shard = Path(stored.shard)
    shard.write_bytes(shard.read_bytes()[: stored.offset + 100])
    for read in (lambda: read_frames(stored, [19]), lambda: verify_stored(stored)):
        with pytest.raises(VideoError, match=r"shorter than|damaged"):
            read()
    shard.unlink()
    with pytest.raises(VideoError, match="cannot be read from"):
        read_frames(stored, [0])


def test_number_out_of_range(video: Path, tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="has frames 0 to 19; frame 20"):
        read_frames(store(video, tmp_path), [20])


def test_video_that_fails_leaves_nothing_in_the_shard(tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(np.random.default_rng(0).bytes(2000))
    with ShardWriter(tmp_path / "shard") as writer:
        writer.write(np.frombuffer(b"kept", np.uint8))
        with pytest.raises(VideoError, match=r"not a video|none of the video formats"):
            store_video(bad, writer, pixel_format="yuv", short_side=100, shard_name="shard")
        assert writer.size == BLOCK
    assert (tmp_path / "shard").read_bytes() == b"kept".ljust(BLOCK, b"\0")


@pytest.mark.parametrize("folder", ["on the disk", "in memory"])
@given(
    videos=st.lists(st.tuples(st.lists(st.integers(0, 3 * BLOCK), max_size=6), st.booleans()), max_size=5),
    refuses=st.booleans(),
)
def test_shard_holds_what_was_written_and_not_taken_back(
    folder: str, videos: list[tuple[list[int], bool]], refuses: bool
) -> None:
    """Whatever the sizes, whether pieces of a video had left already, and where the disk refuses to be written so."""
    values, real = np.random.default_rng(0), os.write

    def refuse(file: int, values: memoryview) -> int:
        if fcntl(file, F_GETFL) & storing.DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(file, values[:5000])

    with (
        tempfile.TemporaryDirectory(dir="/dev/shm" if folder == "in memory" else None) as made,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(storing, "PIECE", 2 * BLOCK)
        if refuses:
            patch.setattr(os, "write", refuse)
        kept = []
        with ShardWriter(Path(made) / "shard") as writer:
            for sizes, fails in videos:
                start = writer.begin()
                planes = [values.integers(0, 256, (size, 1), np.uint8) for size in sizes]
                for plane in planes:
                    writer.write(plane)
                written = b"".join(plane.tobytes() for plane in planes)
                assert writer.checksum == zlib.adler32(written)
                if fails:
                    writer.cut(start)
                else:
                    kept.append((start, written))
            size = writer.size
        whole = (Path(made) / "shard").read_bytes()
        assert all(start % BLOCK == 0 and whole[start:].startswith(written) for start, written in kept)
        assert len(whole) == size
