"""Vectors on disk: exact search over shards compared with a full sort, and all ways to damage a folder."""

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
from safetensors import safe_open
from torch import Tensor
from torch.nn import functional as F

from v3s.data.views import Resize, View
from v3s.explore.spans import table_of
from v3s.features.encoder import Feature, Space
from v3s.serve.catalogue import read_catalogue
from v3s.vectors.collection import open_vectors, save_shard, shard_path
from v3s.vectors.description import DTYPES, Description, VectorsError, read_description
from v3s.vectors.entries import Entry, Shard, entries_of, tabulate, video_lines
from v3s.vectors.folder import begin_folder

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
    """Write vectors (N, D) of invented videos; row r of a video is its clip of the frames 8 r to 8 r + 7."""
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
def test_search_over_shards_agrees_with_a_full_sort(folder: Path, k: int) -> None:
    queries = unit_vectors(6, 24, 1)
    neighbours = open_vectors(folder).nearest(queries, k)
    cosines = queries.double() @ unit_vectors(40, 24, 0).double().T
    expected = cosines.sort(dim=1, descending=True)
    assert torch.equal(neighbours.indices, expected.indices[:, :k])
    torch.testing.assert_close(neighbours.scores.double(), expected.values[:, :k], atol=1e-6, rtol=0)


def test_ties_are_in_order_of_their_rows(tmp_path: Path) -> None:
    values = torch.randint(0, 3, (50,), generator=torch.Generator().manual_seed(2))
    vectors = open_vectors(store_vectors(tmp_path / "vectors", torch.eye(3, 16)[values]))
    neighbours = vectors.nearest(torch.eye(3, 16), 30)
    expected = (torch.eye(3, 16) @ torch.eye(3, 16)[values].T).sort(dim=1, descending=True, stable=True)
    assert torch.equal(neighbours.indices, expected.indices[:, :30])


def test_half_precision_agrees_with_single_precision(tmp_path: Path) -> None:
    queries, stored = unit_vectors(10, 64, 3), unit_vectors(300, 64, 4)
    half, single = (
        open_vectors(store_vectors(tmp_path / dtype, stored, dtype=dtype)).nearest(queries, 10)
        for dtype in ("float16", "float32")
    )
    assert torch.equal(half.indices[:, 0], single.indices[:, 0])
    torch.testing.assert_close(half.scores, single.scores, atol=5e-4, rtol=0)


def test_a_vector_that_is_too_long_does_not_rank_before_a_copy(tmp_path: Path) -> None:
    """The length of a stored vector is not exactly 1; this must not decide near ties."""
    copy, other = unit_vectors(2, 32, 5)
    near = F.normalize(copy + 0.01 * other, dim=0)
    stored = torch.stack([1.001 * near, copy])
    assert (stored @ copy).argmax() == 0
    neighbours = open_vectors(store_vectors(tmp_path / "vectors", stored)).nearest(copy[None], 2)
    assert neighbours.indices.tolist() == [[1, 0]]
    assert float(neighbours.scores[0, 0]) == pytest.approx(1, abs=1e-6)


def test_missing_candidates_rank_last(folder: Path) -> None:
    neighbours = open_vectors(folder).best_of(unit_vectors(1, 24, 1), torch.tensor([[-1, 3, -1]]), 3)
    assert neighbours.indices.tolist() == [[3, -1, -1]]
    assert neighbours.scores[0, 1:].tolist() == [-torch.inf, -torch.inf]


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
    neighbours = open_vectors(folder).nearest(torch.eye(1, 512), 3)
    assert neighbours.indices.tolist() == [[0, 1, 2]]
    assert own_memory() - before < num_bytes / 2


