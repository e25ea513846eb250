"""``v3s reproduce``: run the protocol of a table of the paper; print its numbers next to ours, and the differences.

All tables can use the same folder and then share runs: a network is pre-trained only once per task.

=====================================  =============================================================================
``reproduce.json``                     the settings of the folder: rows with other settings are refused
``lists/``                             the chosen videos, at a scale that uses only some of them
``pretrain/r2plus1d-v3s/``             a run of ``v3s pretrain``
``retrieve-ucf101/r2plus1d-v3s/``      the result of one protocol; a row is done once ``result.json`` exists
``table4.json``                        the table
=====================================  =============================================================================
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from rich.console import Console
from rich.table import Table

from v3s.backbones.device import ComputeOptions
from v3s.commands.paper_tables import PAPER_VIDEOS, TABLES, Dataset, PaperTable, Protocol, Row, Trial
from v3s.commands.pretrain import PretrainConfig, pretrain
from v3s.commands.recipes import RECIPES
from v3s.data.lists.listfile import write_list
from v3s.data.lists.splits import VideoList, list_videos
from v3s.files.reading import read_json
from v3s.files.remote.address import absolute, hide_secrets
from v3s.files.text import counted, print_table, say, text_table
from v3s.files.writing import write_json
from v3s.pretext.task import TASKS
from v3s.protocols.finetune import FinetuneConfig, finetune
from v3s.protocols.retrieve import PAPER_KS, RetrieveConfig, retrieve
from v3s.protocols.similarity import SimilarityConfig, similarity
from v3s.train.run import RESULT, hash_of_files

_SETTINGS = "reproduce.json"


@dataclass(frozen=True, slots=True)
class _Scale:
    """The values that can be reduced for a smaller machine; None uses the value of the backbone, or all videos."""

    width: float = 1.0
    clip_frames: int | None = None
    clip_size: int | None = None
    pretrain_epochs: int = 300
    pretrain_batch_size: int = 32
    finetune_epochs: int = 160
    clips_of_a_video: int = 10
    similarity_stride: int = 8
    similarity_folds: int = 10
    pairs_in_a_fold: int = 600
    classes: int | None = None
    train_videos_of_a_class: int | None = None
    test_videos_of_a_class: int | None = None


SCALES = {
    "paper": _Scale(),
    "tiny": _Scale(
        width=0.125,
        clip_frames=8,
        clip_size=48,
        pretrain_epochs=3,
        pretrain_batch_size=8,
        finetune_epochs=3,
        clips_of_a_video=2,
        similarity_stride=32,
        similarity_folds=2,
        pairs_in_a_fold=20,
        classes=6,
        train_videos_of_a_class=6,
        test_videos_of_a_class=3,
    ),
}


@dataclass(frozen=True, kw_only=True)
class ReproduceConfig(ComputeOptions):
    """Run the protocol of a table of the paper and print the paper's numbers next to ours.

    Attributes:
        table: table1 to table6.
        data: Folder of the UCF101 videos (or of other videos in class folders), for pre-training and tables 1 to 4.
        splits: Official split lists of these videos.
        out: Folder for the runs; finished runs are skipped.
        scale: paper is the full protocol; tiny has narrow networks, small clips and few videos, and takes minutes on
            two cores.

    More options:
        split: Number of the official split.
        allow_missing: Continue without the videos of the lists that are missing.
        hmdb51: Folder of the HMDB51 videos, for table5 and the second column of table2.
        hmdb51_splits: Official split lists of HMDB51.
        aslan: Folder of the ASLAN videos, for table6. Default: draw pairs from --data, with no class in two folds.
        aslan_pairs: Folder of the ASLAN lists: View2.mat, and train_pairs.mat and test_pairs.mat for View-1.
        rows: Run only the rows whose name contains this text.
    """

    table: Annotated[str, "TABLE"]
    data: str
    splits: str | None = None
    split: int = 1
    allow_missing: bool = False
    hmdb51: str | None = None
    hmdb51_splits: str | None = None
    aslan: str | None = None
    aslan_pairs: str | None = None
    out: str = "reproduce"
    scale: Literal["paper", "tiny"] = "paper"
    rows: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        hide_secrets(self, "data", "hmdb51", "aslan")
        if self.table not in TABLES:
            raise ValueError(f"table is {self.table!r}; it must be one of {', '.join(TABLES)}")
        if self.table == "table5" and self.hmdb51 is None:
            raise ValueError("table5 is on HMDB51; give its videos and lists with --hmdb51 and --hmdb51-splits")
        if not any(self.rows in row.name for row in TABLES[self.table].rows):
            names = "; ".join(row.name for row in TABLES[self.table].rows)
            raise ValueError(f"no row of {self.table} contains {self.rows!r}; its rows are: {names}")


@dataclass(frozen=True, slots=True)
class _RowResult:
    """The result of one trial of a row: its scores and chance, in percent, and the videos that it used."""

    scores: tuple[float, ...]
    chance: tuple[float, ...]
    standard_error: float | None
    videos: str


@dataclass(frozen=True, slots=True)
class _Job:
    """A reproduction with its videos: ``videos`` are the options that select them, by dataset."""

    config: ReproduceConfig
    scale: _Scale
    videos: dict[Dataset, dict[str, Any]]
    console: Console

    @property
    def compute(self) -> dict[str, Any]:
        return {field.name: getattr(self.config, field.name) for field in fields(ComputeOptions)}


def reproduce(config: ReproduceConfig, *, console: Console | None = None) -> Path:
    """Run the unfinished rows of a table, and print the paper's numbers next to ours.

    Args:
        config: the table, the videos and the scale.
        console: where to print; the terminal by default.

    Returns:
        The table as JSON.

    Raises:
        ValueError: the videos cannot be listed, or the folder contains rows with other settings.
        TrainingStoppedError: on SIGINT or SIGTERM; the same command resumes.

    Source: paper Tables 1 to 6.
    """
    console = console or Console()
    job = _open(config, console)
    table = TABLES[config.table]
    trials = tuple(trial for trial in table.trials if trial[1] in job.videos)
    results = {
        row: [_run(job, row, protocol, dataset) for protocol, dataset in trials]
        for row in table.rows
        if config.rows in row.name
    }
    differences = _differences(job, table, next(iter(results.values())))
    print_table(console, _table(config.table, trials, results))
    for line in differences:
        say(console, line)
    path = Path(config.out) / f"{config.table}.json"
    write_json(path, _description(job, trials, results, differences))
    return path


def _table(name: str, trials: Sequence[Trial], results: dict[Row, list[_RowResult]]) -> Table:
    """The paper's scores above ours for each row, in percent, and chance at the bottom."""
    header = ("row", "source", *_score_names(trials))
    shown = text_table(f"{name}: {TABLES[name].title}", header, num_names=2)
    for row, row_results in results.items():
        ours = [
            f"{score:.1f}" + ("" if result.standard_error is None else f" ± {result.standard_error:.1f}")
            for result in row_results
            for score in result.scores
        ]
        shown.add_row(row.name, "paper", *(f"{score:.1f}" for score in row.paper[: len(ours)]))
        shown.add_row("", "ours", *ours, end_section=True)
    chance = (score for result in next(iter(results.values())) for score in result.chance)
    shown.add_row("chance", "ours", *(f"{score:.1f}" for score in chance))
    return shown


