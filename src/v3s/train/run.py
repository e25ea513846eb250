"""The folder of a run: its configuration, environment, metrics, log and weights.

======================  ================================================================================
config.yaml             the resolved configuration, which ``--config`` accepts
manifest.json           versions, threads, seeds, hash of the file list, numbers of skipped files
metrics.jsonl           one line for each epoch
quarantine.jsonl        one line for each file that failed after the scan: the batch from which it is skipped, and why
videos.jsonl            the videos that are used, and what identifies their contents
train.log               what was printed
report.html             what the run has learned, with its curves; for a person
result.json             how right the weights that are kept are, once the run has finished, with standard errors
tensorboard/            event files, with ``--log tensorboard``
checkpoints/            last.pt, everything that ``--resume`` needs, and previous.pt, the checkpoint before it
backbone.safetensors    the weights of the epoch that is kept; config.json describes how to use them
last/                   the same files of the last epoch that a checkpoint was written after
nonfinite/              the batch that produced a NaN or an infinity, for ``v3s replay``
======================  ================================================================================
"""

import hashlib
import json
import logging
import platform
import re
import shlex
import shutil
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import av
import numpy as np
import torch
from rich.console import Console

from v3s import argv
from v3s.data.quarantine import Quarantine, failures_in
from v3s.files.lock import is_free, is_written_elsewhere
from v3s.files.reading import checked, lines_of, parse_json, read_json, read_text
from v3s.files.remote.address import without_secrets
from v3s.files.text import as_text, counted, say
from v3s.files.weights import OF_RUN, WEIGHTS
from v3s.files.writing import (
    DESCRIPTION,
    NEXT,
    PART,
    CheckpointError,
    SaveError,
    append_line,
    finish_together,
    refuse_links,
    write_atomically,
    write_json,
)
from v3s.train.checkpoint import PREVIOUS, saved_epoch
from v3s.train.contents import CONTENTS, check_contents, write_contents
from v3s.train.stop import TrainingStoppedError
from v3s.train.tensorboard import EVENTS
from v3s.video.warp import numba_version

CONFIG, MANIFEST, METRICS, _LOG = "config.yaml", "manifest.json", "metrics.jsonl", "train.log"
_QUARANTINE = "quarantine.jsonl"
REPORT, RESULT = "report.html", "result.json"
_LAST, _LAST_WEIGHTS = Path("checkpoints/last.pt"), "last"
NONFINITE = "nonfinite"
FREE_ON_RESUME = (
    *"out data workers device epochs minutes checkpoint_seconds stop_early".split(),  # noqa: SIM905
    *"log resume overwrite compile allow_missing".split(),  # noqa: SIM905
)
"""Options that may change when a run is resumed: they affect neither samples nor weights up to the checkpoint.

With the schedule cosine, the number of epochs does.
"""
_FILES = (MANIFEST, METRICS, _QUARANTINE, CONTENTS, _LOG, REPORT, RESULT, DESCRIPTION, *OF_RUN, CONFIG)
"""What ``overwrite`` deletes, in this order: config.yaml, which marks a run, goes last."""
_FOLDERS = ("checkpoints", _LAST_WEIGHTS, NONFINITE, EVENTS, NEXT)

