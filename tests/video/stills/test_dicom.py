"""DICOM cine: how frames are kept, rates, and one line for what is not a video."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.encaps import encapsulate

from v3s.data.lists.splits import list_videos
from v3s.data.scan import scan
from v3s.video.decode import read_frames
from v3s.video.frames import ColourSpace
from v3s.video.index import VideoError, index_video

Film = Callable[..., NDArray[Any]]
Write = Callable[..., Path]
Picture = Callable[..., bytes]


def test_three_frames(tmp_path: Path, film: Film, write_dicom: Write) -> None:
    values = film(3, np.uint8)
    index = index_video(write_dicom(tmp_path / "a.dcm", values, FrameTime=40))
    assert (index.num_frames, index.height, index.width, index.fps, index.window) == (3, 24, 40, 25.0, None)
    assert index.remarks == ()
    assert np.array_equal(read_frames(index, [2, 0]).rgb()[:, 1].numpy(), values[[2, 0]])
    (report,) = scan(list_videos(tmp_path), min_frames=3, cache=None).reports
    assert report.verdict == "usable"


@pytest.mark.parametrize(
    ("elements", "rate"),
    [
        ({"FrameTime": 20}, 50.0),
        ({"FrameTimeVector": [0, 100, 100, 100]}, 10.0),
        ({"CineRate": 12}, 12.0),
        ({"RecommendedDisplayFrameRate": 30}, 30.0),
        ({"FrameTime": 0, "CineRate": 0}, 25.0),
    ],
)
def test_rates(tmp_path: Path, film: Film, write_dicom: Write, elements: dict[str, Any], rate: float) -> None:
    assert index_video(write_dicom(tmp_path / "a.dcm", film(4, np.uint8), **elements)).fps == pytest.approx(rate)


def test_compressed_frames(tmp_path: Path, film: Film, write_dicom: Write, picture: Picture) -> None:
    """JPEG, which ultrasound machines write, through FFmpeg; RLE through pydicom."""
    colour, grey = film(5, np.uint8, colour=True), film(5, np.uint16)
    photos = [picture(frame, "mjpeg", "yuvj422p") for frame in colour]
    jpeg = write_dicom(
        tmp_path / "jpeg.dcm", colour, syntax="JPEGBaseline8Bit", data=encapsulate(photos),
        PhotometricInterpretation="YBR_FULL_422",
    )  # fmt: skip
    frames = read_frames(index_video(jpeg), [4, 1])
    assert [plane.shape[1:] for plane in frames.planes] == [(1, 24, 40), (2, 24, 20)]
    assert np.abs(frames.rgb().permute(0, 2, 3, 1).numpy().astype(int) - colour[[4, 1]]).mean() < 6
    plain = write_dicom(tmp_path / "plain.dcm", grey)
    dataset = pydicom.dcmread(plain)
    dataset.compress(pydicom.uid.RLELossless)
    dataset.save_as(tmp_path / "rle.dcm")
    one, other = (read_frames(index_video(file), range(5)).rgb() for file in (plain, tmp_path / "rle.dcm"))
    assert np.array_equal(one.numpy(), other.numpy())


def test_inverted_and_palette(tmp_path: Path, film: Film, write_dicom: Write) -> None:
    values = film(3, np.uint16)
    index = index_video(write_dicom(tmp_path / "a.dcm", values, PhotometricInterpretation="MONOCHROME1", BitsStored=12))
    straight = index_video(write_dicom(tmp_path / "b.dcm", 4095 - values))
    assert index.window == straight.window
    assert np.array_equal(read_frames(index, [1]).rgb().numpy(), read_frames(straight, [1]).rgb().numpy())


def test_two_pixels_may_share_their_colour(tmp_path: Path, write_dicom: Write) -> None:
    """Ultrasound machines write cine without compression so: any frame is where it should be."""
    luma, chroma = np.random.default_rng(0).integers(0, 256, (2, 5, 8, 12, 1), np.uint8)
    blue, red = chroma[:, :, ::2], chroma[:, :, 1::2]
    pairs = np.concatenate([luma.reshape(5, 8, 6, 2), blue, red], axis=-1)
    values = np.zeros((5, 8, 12, 3), np.uint8)
    told = {"PhotometricInterpretation": "YBR_FULL_422", "PixelData": pairs.tobytes()}
    frames = read_frames(index_video(write_dicom(tmp_path / "a.dcm", values, **told)), [4, 1])
    assert frames.colour == ColourSpace(full=True)
    assert np.array_equal(frames.planes[0][:, 0].numpy(), luma[[4, 1], ..., 0])
    assert np.array_equal(frames.planes[1].numpy(), np.stack([blue, red], 1)[[4, 1], ..., 0])


@pytest.mark.parametrize(("codec", "syntax"), [("jpegls", "JPEGLSLossless"), ("jpeg2000", "JPEG2000Lossless")])
def test_the_file_says_what_three_channels_are(
    tmp_path: Path, film: Film, write_dicom: Write, picture: Picture, codec: str, syntax: str
) -> None:
    """FFmpeg takes those of JPEG-LS and JPEG 2000 for red, green and blue."""
    values = film(3, np.uint8, colour=True)
    told = {"syntax": syntax, "data": encapsulate([picture(frame, codec, "rgb24") for frame in values])}
    as_rgb = read_frames(index_video(write_dicom(tmp_path / "a.dcm", values, **told)), [2])
    as_ybr = write_dicom(tmp_path / "b.dcm", values, **told, PhotometricInterpretation="YBR_FULL")
    frames = read_frames(index_video(as_ybr), [2])
    assert (as_rgb.colour, frames.colour) == (None, ColourSpace(full=True))
    assert np.array_equal(np.concatenate(frames.planes, axis=1), as_rgb.planes[0].numpy())


def test_one_bit_is_black_or_white(tmp_path: Path, film: Film, write_dicom: Write) -> None:
    """As in segmentations."""
    bright = film(3, np.uint8) > 128
    told = {"BitsAllocated": 1, "BitsStored": 1, "PixelData": np.packbits(bright, bitorder="little").tobytes()}
    for kind, white in (("MONOCHROME2", bright), ("MONOCHROME1", ~bright)):
        index = index_video(write_dicom(tmp_path / "a.dcm", bright, **told, PhotometricInterpretation=kind))
        assert np.array_equal(read_frames(index, [2]).rgb()[0, 0].numpy(), white[2] * np.uint8(255))


def test_a_rate_that_is_not_believed_is_named(tmp_path: Path, film: Film, write_dicom: Write) -> None:
    index = index_video(write_dicom(tmp_path / "a.dcm", film(3, np.uint8), CineRate=5000))
    assert index.remarks[0].endswith("25 frames per second are assumed; the 5000 that it states are out of range")


@pytest.mark.parametrize("num_stated", [1, 2, None])
def test_pictures_beyond_the_stated_number_are_not_dropped(
    tmp_path: Path, film: Film, write_dicom: Write, picture: Picture, num_stated: int | None
) -> None:
    values = film(4, np.uint8)
    files = [write_dicom(tmp_path / "plain.dcm", values, NumberOfFrames=num_stated)]
    for has_table in (True, False):
        data = encapsulate([picture(frame, "jpegls") for frame in values], has_bot=has_table)
        file = tmp_path / f"{has_table}.dcm"
        files.append(write_dicom(file, values, syntax="JPEGLSLossless", data=data, NumberOfFrames=num_stated))
    dataset = pydicom.dcmread(write_dicom(tmp_path / "rle.dcm", values))
    dataset.compress(pydicom.uid.RLELossless)
    dataset.NumberOfFrames = num_stated
    dataset.save_as(tmp_path / "rle.dcm")
    stated = "2 frames" if num_stated == 2 else "1 frame"
    for file in (*files, tmp_path / "rle.dcm"):
        with pytest.raises(VideoError, match=f"it states {stated} and holds 4; correct NumberOfFrames"):
            index_video(file)


def test_what_pads_an_element_is_no_picture(tmp_path: Path, write_dicom: Write) -> None:
    """It has an even number of bytes: after three pictures of a byte one more follows."""
    values = np.array([10, 20, 30], np.uint8).reshape(3, 1, 1)
    assert index_video(write_dicom(tmp_path / "a.dcm", values, PixelData=values.tobytes() + b"\0")).num_frames == 3


@pytest.mark.parametrize(
    ("codec", "syntax", "pixel_format"),
    [("jpegls", "JPEGLSLossless", "gray16le"), ("jpeg2000", "JPEG2000Lossless", "gray12le")],
)
def test_compressed_inverted(
    tmp_path: Path, film: Film, write_dicom: Write, picture: Picture, codec: str, syntax: str, pixel_format: str
) -> None:
    """12 bits: FFmpeg scales those of JPEG 2000 to 16. The test's JPEG 2000 loses a little."""
    values = film(3, np.uint16)
    kept = values << 4 if pixel_format == "gray12le" else values  # the test's encoder takes the top bits
    data = encapsulate([picture(frame, codec, pixel_format) for frame in kept])
    told = {"syntax": syntax, "data": data, "BitsStored": 12, "PhotometricInterpretation": "MONOCHROME1"}
    packed = index_video(write_dicom(tmp_path / "a.dcm", values, **told))
    straight = index_video(write_dicom(tmp_path / "b.dcm", 4095 - values))
    one, other = (read_frames(index, [1]).rgb().int() for index in (packed, straight))
    assert int((one - other).abs().max()) <= (codec == "jpeg2000")


