"""``v3s export``: a trained model as a folder to give away, in the layout of the Hugging Face hub.

======================  =============================================================================================
model.safetensors       the weights of the network; of its heads or its classifier in files of their own
model.onnx, model.pt2   in their place, the network and its heads as one graph
config.json             the description, as in a run, without paths and names of files
README.md               the card
predict_video.py        beside the ONNX file of a recognizer: names what a video shows, without v3s
======================  =============================================================================================
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from rich.console import Console

from v3s.export.card import CARD, card
from v3s.export.graphs import onnx_bytes, program_bytes, require_onnx
from v3s.export.model import Model, open_model
from v3s.export.record import read_record
from v3s.files.lock import only_writer
from v3s.files.own import require_new
from v3s.files.text import say, size_text
from v3s.files.weights import PUBLISHED, weights_as_bytes
from v3s.files.writing import DESCRIPTION, json_as_bytes, write_together
from v3s.options import CheckedOptions, require_folders

_SCRIPT = "predict_video.py"


@dataclass(frozen=True, kw_only=True)
class ExportConfig(CheckedOptions):
    """Write a trained model into a folder to give away: weights or a graph, their description, and a model card.

    Attributes:
        run: Folder of a run, a safetensors file in one, a recognizer, or what v3s convert wrote.
        out: New folder, in the layout of the Hugging Face hub: hf upload publishes it.
        format: safetensors is for v3s; onnx and torch (torch.export) are graphs for other programs, compared with the
            network before they are written.
        licence: Licence of the weights, as an identifier of the hub, such as apache-2.0 or cc-by-4.0. Default: none is
            granted, and the card says so.
    """

    run: Annotated[str, "RUN"]
    out: str
    format: Literal["safetensors", "onnx", "torch"] = "safetensors"
    licence: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_folders(self, "out")
        if self.licence is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,60}", self.licence):
            raise ValueError(
                f"licence is {self.licence!r}; give an identifier of the Hugging Face hub, such as apache-2.0 or other"
            )


def export(config: ExportConfig, *, console: Console | None = None) -> Path:
    """Write a model, its description and its card into a new folder, all files or none.

    Args:
        config: which model, which folder, which form.
        console: where to report; the terminal by default.

    Returns:
        The folder.

    Raises:
        ValueError: the run has no weights or does not belong together, the network is your own, the folder is not
            empty, a package is missing, or a graph gives other values than the network; nothing was written.
    """
    console, folder = console or Console(), Path(config.out)
    require_new(folder)
    if config.format == "onnx":
        require_onnx()
    model, record = open_model(config.run), read_record(config.run)
    files = _files(model, config.format)
    files[CARD] = card(model, record, licence=config.licence, form=config.format).encode()
    with only_writer(folder):
        require_new(folder)
        write_together(folder, {**files, DESCRIPTION: json_as_bytes(model.trained.to_json())})
    say(
        console,
        *(f"{folder / name}: {size_text(len(content))}" for name, content in files.items()),
        f"before others get it, read {folder / CARD}"
        + ("" if config.licence else ": it grants no licence yet (--licence)")
        + f"; then publish it with: hf upload OWNER/NAME {folder}",
    )
    return folder


def _files(model: Model, form: str) -> dict[str, bytes]:
    """Name and content of what is given away, in one form."""
    if form == "onnx":
        files = {"model.onnx": onnx_bytes(model)}
        if "logits" in model.outputs:
            files[_SCRIPT] = Path(__file__).with_name(_SCRIPT).read_bytes()
        return files
    if form == "torch":
        return {"model.pt2": program_bytes(model)}
    heads = {model.files[output]: weights_as_bytes(head) for output, head in model.heads.items()}
    return {PUBLISHED: weights_as_bytes(model.backbone), **heads}
