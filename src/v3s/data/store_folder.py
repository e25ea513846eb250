"""A folder of decoded frames: its contents, and how it relates to the folder of videos that it was made from.

::

    store.json           settings, including the source folder
    unfinished           exists while v3s prepare writes, and after it was killed
    shards/00000.bin     the frames of some videos
    shards/00000.jsonl   one line for each of these videos; written last: a shard without it is ignored
    shards/00001.jsonl   without a .bin file: files with a new date whose frames are in an earlier shard
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, astuple, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from v3s.data.index_cache import FileKey, file_key
from v3s.files.checksum import adler32
from v3s.files.reading import checked, lines_of, parse_json, read_as, read_bytes, read_json
from v3s.files.remote.fetch import held
from v3s.files.text import short_repr
from v3s.files.writing import CheckpointError
from v3s.video.container import Failure
from v3s.video.decode import video_from_json
from v3s.video.light.mask import require_mask
from v3s.video.light.window import parse_window
from v3s.video.stills.folder import frame_files
from v3s.video.store import PixelFormat, StoredVideo

_STORE_FORMAT = 1
STORE_FILE, SHARDS, UNFINISHED = "store.json", "shards", "unfinished"


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """The settings of a store.

    Attributes:
        source: The absolute path of the folder of videos.
        pixel_format: "yuv", "jpeg" or "rgb".
        short_side: Larger frames were resized to this many pixels on their short side.
        decoder: Versions of FFmpeg's libavcodec and PyAV that decoded the frames.
        format: Version of the file format.
        window: Which values of deep pictures became black and white: "auto", "full" or "LOW,HIGH".
        mask: Which pixels are black in the stored frames, as in :class:`v3s.data.views.View`.
    """

    source: str
    pixel_format: PixelFormat
    short_side: int
    decoder: str
    format: int = _STORE_FORMAT
    window: str = "auto"
    mask: str | None = None

    def __post_init__(self) -> None:
        if self.short_side < 1:
            raise ValueError(f"short_side is {self.short_side}; it must be 1 or more")
        parse_window(self.window)
        require_mask(self.mask)


@dataclass(frozen=True, slots=True)
class StoredFile:
    """The entry of a store for one file of its source folder.

    Attributes:
        key: State of the file when it was read.
        digest: Digest of its content, see :func:`content_digest`; "" if unknown.
        outcome: Its frames, or why it cannot be read.
    """

    key: FileKey
    digest: str
    outcome: StoredVideo | Failure

    @property
    def has_shard(self) -> bool:
        """Whether its shard exists; users delete damaged shards by hand."""
        return isinstance(self.outcome, Failure) or Path(self.outcome.shard).exists()

    def to_json(self) -> str:
        """Return the entry as one line of JSON: the shard's name instead of its path, and a checksum at the end."""
        values: list[Any] = [*self.key, None, None, self.digest]
        if isinstance(self.outcome, Failure):
            values[3] = astuple(self.outcome)
        else:
            values[4] = {**asdict(self.outcome), "path": "", "shard": Path(self.outcome.shard).name}
        return json.dumps([*values, _checksum(values)])


@dataclass(frozen=True, slots=True, eq=False)
class Store:
    """The contents of a store.

    Attributes:
        folder: The folder of the store.
        settings: How its frames were made.
        files: The entry of each file, by the file's path below the source folder (posix).
        next_shard: A number above those of all complete shards; a kill or a deletion may leave gaps between them.
    """

    folder: Path
    settings: StoreSettings
    files: dict[str, StoredFile]
    next_shard: int
    __repr__ = short_repr

    @property
    def is_deep(self) -> bool:
        """Whether any of its videos were seen through a window."""
        return any(getattr(file.outcome, "window", None) for file in self.files.values())

    def changed(self, path: str) -> bool:
        """Whether a source file still exists but differs from the one that was stored."""
        now = file_key(Path(self.settings.source), path)
        return now is not None and now != self.files[path].key

    def is_missing(self, path: str) -> bool:
        """Whether the current version of a source file is not stored: it is new or changed, or its shard is deleted."""
        return path not in self.files or self.changed(path) or not self.files[path].has_shard

    def under_new_date(self, path: str) -> StoredFile | None:
        """Return the entry of a source file of which only the date has changed, with the new date.

        Returns:
            ``None`` if the content of the file has changed too, or its frames are gone.
        """
        source, stored = Path(self.settings.source), self.files[path]
        now = file_key(source, path)  # before the digest: if the file is written meanwhile, its date changes again
        if not now or now[1] != stored.key[1] or not stored.digest or not stored.has_shard:
            return None
        return replace(stored, key=now) if content_digest(source / path) == stored.digest else None


