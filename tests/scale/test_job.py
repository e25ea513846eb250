"""The unit of work and a job's folder: rows are those of one process, to the bit, whoever computes them, how often."""

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from v3s.data.lists.splits import VideoList, list_videos
from v3s.data.synthetic import make_clips
from v3s.features.encoder import Encoder, load_encoder
from v3s.scale import engine
from v3s.scale.job import (
    all_videos,
    begin_job,
    missing_parts,
    part_path,
    part_videos,
    read_job,
    read_outcomes,
    remove_job,
)
from v3s.scale.segments import segments
from v3s.vectors.collection import Vectors, open_vectors
from v3s.vectors.embed import EmbedConfig, embed
from v3s.vectors.merge import MergeConfig, merge
from v3s.video.container import Failure

pytest.importorskip("pyarrow", reason="the rows of an engine are Parquet: pip install 'v3s[parquet]'")
QUIET = Console(quiet=True)


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Nine videos, one of which cannot be read; a name that is not UTF-8; and a list of spans of the others."""
    folder = tmp_path / "videos"
    make_clips(folder, num_videos=8, num_frames=50, height=36, width=48, seed=3)
    (folder / "broken.mp4").write_bytes(b"no video")
    first = min(folder.glob("*/*.mp4"))
    first.rename(first.with_name(os.fsdecode(b"\xff name.mp4")))
    return folder


@pytest.fixture
def config(videos: Path, tmp_path: Path) -> EmbedConfig:
    """Two vectors a video, of clips that share forward passes."""
    return EmbedConfig(
        data=str(videos), out=str(tmp_path / "plain"), backbone="random:r3d@0.125", clip_frames=8, clip_size=32,
        num_clips=2, per_clip=True, shard_videos=3, workers=0, device="cpu",
    )  # fmt: skip


def compute_here(
    folder: Path, job: object, options: object, open_encoder: object, console: Console, **more: object
) -> None:
    """What the engine does, by one actor in this process, from the last part to the first."""
    per_clip, verify = bool(more.get("per_clip")), bool(more.get("verify"))
    actor = engine._Actor(str(folder), open_encoder, per_clip, verify)  # type: ignore[arg-type]
    for part in reversed(missing_parts(folder, read_job(folder))):
        actor({"part": torch.tensor([part])})


@pytest.fixture
def _one_actor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("v3s.vectors.embed.run_job", compute_here)
    monkeypatch.setattr(engine, "segments", _segments_here)


def _segments_here(*given: object, **options: object) -> object:
    return segments(*given, **(options | {"workers": 0}))  # type: ignore[arg-type]


def assert_same(ours: Vectors, plain: Vectors) -> None:
    assert ours.lines == plain.lines
    for one, other in zip(ours.shards, plain.shards, strict=True):
        assert all(torch.equal(tensor, other.columns[name]) for name, tensor in one.columns.items())


@pytest.mark.usefixtures("_one_actor")
@pytest.mark.parametrize("options", [{}, {"segment": 0.5}, {"segment": 0.5, "per_clip": False, "fps": 10.0}])
def test_rows_give_the_folder_of_one_process(config: EmbedConfig, tmp_path: Path, options: dict[str, float]) -> None:
    config = replace(config, **options)  # type: ignore[arg-type]
    plain = embed(config, console=QUIET)
    ours = embed(replace(config, out=str(tmp_path / "engine"), engine="ray"), console=QUIET)
    assert_same(ours, plain)
    assert ours.description == plain.description
    assert list(ours.description.left_out) == ["broken.mp4"]
    rows = str(tmp_path / "engine/rows")
    merged = merge(MergeConfig(parts=(rows,), out=str(tmp_path / "merged")), console=QUIET)
    assert_same(merged, plain)
    with pytest.raises(ValueError, match=f"is in both {rows} and {config.out}; keep it"):
        merge(MergeConfig(parts=(rows, config.out), out=str(tmp_path / "merged")), console=QUIET)


@pytest.mark.usefixtures("_one_actor")
def test_spans_of_files_in_any_order(config: EmbedConfig, videos: Path, tmp_path: Path) -> None:
    """Entries of a file need not follow one another; each row is in the place of its entry."""
    names = sorted(path.relative_to(videos).as_posix() for path in videos.glob("*/*.mp4"))[-3:]
    lines = [f"{name},{start},{start + 0.8},x" for start in (0.9, 0.0) for name in names]
    (videos / "spans.csv").write_text("path,start,end,label\n" + "\n".join(lines) + "\n")
    config = replace(config, data=str(videos / "spans.csv"))
    plain = embed(config, console=QUIET)
    assert_same(embed(replace(config, out=str(tmp_path / "engine"), engine="ray"), console=QUIET), plain)


@pytest.mark.usefixtures("_one_actor")
def test_a_killed_job_goes_on_at_the_parts_that_are_missing(
    config: EmbedConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = embed(config, console=QUIET)
    config = replace(config, out=str(tmp_path / "engine"), engine="ray")
    rows, encode = Path(config.out) / "rows", Encoder.encode_table
    with monkeypatch.context() as patch:

        def killed(self: Encoder, *given: object, **options: object) -> object:
            if len(list(rows.glob("part-*.parquet"))) == 4:
                raise KeyboardInterrupt
            return encode(self, *given, **options)  # type: ignore[arg-type]

        patch.setattr(Encoder, "encode_table", killed)
        with pytest.raises(KeyboardInterrupt):
            embed(config, console=QUIET)
    with pytest.raises(ValueError, match="5 of 9 parts are missing"):
        merge(MergeConfig(parts=(str(rows),), out=str(tmp_path / "merged")), console=QUIET)
    kept = {path: path.stat().st_mtime_ns for path in rows.glob("part-*.parquet")}
    with pytest.raises(ValueError, match="contains the rows of another job"):
        embed(replace(config, num_clips=3), console=QUIET)
    assert_same(embed(config, console=QUIET), plain)
    assert len(kept) == 4
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert not list(rows.glob(".*"))
    with pytest.raises(ValueError, match="contains vectors from another network or preprocessing"):
        embed(replace(config, num_clips=3), console=QUIET)
    assert len(embed(replace(config, num_clips=3, overwrite=True), console=QUIET)) == 24


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_something_else_is_never_removed(videos: Path, tmp_path: Path, overwrite: bool) -> None:
    mine = tmp_path / "rows" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    for folder in (mine.parent, mine):
        with pytest.raises(ValueError, match="contains other things than rows of an engine; move it"):
            begin_job(folder, list_videos(videos), {}, overwrite=overwrite)
    assert mine.read_text() == "mine"


def test_what_a_killed_process_leaves_of_a_job_is_taken_up(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is killed before one of its files is removed, whatever their order in the folder."""
    folder, listed, unlink, left = tmp_path / "rows", list_videos(videos), os.unlink, list[int]()

    def stop(path: object, **options: int | None) -> None:
        if not left:
            raise KeyboardInterrupt
        left.pop()
        unlink(path, **options)  # type: ignore[arg-type]

    for most in range(6):
        left[:] = range(most)
        begin_job(folder, listed, {})
        for part in range(3):
            part_path(folder, part).touch()
        with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
            patch.setattr(os, "unlink", stop)
            remove_job(folder)
        begin_job(folder, listed, {})
        assert list(all_videos(folder, read_job(folder)).paths) == list(listed.paths)


