"""Retrieval from files to page: known exact results, chance by simulation, and errors."""

import base64
import json
import math
import re
import shutil
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from v3s.data.index_table import IndexTable
from v3s.data.synthetic import make_clips
from v3s.data.views import View, read_clips
from v3s.features.source import open_source
from v3s.protocols.retrieve import (
    PAPER_KS,
    RetrievalResult,
    RetrieveConfig,
    chance_accuracy,
    chance_precision,
    mean_average_precision,
    rank,
    retrieve,
    score,
    top_k_accuracy,
)
from v3s.vectors.nearest.exact import Neighbours
from v3s.video.index import index_video


@pytest.fixture(autouse=True)
def _read_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scan in this process: starting other processes takes longer than reading these files."""
    monkeypatch.setattr("v3s.data.scan.default_workers", lambda: 0)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 training videos and 8 test videos of 8 classes; the test videos are copies of training videos."""
    folder = tmp_path_factory.mktemp("labelled")
    make_clips(folder / "train", num_videos=16, num_frames=20, height=36, width=48)
    for path in (folder / "train").glob("*/clip_001.mp4"):
        (folder / "test" / path.parent.name).mkdir(parents=True)
        shutil.copy(path, folder / "test" / path.parent.name / "copy.mp4")
    return folder


def run(data: Path, **options: Any) -> tuple[RetrievalResult, str]:
    """Return the result for small clips, and what was printed."""
    defaults: dict[str, Any] = {"backbone": "random:r3d@0.125", "clip_frames": 8, "clip_size": 32, "num_clips": 2}
    console = Console(file=StringIO(), width=120)
    result = retrieve(RetrieveConfig(data=str(data), workers=0, **(defaults | options)), console=console)
    assert isinstance(console.file, StringIO)
    return result, console.file.getvalue()


@pytest.mark.parametrize("pool", ["max", "mean"])
def test_a_copy_is_found_first(labelled: Path, pool: str) -> None:
    result, printed = run(labelled, pool=pool)
    assert (result.num_gallery, result.num_queries, result.num_unknown) == (16, 8, 0)
    assert result.dimension == 64  # 8 x 32 x 32 clips leave one frame of 2 x 2 pixels in conv5, pooled to 1 x 1
    assert result.accuracy[1] == 1
    assert result.accuracy == dict.fromkeys(PAPER_KS, 1.0)
    assert result.chance[1] == pytest.approx(2 / 16)
    assert result.chance[20] == 1
    assert result.mean_average_precision > result.chance_precision
    assert "8 queries, and a gallery of 16 videos" in printed
    assert re.search(r"top 1 +│ +100.0% +│ +12.5%", printed)
    assert re.search(r"top 20 \(whole gallery\) +│ +100.0% +│ +100.0%", printed)


def test_features_are_those_of_the_last_pooling_layer(labelled: Path) -> None:
    """Paper section 4.4: 512 x 2 x 3 x 3 = 9,216 numbers from 16 frames of 112 x 112; an eighth at a width of 1/8."""
    result, _ = run(labelled, clip_frames=16, clip_size=112, num_clips=1)
    assert result.dimension == 9216 // 8


