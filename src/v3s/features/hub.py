"""``hf:NAME``: a folder that ``v3s export`` wrote, on the Hugging Face hub; data is downloaded, and no code.

What is loaded from the folder is compared with the fingerprint of the weights in its description, as from any folder.
"""

from pathlib import Path

from v3s.files.reading import read_json
from v3s.files.writing import DESCRIPTION, CheckpointError
from v3s.options import import_extra

HUGGING_FACE = "hf:"
_TENSORS = "*.safetensors"


def hub_export(name: str) -> Path | None:
    """Return the local copy of an export on the hub; what is not there yet is downloaded.

    Args:
        name: ``OWNER/NAME`` or ``OWNER/NAME@REVISION``, without ``hf:``. The hash of a commit as the revision names one
            content for ever; by default it is the newest.

    Returns:
        None if the model on the hub is not one that v3s exported.

    Raises:
        CheckpointError: there is no such model, or it cannot be downloaded.
        ValueError: huggingface_hub is not installed.
    """
    hub = import_extra("huggingface_hub", "hf", f"{HUGGING_FACE}{name}")
    owned, _, revision = name.partition("@")
    try:
        description = Path(hub.hf_hub_download(owned, DESCRIPTION, revision=revision or None))
        if not is_export(description):
            return None
        commit = description.parent.name  # of the description, so that the tensors are of the same content
        return Path(hub.snapshot_download(owned, revision=commit, allow_patterns=[DESCRIPTION, _TENSORS]))
    except CheckpointError:
        raise
    except Exception as error:  # of the network, of the hub, or of the disk
        reason = next(iter(str(error).split("\n")), "") or type(error).__name__
        raise CheckpointError(
            f"{HUGGING_FACE}{name}: cannot be downloaded ({reason}); where there is a network, run: hf download "
            f"{owned} --local-dir DIR, bring DIR here, and give DIR"
        ) from error


def is_export(description: Path) -> bool:
    """Whether a config.json is of v3s, rather than of another library."""
    values = read_json(description)
    return {"format", "backbone", "fingerprint"} <= values.keys()
