"""Reading continues whatever happens to a file or a worker; only that file is lost, and it is reported."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from v3s.data import loading
from v3s.data.loading import load, load_batches
from v3s.data.quarantine import Quarantine
from v3s.video.container import Failure, VideoError

NUM_FILES = 12
BATCHES = [[(epoch, (3 * row + step) % NUM_FILES) for row in range(4)] for epoch in range(3) for step in range(3)]


def die(key: tuple[int, int]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def crash(key: tuple[int, int]) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def stop(key: tuple[int, int]) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def fail(key: tuple[int, int]) -> None:
    raise VideoError(f"{key[1]}.mp4: is damaged", "decode")


def code_error(key: tuple[int, int]) -> None:
    raise RuntimeError("an error in the code")


@dataclass(frozen=True)
class Numbers:
    """Samples that equal their keys; for files in `bad`, an action runs first."""

    bad: dict[int, Callable[[tuple[int, int]], None]]

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        if key[1] in self.bad:
            self.bad[key[1]](key)
        return torch.tensor(key), torch.tensor(key[1])

    def path(self, key: tuple[int, int]) -> str:
        """Return the file of a sample."""
        return f"{key[1]}.mp4"


@pytest.fixture(autouse=True)
def _short_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "SILENT_SECONDS", 2.0)


@pytest.fixture
def no_orphans() -> Iterator[None]:
    yield
    assert multiprocessing.active_children() == []


def quarantine(**options: object) -> Quarantine:
    return Quarantine(num_files=NUM_FILES, report=lambda text: None, **options)  # type: ignore[arg-type]


def keys_of(samples: Numbers, skipped: Quarantine | None, num_workers: int, **options: int) -> list[list[list[int]]]:
    batches = load_batches(samples, BATCHES, num_workers=num_workers, quarantine=skipped, **options)  # type: ignore[arg-type]
    return [keys.tolist() for keys, _ in batches]


def without(*files: int) -> list[list[list[int]]]:
    return [[list(key) for key in keys if key[1] not in files] for keys in BATCHES]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize(("num_workers", "options"), [(0, {}), (1, {}), (2, {"prefetch": 1}), (2, {"prefetch": 4})])
@pytest.mark.parametrize("bad", [(), (5,), (0, 5, 11)])
def test_batches_are_the_same_however_they_are_read(
    num_workers: int, options: dict[str, int], bad: tuple[int, ...], no_orphans: None
) -> None:
    skipped = quarantine()
    samples = Numbers(dict.fromkeys(bad, fail))
    assert keys_of(samples, skipped, num_workers, **options) == without(*bad)
    assert skipped.failures == {f"{number}.mp4": Failure("decode", "is damaged") for number in bad}


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize(
    ("end", "reason", "may_pass"),
    [
        (die, "was killed by signal 9", True),
        (stop, "made no progress for 2 seconds", True),
        (crash, "was killed by signal 11", False),
    ],
)
def test_a_dead_or_hung_worker_costs_one_file(
    end: Callable[[tuple[int, int]], None], reason: str, may_pass: bool, no_orphans: None
) -> None:
    skipped, reports = quarantine(), list[str]()
    skipped.report = reports.append
    assert keys_of(Numbers({4: end}), skipped, 2) == without(4)
    assert list(skipped.failures) == ["4.mp4"]
    assert reason in skipped.failures["4.mp4"].reason
    assert skipped.failures["4.mp4"].may_pass == may_pass
    assert len(reports) == 1
    assert "4.mp4" in reports[0]


@pytest.mark.timeout(30)
def test_worker_killed_while_it_owns_a_lock_blocks_nothing(monkeypatch: pytest.MonkeyPatch, no_orphans: None) -> None:
    """Torch's workers lock an event to check it at every batch; a worker killed there never releases the lock."""
    leave = loading._Workers.__exit__

    def locked(workers: loading._Workers, *error: Any) -> None:
        assert workers._batches._workers_done_event._cond.acquire(timeout=5)  # type: ignore[attr-defined]
        leave(workers, *error)

    monkeypatch.setattr(loading._Workers, "__exit__", locked)
    batches = load(Numbers({}), BATCHES, num_workers=2, quarantine=None)
    next(batches)
    batches.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_worker_that_dies_or_stops_between_samples_costs_nothing(number: signal.Signals, no_orphans: None) -> None:
    skipped = quarantine()
    batches = load(Numbers({}), BATCHES, num_workers=1, quarantine=skipped)
    received = [next(batches)[0]]
    time.sleep(0.3)  # the worker has read ahead and waits
    for process in multiprocessing.active_children():
        os.kill(process.pid or 0, number)
    received += [keys for keys, _ in batches]
    assert received == BATCHES
    assert skipped.failures == {}


