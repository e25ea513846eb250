"""A folder of videos, nested in any way, with no lists."""

import os
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from v3s.data.store_folder import is_store, open_store
from v3s.files.own import is_own
from v3s.files.text import counted
from v3s.video.container import ENDINGS
from v3s.video.stills.folder import frame_files, is_picture, kind_of
from v3s.video.stills.numbered import ending_of
from v3s.video.stills.source import STACK_ENDINGS

VIDEO_ENDINGS = ENDINGS | STACK_ENDINGS
"""Of files that are videos: those of containers, of TIFF stacks and of DICOM."""

_OWN_OUTPUT = {
    "cutouts.json": {"cutouts.json"},
    "demo.json": {"changing_speed.mp4"},
    "explain.json": {"overlay.gif", "overlay.mp4"},
}
"""Mark file -> the videos that v3s writes beside it, or the mark file itself where their names vary."""
_OWN_FOLDERS = {"cutouts.json", "demo.json"}
"""Those of them that a command writes only into a folder that is all its own."""
_MOST_LEVELS = 200  # of folders in folders


class NoVideosError(ValueError):
    """A folder that can be read and holds no videos."""


@dataclass(slots=True)
class FoundFiles:
    """What a folder holds.

    Attributes:
        videos: Files that are videos by their ending, relative to the folder, posix.
        pictures: How many pictures of each ending are no frames of a video.
        others: How many other files of each ending there are, ``""`` for those without one.
        num_hidden: Names that begin with a dot, of files and of folders.
        num_own: Folders below it, and videos in it, that v3s wrote.
        example: One of the other files.
    """

    videos: list[str] = field(default_factory=list)
    pictures: Counter[str] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)
    num_hidden: int = 0
    num_own: int = 0
    example: str = ""

    def skipped(self) -> str:
        """What was skipped, in words; empty if nothing was."""
        parts = []
        if number := self.others.total():
            parts.append(f"{counted(number, 'file')} without a video's file extension ({_by_ending(self.others)})")
        parts += [f"{self.num_hidden:,} hidden"] if self.num_hidden else []
        parts += [f"{counted(self.num_own, 'output')} of v3s"] if self.num_own else []
        if number := self.pictures.total():
            parts.append(
                f"{counted(number, 'picture')} ({_by_ending(self.pictures)}): to be the frames of a video, pictures "
                "need numbers in their names and a folder that holds no video"
            )
        return ", ".join(parts)


def video_files(root: Path, *, inside: Path | None = None) -> tuple[str, ...]:
    """List the video files below a folder, at any depth, as :func:`find_files` does."""
    return tuple(find_files(root, inside=inside).videos)


def find_files(root: Path, *, inside: Path | None = None) -> FoundFiles:
    """List the video files below a folder, at any depth; of a store those that it was made from.

    A folder that holds numbered pictures and no video, at any depth, is itself a video: its frames. A TIFF file is a
    video unless it is such a frame; so is a DICOM file.

    Links to folders are followed, but never back into a folder that they lie in. Names that begin with a dot are
    skipped, and so is what v3s itself wrote below the folder. A link that leads nowhere, a pipe, a device and a folder
    without videos are listed if they are named like a video, so that a scan reports them.

    Args:
        root: The folder.
        inside: A folder that links may not leave: one to a folder outside is listed and not entered. ``None`` follows
            links everywhere.

    Returns:
        Videos in alphabetical order, and what else is there.

    Raises:
        ValueError: The folder does not exist, cannot be read, is nested too deeply, or contains no videos.
    """
    if is_store(root):
        store = open_store(root)
        if not store.files:
            source, out = shlex.quote(store.settings.source), shlex.quote(str(root))
            raise NoVideosError(f"{root} is a store without videos; run v3s prepare --data {source} --out {out}")
        return FoundFiles(sorted(store.files))
    if not root.is_dir():
        raise ValueError(f"{root} is {'not a folder' if root.exists() else 'no file or folder that exists'}")
    found = FoundFiles()
    _walk(root, "", (), inside, found)
    if not found.videos:
        skipped = found.skipped()
        content = f"skipped{f', such as {found.example}' if found.example else ''}: {skipped or 'nothing'}"
        raise NoVideosError(
            f"{root} contains no videos: no file in it, at any depth, has one of the {len(VIDEO_ENDINGS)} "
            f"endings of videos, such as .avi or .mp4; {content}; a list file may name files with other endings"
        )
    found.videos.sort()
    return found


def is_frame_folder(folder: Path) -> bool:
    """Whether a folder is itself a video: it holds numbered pictures, and no video at any depth.

    Raises:
        ValueError: The folder cannot be read.
    """
    if not _are_frames(folder):
        return False
    found = FoundFiles()
    _walk(folder, "", (), None, found)
    return not found.videos


