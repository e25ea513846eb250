"""Groups of videos that resemble each other: takes of one scene, videos of one animal, patient or camera."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_UCF101 = re.compile(r"v_\w+_g\d+(?=_c\d+)")


def number_groups(paths: Sequence[str], pattern: str | None = None) -> NDArray[np.int64]:
    """Number the groups of videos in the order in which they first occur.

    Args:
        paths: path of each video, as listed.
        pattern: regular expression that is searched for in every path. Videos for which its first parenthesised group
            (or, without one, the whole match) is the same text belong together. None: the groups of UCF101 if all names
            have its form, ``v_Class_g01_c01``, else each video alone.

    Returns:
        The number of each video's group, shape (N,).

    Raises:
        ValueError: the pattern is not a regular expression, does not match a path, or puts all videos in one group.
    """
    if pattern is None:
        matches = [_UCF101.search(path) for path in paths]
        names = [match[0] if match else "" for match in matches]
        if not all(names):
            return np.arange(len(paths))
    else:
        names = _names(paths, pattern)
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], np.int64)


def _names(paths: Sequence[str], pattern: str) -> list[str]:
    """The name of each video's group."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"group is {pattern!r}, which is not a regular expression: {error}") from error
    matches = [(path, compiled.search(path)) for path in paths]
    if missing := [path for path, match in matches if match is None]:
        raise ValueError(
            f"group is {pattern!r}, which does not match {len(missing):,} of {len(paths):,} paths; first: {missing[0]}"
        )
    names = [match[1 if compiled.groups else 0] or "" for _, match in matches if match]
    if len(names) > 1 and len(set(names)) == 1:
        raise ValueError(f"group is {pattern!r}, which puts all {len(names):,} videos in one group, {names[0]!r}")
    return names
