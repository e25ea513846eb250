"""``v3s speediness``: how fast a video seems to play, window by window (paper section 3.4, Figure 4).

The temporal head was trained to recognise the speed at which a clip was sampled. On a window at the original speed, it
measures how fast the motion is compared with the training videos.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from markupsafe import Markup
from rich.console import Console
from torch import Tensor

from v3s.backbones.device import Compute, DeviceOptions, choose_compute
from v3s.data.letterbox import untransformed
from v3s.features.saved import Trained, load_pretext_model
from v3s.files.text import progress_bar, say, short_repr
from v3s.files.times import time_text
from v3s.files.writing import json_as_bytes, write_files
from v3s.options import require_files, require_positive
from v3s.pages.charts import line_chart
from v3s.pages.images import jpeg_uri, small_frames, tile
from v3s.pages.templates import render
from v3s.pretext.model import PretextModel
from v3s.pretext.plan import Sampling
from v3s.pretext.task import PretextTask
from v3s.pretext.temporal import TemporalProjection, TemporalScale, TemporalTransform
from v3s.video.decode import Video, read_frames
from v3s.video.index import index_video
from v3s.video.warp import warp

_READ_BYTES = 2**29  # source frames in memory at a time; longer videos are read in parts
_WARP_FRAMES = 16  # frames that are warped at a time, as float
_PICTURE_WIDTH = 160  # width of the frames on the page, in pixels
_FRAMES_IN_A_ROW = 8


@dataclass(frozen=True, kw_only=True)
class SpeedinessConfig(DeviceOptions):
    """Plot how fast a video appears to play, according to the temporal head (paper section 3.4, Figure 4).

    Attributes:
        video: The video.
        backbone: Folder of a run that was pre-trained with a task with speeds (ts, ts+tp, v3s, v3s-short).
        out: HTML page to write; the curve goes into a JSON file of the same name (speediness.json).

    More options:
        stride: Frames between the starts of consecutive windows.
        batch_size: Windows per forward pass.
    """

    video: Annotated[str, "VIDEO"]
    backbone: str
    stride: int = 2
    batch_size: int = 16
    out: str = "speediness.html"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "stride", "batch_size")
        require_files(self, out=".html", beside=".json")


@dataclass(frozen=True, slots=True)
class Windows:
    """How a window slides over a video: frames between two starts, and windows in a forward pass."""

    stride: int = 2
    batch_size: int = 16


@dataclass(frozen=True, slots=True)
class Share:
    """A ratio of the temporal head's probabilities, P(part) / P(whole), both as row numbers of its label table."""

    part: tuple[int, ...]
    whole: tuple[int, ...]

    @property
    def uniform_guess(self) -> float:
        """The ratio if all rows are equally likely."""
        return len(self.part) / len(self.whole)

    def __call__(self, logits: Tensor) -> Tensor:
        """Compute the ratio for each window: logits (N, rows) to float64 (N,), in [0, 1]."""
        rows = logits.double()
        return (rows[:, self.part].logsumexp(dim=1) - rows[:, self.whole].logsumexp(dim=1)).exp().clamp(max=1)


@dataclass(frozen=True, slots=True)
class SpeedinessCurve:
    """The temporal head's prediction for each window; a curve that its label table does not support is None.

    Attributes:
        frames: the middle of each window, in frames from 0; between two frames if the window has an even length.
        seconds: the same in seconds, at the video's mean frame rate.
        speediness: 1 - P(s = 1) / P(all of T_S), in [0, 1]: 0 is normal speed, 1 is sped up.
        acceleration: P(p2 > p1) / P(all of T_P), in [0, 1]: 1 means that the second half of the window is faster.
    """

    frames: tuple[float, ...]
    seconds: tuple[float, ...]
    speediness: tuple[float, ...] | None
    acceleration: tuple[float, ...] | None
    __repr__ = short_repr

    @property
    def curves(self) -> dict[str, tuple[float, ...]]:
        """The available curves, by name."""
        both = {"speediness": self.speediness, "acceleration": self.acceleration}
        return {name: values for name, values in both.items() if values is not None}

    def moments(self) -> dict[str, int]:
        """Return notable windows in order: where the first curve is lowest, highest, and after its steepest rise."""
        values = np.array(next(iter(self.curves.values())))
        windows = {"lowest": int(values.argmin()), "highest": int(values.argmax())}
        rises = np.diff(values)
        if rises.size and rises.max() > 0:
            windows["steepest rise"] = int(rises.argmax()) + 1
        return dict(sorted(windows.items(), key=lambda moment: moment[1]))


