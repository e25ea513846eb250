"""Two processes of a run: which device they communicate on, and how one ends when the other does."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch._C._distributed_c10d import HashStore

from v3s.train import distributed
from v3s.train.checkpoint import load_checkpoint
from v3s.train.distributed import Processes, first_is_done, process_group
from v3s.train.run import read_metrics


def start(arguments: list[str], rank: int, port: int) -> "subprocess.Popen[str]":
    """One of two processes, each in a process group of its own, without a launcher that would end the other."""
    place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    return subprocess.Popen(
        [sys.executable, "-m", "v3s", *arguments],
        env={**os.environ, **place, "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def both(videos: Path, out: Path, **changes: object) -> "Iterator[list[subprocess.Popen[str]]]":
    """Yield two processes once they have written a checkpoint; kill them at the end."""
    port = free_port()
    options = {
        "data": videos, "out": out, "width": 0.125, "task": "ts", "clip-frames": 4, "clip-size": 16, "batch-size": 4,
        "validation-videos": 4, "workers": 0, "checkpoint-seconds": 0, "device": "cpu",
    } | {name.replace("_", "-"): value for name, value in changes.items()}  # fmt: skip
    arguments = ["pretrain", *(f"--{name}={value}" for name, value in options.items())]
    pair = [start(arguments, rank, port) for rank in (0, 1)]
    try:
        deadline = time.monotonic() + 120
        while not (out / "checkpoints/last.pt").exists():
            assert time.monotonic() < deadline
            assert pair[0].poll() is None, pair[0].communicate()[0]
            time.sleep(0.05)
        yield pair
    finally:
        for process in pair:
            process.kill()
            process.communicate()


@pytest.mark.parametrize("victim", [0, 1])
def test_the_other_process_names_the_dead_one(victim: int, small_videos: Path, tmp_path: Path) -> None:
    from benchmarks.reliability.stops import STOPS  # which looks for the same words

    with both(small_videos, tmp_path / "run") as pair:
        pair[victim].send_signal(signal.SIGKILL)
        output, _ = pair[1 - victim].communicate(timeout=60)
    assert pair[1 - victim].returncode == 1
    assert STOPS["SIGKILL"].message.format(rank=victim, pid=pair[victim].pid) in output
    assert "Traceback" not in output
    assert "frame #" not in output


@pytest.mark.parametrize("asked", [0, 1])
def test_all_stop_at_the_step_at_which_one_is_asked_to(asked: int, small_videos: Path, tmp_path: Path) -> None:
    with both(small_videos, tmp_path / "run") as pair:
        pair[asked].send_signal(signal.SIGTERM)
        first, second = (process.communicate(timeout=60)[0] for process in pair)
    assert [process.returncode for process in pair] == [143, 143], first + second
    state = load_checkpoint(tmp_path / "run/checkpoints/last.pt")
    assert f"stopped in epoch {state['epoch'] + 1} after step {state['step']}; " in " ".join(first.split())
    assert "; resume with: v3s pretrain --out " in " ".join(first.split())


def test_a_signal_during_validation_stops_all_after_it(small_videos: Path, tmp_path: Path) -> None:
    with both(small_videos, tmp_path / "run", validation_clips=50) as pair:
        time.sleep(1)  # the three short training steps are done: nearly all of the time goes into validation
        pair[0].send_signal(signal.SIGTERM)
        outputs = [process.communicate(timeout=60)[0] for process in pair]
    assert [process.returncode for process in pair] == [143, 143], outputs


def test_all_stop_even_if_their_workers_are_terminated_too(small_videos: Path, tmp_path: Path) -> None:
    """As ``torchrun`` does."""
    with both(small_videos, tmp_path / "run", workers=1) as pair:
        for process in pair:
            os.killpg(process.pid, signal.SIGTERM)
        outputs = [process.communicate(timeout=60)[0] for process in pair]
    assert [process.returncode for process in pair] == [143, 143], outputs
    state = load_checkpoint(tmp_path / "run/checkpoints/last.pt")
    assert f"after step {state['step']}; " in " ".join(outputs[0].split())


@pytest.mark.parametrize("end", ["pass", "raise KeyboardInterrupt", "raise ValueError", "raise RuntimeError"])
def test_no_thread_of_the_group_outlives_it(end: str) -> None:
    """Such a thread may still run at interpreter exit, which aborts the process, or wait forever for its lock.

    The exception that ends the group is kept, as the command line keeps it; its frames refer to the wrapped model.
    """
    script = f"""
