"""Embedding a folder: files, resuming after a kill, refused folders, and exports."""

import csv
import json
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import save

from v3s.data.synthetic import make_clips
from v3s.features.encoder import Encoder
from v3s.vectors import embed as embed_module
from v3s.vectors.collection import Vectors, open_vectors, shard_path
from v3s.vectors.description import VectorsError
from v3s.vectors.embed import EmbedConfig, embed
from v3s.vectors.entries import Shard

QUIET = Console(quiet=True)


@pytest.fixture(autouse=True)
def _read_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scan in this process: starting other processes takes longer than reading these files."""
    monkeypatch.setattr("v3s.data.scan.default_workers", lambda: 0)


@pytest.fixture
def config(small_embedding: EmbedConfig, tmp_path: Path) -> EmbedConfig:
    """16 videos in four shards."""
    return replace(small_embedding, out=str(tmp_path / "vectors"), num_clips=2, shard_videos=5)


def all_rows(vectors: Vectors) -> torch.Tensor:
    return torch.cat([shard.vectors for shard in vectors.shards]).clone()


def printed(config: EmbedConfig) -> tuple[Vectors, str]:
    console = Console(file=StringIO(), width=200)
    vectors = embed(config, console=console)
    assert isinstance(console.file, StringIO)
    return vectors, console.file.getvalue()


def count_encoded(monkeypatch: pytest.MonkeyPatch, stop_after: int = 10**9) -> list[int]:
    """Record which videos are encoded; interrupt after some of them, like a kill."""
    numbers: list[int] = []
    encode_table = Encoder.encode_table

    def counted(self: Encoder, *arguments: Any, **options: Any) -> Iterator[tuple[int, torch.Tensor]]:
        for number, vectors in encode_table(self, *arguments, **options):
            if len(numbers) == stop_after:
                raise KeyboardInterrupt
            numbers.append(number)
            yield number, vectors

    monkeypatch.setattr(Encoder, "encode_table", counted)
    return numbers


def test_every_video_has_a_unit_vector(config: EmbedConfig) -> None:
    vectors, text = printed(config)
    assert len(vectors) == 16
    assert vectors.shards[0].vectors.dtype == torch.float16
    torch.testing.assert_close(all_rows(vectors).float().norm(dim=1), torch.ones(16), atol=1e-3, rtol=0)
    files = sorted(path.relative_to(config.data).as_posix() for path in Path(config.data).glob("*/*.mp4"))
    assert [vectors.video(number).path for number in range(16)] == files
    assert [vectors.video(number).label for number in range(16)] == [file.split("/")[0] for file in files]
    assert [vectors.span_of(row) for row in range(16)] == [(0, 40)] * 16
    assert [len(shard.vectors) for shard in vectors.shards] == [5, 5, 5, 1]
    assert "videos/s" in text
    assert f"16 vectors of 64 numbers (float16) from 16 videos in {config.out}" in text


def test_half_and_single_precision_agree(config: EmbedConfig, tmp_path: Path) -> None:
    half = embed(config, console=QUIET)
    single = embed(replace(config, out=str(tmp_path / "single"), dtype="float32"), console=QUIET)
    torch.testing.assert_close(all_rows(half).float(), all_rows(single), atol=5e-4, rtol=0)
    assert half.description.space.fingerprint == single.description.space.fingerprint


@pytest.mark.parametrize("options", [{"num_clips": 3}, {"stride": 7}])
def test_clip_vectors_average_to_the_video_vector(config: EmbedConfig, tmp_path: Path, options: dict[str, int]) -> None:
    """Only in direction, and exactly only if the features of the clips have equal lengths: so the mean is close."""
    config = replace(config, dtype="float32", **options)  # type: ignore[arg-type]
    whole = embed(config, console=QUIET)
    clips = embed(replace(config, out=str(tmp_path / "clips"), per_clip=True), console=QUIET)
    expected = [0, 16, 32] if "num_clips" in options else [0, 7, 14, 21, 28]
    assert [clips.span_of(row) for row in range(len(expected))] == [(start, start + 8) for start in expected]
    assert [clips.video_of(row) for row in range(len(clips))] == [v for v in range(16) for _ in expected]
    means = all_rows(clips).view(16, len(expected), -1).mean(dim=1)
    assert torch.cosine_similarity(means, all_rows(whole)).min() > 0.999


@pytest.mark.parametrize("stop_after", [0, 5, 12])
def test_a_stopped_run_resumes(
    config: EmbedConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int
) -> None:
    whole = all_rows(embed(replace(config, out=str(tmp_path / "whole")), console=QUIET))
    with monkeypatch.context() as patched:
        count_encoded(patched, stop_after)
        console = Console(file=StringIO(), width=200)
        with pytest.raises(KeyboardInterrupt):
            embed(config, console=console)
    assert isinstance(console.file, StringIO)
    num_saved = stop_after // 5 * 5
    assert f"{num_saved} of 16 videos are saved; continue with the same command" in console.file.getvalue()
    with pytest.raises(VectorsError, match="missing; run v3s embed again"):
        open_vectors(config.out)
    kept = {path.name: path.stat().st_mtime_ns for path in Path(config.out).glob("shard-*")}
    assert len(kept) == stop_after // 5
    encoded = count_encoded(monkeypatch)
    resumed, text = printed(config)
    assert encoded == list(range(5 * len(kept), 16))
    assert (f"{5 * len(kept)} of 16 videos are already embedded" in text) == bool(kept)
    assert {name: (Path(config.out) / name).stat().st_mtime_ns for name in kept} == kept
    torch.testing.assert_close(all_rows(resumed), whole, atol=1e-3, rtol=0)


def test_a_small_collection_is_saved_in_parts_and_a_folder_keeps_its_own(config: EmbedConfig, tmp_path: Path) -> None:
    new = embed(replace(config, shard_videos=None), console=QUIET)
    assert [len(shard.vectors) for shard in new.shards] == [10, 6]
    old = embed(replace(config, out=str(tmp_path / "old"), shard_videos=1000), console=QUIET)
    shard_path(old.folder, 0).unlink()
    for options in ({}, {"append": True}):
        again = embed(replace(config, out=str(old.folder), shard_videos=None, **options), console=QUIET)  # type: ignore[arg-type]
        assert again.description.shard_videos == 1000
    again = embed(replace(config, out=str(old.folder), shard_videos=None, overwrite=True), console=QUIET)
    assert again.description.shard_videos == 10


def test_missing_and_damaged_shards_are_recomputed(config: EmbedConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = all_rows(embed(config, console=QUIET))
    shard_path(Path(config.out), 0).unlink()
    damaged = shard_path(Path(config.out), 2)
    damaged.write_bytes(damaged.read_bytes()[:-7])
    encoded = count_encoded(monkeypatch)
    again, text = printed(config)
    assert encoded == [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]
    assert f"recomputing a shard: {damaged}: damaged" in text
    torch.testing.assert_close(all_rows(again), whole, atol=1e-3, rtol=0)


def test_a_complete_folder_is_not_recomputed(config: EmbedConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    embed(config, console=QUIET)
    encoded = count_encoded(monkeypatch)
    _, text = printed(config)
    assert encoded == []
    assert "16 of 16 videos are already embedded" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 1}, r"another network or preprocessing: r3d@0\.125 \(weights \w{8}\), conv5, mean, 8 frames"),
        ({"seed": 1}, r"2 clips; replace them with --overwrite"),
        ({"num_clips": 3}, r"2 clips; now .* 3 clips; to continue with them, give --num-clips 2; to have others, repl"),
        ({"num_clips": 1}, r"2 clips; now .* 1 clip; to continue with them, give --num-clips 2;"),
        ({"stride": 4}, r"2 clips; now .* stride 4; to continue with them, give --stride 0;"),
        ({"stage": "conv4", "fps": 5.0}, "conv5, .*; now .* conv4, .*, give --stage conv5 and omit --fps;"),
        ({"per_clip": True}, "with per_clip False, now True; to continue with them, omit --per-clip;"),
        ({"dtype": "float32"}, "with dtype float16, now float32"),
        ({"shard_videos": 6}, "with shard_videos 5, now 6"),
    ],
)
def test_other_vectors_are_never_added(config: EmbedConfig, options: dict[str, Any], message: str) -> None:
    before = all_rows(embed(config, console=QUIET))
    with pytest.raises(VectorsError, match=message):
        embed(replace(config, **options), console=QUIET)
    assert torch.equal(all_rows(open_vectors(config.out)), before)
    old = open_vectors(config.out).description
    embed(replace(config, **options, overwrite=True), console=QUIET)
    new = open_vectors(config.out).description
    assert (new.stamp != old.stamp, new.num_videos) == (True, 16)


def test_another_list_of_videos_is_refused(config: EmbedConfig, tmp_path: Path) -> None:
    make_clips(tmp_path / "videos", num_videos=8, num_frames=12, height=36, width=48)
    config = replace(config, data=str(tmp_path / "videos"), num_clips=1)
    embed(config, console=QUIET)
    next((tmp_path / "videos").glob("*/*.mp4")).unlink()
    with pytest.raises(VectorsError, match=r"another list of videos: .* 8 videos .*; now .* 7 videos"):
        embed(config, console=QUIET)
    assert len(embed(replace(config, overwrite=True), console=QUIET)) == 7


@pytest.mark.parametrize("engine", [None, "ray"])
def test_a_folder_that_is_taken_is_refused_before_a_video_is_read(
    config: EmbedConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: Any
) -> None:
    def read(*_: Any, **__: Any) -> None:
        raise AssertionError("the videos were read")

    embed(config, console=QUIET)
    make_clips(tmp_path / "others", num_videos=1, num_frames=12, height=36, width=48)
    for name in ("usable_videos", "begin_job"):
        monkeypatch.setattr(embed_module, name, read)
    config = replace(config, engine=engine)
    with pytest.raises(VectorsError, match=r"another list of videos: .* 16 videos .*; now .* 1 video"):
        embed(replace(config, data=str(tmp_path / "others")), console=QUIET)
    with pytest.raises(
        VectorsError, match="with shard_videos 5, now 6; to continue with them, give --shard-videos 5; "
    ):
        embed(replace(config, shard_videos=6), console=QUIET)
    if engine is None:
        with pytest.raises(VectorsError, match="another network or preprocessing"):
            embed(replace(config, seed=1, append=True), console=QUIET)
    with pytest.raises(VectorsError, match="is not empty and does not contain vectors"):
        embed(replace(config, out=str(tmp_path), overwrite=True), console=QUIET)
    with pytest.raises(AssertionError, match="the videos were read"):
        embed(config, console=QUIET)  # which may resume


def test_unreadable_videos_are_skipped_and_short_ones_are_counted(config: EmbedConfig, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    make_clips(videos, num_videos=8, num_frames=6, height=36, width=48)
    (videos / "broken.mp4").write_bytes(b"no video")
    vectors, text = printed(replace(config, data=str(videos)))
    assert len(vectors) == 8
    assert "skipped: broken.mp4: is not a video" in text
    assert "8 of 8 videos are shorter than a clip: their last frame is repeated" in text
    assert "; skipped: 1" in text
    written = json.loads((vectors.folder / "vectors.json").read_text())
    assert list(written["left_out"]) == ["broken.mp4"]
    assert written["num_padded"] == 8
    assert vectors.span_of(0) == (0, 6)


def test_max_pooling_keeps_positions(config: EmbedConfig) -> None:
    vectors = embed(replace(config, pool="max", clip_size=64), console=QUIET)
    assert vectors.description.dimension == 64 * 2 * 2  # 8 x 64 x 64 clips leave 1 x 4 x 4 in conv5
    assert vectors.shards[0].vectors.shape == (5, 256)


TIMES = "start_seconds", "end_seconds"


def read_rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_npy_export(config: EmbedConfig) -> None:
    vectors = embed(replace(config, export="npy", per_clip=True), console=QUIET)
    array = np.load(vectors.folder / "vectors.npy")
    assert (array.shape, array.dtype) == ((32, 64), np.float16)
    np.testing.assert_array_equal(array, all_rows(vectors).numpy())
    rows = read_rows(vectors.folder / "rows.csv")
    assert [(row["start_frame"], row["end_frame"]) for row in rows] == [("0", "8"), ("32", "40")] * 16
    assert [row["path"] for row in rows] == [vectors.video(number // 2).path for number in range(32)]
    assert rows[0]["label"] == rows[0]["path"].split("/")[0]
    assert float(rows[0]["seconds"]) == pytest.approx(vectors.video(0).seconds)
    for number, row in enumerate(rows):
        place = vectors.place_of(number)
        assert tuple(float(row[name]) for name in TIMES) == (place.start_seconds, place.end_seconds)


def test_csv_export(config: EmbedConfig) -> None:
    vectors = embed(replace(config, export="csv"), console=QUIET)
    rows = read_rows(vectors.folder / "vectors.csv")
    numbers = [[float(row[f"v{column}"]) for column in range(64)] for row in rows]
    assert torch.equal(torch.tensor(numbers).half(), all_rows(vectors))
    assert [row["num_frames"] for row in rows] == ["40"] * 16


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_parquet_export(config: EmbedConfig, dtype: Any) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra [parquet]")
    vectors = embed(replace(config, export="parquet", dtype=dtype), console=QUIET)
    table = parquet.read_table(vectors.folder / "vectors.parquet")
    assert table.column_names == [
        "path",
        "label",
        "start_frame",
        "end_frame",
        "num_frames",
        "seconds",
        *TIMES,
        "vector",
    ]
    np.testing.assert_array_equal(np.stack(table["vector"].to_numpy()), all_rows(vectors).numpy())
    assert table["path"].to_pylist() == [vectors.video(number).path for number in range(16)]


def test_parquet_without_pyarrow_fails_before_the_work(config: EmbedConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"pip install 'v3s\[parquet\]'"):
        embed(replace(config, export="parquet"), console=QUIET)
    assert not Path(config.out).exists()


def test_a_shard_is_written_atomically(config: EmbedConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the disk is full in the middle of a file, no incomplete shard remains."""
    write_bytes = Path.write_bytes

    def full_disk(path: Path, data: bytes) -> int:
        if path.name.startswith(".shard-"):
            write_bytes(path, data[: len(data) // 2])
            raise OSError("no space left")
        return write_bytes(path, data)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full_disk)
        with pytest.raises(OSError, match="no space left"):
            embed(config, console=QUIET)
    assert sorted(path.name for path in Path(config.out).iterdir()) == ["vectors.json", "videos.jsonl"]
    assert len(embed(config, console=QUIET)) == 16


def test_file_permissions_follow_the_umask(config: EmbedConfig) -> None:
    before = os.umask(0o027)
    try:
        folder = embed(config, console=QUIET).folder
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o640}


