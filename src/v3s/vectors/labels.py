"""Labels joined with a collection: which of its rows show a labelled video or span.

Labels are those of the collection itself, of official lists, or of a list file. No video is opened, and none needs to
exist any more.
"""

import hashlib
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from v3s.data.lists.folder import folder_label, subset_folders
from v3s.data.lists.listfile import read_list
from v3s.data.lists.listing import ListedVideo, Listing, Subset, class_order, locate, missing_hint
from v3s.data.lists.spans import Bounds, outside
from v3s.data.lists.splits import VideoList, list_located, read_splits
from v3s.files.text import counted, short_repr
from v3s.options import require_regular
from v3s.vectors.collection import Vectors, shard_path
from v3s.vectors.description import VectorsError
from v3s.vectors.entries import Entry, tabulate

GIVEN = ("labels", "labels.csv")
"""Folder and list, in the folder of a collection, of the labels that were given in the page of v3s serve."""

_NO_ROW = "no vector lies in it by more than half"
_LEAST_SHARE = 0.5  # of a row's time: more of it must lie in a labelled span


@dataclass(frozen=True, slots=True, eq=False)
class Contents:
    """What a collection has vectors of, to be looked up.

    Attributes:
        vectors: the collection.
        entries: its videos or spans, in order.
        names: absolute path -> path in the collection, of each file that it has vectors of or that was skipped.
    """

    vectors: Vectors
    entries: tuple[Entry, ...]
    names: dict[str, str] = field(repr=False)
    __repr__ = short_repr

    @classmethod
    def of(cls, vectors: Vectors) -> "Contents":
        """Read the list of a collection."""
        entries, root = tuple(vectors.entries()), vectors.description.root
        paths = dict.fromkeys([*(entry.path for entry in entries), *vectors.description.left_out])
        return cls(vectors, entries, {os.path.normpath(os.path.join(root, path)): path for path in paths})

    @property
    def root(self) -> Path:
        """The folder that its paths are relative to."""
        return Path(self.vectors.description.root)

    def name_of(self, folder: Path, path: str | Path) -> str | None:
        """Return what the collection calls a listed file: by the folder of the list, through links, or by its root."""
        places = (os.path.abspath(folder / path), os.path.realpath(folder / path), os.path.normpath(self.root / path))
        return next((self.names[place] for place in places if place in self.names), None)

    @property
    def has_subsets(self) -> bool:
        """Whether its videos lie in folders ``train`` and ``test``."""
        return bool(subset_folders([entry.path for entry in self.entries]))


def list_contents(contents: Contents, *, subset: Subset = "all") -> VideoList:
    """List a collection with the labels that it has itself: of the list it was made from, else of class folders.

    Args:
        contents: the collection.
        subset: which videos, if they lie in folders ``train`` and ``test``.
    """
    vectors, paths = contents.vectors, [entry.path for entry in contents.entries]
    subsets = subset_folders(paths)
    below = [f"{subsets[part]}/" for part in ("train", "test") if subset in (part, "all")] if subsets else [""]
    is_labelled = any(entry.label for entry in contents.entries)
    listed = [
        ListedVideo(
            (entry.path,),
            entry.label if is_labelled else folder_label(entry.path.removeprefix(folder)),
            _bounds_of(entry) if vectors.has_spans else None,
        )
        for folder in below
        for entry in contents.entries
        if entry.path.startswith(folder)
    ]
    title = f"collection {vectors.folder}{f' {subset}' if subsets else ''}"
    listing = Listing(title, tuple(listed), class_order(entry.label for entry in listed))
    located = list_located(contents.root, listing, tuple(entry.names[0] for entry in listed))
    return replace(located, stays_inside=True)


def list_labelled(contents: Contents, file: Path, *, allow_missing: bool = False) -> VideoList:
    """List the videos or spans of a list file that a collection has vectors of.

    Args:
        contents: the collection.
        file: the list, see `v3s.data.lists.listfile.read_list`; its paths are relative to its folder, or as in the
            collection.
        allow_missing: continue without the files that the collection does not have.

    Raises:
        ValueError: the list cannot be read, or names files that the collection does not have.
    """
    if not file.exists() or file.is_dir():
        wrong = "is not a list file" if file.exists() else "does not exist"
        raise ValueError(f"{file} {wrong}; with --in give a list of labelled files or spans, or omit it")
    require_regular(file)
    find = partial(contents.name_of, file.parent)
    listing = read_list(file, file.parent, lambda path: find(path) is not None)
    located = tuple(find(entry.names[0]) for entry in listing.entries)
    is_given = file.resolve() == contents.vectors.folder.joinpath(*GIVEN).resolve()
    return _found(contents, listing, located, allow_missing, is_given=is_given)


