"""A DICOM file of several frames (cine) as a video: pydicom reads the file, FFmpeg decodes its pictures."""

import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from v3s.files.remote.fetch import held
from v3s.files.text import counted
from v3s.options import import_extra
from v3s.video.container import MAX_PIXELS
from v3s.video.planes import plane_lines
from v3s.video.stills.border import reading
from v3s.video.stills.found import FoundStills, Stills
from v3s.video.stills.pictures import PictureDecoder
from v3s.video.stills.pixels import as_frame

DICOM_ENDINGS = frozenset({".dcm", ".dicom"})

_MOST_HEADER_BYTES = 1 << 16  # of an element: larger ones, such as all pixels, stay in the file until they are needed
_MOST_PADDING = 16  # bits: an element has an even number of bytes
_END = b"\xff\xd9"  # of a picture in JPEG, JPEG-LS and JPEG 2000
_SYNTAX = "1.2.840.10008.1.2"
_PLAIN = {_SYNTAX, *(f"{_SYNTAX}.{number}" for number in ("1", "2"))}  # no compression
_AS_ARRAYS = {*_PLAIN, f"{_SYNTAX}.5"}  # and RLE
_CODECS = {
    **{f"{_SYNTAX}.4.{number}": "mjpeg" for number in (50, 51, 57, 70)},
    **{f"{_SYNTAX}.4.{number}": "jpegls" for number in (80, 81)},
    **{f"{_SYNTAX}.4.{number}": "jpeg2000" for number in (90, 91)},
}
"""FFmpeg's decoder of each transfer syntax with compressed pictures."""

_GREYS = {"MONOCHROME1", "MONOCHROME2"}
_COLOURS = {
    **{syntax: {*_GREYS, "PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422"} for syntax in _PLAIN},
    f"{_SYNTAX}.5": {*_GREYS, "PALETTE COLOR", "RGB", "YBR_FULL"},
    "mjpeg": {*_GREYS, "RGB", "YBR_FULL", "YBR_FULL_422"},
    "jpegls": {*_GREYS, "RGB", "YBR_FULL"},
    "jpeg2000": {*_GREYS, "RGB", "YBR_FULL", "YBR_ICT", "YBR_RCT"},
}
"""The photometric interpretations that are read, by transfer syntax, or by its decoder."""


def open_dicom(path: str) -> FoundStills:
    """Learn how many frames a DICOM file has, and their rate.

    Raises:
        VideoError: It is damaged, has no pictures, or such as are not read.
    """
    with _opened(path) as file:
        num_frames, num_bytes = _num_frames(file), os.path.getsize(path)
        if num_frames > num_bytes:
            raise ValueError(f"it states {num_frames} frames, more than it has bytes")
        if file.file_meta.TransferSyntaxUID not in _PLAIN and (num_held := _num_compressed(file)) > num_frames:
            raise _miscounted(num_frames, num_held)
        codec = _CODECS.get(file.file_meta.TransferSyntaxUID, "dicom")
        return FoundStills(Stills("dicom"), num_frames, num_bytes, codec, _rate(file))


def read_dicom(path: str, wanted: Iterable[int]) -> Iterator[VideoFrame]:
    """Yield frames by their numbers.

    Raises:
        VideoError: One cannot be read.
    """
    wanted = list(wanted)
    with _opened(path) as file:
        num_frames = _num_frames(file)
        if wanted and max(wanted) >= num_frames:
            raise ValueError(f"it has {num_frames} frames now: it changed since it was indexed; index it again")
        if file.file_meta.TransferSyntaxUID in _AS_ARRAYS:
            yield from _plain_frames(path, file, wanted)
        else:
            yield from _compressed_frames(file, wanted, num_frames)


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    """Open a DICOM file. pydicom warns of what it can read all the same."""
    with reading(f"{path}:"), held(path):
        pydicom = import_extra("pydicom", "science", "reading DICOM files")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                file = pydicom.dcmread(path, defer_size=_MOST_HEADER_BYTES)
            except pydicom.errors.InvalidDicomError as error:
                raise ValueError("it is not a DICOM file: it does not begin with 128 bytes and DICM") from error
            yield file


