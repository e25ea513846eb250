"""The configuration of each command: one frozen dataclass is its command line, its YAML and its Python argument."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from v3s.data.clips import Short, seed_problem
from v3s.data.listing import Subset
from v3s.data.splits import VideoList, list_videos
from v3s.pretext.plan import LabelPrior, PreResize, Sampling, Zoom
from v3s.pretext.temporal import Seam
from v3s.train.device import Precision
from v3s.video.store import SHORT_SIDE, PixelFormat

BatchNorm = Literal["auto", "local", "sync", "frozen"]
Loading = Literal["auto", "workers", "resident"]
CLIP_SIZES = ("clip_frames", "clip_size", "canvas_size")
Config = TypeVar("Config")


@dataclass(frozen=True, kw_only=True)
class VideoOptions:
    """Which videos.

    Attributes:
        data: A folder of videos, nested in any way, or a list file with one path a line.
        splits: Official split lists (a folder, or a CSV file) of UCF101, HMDB51 or Kinetics-400, with videos in data.
        split: Number of the official split.
        subset: Part of the split.
        allow_missing: Go on although videos of the list are missing.
    """

    data: str
    splits: str | None = None
    split: int = 1
    subset: Subset = "train"
    allow_missing: bool = False

    def list_videos(self) -> VideoList:
        """List them, as :func:`v3s.data.splits.list_videos`."""
        return list_videos(
            self.data, splits=self.splits, split=self.split, subset=self.subset, allow_missing=self.allow_missing
        )


@dataclass(frozen=True, kw_only=True)
class ComputeOptions:
    """Where and how fast.

    Attributes:
        workers: Processes that read videos; 0 reads in the main process. Default: half of the cores in training (none
            where a store is read), else a quarter; beside a GPU one for each core, at most 8.
        device: auto, cpu, cuda or cuda:N.
        precision: auto takes bf16 where the device multiplies matrices in it, else fp32.
        seed: Of everything random: the same seed gives the same samples on any number of workers and processes.
    """

    workers: int | None = None
    device: str = "auto"
    precision: Precision = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        require_not_negative(self, "workers")
        if problem := seed_problem(self.seed):
            raise ValueError(problem)


@dataclass(frozen=True, kw_only=True)
class ClipOptions:
    """How clips are cut from videos; sizes left out are what the backbone expects.

    Attributes:
        clip_frames: Frames of a clip; default what the backbone expects, 16.
        clip_size: Side of a clip in pixels; default what the backbone expects: 112, for s3dg 224.
        canvas_size: Side of the square that frames are resized to before the transform; default twice the clip's side,
            for s3dg 256.
        zoom: paper crops a projection by its head's length, even draws one zoom for all classes.
        pre_resize: squash resizes the whole frame to the canvas; short-side keeps its shape and takes the middle.
        trim_bars: Find constant borders (letterbox bars) of every video and leave them out.
        flip: Mirror half of the clips, before the transform.
        seam: Whose step crosses the seam of a temporal projection.
        label_prior: class draws all rows of a table alike, family first draws scale or projection.
        scale_jitter: Crops up to 1 + this many times smaller, alike for all classes: size then tells less.
        blur: Average pixels over up to this many pixels of the clip, drawn for each clip.
        colour_jitter: Brightness, contrast and saturation from 1 - this to 1 + this, drawn for each clip.
        grey: Share of clips without colour.
        short: leave-out drops (and counts) videos shorter than the task's longest span; fit draws among the videos that
            are long enough for each label.
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

    def sampling(self, clip_frames: int, clip_size: int) -> Sampling:
        """The clips of a backbone that expects ``clip_frames`` frames of ``clip_size`` pixels."""
        size = self.clip_size or clip_size
        canvas = self.canvas_size or (round(size * 256 / 224) if clip_size == 224 else 2 * size)
        return Sampling(
            clip_frames=self.clip_frames or clip_frames,
            clip_size=size,
            canvas_size=canvas,
            zoom=self.zoom,
            pre_resize=self.pre_resize,
            flip=self.flip,
            seam=self.seam,
            label_prior=self.label_prior,
            scale_jitter=self.scale_jitter,
            blur=self.blur,
            colour_jitter=self.colour_jitter,
            grey=self.grey,
            trim_bars=self.trim_bars,
        )


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(ComputeOptions, ClipOptions, VideoOptions):
    """Pre-train a backbone on videos without labels (paper sections 3 and 4.1).

    Attributes:
        out: Folder of the run.
        backbone: c3d, r3d, r2plus1d, s3dg, r3d18 or r2plus1d18.
        width: Multiplies the number of channels of every layer.
        task: The pretext task: v3s, or a row of the paper's Tables 1 and 3.
        epochs: Passes over the videos.
        batch_size: Clips in a step, over all processes.
        learning_rate: Of SGD; default 0.005 for r3d, 0.01 for the others.
        momentum: Of SGD.
        weight_decay: Of SGD.
        patience: Epochs without a better validation loss after which the learning rate falls to a tenth.
        train_clips: Clips of each training video in an epoch; more than 1 gives few videos epochs of some length.
        parts: Divide the training videos into so many parts, of which every batch takes as many clips each. Of several
            processes, whose number must divide it, each then reads and holds its own parts alone.
        validation_videos: Videos held out, drawn by the seed; default the paper's share (800 of 9,537), at most 800.
        validation_clips: Fixed clips of each validation video.
        loading: workers reads in processes; resident holds a store whole in the memory of the GPU (or of the host) and
            makes batches there; auto is resident on a GPU where the store fits into its memory beside the network.
        batch_norm: local takes each process's own statistics, sync all processes', frozen the running ones; auto is
            sync on several GPUs, else local.
        compile: Compile the network with torch.compile; on a GPU also the warp of frames that it holds, and search for
            the fastest convolutions. A run begins half a minute or more later.
        checkpoint_seconds: At most this long between two checkpoints.
        resume: Go on with the run in the folder, or start it if there is none.
        overwrite: Replace the run in the folder.
    """

    out: str
    backbone: str = "r3d"
    width: float = 1.0
    task: str = "v3s"
    epochs: int = 300
    batch_size: int = 32
    learning_rate: float | None = None
    momentum: float = 0.9
    weight_decay: float = 5e-4
    patience: int = 50
    train_clips: int = 1
    parts: int = 1
    validation_videos: int | None = None
    validation_clips: int = 1
    loading: Loading = "auto"
    batch_norm: BatchNorm = "auto"
    compile: bool = False
    checkpoint_seconds: float = 300.0
    resume: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "epochs", "batch_size", "width", "train_clips", "parts", "validation_clips", "patience")
        require_positive(self, *CLIP_SIZES, "learning_rate")
        require_not_negative(self, "momentum", "weight_decay")
        if self.batch_size % self.parts:
            raise ValueError(f"batch_size {self.batch_size} is no multiple of the {self.parts} parts")
        if self.parts > 1 and (self.train_clips > 1 or self.short == "fit"):
            raise ValueError("a video belongs to one of several parts: choose --train-clips 1 and --short leave-out")

    @property
    def initial_rate(self) -> float:
        """The learning rate to start with (paper section 4.1.2)."""
        return self.learning_rate or (0.005 if self.backbone == "r3d" else 0.01)


