"""A folder of numbered pictures as a video."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from av.video.frame import VideoFrame

from v3s.files.remote.fetch import held
from v3s.video.container import MAX_PIXELS, VideoError
from v3s.video.stills.border import reading
from v3s.video.stills.found import FoundStills, Stills
from v3s.video.stills.numbered import Numbered, are_frames, ending_of, number_frames
from v3s.video.stills.pictures import PictureDecoder
from v3s.video.stills.tiff import TIFF_ENDINGS, is_one_picture, read_tiff_picture

PICTURES = {".jpeg": "mjpeg", ".jpg": "mjpeg", ".png": "png", ".tif": "tiff", ".tiff": "tiff"}
"""Endings, in lower case, of pictures that may be frames, and FFmpeg's names of their decoders."""

_MOST_BYTES = 8 * MAX_PIXELS
_ANIMATION = b"\0\0\0\x08acTL"  # begins the chunk before the pixels by which a PNG is animated


def is_picture(name: str) -> bool:
    """Whether a file is a picture by its name."""
    return ending_of(name) in PICTURES


def kind_of(entry: "os.DirEntry[str]") -> Literal["file", "folder", "other"]:
    """What an entry of a folder is, or what a link there leads to; one in a circle, or out of reach, leads to nothing.

    Raises:
        OSError: The system does not say.
    """
    try:
        return "file" if entry.is_file() else "folder" if entry.is_dir() else "other"
    except OSError:
        if not entry.is_symlink():
            raise
        return "other"


def frame_files(folder: str | Path) -> list["os.DirEntry[str]"]:
    """The pictures of a folder, in any order, if they look like the frames of one video; else nothing.

    TIFF files of several pictures each are no frames, but videos of their own: the first by name decides. Links that
    lead nowhere are among the pictures: the frames that they stand for are missing.

    Raises:
        OSError: The folder cannot be read.
    """
    with os.scandir(folder) as entries:
        named = (entry for entry in entries if is_picture(entry.name) and entry.name[0] != ".")
        found = [entry for entry in named if kind_of(entry) != "folder"]
    if not are_frames([entry.name for entry in found]):
        return []
    stacks = (entry for entry in found if ending_of(entry.name) in TIFF_ENDINGS and kind_of(entry) == "file")
    first = min((entry.path for entry in stacks), default=None)
    return found if first is None or is_one_picture(first) else []


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
        kinds = {file.name: kind_of(file) for file in files}
        for number, name in enumerate(map(names.name, range(len(files)))):
            if kinds[name] != "file":
                reason = "is not a file, or is a broken link; put the frame there"
                raise VideoError(f"{folder}: {name} {reason}", "demux", number)
        num_bytes = sum(file.stat().st_size for file in files)
    except OSError as error:
        raise VideoError(f"{folder}: cannot be read: {error.strerror}", "open") from error
    return FoundStills(Stills("folder", names), len(files), num_bytes, _codec(names))


def read_folder(folder: str, names: Numbered, wanted: Iterable[int]) -> Iterator[VideoFrame]:
    """Yield frames by their numbers, each from a file of its own.

    Raises:
        VideoError: A picture is missing or damaged.
    """
    for number in wanted:
        file = Path(folder, names.name(number))
        yield read_picture(file, f"{folder}: {file.name}")


def read_picture(file: Path, name: str) -> VideoFrame:
    """Read one picture.

    Args:
        file: Its ending is in `PICTURES`.
        name: Begins the message of an error.

    Raises:
        VideoError: It is missing or damaged, or the file holds several.
    """
    codec = PICTURES[ending_of(file.name)]
    with reading(name), held(file):
        if file.stat().st_size > _MOST_BYTES:
            raise ValueError(f"it has more than {_MOST_BYTES:,} bytes")
        if codec == "tiff":
            return read_tiff_picture(str(file), name)
        content = file.read_bytes()
        if codec == "png" and _ANIMATION in content.partition(b"IDAT")[0]:
            raise ValueError("it is an animated PNG; a frame in a folder, or a mask, is one picture")
        return PictureDecoder(codec)(content)


def _codec(names: Numbered) -> str:
    return PICTURES[ending_of(names.name(0))]