def test_a_fingerprint_depends_on_weights_clips_and_feature() -> None:
    space = Space("a", View(), Feature())
    others = [
        replace(space, weights="b"),
        replace(space, view=View(stride=8)),
        replace(space, view=View(num_clips=9)),
        replace(space, view=View(resize=Resize(112, keeps_shape=True))),
        replace(space, view=View(clip_size=224)),
        replace(space, feature=Feature("conv4")),
        replace(space, feature=Feature(pool="max")),
    ]
    assert len({space.fingerprint, *(other.fingerprint for other in others)}) == 1 + len(others)
    assert Space("a", View(), Feature()).fingerprint == space.fingerprint


def test_the_description_is_read_as_it_was_written(folder: Path) -> None:
    description = read_description(folder)
    assert json.loads((folder / "vectors.json").read_text())["fingerprint"] == description.space.fingerprint
    assert description.num_shards == 6
    assert description.space.view == View(clip_frames=8, clip_size=32, stride=8)


def test_a_description_of_an_earlier_version_has_no_resizing(folder: Path) -> None:
    file, description = folder / "vectors.json", read_description(folder)
    values = json.loads(file.read_text())
    del values["space"]["view"]["resize"]
    file.write_text(json.dumps(values))
    assert read_description(folder) == description


def test_a_feature_is_of_a_stage_of_the_network(folder: Path) -> None:
    file = folder / "vectors.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"stages": {}}))
    with pytest.raises(
        VectorsError, match=r"vectors\.json: .*the feature's stage is conv5, and the network's are none"
    ):
        read_description(folder)


@pytest.mark.parametrize("num_bytes", [0, 5, 100, -1])
def test_a_truncated_shard_is_reported(folder: Path, num_bytes: int) -> None:
    path = shard_path(folder, 3)
    path.write_bytes(path.read_bytes()[:num_bytes])
    with pytest.raises(VectorsError, match=r"shard-00003\.safetensors: damaged .* run v3s embed again"):
        open_vectors(folder)


def test_a_missing_shard_is_reported(folder: Path) -> None:
    shard_path(folder, 5).unlink()
    with pytest.raises(VectorsError, match=r"shard-00005\.safetensors: missing; run v3s embed again"):
        open_vectors(folder)


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"weights": "1" * 64}, "network or preprocessing"),
        ({"shard_videos": 8}, "video list or storage format"),
    ],
)
def test_shards_of_two_folders_cannot_be_mixed(
    folder: Path, tmp_path: Path, change: dict[str, Any], difference: str
) -> None:
    other = store_vectors(tmp_path / "other", unit_vectors(40, 24, 0), **change)
    shutil.copy(shard_path(other, 1), shard_path(folder, 1))
    message = rf"shard-00001\.safetensors: belongs to a different {difference} than .* cannot be mixed"
    with pytest.raises(VectorsError, match=message):
        open_vectors(folder)


def test_a_shard_may_have_room_for_any_number_of_videos(tmp_path: Path) -> None:
    assert len(open_vectors(store_vectors(tmp_path / "vectors", unit_vectors(40, 24, 0), shard_videos=10**12))) == 40


