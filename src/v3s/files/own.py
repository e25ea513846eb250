"""A folder that a command fills is its own: what others have put there is neither replaced nor mixed with ours."""

import json
from pathlib import Path

from v3s.files.lock import is_free

_KEYS = {
    "compare.json": {"answer", "random", "rows"},
    "cutouts.json": {"written_by", "cutouts"},
    "demo.json": {"epochs", "out", "overwrite"},
    "explain.json": {"backbone", "fingerprint", "no_evidence"},
}
"""By a file that marks a folder as a command's: keys that it has, among others."""
_MOST_BYTES = 1 << 26


def is_own(mark: Path) -> bool:
    """Whether v3s wrote a file of such a name."""
    try:
        if not mark.is_file() or mark.stat().st_size > _MOST_BYTES:
            return False
        written = json.loads(mark.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(written, dict) and _KEYS[mark.name] <= written.keys()


def require_new(folder: Path) -> None:
    """Refuse an output folder that contains anything; what a killed process has not completed does not count.

    Raises:
        ValueError: it does.
    """
    if folder.is_dir() and not is_free(folder):
        raise ValueError(f"{folder} is not empty; choose another folder with --out")


def require_own(mark: Path, *besides: str, command: str) -> None:
    """Refuse an output folder that contains other things than a command writes, before any work.

    Args:
        mark: the file in it by which earlier results of the command are known; neither need exist.
        besides: what a killed command may have left there without that file.
        command: its name, for the message.

    Raises:
        ValueError: it does.
    """
    folder = mark.parent
    if folder.is_dir() and not is_free(folder, *besides) and not is_own(mark):
        raise ValueError(
            f"out is {folder}, which contains something else than {command} writes; give a new or empty folder"
        )
