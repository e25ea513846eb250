"""Recordings: memory and time of embedding hours of video by segments, of reading them, and clips at true time.

``python -m benchmarks.recordings [--quick] [--minutes 120]`` makes a 640x480 H.264 file of two hours (--quick: of
four minutes) and one of five minutes (one), and measures each step in a process of its own. The network is replaced by
a mean over pixels, so that times are those of reading.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import numpy as np
import torch

from v3s.data.index_table import IndexTable
from v3s.data.lists.spans import SpanOptions
from v3s.data.streams import complete_rows, load_runs
from v3s.data.views import View, read_clips
from v3s.video.decode import read_frames
from v3s.video.index import VideoIndex, index_video
from v3s.video.span import span_of

SEGMENT, VIEW = 10.0, View()
_SECONDS_ENCODED = 120


def make_recording(path: Path, seconds: float, fps: int, *, height: int = 480, width: int = 640) -> None:
    """Write a textured scene over which a window moves with time, in H.264 with a key frame every 250 frames.

    Two minutes are encoded; their packets are repeated until the file is long enough.
    """
    generator = np.random.default_rng(0)
    scene = np.full((2 * height, 2 * width), 0.0)
    for scale in (4, 16, 64):
        coarse = generator.normal(size=(2 * height // scale + 1, 2 * width // scale + 1))
        scene += np.kron(coarse, np.ones((scale, scale)))[: 2 * height, : 2 * width]
    scene = np.clip(128 + 30 * scene, 16, 235).astype(np.uint8)
    noise = generator.normal(0, 3, (8, height, width)).astype(np.int16)  # a sensor's, so that decoding costs as usual
    num_frames, encoded = round(seconds * fps), []
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "ultrafast", "crf": "23", "g": "250"}
        for number in range(min(num_frames, _SECONDS_ENCODED * fps)):
            waves = np.sin([0.7 * number / fps, 0.45 * number / fps + 1])
            left, top = int(0.499 * (1 + waves[0]) * width), int(0.499 * (1 + waves[1]) * height)
            grain = noise[round(60 * number / fps) % 8]  # the same at the same instant, whatever the rate
            picture = (scene[top : top + height, left : left + width] + grain).clip(16, 235).astype(np.uint8)
            grey = np.full((height // 2, width), 128, np.uint8)
            frame = av.VideoFrame.from_ndarray(np.concatenate([picture, grey]), format="yuv420p")
            encoded += stream.encode(frame)
        encoded += stream.encode()
        for start in range(0, num_frames, _SECONDS_ENCODED * fps):
            for packet in encoded[: num_frames - start]:
                copy = av.Packet(bytes(packet))
                copy.stream, copy.time_base, copy.is_keyframe = stream, packet.time_base, packet.is_keyframe
                shift = round(start / fps / packet.time_base)
                assert packet.pts is not None
                assert packet.dts is not None
                copy.pts, copy.dts, copy.duration = packet.pts + shift, packet.dts + shift, packet.duration
                container.mux(copy)


def _index(path: Path) -> VideoIndex:
    kept = path.with_suffix(".json")
    return VideoIndex.from_json(kept.read_text())


def step_index(path: Path, workers: int) -> dict[str, float]:
    """One pass over the file: its index."""
    index = index_video(path)
    path.with_suffix(".json").write_text(index.to_json())
    hours = index.duration_seconds / 3600
    return {"bytes an hour": len(index.to_json()) / hours}


def step_decode(path: Path, workers: int) -> dict[str, float]:
    """Decode all frames once, on one thread, and do nothing with them."""
    with av.open(str(path)) as container:
        container.streams.video[0].thread_count = 1
        container.streams.video[0].thread_type = "NONE"
        return {"frames": sum(1 for _ in container.decode(video=0))}


def step_segments(path: Path, workers: int) -> dict[str, float]:
    """Read the clips of all segments, as ``v3s embed --segment 10`` does; the network is a mean."""
    index = _index(path)
    table = IndexTable.of(SpanOptions(segment=SEGMENT).cut(index, None))
    rows = range(len(table))
    means = (
        (run, [clips[..., ::16, ::16].float().mean(dim=(1, 2, 3, 4))[:, None]])
        for run, clips in load_runs(table, VIEW, num_workers=workers, videos=rows)
    )
    return {"segments": sum(1 for _ in complete_rows(means, table, VIEW, rows))}


def step_seeks(path: Path, workers: int) -> dict[str, float]:
    """Read the clips of each segment alone: one opening and one seek each."""
    index = _index(path)
    table = IndexTable.of(SpanOptions(segment=SEGMENT).cut(index, None))
    for row in range(len(table)):
        read_clips(table, row, VIEW, VIEW.clips(int(table.num_frames[row])))
    return {"segments": len(table)}


STEPS = {"index": step_index, "decode": step_decode, "segments": step_segments, "seeks": step_seeks}


def run_step(name: str, path: Path, workers: int = 0) -> dict[str, float]:
    """Run a step in a process of its own: its result, seconds, and peak memory in MB with that of its workers."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.recordings",
        "--step",
        name,
        "--file",
        str(path),
        "--workers",
        str(workers),
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(f"  {path.stem:>8} {name:>9}: {', '.join(f'{key} {value:,.4g}' for key, value in found.items())}", flush=True)
    return found


