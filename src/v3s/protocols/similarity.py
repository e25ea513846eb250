"""``v3s similarity``: do two videos show the same action? (paper section 4.5, Table 6).

The pairs are those of ASLAN or of a CSV file, or they are drawn from labelled videos. Only videos that occur in pairs
are encoded, and every pair counts.
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
from v3s.data.lists.remote import local_data
from v3s.data.lists.spans import SpanOptions
from v3s.data.lists.splits import VideoList, list_videos
from v3s.data.store_folder import see_as_stored
from v3s.data.usable import report_padded, usable_videos
from v3s.data.views import View
from v3s.features.encoder import Encoder, Feature, Space, mean_features, open_encoder, restored
from v3s.features.source import EncoderOptions
from v3s.files.remote.address import hide_secrets
from v3s.files.text import counted, print_table, say, share_text, text_table
from v3s.files.writing import write_json
from v3s.options import require_files, require_not_negative, require_positive, require_regular
from v3s.protocols.aslan import locate_samples, read_aslan_pairs
from v3s.protocols.labelled import require_labels
from v3s.protocols.labelled.features import require_source
from v3s.protocols.labelled.parts import Labelled
from v3s.protocols.labelled.stages import StoredStages
from v3s.protocols.pairs import VideoPair, disjoint_class_pairs, read_pairs_csv
from v3s.protocols.similarity_measures import (
    BoolArray,
    SimilarityResult,
    choose_c,
    evaluate_folds,
    import_sklearn,
    pair_features,
)
from v3s.video.homography import FloatArray


@dataclass(frozen=True, kw_only=True)
class SimilarityConfig(EncoderOptions, SpanOptions):
    """Decide whether two videos show the same action (paper section 4.5, Table 6).

    Attributes:
        data: Folder of the videos.
        vectors: Folders of vectors from v3s embed, one for each stage, in place of --backbone. Without DATA, pairs are
            of the collection's own names and labels; DATA may be a list file with labels.
        pairs: ASLAN's View2.mat, or a CSV file with the columns a, b, same, fold and paths relative to DATA. Default:
            draw pairs from the labelled videos in DATA, with no class in two folds.
        out: JSON file for the result.

    More options:
        view1_train: ASLAN's train_pairs.mat, to choose the SVM's C on View-1.
        view1_test: ASLAN's test_pairs.mat.
        splits: Official split lists of UCF101, HMDB51 or Kinetics-400, for the labels of drawn pairs.
        split: Number of the official split.
        subset: Part of the split that pairs are drawn from.
        num_folds: Number of folds, if pairs are drawn.
        pairs_per_fold: Pairs per fold, half of them of the same class, if pairs are drawn.
        stages: Stages of the backbone whose features are compared.
        stride: Frames between the starts of consecutive clips; 0 takes --num-clips clips instead.
        c: C of the SVM, unless it is chosen on View-1.
    """

    data: Annotated[str | None, "DATA"] = None
    vectors: Annotated[tuple[str, ...], "--in"] = ()
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
        hide_secrets(self, "data")
        see_as_stored(self)
        require_files(self, out=".json")
        require_source(self)
        if self.vectors and len(self.vectors) != len(self.stages):
            given = f"stages are {', '.join(self.stages)}, and --in names {counted(len(self.vectors), 'folder')}"
            raise ValueError(f"{given}; give one for each stage, in this order, separated by commas")
        require_not_negative(self, "stride")
        require_positive(self, "c")
        if not self.stages:
            raise ValueError("stages is empty; it must name at least one stage of the backbone, such as conv5")
        if self.num_folds < 2:
            raise ValueError(f"num_folds is {self.num_folds}; it must be 2 or more: each is tested, the others train")
        if self.pairs_per_fold < 2 or self.pairs_per_fold % 2:
            raise ValueError(
                f"pairs_per_fold is {self.pairs_per_fold}; it must be an even number: half are of the same action"
            )
        if (self.view1_train is None) != (self.view1_test is None) or (self.view1_train and not self.pairs):
            raise ValueError("View-1 needs both of its lists, view1_train and view1_test, and the pairs of View-2")
        if self.pairs and self.segment:
            raise ValueError(f"pairs ({self.pairs}) name whole videos; omit --segment")
        if self.pairs and self.splits:
            raise ValueError(f"pairs ({self.pairs}) and splits ({self.splits}) cannot be combined; give only one")


@dataclass(frozen=True, slots=True)
class SimilarityReport:
    """How well pairs with the same action are distinguished from pairs with different actions.

    Attributes:
        result: accuracy of each fold, their mean and its standard error, and the area under the ROC curve.
        chance: mean accuracy of always predicting the more frequent kind; 0.5 if half of the pairs are "same".
        c: the SVM's C.
        chosen: whether C was chosen on View-1.
        num_pairs: pairs in the folds; all of them count.
        num_videos: videos that occur in these pairs or in those of View-1.
        source: one line that describes the pairs.
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
        pairs: the pairs of all folds.
        view1: ASLAN's View-1, training pairs and test pairs, to choose C; empty if it is not used.
        rows: name of each video -> its number in ``videos``.
        videos: the videos that occur in pairs; stored features are those of all stages, one after another.
        source: one line that describes the pairs.
    """

    pairs: list[VideoPair]
    view1: tuple[list[VideoPair], ...]
    rows: dict[str, int]
    videos: Labelled
    source: str


def similarity(config: SimilarityConfig, *, console: Console | None = None) -> SimilarityReport:
    """Classify pairs as same or different action, with twelve similarities per stage and a linear SVM.

    Args:
        config: which network, which pairs.
        console: where to report; the terminal by default.

    Raises:
        ValueError: the backbone or stage does not exist, the pairs cannot be read or drawn, a video of a pair is
            missing or unreadable, the folds are unsuitable for training, a stage gives negative numbers, or
            scikit-learn (for ASLAN's own lists also scipy and h5py) is not installed.

    Source: paper section 4.5.
    """
    console = console or Console()
    import_sklearn()  # fails before the long work
    features = [Feature(stage, "mean") for stage in config.stages]
    encoder = None if config.vectors else open_encoder(config, features, stride=config.stride)
    stored = StoredStages.of(config.vectors, config, features, config.stride) if config.vectors else None
    view = encoder.view if encoder else None
    read = _draw_pairs if config.pairs is None else _read_pairs
    videos = read(config, config.spans_for(view), stored, console)
    same, fold = _same_and_fold(videos.pairs)
    evaluate_folds(np.zeros((len(same), 1)), same, fold, config.c)  # reports unsuitable folds before the long work
    _report_videos(videos, view, console)
    stages = _stage_vectors(encoder, stored, videos.videos, console)
    c = _choose_c(videos, stages) if videos.view1 else config.c
    result = evaluate_folds(_features(videos, videos.pairs, stages), same, fold, c)
    report = SimilarityReport(
        result, _chance(same, fold), c, bool(videos.view1), len(same), len(videos.rows), videos.source
    )
    print_table(console, _table(report, sorted(set(fold.tolist()))))
    if config.out is not None:
        write_json(Path(config.out), _description(config, *_network(encoder, stored), videos, report))
    return report


def _table(report: SimilarityReport, folds: Sequence[int]) -> Table:
    """Return the accuracy of each fold, their mean, and the area under the curve, next to chance."""
    origin = "chosen on View-1" if report.chosen else "set by --c"
    title = f"{counted(report.num_pairs, 'pair')} of {counted(report.num_videos, 'video')}; C = {report.c:g} ({origin})"
    accuracies = zip(folds, report.result.fold_accuracy, strict=True)
    rows = [(f"accuracy, fold {fold}", f"{accuracy:.1%}", "") for fold, accuracy in accuracies]
    table = text_table(title, ("score", "result", "chance"), rows)
    mean = share_text(report.result.mean, report.result.standard_error)
    table.add_row("mean accuracy ± standard error", mean, f"{report.chance:.1%}", style="bold")
    table.add_row("area under the ROC curve", f"{report.result.auc:.3f}", "0.500")
    return table


def _draw_pairs(
    config: SimilarityConfig, spans: SpanOptions, stored: StoredStages | None, console: Console
) -> _PairedVideos:
    """Draw pairs from the labelled videos that can be used; others are skipped and reported."""
    if stored:
        listed = stored.list_videos(config.data, config.splits, config.split, config.subset)
    else:
        assert config.data is not None
        listed = list_videos(config.data, splits=config.splits, split=config.split, subset=config.subset, spans=spans)
    require_labels(listed, "or give --splits or your own --pairs: pairs are drawn by class")
    found = stored.take(listed, console) if stored else _read_videos(listed, config, console)
    pairs = disjoint_class_pairs(
        list(found.videos.names),
        found.labels,
        generator=np.random.default_rng(config.seed),
        num_folds=config.num_folds,
        pairs_per_fold=config.pairs_per_fold,
    )
    numbers = {name: number for number, name in enumerate(found.videos.names)}
    names = _names(pairs)
    chosen = found.subset(np.array([numbers[name] for name in names], np.int64))
    source = f"{listed.source}; pairs drawn with seed {config.seed}"
    return _PairedVideos(pairs, (), {name: row for row, name in enumerate(names)}, chosen, source)


def _read_videos(listed: VideoList, config: SimilarityConfig, console: Console) -> Labelled:
    return Labelled.of(usable_videos(listed, min_frames=1, console=console, workers=config.workers))


def _read_pairs(
    config: SimilarityConfig, spans: SpanOptions, stored: StoredStages | None, console: Console
) -> _PairedVideos:
    """Read pairs from a file; all their videos must exist and be readable, or be in the collection."""
    root = stored.contents.root if stored and config.data is None else local_data(str(config.data))
    if not root.is_dir() and not stored:
        raise ValueError(f"data is {root}, which is not a folder; give the folder that contains the pairs' videos")
    pairs = _read_list(str(config.pairs), root)
    view1 = tuple(_read_list(path, root) for path in (config.view1_train, config.view1_test) if path is not None)
    listed_pairs = [*pairs, *(pair for part in view1 for pair in part)]
    names = _names(listed_pairs)
    source = f"pairs {config.pairs} of videos in {root}"
    if stored:
        places = {name: stored.contents.name_of(root, name) for name in names}
        missing = {name: "no vector in the collection" for name, place in places.items() if place is None}
        _require_all(config, root, listed_pairs, missing)
        paths = tuple(str(places[name]) for name in names)
        found = stored.take(VideoList(stored.contents.root, paths, (None,) * len(names), (), source), console)
        if len(found.videos) > len(names):
            raise ValueError(
                f"pairs ({config.pairs}) name whole videos, but --in has vectors of segments; embed whole videos"
            )
        by_path = {place: name for name, place in places.items()}
        skipped = {by_path[path]: reason for path, reason in found.left_out.items()}
    else:
        missing = {name: "no such file" for name in names if not (root / name).exists()}
        _require_all(config, root, listed_pairs, missing)
        listed = VideoList(root, names, (None,) * len(names), (), source, spans=spans)
        found = _read_videos(listed, config, console)
        skipped = found.left_out
    _require_all(config, root, listed_pairs, skipped)
    return _PairedVideos(pairs, view1, {name: row for row, name in enumerate(names)}, found, source)


def _read_list(path: str, root: Path) -> list[VideoPair]:
    """Read one list of pairs: ASLAN's MATLAB format with sample numbers, or CSV with paths relative to the data."""
    require_regular(path)
    if not Path(path).exists():
        raise ValueError(f"pairs {path}: no such file; give ASLAN's .mat file or a .csv file")
    if Path(path).suffix.lower() == ".mat":
        return locate_samples(read_aslan_pairs(path), root)
    if Path(path).suffix.lower() == ".csv":
        return read_pairs_csv(path)
    raise ValueError(f"pairs {path}: unknown file type; give a .mat file (ASLAN) or a .csv file (a, b, same, fold)")


def _require_all(config: SimilarityConfig, root: Path, pairs: Sequence[VideoPair], bad: dict[str, str]) -> None:
    """Stop if any video of a pair is bad: no pair is ever skipped.

    Args:
        config: names the list of pairs.
        root: the folder of the videos.
        pairs: all pairs.
        bad: path of each bad video -> the reason.
    """
    if not bad:
        return
    num_affected, num_videos = sum(pair.a in bad or pair.b in bad for pair in pairs), len(_names(pairs))
    name, reason = next(iter(bad.items()))
    raise ValueError(
        f"{config.pairs}: {len(bad):,} of {num_videos:,} videos cannot be used, in {num_affected:,} of {len(pairs):,} "
        f"pairs; first: {root / name}: {reason}; repair these videos or remove their pairs from the list"
    )


def _names(pairs: Sequence[VideoPair]) -> tuple[str, ...]:
    """Return the names of the videos in pairs, sorted."""
    return tuple(sorted({name for pair in pairs for name in (pair.a, pair.b)}))


def _report_videos(videos: _PairedVideos, view: View | None, console: Console) -> None:
    """Report the facts about the videos that matter for reading the accuracy."""
    say(console, f"{counted(len(videos.pairs), 'pair')} of {counted(len(videos.rows), 'video')}")
    if view and videos.videos.table:
        report_padded({"videos": videos.videos.table}, view, console)
    folds: dict[str, set[int]] = {}
    for pair in videos.pairs:
        for name in (pair.a, pair.b):
            folds.setdefault(name, set()).add(pair.fold)
    if repeated := sum(len(numbers) > 1 for numbers in folds.values()):
        say(console, f"videos in more than one fold: {repeated:,}; the accuracy is not for unseen actions")


def _stage_vectors(
    encoder: Encoder | None, stored: StoredStages | None, videos: Labelled, console: Console
) -> list[Tensor]:
    """Return the videos' vectors at each stage: mean over positions and clips, length 1; float32, shape (videos, D)."""
    if stored:
        vectors = stored.split(videos)
    else:
        assert encoder is not None
        assert videos.table is not None
        vectors = [restored(stage) for stage in mean_features(_without_negatives(encoder, videos.table, console))]
    return [F.normalize(stage, dim=1) for stage in vectors]


def _without_negatives(encoder: Encoder, table: IndexTable, console: Console) -> Iterator[tuple[int, list[Tensor]]]:
    """Yield the features of videos; refuse negative ones."""
    for video, features in encoder.encode_features(table, console=console):
        for feature, vectors in zip(encoder.features, features, strict=True):
            if not (vectors >= 0).all():
                raise ValueError(
                    f"stage {feature.stage!r} of {encoder.source.name} gives {vectors.min():g} for "
                    f"{table[video].path}; the twelve similarities need features of 0 or more: "
                    "choose --stages that end in a ReLU"
                )
        yield video, features


def _same_and_fold(pairs: Sequence[VideoPair]) -> tuple[BoolArray, npt.NDArray[np.int64]]:
    """Return whether each pair has the same action, and its fold."""
    return np.array([pair.same for pair in pairs]), np.array([pair.fold for pair in pairs], np.int64)


def _features(videos: _PairedVideos, pairs: Sequence[VideoPair], stages: Sequence[Tensor]) -> FloatArray:
    """Return twelve numbers per stage for each pair."""
    a, b = ([videos.rows[name] for name in side] for side in zip(*((pair.a, pair.b) for pair in pairs), strict=True))
    return pair_features([stage[a] for stage in stages], [stage[b] for stage in stages]).numpy()


def _choose_c(videos: _PairedVideos, stages: Sequence[Tensor]) -> float:
    """Choose C on View-1, which has no pairs in common with the folds."""
    (train, train_same), (test, test_same) = (
        (_features(videos, part, stages), _same_and_fold(part)[0]) for part in videos.view1
    )
    return choose_c(train, train_same, test, test_same)


def _chance(same: BoolArray, fold: npt.NDArray[np.int64]) -> float:
    """Return the mean accuracy over the folds of always predicting the more frequent kind of all pairs."""
    correct = same == (same.mean() >= 0.5)
    return float(np.mean([correct[fold == number].mean() for number in np.unique(fold)]))


def _network(encoder: Encoder | None, stored: StoredStages | None) -> tuple[str, Space]:
    """The network as it was given, and its weights and clips."""
    if stored:
        return stored.backbone, stored.space
    assert encoder is not None
    return encoder.source.name, encoder.space


def _description(
    config: SimilarityConfig, backbone: str, space: Space, videos: _PairedVideos, report: SimilarityReport
) -> dict[str, Any]:
    return {
        "backbone": backbone,
        "fingerprint": space.weights,
        "seed": config.seed,
        "view": asdict(space.view),
        "stages": list(config.stages),
        "left_out": videos.videos.left_out,
        **asdict(report),
    }
