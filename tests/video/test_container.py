"""Opening: one list of formats and endings, the stream that FFmpeg finds best, and limits on what is decoded alone."""

import shutil
import subprocess
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from v3s.video.container import BARE_FORMATS, ENDINGS, FORMATS, MAX_STREAMS, Failure, Stage, VideoError, open_video
from v3s.video.decode import index_video, read_frames
from v3s.video.index import VideoIndex

WRITERS = {
    ".apng": ("apng", "apng"), ".asf": ("wmv2", "asf"), ".wmv": ("wmv2", "asf"), ".avi": ("mpeg4", "avi"),
    ".divx": ("mpeg4", "avi"), ".flv": ("flv1", "flv"), ".f4v": ("libx264", "f4v"), ".gif": ("gif", "gif"),
    ".h264": ("libx264", "h264"), ".264": ("libx264", "h264"), ".hevc": ("libx265", "hevc"),
    ".265": ("libx265", "hevc"), ".ivf": ("libvpx", "ivf"), ".cmp": ("mpeg4", "m4v"), ".mkv": ("libx264", "matroska"),
    ".webm": ("libvpx", "webm"),
    ".mjpeg": ("mjpeg", "mjpeg"), ".mjpg": ("mjpeg", "mjpeg"), ".mp4": ("libx264", "mp4"), ".mov": ("libx264", "mov"),
    ".qt": ("libx264", "mov"), ".m4v": ("libx264", "mp4"), ".3gp": ("libx264", "3gp"), ".3g2": ("libx264", "3g2"),
    ".mpg": ("mpeg1video", "mpeg"), ".vob": ("mpeg2video", "vob"), ".ts": ("libx264", "mpegts"),
    ".m2ts": ("libx264", "mpegts"), ".m1v": ("mpeg1video", "mpeg1video"), ".m2v": ("mpeg2video", "mpeg2video"),
    ".mxf": ("mpeg2video", "mxf"), ".nut": ("ffv1", "nut"), ".ogv": ("ffv1", "nut"), ".swf": ("flv1", "swf"),
    ".wtv": ("mpeg2video", "wtv"), ".y4m": ("wrapped_avframe", "yuv4mpegpipe"),
}  # fmt: skip
"""Encoder and muxer by ending; where PyAV has no muxer of the format, one that is recognised by content."""


def noise(generator: np.random.Generator, pixel_format: str, height: int = 64, width: int = 96) -> av.VideoFrame:
    pattern = generator.integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    image = np.kron(pattern, np.ones((8, 8, 1), np.uint8))
    return av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pixel_format)


def pixel_format_of(codec: str) -> str:
    return {"gif": "rgb8", "mjpeg": "yuvj420p", "apng": "rgb24"}.get(codec, "yuv420p")


def write(path: Path, codec: str, container: str | None = None, num_frames: int = 30) -> Path:
    generator = np.random.default_rng(0)
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 96, 64, pixel_format_of(codec)
        for number in range(num_frames):
            frame = noise(generator, stream.pix_fmt)
            frame.pts, frame.time_base = number, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


# --- formats and endings ----------------------------------------------------------------------------------------------


def test_every_format_is_one_of_ffmpegs_and_has_endings() -> None:
    assert set(FORMATS) <= {name for known in av.formats_available for name in known.split(",")}
    assert all(endings and endings == endings.lower() for endings in FORMATS.values())
    assert set(FORMATS) >= BARE_FORMATS
    asked_for = ".h264 .264 .m2v .mxf .y4m .f4v .qt .3g2 .divx .apng .mjpeg .mp4 .avi .mkv .webm .mov .ts .wmv .gif"
    assert set(asked_for.split()) <= ENDINGS
    assert not {".png", ".jpg", ".txt", ".wav", ".mp3", ".m4a", ".srt", ".json", ""} & ENDINGS


