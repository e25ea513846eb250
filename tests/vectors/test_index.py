"""The approximate index: recall against exact search, and refusal of an index that belongs to other vectors."""

import json
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from v3s.vectors.collection import Vectors, open_vectors
from v3s.vectors.description import VectorsError
from v3s.vectors.embed import EmbedConfig, embed
from v3s.vectors.index import IndexConfig, choose_kind, index, measure_recall
from v3s.vectors.nearest.approximate import ApproximateIndex, open_index
from v3s.vectors.search import SearchConfig, search

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def config(small_embedding: EmbedConfig) -> EmbedConfig:
    """16 videos with a clip at every frame: 33 clips each."""
    return replace(small_embedding, stride=1, per_clip=True, shard_videos=5)


@pytest.fixture(scope="module")
def vectors(config: EmbedConfig, tmp_path_factory: pytest.TempPathFactory) -> Vectors:
    """528 vectors."""
    pytest.importorskip("faiss", reason="needs the extra [ann]")
    return embed(replace(config, out=str(tmp_path_factory.mktemp("vectors"))), console=QUIET)


def test_recall_is_measured_saved_and_printed(vectors: Vectors) -> None:
    console = Console(file=StringIO(), width=160)
    report = index(IndexConfig(vectors=str(vectors.folder), recall_queries=50, k=5), console=console)
    assert (report.kind, report.num_vectors, report.k, report.num_queries) == ("HNSW32,SQfp16", 528, 5, 50)
    assert 0.95 <= report.recall <= 1
    assert isinstance(console.file, StringIO)
    assert f"recall@5 {report.recall:.1%} (50 queries)" in console.file.getvalue()
    stored = json.loads((vectors.folder / "index.json").read_text())
    assert stored["recall"] == report.recall
    assert stored["fingerprint"] == vectors.description.space.fingerprint


def test_the_index_agrees_with_exact_search(vectors: Vectors) -> None:
    index(IndexConfig(vectors=str(vectors.folder), recall_queries=5), console=QUIET)
    queries = vectors.take(torch.arange(0, 528, 50))
    approximate, exact = open_index(vectors).nearest(queries, 10), vectors.nearest(queries, 10)
    assert (approximate.indices == exact.indices).float().mean() > 0.95
    torch.testing.assert_close(approximate.scores[:, 0], torch.ones(11), atol=1e-6, rtol=0)


def test_a_rough_index_still_finds_the_nearest(vectors: Vectors) -> None:
    """It proposes more rows than are wanted, and the exact cosine decides: codes of one byte put others first."""
    faiss = pytest.importorskip("faiss", reason="needs the extra [ann]")
    queries = vectors.take(torch.arange(528))
    rough = faiss.index_factory(vectors.description.dimension, "IVF4,PQ1")
    rough.train(queries.numpy())
    rough.add(queries.numpy())
    found = ApproximateIndex(vectors, rough).nearest(queries, 1).indices[:, 0]
    first = torch.from_numpy(rough.search(queries.numpy(), 1)[1])[:, 0]
    assert (first == torch.arange(528)).float().mean() < 0.7
    assert (found == torch.arange(528)).float().mean() > 0.95


def test_a_bad_index_has_low_recall(vectors: Vectors, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index that returns arbitrary rows has a low recall, since a query does not count as its own neighbour."""

    def first_rows(approximate: ApproximateIndex, queries: torch.Tensor, k: int) -> Any:
        return approximate.vectors.best_of(queries, torch.arange(k).expand(len(queries), k), k)

    monkeypatch.setattr(ApproximateIndex, "nearest", first_rows)
    report = measure_recall(
        ApproximateIndex(vectors, None), "none", 0.0, IndexConfig(vectors="", recall_queries=528, k=5)
    )
    assert report.recall < 0.1


def test_large_collections_use_compressed_lists(vectors: Vectors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("v3s.vectors.index.MAX_GRAPH_VECTORS", 500)
    report = index(IndexConfig(vectors=str(vectors.folder), recall_queries=50, k=5), console=QUIET)
    assert report.kind == "PCAR64,IVF128,PQ64np"
    assert report.recall > 0.9
    queries = vectors.take(torch.arange(3))
    neighbours = open_index(vectors).nearest(queries, 528)  # more than the probed lists contain
    assert torch.equal(neighbours.indices[:, 0], torch.arange(3))


@pytest.mark.parametrize(
    ("num_vectors", "dimension", "kind"),
    [
        (1_000_000, 512, "HNSW32,SQfp16"),
        (1_000_001, 512, "PCAR256,IVF4096,PQ64np"),
        (100_000_000, 9216, "PCAR256,IVF32768,PQ64np"),
        (2_000_000, 120, "PCAR120,IVF4096,PQ8np"),
    ],
)
def test_kind_by_size(num_vectors: int, dimension: int, kind: str) -> None:
    assert choose_kind(num_vectors, dimension) == kind


def test_search_through_the_index(vectors: Vectors, small_videos: Path) -> None:
    index(IndexConfig(vectors=str(vectors.folder), recall_queries=5), console=QUIET)
    path = vectors.video(6).path
    config = SearchConfig(query=str(small_videos / path), vectors=str(vectors.folder), k=4, device="cpu")
    exact = search(config, console=QUIET)
    approximate = search(replace(config, approximate=True), console=QUIET)
    assert approximate[0].path == path
    assert {hit.path for hit in approximate} == {hit.path for hit in exact}


def test_an_index_of_other_vectors_is_refused(config: EmbedConfig, vectors: Vectors, tmp_path: Path) -> None:
    index(IndexConfig(vectors=str(vectors.folder), recall_queries=5), console=QUIET)
    other = embed(replace(config, out=str(tmp_path / "other"), num_clips=1, stride=16), console=QUIET)
    for name in ("index.faiss", "index.json"):
        (other.folder / name).write_bytes((vectors.folder / name).read_bytes())
    with pytest.raises(VectorsError, match=r"index\.faiss: belongs to other vectors than the folder; build it again"):
        open_index(other)


def test_a_damaged_or_missing_index_is_reported(vectors: Vectors) -> None:
    index(IndexConfig(vectors=str(vectors.folder), recall_queries=5), console=QUIET)
    path = vectors.folder / "index.faiss"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(VectorsError, match=r"index\.faiss: damaged index"):
        open_index(open_vectors(vectors.folder))
    path.unlink()
    with pytest.raises(VectorsError, match=r"index\.faiss: does not exist; build it with v3s index --vectors"):
        open_index(vectors)


def test_without_faiss_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ValueError, match=r"pip install 'v3s\[ann\]'"):
        index(IndexConfig(vectors="vectors"), console=QUIET)