def test_actors_that_outlive_their_job_do_no_harm(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, listed, unlink = tmp_path / "rows", list_videos(videos), Path.unlink
    begin_job(folder, listed, {"network": "a"})
    actor = engine._Actor(str(folder), None, per_clip=False, verify=False)
    (folder / ".part-00000.parquet.1.part").touch()
    with monkeypatch.context() as patch:  # it completes its part, or ends, between listing and removing

        def too_late(self: Path, missing_ok: bool = False) -> None:
            unlink(self)
            unlink(self, missing_ok=missing_ok)

        patch.setattr(Path, "unlink", too_late)
        begin_job(folder, listed, {"network": "a"})
    begin_job(folder, listed, {"network": "b"}, overwrite=True)
    monkeypatch.setattr(engine, "segments", _segments_here)
    with pytest.raises(ValueError, match="contains the rows of another job now"):
        actor({"part": torch.tensor([0])})
    assert not list(folder.glob("part-*"))


def test_a_bad_file_is_a_row_with_its_reason(videos: Path) -> None:
    """Also if it fails only after it was read whole: then the other files of its part are not lost."""
    listed, encoder = list_videos(videos), load_encoder("random:r3d@0.125", device="cpu", num_clips=1)
    found = segments(listed, encoder)
    bad = [row for row in found if isinstance(row.outcome, Failure)]
    assert [row.path for row in bad] == ["broken.mp4"]
    assert all(len(row.vectors) == len(row.spans) == 1 for row in found if row not in bad)
    gone = next(row.path for row in found if row not in bad)

    def encode_table(self: Encoder, table: object, **options: object) -> object:
        (videos / gone).unlink(missing_ok=True)
        return _encode_table(self, table, **options)  # type: ignore[arg-type]

    _encode_table = Encoder.encode_table
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Encoder, "encode_table", encode_table)
        after = segments(listed, encoder)
    failed = {row.path: row.outcome for row in after if isinstance(row.outcome, Failure)}
    assert set(failed) == {"broken.mp4", gone}
    assert str(videos) not in failed[gone].reason
    for ours, theirs in zip(after, found, strict=True):
        assert ours.path in failed or torch.equal(ours.vectors[0], theirs.vectors[0])


