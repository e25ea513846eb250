"""``v3s demo``: the full pipeline in minutes, on generated clips or your own videos, with a report at the end."""

import shutil
import time
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from v3s.backbones.device import ComputeOptions
from v3s.commands.check import CheckConfig, check
from v3s.commands.demo_page import TEST_LIST, TRAIN_LIST, DemoResult, Division, write_demo_page
from v3s.commands.evaluate import EvaluateConfig, evaluate
from v3s.commands.pretrain import PretrainConfig, pretrain
from v3s.data.groups import GroupOptions, hold_out, number_groups, unite
from v3s.data.lists.folder import subset_folders
from v3s.data.lists.listfile import write_list
from v3s.data.scan import Scan
from v3s.data.synthetic import MOTIONS, make_clips
from v3s.files.lock import LOCK, is_free, only_writer
from v3s.files.own import is_own
from v3s.files.remote.address import hide_secrets
from v3s.files.text import counted, say
from v3s.files.writing import write_json
from v3s.options import require_positive
from v3s.pretext.task import TASKS
from v3s.protocols.retrieve import RetrievalResult, RetrieveConfig, retrieve

_NUM_GENERATED, _NUM_HELD_OUT = 64, 16
_GENERATED_FRAMES, _GENERATED_HEIGHT, _GENERATED_WIDTH = 48, 96, 128  # small, so that reading them is fast
_BACKBONE, _WIDTH, _CLIP_FRAMES, _CLIP_SIZE = "r2plus1d", 0.125, 8, 48
_BATCH_SIZE, _LEARNING_RATE = 16, 0.05
CLIPS_PER_EPOCH, _EPOCHS = 672, 18
NUM_VALIDATION_CLIPS, NUM_TEST_CLIPS, _NUM_RETRIEVAL_CLIPS = 96, 480, 4
_MIN_VIDEOS, _MIN_GROUPS = 6, 3
_FOLDER = "(.+)/"  # as --group: the folder of a video
_MARK, _REPORT = "demo.json", "report.html"


@dataclass(frozen=True, kw_only=True)
class DemoConfig(ComputeOptions, GroupOptions):
    """Run the full pipeline in minutes, on generated clips or your own: check, pre-train, evaluate, write a report.

    A quarter of your videos is held out, in whole groups: those of --group, or of the names of UCF101, or, if every
    video lies two folders deep, as in class/film/clip.mp4, its folder. Without any of these, clips of one film may be
    on both sides, and the demo says so.

    Attributes:
        data: A folder of your own videos, or its URL. Without it, 64 short clips are generated.
        out: Folder for the demo.
        epochs: Passes over the videos. Default: as many as a few minutes on two cores allow.
        overwrite: Replace the demo in the folder.
    """

    out: str = "demo"
    data: Annotated[str | None, "DATA"] = None
    epochs: int | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        hide_secrets(self, "data")
        require_positive(self, "epochs")


def demo(config: DemoConfig, *, console: Console | None = None) -> Path:
    """Generate or read videos, check them, hold some out, pre-train a narrow network, evaluate it and write a report.

    Args:
        config: the folder and the videos.
        console: where to print; the terminal by default.

    Returns:
        The report, an HTML page.

    Raises:
        ValueError: the folder contains something else, or a demo and ``overwrite`` is false; or there are fewer than
            six usable videos, or fewer than three groups of them.
    """
    console, start = console or Console(), time.monotonic()
    with only_writer(Path(config.out)):
        return _demo(config, _open(config), console, start)


