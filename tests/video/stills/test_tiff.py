"""TIFF stacks: axes, rates, kinds of pixels, and one line for what is not a video."""

import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from v3s.data.lists.splits import list_videos
from v3s.data.scan import scan
from v3s.video.container import Failure
from v3s.video.decode import read_frames
from v3s.video.index import VideoError, index_video

Film = Callable[..., NDArray[Any]]


@pytest.mark.parametrize(
    ("options", "rate"),
    [
        ({}, None),
        ({"bigtiff": True, "byteorder": ">"}, None),
        ({"imagej": True, "metadata": {"axes": "TYX", "finterval": 0.5}}, 2.0),
        ({"imagej": True, "metadata": {"axes": "ZYX"}}, None),
        ({"ome": True, "metadata": {"axes": "TYX", "TimeIncrement": 100.0, "TimeIncrementUnit": "ms"}}, 10.0),
        ({"ome": True, "metadata": {"axes": "TYX", "TimeIncrement": 5000.0, "TimeIncrementUnit": "µs"}}, 200.0),
        ({"ome": True, "metadata": {"axes": "TYX", "TimeIncrement": 1e9}}, None),
        ({"contiguous": False, "metadata": None}, None),
        ({"contiguous": False}, None),  # each picture described as a series of its own
        ({"compression": "zlib", "predictor": False, "rowsperstrip": 5}, None),
        ({"photometric": "miniswhite"}, None),
    ],
    ids=str,
)
def test_frames_lie_along_the_one_axis(tmp_path: Path, film: Film, options: dict[str, Any], rate: float | None) -> None:
    values = film(7, np.uint8)
    with tifffile.TiffWriter(
        tmp_path / "a.tif",
        **{name: options[name] for name in ("bigtiff", "byteorder", "imagej", "ome") if name in options},
    ) as file:
        rest = {name: value for name, value in options.items() if name not in ("bigtiff", "byteorder", "imagej", "ome")}
        for picture in values if "contiguous" in options else [values]:
            file.write(picture, **rest)
    index = index_video(tmp_path / "a.tif")
    assert index.num_frames == 7
    assert index.fps == pytest.approx(rate or 25.0)
    assert any("are assumed" in remark for remark in index.remarks) == (rate is None)
    expected = 255 - values if options.get("photometric") == "miniswhite" else values
    assert np.array_equal(read_frames(index, range(7)).rgb()[:, 0].numpy(), expected)


def test_palettes_planes_and_bits(tmp_path: Path) -> None:
    table = np.arange(3 * 256).reshape(3, 256).astype(np.uint16) * 80
    tifffile.imwrite(tmp_path / "palette.tif", np.full((2, 8, 8), 200, np.uint8), photometric="palette", colormap=table)
    shown = read_frames(index_video(tmp_path / "palette.tif"), [1]).rgb()[0, :, 3, 3]
    assert shown.tolist() == (table[:, 200] >> 8).tolist()
    planes = np.arange(2 * 3 * 8 * 9).reshape(2, 3, 8, 9).astype(np.uint8)
    tifffile.imwrite(tmp_path / "planes.tif", planes, photometric="rgb", planarconfig="separate")
    assert np.array_equal(read_frames(index_video(tmp_path / "planes.tif"), [0, 1]).rgb().numpy(), planes)
    bits = np.indices((3, 8, 16)).sum(axis=0) % 3 == 0
    tifffile.imwrite(tmp_path / "bits.tif", bits, photometric="minisblack")
    assert np.array_equal(read_frames(index_video(tmp_path / "bits.tif"), [2]).rgb()[0, 0].numpy(), bits[2] * 255)
    signed = np.array([[[-5, 0], [7, 300]]] * 2, np.int16)
    tifffile.imwrite(tmp_path / "signed.tif", signed)
    index = index_video(tmp_path / "signed.tif")
    assert index.window == (32763, 33068)
    assert read_frames(index, [0]).rgb()[0, 0].tolist() == [[0, 4], [10, 255]]


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_picture_has_its_own_palette(tmp_path: Path, compression: str | None) -> None:
    values = np.random.default_rng(0).integers(0, 256, (4, 8, 9), np.uint8)
    tables = np.random.default_rng(1).integers(0, 256, (4, 3, 256)).astype(np.uint16) * 257
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for picture, table in zip(values, tables, strict=True):
            rest: dict[str, Any] = {"contiguous": False, "metadata": None, "compression": compression}
            file.write(picture, photometric="palette", colormap=table, **rest)
    shown = read_frames(index_video(tmp_path / "a.tif"), [3, 0, 2, 1]).rgb().numpy()
    for number, picture in zip([3, 0, 2, 1], shown, strict=True):
        assert np.array_equal(picture, tables[number][:, values[number]] >> 8)