@pytest.mark.parametrize(("source", "target"), [(0, 3), (3, 0), (4, 5)])
def test_a_copy_of_another_shard_is_noticed(folder: Path, source: int, target: int) -> None:
    shutil.copy(shard_path(folder, source), shard_path(folder, target))
    with pytest.raises(VectorsError, match=rf"shard-0000{target}\.safetensors: has vectors of other videos than shard"):
        open_vectors(folder)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("vectors.json", '"num_clips": 10', '"num_clips": 5', "was edited: its fingerprint does not match"),
        ("vectors.json", '"format": 1', '"format": 99', "has format 99; this version of v3s reads format 1"),
        ("vectors.json", '"dimension"', '"dimensions"', "dimensions is not known"),
        ("vectors.json", '"num_vectors": 40', '"num_vectors": 41', "contain 40 vectors, but vectors.json lists 41"),
        ("vectors.json", "{", "[", r"not JSON \(.*\); restore the file, or write it again"),
        ("videos.jsonl", "video_0002", "video_0003", "does not match vectors.json"),
    ],
)
def test_a_changed_file_is_reported(folder: Path, name: str, old: str, new: str, message: str) -> None:
    path = folder / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=message) as caught:
        open_vectors(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path": ""}, "path is '' and label None; neither may be empty"),
        ({"path": "a\0.mp4"}, "path is .*; it must be text"),
        ({"path": "\ud800.mp4"}, "path is .*; it must be text"),
        ({"path": 7}, "path is 7; it must be text"),
        ({"label": ""}, r"path is 'video_0002\.mp4' and label ''; neither may be empty"),
        ({"label": 3}, "label is 3; it must be text"),
        ({"num_frames": 0}, "num_frames is 0; it must be from 1 to"),
        ({"num_frames": 8.0}, r"num_frames is 8\.0; it must be a whole number"),
        ({"num_frames": 10**300}, r"num_frames is 1000.*; it must be a whole number"),
        ({"num_frames": 2**40}, "num_frames is 1099511627776; it must be from 1 to 2,147,483,647"),
        ({"seconds": -1.0}, "seconds is -1 and start_seconds 0; they must be from 0 to 1e"),
        ({"seconds": 1e308}, r"seconds is 1e\+308 and start_seconds 0"),
        ({"seconds": 10**400}, r"seconds is 1000.*; it must be a finite number"),
        ({"seconds": float("nan")}, "seconds is NaN; it must be a finite number"),
        ({"start_seconds": 1e300}, r"start_seconds 1e\+300; they must be from 0"),
        ({"content": None}, "content is null; it must be text"),
        ({"more": 1}, "more is not known"),
        ({"num_frames": 7}, "vector 2 ends with frame 8, and its video has 7"),
    ],
)
def test_a_forged_list_is_one_line_for_all_who_read_it(folder: Path, changes: dict[str, Any], message: str) -> None:
    """The SHA-256 of the list is forged, too."""
    listed, described = folder / "videos.jsonl", folder / "vectors.json"
    lines = [json.loads(line) for line in listed.read_text().splitlines()]
    lines[2] |= changes
    listed.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    values = json.loads(described.read_text()) | {"files_sha256": hashlib.sha256(listed.read_bytes()).hexdigest()}
    described.write_text(json.dumps(values))
    for number in range(read_description(folder).num_shards):  # shards have the stamp of their folder
        save_shard(folder, number, load_shard(folder, number), read_description(folder))
    vectors = open_vectors(folder)
    for read in (lambda: table_of(vectors), lambda: read_catalogue(vectors), lambda: vectors.place_of(2)):
        with pytest.raises(ValueError, match=message) as caught:
            read()
        assert "\n" not in str(caught.value)
        assert str(listed) in str(caught.value)