def test_ranking_uses_the_mean_over_clips(labelled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compared with running the network by hand on each clip of a query."""
    calls: list[tuple[Tensor, int, bool]] = []

    def spy(queries: Tensor, gallery: Tensor, k: int, *, centre: bool) -> Neighbours:
        calls.append((queries, k, centre))
        return rank(queries, gallery, k, centre=centre)

    monkeypatch.setattr("v3s.protocols.retrieve.rank", spy)
    run(labelled, centre=True, pool="mean", precision="fp32")
    ((queries, k, centre),) = calls
    assert (k, centre) == (16, True)
    table = IndexTable.of([index_video(labelled / "test/bounce/copy.mp4")])
    view = View(clip_frames=8, clip_size=32, num_clips=2)
    clips = read_clips(table, 0, view, [range(8), range(12, 20)])  # the first and the last 8 of 20 frames
    with torch.inference_mode():
        expected = open_source("random:r3d@0.125").backbone(clips.float() / 255).mean(dim=0)
    torch.testing.assert_close(queries[0], expected)


def test_every_query_counts_and_unknown_classes_are_wrong(labelled: Path, tmp_path: Path) -> None:
    """The mean includes a test class without gallery videos, and videos shorter than a clip."""
    shutil.copytree(labelled, tmp_path / "data")
    data = tmp_path / "data"
    shutil.rmtree(data / "train/walk")
    result, printed = run(data, clip_frames=24, page=str(tmp_path / "page.html"), page_queries=8)
    assert (result.num_gallery, result.num_queries, result.num_unknown) == (14, 8, 1)
    assert result.accuracy[1] == result.accuracy[50] == 7 / 8
    assert result.chance[1] == pytest.approx(7 / 8 * 2 / 14)
    assert result.chance[50] == 7 / 8
    assert "1 of 8 test videos has a class without training videos: walk (1)" in printed
    assert "14 of 14 training videos are shorter than 24 frames" in printed
    assert "query: class not in the gallery" in (tmp_path / "page.html").read_text()


def test_the_result_file(labelled: Path, tmp_path: Path) -> None:
    result, _ = run(labelled, out=str(tmp_path / "deep/result.json"))
    written = json.loads((tmp_path / "deep/result.json").read_text())
    assert written["accuracy"] == {str(k): share for k, share in result.accuracy.items()}
    assert written["mean_average_precision"] == result.mean_average_precision
    assert (written["num_gallery"], written["num_queries"], written["left_out"]) == (16, 8, {})
    assert (written["backbone"], len(written["fingerprint"])) == ("random:r3d@0.125", 64)
    assert written["view"] == {
        "clip_frames": 8,
        "clip_size": 32,
        "num_clips": 2,
        "stride": 0,
        "fps": None,
        "window": None,
        "mask": None,
        "resize": None,
    }
    assert "16 videos in 8 classes" in written["gallery"]
    assert run(labelled)[0] == result
    assert run(labelled, seed=1)[0] != result  # other random weights


# The page


def test_the_page_embeds_its_images_and_marks_right_and_wrong(labelled: Path, tmp_path: Path) -> None:
    run(labelled, page=str(tmp_path / "page.html"), page_queries=3)
    html = (tmp_path / "page.html").read_text()
    assert html.count("<h3>") == 3
    sources = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert len(sources) == 3 * (1 + 5)
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", html)
    assert [caption[0] for caption in captions].count("q") == 3
    for query, neighbours in ((captions[n], captions[n + 1 : n + 6]) for n in (0, 6, 12)):
        name = query.removeprefix("query: ")
        assert re.match(rf"✓ {name}, cosine 1\.000, z \+\d+\.\d\d; ", neighbours[0])
        standard = [float(re.findall(r"z ([+-][\d.]+)", caption)[0]) for caption in neighbours]
        assert sum(standard) > 0.5  # the first five of sixteen lie above the mean of all
        assert all((caption[0] == "✓") == (caption[2:].split(",")[0] == name) for caption in neighbours)
        assert sum(caption[0] == "✗" for caption in neighbours) >= 3  # two gallery videos of each class
    for caption, source in zip(captions, sources, strict=True):
        green = left_border(source) @ [-1, 1, 0] > 0  # green is (0, 158, 115), orange is (213, 94, 0)
        assert caption[0] == "q" or green == (caption[0] == "✓")


def left_border(uri: str) -> np.ndarray:
    """Return the mean colour of the four leftmost columns of a JPEG."""
    with av.open(BytesIO(base64.b64decode(uri.partition(",")[2])), "r") as container:
        picture = next(container.decode(video=0)).to_ndarray(format="rgb24")
    mean: np.ndarray = picture[:, :4].mean(axis=(0, 1))
    return mean


def test_the_seed_chooses_the_queries_on_the_page(labelled: Path, tmp_path: Path) -> None:
    def queries(seed: int) -> list[str]:
        run(labelled, page=str(tmp_path / "page.html"), page_queries=2, seed=seed)
        return re.findall("<h3>(.*?)</h3>", (tmp_path / "page.html").read_text())

    assert queries(0) == queries(0)
    assert len({tuple(queries(seed)) for seed in range(4)}) > 1


def test_the_page_escapes_names(tmp_path: Path) -> None:
    make_clips(tmp_path / "made", num_videos=2, num_frames=8, height=36, width=48)
    names = ["<script>alert(1)</script>".replace("/", "|"), 'a & "b"']
    for part in ("train", "test"):
        for number, (name, path) in enumerate(zip(names, sorted((tmp_path / "made").glob("*/*")), strict=True)):
            (tmp_path / "data" / part / name).mkdir(parents=True)
            shutil.copy(path, tmp_path / "data" / part / name / f"{number}.mp4")
    run(tmp_path / "data", page=str(tmp_path / "page.html"))
    html = (tmp_path / "page.html").read_text()
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "a &amp; &#34;b&#34;" in html


# Chance


@pytest.mark.parametrize("k", [1, 3, 10, 12, 50])
def test_chance_agrees_with_random_rankings(k: int) -> None:
    gallery = torch.tensor([0] * 5 + [1] * 2 + [2] * 5)
    queries = torch.tensor([0, 1, 1, 2, -1])
    generator = torch.Generator().manual_seed(0)
    draws = 2000
    accuracies = [
        top_k_accuracy(queries, gallery, torch.rand(5, 12, generator=generator).argsort(), [k])[k] for _ in range(draws)
    ]
    chance = chance_accuracy([5, 2, 2, 5, 0], 12, k)
    assert chance == pytest.approx(np.mean(accuracies), abs=4 * 0.5 / math.sqrt(5 * draws))


def test_chance_precision_agrees_with_random_rankings() -> None:
    gallery = torch.tensor([0] * 5 + [1] * 1 + [2] * 3)
    queries = torch.tensor([0, 1, 1, 2, -1])
    generator = torch.Generator().manual_seed(0)
    precisions = [
        mean_average_precision(queries, gallery, torch.rand(5, 9, generator=generator).argsort()) for _ in range(3000)
    ]
    error = float(np.std(precisions)) / math.sqrt(len(precisions))
    assert chance_precision([5, 1, 1, 3, 0], 9) == pytest.approx(np.mean(precisions), abs=4 * error)
    assert chance_precision([4], 4) == pytest.approx(1)
    assert chance_precision([1], 1) == 1


def test_chance_at_the_size_of_ucf101() -> None:
    """101 classes of about 94 videos: the binomial approximation is close to the exact value, and nothing overflows."""
    assert chance_accuracy([94] * 3, 9537, 1) == pytest.approx(94 / 9537)
    assert chance_accuracy([94] * 3, 9537, 50) == pytest.approx(1 - (1 - 94 / 9537) ** 50, rel=0.01)


def test_scores_of_a_known_ranking() -> None:
    gallery, queries = torch.tensor([0, 1, 1]), torch.tensor([0, 1])
    ranked = torch.tensor([[1, 0, 2], [1, 2, 0]])
    result = score(queries, gallery, ranked, groups=torch.tensor([0, 1]), dimension=7)
    assert (result.hits, result.standard_error) == ((False, True), 0.5)
    assert result.accuracy == {1: 0.5, 5: 1.0, 10: 1.0, 20: 1.0, 50: 1.0}
    assert result.mean_average_precision == pytest.approx((1 / 2 + 1) / 2)
    assert result.chance[1] == pytest.approx((1 / 3 + 2 / 3) / 2)


# Errors


def test_errors_are_explained(labelled: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no stage 'conv9'; it has: conv1, conv2"):
        run(labelled, stage="conv9")
    (tmp_path / "empty/train").mkdir(parents=True)
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / "empty"))):
        run(tmp_path / "empty", test_data=str(labelled / "test"))
    for name in ("train/walk", "test/walk", "walk"):
        (tmp_path / "mixed" / name).mkdir(parents=True)
        (tmp_path / "mixed" / name / "one.mp4").touch()
    with pytest.raises(ValueError, match="has no test subset"):
        run(tmp_path / "mixed")
    (tmp_path / "flat").mkdir()
    shutil.copy(next((labelled / "test").glob("*/*")), tmp_path / "flat/one.mp4")
    with pytest.raises(ValueError, match=r"has no label; first: one\.mp4"):
        run(tmp_path / "flat", test_data=str(labelled / "test"))


@pytest.mark.parametrize("name", ["num_clips", "batch_size", "page_queries"])
def test_counts_are_positive(name: str) -> None:
    options: dict[str, Any] = {name: 0}
    with pytest.raises(ValueError, match=f"{name} is 0; it must be more than 0"):
        RetrieveConfig(data="x", backbone="random:r3d", **options)


def test_a_network_of_nan_is_refused(labelled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_source("random:r3d@0.125")
    nn.init.constant_(next(opened.backbone.parameters()), math.nan)
    monkeypatch.setattr("v3s.features.encoder.open_source", lambda *_, **__: opened)
    message = r"\.mp4: random:r3d@0.125 outputs NaN or infinity for this video; use --precision fp32"
    with pytest.raises(ValueError, match=message):
        run(labelled)