def test_death_does_not_disturb_the_main_process(no_orphans: None) -> None:
    """Torch's own handler raises anywhere in the main process, for example in the middle of a step."""
    before = signal.getsignal(signal.SIGCHLD)
    batches = load(Numbers({}), BATCHES, num_workers=1, quarantine=quarantine())
    next(batches)
    (process,) = multiprocessing.active_children()
    process.kill()
    time.sleep(0.3)
    assert signal.getsignal(signal.SIGCHLD) is before
    batches.close()  # type: ignore[attr-defined]


def test_dropped_stream_leaves_no_worker_even_if_one_is_stopped(no_orphans: None) -> None:
    batches = load(Numbers({}), BATCHES, num_workers=2, quarantine=None)
    next(batches)
    os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGSTOP)
    del batches


@pytest.mark.parametrize("num_workers", [0, 1])
def test_without_quarantine_the_first_bad_file_stops(num_workers: int, no_orphans: None) -> None:
    with pytest.raises(VideoError, match=r"^5\.mp4: is damaged$"):
        keys_of(Numbers({5: fail}), None, num_workers)


def test_without_quarantine_a_death_stops_and_names_the_file(no_orphans: None) -> None:
    with pytest.raises(VideoError, match=r"^5\.mp4: the worker that read it was killed by signal 9$"):
        keys_of(Numbers({5: die}), None, 1)


def test_an_error_in_the_code_is_not_blamed_on_a_file(no_orphans: None) -> None:
    with pytest.raises(RuntimeError, match="an error in the code"):
        keys_of(Numbers({5: code_error}), quarantine(), 1)


def test_terminated_workers_are_replaced(tmp_path: Path, no_orphans: None) -> None:
    """A launcher terminates all processes of a run, but the main process decides when to stop."""

    def end_once(key: tuple[int, int]) -> None:
        if not (tmp_path / "ended").exists():
            (tmp_path / "ended").touch()
            os.kill(os.getpid(), signal.SIGTERM)

    skipped = quarantine()
    assert keys_of(Numbers({5: end_once}), skipped, 2) == without()
    assert skipped.failures == {}


def test_more_than_half_bad_stops(no_orphans: None) -> None:
    message = r"7 of 12 files failed after the scan, more than half; the latest is \d+\.mp4: is damaged"
    with pytest.raises(ValueError, match=message):
        keys_of(Numbers(dict.fromkeys(range(7), fail)), quarantine(), 0)


def test_the_log_makes_a_resumed_run_skip_the_same(tmp_path: Path) -> None:
    """A file that failed once for a temporary reason is skipped in the same batches after a resume."""
    log = tmp_path / "quarantine.jsonl"
    failed: list[tuple[int, int]] = []

    def fail_once(key: tuple[int, int]) -> None:
        if key[0] == 1 and not failed:
            failed.append(key)
            fail(key)

    first = keys_of(Numbers({7: fail_once}), quarantine(log=log, stream="train"), 0)
    assert any([0, 7] in keys for keys in first)
    assert not any([epoch, 7] in keys for keys in first for epoch in (1, 2))
    again = quarantine(log=log, stream="train")
    assert keys_of(Numbers({}), again, 2) == first
    assert again.failures == {"7.mp4": Failure("decode", "is damaged")}
    assert len(log.read_text().splitlines()) == 1
    assert quarantine(log=log, stream="validation").failures == {}


def test_file_of_fixed_batches_is_skipped_in_all_later_passes() -> None:
    """Also in batches before the one in which it failed: the same clips are compared in every pass."""

    def fail_later(key: tuple[int, int]) -> None:
        if key[0] == 1:
            fail(key)

    skipped = quarantine(repeats=True)
    assert any([0, 5] in keys for keys in keys_of(Numbers({5: fail_later}), skipped, 0))
    assert keys_of(Numbers({}), skipped, 0) == without(5)


def test_batch_that_loses_all_its_files_is_empty() -> None:
    (clips, labels), (others, _) = load_batches(
        Numbers({5: fail}), [[(0, 5)], [(0, 6)]], num_workers=0, quarantine=quarantine()
    )
    assert (len(clips), len(labels), len(others)) == (0, 0, 1)
