"""Many machines: the parts of a job, computed by the actors of Ray Data.

Through Ray go the numbers of parts, and how many files each had. Paths are read from and rows are written to the job's
folder by the actors, so neither pixels nor vectors are in the object store, and what is kept does not depend on Ray.
"""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from v3s.features.encoder import Encoder
from v3s.files.parquet import import_pyarrow
from v3s.files.text import counted, progress_bar, say, verb
from v3s.options import CheckedOptions, import_extra, require_positive
from v3s.scale.job import ATTEMPTS, Job, missing_parts, part_path, part_videos, read_job, write_part
from v3s.scale.segments import segments

MOST_ATTEMPTS = 4
"""So often a part is begun, if the actors that compute it die; then the job ends, and names its files."""


@dataclass(frozen=True, kw_only=True)
class EngineOptions(CheckedOptions):
    """One machine, or many.

    More options:
        engine: ray computes on the cluster that this machine belongs to, or on this machine if there is none. All
            machines must see DATA and OUT under the same paths. Default: none, this process computes.
        actors: Number of processes that compute under --engine, each with its own network. Default: as many as fit.
        actor_cores: Number of cores of each actor.
    """

    engine: Literal["ray"] | None = None
    actors: int | None = None
    actor_cores: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "actors", "actor_cores")
        if self.engine is None and (self.actors is not None or self.actor_cores != 1):
            raise ValueError("--actors and --actor-cores need --engine ray")


class _Actor:
    """A process of the engine: one network, and parts one after the other."""

    def __init__(self, folder: str, open_encoder: Callable[[], Encoder] | None, per_clip: bool, verify: bool) -> None:
        self.folder, self.per_clip, self.verify = Path(folder), per_clip, verify
        self.job = read_job(self.folder)
        self.encoder = open_encoder() if open_encoder else None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        (part,) = batch["part"].tolist()
        videos = part_videos(self.folder, self.job, part)
        if not part_path(self.folder, part).exists():  # an actor that died may have written it
            _count_attempt(self.folder, part, videos.paths)
            rows = segments(videos, self.encoder, per_clip=self.per_clip, workers=1, verify=self.verify)
            if read_job(self.folder) != self.job:  # it outlives its killed driver by a few seconds
                raise ValueError(f"{self.folder} contains the rows of another job now")
            write_part(self.folder, part, rows)
            (self.folder / f"{ATTEMPTS}{part:05d}").unlink(missing_ok=True)
        return {"files": [len(set(videos.paths))]}


def _count_attempt(folder: Path, part: int, paths: Sequence[str]) -> None:
    """Note that an actor begins a part.

    Raises:
        ValueError: too many actors have died of it.
    """
    attempts = folder / f"{ATTEMPTS}{part:05d}"
    with attempts.open("ab") as file:
        file.write(b".")
    if attempts.stat().st_size > MOST_ATTEMPTS:
        raise ValueError(
            f"{MOST_ATTEMPTS} actors died of the {counted(len(set(paths)), 'file')} from {paths[0]} to {paths[-1]}: "
            "give them more memory (fewer --actors), or remove the file from the list; the same command then resumes"
        )


def run_job(
    folder: Path,
    job: Job,
    options: EngineOptions,
    open_encoder: Callable[[], Encoder] | None,
    console: Console,
    *,
    per_clip: bool = False,
    verify: bool = False,
    gpu: bool = False,
) -> None:
    """Compute the missing parts of a job.

    Args:
        folder: the job's folder.
        job: its description.
        options: how many actors, of how many cores.
        open_encoder: opens the network in an actor; None only reads the files.
        console: where to report.
        per_clip: one vector per clip.
        verify: compare the frames in a store with their checksums.
        gpu: give each actor a GPU.

    Raises:
        ValueError: Ray is not installed, there is no room for an actor, or a part cannot be computed.
    """
    import_pyarrow()
    missing = missing_parts(folder, job)
    done = job.num_parts - len(missing)
    if done:
        say(console, f"{done:,} of {counted(job.num_parts, 'part')} {verb(done, 'are')} already there")
    if not missing:
        return
    ray, data = _start_ray()
    actors = options.actors or _room(ray.cluster_resources(), options.actor_cores, gpu)
    say(
        console,
        f"ray: {counted(job.num_files, 'file')} in {counted(job.num_parts, 'part')}; {counted(actors, 'actor')}",
    )
    items = data.from_items([{"part": part} for part in missing], override_num_blocks=len(missing))
    results = items.map_batches(
        _Actor,
        fn_constructor_args=(str(folder.resolve()), open_encoder, per_clip, verify),
        batch_size=1,
        compute=data.ActorPoolStrategy(size=min(actors, len(missing))),
        num_cpus=options.actor_cores,
        num_gpus=1 if gpu else None,
    )
    first = job.num_files - sum(job.files_in(part) for part in missing)
    with progress_bar(console) as progress:
        task = progress.add_task("files", total=job.num_files, completed=first)
        for row in _rows(results, ray):
            progress.advance(task, row["files"])


def _rows(results: Any, ray: Any) -> Iterator[dict[str, Any]]:
    """Yield the results as they come; an error of an actor becomes one of this process.

    Raises:
        ValueError: a part cannot be computed.
    """
    try:
        yield from results.iter_rows()
    except ray.exceptions.RayTaskError as error:
        cause = error.cause if isinstance(error.cause, Exception) else error
        raise ValueError(f"ray: {str(cause).strip().splitlines()[-1]}") from error


def _start_ray() -> tuple[Any, Any]:
    """Connect to the cluster of this machine, or start Ray on this machine; it ends with this process."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what matters comes as an exception
    ray, data = import_extra("ray", "ray", "--engine ray"), import_extra("ray.data", "ray", "--engine ray")
    if not ray.is_initialized():
        ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    data.DataContext.get_current().enable_progress_bars = False
    return ray, data


def _room(resources: dict[str, float], cores: int, gpu: bool) -> int:
    """How many actors a cluster has room for."""
    room = int(resources.get("CPU", 0)) // cores
    room = min(room, int(resources.get("GPU", 0))) if gpu else room
    if room < 1:
        raise ValueError(
            f"ray: no room for an actor of {counted(cores, 'core')}{' and a GPU' if gpu else ''} in {resources}"
        )
    return room
