"""Two processes of a run that are stopped, and must end: ``python -m benchmarks.reliability.stops [--quick]``.

One of the two gets a signal or a NaN, or is lost, at a random moment of training; both must end, with the right codes.
They are forked from this process, which has trained once and so imported everything, and end as the command does: by
``main``, then by the end of the interpreter. ``--tests 20`` runs the tests of two processes that often instead.
"""

import argparse
import gc
import io
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import torch._dynamo  # DDP does, for seconds
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from benchmarks.reliability.runs import OPTIONS, free_port
from v3s.cli import main as v3s
from v3s.data.synthetic import make_clips

LIMIT = 60.0  # seconds until both train, and from a stop until both have ended: what takes longer hangs
ROOT, TESTS = Path(__file__).parents[2], "tests/train/test_distributed.py"


@dataclass(frozen=True)
class Stop:
    """What one of two processes gets, and how a process then ends.

    Attributes:
        number: the signal that it gets.
        code: the exit code of every process that is left.
        message: what every process that is left says, with ``rank`` and ``pid`` of the one that was hit.
    """

    number: signal.Signals
    code: int
    message: str = ""


STOPS = {
    "SIGTERM": Stop(signal.SIGTERM, 143),
    "SIGINT": Stop(signal.SIGINT, 130),
    "a NaN": Stop(signal.SIGUSR1, 1, "a loss or gradient is not finite"),
    "SIGKILL": Stop(signal.SIGKILL, 1, "no longer respond: process {rank} of 2 (pid {pid} on"),
}


class Fork:
    """A fork of this process that runs the command, and writes what it says into a file."""

    def __init__(self, arguments: list[str], file: Path, place: dict[str, str]) -> None:
        self._file = file
        self._code: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            os.environ |= place
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            signal.signal(signal.SIGUSR1, _poison)
            sys.exit(v3s(arguments))

    @property
    def said(self) -> str:
        """All that it said."""
        return self._file.read_text()

    def poll(self) -> int | None:
        """Its exit code, None while it lives."""
        if self._code is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if ended else None
        return self._code

    def kill(self) -> None:
        """End it, if it lives."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


def _poison(number: int, frame: object) -> None:
    """From now on every module makes NaN in training."""

    def spoil(module: nn.Module, given: object, made: object) -> Tensor | None:
        return made * math.nan if module.training and isinstance(made, Tensor) else None

    register_module_forward_hook(spoil)  # type: ignore[arg-type]


@contextmanager
def own_folder() -> Iterator[Path]:
    """A temporary folder, which this process removes and its forks, which leave the same context, do not."""
    folder, owner = Path(tempfile.mkdtemp()), os.getpid()
    try:
        yield folder
    finally:
        if os.getpid() == owner:
            shutil.rmtree(folder)


def command(folder: Path, out: Path, **changes: object) -> list[str]:
    """A training on the folder's clips, without processes that read."""
    given = {"data": folder / "videos", "out": out, **OPTIONS, "workers": 0, **changes}
    return ["pretrain", *(f"--{name}={value}" for name, value in given.items())]