def list_official(
    contents: Contents, splits: Path, split: int, subset: Subset, *, allow_missing: bool = False
) -> VideoList:
    """List the videos of official lists that a collection has vectors of.

    Args:
        contents: the collection.
        splits: the lists, as for `v3s.data.lists.splits.list_videos`.
        split: the number of the official split.
        subset: which videos.
        allow_missing: continue without the videos that the collection does not have.

    Raises:
        ValueError: the lists cannot be read, or name videos that the collection does not have.
    """
    find = partial(contents.name_of, contents.root)
    listing = read_splits(splits, split, subset, contents.root, lambda path: find(path) is not None)
    if listing.key is None:
        located = tuple(find(entry.names[0]) for entry in listing.entries)
    else:
        located = locate(listing, contents.root, sorted(contents.names.values()))
    return _found(contents, listing, located, allow_missing)


def _found(
    contents: Contents,
    listing: Listing,
    located: tuple[str | None, ...],
    allow_missing: bool,
    *,
    is_given: bool = False,
) -> VideoList:
    """The entries of a list that the collection has; refuse missing ones."""
    num_missing = located.count(None)
    if num_missing and (not allow_missing or num_missing == len(located)):
        first, vectors = listing.entries[located.index(None)].names[0], contents.vectors
        rest = len(located) - num_missing
        way_out = f"; or give --allow-missing to use the other {rest:,}" if rest else ""
        place = "" if Path(first).is_absolute() else f"; its paths are relative to {contents.root}"
        remedy = "embed all of them (v3s embed --append)"
        if is_given:  # it has been moved since
            remedy = f"start v3s serve {vectors.folder} once: it writes the list again with the new paths"
        raise VectorsError(
            f"{vectors.folder} has no vectors of {num_missing:,} of the {counted(len(located), 'entry')} of "
            f"{listing.title}, first: {first}{place}; {remedy}{way_out}{missing_hint(first, contents.root)}"
        )
    return list_located(contents.root, listing, located)


def _bounds_of(entry: Entry) -> Bounds:
    return entry.start_seconds, entry.start_seconds + entry.seconds


@dataclass(frozen=True, slots=True, eq=False)
class Joined:
    """Labelled videos and spans with their rows in a collection.

    An entry of the list is a sample for each entry of the collection that it covers: a labelled file that was embedded
    in segments is as many samples. With one vector per clip, a sample has several rows.

    Attributes:
        videos: the samples (S) as a list, with their labels.
        entries: number of each sample's entry in the collection, int64, shape (S,).
        rows: the collection's rows that belong to a sample, int64, shape (R,).
        samples: number of each row's sample, int64, ascending, shape (R,).
        copies: what each sample shows, as a number that copies share, uint64, shape (S,).
        left_out: listed files that could not be embedded, and why; of the collection's own list all of them.
    """

    videos: VideoList
    entries: NDArray[np.int64]
    rows: NDArray[np.int64]
    samples: NDArray[np.int64]
    copies: NDArray[np.uint64]
    left_out: dict[str, str]
    __repr__ = short_repr

    def features(self, vectors: Vectors) -> Tensor:
        """Return the vector of each sample: the mean over its rows, with their lengths; float32, shape (S, D).

        Raises:
            VectorsError: as `stored_features`.
        """
        rows = stored_features(vectors, torch.from_numpy(self.rows))
        if len(self.rows) == len(self.videos):
            return rows
        sums = torch.zeros(len(self.videos), rows.shape[1]).index_add_(0, torch.from_numpy(self.samples), rows)
        counts = np.bincount(self.samples, minlength=len(self.videos))
        return sums / torch.from_numpy(counts)[:, None]


