"""``hf:NAME``: a folder that ``v3s export`` wrote, here or on the Hugging Face hub; of the hub, data and no code.

What is loaded from the folder is compared with the fingerprint of the weights in its description, as from any folder.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from v3s.files.reading import read_json
from v3s.files.writing import DESCRIPTION, CheckpointError
from v3s.options import import_extra

HUGGING_FACE = "hf:"
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_TENSORS = "*.safetensors"


def hub_export(name: str) -> Path | None:
    """Return an export's folder, or the local copy of one on the hub; what is not there yet is downloaded.

    Args:
        name: a folder, ``OWNER/NAME`` or ``OWNER/NAME@REVISION``, without ``hf:``. The hash of a commit as the revision
            names one content for ever; by default it is the newest.

    Returns:
        None if the model is not one that v3s exported, or the name can be neither a folder nor on the hub.

    Raises:
        CheckpointError: there is no such model, or it cannot be downloaded.
        ValueError: huggingface_hub is not installed.
    """
    if os.path.isdir(name):
        return Path(name) if (Path(name) / DESCRIPTION).is_file() and is_export(Path(name) / DESCRIPTION) else None
    owned, _, revision = name.partition("@")
    if os.path.lexists(name) or not HUB_NAME.fullmatch(owned):
        return None
    with asking_hub(name) as hub:
        description = Path(hub.hf_hub_download(owned, DESCRIPTION, revision=revision or None))
        if not is_export(description):
            return None
        commit = description.parent.name  # of the description, so that the tensors are of the same content
        return Path(hub.snapshot_download(owned, revision=commit, allow_patterns=[DESCRIPTION, _TENSORS]))


@contextmanager
def asking_hub(name: str) -> Iterator[Any]:
    """A context for downloads of a model from the hub, by its package; one that fails is a CheckpointError."""
    hub = import_extra("huggingface_hub", "hf", f"{HUGGING_FACE}{name}")
    try:
        yield hub
    except CheckpointError:
        raise
    except Exception as error:  # of the network, of the hub, or of the disk
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise CheckpointError(
            f"{HUGGING_FACE}{name}: cannot be downloaded ({reason}); where there is a network, run: hf download "
            f"{name.partition('@')[0]} --local-dir DIR, bring DIR here, and give {HUGGING_FACE}DIR"
        ) from error


def is_export(description: Path) -> bool:
    """Whether a config.json is of v3s, rather than of another library."""
    values = read_json(description)
    return {"format", "backbone", "fingerprint"} <= values.keys()
