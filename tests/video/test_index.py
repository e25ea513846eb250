"""Indexing: what one decode pass learns, and every reason for which a file is refused."""

from array import array
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np
import pytest

from v3s.video import container as container_module
from v3s.video.index import VideoError, VideoIndex, index_video
from v3s.video.planes import PlaneReader

HEIGHT, WIDTH = 80, 112


def write_video(
    path: Path,
    codec: str,
    times: Sequence[int],
    *,
    size: tuple[int, int] = (HEIGHT, WIDTH),
    rotation: int = 0,
    container: str | None = None,
    **options: str,
) -> Path:
    """Encode a moving pattern, one frame at each time in thirtieths of a second."""
    height, width = size
    pattern = np.random.default_rng(0).integers(0, 255, (8, 12, 3), dtype=np.uint8)
    pixel_format = {"gif": "rgb8", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=30, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = height, width, pixel_format
        stream.codec_context.time_base = Fraction(1, 30)
        if rotation:
            stream.set_display_rotation(rotation)
        for number, time in enumerate(times):
            image = np.kron(np.roll(pattern, number, axis=1), np.ones((height // 8 + 1, width // 12 + 1, 1), np.uint8))
            image[:8] = 250  # the top edge is bright, in every frame
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image[:height, :width]), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 30)
            output.mux(stream.encode(frame.reformat(format=pixel_format)))
        output.mux(stream.encode(None))
    return path


def truncate(source: Path, target: Path, share: float) -> Path:
    """Copy the first part of a file."""
    data = source.read_bytes()
    target.write_bytes(data[: int(len(data) * share)])
    return target


def write_sound(path: Path) -> Path:
    """Encode a tenth of a second of silence."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("aac", rate=16000)
        assert isinstance(stream, av.AudioStream)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def test_index_states_the_video(tmp_path: Path) -> None:
    index = index_video(write_video(tmp_path / "a.mp4", "libx264", range(50), g="20", bf="2"))
    assert (index.num_frames, index.height, index.width) == (50, HEIGHT, WIDTH)
    assert index.fps == pytest.approx(30)
    assert index.duration_seconds == pytest.approx(50 / 30)
    assert (index.codec, index.pixel_format, index.rotation) == ("h264", "yuv420p", 0)
    assert isinstance(index.timestamps, range)
    assert len(index.timestamps) == 50


def test_key_frames_are_display_numbers_and_not_too_near(tmp_path: Path) -> None:
    long_groups = index_video(write_video(tmp_path / "a.mp4", "libx264", range(61), g="20", sc_threshold="0", bf="2"))
    assert long_groups.key_frames == (20, 40, 60)
    all_intra = index_video(write_video(tmp_path / "b.avi", "mjpeg", range(40)))
    assert all_intra.key_frames == (12, 24, 36)


def test_key_frame_that_does_not_give_the_same_pixels_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "a.mp4", "libx264", range(61), g="20", sc_threshold="0", bf="2")
    calls = iter(range(10**6))  # a checksum that never repeats: no frame after a seek looks like the first pass's
    monkeypatch.setattr(PlaneReader, "checksum", lambda self, frame: next(calls))
    assert index_video(path).key_frames == ()


def test_variable_frame_rate_keeps_every_time(tmp_path: Path) -> None:
    times = np.cumsum(np.random.default_rng(1).integers(1, 6, 40)).tolist()
    index = index_video(write_video(tmp_path / "a.mp4", "libx264", times, bf="2"))
    assert isinstance(index.timestamps, array)
    gaps = np.diff(index.timestamps)
    assert gaps / gaps[0] == pytest.approx(np.diff(times) / (times[1] - times[0]))
    assert index.duration_seconds == pytest.approx((times[-1] - times[0]) / 30, abs=2 / index.fps)


@pytest.mark.parametrize("turn", [0, 90, 180, -90])
def test_size_is_that_after_the_display_rotation(tmp_path: Path, turn: int) -> None:
    index = index_video(write_video(tmp_path / "a.mp4", "libx264", range(3), rotation=turn))
    assert index.rotation == turn % 360
    assert (index.height, index.width) == ((WIDTH, HEIGHT) if turn % 180 else (HEIGHT, WIDTH))


@pytest.mark.parametrize("times", [range(40), [0, 1, 3, 4, 9], [0]])
def test_json_round_trip(tmp_path: Path, times: Sequence[int]) -> None:
    index = index_video(write_video(tmp_path / "a.mp4", "libx264", times, g="12"))
    assert VideoIndex.from_json(index.to_json()) == index
    assert "\n" not in index.to_json()


def test_real_files(shared: Path) -> None:
    clips = shared / "data" / "clips"
    ucf = index_video(clips / "v_BaseballPitch_g01_c01.avi")
    assert (ucf.num_frames, ucf.height, ucf.width) == (107, 240, 320)
    assert ucf.fps == pytest.approx(30000 / 1001)
    hmdb = index_video(clips / "hmdb51_Turnk_r_Pippi_Michel_cartwheel_f_cm_np2_le_med_6.avi")
    assert hmdb.num_frames == 83, "the header says 84"
    assert (len(hmdb.timestamps), hmdb.key_frames) == (0, ()), "packed B-frames: times are out of order"
    assert VideoIndex.from_json(hmdb.to_json()) == hmdb


def test_real_rotations(shared: Path) -> None:
    odd = shared / "data" / "odd"
    sizes = {}
    for degrees in (0, 90, 180, 270):
        index = index_video(odd / f"decord_video_{degrees}.mov")
        sizes[degrees] = (index.height, index.width)
    assert sizes == {0: (320, 568), 90: (568, 320), 180: (320, 568), 270: (568, 320)}


def test_missing_file_folder_and_empty_file(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"none\.mp4: does not exist"):
        index_video(tmp_path / "none.mp4")
    with pytest.raises(VideoError, match="is a folder without numbered pictures; give a video, or a folder of"):
        index_video(tmp_path)
    (tmp_path / "circle.mp4").symlink_to("circle.mp4")
    with pytest.raises(VideoError, match=r"circle\.mp4: is a link that leads to no file"):
        index_video(tmp_path / "circle.mp4")
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(VideoError, match=r"empty\.mp4: is an empty file"):
        index_video(tmp_path / "empty.mp4")


def test_text_and_sound_are_not_videos(tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("This is not a video.\n" * 100)
    with pytest.raises(VideoError, match=r"text\.mp4: is not a video"):
        index_video(text)
    with pytest.raises(VideoError, match=r"sound\.mp4: has no video stream"):
        index_video(write_sound(tmp_path / "sound.mp4"))


@pytest.mark.parametrize("playlist", ["ffconcat version 1.0\nfile 'a.mp4'\n", "#EXTM3U\n#EXTINF:1,\na.mp4\n"])
def test_playlist_in_disguise_opens_no_other_file(tmp_path: Path, playlist: str) -> None:
    write_video(tmp_path / "a.mp4", "libx264", range(5))
    disguised = tmp_path / "b.mp4"
    disguised.write_text(playlist)
    with pytest.raises(VideoError, match=r"b\.mp4: is "):
        index_video(disguised)


def test_name_with_a_protocol_or_a_pattern_is_only_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("concat:a.mp4", "%d.mp4"):
        video = write_video(tmp_path / "a.mp4", "libx264", range(5)).rename(tmp_path / name)
        assert index_video(video.name).num_frames == 5


@pytest.mark.parametrize("num_bytes", [30, 200, 400])
def test_a_header_that_is_cut_is_named_as_such(num_bytes: int, tmp_path: Path) -> None:
    """Its codec seemed to be one that FFmpeg does not know, or the file to contain sound only."""
    content = write_video(tmp_path / "a.mp4", "libx264", range(60)).read_bytes()
    (tmp_path / "a.mp4").write_bytes(content[: content.index(b"moov") + num_bytes])
    with pytest.raises(VideoError, match=r"a\.mp4: is damaged: the end of its header is missing; copy it again"):
        index_video(tmp_path / "a.mp4")
    (tmp_path / "a.mp4").write_bytes(content[: len(content) // 2])  # its header comes last
    with pytest.raises(VideoError, match=r"a\.mp4: is not a video, or is damaged: the end of the file is missing"):
        index_video(tmp_path / "a.mp4")


@pytest.mark.parametrize(("codec", "suffix"), [("mpeg4", "avi"), ("libx264", "mp4")])
def test_truncated_file_is_damaged(tmp_path: Path, codec: str, suffix: str) -> None:
    whole = write_video(tmp_path / f"a.{suffix}", codec, range(60))
    with pytest.raises(VideoError, match=r"damaged"):
        index_video(truncate(whole, tmp_path / f"b.{suffix}", 0.6))


def test_header_may_lie_a_little_but_not_more(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", "mpeg4", range(60))
    for number, accepted in ((68, True), (75, False)):
        lie(path, b"strh", 8 + 32, number, "little")  # dwLength, the number of frames
        if accepted:
            assert index_video(path).num_frames == 60
        else:
            with pytest.raises(VideoError, match="frames are missing; 60 of 75 promised frames can be decoded"):
                index_video(path)


def test_size_that_changes_on_the_way_is_refused(tmp_path: Path) -> None:
    wide = write_video(tmp_path / "a.h264", "libx264", range(10), bf="0")
    high = write_video(tmp_path / "b.h264", "libx264", range(10), size=(WIDTH, HEIGHT), bf="0")
    both = tmp_path / "both.h264"
    both.write_bytes(wide.read_bytes() + high.read_bytes())
    with pytest.raises(VideoError, match="frame size changes from 112x80 to 80x112 at frame 10"):
        index_video(both)


def test_huge_frames_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", "libx264", range(5))
    monkeypatch.setattr(container_module, "MAX_PIXELS", HEIGHT * WIDTH - 1)
    with pytest.raises(VideoError, match="frames of 112x80 exceed the limit of 8959 pixels"):
        index_video(path)


def test_frames_that_become_huge_are_refused_by_the_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = write_video(tmp_path / "a.h264", "libx264", range(10), bf="0")
    huge = write_video(tmp_path / "b.h264", "libx264", range(10), size=(HEIGHT * 4, WIDTH * 4), bf="0")
    both = tmp_path / "both.h264"
    both.write_bytes(small.read_bytes() + huge.read_bytes())
    monkeypatch.setattr(container_module, "MAX_PIXELS", HEIGHT * WIDTH * 2)
    with pytest.raises(VideoError, match="damaged: decoding failed at frame"):
        index_video(both)


def lie(path: Path, after: bytes, offset: int, number: int, byteorder: Literal["little", "big"]) -> Path:
    """Overwrite four bytes of a header."""
    data = bytearray(path.read_bytes())
    place = data.index(after) + offset
    data[place : place + 4] = number.to_bytes(4, byteorder)
    path.write_bytes(data)
    return path


def test_more_frames_than_bytes_are_refused_at_once(tmp_path: Path) -> None:
    avi = lie(write_video(tmp_path / "a.avi", "mpeg4", range(9)), b"strh", 8 + 32, 2**31 - 1, "little")
    with pytest.raises(VideoError, match=r"a\.avi: states 2147483647 frames, more than it has bytes") as caught:
        index_video(avi)
    assert (caught.value.stage, caught.value.num_frames) == ("open", 0)


def test_length_of_many_years_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"a\.mkv: states a length of 1e\+07 seconds; the limit is 1e\+06"):
        index_video(write_video(tmp_path / "a.mkv", "libx264", [0, 3 * 10**8]))


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_too_many_streams_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    with av.open(str(path), "w") as output:
        streams = [output.add_stream("mpeg4", rate=30, width=32, height=32, pix_fmt="yuv420p") for _ in range(40)]
        for stream in streams:
            assert isinstance(stream, av.VideoStream)
            output.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
            output.mux(stream.encode(None))
    with pytest.raises(VideoError, match="has 32 video streams or more"):
        index_video(path)


def test_damage_tells_its_stage_and_how_many_frames_decode(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.mkv", "libx264", range(90), g="15")
    with pytest.raises(VideoError) as caught:
        index_video(truncate(whole, tmp_path / "cut.mkv", 0.5))
    assert caught.value.stage == "demux"
    assert 20 < caught.value.num_frames < 70
    data = whole.read_bytes()
    (tmp_path / "hole.mkv").write_bytes(data[: len(data) // 3] + bytes(len(data) // 3) + data[2 * len(data) // 3 :])
    with pytest.raises(VideoError) as caught:
        index_video(tmp_path / "hole.mkv")
    assert 20 < caught.value.num_frames < 90
    with pytest.raises(VideoError) as caught:
        index_video(tmp_path / "nothing.mkv")
    assert (caught.value.stage, caught.value.num_frames) == ("open", 0)


def test_nothing_is_printed(shared: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(VideoError, match=r"decoding failed at frame 28 .*; 49 of 50 promised frames can be decoded"):
        index_video(shared / "data" / "odd" / "decord_corrupted.mp4")
    assert capfd.readouterr() == ("", "")
