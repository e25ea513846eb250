"""The folder of new vectors: begun, resumed, or refused because it contains others."""

from dataclasses import replace
from pathlib import Path

from v3s.files.lock import LOCK
from v3s.files.reading import read_bytes
from v3s.files.text import counted
from v3s.files.writing import PART, refuse_links, write_json, write_whole
from v3s.vectors.collection import (
    VECTORS,
    VIDEOS,
    Description,
    VectorsError,
    entries_of,
    read_description,
    video_lines,
)

_DERIVED = ("vectors.npy", "rows.csv", "vectors.csv", "vectors.parquet", "index.faiss", "index.json")
_NUM_NAMED = 5


def begin_folder(folder: Path, description: Description, lines: bytes, *, overwrite: bool) -> None:
    """Create the folder for new vectors, or resume one that is incomplete.

    Raises:
        VectorsError: the folder contains other vectors and ``overwrite`` is not set, or it contains something else,
            which is never overwritten.
    """
    if folder.exists() and not folder.is_dir():
        raise VectorsError(f"{folder} is a file; vectors need a folder")
    if folder.is_dir() and any(file.name != LOCK for file in folder.iterdir()):
        if not (folder / VECTORS).is_file():
            raise VectorsError(f"{folder} is not empty and does not contain vectors; choose another folder with --out")
        if overwrite:
            _clear(folder)
        else:
            _check_same(folder, read_description(folder), description, lines)
    if folder.is_dir():
        refuse_links(folder)
    for partial in folder.glob(PART):  # from a killed run
        partial.unlink()
    write_json(folder / VECTORS, description.to_json())
    write_whole(folder / VIDEOS, lines)


def _clear(folder: Path) -> None:
    for path in (*folder.glob("shard-*.safetensors"), *(folder / name for name in (VIDEOS, *_DERIVED))):
        path.unlink(missing_ok=True)
    (folder / VECTORS).unlink()  # last, because it marks the folder as one of vectors


def _check_same(folder: Path, old: Description, new: Description, lines: bytes) -> None:
    differing = [name for name, value in new.identity.items() if old.identity[name] != value]
    if not differing:
        return
    if "fingerprint" in differing:
        difference = f"from another network or preprocessing: {_summary(old)}; now {_summary(new)}"
    elif "files_sha256" in differing:
        changed = _changed_contents(folder, lines)
        shown = ", ".join(changed[:_NUM_NAMED]) + f" and {len(changed) - _NUM_NAMED:,} more" * (
            len(changed) > _NUM_NAMED
        )
        difference = f"of another list of videos: {old.source}; now {new.source}"
        if changed:
            difference = f"of other versions of {counted(len(changed), 'file')}, which changed since then: {shown}"
    else:
        values = (f"{name} {old.identity[name]}, now {new.identity[name]}" for name in differing)
        difference = f"with {', '.join(values)}"
    raise VectorsError(
        f"{folder} contains vectors {difference}; replace them with --overwrite or choose another folder with --out"
    )


def _changed_contents(folder: Path, lines: bytes) -> list[str]:
    """The videos whose contents differ from those that a folder of vectors was made from."""
    before = {entry.path: entry.content for entry in entries_of(read_bytes(folder / VIDEOS), folder)}
    return [
        entry.path
        for entry in entries_of(lines, folder)
        if before.get(entry.path, entry.content) not in ("", entry.content)
    ]


def without_contents(lines: bytes, folder: Path) -> bytes:
    """The content of videos.jsonl as an earlier version wrote it."""
    return video_lines(replace(entry, content="") for entry in entries_of(lines, folder))


def _summary(description: Description) -> str:
    space = description.space
    return (
        f"{description.network} (weights {space.weights[:8]}), {space.feature.stage}, {space.feature.pool}, "
        f"{space.view.clip_frames} frames of {space.view.clip_size} pixels, "
        + (f"stride {space.view.stride}" if space.view.stride else f"{space.view.num_clips} clips")
    )
