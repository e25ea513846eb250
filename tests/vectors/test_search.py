"""Search from file to page: a query finds itself first, the best pair of clips by brute force, and errors."""

import base64
import csv
import io
import json
import re
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import av
import numpy as np
import pytest
import torch
from rich.console import Console

from v3s.backbones import create_backbone
from v3s.commands.prepare import PrepareConfig, prepare
from v3s.data.lists.folder import find_files, video_files
from v3s.features.saved import Trained, save_trained
from v3s.files.writing import SaveError
from v3s.pages.images import mp4
from v3s.pretext.model import PretextModel
from v3s.pretext.plan import Sampling
from v3s.pretext.task import get_task
from v3s.vectors.collection import Vectors, open_vectors
from v3s.vectors.cutouts import cutout_name
from v3s.vectors.description import VectorsError
from v3s.vectors.embed import EmbedConfig, embed
from v3s.vectors.entries import Entry, Place
from v3s.vectors.moments import Moment
from v3s.vectors.query import asked_span
from v3s.vectors.search import Hit, SearchConfig, search
from v3s.video.decode import read_frames
from v3s.video.index import VideoError, index_video

QUIET = Console(quiet=True)


def save_run(folder: Path, seed: int) -> Path:
    """Save an untrained run with clips of 8 x 32 x 32."""
    task, sampling = get_task("ts"), Sampling(clip_frames=8, clip_size=32)
    model = PretextModel(create_backbone("r3d", 0.125, seed=seed), task)
    trained = Trained(kind="pretrained", backbone="r3d", width=0.125, task=task, sampling=sampling, results={})
    save_trained(folder, model, trained)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_run(tmp_path_factory.mktemp("runs") / "run", seed=1)


@pytest.fixture(scope="module")
def stored(run: Path, small_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Vectors]:
    """The vectors of 16 videos: one per video (False) and one per clip (True)."""
    folder = tmp_path_factory.mktemp("vectors")
    config = EmbedConfig(
        data=str(small_videos), out="", backbone=str(run), num_clips=2, shard_videos=5, workers=0, device="cpu"
    )
    return {
        per_clip: embed(
            replace(config, out=str(folder / str(per_clip)), per_clip=per_clip, stride=8 * per_clip), console=QUIET
        )
        for per_clip in (False, True)
    }


def find(vectors: Vectors, query: Path, **options: Any) -> tuple[list[Hit], str]:
    console = Console(file=StringIO(), width=160)
    config = SearchConfig(query=str(query), vectors=str(vectors.folder), device="cpu", **options)
    hits = search(config, console=console)
    assert isinstance(console.file, StringIO)
    return hits, console.file.getvalue()


@pytest.mark.parametrize("per_clip", [False, True])
def test_a_video_of_the_collection_finds_itself_first(
    stored: dict[bool, Vectors], small_videos: Path, per_clip: bool
) -> None:
    for number in (0, 7, 15):
        path = stored[per_clip].video(number).path
        hits, _ = find(stored[per_clip], small_videos / path, k=3)
        assert (hits[0].path, hits[0].rank, len(hits)) == (path, 1, 3)
        assert hits[0].score == pytest.approx(1, abs=1e-6)
        assert hits[0].file == str(small_videos / path)
        assert hits[0].label == path.split("/")[0]


def test_every_clip_of_the_query_is_compared_with_every_row(stored: dict[bool, Vectors], small_videos: Path) -> None:
    """Clips of this collection do not overlap, so that every row is a hit of its own."""
    vectors = stored[True]
    rows = torch.arange(len(vectors))
    every = vectors.take(rows)
    videos = torch.tensor([vectors.video_of(row) for row in rows.tolist()])
    for number in (0, 10):
        best = (every @ every[videos == number].T).amax(dim=1).sort(descending=True).values
        hits, _ = find(vectors, small_videos / vectors.video(number).path, k=len(rows))
        torch.testing.assert_close(torch.tensor([hit.score for hit in hits]), best, atol=1e-4, rtol=0)
        standard = (best - best.mean()) / best.std(unbiased=False)
        torch.testing.assert_close(torch.tensor([hit.z for hit in hits]), standard, atol=0.1, rtol=0)
        assert {(hit.path, hit.start_frame) for hit in hits} == {
            (vectors.video(vectors.video_of(row)).path, vectors.span_of(row)[0]) for row in rows.tolist()
        }