def _checksum(values: list[Any]) -> int:
    return adler32(json.dumps(values).encode())


def content_digest(path: Path) -> str:
    """SHA-256 of a file's content in hexadecimal digits; "" if it is not a regular file or cannot be read.

    Of a folder of frames it is that of their names and contents.
    """
    try:
        if path.is_dir() and (frames := sorted(Path(frame.path) for frame in frame_files(path))):
            contents = [(frame.name, content_digest(frame)) for frame in frames]
            return hashlib.sha256(repr(contents).encode("utf-8", "surrogateescape")).hexdigest()
        if not path.is_file():  # reading a pipe would never end
            return ""
        with held(path), path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def is_store(folder: Path) -> bool:
    """Whether a folder is a store."""
    return (folder / STORE_FILE).is_file()


def see_as_stored(options: Any) -> None:
    """Set the window and the mask of options whose ``data`` is a store to those of the store, if they are None.

    A store that cannot be read is left to the command, which says why.
    """
    with suppress(ValueError, OSError):
        if options.data is None or not is_store(folder := Path(options.data)):
            return
        store = open_store(folder)
        if options.window is None and store.settings.window != "auto" and store.is_deep:
            object.__setattr__(options, "window", store.settings.window)
        if options.mask is None:
            object.__setattr__(options, "mask", store.settings.mask)


def names_in_list(root: Path) -> Callable[[str], str]:
    """What a list that may lie anywhere calls the videos of a folder: whole paths, those of a store by their names."""
    return str if is_store(root) else lambda path: str(root / path)


def open_store(folder: Path, *, to_write: bool = False) -> Store:
    """Read the contents of a store. A file that changed has several lines, of which the last one counts.

    Args:
        folder: The folder of the store.
        to_write: Whether the caller will write to the store, which may then be unfinished.

    Raises:
        ValueError: The store is damaged, unfinished or of another version.
    """
    if not to_write and (folder / UNFINISHED).exists():
        raise ValueError(
            f"{folder} is an unfinished store: v3s prepare is still running or was stopped; wait, or run it again"
        )
    lists = tuple((path.name, path.stat().st_mtime_ns) for path in _lists(folder))
    return _open(folder, (folder / STORE_FILE).stat().st_mtime_ns, lists)


def _lists(folder: Path) -> list[Path]:
    return sorted((folder / SHARDS).glob("*.jsonl"))


@lru_cache(maxsize=4)
def _open(folder: Path, settings_mtime_ns: int, lists: tuple[tuple[str, int], ...]) -> Store:
    settings = _read_settings(folder)
    files = {file.key[0]: file for name, _ in lists for file in _read_list(folder, name)}
    return Store(folder, settings, files, 1 + max((int(Path(name).stem) for name, _ in lists), default=-1))


def _read_settings(folder: Path) -> StoreSettings:
    path = folder / STORE_FILE
    try:
        settings = read_as(StoreSettings, read_json(path), path)
    except CheckpointError as error:
        raise ValueError(f"not a valid store description: {error}, with v3s prepare --overwrite") from error
    if settings.format != _STORE_FORMAT:
        raise ValueError(
            f"{path} has store format {settings.format}, but this version reads format {_STORE_FORMAT}; "
            "run v3s prepare --overwrite"
        )
    return settings


def _read_list(folder: Path, name: str) -> Iterator[StoredFile]:
    list_file = folder / SHARDS / name
    text = read_bytes(list_file).decode("ascii", errors="replace")  # a damaged line is named below
    for line in lines_of(text):
        try:
            *fields, checksum = parse_json(line)
            if not isinstance(checksum, int):  # a store of an earlier version ends with the digest, or with the video
                fields.append(checksum)
            elif checksum != _checksum(fields):
                raise ValueError("a line differs from what was written")
            path, num_bytes, mtime_ns, failure, video, *digest = fields
            checked(tuple[str, int, int], [path, num_bytes, mtime_ns], "file")
            file = (path, num_bytes, mtime_ns), "".join(digest)
            if video is None:
                described = dict(zip(Failure.__slots__, failure, strict=False))
                yield StoredFile(*file, checked(Failure, described, "failure"))
                continue
            shard = Path(video["shard"])
            if shard.name != str(shard):
                raise ValueError(f"shard is {video['shard']!r}; it must be the name of a file in {SHARDS}")
            values = {**video, "path": str(folder / path), "shard": str(folder / SHARDS / shard)}
            checked(StoredVideo, values, "video")
            stored = video_from_json(json.dumps(values))
            assert isinstance(stored, StoredVideo)
            yield StoredFile(*file, stored)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{list_file} is damaged ({error}); delete it and its .bin file, then run v3s prepare again"
            ) from error
