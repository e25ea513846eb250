"""``v3s explore``: a collection as one page and as tables: map, clusters, near-duplicates, outliers, what to label."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from rich.console import Console

from v3s.explore.exploration import Exploration, examine
from v3s.explore.explore_page import explore_page
from v3s.explore.projection import MOST_FOR_TSNE
from v3s.explore.spans import matrix_of, table_of
from v3s.explore.tables import PAGE, SPANS, TO_LABEL, write_exploration
from v3s.explore.to_label import MOST_TO_LABEL
from v3s.files.lock import is_free, only_writer
from v3s.files.text import counted, say
from v3s.options import CheckedOptions, require_folders, require_not_negative, require_seed
from v3s.vectors.collection import open_vectors
from v3s.vectors.query import place_opener


@dataclass(frozen=True, kw_only=True)
class ExploreConfig(CheckedOptions):
    """Show a collection as one page and as tables: a map, clusters, near-duplicates, outliers, what to label next.

    Writes index.html, spans.csv (path, start, end, x, y, cluster, outlier), duplicates.csv and to_label.csv, a list of
    videos that every command takes as DATA, with a column for your labels. A million vectors need memory for
    themselves and little more: clusters are found from 20,000 of them, the nearest vectors are looked for in the 8
    nearest of many cells, and the page draws 5,000 points.

    Attributes:
        vectors: Folder of the vectors that v3s embed wrote.
        out: Folder for the page and the tables.
        map: pca shows where the collection differs most, at once; tsne shows neighbourhoods (pip install
            'v3s[explore]'; 50,000 vectors at most).
        clusters: Number of clusters, by k-means; 0 finds the number by HDBSCAN (pip install 'v3s[explore]'). Default:
            the root of half the number of vectors, at most 30.
        label: Number of videos or spans to propose for labelling, at most 2,000.
        overwrite: Replace the page and the tables in the folder; a to_label.csv with labels is kept under another name.

    More options:
        similarity: How similar near-duplicates are at least: 1 is a copy, 0 an average pair of this collection.
            Default: 0.95, up to 0.99 where unrelated spans are similar, too.
        seed: Seed of the clusters, of the samples and of tsne.
    """

    vectors: Annotated[str, "VECTORS", "--in"]
    out: str = "explore"
    map: Literal["pca", "tsne"] = "pca"
    clusters: int | None = None
    label: int = 50
    similarity: float | None = None
    seed: int = 0
    overwrite: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_folders(self, "out")
        require_not_negative(self, "clusters", "label")
        if self.label > MOST_TO_LABEL:
            raise ValueError(f"label is {self.label}; at most {MOST_TO_LABEL:,} are proposed")
        if self.similarity is not None and not 0 < self.similarity < 1:
            raise ValueError(f"similarity is {self.similarity}; it must be between 0 and 1")
        require_seed(self)


def explore(config: ExploreConfig, *, console: Console | None = None) -> Path:
    """Write the page and the tables of a collection.

    Args:
        config: which vectors, where to write.
        console: where to report; the terminal by default.

    Returns:
        The path of the page.

    Raises:
        ValueError: the vectors are damaged or not finite, the folder is not empty, or an extra is not installed.
        SaveError: a file cannot be written; what was there before is unchanged.
    """
    console, folder = console or Console(), Path(config.out)
    with only_writer(folder):
        _check_folder(folder, config.overwrite)
        collection = open_vectors(config.vectors)
        vectors, table = matrix_of(collection), table_of(collection)
        if config.map == "tsne" and len(vectors) > MOST_FOR_TSNE:
            raise ValueError(
                f"map is tsne, for {MOST_FOR_TSNE:,} vectors at most; there are {len(vectors):,}: give pca"
            )
        found = examine(
            vectors,
            table,
            method=config.map,
            num_clusters=config.clusters,
            num_to_label=config.label,
            least_similarity=config.similarity,
            seed=config.seed,
        )
        say(console, *_summary(found, collection.description.source))
        opener = place_opener(collection)
        shown = explore_page(collection, vectors, found, opener, seed=config.seed, console=console)
        kept = write_exploration(folder, found, shown, Path(collection.description.root))
        if kept is not None:
            say(console, f"{TO_LABEL} had labels; it is now {kept}")
    return folder / PAGE


def _check_folder(folder: Path, overwrite: bool) -> None:
    """Refuse a folder in which nothing may be replaced, or which has other things than v3s explore writes."""
    if folder.is_dir() and not is_free(folder):
        if not ((folder / PAGE).is_file() and (folder / SPANS).is_file()):
            raise ValueError(
                f"out is {folder}, which contains something else than v3s explore writes; give a new folder"
            )
        if not overwrite:
            raise ValueError(f"out is {folder}, which has a page; give a new folder, or --overwrite to replace it")


def _summary(found: Exploration, source: str) -> list[str]:
    spans, files = counted(len(found.points), "vector"), counted(len(found.table.files), "video")
    num_clusters = int(found.clusters.max()) + 1
    outside = int((found.clusters < 0).sum())
    return [
        f"{spans} of {files} ({source})",
        counted(num_clusters, "cluster") + (f", {counted(outside, 'vector')} in none" if outside else ""),
        counted(len(found.duplicates), "near-duplicate"),
        f"near-duplicates have nearly the same vectors (similarity of the best pair: {found.least_similarity:.3f} or "
        "more; 1 is a copy, 0 an average pair) and may show the same; look at them before you remove one",
    ]
