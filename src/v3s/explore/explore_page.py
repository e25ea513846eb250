"""The page of an exploration: the map, and pictures of clusters, near-duplicates, outliers and what to label next.

It has no script and needs no other file. It shows a bounded number of pictures, and the map a bounded number of points,
so that the page of a million vectors is not larger than that of ten thousand.
"""

from collections.abc import Callable

import numpy as np
from markupsafe import Markup
from rich.console import Console

from v3s.explore.clusters import typical_members
from v3s.explore.duplicates import Duplicate
from v3s.explore.exploration import Exploration
from v3s.explore.kmeans import sample_rows
from v3s.explore.matrix import Matrix
from v3s.files.text import counted, progress_bar
from v3s.files.times import time_text
from v3s.pages.scatter import Group, scatter
from v3s.pages.templates import render
from v3s.vectors.collection import Vectors
from v3s.vectors.entries import Place
from v3s.vectors.search_page import thumbnail
from v3s.video.decode import Video

MOST_POINTS = 5000  # of the map
_MOST_CLUSTERS, _MEMBERS = 30, 5  # that have pictures
_MOST_DUPLICATES, _MOST_OUTLIERS, _MOST_TO_LABEL = 24, 20, 50
_PICTURE_WIDTH = 176  # in pixels

_Figure = tuple[str, str]  # a picture as a data URI, and its caption


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

        def picture(row: int, text: str = "", times: tuple[float, float] | None = None) -> _Figure:
            progress.advance(task)
            place = collection.place_of(row)
            start, end = map(time_text, times or (place.start_seconds, place.end_seconds))
            span = place.entry.path if found.table.are_whole else f"{place.entry.path}, {start} to {end}"
            return thumbnail(f"{text}{span}", place.file, lambda: open_place(place), _PICTURE_WIDTH)

        clusters = [
            (_cluster_name(number, found), [picture(row) for row in rows.tolist()])
            for number, rows in enumerate(members)
        ]
        pairs = [_sides(number, each, picture) for number, each in enumerate(duplicates, start=1)]
        far = [picture(row, f"{found.outliers[row]:.2f}: ") for row in outliers.tolist()]
        next_ones = [picture(row, f"{number}. ") for number, row in enumerate(to_label.tolist(), start=1)]
    chart, caption = _map(found, seed)
    return render(
        "explore.html",
        found=found,
        stored=collection.description,
        map=chart,
        map_caption=caption,
        num_clusters=int(found.clusters.max()) + 1,
        num_outside=int((found.clusters < 0).sum()),
        clusters=clusters,
        duplicates=pairs,
        outliers=far,
        to_label=next_ones,
    )


def _map(found: Exploration, seed: int) -> tuple[Markup, str]:
    """The map, of many points those that are drawn, and its caption."""
    drawn = sample_rows(len(found.points), MOST_POINTS, np.random.default_rng(seed))
    clusters = found.clusters[drawn]
    groups = [
        Group(str(number + 1), _cluster_name(number, found), found.points[drawn[clusters == number]], _link(number))
        for number in range(int(found.clusters.max()) + 1)
    ]
    if (clusters < 0).any():
        groups.append(Group("", "in no cluster", found.points[drawn[clusters < 0]], is_rest=True))
    marks = [Group("", "to label next", found.points[found.to_label[:_MOST_TO_LABEL]], "#to-label-next")]
    caption = "Each point is a vector. Colour, shape and number show its cluster; label the circled points next."
    if len(drawn) < len(found.points):
        caption += f" {len(drawn):,} of {len(found.points):,} points are drawn, chosen at random."
    return scatter(groups, title="Map of the collection", marks=marks), caption


def _cluster_name(number: int, found: Exploration) -> str:
    size = int((found.clusters == number).sum())
    return f"Cluster {number + 1}: {counted(size, 'vector')}, {size / len(found.clusters):.1%}"


def _link(number: int) -> str:
    return f"#cluster-{number + 1}" if number < _MOST_CLUSTERS else "#clusters"


def _sides(number: int, pair: Duplicate, picture: Callable[..., _Figure]) -> list[_Figure]:
    """Pictures of both sides of a pair of near-duplicates."""
    length = "" if pair.num_pairs == 1 else f"{pair.num_pairs:,} matching spans, "
    name = f"{number}. {length}{pair.similarity_text}: "
    return [
        picture(side.rows[len(side.rows) // 2], text, (side.start_seconds, side.end_seconds))
        for side, text in ((pair.first, name), (pair.second, f"{number}. "))
    ]
