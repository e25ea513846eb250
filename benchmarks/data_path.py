"""Finished clips a second, ours against the field's reference style: ``python -m benchmarks.data_path --data DIR``.

The reference style, written from its public description: decode the whole video, then warp and resize each of the 16
frames by itself in two steps, in float. Both read the same clips of the same videos in one process and one thread.
"""

import argparse
import time
from pathlib import Path

import av
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from v3s.data.clips import PretextClips
from v3s.data.scan import scan
from v3s.data.splits import list_videos
from v3s.data.synthetic import make_clips
from v3s.pretext.plan import Sampling
from v3s.pretext.task import TASKS
from v3s.video.homography import scale


def reference_clip(clips: PretextClips, epoch: int, index: int) -> Tensor:
    """The sample of a key as reference code makes it: float, shape (3, 16, 112, 112)."""
    video, plan = clips.plan(epoch, index)
    with av.open(clips.table[video].path, metadata_errors="ignore") as container:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    canvas, size = clips.sampling.canvas_size, clips.sampling.clip_size
    height, width = frames.shape[1:3]
    to_canvas = plan.to_clip @ scale(width / canvas, height / canvas)
    axis = torch.arange(size, dtype=torch.float64) + 0.5
    centres = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1).numpy()
    grid = torch.from_numpy(to_canvas.inverse()(centres) / canvas * 2 - 1).float()[None]
    made = []
    for number in plan.frames:
        image = torch.from_numpy(frames[number]).permute(2, 0, 1)[None].float()
        resized = F.interpolate(image, (canvas, canvas), mode="bilinear", antialias=True)
        made.append(F.grid_sample(resized, grid, align_corners=False, padding_mode="border")[0] / 255)
    return torch.stack(made, dim=1)


def main() -> None:
    """Time both ways over the same samples, in turn, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="a folder of videos; without it, clips are made")
    parser.add_argument("--quick", action="store_true", help="fewer samples")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = arguments.data or Path("build/benchmark-clips")
    if arguments.data is None:
        make_clips(folder, num_videos=8, num_frames=180, height=240, width=320)
    found = scan(list_videos(folder, subset="all"), min_frames=69)
    clips = PretextClips(found.usable_table, TASKS["v3s"], Sampling(), seed=0)
    seconds = {"ours": 0.0, "whole video, frame by frame": 0.0}
    num_samples = 16 if arguments.quick else 64
    for number in range(num_samples):
        start = time.perf_counter()
        clips[(number, number)]
        middle = time.perf_counter()
        reference_clip(clips, number, number)
        seconds["ours"] += middle - start
        seconds["whole video, frame by frame"] += time.perf_counter() - middle
    console = Console()
    console.print(f"{len(clips)} videos of {folder}, {num_samples} clips, one thread; PyAV {av.__version__}")
    table = Table("way", "clips/s", "ours is")
    for way, spent in seconds.items():
        table.add_row(way, f"{num_samples / spent:.1f}", f"{spent / seconds['ours']:.1f}x")
    console.print(table)


if __name__ == "__main__":
    main()
