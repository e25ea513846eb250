"""Try a wheel where there is no checkout: ``python -m tests.release dist/*.whl`` (``make wheel`` runs it).

A fresh environment, an empty folder, and the commands of a first user: check, pretrain, embed, probe, predict and demo.
"""

import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

PINS = Path(__file__).resolve().parents[1] / "constraints.txt"
MAKE = (
    "from pathlib import Path; from v3s.data.synthetic import make_clips; "
    "make_clips(Path('my_videos'), num_videos=16, num_frames=72, height=48, width=64)"
)
COMMANDS = (
    "check my_videos",
    "pretrain my_videos --out run --width 0.125 --task ts --clip-frames 8 --clip-size 32 --epochs 1 --batch-size 4",
    "embed my_videos --backbone run --num-clips 2 --dtype float32 --out vectors",
    "probe --in vectors --num-clips 2 --save recognizer",
    "predict --in vectors --recognizer recognizer --out answers.csv",
    "demo my_videos --epochs 1 --out demo",
)
EXTRAS = "test,dev,docs,bench,ray"
OUTPUTS = ("run/report.html", "vectors/vectors.json", "answers.csv", "demo/report.html")


def try_wheel(wheel: Path, folder: Path) -> None:
    """Install a wheel into ``folder/env`` and use it in ``folder/work``.

    Raises:
        subprocess.CalledProcessError: the installation or a command failed.
    """
    env, work = folder / "env", folder / "work"
    work.mkdir()
    venv.create(env, with_pip=True)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}

    def run(*words: str | Path) -> None:
        print("$", *words[:6], flush=True)
        subprocess.run([env / "bin" / words[0], *words[1:]], cwd=work, env=clean, check=True)

    run("pip", "install", "-q", "-c", PINS, wheel.resolve())
    run("pip", "install", "-q", "--dry-run", "-c", PINS, f"{wheel.resolve()}[{EXTRAS}]")
    began = time.perf_counter()
    run("python", "-c", "import v3s; assert 'env' in v3s.__file__, v3s.__file__")
    print(f"import: {time.perf_counter() - began:.2f} s, with the start of Python")
    run("python", "-c", MAKE)
    for command in COMMANDS:
        run("v3s", *command.split())
    for path in OUTPUTS:
        assert (work / path).is_file(), path


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        try_wheel(Path(sys.argv[1]), Path(name))
    print("the wheel works without the checkout")
