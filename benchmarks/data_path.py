"""Clips from videos, compared with common pipelines: ``python -m benchmarks.data_path --data DIR [--quick]``.

Tables, for the original UCF101 files (``v_*.avi``) and Kinetics-style files (``*.mp4``): finished clips per second with
two reading processes, from videos and from stores; size and quality of each store format; the warp alone, compared with
two antialiased steps in PIL; the reader compared with libavcodec alone; ``v3s prepare`` compared with decoding alone.
All pipelines use the same plans and the same files; rounds are interleaved, and medians are shown.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks import peers
from benchmarks.machine import describe_machine
from benchmarks.preparing import prepare_table
from v3s.backbones.device import keep_freed_memory
from v3s.commands.prepare import PrepareConfig, prepare
from v3s.data.clips import PretextClips
from v3s.data.lists.splits import list_videos
from v3s.data.loading import load_batches, start_worker
from v3s.data.scan import scan
from v3s.data.synthetic import make_clips
from v3s.pretext.plan import Labels, Picture, Sampling, plan_clip
from v3s.pretext.task import TASKS
from v3s.video.container import open_video
from v3s.video.decode import Video, VideoIndex, needed_packets, plan_stretches, read_frames
from v3s.video.store import PixelFormat, frame_bytes
from v3s.video.warp import warp

WORKERS = 2
TASK, SAMPLING = TASKS["v3s"], Sampling()
LONGEST = TASK.longest_span(SAMPLING.clip_frames)
FORMATS: dict[str, tuple[PixelFormat, int]] = {
    "yuv": ("yuv", 256),
    "yuv, short side 128": ("yuv", 128),
    "jpeg": ("jpeg", 256),
    "jpeg, short side 128": ("jpeg", 128),
    "rgb": ("rgb", 256),
}
PEERS: dict[str, tuple[peers.Reader, Callable[[peers.Pixels, peers.Steps], Tensor]]] = {
    "reference style, ffmpeg pipe": (peers.read_all_by_pipe, peers.cut_by_pil),
    "reference style, PyAV": (peers.read_all, peers.cut_by_pil),
    "torchvision-v2 style, PyAV": (peers.read_in_sequence, peers.cut_as_torchvision),
    "torchvision-v2 style, torchcodec": (peers.read_by_torchcodec, peers.cut_as_torchvision),
}
COMPARED = ("reference style, ffmpeg pipe", "torchvision-v2 style, torchcodec")
DEFAULT_TARGET, FASTEST_TARGET = ">= 60x, >= 7x", "fastest: >= 120x, >= 13x"

Clips = PretextClips | peers.PeerClips


@dataclass(frozen=True, slots=True)
class Style:
    """A kind of files, with its targets.

    Attributes:
        name: name in the tables.
        pattern: pattern of the file names.
        video_target: clips per second from videos, as multiples of the two pipelines that are compared.
        reader_target: time of libavcodec alone as a share of the time of the reader.
    """

    name: str
    pattern: str
    video_target: str
    reader_target: float


UCF101 = Style("UCF101 style", "v_*.avi", ">= 30x, >= 3x", 0.8)
KINETICS = Style("Kinetics style", "*.mp4", ">= 14x, >= 2x", 0.95)


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure.

    Attributes:
        num_videos: maximum number of videos of a style.
        batch_size: clips per batch.
        rounds: rounds over all pipelines.
        seconds: minimum time per pipeline and round.
        num_clips: number of clips where clips are counted.
        copies: copies of the videos that are prepared.
        workers: processes that prepare, for each measurement.
    """

    num_videos: int
    batch_size: int
    rounds: int
    seconds: float
    num_clips: int
    copies: int
    workers: tuple[int, ...]


FULL, QUICK = Effort(8, 8, 3, 6.0, 64, 20, (1, 2)), Effort(2, 4, 1, 0.8, 8, 4, (1,))


def copy_videos(folder: Path, pattern: str, into: Path, max_videos: int, copies: int = 1) -> None:
    """Copy some videos of a folder, evenly spaced, to a new folder."""
    files = sorted(folder.rglob(pattern))
    into.mkdir()
    chosen = sorted({round(place) for place in np.linspace(0, len(files) - 1, max_videos)})
    for copy in range(copies):
        for place in chosen:
            shutil.copy(files[place], into / f"{copy:02}-{place:04}-{files[place].name}")


