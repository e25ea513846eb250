"""A configuration as a file: YAML there and back, and what may differ when a run is resumed."""

from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from v3s import argv
from v3s.files.writing import write_atomically

Config = TypeVar("Config")

FREE_ON_RESUME = (
    "out data workers device epochs checkpoint_seconds resume overwrite compile allow_missing".split()  # noqa: SIM905
)
"""Options that may differ when a run is resumed: they change no sample and no weight up to the checkpoint."""


def check_resumable(run: Path, before: Any, now: Any, *, free: Collection[str] = FREE_ON_RESUME) -> None:
    """Refuse to resume a run with other options than it was begun with.

    Args:
        run: its folder.
        before: the configuration that it was begun with.
        now: the one that was given, of the same type.
        free: names of the options that may differ.

    Raises:
        ValueError: others differ; the message has their values before and now.
    """
    old, new = asdict(before), asdict(now)
    changed = [name for name in old if name not in free and old[name] != new[name]]
    if changed:
        listed = "; ".join(f"{name} was {old[name]!r}, now {new[name]!r}" for name in changed)
        raise ValueError(
            f"{run} cannot be resumed with other options: {listed}; leave them out, or begin a run with another --out"
        )


def to_yaml(config: Any) -> str:
    """A configuration as YAML that ``--config`` reads back, less what must be asked for each time: to replace a run."""
    return argv.to_yaml(config, without=("resume", "overwrite"))


def write_yaml(path: Path, config: Any) -> None:
    """Write what `to_yaml` gives into a file, which is whole at any moment."""
    text = to_yaml(config)
    write_atomically(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def from_yaml(kind: type[Config], text: str) -> Config:
    """The inverse of `to_yaml`."""
    return argv.from_yaml(kind, text)
