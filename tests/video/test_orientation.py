"""A display matrix is a map: each of its eight kinds puts every corner where the map says, in files and in stores."""

import gc
import itertools
import struct
import subprocess
from fractions import Fraction
from pathlib import Path
from shutil import which

import av
import numpy as np
import pytest
import torch

from v3s.video.decode import index_video, read_frames
from v3s.video.index import VideoError, VideoIndex
from v3s.video.orientation import AS_STORED, Orientation, orientation_of
from v3s.video.store import StoredVideo, read_stored
from v3s.video.store_writer import ShardWriter, store_video

HEIGHT, WIDTH = 48, 80
ONE = 1 << 16  # of a matrix's fixed point
EIGHT = list(itertools.product((0, 90, 180, 270), (False, True)))


def picture() -> np.ndarray:
    """Four corners of their own brightness, RGB."""
    corners = np.array([[20, 90], [160, 240]], np.uint8)
    return np.repeat(np.kron(corners, np.ones((HEIGHT // 2, WIDTH // 2), np.uint8))[..., None], 3, axis=2)


def write(path: Path, matrix: list[int] | None) -> Path:
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264rgb", rate=25, options={"qp": "0"})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "rgb24"
        stream.set_display_matrix(matrix)
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(picture(), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def matrix_of(degrees: int, mirrored: bool) -> tuple[int, int, int, int]:
    """a, b, c, d of a counter-clockwise turn, y pointing down, after a mirror top to bottom."""
    cosine, sine = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    sign = -1 if mirrored else 1
    return cosine, -sine, sign * sine, sign * cosine


def shown(stored: np.ndarray, a: int, b: int, c: int, d: int) -> np.ndarray:
    """Move every pixel by the map, one by one; the picture is moved back to where it begins at 0, 0."""
    height, width = stored.shape
    y, x = np.mgrid[:height, :width]
    across, down = a * x + c * y, b * x + d * y
    across, down = across - across.min(), down - down.min()
    moved = np.empty((down.max() + 1, across.max() + 1), stored.dtype)
    moved[down, across] = stored
    return moved


@pytest.mark.parametrize(("degrees", "mirrored"), EIGHT)
def test_upright_is_where_the_map_puts_every_pixel(degrees: int, mirrored: bool) -> None:
    plane = np.arange(6 * 4, dtype=np.uint8).reshape(6, 4)
    orientation = Orientation(degrees, mirrored)
    upright = orientation.upright(plane)
    assert np.array_equal(upright, shown(plane, *matrix_of(degrees, mirrored)))
    assert orientation.upright_shape(6, 4) == upright.shape


@pytest.mark.parametrize(("degrees", "mirrored"), EIGHT)
def test_files_and_stores_show_the_map(degrees: int, mirrored: bool, tmp_path: Path) -> None:
    a, b, c, d = matrix_of(degrees, mirrored)
    path = write(tmp_path / "a.mp4", [a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 0, 0, 1 << 30])
    index = index_video(path)
    assert index.orientation == Orientation(degrees, mirrored)
    expected = torch.from_numpy(shown(picture()[..., 0], a, b, c, d).copy())
    assert torch.equal(read_frames(index, [1]).rgb()[0, 0], expected)
    assert VideoIndex.from_json(index.to_json()) == index
    with ShardWriter(tmp_path / "shard") as shard:
        stored = store_video(path, shard, pixel_format="rgb", short_side=1000, shard_name=str(tmp_path / "shard"))
    assert (stored.height, stored.width) == (index.height, index.width) == tuple(expected.shape)
    assert torch.equal(read_stored(stored, [1]).rgb()[0, 0], expected)


@pytest.mark.skipif(which("ffmpeg") is None, reason="the ffmpeg command is not installed")
@pytest.mark.parametrize(("degrees", "mirrored"), EIGHT)
def test_the_ffmpeg_command_shows_the_same(degrees: int, mirrored: bool, tmp_path: Path) -> None:
    a, b, c, d = matrix_of(degrees, mirrored)
    path = write(tmp_path / "a.mp4", [a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 0, 0, 1 << 30])
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-frames:v", "1", "-pix_fmt", "gray", "-f", "rawvideo", "-"]
    theirs = np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, np.uint8)
    ours = read_frames(index_video(path), [0]).rgb()[0, 0].numpy()
    assert np.abs(theirs.reshape(ours.shape).astype(int) - ours).max() <= 2


@pytest.mark.parametrize("number", range(1, 9))
def test_motion_jpeg_of_a_camera_that_writes_exif(number: int, tmp_path: Path) -> None:
    """EXIF's eight orientations: FFmpeg hands out the matrix beside data that PyAV does not know."""
    encoder = av.CodecContext.create("mjpeg", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = WIDTH, HEIGHT, "yuvj420p", Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(picture(), format="rgb24").reformat(format="yuvj420p")
    frame.pts, frame.time_base = 0, Fraction(1, 25)
    (packet,) = encoder.encode(frame)
    exif = b"Exif\0\0II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x112, 3, 1, number, 0, 0)
    jpeg = b"\xff\xd8\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + bytes(packet)[2:]
    (tmp_path / "a.mjpeg").write_bytes(10 * jpeg)
    left_right, top_bottom, transposed = picture()[:, ::-1, 0], picture()[::-1, :, 0], picture()[..., 0].T
    expected = [picture()[..., 0], left_right, left_right[::-1], top_bottom,
                transposed, transposed[:, ::-1], transposed[::-1, ::-1], transposed[::-1]][number - 1]  # fmt: skip
    shown_picture = read_frames(index_video(tmp_path / "a.mjpeg"), [3]).rgb()[0, 0].numpy()
    assert np.abs(shown_picture.astype(int) - expected).mean() < 3


def test_hflip_of_a_real_file(shared: Path) -> None:
    plain, flipped = (index_video(shared / "data/cases/03-mirror" / name) for name in ("plain.mp4", "hflip.mp4"))
    numbers = [0, 5, 40, 74]
    assert torch.equal(read_frames(flipped, numbers).rgb(), read_frames(plain, numbers).rgb().flip(-1))


def test_matrices_that_are_nearly_a_turn_and_those_that_are_none(tmp_path: Path) -> None:
    nearly = [int(ONE * 0.0121), -ONE, 0, ONE, int(ONE * 0.0121), 0, 0, 0, 1 << 30]  # 89.3 degrees, as FFmpeg tolerates
    assert index_video(write(tmp_path / "a.mp4", nearly)).orientation == Orientation(90)
    assert index_video(write(tmp_path / "b.mp4", [0] * 8 + [1 << 30])).orientation == AS_STORED
    further = [int(ONE * 0.0349), -ONE, 0, ONE, int(ONE * 0.0349), 0, 0, 0, 1 << 30]  # 88: FFmpeg would turn by that
    with pytest.raises(VideoError, match=r"d\.mp4: display rotation of 88 degrees is not a multiple of 90"):
        index_video(write(tmp_path / "d.mp4", further))
    aslant = [ONE, -ONE, 0, ONE, ONE, 0, 0, 0, 1 << 30]
    with pytest.raises(VideoError, match=r"c\.mp4: display rotation of 45 degrees is not a multiple of 90"):
        index_video(write(tmp_path / "c.mp4", aslant))
    assert orientation_of(av.VideoFrame(16, 16, "rgb24")) is None


def test_a_store_of_an_earlier_version_opens() -> None:
    old = (
        '{"path": "a.mp4", "shard": "00000.bin", "offset": 0, "num_bytes": 12, "checksum": 1, "pixel_format": "yuv", '
        '"num_frames": 2, "height": 2, "width": 2, "matrix": "bt601", "full": false, "fps": 25.0, '
        '"duration_seconds": 0.08, "codec": "h264"}'
    )
    stored = StoredVideo.from_json(old)
    assert (stored.num_frames, stored.remarks, stored.table_checksum) == (2, (), None)


def test_a_frame_that_was_looked_at_is_freed_at_once(tmp_path: Path) -> None:
    """A frame in a reference cycle keeps its buffer until Python collects it: in MJPEG, every frame."""
    with av.open(str(write(tmp_path / "a.mp4", [0, -ONE, 0, ONE, 0, 0, 0, 0, 1 << 30]))) as container:
        frames = list(container.decode(video=0))
    gc.collect()
    gc.disable()
    try:
        assert all(map(orientation_of, frames))
        del frames
        assert gc.collect() == 0
    finally:
        gc.enable()
