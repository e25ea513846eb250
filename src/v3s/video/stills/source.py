"""Every kind of pictures by one interface: find them at a path, then read frames by their numbers.

A new kind is a file beside this one with two functions, and a row here.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from av.video.frame import VideoFrame

from v3s.video.container import VideoError
from v3s.video.stills.dicom import DICOM_ENDINGS, open_dicom, read_dicom
from v3s.video.stills.folder import open_folder, read_folder
from v3s.video.stills.found import FoundStills, Stills
from v3s.video.stills.numbered import ending_of
from v3s.video.stills.tiff import TIFF_ENDINGS, open_tiff, read_tiff

STACK_ENDINGS = TIFF_ENDINGS | DICOM_ENDINGS
"""The endings, in lower case, by which a file counts as a stack of pictures."""


def find_stills(path: str | Path) -> FoundStills | None:
    """Learn what pictures there are; ``None`` if the path is neither a folder of frames nor a stack.

    Raises:
        VideoError: They cannot be the frames of one video.
    """
    path = str(path)
    if os.path.isdir(path):
        return open_folder(path)
    if (ending := ending_of(path)) not in STACK_ENDINGS or not os.path.isfile(path):
        return None
    if os.path.getsize(path) == 0:
        raise VideoError(f"{path}: is an empty file", "open")
    return open_tiff(path) if ending in TIFF_ENDINGS else open_dicom(path)


def read_stills(path: str, stills: Stills, wanted: Iterable[int]) -> Iterator[tuple[int, VideoFrame]]:
    """Yield frames with their numbers, in the order asked for; each belongs to the caller.

    Raises:
        VideoError: A picture is missing or damaged.
    """
    wanted = list(wanted)
    if stills.names:
        frames = read_folder(path, stills.names, wanted)
    else:
        frames = read_tiff(path, wanted) if stills.kind == "tiff" else read_dicom(path, wanted)
    yield from zip(wanted, frames, strict=True)
