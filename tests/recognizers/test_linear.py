"""Linear recognizers: fitted as scikit-learn does, calibrated on rows that were not fitted, saved and read back."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from v3s.data.views import View
from v3s.features.encoder import Feature, Space
from v3s.features.source import open_source
from v3s.files.weights import CLASSIFIER, PUBLISHED, WEIGHTS
from v3s.files.writing import DESCRIPTION, NEXT
from v3s.recognizers import linear
from v3s.recognizers.classifier import load_classifier
from v3s.recognizers.linear import calibrate_linear, fit_linear, require_own_folder, save_linear

NETWORK = "random:r3d@0.125"


def blobs(num_rows: int, num_classes: int, spread: float, seed: int = 0, size: int = 64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num_rows) % num_classes
    centres = torch.randn(num_classes, size, generator=torch.Generator().manual_seed(9))
    return centres[labels] + spread * torch.randn(num_rows, size, generator=generator) + 5, labels


def test_the_layer_takes_features_as_they_are() -> None:
    train, labels = blobs(120, 4, 1.5, size=10)
    scaler = StandardScaler().fit(train.double())
    oracle = LogisticRegression(C=0.1, tol=1e-8, max_iter=5000).fit(scaler.transform(train.double()), labels)
    found = fit_linear(train, labels, 0.1, 4)(train).softmax(dim=1)
    np.testing.assert_allclose(found, oracle.predict_proba(scaler.transform(train.double())), atol=2e-3)


def test_fitting_draws_no_random_numbers() -> None:
    before = torch.random.get_rng_state()
    fit_linear(*blobs(20, 2, 1.0), 1.0, 2)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_rows_are_calibrated_by_classifiers_that_never_saw_their_group(monkeypatch: pytest.MonkeyPatch) -> None:
    train, labels = blobs(60, 3, 1.0)
    groups = np.arange(60) // 6
    seen: list[set[int]] = []
    fit = linear.fit_linear

    def record(rows: Tensor, *others: object) -> torch.nn.Linear:
        seen.append({int((train == row).all(dim=1).nonzero()) for row in rows})
        return fit(rows, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(linear, "fit_linear", record)
    found = calibrate_linear(train, labels, 1.0, 3, groups=groups, seed=0)
    assert found is not None
    assert found.num_videos == 60
    held_out = [set(range(60)) - fitted for fitted in seen]
    assert sorted(row for rows in held_out for row in rows) == list(range(60))
    assert [len(rows) for rows in held_out] == [12] * 5
    for rows, fitted in zip(held_out, seen, strict=True):
        assert not {groups[row] for row in rows} & {groups[row] for row in fitted}


def test_a_classifier_that_is_too_sure_gets_a_temperature() -> None:
    """With many dimensions, few rows and almost no penalty, training rows are fitted perfectly."""
    train, labels = blobs(150, 3, 6.0)
    found = calibrate_linear(train, labels, 100.0, 3, groups=None, seed=0)
    assert found is not None
    assert found.temperature > 1.5
    assert found.loss_after < found.loss_before
    assert found.error_after < found.error_before


def test_classes_of_a_single_group_do_not_count() -> None:
    train, labels = blobs(30, 3, 1.0)
    found = calibrate_linear(train, labels, 1.0, 3, groups=labels.numpy(), seed=0)
    assert found is None


def space() -> Space:
    view = View(clip_frames=8, clip_size=32, num_clips=2)
    return Space(open_source(NETWORK).fingerprint, view, Feature("conv5"))


def save(folder: Path, **changes: object) -> None:
    train, labels = blobs(40, 4, 1.0)
    given = {"classes": ("a", "b", "c", "d"), "c": 0.1, "groups": None, "seed": 0, "results": {"top_1": 0.5}}
    save_linear(folder, open_source(NETWORK), space(), train, labels, **{**given, **changes})  # type: ignore[arg-type]


def test_what_is_saved_is_what_was_fitted(tmp_path: Path) -> None:
    save(tmp_path / "saved")
    found, (train, labels) = load_classifier(tmp_path / "saved"), blobs(40, 4, 1.0)
    assert (found.classes, found.recognition.average, found.space) == (("a", "b", "c", "d"), "logits", space())
    assert torch.equal(found.layer.weight, fit_linear(train, labels, 0.1, 4).weight)
    assert found.recognition.calibration == calibrate_linear(train, labels, 0.1, 4, groups=None, seed=0)


def test_only_an_own_folder_is_replaced(tmp_path: Path) -> None:
    save(tmp_path / "saved")
    save(tmp_path / "saved", classes=("e", "f", "g", "h"))
    assert load_classifier(tmp_path / "saved").classes == ("e", "f", "g", "h")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="contains something else than a recognizer of v3s probe; choose another"):
        require_own_folder(tmp_path / "other")
    (tmp_path / "saved/config.yaml").write_text("epochs: 3")  # as of a run of v3s finetune
    with pytest.raises(ValueError, match="something else"):
        save(tmp_path / "saved")


def test_a_model_to_publish_is_not_replaced(tmp_path: Path) -> None:
    save(tmp_path / "saved")
    (tmp_path / "saved" / WEIGHTS).rename(tmp_path / "saved" / PUBLISHED)  # as v3s export names it
    with pytest.raises(ValueError, match="something else"):
        save(tmp_path / "saved")


def test_a_recognizer_whose_saving_was_killed_is_replaced(tmp_path: Path) -> None:
    save(tmp_path / "saved")
    (tmp_path / "saved" / NEXT).mkdir()
    for name in (WEIGHTS, CLASSIFIER, DESCRIPTION):  # all written, and none moved to its place
        (tmp_path / "saved" / name).rename(tmp_path / "saved" / NEXT / name)
    save(tmp_path / "saved", classes=("e", "f", "g", "h"))
    assert load_classifier(tmp_path / "saved").classes == ("e", "f", "g", "h")


def test_vectors_of_another_network_are_not_saved(tmp_path: Path) -> None:
    source = open_source(NETWORK, seed=1)
    train, labels = blobs(40, 4, 1.0)
    with pytest.raises(ValueError, match="has other weights"):
        save_linear(
            tmp_path / "saved", source, space(), train, labels, classes=("a", "b", "c", "d"), c=1.0, groups=None,
            seed=0, results={},
        )  # fmt: skip
    assert not (tmp_path / "saved").exists()