from pathlib import Path
import torch
from v3s.train.distributed import Processes, process_group, wrap

def threads():
    return sum("gloo" in path.read_text() for path in Path("/proc/self/task").glob("*/comm"))

def train():
    trained = wrap(torch.nn.Linear(3, 3), processes, device)
    trained(torch.ones(2, 3)).sum().backward()
    print(threads() > 0)
    try:
        {end}
    except KeyboardInterrupt:
        raise ValueError("stopped") from None

try:
    with process_group(processes := Processes(count=2), device := torch.device("cpu")):
        train()
except (ValueError, RuntimeError) as error:
    print(threads())
else:
    print(threads())
"""
    place = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    finished = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, **place}, capture_output=True, text=True, check=True
    )
    assert finished.stdout.split() == ["True", "0"]


def test_a_signal_interrupts_waiting_for_the_first_process() -> None:
    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with pytest.raises(KeyboardInterrupt):
            first_is_done(Processes(1, 2, store=HashStore()), "scan")
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_process_may_have_nothing_to_validate(small_videos: Path, tmp_path: Path) -> None:
    """One validation video for two processes: both use its loss."""
    with both(small_videos, tmp_path / "run", validation_videos=1, epochs=1) as pair:
        outputs = [process.communicate(timeout=60)[0] for process in pair]
    assert [process.returncode for process in pair] == [0, 0], outputs
    (line,) = read_metrics(tmp_path / "run/metrics.jsonl")
    assert line["validation"].keys() == line["train"].keys()
    assert line["validation"]["accuracy_temporal"] in (0, 1)
    assert line["clips_per_second"] * line["seconds"] == pytest.approx(12, rel=0.05)  # three batches, of both processes


@pytest.mark.parametrize(
    ("device", "backend", "gpu"), [("cuda:3", "nccl", torch.device("cuda:3")), ("cpu", "gloo", None)]
)
def test_the_group_gets_its_gpu(
    monkeypatch: pytest.MonkeyPatch, device: str, backend: str, gpu: torch.device | None
) -> None:
    joined: list[object] = []

    def join(*args: object, device_id: torch.device | None, **others: object) -> None:
        joined.extend((*args, device_id))
        raise ConnectionError  # there is no other process to join

    monkeypatch.setattr(distributed, "rendezvous", lambda *args, **others: iter([(HashStore(), 0, 2)]))
    monkeypatch.setattr(torch.distributed, "init_process_group", join)
    with pytest.raises(ConnectionError), process_group(Processes(0, 2), torch.device(device)):
        pass
    assert joined == [backend, gpu]


def test_lists_that_differ_are_refused_by_all(small_videos: Path, tmp_path: Path) -> None:
    files = sorted(small_videos.rglob("*.mp4"))
    for rank, listed in enumerate((files, [*files[:5], *files[6:]])):
        (tmp_path / f"{rank}.txt").write_text("".join(f"{path}\n" for path in listed))
    port, out = free_port(), tmp_path / "run"
    options = "--width=0.125 --task=ts --clip-frames=4 --clip-size=16 --batch-size=4 --validation-videos=4 --workers=0"
    pair = [
        start(["pretrain", f"--data={tmp_path / f'{rank}.txt'}", f"--out={out}", *options.split()], rank, port)
        for rank in (0, 1)
    ]
    try:
        outputs = [process.communicate(timeout=60)[0] for process in pair]
    finally:
        for process in pair:
            process.kill()
    assert [process.returncode for process in pair] == [1, 1], outputs
    for output in outputs:
        text = output.split("error: ")[1]
        assert "process 0 has 16, process 1 has 15; the first difference is number 6: " in text
        assert str(files[5]) in text
        assert str(files[6]) in text
    assert not (out / "config.yaml").exists()
