"""Every pixel format: a store's frames are the file's, whatever range they are marked with; none depends on others."""

import re
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.video.format import names  # type: ignore[attr-defined]

from v3s.video.decode import index_video, read_frames
from v3s.video.frames import Frames
from v3s.video.planes import Layout, PlaneReader, colour_of, layout_of, plane_lines
from v3s.video.store import PixelFormat, StoredVideo
from v3s.video.store_writer import ShardWriter, store_video

BLOCK, ROWS, COLUMNS = 16, 3, 5  # blocks of one colour, so that few colour differences lose nothing
RANGES = (0, 1, 2)  # FFmpeg's: unmarked, limited, full
CODECS = {"ffv1": "mkv", "png": "mov", "qtrle": "mov", "libx264": "mkv", "mjpeg": "avi", "gif": "gif"}
CASES = [
    (codec, given.name)
    for codec in CODECS
    for given in av.Codec(codec, "w").video_formats or ()
    if "f16" not in given.name and "f32" not in given.name
]
MOST_OFF: dict[PixelFormat, float] = {
    "yuv": 5.0,
    "rgb": 1.0,
}  # levels: rounding of brightness, and that of colour differences times two
COARSE = re.compile(r"mono|rgb[48]|bgr[48]|(rgb|bgr)(444|555|565)")  # other colours than 0 and 255 would be dithered


def blocks(number: int, levels: int = 256) -> np.ndarray:
    """A picture of random colours, RGB."""
    values = np.linspace(0, 255, levels).astype(np.uint8)
    colours = values[np.random.default_rng(number).integers(0, levels, (ROWS, COLUMNS, 3))]
    return np.kron(colours, np.ones((BLOCK, BLOCK, 1), np.uint8))


def picture(number: int, pixel_format: str) -> av.VideoFrame:
    """The blocks in a pixel format; a palette holds just their colours."""
    rgb = blocks(number, 2 if COARSE.match(pixel_format) else 256)
    if pixel_format != "pal8":
        return av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=pixel_format)
    frame = av.VideoFrame(BLOCK * COLUMNS, BLOCK * ROWS, "pal8")
    colours, numbers = np.unique(rgb.reshape(-1, 3), axis=0, return_inverse=True)
    plane_lines(frame.planes[0])[:] = numbers.reshape(rgb.shape[:2])
    palette = np.full((256, 4), 255, np.uint8)
    palette[: len(colours), :3] = colours[:, ::-1]
    frame.planes[1].update(palette.tobytes())
    return frame


def write(path: Path, codec: str, pixel_format: str, color_range: int = 0) -> Path:
    """Encode three pictures."""
    lossless = {"libx264": {"qp": "0", "g": "2"}, "mjpeg": {"qmin": "1", "qmax": "1"}}.get(codec, {})
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=25, options={**lossless, "strict": "experimental"})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = BLOCK * COLUMNS, BLOCK * ROWS, pixel_format
        stream.codec_context.color_range = color_range
        for number in range(3):
            frame = picture(number, pixel_format)
            frame.pts, frame.time_base, frame.color_range = number, Fraction(1, 25), color_range
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def store(path: Path, pixel_format: PixelFormat) -> StoredVideo:
    shard = path.with_name(f"{path.name}-{pixel_format}.bin")
    with ShardWriter(shard) as writer:
        return store_video(path, writer, pixel_format=pixel_format, short_side=1000, shard_name=str(shard))


def difference(some: Frames, others: Frames) -> torch.Tensor:
    """Of the middles of all blocks: at their edges colour differences of other resolutions are mixed."""
    apart = (some.rgb().double() - others.rgb().double()).abs()
    return apart.view(*apart.shape[:2], ROWS, BLOCK, COLUMNS, BLOCK)[..., 6:10, :, 6:10]


def assert_stored_alike(path: Path) -> None:
    decoded = read_frames(index_video(path), range(3))
    for pixel_format, most in MOST_OFF.items():
        ours = read_frames(store(path, pixel_format), range(3))
        assert difference(ours, decoded).max() <= most, f"{path.name} as {pixel_format}"
    assert difference(read_frames(store(path, "jpeg"), range(3)), decoded).mean() < 4


@pytest.mark.parametrize(("codec", "pixel_format"), CASES)
def test_store_holds_the_frames_of_the_file(codec: str, pixel_format: str, tmp_path: Path) -> None:
    for color_range in RANGES:
        assert_stored_alike(write(tmp_path / f"{color_range}.{CODECS[codec]}", codec, pixel_format, color_range))


