"""Which spans of a collection a window asks for: filters, as columns of true and false."""

import math
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from v3s.serve.catalogue import Catalogue

Chosen = NDArray[np.bool_]
"""Whether each span of the collection is chosen, shape (N,)."""


@dataclass(frozen=True, slots=True)
class Filters:
    """What spans must have; None or empty leaves all.

    Attributes:
        folder: number of their folder.
        label: number of the label that their list gave; -1 for none.
        mark: the class that they were given in the page; empty text for none.
        shortest: their least length in seconds.
        longest: their greatest length in seconds.
        after: where they begin at the earliest, in seconds from the start of their file on.
        before: where they end at the latest.
        cluster: number of their cluster.
        map: the map that the lasso was drawn on: the name of its method.
        lasso: corners (x, y) of a polygon on the map that they lie in.
        other_files: whether they must be of another file than the span that is searched with.
    """

    folder: int | None = None
    label: int | None = None
    mark: str | None = None
    shortest: float | None = None
    longest: float | None = None
    after: float | None = None
    before: float | None = None
    cluster: int | None = None
    map: str = "pca"
    lasso: tuple[tuple[float, float], ...] = ()
    other_files: bool = False


def chosen_by(filters: Filters, catalogue: Catalogue, class_of: NDArray[np.int64], classes: list[str]) -> Chosen:
    """The spans that pass filters, by what the catalogue and the labels given in the page decide.

    Args:
        filters: what spans must have.
        catalogue: the spans.
        class_of: number of the class that each was given in the page, -1 without one.
        classes: the names of these classes.

    Raises:
        ValueError: the folder, label or class does not exist.
    """
    chosen = np.ones(len(catalogue), bool)
    if filters.folder is not None:
        check_choice("folder", filters.folder, len(catalogue.folders))
        chosen &= catalogue.folder_of == filters.folder
    if filters.label is not None:
        check_choice("label", filters.label, len(catalogue.labels), least=-1)
        chosen &= catalogue.label_of == filters.label
    if filters.mark is not None:
        if filters.mark and filters.mark not in classes:
            names = ", ".join(classes)[:100] or "none yet"
            raise ValueError(f"no class is called {filters.mark[:40]!r}; the classes are: {names}")
        chosen &= class_of == (classes.index(filters.mark) if filters.mark else -1)
    lengths = catalogue.ends - catalogue.starts
    for least, column in ((filters.shortest, lengths), (filters.after, catalogue.starts)):
        if least is not None:
            chosen &= column >= least
    for most, column in ((filters.longest, lengths), (filters.before, catalogue.ends)):
        if most is not None:
            chosen &= column <= most
    return chosen


def check_choice(name: str, number: int, count: int, *, least: int = 0) -> None:
    """Check the number of something that can be chosen, from 0; `least` is -1 where "none" can be chosen.

    Raises:
        ValueError: there is no such number.
    """
    if not least <= number < count:
        there = f"there are {count:,}, from 0 to {count - 1:,}" if count else "there are none"
        raise ValueError(f"{name} {number} does not exist; {there}")


def number_in(text: str, name: str) -> float:
    """A number in an address.

    Raises:
        ValueError: the text is not one, or not finite.
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{name} is {text[:40]!r}; it must be a number")
    return number


def whole_in(text: str, name: str) -> int:
    """A whole number in an address: no other is rounded.

    Raises:
        ValueError: the text is not one, or has more than eleven digits.
    """
    if not re.fullmatch("-?[0-9]{1,11}", text):
        raise ValueError(f"{name} is {text[:40]!r}; it must be a whole number")
    return int(text)


def inside_lasso(points: NDArray[np.float32], corners: tuple[tuple[float, float], ...]) -> Chosen:
    """Whether points (N, 2) lie in a polygon: a ray from them to the right crosses its sides an odd number of times."""
    x, y = points.T
    is_inside = np.zeros(len(points), bool)
    for (x1, y1), (x2, y2) in zip(corners, (*corners[1:], *corners[:1]), strict=True):
        crosses = (y1 > y) != (y2 > y)
        at = np.flatnonzero(crosses)
        is_inside[at] ^= x[at] < (x2 - x1) * (y[at] - y1) / (y2 - y1) + x1
    return is_inside