@dataclass(frozen=True, kw_only=True)
class CheckConfig(VideoOptions):
    """Read every video once and report which are usable, too short, partial or unreadable.

    Attributes:
        min_frames: Frames that a usable video needs; 69 is the longest span of the paper's task.
        out: File for one JSON line for each video.
        workers: Processes that read. Default: one for each core.
    """

    min_frames: int = 69
    out: str | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        require_not_negative(self, "min_frames", "workers")


@dataclass(frozen=True, kw_only=True)
class PrepareConfig(VideoOptions):
    """Decode every video once into a store; every command takes it as --data in place of the folder of videos.

    Attributes:
        out: Folder of the store; what it holds already is kept, also under new dates of the videos.
        subset: Part of the split.
        pixel_format: yuv keeps the codec's planes (4:2:0, 1.5 bytes a pixel), jpeg packs them to a tenth with some
            loss, rgb takes 3 bytes a pixel.
        short_side: Frames with a longer short side are shrunk to it; smaller ones are kept as they are.
        workers: Processes that decode. Default: one for each core.
        overwrite: Replace the store in the folder.
    """

    out: str
    subset: Subset = "all"
    pixel_format: PixelFormat = "yuv"
    short_side: int = SHORT_SIDE
    workers: int | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        require_positive(self, "short_side")
        require_not_negative(self, "workers")


