"""``v3s embed --append``: the state of a fresh embedding, whatever it began from and wherever it was killed."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from v3s.data.synthetic import make_clips
from v3s.features.encoder import Encoder
from v3s.files.writing import SaveError
from v3s.pages.images import mp4
from v3s.vectors import collection as collection_module
from v3s.vectors.collection import Vectors, open_vectors, shard_path
from v3s.vectors.description import VectorsError
from v3s.vectors.embed import EmbedConfig, embed
from v3s.vectors.merge import MergeConfig, merge
from v3s.vectors.search import SearchConfig, search

QUIET = Console(quiet=True)


@pytest.fixture
def data(small_videos: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_videos, tmp_path / "data"))


@pytest.fixture
def config(small_embedding: EmbedConfig, data: Path, tmp_path: Path) -> EmbedConfig:
    """One vector per clip, two clips of each of 16 videos, in shards of three videos."""
    return replace(
        small_embedding, data=str(data), out=str(tmp_path / "vectors"), num_clips=2, per_clip=True, shard_videos=3
    )


def printed(config: EmbedConfig) -> tuple[Vectors, str]:
    console = Console(file=StringIO(), width=200)
    vectors = embed(config, console=console)
    assert isinstance(console.file, StringIO)
    return vectors, console.file.getvalue()


def change(data: Path) -> None:
    """Add two videos, change one, remove two, rename one."""
    files = sorted(data.rglob("*.mp4"))
    make_clips(data / "new", num_videos=2, num_frames=30, height=48, width=64, seed=9)
    make_clips(data / "other", num_videos=1, num_frames=40, height=48, width=64, seed=10)
    next((data / "other").rglob("*.mp4")).replace(files[4])
    files[1].unlink()
    files[9].unlink()
    files[12].rename(files[12].with_name("renamed.mp4"))


def all_rows(vectors: Vectors) -> torch.Tensor:
    return torch.cat([shard.vectors for shard in vectors.shards]).float()


def assert_as_fresh(vectors: Vectors, config: EmbedConfig, tmp_path: Path) -> None:
    """The same list, places and description as an embedding of the whole, and its vectors up to rounding."""
    fresh = embed(replace(config, append=False, out=str(tmp_path / "fresh")), console=QUIET)
    ours, theirs = (replace(each.description, generation=0, num_gone=0) for each in (vectors, fresh))
    assert ours == theirs
    assert len(vectors.shards) == len(fresh.shards)
    for mine, other in zip(vectors.shards, fresh.shards, strict=True):
        assert all(torch.equal(getattr(mine, name), getattr(other, name)) for name in ("videos", "starts", "ends"))
    torch.testing.assert_close(all_rows(vectors), all_rows(fresh), atol=1e-3, rtol=0)
    assert (all_rows(vectors) == all_rows(fresh)).float().mean() > 0.9
    shutil.rmtree(tmp_path / "fresh")


def encoded_paths(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record which videos are encoded."""
    paths: list[str] = []
    encode_table = Encoder.encode_table

    def recorded(self: Encoder, table: Any, **options: Any) -> Iterator[tuple[int, torch.Tensor]]:
        for number, vectors in encode_table(self, table, **options):
            paths.append(Path(table[number].path).name)
            yield number, vectors

    monkeypatch.setattr(Encoder, "encode_table", recorded)
    return paths


