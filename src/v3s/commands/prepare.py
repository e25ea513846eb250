"""``v3s prepare``: decode every video once into a store, from which training reads frames without decoding."""

import json
import os
import shutil
import signal
import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import count, islice, repeat
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from threading import Thread

import av
import torch
from rich.console import Console

from v3s.data.handover import check_room
from v3s.data.index_cache import file_key
from v3s.data.lists.listing import Subset
from v3s.data.lists.splits import VideoList, VideoOptions
from v3s.data.scan import default_workers
from v3s.data.store_folder import (
    SHARDS,
    STORE_FILE,
    UNFINISHED,
    Store,
    StoredFile,
    StoreSettings,
    content_digest,
    is_store,
    open_store,
)
from v3s.files.lock import is_free, only_writer
from v3s.files.remote.fetch import bytes_to_fetch
from v3s.files.text import counted, progress_bar, say, size_text
from v3s.files.writing import PART, SaveError, refuse_links, write_atomically
from v3s.options import require_not_negative, require_positive
from v3s.video.container import Failure, VideoError, open_video
from v3s.video.stills.source import find_stills, read_stills
from v3s.video.store import SHORT_SIDE, PixelFormat, StoredVideo, frame_bytes, stored_size
from v3s.video.store_writer import ShardWriter, store_video

VIDEOS_PER_SHARD = 32
"""Maximum number of videos per shard; a killed run loses at most this many per process."""

_SHARDS_PER_PROCESS = 8
"""Minimum number of shards per process if there are few videos, so that no process waits long for the last shards."""

NUM_OPENED = 1000
"""To estimate the space for more videos than this, open at least this many, evenly spaced; opening costs 2 ms each."""

LINES_PER_LIST = 1024
"""Maximum number of files with new dates per list; a killed run compares at most this many again."""


@dataclass(frozen=True, kw_only=True)
class PrepareConfig(VideoOptions):
    """Decode every video once into a store, which every command accepts as DATA in place of the folder of videos.

    Attributes:
        out: Folder of the store. Videos that it already contains are not decoded again, even if their dates changed.
        overwrite: Replace the store in the folder.

    More options:
        subset: Part of the split.
        pixel_format: yuv keeps the planes of the codec (4:2:0, 1.5 bytes per pixel), jpeg compresses them to a tenth
            with some loss, rgb takes 3 bytes per pixel.
        short_side: Maximum short side of stored frames, in pixels; larger frames are shrunk, smaller ones unchanged.
        workers: Processes that decode. Default: one per core.
    """

    out: str
    subset: Subset = "all"
    pixel_format: PixelFormat = "yuv"
    short_side: int = SHORT_SIDE
    workers: int | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "short_side")
        require_not_negative(self, "workers")


def prepare(config: PrepareConfig, *, console: Console | None = None) -> Store:
    """Decode every video that is not in the store yet, or has changed since, and add it to the store.

    Args:
        config: the videos, the folder and the format.
        console: where to print; the terminal by default.

    Raises:
        ValueError: there are no videos, the disk is too small, or the folder contains something else or a store with
            other settings.
        FolderInUseError: another process is writing the store.
    """
    console = console or Console()
    listed = config.list_videos()
    if is_store(listed.root):
        raise ValueError(f"{listed.root} is already a store; give the folder of videos that it was made from")
    if not config.spans_for().is_default or listed.bounds:
        say(console, "a store holds whole files; give --segment, --fps or a list of spans to the commands that use it")
    folder = Path(config.out)
    with only_writer(folder):
        paths = tuple(dict.fromkeys(listed.paths))
        if replaces := config.overwrite and is_store(folder):
            _check_space(folder, listed.root, paths, config, console)  # before the old store is removed
        store = _open_or_make(folder, _settings(config, listed), overwrite=config.overwrite)
        _remove_leftovers(store)
        missing = [path for path in paths if store.is_missing(path)]
        store = _take_new_dates(store, missing, console)
        wanted = [path for path in missing if store.is_missing(path)]
        num_renewed = len(missing) - len(wanted)
        by_content = f", {num_renewed:,} of them with new dates but the same content" if num_renewed else ""
        stored = f"{len(paths) - len(wanted):,} are already stored{by_content}"
        say(console, f"{listed.description}; {stored}")
        if wanted:
            if not replaces:
                _check_space(folder, listed.root, wanted, config, console)
            (folder / UNFINISHED).touch()
            masked = replace(config, mask=listed.spans.mask)  # its picture has been read
            _write_all(folder, listed.root, wanted, masked, store.next_shard, console)
        (folder / UNFINISHED).unlink(missing_ok=True)
        store = open_store(folder)
    _report(store, console)
    return store


