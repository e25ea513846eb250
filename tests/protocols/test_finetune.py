"""Small complete fine-tuning runs: files, exact resume, and no use of test videos in training."""

import io
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from v3s.argv import to_yaml
from v3s.backbones import create_backbone
from v3s.commands.pretrain import PretrainConfig
from v3s.data import streams
from v3s.data.synthetic import MOTIONS
from v3s.features.saved import Trained, describe_trained, load_pretext_model, save_trained
from v3s.features.source import open_source
from v3s.files.weights import fingerprint
from v3s.files.writing import CheckpointError
from v3s.pages.images import mp4
from v3s.pretext.model import PretextModel
from v3s.pretext.plan import Sampling
from v3s.pretext.task import get_task
from v3s.protocols import finetune as module
from v3s.protocols import recognition
from v3s.protocols.finetune import FinetuneConfig, finetune, initial_rate, set_up_finetuning
from v3s.protocols.recognition import RecognitionResult
from v3s.recognizers.classifier import load_classifier
from v3s.train.callbacks import Callback
from v3s.train.run import read_metrics
from v3s.train.stop import TrainingStoppedError
from v3s.video import decode
from v3s.video.frames import Frames

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def config(small_finetuning: FinetuneConfig) -> FinetuneConfig:
    return replace(small_finetuning, test_clips=3, flip=True, checkpoint_seconds=0)


@pytest.fixture(scope="module")
def finished(config: FinetuneConfig, tmp_path_factory: pytest.TempPathFactory) -> RecognitionResult:
    """A run without interruption."""
    return finetune(replace(config, out=str(tmp_path_factory.mktemp("runs") / "uninterrupted")), console=QUIET)


def last_state(run: Path) -> dict[str, Any]:
    state = torch.load(run / "checkpoints/last.pt", weights_only=True)
    assert isinstance(state, dict)
    return state


def test_the_written_result_is_the_returned_one(finished: RecognitionResult) -> None:
    written = json.loads((finished.run / "result.json").read_text())
    scores = finished.scores
    assert (written["num_train"], written["num_validation"], written["num_test"]) == (12, 4, 8)
    assert (written["top_1"], written["top_5"]) == (scores.top_1, scores.top_5)
    assert (written["chance"], written["majority"], written["num_unknown"]) == (1 / 8, 1 / 8, 0)
    assert written["confusion"] == scores.confusion.tolist()
    assert sum(map(sum, written["confusion"])) == 8
    assert written["best_epoch"] == finished.best_epoch
    assert scores.probabilities.sum(dim=1) == pytest.approx(np.ones(8), abs=1e-5)


def test_the_run_folder_contains_all_documented_files(finished: RecognitionResult) -> None:
    classifier, trained = load_classifier(finished.run), describe_trained(finished.run)
    classes, sampling = trained.classes, trained.sampling
    assert classes == finished.scores.classes
    assert (sampling.clip_frames, sampling.clip_size) == (8, 32)
    assert classifier.layer.out_features == 8
    assert (classifier.space.view.num_clips, classifier.recognition.average) == (3, "probabilities")
    assert classifier.recognition.calibration == finished.calibration
    page = (finished.run / "report.html").read_text()
    assert all(name in page for name in classes)
    metrics = read_metrics(finished.run / "metrics.jsonl")
    assert [line["learning_rate"] for line in metrics] == [0.001, 0.001]
    assert max(line["validation"]["accuracy"] for line in metrics) == finished.validation["accuracy"]


def test_a_fine_tuned_run_is_not_a_pre_trained_one(finished: RecognitionResult) -> None:
    with pytest.raises(
        CheckpointError, match="is a recognizer, without the heads of the pretext task; give a run of v3s pretrain"
    ):
        load_pretext_model(finished.run)