def names_video(path: Path) -> bool:
    """Whether there is a file of this path, or a folder of frames.

    Raises:
        ValueError: A folder cannot be read.
    """
    return os.path.isfile(path) or (os.path.isdir(path) and is_frame_folder(path))


def link_outside(path: Path, folder: Path) -> str | None:
    """Return where a link leads, if it is one and leads out of a folder."""
    if not path.is_symlink():
        return None
    target, real_folder = os.path.realpath(path), os.path.realpath(folder)
    return None if Path(target).is_relative_to(real_folder) else target


def video_link_outside(path: Path, folder: Path) -> str | None:
    """As :func:`link_outside` for a video, of which each frame may be a link if it is a folder of frames."""
    if (target := link_outside(path, folder)) or not path.is_dir():
        return target
    try:
        frames = frame_files(path)
    except OSError:  # reading it says so
        return None
    return next(filter(None, (link_outside(Path(frame.path), folder) for frame in frames)), None)


def _walk(root: Path, below: str, parents: tuple[tuple[int, int], ...], inside: Path | None, found: FoundFiles) -> None:
    """Collect the files of one folder and of those in it; `parents` are the folders on the way here."""
    folder = root / below
    try:
        status = folder.stat()
        here = (status.st_dev, status.st_ino)
        if here in parents:
            return
        if len(parents) > _MOST_LEVELS:
            raise ValueError(f"{root} has folders more than {_MOST_LEVELS} deep in one another; give one further down")
        with os.scandir(folder) as scan:
            entries = list(scan)
    except OSError as error:
        raise ValueError(f"{folder} cannot be read: {error.strerror}; give a folder that can") from error
    marks = {entry.name for entry in entries if entry.name in _OWN_OUTPUT and is_own(Path(entry.path))}
    own = set[str]().union(*(_OWN_OUTPUT[mark] for mark in marks))
    if below and marks & _OWN_FOLDERS:
        found.num_own += 1
        return
    num_videos, pictures = len(found.videos), []
    for entry in entries:
        name = f"{below}{entry.name}"
        if entry.name.startswith("."):
            found.num_hidden += 1
        elif entry.name in own:
            found.num_own += 1
        elif kind_of(entry) != "folder":
            if is_picture(entry.name):
                pictures.append(name)
            else:
                _add_file(found, name)
        elif inside and link_outside(Path(entry.path), inside):
            found.videos.append(name)
        else:
            num_before = len(found.videos)
            _walk(root, f"{name}/", (*parents, here), inside, found)
            if ending_of(name) in ENDINGS and len(found.videos) == num_before:
                found.videos.append(name)
    if not pictures or not _are_frames(folder):
        for name in pictures:
            _add_file(found, name)
    elif below and len(found.videos) == num_videos:
        found.videos.append(below.rstrip("/"))
    else:
        for name in pictures:
            _add_other(found, name)


def _by_ending(numbers: Counter[str]) -> str:
    return ", ".join(f"{number:,} {ending or 'without ending'}" for ending, number in numbers.most_common())


def _are_frames(folder: Path) -> bool:
    """Whether the pictures of a folder are the frames of a video.

    Raises:
        ValueError: The folder cannot be read.
    """
    try:
        return bool(frame_files(folder))
    except OSError as error:
        raise ValueError(f"{folder} cannot be read: {error.strerror}; give a folder that can") from error


def _add_file(found: FoundFiles, name: str) -> None:
    if ending_of(name) in VIDEO_ENDINGS:
        found.videos.append(name)
    else:
        _add_other(found, name)


def _add_other(found: FoundFiles, name: str) -> None:
    (found.pictures if is_picture(name) else found.others)[ending_of(name)] += 1
    found.example = found.example or name


def folder_label(path: str) -> str | None:
    """Return the name of the folder that holds a file; ``None`` for a file at the top. Equal names are one object."""
    return sys.intern(path.rpartition("/")[0].rpartition("/")[2]) or None


def subset_folders(files: Sequence[str]) -> dict[str, str]:
    """Return the folders that split a dataset, if all videos lie in them: ``train`` with ``test`` or ``val``.

    Args:
        files: What :func:`video_files` gave.

    Returns:
        ``{"train": "train", "test": "test"}``, with ``"val"`` as the test folder where there is no ``test``; empty if a
        video lies anywhere else, or only one of the folders holds any.
    """
    folders = {file.partition("/")[0] if "/" in file else "" for file in files}
    if not folders <= {"train", "test", "val"} or "train" not in folders or len(folders) == 1:
        return {}
    return {"train": "train", "test": "test" if "test" in folders else "val"}
