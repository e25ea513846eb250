"""``v3s reproduce``: the protocol of one of the paper's tables, its numbers beside ours, and what differed.

All tables may share one folder, and then share what they can: a network is pre-trained once on one task.

=====================================  =============================================================================
``reproduce.json``                     the settings of the folder: rows of two settings never mix
``lists/``                             the videos that were chosen, at a scale that takes only some
``pretrain/r2plus1d-v3s/``             a run of ``v3s pretrain``
``retrieve-ucf101/r2plus1d-v3s/``      what was asked of it; a row is done when its ``result.json`` is there
``table4.json``                        the table
=====================================  =============================================================================
"""

import csv
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
from v3s.data.lists.splits import VideoList, list_videos
from v3s.files.text import say, text_table
from v3s.files.writing import read_json, write_atomically, write_json
from v3s.pretext.task import TASKS
from v3s.protocols.finetune import RESULT, FinetuneConfig, finetune
from v3s.protocols.ranking import PAPER_KS
from v3s.protocols.retrieve import RetrieveConfig, retrieve
from v3s.protocols.similarity import SimilarityConfig, similarity
from v3s.train.run import hash_of_files

_SETTINGS = "reproduce.json"


@dataclass(frozen=True, slots=True)
class _Scale:
    """Every value that a smaller machine may make smaller; None takes the backbone's own, or all videos there are."""

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
    """Run the protocol of one of the paper's tables and print the paper's numbers beside ours.

    Attributes:
        table: table1 to table6.
        data: Folder of UCF101's videos (or of others in class folders), to pre-train on and for tables 1 to 4.
        splits: Official split lists of these videos.
        out: Folder of the runs; finished ones are not run again.
        scale: paper, or tiny: narrow networks, small clips and few videos, for minutes on two cores.

    More options:
        split: Number of the official split.
        allow_missing: Continue although videos of the lists are missing.
        hmdb51: Folder of HMDB51's videos, for table5 and the second column of table2.
        hmdb51_splits: Official split lists of HMDB51.
        aslan: Folder of ASLAN's videos, for table6. Default: pairs are drawn from data, no class in two folds.
        aslan_pairs: Folder of ASLAN's lists: View2.mat, and train_pairs.mat and test_pairs.mat for View-1.
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
        if self.table not in TABLES:
            raise ValueError(f"there is no {self.table!r}; give one of {', '.join(TABLES)}")
        if self.table == "table5" and self.hmdb51 is None:
            raise ValueError("table5 is about HMDB51: give its videos and lists with --hmdb51 and --hmdb51-splits")
        if not any(self.rows in row.name for row in TABLES[self.table].rows):
            names = "; ".join(row.name for row in TABLES[self.table].rows)
            raise ValueError(f"no row of {self.table} contains {self.rows!r}; there are: {names}")


@dataclass(frozen=True, slots=True)
class _RowResult:
    """What a trial of a row gave: its scores and those of a guess, in percent, and the videos that it used."""

    scores: tuple[float, ...]
    chance: tuple[float, ...]
    standard_error: float | None
    videos: str


@dataclass(frozen=True, slots=True)
class _Job:
    """A reproduction, with its videos chosen: ``videos`` are the options that name them for each data set."""

    config: ReproduceConfig
    scale: _Scale
    videos: dict[Dataset, dict[str, Any]]
    console: Console

    @property
    def compute(self) -> dict[str, Any]:
        return {field.name: getattr(self.config, field.name) for field in fields(ComputeOptions)}


def reproduce(config: ReproduceConfig, *, console: Console | None = None) -> Path:
    """Run what is not finished of a table's rows, and print the paper's numbers beside ours.

    Args:
        config: which table, of which videos, at which scale.
        console: where to report; the terminal by default.

    Returns:
        The table as JSON.

    Raises:
        ValueError: the videos cannot be listed, or the folder holds rows of other settings.
        TrainingStoppedError: on SIGINT or SIGTERM; the same command resumes.

    Source: paper Tables 1 to 6.
    """
    console = console or Console()
    job = _open(config, console)
    table = TABLES[config.table]
    trials = tuple(trial for trial in table.trials if trial[1] in job.videos)
    outcomes = {
        row: [_run(job, row, protocol, dataset) for protocol, dataset in trials]
        for row in table.rows
        if config.rows in row.name
    }
    differences = _differences(job, table, next(iter(outcomes.values())))
    console.print(_table(config.table, trials, outcomes))
    for line in differences:
        say(console, line)
    path = Path(config.out) / f"{config.table}.json"
    write_json(path, _description(job, trials, outcomes, differences))
    return path


def _table(name: str, trials: Sequence[Trial], outcomes: dict[Row, list[_RowResult]]) -> Table:
    """The paper's scores above ours, row by row, in percent, and those of a guess below."""
    header = ("row", "whose", *_score_names(trials))
    shown = text_table(f"{name}: {TABLES[name].title}", header, num_names=2)
    for row, trial_outcomes in outcomes.items():
        ours = [
            f"{score:.1f}" + ("" if outcome.standard_error is None else f" ± {outcome.standard_error:.1f}")
            for outcome in trial_outcomes
            for score in outcome.scores
        ]
        shown.add_row(row.name, "paper", *(f"{score:.1f}" for score in row.paper[: len(ours)]))
        shown.add_row("", "ours", *ours, end_section=True)
    guesses = (score for outcome in next(iter(outcomes.values())) for score in outcome.chance)
    shown.add_row("a guess", "ours", *(f"{score:.1f}" for score in guesses))
    return shown


def _score_names(trials: Sequence[Trial]) -> list[str]:
    names = []
    for protocol, dataset in trials:
        names += [f"top {k}" for k in PAPER_KS] if protocol == "retrieve" else [dataset.upper()]
    return names