@pytest.mark.parametrize("steps", [2, 3, 5])
def test_a_killed_run_resumes_exactly(
    steps: int,
    config: FinetuneConfig,
    finished: RecognitionResult,
    tmp_path: Path,
    killed_after: Callable[[int], AbstractContextManager[None]],
) -> None:
    config = replace(config, out=str(tmp_path / "killed"), resume=True)
    with killed_after(steps):
        finetune(config, console=QUIET)
    assert last_state(tmp_path / "killed")["epoch"] < 2
    result = finetune(config, console=QUIET)
    ours, theirs = last_state(result.run), last_state(finished.run)
    assert fingerprint(ours["model"]) == fingerprint(theirs["model"])
    momentum, other = ours["optimizer"]["state"], theirs["optimizer"]["state"]
    assert all(torch.equal(momentum[key]["momentum_buffer"], other[key]["momentum_buffer"]) for key in other)
    assert ours["schedule"] == theirs["schedule"]
    for name in ("backbone.safetensors", "classifier.safetensors"):
        assert (result.run / name).read_bytes() == (finished.run / name).read_bytes()
    assert torch.equal(result.scores.probabilities, finished.scores.probabilities)


def test_a_stop_leaves_a_page_of_the_epochs_so_far(
    config: FinetuneConfig, finished: RecognitionResult, tmp_path: Path, stop_at: Callable[[int], Callback]
) -> None:
    """There is nothing of the test videos in it; that of the finished run is the same as without a stop."""
    given, told = replace(config, out=str(tmp_path / "run")), io.StringIO()
    with pytest.raises(TrainingStoppedError):
        finetune(given, callbacks=[stop_at(12 // config.batch_size + 1)], console=Console(file=told, width=1000))
    page = " ".join((tmp_path / "run/report.html").read_text().split())
    assert "after epoch 1 of 2. Epoch 1 is kept: its validation accuracy is the highest." in page
    assert ("Single-clip accuracy" in page, "Test accuracy" in page, "Confusion" in page) == (True, False, False)
    last = told.getvalue().splitlines()[-1]
    assert f"{tmp_path / 'run/backbone.safetensors'} has the weights of epoch 1, which can be used as they are" in last
    finetune(replace(given, resume=True), console=QUIET)
    assert (tmp_path / "run/report.html").read_text() == (finished.run / "report.html").read_text()


def test_test_videos_are_read_only_after_training(
    config: FinetuneConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[str, str]] = []

    def record(name: str) -> Any:
        def read_frames(index: Any, frames: Any) -> Frames:
            read.append((name, index.path))
            return decode.read_frames(index, frames)

        return read_frames

    monkeypatch.setattr(recognition, "read_frames", record("training"))

    def stream(video: Any, wanted: Any, *, at_once: int) -> Any:
        read.append(("testing", video.path))
        return decode.stream_frames(video, wanted, at_once=at_once)

    monkeypatch.setattr(streams, "stream_frames", stream)
    finetune(replace(config, out=str(tmp_path / "run")), console=QUIET)
    names = [name for name, _ in read]
    assert names == sorted(names, reverse=True)  # all of training, then all of testing
    folder = Path(config.data)
    assert {path for name, path in read if name == "training"} == set(map(str, (folder / "train").rglob("*.mp4")))
    after = [path for name, path in read if name == "testing"]
    assert set(after[4:]) == set(map(str, (folder / "test").rglob("*.mp4")))
    assert set(after[:4]) < set(map(str, (folder / "train").rglob("*.mp4")))  # of validation, to calibrate


def test_a_class_folder_is_divided_and_the_division_can_be_given_again(
    config: FinetuneConfig, labelled_videos: Path, tmp_path: Path
) -> None:
    own = replace(config, data=str(labelled_videos / "train"), out=str(tmp_path / "run"), epochs=1)
    finetune(own, console=Console(quiet=True))
    lists = [(tmp_path / "run" / name).read_text().splitlines() for name in ("train.csv", "test.csv")]
    assert [len(lines) for lines in lists] == [8, 8]
    assert [[line.split(",")[1] for line in lines] for lines in lists] == [sorted(MOTIONS)] * 2
    jobs = [
        set_up_finetuning(given, Console(quiet=True)) for given in (own, replace(own, splits=str(tmp_path / "run")))
    ]
    assert [job.train.path((0, 0)) for job in jobs] == [jobs[0].train.path((0, 0))] * 2
    for name in ("train_paths", "test_paths", "classes"):
        assert getattr(jobs[0].parts, name) == getattr(jobs[1].parts, name)
    for job in jobs:
        assert job.parts.test_labels.tolist() == jobs[0].parts.test_labels.tolist()


def test_training_and_validation_videos_are_disjoint(config: FinetuneConfig, tmp_path: Path) -> None:
    job = module.set_up_finetuning(replace(config, out=str(tmp_path)), QUIET)
    train, validation = ({index.path for index in clips.table} for clips in (job.train, job.validation))
    assert (len(train), len(validation), train & validation) == (12, 4, set())
    for clips in (job.train, job.validation):
        names = [Path(index.path).parent.name for index in clips.table]
        assert names == [job.parts.classes[label] for label in clips.labels]
    assert (job.train.seed, job.validation.seed) == (0, None)


def test_the_epoch_with_the_best_validation_accuracy_is_kept(
    config: FinetuneConfig, finished: RecognitionResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accuracies = iter([0.2, 0.6, 0.4])
    monkeypatch.setattr("v3s.train.fit.validate", lambda *arguments: {"loss": 1.0, "accuracy": next(accuracies)})
    result = finetune(replace(config, out=str(tmp_path / "run"), epochs=3), console=QUIET)
    assert (result.best_epoch, result.validation) == (2, {"loss": 1.0, "accuracy": 0.6})
    after_two = last_state(finished.run)["model"]
    kept = load_file(tmp_path / "run/classifier.safetensors")
    assert all(torch.equal(value, after_two[f"classifier.{name}"]) for name, value in kept.items())
    after_three = last_state(tmp_path / "run")["model"]
    assert not torch.equal(kept["weight"], after_three["classifier.weight"])


@pytest.mark.parametrize(("keep", "kept"), [("loss", 3), ("last", 4)])
def test_other_weights_are_kept_on_request(
    config: FinetuneConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: Any, kept: int
) -> None:
    passes = iter([(1.0, 0.2), (0.9, 0.6), (0.8, 0.4), (0.9, 0.5)])

    def validate(*arguments: object) -> dict[str, float]:
        return dict(zip(("loss", "accuracy"), next(passes), strict=True))

    monkeypatch.setattr("v3s.train.fit.validate", validate)
    result = finetune(replace(config, out=str(tmp_path), epochs=4, keep=keep), console=QUIET)
    assert result.best_epoch == kept
    trained = describe_trained(tmp_path / "last")
    assert trained.results == {"epoch": 4, "loss": 0.9, "accuracy": 0.5}
    state = last_state(tmp_path)["model"]
    saved = {f"classifier.{name}": value for name, value in load_file(tmp_path / "last/classifier.safetensors").items()}
    saved |= {f"backbone.{name}": value for name, value in load_file(tmp_path / "last/backbone.safetensors").items()}
    assert all(torch.equal(value, state[name]) for name, value in saved.items())


def test_the_learning_rate_is_divided_by_ten(config: FinetuneConfig, tmp_path: Path) -> None:
    finetune(replace(config, out=str(tmp_path / "run"), decay_epochs=1, learning_rate=0.05), console=QUIET)
    rates = [line["learning_rate"] for line in read_metrics(tmp_path / "run/metrics.jsonl")]
    assert rates == pytest.approx([0.05, 0.005])


def test_a_cosine_needs_its_epochs(config: FinetuneConfig, tmp_path: Path) -> None:
    given = replace(config, out=str(tmp_path / "run"), schedule="cosine", head_rate=10)
    finetune(given, console=QUIET)
    assert [line["learning_rate"] for line in read_metrics(tmp_path / "run/metrics.jsonl")] == [0.001, 0.0005]
    with pytest.raises(ValueError, match=r"other epochs \(2 before, 3 now\): the schedule cosine depends on them"):
        finetune(replace(given, resume=True, epochs=3), console=QUIET)


def test_it_starts_from_the_pre_trained_weights(config: FinetuneConfig, tmp_path: Path) -> None:
    task = get_task("ts")
    model = PretextModel(create_backbone("r3d", 0.125, seed=5), task)
    sampling = Sampling(clip_frames=8, clip_size=32, canvas_size=64)
    described = Trained(kind="pretrained", backbone="r3d", width=0.125, task=task, sampling=sampling, results={})
    trained = save_trained(tmp_path / "pre", model, described)
    config = replace(
        config, backbone=str(tmp_path / "pre"), clip_frames=None, clip_size=None, epochs=1, learning_rate=1e-50
    )
    result = finetune(replace(config, out=str(tmp_path / "run")), console=QUIET)
    kept, weights = load_file(result.run / "backbone.safetensors"), load_file(tmp_path / "pre/backbone.safetensors")
    frozen = [name for name in weights if "running" not in name and "num_batches" not in name]
    assert all(torch.equal(kept[name], weights[name]) for name in frozen)  # at this rate only batch norm's means change
    manifest = json.loads((result.run / "manifest.json").read_text())
    assert (manifest["kind"], manifest["backbone_fingerprint"]) == ("recognizer", trained.fingerprint)


def test_a_pre_training_run_is_never_replaced(config: FinetuneConfig, tmp_path: Path) -> None:
    """Not even before it has saved its first network."""
    (tmp_path / "config.yaml").write_text(to_yaml(PretrainConfig(data="videos", out=str(tmp_path))))
    with pytest.raises(ValueError, match="contains a pre-training run; choose another folder with --out"):
        finetune(replace(config, out=str(tmp_path), overwrite=True), console=QUIET)
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_colours_are_learned(small_finetuning: FinetuneConfig, tmp_path: Path) -> None:
    """Any network that learns at all can distinguish red from blue videos."""
    generator, data = np.random.default_rng(0), tmp_path / "videos"
    for part, num_videos in (("train", 8), ("test", 3)):
        for name, channel in (("red", 0), ("blue", 2)):
            (data / part / name).mkdir(parents=True)
            for number in range(num_videos):
                frames = generator.integers(0, 90, (10, 32, 48, 3), np.uint8)
                frames[..., channel] += 150
                (data / part / name / f"{number}.mp4").write_bytes(mp4(frames, 25))
    config = replace(
        small_finetuning, data=str(data), out=str(tmp_path / "run"), epochs=5, learning_rate=0.02, test_clips=2
    )
    result = finetune(config, console=QUIET)
    assert result.scores.top_1 == 1.0
    assert result.validation["accuracy"] == 1.0


def test_other_options_cannot_be_resumed(config: FinetuneConfig, finished: RecognitionResult) -> None:
    resumed = replace(config, out=str(finished.run), resume=True)
    with pytest.raises(ValueError, match="cannot be resumed with other options: batch_size was 4, now 8"):
        finetune(replace(resumed, batch_size=8), console=QUIET)
    with pytest.raises(ValueError, match="already contains a run; resume it with --resume"):
        finetune(replace(resumed, resume=False, data="nowhere"), console=QUIET)  # before any video is looked for


def test_changing_the_average_does_not_retrain(
    config: FinetuneConfig, finished: RecognitionResult, tmp_path: Path
) -> None:
    again = finetune(replace(config, out=str(finished.run), resume=True, average="logits"), console=QUIET)
    assert again.best_epoch == finished.best_epoch
    assert not torch.equal(again.scores.probabilities, finished.scores.probabilities)
    assert again.scores.probabilities == pytest.approx(finished.scores.probabilities, abs=0.05)


def test_the_default_learning_rate_is_the_paper_s(config: FinetuneConfig) -> None:
    assert initial_rate(config, open_source("random:r3d@0.125")) == 0.001
    assert initial_rate(config, open_source("random:s3dg@0.125")) == 0.01
    assert initial_rate(replace(config, learning_rate=0.3), open_source("random:r3d@0.125")) == 0.3


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"batch_size": 0}, {"test_clips": -1}, {"decay_epochs": 0}])
def test_numbers_out_of_range_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is .* must be more than 0"):
        FinetuneConfig(data="videos", out="run", backbone="random:r3d", **wrong)  # type: ignore[arg-type]
