"""The lock of a folder: one holder, which the others name; a dead one blocks nobody."""

import errno
import os
import signal
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from v3s.files.lock import LOCK, FolderInUseError, only_writer
from v3s.files.writing import SaveError


def in_child(work: Callable[[], str]) -> tuple[int, int]:
    """Start a child process; returns its number and the descriptor to read its one line from."""
    readable, writable = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        child = os.fork()
    if child == 0:
        try:
            os.write(writable, work().encode() + b"\n")
            time.sleep(60)  # the parent ends it before
        finally:
            os._exit(1)
    os.close(writable)
    return child, readable


HELD: list[AbstractContextManager[None]] = []


def hold(folder: Path) -> str:
    HELD.append(only_writer(folder))
    HELD[-1].__enter__()
    return "held"


def attempt(folder: Path) -> str:
    start = time.monotonic()
    try:
        hold(folder)
        return "won"
    except FolderInUseError as error:
        return f"{time.monotonic() - start:.3f} {error}"


def test_a_killed_holder_blocks_nobody(tmp_path: Path) -> None:
    child, pipe = in_child(lambda: hold(tmp_path / "run"))
    assert os.read(pipe, 100) == b"held\n"
    with pytest.raises(FolderInUseError, match=rf"run is in use by process {child} on .* since 20"):
        only_writer(tmp_path / "run").__enter__()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert (tmp_path / "run" / LOCK).exists()
    with only_writer(tmp_path / "run"):
        pass
    assert not (tmp_path / "run" / LOCK).exists()


def test_children_of_the_holder_do_not_keep_it(tmp_path: Path) -> None:
    """Data workers outlive a killed run for seconds."""
    with only_writer(tmp_path / "run"):
        child, _ = in_child(lambda: "worker")
    with only_writer(tmp_path / "run"):
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_of_fifty_starts_one_wins(tmp_path: Path) -> None:
    children = [in_child(lambda: attempt(tmp_path / "run")) for _ in range(50)]
    try:
        outputs = [os.read(pipe, 1000).decode() for _, pipe in children]
    finally:
        for child, pipe in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(pipe)
    winners = [child for (child, _), text in zip(children, outputs, strict=True) if text == "won\n"]
    assert len(winners) == 1
    losers = [text for text in outputs if text != "won\n"]
    assert all(f"in use by process {winners[0]} on" in text for text in losers)
    assert max(float(text.split()[0]) for text in losers) < 2


def test_a_folder_made_for_nothing_is_removed(tmp_path: Path) -> None:
    with only_writer(tmp_path / "new/run"):
        assert (tmp_path / "new/run" / LOCK).exists()
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    with only_writer(tmp_path / "old"):
        (tmp_path / "old/work").touch()
    assert [file.name for file in (tmp_path / "old").iterdir()] == ["work"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a folder of Linux")
def test_a_place_where_nothing_can_be_made_is_named() -> None:
    with pytest.raises(SaveError, match="/proc/run cannot be written: "), only_writer(Path("/proc/run")):
        pass


def test_a_disk_without_locks_is_not_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.lockf", refuse)
    message = rf"run/{LOCK} cannot be written: {os.strerror(errno.ENOLCK)}"
    with pytest.raises(SaveError, match=message), only_writer(tmp_path / "run"):
        pass


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="file is a file; give a folder"):
        only_writer(tmp_path / "file").__enter__()
