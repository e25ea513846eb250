"""A model as a graph that other programs run: ONNX, and ``torch.export``.

Both are made from the folded network in float32: convolutions contain their batch normalisations, and the normalisation
of clips is part of the graph. The size of the batch is free, the size of a clip is not. Each graph is compared with the
network itself before it is given away.
"""

import io
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from warnings import catch_warnings, simplefilter

import torch
from torch import Tensor, nn

from v3s.export.model import Model
from v3s.features.source import fold
from v3s.options import import_extra

OPSET = 18
"""Version of ONNX's operators."""
TOLERANCE = 1e-4
"""How far an output of a graph may be from the network's, relative to the largest value of this output, if that is
more than 1."""
CHECKED_BATCHES = (1, 5)
INPUT = "clips"
_MOST_BYTES = 2**31 - 1  # of an ONNX file without files beside it

Graph = Callable[[Tensor], Sequence[Tensor]]
"""From clips to outputs, as another program runs it."""


@contextmanager
def _plain() -> Iterator[None]:
    """Compute in float32 whatever autocast is on, and silence what torch reports of packages that are not needed."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with catch_warnings(), torch.no_grad(), torch.autocast("cpu", enabled=False):
            simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def require_onnx() -> None:
    """Check that what an ONNX file takes is installed, before any work.

    Raises:
        ValueError: it is not.
    """
    for name in ("onnx", "onnxscript", "onnxruntime"):
        import_extra(name, "onnx", "an ONNX file")


@_plain()
def onnx_bytes(model: Model) -> bytes:
    """Return a model as the content of an ONNX file that `check_graph` has passed.

    Raises:
        ValueError: a package is missing, the network is too large, or the file gives other values than the network.
    """
    require_onnx()
    size = sum(value.numel() * value.element_size() for value in model.as_module().state_dict().values())
    if size > _MOST_BYTES:
        raise ValueError(f"the network has {size / 1e9:.1f} GB of weights, more than the 2 GB of an ONNX file")
    module, clips, free = _traced(model)
    converted = torch.onnx.export(
        module,
        clips,
        verbose=False,
        opset_version=OPSET,
        dynamic_shapes=free,
        input_names=[INPUT],
        output_names=list(model.outputs),
    )
    assert converted is not None
    content: bytes = converted.model_proto.SerializeToString()
    check_graph(_onnx_graph(content), model, "the ONNX file")
    return content


def _onnx_graph(content: bytes) -> Graph:
    runtime = import_extra("onnxruntime", "onnx", "an ONNX file")
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return lambda clips: [torch.from_numpy(output) for output in session.run(None, {INPUT: clips.numpy()})]


@_plain()
def program_bytes(model: Model) -> bytes:
    """Return a model as the content of a file of ``torch.export`` that `check_graph` has passed.

    Raises:
        ValueError: the file gives other values than the network.
    """
    module, clips, free = _traced(model)
    opened = io.BytesIO()
    torch.export.save(torch.export.export(module, clips, dynamic_shapes=free), opened)
    content = opened.getvalue()
    check_graph(torch.export.load(io.BytesIO(content)).module(), model, "the program of torch.export")
    return content


def _traced(model: Model) -> tuple[nn.Module, tuple[Tensor], Any]:
    """The folded network with its heads, an example of its input, and the axis of it that is free."""
    return model.as_module(fold(model.backbone)), (_clips(model, 2),), ({0: torch.export.Dim("batch")},)


@torch.inference_mode()
def check_graph(graph: Graph, model: Model, name: str) -> float:
    """Compare a graph with the network on random clips, in batches of 1 and of 5.

    Returns:
        The largest difference between their outputs, see `TOLERANCE`.

    Raises:
        ValueError: an output has another shape, or differs by more than `TOLERANCE`.
    """
    module, largest = model.as_module(), 0.0
    for batch in CHECKED_BATCHES:
        clips = _clips(model, batch)
        for output, ours, theirs in zip(model.outputs, module(clips), graph(clips), strict=True):
            same = ours.shape == theirs.shape
            difference = float((ours - theirs).abs().max() / ours.abs().max().clamp(min=1)) if same else float("inf")
            if not difference <= TOLERANCE:
                raise ValueError(
                    f"{name} gives other values than the network: {output} of {batch} clips differ by "
                    f"{difference:.2g}, and {TOLERANCE:g} is allowed; nothing was written"
                )
            largest = max(largest, difference)
    return largest


def _clips(model: Model, batch: int) -> Tensor:
    """Random clips in [0, 1], float32, shape (batch, 3, T, H, W)."""
    return torch.rand(batch, *model.clip_shape, generator=torch.Generator().manual_seed(batch))
