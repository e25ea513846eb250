"""Recipes of docs/scale.md: the Parquet of --export in Qdrant and LanceDB gives the first ten that v3s finds."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from v3s.vectors.collection import Vectors
from v3s.vectors.embed import EmbedConfig, embed

parquet = pytest.importorskip("pyarrow.parquet", reason="the export is Parquet: pip install 'v3s[parquet]'")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def exported(small_embedding: EmbedConfig, tmp_path: Path) -> tuple[Vectors, Any]:
    """Five spans of each of 16 videos, and the table of their Parquet."""
    config = replace(small_embedding, out=str(tmp_path / "vectors"), stride=8, per_clip=True, export="parquet")
    vectors = embed(config, console=Console(quiet=True))
    return vectors, parquet.read_table(Path(config.out) / "vectors.parquet")


def first_ten(vectors: Vectors, query: torch.Tensor, label: str) -> tuple[list[int], torch.Tensor]:
    """The rows of a class that are most similar to a query, by v3s's own search, and their similarities."""
    found = vectors.nearest(query[None], len(vectors))
    keep = [place for place, row in enumerate(found.indices[0].tolist()) if vectors.place_of(row).entry.label == label]
    return found.indices[0, keep[:10]].tolist(), found.scores[0, keep[:10]]


def query_and_label(vectors: Vectors) -> tuple[torch.Tensor, str]:
    label = vectors.video(3).label
    assert label is not None
    return vectors.take(torch.tensor([7]))[0], label


def assert_first_ten(rows: list[int], vectors: Vectors, query: torch.Tensor, label: str) -> None:
    """The same rows in the same order, but for near ties: single precision is exact to 1e-6."""
    expected, scores = first_ten(vectors, query, label)
    assert len(rows) == len(set(rows)) == len(expected)
    ours = vectors.take(torch.tensor(rows)) @ query
    torch.testing.assert_close(ours, scores, atol=2e-6, rtol=0)
    assert {vectors.place_of(row).entry.label for row in rows} == {label}


def test_qdrant(exported: tuple[Vectors, Any]) -> None:
    qdrant = pytest.importorskip("qdrant_client", reason="pip install qdrant-client")
    vectors, table = exported
    query, label = query_and_label(vectors)
    models, client = qdrant.models, qdrant.QdrantClient(":memory:")  # or url="http://localhost:6333"
    size = models.VectorParams(size=len(query), distance=models.Distance.COSINE)
    client.create_collection("videos", vectors_config=size)
    for start in range(0, len(table), 1000):
        rows = table.slice(start, 1000).to_pylist()
        points = [
            models.PointStruct(id=start + number, vector=list(map(float, row.pop("vector"))), payload=row)
            for number, row in enumerate(rows)
        ]
        client.upsert("videos", points)
    wanted = models.Filter(must=[models.FieldCondition(key="label", match=models.MatchValue(value=label))])
    found = client.query_points("videos", query=query.tolist(), query_filter=wanted, limit=10).points
    assert_first_ten([point.id for point in found], vectors, query, label)


def test_lancedb(exported: tuple[Vectors, Any], tmp_path: Path) -> None:
    lancedb = pytest.importorskip("lancedb", reason="pip install lancedb")
    arrow = pytest.importorskip("pyarrow")
    vectors, table = exported
    query, label = query_and_label(vectors)
    numbers = arrow.array(range(len(table)), arrow.int64())
    stored = lancedb.connect(tmp_path / "lance").create_table("videos", table.append_column("row", numbers))
    found = stored.search(query.tolist(), vector_column_name="vector").distance_type("cosine")
    rows = found.where(f"label = '{label}'", prefilter=True).limit(10).to_list()
    assert_first_ten([row["row"] for row in rows], vectors, query, label)
