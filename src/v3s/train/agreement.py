"""What a step found, known to all processes of a run at the same later step: none of them goes a step further alone."""

from collections import deque

import torch
from torch import Tensor

from v3s.train.distributed import Processes, largest_over


class Agreement:
    """Numbers that every process gives at every step, and of which all learn the largest, some steps later.

    A GPU is told its steps ahead of time, by each process as fast as it can. One that stopped at a step which another
    did not stop at would leave that one waiting for ever in an exchange.

    Args:
        processes: the run's.
        lag: steps until the host looks at a number; it then need not wait for the device. On a CPU it can be 0.
    """

    def __init__(self, processes: Processes, lag: int) -> None:
        self._lag, self._processes = lag, processes
        self._underway: deque[tuple[Tensor, torch.cuda.Event | None]] = deque()

    def step(self, *given: Tensor) -> list[float]:
        """Give the numbers of this step; returns the largest of those of ``lag`` steps ago, 0 where there was none."""
        largest = largest_over(torch.stack(given), self._processes)
        here, arrived = largest.to("cpu", non_blocking=True), None
        if largest.is_cuda:
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record()
        self._underway.append((here, arrived))
        if len(self._underway) <= self._lag:
            return [0.0] * len(given)
        here, arrived = self._underway.popleft()
        if arrived is not None:
            arrived.synchronize()
        return here.tolist()
