"""The unit of work on many files: a file -> its spans and their vectors, or why there are none.

It has no state and writes nothing, so any process may do it, also twice. Commands on one machine do the same steps for
all files of a list at once (`v3s.data.scan`, `v3s.features.encoder`).
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from v3s.data.index_cache import ReadResult
from v3s.data.lists.splits import VideoList
from v3s.data.scan import judge, read_all
from v3s.features.encoder import Encoder
from v3s.files.text import short_repr
from v3s.video.container import Failure, VideoError
from v3s.video.span import times_of

_Vectors = tuple[int, tuple[float, float], Tensor]  # number and times of a span, and its vectors


@dataclass(frozen=True, slots=True, eq=False)
class FileVectors:
    """What one file gave.

    Attributes:
        path: as in the list of videos.
        outcome: what reading it gave: its index, or the reason why it cannot be used.
        spans: numbers of its spans that are usable, among those that the list cuts it into; 0 is a whole file.
        times: start and end of each of these spans in the file, in seconds.
        vectors: for each of these spans, float32 of shape (clips or 1, D), as the network outputs them; none without a
            network.
    """

    path: str
    outcome: ReadResult
    spans: tuple[int, ...] = ()
    times: tuple[tuple[float, float], ...] = ()
    vectors: tuple[Tensor, ...] = ()
    __repr__ = short_repr


def segments(
    videos: VideoList, encoder: Encoder | None, *, per_clip: bool = False, workers: int = 0, verify: bool = False
) -> list[FileVectors]:
    """Read the files of a list, and compute the vectors of their spans; in memory that does not grow with their length.

    Args:
        videos: one file, or some; a list names all spans of each.
        encoder: the network; None only reads the files.
        per_clip: one vector per clip instead of one for their mean.
        workers: 1 reads in a process of its own, so that a file that crashes or hangs the decoder becomes a failure.
        verify: compare the frames in a store with their checksums.

    Returns:
        One for each file, in the order of the list.

    Raises:
        ValueError: a vector is not finite; the message contains the file.
    """
    outcomes = read_all(videos, workers=workers, cache=None, verify=verify)
    if encoder is None:
        return [FileVectors(path, outcome) for path, outcome in outcomes.items()]
    return list(_encode(videos, outcomes, encoder, per_clip))


def _encode(
    videos: VideoList, outcomes: Mapping[str, ReadResult], encoder: Encoder, per_clip: bool
) -> Iterator[FileVectors]:
    found = judge(videos, 1, outcomes)
    table, numbers = found.usable_table, span_numbers(found.videos.paths)
    made: dict[str, list[_Vectors]] = {path: [] for path in outcomes}
    try:
        for video, rows in encoder.encode_table(table, per_clip=per_clip, scaled=False):
            entry = int(found.usable[video])
            made[found.videos.paths[entry]].append((int(numbers[entry]), times_of(table[video]), rows))
    except VideoError as error:  # after the file was read whole: the disk fails, or somebody writes
        if len(outcomes) == 1:
            ((path, _),) = outcomes.items()
            yield FileVectors(path, Failure.of(error, str(videos.root / path)))
        else:
            for path, outcome in outcomes.items():
                yield from _encode(of_file(videos, path), {path: outcome}, encoder, per_clip)
        return
    for path, outcome in outcomes.items():
        spans, times, vectors = zip(*made[path], strict=True) if made[path] else ((), (), ())
        yield FileVectors(path, outcome, spans, times, vectors)


def span_numbers(paths: Sequence[str]) -> NDArray[np.int64]:
    """Number the entries of each file from 0, in the order of a list: int64 (len(paths),)."""
    counts: dict[str, int] = defaultdict(int)
    numbers = np.empty(len(paths), np.int64)
    for position, path in enumerate(paths):
        numbers[position] = counts[path]
        counts[path] += 1
    return numbers


def of_file(videos: VideoList, path: str) -> VideoList:
    """Return the entries of one file of a list."""
    chosen = [position for position, other in enumerate(videos.paths) if other == path]
    return replace(
        videos,
        paths=(path,) * len(chosen),
        labels=tuple(videos.labels[position] for position in chosen),
        bounds=tuple(videos.bounds[position] for position in chosen) if videos.bounds else (),
    )