def clips_of(folder: Path) -> PretextClips:
    """The samples of a folder or a store: sample n is from video n modulo their number."""
    found = scan(list_videos(folder, subset="all"), min_frames=LONGEST)
    return PretextClips(found.usable_table, TASK, SAMPLING, seed=0)


def make_stores(videos: Path, folder: Path) -> dict[str, PretextClips]:
    """The samples from a store in each format."""
    folder.mkdir()
    for name, (pixel_format, short_side) in FORMATS.items():
        out = str(folder / name)
        config = PrepareConfig(data=str(videos), out=out, pixel_format=pixel_format, short_side=short_side, workers=1)
        prepare(config, console=Console(quiet=True))
    return {name: clips_of(folder / name) for name in FORMATS}


def finished_clips(clips: Clips, effort: Effort) -> float:
    """Clips per second with two reading processes, over whole turns of both, after the first turn."""
    with closing(_batches(clips, effort.batch_size)) as batches:
        for _ in range(WORKERS):
            next(batches)
        start, num_batches = time.perf_counter(), 0
        while num_batches % WORKERS or time.perf_counter() - start < effort.seconds:
            next(batches)
            num_batches += 1
        return num_batches * effort.batch_size / (time.perf_counter() - start)


def _batches(clips: Clips, batch_size: int) -> Generator[object, None, None]:
    """An endless stream of batches."""
    keys = ([(0, turn * batch_size + place) for place in range(batch_size)] for turn in count())
    if isinstance(clips, PretextClips):
        yield from load_batches(clips, keys, num_workers=WORKERS)  # type: ignore[arg-type]
        return
    yield from DataLoader(clips, batch_sampler=keys, num_workers=WORKERS, worker_init_fn=start_worker)


def path_table(style: Style, clips: PretextClips, stores: dict[str, PretextClips], effort: Effort) -> Table:
    """Finished clips per second of every pipeline."""
    ways: dict[str, Clips] = {"ours, from videos": clips}
    ways |= {f"ours, store, {name}": stored for name, stored in stores.items()}
    missing = {}
    for name, (read, cut) in PEERS.items():
        if reason := peers.why_unusable(read, clips.table[0]):
            missing[name] = reason
        else:
            ways[name] = peers.PeerClips(clips, read, cut)
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(effort.rounds):
        for name, way in ways.items():
            rates[name].append(finished_clips(way, effort))
    rate = {name: statistics.median(measured) for name, measured in rates.items()}
    fastest = max((f"ours, store, {name}" for name in stores), key=rate.__getitem__)
    targets = {"ours, from videos": style.video_target, fastest: FASTEST_TARGET, "ours, store, yuv": DEFAULT_TARGET}
    title = f"{style.name}: finished clips, {WORKERS} processes, batches of {effort.batch_size}"
    columns = ("pipeline", "clips/s", "x ffmpeg pipe", "x torchcodec", "target", "limit, clips/s", "of limit")
    caption = "limit: these cores if only libavcodec, or reading the stored frames, took time"
    table = Table(*columns, title=title, caption=caption)
    for name, value in rate.items():
        ratios = (f"{value / rate[other]:.1f}x" if other in rate else "-" for other in COMPARED)
        bound = limit(own, effort) if isinstance(own := ways[name], PretextClips) else None
        of_limit = (f"{bound:.0f}", f"{value / bound:.0%}") if bound else ()
        table.add_row(name, f"{value:.1f}", *ratios, targets.get(name, ""), *of_limit)
    for name, reason in missing.items():
        table.add_row(name, "not measured", reason)
    return table


def limit(clips: PretextClips, effort: Effort) -> float:
    """Clips per second if only decoding or reading took time."""
    drawn = (clips.plan(0, number) for number in range(effort.num_clips))
    return WORKERS * effort.num_clips / sum(bare_seconds(clips.table[video], plan.frames) for video, plan in drawn)


