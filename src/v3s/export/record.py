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
from v3s.train.run import CONFIG, MANIFEST

_LAST_WEIGHTS = "last"
_RESULT = "result.json"
_MOST_BYTES = 50_000
_WORD = re.compile(r"[\w+.,-]{1,40}")
_COUNTS = {
    "listed": "listed",
    "train": "for training",
    "validation": "held out to choose the epoch",
    "test": "for testing",
    "too_short": "too short, not used",
    "unreadable": "unreadable, not used",
    "missing": "missing",
}
RECIPE = (
    "task", "epochs", "batch_size", "learning_rate", "momentum", "weight_decay", "head_rate", "schedule", "warmup",
    "decay_epochs", "patience", "keep", "stop_early", "freeze", "train_clips", "validation_clips", "clips_together",
    "contrast", "heads", "relative", "zoom", "pre_resize", "trim_bars", "flip", "seam", "label_prior", "scale_jitter",
    "blur", "colour_jitter", "grey", "short", "segment", "segment_stride", "fps", "window", "batch_norm",
    "statistics_clips", "average", "precision", "seed",
)  # fmt: skip
"""Options of a training that a card names; none of them is a path."""


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a training.

    Attributes:
        videos: what was counted, in words -> number of videos.
        recipe: options -> values.
        result: content of result.json, of a fine-tuning; else empty.
    """

    videos: Mapping[str, int] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    result: Mapping[str, Any] = field(default_factory=dict)


def read_record(path: str | Path) -> Record:
    """Read what a run's folder says of its training; what is missing stays empty.

    Args:
        path: as `v3s.load_backbone` takes it; the folder ``last`` of a run has the record of the run.

    Raises:
        CheckpointError: a file is damaged.
    """
    folder = folder_of(path)
    if folder.name == _LAST_WEIGHTS and (folder.parent / MANIFEST).is_file():
        folder = folder.parent
    manifest, config, result = (folder / name for name in (MANIFEST, CONFIG, _RESULT))
    return Record(
        _counts(read_json(manifest)) if manifest.is_file() else {},
        _recipe(config) if config.is_file() else {},
        read_json(result) if result.is_file() else {},
    )


def _counts(manifest: Mapping[str, Any]) -> dict[str, int]:
    counts = manifest.get("videos")
    counts = counts if isinstance(counts, dict) else {}
    return {text: counts[name] for name, text in _COUNTS.items() if type(counts.get(name)) is int and counts[name]}


def _recipe(file: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(read_text(file, max_bytes=_MOST_BYTES))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise CheckpointError(f"{file}: not a file of options ({' '.join(str(error).split())})") from error
    values = values if isinstance(values, dict) else {}
    return {name: values[name] for name in RECIPE if _is_plain(values.get(name))}


def _is_plain(value: object) -> bool:
    """Whether a value is a number, yes or no, or one word; or a list of such."""
    if isinstance(value, list):
        return bool(value) and all(map(_is_plain, value))
    return isinstance(value, int | float) or (isinstance(value, str) and bool(_WORD.fullmatch(value)))
