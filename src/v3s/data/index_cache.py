"""What scans have learned of a folder's files, kept in the user's cache: a file is decoded once, not once a run."""

import errno
import hashlib
import inspect
import json
import os
import stat
import warnings
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path

import av

from v3s.files.cache import cache_folder
from v3s.files.reading import read_bytes
from v3s.files.writing import CheckpointError
from v3s.video import chunks, container, first_pass, frames, headers, index, orientation, planes, timing
from v3s.video.container import Failure
from v3s.video.decode import Video
from v3s.video.index import VideoIndex
from v3s.video.light import brightness, mask, window
from v3s.video.stills import border, dicom, folder, found, numbered, pictures, pixels, source, tiff
from v3s.video.stills.folder import frame_files

ReadResult = Video | Failure
"""What reading a file gave: its index, or the reason why it cannot be read."""

FileKey = tuple[str, int, int]
"""A file as it stood when it was read: path below the data folder, size in bytes, time of change in nanoseconds.
Of a folder of frames: the size of all, and a digest of their names, sizes and times."""


_READERS = (
    *(brightness, chunks, container, first_pass, frames, headers, index, orientation, planes, timing),
    *(border, dicom, folder, found, numbered, pictures, pixels, source, tiff, mask, window),
)
"""The code that learns of a file what is kept here."""


def default_cache(root: Path) -> Path:
    """Return the cache file of a data folder.

    The name also depends on the decoder's version and the code that reads the files: another may count other frames.
    """
    try:
        base = cache_folder()
    except RuntimeError:  # a user without a home folder, which the warning of `CacheWriter` reports
        base = Path(os.devnull)
    reader = "\n".join([av.__version__, *map(inspect.getsource, _READERS)])
    name = hashlib.sha256(os.fsencode(f"{root.resolve()}\n{reader}")).hexdigest()
    return base / "index" / f"{name}.jsonl"


def file_key(root: Path, path: str) -> FileKey | None:
    """Return the key of a file as it stands now; ``None`` if there is no such file."""
    try:
        status = (root / path).stat()
        if stat.S_ISDIR(status.st_mode) and (frames := frame_files(root / path)):
            states = sorted((frame.name, frame.stat().st_size, frame.stat().st_mtime_ns) for frame in frames)
            digest = hashlib.blake2b(repr(states).encode("utf-8", "surrogateescape"), digest_size=6).digest()
            return path, sum(size for _, size, _ in states), int.from_bytes(digest, "big")
    except OSError:
        return None
    return path, status.st_size, status.st_mtime_ns


def read_cache(file: Path | None, root: Path, beginning: str = "") -> dict[FileKey, ReadResult]:
    """Read what is known; a line that another version wrote, or that a killed process left half, is unknown.

    Only lines with this ``beginning`` are parsed, such as that of one file: ``json.dumps([path])[:-1]``.
    """
    known: dict[FileKey, ReadResult] = {}
    try:
        lines = read_bytes(file).decode("ascii", errors="replace").splitlines() if file else []
    except CheckpointError:
        return known
    for line in (line for line in lines if line.startswith(beginning)):
        try:
            path, num_bytes, mtime_ns, failure, index = json.loads(line)
            # The folder may be reached by another way than last time, so the path is not the one that was kept.
            known[path, num_bytes, mtime_ns] = (
                Failure(*failure) if index is None else replace(VideoIndex.from_json(index), path=str(root / path))
            )
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            continue
    return known


@dataclass(slots=True)
class CacheWriter:
    """Adds lines to a cache file, each in one write, so that several processes may add to it at once.

    A folder that cannot be written costs the caching and one warning, nothing else. ``None`` keeps nothing.
    """

    file: Path | None
    _descriptor: int | None = field(default=None, init=False)

    def __enter__(self) -> "CacheWriter":
        if self.file is not None:
            try:
                self.file.parent.mkdir(parents=True, exist_ok=True)
                if self.file.exists() and not self.file.is_file():
                    raise OSError(errno.EINVAL, "not a regular file")  # writing to a pipe would wait for a reader
                self._descriptor = os.open(self.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
                os.write(self._descriptor, b"\n")  # ends a line that a killed process left half
            except OSError as error:
                self._give_up(error)
        return self

    def add(self, key: FileKey, outcome: ReadResult) -> None:
        """Write down what reading one file gave."""
        if self._descriptor is None:
            return
        failure = astuple(outcome) if isinstance(outcome, Failure) else None
        line = json.dumps([*key, failure, outcome.to_json() if isinstance(outcome, VideoIndex) else None])
        try:
            os.write(self._descriptor, f"{line}\n".encode())
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        """Say once that this scan is not kept."""
        warnings.warn(
            f"{self.file} cannot be written ({error.strerror}): the next run reads all files again; "
            "set XDG_CACHE_HOME to a folder that can be written",
            stacklevel=2,
        )
        self.__exit__()

    def __exit__(self, *exception: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
