"""Read every file of a list once, before anything trains on it: what is usable, what is not, and why."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import get_worker_info

from v3s.backbones.device import usable_cores
from v3s.data.index_cache import CacheWriter, ReadResult, default_cache, file_key, read_cache
from v3s.data.index_table import IndexTable
from v3s.data.lists.folder import video_link_outside
from v3s.data.lists.spans import SpanOptions
from v3s.data.lists.splits import VideoList
from v3s.data.loading import load, only, still_reading
from v3s.data.quarantine import Quarantine
from v3s.data.reports import FileReport, Verdict, report_on
from v3s.data.spans import cut_videos
from v3s.data.store_folder import Store, is_store, open_store
from v3s.files.remote.fetch import bytes_to_fetch
from v3s.files.text import short_repr
from v3s.video.container import Failure, VideoError
from v3s.video.index import index_video
from v3s.video.light.mask import mask_text
from v3s.video.span import Span, seen
from v3s.video.store import StoredVideo, verify_stored

_FILES_AHEAD = 16
"""How many files a process is handed ahead."""

_MAX_BYTES = 2**30
"""How much memory reading one file may take, in a process that does only that. A header may ask for any."""


@dataclass(frozen=True, slots=True, eq=False)
class Scan:
    """What reading all files of a list gave.

    Attributes:
        videos: The list.
        min_frames: How many frames a usable video has at least.
        reports: One report a video, in the order of the list.
        readable: int64, the positions in the list of the videos that can be read, usable or too short.
        table: The indices of the readable videos, in the order of `readable`.
        num_fetched_bytes: What was fetched from URLs.
    """

    videos: VideoList
    min_frames: int
    reports: tuple[FileReport, ...]
    readable: NDArray[np.int64]
    table: IndexTable
    num_fetched_bytes: int = 0
    __repr__ = short_repr

    @property
    def usable(self) -> NDArray[np.int64]:
        """The positions in the list of the usable videos."""
        return self.readable[self.table.num_frames >= self.min_frames]

    @property
    def num_usable(self) -> int:
        """How many videos can be read and are long enough."""
        return len(self.usable)

    @property
    def skipped(self) -> dict[str, str]:
        """Path and reason of each video that is not usable, in the order of the list."""
        return {report.name: report.reason for report in self.reports if report.verdict != "usable"}

    @property
    def counts(self) -> dict[str, int]:
        """How many videos were listed, and how many of them have each fault."""
        verdicts = [report.verdict for report in self.reports]
        faults: tuple[Verdict, ...] = ("unreadable", "partial", "too short")
        return {
            "listed": len(self.reports) + self.videos.num_missing,
            "missing": self.videos.num_missing,
            **{fault.replace(" ", "_"): verdicts.count(fault) for fault in faults},
        }

    @property
    def usable_table(self) -> IndexTable:
        """The indices of the usable videos, in the order of `usable`."""
        return self.table.subset(np.flatnonzero(self.table.num_frames >= self.min_frames))

    @property
    def usable_labels(self) -> tuple[str | None, ...]:
        """The labels of the usable videos, in the order of `usable`."""
        return tuple(self.videos.labels[position] for position in self.usable)


def scan(
    videos: VideoList,
    *,
    min_frames: int,
    workers: int = 0,
    cache: Path | Literal["default"] | None = "default",
    progress: Callable[[int, int], None] | None = None,
    verify: bool = False,
) -> Scan:
    """Decode every file once, from end to end, or recall what an earlier scan of the same file found.

    Args:
        videos: The files.
        min_frames: The longest span of the task, in frames; a shorter video is not usable.
        workers: How many processes decode; 0 decodes in this one, where a file that crashes or hangs FFmpeg, or asks
            for much memory, gets its way.
        cache: The file that keeps what was found; by default one in the user's cache, by the data folder.
            ``None`` keeps nothing. A file that changed its size or its time is read again, and so is one that failed
            for a reason that may pass (:class:`v3s.video.container.Failure`).
        progress: Called with (files done, files in all), first and after every file that had to be read.
        verify: Compare the frames in a store with their checksums.

    Returns:
        A report on every file and the indices of the readable ones. A bad file is a report, never an exception.
    """
    fetched: list[int] = []
    read = read_all(videos, workers=workers, cache=cache, progress=progress, verify=verify, fetched=fetched.append)
    return replace(judge(videos, min_frames, read), num_fetched_bytes=sum(fetched))


def read_all(
    videos: VideoList,
    *,
    workers: int = 0,
    cache: Path | Literal["default"] | None = "default",
    progress: Callable[[int, int], None] | None = None,
    verify: bool = False,
    fetched: Callable[[int], None] = lambda num_bytes: None,
) -> dict[str, ReadResult]:
    """Read every file of a list, see :func:`scan`: what each gave, by its path; `fetched` hears of bytes from URLs."""
    paths = tuple(dict.fromkeys(videos.paths))  # spans of a file are read together
    if is_store(videos.root):
        store = open_store(videos.root)
        check_store(store, videos.spans.window, videos.spans.mask)
        return {path: _stored(store, path, verify) for path in paths}
    cache_file = default_cache(videos.root) if cache == "default" else cache
    known = read_cache(cache_file, videos.root)
    keys = {path: file_key(videos.root, path) for path in paths}
    outcomes: dict[str, ReadResult] = {path: known[key] for path, key in keys.items() if key and key in known}
    if videos.stays_inside:
        for path in paths:
            if target := video_link_outside(videos.root / path, videos.root):
                what = "its videos" if Path(target).is_dir() else "it"
                remedy = f"copy it into the folder, or name {what} in a list file and give that as DATA"
                reason = f"links out of the data folder to {target}; {remedy}"
                outcomes[path] = Failure("open", reason)
    unknown = [path for path in paths if path not in outcomes]
    num_to_fetch = {path: number for path in unknown if (number := bytes_to_fetch(videos.root / path))}
    if progress:
        progress(len(outcomes), len(paths))
    with CacheWriter(cache_file) as writer:
        files = [str(videos.root / path) for path in unknown]
        for path, outcome in zip(unknown, _read_files(files, workers), strict=True):
            outcomes[path] = outcome
            is_lost = isinstance(outcome, Failure) and bytes_to_fetch(videos.root / path) > 0
            if not is_lost:
                fetched(num_to_fetch.get(path, 0))
                may_pass = isinstance(outcome, Failure) and outcome.may_pass
                if not may_pass and (key := keys[path]) and key == file_key(videos.root, path):
                    writer.add(key, outcome)
            if progress:
                progress(len(outcomes), len(paths))
    return outcomes


def _stored(store: Store, path: str, verify: bool) -> ReadResult:
    """What a store holds of one file, unless the file has changed since or the frames are damaged."""
    outcome = store.files[path].outcome
    if isinstance(outcome, Failure) and outcome.may_pass:
        return replace(outcome, reason=f"{outcome.reason}, when it was stored; run v3s prepare again")
    if store.changed(path):
        return Failure("open", "changed since it was stored; run v3s prepare again")
    try:
        if verify and isinstance(outcome, StoredVideo):
            verify_stored(outcome)
    except VideoError as error:
        return Failure.of(error, str(store.folder / path))
    return outcome


def check_store(store: Store, window: str | None, mask: str | None) -> None:
    """Refuse a store whose deep pictures were stored through another window, or with another mask.

    Args:
        store: The store.
        window: The one that is wanted; ``None`` for "auto".
        mask: The one that is wanted, as in :class:`v3s.data.views.View`.

    Raises:
        ValueError: It is one.
    """
    if store.settings.mask != mask:
        raise ValueError(
            f"{store.folder} was stored with the mask {mask_text(store.settings.mask)}, not {mask_text(mask)}: "
            f"give that with --mask, or make another store with v3s prepare"
        )
    stored, wanted = store.settings.window, window or "auto"
    if stored != wanted and store.is_deep:
        raise ValueError(
            f"{store.folder} was stored with --window {stored}, not {wanted}: give --window {stored}, or make another "
            "store with v3s prepare"
        )


def default_workers() -> int:
    """Return how many processes scan best: one a processor that this process may use, 16 at most."""
    return min(usable_cores(), 16)


def _read_files(files: Sequence[str], workers: int) -> Iterator[ReadResult]:
    """Read files in their order, in this process or in others; one over which a process dies or hangs is a failure."""
    deadly = Quarantine(report=lambda text: None)
    found = load(
        _Files(files),
        [[position] for position in range(len(files))],
        num_workers=min(workers, len(files)),
        quarantine=deadly,
        collate=only,
        prefetch=_FILES_AHEAD,
    )
    for file, (_, outcome) in zip(files, found, strict=True):
        yield deadly.failures[file] if outcome is None else outcome


class _Files:
    """Files by their position, each as what reading it gives."""

    def __init__(self, files: Sequence[str]) -> None:
        self.files = files

    def path(self, position: int) -> str:
        return self.files[position]

    def __getitem__(self, position: int) -> ReadResult:
        file = self.files[position]
        if get_worker_info() is not None:
            _limit_memory()
        try:
            return index_video(file, tick=still_reading)
        except VideoError as error:
            return Failure.of(error, file)


@cache
def _limit_memory() -> None:
    """Let this process take so much more memory than it has now, and no more; Linux only."""
    status = Path("/proc/self/statm")
    if status.exists():
        import resource

        held = int(status.read_text().split()[0]) * resource.getpagesize()
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        wanted = held + _MAX_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (wanted if most == resource.RLIM_INFINITY else min(wanted, most), most))


def _seen(outcome: ReadResult, spans: SpanOptions) -> ReadResult:
    if isinstance(outcome, Failure | Span):
        return outcome
    try:
        return seen(outcome, spans.window, spans.mask)
    except VideoError as error:
        return Failure.of(error, outcome.path)


def judge(videos: VideoList, min_frames: int, read: Mapping[str, ReadResult]) -> Scan:
    """Cut files that were read into spans, judge each, and put the indices into a table."""
    read = {path: _seen(outcome, videos.spans) for path, outcome in read.items()}
    videos, outcomes = cut_videos(videos, [read[path] for path in videos.paths])
    first: dict[int, str] = {}  # name by fingerprint
    bounds = videos.bounds or (None,) * len(videos)
    reports = tuple(
        report_on(path, outcome, min_frames, first, times)
        for path, outcome, times in zip(videos.paths, outcomes, bounds, strict=True)
    )
    readable = [position for position, outcome in enumerate(outcomes) if not isinstance(outcome, Failure)]
    table = IndexTable.of(outcome for outcome in outcomes if not isinstance(outcome, Failure))
    return Scan(videos, min_frames, reports, np.array(readable, np.int64), table)
