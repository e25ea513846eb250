"""How a model of Hugging Face expects its clips, from the preprocessor's file in its folder.

The preprocessors of transformers themselves need torchvision. What they do to a frame is a resize, a crop in the centre
and a normalisation, which is all that is read here; what else a file asks for is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isclose
from pathlib import Path
from typing import Any

from v3s.backbones.normalisation import Normalisation
from v3s.data.views import Resize
from v3s.files.reading import checked, read_json
from v3s.files.writing import CheckpointError

PREPROCESSORS = ("video_preprocessor_config.json", "preprocessor_config.json", "processor_config.json")
"""Files of preprocessors; the first that is there counts."""
_PARTS = ("video_processor", "image_processor")  # of the last
_STATISTICS = ("image_mean", "image_std")


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What a model expects of its clips.

    Attributes:
        clip_size: side of a clip in pixels.
        resize: how frames are resized before the crop.
        normalisation: of clips in [0, 1]; ``None`` if they are not normalised.
        clip_frames: frames of a clip; ``None`` if the file does not say.
        fps: frames per second at which videos are sampled; ``None`` if the file does not say: every frame.
    """

    clip_size: int
    resize: Resize
    normalisation: Normalisation | None
    clip_frames: int | None
    fps: float | None


def read_preprocessing(folder: Path) -> Preprocessing:
    """Read what a model expects of its clips.

    Args:
        folder: the model's folder.

    Raises:
        CheckpointError: there is no such file, it is damaged, or it asks for what is not done here.
    """
    file = next((folder / name for name in PREPROCESSORS if (folder / name).exists()), None)
    if file is None:
        raise CheckpointError(
            f"{folder}: has no {PREPROCESSORS[1]}, so it is unknown how clips are resized and normalised; "
            "bring this file from the model's page"
        )
    values = read_json(file)
    try:
        nested = [part for name in _PARTS if isinstance(part := values.get(name), dict)]
        return _preprocessing(nested[0] if nested else values)
    except ValueError as error:
        raise CheckpointError(f"{file}: {error}") from error


def _preprocessing(values: Mapping[str, Any]) -> Preprocessing:
    if not isclose(_value(values, "rescale_factor", float, 1 / 255), 1 / 255, rel_tol=1e-3):
        raise ValueError(f"rescale_factor is {values['rescale_factor']}; only 1/255 is possible: clips are in [0, 1]")
    if not _value(values, "do_resize", bool, True):
        raise ValueError("do_resize is false; only preprocessing that resizes frames to one size is possible")
    crop = values.get("crop_size") if _value(values, "do_center_crop", bool, "crop_size" in values) else None
    side, keeps_shape = _side(values.get("size"), "size", is_shorter=crop is not None)
    clip_size = side if crop is None else _side(crop, "crop_size")[0]
    if side < clip_size:
        raise ValueError(f"frames are resized to {side} pixels, less than the {clip_size} of the crop")
    normalisation = None
    if _value(values, "do_normalize", bool, True):
        channels = tuple[float, float, float]
        normalisation = Normalisation(*(checked(channels, values.get(name), name) for name in _STATISTICS))
    num_frames, fps = _value(values, "num_frames", int, None), _value(values, "fps", float, None)
    if (num_frames is not None and num_frames < 1) or (fps is not None and fps <= 0):
        raise ValueError(f"num_frames is {num_frames} and fps {fps}; both must be more than 0")
    return Preprocessing(clip_size, Resize(side, keeps_shape), normalisation, num_frames, fps)


def _value(values: Mapping[str, Any], name: str, kind: Any, default: Any) -> Any:
    """One value of a file; null and none at all are the default."""
    return default if values.get(name) is None else checked(kind, values[name], name)


def _side(size: Any, name: str, *, is_shorter: bool = False) -> tuple[int, bool]:
    """Return the side that a size states in pixels, and whether a frame keeps its shape.

    Args:
        size: {"shortest_edge": side}, {"height": side, "width": side}, or in older files a number.
        name: its name, for messages.
        is_shorter: whether a number alone is the shorter side.
    """
    sides = {"height": size, "width": size} if type(size) is int and not is_shorter else size
    sides = {"shortest_edge": sides} if type(sides) is int else sides
    sides = {key: side for key, side in sides.items() if side is not None} if isinstance(sides, dict) else {}
    lengths = [side for side in sides.values() if type(side) is int and side > 0]
    is_known = sides.keys() in ({"shortest_edge"}, {"height", "width"}) and len(lengths) == len(sides)
    if not is_known or len(set(lengths)) > 1:
        raise ValueError(f"{name} is {size!r}; it must be a shortest_edge, or an equal height and width, in pixels")
    return lengths[0], "shortest_edge" in sides
