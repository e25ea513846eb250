"""A folder of decoded frames: what it holds, and how it stands for the folder of videos that it was made from.

::

    store.json           settings, and the folder it was made from
    unfinished           there while v3s prepare writes, and if it was killed
    shards/00000.bin     frames of some videos
    shards/00000.jsonl   a line for each of them; written last, so that a shard without it does not count
    shards/00001.jsonl   lines alone: files that have a new date and the content whose frames lie in an earlier shard
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, astuple, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from v3s.data.index_cache import FileKey, file_key
from v3s.video.container import Failure
from v3s.video.decode import video_from_json
from v3s.video.store import PixelFormat, StoredVideo

_STORE_FORMAT = 1
STORE_FILE, SHARDS, UNFINISHED = "store.json", "shards", "unfinished"


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """How the frames of a store were made.

    Attributes:
        source: The folder of the videos, absolute.
        pixel_format: "yuv", "jpeg" or "rgb".
        short_side: Larger frames were shrunk to this many pixels on their short side.
        decoder: FFmpeg's libavcodec and PyAV that decoded them.
        format: Of these files.
    """

    source: str
    pixel_format: PixelFormat
    short_side: int
    decoder: str
    format: int = _STORE_FORMAT


@dataclass(frozen=True, slots=True)
class StoredFile:
    """What a store says of one file of its source.

    Attributes:
        key: The file as it stood when it was read.
        digest: Of its content, see :func:`content_digest`; "" where it is not known.
        outcome: Its frames, or the reason why it cannot be read.
    """

    key: FileKey
    digest: str
    outcome: StoredVideo | Failure

    @property
    def has_shard(self) -> bool:
        """Whether the shard that it needs is there: a damaged one is deleted by hand."""
        return isinstance(self.outcome, Failure) or Path(self.outcome.shard).exists()

    def to_json(self) -> str:
        """Write it as one line of JSON; the shard without its folder."""
        if isinstance(self.outcome, Failure):
            return json.dumps([*self.key, astuple(self.outcome), None, self.digest])
        video = {**asdict(self.outcome), "path": "", "shard": Path(self.outcome.shard).name}
        return json.dumps([*self.key, None, video, self.digest])


@dataclass(frozen=True, slots=True, eq=False)
class Store:
    """A store, read.

    Attributes:
        folder: Where it is.
        settings: How its frames were made.
        files: What it says of each file, by the file's path below the source (posix).
        next_shard: A number above those of all complete shards: a kill or a deletion may leave gaps between them.
    """

    folder: Path
    settings: StoreSettings
    files: dict[str, StoredFile]
    next_shard: int

    def changed(self, path: str) -> bool:
        """Whether a source file that is still there is not the one that was stored."""
        now = file_key(Path(self.settings.source), path)
        return now is not None and now != self.files[path].key

    def lacks(self, path: str) -> bool:
        """Whether a source file is not here as it is now: it is new, has changed, or its shard was deleted."""
        return path not in self.files or self.changed(path) or not self.files[path].has_shard

    def under_new_date(self, path: str) -> StoredFile | None:
        """What the store holds of a source file whose date alone has changed, under the new date.

        Returns:
            ``None`` if the file has another content now, or its frames are gone.
        """
        source, stored = Path(self.settings.source), self.files[path]
        now = file_key(source, path)  # before the content: a file that is written meanwhile has another date again
        if not now or now[1] != stored.key[1] or not stored.digest or not stored.has_shard:
            return None
        return replace(stored, key=now) if content_digest(source / path) == stored.digest else None


def content_digest(path: Path) -> str:
    """SHA-256 of a file's content in hexadecimal digits; "" if it is no file or cannot be read."""
    try:
        if not path.is_file():  # a pipe would never end
            return ""
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def is_store(folder: Path) -> bool:
    """Whether a folder is a store."""
    return (folder / STORE_FILE).is_file()


def open_store(folder: Path, *, to_write: bool = False) -> Store:
    """Read what a store holds. Of several lines on one file, because it had changed, the last one counts.

    Args:
        folder: Where it is.
        to_write: Whether more will be written, so that it may be unfinished.

    Raises:
        ValueError: The store's files are damaged or of another version, or it is unfinished.
    """
    if not to_write and (folder / UNFINISHED).exists():
        raise ValueError(f"{folder} is a store that v3s prepare is still writing, or was stopped in; run it to its end")
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
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        settings = StoreSettings(**values)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: not the description of a store ({error}); run v3s prepare --overwrite") from error
    if settings.format != _STORE_FORMAT:
        raise ValueError(
            f"{path}: a store of format {settings.format}, this version reads {_STORE_FORMAT}; "
            "run v3s prepare --overwrite"
        )
    return settings


def _read_list(folder: Path, name: str) -> Iterator[StoredFile]:
    list_file = folder / SHARDS / name
    for line in list_file.read_text(encoding="utf-8").splitlines():
        try:
            path, num_bytes, mtime_ns, failure, video, *digest = json.loads(line)  # older stores have no digest
            named = (path, num_bytes, mtime_ns), "".join(digest)
            if video is None:
                yield StoredFile(*named, Failure(*failure))
                continue
            shard = str(folder / SHARDS / video["shard"])
            stored = video_from_json(json.dumps({**video, "path": str(folder / path), "shard": shard}))
            assert isinstance(stored, StoredVideo)
            yield StoredFile(*named, stored)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{list_file}: damaged ({error}); delete it and its .bin file, then run v3s prepare again"
            ) from error
