"""``--recipe own``: settings for videos of one's own, chosen from what they are and from the machine.

It builds on the recipe v3s-contrast. Each choice is printed with its reason; an option that is given stays as it is.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console

from v3s.backbones import create_backbone
from v3s.backbones.device import Compute, choose_compute, divide_cores
from v3s.commands.pretrain import PretrainConfig
from v3s.commands.pretrain_result import CLIPS_TO_LEAVE_CHANCE
from v3s.data.clips import PretextClips
from v3s.data.groups import PAPER_SHARE
from v3s.data.index_table import IndexTable
from v3s.data.lists.splits import VideoOptions
from v3s.data.scan import Scan
from v3s.data.usable import is_mostly_bad, scan_with_bar, usable_videos
from v3s.features.saved import refuse_other_kind
from v3s.files.text import counted, print_table, say, text_table, verb
from v3s.files.times import duration_text, time_text
from v3s.pretext.model import PretextModel
from v3s.pretext.task import get_task
from v3s.train.distributed import Processes, launched_processes
from v3s.train.finite import FiniteGuard
from v3s.train.loop import train_step
from v3s.train.optimizer import sgd
from v3s.train.run import check_out
from v3s.video.store import StoredVideo

_CLIPS = 200_000  # of a training without a time limit
_RECORDING_SECONDS = 60.0  # videos are cut into segments if half of the time is in such long ones
_SEGMENT_SECONDS, _FEWEST_SEGMENTS = 4.0, 500
_LITTLE_SECONDS = 600.0  # of video in all, below which docs/hours.md advises against training
_SHARE_USABLE = 0.95  # of the videos, which a setting must be able to use
_FEWEST_VALIDATION = 20
_MOST_VALIDATION_SHARE = 0.2
_VALIDATION_CLIPS = 400
_SECONDS_MEASURED, _CLIPS_READ = 2.0, 64
_FASTER = 1.1  # in fp32 than in bf16: a smaller difference may be noise


class Choice(NamedTuple):
    """The value of an option, why, and a warning about it, if there is one."""

    option: str
    value: Any
    reason: str
    warning: str = ""


def own_options(
    base: Mapping[str, Any],
    given: Mapping[str, Any],
    *,
    minutes: float | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Choose the options of a pre-training for some videos and this machine.

    Args:
        base: the recipe that it builds on, v3s-contrast.
        given: options of `PretrainConfig` that were chosen; "data" among them. They are not changed.
        minutes: how long the training may take; without it, it sees 200,000 clips.
        console: where to print the choices; the terminal by default.

    Returns:
        Options of `PretrainConfig`, without those that were given.

    Raises:
        ValueError: no videos can be used, several processes were started, or "out" is given and contains a run, see
            `check_out` and `refuse_other_kind`.
    """
    if launched_processes().count > 1:
        raise ValueError(
            "--recipe own measures one process: run it once without torchrun, and give the options that it prints"
        )
    if "out" in given:
        refuse_other_kind(Path(given["out"]), "pretrained")
        check_out(given["out"], resume=given.get("resume", False), overwrite=given.get("overwrite", False))
    console = console or Console()
    chosen: dict[str, Any] = {**base, "minutes": minutes}
    reasons: list[Choice] = []

    def choose(choices: Iterator[Choice]) -> None:
        for choice in choices:
            if choice.option not in given:
                reasons.append(choice)
                chosen[choice.option] = choice.value

    compute = choose_compute(given.get("device", "auto"), given.get("precision", "auto"))
    scan = _scan(given, {}, console)
    seconds = _seconds_of(scan)
    choose(_segments(scan))
    if "segment" in chosen:
        scan = _scan(given, chosen, console)
    choose(_network(compute))
    config = PretrainConfig(**{"out": "", **chosen, **given})
    choose(_clips(scan.table.num_frames, compute, config, given))
    config = PretrainConfig(**{"out": "", **chosen, **given})
    scan = _usable(scan, config)
    choose(_validation(scan.num_usable, given.get("validation_videos")))
    config = PretrainConfig(**{"out": "", **chosen, **given})
    choose(_speed_and_budget(scan, config, compute, given, minutes))
    rows = [(f"--{each.option.replace('_', '-')}", _text(each.value), each.reason) for each in reasons]
    print_table(console, text_table("The recipe own", ("option", "value", "why"), rows, num_names=3), is_prose=True)
    kept = "" if "keep" in given else ", so the last epoch is kept (--keep last)"
    say(console, f"everything else as in the recipe v3s-contrast{kept}; any option that you give overrides these")
    say(console, *(each.warning for each in reasons if each.warning))
    if seconds < _LITTLE_SECONDS:
        say(
            console,
            f"{duration_text(seconds)} is not much video, so the heads may need more clips. "
            "On one recording of 8 minutes, the spatial head (5.6 % by chance) came to 7.8 % after 79,872 clips "
            "and 18.5 % after 199,680. v3s compare shows whether hf:NAME, a foundation model, or "
            "converted weights do better",
        )
    return {name: value for name, value in chosen.items() if name not in given}


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _scan(given: Mapping[str, Any], chosen: Mapping[str, Any], console: Console) -> Scan:
    """Read every video, however short; the training says what it found, unless nothing comes of it."""
    names = {field.name for field in fields(VideoOptions)}
    options = {name: value for name, value in {**chosen, **given}.items() if name in names}
    listed = VideoOptions(**options).list_videos()
    found = scan_with_bar(listed, min_frames=1, workers=given.get("workers"), console=console)
    if found.num_usable and not is_mostly_bad(found):
        return found
    return usable_videos(  # which says why it refuses them
        listed, min_frames=1, console=console, workers=given.get("workers")
    )


