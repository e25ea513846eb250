"""Every kind of pictures by one interface: find them at a path, then read frames by their numbers.

A new kind is a file beside this one with two functions, and a line in both functions here.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from av.video.frame import VideoFrame

from v3s.video.stills.folder import open_folder, read_folder
from v3s.video.stills.found import FoundStills, Stills


def find_stills(path: str | Path) -> FoundStills | None:
    """Learn what pictures there are; ``None`` if the path is no folder of frames, such as a video file.

    Raises:
        VideoError: They cannot be the frames of one video.
    """
    if os.path.isdir(path):
        return open_folder(str(path))
    return None


def read_stills(path: str, stills: Stills, wanted: Iterable[int]) -> Iterator[tuple[int, VideoFrame]]:
    """Yield frames with their numbers, in the order asked for; each belongs to the caller.

    Raises:
        VideoError: A picture is missing or damaged.
    """
    wanted = list(wanted)
    assert stills.names is not None
    yield from zip(wanted, read_folder(path, stills.names, wanted), strict=True)
