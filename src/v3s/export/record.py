"""What a run's files say of its training, for a model card: numbers and words, never paths or names of files."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from v3s.features.saved import folder_of
from v3s.files.reading import read_json, read_text
from v3s.files.writing import CheckpointError
from v3s.train.run import CONFIG, MANIFEST, RESULT

_LAST_WEIGHTS = "last"
_MOST_BYTES = 50_000
_WORD = re.compile(r"[\w+.,-]{1,40}")
HELD_OUT = "held out for validation"
_COUNTS = {
    "listed": "listed",
    "train": "for training",
    "validation": HELD_OUT,
    "test": "for testing",
    "too_short": "too short, not used",
    "partial": "partial, not used",
    "unreadable": "unreadable, not used",
    "missing": "missing",
}
_REST = "too close to held-out ones, not used"
"""What is listed and in no other row: spans beside held-out ones, see `v3s.data.groups.hold_out_rows`."""
RECIPE = {
    "task": "pretext task",
    "epochs": "epochs",
    "stop_early": "training clips without a lower validation loss that end it",
    "batch_size": "clips per step",
    "train_clips": "clips per training video and epoch",
    "clips_together": "clips of one video in a batch",
    "learning_rate": "learning rate at the start",
    "schedule": "schedule of the learning rate",
    "warmup": "epochs of rising learning rate",
    "momentum": "momentum",
    "weight_decay": "weight decay",
    "head_rate": "learning rate of the heads, in learning rates of the network",
    "freeze": "stages that were not trained",
    "contrast": "weight of the contrast between videos",
    "heads": "weight of the paper's loss",
    "relative": "weight of the relative speed",
    "zoom": "range of the zoom",
    "flip": "mirrored clips",
    "trim_bars": "letterbox bars removed",
    "scale_jitter": "jitter of the size of crops",
    "blur": "blur, in pixels at most",
    "colour_jitter": "jitter of colours",
    "grey": "share of grey clips",
    "segment": "seconds per span of a recording",
    "fps": "frames per second",
    "seed": "seed",
}
"""Options of a training that a card names, in words; none of them is a path."""
_OFF = {"clips_together": 1, "head_rate": 1, "heads": 1, "zoom": "paper"}
"""Values that add nothing, beside 0 and "no" of every option but the seed."""


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a training.

    Attributes:
        videos: what was counted, in words -> number of videos.
        noun: what they are: "video" or "span".
        recipe: options in words -> values; without what was switched off.
        keep: which epoch's weights it kept: that of the lowest "loss", that of the highest "accuracy", or the "last";
            empty if that is not known.
        validation_clips: clips of each held-out video, 0 if that is not known.
        result: content of result.json; empty if there is none.
    """

    videos: Mapping[str, int] = field(default_factory=dict)
    noun: str = "video"
    recipe: Mapping[str, Any] = field(default_factory=dict)
    keep: str = ""
    validation_clips: int = 0
    result: Mapping[str, Any] = field(default_factory=dict)


def read_record(path: str | Path) -> Record:
    """Read what a run's folder says of its training; what is missing stays empty.

    Args:
        path: as `v3s.load_backbone` takes it; the folder ``last`` of a run has the record of the run.

    Raises:
        CheckpointError: a file is damaged.
    """
    folder = folder_of(path)
    is_last = folder.name == _LAST_WEIGHTS and (folder.parent / MANIFEST).is_file()
    folder = folder.parent if is_last else folder
    manifest, config, result = (folder / name for name in (MANIFEST, CONFIG, RESULT))
    options = _options(config) if config.is_file() else {}
    keep, clips = options.get("keep"), options.get("validation_clips")
    facts = read_json(manifest) if manifest.is_file() else {}
    return Record(
        _counts(facts),
        "span" if facts.get("noun") == "span" else "video",
        _recipe(options),
        "last" if is_last else keep if keep in ("loss", "accuracy", "last") else "",
        clips if type(clips) is int else 0,
        read_json(result) if result.is_file() else {},
    )


def _counts(manifest: Mapping[str, Any]) -> dict[str, int]:
    counts = manifest.get("videos")
    counts = counts if isinstance(counts, dict) else {}
    found = {text: counts[name] for name, text in _COUNTS.items() if type(counts.get(name)) is int and counts[name]}
    rest = 2 * found.get(_COUNTS["listed"], 0) - sum(found.values())
    return found | ({_REST: rest} if rest > 0 else {})


def _options(file: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(read_text(file, max_bytes=_MOST_BYTES))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise CheckpointError(f"{file}: not a file of options ({' '.join(str(error).split())})") from error
    return values if isinstance(values, dict) else {}


def _recipe(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those that a card names, in words, unless they switch something off; clips that are together count each."""
    clips, together = options.get("train_clips"), options.get("clips_together")
    if isinstance(clips, int) and isinstance(together, int):
        options = {**options, "train_clips": clips * together}
    return {
        words: value
        for name, words in RECIPE.items()
        if _is_plain(value := options.get(name)) and (name == "seed" or (value and value != _OFF.get(name)))
    }


def _is_plain(value: object) -> bool:
    """Whether a value is a number, yes or no, or one word; or a list of such."""
    if isinstance(value, list):
        return bool(value) and all(map(_is_plain, value))
    return isinstance(value, int | float) or (isinstance(value, str) and bool(_WORD.fullmatch(value)))
