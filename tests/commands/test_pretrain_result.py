"""What a run says of itself: heads not clearly above chance, too few clips, a loss that still falls."""

import pytest

from v3s.commands.pretrain_result import CLIPS_TO_LEAVE_CHANCE, still_improving, verdict
from v3s.pretext.task import TASKS
from v3s.protocols.errors import heads_at_chance

TASK = TASKS["v3s"]
FLAT = [{"train": {"loss": 5.0}}] * 20


def test_a_constant_predictor_is_at_chance_and_a_trained_network_is_not() -> None:
    constant = {"accuracy_spatial": 1 / 18, "accuracy_temporal": 1 / 11}
    spatial, temporal = heads_at_chance(TASK, constant, 1000).values()
    assert spatial.startswith(
        "the spatial head is not clearly above chance: 5.6% of 1,000 clips of held-out videos, chance is 5.6%"
    )
    assert temporal.startswith("the temporal head is not clearly above chance: 9.1%")
    trained = {"accuracy_spatial": 0.13, "accuracy_temporal": 0.15}
    assert heads_at_chance(TASK, trained, 272) == {}


def test_few_clips_show_little() -> None:
    """13 % of 20 clips can be luck, anything of 3 can; three times chance on 60 is not."""
    lucky = {"accuracy_spatial": 0.13, "accuracy_temporal": 0.9}
    (sentence,) = heads_at_chance(TASK, lucky, 20).values()
    assert sentence.startswith("the spatial head is not clearly above chance: 13.0%")
    assert len(heads_at_chance(TASK, lucky, 3)) == 2
    one = heads_at_chance(TASK, lucky, 1)
    _, sentence, seen = verdict(one, FLAT, 1)
    assert "90.0% of 1 clip of held-out videos" in sentence
    assert seen.startswith("the run has seen 1 clip; ")
    assert heads_at_chance(TASK, lucky | {"accuracy_spatial": 0.17}, 60) == {}


def test_a_head_of_one_row_is_not_judged() -> None:
    assert heads_at_chance(TASKS["ts"], {"accuracy_spatial": 1.0, "accuracy_temporal": 0.9}, 50) == {}


def test_few_clips_are_named_as_the_reason() -> None:
    nothing = heads_at_chance(TASK, {"accuracy_spatial": 0.05, "accuracy_temporal": 0.5}, 100)
    _, reason = verdict(nothing, FLAT, 9_000)
    assert reason.startswith("the run has seen 9,000 clips; on UCF101 both heads left chance within 60,000")
    assert verdict(nothing, FLAT, CLIPS_TO_LEAVE_CHANCE) == list(nothing.values())
    assert reason.endswith("more --epochs will probably help")
    _, anew = verdict(nothing, FLAT, 9_000, can_go_on=False)
    assert anew.startswith(f"{reason}: train again into another --out, or start there from these weights with --init")


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([5.0 - 0.01 * epoch for epoch in range(100)], True),
        ([5.0] * 100, False),
        ([9.0] * 50 + [5.0] * 50, False),  # it fell, but not at the end
        ([5.0] * 5 + [4.0] * 4, False),  # too few epochs to say
        ([3.15 + 0.1 * (epoch % 2) for epoch in range(100)], False),
    ],
)
def test_a_loss_that_still_falls(losses: list[float], expected: bool) -> None:
    assert still_improving(losses) is expected
    epochs = [{"train": {"loss": loss}} for loss in losses]
    assert bool(verdict({}, epochs, CLIPS_TO_LEAVE_CHANCE)) is expected
