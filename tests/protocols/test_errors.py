"""Standard errors over groups of videos."""

from math import inf
from typing import Any

import pytest
import torch

from v3s.pretext.task import TASKS, PretextTask
from v3s.protocols.errors import chance_sentence, critical_value, heads_at_chance, standard_error

TASK = TASKS["v3s"]


def test_videos_of_their_own_give_the_ordinary_error() -> None:
    scores = torch.rand(50, generator=torch.Generator().manual_seed(0))
    ordinary = float(scores.double().std()) / 50**0.5
    assert standard_error(scores, torch.arange(50)) == pytest.approx(ordinary)
    assert standard_error(scores, torch.zeros(50, dtype=torch.int64)) == pytest.approx(ordinary)  # one group: no groups
    assert standard_error(scores[:1], torch.tensor([0])) == 0


def test_copies_of_a_video_add_nothing() -> None:
    scores = (torch.rand(40, generator=torch.Generator().manual_seed(1)) < 0.4).double()
    copies, groups = scores.repeat_interleave(5), torch.arange(40).repeat_interleave(5)
    assert standard_error(copies, groups) == pytest.approx(standard_error(scores, torch.arange(40)))


def test_the_error_is_that_of_resampled_groups() -> None:
    generator = torch.Generator().manual_seed(2)
    sizes = torch.randint(1, 8, (80,), generator=generator)
    groups = torch.arange(80).repeat_interleave(sizes)
    scores = torch.rand(80, generator=generator)[groups] + 0.3 * torch.rand(len(groups), generator=generator)
    sums = torch.zeros(80).index_add_(0, groups, scores)
    drawn = torch.randint(0, 80, (20_000, 80), generator=generator)
    means = sums[drawn].sum(dim=1) / sizes[drawn].sum(dim=1)
    assert standard_error(scores, groups) == pytest.approx(float(means.std()), rel=0.05)


def test_the_example_of_the_page_on_groups() -> None:
    right = torch.tensor([1.0] * 9 + [0.0] * 1 + [1.0] * 9 + [0.0] * 1 + [1.0] * 3 + [0.0] * 7 + [1.0] * 3 + [0.0] * 7)
    assert standard_error(right, torch.arange(40)) == pytest.approx(0.078, abs=5e-4)
    assert standard_error(right, torch.arange(4).repeat_interleave(10)) == pytest.approx(0.173, abs=5e-4)


@pytest.mark.parametrize(("num_groups", "exact"), [(5, 3.747), (8, 2.998), (16, 2.602), (31, 2.457), (1001, 2.330)])
def test_the_critical_value_is_students(num_groups: int, exact: float) -> None:
    assert critical_value(num_groups) == pytest.approx(exact, rel=0.01)
    assert critical_value(3) == inf


def test_a_result_that_is_not_clearly_above_chance_is_said_in_words_and_no_other() -> None:
    sides: dict[str, Any] = {"error": 0.03, "num_scores": 200, "num_groups": 50}
    assert chance_sentence("linear probe", 0.5, 0.25, noun="video", **sides) is None
    said = chance_sentence("linear probe", 0.27, 0.25, noun="span", **sides)
    assert said == (
        "the linear probe is not clearly above chance: 27.0% ± 3.0% of 200 test spans in 50 groups, where one "
        "answer to all, or guessing, gets 25.0%; these spans do not show that it distinguishes the classes"
    )
    sides = {"error": 0.082, "num_scores": 10}
    few = chance_sentence("linear probe", 0.9, 1 / 3, noun="span", num_groups=4, **sides)
    assert few == (
        "the linear probe is not clearly above chance: 90.0% ± 8.2% of 10 test spans in 4 groups, where one "
        "answer to all, or guessing, gets 33.3%; these spans do not show that it distinguishes the classes: "
        "4 groups are too few for a clear answer"
    )
    assert chance_sentence("linear probe", 0.9, 1 / 3, noun="span", num_groups=10, **sides) is None
    alone = chance_sentence("linear probe", 0.5, 1 / 2, noun="video", error=0.2, num_scores=6, num_groups=6)
    assert alone is not None
    assert alone.endswith("classes: 6 videos are too few for a clear answer")
    few = chance_sentence("linear probe", 1.0, 0.25, noun="video", error=0.0, num_scores=3, num_groups=3)
    assert few == "3 test videos are too few to distinguish a result from chance"


def test_a_constant_predictor_is_at_chance_and_a_trained_network_is_not() -> None:
    constant = {"accuracy_spatial": 1 / 18, "accuracy_temporal": 1 / 11}
    spatial, temporal = heads_at_chance(TASK, constant, 1000, "video").values()
    assert spatial.startswith(
        "the spatial head is not clearly above chance: 5.6% of 1,000 clips of held-out videos, chance is 5.6%"
    )
    assert temporal.startswith("the temporal head is not clearly above chance: 9.1%")
    trained = {"accuracy_spatial": 0.13, "accuracy_temporal": 0.15}
    assert heads_at_chance(TASK, trained, 272, "video") == {}


def test_few_clips_show_little() -> None:
    """13 % of 20 clips can be luck, anything of 3 can; three times chance on 60 is not."""
    lucky = {"accuracy_spatial": 0.13, "accuracy_temporal": 0.9}
    (sentence,) = heads_at_chance(TASK, lucky, 20, "span").values()
    assert sentence.startswith("the spatial head is not clearly above chance: 13.0% of 20 clips of held-out spans")
    assert len(heads_at_chance(TASK, lucky, 3, "video")) == 2
    assert heads_at_chance(TASK, lucky | {"accuracy_spatial": 0.17}, 60, "video") == {}


def test_a_head_of_fewer_than_two_labels_or_without_an_accuracy_is_not_judged() -> None:
    assert heads_at_chance(TASKS["ts"], {"accuracy_spatial": 1.0, "accuracy_temporal": 0.9}, 50, "video") == {}
    assert heads_at_chance(PretextTask((), ()), {"accuracy_temporal": 0.0}, 50, "video") == {}
    assert heads_at_chance(TASK, {}, 50, "video") == {}
