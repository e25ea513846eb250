"""Pages of a run that trains: a hundredth of the time, and none older than the last epoch when it is stopped."""

import pytest

from v3s.train.running_page import RunningPage
from v3s.train.stop import TrainingStoppedError


def test_pages_take_a_hundredth_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes two seconds and an epoch takes ten: after a page there is none for 200 seconds."""
    clock, written = [1000.0], []

    def write() -> None:
        written.append(clock[0])
        clock[0] += 2

    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    page = RunningPage(write)
    for _ in range(60):
        clock[0] += 10
        page.after_epoch()
    assert written == [1030.0, 1232.0, 1434.0]


@pytest.mark.parametrize(
    ("num_epochs", "error", "num_written"),
    [(1, TrainingStoppedError("a signal", 2), 1), (0, TrainingStoppedError("a signal", 2), 0), (1, ValueError(), 0)],
)
def test_a_stop_has_the_page_written_if_there_is_something_new(
    num_epochs: int, error: Exception, num_written: int
) -> None:
    written: list[None] = []
    page = RunningPage(lambda: written.append(None))
    for _ in range(num_epochs):
        page.after_epoch()
    with pytest.raises(type(error)), page.written_when_stopped():
        raise error
    assert len(written) == num_written


def test_a_stop_does_not_repeat_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("v3s.train.running_page.SECONDS_BETWEEN", 0.0)
    written: list[None] = []
    page = RunningPage(lambda: written.append(None))
    page.after_epoch()
    with pytest.raises(TrainingStoppedError), page.written_when_stopped():
        raise TrainingStoppedError("a signal", 2)
    assert len(written) == 1
