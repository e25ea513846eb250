"""A folder of videos, nested in any way, with no lists."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from v3s.data.store_folder import is_store, open_store

_VIDEO_SUFFIXES = (
    ".3gp", ".asf", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv",
    ".ts", ".vob", ".webm", ".wmv",
)  # fmt: skip
"""The endings, in lower case, by which a file counts as a video. A scan finds out whether it is one."""


def video_files(root: Path, *, inside: Path | None = None) -> tuple[str, ...]:
    """List the video files below a folder, at any depth; of a store those that it was made from.

    Links to folders are followed, but never back into a folder that they lie in. Names that begin with a dot are
    skipped. A link that leads nowhere, a pipe, a device and a folder without videos are
    listed if they are named like a video, so that a scan reports them.

    Args:
        root: The folder.
        inside: A folder that links may not leave: one to a folder outside is listed and not entered. ``None`` follows
            links everywhere.

    Returns:
        Paths relative to `root`, posix, in alphabetical order.

    Raises:
        ValueError: There is no such folder, it cannot be read, or it holds no video.
    """
    if is_store(root):
        store = open_store(root)
        if not store.files:
            source, out = shlex.quote(store.settings.source), shlex.quote(str(root))
            raise ValueError(f"{root} is a store without videos; run v3s prepare --data {source} --out {out}")
        return tuple(sorted(store.files))
    if not root.is_dir():
        raise ValueError(f"{root} is {'not a folder' if root.exists() else 'no file or folder that exists'}")
    files: list[str] = []
    others: list[str] = []
    _walk(root, "", (), inside, files, others)
    if not files:
        suffixes = " ".join(sorted(_VIDEO_SUFFIXES))
        content = f"it holds {len(others):,} other files, e.g. {others[0]}" if others else "it holds no file at all"
        raise ValueError(f"{root} holds no video: looked, at any depth, for files that end in {suffixes}; {content}")
    return tuple(sorted(files))


def link_outside(path: Path, folder: Path) -> str | None:
    """Return where a link leads, if it is one and leads out of a folder."""
    if not path.is_symlink():
        return None
    target, real_folder = os.path.realpath(path), os.path.realpath(folder)
    return None if Path(target).is_relative_to(real_folder) else target


def _walk(
    root: Path,
    below: str,
    parents: tuple[tuple[int, int], ...],
    inside: Path | None,
    files: list[str],
    others: list[str],
) -> None:
    """Collect the files of one folder and of those in it; `parents` are the folders on the way here."""
    folder = root / below
    try:
        status = folder.stat()
        here = (status.st_dev, status.st_ino)
        if here in parents:
            return
        with os.scandir(folder) as scan:
            entries = [entry for entry in scan if not entry.name.startswith(".")]
    except OSError as error:
        raise ValueError(f"{folder} cannot be read: {error.strerror}; give a folder that can") from error
    for entry in entries:
        name = f"{below}{entry.name}"
        is_video = PurePosixPath(name).suffix.lower() in _VIDEO_SUFFIXES
        if not entry.is_dir():
            (files if is_video else others).append(name)
        elif inside and link_outside(Path(entry.path), inside):
            files.append(name)
        else:
            num_files = len(files)
            _walk(root, f"{name}/", (*parents, here), inside, files, others)
            if is_video and len(files) == num_files:
                files.append(name)


def folder_label(path: str) -> str | None:
    """Return the name of the folder that holds a file; ``None`` for a file at the top."""
    return PurePosixPath(path).parent.name or None


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
