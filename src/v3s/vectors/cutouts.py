"""Found spans as small H.264 files, which any player opens: each contains exactly the frames of its span."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from v3s.files.lock import is_free, only_writer
from v3s.files.times import time_text
from v3s.files.writing import SaveError, write_atomically, write_json
from v3s.pages.images import encode_mp4
from v3s.vectors.entries import Place
from v3s.vectors.moments import Moment
from v3s.video.decode import Video, stream_frames
from v3s.video.index import VideoError

_MARK = "cutouts.json"
"""Written before the clips: a folder of videos that contains theirs does not list them as further videos."""
_FRAMES_AT_ONCE = 32
_MAX_STEM_BYTES = 160  # of a file's name that are kept; a whole name may have 255


def check_cutouts(folder: Path) -> None:
    """Refuse a folder that clips cannot be written to, before the search: nothing that exists is replaced.

    Raises:
        ValueError: it is not empty.
    """
    if folder.is_dir() and not is_free(folder):
        raise ValueError(f"clips is {folder}, which is not empty; give a new folder, so that no clips are mixed up")


@contextmanager
def cutouts_if_saved(folder: Path) -> Iterator[None]:
    """A context that removes its clips again if a file cannot be written: the same search then finds no others.

    Args:
        folder: where the clips are written, by no other process meanwhile.

    Raises:
        ValueError: see `check_cutouts`.
        FolderInUseError: another process writes clips there.
    """
    with only_writer(folder):
        check_cutouts(folder)
        try:
            yield
        except SaveError:
            for path in (*folder.glob("*.mp4"), folder / _MARK):
                path.unlink(missing_ok=True)
            raise


def cutout_name(rank: int, count: int, moment: Moment) -> str:
    """The name of a clip: its rank, so that files sort by it, the video's name and the time, in plain characters."""
    plain = re.sub(r"[^\w.-]+", "_", Path(moment.place.entry.path).stem)
    stem = plain.encode()[:_MAX_STEM_BYTES].decode(errors="ignore").strip("._") or "video"
    time = time_text(moment.place.start_seconds).replace(":", "-")
    return f"{rank:0{max(2, len(str(count)))}d}_{stem}_{time}.mp4"


def write_cutouts(
    folder: Path, moments: Sequence[Moment], open_video: Callable[[Place], Video]
) -> tuple[dict[int, Path], dict[int, str]]:
    """Write the frames of each moment to a file of its own, at the video's mean frame rate, and a list of the files.

    Args:
        folder: where to write; see `check_cutouts`.
        moments: what to write, best first.
        open_video: returns a moment as a video.

    Returns:
        By rank, from 1: the file, and for those that cannot be read the reason.

    Raises:
        SaveError: a file cannot be written, for example on a full disk.
    """
    written: dict[int, Path] = {}
    failed: dict[int, str] = {}
    names = [cutout_name(rank, len(moments), moment) for rank, moment in enumerate(moments, start=1)]
    write_json(folder / _MARK, {"written_by": "v3s search", "cutouts": names})
    for rank, (name, moment) in enumerate(zip(names, moments, strict=True), start=1):
        path = folder / name
        try:
            _write(path, open_video(moment.place))
            written[rank] = path
        except VideoError as error:
            failed[rank] = str(error)
    return written, failed


def _write(path: Path, video: Video) -> None:
    pieces, fps = _pieces(video), video.num_frames / video.duration_seconds if video.duration_seconds else video.fps
    write_atomically(path, lambda temporary: encode_mp4(temporary, pieces, fps))


def _pieces(video: Video) -> Iterator[Tensor]:
    """Yield a video's frames, some at a time: uint8, shape (frames, height, width, 3)."""
    for frames in stream_frames(video, range(video.num_frames), at_once=_FRAMES_AT_ONCE):
        yield frames.rgb().permute(0, 2, 3, 1)