def speediness(config: SpeedinessConfig, *, console: Console | None = None) -> SpeedinessCurve:
    """Draw the speediness curve of a video on an HTML page, and write its numbers to a JSON file next to it.

    Args:
        config: which video, which pre-trained run.
        console: where to report; the terminal by default.

    Raises:
        CheckpointError: the folder does not contain a pre-trained model.
        ValueError: the run was not trained on speeds, or the video cannot be read or is shorter than a window.
    """
    console = console or Console()
    compute = choose_compute(config.device, config.precision)
    model, trained = load_pretext_model(config.backbone)
    try:
        temporal_shares(trained.task.temporal)
    except ValueError as error:
        raise ValueError(f"{config.backbone}: {error}") from error
    video = trained.view.sample(index_video(config.video))
    windows = Windows(config.stride, config.batch_size)
    curve = measure_speediness(model, trained, video, windows, compute=compute, console=console)
    out = Path(config.out)
    numbers = json_as_bytes(_description(config, trained, video, curve))
    write_files({out: _page(config, trained, video, curve).encode(), out.with_suffix(".json"): numbers})
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
    """Slide a window of consecutive frames over a video and apply the temporal head to each.

    Args:
        model: in evaluation mode.
        trained: the label tables and the clips that it was trained on; windows have the length and size of these clips.
        video: at least as long as a window.
        windows: stride and batch size.
        compute: device and precision; the CPU in fp32 by default.
        console: where to show progress; the terminal by default.

    Raises:
        ValueError: the task has no speeds, or the video is shorter than a window.

    Source: paper section 3.4, Figure 4.
    """
    shares = temporal_shares(trained.task.temporal)
    length = trained.sampling.clip_frames
    if video.num_frames < length:
        raise ValueError(f"{video.path}: has {video.num_frames} frames; a window needs at least {length}")
    console = console or Console()
    frames = _read_small(video, trained.sampling, console)
    starts = range(0, video.num_frames - length + 1, windows.stride)
    clips = [frames[:, start : start + length] for start in starts]
    logits = _temporal_logits(model, clips, windows.batch_size, compute or choose_compute("cpu", "fp32"), console)
    centres = tuple(start + (length - 1) / 2 for start in starts)
    values = {name: tuple(share(logits).tolist()) for name, share in shares.items()}
    return SpeedinessCurve(
        centres,
        tuple(centre / video.fps for centre in centres),
        values.get("speediness"),
        values.get("acceleration"),
    )


def temporal_shares(rows: tuple[TemporalTransform, ...]) -> dict[str, Share]:
    """Return the shares that a temporal label table supports: "speediness", "acceleration" or both.

    Raises:
        ValueError: it supports neither; the message contains the table.
    """
    speeds = {number: row.speed for number, row in enumerate(rows) if isinstance(row, TemporalScale)}
    patterns = {number: row.p for number, row in enumerate(rows) if isinstance(row, TemporalProjection)}
    shares = {
        "speediness": Share(tuple(number for number, speed in speeds.items() if speed != 1), tuple(speeds)),
        "acceleration": Share(tuple(number for number, (p1, p2) in patterns.items() if p2 > p1), tuple(patterns)),
    }
    supported = {name: share for name, share in shares.items() if 0 < len(share.part) < len(share.whole)}
    if not supported:
        raise ValueError(
            f"the temporal head distinguishes only {', '.join(map(str, rows))}; a speediness curve needs speed 1 and "
            "a faster one, an acceleration curve needs rising and falling patterns; "
            "pre-train with --task ts, tp, ts+tp or v3s"
        )
    return supported


def _read_small(video: Video, sampling: Sampling, console: Console) -> Tensor:
    """Read all frames of a video at the network's input size: uint8, shape (3, num_frames, size, size)."""
    to_clip, size = untransformed(video, sampling), sampling.clip_size
    at_once = max(_WARP_FRAMES, _READ_BYTES // (3 * video.height * video.width))
    parts = []
    with progress_bar(console) as progress:
        for first in progress.track(range(0, video.num_frames, at_once), description="reading"):
            frames = read_frames(video, range(first, min(first + at_once, video.num_frames)))
            parts += [warp(chunk, to_clip, size, size) for chunk in frames.split(_WARP_FRAMES)]
    return torch.cat(parts, dim=1)


@torch.inference_mode()
def _temporal_logits(
    model: PretextModel, windows: Sequence[Tensor], batch_size: int, compute: Compute, console: Console
) -> Tensor:
    """Compute the temporal logits of each window: float32 on the CPU, shape (windows, rows)."""
    model.to(compute.device)
    model.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    logits = []
    firsts = range(0, len(windows), batch_size)
    with progress_bar(console) as progress:
        for first in progress.track(firsts, description="predicting"):
            batch = torch.stack(list(windows[first : first + batch_size]))
            with compute.autocast():
                logits.append(model(compute.clips(batch)).temporal.float().cpu())
    return torch.cat(logits)


def curve_chart(curve: SpeedinessCurve, task: PretextTask, *, video: str, markers: dict[str, float]) -> Markup:
    """Draw the curves over time, with a uniform guess for reference, as SVG.

    Args:
        curve: the network's predictions.
        task: the label tables that it was trained on.
        video: name of the video, for the title.
        markers: moments in seconds, by label.
    """
    shares = temporal_shares(task.temporal)
    return line_chart(
        {name: list(zip(curve.seconds, values, strict=True)) for name, values in curve.curves.items()},
        title=f"{' and '.join(curve.curves)} of {video}",
        x_label="seconds",
        y_label="share of probability",
        y_range=(0, 1),
        reference_lines={f"{name}: uniform guess": shares[name].uniform_guess for name in curve.curves},
        markers=markers,
    )


def _page(config: SpeedinessConfig, trained: Trained, video: Video, curve: SpeedinessCurve) -> str:
    moments = curve.moments()
    markers = {name: curve.seconds[window] for name, window in moments.items()}
    chart = curve_chart(curve, trained.task, video=Path(config.video).name, markers=markers)
    pictures = [
        (_window_picture(video, curve.frames[window], trained), f"{name}: {_moment(curve, window)}")
        for name, window in moments.items()
    ]
    return render(
        "speediness.html", config=config, trained=trained, video=video, curve=curve, chart=chart, pictures=pictures
    )


def _moment(curve: SpeedinessCurve, window: int) -> str:
    values = ", ".join(f"{name} {values[window]:.2f}" for name, values in curve.curves.items())
    return f"{values} at {time_text(curve.seconds[window])}"


def _window_picture(video: Video, middle: float, trained: Trained) -> str:
    """Show all frames of a window as a data URI, since the cause of a rise may be a single frame."""
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
        "even_guess": {name: share.uniform_guess for name, share in temporal_shares(trained.task.temporal).items()},
        "moments": {name: curve.frames[window] for name, window in curve.moments().items()},
        **asdict(curve),
    }
