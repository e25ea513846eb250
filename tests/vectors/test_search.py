"""Search from file to page: a query finds itself first, the best pair of clips by brute force, and errors."""

import json
import shutil
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from v3s.backbones import create_backbone
from v3s.features.saved import save_trained
from v3s.pretext.model import PretextModel
from v3s.pretext.plan import Sampling
from v3s.pretext.task import get_task
from v3s.vectors.collection import Vectors, VectorsError, open_vectors
from v3s.vectors.embed import EmbedConfig, embed
from v3s.vectors.search import Hit, SearchConfig, best_videos, search
from v3s.video.index import VideoError

QUIET = Console(quiet=True)


def save_run(folder: Path, seed: int) -> Path:
    """Save an untrained run with clips of 8 x 32 x 32."""
    task, sampling = get_task("ts"), Sampling(clip_frames=8, clip_size=32)
    model = PretextModel(create_backbone("r3d", 0.125, seed=seed), task)
    save_trained(folder, model, backbone="r3d", width=0.125, task=task, sampling=sampling, results={})
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
    config = SearchConfig(query=str(query), vectors=str(vectors.folder), workers=0, device="cpu", **options)
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


def test_clips_are_compared_pair_by_pair(stored: dict[bool, Vectors], small_videos: Path) -> None:
    vectors = stored[True]
    rows = torch.arange(len(vectors))
    every = vectors.take(rows)
    videos = torch.tensor([vectors.video_of(row) for row in rows.tolist()])
    for number in range(0, 16, 5):
        best = (every @ every[videos == number].T).amax(dim=1)
        expected = torch.stack([best[videos == other].max() for other in range(16)]).sort(descending=True)
        hits, _ = find(vectors, small_videos / vectors.video(number).path, k=16)
        torch.testing.assert_close(torch.tensor([hit.score for hit in hits]), expected.values, atol=1e-4, rtol=0)
        assert sorted(hit.path for hit in hits) == sorted(vectors.video(other).path for other in range(16))


@pytest.mark.parametrize("k", [1, 2, 9])
def test_the_search_is_extended_until_no_video_can_be_missing(stored: dict[bool, Vectors], k: int) -> None:
    """With two clips of one video as queries, the first rows of each search belong to few videos."""
    vectors = stored[True]
    queries = vectors.take(torch.tensor([0, 3]))
    scores = (vectors.take(torch.arange(len(vectors))) @ queries.T).amax(dim=1)
    by_video: dict[int, float] = {}
    for row, score in enumerate(scores.tolist()):
        by_video[vectors.video_of(row)] = max(score, by_video.get(vectors.video_of(row), -1))
    expected = sorted(by_video.values(), reverse=True)[:k]
    best = best_videos(vectors.nearest, queries, k, vectors)
    assert [score for _, score in best] == pytest.approx(expected, abs=1e-6)
    assert len({vectors.video_of(row) for row, _ in best}) == k


def test_times_are_reported_for_clips_only(stored: dict[bool, Vectors], small_videos: Path) -> None:
    video = stored[True].video(4)
    hits, text = find(stored[True], small_videos / video.path)
    assert "seconds" in text
    assert all(hit.end_frame - hit.start_frame == 8 and hit.start_frame % 8 == 0 for hit in hits)
    assert hits[0].start_seconds == pytest.approx(hits[0].start_frame * video.seconds / 40)
    hits, text = find(stored[False], small_videos / video.path)
    assert "seconds" not in text
    assert (hits[0].start_frame, hits[0].end_frame) == (0, 40)
    assert hits[0].end_seconds == pytest.approx(video.seconds)
    assert "16 vectors of 16 videos" in text


def test_a_k_above_the_number_of_videos_returns_all(stored: dict[bool, Vectors], small_videos: Path) -> None:
    for vectors in stored.values():
        hits, _ = find(vectors, small_videos / vectors.video(0).path, k=100)
        assert [hit.rank for hit in hits] == list(range(1, 17))
        assert len({hit.path for hit in hits}) == 16


def test_result_file(stored: dict[bool, Vectors], small_videos: Path, tmp_path: Path) -> None:
    hits, _ = find(stored[False], small_videos / stored[False].video(2).path, k=4, out=str(tmp_path / "hits.json"))
    written = json.loads((tmp_path / "hits.json").read_text())
    assert [Hit(**hit) for hit in written["hits"]] == hits
    assert written["fingerprint"] == stored[False].description.space.fingerprint
    assert (written["num_videos"], written["num_vectors"], written["network"]) == (16, 16, "r3d@0.125")


@pytest.mark.parametrize("per_clip", [False, True])
def test_page_has_an_image_of_each_hit(
    stored: dict[bool, Vectors], small_videos: Path, tmp_path: Path, per_clip: bool
) -> None:
    find(stored[per_clip], small_videos / stored[per_clip].video(2).path, k=4, page=str(tmp_path / "hits.html"))
    html = (tmp_path / "hits.html").read_text()
    assert html.count("data:image/jpeg") == 5
    assert html.count("<figcaption>") == 5
    assert "no image" not in html


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
    assert f"<figcaption>{rank}. {vectors.video(9).path}: {hits[rank - 1].score:.4f} (no image: does not exist)" in html
    assert html.count("data:image/jpeg") == 16


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
