"""Several folders and files by one pattern: ``cages/*/monday*.mp4``, ``{cages,/mnt/old}/camera1``."""

import glob
import os
import re
from pathlib import Path

from v3s.data.lists.folder import VIDEO_ENDINGS, NoVideosError, find_files, is_frame_folder
from v3s.data.lists.listing import FolderEntries, Listing, class_order
from v3s.data.store_folder import is_store
from v3s.files.text import counted

_BRACES = re.compile(r"\{([^{}]*,[^{}]*)\}")
_WILD = re.compile(r"[*?\[]")
_MOST = 1000  # paths that braces may stand for


def is_pattern(path: str | Path) -> bool:
    """Whether a path that does not exist is a pattern: with ``*``, ``?``, ``[...]`` or ``{one,other}``."""
    text = str(path)
    return bool(_WILD.search(text) or _BRACES.search(text)) and not os.path.lexists(text)


def read_pattern(pattern: str) -> tuple[Path, Listing]:
    """List the videos that a pattern matches, and all those in the folders that it matches.

    ``*`` and ``?`` stand for characters of one name, ``[ab]`` for one of some, ``**`` for folders at any depth, and
    ``{one,other}`` for each of several paths, which must all match something. Names that begin with a dot match only
    one that is written so.

    Returns:
        The folder that names are relative to, and the list. It is the deepest one that contains all that the pattern
        can match, by the pattern alone: a new file changes no name, and files of two folders have different ones.

    Raises:
        ValueError: One of the paths matches nothing, or a store; or there are no videos.
    """
    folder, rest = _divided(pattern)
    paths = [os.path.abspath(os.path.join(folder, path)) for path in _expanded(rest)]
    wild = [_WILD.search(path, len(folder) if path.startswith(folder) else 0) for path in paths]
    root = Path(os.path.commonpath(list(map(_fixed, paths, wild))))
    videos: set[str] = set()
    others: set[str] = set()
    for path, first in zip(paths, wild, strict=True):
        matches = _matches(path, first.start()) if first else [path] * os.path.lexists(path)
        if not matches:
            raise ValueError(f"data is {pattern!r}: no file or folder matches {path}")
        for match in map(Path, matches):
            name = match.relative_to(root).as_posix()
            if is_store(match):
                raise ValueError(f"data is {pattern!r}: {match} is a store; a store is given alone")
            if match.is_dir() and not is_frame_folder(match):
                below = _videos_in(match, path)
                videos |= {(match / file).relative_to(root).as_posix() for file in below}
                others |= set() if below else {name}
            elif match.is_dir() or match.suffix.lower() in VIDEO_ENDINGS:
                videos.add(name)
            else:
                others.add(name)
    if not videos:
        raise ValueError(
            f"data is {pattern!r}: none of {counted(len(others), 'matching name')} is a video or a folder of videos; "
            "numbered pictures are given as their folder"
        )
    entries = FolderEntries(sorted(videos))
    skipped = f"{counted(len(others), 'matching name')} without a video" if others else ""
    classes = class_order(entry.label for entry in entries)
    return root, Listing(f"pattern {pattern}", entries, classes, stays_inside=True, skipped=skipped)


def _videos_in(folder: Path, path: str) -> list[str]:
    """The videos of a folder; one that wildcards match may be without any."""
    try:
        return find_files(folder, inside=folder).videos
    except NoVideosError:
        if path == str(folder):
            raise
        return []


def _divided(pattern: str) -> tuple[str, str]:
    """Split a pattern into its deepest leading folder that exists, as an absolute path, and the rest."""
    folder = next((folder for folder in Path(pattern).parents if os.path.isdir(folder)), Path())
    return os.path.abspath(folder), str(Path(pattern).relative_to(folder))


def _matches(path: str, first: int) -> list[str]:
    """The files that a path matches; the part before its first wildcard is taken literally."""
    try:
        return glob.glob(glob.escape(path[:first]) + path[first:], recursive=True)
    except RecursionError as error:
        raise ValueError(f"{path} leads through folders too deep in one another; give a folder further down") from error


def _expanded(pattern: str) -> list[str]:
    """The paths that braces stand for."""
    left, done = [pattern], list[str]()
    while left:
        path = left.pop(0)
        if braces := _BRACES.search(path):
            left = [path[: braces.start()] + part + path[braces.end() :] for part in braces[1].split(",")] + left
        else:
            done.append(path)
        if len(left) + len(done) > _MOST:
            raise ValueError(f"data is {pattern!r}, which stands for more than {_MOST:,} paths; give a list file")
    return done


def _fixed(path: str, wild: re.Match[str] | None) -> str:
    """The folder that contains all that a path can match, by its first wildcard."""
    if wild:
        return os.path.abspath(os.path.dirname(path[: wild.start()]) or ".")
    return os.path.abspath(path if os.path.isdir(path) else os.path.dirname(path) or ".")