def _num_frames(file: Any) -> int:
    """The number of pictures, once it is known that they can be read."""
    if "PixelData" not in file:
        raise ValueError("it holds no pictures: it is a report, or is cut short")
    syntax = file.file_meta.TransferSyntaxUID
    if syntax not in _AS_ARRAYS and syntax not in _CODECS:
        raise ValueError(f"its pictures are compressed as {syntax.name}, which is not read; convert it to JPEG or RLE")
    if not 0 < int(file.Rows) * int(file.Columns) <= MAX_PIXELS:
        raise ValueError(f"its pictures have {file.Columns}x{file.Rows} pixels; at most {MAX_PIXELS} are read")
    _check_values(file)
    stated = file.get("NumberOfFrames")
    num_frames = 1 if stated in (None, "") else int(stated)  # absent from a single picture
    num_held = _num_held(file, num_frames) if syntax in _PLAIN else None
    if num_frames < 1 or num_held not in (None, num_frames):
        raise _miscounted(num_frames, num_held)
    return num_frames


def _miscounted(num_frames: int, num_held: int | None) -> ValueError:
    there = "some" if num_held is None else f"{num_held}"
    return ValueError(
        f"it states {counted(num_frames, 'frame')} and holds {there}; correct NumberOfFrames, or export it again"
    )


def _check_values(file: Any) -> None:
    """Refuse pictures whose values would be taken for others.

    Raises:
        ValueError: They have colours that are not read, or their bits are not the lowest ones.
    """
    syntax, kind = file.file_meta.TransferSyntaxUID, file.PhotometricInterpretation
    if kind not in _COLOURS[_CODECS.get(syntax, syntax)]:
        raise ValueError(f"its pictures have colours of the kind {kind} in {syntax.name}; save them as grey or RGB")
    if file.get("HighBit", file.BitsStored - 1) != file.BitsStored - 1:
        raise ValueError(
            f"its values of {file.BitsStored} bits end at bit {file.HighBit}, where {file.BitsStored - 1} is read; "
            "export it again"
        )


def _num_held(file: Any, num_stated: int) -> int:
    """How many pictures without compression the pixel data have the bytes of; they are not read."""
    element = file.get_item("PixelData", keep_deferred=True)
    num_bytes = element.length if hasattr(element, "length") else len(element.value)
    num_bits = int(file.Rows) * int(file.Columns) * int(file.SamplesPerPixel) * int(file.BitsAllocated)
    if file.PhotometricInterpretation == "YBR_FULL_422":  # two pixels share their colour
        num_bits = num_bits * 2 // 3
    num_left = 8 * int(num_bytes) - num_stated * num_bits
    return num_stated if 0 <= num_left < max(num_bits, _MOST_PADDING) else 8 * int(num_bytes) // num_bits


def _num_compressed(file: Any) -> int:
    """How many pictures end in the compressed pixel data: one of RLE with every piece, others with a marker."""
    encaps = import_extra("pydicom.encaps", "science", "reading DICOM files")
    pieces, is_rle = BytesIO(file.PixelData), file.file_meta.TransferSyntaxUID not in _CODECS
    encaps.parse_basic_offsets(pieces)
    return sum(is_rle or piece.rstrip(b"\0").endswith(_END) for piece in encaps.generate_fragments(pieces))


def _plain_frames(path: str, file: Any, wanted: list[int]) -> Iterator[VideoFrame]:
    """Frames that pydicom reads, each from its place in the file; it finds those in YBR_FULL_422 elsewhere."""
    if file.PhotometricInterpretation == "YBR_FULL_422":
        yield from _frames_422(file, wanted)
        return
    pixels = import_extra("pydicom.pixels", "science", "reading DICOM files")
    for values in pixels.iter_pixels(path, indices=wanted):
        if file.PhotometricInterpretation == "PALETTE COLOR":
            values = pixels.apply_color_lut(values, file)
        values = _upright_values(values, file, int(file.BitsStored))
        yield as_frame(values.astype(np.bool_) if file.BitsAllocated == 1 else values)


