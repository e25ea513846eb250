"""Temperatures: never worse, no change of order, and known answers."""

import math

import pytest
import torch
from torch.nn import functional as F

from v3s.recognizers.calibration import FEWEST, Calibration, calibrate, calibration_error, log_loss, tempered


def answers(sharpness: float, num_rows: int = 4000, num_classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels drawn from known distributions, and these distributions to the power of ``sharpness``."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(num_rows, num_classes, generator=generator)
    labels = torch.multinomial(logits.softmax(dim=1), 1, generator=generator)[:, 0]
    return F.softmax(sharpness * logits, dim=1), labels


@pytest.mark.parametrize("sharpness", [0.4, 1.0, 3.0])
def test_the_temperature_of_a_known_error_is_found(sharpness: float) -> None:
    probabilities, labels = answers(sharpness)
    found = calibrate(probabilities, labels)
    assert found.temperature == pytest.approx(sharpness, rel=0.08)
    assert found.num_videos == 4000
    assert found.error_after < 0.03
    if sharpness != 1:
        assert found.error_before > 2 * found.error_after
        assert found.loss_after < found.loss_before


@pytest.mark.parametrize("seed", range(10))
def test_the_loss_is_never_larger_after_than_before(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    probabilities = (4 * torch.randn(FEWEST, 4, generator=generator)).softmax(dim=1)
    labels = torch.randint(4, (FEWEST,), generator=generator)
    found = calibrate(probabilities, labels)
    assert found.loss_after <= found.loss_before
    assert math.isfinite(found.loss_before)


def test_without_information_nothing_changes() -> None:
    found = calibrate(torch.full((150, 3), 1 / 3), torch.arange(150) % 3)
    assert found.temperature == 1
    assert found.loss_after == found.loss_before == pytest.approx(math.log(3))


def test_the_order_of_the_classes_stays() -> None:
    probabilities, _ = answers(1.0, num_rows=100)
    for temperature in (0.05, 0.7, 3.0, 20.0):
        changed = tempered(probabilities, temperature)
        assert torch.equal(changed.argmax(dim=1), probabilities.argmax(dim=1))
        torch.testing.assert_close(changed.sum(dim=1), torch.ones(100))
    assert tempered(probabilities, 1.0) is probabilities


def test_sure_and_wrong_gives_a_finite_loss() -> None:
    certain = torch.tensor([[1.0, 0.0]]).repeat(FEWEST, 1)
    found = calibrate(certain, torch.arange(FEWEST) % 2)
    assert math.isfinite(found.loss_before)
    assert math.isfinite(found.loss_after)


def test_errors_by_hand() -> None:
    """Two bins: confidence 0.9 with accuracy 1/2, and confidence 0.6 with accuracy 1."""
    probabilities = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    labels = torch.tensor([0, 1, 0, 0])
    assert calibration_error(probabilities, labels) == pytest.approx((2 * 0.4 + 2 * 0.4) / 4)
    expected = -(math.log(0.9) + math.log(0.1) + 2 * math.log(0.6)) / 4
    assert log_loss(probabilities, labels) == pytest.approx(expected)


def test_few_rows_change_nothing_and_say_so() -> None:
    probabilities, labels = answers(3.0, num_rows=FEWEST)
    few, enough = calibrate(probabilities[1:], labels[1:]), calibrate(probabilities, labels)
    assert (few.temperature, few.loss_after) == (1, few.loss_before)
    assert str(few).startswith("none, with only 99 held-out videos (100 are needed)")
    assert enough.temperature > 2
    assert str(enough).startswith("temperature 2.")


def test_certain_answers_stay_within_bounds() -> None:
    certain = torch.tensor([[0.6, 0.4]]).repeat(FEWEST, 1)
    right = calibrate(certain, torch.zeros(FEWEST, dtype=torch.int64))
    wrong = calibrate(certain, torch.ones(FEWEST, dtype=torch.int64))
    assert (right.temperature, wrong.temperature) == (0.05, 20)


@pytest.mark.parametrize(
    "wrong", [{"temperature": 0.0}, {"temperature": 1e-300}, {"temperature": 20.1}, {"num_videos": 0}]
)
def test_what_no_calibration_gives_is_refused(wrong: dict[str, float]) -> None:
    values = {"temperature": 1.0, "num_videos": 3, "loss_before": 1.0, "loss_after": 1.0, "error_before": 0.0}
    with pytest.raises(ValueError, match=r"they must be from 0\.05 to 20, and 1 or more"):
        Calibration(**{**values, "error_after": 0.0, **wrong})  # type: ignore[arg-type]
