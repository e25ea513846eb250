"""Draw everything random about a clip and record it as data, without touching pixels.

``to_clip = crop @ transform @ resize`` is section 4.1.2 of the paper in one expression, read right to left.
"""

from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Literal

import numpy as np

from v3s.options import check_clip, require_not_negative, require_positive
from v3s.pretext.spatial import SpatialScale, SpatialTransform, Window
from v3s.pretext.task import PretextTask
from v3s.pretext.temporal import Seam, offsets, span
from v3s.video.colour import UNCHANGED, Colour
from v3s.video.homography import Homography, crop_and_resize, identity, mirror
from v3s.video.warp import Samples, samples_for

Zoom = Literal["paper", "even"]
PreResize = Literal["squash", "short-side"]
LabelPrior = Literal["class", "family"]
Short = Literal["leave-out", "fit"]

EVEN_ZOOM = 0.75  # the smallest side drawn by zoom="even", as a share of the largest that fits every class


@dataclass(frozen=True, kw_only=True)
class ClipOptions:
    """How clips are cut from videos: every decision of the paper that is not a label.

    More options:
        clip_frames: Frames per clip. Default: what the backbone expects (16).
        clip_size: Side of a clip in pixels. Default: what the backbone expects (112; s3dg: 224).
        flip: Mirror half of the clips before the transform, so that labels remain correct.
        trim_bars: Detect the constant borders (letterbox bars) of every video and remove them.
        short: leave-out skips videos shorter than the task's longest span and reports how many; fit draws a label
            first, then a video that is long enough for it.

    For ablations:
        canvas_size: Side in pixels of the square that frames are resized to before the transform. Default: twice the
            side of the clip (s3dg: 256).
        zoom: paper crops a projection as far as its shortened side requires, so that the zoom differs between labels;
            even draws the zoom from the same range for all labels.
        pre_resize: squash resizes the whole frame to the canvas, as the paper does; short-side keeps the aspect ratio
            and takes the middle.
        seam: Which half's frame step is used for the gap between the two halves of a temporal projection.
        label_prior: class makes every label equally likely; family picks scale or projection with equal probability,
            then a label within it.
        scale_jitter: Draw crops up to 1 + this times smaller, in the same way for all classes, so that size reveals
            less about the label.
        blur: Blur each clip by averaging squares of random size, up to this many pixels; up to 1 does not blur.
        colour_jitter: Range of the random brightness, contrast and saturation factors: 1 - this to 1 + this.
        grey: Share of clips that are converted to grey.
    """

    clip_frames: int | None = None
    clip_size: int | None = None
    canvas_size: int | None = None
    zoom: Zoom = "paper"
    pre_resize: PreResize = "squash"
    trim_bars: bool = False
    flip: bool = False
    seam: Seam = "first"
    label_prior: LabelPrior = "class"
    scale_jitter: float = 0.0
    blur: float = 0.0
    colour_jitter: float = 0.0
    grey: float = 0.0
    short: Short = "leave-out"

    def check_clips(self) -> None:
        """Check the ranges.

        Raises:
            ValueError: a value is out of its range, or the canvas is smaller than the clip.
        """
        require_positive(self, "clip_size", "canvas_size")
        require_not_negative(self, "scale_jitter", "blur")
        if self.clip_frames is not None and self.clip_frames < 2:
            raise ValueError(f"clip_frames is {self.clip_frames}; it must be 2 or more")
        if self.clip_size and self.canvas_size and self.canvas_size < self.clip_size:
            raise ValueError(f"canvas_size is {self.canvas_size}; it must be at least clip_size ({self.clip_size})")
        if not 0 <= self.colour_jitter < 1:
            raise ValueError(f"colour_jitter is {self.colour_jitter}; it must be 0 or more, and less than 1")
        if not 0 <= self.grey <= 1:
            raise ValueError(f"grey is {self.grey}; it must be from 0 to 1")

    def sampling(self, clip_frames: int = 16, clip_size: int = 112) -> "Sampling":
        """Return these options as a sampling; sizes that were not chosen are those of a backbone.

        Args:
            clip_frames: number of frames that the backbone expects; the default is that of the paper.
            clip_size: side in pixels that the backbone expects; the default is that of the paper.
        """
        chosen = {field.name: getattr(self, field.name) for field in fields(ClipOptions)}
        size = self.clip_size or clip_size
        canvas_size = self.canvas_size or (round(size * 256 / 224) if clip_size == 224 else 2 * size)
        sizes = {"clip_frames": self.clip_frames or clip_frames, "clip_size": size, "canvas_size": canvas_size}
        return Sampling(**{**chosen, **sizes})