def store_table(style: Style, clips: PretextClips, stores: dict[str, PretextClips], effort: Effort) -> Table:
    """The size and quality of a frame in each format, and the speed of clips from it on one thread."""
    raw = sum(video.num_frames * frame_bytes("rgb", video.height, video.width) for video in clips.table)
    columns = ("format", "bytes per frame", "of raw RGB", "PSNR of frames", "PSNR of clips", "clips/s, one thread")
    table = Table(*columns, title=f"{style.name}: the store; target for yuv, the default: at most 60 % of raw RGB")
    num_frames = int(clips.table.num_frames.sum())
    for name, stored in stores.items():
        videos = list(stored.table)
        num_bytes = sum(getattr(video, "num_bytes", 0) for video in videos)
        same_size = all((a.height, a.width) == (b.height, b.width) for a, b in zip(videos, clips.table, strict=True))
        frames = psnr(_frame_pairs(clips, stored)) if same_size else None
        pairs = [(clips[(0, number)][0], stored[(0, number)][0]) for number in range(effort.num_clips)]
        start = time.perf_counter()
        for number in range(effort.num_clips):
            stored[(1, number)]
        seconds = time.perf_counter() - start
        table.add_row(
            name,
            f"{num_bytes / num_frames:,.0f}",
            f"{num_bytes / raw:.1%}",
            f"{frames:.1f} dB" if frames is not None else "other size",
            f"{psnr(pairs):.1f} dB",
            f"{effort.num_clips / seconds:.0f}",
        )
    return table


def _frame_pairs(clips: PretextClips, stored: PretextClips) -> list[tuple[Tensor, Tensor]]:
    """Eight frames of each video, decoded and from a store, as RGB."""
    pairs = []
    for decoded, kept in zip(clips.table, stored.table, strict=True):
        chosen = np.linspace(0, decoded.num_frames - 1, 8).astype(int).tolist()
        pairs.append((read_frames(decoded, chosen).rgb(), read_frames(kept, chosen).rgb()))
    return pairs


def psnr(pairs: list[tuple[Tensor, Tensor]]) -> float:
    """PSNR of the mean squared error over all pairs, in dB; infinite if they are equal."""
    errors = torch.stack([(some.double() - other.double()).square().mean() for some, other in pairs])
    return float(10 * torch.log10(255**2 / errors.mean()))


def warp_table(paths: dict[Style, PretextClips], effort: Effort) -> Table:
    """One thread: our warp of decoded planes, and two steps in PIL on RGB from FFmpeg, for every spatial label."""
    columns = ("frames", "ours, ms per clip", "PIL, ms", "ratio", "PSNR, mean", "PSNR, worst", "target")
    table = Table(*columns, title=f"The warp of {SAMPLING.clip_frames} frames, {len(TASK.spatial)} spatial labels")
    for style, clips in paths.items():
        ours, theirs, quality = [], [], []
        for number in range(min(len(clips), effort.rounds)):
            for label in range(len(TASK.spatial)):
                mine, other, pair = _warp_both(clips.table[number], label)
                ours.append(mine)
                theirs.append(other)
                quality.append(psnr([pair]))
        mine, other = statistics.median(ours), statistics.median(theirs)
        numbers = (f"{1000 * mine:.2f}", f"{1000 * other:.1f}", f"{other / mine:.1f}x")
        table.add_row(style.name, *numbers, f"{np.mean(quality):.1f} dB", f"{min(quality):.1f} dB", ">= 12x, >= 38 dB")
    return table


def _warp_both(video: Video, label: int) -> tuple[float, float, tuple[Tensor, Tensor]]:
    """The seconds of our warp and of PIL, and both clips."""
    plan = plan_clip(
        TASK,
        Labels(label, 0),
        num_frames=video.num_frames,
        picture=Picture(video.width, video.height),
        sampling=SAMPLING,
        generator=np.random.default_rng(label),
    )
    frames, pixels = read_frames(video, plan.frames), peers.read_in_sequence(video, plan.frames)
    images = [Image.fromarray(frame) for frame in pixels]
    steps = peers.steps_of(plan, TASK, SAMPLING, video.height, video.width)
    start = time.perf_counter()
    clip = warp(frames, plan.to_clip, SAMPLING.clip_size, SAMPLING.clip_size, samples=plan.samples)
    middle = time.perf_counter()
    expected = [np.asarray(peers.two_steps_by_pil(image, steps)) for image in images]
    end = time.perf_counter()
    return middle - start, end - middle, (clip, torch.from_numpy(np.stack(expected)).permute(3, 0, 1, 2))


