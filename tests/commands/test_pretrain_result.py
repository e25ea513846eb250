"""What a run says of itself: heads not clearly above chance, too few clips, a loss that still falls."""

import pytest

from v3s.commands.pretrain_result import CLIPS_TO_LEAVE_CHANCE, still_improving, verdict
from v3s.pretext.task import TASKS
from v3s.protocols.errors import heads_at_chance

TASK = TASKS["v3s"]
FLAT = [{"train": {"loss": 5.0}}] * 20


def test_few_clips_are_named_in_the_verdict() -> None:
    one = heads_at_chance(TASK, {"accuracy_spatial": 0.13, "accuracy_temporal": 0.9}, 1, "video")
    _, sentence, seen = verdict(one, FLAT, 1)
    assert "90.0% of 1 clip of held-out videos" in sentence
    assert seen.startswith("the run has seen 1 clip; ")


def test_few_clips_are_named_as_the_reason() -> None:
    nothing = heads_at_chance(TASK, {"accuracy_spatial": 0.05, "accuracy_temporal": 0.5}, 100, "video")
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