@pytest.mark.parametrize("ending", WRITERS)
def test_files_of_every_ending_are_read(ending: str, tmp_path: Path) -> None:
    codec, container = WRITERS[ending]
    path = write(tmp_path / f"a{ending}", codec, container)
    index = index_video(path)
    assert ending in ENDINGS
    assert index.num_frames == 30
    whole = read_frames(index, range(30)).rgb()
    assert (read_frames(index, [25, 3]).rgb() == whole[[25, 3]]).all()


def test_all_endings_of_ffmpegs_demuxers_are_there_but_those_of_sound_and_pictures() -> None:
    other = {"avif", "heic", "heif", "isma", "m4a", "m4b", "mka", "mks", "mpo", "ogg", "psp", "wma", "ra"}
    known = {extension for name in FORMATS for extension in av.ContainerFormat(name, "r").extensions}
    assert {f".{extension}" for extension in known - other} <= ENDINGS


def test_a_text_with_the_ending_of_a_bare_stream_is_no_video(tmp_path: Path) -> None:
    for ending in (".mjpeg", ".h264", ".cmp"):
        (tmp_path / f"a{ending}").write_text("#EXTM3U\n#EXTINF:1,\nb.mp4\n" * 50)
        with pytest.raises(VideoError, match=r"is not a video|in none of|without a frame|is damaged"):
            index_video(tmp_path / f"a{ending}")


# --- which stream -----------------------------------------------------------------------------------------------------


def write_several(
    path: Path, sizes: Sequence[tuple[int, int]], default: int | None, shown: Sequence[range], codec: str = "mpeg4"
) -> Path:
    """Write several videos into one file; each has a size of its own, and the frames of these numbers, 25 a second."""
    generator = np.random.default_rng(0)
    with av.open(str(path), "w") as output:
        streams = []
        for number, (height, width) in enumerate(sizes):
            stream = output.add_stream(codec, rate=25)
            assert isinstance(stream, av.VideoStream)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.disposition = Disposition.default if number == default else Disposition(0)
            streams.append(stream)
        for number in range(max(numbers.stop for numbers in shown)):
            for stream, numbers in zip(streams, shown, strict=True):
                if number in numbers:
                    frame = noise(generator, "yuv420p", stream.height, stream.width)
                    frame.pts, frame.time_base = number, Fraction(1, 25)
                    output.mux(stream.encode(frame))
        for stream in (stream for stream, numbers in zip(streams, shown, strict=True) if numbers):
            output.mux(stream.encode(None))
    return path


SIZES = ((64, 96), (48, 80), (56, 104))


@pytest.mark.parametrize("default", [0, 1, 2])
def test_the_default_stream_is_read(default: int, tmp_path: Path) -> None:
    path = write_several(tmp_path / "a.mkv", SIZES, default, (range(40),) * 3)
    index = index_video(path)
    assert (index.height, index.width, index.stream) == (*SIZES[default], default)
    assert index.known_format == "matroska"
    assert (read_frames(index, [30]).height, read_frames(index, [30]).width) == SIZES[default]
    assert VideoIndex.from_json(index.to_json()) == index


SMALL, LARGE, HUGE = (64, 96), (64, 128), (2048, 2560)
FEW, ALL, LATE, NONE = range(5), range(300), range(260, 300), range(0)


