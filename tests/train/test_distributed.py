"""When one process of a run dies, the other ends with a message that names it."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest


def start(arguments: list[str], rank: int, port: int) -> "subprocess.Popen[str]":
    """One of two processes, without a launcher that would end the other."""
    place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    return subprocess.Popen(
        [sys.executable, "-m", "v3s", *arguments],
        env={**os.environ, **place, "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize("victim", [0, 1])
def test_the_other_process_names_the_dead_one(victim: int, small_videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    arguments = (
        f"pretrain --data {small_videos} --out {out} --width 0.125 --task ts --clip-frames 4 --clip-size 16 "
        "--batch-size 4 --validation-videos 4 --workers 0 --checkpoint-seconds 0 --device cpu"
    )
    pair = [start(arguments.split(), rank, port) for rank in (0, 1)]
    try:
        deadline = time.monotonic() + 120
        while not (out / "checkpoints/last.pt").exists():
            assert time.monotonic() < deadline
            assert pair[0].poll() is None
            time.sleep(0.05)
        pair[victim].send_signal(signal.SIGKILL)
        told, _ = pair[1 - victim].communicate(timeout=60)
    finally:
        for process in pair:
            process.kill()
            process.communicate()
    assert pair[1 - victim].returncode == 1
    assert f"no longer there: process {victim} of 2 (pid {pair[victim].pid} on" in told
    assert "Traceback" not in told
    assert "frame #" not in told
