"""What v3s does on a system without what only Linux or POSIX has, such as Windows: tried by taking it away."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from v3s.commands import COMMANDS
from v3s.data.synthetic import make_clips

_TAKEN_AWAY = """
import multiprocessing, os, signal, sys
for module in ("fcntl", "resource", "pwd", "grp"):
    sys.modules[module] = None
calls = ("fork", "pread", "preadv", "pwrite", "pwritev", "sched_getaffinity")
for name in (*calls, "O_DIRECT", "O_NOFOLLOW", "O_NONBLOCK"):
    delattr(os, name)
for name in ("SIGPIPE", "SIGHUP", "pthread_sigmask"):
    delattr(signal, name)
multiprocessing.get_all_start_methods = lambda: ["spawn"]
"""


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process in which these do not exist, nor in its children."""
    folder = tmp_path_factory.mktemp("system")
    (folder / "sitecustomize.py").write_text(_TAKEN_AWAY)
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def run(environment: dict[str, str], *words: str) -> str:
    done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def test_every_help(without: dict[str, str]) -> None:
    code = "import sys, v3s; from v3s.cli import main; sys.exit(any(main([name, '--help']) for name in sys.argv[1:]))"
    assert run(without, "-c", code, *COMMANDS).count("usage: v3s") >= len(COMMANDS)


def test_a_whole_job(without: dict[str, str], tmp_path: Path) -> None:
    """With processes that prepare and read, which spawn; the store and the vectors are the same as on this system."""
    make_clips(tmp_path / "videos", num_videos=4, num_frames=40, height=32, width=40, seed=0)
    v3s, here = ("-m", "v3s"), dict(os.environ)
    for name, environment in (("without", without), ("with", here)):
        folder = tmp_path / name
        store, run_folder, vectors = str(folder / "store"), str(folder / "run"), str(folder / "vectors")
        small = ("--width=0.125", "--clip-frames=8", "--clip-size=16", "--task=v3s-short", "--device=cpu")
        run(environment, *v3s, "prepare", str(tmp_path / "videos"), f"--out={store}", "--workers=1")
        run(environment, *v3s, "pretrain", store, f"--out={run_folder}", *small, "--epochs=1", "--workers=0")
        run(environment, *v3s, "embed", store, f"--backbone={run_folder}", f"--out={vectors}", "--workers=1")
    for file in ("store/shards/00000.bin", "run/backbone.safetensors"):
        assert (tmp_path / "without" / file).read_bytes() == (tmp_path / "with" / file).read_bytes()
    one, other = (load_file(tmp_path / name / "vectors/shard-00000.safetensors") for name in ("without", "with"))
    assert all(np.array_equal(one[name], other[name]) for name in other)


def test_the_lock_holds(without: dict[str, str], tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from v3s.files.lock import FolderInUseError, only_writer
folder = Path(sys.argv[1])
for _ in range(2):
    with only_writer(folder):
        try:
            with only_writer(folder):
                print("held twice")
        except FolderInUseError as error:
            print(error)
"""
    said = run(without, "-c", code, str(tmp_path / "run")).splitlines()
    assert len(said) == 2
    assert all("is in use; wait until the other process ends" in line for line in said)


def test_the_previews_of_serve_start(without: dict[str, str]) -> None:
    code = """
from v3s.serve.decoders import Previews
if __name__ == "__main__":
    previews = Previews()
    previews.start()
    previews.stop()
    print("stopped")
"""
    assert run(without, "-c", code) == "stopped\n"