def test_a_query_that_a_store_was_made_of_is_a_file_of_the_store(run: Path, small_videos: Path, tmp_path: Path) -> None:
    prepare(PrepareConfig(data=str(small_videos), out=str(tmp_path / "store")), console=QUIET)
    config = EmbedConfig(
        data=str(tmp_path / "store"), out=str(tmp_path / "vectors"), backbone=str(run), num_clips=2, per_clip=True,
        stride=8, workers=0, device="cpu",
    )  # fmt: skip
    vectors = embed(config, console=QUIET)
    path = vectors.video(0).path
    hits, told = find(vectors, small_videos / path, k=1)
    assert hits[0].path == path
    assert "all hits are in the query's own file; --other-files shows" in told
    assert path not in {hit.path for hit in find(vectors, small_videos / path, k=5, other_files=True)[0]}


def test_hits_that_are_all_in_the_file_of_the_query_lead_to_other_files(
    stored: dict[bool, Vectors], small_videos: Path
) -> None:
    query, told = small_videos / stored[True].video(0).path, "all hits are in the query's own file; --other-files shows"
    assert told in find(stored[True], query, k=1)[1]
    assert told not in find(stored[True], query, k=1, other_files=True)[1]
    hits, text = find(stored[True], query, k=30)
    assert (len({hit.path for hit in hits}) > 1, told in text) == (True, False)


def test_times_are_shown_for_clips_only(stored: dict[bool, Vectors], small_videos: Path) -> None:
    video = stored[True].video(4)
    hits, text = find(stored[True], small_videos / video.path)
    assert "start" in text
    assert f"{hits[0].start}" in text
    frames = [(hit.start_frame or 0, hit.end_frame or 0) for hit in hits]
    assert all(end - start == 8 and start % 8 == 0 for start, end in frames)
    assert hits[0].start_seconds == pytest.approx(frames[0][0] * video.seconds / 40)
    hits, text = find(stored[False], small_videos / video.path)
    assert "start" not in text
    assert (hits[0].start_frame, hits[0].end_frame, hits[0].start, hits[0].end) == (0, 40, "0:00:00.0", "0:00:01.6")
    assert hits[0].end_seconds == pytest.approx(video.seconds)
    assert "16 vectors of 16 videos" in text


def test_a_k_above_the_number_of_rows_returns_all(stored: dict[bool, Vectors], small_videos: Path) -> None:
    for vectors in stored.values():
        hits, _ = find(vectors, small_videos / vectors.video(0).path, k=100)
        assert [hit.rank for hit in hits] == list(range(1, len(vectors) + 1))