def _demo(config: DemoConfig, out: Path, console: Console, start: float) -> Path:
    """Run the demo in its folder; ``start`` is when it began."""
    folder = out / "videos"
    if config.data is None:
        make_clips(
            folder,
            num_videos=_NUM_GENERATED,
            num_frames=_GENERATED_FRAMES,
            height=_GENERATED_HEIGHT,
            width=_GENERATED_WIDTH,
            seed=config.seed,
        )
        say(console, f"generated {_NUM_GENERATED} clips in {folder} ({time.monotonic() - start:.0f} s)")
    needed = TASKS["v3s"].longest_span(_CLIP_FRAMES)
    data = str(folder) if config.data is None else config.data
    checked = CheckConfig(data=data, subset="all", min_frames=needed, out=str(out / "check.jsonl"))
    scanned = check(checked, console=console)
    division = _divide(config, scanned, out, console)
    trained = pretrain(_training(config, division, out), console=console)
    evaluation = EvaluateConfig(
        data=str(division.root),
        splits=str(out / TEST_LIST),
        subset="all",
        group=division.test_group,
        backbone=str(trained.run),
        clips=max(1, round(NUM_TEST_CLIPS / len(division.videos(TEST_LIST)))),
        workers=config.workers,
        device=config.device,
        precision=config.precision,
        seed=config.seed,
        out=str(out / "scores.json"),
    )
    scores = evaluate(evaluation, console=console)
    retrieval = _retrieve(config, division, trained.run, console)
    write_demo_page(
        out / _REPORT,
        DemoResult(scanned, division, trained, scores, retrieval, time.monotonic() - start, config.data is None),
    )
    return out / _REPORT


def _open(config: DemoConfig) -> Path:
    """Empty the folder of the demo, except for the file that marks it as a demo; one without a report is unfinished."""
    out = Path(config.out)
    if not is_free(out):
        if not is_own(out / _MARK):
            raise ValueError(f"{out} is not empty and does not contain a demo; choose another folder with --out")
        if (out / _REPORT).is_file() and not config.overwrite:
            raise ValueError(f"{out} already contains a demo; use --overwrite to replace it")
        for path in out.iterdir():
            if path.name not in (LOCK, _MARK):  # so that it stays a demo
                remove = shutil.rmtree if path.is_dir() and not path.is_symlink() else Path.unlink
                remove(path)
    write_json(out / _MARK, asdict(config))
    return out


def _divide(config: DemoConfig, scanned: Scan, out: Path, console: Console) -> Division:
    """Write two lists of the usable videos; a quarter is held out. Of generated clips, it is the last two per motion.

    Paths are relative to the folder of the videos. If all videos have labels, each line also contains the label, unless
    no class is on both sides.
    """
    videos = scanned.videos
    paths = [videos.paths[place] for place in scanned.usable]
    labels = {} if None in scanned.usable_labels else dict(zip(paths, map(str, scanned.usable_labels), strict=True))
    if len(paths) < _MIN_VIDEOS:
        raise ValueError(
            f"{videos.root} has {counted(len(paths), 'usable video')}; a demo needs {_MIN_VIDEOS}, to train on some "
            "and to hold others out"
        )
    group, num_held = config.group, 0
    if config.data is None:
        count = _NUM_HELD_OUT // len(MOTIONS)
        last = {path for motion in MOTIONS for path in [p for p in paths if Path(p).parent.name == motion][-count:]}
        parts, remark = ([path for path in paths if path not in last], sorted(last)), ""
    else:
        groups = number_groups(paths, group)
        if group is None and len(np.unique(groups)) == len(paths) and _lie_deep(paths):
            group, labels = _FOLDER, {path: Path(path).parts[-3] for path in paths}
            groups = number_groups(paths, group)
        parts, num_held, remark = _draw(paths, groups, scanned.usable_table.fingerprints, config.seed)
        say(console, remark)
    if not {labels.get(path) for path in parts[0]} & {labels.get(path) for path in parts[1]}:
        labels = {}
    for name, listed in zip((TRAIN_LIST, TEST_LIST), parts, strict=True):
        write_list(out / name, [(path, labels.get(path)) for path in listed])
    test_group = group if num_held > 1 else None
    return Division(videos.root, out, group, test_group, remark, config.data or str(videos.root))


