"""``v3s similarity``: do two videos show the same action? (paper section 4.5, Table 6).

The pairs are ASLAN's, those of a CSV file, or drawn from labelled videos. Only videos that occur in pairs are looked
at, and every pair counts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from v3s.data.index_table import IndexTable
from v3s.data.lists.listing import Subset
from v3s.data.lists.splits import VideoList, list_videos
from v3s.data.usable import usable_videos
from v3s.data.views import View, count_padded
from v3s.features.encoder import Encoder, open_encoder
from v3s.features.extract import Feature, mean_features
from v3s.features.source import BackboneOptions
from v3s.files.text import say, text_table
from v3s.files.writing import write_json
from v3s.options import require_files
from v3s.protocols.aslan import locate_samples, read_aslan_pairs
from v3s.protocols.pairs import VideoPair, disjoint_class_pairs, read_pairs_csv
from v3s.protocols.similarity_measures import (
    BoolArray,
    SimilarityResult,
    choose_c,
    evaluate_folds,
    pair_features,
)
from v3s.video.homography import FloatArray


@dataclass(frozen=True, kw_only=True)
class SimilarityConfig(BackboneOptions):
    """Decide whether two videos show the same action (paper section 4.5, Table 6).

    Attributes:
        data: Folder of the videos.
        pairs: ASLAN's View2.mat, or a CSV file with the columns a, b, same, fold and paths relative to data. Default:
            pairs are drawn from the labelled videos in data so that no class is in two folds.
        out: JSON file for the result.

    More options:
        view1_train: ASLAN's train_pairs.mat, to choose the SVM's C on View-1.
        view1_test: ASLAN's test_pairs.mat.
        splits: Official split lists of UCF101, HMDB51 or Kinetics-400, for the labels of drawn pairs.
        split: Number of the official split.
        subset: Part of the split that pairs are drawn from.
        num_folds: Folds of drawn pairs.
        pairs_per_fold: Pairs in a fold, half of them of one class.
        stages: The backbone's stages that are compared.
        stride: Frames between the starts of a video's clips; 0 takes num_clips clips instead.
        c: The SVM's C, unless View-1 chooses it.
    """

    data: Annotated[str, "DATA"]
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


@dataclass(frozen=True, slots=True)
class SimilarityReport:
    """How well pairs of the same action are distinguished from others.

    Attributes:
        result: accuracy of each fold, their mean and its standard error, and the area under the ROC curve.
        chance: the mean accuracy of always giving the commoner answer; 0.5 where half of the pairs are of one action.
        c: the machine's C.
        chosen: whether View-1 chose it.
        num_pairs: pairs in the folds; all of them count.
        num_videos: videos that occur in these pairs, or in those of View-1.
        source: one line: what was read.
    """

    result: SimilarityResult
    chance: float
    c: float
    chosen: bool
    num_pairs: int
    num_videos: int
    source: str


@dataclass(frozen=True, slots=True, eq=False)
class _PairedVideos:
    """Pairs and the videos in them.

    Attributes:
        pairs: of the folds.
        view1: ASLAN's pairs to choose C with: to train on, and to test on; empty without.
        rows: name of each video -> its row in ``table``.
        table: the videos, each of which occurs in some pair.
        source: one line: what was read.
        left_out: path and reason of each video that no pair was drawn from, since it cannot be read.
    """

    pairs: list[VideoPair]
    view1: tuple[list[VideoPair], ...]
    rows: dict[str, int]
    table: IndexTable
    source: str
    left_out: dict[str, str]


def similarity(config: SimilarityConfig, *, console: Console | None = None) -> SimilarityReport:
    """Tell pairs of the same action from others, by twelve similarities at each stage and a linear machine.

    Args:
        config: which network, which pairs.
        console: where to report; the terminal by default.

    Raises:
        ValueError: there is no such backbone or stage, the pairs cannot be read or drawn, a video of a pair is missing
            or cannot be read, the folds cannot be trained on, or a stage gives negative numbers.
        ImportError: scikit-learn is missing, or, for ASLAN's own lists, scipy or h5py.

    Source: paper section 4.5.
    """
    console = console or Console()
    encoder = open_encoder(config, [Feature(stage, "mean") for stage in config.stages], stride=config.stride)
    videos = _draw_pairs(config, console) if config.pairs is None else _read_pairs(config, console)
    same, fold = _truth(videos.pairs)
    evaluate_folds(np.zeros((len(same), 1)), same, fold, config.c)  # says what is wrong with folds before the long work
    _say_videos(videos, encoder.view, console)
    stages = _stage_vectors(encoder, videos.table, console)
    c = _choose_c(videos, stages) if videos.view1 else config.c
    result = evaluate_folds(_features(videos, videos.pairs, stages), same, fold, c)
    report = SimilarityReport(
        result, _chance(same, fold), c, bool(videos.view1), len(same), len(videos.table), videos.source
    )
    console.print(_table(report, sorted(set(fold.tolist()))))
    if config.out is not None:
        write_json(Path(config.out), _description(config, encoder, videos, report))
    return report


def _table(report: SimilarityReport, folds: Sequence[int]) -> Table:
    """The accuracy of each fold, their mean, and the area under the curve, beside chance."""
    origin = "chosen on View-1" if report.chosen else "given"
    title = f"{report.num_pairs:,} pairs of {report.num_videos:,} videos; C = {report.c:g} ({origin})"
    accuracies = zip(folds, report.result.fold_accuracy, strict=True)
    rows = [(f"accuracy, fold {fold}", f"{accuracy:.1%}", "") for fold, accuracy in accuracies]
    table = text_table(title, ("score", "result", "chance"), rows)
    mean = f"{report.result.mean:.1%} ± {report.result.standard_error:.1%}"
    table.add_row("mean accuracy ± standard error", mean, f"{report.chance:.1%}", style="bold")
    table.add_row("area under the ROC curve", f"{report.result.auc:.3f}", "0.500")
    return table


def _draw_pairs(config: SimilarityConfig, console: Console) -> _PairedVideos:
    """Draw pairs from the labelled videos that can be read; those that cannot are named."""
    listed = list_videos(config.data, splits=config.splits, split=config.split, subset=config.subset)
    if None in listed.labels:
        first = listed.paths[listed.labels.index(None)]
        raise ValueError(
            f"{listed.source}: {listed.labels.count(None):,} of them have no label, first: {first}; pairs are drawn by "
            "class: put the videos in one folder for each class, or give --splits, or your own --pairs"
        )
    found = usable_videos(listed, min_frames=1, console=console, workers=config.workers)
    pairs = disjoint_class_pairs(
        [listed.paths[position] for position in found.usable],
        [str(label) for label in found.usable_labels],
        generator=np.random.default_rng(config.seed),
        num_folds=config.num_folds,
        pairs_per_fold=config.pairs_per_fold,
    )
    names = _names(pairs)
    rows = {listed.paths[position]: row for row, position in enumerate(found.usable)}
    left_out = {report.path: report.reason for report in found.reports if report.verdict != "usable"}
    table = found.usable_table.subset([rows[name] for name in names])
    source = f"{listed.source}; pairs drawn with seed {config.seed}"
    return _PairedVideos(pairs, (), {name: row for row, name in enumerate(names)}, table, source, left_out)


def _read_pairs(config: SimilarityConfig, console: Console) -> _PairedVideos:
    """Read pairs from a file; every video in them must be there and readable."""
    root = Path(config.data)
    if not root.is_dir():
        raise ValueError(f"data {root} is not a folder; give the one that holds the videos of the pairs")
    pairs = _read_list(str(config.pairs), root)
    view1 = tuple(_read_list(given, root) for given in (config.view1_train, config.view1_test) if given is not None)
    listed_pairs = [*pairs, *(pair for part in view1 for pair in part)]
    names = _names(listed_pairs)
    _refuse(config, listed_pairs, {name: "no such file" for name in names if not (root / name).is_file()})
    source = f"pairs {config.pairs} of videos in {root}"
    listed = VideoList(root, names, (None,) * len(names), (), source)
    found = usable_videos(listed, min_frames=1, console=console, workers=config.workers)
    _refuse(config, listed_pairs, {bad.path: bad.reason for bad in found.reports if bad.verdict != "usable"})
    return _PairedVideos(pairs, view1, {name: row for row, name in enumerate(names)}, found.usable_table, source, {})


def _read_list(path: str, root: Path) -> list[VideoPair]:
    """Read one list of pairs: MATLAB is ASLAN's, with numbers for names; CSV has paths relative to the data."""
    if not Path(path).is_file():
        raise ValueError(f"pairs {path}: no such file; give ASLAN's .mat file or a .csv file")
    if Path(path).suffix == ".mat":
        return locate_samples(read_aslan_pairs(path), root)
    if Path(path).suffix == ".csv":
        return read_pairs_csv(path)
    raise ValueError(f"pairs {path}: the name ends neither in .mat (ASLAN) nor in .csv (a, b, same, fold)")