def _seconds_of(scan: Scan) -> float:
    """Total length of all readable videos, in seconds; time covered by several segments counts once."""
    total, ends = 0.0, dict[str, float]()
    for report in sorted(scan.reports, key=lambda report: report.start_seconds):
        if not report.is_bad:
            end = report.start_seconds + report.seconds
            total += max(0.0, end - max(report.start_seconds, ends.get(report.path, 0.0)))
            ends[report.path] = max(end, ends.get(report.path, 0.0))
    return total


def _segments(scan: Scan) -> Iterator[Choice]:
    """Cut recordings, unless they are cut already."""
    seconds = [report.seconds for report in scan.reports if not report.is_bad]
    if scan.videos.bounds or (usual := _half_of_time(seconds)) < _RECORDING_SECONDS:
        return
    length = _SEGMENT_SECONDS
    yield Choice("segment", length, f"half of the time is in videos of {time_text(usual)} or more: many clips of each")
    number = sum(seconds) / length
    if number < _FEWEST_SEGMENTS:
        stride = max(length / 8, round(length * number / _FEWEST_SEGMENTS, 1))
        yield Choice("segment_stride", stride, f"{number:.0f} segments without overlap are few; these are more")


def _half_of_time(seconds: list[float]) -> float:
    """The length for which videos of this length or more have half of the time."""
    lengths = np.sort(seconds)[::-1]
    return float(lengths[np.searchsorted(np.cumsum(lengths), lengths.sum() / 2)])


def _network(compute: Compute) -> Iterator[Choice]:
    if compute.device.type == "cpu":
        yield Choice("width", 0.25, "a CPU: at full width a training takes days")
        yield Choice("clip_size", 56, "a CPU: a quarter of the work of 112")
    yield Choice("batch_size", 32, "16 videos, two clips of each")
    yield Choice("learning_rate", 0.01, "that of the trainings in docs/results.md")


def _clips(
    num_frames: np.ndarray, compute: Compute, config: PretrainConfig, given: Mapping[str, Any]
) -> Iterator[Choice]:
    """The longest clips, and the widest task, that nearly all videos are long enough for; what is given stays."""
    sampling = config.sampling()
    on_device = (8,) if compute.device.type == "cpu" else (16, 8)
    lengths = (sampling.clip_frames,) if "clip_frames" in given else on_device
    tasks = (config.task,) if "task" in given else ("v3s", "v3s-short")
    settings = [(frames, task) for frames in lengths for task in tasks]
    needs = [get_task(task).longest_span(frames, sampling.seam) for frames, task in settings]
    shares = [float((num_frames >= need).mean()) for need in needs]
    best = next((place for place, share in enumerate(shares) if share >= _SHARE_USABLE), len(settings) - 1)
    (frames, task), need, share = settings[best], needs[best], shares[best]
    device = "; 16 take twice as long on a CPU" if compute.device.type == "cpu" else ""
    yield Choice("clip_frames", frames, f"{share:.0%} of the videos have the {need} frames that this needs{device}")
    yield Choice("task", task, "the paper's labels" if task == "v3s" else "labels that short videos can show")
    if share < _SHARE_USABLE:
        shortest = get_task(task).shortest_span(frames, sampling.seam)
        yield Choice("short", "fit", f"the others, of {shortest} frames or more, show what they can")


def _usable(scan: Scan, config: PretrainConfig) -> Scan:
    """The scan, with the length that the training needs."""
    sampling, task = config.sampling(), get_task(config.task)
    span = task.longest_span if sampling.short == "leave-out" else task.shortest_span
    need = span(sampling.clip_frames, sampling.seam)
    found = replace(scan, min_frames=need)
    if found.num_usable < 2:
        raise ValueError(
            f"{counted(found.num_usable, scan.videos.noun)} of {len(scan.table):,} that can be read "
            f"{verb(found.num_usable, 'have')} the {need} frames that --task {config.task} needs with --clip-frames "
            f"{sampling.clip_frames}; 2 are needed"
        )
    return found