@pytest.mark.parametrize(
    ("channels", "options", "reason"),
    [
        (4, {"photometric": "separated"}, "colours of the kind SEPARATED"),
        (3, {"photometric": "cielab"}, "colours of the kind CIELAB"),
        (3, {"photometric": "ycbcr"}, "colours of the kind YCBCR"),
        (2, {"photometric": "minisblack", "extrasamples": ["unspecified"]}, "2 channels"),
        (5, {"photometric": "minisblack", "extrasamples": ["unspecified"] * 4}, "5 channels"),
        (2, {"photometric": "minisblack", "extrasamples": ["unassalpha"]}, ""),
        (4, {"photometric": "rgb", "extrasamples": ["unassalpha"]}, ""),
    ],
    ids=str,
)
def test_no_channel_is_taken_for_another(tmp_path: Path, channels: int, options: dict[str, Any], reason: str) -> None:
    values = np.random.default_rng(0).integers(0, 256, (3, 8, 9, channels), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", values, planarconfig="contig", **options)
    if reason:
        with pytest.raises(VideoError, match=reason):
            index_video(tmp_path / "a.tif")
    else:
        assert np.array_equal(read_frames(index_video(tmp_path / "a.tif"), [2]).rgb()[0, 0].numpy(), values[2, :, :, 0])


def stored(upright: NDArray[Any], number: int) -> NDArray[Any]:
    """A picture (height, width, ...) as TIFF's table says that it is stored: where its row 0 and its column 0 lie.

    1: top and left; 2: top and right; 3: bottom and right; 4: bottom and left; 5: left and top; 6: right and top;
    7: right and bottom; 8: left and bottom.
    """
    rows = upright[::-1] if number in (3, 4, 7, 8) else upright
    both = rows[:, ::-1] if number in (2, 3, 6, 7) else rows
    return both.swapaxes(0, 1) if number >= 5 else both


@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize(
    "options",
    [{}, {"compression": "zlib"}, {"bigtiff": True, "byteorder": ">"}, {"contiguous": False, "metadata": None}],
    ids=str,
)
def test_the_tag_orientation_is_obeyed(tmp_path: Path, film: Film, number: int, options: dict[str, Any]) -> None:
    """In stacks and in folders of pictures, as EXIF is in JPEG: pictures are upright, and so are height and width."""
    upright = film(3, np.uint8, colour=True)
    as_kept = np.stack([stored(picture, number) for picture in upright])
    file = {name: options[name] for name in ("bigtiff", "byteorder") if name in options}
    rest: dict[str, Any] = {"photometric": "rgb", "extratags": [(274, 3, 1, number, False)]}
    rest |= {name: value for name, value in options.items() if name not in file}
    with tifffile.TiffWriter(tmp_path / "stack.tif", **file) as writer:
        for pictures in as_kept if "contiguous" in options else [as_kept]:
            writer.write(pictures, **rest)
    (tmp_path / "folder").mkdir()
    for place, picture in enumerate(as_kept):
        with tifffile.TiffWriter(tmp_path / "folder" / f"{place}.tif", **file) as writer:
            writer.write(picture, **rest)
    for path in (tmp_path / "stack.tif", tmp_path / "folder"):
        index = index_video(path)
        assert (index.num_frames, index.height, index.width) == upright.shape[:3]
        assert np.array_equal(read_frames(index, [0, 1, 2]).rgb().permute(0, 2, 3, 1).numpy(), upright)


def test_pages_that_are_turned_in_two_ways_are_refused(tmp_path: Path, film: Film) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for picture, number in zip(film(3, np.uint8), (1, 1, 3), strict=True):
            tag = [(274, 3, 1, number, False)]
            file.write(picture, contiguous=False, metadata=None, extratags=tag if number > 1 else ())
    with pytest.raises(VideoError) as error:
        index_video(tmp_path / "a.tif")
    reason = "it holds pictures of several orientations, 1 and 3; the frames of a video are alike"
    assert str(error.value) == f"{tmp_path / 'a.tif'}: cannot be read: {reason}"


@pytest.mark.parametrize("byteorder", "<>")
@pytest.mark.parametrize(
    ("tags", "shape"),
    [([None, (3, 0), (3, 9)], (6, 10)), ([(3, 6), (4, 6), (3, 6)], (10, 6)), ([(2, "6")] * 3, (6, 10))],
)
def test_pages_are_alike_whose_tags_say_the_same(
    tmp_path: Path, byteorder: Literal["<", ">"], tags: list[Any], shape: tuple[int, int]
) -> None:
    """A number that the standard does not define says nothing, nor does text; types 3 and 4 are 16 and 32 bits."""
    with tifffile.TiffWriter(tmp_path / "a.tif", byteorder=byteorder) as file:
        for tag in tags:
            extra = [(274, tag[0], 1, tag[1], False)] if tag else []
            file.write(np.zeros((6, 10), np.uint8), contiguous=False, metadata=None, extratags=extra)
    index = index_video(tmp_path / "a.tif")
    assert (index.num_frames, index.height, index.width) == (3, *shape)


@pytest.mark.parametrize(
    ("values", "options", "reason"),
    [
        (np.zeros((5, 2, 8, 8), np.uint8), {"imagej": True, "metadata": {"axes": "TCYX"}}, "it has the axes TCYX"),
        (np.zeros((5, 2, 8, 8), np.uint8), {"imagej": True, "metadata": {"axes": "TZYX"}}, "it has the axes TZYX"),
        (np.zeros((5, 8, 8), np.float32), {}, "holds values of type float32; pictures of one or three channels"),
        (np.zeros((5, 8, 8), np.uint32), {}, "holds values of type uint32; pictures of one or three channels"),
    ],
)
def test_what_is_no_video_is_said(tmp_path: Path, values: NDArray[Any], options: dict[str, Any], reason: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", values, **options)
    with pytest.raises(VideoError) as error:
        index_video(tmp_path / "a.tif")
    assert reason in str(error.value)
    assert str(error.value).startswith(f"{tmp_path / 'a.tif'}: ")
    assert "\n" not in str(error.value)


def test_one_frame_many_sizes_and_a_cut(tmp_path: Path, film: Film) -> None:
    """The same verdicts as of video files."""
    values = film(9, np.uint16)
    tifffile.imwrite(tmp_path / "one.tif", values[0])
    with tifffile.TiffWriter(tmp_path / "sizes.tif") as file:
        for picture in (*values[:4], values[4, :, :20]):
            file.write(picture, contiguous=False, metadata=None)
    with tifffile.TiffWriter(tmp_path / "colour.tif") as file:
        for picture in (*values[:4], np.stack([values[4]] * 3, axis=-1)):
            file.write(picture, contiguous=False, metadata=None)
    tifffile.imwrite(tmp_path / "whole.tif", values)
    content = (tmp_path / "whole.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(content[: len(content) // 2])
    (tmp_path / "empty.tif").write_bytes(b"")
    found = scan(list_videos(tmp_path), min_frames=5, cache=None)
    verdicts = {report.path: (report.verdict, report.reason) for report in found.reports}
    assert verdicts["one.tif"] == ("too short", "1 frame; the task needs 5")
    assert verdicts["whole.tif"] == ("usable", "")
    assert verdicts["empty.tif"] == ("unreadable", "is an empty file")
    for name in ("sizes.tif", "colour.tif"):
        assert verdicts[name][0] == "unreadable"
        assert "it holds pictures of several kinds" in verdicts[name][1]
    assert verdicts["cut.tif"][0] in ("partial", "unreadable")
    assert "cannot be read: " in verdicts["cut.tif"][1]


def test_numbered_stacks_are_videos_of_their_own(tmp_path: Path, film: Film) -> None:
    for number in range(3):
        tifffile.imwrite(tmp_path / f"mouse{number}.tif", film(5, np.uint8))
        (tmp_path / "frames").mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / "frames" / f"{number}.TIFF", film(4, np.uint8)[number])
    assert list_videos(tmp_path).paths == ("frames", "mouse0.tif", "mouse1.tif", "mouse2.tif")


def test_without_tifffile_each_file_says_what_to_install_until_it_is(
    tmp_path: Path, film: Film, monkeypatch: pytest.MonkeyPatch
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", film(5, np.uint8))
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "tifffile", None)
        (report,) = scan(list_videos(tmp_path), min_frames=1).reports
    assert report.verdict == "unreadable"
    assert report.reason.startswith("cannot be read: reading TIFF files needs tifffile")
    assert "pip install 'v3s[science]'" in report.reason
    (report,) = scan(list_videos(tmp_path), min_frames=1).reports
    assert report.verdict == "usable"


def test_without_imagecodecs_each_file_says_what_to_install(tmp_path: Path, film: Film, monkeypatch: Any) -> None:
    """By hand, since the tests' environment cannot write them: the number of LZW, and that of zstd, in its tag."""
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    monkeypatch.setitem(sys.modules, "compression", None)  # of Python 3.14
    for name, number in (("LZW", 5), ("ZSTD", 50000)):
        tifffile.imwrite(tmp_path / f"{name}.tif", film(5, np.uint8), compression="zlib", byteorder="<")
        content = (tmp_path / f"{name}.tif").read_bytes()
        zlib, other = (struct.pack("<HHII", 259, 3, 1, each) for each in (8, number))
        assert content.count(zlib) == 5
        (tmp_path / f"{name}.tif").write_bytes(content.replace(zlib, other))
        with pytest.raises(
            VideoError, match=f"pictures of 8 bits and compression {name} need imagecodecs: pip install"
        ) as error:
            index_video(tmp_path / f"{name}.tif")
        assert Failure.of(error.value, "").may_pass


def test_pictures_of_one_size_and_several_kinds_are_told_apart(tmp_path: Path, film: Film) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for number, values in enumerate(film(4, np.uint8)):
            file.write(values, photometric=("minisblack", "miniswhite")[number % 2], metadata=None)
    with pytest.raises(VideoError, match="2x24x40 of uint8 as MINISBLACK and 2x24x40 of uint8 as MINISWHITE"):
        index_video(tmp_path / "a.tif")
