"""The official lists of HMDB51: ``<class>_test_split<1|2|3>.txt``, 153 files."""

from pathlib import Path

from v3s.data.lists.listing import ListedVideo, Listing, Subset, numbered_lines

_MARKS: dict[str, tuple[Subset, ...]] = {"0": (), "1": ("train", "all"), "2": ("test", "all")}
"""Subsets by the number after a name; 0 means that the video is in neither subset of the split."""


def read_hmdb51(folder: Path, split: int, subset: Subset) -> Listing:
    """Read one official split of HMDB51; the classes are in alphabetical order.

    Some copies of the dataset drop characters such as ``#``, ``&`` and ``(`` from the file names. A video that is not
    found by its official name is looked for without these characters.

    Args:
        folder: ``testTrainMulti_7030_splits``.
        split: 1, 2 or 3.
        subset: The training videos, the test videos, or both.

    Raises:
        ValueError: The split has no lists, or a line does not end in 0, 1 or 2.
    """
    ending = f"_test_split{split}.txt"
    files = {path.name.removesuffix(ending): path for path in folder.iterdir() if path.name.endswith(ending)}
    if not files:
        raise ValueError(f"{folder} contains no *{ending}, so HMDB51 split {split} is not available; give 1, 2 or 3")
    entries: list[ListedVideo] = []
    known: set[str] = set()
    for label in sorted(files):
        for line_number, line in numbered_lines(files[label]):
            name, _, mark = line.rpartition(" ")
            if not name or mark not in _MARKS:
                raise ValueError(f"{files[label]}, line {line_number}: {line!r} does not end in 0, 1 or 2")
            path = f"{label}/{name.strip()}"
            known.add(path)
            if subset in _MARKS[mark]:
                entries.append(ListedVideo((path,), label))
    title = f"HMDB51 split {split} {subset}"
    return Listing(title, tuple(entries), tuple(sorted(files)), key=plain_name, known=frozenset(known))


def plain_name(path: str) -> str:
    """Drop the characters that some copies drop: all but letters, digits and ``/ . _ -``."""
    return "".join(character for character in path if character.isalnum() or character in "/._-")
