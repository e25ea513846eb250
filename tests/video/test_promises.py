"""What a file promises: frames that were lost are missed, and those that nobody promised are not."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from v3s.video.chunks import Chain, walk_chunks
from v3s.video.decode import read_frames
from v3s.video.index import VideoError, VideoIndex, index_video

ENCODERS = {"mkv": "libx264", "webm": "libvpx", "flv": "libx264", "avi": "mpeg4", "wmv": "wmv2", "ivf": "libvpx"}


def idle() -> None:
    """Do nothing."""


def write(path: Path, codec: str, times: Sequence[int], container: str | None = None, **options: str) -> Path:
    """Encode a moving pattern, one frame at each time in twenty-fifths of a second."""
    pattern = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=25, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "rgb8" if codec == "gif" else "yuv420p"
        stream.codec_context.time_base = Fraction(1, 25)
        for number, time in enumerate(times):
            image = np.kron(np.roll(pattern, number, axis=1), np.ones((8, 8, 1), np.uint8))
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=stream.pix_fmt)
            frame.pts, frame.time_base = time, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


# --- GIF --------------------------------------------------------------------------------------------------------------


def test_a_gif_with_a_hole_is_damaged(tmp_path: Path) -> None:
    """FFmpeg ends there without an error; a GIF states no number of pictures."""
    whole = write(tmp_path / "a.gif", "gif", range(40)).read_bytes()
    middle = len(whole) // 2
    assert index_video(tmp_path / "a.gif").num_frames == 40
    for content in (whole[:middle] + bytes(99) + whole[middle + 99 :], whole[:middle] + whole[-700:], whole[:middle]):
        (tmp_path / "b.gif").write_bytes(content)
        with pytest.raises(VideoError, match=r"frame \d+ are not GIF, or are cut off; [12]\d frames can be decoded"):
            index_video(tmp_path / "b.gif")
    (tmp_path / "b.gif").write_bytes(whole[:-1])  # without the mark of its end
    assert index_video(tmp_path / "b.gif").num_frames == 40


# --- empty chunks -----------------------------------------------------------------------------------------------------

WITH_PAUSES = [*range(20), *range(30, 130, 5), *range(140, 160)]


@pytest.mark.parametrize("codec", ["mpeg4", "mjpeg", "ffv1", "msmpeg4", "huffyuv"])
def test_empty_chunks_of_an_avi_are_no_frames(codec: str, tmp_path: Path) -> None:
    """FFmpeg writes one for each twenty-fifth of a second in which no frame came."""
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height = 96, 64
        stream.pix_fmt = {"mjpeg": "yuvj420p", "huffyuv": "yuv422p"}.get(codec, "yuv420p")
        stream.codec_context.time_base = Fraction(1, 25)
        for number, time in enumerate(WITH_PAUSES):
            image = np.full((64, 96, 3), 4 * number, np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=stream.pix_fmt)
            frame.pts, frame.time_base = time, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    chain = walk_chunks(path, "avi", 0, idle)
    assert chain == Chain(True, 60, 100)
    index = index_video(path)
    assert index.num_frames == len(WITH_PAUSES)
    assert index.fps == pytest.approx(60 * 25 / 160, rel=1e-3)
    assert index.rate_varies
    means = read_frames(index, range(60)).rgb().double().mean(dim=(1, 2, 3))
    assert (means - 4 * torch.arange(60)).abs().max() < 20


def test_empty_chunks_between_frames_without_times(tmp_path: Path) -> None:
    """Frames of an AVI that are not in the order in which they are shown have no times: its chunks give the rate."""
    path = write(tmp_path / "a.avi", "libx264", WITH_PAUSES, bf="3", g="20")
    chain = walk_chunks(path, "avi", 0, idle)
    assert chain is not None
    index = index_video(path)
    assert (index.num_frames, chain.num_pictures, index.timestamps) == (60, 60, ())
    assert index.fps == pytest.approx(25 * 60 / (60 + chain.num_empty))
    assert index.duration_seconds == pytest.approx(60 / index.fps)
    assert chain.num_empty > 90


def test_an_avi_that_goes_through_a_pipe_states_no_length(tmp_path: Path) -> None:
    """FFmpeg cannot go back and fill in the number of frames."""
    path = write(tmp_path / "a.avi", "mpeg4", range(60))
    data = bytearray(path.read_bytes())
    for name, place in ((b"avih", 8 + 16), (b"strh", 8 + 32)):
        start = data.index(name) + place
        data[start : start + 4] = (1 << 30).to_bytes(4, "little")
    path.write_bytes(data)
    index = index_video(path)
    assert (index.num_frames, index.fps) == (60, 25)


def test_an_avi_that_was_cut_is_still_missed(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.avi", "mpeg4", WITH_PAUSES).read_bytes()
    (tmp_path / "b.avi").write_bytes(whole[: len(whole) * 6 // 10])
    with pytest.raises(VideoError, match="damaged"):
        index_video(tmp_path / "b.avi")


def test_real_captures(shared: Path) -> None:
    cases = shared / "data/cases/01-null-frames"
    indices = {name: index_video(cases / name) for name in ("mjpeg_null.avi", "vfr_mj.mkv", "xvid_null.avi")}
    assert {index.num_frames for index in indices.values()} == {60}
    ours, theirs = (read_frames(indices[name], range(60)).rgb() for name in ("mjpeg_null.avi", "vfr_mj.mkv"))
    assert (ours == theirs).all()


# --- gaps in time -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ENCODERS)
def test_a_pause_is_no_loss(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"a.{suffix}", ENCODERS[suffix], [*range(40), *range(90, 130)])
    index = index_video(path)
    assert (index.num_frames, index.rate_varies) == (80, True)


@pytest.mark.parametrize("suffix", ENCODERS)
def test_the_chain_of_chunks_is_whole_or_not(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"a.{suffix}", ENCODERS[suffix], range(60))
    with av.open(str(path)) as container:
        name = container.format.name
    chain = walk_chunks(path, name, 0, idle)
    assert chain is not None
    num_pictures = {"flv": 62, "wmv": 0}  # two tags are headers of the codec; packets of ASF hold parts of pictures
    assert chain == Chain(True, num_pictures.get(suffix, 60), 0)
    whole, broken = path.read_bytes(), tmp_path / "broken"
    cut, gap = whole[: len(whole) * 2 // 3], whole[: len(whole) // 2] + whole[len(whole) // 2 + 100 :]
    hole = whole[: len(whole) // 2] + bytes(len(whole) // 8) + whole[len(whole) * 5 // 8 :]
    cuts = {"avi": [], "ivf": [cut], "wmv": [cut, gap]}  # others hold no names that could be wrong
    for damaged in cuts.get(suffix, [cut, gap, hole]):
        broken.write_bytes(damaged)
        chain = walk_chunks(broken, name, 0, idle)
        assert chain is not None
        assert not chain.is_whole
    assert walk_chunks(path, "mov,mp4", 0, idle) is None


@pytest.mark.parametrize("suffix", ["mkv", "flv", "webm"])
def test_a_hole_is_a_loss(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"a.{suffix}", ENCODERS[suffix], range(100), g="10")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 3] + data[2 * len(data) // 3 :])
    with pytest.raises(VideoError, match="damaged"):
        index_video(path)


@pytest.mark.parametrize("suffix", ["mkv", "flv", "webm"])
def test_a_lone_frame_is_all_or_what_damage_left(suffix: str, tmp_path: Path) -> None:
    whole = write(tmp_path / f"whole.{suffix}", ENCODERS[suffix], range(60))
    data = whole.read_bytes()
    with av.open(str(whole)) as container:
        second = [packet.pos for packet in container.demux(video=0) if packet.size][1] or 0
    damaged = tmp_path / f"damaged.{suffix}"
    damaged.write_bytes(data[:second] + bytes(len(data) - second))
    with pytest.raises(VideoError, match=r"1 of 6\d promised frames can be decoded"):
        index_video(damaged)
    assert index_video(write(tmp_path / f"one.{suffix}", ENCODERS[suffix], [0])).num_frames == 1


def test_a_live_recording_has_no_sizes(tmp_path: Path) -> None:
    """A recorder that cannot go back leaves the sizes of Segment and Clusters unknown."""
    path = tmp_path / "a.mkv"
    source = write(tmp_path / "b.mkv", "libx264", range(60))
    with av.open(str(source)) as given, av.open(str(path), "w", options={"live": "1"}) as output:
        stream = output.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = stream
                output.mux(packet)
    assert walk_chunks(path, "matroska,webm", 0, idle) == Chain(True, 60, 0)
    assert index_video(path).num_frames == 60


# --- packets that give no picture -------------------------------------------------------------------------------------


def cut(path: Path, share: float) -> Path:
    """Take off the beginning of a transport stream, in whole packets."""
    data = path.read_bytes()
    path.write_bytes(data[int(len(data) * share) // 188 * 188 :])
    return path


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video", "libx265"])
def test_a_recording_that_begins_in_mid_group(codec: str, tmp_path: Path) -> None:
    """Its frames are those that FFmpeg gives: from the first key frame on."""
    options = {"libx265": {"x265-params": "log-level=none:keyint=40:min-keyint=40:scenecut=0:repeat-headers=1"}}
    path = write(tmp_path / "a.ts", codec, range(120), **options.get(codec, {"g": "40", "sc_threshold": "0"}))
    whole = read_frames(index_video(path), range(120)).rgb()
    index = index_video(cut(path, 0.2))
    assert 75 < index.num_frames <= 82
    assert index.remarks[0].startswith("starts mid-GOP: ")
    assert (read_frames(index, range(index.num_frames)).rgb() == whole[-index.num_frames :]).all()
    assert (read_frames(index, [index.num_frames - 1]).rgb() == whole[-1:]).all()


@pytest.mark.parametrize("with_sound", [False, True])
@pytest.mark.parametrize(
    ("codec", "suffix"),
    [("libx264", "mkv"), ("libx264", "mp4"), ("libx264", "flv"), ("libvpx", "webm")],
)
def test_a_copy_that_begins_in_mid_group(codec: str, suffix: str, with_sound: bool, tmp_path: Path) -> None:
    """VP8 fails at every packet before its first key packet: the pass forgives that, and so do reads."""
    options = {"libx264": {"bf": "0"}}.get(codec, {})
    source, path = write(tmp_path / "a.mkv", codec, range(120), g="40", **options), tmp_path / f"b.{suffix}"
    with av.open(str(source)) as given, av.open(str(path), "w") as output:
        stream = output.add_stream_from_template(given.streams.video[0])
        sound = output.add_stream("libopus" if suffix == "webm" else "aac", rate=48000) if with_sound else None
        for number, packet in enumerate(given.demux(video=0)):
            if packet.size and number >= 15:
                packet.stream = stream
                output.mux(packet)
            if isinstance(sound, av.AudioStream):
                silence = av.AudioFrame.from_ndarray(np.zeros((1, 1920), np.float32), format="flt", layout="mono")
                silence.sample_rate, silence.pts, silence.time_base = 48000, 1920 * number, Fraction(1, 48000)
                output.mux(sound.encode(silence))
        if isinstance(sound, av.AudioStream):
            output.mux(sound.encode(None))
    index = index_video(path)
    assert index.num_frames == 80
    whole = read_frames(index_video(source), range(40, 120)).rgb()
    assert (read_frames(index, range(80)).rgb() == whole).all()
    assert (read_frames(index, [3, 79]).rgb() == whole[[3, 79]]).all()


def test_a_real_recording_that_begins_in_mid_group(shared: Path) -> None:
    index = index_video(shared / "data/cases/10-midgop/cut.ts")
    assert index.num_frames == 100
    assert index.remarks == ("starts mid-GOP: 40 packets come before its first key frame",)


def test_empty_packets_are_no_frames(tmp_path: Path) -> None:
    """Theora in Ogg has one for each picture that stays; FFmpeg's decoders refuse them, and its command omits them."""
    source, path = write(tmp_path / "a.mkv", "mpeg4", range(60), g="15"), tmp_path / "b.nut"
    with av.open(str(source)) as given, av.open(str(path), "w") as output:
        stream = output.add_stream_from_template(given.streams.video[0])
        for number, packet in enumerate(packet for packet in given.demux(video=0) if packet.size):
            for place, content in enumerate([bytes(packet), b""]):
                made = av.Packet(content)
                made.stream, made.time_base, made.is_keyframe = stream, Fraction(1, 50), packet.is_keyframe
                made.pts = made.dts = 2 * number + place
                output.mux(made)
    with av.open(str(path)) as container:
        assert sum(packet.size == 0 for packet in container.demux(video=0)) == 61  # the last one ends the stream
    index, plain = index_video(path), index_video(source)
    assert (index.num_frames, index.key_frames) == (60, (15, 30, 45))
    for wanted in (range(60), [35], [50, 20]):
        assert torch.equal(read_frames(index, wanted).planes[0], read_frames(plain, wanted).planes[0])


