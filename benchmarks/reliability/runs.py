"""Runs that are killed, starved and started twice: ``python -m benchmarks.reliability.runs [--quick] [PROOF ...]``.

Every proof runs the real command on generated clips and compares the weights with those of an undisturbed run, bit for
bit.
"""

import argparse
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rich.console import Console
from rich.table import Table

from v3s.cli import main as v3s
from v3s.data.synthetic import make_clips
from v3s.files.weights import fingerprint
from v3s.files.writing import partial_path
from v3s.train.checkpoint import load_checkpoint

OPTIONS = {
    "width": 0.125, "task": "ts", "clip-frames": 4, "clip-size": 16, "epochs": 20, "batch-size": 4,
    "validation-videos": 4, "workers": 1, "checkpoint-seconds": 0, "device": "cpu",
}  # fmt: skip


@dataclass(frozen=True)
class Bench:
    """Generated clips, a folder for runs, and the number of repetitions.

    Attributes:
        folder: the folder for everything.
        quick: run fewer repetitions.
        chance: draws when and where a run is disturbed.
    """

    folder: Path
    quick: bool
    chance: random.Random

    def times(self, number: int) -> int:
        """The number of repetitions, given the full number."""
        return max(2, number // 5) if self.quick else number

    @cached_property
    def videos(self) -> Path:
        """16 small clips."""
        make_clips(self.folder / "videos", num_videos=16, num_frames=40, height=48, width=64)
        return self.folder / "videos"

    def command(self, out: Path, **changes: object) -> list[str]:
        """The command of a training that resumes where it stopped."""
        options = {"data": self.videos, "out": out, **OPTIONS, **changes}
        return ["pretrain", *(f"--{name.replace('_', '-')}={value}" for name, value in options.items()), "--resume"]

    def start(self, arguments: list[str], *before: str, **environment: str) -> "subprocess.Popen[str]":
        """Start a process of ``v3s``, or of ``before`` followed by the arguments."""
        return subprocess.Popen(
            [sys.executable, *(before or ("-m", "v3s")), *arguments],
            env={**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(self.folder / "cache"), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def finish(self, out: Path, **changes: object) -> str:
        """Train to the end; returns the fingerprint of the weights."""
        process = self.start(self.command(out, **changes))
        output, _ = process.communicate()
        if process.returncode:
            raise SystemExit(output)
        return weights_of(out)

    @cached_property
    def undisturbed(self) -> str:
        """The weights of an undisturbed run."""
        return self.finish(self.folder / "undisturbed")


def weights_of(out: Path) -> str:
    """The fingerprint of the last weights of a finished run."""
    return fingerprint(load_checkpoint(out / "checkpoints/last.pt")["model"])


def verdict(same: bool) -> str:
    """The result of comparing weights with those of an undisturbed run."""
    return "identical" if same else "DIFFER"


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[str]") -> bool:
    """Wait for a condition; returns False if the process ended first."""
    while not condition():
        if process.poll() is not None:
            return False
        time.sleep(0.001)
    return True


def kills(bench: Bench) -> str:
    """``kill -9`` at random moments of one run, every second time during a save."""
    out, num_kills, in_save = bench.folder / "kills", 0, 0
    while num_kills < bench.times(20):
        process = bench.start(bench.command(out, epochs=10_000))
        part = partial_path(out / "checkpoints/last.pt", process.pid)  # the file that a save writes
        if num_kills % 2:
            wait_for(part.exists, process)
        else:
            time.sleep(bench.chance.uniform(1, 12))
        process.kill()
        process.wait()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its children may outlive it and keep its output open
        process.communicate()
        num_kills += 1
        in_save += part.exists()
    epoch = load_checkpoint(out / "checkpoints/last.pt")["epoch"] if (out / "checkpoints/last.pt").exists() else 0
    last = max(epoch + 2, 20)
    same = bench.finish(out, epochs=last) == bench.finish(bench.folder / "kills-undisturbed", epochs=last)
    return f"{num_kills} kills, {in_save} during a save; weights {verdict(same)} after {last} epochs"


def signals(bench: Bench) -> str:
    """SIGTERM at random moments of one run."""
    out, codes, seconds = bench.folder / "signals", [], []
    for _ in range(bench.times(10)):
        process = bench.start(bench.command(out, epochs=10_000))
        wait_for(lambda: "epoch" in (out / "train.log").read_text() if (out / "train.log").exists() else False, process)
        time.sleep(bench.chance.uniform(2, 8))
        start = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.communicate()
        seconds.append(time.monotonic() - start)
        codes.append(process.returncode)
    last = load_checkpoint(out / "checkpoints/last.pt")["epoch"] + 2
    same = bench.finish(out, epochs=last) == bench.finish(bench.folder / "signals-undisturbed", epochs=last)
    codes_text = f"exit codes {sorted(set(codes))} in at most {max(seconds):.1f} s"
    return f"{len(codes)} SIGTERM, {codes_text}; weights {verdict(same)}"


def full_disk(bench: Bench) -> str:
    """A limit on the size of files, drawn for each start, as on a full disk."""
    out, clear, intact = bench.folder / "full", 0, 0
    bench.finish(out, epochs=1)
    size, number = (out / "checkpoints/last.pt").stat().st_size, bench.times(20)
    for _ in range(number):
        before = weights_of(out)
        limit = bench.chance.randrange(1000, size)
        script = (
            f"import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {resource.RLIM_INFINITY}))\n"
            "from v3s.cli import main; sys.exit(main())"
        )
        process = bench.start(bench.command(out), "-c", script)
        output, _ = process.communicate()
        clear += process.returncode == 1 and "cannot be written: File too large" in output and "Traceback" not in output
        intact += weights_of(out) == before
    same = bench.finish(out) == bench.undisturbed
    return (
        f"{clear}/{number} ended with exit code 1 and one message, {intact}/{number} kept the old checkpoint; "
        f"then weights {verdict(same)}"
    )


def starts(bench: Bench) -> str:
    """50 runs that start in one folder at the same moment, as forks of a process that has imported everything."""
    out, children = bench.folder / "starts", []
    command = bench.command(out, epochs=10_000)
    begin = time.monotonic() + 1
    for number in range(50):
        child = os.fork()
        if child == 0:
            descriptor = os.open(bench.folder / f"start-{number}.txt", os.O_WRONLY | os.O_CREAT)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            time.sleep(max(0.0, begin - time.monotonic()))
            start = time.monotonic()
            code = v3s(command)
            os.write(1, f"\n{code} {time.monotonic() - start:.3f}".encode())
            os._exit(code)
        children.append(child)
    codes: list[int] = []
    slowest = 0.0
    while len(codes) < 49:
        child, status = os.wait()
        text = (bench.folder / f"start-{children.index(child)}.txt").read_text()
        codes.append(os.waitstatus_to_exitcode(status))
        slowest = max(slowest, float(text.split()[-1]))
        children[children.index(child)] = 0
    (winner,) = filter(None, children)
    named = sum(f"in use by process {winner} on" in path.read_text() for path in bench.folder.glob("start-*.txt"))
    os.kill(winner, signal.SIGKILL)
    os.waitpid(winner, 0)
    start = time.monotonic()
    bench.finish(out, epochs=1)
    return (
        f"1 winner, {codes.count(1)} ended with exit code 1 after at most {slowest:.1f} s, {named} named the owner; "
        f"after kill -9 of the winner, the next run finished in {time.monotonic() - start:.1f} s"
    )


def free_port() -> str:
    """A port that nobody listens on."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return str(bound.getsockname()[1])


def ranks(bench: Bench) -> str:
    """Kill one of two gloo processes, without a launcher that would end the other."""
    results = []
    for victim in (0, 1):
        out, port = bench.folder / f"ranks-{victim}", free_port()
        pair = [
            bench.start(
                bench.command(out, epochs=10_000),
                RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port,
            )
            for rank in (0, 1)
        ]  # fmt: skip
        wait_for((out / "checkpoints/last.pt").exists, pair[0])
        pair[victim].kill()
        start = time.monotonic()
        text, _ = pair[1 - victim].communicate()
        pair[victim].communicate()
        named = f"no longer respond: process {victim} of 2" in text and "Traceback" not in text
        code = pair[1 - victim].returncode
        results.append(f"{victim}: {'named' if named else 'NOT NAMED'}, exit {code}, {time.monotonic() - start:.1f} s")
    return "killed process " + "; ".join(results)


def restarts(bench: Bench) -> str:
    """``torchrun --max-restarts=2`` with two crashes; each kills one of the two processes."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=2", "-m", "v3s"]

    def train(name: str, num_crashes: int) -> tuple[str, int]:
        out = bench.folder / name
        process = bench.start(bench.command(out, epochs=60), *launch)
        crashed: set[int] = set()
        for victim in range(num_crashes):
            last = out / "checkpoints/last.pt"
            children: list[int] = []
            written = last.stat().st_mtime if last.exists() else 0.0
            wait_for(lambda last=last, written=written: last.exists() and last.stat().st_mtime > written, process)  # type: ignore[misc]
            while len(children) < 2:
                if process.poll() is not None:
                    raise SystemExit(process.communicate()[0])
                children = [child for child in children_of(process.pid) if child not in crashed]
            crashed.update(children)
            os.kill(children[victim % 2], signal.SIGKILL)
            wait_for(lambda children=children: not set(children) & set(children_of(process.pid)), process)  # type: ignore[misc]
        process.communicate()
        return weights_of(out), process.returncode

    disturbed, code = train("restarts", 2)
    plain, _ = train("restarts-undisturbed", 0)
    return f"2 crashes, exit {code}; weights {verdict(disturbed == plain)}"


def children_of(parent: int) -> list[int]:
    """The child processes of a process, in the order of their start."""
    try:
        return [int(child) for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
    except OSError:
        return []


PROOFS = {proof.__name__: proof for proof in (kills, signals, full_disk, starts, ranks, restarts)}


def main() -> None:
    """Run the chosen proofs and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("proofs", nargs="*", help=f"from {', '.join(PROOFS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="a fifth of the repetitions")
    arguments = parser.parse_args()
    table = Table("proof", "test", "measured", "seconds")
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.proofs or PROOFS:
            bench = Bench(Path(folder) / name, arguments.quick, random.Random(0))
            start = time.monotonic()
            measured = PROOFS[name](bench)
            test = (PROOFS[name].__doc__ or "").split("\n")[0]
            table.add_row(name, test, measured, f"{time.monotonic() - start:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