@dataclass(frozen=True, kw_only=True)
class Sampling(ClipOptions):
    """`ClipOptions` with known sizes; by default those of the paper."""

    clip_frames: int = 16
    clip_size: int = 112
    canvas_size: int = 224

    def __post_init__(self) -> None:
        self.check_clips()
        check_clip(self.clip_frames, self.clip_size)


@dataclass(frozen=True, slots=True)
class Labels:
    """The row numbers of a clip in the two tables of its task."""

    spatial: int
    temporal: int


@dataclass(frozen=True, slots=True)
class Bars:
    """Constant borders of a video: the source pixels to trim on each side."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0


NO_BARS = Bars()


@dataclass(frozen=True, slots=True)
class Picture:
    """The part of the source frames that clips are cut from.

    Attributes:
        width: width of the complete frames, in pixels.
        height: height of the complete frames, in pixels.
        bars: the pixels to trim on each side.
    """

    width: int
    height: int
    bars: Bars = NO_BARS


@dataclass(frozen=True, slots=True)
class ClipPlan:
    """Every random choice behind one clip, as data: loggable, replayable, testable.

    Attributes:
        frames: source frame numbers, in clip order.
        to_clip: the map from source pixels to clip pixels.
        labels: the rows of the task's tables.
        samples: numbers of samples, across and down, that a clip pixel averages; the same for all labels.
        blur: side of the square that each pixel averages, in clip pixels; values up to 1 do not blur.
        colour: colour change of all frames.
    """

    frames: tuple[int, ...]
    to_clip: Homography
    labels: Labels
    samples: Samples
    blur: float = 0.0
    colour: Colour = UNCHANGED


def sample_generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """Create the generator of one sample; it depends only on the run's seed, the epoch and the sample's number."""
    return np.random.default_rng((seed, epoch, index))


def draw_labels(task: PretextTask, prior: LabelPrior, generator: np.random.Generator) -> Labels:
    """Draw a row of each table."""
    return Labels(_draw_row(task.spatial, prior, generator), _draw_row(task.temporal, prior, generator))


def draw_different_labels(task: PretextTask, count: int, generator: np.random.Generator) -> list[Labels]:
    """Draw the labels of several clips of one video: no row twice as long as a table has enough of them.

    Each row of a table is equally likely for each clip.
    """
    spatial, temporal = (generator.permutation(len(table)).tolist() for table in (task.spatial, task.temporal))
    return [Labels(spatial[clip % len(spatial)], temporal[clip % len(temporal)]) for clip in range(count)]


def balanced_labels(task: PretextTask, prior: LabelPrior, count: int, generator: np.random.Generator) -> list[Labels]:
    """Draw the labels of many clips so that each row of a table is as frequent as the others, to within one.

    With the prior "family", this holds for scales and projections, and for the rows within each.
    """
    rows = (_balanced_rows(table, prior, count, generator) for table in (task.spatial, task.temporal))
    return [Labels(spatial, temporal) for spatial, temporal in zip(*rows, strict=True)]


def _balanced_rows(
    table: tuple[object, ...], prior: LabelPrior, count: int, generator: np.random.Generator
) -> list[int]:
    kinds = [type(row).__name__ if prior == "family" else "" for row in table]
    families = [
        generator.permutation([row for row, kind in enumerate(kinds) if kind == each]) for each in sorted(set(kinds))
    ]
    families = [families[number] for number in generator.permutation(len(families))]
    rounds = (families[clip % len(families)] for clip in range(count))
    rows = [family[clip // len(families) % len(family)] for clip, family in enumerate(rounds)]
    return [int(row) for row in generator.permutation(rows)]


def _draw_row(table: tuple[object, ...], prior: LabelPrior, generator: np.random.Generator) -> int:
    rows = list(range(len(table)))
    if prior == "family":
        families = sorted({type(row).__name__ for row in table})
        family = families[generator.integers(len(families))]
        rows = [row for row in rows if type(table[row]).__name__ == family]
    return rows[generator.integers(len(rows))]


def plan_clip(
    task: PretextTask,
    labels: Labels,
    *,
    num_frames: int,
    picture: Picture,
    sampling: Sampling,
    generator: np.random.Generator,
) -> ClipPlan:
    """Draw the start, crop, blur and colour of a clip with given labels.

    Args:
        task: the two tables.
        labels: the rows of the clip.
        num_frames: number of frames of the source video.
        picture: size of its frames, and their bars.
        sampling: how clips are cut.
        generator: source of all random choices.

    Raises:
        ValueError: the video is too short for the temporal label.

    Source: paper sections 3.1, 3.2 and 4.1.2.
    """
    temporal, spatial = task.temporal[labels.temporal], task.spatial[labels.spatial]
    needed = span(temporal, sampling.clip_frames, sampling.seam)
    if num_frames < needed:
        raise ValueError(f"the video has {num_frames} frames; {temporal} needs {needed}")
    start = int(generator.integers(num_frames - needed + 1))
    frames = tuple(start + offset for offset in offsets(temporal, sampling.clip_frames, sampling.seam))
    flipped = bool(generator.random() < 0.5) if sampling.flip else False
    side_fraction, u, v = generator.random(3)
    jitter, blur, *colours = generator.random(6)  # drawn last, so that they change no other choice
    side = _crop_side(task, spatial, sampling, side_fraction) / (1 + sampling.scale_jitter) ** jitter
    window = spatial.window(sampling.canvas_size, side, u, v)
    to_clip = compose(spatial, window, resize_to_canvas(picture, sampling), sampling, flipped=flipped)
    samples = max_samples(task, sampling, picture)
    return ClipPlan(frames, to_clip, labels, samples, float(blur * sampling.blur), _colour(sampling, *colours))


def compose(
    spatial: SpatialTransform, window: Window, to_canvas: Homography, sampling: Sampling, *, flipped: bool = False
) -> Homography:
    """Compose the single map of a clip: ``crop @ transform @ (flip) @ resize``."""
    canvas, size = sampling.canvas_size, sampling.clip_size
    flip = mirror(canvas) if flipped else identity()
    crop = crop_and_resize(window.x, window.y, window.side, window.side, size, size)
    return crop @ _on_canvas(spatial, canvas) @ flip @ to_canvas


@lru_cache(maxsize=256)
def _on_canvas(spatial: SpatialTransform, canvas: int) -> Homography:
    """The map of a label; it is the same for all clips and takes a third of the time of a plan."""
    return spatial.homography(canvas, canvas)


@lru_cache(maxsize=64)
def max_samples(task: PretextTask, sampling: Sampling, picture: Picture) -> Samples:
    """Return how many samples each clip pixel averages: the number for the spatial label that shrinks the frame most.

    It is the same for all labels. Otherwise the sharpness of a clip would reveal its label.
    """
    to_canvas, size = resize_to_canvas(picture, sampling), sampling.clip_size
    windows = [row.window(sampling.canvas_size, _crop_side(task, row, sampling, 1.0), 0.5, 0.5) for row in task.spatial]
    maps = (compose(row, window, to_canvas, sampling) for row, window in zip(task.spatial, windows, strict=True))
    across, down = zip(*(samples_for(to_clip, size, size) for to_clip in maps), strict=True)
    return max(across), max(down)


def _crop_side(task: PretextTask, spatial: SpatialTransform, sampling: Sampling, fraction: float) -> float:
    if sampling.zoom == "paper":
        return spatial.paper_side(sampling.canvas_size, sampling.clip_size)
    largest = min(float(sampling.clip_size), *(row.largest_side(sampling.canvas_size) for row in task.spatial))
    return largest * (EVEN_ZOOM + (1 - EVEN_ZOOM) * fraction)


def _colour(sampling: Sampling, grey: float, *fractions: float) -> Colour:
    brightness, contrast, saturation = (float(1 + sampling.colour_jitter * (2 * share - 1)) for share in fractions)
    return Colour(brightness, contrast, 0.0 if grey < sampling.grey else saturation)


def resize_to_canvas(picture: Picture, sampling: Sampling) -> Homography:
    """Return the map from source frames, without their bars, to the canvas."""
    bars = picture.bars
    inner_width, inner_height = picture.width - bars.left - bars.right, picture.height - bars.top - bars.bottom
    canvas = sampling.canvas_size
    if sampling.pre_resize == "squash":
        return crop_and_resize(bars.left, bars.top, inner_width, inner_height, canvas, canvas)
    side = min(inner_width, inner_height)
    x, y = bars.left + (inner_width - side) / 2, bars.top + (inner_height - side) / 2
    return crop_and_resize(x, y, side, side, canvas, canvas)


def middle_crop(picture: Picture, sampling: Sampling) -> Homography:
    """Return the map from source frames to a clip without a spatial transform: the middle of the canvas, unscaled.

    Motion looks slower in smaller pictures, so the crop has the scale of training, not that of the downstream view: the
    whole frame becomes the canvas, of which the middle square of ``clip_size`` is cut. If the task has spatial rows,
    training never shows an untransformed canvas; this crop is the average of what it shows.
    """
    untransformed, middle = SpatialScale(1.0, 1.0), 0.5
    window = untransformed.window(sampling.canvas_size, sampling.clip_size, middle, middle)
    return compose(untransformed, window, resize_to_canvas(picture, sampling), sampling)
