"""Nothing phones home: import, training, embedding and search open no connection."""

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import os, sys

def watch(event, arguments):
    is_remote = event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "urllib.Request")
    if event in ("socket.connect", "socket.sendto"):
        is_remote = not isinstance(arguments[1], (str, bytes))  # the address of a local socket is a path
    if is_remote:
        with open({log!r}, "a") as file:
            file.write(f"{{os.getpid()}} {{event}} {{arguments!r}}\\n")

sys.addaudithook(watch)
import socket
{probe}
import v3s.cli
for command in {commands!r}:
    code = v3s.cli.main(command.split())
    assert code == 0, command
"""


def connections(folder: Path, commands: list[str], probe: str = "") -> str:
    """What the commands and all processes that they fork opened, one line each."""
    log = folder / "connections.txt"
    log.touch()
    script = SCRIPT.format(log=str(log), commands=commands, probe=probe)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return log.read_text()


def test_no_connection_is_opened(small_videos: Path, tmp_path: Path) -> None:
    query, run, vectors = next(small_videos.rglob("*.mp4")), tmp_path / "run", tmp_path / "vectors"
    commands = [
        f"pretrain --data {small_videos} --out {run} --width 0.125 --task ts --clip-frames 4 --clip-size 16 --epochs 1 "
        "--batch-size 4 --validation-videos 4 --workers 2",
        f"embed --data {small_videos} --backbone {run} --out {vectors} --num-clips 1 --workers 1",
        f"search {query} --in {vectors} -k 2",
    ]
    assert connections(tmp_path, commands) == ""


def test_the_watch_would_see_one(tmp_path: Path) -> None:
    """To this machine itself, on a port that nobody listens on."""
    probe = "socket.socket().connect_ex(('127.0.0.1', 9)); socket.getaddrinfo('localhost', 80)"
    log = connections(tmp_path, [], probe)
    assert "socket.connect" in log
    assert "socket.getaddrinfo" in log