@pytest.mark.parametrize(
    ("suffix", "sizes", "default", "shown", "chosen"),
    [
        *((suffix, (SMALL, LARGE), None, (FEW, FEW), 1) for suffix in ("mkv", "avi", "ts", "nut", "asf", "mpg")),
        ("mkv", (LARGE, SMALL), None, (FEW, FEW), 0),
        ("mkv", (SMALL, SMALL, LARGE, LARGE), None, (FEW,) * 4, 2),
        ("mkv", (SMALL, LARGE), 0, (FEW, FEW), 0),
        ("mkv", (LARGE, SMALL), 1, (FEW, FEW), 1),
        ("mkv", (SMALL, HUGE), 0, (FEW, FEW), 1),
        ("mp4", (SMALL, LARGE), None, (FEW, FEW), 0),  # its writer marks the first one
        ("mp4", (LARGE, SMALL), 1, (FEW, FEW), 1),
        *((suffix, (SMALL, LARGE), None, (ALL, LATE), 0) for suffix in ("mkv", "nut", "asf", "ts")),
        *((suffix, (SMALL, LARGE), None, (FEW, NONE), 0) for suffix in ("mkv", "avi", "nut")),
        ("mkv", (SMALL, LARGE), 0, (LATE, ALL), 1),
    ],
)  # fmt: skip
def test_of_several_videos_the_one_is_read_that_the_ffmpeg_command_takes(
    suffix: str,
    sizes: Sequence[tuple[int, int]],
    default: int | None,
    shown: Sequence[range],
    chosen: int,
    tmp_path: Path,
) -> None:
    """Each choice is that of FFmpeg 5.1: ``ffmpeg -i FILE -f null -`` prints it."""
    codec = "mpeg2video" if suffix == "mpg" else "mpeg4"
    path = write_several(tmp_path / f"a.{suffix}", sizes, default, shown, codec)
    with open_video(path) as (_, stream):
        assert stream.index == chosen
    if command := shutil.which("ffmpeg"):
        words = [command, "-i", str(path), "-frames:v", "1", "-f", "null", "-"]
        said = subprocess.run(words, capture_output=True, text=True, check=False).stderr
        assert f"Stream #0:{chosen} -> #0:0" in said.replace(f"#0:{chosen}[", f"#0:{chosen} ["), said


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as output:
        cover = output.add_stream("mjpeg", rate=1)
        assert isinstance(cover, av.VideoStream)
        cover.width, cover.height, cover.pix_fmt = 96, 64, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        frame = noise(np.random.default_rng(0), "yuvj420p")
        frame.pts, frame.time_base = 0, Fraction(1, 1)
        output.mux(cover.encode(frame))
        output.mux(cover.encode(None))
    with pytest.raises(VideoError, match="has no video stream"):
        index_video(path)


def test_a_real_file_of_two_videos(shared: Path) -> None:
    index = index_video(shared / "data/cases/05-two-videos/second_default.mkv")
    assert (index.stream, index.height, index.width) == (1, 120, 160)


# --- how many streams -------------------------------------------------------------------------------------------------