def test_workers_change_nothing(config: EmbedConfig, tmp_path: Path) -> None:
    without = embed(config, console=QUIET)
    with_workers = embed(replace(config, out=str(tmp_path / "workers"), workers=2), console=QUIET)
    assert torch.equal(all_rows(without), all_rows(with_workers))
    assert isinstance(with_workers.shards[0], Shard)


def test_counts_below_one_are_refused() -> None:
    for name in ("batch_size", "shard_videos"):
        with pytest.raises(ValueError, match=f"{name} is 0; it must be more than 0"):
            EmbedConfig(data="videos", out="vectors", backbone="run", **{name: 0})  # type: ignore[arg-type]


def test_backbones_are_stored_with_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path)
    assert embed_module.absolute_backbone("run") == str(tmp_path / "run")
    assert embed_module.absolute_backbone("random:run") == f"random:{tmp_path / 'run'}"
    assert embed_module.absolute_backbone("random:r3d@0.5") == "random:r3d@0.5"


def test_a_changed_number_or_a_shifted_row_is_reported(small_embedding: EmbedConfig, tmp_path: Path) -> None:
    config = replace(small_embedding, out=str(tmp_path / "vectors"), num_clips=1)
    before = all_rows(embed(config, console=QUIET))
    path = shard_path(tmp_path / "vectors", 0)
    for change in ("number", "row"):
        whole = path.read_bytes()
        changed = bytearray(whole)
        if change == "number":
            changed[-1000] ^= 1
        else:  # each video has the vector of the next
            size = before[1].nbytes
            start = whole.index(before[1].numpy().tobytes())
            changed[start - size : start] = whole[start : start + size]
        path.write_bytes(changed)
        with pytest.raises(VectorsError, match=r"shard-00000\.safetensors: damaged: .* checksum; run v3s embed again"):
            open_vectors(tmp_path / "vectors")
        assert torch.equal(all_rows(embed(config, console=QUIET)), before)  # computes the shard again
    with safe_open(path, "pt") as file:  # as an earlier version wrote it
        metadata = {name: value for name, value in file.metadata().items() if name != "checksum"}
        path.write_bytes(save({name: file.get_tensor(name) for name in file.keys()}, metadata))  # noqa: SIM118
    assert len(open_vectors(tmp_path / "vectors")) == 16


