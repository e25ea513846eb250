"""``v3s demo``: the full pipeline in minutes, on generated clips or your own videos, with a report at the end."""

import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from rich.console import Console

from v3s.backbones.device import ComputeOptions
from v3s.commands.check import CheckConfig, check
from v3s.commands.demo_page import DemoResult, write_demo_page
from v3s.commands.evaluate import EvaluateConfig, evaluate
from v3s.commands.pretrain import PretrainConfig, pretrain
from v3s.data.clips import hold_out
from v3s.data.lists.listfile import write_list
from v3s.data.lists.splits import list_videos
from v3s.data.scan import Scan
from v3s.data.synthetic import MOTIONS, make_clips
from v3s.files.text import say
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
_MIN_VIDEOS = 6
_MARK, _REPORT = "demo.json", "report.html"


@dataclass(frozen=True, kw_only=True)
class DemoConfig(ComputeOptions):
    """Run the full pipeline in minutes, on generated clips or your own: check, pre-train, evaluate, write a report.

    Attributes:
        data: A folder of your own videos. Without it, 64 short clips are generated.
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
            six usable videos.
    """
    console, start = console or Console(), time.monotonic()
    out = _open(config)
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
    data = folder if config.data is None else Path(config.data)
    needed = TASKS["v3s"].longest_span(_CLIP_FRAMES)
    checked = CheckConfig(data=str(data), subset="all", min_frames=needed, out=str(out / "check.jsonl"))
    scanned = check(checked, console=console)
    train, test = _split_videos(config, scanned, out)
    trained = pretrain(_training(config, train, out), console=console)
    evaluation = EvaluateConfig(
        data=str(test),
        subset="all",
        backbone=str(trained.run),
        clips=max(1, round(NUM_TEST_CLIPS / len(list_videos(test, subset="all")))),
        workers=config.workers,
        device=config.device,
        precision=config.precision,
        seed=config.seed,
        out=str(out / "scores.json"),
    )
    scores = evaluate(evaluation, console=console)
    retrieval = _retrieve(config, train, test, trained.run, console)
    write_demo_page(
        out / _REPORT,
        DemoResult(scanned, train, test, trained, scores, retrieval, time.monotonic() - start, config.data is None),
    )
    return out / _REPORT


def _open(config: DemoConfig) -> Path:
    """Create the folder of the demo: empty, except for the file that marks it as a demo."""
    out = Path(config.out)
    if out.is_dir() and any(out.iterdir()):
        if not (out / _MARK).is_file():
            raise ValueError(f"{out} is not empty and does not contain a demo; choose another folder with --out")
        if not config.overwrite:
            raise ValueError(f"{out} already contains a demo; use --overwrite to replace it")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / _MARK, asdict(config))
    return out


def _split_videos(config: DemoConfig, scanned: Scan, out: Path) -> tuple[Path, Path]:
    """Write two lists of the usable videos; a quarter is held out. Of generated clips, it is the last two per motion.

    If all videos have labels, each line also contains the label.
    """
    videos = scanned.videos
    paths = [str((videos.root / videos.paths[number]).resolve()) for number in scanned.usable]
    labels = {} if None in scanned.usable_labels else dict(zip(paths, scanned.usable_labels, strict=True))
    if len(paths) < _MIN_VIDEOS:
        raise ValueError(
            f"{videos.root} has {len(paths)} usable videos; a demo needs {_MIN_VIDEOS}, to train on some and to hold "
            "others out"
        )
    if config.data is None:
        count = _NUM_HELD_OUT // len(MOTIONS)
        last = {path for motion in MOTIONS for path in [p for p in paths if Path(p).parent.name == motion][-count:]}
        parts = [path for path in paths if path not in last], sorted(last)
    else:
        kept, held = hold_out(len(paths), max(2, len(paths) // 4), config.seed)
        parts = [paths[number] for number in kept], [paths[number] for number in held]
    files = out / "train.txt", out / "test.txt"
    for file, listed in zip(files, parts, strict=True):
        write_list(file, [(path, labels.get(path)) for path in listed])
    return files


def _retrieve(config: DemoConfig, train: Path, test: Path, run: Path, console: Console) -> dict[str, RetrievalResult]:
    """Retrieve training videos of the same class for held-out videos, with the trained network and random weights."""
    if len(list_videos(train).classes) < 2 or not list_videos(test, subset="all").classes:
        say(console, "retrieval skipped: it needs videos in several class folders")
        return {}
    return {
        name: retrieve(
            RetrieveConfig(
                data=str(train),
                test_data=str(test),
                backbone=backbone,
                num_clips=_NUM_RETRIEVAL_CLIPS,
                workers=config.workers,
                device=config.device,
                precision=config.precision,
                seed=config.seed,
                out=str(out),
            ),
            console=console,
        )
        for name, backbone, out in (
            ("trained", str(run), run.parent / "retrieval.json"),
            ("random weights", f"random:{run}", run.parent / "retrieval_random.json"),
        )
    }


def _training(config: DemoConfig, train: Path, out: Path) -> PretrainConfig:
    num_videos = len(list_videos(train, subset="all"))
    num_validation = max(1, num_videos // 8)
    train_clips = max(1, round(CLIPS_PER_EPOCH / (num_videos - num_validation)))
    num_clips = train_clips * (num_videos - num_validation)
    return PretrainConfig(
        data=str(train),
        subset="all",
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