@dataclass(frozen=True, kw_only=True)
class PreviewConfig(ClipOptions, VideoOptions):
    """Show real clips under each of the four transforms, with their labels: the paper's Figure 2, of your videos.

    Attributes:
        out: The HTML page to write.
        task: The pretext task.
        num_videos: How many videos to show, evenly spaced over the list.
        seed: Of the clips.
    """

    out: str = "preview.html"
    task: str = "v3s"
    num_videos: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        require_positive(self, "num_videos", *CLIP_SIZES)
        require_files(self, "out")
        if problem := seed_problem(self.seed):
            raise ValueError(problem)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(ComputeOptions, VideoOptions):
    """Measure both heads of a pre-trained model on videos that it has not seen.

    Attributes:
        backbone: A run's folder.
        clips: Fixed clips of each video.
        batch_size: Clips in a batch.
        out: JSON file for the accuracies and confusion matrices.
    """

    backbone: str
    clips: int = 4
    batch_size: int = 32
    out: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "clips", "batch_size")
        require_files(self, "out")


@dataclass(frozen=True, kw_only=True)
class AuditConfig(ComputeOptions, ClipOptions, VideoOptions):
    """Measure how much of each label can be read without looking at what a video shows.

    With a backbone, its heads are asked about videos and about noise, frozen and shuffled frames; its own task and
    clips count, not the options here. Without one, a linear probe reads gradients, borders and motion of the clips
    under both zooms and the recipe v3s-plus; trim_bars adds the same less bars.

    Attributes:
        backbone: A run's folder; give videos that it has not seen.
        task: The pretext task.
        clips: Fixed clips of each video.
        batch_size: Clips in a batch.
        out: JSON file for the scores.
        page: HTML page with tables, charts and, for a backbone, what it was shown.
    """

    backbone: str | None = None
    task: str = "v3s"
    clips: int = 4
    batch_size: int = 16
    out: str | None = None
    page: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "clips", "batch_size", *CLIP_SIZES)
        require_files(self, "out", "page")
        if self.short != "leave-out":
            raise ValueError(f"short is {self.short!r}; an audit leaves short videos out")


@dataclass(frozen=True, kw_only=True)
class ResultsConfig:
    """Print a table of a study as Markdown, made from its runs' own files.

    Attributes:
        study: Folder of runs named NETWORK-ROW-SEED, as benchmarks/study.py makes it.
        table: Which one; curves draws how both heads learned.
        charts: Folder for the SVG files of the curves.
    """

    study: str
    table: Literal[
        "budget",
        "recognition",
        "retrieval",
        "probe",
        "similarity",
        "pretext",
        "pixels",
        "audit-spatial",
        "audit-temporal",
        "curves",
    ]
    charts: str = "."


@dataclass(frozen=True, kw_only=True)
class DemoConfig(ComputeOptions):
    """Make clips, check them, pre-train a narrow network and write a report: the whole road in minutes.

    Attributes:
        out: Folder of the demo.
        data: A folder of your own videos; without it 64 short clips are made.
        epochs: Passes over the videos; default as many as a few minutes on two cores allow.
        overwrite: Replace the demo in the folder.
    """

    out: str = "demo"
    data: str | None = None
    epochs: int | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "epochs")


def require_files(config: Any, *names: str) -> None:
    """Refuse folders where files are to be written, before hours of work rather than after.

    Raises:
        ValueError: one of these options names a folder.
    """
    for name in names:
        if (value := getattr(config, name)) is not None and Path(value).is_dir():
            raise ValueError(f"{name} is {value}, a folder; give the name of a file in it")


def require_positive(config: Any, *names: str) -> None:
    """Refuse numbers that are not above 0; one that was left out is fine.

    Raises:
        ValueError: one of these options is 0 or less.
    """
    for name in names:
        if (value := getattr(config, name)) is not None and value <= 0:
            raise ValueError(f"{name} is {value}; it must be more than 0")


def require_not_negative(config: Any, *names: str) -> None:
    """Refuse numbers below 0; one that was left out is fine.

    Raises:
        ValueError: one of these options is below 0.
    """
    for name in names:
        if (value := getattr(config, name)) is not None and value < 0:
            raise ValueError(f"{name} is {value}; it must be 0 or more")
