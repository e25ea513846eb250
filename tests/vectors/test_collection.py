"""Vectors on disk: exact search over shards against a full sort, and every way in which a folder can be broken."""

import hashlib
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from v3s.data.views import View
from v3s.features.extract import Feature, Space
from v3s.vectors.collection import (
    DTYPES,
    Description,
    Entry,
    Shard,
    VectorsError,
    begin_folder,
    open_vectors,
    read_description,
    save_shard,
    shard_path,
    video_lines,
)

CLIP_FRAMES = 8


def store_vectors(
    folder: Path,
    vectors: Tensor,
    *,
    rows_per_video: int = 1,
    shard_videos: int = 7,
    dtype: str = "float32",
    weights: str = "0" * 64,
    overwrite: bool = False,
) -> Path:
    """Write vectors (N, D) of videos that do not exist; row r of a video is its clip of the frames 8 r to 8 r + 7."""
    num_videos = len(vectors) // rows_per_video
    num_frames = rows_per_video * CLIP_FRAMES
    lines = video_lines(Entry(f"video_{number:04d}.mp4", None, num_frames, 2.0) for number in range(num_videos))
    description = Description(
        backbone="random:r3d@0.125",
        seed=0,
        network="r3d@0.125",
        stages={"conv5": vectors.shape[1]},
        space=Space(weights, View(clip_frames=CLIP_FRAMES, clip_size=32, stride=CLIP_FRAMES), Feature()),
        per_clip=rows_per_video > 1,
        dimension=vectors.shape[1],
        dtype=dtype,
        root=str(folder),
        source=f"{num_videos} videos",
        files_sha256=hashlib.sha256(lines).hexdigest(),
        num_videos=num_videos,
        num_vectors=len(vectors),
        num_padded=0,
        num_missing=0,
        left_out={},
        shard_videos=shard_videos,
    )
    begin_folder(folder, description, lines, overwrite=overwrite)
    for number, rows in enumerate(torch.split(torch.arange(len(vectors)), shard_videos * rows_per_video)):
        starts = (rows % rows_per_video).int() * CLIP_FRAMES
        videos = (rows // rows_per_video).int()
        save_shard(
            folder, number, Shard(vectors[rows].to(DTYPES[dtype]), videos, starts, starts + CLIP_FRAMES), description
        )
    return folder


def unit_vectors(num_vectors: int, dimension: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(num_vectors, dimension, generator=torch.Generator().manual_seed(seed)), dim=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """40 vectors of 24 numbers in six shards."""
    return store_vectors(tmp_path / "vectors", unit_vectors(40, 24, 0))


@pytest.mark.parametrize("k", [1, 5, 40])
def test_search_over_shards_is_that_of_a_full_sort(folder: Path, k: int) -> None:
    queries = unit_vectors(6, 24, 1)
    found = open_vectors(folder).nearest(queries, k)
    cosines = queries.double() @ unit_vectors(40, 24, 0).double().T
    expected = cosines.sort(dim=1, descending=True)
    assert torch.equal(found.indices, expected.indices[:, :k])
    torch.testing.assert_close(found.scores.double(), expected.values[:, :k], atol=1e-6, rtol=0)


def test_equal_scores_come_in_order_of_their_rows(tmp_path: Path) -> None:
    kinds = torch.randint(0, 3, (50,), generator=torch.Generator().manual_seed(2))
    vectors = open_vectors(store_vectors(tmp_path / "vectors", torch.eye(3, 16)[kinds]))
    found = vectors.nearest(torch.eye(3, 16), 30)
    expected = (torch.eye(3, 16) @ torch.eye(3, 16)[kinds].T).sort(dim=1, descending=True, stable=True)
    assert torch.equal(found.indices, expected.indices[:, :30])


def test_half_precision_finds_what_single_precision_finds(tmp_path: Path) -> None:
    queries, stored = unit_vectors(10, 64, 3), unit_vectors(300, 64, 4)
    half, single = (
        open_vectors(store_vectors(tmp_path / dtype, stored, dtype=dtype)).nearest(queries, 10)
        for dtype in ("float16", "float32")
    )
    assert torch.equal(half.indices[:, 0], single.indices[:, 0])
    torch.testing.assert_close(half.scores, single.scores, atol=5e-4, rtol=0)


def test_a_vector_that_is_too_long_does_not_come_before_a_copy(tmp_path: Path) -> None:
    """The length of a stored vector is not exactly one: it must not decide between near equals."""
    copy, other = unit_vectors(2, 32, 5)
    near = F.normalize(copy + 0.01 * other, dim=0)
    stored = torch.stack([1.001 * near, copy])
    assert (stored @ copy).argmax() == 0
    found = open_vectors(store_vectors(tmp_path / "vectors", stored)).nearest(copy[None], 2)
    assert found.indices.tolist() == [[1, 0]]
    assert float(found.scores[0, 0]) == pytest.approx(1, abs=1e-6)


def test_candidates_that_are_none_come_last(folder: Path) -> None:
    found = open_vectors(folder).best_of(unit_vectors(1, 24, 1), torch.tensor([[-1, 3, -1]]), 3)
    assert found.indices.tolist() == [[3, -1, -1]]
    assert found.scores[0, 1:].tolist() == [-torch.inf, -torch.inf]


def test_rows_know_their_video_and_frames(tmp_path: Path) -> None:
    vectors = open_vectors(store_vectors(tmp_path / "vectors", unit_vectors(60, 8, 0), rows_per_video=3))
    assert len(vectors) == 60
    assert [vectors.video_of(row) for row in (0, 2, 3, 59)] == [0, 0, 1, 19]
    assert [vectors.span_of(row) for row in (0, 1, 59)] == [(0, 8), (8, 16), (16, 24)]
    assert [vectors.video(number).path for number in (0, 19)] == ["video_0000.mp4", "video_0019.mp4"]
    rows = torch.tensor([59, 0, 22, 22])
    torch.testing.assert_close(vectors.take(rows), unit_vectors(60, 8, 0)[rows])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_opened_vectors_stay_on_disk(tmp_path: Path) -> None:
    def own_memory() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024

    num_bytes = 60_000 * 512 * 2
    stored = torch.zeros(60_000, 512, dtype=torch.float16)
    stored[:, 0] = 1
    folder = store_vectors(tmp_path / "vectors", stored, dtype="float16", shard_videos=60_000)
    del stored
    before = own_memory()
    found = open_vectors(folder).nearest(torch.eye(1, 512), 3)
    assert found.indices.tolist() == [[0, 1, 2]]
    assert own_memory() - before < num_bytes / 2


def test_a_fingerprint_is_of_weights_clips_and_feature() -> None:
    space = Space("a", View(), Feature())
    others = [
        replace(space, weights="b"),
        *(replace(space, view=replace(View(), **change)) for change in ({"stride": 8}, {"num_clips": 9})),
        replace(space, view=View(clip_size=224)),
        replace(space, feature=Feature("conv4")),
        replace(space, feature=Feature(pool="max")),
    ]
    assert len({space.fingerprint, *(other.fingerprint for other in others)}) == 1 + len(others)
    assert Space("a", View(), Feature()).fingerprint == space.fingerprint


def test_description_survives_the_file(folder: Path) -> None:
    description = read_description(folder)
    assert json.loads((folder / "vectors.json").read_text())["fingerprint"] == description.space.fingerprint
    assert description.num_shards == 6
    assert description.space.view == View(clip_frames=8, clip_size=32, stride=8)


@pytest.mark.parametrize("num_bytes", [0, 5, 100, -1])
def test_a_truncated_shard_is_named(folder: Path, num_bytes: int) -> None:
    path = shard_path(folder, 3)
    path.write_bytes(path.read_bytes()[:num_bytes])
    with pytest.raises(VectorsError, match=r"shard-00003\.safetensors: damaged .* run v3s embed again"):
        open_vectors(folder)


def test_a_missing_shard_is_named(folder: Path) -> None:
    shard_path(folder, 5).unlink()
    with pytest.raises(VectorsError, match=r"shard-00005\.safetensors: missing; run v3s embed again"):
        open_vectors(folder)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"weights": "1" * 64}, "another network or preprocessing"),
        ({"shard_videos": 8}, "another list of videos, or stored otherwise,"),
    ],
)
def test_shards_of_two_folders_do_not_mix(folder: Path, tmp_path: Path, change: dict[str, Any], told: str) -> None:
    other = store_vectors(tmp_path / "other", unit_vectors(40, 24, 0), **change)
    shutil.copy(shard_path(other, 1), shard_path(folder, 1))
    with pytest.raises(VectorsError, match=rf"shard-00001\.safetensors: of {told} than .* cannot be mixed"):
        open_vectors(folder)


