"""A DICOM file of several frames (cine) as a video: pydicom reads the file, FFmpeg decodes its pictures."""

import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from av.video.frame import VideoFrame

from v3s.files.remote.fetch import held
from v3s.options import import_extra
from v3s.video.container import MAX_PIXELS
from v3s.video.stills.border import reading
from v3s.video.stills.found import FoundStills, Stills
from v3s.video.stills.pictures import PictureDecoder
from v3s.video.stills.pixels import as_frame

DICOM_ENDINGS = frozenset({".dcm", ".dicom"})

_MOST_HEADER_BYTES = 1 << 16  # of an element: larger ones, such as all pixels, stay in the file until they are needed
_SYNTAX = "1.2.840.10008.1.2"
_PLAIN = {_SYNTAX, *(f"{_SYNTAX}.{number}" for number in ("1", "2"))}  # no compression
_AS_ARRAYS = {*_PLAIN, f"{_SYNTAX}.5"}  # and RLE
_CODECS = {
    **{f"{_SYNTAX}.4.{number}": "mjpeg" for number in (50, 51, 57, 70)},
    **{f"{_SYNTAX}.4.{number}": "jpegls" for number in (80, 81)},
    **{f"{_SYNTAX}.4.{number}": "jpeg2000" for number in (90, 91)},
}
"""FFmpeg's decoder of each transfer syntax with compressed pictures."""


def open_dicom(path: str) -> FoundStills:
    """Learn how many frames a DICOM file has, and their rate.

    Raises:
        VideoError: It is damaged, has no pictures, or such as are not read.
    """
    with _opened(path) as file:
        num_frames, num_bytes = _num_frames(file), os.path.getsize(path)
        if num_frames > num_bytes:
            raise ValueError(f"it states {num_frames} frames, more than it has bytes")
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
    stated = file.get("NumberOfFrames")
    num_frames = 1 if stated in (None, "") else int(stated)  # absent from a single picture
    num_held = _num_held(file) if syntax in _PLAIN else None
    if num_frames < 1 or (num_held is not None and num_frames > num_held):
        there = "some" if num_held is None else f"{num_held}"
        raise ValueError(f"it states {num_frames} frames and holds {there}; correct NumberOfFrames, or export it again")
    return num_frames


def _num_held(file: Any) -> int:
    """How many pictures without compression the pixel data have the bytes of; they are not read."""
    element = file.get_item("PixelData", keep_deferred=True)
    num_bytes = element.length if hasattr(element, "length") else len(element.value)
    num_bits = int(file.Rows) * int(file.Columns) * int(file.SamplesPerPixel) * int(file.BitsAllocated)
    if file.PhotometricInterpretation == "YBR_FULL_422":  # two pixels share their colour
        num_bits = num_bits * 2 // 3
    return 8 * int(num_bytes) // max(num_bits, 1)


def _plain_frames(path: str, file: Any, wanted: list[int]) -> Iterator[VideoFrame]:
    """Frames that pydicom reads, each from its place in the file."""
    pixels = import_extra("pydicom.pixels", "science", "reading DICOM files")
    for values in pixels.iter_pixels(path, indices=wanted):
        if file.PhotometricInterpretation == "PALETTE COLOR":
            values = pixels.apply_color_lut(values, file)
        yield as_frame(_upright_values(values, file, int(file.BitsStored)))


def _compressed_frames(file: Any, wanted: list[int], num_frames: int) -> Iterator[VideoFrame]:
    encaps = import_extra("pydicom.encaps", "science", "reading DICOM files")
    codec = _CODECS[file.file_meta.TransferSyntaxUID]
    is_grey = file.PhotometricInterpretation in ("MONOCHROME1", "MONOCHROME2")
    is_signed = is_grey and file.get("PixelRepresentation") == 1 and codec != "jpeg2000"  # whose decoder shifts them
    decode = PictureDecoder(codec)
    for number in wanted:
        frame = decode(encaps.get_frame(file.PixelData, number, number_of_frames=num_frames))
        if frame.format.name.startswith("yuv") and file.PhotometricInterpretation == "RGB":  # without a marker of it
            frame = as_frame(np.moveaxis(frame.to_ndarray(), 0, -1))
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