def test_only_new_and_changed_videos_are_computed(
    config: EmbedConfig, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = embed(config, console=QUIET)
    changed = sorted(data.rglob("*.mp4"))[4].name
    removed = before.video(1).path
    change(data)
    paths = encoded_paths(monkeypatch)
    vectors, text = printed(replace(config, append=True))
    assert sorted(paths) == sorted(["clip_000.mp4", "clip_000.mp4", changed])
    assert "13 of 16 videos already embedded; new or changed: 3; gone from the list: 2" in text
    assert "32 vectors of 64 numbers (float16) from 16 videos" in text
    assert "; gone, not searched: 2" in text
    assert (vectors.description.generation, vectors.description.num_gone) == (1, 2)
    assert {open_vectors(vectors.folder / "gone.1").video(number).path for number in range(2)} >= {removed}
    assert_as_fresh(vectors, config, tmp_path)
    hits = search(
        SearchConfig(query=str(data / vectors.video(3).path), vectors=config.out, k=99, device="cpu"), console=QUIET
    )
    assert removed not in {hit.path for hit in hits}
    assert hits[0].path == vectors.video(3).path


def test_nothing_new_is_nothing_written(config: EmbedConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    embed(replace(config, append=True), console=QUIET)  # there is no folder yet: it is created
    dates = {path.name: path.stat().st_mtime_ns for path in Path(config.out).glob("*-*")}
    paths = encoded_paths(monkeypatch)
    vectors, text = printed(replace(config, append=True))
    assert (paths, vectors.description.generation) == ([], 0)
    assert "16 of 16 videos already embedded; new or changed: 0; gone from the list: 0" in text
    assert {path.name: path.stat().st_mtime_ns for path in Path(config.out).glob("*-*")} == dates


def test_videos_that_return_are_not_computed_again(
    config: EmbedConfig, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed(config, console=QUIET)
    away = tmp_path / "away"
    next(data.iterdir()).rename(away)
    assert embed(replace(config, append=True), console=QUIET).description.num_gone == 2
    make_clips(data / "new", num_videos=1, num_frames=30, height=48, width=64, seed=9)
    assert embed(replace(config, append=True), console=QUIET).description.num_gone == 2  # still kept
    away.rename(data / "back")
    paths = encoded_paths(monkeypatch)
    vectors = embed(replace(config, append=True), console=QUIET)
    assert (paths, vectors.description.num_gone) == ([], 0)
    assert not list(vectors.folder.glob("gone.*"))
    assert_as_fresh(vectors, config, tmp_path)


class Killed(BaseException):
    """In place of kill -9."""


def kill_at(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Stop before the n-th change of the folder: a file that gets its name, or one or a folder that is removed."""
    left = [number]

    def stopping(change: Callable[..., Any]) -> Callable[..., Any]:
        def stopped(*arguments: Any, **options: Any) -> Any:
            if ".lock" not in str(arguments[0]):
                if left[0] == 0:
                    raise Killed
                left[0] -= 1
            return change(*arguments, **options)

        return stopped

    monkeypatch.setattr(Path, "replace", stopping(Path.replace))
    monkeypatch.setattr(Path, "unlink", stopping(Path.unlink))
    monkeypatch.setattr(shutil, "rmtree", stopping(shutil.rmtree))


def test_a_run_killed_anywhere_leaves_the_old_or_the_new_state_and_resumes(
    config: EmbedConfig, data: Path, tmp_path: Path
) -> None:
    old = embed(config, console=QUIET)
    start = shutil.copytree(config.out, tmp_path / "start")
    change(data)
    seen, number = [], 0
    while True:
        shutil.rmtree(config.out)
        shutil.copytree(start, config.out)
        with pytest.MonkeyPatch.context() as patched:
            kill_at(patched, number)
            try:
                embed(replace(config, append=True), console=QUIET)
            except Killed:
                pass
            else:
                break
        state = open_vectors(config.out)
        seen.append(state.description.generation)
        if not seen[-1]:
            assert torch.equal(all_rows(state), all_rows(old))
        if number % 4 == 0:
            resumed = embed(replace(config, append=True), console=QUIET)
            assert resumed.description.generation == 1
            assert_as_fresh(resumed, config, tmp_path)
            names = {path.name.split(".")[0].split("-")[0] for path in resumed.folder.iterdir()}
            assert names == {"vectors", "videos", "shard", "gone"}
            assert not list(resumed.folder.glob("shard-?????.safetensors"))
        number += 1
    assert number > 20
    assert seen == sorted(seen)
    assert set(seen) == {0, 1}


@pytest.mark.parametrize("num_newer", [0, 1])
def test_what_a_killed_run_computed_is_used_for_its_list_and_for_another(
    config: EmbedConfig, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_newer: int
) -> None:
    embed(replace(config, shard_videos=1), console=QUIET)
    config = replace(config, append=True, shard_videos=1)
    make_clips(data / "new", num_videos=3, num_frames=30, height=48, width=64, seed=9)
    with pytest.MonkeyPatch.context() as patched:
        kill_at(patched, 8)  # description and list of the new videos, then two of them; two changes each
        with pytest.raises(Killed):
            embed(config, console=QUIET)
    if num_newer:
        make_clips(data / "newer", num_videos=1, num_frames=30, height=48, width=64, seed=11)
    paths = encoded_paths(monkeypatch)
    vectors, text = printed(config)
    assert len(paths) == 1 + num_newer
    assert f"18 of {19 + num_newer} videos already embedded" in text
    assert_as_fresh(vectors, config, tmp_path)


def test_an_incomplete_folder_and_a_damaged_shard_are_completed(config: EmbedConfig, tmp_path: Path) -> None:
    embed(config, console=QUIET)
    shard_path(Path(config.out), 1).unlink()
    damaged = shard_path(Path(config.out), 3)
    damaged.write_bytes(damaged.read_bytes()[:-7])
    vectors, text = printed(replace(config, append=True))
    assert "10 of 16 videos already embedded; new or changed: 6" in text
    assert f"recomputing a shard: {damaged}: damaged" in text
    assert_as_fresh(vectors, config, tmp_path)


def test_a_search_that_opened_the_old_state_opens_the_new_one(
    config: EmbedConfig, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed(config, console=QUIET)
    change(data)
    read_bytes, turns = collection_module.read_bytes, [0]  # type: ignore[attr-defined]

    def appended_meanwhile(path: Path, **options: Any) -> bytes:
        if path.name == "videos.jsonl" and path.parent == Path(config.out) and not turns[0]:
            turns[0] = 1
            monkeypatch.setattr(collection_module, "read_bytes", read_bytes)
            embed(replace(config, append=True), console=QUIET)
        return read_bytes(path, **options)

    monkeypatch.setattr(collection_module, "read_bytes", appended_meanwhile)
    assert open_vectors(config.out).description.generation == 1
    assert turns == [1]


def test_what_was_made_from_the_old_state_is_said(config: EmbedConfig, data: Path) -> None:
    embed(replace(config, export="npy"), console=QUIET)
    (Path(config.out) / "index.faiss").touch()
    change(data)
    vectors, text = printed(replace(config, append=True))
    assert f"removed {vectors.folder / 'vectors.npy'}, which is out of date" in text
    assert "index.faiss is out of date; build it again with v3s index --vectors" in text
    assert not (vectors.folder / "rows.csv").exists()


def test_an_index_of_the_old_state_is_refused(config: EmbedConfig, data: Path) -> None:
    pytest.importorskip("faiss", reason="needs the extra [ann]")
    from v3s.vectors.index import IndexConfig, index

    embed(config, console=QUIET)
    index(IndexConfig(vectors=config.out), console=QUIET)
    change(data)
    vectors = embed(replace(config, append=True), console=QUIET)
    query = SearchConfig(query=str(data / vectors.video(3).path), vectors=config.out, approximate=True, device="cpu")
    with pytest.raises(VectorsError, match="belongs to other vectors than the folder; build it again with v3s index"):
        search(query, console=QUIET)
    index(IndexConfig(vectors=config.out), console=QUIET)
    assert search(query, console=QUIET)[0].path == vectors.video(3).path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 1}, "another network or preprocessing"),
        ({"num_clips": 3}, "2 clips; now .* 3 clips"),
        ({"per_clip": False}, "with per_clip True, now False"),
        ({"dtype": "float32"}, "with dtype float16, now float32"),
    ],
)
def test_vectors_of_another_kind_are_not_appended(config: EmbedConfig, options: dict[str, Any], message: str) -> None:
    before = all_rows(embed(config, console=QUIET))
    with pytest.raises(VectorsError, match=message):
        embed(replace(config, append=True, **options), console=QUIET)
    assert torch.equal(all_rows(open_vectors(config.out)), before)


def test_another_collection_is_not_taken_for_a_changed_one(config: EmbedConfig, labelled_videos: Path) -> None:
    embed(config, console=QUIET)
    with pytest.raises(VectorsError, match="contains 16 videos, and none of them is in this list; --append takes the"):
        embed(replace(config, append=True, data=str(labelled_videos / "test")), console=QUIET)
    assert len(open_vectors(config.out)) == 32


def test_options_that_exclude_each_other() -> None:
    for options in ({"overwrite": True}, {"shard": "1/2"}):
        with pytest.raises(ValueError, match=f"--append and --{next(iter(options))} were given"):
            EmbedConfig(data="videos", out="vectors", backbone="run", append=True, **options)


def test_a_folder_of_an_earlier_version_is_refused_by_name(config: EmbedConfig) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("v3s.vectors.folder.content_of", lambda video: "")
        embed(config, console=QUIET)
    description = Path(config.out) / "vectors.json"
    values = json.loads(description.read_text())
    del values["generation"], values["num_gone"]
    description.write_text(json.dumps(values))
    assert len(open_vectors(config.out)) == 32
    with pytest.raises(VectorsError, match="written by an earlier version, which did not record what videos contain"):
        embed(replace(config, append=True), console=QUIET)


def test_a_full_disk_leaves_the_old_state(config: EmbedConfig, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = all_rows(embed(config, console=QUIET))
    change(data)
    write_bytes = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if ".1.safetensors" in path.name:
            raise OSError(28, os.strerror(28))
        return write_bytes(path, content)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        with pytest.raises(SaveError, match=r"shard-00000\.1\.safetensors cannot be written: No space left"):
            embed(replace(config, append=True), console=QUIET)
    assert torch.equal(all_rows(open_vectors(config.out)), before)
    assert embed(replace(config, append=True), console=QUIET).description.generation == 1


def test_an_appended_folder_is_resumed_merged_and_overwritten(
    config: EmbedConfig, data: Path, labelled_videos: Path, tmp_path: Path
) -> None:
    embed(config, console=QUIET)
    change(data)
    vectors = embed(replace(config, append=True), console=QUIET)
    shard_path(vectors.folder, 2, generation=1).unlink()
    resumed, text = printed(config)  # the same list, without --append
    assert "13 of 16 videos are already embedded" in text
    assert resumed.description == vectors.description
    part = embed(replace(config, data=str(labelled_videos / "test"), out=str(tmp_path / "part")), console=QUIET)
    merged = merge(MergeConfig(parts=(config.out, str(part.folder)), out=str(tmp_path / "merged")), console=QUIET)
    assert (merged.description.generation, merged.description.num_gone, len(merged)) == (0, 0, 48)
    (vectors.folder / "gone.txt").write_text("mine")
    (vectors.folder / "videos.1.jsonl").unlink()
    with pytest.raises(VectorsError, match=r"videos\.1\.jsonl: cannot be read .*; embed again with --overwrite$"):
        embed(replace(config, append=True), console=QUIET)
    (vectors.folder / "vectors.json").write_bytes(b"")
    embed(replace(config, overwrite=True, num_clips=1), console=QUIET)
    assert sorted(path.name for path in vectors.folder.iterdir()) == [
        "gone.txt", *(f"shard-0000{number}.safetensors" for number in range(6)), "vectors.json", "videos.jsonl"
    ]  # fmt: skip


def test_vectors_of_zeros_are_said(config: EmbedConfig, data: Path) -> None:
    _, text = printed(config)
    assert "of zeros" not in text
    (data / "black.mp4").write_bytes(mp4(np.zeros((20, 48, 64, 3), np.uint8), 25))
    _, text = printed(replace(config, append=True))
    assert (
        "2 vectors of zeros (black?), which nothing is similar to; the first: black.mp4, 0:00:00.0 to 0:00:00.3" in text
    )