def test_compressed_signed(tmp_path: Path, film: Film, write_dicom: Write, picture: Picture) -> None:
    """In JPEG-LS. One whose bit of the sign is not known is refused."""
    values = (film(3, np.uint16).astype(np.int32) - 500).astype(np.int16)
    data = encapsulate([picture(frame.view(np.uint16), "jpegls", "gray16le") for frame in values])
    for inverted in ({}, {"PhotometricInterpretation": "MONOCHROME1"}):
        plain = index_video(write_dicom(tmp_path / "plain.dcm", values, **inverted))
        file = write_dicom(tmp_path / "packed.dcm", values, syntax="JPEGLSLossless", data=data, **inverted)
        assert index_video(file).window == plain.window
        one, other = (read_frames(index, [2]).rgb().numpy() for index in (index_video(file), plain))
        assert np.array_equal(one, other)
    write_dicom(file, values, syntax="JPEGLSLossless", data=data, BitsStored=12)
    with pytest.raises(VideoError, match="signed values of 12 bits in JPEG or JPEG-LS, where 8 or 16 are read"):
        index_video(file)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"data": b""}, "it holds no pictures: it is a report, or is cut short"),
        ({"syntax": "MPEG4HP41"}, "its pictures are compressed as MPEG-4 AVC/H.264 High Profile"),
        ({"NumberOfFrames": 10**6, "syntax": "JPEGLSLossless"}, "it states 1000000 frames, more than it has bytes"),
        ({"Rows": 60000, "Columns": 60000}, "its pictures have 60000x60000 pixels"),
        (
            {"syntax": "DeflatedExplicitVRLittleEndian"},
            "as Deflated Explicit VR Little Endian, which is not read",
        ),
        ({"content": b"text"}, "it is not a DICOM file"),
        ({"NumberOfFrames": 8}, "it states 8 frames and holds 4; correct NumberOfFrames, or export it again"),
        ({"NumberOfFrames": 0}, "it states 0 frames and holds 4; correct NumberOfFrames, or export it again"),
        ({"NumberOfFrames": 0, "syntax": "JPEGLSLossless"}, "it states 0 frames and holds some"),
        ({"BitsAllocated": 32, "BitsStored": 32}, "cannot be read: "),
        ({"PhotometricInterpretation": "HSV"}, "colours of the kind HSV in Explicit VR Little Endian; save them as"),
        (
            {"PhotometricInterpretation": "PALETTE COLOR", "syntax": "JPEGLSLossless"},
            "colours of the kind PALETTE COLOR in JPEG-LS",
        ),
        ({"BitsStored": 6, "HighBit": 7}, "its values of 6 bits end at bit 7, where 5 is read; export it again"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_is_no_video_is_said(
    tmp_path: Path, film: Film, write_dicom: Write, change: dict[str, Any], reason: str
) -> None:
    file = tmp_path / "a.dcm"
    if change.get("data") == b"":
        dataset = pydicom.dcmread(write_dicom(file, film(4, np.uint8)))
        del dataset.PixelData
        dataset.save_as(file)
    elif "content" in change:
        file.write_bytes(change["content"])
    elif "syntax" in change:
        write_dicom(file, film(4, np.uint8), data=encapsulate([b"1234"] * 4), **change)
    else:
        write_dicom(file, film(4, np.uint8), **change)
    with pytest.raises(VideoError) as error:
        index_video(file)
    assert str(error.value).startswith(f"{file}: cannot be read: ")
    assert reason in str(error.value)
    assert "\n" not in str(error.value)