def _validation(num_videos: int, given: int | None) -> Iterator[Choice]:
    wanted = max(_FEWEST_VALIDATION, round(PAPER_SHARE * num_videos))
    number = given or max(1, min(wanted, int(_MOST_VALIDATION_SHARE * num_videos)))
    yield Choice("validation_videos", number, f"of {num_videos:,}; enough to see whether a head is above chance")
    per_video = min(ceil(_VALIDATION_CLIPS / number), max(1, (num_videos - number) // (2 * number)))
    yield Choice("validation_clips", per_video, "of each, so that validation takes a quarter of the time at most")


def _speed_and_budget(
    scan: Scan, config: PretrainConfig, compute: Compute, given: Mapping[str, Any], minutes: float | None
) -> Iterator[Choice]:
    """The precision, if this CPU is faster in fp32 than in bf16, and the epochs, from the speed of this machine."""
    table = scan.usable_table
    in_reading, workers, batch = _reading(table, config, compute)
    in_training = _training(batch, config, compute)
    if compute.bf16 and compute.device.type == "cpu" and "precision" not in given:
        in_fp32 = _training(batch, config, replace(compute, bf16=False))
        if in_fp32 > _FASTER * in_training:
            yield Choice("precision", "fp32", f"{in_fp32:,.0f} clips/s in training here, {in_training:,.0f} in bf16")
            in_training = in_fp32
    speed = min(in_training, in_reading)
    train, held = map(len, config.divide(scan))
    per_epoch = config.order(train, num_epochs=1, seed=config.seed).clips_per_epoch
    cost = 1 + held * config.validation_clips / per_epoch / 3  # a pass without gradients takes a third
    clips = _CLIPS if minutes is None else 60 * minutes * speed / cost
    epochs = max(1, int(clips / per_epoch))
    seconds = epochs * per_epoch * cost / speed
    limit = "reading the videos" if in_reading < in_training else "the network"
    why = (
        f"{epochs * per_epoch:,} clips, about {_duration(seconds)}: {speed:,.0f} clips/s here, limited by {limit} "
        f"({in_training:,.0f} clips/s in training, {in_reading:,.0f} read by {counted(workers, 'process')})"
    )
    warning = ""
    if epochs * per_epoch < CLIPS_TO_LEAVE_CHANCE:
        needed = CLIPS_TO_LEAVE_CHANCE * cost / speed / 60
        warning = (
            f"too few clips: some {CLIPS_TO_LEAVE_CHANCE:,} are needed to rise above chance; give --minutes "
            f"{ceil(needed)}"
        )
    if in_reading < 0.8 * in_training and not isinstance(table.source(0), StoredVideo):
        why += "; a store of v3s prepare is read faster"
    yield Choice("epochs", epochs, why, warning)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def _reading(
    table: IndexTable, config: PretrainConfig, compute: Compute
) -> tuple[float, int, tuple[torch.Tensor, torch.Tensor]]:
    """Clips per second of reading, the processes that read, and a batch."""
    stored = isinstance(table.source(0), StoredVideo)
    workers = max(1, divide_cores(config.workers, compute.device, training=True, stored=stored))
    sampling, task = replace(config.sampling(), trim_bars=False), get_task(config.task)
    clips = PretextClips(table, task, sampling, seed=config.seed, together=config.clips_together)
    numbers = np.linspace(0, len(table) - 1, _CLIPS_READ).astype(int).tolist()
    read = [clips[0, numbers[0]]]  # the first one loads what reads and warps
    began = time.perf_counter()
    while len(read) <= len(numbers) // 4 or (
        len(read) < len(numbers) and time.perf_counter() - began < _SECONDS_MEASURED
    ):
        read.append(clips[0, numbers[len(read)]])
    per_process = (len(read) - 1) / (time.perf_counter() - began)
    pixels = torch.stack([clip for clip, _ in read])
    targets = torch.stack([target for _, target in read])
    repeats = -(-config.batch_size // len(read))
    batch = pixels.repeat(repeats, 1, 1, 1, 1)[: config.batch_size], targets.repeat(repeats, 1)[: config.batch_size]
    return per_process * workers, workers, batch


def _training(batch: tuple[torch.Tensor, torch.Tensor], config: PretrainConfig, compute: Compute) -> float:
    """Clips per second of training steps."""
    network = create_backbone(config.backbone, config.width, seed=config.seed)
    model = compute.network(PretextModel(network, get_task(config.task), projects=config.contrast > 0)).train()
    optimizer, guard = sgd(model, config.initial_rate, config), FiniteGuard(Processes(), compute.device)
    number, began = -1, 0.0
    while number < 1 or time.perf_counter() - began < _SECONDS_MEASURED:
        train_step(model, batch, config.objective(), optimizer, compute, guard)
        if compute.device.type == "cuda":
            torch.cuda.synchronize()
        number += 1
        if number == 0:  # the first step allocates memory
            began = time.perf_counter()
    return number * config.batch_size / (time.perf_counter() - began)
