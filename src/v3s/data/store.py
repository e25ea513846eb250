"""A folder of decoded frames: what it holds, and how it stands for the folder of videos that it was made from.

::

    store.json           settings, and the folder it was made from
    shards/00000.bin     frames of some videos
    shards/00000.jsonl   a line for each of them; written last, so that a shard without it does not count
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, astuple, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from v3s.data.index_cache import FileKey, file_key
from v3s.video.container import Failure
from v3s.video.store import PixelFormat, StoredVideo, video_from_json

FORMAT = 1
SETTINGS, SHARDS = "store.json", "shards"


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
    format: int = FORMAT


@dataclass(frozen=True, slots=True)
class StoredFile:
    """What a store says of one file of its source.

    Attributes:
        key: The file as it stood when it was read.
        outcome: Its frames, or the reason why it cannot be read.
    """

    key: FileKey
    outcome: StoredVideo | Failure

    def to_json(self) -> str:
        """Write it as one line of JSON; the shard without its folder."""
        if isinstance(self.outcome, Failure):
            return json.dumps([*self.key, astuple(self.outcome), None])
        return json.dumps([*self.key, None, {**asdict(self.outcome), "path": ""}])


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


def is_store(folder: Path) -> bool:
    """Whether a folder is a store."""
    return (folder / SETTINGS).is_file()


def open_store(folder: Path) -> Store:
    """Read what a store holds. Where a file was stored twice, because it had changed, the later one counts.

    Raises:
        ValueError: The store's files are damaged or of another version.
    """
    return _open(folder, tuple((path.name, path.stat().st_mtime_ns) for path in _lists(folder)))


def _lists(folder: Path) -> list[Path]:
    return sorted((folder / SHARDS).glob("*.jsonl"))


@lru_cache(maxsize=4)
def _open(folder: Path, lists: tuple[tuple[str, int], ...]) -> Store:
    settings = _read_settings(folder)
    files = {file.key[0]: file for name, _ in lists for file in _read_list(folder, name)}
    return Store(folder, settings, files, 1 + max((int(Path(name).stem) for name, _ in lists), default=-1))


def _read_settings(folder: Path) -> StoreSettings:
    path = folder / SETTINGS
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        settings = StoreSettings(**values)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: not the description of a store ({error}); run v3s prepare --overwrite") from error
    if settings.format != FORMAT:
        raise ValueError(
            f"{path}: a store of format {settings.format}, this version reads {FORMAT}; run v3s prepare --overwrite"
        )
    return settings


def _read_list(folder: Path, name: str) -> Iterator[StoredFile]:
    list_file = folder / SHARDS / name
    for line in list_file.read_text(encoding="utf-8").splitlines():
        try:
            path, num_bytes, mtime_ns, failure, video = json.loads(line)
            key = (path, num_bytes, mtime_ns)
            if video is None:
                yield StoredFile(key, Failure(*failure))
                continue
            shard = str(folder / SHARDS / video["shard"])
            stored = video_from_json(json.dumps({**video, "path": str(folder / path), "shard": shard}))
            assert isinstance(stored, StoredVideo)
            yield StoredFile(key, stored)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{list_file}: damaged ({error}); delete it and its .bin file, then run v3s prepare again"
            ) from error