def _open(config: ReproduceConfig, console: Console) -> _Job:
    """List the videos, mark the folder with the settings or check its mark, and choose videos if the scale says so."""
    scale, out = SCALES[config.scale], Path(config.out)
    given = {name: getattr(config, name) for name in ("data", "splits", "split", "allow_missing")}
    train, test = (list_videos(**given, subset=subset) for subset in ("train", "test"))
    files = hash_of_files((*train.paths, *test.paths))
    settings = {"scale": asdict(scale), "seed": config.seed, "files_sha256": files}
    if (out / _SETTINGS).is_file():
        before = read_json(out / _SETTINGS)
        changed = [name for name in settings if before.get(name) != settings[name]]
        if changed:
            raise ValueError(f"{out} holds rows with other {' and '.join(changed)}; choose another folder with --out")
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is not empty and holds no reproduction; choose another folder with --out")
    else:
        write_json(out / _SETTINGS, settings)
    if scale.classes is not None:
        classes = train.classes[: scale.classes]
        _write_list(out / "lists" / "train.csv", train, classes, scale.train_videos_of_a_class)
        _write_list(out / "lists" / "test.csv", test, classes, scale.test_videos_of_a_class)
        given = {"data": str(train.root), "splits": str(out / "lists")}
    videos: dict[Dataset, dict[str, Any]] = {"ucf101": given}
    videos["aslan"] = given if config.aslan is None else {"data": config.aslan, **_aslan_lists(config)}
    if config.hmdb51 is not None:
        videos["hmdb51"] = {"data": config.hmdb51, "splits": config.hmdb51_splits}
    return _Job(config, scale, videos, console)


def _aslan_lists(config: ReproduceConfig) -> dict[str, str]:
    if config.aslan_pairs is None:
        raise ValueError(f"aslan {config.aslan} was given without its lists; give their folder with --aslan-pairs")
    folder = Path(config.aslan_pairs)
    lists = {"pairs": "View2.mat", "view1_train": "train_pairs.mat", "view1_test": "test_pairs.mat"}
    return {
        option: str(folder / name)
        for option, name in lists.items()
        if option == "pairs" or (folder / "train_pairs.mat").is_file()
    }


def _write_list(file: Path, listed: VideoList, classes: Sequence[str], most: int | None) -> None:
    """Write a list of some classes with at most ``most`` videos of each, evenly spaced over the class."""
    lines = []
    for name in classes:
        paths = [path for path, label in zip(listed.paths, listed.labels, strict=True) if label == name]
        count = min(len(paths), most or len(paths))
        lines += [(paths[number * len(paths) // count], name) for number in range(count)]

    def write(beside: Path) -> None:
        with beside.open("w", encoding="utf-8", errors="surrogateescape", newline="") as opened:
            csv.writer(opened).writerows(lines)

    write_atomically(file, write)


def _run(job: _Job, row: Row, protocol: Protocol, dataset: Dataset) -> _RowResult:
    """What a trial of a row gave, run if it was not before."""
    task = "random" if row.task is None else next(name for name in TASKS if TASKS[name] == TASKS[row.task])
    out = Path(job.config.out) / f"{protocol}-{dataset}" / f"{row.backbone}-{task}"
    if not (out / RESULT).is_file():
        job.console.rule(f"{row.name}: {protocol}, {dataset.upper()}")
        backbone = f"random:{row.backbone}@{job.scale.width:g}" if row.task is None else _pretrained(job, row, task)
        _RUN[protocol](job, row, backbone, job.videos[dataset], out)
    return _READ[protocol](read_json(out / RESULT))


def _pretrained(job: _Job, row: Row, task: str) -> str:
    """The run of a network that was pre-trained on a task; it resumes where it was stopped."""
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
    found = result["result"]
    videos = f"{result['num_pairs']:,} pairs of {result['num_videos']:,} videos ({result['source']})"
    return _RowResult((100 * found["mean"],), (100 * result["chance"],), 100 * found["standard_error"], videos)


_READ = {"finetune": _read_recognition, "retrieve": _read_retrieval, "similarity": _read_similarity}


def _differences(job: _Job, table: PaperTable, outcomes: Sequence[_RowResult]) -> list[str]:
    """What differed from the paper, a line each; its open points and our readings are in docs/paper.md."""
    lines = []
    for name, value in asdict(SCALES["paper"]).items():
        if (ours := getattr(job.scale, name)) != value:
            full = "the network's own" if name.startswith("clip_") else "all"
            lines.append(f"{name.replace('_', ' ')}: {ours}; the paper: {full if value is None else f'{value:g}'}")
    trials = [trial for trial in table.trials if trial[1] in job.videos]
    for (_, dataset), outcome in zip(trials, outcomes, strict=True):
        lines.append(f"videos: {outcome.videos}; the paper: {dataset.upper()}, {PAPER_VIDEOS[dataset]}")
    for _, dataset in set(table.trials) - set(trials):
        lines.append(f"{dataset.upper()}: skipped, since its videos were not given")
    if job.config.scale != "paper":
        lines.append("at this scale the numbers show that the protocol runs, not what the method reaches")
    lines.append(f"one run a row, seed {job.config.seed}; the paper does not say how many its numbers are of")
    return lines


def _description(
    job: _Job, trials: Sequence[Trial], outcomes: dict[Row, list[_RowResult]], differences: list[str]
) -> dict[str, Any]:
    return {
        "table": job.config.table,
        "scale": {"name": job.config.scale, **asdict(job.scale)},
        "seed": job.config.seed,
        "scores": _score_names(trials),
        "rows": [{**asdict(row), "ours": [asdict(one) for one in found]} for row, found in outcomes.items()],
        "differences": differences,
    }