def _settings(config: PrepareConfig, listed: VideoList) -> StoreSettings:
    codec = ".".join(map(str, av.library_versions["libavcodec"]))
    decoder = f"libavcodec {codec}, PyAV {av.__version__}"
    source, window, mask = str(listed.root.resolve()), config.window or "auto", listed.spans.mask
    return StoreSettings(source, config.pixel_format, config.short_side, decoder, window=window, mask=mask)


def _open_or_make(folder: Path, settings: StoreSettings, *, overwrite: bool) -> Store:
    """The store in the folder, even if its videos have moved, or a new empty store."""
    if is_store(folder):
        refuse_links(folder)
    if is_store(folder) and not overwrite:
        store = open_store(folder, to_write=True)
        if store.settings == settings:
            return store
        if store.files and not _has_moved(store, settings):
            was, now = asdict(store.settings), asdict(settings)
            changed = "; ".join(f"{name} was {was[name]}, now {now[name]}" for name in was if was[name] != now[name])
            raise ValueError(
                f"{folder} contains a store with other settings: {changed}; "
                "choose another --out, or use --overwrite to replace it"
            )
    elif is_store(folder):
        (folder / UNFINISHED).touch()  # a part of the old store never counts as a whole one
        shutil.rmtree(folder / SHARDS, ignore_errors=True)
    elif not is_free(folder):
        raise ValueError(f"{folder} is not empty and is not a store; choose another folder with --out")
    text = json.dumps(asdict(settings), indent=2) + "\n"
    write_atomically(folder / STORE_FILE, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return open_store(folder, to_write=True)


def _has_moved(store: Store, settings: StoreSettings) -> bool:
    """Whether the videos of the store have moved to the source: all are there, and those that were read as large."""
    if replace(store.settings, source=settings.source) != settings:
        return False
    keys = (file_key(Path(settings.source), path) for path in store.files)
    return all(now and file.key[1] in (now[1], 0) for now, file in zip(keys, store.files.values(), strict=True))


def _remove_leftovers(store: Store) -> None:
    """Delete what killed runs left behind: partly written files, and shards that no list refers to.

    A shard with a list stays, even if its lines are outdated: a process may be reading it.
    """
    named = {file.outcome.shard for file in store.files.values() if isinstance(file.outcome, StoredVideo)}
    for path in (*store.folder.glob(PART), *(store.folder / SHARDS).glob("*")):
        is_orphan = path.suffix == ".bin" and str(path) not in named and not path.with_suffix(".jsonl").exists()
        if path.suffix == ".part" or is_orphan:
            path.unlink()


def _take_new_dates(store: Store, paths: Sequence[str], console: Console) -> Store:
    """Write new lines for files of which only the date has changed; they refer to the stored frames."""
    known = [path for path in paths if path in store.files]
    if not known:
        return store
    with progress_bar(console) as progress:
        compared = progress.track(known, description="comparing contents")
        unchanged = filter(None, map(store.under_new_date, compared))
        for number in count(store.next_shard):
            if not (files := list(islice(unchanged, LINES_PER_LIST))):
                break
            _write_list(store.folder / SHARDS / f"{number:05}", files)
    return open_store(store.folder, to_write=True)


def _check_space(folder: Path, root: Path, paths: Sequence[str], config: PrepareConfig, console: Console) -> None:
    """Check before decoding that the disk has enough space, estimated from the headers of the files."""
    opened = paths[:: max(1, len(paths) // NUM_OPENED)]
    needed = sum(_estimated_bytes(root / path, config) for path in opened) * len(paths) / len(opened)
    replaced = sum(file.stat().st_size for file in (folder / SHARDS).glob("*")) if config.overwrite else 0
    free = shutil.disk_usage(folder).free + replaced
    say(console, f"{counted(len(paths), 'video')} to decode, about {size_text(needed)}")
    if needed > free:
        raise ValueError(
            f"{folder}: the frames of {counted(len(paths), 'video')} "
            f"take about {size_text(needed)}, but the disk has only {size_text(free)} free"
            f"{' once the old store is removed' * bool(replaced)}; free some, or choose a "
            "smaller --short-side, or --pixel-format jpeg"
        )


def _estimated_bytes(path: Path, config: PrepareConfig) -> int:
    try:
        if found := find_stills(path):
            ((_, first),) = read_stills(str(path), found.stills, [0])
            height, width = stored_size(first.height, first.width, config.short_side)
            return found.num_frames * frame_bytes(config.pixel_format, height, width)
        with open_video(path) as (container, stream):
            seconds = (container.duration or 0) / av.time_base
            num_frames = stream.frames or int(seconds * float(stream.average_rate or 25))
            height, width = stored_size(stream.height, stream.width, config.short_side)
            return num_frames * frame_bytes(config.pixel_format, height, width)
    except VideoError:
        return 0


def _write_all(
    folder: Path, root: Path, paths: Sequence[str], config: PrepareConfig, first_shard: int, console: Console
) -> None:
    """Write the shards, several in parallel, each by one process."""
    workers = default_workers() if config.workers is None else config.workers
    share = max(1, len(paths) // (workers * _SHARDS_PER_PROCESS)) if workers > 1 else len(paths)
    num_videos = min(VIDEOS_PER_SHARD, share)
    parts = [paths[start : start + num_videos] for start in range(0, len(paths), num_videos)]
    (folder / SHARDS).mkdir(exist_ok=True)
    stems = [folder / SHARDS / f"{first_shard + number:05}" for number in range(len(parts))]
    with progress_bar(console) as progress:
        task = progress.add_task("decoding", total=len(paths))
        with closing(_run(stems, root, parts, config, workers)) as counts:
            for num_done in counts:
                progress.advance(task, num_done)


def _run(
    stems: list[Path], root: Path, parts: list[Sequence[str]], config: PrepareConfig, workers: int
) -> Generator[int, None, None]:
    if (workers := min(workers, len(parts))) < 2:
        yield from map(_write_shard, stems, repeat(root), parts, repeat(config))
        return
    check_room(workers)
    before = set(active_children())
    executor = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_end_with_parent)
    try:
        with _hold_back_sigint():
            written = executor.map(_write_shard, stems, repeat(root), parts, repeat(config))
        yield from written
    except BrokenProcessPool as error:
        raise ValueError(
            "a decoding process was killed, by the system or by a file that crashes FFmpeg; v3s check reports such "
            "files; completed shards are kept: run v3s prepare again to continue"
        ) from error
    except BaseException:  # stopped: the shards that are being written are not waited for
        for process in set(active_children()) - before:
            process.terminate()
        raise
    finally:
        executor.shutdown(cancel_futures=True)
        for unfinished in stems[0].parent.glob("*.part"):
            unfinished.unlink()


@contextmanager
def _hold_back_sigint() -> Iterator[None]:
    """A context in which processes start that never get a SIGINT: Ctrl-C reaches all of a terminal's processes.

    The mask is inherited by the processes. It does not keep Python from interrupting this thread if another thread gets
    the signal, which would leave a process half started; so the signal is noted, and raised at the end.
    """
    if os.name != "posix" or threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, _: arrived.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler or signal.SIG_DFL)
    if arrived:
        raise KeyboardInterrupt


def _end_with_parent() -> None:
    """Exit when the parent process is killed; otherwise this process would write next to the next run and never end."""
    parent = parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    Thread(target=wait, daemon=True).start()


def _write_shard(stem: Path, root: Path, paths: Sequence[str], config: PrepareConfig) -> int:
    """Write one shard and its list; returns the number of its videos.

    Args:
        stem: the path of both files without suffix.
        root: the folder of the videos.
        paths: the videos, relative to the folder.
        config: how to store them.
    """
    torch.set_num_threads(1)
    unfinished, shard, files = stem.with_suffix(".part"), stem.with_suffix(".bin"), []
    try:
        with ShardWriter(unfinished) as writer:
            for path in paths:
                # In this order: a file that is written in between gets a date that differs from its key.
                key, digest = file_key(root, path) or (path, 0, 0), content_digest(root / path)
                outcome = _store(root / path, writer, shard, config)
                if isinstance(outcome, Failure) and (outcome.may_pass or bytes_to_fetch(root / path)):
                    key = (path, 0, 0)  # the next run tries again
                files.append(StoredFile(key, digest, outcome))
        os.replace(unfinished, shard)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise SaveError(
            f"{unfinished} cannot be written: {error.strerror}; completed shards are kept: free some space, then run "
            "v3s prepare again"
        ) from error
    _write_list(stem, files)
    return len(files)


def _write_list(stem: Path, files: Sequence[StoredFile]) -> None:
    lines = "".join(f"{file.to_json()}\n" for file in files)
    write_atomically(stem.with_suffix(".jsonl"), lambda temporary: temporary.write_text(lines, encoding="utf-8"))


def _store(path: Path, writer: ShardWriter, shard: Path, config: PrepareConfig) -> StoredVideo | Failure:
    try:
        return store_video(
            path,
            writer,
            pixel_format=config.pixel_format,
            short_side=config.short_side,
            shard_name=shard.name,
            window=config.window or "auto",
            mask=config.mask,
        )
    except VideoError as error:
        return Failure.of(error, str(path))


def _report(store: Store, console: Console) -> None:
    stored = [file.outcome for file in store.files.values() if isinstance(file.outcome, StoredVideo)]
    num_frames, num_bytes = sum(video.num_frames for video in stored), sum(video.num_bytes for video in stored)
    for path, file in store.files.items():
        if isinstance(file.outcome, Failure):
            say(console, f"skipped: {path}: {file.outcome.reason}")
    say(
        console,
        f"{store.folder}: {counted(len(stored), 'video')}, {counted(num_frames, 'frame')}, {size_text(num_bytes)} as "
        f"{store.settings.pixel_format}; use it as DATA: v3s pretrain {store.folder}",
    )
