"""Collections of spans: embedded by segments, searched by time, appended to, and cut out as files."""

import shutil
from dataclasses import replace
from io import StringIO
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from rich.console import Console

from v3s.data.index_table import content_of
from v3s.data.synthetic import make_clips
from v3s.vectors.collection import Vectors
from v3s.vectors.description import VectorsError
from v3s.vectors.embed import EmbedConfig, embed
from v3s.vectors.entries import Entry, Place
from v3s.vectors.moments import video_of
from v3s.vectors.search import Hit, SearchConfig, search
from v3s.video.decode import read_frames
from v3s.video.index import index_video
from v3s.video.span import span_of

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three recordings of 8 seconds at 25 frames per second."""
    return make_clips(
        tmp_path_factory.mktemp("recordings") / "data", num_videos=3, num_frames=200, height=48, width=64
    )[0].parents[1]


@pytest.fixture
def config(small_embedding: EmbedConfig, made: Path, tmp_path: Path) -> EmbedConfig:
    """Two clips of each segment of two seconds, in shards of five segments."""
    data = shutil.copytree(made, tmp_path / "data")
    return replace(
        small_embedding, data=str(data), out=str(tmp_path / "vectors"), num_clips=2, segment=2.0, shard_videos=5
    )


def find(vectors: Vectors, query: Path, **options: object) -> tuple[list[Hit], str]:
    console = Console(file=StringIO(), width=160)
    config = SearchConfig(query=str(query), vectors=str(vectors.folder), device="cpu", **options)  # type: ignore[arg-type]
    hits = search(config, console=console)
    assert isinstance(console.file, StringIO)
    return hits, console.file.getvalue()


@pytest.mark.parametrize(("per_clip", "fps"), [(False, None), (True, None), (False, 12.5), (True, 12.5)])
def test_a_span_of_a_recording_finds_its_segment(
    config: EmbedConfig, tmp_path: Path, per_clip: bool, fps: float | None
) -> None:
    vectors = embed(replace(config, per_clip=per_clip, fps=fps), console=QUIET)
    assert vectors.description.num_videos == 12
    file = sorted(Path(config.data).rglob("*.mp4"))[1]
    clips, page = tmp_path / "clips", tmp_path / "page.html"
    hits, text = find(vectors, file, start="4", end="0:06.0", k=3, clips=str(clips), page=str(page))
    best = hits[0]
    assert best.file == str(file)
    assert best.score == pytest.approx(1, abs=1e-6)
    length = 8 / (fps or 25) if per_clip else 2
    assert best.start_seconds in (4, 6 - length)
    assert best.end_seconds == pytest.approx(best.start_seconds + length)
    assert f"{best.start} │" in text
    cutout = index_video(str(best.clip))
    own = span_of(index_video(file), best.start_seconds, best.end_seconds)
    assert abs(cutout.num_frames - own.num_frames) <= (fps is not None)  # at the file's own rate
    ours, theirs = (read_frames(video, [0, 3]).rgb().float() for video in (cutout, own))
    assert (ours - theirs).abs().mean() < 8
    assert page.read_text().count("<video") == 4
    assert "no image" not in page.read_text()


def test_hits_of_a_recording_do_not_overlap(config: EmbedConfig) -> None:
    vectors = embed(replace(config, segment_stride=0.5), console=QUIET)
    file = sorted(Path(config.data).rglob("*.mp4"))[0]
    hits, _ = find(vectors, file, start="2", end="4", k=30)
    times = sorted((hit.start_seconds, hit.end_seconds) for hit in hits if hit.file == str(file))
    assert len(times) >= 3
    assert all(after - before > 1.4 for (before, _), (after, _) in pairwise(times))


def test_only_spans_of_new_recordings_are_computed(config: EmbedConfig, tmp_path: Path) -> None:
    files = sorted(Path(config.data).rglob("*.mp4"))
    away = tmp_path / "away.mp4"
    files[1].rename(away)
    before = embed(config, console=QUIET)
    away.rename(files[1])
    console = Console(file=StringIO(), width=200)
    vectors = embed(replace(config, append=True), console=console)
    assert isinstance(console.file, StringIO)
    assert "8 of 12 spans already embedded; new or changed: 4; gone from the list: 0" in console.file.getvalue()
    fresh = embed(replace(config, out=str(tmp_path / "fresh")), console=QUIET)
    rows = [torch.cat([shard.vectors for shard in each.shards]).float() for each in (vectors, fresh)]
    torch.testing.assert_close(*rows, atol=1e-3, rtol=0)
    assert [vectors.place_of(row) for row in range(12)] == [fresh.place_of(row) for row in range(12)]
    files[2].unlink()
    console = Console(file=StringIO(), width=200)
    embed(replace(config, append=True), console=console)
    assert isinstance(console.file, StringIO)
    assert "8 of 8 spans already embedded; new or changed: 0; gone from the list: 4" in console.file.getvalue()
    shutil.copy(sorted(made_copies(before))[-1], files[2])
    vectors = embed(replace(config, append=True), console=console)
    assert "12 of 12 spans already embedded; new or changed: 0" in console.file.getvalue()
    assert vectors.description.num_videos == 12


def made_copies(vectors: Vectors) -> list[str]:
    """The files of a collection that still exist."""
    paths = {vectors.place_of(row).file for row in range(len(vectors))}
    return [path for path in paths if Path(path).exists()]


def test_a_span_has_another_content_than_its_file_and_than_others(made: Path, tmp_path: Path) -> None:
    file = sorted(made.rglob("*.mp4"))[0]
    copy = Path(shutil.copy(file, tmp_path / "copy.mp4"))
    one, other = index_video(file), index_video(copy)
    spans = ((0, 2, None), (1, 2, None), (0, 2, 9))
    contents = [content_of(span_of(one, *span)) for span in spans]
    assert len({*contents, content_of(one)}) == 4
    assert content_of(span_of(other, 1, 2)) == contents[1]


def test_a_row_of_a_span_is_read_where_it_lies_in_the_file(made: Path) -> None:
    file = index_video(sorted(made.rglob("*.mp4"))[0])
    entry = Entry(file.path, None, 20, 2.0, start_seconds=3.0)  # 20 frames at 10 per second
    found = video_of(Place(entry, file.path, 5, 10, entry.time_of(5), entry.time_of(10)), file, 10.0)
    assert (found.start_seconds, found.end_seconds, found.rate) == (3.5, 4.0, None)
    assert found.source_frames([0]) == [87]  # the frame nearest to 3.5 s is one of two that are equally near
    assert found.num_frames == 13  # up to the last one before 4 s


def test_a_recording_that_was_replaced_is_not_shown_for_the_one_that_was_embedded(
    config: EmbedConfig, made: Path, tmp_path: Path
) -> None:
    vectors = embed(config, console=QUIET)
    files = sorted(Path(config.data).rglob("*.mp4"))
    query = Path(shutil.copy(files[0], tmp_path / "query.mp4"))
    shutil.copy(files[1], files[0])
    clips, page = tmp_path / "clips", tmp_path / "page.html"
    hits, text = find(vectors, query, start="2", end="4", k=1, clips=str(clips), page=str(page))
    assert (hits[0].file, hits[0].clip) == (str(files[0]), None)
    assert f"no clip: {files[0]}: changed since it was embedded; run v3s embed with --append" in text
    assert "changed since it was embedded" in page.read_text()
    with pytest.raises(
        ValueError, match=r"other versions of 1 file, which changed since then: .*; bring them up to date"
    ):
        embed(config, console=QUIET)


@pytest.mark.parametrize(("segment", "gone"), [(1.0, 12), (2.0, 0), (4.0, 12)])
def test_other_segments_are_other_spans(config: EmbedConfig, segment: float, gone: int) -> None:
    embed(config, console=QUIET)
    if segment != 2:
        named = rf"another --segment: spans of 2\.0 s, .*, now spans of {segment:.1f} s"
        with pytest.raises(VectorsError, match=named):
            embed(replace(config, segment=segment), console=QUIET)
        with pytest.raises(VectorsError, match=r"continue with them, give --segment 2 --num-clips 2;"):
            embed(replace(config, segment=segment, num_clips=1, append=True), console=QUIET)
    console = Console(file=StringIO(), width=200)
    vectors = embed(replace(config, segment=segment, append=True), console=console)
    assert isinstance(console.file, StringIO)
    assert f"gone from the list: {gone}" in console.file.getvalue()
    assert vectors.description.num_videos == 24 / segment


def test_a_list_that_is_not_cut_is_told_the_segments(config: EmbedConfig, tmp_path: Path) -> None:
    embed(replace(config, segment_stride=1.5), console=QUIET)
    elsewhere = Path(config.data).rename(tmp_path / "elsewhere")
    with pytest.raises(
        VectorsError, match=r"spans of 2\.0 s, .* whole videos, .* give --segment 2 --segment-stride 1\.5"
    ):
        embed(replace(config, data=str(elsewhere), segment=None, append=True), console=QUIET)


def test_of_a_query_in_its_own_recording_only_the_best_row_is_a_hit(config: EmbedConfig) -> None:
    vectors = embed(replace(config, per_clip=True, stride=8, segment=None), console=QUIET)
    file = sorted(Path(config.data).rglob("*.mp4"))[0]
    hits, _ = find(vectors, file, start="1", end="5", k=20)
    inside = [hit for hit in hits if hit.file == str(file) and 1 <= hit.start_seconds <= 4.6]
    assert len(inside) == 1
    assert hits[0] == inside[0]
    assert len([hit for hit in hits if hit.file == str(file)]) > 2


def test_a_short_query_is_said_to_be_widened(config: EmbedConfig) -> None:
    vectors = embed(replace(config, segment=None, per_clip=True), console=QUIET)
    _, text = find(vectors, sorted(Path(config.data).rglob("*.mp4"))[0], start="4", end="4.1", k=1)
    assert "the query is shorter than a clip: widened to 0:00:03.9 to 0:00:04.2" in text
