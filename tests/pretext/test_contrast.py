"""The contrast between videos: its loss against loops and cross entropy, its laws, its weights, its projector."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.pretext.conftest import Means
from v3s.pretext.contrast import contrast_loss
from v3s.pretext.model import EMBEDDING, Logits, PretextModel, Projected, pretext_objective, pretext_terms
from v3s.pretext.objective import ObjectiveOptions, joint_objective
from v3s.pretext.task import TASKS

TASK = TASKS["v3s"]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_loops(vectors: Tensor, videos: Sequence[int], temperature: float) -> float:
    """The definition, one clip and one other clip at a time."""
    rows = [(row / row.norm()).tolist() for row in vectors.double()]
    cosine = [[sum(a * b for a, b in zip(one, other, strict=True)) for other in rows] for one in rows]
    losses = []
    for clip, own in enumerate(videos):
        others = [other for other in range(len(videos)) if other != clip]
        total = sum(math.exp(cosine[clip][other] / temperature) for other in others)
        shares = [math.exp(cosine[clip][other] / temperature) / total for other in others if videos[other] == own]
        if shares:
            losses.append(-sum(map(math.log, shares)) / len(shares))
    return sum(losses) / len(losses)


def model(*, projects: bool, seed: int = 0) -> PretextModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return PretextModel(Means(), TASK, seed=seed, projects=projects)


def test_spans_of_one_file_that_overlap_are_not_told_apart() -> None:
    vectors, videos = draw(8, 6), torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    places = {0: (5, 0, 4000), 1: (5, 2000, 6000), 2: (5, 6000, 9000), 3: (4, 0, 4000)}
    spans = torch.tensor([places[int(video)] for video in videos])
    loss = contrast_loss(vectors, videos, spans)
    without: dict[int, Tensor] = {video: (videos != other) for video, other in ((0, 1), (1, 0))}
    own = []  # the loss of each clip, among the clips that it is compared with
    for clip, video in enumerate(videos.tolist()):
        kept = without.get(video, torch.ones(8, dtype=torch.bool))
        cosines = F.normalize(vectors, dim=1) @ F.normalize(vectors[clip], dim=0) / 0.1
        compared = kept & (torch.arange(8) != clip)
        partner = (videos == video) & compared
        own.append(cosines[compared].logsumexp(dim=0) - cosines[partner][0])
    assert loss.item() == pytest.approx(torch.stack(own).mean().item(), rel=1e-5)
    apart = spans * torch.tensor([0, 1, 1]) + videos[:, None] * torch.tensor([1, 0, 0])
    assert torch.equal(contrast_loss(vectors, videos, apart), contrast_loss(vectors, videos))
    alone = torch.tensor([[0, 0, 10]] * 8)
    assert contrast_loss(vectors, videos, alone).item() == pytest.approx(0, abs=1e-6)  # no clip has a negative


@pytest.mark.parametrize("videos", [(4, 4, 1, 1, 9, 9), (2, 2, 2, 5, 5, 5), (0, 1, 0, 1, 2, 0), (3, 3, 8, 8, 7, 1)])
@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_loss_is_its_definition(videos: tuple[int, ...], temperature: float) -> None:
    """Also with clips in another order, and with clips that are alone."""
    vectors = draw(len(videos), 7)
    loss = contrast_loss(vectors, torch.tensor(videos), temperature=temperature)
    assert loss.item() == pytest.approx(by_loops(vectors, videos, temperature), rel=1e-5)


def test_of_pairs_it_is_cross_entropy_with_the_partner_as_target() -> None:
    vectors, videos = draw(8, 5), torch.arange(4).repeat_interleave(2)
    similar = F.normalize(vectors, dim=1) @ F.normalize(vectors, dim=1).T / 0.1
    similar.fill_diagonal_(-torch.inf)
    partner = torch.arange(8) ^ 1
    assert contrast_loss(vectors, videos).item() == pytest.approx(F.cross_entropy(similar, partner).item(), rel=1e-6)


def test_neither_order_nor_numbers_nor_lengths_matter() -> None:
    vectors, videos = draw(8, 5), torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    loss, order = contrast_loss(vectors, videos), torch.tensor([5, 2, 0, 7, 4, 1, 3, 6])
    for same in (
        contrast_loss(vectors[order], videos[order]),
        contrast_loss(vectors, 10 - 3 * videos),
        contrast_loss(vectors * torch.arange(1, 9)[:, None], videos),
    ):
        assert same.item() == pytest.approx(loss.item(), rel=1e-5)


def test_equal_vectors_are_chance_and_separate_videos_nearly_zero() -> None:
    videos = torch.arange(6).repeat_interleave(2)
    assert contrast_loss(torch.ones(12, 4), videos).item() == pytest.approx(math.log(11), rel=1e-6)
    assert contrast_loss(torch.eye(6).repeat_interleave(2, dim=0), videos).item() < 1e-3
    assert contrast_loss(draw(2, 4), torch.zeros(2, dtype=torch.int64)).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("videos", [(0,), (0, 1), (0, 0, 1)])
def test_a_clip_without_another_of_its_video_has_no_loss_and_a_finite_gradient(videos: tuple[int, ...]) -> None:
    vectors = draw(len(videos), 4).requires_grad_()
    loss = contrast_loss(vectors, torch.tensor(videos))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.isfinite()
    assert vectors.grad is not None
    assert vectors.grad.isfinite().all()
    if len(set(videos)) == len(videos):
        assert loss.item() == 0


def test_half_precision_does_not_round_the_cosines() -> None:
    vectors, videos = draw(16, 64).bfloat16(), torch.arange(8).repeat_interleave(2)
    with torch.autocast("cpu", torch.bfloat16):
        loss = contrast_loss(vectors, videos)
    assert torch.equal(loss, contrast_loss(vectors.float(), videos))


def test_the_projector_changes_no_head_and_is_used_in_training_only() -> None:
    plain, projecting, clips = model(projects=False), model(projects=True), torch.rand(4, 3, 2, 4, 4)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, projecting.state_dict()[name])
    output = projecting.train()(clips)
    assert isinstance(output, Projected)
    assert output.embedding.shape == (4, EMBEDDING)
    assert isinstance(plain.train()(clips), Logits)
    assert isinstance(projecting.eval()(clips), Logits)
    assert {name.split(".")[0] for name in projecting.state_dict().keys() - plain.state_dict()} == {"projector"}


def test_the_objective_is_the_weighted_sum() -> None:
    network, clips = model(projects=True), torch.rand(6, 3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[row, row, row // 2] for row in range(6)])
    terms = joint_objective(network, clips, targets, contrast=0.5, heads=2)
    output = network(clips)
    heads = pretext_terms(output, targets)
    assert all(torch.equal(terms[name], value) for name, value in heads.items() if name != "loss")
    assert torch.equal(terms["loss_contrast"], contrast_loss(output.embedding, targets[:, 2]))
    assert terms["loss"].item() == pytest.approx((2 * heads["loss"] + 0.5 * terms["loss_contrast"]).item(), rel=1e-6)


def test_without_heads_only_backbone_and_projector_learn() -> None:
    network, targets = model(projects=True), torch.tensor([[0, 0, 0], [1, 1, 0], [2, 2, 1], [3, 3, 1]])
    joint_objective(network, torch.rand(4, 3, 2, 4, 4), targets, contrast=1, heads=0)["loss"].backward()  # type: ignore[no-untyped-call]
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None
        assert bool((parameter.grad == 0).all()) == ("head" in name), name


def test_without_a_contrast_the_objective_is_the_papers() -> None:
    assert ObjectiveOptions().objective() is pretext_objective
    ObjectiveOptions(contrast=0.5).check_objective(2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"contrast": 0.5}, "contrast is 0.5; it needs clips_together 2 or more"),
        ({"contrast": -1}, "contrast is -1; it must be 0 or more"),
        ({"heads": 0}, "heads is 0; a weight other than 1 needs a contrast"),
    ],
)
def test_wrong_weights_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ObjectiveOptions(**options).check_objective(1)