def _lie_deep(paths: list[str]) -> bool:
    """Whether every video lies two folders deep, as in class/film/clip.mp4, below what is common and any subsets."""
    folders = [PurePosixPath(path).parts[:-1] for path in paths]
    levels = zip(*folders, strict=False)
    num_common = sum(1 for _ in takewhile(lambda names: len(set(names)) == 1, levels))
    return min(map(len, folders)) - num_common >= 2 + bool(subset_folders(paths))


def _draw(
    paths: list[str], groups: NDArray[np.int64], contents: NDArray[np.uint64], seed: int
) -> tuple[tuple[list[str], list[str]], int, str]:
    """Draw a quarter of the videos, in whole groups, so that two groups or more remain: one is to validate on.

    Returns:
        The other videos and those drawn, how many groups were drawn, and how, in words.
    """
    united = unite(contents, groups)
    num_groups = len(np.unique(united))
    if num_groups < _MIN_GROUPS:
        raise ValueError(
            f"the {len(paths):,} usable videos form only {counted(num_groups, 'group')}; a demo needs {_MIN_GROUPS}, "
            "to train, to validate and to test on; change --group"
        )
    kept, held = hold_out(len(paths), max(2, len(paths) // 4), seed, contents, groups)
    if len(np.unique(united[kept])) == 1:
        is_back = united[held] == united[held[0]]
        kept, held = np.union1d(kept, held[is_back]), held[~is_back]
    num_held = len(np.unique(groups[held]))
    if len(np.unique(groups)) < len(paths):
        remark = f"held out: {counted(len(held), 'video')} in {counted(num_held, 'group')}; no group is on both sides"
    else:
        remark = (
            f"held out: {counted(len(held), 'video')}, drawn one by one, since neither names nor folders show groups; "
            "clips of one film may be on both sides, which flatters the scores: --group says which belong together"
        )
    return ([paths[number] for number in kept], [paths[number] for number in held]), num_held, remark


def _retrieve(config: DemoConfig, division: Division, run: Path, console: Console) -> dict[str, RetrievalResult]:
    """Retrieve training videos of the same class for held-out videos, with the trained network and random weights."""
    if len(division.videos(TRAIN_LIST).classes) < 2 or not division.videos(TEST_LIST).classes:
        say(console, "retrieval skipped: it needs videos of several classes, in class folders, on both sides")
        return {}
    found = {}
    for name, backbone, out in (
        ("trained", str(run), run.parent / "retrieval.json"),
        ("random weights", f"random:{run}", run.parent / "retrieval_random.json"),
    ):
        say(console, f"retrieval, {name}:")
        options = RetrieveConfig(
            data=str(division.root),
            splits=str(division.out),
            group=division.test_group,
            backbone=backbone,
            num_clips=_NUM_RETRIEVAL_CLIPS,
            workers=config.workers,
            device=config.device,
            precision=config.precision,
            seed=config.seed,
            out=str(out),
        )
        found[name] = retrieve(options, console=console)
    return found


def _training(config: DemoConfig, division: Division, out: Path) -> PretrainConfig:
    num_videos = len(division.videos(TRAIN_LIST))
    num_validation = max(1, num_videos // 8)
    train_clips = max(1, round(CLIPS_PER_EPOCH / (num_videos - num_validation)))
    num_clips = train_clips * (num_videos - num_validation)
    return PretrainConfig(
        data=str(division.root),
        splits=str(out / TRAIN_LIST),
        subset="all",
        group=division.group,
        out=str(out / "run"),
        backbone=_BACKBONE,
        width=_WIDTH,
        clip_frames=_CLIP_FRAMES,
        clip_size=_CLIP_SIZE,
        epochs=config.epochs or max(1, round(_EPOCHS * CLIPS_PER_EPOCH / num_clips)),
        batch_size=_BATCH_SIZE,
        learning_rate=_LEARNING_RATE,
        train_clips=train_clips,
        validation_videos=num_validation,
        validation_clips=max(1, NUM_VALIDATION_CLIPS // num_validation),
        workers=config.workers,
        device=config.device,
        precision=config.precision,
        seed=config.seed,
    )
