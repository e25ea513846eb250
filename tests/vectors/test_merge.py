"""Merging vectors: the parts of a list give the list's own folder, and incompatible vectors are refused."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from v3s.cli import main, read_config
from v3s.data.lists.splits import list_videos
from v3s.data.synthetic import make_clips
from v3s.files.writing import partial_path
from v3s.vectors.collection import Vectors, open_vectors, shard_path
from v3s.vectors.description import VectorsError
from v3s.vectors.embed import EmbedConfig, embed, take_shard
from v3s.vectors.merge import MergeConfig, merge

QUIET = Console(quiet=True)


@pytest.fixture
def config(small_embedding: EmbedConfig, tmp_path: Path) -> EmbedConfig:
    """16 videos, two vectors each, in shards of three videos."""
    return replace(small_embedding, out=str(tmp_path / "whole"), num_clips=2, per_clip=True, shard_videos=3)


def embed_parts(config: EmbedConfig, count: int) -> tuple[str, ...]:
    folders = tuple(f"{config.out}-{number}" for number in range(1, count + 1))
    for number, folder in enumerate(folders, start=1):
        embed(replace(config, out=folder, shard=f"{number}/{count}"), console=QUIET)
    return folders


def rows(vectors: Vectors) -> torch.Tensor:
    return torch.cat([shard.vectors for shard in vectors.shards])


@pytest.mark.parametrize("count", [2, 5])
def test_the_parts_of_a_list_give_the_folder_of_the_list(config: EmbedConfig, tmp_path: Path, count: int) -> None:
    """Equal to the bit, except for the line that describes the source."""
    whole = embed(config, console=QUIET)
    merged = merge(MergeConfig(parts=embed_parts(config, count), out=str(tmp_path / "all")), console=QUIET)
    assert sorted(path.name for path in merged.folder.iterdir()) == sorted(path.name for path in whole.folder.iterdir())
    assert torch.equal(rows(merged), rows(whole))
    for number in range(whole.description.num_shards):
        ours, theirs = merged.shards[number], whole.shards[number]
        assert all(torch.equal(getattr(ours, name), getattr(theirs, name)) for name in ("videos", "starts", "ends"))
    assert (merged.folder / "videos.jsonl").read_bytes() == (whole.folder / "videos.jsonl").read_bytes()
    assert replace(merged.description, source=whole.description.source) == whole.description


@pytest.mark.parametrize("count", range(1, 17))
def test_consecutive_parts_make_up_the_list_and_none_is_empty(small_videos: Path, count: int) -> None:
    listed = list_videos(small_videos)
    parts = [take_shard(listed, number, count) for number in range(1, count + 1)]
    assert tuple(path for part in parts for path in part.paths) == listed.paths
    assert tuple(label for part in parts for label in part.labels) == listed.labels
    assert min(map(len, parts)) >= 1


def test_parts_have_nearly_equal_numbers_of_frames(tmp_path: Path) -> None:
    """A part has its share, and less than one video more."""
    for number in range(30):
        (tmp_path / f"{number:02}.mp4").write_bytes(bytes(300_000 if number == 3 else 10_000 + 100 * number))
    listed = list_videos(tmp_path)
    assert [len(take_shard(listed, number, 2)) for number in (1, 2)] == [4, 26]
    sizes = [sum((tmp_path / path).stat().st_size for path in take_shard(listed, n, 3).paths) for n in (1, 2, 3)]
    assert max(sizes) < 340_000  # ten videos each would be 394,200


def test_more_parts_than_videos_are_refused(small_videos: Path) -> None:
    with pytest.raises(ValueError, match=r"16 videos .* cannot be divided into 17 parts"):
        take_shard(list_videos(small_videos), 1, 17)


@pytest.mark.parametrize("shard", ["0/4", "5/4", "2", "a/b", "1/0", "-1/4"])
def test_invalid_shards_are_refused(shard: str) -> None:
    with pytest.raises(ValueError, match="it must be i/n, from 1/n to n/n"):
        EmbedConfig(data="videos", out="vectors", backbone="run", shard=shard)


def test_vectors_of_videos_in_two_folders(config: EmbedConfig, tmp_path: Path) -> None:
    """Paths are then relative to the common parent of both folders, and still lead to the files; counts are sums."""
    for name, seed, num_frames in (("a", 1, 12), ("b", 2, 7)):  # a clip has 8 frames
        make_clips(tmp_path / name, num_videos=2, num_frames=num_frames, height=36, width=48, seed=seed)
        (tmp_path / name / "broken.mp4").write_bytes(b"no video")
        listed = [str(path.relative_to(tmp_path / name)) for path in sorted((tmp_path / name).rglob("*.mp4"))]
        listed += [f"gone-{number}.mp4" for number in range(seed)]
        (tmp_path / name / "list.txt").write_text("\n".join(listed))
        part = replace(config, data=str(tmp_path / name / "list.txt"), out=str(tmp_path / f"{name}-vectors"))
        embed(replace(part, allow_missing=True), console=QUIET)
    parts = (str(tmp_path / "a-vectors"), str(tmp_path / "b-vectors"))
    merged = merge(MergeConfig(parts=parts, out=str(tmp_path / "all")), console=QUIET)
    paths = [merged.video(number).path for number in range(4)]
    assert [path.split("/")[0] for path in paths] == ["a", "a", "b", "b"]
    assert all((Path(merged.description.root) / path).is_file() for path in paths)
    assert list(merged.description.left_out) == ["a/broken.mp4", "b/broken.mp4"]
    assert (merged.description.num_padded, merged.description.num_missing) == (2, 3)


def test_incompatible_parts_are_refused(config: EmbedConfig, tmp_path: Path) -> None:
    first, second = embed_parts(config, 2)
    both = MergeConfig(parts=(first, second), out=str(tmp_path / "all"))
    other = embed(replace(config, out=str(tmp_path / "other"), seed=1, shard="2/2"), console=QUIET)
    with pytest.raises(VectorsError, match="cannot be mixed: fingerprint"):
        merge(replace(both, parts=(first, str(other.folder))), console=QUIET)
    single = embed(replace(config, out=str(tmp_path / "single"), dtype="float32", shard="2/2"), console=QUIET)
    with pytest.raises(VectorsError, match="cannot be mixed: dtype float16 and float32"):
        merge(replace(both, parts=(first, str(single.folder))), console=QUIET)
    embed(replace(config, out=f"{config.out}-3"), console=QUIET)
    with pytest.raises(VectorsError, match=r"\.mp4 is in both .*whole-1 and .*whole-3"):
        merge(replace(both, parts=(first, f"{config.out}-3")), console=QUIET)
    with pytest.raises(VectorsError, match=r"\.mp4 is in both .*whole-1 and .*whole-1; keep it in only one of them"):
        merge(replace(both, parts=(first, first)), console=QUIET)
    with pytest.raises(ValueError, match="is one of the parts"):
        merge(replace(both, out=second), console=QUIET)
    with pytest.raises(ValueError, match=r"merge joins two or more folders .* but only .* was given; name all of them"):
        merge(replace(both, parts=(first,)), console=QUIET)
    shard_path(Path(second), 1).unlink()
    with pytest.raises(VectorsError, match="missing; run v3s embed again"):
        merge(both, console=QUIET)
    assert not (tmp_path / "all").exists()


def test_parts_of_a_list_of_spans_may_share_a_file(config: EmbedConfig, tmp_path: Path) -> None:
    """A part ends between two spans of a file: together they are the whole list, and no span is there twice."""
    paths = sorted(str(path) for path in Path(config.data).rglob("*.mp4"))[:2]
    spans = [f"{path},{start},{start + 0.5}\n" for path in paths for start in (0, 0.5, 1)]
    (tmp_path / "spans.csv").write_text("".join(["path,start,end\n", *spans]))
    config = replace(config, data=str(tmp_path / "spans.csv"))
    parts, whole = embed_parts(config, 3), embed(config, console=QUIET)
    assert torch.equal(rows(merge(MergeConfig(parts=parts, out=str(tmp_path / "all")), console=QUIET)), rows(whole))
    with pytest.raises(VectorsError, match="is in both"):
        merge(MergeConfig(parts=(*parts, parts[0]), out=str(tmp_path / "twice")), console=QUIET)


def test_a_stopped_merge_resumes(config: EmbedConfig, tmp_path: Path) -> None:
    both = MergeConfig(parts=embed_parts(config, 2), out=str(tmp_path / "all"))
    before = rows(merge(both, console=QUIET)).clone()
    shard_path(tmp_path / "all", 2).unlink()
    assert torch.equal(rows(merge(both, console=QUIET)), before)


def test_the_next_merge_removes_what_a_killed_one_left(config: EmbedConfig, tmp_path: Path) -> None:
    parts = embed_parts(config, 2)
    for process in (2**22 + 1, os.getpid()):  # no such process; one with the number of this one
        left = partial_path(tmp_path / "whole", process)
        (left / "0").mkdir(parents=True)
        (left / "0" / "rows").touch()
    merge(MergeConfig(parts=parts, out=config.out), console=QUIET)
    assert {path.name for path in tmp_path.iterdir()} == {"whole-1", "whole-2", "whole"}


def test_on_the_command_line(config: EmbedConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = embed_parts(config, 2)
    assert read_config("merge", MergeConfig, ["a, b", "[c]", "--out", "x"]).parts == ("a, b", "[c]")
    assert main(["merge", *parts, "--out", str(tmp_path / "all")]) == 0
    assert "merged 2 folders: 32 vectors of 16 videos" in capsys.readouterr().out
    assert json.loads((tmp_path / "all/vectors.json").read_text())["num_videos"] == 16
    assert len(open_vectors(tmp_path / "all")) == 32