def test_a_part_whose_actors_die_is_named(videos: Path, tmp_path: Path) -> None:
    job = begin_job(tmp_path / "job", list_videos(videos), {})
    paths = part_videos(tmp_path / "job", job, 2).paths
    for _ in range(engine.MOST_ATTEMPTS):
        engine._count_attempt(tmp_path / "job", 2, paths)
    with pytest.raises(ValueError, match=f"{engine.MOST_ATTEMPTS} actors died of the 1 file from"):
        engine._count_attempt(tmp_path / "job", 2, paths)
    begin_job(tmp_path / "job", list_videos(videos), {})  # a new run counts anew
    engine._count_attempt(tmp_path / "job", 2, paths)


def test_a_damaged_part_is_named(videos: Path, tmp_path: Path) -> None:
    job = begin_job(tmp_path / "job", list_videos(videos), {})
    compute_here(tmp_path / "job", job, None, None, QUIET)
    assert len(read_outcomes(tmp_path / "job", job)) == 9
    part = part_path(tmp_path / "job", 3)
    part.write_bytes(part.read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"part-00003.parquet: damaged .*; remove this file and run the command again"):
        read_outcomes(tmp_path / "job", job)


@pytest.mark.parametrize("other", [{"shard": "1/2"}, {"append": True}])
def test_what_the_engine_does_not_do(config: EmbedConfig, other: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="the engine divides the whole list by itself"):
        replace(config, engine="ray", **other)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="--actors and --actor-cores need --engine ray"):
        replace(config, actors=2)


@pytest.mark.parametrize("num_files", [1, 9, 150, 6411])
def test_the_parts_are_the_list(tmp_path: Path, num_files: int) -> None:
    """Whole files, and spans that name each file twice: what actors read, part by part, is what was listed."""
    paths = tuple(f"{number % 7}/{number}.mp4" for number in range(num_files))
    whole = VideoList(tmp_path, paths, tuple(path[0] for path in paths), (), "a list")
    spans = replace(
        whole, paths=2 * paths, labels=2 * whole.labels, bounds=((0.0, 1.0),) * num_files + ((1.0, None),) * num_files
    )
    for listed in (whole, spans):
        job = begin_job(tmp_path / "job", listed, {}, overwrite=True)
        parts = [part_videos(tmp_path / "job", job, part) for part in range(job.num_parts)]
        assert [len(set(part.paths)) for part in parts] == [job.files_in(part) for part in range(job.num_parts)]
        assert [path for part in parts for path in dict.fromkeys(part.paths)] == list(paths)
        together = all_videos(tmp_path / "job", job)
        for name in ("paths", "labels", "bounds"):
            assert getattr(together, name) == getattr(listed, name)
            assert sorted(sum((getattr(part, name) for part in parts), ()), key=str) == sorted(
                getattr(listed, name), key=str
            )


@pytest.mark.parametrize("parts_per_group", [1, 3])
def test_parts_are_read_from_row_groups_of_any_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts_per_group: int
) -> None:
    """A job that an older version began resumes with the files of its parts."""
    paths = tuple(f"{number}.mp4" for number in range(150))
    monkeypatch.setattr("v3s.scale.job._PARTS_PER_GROUP", parts_per_group)
    job = begin_job(tmp_path, VideoList(tmp_path, paths, (None,) * 150, (), "a list"), {}, overwrite=True)
    monkeypatch.undo()
    assert sum((part_videos(tmp_path, job, part).paths for part in range(job.num_parts)), ()) == paths


def test_open_vectors_of_a_part_alone(config: EmbedConfig) -> None:
    """Rows make no folder of vectors yet."""
    with pytest.raises(ValueError, match="does not exist; give a folder of vectors"):
        open_vectors(config.out)