def test_a_picture_that_stays_is_no_frame(tmp_path: Path) -> None:
    """MPEG-4 says "not coded" in a packet of a few bytes: FFmpeg's decoder takes it and gives nothing."""
    source, path = write(tmp_path / "a.mp4", "mpeg4", range(60)), tmp_path / "b.mp4"
    not_coded = bytes.fromhex("000001b6 504f")  # a P picture, no seconds and no ticks later, not coded
    with av.open(str(source)) as given, av.open(str(path), "w") as output:
        stream = output.add_stream_from_template(given.streams.video[0])
        for number, packet in enumerate(packet for packet in given.demux(video=0) if packet.size):
            for place, content in enumerate([bytes(packet), not_coded]):
                made = av.Packet(content)
                made.stream, made.time_base, made.is_keyframe = stream, Fraction(1, 50), packet.is_keyframe
                made.pts = made.dts = 2 * number + place
                output.mux(made)
    index = index_video(path)
    assert isinstance(index, VideoIndex)
    assert index.num_frames in (60, 61)  # at the end FFmpeg gives the picture that stayed once more
    assert f"{120 - index.num_frames} of its 120 packets give no picture of their own" in index.remarks


# --- edits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["mp4", "mov"])
def test_pictures_that_an_edit_takes_away_are_not_missing(ending: str, tmp_path: Path) -> None:
    """Whole groups of pictures lie before the instant at which a cut recording begins; the header counts them."""
    source, path = write(tmp_path / "a.mp4", "libx264", range(60), g="12", bf="0"), tmp_path / f"cut.{ending}"
    with av.open(str(source)) as whole, av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as output:
        stream = output.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.size:
                assert packet.pts is not None
                assert packet.dts is not None
                shift = round(30 / 25 / packet.time_base)
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = stream
                output.mux(packet)
    index, before = index_video(path), index_video(source)
    assert index.num_frames == 30
    for number in (0, 5, 29):
        assert torch.equal(read_frames(index, [number]).rgb(), read_frames(before, [number + 30]).rgb())
