"""Action similarity from files to accuracy: easy pairs, impossible pairs, all kinds of lists, and errors."""

import itertools
import json
import re
import shutil
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from scipy.io import savemat
from torch import nn

from v3s.data.streams import ClipRuns
from v3s.data.synthetic import make_clips
from v3s.features.source import Source
from v3s.protocols.classify import C_GRID
from v3s.protocols.similarity import SimilarityConfig, SimilarityReport, similarity
from v3s.protocols.similarity_measures import pair_features

NUM_CLASSES, NUM_VIDEOS = 8, 32


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 videos of 16 frames in 8 class folders."""
    folder = tmp_path_factory.mktemp("videos")
    make_clips(folder, num_videos=NUM_VIDEOS, num_frames=16, height=36, width=48)
    return folder


def run(data: Path, **options: Any) -> tuple[SimilarityReport, str]:
    """Return the report for small clips, and what was printed."""
    defaults: dict[str, Any] = {"backbone": "random:r3d@0.125", "clip_frames": 8, "clip_size": 32}
    console = Console(file=StringIO(), width=140)
    report = similarity(SimilarityConfig(data=str(data), workers=0, **(defaults | options)), console=console)
    assert isinstance(console.file, StringIO)
    return report, console.file.getvalue()


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*.mp4"))


def write_csv(path: Path, rows: list[tuple[str, str, int, int]]) -> str:
    path.write_text("a,b,same,fold\n" + "".join(f"{a},{b},{same},{fold}\n" for a, b, same, fold in rows))
    return str(path)


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the videos that are read."""
    seen: list[str] = []
    original = ClipRuns.__getitem__

    def spy(self: ClipRuns, run: Any) -> Any:
        seen.append(Path(self.path(run)).name)
        return original(self, run)

    monkeypatch.setattr(ClipRuns, "__getitem__", spy)
    return seen


def test_copies_are_distinguished_from_others(videos: Path, tmp_path: Path, embedded: list[str]) -> None:
    """Same: a video and its copy. Not the same: two videos. Only videos in pairs are encoded, each once."""
    used = names(videos)[:20]
    for number, name in enumerate(used):
        shutil.copy(videos / name, tmp_path / f"v{number}.mp4")
        shutil.copy(videos / name, tmp_path / f"w{number}.mp4")
    shutil.copy(videos / used[0], tmp_path / "unused.mp4")
    rows = []
    for fold, start in enumerate(range(0, 20, 5)):
        for n in range(start, start + 5):
            rows += [(f"v{n}.mp4", f"w{n}.mp4", 1, fold), (f"v{n}.mp4", f"w{start + (n + 1) % 5}.mp4", 0, fold)]
    report, printed = run(tmp_path, pairs=write_csv(tmp_path / "p.csv", rows), out=str(tmp_path / "report.json"))
    assert report.result.mean == 1
    assert report.result.auc == pytest.approx(1)
    assert report.result.fold_accuracy == (1, 1, 1, 1)
    assert (report.num_pairs, report.num_videos, report.chance, report.c) == (40, 40, 0.5, 1.0)
    assert sorted(embedded) == sorted({name for a, b, *_ in rows for name in (a, b)})
    assert "40 pairs of 40 videos; C = 1 (set by --c)" in printed
    assert re.search(r"mean accuracy ± standard error +│ +100.0% +│ +50.0%", printed)
    assert printed.count("accuracy, fold") == 4
    assert "more than one fold" not in printed
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["view"] == {
        "clip_frames": 8,
        "clip_size": 32,
        "num_clips": 10,
        "stride": 8,
        "fps": None,
        "window": None,
        "mask": None,
        "resize": None,
    }
    assert (written["result"]["mean"], written["num_pairs"], written["left_out"]) == (1, 40, {})
    assert (written["stages"], len(written["fingerprint"])) == (["conv3", "conv4", "conv5"], 64)


def test_shuffled_labels_give_chance(videos: Path, tmp_path: Path) -> None:
    pairs = list(itertools.combinations(names(videos), 2))
    generator = np.random.default_rng(0)
    same = generator.permutation(np.arange(len(pairs)) % 2)
    rows = [(a, b, int(truth), n % 4) for n, ((a, b), truth) in enumerate(zip(pairs, same, strict=True))]
    report, printed = run(videos, pairs=write_csv(tmp_path / "p.csv", rows), c=0.01)
    assert report.num_pairs == NUM_VIDEOS * (NUM_VIDEOS - 1) // 2
    assert 0.41 < report.result.mean < 0.59  # four standard deviations of 496 coin flips
    assert 0.41 < report.result.auc < 0.59
    assert f"videos in more than one fold: {NUM_VIDEOS}" in printed


