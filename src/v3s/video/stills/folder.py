"""A folder of numbered pictures as a video."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from av.video.frame import VideoFrame

from v3s.video.container import MAX_PIXELS, VideoError
from v3s.video.stills.found import FoundStills, Stills
from v3s.video.stills.numbered import Numbered, are_frames, number_frames
from v3s.video.stills.pictures import PictureDecoder

PICTURES = {".jpeg": "mjpeg", ".jpg": "mjpeg", ".png": "png"}
"""Endings, in lower case, of pictures that may be frames, and FFmpeg's names of their decoders."""

_MOST_BYTES = 8 * MAX_PIXELS


def is_picture(name: str) -> bool:
    """Whether a file is a picture by its name."""
    return os.path.splitext(name)[1].lower() in PICTURES


def frame_files(folder: str | Path) -> list["os.DirEntry[str]"]:
    """The pictures of a folder, in any order, if they look like the frames of one video; else nothing.

    Raises:
        OSError: The folder cannot be read.
    """
    with os.scandir(folder) as entries:
        found = [entry for entry in entries if is_picture(entry.name) and entry.name[0] != "." and entry.is_file()]
    return found if are_frames([entry.name for entry in found]) else []


def open_folder(folder: str) -> FoundStills | None:
    """Learn the frames of a folder from the names in it; ``None`` if it holds none.

    Raises:
        VideoError: They are no single series without gaps, or the folder cannot be read.
    """
    try:
        files = frame_files(folder)
        if not files:
            return None
        names = number_frames([file.name for file in files], folder)
        num_bytes = sum(file.stat().st_size for file in files)
    except OSError as error:
        raise VideoError(f"{folder}: cannot be read: {error.strerror}", "open") from error
    return FoundStills(Stills("folder", names), len(files), num_bytes, _codec(names))


def read_folder(folder: str, names: Numbered, wanted: Iterable[int]) -> Iterator[VideoFrame]:
    """Yield frames by their numbers, each from a file of its own.

    Raises:
        VideoError: A picture is missing or damaged.
    """
    decode = PictureDecoder(_codec(names))
    for number in wanted:
        file = Path(folder, names.name(number))
        try:
            if file.stat().st_size > _MOST_BYTES:
                raise VideoError(f"{folder}: {file.name} has more than {_MOST_BYTES:,} bytes", "open")
            yield decode(file.read_bytes())
        except OSError as error:
            raise VideoError(f"{folder}: {file.name} cannot be read: {error.strerror}", "open") from error
        except ValueError as error:
            if isinstance(error, VideoError):
                raise
            raise VideoError(f"{folder}: {file.name} {error}") from error


def _codec(names: Numbered) -> str:
    return PICTURES[os.path.splitext(names.name(0))[1].lower()]
