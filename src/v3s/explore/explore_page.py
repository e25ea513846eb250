"""The page of an exploration: the map, and pictures of clusters, near-duplicates, outliers and what to label next.

It has no script and needs no other file. It shows a bounded number of pictures, and the map a bounded number of points,
so that the page of a million vectors is not larger than that of ten thousand.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from v3s.explore.clusters import typical_members
from v3s.explore.duplicates import Duplicate
from v3s.explore.exploration import Exploration
from v3s.explore.kmeans import sample_rows
from v3s.explore.matrix import Matrix
from v3s.files.text import counted, progress_bar
from v3s.files.times import time_text
from v3s.pages.page import figure, page, paragraph, section, side_by_side, strip
from v3s.pages.scatter import Group, scatter
from v3s.vectors.collection import Vectors
from v3s.vectors.entries import Place
from v3s.vectors.search_page import thumbnail
from v3s.video.decode import Video

MOST_POINTS = 5000  # of the map
_MOST_CLUSTERS, _MEMBERS = 30, 5  # that have pictures
_MOST_DUPLICATES, _MOST_OUTLIERS, _MOST_TO_LABEL = 24, 20, 50
_PICTURE_WIDTH = 176  # in pixels


class _Picture(Protocol):
    """Makes the picture of a row: a caption, which begins with a text, and an image."""

    def __call__(self, row: int, text: str = "", times: tuple[float, float] | None = None) -> tuple[str, str]: ...


def explore_page(
    collection: Vectors,
    vectors: Matrix,
    found: Exploration,
    open_place: Callable[[Place], Video],
    *,
    seed: int,
    console: Console,
) -> str:
    """Build the page of an exploration.

    Args:
        collection: the collection.
        vectors: its vectors, shape (N, D).
        found: what is known of it.
        open_place: opens a row as a video.
        seed: chooses the points that are drawn, if there are more than 5,000.
        console: where the progress is shown.
    """
    members = typical_members(vectors, np.where(found.clusters < _MOST_CLUSTERS, found.clusters, -1), _MEMBERS)
    outliers = np.lexsort((np.arange(len(found.outliers)), -found.outliers))[:_MOST_OUTLIERS]
    duplicates, to_label = found.duplicates[:_MOST_DUPLICATES], found.to_label[:_MOST_TO_LABEL]
    num_pictures = sum(map(len, members)) + 2 * len(duplicates) + len(outliers) + len(to_label)
    with progress_bar(console) as progress:
        task = progress.add_task("pictures", total=num_pictures)

        def picture(row: int, text: str = "", times: tuple[float, float] | None = None) -> tuple[str, str]:
            progress.advance(task)
            place = collection.place_of(row)
            start, end = map(time_text, times or (place.start_seconds, place.end_seconds))
            span = place.entry.path if found.table.are_whole else f"{place.entry.path}, {start} to {end}"
            return thumbnail(f"{text}{span}", place.file, lambda: open_place(place), _PICTURE_WIDTH)

        sections = [
            _map(found, seed),
            *_clusters(found, members, picture),
            _duplicates(duplicates, len(found.duplicates), picture, are_whole=found.table.are_whole),
            _outliers(outliers, found, picture),
            _to_label(to_label, len(found.to_label), picture),
        ]
    stored = collection.description
    lead = f"{counted(len(vectors), 'vector')} of {counted(len(found.table.files), 'video')} ({stored.source}). "
    return page("Explored", sections, lead=f"{lead}Network: {stored.network}.")


def _map(found: Exploration, seed: int) -> str:
    """The map; of many points those that are drawn."""
    drawn = sample_rows(len(found.points), MOST_POINTS, np.random.default_rng(seed))
    clusters = found.clusters[drawn]
    groups = [
        Group(str(number + 1), _cluster_name(number, found), found.points[drawn[clusters == number]], _link(number))
        for number in range(int(found.clusters.max()) + 1)
    ]
    if (clusters < 0).any():
        groups.append(Group("", "in no cluster", found.points[drawn[clusters < 0]], is_rest=True))
    marks = [Group("", "to label next", found.points[found.to_label[:_MOST_TO_LABEL]], "#to-label")]
    caption = "A point is a vector, its look and number those of its cluster; a circle is to be labelled next."
    if len(drawn) < len(found.points):
        caption += f" {len(drawn):,} of {len(found.points):,} points are drawn, chosen at random."
    return section("Map", figure(scatter(groups, title="Map of the collection", marks=marks), caption))


def _cluster_name(number: int, found: Exploration) -> str:
    size = int((found.clusters == number).sum())
    return f"Cluster {number + 1}: {counted(size, 'vector')}, {size / len(found.clusters):.1%}"


def _link(number: int) -> str:
    return f"#cluster-{number + 1}" if number < _MOST_CLUSTERS else "#clusters"


def _clusters(found: Exploration, members: Sequence[NDArray[np.int64]], picture: _Picture) -> Iterator[str]:
    """A section per cluster, from the largest on."""
    num_clusters, num_outside = int(found.clusters.max()) + 1, int((found.clusters < 0).sum())
    text = f"{counted(num_clusters, 'cluster')}, the largest first. Pictures go from the centre of a cluster outwards."
    text += f" {counted(num_outside, 'vector')} are in none." if num_outside else ""
    text += f" The first {_MOST_CLUSTERS} are shown." if num_clusters > _MOST_CLUSTERS else ""
    yield section("Clusters", paragraph(text), anchor="clusters")
    for number, rows in enumerate(members):
        shown = strip([picture(row) for row in rows.tolist()])
        yield section(_cluster_name(number, found), shown, anchor=_link(number).removeprefix("#"))


def _duplicates(shown: Sequence[Duplicate], count: int, picture: _Picture, *, are_whole: bool) -> str:
    text = (
        f"{counted(count, 'pair')} of files that show the same, the most similar first"
        if are_whole
        else f"{counted(count, 'pair')} of stretches of different files that show the same: the longest runs of spans "
        "first, then the most similar"
    )
    text += f"; {len(shown):,} are shown, duplicates.csv has all." if count > len(shown) else "."
    text += " Similarity is 1 for copies and 0 for an average pair of this collection." if count else ""
    pairs = []
    for number, each in enumerate(shown, start=1):
        length = "" if each.num_pairs == 1 else f"{each.num_pairs:,} matching spans, "
        name = f"{number}. {length}similarity {each.similarity:.3f}: "
        columns = [
            picture(side.rows[len(side.rows) // 2], prefix, (side.start_seconds, side.end_seconds))
            for side, prefix in ((each.first, name), (each.second, f"{number}. "))
        ]
        pairs.append(strip(columns))
    return section("Near-duplicates", paragraph(text), side_by_side(*pairs), anchor="duplicates")


def _outliers(rows: NDArray[np.int64], found: Exploration, picture: _Picture) -> str:
    text = (
        "The vectors that are farthest from their nearest neighbours: 0 is a copy of them, 1 as far as an average pair."
    )
    shown = strip([picture(row, f"{found.outliers[row]:.2f}: ") for row in rows.tolist()])
    return section("Outliers", paragraph(text), shown, anchor="outliers")


def _to_label(rows: NDArray[np.int64], count: int, picture: _Picture) -> str:
    text = (
        f"{counted(count, 'vector')} that together stand for the collection; to_label.csv lists them for your labels."
    )
    text += f" The first {len(rows)} are shown." if count > len(rows) else ""
    shown = strip([picture(row, f"{number}. ") for number, row in enumerate(rows.tolist(), start=1)])
    return section("To label next", paragraph(text), shown, anchor="to-label")