def warm_up(folder: Path) -> None:
    """Make clips and train on them once here: what forks need is then there, and no thread but this one."""
    torch.set_num_threads(1)
    os.environ |= {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / "cache")}
    make_clips(folder / "videos", num_videos=16, num_frames=40, height=48, width=64)
    with redirect_stdout(io.StringIO()) as said:
        code = v3s(command(folder, folder / "warm", epochs=1))
    if code:
        raise SystemExit(said.getvalue())
    gc.collect()
    gc.freeze()  # forks need not look at it all again when they end


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something is so, or the limit is reached."""
    deadline = time.monotonic() + LIMIT
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)


def start(folder: Path, out: Path) -> list[Fork]:
    """Two processes of one run that trains: its first checkpoint is there."""
    out.mkdir()
    arguments, port = command(folder, out / "run", epochs=1_000), free_port()
    place = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    pair = [
        Fork(arguments, out / f"{rank}.txt", {**place, "RANK": f"{rank}", "LOCAL_RANK": f"{rank}"}) for rank in (0, 1)
    ]
    first = out / "run/checkpoints/last.pt"
    wait_for(lambda: first.exists() or any(fork.poll() is not None for fork in pair))
    if not first.exists():
        for fork in pair:
            fork.kill()
        raise SystemExit("no training began:\n" + "\n".join(fork.said for fork in pair))
    return pair


@dataclass(frozen=True)
class End:
    """How two processes ended after one of them was hit.

    Attributes:
        name: of what it got.
        rank: its own.
        codes: both exit codes; None for a process that hung.
        right_words: whether those that were left said what they should, without a trace.
        seconds: until both had ended.
    """

    name: str
    rank: int
    codes: tuple[int | None, ...]
    right_words: bool
    seconds: float

    @property
    def hangs(self) -> bool:
        """Whether one did not end."""
        return None in self.codes

    @property
    def is_wrong(self) -> bool:
        """Whether both ended, but not as they should."""
        stop = STOPS[self.name]
        right = [stop.code, stop.code]
        if stop.number == signal.SIGKILL:
            right[self.rank] = -signal.SIGKILL
        return not self.hangs and (self.codes != tuple(right) or not self.right_words)


def hit(pair: list[Fork], name: str, rank: int) -> End:
    """Stop one of two processes, and wait until both have ended."""
    stop, begin = STOPS[name], time.monotonic()
    os.kill(pair[rank].pid, stop.number)
    wait_for(lambda: all(fork.poll() is not None for fork in pair))
    seconds, codes = time.monotonic() - begin, tuple(fork.poll() for fork in pair)
    for fork in pair:
        fork.kill()
    message = stop.message.format(rank=rank, pid=pair[rank].pid)
    words = [fork.said for fork, code in zip(pair, codes, strict=True) if code != -signal.SIGKILL]
    right = all(message in text and "Traceback" not in text and "frame #" not in text for text in words)
    return End(name, rank, codes, right, seconds)


def hit_often(folder: Path, number: int, console: Console) -> list[End]:
    """Stop that many pairs at random moments, in turn by each stop and in each rank; tell at once what ends badly."""
    chance, ends = random.Random(0), []
    for turn in range(number):
        pair = start(folder, folder / "pair")
        time.sleep(chance.uniform(0, 1))
        end = hit(pair, list(STOPS)[turn % len(STOPS)], turn // len(STOPS) % 2)
        if end.hangs or end.is_wrong:
            said = "\n".join(fork.said for fork in pair)
            console.print(f"stop {turn + 1}: {end}\n{said}", markup=False, highlight=False)
        ends.append(end)
        shutil.rmtree(folder / "pair")
    return ends


def table_of(ends: list[End]) -> Table:
    """A row for each stop and one for all."""
    table = Table("one of two processes gets", "stops", "hangs", "wrong ends", "longest seconds to end")
    rows = {name: [end for end in ends if end.name == name] for name in STOPS}
    for name, found in {**rows, "any of these": ends}.items():
        hangs, wrong = sum(end.hangs for end in found), sum(end.is_wrong for end in found)
        table.add_row(name, f"{len(found)}", f"{hangs}", f"{wrong}", f"{max(end.seconds for end in found):.1f}")
    return table


def run_tests(number: int, console: Console) -> tuple[Table, bool]:
    """Run the tests that often; a table, and whether they passed every time."""
    seconds, num_passed = [], 0
    for turn in range(number):
        begin = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", TESTS], cwd=ROOT, capture_output=True, text=True, check=False
        )
        seconds.append(time.monotonic() - begin)
        num_passed += done.returncode == 0
        if done.returncode:
            console.print(f"run {turn + 1}:\n{done.stdout}{done.stderr}", markup=False, highlight=False)
    table = Table("tests", "runs", "passed", "longest seconds")
    table.add_row(TESTS, f"{number}", f"{num_passed}", f"{max(seconds):.0f}")
    return table, num_passed == number


def main() -> None:
    """Stop pairs, or run the tests, and print one table; exit with 1 if anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="10 stops in place of 200")
    parser.add_argument("--tests", type=int, default=0, help=f"run {TESTS} so often, and stop nothing")
    given = parser.parse_args()
    console = Console(soft_wrap=True)
    if given.tests:
        table, good = run_tests(given.tests, console)
    else:
        with own_folder() as folder:
            warm_up(folder)
            ends = hit_often(folder, 10 if given.quick else 200, console)
        table, good = table_of(ends), not any(end.hangs or end.is_wrong for end in ends)
    console.print(table)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
