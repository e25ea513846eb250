"""The flags of a step arrive some steps later, in the order of the steps."""

import pytest
import torch

from v3s.train.distributed import Agreement, Processes


@pytest.mark.parametrize("lag", [0, 1, 3])
def test_numbers_come_a_lag_later(lag: int) -> None:
    agreement, number = Agreement(Processes(), lag), torch.zeros(())
    agreed = []
    for step in range(1, 8):
        number += 1  # in place: earlier contributions must not change
        agreed.append(agreement.step(number, torch.tensor(step * 10.0)))
    assert agreed == [[0, 0]] * lag + [[step, 10 * step] for step in range(1, 8 - lag)]