def test_swapped_contents_are_not_done_before(small_videos: Path, small_embedding: EmbedConfig, tmp_path: Path) -> None:
    data = shutil.copytree(small_videos, tmp_path / "data")
    config = replace(small_embedding, data=str(data), out=str(tmp_path / "vectors"), num_clips=1)
    embed(config, console=QUIET)
    first, second = sorted(data.rglob("*.mp4"))[:2]
    kept = first.read_bytes()
    shutil.copy(second, first)
    second.write_bytes(kept)
    names = ", ".join(str(path.relative_to(data)) for path in (first, second))
    with pytest.raises(VectorsError, match=rf"other versions of 2 files, which changed since then: {names}; bring"):
        embed(config, console=QUIET)
    embed(replace(config, overwrite=True), console=QUIET)
    lines = (tmp_path / "vectors/videos.jsonl").read_text().splitlines()
    assert all(len(json.loads(line)["content"]) == 16 for line in lines)


def test_a_folder_of_an_earlier_version_is_resumed(small_embedding: EmbedConfig, tmp_path: Path) -> None:
    """Its list has no contents; what is missing is computed, and the rest stays."""
    folder = tmp_path / "vectors"
    config = replace(small_embedding, out=str(folder), num_clips=1, shard_videos=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("v3s.vectors.folder.content_of", lambda video: "")
        embed(config, console=QUIET)
    before, date = (folder / "videos.jsonl").read_bytes(), shard_path(folder, 0).stat().st_mtime_ns
    assert b"content" not in before
    shard_path(folder, 1).unlink()
    embed(config, console=QUIET)
    assert (folder / "videos.jsonl").read_bytes() == before
    assert shard_path(folder, 0).stat().st_mtime_ns == date
