"""Pairs of videos with the same or different actions: read from a CSV file, or drawn with disjoint classes per fold."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from v3s.files.reading import read_lines

_CSV_COLUMNS = ["a", "b", "same", "fold"]


@dataclass(frozen=True, slots=True)
class VideoPair:
    """Two videos, whether they show the same action, and the pair's fold."""

    a: str
    b: str
    same: bool
    fold: int


def disjoint_class_pairs(
    paths: Sequence[str],
    labels: Sequence[str],
    *,
    generator: np.random.Generator,
    num_folds: int = 10,
    pairs_per_fold: int = 600,
) -> list[VideoPair]:
    """Draw folds of pairs from labelled videos in the manner of ASLAN's View-2: no class is in two folds.

    Classes are assigned to folds at random. In half of a fold's pairs both videos show the same action, in the other
    half they do not; each half is drawn uniformly from all such pairs of the fold's videos, without repetition.

    Args:
        paths: names of the videos, shape (N,).
        labels: class of each video, shape (N,).
        generator: source of randomness.
        num_folds: number of folds.
        pairs_per_fold: number of pairs in a fold; must be even.

    Raises:
        ValueError: the lengths differ, ``pairs_per_fold`` is not even and positive, or a fold has too few pairs.
    """
    if len(paths) != len(labels) or num_folds < 1 or pairs_per_fold < 2 or pairs_per_fold % 2:
        got = f"{len(paths)} paths, {len(labels)} labels and {num_folds} folds of {pairs_per_fold} pairs"
        raise ValueError(f"got {got}; expected one label per path, at least one fold and an even number of pairs")
    names, classes = np.unique(np.asarray(labels), return_inverse=True)
    fold_of_class = generator.permutation(len(names)) % num_folds
    pairs = []
    for fold in range(num_folds):
        videos = np.flatnonzero(fold_of_class[classes] == fold)
        for same in (True, False):
            rows = _draw_pairs(classes[videos], same, pairs_per_fold // 2, fold, generator)
            pairs += [VideoPair(paths[videos[i]], paths[videos[j]], same, fold) for i, j in rows]
    return pairs


def read_pairs_csv(path: str | Path) -> list[VideoPair]:
    """Read pairs from a CSV file with the header ``a,b,same,fold``: two names, 0 or 1, an integer.

    Raises:
        ValueError: the header differs, a line is invalid, or there are no pairs; the message gives the line.
    """
    reader = csv.reader(read_lines(Path(path)))
    try:
        if (header := next(reader, [])) != _CSV_COLUMNS:
            shown = ",".join(header)[:60]
            raise ValueError(f"{path}: the first line is {shown!r}; it must be {','.join(_CSV_COLUMNS)!r}")
        pairs = [_parse_pair(row, f"{path}, line {reader.line_num}") for row in reader if row]
    except csv.Error as error:
        raise ValueError(f"{path}: not a CSV file ({error})") from error
    if not pairs:
        raise ValueError(f"{path}: contains no pairs; add lines such as 'left.mp4,right.mp4,1,0' below the header")
    return pairs


def _parse_pair(row: list[str], location: str) -> VideoPair:
    """Check one line of a pairs file."""
    well_formed = (
        len(row) == 4 and row[0] and row[1] and row[2] in ("0", "1") and row[3].isdecimal() and len(row[3]) < 10
    )
    if not well_formed:
        raise ValueError(f"{location}: got {','.join(row)!r}; expected two names, 0 or 1, and an integer")
    return VideoPair(row[0], row[1], row[2] == "1", int(row[3]))


def _draw_pairs(
    classes: npt.NDArray[np.int64], same: bool, num_pairs: int, fold: int, generator: np.random.Generator
) -> list[tuple[int, int]]:
    """Draw distinct unordered pairs of rows uniformly, either of the same class or of different classes."""
    class_sizes = np.bincount(classes)[classes] if len(classes) else classes
    num_partners = class_sizes - 1 if same else len(classes) - class_sizes
    if (available := int(num_partners.sum()) // 2) < num_pairs:
        kind = "the same action" if same else "different actions"
        raise ValueError(
            f"fold {fold}: {len(np.unique(classes))} classes with {len(classes)} videos make only {available} pairs of "
            f"{kind}, but {num_pairs} are needed; reduce --num-folds or --pairs-per-fold"
        )
    drawn: dict[tuple[int, int], None] = {}  # an ordered set
    while len(drawn) < num_pairs:
        i = int(generator.choice(len(classes), p=num_partners / num_partners.sum()))
        partners = np.flatnonzero((classes == classes[i]) == same)
        j = int(generator.choice(partners[partners != i]))
        drawn[min(i, j), max(i, j)] = None
    return list(drawn)