_Config = TypeVar("_Config")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one run."""

    path: Path

    @property
    def last(self) -> Path:
        """The checkpoint from which a run resumes."""
        return self.path / _LAST

    @property
    def last_weights(self) -> Path:
        """The folder of the weights of the last epoch, whichever are kept."""
        return self.path / _LAST_WEIGHTS

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint to resume from; a kill between two renames leaves only the previous one."""
        return self.last.exists() or self.last.with_name(PREVIOUS).exists()

    def quarantine(
        self, stream: str, num_files: int, *, repeats: bool = False, report: Callable[[str], None]
    ) -> Quarantine:
        """The files that failed in a stream of batches, read from and logged to quarantine.jsonl."""
        log = self.path / _QUARANTINE
        return Quarantine(num_files=num_files, log=log, stream=stream, repeats=repeats, report=report)

    @property
    def failed_videos(self) -> dict[str, str]:
        """Path and reason of each file that failed after the scan."""
        return failures_in(self.path / _QUARANTINE)

    def add_metrics(self, line: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        append_line(self.path / METRICS, json.dumps(line))

    def keep_metrics(self, num_epochs: int) -> None:
        """Drop the lines of epochs that the resumed run will repeat."""
        path = self.path / METRICS
        lines = [line for line in read_metrics(path) if line["epoch"] <= num_epochs] if path.exists() else []
        text = "".join(json.dumps(line) + "\n" for line in lines)
        write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl, without a last line that a kill cut short."""
    lines = []
    for text in lines_of(read_text(path)):
        try:
            line = checked(dict[str, Any], parse_json(text), "the line")
            checked(int, line.get("epoch"), "epoch")
        except ValueError:
            break
        lines.append(line)
    return lines


def warn_if_training(weights: Path) -> None:
    """Warn that a run, whose folder or its folder ``last`` has weights, is still training in another process."""
    run = weights.parent if weights.name == _LAST_WEIGHTS else weights
    if not ((run / CONFIG).is_file() and is_written_elsewhere(run)):
        return
    ended = read_metrics(run / METRICS) if (run / METRICS).is_file() else []
    epochs = re.search(r"^epochs: (\d+)$", read_text(run / CONFIG), re.MULTILINE)
    done = f"{len(ended):,} of {counted(int(epochs[1]), 'epoch')} done" if epochs else "unfinished"
    text = f"{run} is still training ({done}), so its weights will change"
    warnings.warn(f"{text}, and what is made with them now will not fit later; wait until it ends", stacklevel=2)


def check_out(out: str | Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse an unsuitable output folder before any other work starts.

    Raises:
        ValueError: the folder contains a run but neither ``resume`` nor ``overwrite`` was given, both were given, it
            contains other files, which are never deleted, a link, or a finished run without the checkpoint to resume
            from.
    """
    if resume and overwrite:
        raise ValueError("--resume continues a run and --overwrite replaces it; give only one of them")
    path = Path(out)
    if path.is_dir():
        if not is_free(path):
            if not (path / CONFIG).is_file():
                raise ValueError(f"{path} is not empty and contains no run; choose another folder with --out")
            if not resume and not overwrite:
                raise ValueError(
                    f"{path} already contains a run; resume it with --resume, or replace it with --overwrite"
                )
        refuse_links(path)
        if resume and (path / RESULT).is_file() and not RunFolder(path).has_checkpoint:
            raise ValueError(
                f"{path} is finished, and {path / _LAST} is missing, so it cannot be resumed; restore that file, or "
                "train again with --overwrite, which replaces its weights"
            )


def open_run(out: str | Path, *, resume: bool, overwrite: bool) -> RunFolder:
    """Open the folder of a new or existing run, and complete or discard files that a kill left unfinished.

    The caller must hold the lock of the folder (`v3s.files.lock`).

    Raises:
        ValueError: see :func:`check_out`.
    """
    check_out(out, resume=resume, overwrite=overwrite)
    path = Path(out)
    for unfinished in (*path.glob(PART), *path.glob(f"*/{PART}")):
        unfinished.unlink()
    if overwrite:
        _clear(path)
    for folder in (path, path / _LAST_WEIGHTS):
        finish_together(folder)
    return RunFolder(path)


def take_run(
    config: Any, facts: dict[str, Any], videos: Mapping[str, str], *, free: Collection[str] = FREE_ON_RESUME
) -> RunFolder:
    """Open the folder of a run; write config.yaml and manifest.json, or check them if the run is resumed.

    Args:
        config: configuration of the run, with ``out``, ``resume`` and ``overwrite``.
        facts: entries of manifest.json in addition to the environment; a resumed run must have the same
            ``files_sha256``.
        videos: what identifies the content of each video that is used, by path; a resumed run must have the same.
        free: names of the options that may change when the run is resumed.

    Raises:
        ValueError: see `open_run`; or the run was started with other options or other videos.
    """
    run = open_run(config.out, resume=config.resume, overwrite=config.overwrite)
    resumes = config.resume and (run.path / MANIFEST).is_file()
    if resumes:
        _check_resumable(run.path, config_of_run(type(config), run.path), config, free=free)
        manifest = read_json(run.path / MANIFEST)
        if manifest.get("files_sha256") != facts["files_sha256"]:
            raise ValueError(
                f"{run.path} cannot be resumed: the list of videos or their labels have changed since the run started "
                f"({_num_videos(manifest)} videos then, {_num_videos(facts)} now); restore the list, or start a new "
                "run with another --out"
            )
        check_contents(run.path, videos)
    _write_config(run, config)  # also for a resumed run, which may have more epochs now
    if not resumes:
        write_manifest(run, facts)
        write_contents(run.path, videos)
    return run


def shared_options(config: Any) -> dict[str, str]:
    """The options that all processes of a run must share."""
    own = ("data", "workers", "device")
    return {f"--{name.replace('_', '-')}": repr(value) for name, value in vars(config).items() if name not in own}


def _check_resumable(run: Path, before: Any, now: Any, *, free: Collection[str] = FREE_ON_RESUME) -> None:
    """Refuse to resume a run with different options.

    Args:
        run: folder of the run.
        before: the configuration that the run was started with.
        now: the current configuration, of the same type.
        free: names of the options that may differ.

    Raises:
        ValueError: other options differ; the message shows their old and new values.
    """
    old, new = asdict(before), asdict(now)
    if new.get("schedule") == old.get("schedule") == "cosine" and old["epochs"] != new["epochs"]:
        raise ValueError(
            f"{run} cannot be resumed with other epochs ({old['epochs']} before, {new['epochs']} now): the schedule "
            "cosine depends on them; omit --epochs, or start a new run with another --out"
        )
    finished = len(read_metrics(run / METRICS)) if (run / METRICS).is_file() else 0
    if new["epochs"] < finished:
        raise ValueError(
            f"{run} has {finished:,} finished epochs, so it cannot be resumed with epochs {new['epochs']}; omit "
            "--epochs or give more, or start a new run with another --out"
        )
    changed = [name for name in old if name not in free and old[name] != new[name]]
    if changed:
        listed = "; ".join(f"{name} was {old[name]!r}, now {new[name]!r}" for name in changed)
        raise ValueError(
            f"{run} cannot be resumed with other options: {listed}; give the same values, or start a new run with "
            "another --out"
        )


def _write_config(run: RunFolder, config: Any) -> None:
    """Write config.yaml, without ``resume`` and ``overwrite``, which must be given each time."""
    text = argv.to_yaml(config, without=("resume", "overwrite"))
    write_atomically(run.path / CONFIG, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def config_of_run(kind: type[_Config], run: Path) -> _Config:
    """The configuration of a run's folder."""
    return argv.from_yaml(kind, read_text(run / CONFIG), str(run / CONFIG))


def _num_videos(manifest: dict[str, Any]) -> str:
    videos = manifest.get("videos")
    listed = videos.get("listed") if isinstance(videos, dict) else None
    return f"{listed:,}" if isinstance(listed, int) else "an unknown number of"


def _clear(path: Path) -> None:
    for folder in _FOLDERS:
        shutil.rmtree(path / folder, ignore_errors=True)
    for name in _FILES:
        (path / name).unlink(missing_ok=True)


class _LogFile(logging.FileHandler):
    """A log file that ends the run on a full disk, as any other file does, instead of printing tracebacks."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            raise SaveError(f"{self.baseFilename} cannot be written: {error.strerror}") from error
        raise


@contextmanager
def open_log(run: RunFolder | None) -> Iterator[logging.Logger]:
    """A logger that appends to train.log for the duration of the context; without a run folder it writes nothing."""
    logger = logging.Logger("v3s.run")
    handler = logging.NullHandler() if run is None else _LogFile(run.path / _LOG, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.addHandler(handler)
    try:
        yield logger
    except BaseException as error:  # a NaN, a signal, a full disk: what a user would look for here
        with suppress(OSError):
            logger.info(as_text(f"ended by {type(error).__name__}: {error}"))
        raise
    finally:
        with suppress(OSError):  # on a full disk: the error is on its way
            handler.close()


def reporter(log: logging.Logger, console: Console) -> Callable[[str], None]:
    """Return a function that prints a message on the console and also logs it."""

    def report(text: str) -> None:
        log.info(as_text(text))
        say(console, text)

    return report


@contextmanager
def says_how_to_resume(verb: str, out: str, console: Console) -> Iterator[None]:
    """A context in which a run that cannot write, or is stopped, also twice, says how it resumes and what is usable."""
    resume = f"resume with: v3s {verb} --out {shlex.quote(out)} --resume"
    try:
        yield
    except (TrainingStoppedError, KeyboardInterrupt, SystemExit) as stopped:
        if (Path(out) / CONFIG).is_file():  # else nothing has begun that can be resumed
            where = f"{stopped}; " if isinstance(stopped, TrainingStoppedError) else ""
            say(console, f"{where}{_usable_weights(Path(out))}; {resume}")
        raise
    except SaveError as error:
        if not (Path(out) / CONFIG).is_file():
            raise
        raise SaveError(f"{error}; when that is mended, {resume}") from error


def _usable_weights(run: Path) -> str:
    if not (run / DESCRIPTION).exists():
        return "no epoch has ended, so there are no weights to use yet"
    try:
        return f"{run / WEIGHTS} has the weights of epoch {saved_epoch(run):,}, which can be used as they are"
    except CheckpointError as error:
        return f"its weights cannot be used: {error}"


def hash_of_files(paths: Iterable[str]) -> str:
    """SHA-256 of a list of paths, in order: two runs with the same hash used the same list."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()


def write_manifest(run: RunFolder, facts: dict[str, Any]) -> None:
    """Write manifest.json: the environment and the facts about this run."""
    environment = {
        "v3s": version("v3s"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "numba": numba_version(),
        "av": av.__version__,
        "ffmpeg": {name: ".".join(map(str, numbers)) for name, numbers in av.library_versions.items()},
        "machine": platform.platform(),
        "cpu": torch.cpu.get_capabilities().get("cpu_name"),
        "gpus": [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())],
        "threads": torch.get_num_threads(),
        "command": list(map(without_secrets, sys.argv)),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_json(run.path / MANIFEST, {**environment, **facts})