def join(contents: Contents, listed: VideoList, *, allow_missing: bool = False) -> Joined:
    """Find the rows of a collection that belong to each entry of a list.

    A row belongs to a listed file, or to a listed span if more than half of the row's time lies in it. A span that
    lies outside of its file is skipped, as where videos are read; of a collection of spans, the lengths of files are
    not known.

    Args:
        contents: the collection.
        listed: videos or spans of it, such as `list_labelled` gives.
        allow_missing: leave out files and spans without a row, unless all are.

    Raises:
        VectorsError: a listed file or span has no row, or all are skipped.
    """
    vectors, paths, labels = contents.vectors, listed.paths, listed.labels
    videos, starts, ends = vectors.row_times(tabulate(contents.entries))
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, video in enumerate(videos.tolist()):
        rows_of[contents.entries[video].path].append(row)
    chosen: list[tuple[int, int, NDArray[np.int64]]] = []  # entry of the list, of the collection, and rows
    without: list[str] = []
    named = {*paths, *listed.names}
    tops = {path.partition("/")[0] for path in paths} if contents.has_subsets else None
    left_out = {
        name: reason
        for name, reason in vectors.description.left_out.items()
        if name in named or (listed.stays_inside and (tops is None or name.partition("/")[0] in tops))
    }
    lengths = {} if vectors.has_spans else {entry.path: entry.seconds for entry in contents.entries}
    for item, (path, name) in enumerate(zip(paths, listed.names, strict=True)):
        if listed.bounds and (reason := outside(listed.bounds[item], lengths.get(path, inf))):
            left_out[name] = reason
            continue
        rows = np.array(rows_of.get(path, ()), np.int64)
        if listed.bounds and len(rows):
            start, end = listed.bounds[item]
            inside = np.minimum(ends[rows], inf if end is None else end) - np.maximum(starts[rows], start)
            rows = rows[inside > _LEAST_SHARE * (ends[rows] - starts[rows])]
        if not len(rows):
            if path not in left_out and name not in left_out:
                without.append(name)
            continue
        cuts = np.flatnonzero(np.diff(videos[rows])) + 1
        chosen += [(item, int(videos[part[0]]), part) for part in np.split(rows, cuts)]
    if without and not (allow_missing and chosen):
        way_out = f"; or give --allow-missing to use the other {len(listed) - len(without):,}" if chosen else ""
        raise VectorsError(
            f"{vectors.folder} has no vector of {len(without):,} of {counted(len(listed), 'listed span')}, first: "
            f"{without[0]}: {_NO_ROW}; embed with --per-clip, or with --segment and this list{way_out}"
        )
    left_out |= dict.fromkeys(without, _NO_ROW)
    if left_out and not chosen:
        name, reason = next(iter(left_out.items()))
        raise VectorsError(f"{listed.source}: nothing of it can be used, first: {name}: {reason}; change the list")
    items = [item for item, _, _ in chosen]
    bounds = tuple((float(starts[part].min()), float(ends[part].max())) for *_, part in chosen)
    is_cut = bool(listed.bounds) or vectors.has_spans
    samples = replace(
        listed,
        paths=tuple(paths[item] for item in items),
        labels=tuple(labels[item] for item in items),
        bounds=bounds if is_cut else (),
    )
    counts = [len(part) for *_, part in chosen]
    return Joined(
        samples,
        np.array([video for _, video, _ in chosen], np.int64),
        np.concatenate([part for *_, part in chosen]) if chosen else np.empty(0, np.int64),
        np.repeat(np.arange(len(chosen)), counts),
        _copies([contents.entries[video] for _, video, _ in chosen], bounds),
        left_out,
    )


def _copies(entries: Sequence[Entry], bounds: Sequence[tuple[float, float]]) -> NDArray[np.uint64]:
    """A number for what each sample shows: the content of its entry, and its times in it."""
    numbers = []
    for entry, times in zip(entries, bounds, strict=True):
        start, end = (round(time - entry.start_seconds, 6) for time in times)
        text = f"{entry.content or entry.path} {start} {end}"
        numbers.append(
            int.from_bytes(hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=8).digest(), "big")
        )
    return np.array(numbers, np.uint64)


def stored_features(vectors: Vectors, rows: Tensor) -> Tensor:
    """Return rows of a collection as the network gave them, with their lengths.

    Stored in float32 they are equal to `v3s.features.encoder.restored` of what the network gives, bit by bit.

    Args:
        vectors: the collection.
        rows: their numbers, int64, shape (M,).

    Returns:
        float32, shape (M, D).

    Raises:
        VectorsError: a number is not finite, or an earlier version wrote the collection, without lengths.
    """
    found = torch.empty(len(rows), vectors.description.dimension)
    numbers = np.searchsorted(vectors.offsets, rows.numpy(), side="right") - 1
    for number in np.unique(numbers).tolist():
        shard, in_shard = vectors.shards[number], torch.from_numpy(numbers == number)
        if shard.lengths is None:
            raise VectorsError(
                f"{vectors.folder}: has no lengths of vectors, as an earlier version wrote it; embed again"
            )
        places = rows[in_shard] - int(vectors.offsets[number])
        found[in_shard] = shard.vectors[places].float() * shard.lengths[places][:, None]
        if not found[in_shard].isfinite().all():
            path = shard_path(vectors.folder, number, vectors.description.generation)
            raise VectorsError(f"{path}: contains NaN or infinity; run v3s embed again with --overwrite")
    return found