def jpeg(height: int, width: int) -> bytes:
    encoder = av.CodecContext.create("mjpeg", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = width, height, "yuvj420p", Fraction(1, 25)
    (packet,) = encoder.encode(noise(np.random.default_rng(0), "yuvj420p", height, width))
    return bytes(packet)


def add_others(path: Path, *, subtitles: int = 0, fonts: int = 0, pictures: int = 0, first: bool = False) -> Path:
    """Copy a video into a file with subtitles, fonts and attached pictures beside it, which are larger than it."""
    text, video = path.with_name("a.srt"), write(path.with_name("plain.mkv"), "mpeg4")
    text.write_text("1\n00:00:00,000 --> 00:00:01,000\nspoken\n\n")
    with av.open(str(text)) as spoken, av.open(str(video)) as shown, av.open(str(path), "w") as output:
        line = next(packet for packet in spoken.demux() if packet.size)
        sources = [spoken.streams[0]] * subtitles
        sources.insert(len(sources) if first else 0, shown.streams[0])
        streams = [output.add_stream_from_template(source) for source in sources]
        for number in range(fonts):
            output.add_attachment(f"{number}.ttf", "application/x-truetype-font", bytes(100))
        for number in range(pictures):
            output.add_attachment(f"{number}.jpg", "image/jpeg", jpeg(128, 192))
        for packet in (packet for packet in shown.demux() if packet.size):
            packet.stream = streams[-1 if first else 0]
            output.mux(packet)
        for stream in streams:
            if stream.type == "subtitle":
                line.stream = stream
                output.mux(line)
    return path


@pytest.mark.parametrize(
    ("suffix", "others"),
    [("mkv", {"subtitles": 34}), ("mkv", {"subtitles": 34, "first": True}), ("mkv", {"fonts": 40}),
     ("mkv", {"subtitles": 200, "fonts": 200}), ("mkv", {"pictures": 1}), ("mkv", {"pictures": 40}),
     ("mkv", {"pictures": 300, "fonts": 40})],
)  # fmt: skip
def test_subtitles_fonts_and_pictures_do_not_count(suffix: str, others: dict[str, int], tmp_path: Path) -> None:
    path = add_others(tmp_path / f"a.{suffix}", **others)  # type: ignore[arg-type]
    index = index_video(path)
    assert index.num_frames == 30
    assert (read_frames(index, [29, 2]).rgb() == read_frames(index, range(30)).rgb()[[29, 2]]).all()


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_sound_does_not_count(suffix: str, tmp_path: Path) -> None:
    path, video = tmp_path / f"a.{suffix}", write(tmp_path / "plain.mkv", "mpeg4")
    with av.open(str(video)) as shown, av.open(str(path), "w") as output:
        stream = output.add_stream_from_template(shown.streams.video[0])
        sounds = [output.add_stream("aac", rate=48000, layout="mono") for _ in range(40)]
        for packet in (packet for packet in shown.demux() if packet.size):
            packet.stream = stream
            output.mux(packet)
        for sound in sounds:
            assert isinstance(sound, av.AudioStream)
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="flt", layout="mono")
            silence.sample_rate, silence.pts, silence.time_base = 48000, 0, Fraction(1, 48000)
            output.mux(sound.encode(silence))
            output.mux(sound.encode(None))
    index = index_video(path)
    assert index.num_frames == 30
    assert (read_frames(index, [29, 2]).rgb() == read_frames(index, range(30)).rgb()[[29, 2]]).all()


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
@pytest.mark.parametrize("number", [MAX_STREAMS, 300])
def test_many_videos_are_refused_at_once(suffix: str, number: int, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    with av.open(str(path), "w") as output:
        streams = [output.add_stream("mpeg4", rate=25, width=32, height=32, pix_fmt="yuv420p") for _ in range(number)]
        for stream in streams:
            assert isinstance(stream, av.VideoStream)
            output.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
            output.mux(stream.encode(None))
    started = time.process_time()
    with pytest.raises(VideoError, match="has 32 video streams or more"), open_video(path):
        pass
    assert time.process_time() - started < 1.0


def test_a_file_that_the_system_does_not_give_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was opened again to see whether its end is missing, and that error stopped the reading of all others."""
    (tmp_path / "a.mp4").write_bytes(b"a video that somebody deletes")

    def delete(*arguments: object, **options: object) -> None:
        (tmp_path / "a.mp4").unlink()
        raise av.FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(av, "open", delete)
    with pytest.raises(VideoError, match=r"a\.mp4: cannot be read: No such file"), open_video(tmp_path / "a.mp4"):
        pass


# --- what a failure says ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "cause", "may_pass"),
    [
        ("open", av.PermissionError(1, "Operation not permitted"), True),
        ("decode", av.PermissionError(1, "Operation not permitted", "avcodec_send_packet()"), False),
        ("decode", PermissionError(13, "Permission denied"), True),
        ("demux", av.OSError(5, "Input/output error"), True),
        ("decode", av.InvalidDataError(1094995529, "Invalid data"), False),
    ],
)
def test_what_decoders_return_for_damaged_content_does_not_pass(stage: Stage, cause: Exception, may_pass: bool) -> None:
    """Some return -1, which is also the system's number for what is not permitted."""
    error = VideoError("a.mp4: is damaged", stage)
    error.__cause__ = cause
    assert Failure.of(error, "a.mp4") == Failure(stage, "is damaged", 0, may_pass)
