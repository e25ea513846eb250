"""``v3s speediness``: how fast a video seems to play, window by window (paper section 3.4, Figure 4).

The temporal head was trained to recognise at which speed a clip was sampled. Asked about a window at the video's own
speed, it says how fast the motion is, measured against the videos that it was trained on.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from v3s.backbones.device import Compute, ComputeOptions, choose_compute
from v3s.data.letterbox import untransformed
from v3s.features.saved import Trained, describe_trained, load_pretext_model
from v3s.files.text import say
from v3s.files.writing import write_json
from v3s.options import require_files, require_positive
from v3s.pages.charts import line_chart
from v3s.pages.images import jpeg_uri, small_frames, tile
from v3s.pages.page import figure, page, paragraph, section, write_page
from v3s.pretext.model import PretextModel
from v3s.pretext.plan import Sampling
from v3s.pretext.task import PretextTask
from v3s.pretext.temporal import TemporalProjection, TemporalScale, TemporalTransform
from v3s.video.decode import Video, read_frames
from v3s.video.index import index_video
from v3s.video.warp import warp

_READ_BYTES = 2**29  # of source frames held at once: a long video of large frames is read in parts
_WARP_FRAMES = 16  # warped at once, as float
_PICTURE_WIDTH = 160  # of the frames on the page, in pixels
_FRAMES_IN_A_ROW = 8


@dataclass(frozen=True, kw_only=True)
class SpeedinessConfig(ComputeOptions):
    """Draw how fast a video looks to the temporal head, over its time (paper section 3.4, Figure 4).

    Attributes:
        video: The video.
        backbone: A run's folder, pre-trained with a task that has speeds (ts, ts+tp, v3s).
        out: The HTML page; a JSON file with the curve is written beside it.

    More options:
        stride: Frames between two windows.
        batch_size: Windows in a forward pass.
    """

    video: Annotated[str, "VIDEO"]
    backbone: str
    stride: int = 2
    batch_size: int = 16
    out: str = "speediness.html"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "stride", "batch_size")
        require_files(self, "out")
        if Path(self.out).suffix == ".json":
            raise ValueError(f"out is {self.out}; give the HTML page, the JSON file is written next to it")


@dataclass(frozen=True, slots=True)
class Windows:
    """How a window slides over a video: frames between two starts, and windows in a forward pass."""

    stride: int = 2
    batch_size: int = 16


@dataclass(frozen=True, slots=True)
class Share:
    """A question to the temporal head: P(part) / P(whole), both as row numbers of its table."""

    part: tuple[int, ...]
    whole: tuple[int, ...]

    @property
    def of_even_guess(self) -> float:
        """What a head that finds all rows equally likely answers."""
        return len(self.part) / len(self.whole)

    def __call__(self, logits: Tensor) -> Tensor:
        """The answer for each window: logits (N, rows) to float64 (N,), in [0, 1]."""
        rows = logits.double()
        return (rows[:, self.part].logsumexp(dim=1) - rows[:, self.whole].logsumexp(dim=1)).exp().clamp(max=1)


@dataclass(frozen=True, slots=True)
class SpeedinessCurve:
    """What the temporal head says of each window; a curve that its table cannot answer is None.

    Attributes:
        frames: the middle of each window, in frames from 0; between two frames where a window has an even number.
        seconds: the same at the video's mean frame rate.
        speediness: 1 - P(s = 1) / P(all of T_S), in [0, 1]: 0 is the usual speed, 1 sped up.
        acceleration: P(p2 > p1) / P(all of T_P), in [0, 1]: 1 says that the second half of the window is faster.
    """

    frames: tuple[float, ...]
    seconds: tuple[float, ...]
    speediness: tuple[float, ...] | None
    acceleration: tuple[float, ...] | None

    @property
    def curves(self) -> dict[str, tuple[float, ...]]:
        """Those that there are, by name."""
        both = {"speediness": self.speediness, "acceleration": self.acceleration}
        return {name: values for name, values in both.items() if values is not None}

    def moments(self) -> dict[str, int]:
        """Windows worth a look, in order: where the first curve is lowest, highest, just after its steepest rise."""
        values = np.array(next(iter(self.curves.values())))
        found = {"lowest": int(values.argmin()), "highest": int(values.argmax())}
        rises = np.diff(values)
        if rises.size and rises.max() > 0:
            found["steepest rise"] = int(rises.argmax()) + 1
        return dict(sorted(found.items(), key=lambda moment: moment[1]))


def speediness(config: SpeedinessConfig, *, console: Console | None = None) -> SpeedinessCurve:
    """Draw the speediness curve of a video on an HTML page, and write its numbers to a JSON file next to it.

    Args:
        config: which video, which pre-trained run.
        console: where to report; the terminal by default.

    Raises:
        CheckpointError: the folder holds no pre-trained model.
        ValueError: the run was not trained on speeds, or the video cannot be read or is shorter than a window.
    """
    console = console or Console()
    compute = choose_compute(config.device, config.precision)
    rows = describe_trained(config.backbone).task.temporal
    try:
        questions(rows)
    except ValueError as error:
        raise ValueError(f"{config.backbone}: {error}") from error
    model, trained = load_pretext_model(config.backbone)
    video = index_video(config.video)
    windows = Windows(config.stride, config.batch_size)
    curve = measure_speediness(model, trained, video, windows, compute=compute, console=console)
    out = Path(config.out)
    write_page(out, _page(config, trained, video, curve))
    write_json(out.with_suffix(".json"), _description(config, trained, video, curve))
    for name, window in curve.moments().items():
        say(console, f"{name}: {_moment(curve, window)}")
    return curve


def measure_speediness(
    model: PretextModel,
    trained: Trained,
    video: Video,
    windows: Windows,
    *,
    compute: Compute | None = None,
    console: Console | None = None,
) -> SpeedinessCurve:
    """Slide a window of consecutive frames over a video and ask the temporal head about each.

    Args:
        model: in evaluation mode.
        trained: the tables and the clips that it was trained on: a window has as many frames, of the same size.
        video: at least as long as a window.
        windows: how they slide.
        compute: device and precision; the CPU in fp32 by default.
        console: where progress is shown; the terminal by default.

    Raises:
        ValueError: the task has no speeds, or the video is shorter than a window.

    Source: paper section 3.4, Figure 4.
    """
    asked = questions(trained.task.temporal)
    length = trained.sampling.clip_frames
    if video.num_frames < length:
        raise ValueError(f"{video.path}: has {video.num_frames} frames; a window needs {length}")
    console = console or Console()
    frames = _read_small(video, trained.sampling, console)
    starts = range(0, video.num_frames - length + 1, windows.stride)
    clips = [frames[:, start : start + length] for start in starts]
    logits = _ask(model, clips, windows.batch_size, compute or choose_compute("cpu", "fp32"), console)
    centres = tuple(start + (length - 1) / 2 for start in starts)
    values = {name: tuple(share(logits).tolist()) for name, share in asked.items()}
    return SpeedinessCurve(
        centres,
        tuple(centre / video.fps for centre in centres),
        values.get("speediness"),
        values.get("acceleration"),
    )


def questions(rows: tuple[TemporalTransform, ...]) -> dict[str, Share]:
    """What a temporal table can be asked: "speediness", "acceleration" or both.

    Raises:
        ValueError: neither; the message has the table.
    """
    speeds = {number: row.speed for number, row in enumerate(rows) if isinstance(row, TemporalScale)}
    patterns = {number: row.p for number, row in enumerate(rows) if isinstance(row, TemporalProjection)}
    shares = {
        "speediness": Share(tuple(number for number, speed in speeds.items() if speed != 1), tuple(speeds)),
        "acceleration": Share(tuple(number for number, (p1, p2) in patterns.items() if p2 > p1), tuple(patterns)),
    }
    found = {name: share for name, share in shares.items() if 0 < len(share.part) < len(share.whole)}
    if not found:
        known = ", ".join(map(str, rows)) or "nothing"
        raise ValueError(
            f"its temporal head distinguishes {known}; a speediness curve needs speed 1 and a faster one, "
            "an acceleration curve rising and falling patterns; pre-train with --task ts, tp, ts+tp or v3s"
        )
    return found


def _read_small(video: Video, sampling: Sampling, console: Console) -> Tensor:
    """All frames of a video as the network sees them: uint8, shape (3, num_frames, size, size)."""
    to_clip, size = untransformed(video, sampling), sampling.clip_size
    at_once = max(_WARP_FRAMES, _READ_BYTES // (3 * video.height * video.width))
    parts = []
    for first in track(
        range(0, video.num_frames, at_once), "reading", console=console, transient=True, disable=not console.is_terminal
    ):
        frames = read_frames(video, range(first, min(first + at_once, video.num_frames)))
        parts += [warp(some, to_clip, size, size) for some in frames.split(_WARP_FRAMES)]
    return torch.cat(parts, dim=1)


@torch.inference_mode()
def _ask(model: PretextModel, windows: Sequence[Tensor], batch_size: int, compute: Compute, console: Console) -> Tensor:
    """The temporal logits of each window: float32 on the CPU, shape (windows, rows)."""
    model.to(compute.device)
    model.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    logits = []
    for first in track(
        range(0, len(windows), batch_size), "asking", console=console, transient=True, disable=not console.is_terminal
    ):
        batch = torch.stack(list(windows[first : first + batch_size]))
        with compute.autocast():
            logits.append(model(compute.clips(batch)).temporal.float().cpu())
    return torch.cat(logits)


def curve_chart(curve: SpeedinessCurve, task: PretextTask, *, video: str, markers: dict[str, float]) -> str:
    """The curves over seconds beside an even guess, as SVG.

    Args:
        curve: what the network said.
        task: the tables that it was trained on.
        video: its name, for the title.
        markers: moments in seconds, by label.
    """
    asked = questions(task.temporal)
    return line_chart(
        {name: list(zip(curve.seconds, values, strict=True)) for name, values in curve.curves.items()},
        title=f"{' and '.join(curve.curves)} of {video}",
        x_label="seconds",
        y_label="share of probability",
        y_range=(0, 1),
        reference_lines={f"{name}: even guess": asked[name].of_even_guess for name in curve.curves},
        markers=markers,
    )


def _page(config: SpeedinessConfig, trained: Trained, video: Video, curve: SpeedinessCurve) -> str:
    moments = curve.moments()
    markers = {name: curve.seconds[window] for name, window in moments.items()}
    chart = curve_chart(curve, trained.task, video=Path(config.video).name, markers=markers)
    meaning = {
        "speediness": "Speediness is 1 - P(s = 1) / P(all speeds): near 0 the network sees the usual pace, near 1 a "
        "sped-up one.",
        "acceleration": "Acceleration is P(p2 > p1) / P(all patterns): near 1 the second half of a window seems "
        "faster than the first, near 0 slower.",
    }
    lead = (
        f"{config.video}: {video.num_frames:,} frames at {video.fps:.4g} frames per second, {len(curve.frames):,} "
        f"windows of {trained.sampling.clip_frames} frames. Network: {config.backbone} ({trained.backbone})."
    )
    reading = [meaning[name] for name in curve.curves]
    reading.append(
        "The network answers for changes of pixels: a flash of light or a cut can look like speed. A network that "
        "cannot tell stays near the even guess."
    )
    shown = [
        figure(_window_picture(video, curve.frames[window], trained), f"{name}: {_moment(curve, window)}")
        for name, window in moments.items()
    ]
    blocks = [
        section("Curve", figure(chart, f"One point for each window, at its middle; every {config.stride} frames.")),
        section("The windows at the marked moments, frame by frame", *shown),
        section("How to read it", *map(paragraph, reading)),
    ]
    return page("How fast it seems to play", blocks, lead=lead)


def _moment(curve: SpeedinessCurve, window: int) -> str:
    values = ", ".join(f"{name} {values[window]:.2f}" for name, values in curve.curves.items())
    return f"{values} at {curve.seconds[window]:.2f} s (frame {int(curve.frames[window])})"


def _window_picture(video: Video, middle: float, trained: Trained) -> str:
    """All frames of a window, whole and small, as a data URI: what raised the curve may last for one frame only."""
    length = trained.sampling.clip_frames
    first = round(middle - (length - 1) / 2)
    frames = small_frames(video, range(first, first + length), _PICTURE_WIDTH)
    return jpeg_uri(tile(frames, _FRAMES_IN_A_ROW))


def _description(config: SpeedinessConfig, trained: Trained, video: Video, curve: SpeedinessCurve) -> dict[str, Any]:
    return {
        "video": config.video,
        "num_frames": video.num_frames,
        "fps": video.fps,
        "backbone": config.backbone,
        "network": trained.backbone,
        "fingerprint": trained.fingerprint,
        "clip_frames": trained.sampling.clip_frames,
        "clip_size": trained.sampling.clip_size,
        "stride": config.stride,
        "even_guess": {name: share.of_even_guess for name, share in questions(trained.task.temporal).items()},
        "moments": {name: curve.frames[window] for name, window in curve.moments().items()},
        **asdict(curve),
    }
