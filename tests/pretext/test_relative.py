"""Relative speed within a video: its loss against loops, and its laws."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.pretext.conftest import Means
from v3s.pretext.model import Logits, PretextModel, pretext_terms
from v3s.pretext.objective import ObjectiveOptions, joint_objective
from v3s.pretext.relative import relative_loss
from v3s.pretext.task import TASKS

LABELS, VIDEOS = torch.tensor([3, 1, 0, 1, 2, 3, 0]), torch.tensor([5, 5, 5, 2, 2, 7, 2])


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_loops(logits: list[list[float]], labels: list[int], videos: list[int]) -> float:
    """The definition, one label and one clip at a time."""
    losses = []
    for clip, wanted in enumerate(labels):
        others = [other for other in range(len(labels)) if videos[other] == videos[clip] and labels[other] != wanted]
        if others:
            total = sum(math.exp(logits[other][wanted]) for other in [*others, clip])
            losses.append(-math.log(math.exp(logits[clip][wanted]) / total))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("labels", [LABELS, torch.tensor([3, 3, 0, 1, 1, 3, 0])])
def test_loss_is_its_definition(labels: Tensor) -> None:
    """Also with clips that show the same label, and with one that is alone (video 7)."""
    logits = draw(7, 4)
    expected = by_loops(logits.tolist(), labels.tolist(), VIDEOS.tolist())
    assert relative_loss(logits, labels, VIDEOS).item() == pytest.approx(expected, rel=1e-5)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(1))
    again = relative_loss(logits[order], labels[order], VIDEOS[order])
    assert again.item() == pytest.approx(expected, rel=1e-5)


def test_what_a_video_adds_to_its_clips_is_nothing() -> None:
    """Here the paper's loss differs: it takes a video that is fast for a video that is played fast."""
    logits, own = draw(7, 4), 3 * draw(8, 4, seed=1)
    shifted = logits + own[VIDEOS]
    change = relative_loss(shifted, LABELS, VIDEOS) - relative_loss(logits, LABELS, VIDEOS)
    assert abs(change.item()) < 1e-5
    targets = torch.stack([torch.zeros_like(LABELS), LABELS], dim=1)
    one, other = (pretext_terms(Logits(each, each), targets)["loss_temporal"] for each in (logits, shifted))
    assert abs(float(one - other)) > 0.1


def test_two_clips_are_two_logistic_regressions() -> None:
    logits, labels = draw(2, 4), torch.tensor([1, 2])
    gaps = torch.stack([logits[1, 1] - logits[0, 1], logits[0, 2] - logits[1, 2]])
    loss = relative_loss(logits, labels, torch.tensor([9, 9]))
    assert loss.item() == pytest.approx(F.softplus(gaps).mean().item(), rel=1e-5)


@pytest.mark.parametrize("together", [2, 3, 4])
def test_equal_scores_of_so_many_clips(together: int) -> None:
    labels, videos = torch.arange(together).repeat(3), torch.arange(3).repeat_interleave(together)
    loss = relative_loss(torch.zeros(3 * together, 4), labels, videos)
    assert loss.item() == pytest.approx(math.log(together), rel=1e-6)


def test_clips_that_nothing_is_compared_with_give_no_gradient() -> None:
    logits = draw(3, 4).requires_grad_()
    relative_loss(logits, torch.tensor([1, 1, 2]), torch.tensor([4, 4, 5])).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros(3, 4))


def test_it_is_added_with_its_weight_and_needs_no_projector() -> None:
    model = PretextModel(Means(), TASKS["v3s"]).train()
    clips, targets = torch.rand(4, 3, 2, 4, 4), torch.tensor([[0, 1, 0], [1, 2, 0], [2, 3, 1], [3, 4, 1]])
    terms = joint_objective(model, clips, targets, contrast=0, relative=0.5)
    plain = pretext_terms(model(clips), targets)
    assert terms["loss"].item() == pytest.approx((plain["loss"] + 0.5 * terms["loss_relative"]).item(), rel=1e-6)
    assert "loss_contrast" not in terms


def test_options() -> None:
    ObjectiveOptions(relative=1).check_objective(2)
    with pytest.raises(ValueError, match="relative is 1; it needs clips_together 2 or more"):
        ObjectiveOptions(relative=1).check_objective(1)
    assert ObjectiveOptions(relative=1, contrast=0.5).beyond_text == ", contrast 0.5, relative speed 1"