@pytest.mark.parametrize(
    ("name", "old", "new", "told"),
    [
        ("vectors.json", '"num_clips": 10', '"num_clips": 5', "changed by hand"),
        ("vectors.json", '"format": 1', '"format": 99', "format 1; embed again"),
        ("vectors.json", '"dimension"', '"dimensions"', "incomplete description"),
        ("vectors.json", '"num_vectors": 40', '"num_vectors": 41', "hold 40 vectors, vectors.json says 41"),
        ("vectors.json", "{", "[", "not JSON"),
        ("videos.jsonl", "video_0002", "video_0003", "not the list"),
    ],
)
def test_a_changed_file_is_named(folder: Path, name: str, old: str, new: str, told: str) -> None:
    path = folder / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=told) as caught:
        open_vectors(folder)
    assert str(folder) in str(caught.value)


def test_no_vectors(tmp_path: Path) -> None:
    with pytest.raises(VectorsError, match=r"no vectors there .* v3s embed writes them"):
        open_vectors(tmp_path)
    with pytest.raises(VectorsError, match="hold 0 vectors"):
        open_vectors(store_vectors(tmp_path / "empty", torch.empty(0, 8)))


def test_a_k_out_of_range_is_refused(folder: Path) -> None:
    for k in (0, 41):
        with pytest.raises(ValueError, match=rf"k = {k} vectors asked of the 40 in"):
            open_vectors(folder).nearest(unit_vectors(1, 24, 0), k)


def test_a_folder_of_something_else_is_never_overwritten(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(VectorsError, match="not empty and holds no vectors"):
            begin_folder(tmp_path / "notes", read_description(folder), b"", overwrite=overwrite)
    assert (tmp_path / "notes/thesis.tex").read_text() == "years of work"


def test_overwriting_removes_vectors_and_nothing_else(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")
    (folder / "vectors.npy").write_text("of the old ones")
    (folder / ".shard-00000.safetensors.77.part").write_text("of a killed run")
    store_vectors(folder, unit_vectors(9, 16, 0), overwrite=True)
    assert sorted(path.name for path in folder.iterdir()) == [
        "notes.txt", "shard-00000.safetensors", "shard-00001.safetensors", "vectors.json", "videos.jsonl"
    ]  # fmt: skip
    np.testing.assert_array_equal(open_vectors(folder).offsets, [0, 7, 9])