@pytest.mark.parametrize("is_copy", [False, True])
def test_a_span_finds_itself_in_a_known_and_in_an_unknown_file(
    stored: dict[bool, Vectors], small_videos: Path, tmp_path: Path, is_copy: bool
) -> None:
    vectors = stored[True]
    entry = vectors.video(6)
    file = small_videos / entry.path
    if is_copy:
        file = Path(shutil.copy(file, tmp_path / "query.mp4"))
    rate = 40 / entry.seconds
    hits, text = find(vectors, file, start=f"{16 / rate:.2f}", end=f"0:00:0{24 / rate:.2f}", k=2)
    assert (hits[0].path, hits[0].start_frame, hits[0].end_frame) == (entry.path, 16, 24)
    assert hits[0].score == pytest.approx(1, abs=1e-6)
    assert f"query: {file} from 0:00:00.6 to 0:00:01.0" in text
    assert hits[0].z > hits[1].z
    short, _ = find(vectors, file, start=f"{18 / rate:.2f}", end=f"{22 / rate:.2f}", k=1)  # half a clip: widened evenly
    assert (short[0].path, short[0].start_frame) == (entry.path, 16)
    assert short[0].score == pytest.approx(1, abs=1e-6)
    last, _ = find(vectors, file, start="1.5", k=1)
    assert (last[0].path, last[0].start_frame) == (entry.path, 32)
    assert last[0].score == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("start", "end", "frames"),
    [(None, None, (0, 40)), (0.4, 0.8, (10, 20)), (0.72, 0.73, (18, 19)), (0.39, 0.41, (10, 11)), (1.6, 1.6, (39, 40))],
)
def test_a_span_is_of_the_nearest_frames_and_of_one_at_least(
    small_videos: Path, start: float | None, end: float | None, frames: tuple[int, int]
) -> None:
    video = index_video(next(small_videos.rglob("*.mp4")))  # 40 frames, 25 a second
    span = asked_span(video, "a.mp4", start, end, None)
    assert (span.first, span.first + span.num_frames) == frames


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": "2", "end": "1"}, "end is 1, which is not after start, 2"),
        ({"start": "1", "end": "1"}, "end is 1, which is not after start, 1"),
        ({"end": "0"}, "end is 0, which is not after start, 0"),
        ({"start": "ten"}, "start is 'ten', which is not a time: give seconds"),
        ({"end": "1:70"}, "end is '1:70', which is not a time"),
        ({"start": "2:00"}, r"start is 0:02:00\.0, which is outside of .*\.mp4: it is 0:00:01\.6 long"),
        ({"start": "0.5", "end": "1.7"}, r"end is 0:00:01\.7, which is outside of .*: it is 0:00:01\.6 long"),
        ({"k": 0}, "k is 0; it must be more than 0"),
        ({"clips": __file__}, r"clips is .*test_search\.py, which is a file; give a folder"),
        ({"clips": str(Path(__file__).parent)}, "which is not empty; give a new folder"),
    ],
)
def test_what_is_asked_wrongly_is_refused_in_one_line(
    stored: dict[bool, Vectors], small_videos: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        find(stored[True], small_videos / stored[True].video(0).path, **options)
    assert "\n" not in str(refused.value)


def test_a_span_cannot_be_compared_with_whole_videos(stored: dict[bool, Vectors], small_videos: Path) -> None:
    with pytest.raises(ValueError, match=r"has one vector per video, .*: omit --start and --end, or embed with"):
        find(stored[False], small_videos / stored[False].video(0).path, start="0.2")


def test_result_file(stored: dict[bool, Vectors], small_videos: Path, tmp_path: Path) -> None:
    hits, _ = find(stored[False], small_videos / stored[False].video(2).path, k=4, out=str(tmp_path / "hits.json"))
    written = json.loads((tmp_path / "hits.json").read_text())
    assert [Hit(**hit) for hit in written["hits"]] == hits
    assert written["fingerprint"] == stored[False].description.space.fingerprint
    assert (written["num_videos"], written["num_vectors"], written["network"]) == (16, 16, "r3d@0.125")


def test_result_as_a_table(stored: dict[bool, Vectors], small_videos: Path, tmp_path: Path) -> None:
    hits, _ = find(stored[True], small_videos / stored[True].video(2).path, k=4, out=str(tmp_path / "hits.csv"))
    with (tmp_path / "hits.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [(row["path"], row["start"], row["end"]) for row in rows] == [(hit.path, hit.start, hit.end) for hit in hits]
    assert float(rows[1]["z"]) == hits[1].z


@pytest.mark.parametrize("per_clip", [False, True])
def test_page_has_an_image_of_each_hit(
    stored: dict[bool, Vectors], small_videos: Path, tmp_path: Path, per_clip: bool
) -> None:
    page, clips = tmp_path / "pages" / "hits.html", tmp_path / "a #clip's: folder"
    query = small_videos / stored[per_clip].video(2).path
    hits, text = find(stored[per_clip], query, k=4, page=str(page), clips=str(clips))
    html = page.read_text()
    assert html.count("<video") == html.count("data:video/mp4") == html.count("<figcaption>") == 5
    assert "no image" not in html
    assert all(f"{hit.start} to {hit.end}" in html for hit in hits)
    for hit, film in zip(hits, re.findall(r'src="data:video/mp4;base64,([^"]*)"', html)[1:], strict=True):
        with av.open(io.BytesIO(base64.b64decode(film)), "r") as container:
            length = len(list(container.decode(video=0)))
        assert length == ((hit.end_frame or 0) - (hit.start_frame or 0) if per_clip else 20)  # every second of 40
    asked, *links = [unquote(link) for link in re.findall(r'<a href="([^"]*)"><video', html)]
    assert (page.parent / asked.removesuffix("#t=0.00,1.60")).resolve() == query.resolve()
    assert [(page.parent / link).resolve() for link in links] == [Path(hit.clip or "") for hit in hits]
    assert f"4 clips in {clips}" in text


def test_the_file_of_the_query_is_known_through_a_link(
    small_videos: Path, small_embedding: EmbedConfig, tmp_path: Path
) -> None:
    videos = sorted(small_videos.glob("*/*.mp4"))[:3]
    for number, path in enumerate(videos):
        (tmp_path / f"{number}.mp4").symlink_to(path)
    listed = tmp_path / "list.txt"
    listed.write_text("0.mp4\n1.mp4\n2.mp4\n")
    vectors = embed(replace(small_embedding, data=str(listed), out=str(tmp_path / "vectors")), console=QUIET)
    for query in (tmp_path / "0.mp4", videos[0]):
        hits, _ = find(vectors, query, k=3, other_files=True)
        assert sorted(hit.path for hit in hits) == ["1.mp4", "2.mp4"]


def test_a_link_beside_its_file_is_not_a_second_hit(
    small_videos: Path, small_embedding: EmbedConfig, tmp_path: Path
) -> None:
    first, second = sorted(small_videos.glob("*/*.mp4"))[:2]
    (tmp_path / "link.mp4").symlink_to(first)
    listed = tmp_path / "list.txt"
    listed.write_text(f"link.mp4\n{first}\n{second}\n")
    vectors = embed(replace(small_embedding, data=str(listed), out=str(tmp_path / "vectors")), console=QUIET)
    hits, _ = find(vectors, first, k=3)
    assert len(vectors) == 3
    assert [Path(hit.file).resolve() for hit in hits] == [first.resolve(), second.resolve()]


def test_a_page_of_many_hits_is_bounded_and_says_so(
    stored: dict[bool, Vectors], small_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("v3s.vectors.search_page.MOST_HITS", 3)
    query = small_videos / stored[False].video(2).path
    hits, _ = find(stored[False], query, k=9, other_files=True, page=str(tmp_path / "hits.html"))
    assert len(hits) == 9
    assert str(query) not in {hit.file for hit in hits}
    html = (tmp_path / "hits.html").read_text()
    assert html.count("<video") == 4
    assert "The first 3 of 9 hits are shown; v3s search --out writes all." in html


def test_clips_contain_exactly_the_frames_of_their_hits(
    stored: dict[bool, Vectors], small_videos: Path, tmp_path: Path
) -> None:
    vectors = stored[True]
    hits, _ = find(vectors, small_videos / vectors.video(2).path, k=12, clips=str(tmp_path / "clips"))
    files = sorted((tmp_path / "clips").glob("*.mp4"))
    assert video_files(tmp_path / "clips") == tuple(file.name for file in files)
    shutil.copy(hits[0].file, tmp_path / "own.mp4")
    found = find_files(tmp_path)  # the clips are no further videos of a data folder
    assert (list(found.videos), found.num_own) == (["own.mp4"], 1)
    assert [str(file) for file in files] == [hit.clip for hit in hits]
    assert files[0].name == f"01_clip_000_{hits[0].start.replace(':', '-')}.mp4"
    for hit, file in zip(hits, files, strict=True):
        cut, whole = index_video(file), index_video(hit.file)
        assert (cut.num_frames, cut.codec) == (8, "h264")
        assert cut.fps == pytest.approx(whole.fps)
        frames = read_frames(cut, range(8)).rgb().float()
        every = read_frames(whole, range(40)).rgb().float()
        errors = [(frames - every[start : start + 8]).abs().mean() for start in range(33)]
        assert errors.index(min(errors)) == hit.start_frame
        assert min(errors) < 6


@pytest.mark.parametrize("count", [9, 99, 100, 1000])
def test_clips_sort_by_their_rank(count: int) -> None:
    moment = Moment(0, 1.0, 0.0, Place(Entry("a.mp4", None, 40, 1.6), "a.mp4", 0, 8, 0.0, 0.32))
    names = [cutout_name(rank, count, moment) for rank in range(1, count + 1)]
    assert names == sorted(names)


def test_a_full_disk_and_a_lost_file_are_said(
    run: Path,
    small_videos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    full_disk: Callable[[int], AbstractContextManager[None]],
) -> None:
    videos = Path(shutil.copytree(small_videos, tmp_path / "videos"))
    hostile = "a b'\x1b[31m=\u00e4\U0001f600#.mp4"
    first, second = sorted(videos.rglob("*.mp4"))[:2]
    first = first.rename(videos / hostile)
    config = EmbedConfig(
        data=str(videos), out=str(tmp_path / "vectors"), backbone=str(run), num_clips=1, workers=0, device="cpu"
    )
    vectors = embed(config, console=QUIET)
    second.unlink()
    hits, text = find(vectors, first, k=16, clips=str(tmp_path / "clips"), page=str(tmp_path / "page.html"))
    assert f"no clip: {second}: does not exist" in text
    assert "15 clips in" in text
    assert [hit.path for hit in hits if hit.clip is None] == [str(second.relative_to(videos))]
    assert (tmp_path / "clips" / "01_a_b_31m_\u00e4_0-00-00.0.mp4").is_file()
    with full_disk(2000), pytest.raises(SaveError, match=r"full/01_.*\.mp4 cannot be written: .*File too large"):
        find(vectors, first, k=2, clips=str(tmp_path / "full"))
    assert not (tmp_path / "full").exists()


def test_a_black_query_is_said(stored: dict[bool, Vectors], small_videos: Path, tmp_path: Path) -> None:
    black = tmp_path / "black.mp4"
    black.write_bytes(mp4(np.zeros((24, 48, 64, 3), np.uint8), 25))
    for vectors in stored.values():
        with pytest.raises(
            ValueError, match=r"black\.mp4: the network gives only zeros for this video \(is it black\?\)"
        ):
            find(vectors, black)
    half = tmp_path / "half.mp4"
    pixels = read_frames(index_video(small_videos / stored[True].video(3).path), range(8)).rgb().permute(0, 2, 3, 1)
    half.write_bytes(mp4(np.concatenate([np.zeros((24, 48, 64, 3), np.uint8), pixels.numpy()]), 25))
    hits, text = find(stored[True], half, k=1)
    assert hits[0].path == stored[True].video(3).path
    assert "3 clips of the query skipped: their features are zero (black?)" in text


def test_page_reports_a_deleted_file(run: Path, small_videos: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    shutil.copytree(small_videos, videos)
    config = EmbedConfig(
        data=str(videos), out=str(tmp_path / "vectors"), backbone=str(run), num_clips=1, workers=0, device="cpu"
    )
    vectors = embed(config, console=QUIET)
    (videos / vectors.video(9).path).unlink()
    hits, _ = find(vectors, videos / vectors.video(2).path, k=16, page=str(tmp_path / "hits.html"))
    html = (tmp_path / "hits.html").read_text()
    (rank,) = [hit.rank for hit in hits if hit.path == vectors.video(9).path]
    assert f"<figcaption>{rank}. {vectors.video(9).path}, 0:00:00.0 to 0:00:01.6: {hits[rank - 1].score:.4f}" in html
    assert html.count("(no image: does not exist)</figcaption>") == 1
    assert html.count("<video") == 16
    assert html.count("<a ") == 2 * 16  # the missing file is no link


def test_vectors_of_another_model_are_refused(stored: dict[bool, Vectors], small_videos: Path, tmp_path: Path) -> None:
    other = save_run(tmp_path / "other", seed=2)
    message = r"vectors of another model: they were embedded with the weights \w{12} \(r3d@0\.125\), but .*other has"
    with pytest.raises(VectorsError, match=message):
        find(stored[False], small_videos / stored[False].video(0).path, backbone=str(other))


def test_a_moved_network_is_given_by_its_new_location(small_videos: Path, tmp_path: Path) -> None:
    first = save_run(tmp_path / "first", seed=5)
    config = EmbedConfig(
        data=str(small_videos), out=str(tmp_path / "vectors"), backbone=str(first), num_clips=1, workers=0, device="cpu"
    )
    vectors = embed(config, console=QUIET)
    first.rename(tmp_path / "second")
    query = small_videos / vectors.video(0).path
    with pytest.raises(VectorsError, match="give its new location with --backbone"):
        find(vectors, query)
    hits, _ = find(vectors, query, backbone=str(tmp_path / "second"))
    assert hits[0].path == vectors.video(0).path


def test_random_weights_are_restored_from_their_seed(
    small_embedding: EmbedConfig, small_videos: Path, tmp_path: Path
) -> None:
    """An untrained network gives all videos the same score up to four digits; still, the query ranks first."""
    vectors = embed(replace(small_embedding, out=str(tmp_path / "vectors"), seed=7, num_clips=1), console=QUIET)
    for number in range(16):
        path = vectors.video(number).path
        assert find(vectors, small_videos / path, k=1)[0][0].path == path


def test_real_videos(run: Path, shared: Path, tmp_path: Path) -> None:
    """Clips of the same recording are more similar than clips of two classes, even for an untrained network."""
    names = [
        f"{kind}/v_{kind}_g01_c0{clip}.avi"
        for kind in ("Archery", "PlayingPiano", "Surfing", "Punch")
        for clip in (1, 2)
    ]
    root = shared / "data/UCF-101"
    (tmp_path / "list.txt").write_text("".join(f"{root / name}\n" for name in names))
    config = EmbedConfig(
        data=str(tmp_path / "list.txt"), out=str(tmp_path / "vectors"), backbone=str(run), num_clips=2, workers=0
    )
    vectors = embed(config, console=QUIET)
    firsts, seconds = zip(*(find(vectors, root / name, k=2)[0] for name in names), strict=True)
    assert [hit.file for hit in firsts] == [str(root / name) for name in names]
    recordings = [name[:-6] for name in names]
    assert (
        sum(hit.file.endswith(f"{start}{hit.file[-6:]}") for hit, start in zip(seconds, recordings, strict=True)) >= 6
    )


def test_an_unreadable_query_is_reported(stored: dict[bool, Vectors], tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    with pytest.raises(VideoError, match=r"bad\.mp4: is not a video"):
        find(stored[False], tmp_path / "bad.mp4")


def test_missing_vectors_missing_index_and_zero_k_are_refused(
    stored: dict[bool, Vectors], small_videos: Path, tmp_path: Path
) -> None:
    query = small_videos / stored[False].video(0).path
    with pytest.raises(VectorsError, match="contains no vectors"):
        search(SearchConfig(query=str(query), vectors=str(tmp_path)), console=QUIET)
    with pytest.raises(ValueError, match="k is 0; it must be more than 0"):
        SearchConfig(query=str(query), vectors=str(tmp_path), k=0)
    pytest.importorskip("faiss", reason="needs the extra [ann]")
    with pytest.raises(VectorsError, match=r"does not exist; build it with v3s index --vectors"):
        find(stored[False], query, approximate=True)
    assert len(open_vectors(stored[False].folder)) == 16
