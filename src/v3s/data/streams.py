"""Clips of videos of any length, in bounded memory: frames are decoded in order, each once, and warped at once.

A worker reads a run: consecutive clips of one file, of one or of several spans, of bounded size. The next run begins at
the nearest key frame. A file without key frames near its runs is read as a stream, from its start, in this process.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from v3s.data.index_table import IndexTable
from v3s.data.loading import load, only, still_reading
from v3s.data.views import View
from v3s.video.decode import Span, stream_frames
from v3s.video.index import VideoIndex
from v3s.video.warp import warp

_RUN_BYTES = 24e6  # of clips in a run
_RUNS_TOGETHER = 16  # in a stream of this process
_FRAME_BYTES, _MOST_FRAMES = 16e6, 64  # of native frames between decoder and warp
_MOST_WASTE = 0.5  # of the frames of a file: if seeking to each run decodes more frames twice, it is streamed


@dataclass(frozen=True, slots=True, eq=False)
class ClipRun:
    """Clips of one file in order of time: the row of the table and the number in the row of each, int64 (n,).

    Attributes:
        rows: row of each clip's video.
        numbers: number of the clip among those of its video.
        is_stream: Whether the run is read from the start of the file, in one process.
    """

    rows: NDArray[np.int64]
    numbers: NDArray[np.int64]
    is_stream: bool = False

    def __len__(self) -> int:
        return len(self.rows)


class ClipRuns(Dataset[tuple[ClipRun, Tensor]]):
    """Runs as (run, uint8 clips of shape (n, 3, T, size, size)).

    Args:
        table: the videos.
        view: how clips are taken from them.
    """

    def __init__(self, table: IndexTable, view: View) -> None:
        self.table, self.view = table, view

    def path(self, run: ClipRun) -> str:
        """Return the file of a run."""
        return self.table[int(run.rows[0])].path

    def __getitem__(self, run: ClipRun) -> tuple[ClipRun, Tensor]:
        return run, torch.stack(list(self.clips(run)))

    def clips(self, run: ClipRun) -> Iterator[Tensor]:
        """Yield the clips of a run in its order: uint8, shape (3, T, size, size)."""
        frames, row = self._frames(run), self.table[int(run.rows[0])]
        video = row.video if isinstance(row, Span) else row
        to_clip, size = self.view.to_clip(video.width, video.height), self.view.clip_size
        wanted = np.unique(frames)
        fitting = max(1, min(_MOST_FRAMES, int(_FRAME_BYTES / (1.5 * video.width * video.height))))
        at_once = fitting // 8 * 8 or fitting  # the warp is faster on eights
        places = np.searchsorted(wanted, frames)
        held = torch.empty(3, 0, size, size, dtype=torch.uint8)
        done = first = after = 0  # clips done; places among the wanted frames of the first held and behind the last
        for part in stream_frames(video, wanted.tolist(), at_once=at_once):
            still_reading()
            held, after = torch.cat([held, warp(part, to_clip, size, size)], dim=1), after + len(part)
            while done < len(run) and places[done, -1] < after:
                yield held[:, torch.from_numpy(places[done] - first)]
                done += 1
            needed = min(after, int(places[done, 0])) if done < len(run) else after
            if needed > first:
                held, first = held[:, needed - first :].clone(), needed

    def _frames(self, run: ClipRun) -> NDArray[np.int64]:
        """The file's frame numbers of each clip, (n, T)."""
        rows = []
        for row, number in zip(run.rows.tolist(), run.numbers.tolist(), strict=True):
            video = self.table[row]
            frames = self.view.frames(self.view.starts(video.num_frames)[number], video.num_frames)
            rows.append(video.source_frames(frames) if isinstance(video, Span) else frames)
        return np.array(rows, np.int64)


