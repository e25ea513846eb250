"""Probes of frozen features: end to end on small videos, and on features with known accuracies."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from v3s.data.lists.splits import VideoList
from v3s.features.source import open_source
from v3s.protocols.labelled.parts import Labelled, Parts
from v3s.protocols.probe import Draws, ProbeConfig, ProbeResult, control_sentence, probe, run_probes

NUM_CLASSES = 8


def blobs(num_rows: int, seed: int, spread: float) -> tuple[Tensor, Tensor]:
    """Rows around one centre per class."""
    labels = torch.arange(num_rows) % NUM_CLASSES
    centres = torch.randn(NUM_CLASSES, 12, generator=torch.Generator().manual_seed(7))
    return centres[labels] + spread * torch.randn(num_rows, 12, generator=torch.Generator().manual_seed(seed)), labels


def run(train_labels: Tensor, test_labels: Tensor, train: Tensor, test: Tensor, **options: object) -> ProbeResult:
    none = Labelled(VideoList(Path(), (), (), (), ""), np.empty(0), {})
    parts = Parts(none, train_labels, none, test_labels, tuple("abcdefgh"), torch.arange(len(test)))
    config = ProbeConfig(backbone="", data="", **options)  # type: ignore[arg-type]
    return run_probes(train, test, parts, config, started=0.0, console=Console(quiet=True))


def test_separable_features_are_classified_and_shuffled_labels_are_not() -> None:
    (train, labels), (test, truth) = blobs(160, 0, 0.8), blobs(800, 1, 0.8)
    result = run(labels, truth, train, test)
    assert result.linear.top_1 > 0.9
    assert result.neighbours.top_1 > 0.9
    assert result.shuffled.mean == pytest.approx(1 / 8, abs=0.12)
    assert result.shuffled.num_draws == 5
    assert result.shuffled.standard_error is not None
    assert result.shuffled.standard_error > 0.01  # all videos of a blob are right or wrong together
    assert result.chance == result.majority == 1 / 8
    one, five, ten = result.few_labels
    assert one.mean + 0.05 < five.mean < ten.mean + 0.02
    assert one.num_draws == 5


def test_features_without_information_give_chance() -> None:
    generator = torch.Generator().manual_seed(0)
    train, test = torch.randn(160, 12, generator=generator), torch.randn(2000, 12, generator=generator)
    result = run(torch.arange(160) % 8, torch.arange(2000) % 8, train, test, few_labels=(5,))
    for share in (result.linear.top_1, result.neighbours.top_1, result.shuffled.mean, result.few_labels[0].mean):
        assert share == pytest.approx(1 / 8, abs=0.035)
    assert result.linear.top_5 == pytest.approx(5 / 8, abs=0.05)


def test_unknown_classes_count_as_wrong() -> None:
    (train, labels), (test, truth) = blobs(160, 0, 0.01), blobs(80, 1, 0.01)
    truth[:40] = -1
    result = run(labels, truth, train, test, few_labels=())
    assert (result.num_unknown, result.linear.top_1, result.neighbours.top_1) == (40, 0.5, 0.5)
    assert result.linear.standard_error == pytest.approx((0.25 / 79) ** 0.5)


def test_a_draw_of_all_labels_is_not_repeated() -> None:
    (train, labels), (test, truth) = blobs(40, 0, 0.5), blobs(80, 1, 0.5)
    (few,) = run(labels, truth, train, test, few_labels=(5, 6)).few_labels
    assert (few.per_class, few.num_draws, few.standard_error) == (5, 1, None)


def test_few_labels_are_fitted_with_the_ordinary_penalty() -> None:
    """That of scikit-learn, as there are too few labels to choose one."""
    (train, labels), (test, truth) = blobs(40, 0, 2.0), blobs(2000, 1, 2.0)
    (few,) = run(labels, truth, train, test, few_labels=(5,)).few_labels
    scaler = StandardScaler().fit(train.double())
    oracle = LogisticRegression(max_iter=5000).fit(scaler.transform(train.double()), labels)
    assert few.mean == pytest.approx(oracle.score(scaler.transform(test.double()), truth), abs=2e-3)


def test_the_error_of_few_labels_is_that_of_the_mean_over_draws() -> None:
    """Of two draws: half of their difference. The first draw is that of a run with one, and the seed chooses it."""
    (train, labels), (test, truth) = blobs(160, 0, 1.5), blobs(800, 1, 1.5)
    (one,), (two,), (other,) = (
        run(labels, truth, train, test, few_labels=(1,), repeats=repeats, seed=seed).few_labels
        for repeats, seed in ((1, 3), (2, 3), (1, 4))
    )
    second = 2 * two.mean - one.mean
    assert abs(one.mean - second) > 0.01
    assert two.standard_error == pytest.approx(abs(one.mean - second) / 2)
    assert one.standard_error is None
    assert other.mean != one.mean


def test_the_smallest_class_limits_the_labels() -> None:
    (train, labels), (test, truth) = blobs(80, 0, 0.5), blobs(80, 1, 0.5)
    kept = torch.cat([(labels > 0).nonzero()[:, 0], (labels == 0).nonzero()[:2, 0]])
    result = run(labels[kept], truth, train[kept], test, few_labels=(1, 2, 3))
    assert [few.per_class for few in result.few_labels] == [1, 2]


@pytest.mark.parametrize(
    ("mean", "error", "draws", "judged"),
    [
        (0.289, 0.044, 5, "no better, as it should be"),  # twice the error, of five draws
        (0.289, 0.010, 5, "better: labels of the test videos may leak into the training"),
        (0.210, 0.001, 5, "no better, as it should be"),  # as many test videos may be right by chance
        (0.150, 0.044, 5, "no better, as it should be"),
        (1.0, None, 1, "1 draw cannot show a leak, --repeats 5 can"),
    ],
)
def test_the_control_has_a_verdict(mean: float, error: float | None, draws: int, judged: str) -> None:
    text = control_sentence(Draws(draws, mean, error), 0.2, 60)
    assert text.startswith(f"shuffled labels: {mean:.1%}")
    assert text.endswith(f", where one answer to all, or guessing, gets 20.0% ({judged})")


@pytest.fixture(scope="module")
def config(labelled_videos: Path) -> ProbeConfig:
    return ProbeConfig(
        backbone="random:r3d@0.125",
        data=str(labelled_videos),
        clip_frames=8,
        clip_size=32,
        num_clips=2,
        few_labels=(1, 5),
        repeats=2,
        workers=0,
    )


def test_from_videos_to_accuracies(config: ProbeConfig, tmp_path: Path) -> None:
    out, console = tmp_path / "probe.json", Console(file=io.StringIO(), width=200)
    result = probe(replace(config, out=str(out)), console=console)
    assert (result.num_train, result.num_test, result.num_classes, result.dimension, result.k) == (16, 8, 8, 64, 16)
    assert [run.per_class for run in result.few_labels] == [1]
    assert 0 < result.minutes < 5
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert f"shuffled labels: {result.shuffled.mean:.1%}" in text
    assert (
        ", where one answer to all, or guessing, gets 12.5% (2 draws cannot show a leak, --repeats 5 can); took" in text
    )
    assert "k is reduced from 20 to 16" in text
    assert re.search(r"top-5\W.*\bchance\W+12\.5%\W+62\.5%", text, flags=re.DOTALL)
    assert "skipped: run with 5 labels per class, because the smallest class has 2 videos for training" in text
    written = json.loads(out.read_text())
    assert written["linear"]["top_1"] == result.linear.top_1
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
    assert len(written["fingerprint"]) == 64
    assert {"backbone", "train_source", "test_source", "left_out", "num_unknown"} <= written.keys()


def test_two_classes_have_no_top_5(config: ProbeConfig, tmp_path: Path) -> None:
    listed, out, console = tmp_path / "two.txt", tmp_path / "probe.json", Console(file=io.StringIO(), width=200)
    folders = sorted(folder for folder in (Path(config.data or "") / "train").iterdir() if folder.is_dir())[:2]
    files = [(file, folder.name) for folder in folders for file in sorted(folder.rglob("*.mp4"))]
    listed.write_text("".join(f"{file} {name}\n" for file, name in files))
    assert probe(replace(config, data=str(listed), out=str(out)), console=console).linear.top_5 is None
    assert isinstance(console.file, io.StringIO)
    assert "top-1" in console.file.getvalue()
    assert "top-5" not in console.file.getvalue()
    assert json.loads(out.read_text())["linear"]["top_5"] is None


def test_a_network_of_nan_is_refused(config: ProbeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_source("random:r3d@0.125")
    torch.nn.init.constant_(next(opened.backbone.parameters()), torch.nan)
    monkeypatch.setattr("v3s.features.encoder.open_source", lambda *_, **__: opened)
    message = r"\.mp4: random:r3d@0.125 outputs NaN or infinity for this video; use --precision fp32"
    with pytest.raises(ValueError, match=message):
        probe(config, console=Console(quiet=True))


def test_the_same_seed_gives_the_same_numbers(config: ProbeConfig) -> None:
    quiet = Console(quiet=True)
    first, second = probe(config, console=quiet), probe(config, console=quiet)
    assert (first.linear, first.neighbours, first.few_labels, first.shuffled) == (
        second.linear, second.neighbours, second.few_labels, second.shuffled
    )  # fmt: skip


@pytest.mark.parametrize("wrong", [{"k": 0}, {"num_clips": 0}, {"few_labels": (1, 0)}, {"repeats": 0}])
def test_numbers_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is .* must be more than 0"):
        ProbeConfig(backbone="random:r3d", data="videos", **wrong)  # type: ignore[arg-type]


def test_an_unknown_stage_is_refused(config: ProbeConfig) -> None:
    with pytest.raises(ValueError, match="no stage 'conv9'"):
        probe(replace(config, stage="conv9"), console=Console(quiet=True))
