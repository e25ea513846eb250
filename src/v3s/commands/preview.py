"""``v3s preview``: your own videos under each transform, with labels (the paper's Figure 2).

Every clip is planned, read and warped as in training.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from v3s.data.letterbox import picture_of
from v3s.data.lists.splits import VideoOptions
from v3s.data.usable import usable_videos
from v3s.options import require_files, require_not_negative, require_positive, require_seed
from v3s.pages.images import Pixels, data_uri, jpeg_uri, mp4, outline, tile
from v3s.pages.templates import render, write_page
from v3s.pretext.cut import cut_clip
from v3s.pretext.plan import (
    ClipOptions,
    ClipPlan,
    Labels,
    Sampling,
    plan_clip,
    sample_generator,
)
from v3s.pretext.spatial import SpatialProjection, SpatialScale
from v3s.pretext.task import SAME_SIZE, SAME_SPEED, PretextTask, get_task
from v3s.pretext.temporal import TemporalProjection, TemporalScale, span
from v3s.video.decode import Video, read_frames
from v3s.video.homography import FloatArray, corners
from v3s.video.warp import to_width, warp

_PICTURE_WIDTH = 320  # of the source frames on the page, in pixels
_STILLS_IN_A_ROW = 8
_MAX_SKIPPED_SHOWN = 50

_FAMILIES: dict[str, type] = {
    "spatial scale S_S": SpatialScale,
    "spatial projection S_P": SpatialProjection,
    "temporal scale T_S": TemporalScale,
    "temporal projection T_P": TemporalProjection,
}


@dataclass(frozen=True, kw_only=True)
class PreviewConfig(ClipOptions, VideoOptions):
    """Show clips of your videos under each of the four transforms, with their labels (the paper's Figure 2).

    Attributes:
        out: The HTML page to write.
        task: The pretext task, as for v3s pretrain.
        num_videos: Number of videos to show, evenly spaced in the list.

    More options:
        workers: Processes that read videos. Default: one per core.
        seed: Seed for drawing the clips.
    """

    out: str = "preview.html"
    task: str = "v3s"
    num_videos: int = 3
    workers: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "num_videos")
        require_not_negative(self, "workers")
        self.check_clips()
        require_files(self, out=".html")
        require_seed(self)


@dataclass(frozen=True, slots=True)
class Example:
    """One clip of a video, with everything that a reader needs to check its label.

    Attributes:
        kind: the name of the transform.
        label: its labels as text: rows of the task's tables.
        plan: the frames and the map.
        clip: uint8, shape (T, size, size, 3).
        picture: uint8, shape (H, W, 3): the first source frame of the clip, with an outline of what the clip shows.
    """

    kind: str
    label: str
    plan: ClipPlan
    clip: Pixels
    picture: Pixels


def preview(config: PreviewConfig, *, console: Console | None = None) -> Path:
    """Write a page with a few videos, each unchanged and under every kind of transform, from the same start.

    Args:
        config: the videos, and how clips are cut.
        console: where to print; the terminal by default.

    Returns:
        The page.

    Raises:
        ValueError: the videos cannot be listed, or none of them is usable.
    """
    console = console or Console()
    task = get_task(config.task)
    sampling = config.sampling()
    listed = config.list_videos()
    shortest = task.shortest_span(sampling.clip_frames, sampling.seam)
    scanned = usable_videos(listed, min_frames=shortest, console=console, workers=config.workers)
    shown = []
    for number in _evenly_spaced(scanned.num_usable, config.num_videos):
        video = scanned.usable_table[number]
        examples = show_examples(video, cut_examples(video, task, sampling, seed=config.seed, number=number))
        shown.append((scanned.videos.names[scanned.usable[number]], video, examples, _missing(video, task, sampling)))
    html = render(
        "preview.html",
        source=listed.source,
        sampling=sampling,
        seed=config.seed,
        shown=shown,
        skipped=list(scanned.skipped.items()),
        most_skipped=_MAX_SKIPPED_SHOWN,
        num_videos=len(scanned.reports),
    )
    write_page(config.out, html)
    return Path(config.out)


def cut_examples(video: Video, task: PretextTask, sampling: Sampling, *, seed: int, number: int) -> list[Example]:
    """Cut one video unchanged, under one drawn row of each kind, and under one row of both tables at once.

    All clips start at the same frame; their crops lie at the same fraction of the free space.

    Args:
        video: a video that is long enough for the shortest row of the task.
        task: the tables to draw from; rows that are too long for the video are not drawn.
        sampling: how clips are cut.
        seed: the seed of the draws.
        number: the number of the video; another number draws other rows.
    """
    shown = PretextTask(SAME_SIZE + task.spatial, SAME_SPEED + task.temporal)  # row 0 leaves the source unchanged
    rows = _draw_rows(shown, video.num_frames, sampling, np.random.default_rng((seed, number)))
    spans = {
        kind: span(shown.temporal[labels.temporal], sampling.clip_frames, sampling.seam)
        for kind, labels in rows.items()
    }
    room = video.num_frames - max(spans.values())
    examples, picture = [], picture_of(video, sampling)
    for kind, labels in rows.items():
        plan = plan_clip(
            shown,
            labels,
            num_frames=room + spans[kind],  # as many starts for every clip, so that the same one is drawn
            picture=picture,
            sampling=sampling,
            generator=sample_generator(seed, 0, number),
        )
        examples.append(_cut(video, kind, _label_text(shown, labels), plan, sampling.clip_size))
    return examples


def show_examples(video: Video, examples: Sequence[Example]) -> list[dict[str, Any]]:
    """What ``examples.html`` shows of each example of a video: its plan, and pictures with captions."""
    shown = []
    for example in examples:
        caption, extent = f"{example.kind}: {example.label}", _extent(example, video)
        frames = ", ".join(map(str, example.plan.frames))
        stills = jpeg_uri(tile(example.clip, _STILLS_IN_A_ROW))
        shown.append(
            {
                "plan": example.plan,
                "film": (data_uri(mp4(example.clip, video.fps), "video/mp4"), caption),
                "place": (jpeg_uri(example.picture), f"{example.kind}: {extent}"),
                "stills": (stills, f"{caption}; source frames {frames}"),
            }
        )
    return shown


def seen_corners(plan: ClipPlan, clip_size: int) -> FloatArray:
    """The corners of the region that a clip shows, as (x, y) in source pixels, shape (4, 2)."""
    return plan.to_clip.inverse()(corners(clip_size, clip_size))


def _draw_rows(
    shown: PretextTask, num_frames: int, sampling: Sampling, generator: np.random.Generator
) -> dict[str, Labels]:
    """Draw one row of each kind that changes the source and fits the video, and one pair of these rows."""
    rows = {}
    for kind, family in _FAMILIES.items():
        choices = [Labels(row, 0) for row in _rows_of(family, shown.spatial)]
        choices += [
            Labels(0, row)
            for row in _rows_of(family, shown.temporal)
            if span(shown.temporal[row], sampling.clip_frames, sampling.seam) <= num_frames
        ]
        if choices:
            rows[kind] = choices[generator.integers(len(choices))]
    spatial = [labels.spatial for labels in rows.values() if labels.spatial]
    temporal = [labels.temporal for labels in rows.values() if labels.temporal]
    if spatial and temporal:
        rows["both heads at once"] = Labels(int(generator.choice(spatial)), int(generator.choice(temporal)))
    return {"original": Labels(0, 0), **rows}


def _rows_of(family: type, transforms: tuple[object, ...]) -> list[int]:
    """The rows of a family that differ from the first row, which leaves the source unchanged."""
    return [
        row for row, transform in enumerate(transforms) if isinstance(transform, family) and transform != transforms[0]
    ]


def _cut(video: Video, kind: str, label: str, plan: ClipPlan, clip_size: int) -> Example:
    frames = read_frames(video, plan.frames)
    clip = cut_clip(frames, plan, clip_size)
    to_picture, height, width = to_width(video.width, video.height, _PICTURE_WIDTH)
    picture = warp(frames[:1], to_picture, height, width)[:, 0].permute(1, 2, 0)
    outlined = outline(picture, to_picture(seen_corners(plan, clip_size)))
    return Example(kind, label, plan, clip.permute(1, 2, 3, 0).numpy(), outlined)


def _label_text(shown: PretextTask, labels: Labels) -> str:
    changes = [str(shown.spatial[labels.spatial])] if labels.spatial else []
    changes += [str(shown.temporal[labels.temporal])] if labels.temporal else []
    return " and ".join(changes) or "neither scaled nor projected"


def _extent(example: Example, video: Video) -> str:
    """The extent of the region that a clip shows, as text."""
    seen = seen_corners(example.plan, example.clip.shape[1])
    (left, top), (right, bottom) = seen.min(axis=0), seen.max(axis=0)
    return f"x {left:.1f} to {right:.1f} of {video.width}, y {top:.1f} to {bottom:.1f} of {video.height}"


def _missing(video: Video, task: PretextTask, sampling: Sampling) -> list[str]:
    """The rows of the task that the video is too short for, with what they need."""
    spans = {str(row): span(row, sampling.clip_frames, sampling.seam) for row in task.temporal}
    return [f"{row} needs {frames}" for row, frames in spans.items() if frames > video.num_frames]


def _evenly_spaced(num_videos: int, wanted: int) -> list[int]:
    """Numbers of the videos to show."""
    return [int(number) for number in np.linspace(0, num_videos - 1, min(wanted, num_videos)).round()]
