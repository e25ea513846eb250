"""Rates are means over the times at which frames are shown, whatever a header says, and the same in every container."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from v3s.video.index import index_video
from v3s.video.timing import timing_of

MILLISECOND = Fraction(1, 1000)


def write(path: Path, codec: str, times: Sequence[int], rate: int = 25, container: str | None = None) -> Path:
    """Encode noise, one frame at each time in ticks of the rate."""
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.time_base = Fraction(1, rate)
        generator = np.random.default_rng(0)
        for time in times:
            picture = np.kron(generator.integers(0, 256, (8, 12, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=stream.pix_fmt)
            frame.pts, frame.time_base = time, Fraction(1, rate)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("times", "stated", "fps", "varies"),
    [
        (range(0, 4000, 40), 25, 25, False),
        (range(0, 4000, 40), None, 25, False),
        (range(0, 4000, 40), 60000, 25, False),  # FFmpeg's rate of DV
        ([round(n * 1000 / 29.97) for n in range(90)], 29.97, 29.97, False),  # rounded to milliseconds
        ([round(n * 1000 / 59.94) for n in range(90)], None, 59.94, False),
        ([0, 33], 29.97, 29.97, False),
        ([*range(0, 1000, 40), *range(2000, 3000, 40)], 25, 50 / 3, True),  # a pause
        ([*range(0, 1000, 100), *range(1000, 2000, 50)], None, 15, True),  # two cameras
        ([0, 1000], 25, 1, False),
        (range(0, 4000, 40), 25.75, 25, False),  # a header that is 3 % off
        (range(0, 4000, 40), 25.125, 25.125, False),  # 0.5 % off: the times may be rounded
    ],
)
def test_the_mean_rate(times: Sequence[int], stated: float | None, fps: float, varies: bool) -> None:
    timing = timing_of(times, MILLISECOND, stated)
    assert timing is not None
    assert timing.fps == pytest.approx(fps, rel=2e-3)
    assert timing.varies == varies
    assert timing.duration_seconds == pytest.approx(len(times) / timing.fps, rel=5e-3, abs=1e-3)


@pytest.mark.parametrize(
    ("steps", "varies"),
    [
        ([40] * 25 + [50] * 20, True),  # two rates
        ([40, 42] * 25, False),  # jitter
        ([40] * 95 + [64] * 5, True),  # pauses that make the mean step 3 % longer
        ([40] * 99 + [60], False),  # by 0.5 %
        ([40] * 80 + [20, 60] * 10, True),  # one step in five is not usual
    ],
)
def test_a_rate_varies_by_more_than_jitter(steps: Sequence[int], varies: bool) -> None:
    timing = timing_of([0, *np.cumsum(steps).tolist()], MILLISECOND, None)
    assert timing is not None
    assert timing.varies == varies


def test_without_times_the_header_counts() -> None:
    for times in ([None, None, None], [0, 0, 40], [5]):
        timing = timing_of(times, MILLISECOND, 12.5)
        assert timing is not None
        assert (timing.fps, timing.duration_seconds, timing.varies) == (12.5, len(times) / 12.5, False)
        assert timing_of(times, MILLISECOND, None) is None


def test_a_last_frame_that_is_held_changes_no_rate(tmp_path: Path) -> None:
    """MP4 states how long the last frame is shown, MKV does not: a copy has the same rate."""
    source, path = write(tmp_path / "a.mkv", "libx264", [*range(60), 60, 80, 100, 120]), tmp_path / "a.mp4"
    with av.open(str(source)) as given, av.open(str(path), "w") as output:
        stream = output.add_stream_from_template(given.streams.video[0])
        packets = [packet for packet in given.demux(video=0) if packet.size]
        packets[-1].duration = 3000
        for packet in packets:
            packet.stream = stream
            output.mux(packet)
    assert index_video(path).fps == pytest.approx(index_video(source).fps, rel=1e-3)
    assert index_video(path).fps == pytest.approx(64 * 25 / 121, rel=1e-3)


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "mov", "nut"])
def test_a_rate_that_varies_is_the_same_in_every_container(suffix: str, tmp_path: Path) -> None:
    times = [*range(40), *range(50, 1050, 25)]
    index = index_video(write(tmp_path / f"a.{suffix}", "libx264", times))
    assert index.fps == pytest.approx(80 / (1026 / 25), rel=1e-3)
    assert index.rate_varies
    assert "its rate varies: 1.949 frames per second on average" in index.remarks
    steady = index_video(write(tmp_path / f"b.{suffix}", "libx264", range(40)))
    assert (steady.fps, steady.rate_varies, steady.remarks) == (25, False, ())


def test_pauses_of_a_real_recording(shared: Path) -> None:
    both = [index_video(shared / "data/cases/12-vfr" / name) for name in ("pauses.mkv", "pauses.mp4")]
    for index in both:
        assert index.fps == pytest.approx(80 / 41, rel=2e-3)
        assert index.rate_varies


@pytest.mark.parametrize(
    ("codec", "suffix", "container", "rate"),
    [("libx264", "h264", None, 50), ("mpeg2video", "m2v", None, 50), ("libx265", "265", None, 50),
     ("mpeg4", "cmp", "m4v", 50), ("mpeg1video", "m1v", None, 50), ("mjpeg", "mjpeg", None, 25)],
)  # fmt: skip
def test_a_bare_stream_is_read_and_its_rate_is_said_to_be_assumed(
    codec: str, suffix: str, container: str | None, rate: int, tmp_path: Path
) -> None:
    """A codec's header may state a rate: Motion JPEG has none."""
    index = index_video(write(tmp_path / f"a.{suffix}", codec, range(40), rate=50, container=container))
    assert (index.num_frames, index.fps) == (40, rate)
    (remark,) = index.remarks
    assert remark.startswith(f"keeps no times: {rate} frames per second are assumed")


def test_raw_h264_of_a_camera(shared: Path) -> None:
    index = index_video(shared / "data/cases/07-elementary/picam.h264")
    assert index.num_frames == 180
    assert "assumed" in index.remarks[0]
