"""The official lists of UCF101: ``trainlist01.txt``, ``testlist01.txt`` to 03, ``classInd.txt``."""

import re
from pathlib import Path

from v3s.data.lists.listing import ListedVideo, Listing, Subset, numbered_lines


def read_ucf101(folder: Path, split: int, subset: Subset) -> Listing:
    """Read one official split of UCF101, or lists cut down from it.

    Labels are class names, in the order of the official numbers. The numbers come from ``classInd.txt`` or, without
    that file, from the training lists. File names are compared case-insensitively, because the videos
    ``v_HandStandPushups_*`` are in a folder ``HandstandPushups`` or ``HandStandPushups``, depending on the copy.

    Args:
        folder: ``ucfTrainTestlist``, or a folder like it.
        split: 1, 2 or 3.
        subset: The training list, the test list, or both.

    Raises:
        ValueError: A list is missing, or a line contradicts the class numbers.
    """
    classes = _class_numbers(folder)
    parts = ("train", "test") if subset == "all" else (subset,)
    files = [folder / f"{part}list{split:02}.txt" for part in parts]
    for file in files:
        if not file.is_file():
            have = ", ".join(sorted(path.name for path in folder.glob("*list0*.txt")))
            raise ValueError(f"{file} does not exist, so split {split} is not available; {folder} contains {have}")
    entries = tuple(entry for file in files for entry in _read_lines(file, classes))
    names = tuple(classes[number] for number in sorted(classes))
    return Listing(f"UCF101 split {split} {subset}", entries, names, key=str.casefold)


def _read_lines(file: Path, classes: dict[int, str]) -> list[ListedVideo]:
    """Read lines ``Class/video.avi`` with or without a class number, and check folder and number."""
    numbers = {name.casefold(): number for number, name in classes.items()}
    entries = []
    for line_number, line in numbered_lines(file):
        path, line_label = _split_number(line)
        number = numbers.get(path.partition("/")[0].casefold())
        if number is None:
            raise ValueError(f"{file}, line {line_number}: {line!r} does not start with a numbered class")
        if line_label is not None and line_label != number:
            raise ValueError(
                f"{file}, line {line_number}: {line!r} has the label {line_label}, which is "
                f"{classes.get(line_label, 'not a class')}; {classes[number]} is {number}"
            )
        entries.append(ListedVideo((path,), classes[number]))
    return entries


def _split_number(line: str) -> tuple[str, int | None]:
    """Split off the class number at the end of a line, if there is one."""
    match = re.fullmatch(r"(.+?)[ \t]+(\d{1,9})", line)
    return (match[1], int(match[2])) if match else (line, None)


def _class_numbers(folder: Path) -> dict[int, str]:
    """Read the official number (from 1) of every class."""
    index = folder / "classInd.txt"
    classes: dict[int, str] = {}
    for file in [index] if index.is_file() else sorted(folder.glob("trainlist*.txt")):
        for line_number, line in numbered_lines(file):
            number, name = _number_and_name(line, in_index=file == index)
            if number is None or classes.setdefault(number, name) != name:
                problem = "has no class number" if number is None else f"gives {name} the number of {classes[number]}"
                raise ValueError(f"{file}, line {line_number}: {line!r} {problem}; restore the official file")
    return classes


def _number_and_name(line: str, *, in_index: bool) -> tuple[int | None, str]:
    """Read ``3 Archery`` of the class index, or ``Archery/v_Archery_g08_c01.avi 3`` of a training list."""
    if in_index:
        number, _, name = line.partition(" ")
        return (int(number) if re.fullmatch(r"\d{1,9}", number) else None), name.strip()
    path, number_at_end = _split_number(line)
    return number_at_end, path.partition("/")[0]