def _score_names(trials: Sequence[Trial]) -> list[str]:
    names = []
    for protocol, dataset in trials:
        names += [f"top {k}" for k in PAPER_KS] if protocol == "retrieve" else [dataset.upper()]
    return names


def _open(config: ReproduceConfig, console: Console) -> _Job:
    """List the videos, write or check the settings of the folder, and choose videos if the scale uses only some."""
    scale, out = SCALES[config.scale], Path(config.out)
    listing = {name: getattr(config, name) for name in ("data", "splits", "split", "allow_missing")}
    train, test = (list_videos(**listing, subset=subset) for subset in ("train", "test"))
    files = hash_of_files((*train.paths, *test.paths))
    others = _other_videos(config)
    settings: dict[Any, Any] = {"scale": asdict(scale), "seed": config.seed, "files_sha256": files, **others}
    before: dict[str, Any] = {}
    if (out / _SETTINGS).is_file():
        before = read_json(out / _SETTINGS)
        changed = [name for name, value in settings.items() if before.get(name, value) != value]
        if changed:
            raise ValueError(f"{out} contains rows with other {' and '.join(changed)}; choose another --out")
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is not empty and does not contain a reproduction; choose another --out")
    write_json(out / _SETTINGS, {**before, **settings})
    if scale.classes is not None:
        classes = train.classes[: scale.classes]
        _write_list(out / "lists" / "train.csv", train, classes, scale.train_videos_of_a_class)
        _write_list(out / "lists" / "test.csv", test, classes, scale.test_videos_of_a_class)
        listing = {"data": str(train.root), "splits": str(out / "lists")}
    videos: dict[Dataset, dict[str, Any]] = {"ucf101": listing}
    videos |= {name: listing if options is None else options for name, options in others.items()}
    return _Job(config, scale, videos, console)


