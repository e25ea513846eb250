"""What a step found is told some steps later, in the order of the steps."""

import pytest
import torch

from v3s.train.distributed import Agreement, Processes


@pytest.mark.parametrize("lag", [0, 1, 3])
def test_numbers_come_a_lag_later(lag: int) -> None:
    agreement, number = Agreement(Processes(), lag), torch.zeros(())
    told = []
    for step in range(1, 8):
        number += 1  # in place: what was given must not change with it
        told.append(agreement.step(number, torch.tensor(step * 10.0)))
    assert told == [[0, 0]] * lag + [[step, 10 * step] for step in range(1, 8 - lag)]
