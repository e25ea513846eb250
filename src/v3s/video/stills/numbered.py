"""Numbered pictures in a folder: which names are the frames of one video, and what each frame is called."""

import os
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePath

from v3s.video.container import VideoError

_NUMBER = re.compile("([0-9]+)")
_MOST_DIGITS = 18
_ONE = "a folder of frames holds one video, numbered in one way"


@dataclass(frozen=True, slots=True)
class Numbered:
    """The names of pictures that differ in one number.

    Attributes:
        prefix: What stands before the number.
        first: The number of the first picture.
        step: From one picture's number to the next one's.
        digits: The least number of digits: shorter numbers are filled up with zeros.
        suffix: What stands behind the number, with the ending.
    """

    prefix: str
    first: int
    step: int
    digits: int
    suffix: str

    def name(self, frame: int) -> str:
        """What the picture of a frame is called; frames are counted from 0 on.

        >>> Numbered("img_", 5, 5, 3, ".png").name(2)
        'img_015.png'
        """
        return f"{self.prefix}{self.first + frame * self.step:0{self.digits}d}{self.suffix}"


def ending_of(name: str) -> str:
    """The ending of a file's name or path, in lower case; ``""`` if it has none, or a dot only."""
    return os.path.splitext(name)[1].lower().rstrip(".")


def are_frames(names: Collection[str]) -> bool:
    """Whether pictures of a folder look like the frames of one video: several, each with a number in its name."""
    return len(names) > 1 and all(_NUMBER.search(PurePath(name).stem) for name in names)


def number_frames(names: Sequence[str], folder: str) -> Numbered:
    """Find the number in which the names of pictures differ, and check that it grows evenly.

    Args:
        names: Of all pictures of a folder, in any order; each has a number before its ending.
        folder: Where they are, for messages.

    Raises:
        VideoError: The pictures are not one series, or some are missing; the message names two neighbours.
    """
    split = sorted((_NUMBER.split(name) for name in names), key=_natural)
    first, last = split[0], split[-1]
    for other in split:
        if other[::2] != first[::2]:
            raise VideoError(f"{folder}: has several series of pictures, {_joined(first, other)}; {_ONE}", "open")
    varying = [place for place in range(1, len(first), 2) if any(parts[place] != first[place] for parts in split)]
    if len(varying) > 1 or max(len(parts[place]) for parts in split for place in varying) > _MOST_DIGITS:
        raise VideoError(f"{folder}: has names without one clear number, {_joined(first, last)}; {_ONE}", "open")
    (place,) = varying
    numbers = [int(parts[place]) for parts in split]
    steps = Counter(after - before for before, after in pairwise(numbers))
    step, digits = steps.most_common(1)[0][0], min(len(parts[place]) for parts in split)
    found = Numbered("".join(first[:place]), numbers[0], step, digits, "".join(first[place + 1 :]))
    for number, parts in enumerate(split):
        if found.name(number) == "".join(parts):
            continue
        if numbers[number] != found.first + number * step:
            between = _joined(split[number - 1], parts)
            raise VideoError(f"{folder}: frames are missing between {between}; {_ONE}", "demux", number)
        between = _joined(parts, split[number - 1 if number else 1])
        raise VideoError(f"{folder}: has numbers that are filled up in two ways, {between}; {_ONE}", "open")
    return found


def _natural(parts: Sequence[str]) -> list[tuple[int, str]]:
    """The order of numbers by their size, and of other text by the alphabet."""
    return [(int(part) if number % 2 else 0, part) for number, part in enumerate(parts)]


def _joined(one: Sequence[str], two: Sequence[str]) -> str:
    return f"{''.join(one)} and {''.join(two)}"
