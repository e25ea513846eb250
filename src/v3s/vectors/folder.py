"""The folder of new vectors: begun, resumed, or refused because it contains others."""

import re
import shutil
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from v3s.files.lock import is_free
from v3s.files.reading import read_bytes
from v3s.files.text import counted
from v3s.files.writing import PART, json_as_bytes, refuse_links, write_files
from v3s.vectors.collection import VECTORS, Description, VectorsError, read_description, videos_path
from v3s.vectors.entries import VIDEOS, entries_of, video_lines
from v3s.video.light.mask import mask_text

EXPORTED = ("vectors.npy", "rows.csv", "vectors.csv", "vectors.parquet")
STAGING = ".append-*"
"""Folders in a folder of vectors that v3s embed --append has not finished."""

_DERIVED = (*EXPORTED, "index.faiss", "index.json")
_NUM_NAMED = 5


def begin_folder(folder: Path, description: Description, lines: bytes, *, overwrite: bool) -> Description:
    """Create the folder for new vectors, or resume one that is incomplete.

    Returns:
        The description; a resumed folder keeps its generation.

    Raises:
        VectorsError: the folder contains other vectors and ``overwrite`` is not set, or it contains something else,
            which is never overwritten.
    """
    if folder.exists() and not folder.is_dir():
        raise VectorsError(f"{folder} is a file; vectors need a folder")
    if folder.is_dir() and not is_free(folder):
        if not (folder / VECTORS).is_file():
            raise VectorsError(f"{folder} is not empty and does not contain vectors; choose another folder with --out")
        if overwrite:
            _clear(folder)
        else:
            old = read_description(folder)
            _check_same(folder, old, description, lines)
            description = replace(description, generation=old.generation, num_gone=old.num_gone)
    if folder.is_dir():
        refuse_links(folder)
    for partial in folder.glob(PART):  # from a killed run
        partial.unlink()
    described = json_as_bytes(description.to_json())
    write_files({folder / VECTORS: described, videos_path(folder, description.generation): lines})
    return description


def _clear(folder: Path) -> None:
    remove_states(folder)
    for staging in folder.glob(STAGING):
        shutil.rmtree(staging)
    for name in _DERIVED:
        (folder / name).unlink(missing_ok=True)
    (folder / VECTORS).unlink()  # last, because it marks the folder as one of vectors


def gone_folder(folder: Path, generation: int) -> Path:
    """The vectors of videos that an earlier state of the folder had and its list no longer has."""
    return folder / f"gone.{generation}"


def remove_states(folder: Path, but: int | None = None) -> None:
    """Remove lists, shards and gone videos of a folder, except those of one generation."""
    for path in list(folder.iterdir()):
        found = re.fullmatch(r"(shard-\d+|videos|gone)(?:\.(\d+))?(\.safetensors|\.jsonl)?", path.name)
        if found is None or (found[1] == "gone") != path.is_dir() or (but is not None and int(found[2] or 0) == but):
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def check_comparable(folder: Path, old: Description, new: Description) -> None:
    """Refuse to append vectors of another network, preprocessing or format.

    Raises:
        VectorsError: they differ.
    """
    same = replace(new, files_sha256=old.files_sha256, shard_videos=old.shard_videos)
    _check_same(folder, old, same, b"")


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
    append = "bring them up to date with --append, " if differing == ["files_sha256"] else ""
    raise VectorsError(
        f"{folder} contains vectors {difference}; {append}replace them with --overwrite or choose another folder with "
        "--out"
    )


def _changed_contents(folder: Path, lines: bytes) -> list[str]:
    """The videos whose contents differ from those that a folder of vectors was made from."""
    listed = videos_path(folder, read_description(folder).generation)
    before: dict[str, set[str]] = defaultdict(set)
    now: dict[str, set[str]] = defaultdict(set)
    for contents, entries in ((before, entries_of(read_bytes(listed), listed)), (now, entries_of(lines, listed))):
        for entry in entries:
            contents[entry.path].add(entry.content)
    return [path for path, contents in now.items() if before.get(path, contents) not in ({""}, contents)]


def without_contents(lines: bytes, folder: Path) -> bytes:
    """The content of videos.jsonl as an earlier version wrote it."""
    return video_lines(replace(entry, content="") for entry in entries_of(lines, folder / VIDEOS))


def _summary(description: Description) -> str:
    space = description.space
    return (
        f"{description.network} (weights {space.weights[:8]}), {space.feature.stage}, {space.feature.pool}, "
        f"{space.view.clip_frames} frames of {space.view.clip_size} pixels, "
        + (f"stride {space.view.stride}" if space.view.stride else f"{space.view.num_clips} clips")
        + (f", {space.view.fps:g} frames per second" if space.view.fps else "")
        + (f", window {space.view.window}" if space.view.window else "")
        + (f", mask {mask_text(space.view.mask)}" if space.view.mask else "")
        + (f", normalised by {space.normalisation}" if space.normalisation else "")
    )
