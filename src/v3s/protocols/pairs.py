"""Pairs of videos with the same or different actions: read from a CSV file, or drawn with disjoint classes per fold."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from v3s.files.reading import read_lines
from v3s.files.text import counted

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
        ValueError: the lengths differ, ``pairs_per_fold`` is not even and positive, or a fold has fewer than two
            classes or too few pairs.
    """
    if len(paths) != len(labels) or num_folds < 1 or pairs_per_fold < 2 or pairs_per_fold % 2:
        got = f"{len(paths)} paths, {len(labels)} labels and {num_folds} folds of {pairs_per_fold} pairs"
        raise ValueError(f"got {got}; expected one label per path, at least one fold and an even number of pairs")
    names, classes = np.unique(np.asarray(labels), return_inverse=True)
    fold_of_class = generator.permutation(len(names)) % num_folds
    videos_of = [np.flatnonzero(fold_of_class[classes] == fold) for fold in range(num_folds)]
    _require_classes(len(names), num_folds)
    _require_pairs([classes[videos] for videos in videos_of], pairs_per_fold)
    pairs = []
    for fold, videos in enumerate(videos_of):
        for same in (True, False):
            rows = _draw_pairs(classes[videos], same, pairs_per_fold // 2, generator)
            pairs += [VideoPair(paths[videos[i]], paths[videos[j]], same, fold) for i, j in rows]
    return pairs


def read_pairs_csv(path: str | Path) -> list[VideoPair]:
    """Read pairs from a CSV file with the header ``a,b,same,fold``: two names, 0 or 1, an integer.

    Raises:
        ValueError: the header differs, a line is invalid, there are no pairs, or one is listed as the same and as not.
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
    known: dict[frozenset[str], bool] = {}
    for pair in pairs:
        if known.setdefault(frozenset((pair.a, pair.b)), pair.same) != pair.same:
            raise ValueError(
                f"{path}: {pair.a} and {pair.b} are listed both as the same (1) and as not (0); keep one of these lines"
            )
    return pairs


def _parse_pair(row: list[str], location: str) -> VideoPair:
    """Check one line of a pairs file."""
    well_formed = (
        len(row) == 4 and row[0] and row[1] and row[2] in ("0", "1") and row[3].isdecimal() and len(row[3]) < 10
    )
    if not well_formed:
        raise ValueError(f"{location}: got {','.join(row)!r}; expected two names, 0 or 1, and an integer")
    return VideoPair(row[0], row[1], row[2] == "1", int(row[3]))


def _require_classes(num_classes: int, num_folds: int) -> None:
    if num_classes < 2 * num_folds:
        most = num_classes // 2
        advice = f"choose --num-folds {most} or fewer" if most > 1 else "give 4 classes or more, for two folds"
        raise ValueError(
            f"{counted(num_classes, 'class')} for {counted(num_folds, 'fold')}: each fold needs two classes or more "
            f"that no other fold has; {advice}"
        )


def _require_pairs(folds: Sequence[npt.NDArray[np.int64]], pairs_per_fold: int) -> None:
    """Check that each fold, given by the classes of its videos, has enough pairs of both kinds."""
    available = {
        (fold, kind): int(_num_partners(classes, kind == "the same action").sum()) // 2
        for fold, classes in enumerate(folds)
        for kind in ("the same action", "different actions")
    }
    fold, kind = min(available, key=lambda key: available[key])
    fewest, classes = available[fold, kind], folds[fold]
    if fewest < pairs_per_fold // 2:
        videos = f"{counted(len(np.unique(classes)), 'class')} with {counted(len(classes), 'video')}"
        fewer = f"--pairs-per-fold {2 * fewest} or fewer, or " if fewest else ""
        raise ValueError(
            f"fold {fold}: {videos} make only {counted(fewest, 'pair')} of {kind}, half of a fold needs "
            f"{pairs_per_fold // 2:,}; choose {fewer}fewer --num-folds"
        )


def _num_partners(classes: npt.NDArray[np.int64], same: bool) -> npt.NDArray[np.int64]:
    """Return for each row how many others have the same class, or another one."""
    class_sizes = np.bincount(classes)[classes]
    return class_sizes - 1 if same else len(classes) - class_sizes


def _draw_pairs(
    classes: npt.NDArray[np.int64], same: bool, num_pairs: int, generator: np.random.Generator
) -> list[tuple[int, int]]:
    """Draw distinct unordered pairs of rows uniformly, either of the same class or of different classes."""
    num_partners = _num_partners(classes, same)
    drawn: dict[tuple[int, int], None] = {}  # an ordered set
    while len(drawn) < num_pairs:
        i = int(generator.choice(len(classes), p=num_partners / num_partners.sum()))
        partners = np.flatnonzero((classes == classes[i]) == same)
        j = int(generator.choice(partners[partners != i]))
        drawn[min(i, j), max(i, j)] = None
    return list(drawn)