def _frames_422(file: Any, wanted: list[int]) -> Iterator[VideoFrame]:
    """Frames of which two pixels of a line share their colour: Y, Y, Cb, Cr."""
    height, width = int(file.Rows), int(file.Columns)
    if width % 2 or file.BitsAllocated != 8:
        raise ValueError(
            f"its pictures in YBR_FULL_422 have {width} columns and {file.BitsAllocated} bits, where an "
            "even number and 8 are read; save them as RGB"
        )
    pixels = np.frombuffer(file.PixelData, np.uint8)
    for number in wanted:
        place = number * 2 * height * width
        pairs = pixels[place : place + 2 * height * width].reshape(height, width // 2, 4)
        frame = VideoFrame(width, height, "yuvj422p")
        parts = pairs[..., :2].reshape(height, width), pairs[..., 2], pairs[..., 3]
        for plane, values in zip(frame.planes, parts, strict=True):
            plane_lines(plane)[:] = values
        yield frame


def _compressed_frames(file: Any, wanted: list[int], num_frames: int) -> Iterator[VideoFrame]:
    encaps = import_extra("pydicom.encaps", "science", "reading DICOM files")
    codec = _CODECS[file.file_meta.TransferSyntaxUID]
    is_grey = file.PhotometricInterpretation in ("MONOCHROME1", "MONOCHROME2")
    is_signed = is_grey and file.get("PixelRepresentation") == 1 and codec != "jpeg2000"  # whose decoder shifts them
    decode = PictureDecoder(codec)
    for number in wanted:
        frame = decode(encaps.get_frame(file.PixelData, number, number_of_frames=num_frames))
        is_yuv, kind = frame.format.name.startswith("yuv"), file.PhotometricInterpretation
        if is_yuv and kind == "RGB":  # without a marker of it
            frame = as_frame(np.moveaxis(frame.to_ndarray(), 0, -1))
        elif frame.format.is_rgb and kind.startswith("YBR_FULL"):  # JPEG-LS and JPEG 2000 say nothing of colours
            channels: NDArray[np.uint8] = np.moveaxis(frame.to_ndarray(format="rgb24"), -1, 0).astype(np.uint8)
            frame = VideoFrame.from_ndarray(np.ascontiguousarray(channels), format="yuvj444p")
        elif is_signed or file.PhotometricInterpretation == "MONOCHROME1":
            values = _signed(frame.to_ndarray(), file) if is_signed else frame.to_ndarray()
            frame = as_frame(_upright_values(values, file, 8 * values.itemsize))
        yield frame


def _signed(values: np.ndarray, file: Any) -> np.ndarray:
    """Decoded values as signed ones, where the decoder does not look at the sign.

    Raises:
        ValueError: It is unknown which bit is the sign.
    """
    if int(file.BitsStored) != 8 * values.itemsize:
        raise ValueError(
            f"its pictures have signed values of {file.BitsStored} bits in JPEG or JPEG-LS, where 8 or 16 are read; "
            "save it without compression"
        )
    return values.view(f"i{values.itemsize}")


def _upright_values(values: np.ndarray, file: Any, bits: int) -> np.ndarray:
    """Values of which the greatest is white: in MONOCHROME1 the least is.

    Args:
        values: Of a picture.
        file: That it is of.
        bits: Of unsigned values. FFmpeg scales decoded ones to all bits of their type.
    """
    if file.PhotometricInterpretation != "MONOCHROME1":
        return values
    most = -1 if values.dtype.kind == "i" else (1 << bits) - 1
    inverted: np.ndarray = values.dtype.type(most) - values
    return inverted


def _rate(file: Any) -> float | None:
    """Frames per second, if the file states the time of a frame, or a rate."""
    for name in ("FrameTime", "FrameTimeVector", "CineRate", "RecommendedDisplayFrameRate"):
        try:
            values = [float(value) for value in np.atleast_1d(file.get(name, ()))]
            if name == "FrameTimeVector":
                values = values[1:]  # the first is 0
            if values and (mean := sum(values) / len(values)) > 0:
                return 1000 / mean if name.startswith("FrameTime") else mean
        except (TypeError, ValueError, OverflowError):
            continue
    return None
