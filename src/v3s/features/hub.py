"""Folders that ``v3s export`` wrote, on the Hugging Face hub: downloaded as data, never run."""

from pathlib import Path

from v3s.files.writing import DESCRIPTION, CheckpointError
from v3s.options import import_extra

HUB = "hf:"
_FILES = (DESCRIPTION, "*.safetensors")


def hub_folder(name: str) -> Path:
    """Return the local copy of an export on the hub, downloaded if it is not there yet.

    Only the description and tensors are downloaded, so that no code comes with them. What is loaded from the folder is
    checked against the fingerprint in its description.

    Args:
        name: ``OWNER/NAME``, or ``OWNER/NAME@REVISION``; the hash of a commit as the revision names one content for
            ever.

    Raises:
        CheckpointError: there is no such model, or it cannot be downloaded.
        ValueError: huggingface_hub is not installed.
    """
    hub = import_extra("huggingface_hub", "hf", "a model from the Hugging Face hub")
    name, _, revision = name.partition("@")
    try:
        return Path(hub.snapshot_download(name, revision=revision or None, allow_patterns=list(_FILES)))
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise CheckpointError(
            f"{HUB}{name}: cannot be downloaded ({reason[0] if reason else type(error).__name__}); give OWNER/NAME of "
            "a model on the hub, or a folder"
        ) from error
