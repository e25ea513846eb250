"""``v3s explore`` from vectors to files: the tables, the list of what to label, the page, and what is refused."""

import csv
import re
import shutil
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

import v3s
from v3s.cli import main
from v3s.data.lists.splits import list_videos
from v3s.explore.explore import ExploreConfig, explore
from v3s.explore.spans import matrix_of
from v3s.files.writing import SaveError
from v3s.vectors.collection import Vectors, open_vectors, save_shard
from v3s.vectors.description import VectorsError
from v3s.vectors.embed import EmbedConfig, embed

QUIET = Console(quiet=True)
NAMES = {"index.html", "spans.csv", "duplicates.csv", "to_label.csv"}


@pytest.fixture(scope="module")
def stored(small_embedding: EmbedConfig, small_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Vectors:
    """Vectors of 17 videos, one of which is a copy with a name that no table or page may take literally."""
    folder = tmp_path_factory.mktemp("explore")
    shutil.copytree(small_videos, folder / "videos")
    source = sorted((folder / "videos").rglob("*.mp4"))[3]
    shutil.copy(source, folder / "videos" / '=a, "b"<i>&\n.mp4')
    return embed(replace(small_embedding, data=str(folder / "videos"), out=str(folder / "vectors")), console=QUIET)


@pytest.fixture(scope="module")
def spans(small_embedding: EmbedConfig, small_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Vectors:
    """Vectors of segments of 0.4 s of the 16 videos."""
    out = tmp_path_factory.mktemp("explore") / "segments"
    return embed(replace(small_embedding, out=str(out), segment=0.4), console=QUIET)


def test_the_folder_is_called_like_the_command_if_none_is_given(
    stored: Vectors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["explore", str(stored.folder), "--clusters=2", "--label=2"]) == 0
    assert (tmp_path / "explore/index.html").is_file()


def run(vectors: Vectors, out: Path, **options: Any) -> tuple[Path, str]:
    console = Console(file=StringIO(), width=200)
    page = explore(ExploreConfig(vectors=str(vectors.folder), out=str(out), **options), console=console)
    assert isinstance(console.file, StringIO)
    return page, console.file.getvalue()


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


def test_the_tables_have_a_row_per_vector_and_name_the_copy(stored: Vectors, tmp_path: Path) -> None:
    page, text = run(stored, tmp_path / "out", clusters=3, label=4)
    assert page == tmp_path / "out" / "index.html"
    assert {file.name for file in page.parent.iterdir()} == NAMES
    rows = rows_of(page.parent / "spans.csv")
    assert list(rows[0]) == ["path", "start", "end", "x", "y", "cluster", "outlier"]
    assert len(rows) == len(stored) == 17
    assert rows[5]["path"] == stored.place_of(5).entry.path or "=a" in rows[5]["path"]
    vectors = matrix_of(stored)
    np.testing.assert_allclose([[float(row["x"]), float(row["y"])] for row in rows], v3s.map_of(vectors), atol=1e-5)
    assert [int(row["cluster"]) - 1 for row in rows] == v3s.clusters_of(vectors, 3).tolist()
    np.testing.assert_allclose([float(row["outlier"]) for row in rows], v3s.outlier_scores(vectors), atol=1e-4)
    copies = rows_of(page.parent / "duplicates.csv")
    found = v3s.near_duplicates(stored)
    assert len(copies) == len(found) >= 1
    best = [row["first_path"] + row["second_path"] for row in copies if float(row["similarity"]) > 0.9999]
    assert sum("=a" in files for files in best) == 1
    assert f"{len(found)} near-duplicate" in text
    least = re.search(r"nearly the same vectors \(similarity of the best pair: ([\d.]+) or more", text)
    assert least is not None
    assert all(float(row["best_similarity"]) >= float(least[1]) - 0.001 for row in copies)
    assert "may show the same" in page.read_text()
    assert "17 vectors of 17 videos" in text


def test_other_commands_read_what_to_label(stored: Vectors, spans: Vectors, tmp_path: Path) -> None:
    page, _ = run(stored, tmp_path / "videos", label=17)
    distinct = len(v3s.choose_to_label(matrix_of(stored), 17))  # one of them is a copy of another
    listed = list_videos(page.parent / "to_label.csv")
    assert distinct == 16
    assert len({str(listed.root / path) for path in listed.paths}) == 16
    assert {str(listed.root / path) for path in listed.paths} < {stored.place_of(row).file for row in range(17)}
    assert listed.bounds == ()
    page, _ = run(spans, tmp_path / "spans", label=5)
    listed = list_videos(page.parent / "to_label.csv")
    chosen = [spans.place_of(row) for row in v3s.choose_to_label(matrix_of(spans), 5)]
    assert [str(listed.root / path) for path in listed.paths] == [place.file for place in chosen]
    times = [(place.start_seconds, place.end_seconds) for place in chosen]
    np.testing.assert_allclose(np.array(listed.bounds, np.float64), times, atol=1e-5)


def test_a_page_needs_no_script_and_no_other_file(stored: Vectors, tmp_path: Path) -> None:
    page, _ = run(stored, tmp_path / "out", label=3)
    html = page.read_text()
    assert "<script" not in html
    assert not re.search(r'(src|href)="(?!data:|#)', html)
    assert "<i>&" not in html
    assert "&lt;i&gt;&amp;\\n.mp4" in html
    anchors, links = set(re.findall(r'id="([^"]*)"', html)), set(re.findall(r'href="#([^"]*)"', html))
    assert links | {"clusters"} <= anchors  # where clusters without a part of their own lead
    assert html.count("data:image/jpeg") == html.count("<img")


def test_times_are_shown_for_spans_only(stored: Vectors, spans: Vectors, tmp_path: Path) -> None:
    assert "0:00:00.4 to" in run(spans, tmp_path / "spans")[0].read_text()
    assert "0:00:00.0 to" not in run(stored, tmp_path / "videos")[0].read_text()


def test_a_moved_video_is_a_grey_tile_with_the_reason(
    stored: Vectors, small_embedding: EmbedConfig, small_videos: Path, tmp_path: Path
) -> None:
    shutil.copytree(small_videos, tmp_path / "videos")
    vectors = embed(
        replace(small_embedding, data=str(tmp_path / "videos"), out=str(tmp_path / "vectors")), console=QUIET
    )
    gone = Path(vectors.place_of(2).file)
    gone.unlink()
    html = run(vectors, tmp_path / "out", label=16)[0].read_text()
    assert "data:image/svg+xml" in html
    assert "(no image: " in html
    shutil.rmtree(tmp_path / "videos")
    html = run(vectors, tmp_path / "all", label=16)[0].read_text()
    assert "data:image/jpeg" not in html


def test_of_many_points_some_are_drawn(stored: Vectors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(stored, tmp_path / "all", label=0)[0].read_text()
    monkeypatch.setattr(sys.modules["v3s.explore.explore_page"], "MOST_POINTS", 5)
    some = run(stored, tmp_path / "some", label=0)[0].read_text()
    assert "are drawn, chosen at random" not in whole
    assert "5 of 17 points are drawn, chosen at random." in some
    number = r'<path d="((?:M[^M]*)*)" fill="#'
    assert [sum(path.count("M") for path in re.findall(number, html)) for html in (whole, some)] == [17, 5]


def test_of_one_vector_nothing_is_said_that_needs_others(small_embedding: EmbedConfig, tmp_path: Path) -> None:
    data = sorted(Path(small_embedding.data).rglob("*.mp4"))[0]
    page, _ = run(
        embed(replace(small_embedding, data=str(data), out=str(tmp_path / "vectors")), console=QUIET), tmp_path / "o"
    )
    html = page.read_text()
    for said in ("No two files have nearly the same vectors.", "There is only one vector, so it has no neighbours.",
                 "1 cluster. ", "1 vector that stands for the collection"):  # fmt: skip
        assert said in html, said
    for wrong in ("0 pairs", "0.00: ", "largest first"):
        assert wrong not in html, wrong


def test_a_second_run_gives_the_same_files(stored: Vectors, tmp_path: Path) -> None:
    for name in ("one", "two"):
        run(stored, tmp_path / name, seed=3, map="tsne")
    for name in NAMES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_other_files_is_refused(overwrite: bool, stored: Vectors, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(ValueError, match="contains something else than v3s explore writes; give a new folder"):
        run(stored, tmp_path, overwrite=overwrite)
    assert [file.name for file in tmp_path.iterdir()] == ["index.html"]
    assert (tmp_path / "index.html").read_text() == "mine"


def test_a_page_is_replaced_and_labels_that_a_person_wrote_are_kept(stored: Vectors, tmp_path: Path) -> None:
    out = run(stored, tmp_path / "out", label=3)[0].parent
    with pytest.raises(ValueError, match="which has a page; give a new folder, or --overwrite to replace it"):
        run(stored, out)
    for changes in ({"label": 0}, {"label": 3}):
        run(stored, out, overwrite=True, **changes)
        assert {file.name for file in out.iterdir()} == NAMES
    proposed = (out / "to_label.csv").read_text()
    written = proposed.rstrip("\n") + "walk\n"
    (out / "to_label.csv").write_text(written)
    _, text = run(stored, out, overwrite=True, label=3)
    assert f"to_label.csv had labels; it is now {out / 'to_label-1.csv'}" in text
    assert (out / "to_label-1.csv").read_text() == written
    assert (out / "to_label.csv").read_text() == proposed


def test_vectors_of_nan_are_named(stored: Vectors, tmp_path: Path) -> None:
    vectors = tmp_path / "vectors"
    shutil.copytree(stored.folder, vectors)
    shard = replace(stored.shards[0], vectors=torch.full_like(stored.shards[0].vectors, torch.nan))
    save_shard(vectors, 0, shard, stored.description)
    with pytest.raises(VectorsError, match=r"vectors/shard-00000\.safetensors: contains NaN or infinity; run"):
        run(open_vectors(vectors), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_full_disk_leaves_no_half_page(
    stored: Vectors, tmp_path: Path, full_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    with full_disk(2000), pytest.raises(SaveError, match="cannot be written"):
        run(stored, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clusters": -1}, "clusters is -1; it must be 0 or more"),
        ({"label": -2}, "label is -2"),
        ({"label": 2001}, "label is 2001; at most 2,000 are proposed"),
        ({"similarity": 1.0}, "similarity is 1.0; it must be between 0 and 1"),
        ({"map": "umap"}, "map is 'umap'; it must be one of pca, tsne"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        ExploreConfig(**{"vectors": "v", "out": "o", **options})


def test_errors_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explore", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "contains no vectors" in error
    assert not (tmp_path / "out").exists()
