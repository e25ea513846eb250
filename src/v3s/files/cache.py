"""Where v3s keeps what it can make or fetch again."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """The folder ``v3s`` in ``$XDG_CACHE_HOME`` or ``~/.cache``.

    Raises:
        RuntimeError: The user has no home folder.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "v3s"