def test_drawn_pairs(videos: Path, embedded: list[str]) -> None:
    options: dict[str, Any] = {"num_folds": 2, "pairs_per_fold": 20}
    report, printed = run(videos, **options)
    assert (report.num_pairs, len(report.result.fold_accuracy), report.chance) == (40, 2, 0.5)
    assert report.num_videos == len(embedded) <= NUM_VIDEOS
    assert "32 of 32 videos usable, 0 too short" in printed
    assert "drawn with seed 0" in report.source
    assert run(videos, **options)[0] == report
    assert run(videos, **options, seed=1)[0].result != report.result


def test_features_are_unit_vectors_of_each_stage(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []

    def spy(a: list[torch.Tensor], b: list[torch.Tensor]) -> torch.Tensor:
        seen.extend([*a, *b])
        return pair_features(a, b)

    monkeypatch.setattr("v3s.protocols.similarity.pair_features", spy)
    run(videos, num_folds=2, pairs_per_fold=10)
    assert [tuple(side.shape) for side in seen] == [(20, 16), (20, 32), (20, 64)] * 2
    for side in seen:
        torch.testing.assert_close(side.norm(dim=1), torch.ones(20))


def test_chance_always_predicts_the_more_frequent_kind(videos: Path, tmp_path: Path) -> None:
    listed = names(videos)
    rows = [(listed[2 * n], listed[2 * n + 1], int(n % 4 == 0), n // 8) for n in range(16)]
    report, _ = run(videos, pairs=write_csv(tmp_path / "p.csv", rows))
    assert report.chance == 0.75


def test_short_videos_are_reported(videos: Path) -> None:
    _, printed = run(videos, num_folds=2, pairs_per_fold=10, clip_frames=24)
    assert re.search(r"(\d+) of \1 videos are shorter than 24 frames: their last frame is repeated", printed)


# ASLAN's lists


def test_aslan_lists_and_view_1(videos: Path, tmp_path: Path) -> None:
    for number, name in enumerate(names(videos), start=1):
        shutil.copy(videos / name, tmp_path / f"{number:04d}.mp4")
    label = (np.arange(NUM_VIDEOS) // (NUM_VIDEOS // NUM_CLASSES)).tolist()
    pairs = [(a, b, int(label[a] == label[b])) for a, b in itertools.combinations(range(NUM_VIDEOS), 2)]
    same, other = ([pair for pair in pairs if pair[2] == truth] for truth in (1, 0))
    rows = np.array([[a + 1, b + 1, truth, label[a] + 1, label[b] + 1] for a, b, truth in same[:40] + other[:40]])
    view2 = np.stack([rows[0::4], rows[1::4]], axis=2)  # 20 pairs x 5 columns x 2 splits, half of them the same
    savemat(tmp_path / "View2.mat", {"action_splits_pairs": view2})
    savemat(tmp_path / "train_pairs.mat", {"a": rows[2::4]})
    savemat(tmp_path / "test_pairs.mat", {"b": rows[3::4]})
    view1 = {"view1_train": str(tmp_path / "train_pairs.mat"), "view1_test": str(tmp_path / "test_pairs.mat")}
    report, printed = run(tmp_path, pairs=str(tmp_path / "View2.mat"), **view1, c=0.5)
    assert (report.num_pairs, len(report.result.fold_accuracy), report.chance) == (40, 2, 0.5)
    assert report.chosen
    assert report.c in C_GRID  # which 0.5 is not
    assert f"C = {report.c:g} (chosen on View-1)" in printed
    without_view1, _ = run(tmp_path, pairs=str(tmp_path / "View2.mat"), c=report.c)
    assert (without_view1.result, without_view1.chosen) == (report.result, False)
    assert without_view1.num_videos < report.num_videos  # View-1 has videos of its own
    (tmp_path / "0001.mp4").unlink()
    with pytest.raises(ValueError, match=r"1 of \d+ samples of the pair list has no file; first: 0001"):
        run(tmp_path, pairs=str(tmp_path / "View2.mat"))


# Errors


def test_no_pair_is_skipped(videos: Path, tmp_path: Path) -> None:
    """A missing or unreadable video stops the command with a count, before anything is computed."""
    shutil.copytree(videos, tmp_path / "data")
    listed = names(videos)
    rows = [(listed[n], listed[n + 4], n % 2, n // 4) for n in range(8)]
    missing = write_csv(tmp_path / "m.csv", [*rows, ("walk/gone.mp4", listed[0], 1, 0), (listed[1], "no.mp4", 0, 1)])
    with pytest.raises(ValueError, match=r"m\.csv: 2 of 14 videos .* in 2 of 10 pairs; first: .*no\.mp4: no such file"):
        run(tmp_path / "data", pairs=missing)
    (tmp_path / "data/broken.mp4").write_bytes(b"no video")
    broken = write_csv(tmp_path / "b.csv", [*rows, ("broken.mp4", listed[0], 1, 0), ("broken.mp4", listed[1], 0, 1)])
    with pytest.raises(ValueError, match=r"b\.csv: 1 of 13 videos .* in 2 of 10 pairs; first: .*broken\.mp4: \w+"):
        run(tmp_path / "data", pairs=broken)


def test_unreadable_videos_are_skipped_when_pairs_are_drawn(videos: Path, tmp_path: Path) -> None:
    shutil.copytree(videos, tmp_path / "data")
    (tmp_path / "data/walk/broken.mp4").write_bytes(b"no video")
    report, printed = run(tmp_path / "data", num_folds=2, pairs_per_fold=10, out=str(tmp_path / "r.json"))
    assert report.num_pairs == 20
    assert "skipped: walk/broken.mp4: " in printed
    assert list(json.loads((tmp_path / "r.json").read_text())["left_out"]) == ["walk/broken.mp4"]


def test_errors_are_explained(videos: Path, tmp_path: Path, embedded: list[str]) -> None:
    with pytest.raises(ValueError, match="no stage 'pool3'; it has: conv1"):
        run(videos, stages=("conv3", "pool3"))
    with pytest.raises(ValueError, match=r"x\.csv: no such file"):
        run(videos, pairs=str(tmp_path / "x.csv"))
    (tmp_path / "pairs.txt").touch()
    with pytest.raises(ValueError, match=r"pairs\.txt: unknown file type; give a \.mat file \(ASLAN\) or a \.csv file"):
        run(videos, pairs=str(tmp_path / "pairs.txt"))
    with pytest.raises(ValueError, match="is not a folder"):
        run(tmp_path / "absent", pairs=str(tmp_path / "pairs.txt"))
    listed = names(videos)
    one = write_csv(tmp_path / "one.csv", [(listed[0], listed[1], 1, 3), (listed[0], listed[2], 0, 3)])
    with pytest.raises(ValueError, match=r"all 2 pairs are in fold 3; the pairs must be in two folds or more"):
        run(videos, pairs=one)
    shutil.copy(videos / listed[0], tmp_path / "flat.mp4")
    with pytest.raises(ValueError, match=r"1 of 1 videos has no label; first: flat\.mp4"):
        run(tmp_path)
    with pytest.raises(ValueError, match=r"8 classes for 10 folds: .*; choose --num-folds 4 or fewer"):
        run(videos)
    assert embedded == []  # all errors come before the long work


def test_a_missing_extra_is_reported_before_the_long_work(
    videos: Path, embedded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.svm", None)
    monkeypatch.setattr("v3s.protocols.similarity.usable_videos", lambda *_, **__: embedded.append("scanned"))
    with pytest.raises(ValueError, match=r"action similarity needs sklearn, .* pip install 'v3s\[eval\]'"):
        run(videos, num_folds=2, pairs_per_fold=10)
    assert embedded == []


class Negative(nn.Module):
    """A network whose stage gives numbers below 0."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = {"conv5": 3}

    def forward_stages(self, clips: torch.Tensor) -> dict[str, torch.Tensor]:
        """Subtract 1 from clips in [0, 1]."""
        return {"conv5": clips - 1}


def test_negative_features_are_refused(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source(Negative(), "mine", "mine", 1.0, "", 8, 32)
    monkeypatch.setattr("v3s.features.encoder.open_source", lambda *_, **__: source)
    with pytest.raises(ValueError, match=r"stage 'conv5' of mine gives -0\.\d+ for .*\.mp4; .* end in a ReLU"):
        run(videos, stages=("conv5",), num_folds=2, pairs_per_fold=10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride": -1}, "stride is -1"),
        ({"c": 0.0}, r"c is 0\.0"),
        ({"stages": ()}, "stages is empty"),
        ({"num_clips": 0}, "num_clips is 0"),
        ({"num_folds": 1}, "num_folds is 1; it must be 2 or more"),
        ({"pairs_per_fold": 5}, "pairs_per_fold is 5; it must be an even number"),
        ({"view1_train": "a.mat", "pairs": "p.mat"}, "needs both of its lists"),
        ({"view1_train": "a.mat", "view1_test": "b.mat"}, "and the pairs of View-2"),
        ({"pairs": "p.csv", "splits": "lists"}, r"pairs \(p\.csv\) and splits \(lists\) cannot be combined"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SimilarityConfig(data="x", backbone="random:r3d", **options)