def reader_table(paths: dict[Style, PretextClips], effort: Effort) -> Table:
    """One thread: libavcodec alone on the packets that our reader decodes, and the whole reader."""
    columns = ("files", "libavcodec alone, ms per clip", "read_frames, ms", "ratio", "target")
    table = Table(*columns, title="The reader")
    for style, clips in paths.items():
        floor = whole = 0.0
        for number in range(effort.num_clips):
            video, plan = clips.plan(0, number)
            floor += bare_seconds(clips.table[video], plan.frames)
            start = time.perf_counter()
            read_frames(clips.table[video], plan.frames)
            whole += time.perf_counter() - start
        numbers = (f"{1000 * seconds / effort.num_clips:.2f}" for seconds in (floor, whole))
        table.add_row(style.name, *numbers, f"{floor / whole:.2f}", f">= {style.reader_target}")
    return table


def bare_seconds(index: Video, frames: Sequence[int]) -> float:
    """The seconds of libavcodec for the packets that these frames need; for a store, the seconds to read them."""
    if not isinstance(index, VideoIndex):
        start = time.perf_counter()
        read_frames(index, frames)
        return time.perf_counter() - start
    seconds, timed = 0.0, bool(index.timestamps)
    with open_video(index.path, index.known_format) as (container, stream):
        for run in plan_stretches(index, sorted(set(frames))):
            wanted = {index.timestamps[number] if timed else number for number in run.frames}
            arrival = count()
            for packet in needed_packets(index, container, stream, run):
                start = time.perf_counter()
                decoded = stream.decode(packet)
                seconds += time.perf_counter() - start
                wanted.difference_update(frame.pts if timed else next(arrival) for frame in decoded)
                if not wanted:
                    break
    return seconds


def describe_versions() -> str:
    """The versions of the libraries that the peers use."""
    codec = ".".join(map(str, av.library_versions["libavcodec"]))
    try:
        torchcodec = version("torchcodec")
    except PackageNotFoundError:
        torchcodec = "absent"
    return f"PyAV {av.__version__} with libavcodec {codec}, Pillow {version('pillow')}, torchcodec {torchcodec}"


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with the UCF101 files, v_*.avi; default: generate clips")
    parser.add_argument("--kinetics", type=Path, help="folder with Kinetics-style files, *.mp4; default: that folder")
    parser.add_argument("--quick", action="store_true", help="few videos, small batches, one round")
    arguments = parser.parse_args()
    effort = QUICK if arguments.quick else FULL
    torch.set_num_threads(1)
    keep_freed_memory()  # as in every process that reads or trains
    console = Console()
    console.print(f"{describe_machine()}; {describe_versions()}", highlight=False)
    with tempfile.TemporaryDirectory() as name:
        scratch, paths, copies = Path(name), {}, {}
        data = arguments.data or scratch / "generated"
        if arguments.data is None:
            make_clips(data, num_videos=effort.num_videos, num_frames=180, height=256, width=340)
        sources = {UCF101: data, KINETICS: arguments.kinetics or data}
        for number, (style, source) in enumerate(sources.items()):
            if not any(source.rglob(style.pattern)):
                console.print(f"{style.name}: not measured, no {style.pattern} in {source}", highlight=False)
                continue
            copy_videos(source, style.pattern, scratch / f"videos{number}", effort.num_videos)
            copies[style.name] = scratch / f"copies{number}"
            copy_videos(source, style.pattern, copies[style.name], effort.num_videos, effort.copies)
            paths[style] = clips_of(scratch / f"videos{number}")
            stores = make_stores(scratch / f"videos{number}", scratch / f"stores{number}")
            console.print(path_table(style, paths[style], stores, effort))
            console.print(store_table(style, paths[style], stores, effort))
        console.print(warp_table(paths, effort))
        console.print(reader_table(paths, effort))
        console.print(prepare_table(copies, scratch, effort.workers))


if __name__ == "__main__":
    main()