def measure(name: str, path: Path, workers: int) -> None:
    """Do one step and print what it took."""
    torch.set_num_threads(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    began, processor = time.perf_counter(), time.process_time()
    found = STEPS[name](path, workers)
    found |= {"seconds": time.perf_counter() - began, "CPU seconds": time.process_time() - processor}
    peaks = [resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(json.dumps(found | {"MB": peaks[0], "MB above imports": peaks[0] - before, "MB of a worker": peaks[1]}))


def true_time(folder: Path) -> float:
    """The largest mean difference between clips of the same instants of one motion filmed at 15, 30 and 60 fps."""
    clips = []
    for fps in (15, 30, 60):
        make_recording(folder / f"at{fps}.mp4", 6, fps, height=240, width=320)
        span = span_of(index_video(folder / f"at{fps}.mp4"), 1, 5, rate=15)
        clips.append(read_frames(span, range(span.num_frames)).planes[0].float())
    return max(float((clip - clips[0]).abs().mean()) for clip in clips[1:])


def main() -> None:
    """Make the files, measure, and print the table of targets."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--step", choices=STEPS)
    parser.add_argument("--file", type=Path)
    parser.add_argument("--workers", type=int, default=0)
    options = parser.parse_args()
    if options.step:
        measure(options.step, options.file, options.workers)
        return
    short, long = (1.0, 4.0) if options.quick else (5.0, 120.0)
    with tempfile.TemporaryDirectory() as folder:
        files = {"short": short, "long": options.minutes or long}
        for name, minutes in files.items():
            make_recording(Path(folder) / f"{name}.mp4", 60 * minutes, 25)
        few, many = (Path(folder) / f"{name}.mp4" for name in files)
        indices = [run_step("index", path) for path in (few, many)]
        decode, seeks = run_step("decode", many), run_step("seeks", many)
        alone, pooled = ([run_step("segments", path, workers) for path in (few, many)] for workers in (0, 2))
        difference = true_time(Path(folder))
    rows = [
        (
            "peak memory, segments, short and long",
            f"{alone[0]['MB']:.0f} and {alone[1]['MB']:.0f} MB",
            "< 700 MB, within 5 %",
        ),
        (
            "the same with 2 workers, main and a worker",
            f"{pooled[1]['MB']:.0f} and {pooled[1]['MB of a worker']:.0f} MB",
            "< 700 MB",
        ),
        (
            "CPU time of segments / one decode",
            f"{alone[1]['CPU seconds'] / decode['CPU seconds']:.2f}",
            "<= 1.25 with the warp aside",
        ),
        ("CPU time of separate seeks / segments", f"{seeks['CPU seconds'] / alone[1]['CPU seconds']:.2f}", "say"),
        ("index: CPU time / one decode", f"{indices[1]['CPU seconds'] / decode['CPU seconds']:.2f}", "about 1"),
        ("index: bytes an hour", f"{indices[1]['bytes an hour']:,.0f}", "< 1 MB"),
        ("index: peak memory, short and long", f"{indices[0]['MB']:.0f} and {indices[1]['MB']:.0f} MB", "say"),
        ("15, 30, 60 fps at --fps 15: mean difference", f"{difference:.2f} of 255", "the codec's error"),
    ]
    for what, found, target in rows:
        print(f"{what:<45} {found:>20}   target: {target}")


if __name__ == "__main__":
    main()
