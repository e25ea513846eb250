"""A TIFF file of several pictures as a video, and TIFF pictures as frames, by tifffile."""

import logging
import math
import os
import re
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
from av.video.frame import VideoFrame

from v3s.files.remote.fetch import held
from v3s.options import MissingPackageError, import_extra
from v3s.video.container import MAX_PIXELS, VideoError
from v3s.video.orientation import orientation_of_tag
from v3s.video.stills.border import reading
from v3s.video.stills.found import FoundStills, Stills
from v3s.video.stills.pixels import as_frame

TIFF_ENDINGS = frozenset({".tif", ".tiff"})

_ORIENTATION = 274  # the tag that says how a picture is mirrored and turned; 1, as stored, where it is missing
_FORMATS = {3: "H", 4: "I"}  # of TIFF's types of integers, by their numbers
_WHITE_IS_ZERO, _PALETTE, _YCBCR = 0, 3, 6  # TIFF's numbers of photometric interpretations
_COLOURS = {_WHITE_IS_ZERO, 1, 2, _PALETTE}  # that are read as they are: greys, RGB and palettes
_JPEG = {6, 7}  # TIFF's numbers of this compression, whose decoder makes RGB of YCbCr
_MOST_TAGS = 4096
_OME_STEP = re.compile(r'TimeIncrement="([^"]{1,40})"')
_OME_UNIT = re.compile(r'TimeIncrementUnit="([^"]{1,9})"')
_SECONDS = {"ns": 1e-9, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def open_tiff(path: str) -> FoundStills:
    """Learn how many frames a TIFF file has: along its one axis beside height, width and the samples of a pixel.

    Raises:
        VideoError: It is damaged, or has several such axes, or pictures of several sizes or orientations.
    """
    with _opened(path, f"{path}:", is_known=False) as file:
        num_frames, num_bytes = _num_frames(file), os.path.getsize(path)
        if num_frames > num_bytes:
            raise ValueError(f"it states {num_frames} pictures, more than it has bytes")
        return FoundStills(Stills("tiff"), num_frames, num_bytes, "tiff", _rate(file))


def read_tiff(path: str, wanted: Iterable[int]) -> Iterator[VideoFrame]:
    """Yield frames by their numbers, upright.

    Raises:
        VideoError: One cannot be read.
    """
    with _opened(path, f"{path}:") as file:
        num_frames = _num_frames(file)
        for number in wanted:
            if number >= num_frames:
                raise ValueError(f"it has {num_frames} frames now: it changed since it was indexed; index it again")
            yield _frame(file, number)


def read_tiff_picture(path: str, name: str) -> VideoFrame:
    """Decode a TIFF file of a single picture, upright.

    Args:
        path: The file.
        name: Begins the message of an error.

    Raises:
        VideoError: It is none.
    """
    with _opened(path, name, is_known=False) as file:
        if (num_frames := _num_frames(file)) != 1:
            raise ValueError(f"it holds {num_frames} pictures; a frame in a folder, or a mask, is one")
        return _frame(file, 0)


def is_one_picture(path: str) -> bool:
    """Whether a TIFF file holds a single picture, as far as that is known.

    Raises:
        RemoteError: It cannot be fetched.
    """
    with held(path):
        try:
            with _opened(path, path, is_known=False) as file:
                return _num_frames(file) == 1
        except VideoError:
            return False


@contextmanager
def _opened(path: str, name: str, *, is_known: bool = True) -> Iterator[Any]:
    """Open a TIFF file. What tifffile logs as an error, and passes over, is one.

    Args:
        path: The file.
        name: Begins the message of an error.
        is_known: Whether the chain of its pictures was followed before.
    """
    log, heard = logging.getLogger("tifffile"), _Heard()
    with reading(name), held(path):
        if not is_known:
            _follow_chain(path)
        tifffile = import_extra("tifffile", "science", "reading TIFF files")
        log.addHandler(heard)
        log.propagate = False
        try:
            with tifffile.TiffFile(path, _multifile=False) as file:
                yield file
                if heard.errors:
                    raise ValueError(f"it is damaged: {heard.errors[0]}")
        finally:
            log.removeHandler(heard)


def _follow_chain(path: str) -> None:
    """Go from each picture's directory to the next one.

    tifffile would go in a circle for ever, and reads the orientation of the first picture only.

    Raises:
        ValueError: The chain goes in a circle, or does not begin, or its pictures are not turned alike.
    """
    with open(path, "rb") as file:
        order = {b"II": "<", b"MM": ">"}.get(file.read(2), "")
        kind = _unpack(f"{order}H", file)
        if not order or kind not in (42, 43):
            raise ValueError("it is not a TIFF file")
        is_big = kind == 43
        count_format, place_format, tag = ("Q", "Q", "HH8x8s") if is_big else ("H", "I", "HH4x4s")
        tag_bytes = struct.calcsize(order + tag)
        file.seek(8 if is_big else 4)
        seen: set[int] = set()
        orientations: set[int] = set()
        while place := _unpack(order + place_format, file):
            if place in seen:
                raise ValueError(f"it is damaged: after {len(seen)} pictures it goes back to an earlier one")
            seen.add(place)
            file.seek(place)
            if (num_tags := _unpack(order + count_format, file)) > _MOST_TAGS:
                return  # tifffile says what is wrong
            content = file.read(num_tags * tag_bytes)
            if len(content) == num_tags * tag_bytes:
                tags = {number: (kind, value) for number, kind, value in struct.iter_unpack(order + tag, content)}
                kind, value = tags.get(_ORIENTATION, (None, b""))
                number = struct.unpack_from(order + _FORMATS[kind], value)[0] if kind in _FORMATS else 1
                orientations.add(number if 1 <= number <= 8 else 1)
        if len(orientations) > 1:
            kinds = " and ".join(map(str, sorted(orientations)[:3]))
            raise ValueError(f"it holds pictures of several orientations, {kinds}; the frames of a video are alike")


def _unpack(form: str, file: BinaryIO) -> int:
    """The next number of a file; 0 at its end."""
    content = file.read(struct.calcsize(form))
    return int(struct.unpack(form, content)[0]) if len(content) == struct.calcsize(form) else 0


class _Heard(logging.Handler):
    """Collects what is logged as an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.errors: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one message as a line."""
        self.errors.append(" ".join(record.getMessage().split())[:200])


def _num_frames(file: Any) -> int:
    """The number of pictures, once it is known that they are frames of one video."""
    if not file.series:
        raise ValueError("it holds no pictures")
    first = file.series[0]
    if len(file.series) > 1 and not _are_single(file.series):
        kinds = " and ".join(sorted(set(map(_kind, file.series)))[:3])
        raise ValueError(f"it holds pictures of several kinds, {kinds}; the frames of a video are alike")
    sizes = dict(zip(first.axes, first.shape, strict=True))
    if not {"Y", "X"} <= sizes.keys() or sizes["Y"] * sizes["X"] > MAX_PIXELS:
        raise ValueError(
            f"its pictures have the axes {first.axes} of {first.shape}; at most {MAX_PIXELS} pixels are read"
        )
    along = [axis for axis in first.axes if axis not in "YXS" and sizes[axis] > 1]
    if len(along) > 1 or "C" in along:
        raise ValueError(
            f"it has the axes {first.axes} of {first.shape}; a video has one beside height, width and colour, which is "
            "not C (channels): save one channel and one plane, or name the axis T if it is time"
        )
    _check_colours(first.keyframe, sizes.get("S", 1))
    num_frames = sizes[along[0]] if along else 1
    if first.dataoffset is None and (len(first.pages) != num_frames or None in first.pages):
        raise ValueError(f"it lacks pictures: {len(first.pages)} of {num_frames} are in the file")
    return num_frames * len(file.series)


def _kind(series: Any) -> str:
    """Shape, type of the values and colours of some pictures."""
    colours = getattr(series.keyframe.photometric, "name", series.keyframe.photometric)
    return f"{'x'.join(map(str, series.shape))} of {series.dtype} as {colours}"


def _check_colours(page: Any, num_samples: int) -> None:
    """Refuse pictures whose samples would be taken for other colours, or dropped.

    Raises:
        ValueError: They are neither grey, RGB nor of a palette, with or without transparency.
    """
    if page.photometric not in _COLOURS and not (page.photometric == _YCBCR and page.compression in _JPEG):
        kind = getattr(page.photometric, "name", page.photometric)
        raise ValueError(f"its pictures have colours of the kind {kind}; save them as grey or RGB")
    if num_samples > 4 or (num_samples == 2 and not any(page.extrasamples)):
        raise ValueError(f"its pixels have {num_samples} channels, where one, three or four are read; save one channel")


def _are_single(series: Any) -> bool:
    """Whether these are equal pictures that tifffile wrote one at a time: it describes each as a series of its own."""
    kinds = {(each.kind, each.axes, each.shape, each.dtype) for each in series}
    return len(kinds) == 1 and series[0].kind == "shaped" and set(series[0].axes) <= set("YXS")


def _frame(file: Any, number: int) -> VideoFrame:
    """One picture, upright. Pixels that follow one another in the file are read as they are, others by tifffile."""
    series = file.series[0]
    if len(file.series) > 1:
        series, number = file.series[number], 0
    page, axes = series.keyframe, [axis for axis in series.axes if axis in "YXS"]
    if series.dataoffset is None:
        values = np.squeeze(_decoded(series.pages[number], page))
    else:
        shape = tuple(series.shape[series.axes.index(axis)] for axis in axes)
        dtype = np.dtype(file.byteorder + series.dtype.char)
        place = series.dataoffset + number * math.prod(shape) * dtype.itemsize
        values = file.filehandle.read_array(dtype, math.prod(shape), place).reshape(shape)
    if axes[0] == "S":
        values = np.moveaxis(values, 0, -1)
    if page.photometric == _PALETTE and (palette := _palette(series, number)) is not None:
        values = np.moveaxis((palette >> 8).astype(np.uint8)[:, values], 0, -1)
    values = orientation_of_tag(page.tags.valueof(_ORIENTATION, default=1)).upright(values)
    return as_frame(~values if page.photometric == _WHITE_IS_ZERO else values)


def _palette(series: Any, number: int) -> Any:
    """The palette of a picture: its own, or that of the first one where a single directory describes all."""
    own = series.pages[number] if number < len(series.pages) else None
    return (series.keyframe if own is None else own.aspage()).colormap


def _decoded(picture: Any, page: Any) -> Any:
    """Pixels of a picture by tifffile, which has imagecodecs decode most compressions and packed bits.

    Args:
        picture: what tifffile knows of this one.
        page: what it knows of the first one, which is like it.

    Raises:
        MissingPackageError: imagecodecs is needed.
    """
    try:
        return picture.asarray()
    except (ImportError, ValueError) as error:
        if not isinstance(error, ImportError) and "imagecodecs" not in str(error):
            raise
        how = f"{page.bitspersample} bits and compression {getattr(page.compression, 'name', page.compression)}"
        raise MissingPackageError(f"pictures of {how} need imagecodecs: pip install imagecodecs") from error


def _rate(file: Any) -> float | None:
    """Frames per second by the metadata of ImageJ or OME, if they state it."""
    try:
        if step := (file.imagej_metadata or {}).get("finterval"):
            return 1 / float(step)
        described = file.ome_metadata or ""
        if found := _OME_STEP.search(described):
            unit = _OME_UNIT.search(described)
            return 1 / (float(found[1]) * _SECONDS[unit[1] if unit else "s"])
    except (ValueError, KeyError, TypeError, ZeroDivisionError, OverflowError):
        return None
    return None
