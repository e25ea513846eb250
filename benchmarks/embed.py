"""Vectors of videos, compared with a plain loop: ``python -m benchmarks.embed [--quick] [--data DIR]``.

The plain loop, in its usual form: read a video, then run one forward pass per clip in contiguous float32, and average
over the clips. Both use the same network, clips and reader, and all cores. The time to scan the videos is not included.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.machine import describe_machine
from v3s.backbones import create_backbone
from v3s.backbones.device import divide_cores
from v3s.data.index_table import IndexTable
from v3s.data.lists.splits import list_videos
from v3s.data.scan import scan
from v3s.data.synthetic import make_clips
from v3s.data.views import View, read_clips
from v3s.features.encoder import load_encoder

TARGET = 3.0
NUM_VIDEOS, NUM_CLIPS, ROUNDS = 8, 10, 2
GENERATED = Path("build/benchmark-clips")


@torch.inference_mode()
def plain_loop(network: nn.Module, table: IndexTable, view: View) -> Iterator[Tensor]:
    """One unit vector for each video, clip by clip."""
    for video in range(len(table)):
        clips = read_clips(table, video, view, view.clips(int(table.num_frames[video])))
        features = [network(clip[None].float() / 255) for clip in clips]
        yield F.normalize(torch.cat(features).mean(dim=0, keepdim=True), dim=1)


def main() -> None:
    """Time both in turn, check that their vectors agree, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="a folder of videos; default: generate clips")
    parser.add_argument("--backbone", default="r2plus1d")
    parser.add_argument("--quick", action="store_true", help="a quarter of the width, fewer videos")
    arguments = parser.parse_args()
    name = f"{arguments.backbone}{'@0.25' if arguments.quick else ''}"
    if arguments.data is None:
        make_clips(GENERATED, num_videos=NUM_VIDEOS, num_frames=180, height=240, width=320)
    listed = scan(list_videos(arguments.data or GENERATED, subset="all"), min_frames=1)
    count = NUM_VIDEOS // 2 if arguments.quick else NUM_VIDEOS
    table = listed.table.subset(torch.linspace(0, len(listed.table) - 1, count).long().tolist())
    torch_threads = torch.get_num_threads()
    network = create_backbone(arguments.backbone, 0.25 if arguments.quick else 1.0).eval()
    encoder = load_encoder(f"random:{name}", device="cpu", num_clips=NUM_CLIPS)
    seconds = {"ours": 0.0, "plain": 0.0}
    for _ in range(ROUNDS):
        torch.set_num_threads(torch_threads)
        start = time.perf_counter()
        plain = torch.cat(list(plain_loop(network, table, encoder.space.view)))
        seconds["plain"] += time.perf_counter() - start
        num_workers = divide_cores(None, encoder.compute.device)
        encoder = replace(encoder, num_workers=num_workers)
        start = time.perf_counter()
        ours = torch.cat([vectors for _, vectors in encoder.encode_table(table)])
        seconds["ours"] += time.perf_counter() - start
    console = Console()
    console.print(
        f"{describe_machine()}; {name}, {encoder.space.view.clip_frames} x {encoder.space.view.clip_size} x "
        f"{encoder.space.view.clip_size}, {NUM_CLIPS} clips of each of {count} videos of {arguments.data or GENERATED}",
        highlight=False,
    )
    shown = Table("method", "videos/s", "ours is", "target")
    rows = {"ours": f"ours ({encoder.compute}, {num_workers} readers)", "plain": "plain loop, float32, clip by clip"}
    for way, text in rows.items():
        ratio = f"{seconds[way] / seconds['ours']:.2f}x"
        shown.add_row(text, f"{ROUNDS * count / seconds[way]:.2f}", ratio, f">= {TARGET:g}x" if way == "plain" else "")
    console.print(shown)
    lowest = float(F.cosine_similarity(plain, ours).min())
    console.print(f"lowest cosine similarity between the vectors of both: {lowest:.5f}", highlight=False)


if __name__ == "__main__":
    main()