def _refuse(config: SimilarityConfig, pairs: Sequence[VideoPair], bad: dict[str, str]) -> None:
    """Stop if there are bad videos, given with a reason: a pair is never dropped."""
    if not bad:
        return
    num_hit, num_videos = sum(pair.a in bad or pair.b in bad for pair in pairs), len(_names(pairs))
    name, reason = next(iter(bad.items()))
    raise ValueError(
        f"{config.pairs}: {len(bad):,} of {num_videos:,} videos cannot be used, in {num_hit:,} of {len(pairs):,} "
        f"pairs; first: {Path(config.data) / name}: {reason}; put them right or take their pairs out of the list"
    )


def _names(pairs: Sequence[VideoPair]) -> tuple[str, ...]:
    """The videos that occur in pairs, in the order of their names."""
    return tuple(sorted({name for pair in pairs for name in (pair.a, pair.b)}))


def _say_videos(videos: _PairedVideos, view: View, console: Console) -> None:
    """Say what a reader of the accuracy should know of the videos."""
    say(console, f"{len(videos.pairs):,} pairs of {len(videos.table):,} videos")
    if padded := count_padded(videos.table, view):
        text = f"{padded:,} of {len(videos.table):,} videos are shorter than {view.clip_frames} frames"
        say(console, f"{text}: their last frame is repeated")
    folds: dict[str, set[int]] = {}
    for pair in videos.pairs:
        for name in (pair.a, pair.b):
            folds.setdefault(name, set()).add(pair.fold)
    if repeated := sum(len(found) > 1 for found in folds.values()):
        say(console, f"{repeated:,} videos are in more than one fold: the accuracy is not one on unseen actions")