def _other_videos(config: ReproduceConfig) -> dict[Dataset, dict[str, Any] | None]:
    """The options that select the videos of the table's other datasets; None selects those of --data."""
    used = {dataset for _, dataset in TABLES[config.table].trials}
    others: dict[Dataset, dict[str, Any] | None] = {}
    if "aslan" in used:
        others["aslan"] = None if config.aslan is None else {"data": absolute(config.aslan), **_aslan_lists(config)}
    if "hmdb51" in used and config.hmdb51 is not None:
        others["hmdb51"] = {"data": absolute(config.hmdb51), "splits": config.hmdb51_splits}
    return others


def _aslan_lists(config: ReproduceConfig) -> dict[str, str]:
    if config.aslan_pairs is None:
        raise ValueError(f"aslan is {config.aslan}, but its lists are missing; give their folder with --aslan-pairs")
    folder = Path(config.aslan_pairs)
    lists = {"pairs": "View2.mat", "view1_train": "train_pairs.mat", "view1_test": "test_pairs.mat"}
    return {
        option: str(folder / name)
        for option, name in lists.items()
        if option == "pairs" or (folder / "train_pairs.mat").is_file()
    }


def _write_list(file: Path, listed: VideoList, classes: Sequence[str], max_videos: int | None) -> None:
    """Write a list of some classes with at most ``max_videos`` videos of each, evenly spaced in the class."""
    videos: list[tuple[str, str | None]] = []
    for name in classes:
        paths = [path for path, label in zip(listed.paths, listed.labels, strict=True) if label == name]
        count = min(len(paths), max_videos or len(paths))
        videos += [(paths[number * len(paths) // count], name) for number in range(count)]
    write_list(file, videos)


def _run(job: _Job, row: Row, protocol: Protocol, dataset: Dataset) -> _RowResult:
    """The result of one trial of a row; runs it unless it is finished."""
    task = "random" if row.task is None else next(name for name in TASKS if TASKS[name] == TASKS[row.task])
    out = Path(job.config.out) / f"{protocol}-{dataset}" / f"{row.backbone}-{task}"
    if not (out / RESULT).is_file():
        job.console.rule(f"{row.name}: {protocol}, {dataset.upper()}")
        backbone = f"random:{row.backbone}@{job.scale.width:g}" if row.task is None else _pretrained(job, row, task)
        _RUN[protocol](job, row, backbone, job.videos[dataset], out)
    return _READ[protocol](read_json(out / RESULT))


def _pretrained(job: _Job, row: Row, task: str) -> str:
    """Pre-train a network on a task, or resume that training; returns the folder of the run."""
    scale = job.scale
    config = PretrainConfig(
        **{
            **RECIPES[f"ucf101-{row.backbone}"],
            "validation_videos": None,  # the paper's share, also of fewer videos
            "epochs": scale.pretrain_epochs,
            "batch_size": scale.pretrain_batch_size,
        },
        **job.videos["ucf101"],
        **job.compute,
        task=task,
        width=scale.width,
        clip_frames=scale.clip_frames,
        clip_size=scale.clip_size,
        out=str(Path(job.config.out) / "pretrain" / f"{row.backbone}-{task}"),
        resume=True,
    )
    return str(pretrain(config, console=job.console).run)


def _finetune(job: _Job, row: Row, backbone: str, videos: dict[str, Any], out: Path) -> None:
    scale = job.scale
    config = FinetuneConfig(
        **videos,
        **job.compute,
        out=str(out),
        backbone=backbone,
        epochs=scale.finetune_epochs,
        clip_frames=scale.clip_frames or (64 if row.backbone == "s3dg" else None),
        clip_size=scale.clip_size,
        test_clips=scale.clips_of_a_video,
        resume=True,
    )
    finetune(config, console=job.console)


def _retrieve(job: _Job, row: Row, backbone: str, videos: dict[str, Any], out: Path) -> None:
    config = RetrieveConfig(
        **videos,
        **_frozen(job, backbone, out),
        num_clips=job.scale.clips_of_a_video,
        pool="mean" if row.backbone == "s3dg" else "max",
    )
    retrieve(config, console=job.console)


def _similarity(job: _Job, row: Row, backbone: str, videos: dict[str, Any], out: Path) -> None:
    scale = job.scale
    config = SimilarityConfig(
        **{name: value for name, value in videos.items() if name != "allow_missing"},
        **_frozen(job, backbone, out),
        stride=scale.similarity_stride,
        num_folds=scale.similarity_folds,
        pairs_per_fold=scale.pairs_in_a_fold,
    )
    similarity(config, console=job.console)


def _frozen(job: _Job, backbone: str, out: Path) -> dict[str, Any]:
    sizes = {"clip_frames": job.scale.clip_frames, "clip_size": job.scale.clip_size}
    return {**job.compute, **sizes, "backbone": backbone, "out": str(out / RESULT)}


_RUN = {"finetune": _finetune, "retrieve": _retrieve, "similarity": _similarity}


def _read_recognition(result: dict[str, Any]) -> _RowResult:
    videos = f"{result['train_source']}; {result['test_source']}"
    scores, chance = (100 * result["top_1"],), (100 * result["chance"],)
    return _RowResult(scores, chance, 100 * result["standard_error"], videos)


def _read_retrieval(result: dict[str, Any]) -> _RowResult:
    scores, chance = (tuple(100 * result[name][str(k)] for k in PAPER_KS) for name in ("accuracy", "chance"))
    return _RowResult(scores, chance, None, f"{result['gallery']}; {result['queries']}")


def _read_similarity(result: dict[str, Any]) -> _RowResult:
    scores = result["result"]
    videos = f"{counted(result['num_pairs'], 'pair')} of {counted(result['num_videos'], 'video')} ({result['source']})"
    return _RowResult((100 * scores["mean"],), (100 * result["chance"],), 100 * scores["standard_error"], videos)


_READ = {"finetune": _read_recognition, "retrieve": _read_retrieval, "similarity": _read_similarity}


def _differences(job: _Job, table: PaperTable, results: Sequence[_RowResult]) -> list[str]:
    """What differs from the paper, one line each; docs/paper.md lists its open points and our readings."""
    lines = []
    for name, value in asdict(SCALES["paper"]).items():
        if (ours := getattr(job.scale, name)) != value:
            full = "that of the network" if name.startswith("clip_") else "all"
            lines.append(f"{name.replace('_', ' ')}: {ours}; the paper: {full if value is None else f'{value:g}'}")
    trials = [trial for trial in table.trials if trial[1] in job.videos]
    for (_, dataset), result in zip(trials, results, strict=True):
        lines.append(f"videos: {result.videos}; the paper: {dataset.upper()}, {PAPER_VIDEOS[dataset]}")
    for _, dataset in set(table.trials) - set(trials):
        lines.append(f"{dataset.upper()}: skipped because its videos were not given")
    if job.config.scale != "paper":
        lines.append("at this scale, the numbers show that the protocol works, not what the method can achieve")
    lines.append(f"one run per row, seed {job.config.seed}; the paper does not state its number of runs")
    return lines


def _description(
    job: _Job, trials: Sequence[Trial], results: dict[Row, list[_RowResult]], differences: list[str]
) -> dict[str, Any]:
    return {
        "table": job.config.table,
        "scale": {"name": job.config.scale, **asdict(job.scale)},
        "seed": job.config.seed,
        "scores": _score_names(trials),
        "rows": [{**asdict(row), "ours": [asdict(one) for one in row_results]} for row, row_results in results.items()],
        "differences": differences,
    }