@pytest.mark.parametrize("name", ["obs_rgb.mkv", "png_gray.avi"])
def test_store_holds_the_frames_of_files_marked_full(shared: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.symlink_to(shared / "data/cases/13-store" / name)
    decoded = read_frames(index_video(path), range(50)).rgb().double()
    grey = decoded.mean(dim=1)
    for pixel_format in ("yuv", "rgb", "jpeg"):
        ours = read_frames(store(path, pixel_format), range(50)).rgb().double()
        assert (ours.mean(dim=1) - grey).abs().mean() < 3
        assert (ours.mean() - decoded.mean()).abs() < 0.5


def test_raw_frames_of_every_format(tmp_path: Path) -> None:
    """All that PyAV can make of a picture, and NUT holds as it is."""
    held = []
    for name in sorted(names):
        if name.startswith(("bayer", "yaf", "xyz", "rgb444", "bgr444")) or "f16" in name or "f32" in name:
            continue  # sensors' patterns, floating point: not what a decoder of video gives; or always dithered
        path = tmp_path / f"{name}.nut"
        try:
            index = index_video(write(path, "rawvideo", name))
        except (ValueError, av.FFmpegError):  # of hardware, or packed in a way that PyAV does not fill
            continue
        if index.pixel_format != name:  # NUT has no name for it
            continue
        assert_stored_alike(path)
        held.append(name)
    assert len(held) > 60
    assert {"nv12", "pal8", "gray", "rgb24", "yuyv422", "yuv420p", "monow"} <= set(held)


def test_a_frame_is_read_by_its_own_colour_space() -> None:
    """The same picture in other formats, matrices and ranges: brought into one layout it is the same."""
    rgb = picture(0, "rgb24")
    frames = [
        rgb.reformat(format=name, dst_colorspace=space, dst_color_range=color_range)
        for name in ("yuv420p", "yuv444p", "yuv422p10le", "nv12")
        for space in ("ITU601", "ITU709")
        for color_range in (1, 2)
    ]
    wanted = Frames((torch.from_numpy(blocks(0)).permute(2, 0, 1)[None],), None)
    for target in (*frames, rgb):
        layout = layout_of(target)
        for frame in (*frames, rgb):
            read = PlaneReader(layout)(frame)
            planes = tuple(torch.from_numpy(np.stack(group))[None] for group in read)
            assert difference(Frames(planes, layout.colour), wanted).max() <= 5, (layout, frame.format.name)


@pytest.mark.parametrize(
    ("matrix", "spaces"),
    [("bt709", [1]), ("bt601", [2, 5, 6]), ("fcc", [4]), ("smpte240m", [7]), ("bt2020", [9, 10])],
)
def test_the_matrix_of_a_colour_space(matrix: str, spaces: list[int]) -> None:
    """By its number in ITU-T H.273, Table 4; 2 is unspecified."""
    frame = picture(0, "yuv420p")
    for frame.colorspace in spaces:
        assert colour_of(frame).matrix == matrix


def test_a_checksum_is_of_the_picture_as_it_is_read() -> None:
    """The same planes show other pictures by another matrix or range."""
    sums = []
    for space, color_range in 2 * [(1, 1), (1, 2), (5, 1), (5, 2)]:
        frame = picture(0, "yuv420p")
        frame.colorspace, frame.color_range = space, color_range
        sums.append(PlaneReader().checksum(frame))
    assert sums[:4] == sums[4:]
    assert len(set(sums)) == 4


def test_a_change_on_the_way_is_read_and_reported(tmp_path: Path) -> None:
    """Motion JPEG whose cameras change from 4:2:2 to 4:2:0: in any company frames are those of their own format."""
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as output:
        encoders = []
        for pixel_format in ("yuvj422p", "yuvj420p"):
            encoder = av.CodecContext.create("mjpeg", "w")
            assert isinstance(encoder, av.VideoCodecContext)
            encoder.width, encoder.height, encoder.pix_fmt = BLOCK * COLUMNS, BLOCK * ROWS, pixel_format
            encoder.time_base = Fraction(1, 25)
            encoders.append(encoder)
        stream = output.add_stream("mjpeg", rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = BLOCK * COLUMNS, BLOCK * ROWS, "yuvj422p"
        for number in range(12):
            encoder = encoders[number // 6]
            frame = av.VideoFrame.from_ndarray(blocks(0), format="rgb24").reformat(format=encoder.pix_fmt)
            frame.pts, frame.time_base = number, Fraction(1, 25)
            for packet in encoder.encode(frame):
                packet.stream = stream
                output.mux(packet)
    index = index_video(path)
    kinds = "yuvj422p (bt601, full range) to yuvj420p (bt601, full range)"
    assert index.remarks == (f"changes from {kinds} at frame 6; all frames are read as RGB",)
    together = read_frames(index, range(12))
    assert together.colour is None
    for number in (0, 5, 6, 11):
        assert torch.equal(read_frames(index, [number]).rgb()[0], together.rgb()[number])
    assert difference(together[[0]], together[[6]]).max() <= 5


def test_a_frame_at_a_change_does_not_depend_on_what_is_read_after_it(tmp_path: Path) -> None:
    """FFmpeg gives frames that its decoder still holds back, and that name no colour space, that of the next packet."""
    parts = [tmp_path / "a.ts", tmp_path / "b.ts"]
    for path, space in zip(parts, (2, 1), strict=True):
        with av.open(str(path), "w") as output:
            stream = output.add_stream("libx264", rate=25, options={"bf": "2", "g": "20"})
            assert isinstance(stream, av.VideoStream)
            stream.width, stream.height, stream.pix_fmt = BLOCK * COLUMNS, BLOCK * ROWS, "yuv420p"
            stream.codec_context.colorspace = space
            for number in range(30):
                frame = picture(number, "yuv420p")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
    path = tmp_path / "c.mkv"
    with av.open(str(path), "w") as output, av.open(str(parts[0])) as first:
        stream = output.add_stream_from_template(first.streams.video[0])
        for start, part in zip((0, 30), parts, strict=True):
            with av.open(str(part)) as given:
                for packet in (packet for packet in given.demux(video=0) if packet.size):
                    assert packet.pts is not None
                    assert packet.dts is not None
                    offset = start * 3600 - 126000 - 7200
                    packet.pts, packet.dts, packet.stream = packet.pts + offset, packet.dts + offset, stream
                    output.mux(packet)
    index = index_video(path)
    assert index.is_mixed
    together = read_frames(index, range(60)).rgb()
    for number in range(24, 36):
        assert torch.equal(read_frames(index, [number]).rgb(), together[number : number + 1]), number


def test_colour_space_that_changes_gives_the_same_picture(shared: Path, tmp_path: Path) -> None:
    path = tmp_path / "range_change.ts"
    path.symlink_to(shared / "data/cases/02-format-change" / path.name)
    index = index_video(path)
    for numbers in ([10], [60], [10, 60], [60, 10, 99], range(100)):
        means = dict(zip(numbers, read_frames(index, numbers).rgb().double().mean(dim=(1, 2, 3)).tolist(), strict=True))
        assert {number: mean for number, mean in means.items() if number in (10, 60)} == pytest.approx(
            {number: {10: 80.5, 60: 80.4}[number] for number in numbers if number in (10, 60)}, abs=0.8
        )
    stored = read_frames(store(path, "yuv"), [10, 60]).rgb().double().mean(dim=(1, 2, 3))
    assert stored.tolist() == pytest.approx([80.5, 80.4], abs=1.0)


def test_lines_from_the_bottom_up_are_turned(tmp_path: Path) -> None:
    """FFmpeg gives the lines of a raw AVI from the last to the first, by a negative size of a line."""
    path = write(tmp_path / "a.avi", "rawvideo", "bgr24")
    data = bytearray(path.read_bytes())
    height = data.index(b"strf") + 16
    data[height : height + 4] = (BLOCK * ROWS).to_bytes(4, "little")  # the muxer writes it negative: the first on top
    path.write_bytes(data)
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        plane = frame.planes[0]
        assert plane.line_size < 0
        lines = plane_lines(plane)
        pixels = frame.to_ndarray(format="bgr24").reshape(len(lines), -1)
    assert np.array_equal(lines, pixels[:, : lines.shape[1]])


def test_layouts() -> None:
    assert layout_of(av.VideoFrame(16, 16, "pal8")) == Layout("gbrp", None)
    assert layout_of(av.VideoFrame(16, 16, "yuvj422p")).planes == "yuv422p"
    assert layout_of(av.VideoFrame(16, 16, "yuv410p")).planes == "yuv444p"
