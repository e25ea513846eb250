"""Two heads on a backbone: their sizes, the loss computed by hand, and a head with nothing to learn."""

import math

import pytest
import torch
from torch import Tensor

from tests.pretext.conftest import Means
from v3s.pretext.model import Logits, PretextModel, mean_accuracy, pretext_terms
from v3s.pretext.task import TASKS


def make_model(name: str = "v3s", seed: int = 0) -> PretextModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return PretextModel(Means(), TASKS[name], seed=seed)


def make_clips(num_clips: int = 4) -> Tensor:
    return torch.rand(num_clips, 3, 4, 6, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", TASKS)
def test_heads_have_an_output_for_each_row(name: str) -> None:
    logits = make_model(name)(make_clips())
    assert logits.spatial.shape == (4, len(TASKS[name].spatial))
    assert logits.temporal.shape == (4, len(TASKS[name].temporal))


def test_both_heads_get_the_features_of_the_backbone() -> None:
    model, clips = make_model(), make_clips()
    features, logits = model.backbone(clips), model(clips)
    assert torch.equal(logits.spatial, model.spatial_head(features))
    assert torch.equal(logits.temporal, model.temporal_head(features))


def test_terms_by_hand() -> None:
    """Two clips, three spatial and two temporal rows, with probabilities written out."""
    spatial = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]]).log() + 3.0  # a shift of logits changes nothing
    temporal = torch.tensor([[0.9, 0.1], [0.4, 0.6]]).log()
    terms = pretext_terms(Logits(spatial, temporal), torch.tensor([[0, 1], [2, 1]]))
    by_spatial = -(math.log(0.5) + math.log(0.7)) / 2
    by_temporal = -(math.log(0.1) + math.log(0.6)) / 2
    assert terms["loss_spatial"].item() == pytest.approx(by_spatial, rel=1e-6)
    assert terms["loss_temporal"].item() == pytest.approx(by_temporal, rel=1e-6)
    assert terms["loss"].item() == pytest.approx(by_spatial + by_temporal, rel=1e-6)
    assert terms["accuracy_spatial"].item() == 1.0
    assert terms["accuracy_temporal"].item() == 0.5


def test_both_heads_count_in_the_accuracy_that_chooses_the_epoch() -> None:
    assert mean_accuracy({"accuracy_spatial": 0.25, "accuracy_temporal": 0.75, "loss": 9.0}) == 0.5


def test_loss_of_half_precision_logits_is_computed_in_full_precision() -> None:
    logits = torch.randn(64, 18, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(64)[:, None] % torch.tensor([18, 11])
    half = pretext_terms(Logits(logits.bfloat16(), logits[:, :11].bfloat16()), labels)
    assert half["loss"].dtype == torch.float32
    full = pretext_terms(Logits(logits.bfloat16().float(), logits[:, :11].bfloat16().float()), labels)
    assert torch.equal(half["loss"], full["loss"])


@pytest.mark.parametrize(("name", "still"), [("ts+tp", "spatial"), ("ss", "temporal")])
def test_head_of_one_row_has_no_loss_and_no_gradient(name: str, still: str) -> None:
    model, task = make_model(name), TASKS[name]
    labels = torch.arange(4)[:, None] % torch.tensor([len(task.spatial), len(task.temporal)])
    terms = pretext_terms(model(make_clips()), labels)
    moving = {"spatial": "temporal", "temporal": "spatial"}[still]
    assert terms[f"loss_{still}"].item() == 0
    assert terms[f"accuracy_{still}"].item() == 1
    assert torch.equal(terms["loss"], terms[f"loss_{moving}"])
    gradients = dict(
        zip(dict(model.named_parameters()), torch.autograd.grad(terms["loss"], list(model.parameters())), strict=True)
    )
    assert len(gradients) == 6
    for parameter, gradient in gradients.items():
        assert bool((gradient == 0).all()) == parameter.startswith(still), parameter


def test_the_seed_determines_the_heads() -> None:
    one, same, other = make_model(), make_model(), make_model(seed=1)
    for name in ("spatial_head.weight", "spatial_head.bias", "temporal_head.weight", "temporal_head.bias"):
        assert torch.equal(one.get_parameter(name), same.get_parameter(name))
        assert not torch.equal(one.get_parameter(name), other.get_parameter(name))


def test_the_global_random_state_is_unchanged() -> None:
    backbone = Means()
    before = torch.random.get_rng_state()
    PretextModel(backbone, TASKS["v3s"], seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)
