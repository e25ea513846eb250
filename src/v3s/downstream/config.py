"""The configuration of the downstream commands: one frozen dataclass each."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from v3s.config import ComputeOptions, VideoOptions, require_files, require_not_negative, require_positive
from v3s.data.listing import Subset
from v3s.downstream.features import Pool


@dataclass(frozen=True, kw_only=True)
class BackboneOptions(ComputeOptions):
    """Which network, and which clips it is shown.

    Attributes:
        backbone: A run's folder, a safetensors file in one, random:NAME[@WIDTH] for random weights (random:r3d), or
            random:RUN for random weights in the network of a run.
        clip_frames: Frames of a clip; default what the backbone was trained on.
        clip_size: Side of a clip in pixels; default what the backbone was trained on.
        num_clips: Clips of each video, evenly spaced.
        batch_size: Clips in a forward pass.
    """

    backbone: str
    clip_frames: int | None = None
    clip_size: int | None = None
    num_clips: int = 10
    batch_size: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "clip_frames", "clip_size", "num_clips", "batch_size")


@dataclass(frozen=True, kw_only=True)
class LabelledOptions:
    """Labelled videos in two parts: training videos (the gallery) and test videos (the queries).

    Attributes:
        data: A folder of videos in class folders (with the folders train and test in it, or with splits), or a list.
        splits: Official split lists (a folder, or a CSV file) of UCF101, HMDB51 or Kinetics-400, with videos in data.
        split: Number of the official split.
        test_data: A folder or list of the test videos, where data holds no test part.
        allow_missing: Go on although videos of the list are missing.
    """

    data: str
    splits: str | None = None
    split: int = 1
    test_data: str | None = None
    allow_missing: bool = False


@dataclass(frozen=True, kw_only=True)
class RetrieveConfig(BackboneOptions, LabelledOptions):
    """Retrieve videos of the same class by nearest neighbours (paper section 4.4, Tables 4 and 5).

    Attributes:
        stage: The backbone's stage that the vectors come from.
        pool: mean averages it, max is the paper's last pooling layer (9,216 numbers).
        centre: Subtract the gallery's mean vector first.
        out: JSON file for the result.
        page: HTML page with queries and their neighbours as thumbnails.
        page_queries: Queries shown on the page.
    """

    stage: str = "conv5"
    pool: Pool = "max"
    centre: bool = False
    out: str | None = None
    page: str | None = None
    page_queries: int = 12

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "page_queries")
        require_files(self, "out", "page")


@dataclass(frozen=True, kw_only=True)
class ProbeConfig(BackboneOptions, LabelledOptions):
    """Classify frozen features: a linear probe and nearest neighbours, with few-label curves.

    Attributes:
        stage: The backbone's stage that the vectors come from.
        pool: mean averages it, max max-pools it by two.
        k: Neighbours that vote.
        few_labels: Labels of each class in the few-label runs; those that a class does not have are left out.
        repeats: Draws of each few-label run.
        out: JSON file for the result.
    """

    stage: str = "conv5"
    pool: Pool = "mean"
    k: int = 20
    few_labels: tuple[int, ...] = (1, 5, 10)
    repeats: int = 5
    out: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "k", "repeats")
        require_files(self, "out")
        if any(number < 1 for number in self.few_labels):
            raise ValueError(f"few_labels is {self.few_labels}; each number must be more than 0")


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(ComputeOptions, LabelledOptions):
    """Fine-tune a backbone to recognise actions, then test it with ten clips a video (paper section 4.3, Table 2).

    Attributes:
        out: Folder of the run.
        backbone: A run's folder, a safetensors file, or random:NAME[@WIDTH], random:RUN for training from scratch.
        clip_frames: Frames of a clip; default what the backbone was trained on (the paper gives s3dg 64).
        clip_size: Side of a clip in pixels; default what the backbone was trained on.
        epochs: Passes over the training videos.
        batch_size: Clips in a step.
        learning_rate: Of SGD; default 0.001, for s3dg 0.01.
        momentum: Of SGD.
        weight_decay: Of SGD.
        decay_epochs: Epochs after which the learning rate falls to a tenth, again and again.
        flip: Mirror half of the training clips.
        validation_videos: Held out of the training list to choose the best epoch; default the paper's share.
        test_clips: Clips of each test video.
        average: What is averaged over a video's clips: probabilities (the paper) or logits.
        checkpoint_seconds: At most this long between two checkpoints.
        resume: Go on with the run in the folder, or start it if there is none.
        overwrite: Replace the run in the folder.
    """

    out: str
    backbone: str
    clip_frames: int | None = None
    clip_size: int | None = None
    epochs: int = 160
    batch_size: int = 8
    learning_rate: float | None = None
    momentum: float = 0.9
    weight_decay: float = 5e-4
    decay_epochs: int = 100
    flip: bool = False
    validation_videos: int | None = None
    test_clips: int = 10
    average: Literal["probabilities", "logits"] = "probabilities"
    checkpoint_seconds: float = 300.0
    resume: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "epochs", "batch_size", "decay_epochs", "test_clips")
        require_positive(self, "clip_frames", "clip_size", "learning_rate")
        require_not_negative(self, "momentum", "weight_decay")


@dataclass(frozen=True, kw_only=True)
class SimilarityConfig(BackboneOptions):
    """Tell whether two videos show the same action (paper section 4.5, Table 6).

    Attributes:
        data: Folder of the videos.
        pairs: ASLAN's View2.mat, or a CSV file with the columns a, b, same, fold and paths below data; without it,
            pairs are drawn from the labelled videos in data so that no class is in two folds.
        view1_train: ASLAN's train_pairs.mat, to choose the SVM's C on View-1.
        view1_test: ASLAN's test_pairs.mat.
        splits: Official split lists of UCF101, HMDB51 or Kinetics-400, for the labels of drawn pairs.
        split: Number of the official split.
        subset: Part of the split that pairs are drawn from.
        num_folds: Folds of drawn pairs.
        pairs_per_fold: Pairs in a fold, half of them of one class.
        stages: The backbone's stages that are compared.
        stride: Frames between the starts of a video's clips; 0 takes num_clips clips instead.
        c: The SVM's C where View-1 does not choose it.
        out: JSON file for the result.
    """

    data: str
    pairs: str | None = None
    view1_train: str | None = None
    view1_test: str | None = None
    splits: str | None = None
    split: int = 1
    subset: Subset = "all"
    num_folds: int = 10
    pairs_per_fold: int = 200
    stages: tuple[str, ...] = ("conv3", "conv4", "conv5")
    stride: int = 8
    c: float = 1.0
    out: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_files(self, "out")
        if self.stride < 0 or self.c <= 0 or not self.stages:
            given = f"stride {self.stride}, c {self.c}, stages {self.stages}"
            raise ValueError(f"{given} given; a stride of 0 or more, a c above 0 and at least one stage are needed")
        if (self.view1_train is None) != (self.view1_test is None) or (self.view1_train and not self.pairs):
            raise ValueError("View-1 needs both its lists, view1_train and view1_test, and the pairs of View-2")
        if self.pairs and self.splits:
            raise ValueError(f"both pairs {self.pairs} and splits {self.splits} were given; give one")


@dataclass(frozen=True, kw_only=True)
class ExplainConfig(ComputeOptions):
    """Show where a network looks (Grad-CAM; paper section 4.6, Figure 5).

    Attributes:
        video: The video.
        backbone: A run's folder: of pretrain (spatial and temporal heads) or of finetune (recognition).
        head: Whose logit is explained; default recognition for a fine-tuned network, temporal for a pre-trained one.
        target: The class's name or number; default the one that the network predicts.
        stage: The backbone's stage that is looked at; conv4 is finer in time and space than conv5.
        start: First frame of the clip; default the middle of the video.
        out: Folder for the overlay (MP4 and GIF) and the contact sheet (PNG).
    """

    video: str
    backbone: str
    head: Literal["spatial", "temporal", "recognition"] | None = None
    target: str | None = None
    stage: str = "conv5"
    start: int | None = None
    out: str = "explain"

    def __post_init__(self) -> None:
        super().__post_init__()
        if Path(self.out).is_file():
            raise ValueError(f"out is {self.out}, a file; give a folder")


@dataclass(frozen=True, kw_only=True)
class SpeedinessConfig(ComputeOptions):
    """The speediness curve of a video, from the temporal head (paper section 3.4, Figure 4).

    Attributes:
        video: The video.
        backbone: A run's folder, pre-trained with a task that has speeds (ts, ts+tp, v3s).
        stride: Frames between two windows.
        batch_size: Windows in a forward pass.
        out: The HTML page; a JSON file with the curve is written beside it.
    """

    video: str
    backbone: str
    stride: int = 2
    batch_size: int = 16
    out: str = "speediness.html"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "stride", "batch_size")
        require_files(self, "out")
        if Path(self.out).suffix == ".json":
            raise ValueError(f"out is {self.out}; give the HTML page, the JSON file is written beside it")


@dataclass(frozen=True, kw_only=True)
class EmbedConfig(BackboneOptions, VideoOptions):
    """Turn every video into one vector, or one for each clip.

    Attributes:
        out: Folder for the vectors.
        subset: Part of the split.
        stage: The backbone's stage that the vectors come from.
        pool: mean averages it, max max-pools it by two.
        stride: Frames between the starts of a sliding window's clips; 0 takes num_clips clips.
        per_clip: Keep a vector for each clip instead of their mean.
        dtype: Type of the numbers in the files.
        shard: Embed part i of n of the list only, as i/n from 1/n to n/n, each into a folder of its own; v3s merge
            puts the folders together.
        shard_videos: Videos in a file: a killed run loses at most one file's.
        export: Also write the vectors as npy, csv or parquet.
        overwrite: Replace the vectors in the folder.
    """

    out: str
    subset: Subset = "all"
    stage: str = "conv5"
    pool: Pool = "mean"
    stride: int = 0
    per_clip: bool = False
    dtype: Literal["float16", "float32"] = "float16"
    shard: str = "1/1"
    shard_videos: int = 1000
    export: Literal["npy", "csv", "parquet"] | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "shard_videos")
        parse_shard(self.shard)


@dataclass(frozen=True, kw_only=True)
class MergeConfig:
    """Put folders of vectors together, such as those of embed --shard: v3s merge PART PART ... --out ALL.

    Attributes:
        parts: Folders of vectors, in the order that their videos are to have.
        out: Folder for all of them.
        overwrite: Replace the vectors in the folder.
    """

    parts: tuple[str, ...]
    out: str
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True)
class IndexConfig:
    """Build an approximate index (FAISS) over vectors, for collections past a million clips, and measure its recall.

    Attributes:
        vectors: Folder of the vectors that embed wrote.
        recall_queries: Vectors that the recall is measured with.
        k: Neighbours that the recall is measured at.
        seed: Of the choice of these vectors.
    """

    vectors: str
    recall_queries: int = 200
    k: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        require_positive(self, "recall_queries", "k")


@dataclass(frozen=True, kw_only=True)
class SearchConfig(ComputeOptions):
    """Find the videos that are most like a given one: v3s search a.mp4 --in VECTORS -k 10.

    Attributes:
        query: The video to search with.
        vectors: Folder of the vectors that embed wrote.
        backbone: The network of these vectors; default the one that embed used.
        k: Videos to find, fewer where there are not so many.
        approximate: Use the index that v3s index built.
        out: JSON file for the result.
        page: HTML page with thumbnails.
    """

    query: str
    vectors: str
    backbone: str | None = None
    k: int = 10
    approximate: bool = False
    out: str | None = None
    page: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "k")
        require_files(self, "out", "page")


def parse_shard(shard: str) -> tuple[int, int]:
    """``"2/5"`` to (2, 5).

    Raises:
        ValueError: it is not of that form, or not from 1/n to n/n.
    """
    number, _, count = shard.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise ValueError(f"shard is {shard!r}; it must be i/n from 1/n to n/n, such as 2/5")
    return int(number), int(count)