def _stage_vectors(encoder: Encoder, table: IndexTable, console: Console) -> list[Tensor]:
    """For each stage the videos' vectors: global average, mean over clips, length 1; float32, shape (videos, D)."""
    vectors = mean_features(_without_negatives(encoder, table, console))
    return [F.normalize(stage, dim=1) for stage in vectors]


def _without_negatives(encoder: Encoder, table: IndexTable, console: Console) -> Iterator[tuple[int, list[Tensor]]]:
    """The features of videos; a negative one is refused."""
    for video, kinds in encoder.encode_features(table, console=console):
        for feature, vectors in zip(encoder.features, kinds, strict=True):
            if not (vectors >= 0).all():
                raise ValueError(
                    f"stage {feature.stage!r} of {encoder.source.name} gives {vectors.min():g} for "
                    f"{table[video].path}; the twelve similarities need numbers of 0 or more: "
                    "name --stages that end in a ReLU"
                )
        yield video, kinds


def _truth(pairs: Sequence[VideoPair]) -> tuple[BoolArray, npt.NDArray[np.int64]]:
    """Whether each pair is of one action, and its fold."""
    return np.array([pair.same for pair in pairs]), np.array([pair.fold for pair in pairs], np.int64)


def _features(videos: _PairedVideos, pairs: Sequence[VideoPair], stages: Sequence[Tensor]) -> FloatArray:
    """Twelve numbers a stage for each pair."""
    a, b = ([videos.rows[name] for name in side] for side in zip(*((pair.a, pair.b) for pair in pairs), strict=True))
    return pair_features([stage[a] for stage in stages], [stage[b] for stage in stages]).numpy()


def _choose_c(videos: _PairedVideos, stages: Sequence[Tensor]) -> float:
    """Choose C on View-1, which the folds do not share."""
    (train, train_same), (test, test_same) = (
        (_features(videos, part, stages), _truth(part)[0]) for part in videos.view1
    )
    return choose_c(train, train_same, test, test_same)


def _chance(same: BoolArray, fold: npt.NDArray[np.int64]) -> float:
    """The mean accuracy over the folds of always giving the answer that is commoner in all pairs."""
    right = same == (same.mean() >= 0.5)
    return float(np.mean([right[fold == number].mean() for number in np.unique(fold)]))


def _description(
    config: SimilarityConfig, encoder: Encoder, videos: _PairedVideos, report: SimilarityReport
) -> dict[str, Any]:
    return {
        "backbone": config.backbone,
        "fingerprint": encoder.source.fingerprint,
        "seed": config.seed,
        "view": asdict(encoder.view),
        "stages": list(config.stages),
        "left_out": videos.left_out,
        **asdict(report),
    }