def plan_runs(table: IndexTable, view: View, videos: Iterable[int], *, together: int = 1) -> Iterator[ClipRun]:
    """Divide the clips of videos into runs; videos of one file that follow one another share runs.

    Args:
        table: the videos.
        view: how clips are taken from them.
        videos: their numbers.
        together: how many runs are one stream, which saves opening the file and decoding up to the next run.
    """
    most = _clips_in_run(view)
    sources = table.sources
    for source, group in groupby(videos, key=lambda video: int(sources[video])):
        numbers = list(group)
        starts = [view.starts(int(table.num_frames[video])) for video in numbers]
        rows = np.repeat(np.array(numbers, np.int64), [len(each) for each in starts])
        places = np.concatenate([np.arange(len(each)) for each in starts])
        begins = np.concatenate(starts).astype(np.float64)  # in frames, or in seconds
        if table.spans is not None:
            rate = table.spans.rate
            begins = begins + table.spans.firsts[rows] if rate is None else begins / rate + table.spans.starts[rows]
        order = np.argsort(begins, kind="stable")
        firsts = range(0, len(order), together * most)
        is_stream = len(firsts) > 1 and _wastes(table, source, begins[order[:: together * most]])
        for first in [0] if is_stream else firsts:
            chosen = order if is_stream else order[first : first + together * most]
            yield ClipRun(rows[chosen], places[chosen], is_stream or len(chosen) > most)


def _clips_in_run(view: View) -> int:
    return max(1, int(_RUN_BYTES / (3 * view.clip_frames * view.clip_size**2)))


def _wastes(table: IndexTable, source: int, begins: NDArray[np.float64]) -> bool:
    """Whether starting at each of these places decodes too much again."""
    video = table.source(source)
    if not isinstance(video, VideoIndex) or video.stills:
        return False
    in_seconds = table.spans is not None and table.spans.rate is not None
    frames = (begins * video.fps if in_seconds else begins).astype(np.int64).tolist()
    keys = (0, *video.key_frames)
    before: int = sum(max(0, frame - keys[bisect_right(keys, frame) - 1]) for frame in frames)
    return before > _MOST_WASTE * video.num_frames


def load_runs(
    table: IndexTable, view: View, *, num_workers: int, videos: Iterable[int]
) -> Iterator[tuple[ClipRun, Tensor]]:
    """Yield the clips of videos in runs, in the order of `plan_runs`; what is held does not depend on their length.

    Raises:
        VideoError: a file failed after the scan; no file is skipped silently.
    """
    runs, most = ClipRuns(table, view), _clips_in_run(view)
    together = 1 if num_workers else _RUNS_TOGETHER
    for is_stream, planned in groupby(plan_runs(table, view, videos, together=together), key=lambda run: run.is_stream):
        if is_stream:
            for run in planned:
                yield from _parts(run, runs.clips(run), most)
        else:
            batches = ([run] for run in planned)
            loaded = load(runs, batches, num_workers=num_workers, quarantine=None, collate=only)
            yield from (item for _, item in loaded)


def _parts(run: ClipRun, clips: Iterator[Tensor], most: int) -> Iterator[tuple[ClipRun, Tensor]]:
    """Cut a run that is a stream into parts."""
    for start in range(0, len(run), most):
        part = ClipRun(run.rows[start : start + most], run.numbers[start : start + most], run.is_stream)
        yield part, torch.stack([next(clips) for _ in range(len(part))])


def complete_rows(
    parts: Iterable[tuple[ClipRun, list[Tensor]]], table: IndexTable, view: View, videos: Iterable[int]
) -> Iterator[tuple[int, list[Tensor]]]:
    """Put what was made of the clips of runs together by video.

    Args:
        parts: runs, and for each some tensors with one row per clip.
        table: the videos.
        view: how clips are taken from them.
        videos: numbers of the videos, in the order in which they are yielded.

    Yields:
        The number of a video, and the tensors with one row per clip of it, in order.
    """
    found: dict[int, list[tuple[int, list[Tensor]]]] = {}
    waiting = iter(videos)
    expected = next(waiting, None)
    for run, tensors in parts:
        for place, (row, number) in enumerate(zip(run.rows.tolist(), run.numbers.tolist(), strict=True)):
            found.setdefault(row, []).append((number, [tensor[place] for tensor in tensors]))
        while expected in found and len(found[expected]) == len(view.starts(int(table.num_frames[expected]))):
            clips = sorted(found.pop(expected), key=lambda clip: clip[0])
            yield expected, [torch.stack(column) for column in zip(*(clip for _, clip in clips), strict=True)]
            expected = next(waiting, None)