def load_shard(folder: Path, number: int) -> Shard:
    with safe_open(shard_path(folder, number), "pt") as file:
        return Shard(**{name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118


def test_a_list_is_read_as_it_was_written() -> None:
    entries = [
        Entry(f"päth {number}/{number % 7}\udcff.mp4", None if number % 3 else "ü", 5 + number, 0.5, "ab", number % 2)
        for number in range(25_000)
    ]
    assert list(entries_of(video_lines(entries), Path("videos.jsonl"))) == entries
    columns = tabulate(entries)
    assert [columns.files[file] for file in columns.file_of[:50]] == [entry.path for entry in entries[:50]]
    assert [columns.labels[label] if label >= 0 else None for label in columns.label_of[:9]] == ["ü", None, None] * 3
    assert columns.num_frames.tolist() == [entry.num_frames for entry in entries]
    assert columns.starts.tolist() == [entry.start_seconds for entry in entries]


def test_forged_lengths_are_refused(folder: Path) -> None:
    shard = load_shard(folder, 1)
    lengths = torch.ones(len(shard.videos))
    lengths[1] = -1
    save_shard(folder, 1, replace(shard, lengths=lengths), read_description(folder))
    with pytest.raises(VectorsError, match=r"shard-00001\.safetensors: does not fit .*vectors\.json"):
        open_vectors(folder)


def test_folders_without_vectors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(VectorsError, match="does not exist; give a folder of vectors"):
        open_vectors(tmp_path / "nowhere")
    with pytest.raises(VectorsError, match=r"contains no vectors \(.*\); create them with v3s embed"):
        open_vectors(tmp_path)
    with pytest.raises(VectorsError, match="contain 0 vectors"):
        open_vectors(store_vectors(tmp_path / "empty", torch.empty(0, 8)))


def test_a_k_out_of_range_is_refused(folder: Path) -> None:
    for k in (0, 41):
        with pytest.raises(ValueError, match=rf"k is {k}; it must be from 1 to 40, the number of vectors in"):
            open_vectors(folder).nearest(unit_vectors(1, 24, 0), k)


def test_a_folder_with_other_content_is_never_overwritten(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(VectorsError, match="not empty and does not contain vectors"):
            begin_folder(tmp_path / "notes", read_description(folder), b"", overwrite=overwrite)
    assert (tmp_path / "notes/thesis.tex").read_text() == "years of work"


def test_overwriting_removes_vectors_and_nothing_else(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")
    (folder / "vectors.npy").write_text("export of the old vectors")
    (folder / ".shard-00000.safetensors.77.part").write_text("from a killed run")
    store_vectors(folder, unit_vectors(9, 16, 0), overwrite=True)
    assert sorted(path.name for path in folder.iterdir()) == [
        "notes.txt", "shard-00000.safetensors", "shard-00001.safetensors", "vectors.json", "videos.jsonl"
    ]  # fmt: skip
    np.testing.assert_array_equal(open_vectors(folder).offsets, [0, 7, 9])


def test_overwriting_that_was_killed_begins_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    labels = folder / "labels" / "labels.csv"
    labels.parent.mkdir()
    labels.write_text("precious")
    with monkeypatch.context() as killed:
        killed.setattr("v3s.vectors.folder.write_files", die)
        with pytest.raises(KeyboardInterrupt):
            store_vectors(folder, unit_vectors(30, 24, 1), overwrite=True)
    with pytest.raises(VectorsError, match=r"videos\.jsonl: cannot be read .*; embed again"):
        open_vectors(folder)
    store_vectors(folder, unit_vectors(30, 24, 1), overwrite=True)
    assert (len(open_vectors(folder)), labels.read_text()) == (30, "precious")


def test_the_same_vectors_are_the_same_bytes(tmp_path: Path) -> None:
    """The order of metadata, too, which the library shuffles."""
    rows = F.normalize(torch.randn(3, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    written = {shard_path(store_vectors(tmp_path / f"{number}", rows), 0).read_bytes() for number in range(12)}
    assert len(written) == 1


@pytest.mark.parametrize("column", ["vectors", "lengths"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_numbers_that_are_not_finite_are_refused_by_the_name_of_their_file(
    tmp_path: Path, column: str, value: float, dtype: str
) -> None:
    """Also with a right checksum: every command refuses them alike, and merge and index never carry them on."""
    folder = store_vectors(tmp_path, unit_vectors(10, 8, seed=0), dtype=dtype)
    description = read_description(folder)
    shard = open_vectors(folder).shards[1]
    columns = {"vectors": shard.vectors.clone(), "lengths": torch.ones(len(shard.vectors))}
    columns[column][1] = abs(value) if column == "lengths" else value
    save_shard(folder, 1, replace(shard, **columns), description)
    with pytest.raises(VectorsError, match=r"shard-00001\.safetensors: contains NaN or infinity; run v3s embed again"):
        open_vectors(folder)
    assert len(open_vectors(folder, verify=False)) == 10
