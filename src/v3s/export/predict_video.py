"""Print what a video shows: ``python predict_video.py VIDEO``, with numpy, PyAV and onnxruntime; v3s is not needed."""

import json
import re
import sys
from collections.abc import Iterator
from math import ceil
from pathlib import Path
from typing import Any

import av
import numpy as np

_SHARES = {1: (0.2126, 0.0722), 4: (0.3, 0.11), 7: (0.212, 0.087), 9: (0.2627, 0.0593), 10: (0.2627, 0.0593)}
"""Of red and blue in the brightness, by FFmpeg's number of the colour space; of all others they are those of BT.601."""


def _decoded(path: str) -> Iterator[Any]:
    with av.open(path) as container:
        if not container.streams.video:
            sys.exit(f"{path}: has no video")
        for frame in container.decode(video=0):
            kind = frame.format
            if re.match("gray|gbrp|rgb48|rgba64|ya16", kind.name) and kind.components[0].bits > 8:
                sys.exit(f"{path}: has {kind.name} frames, which v3s sees through a window: use v3s predict, or 8 bits")
            yield frame


def _clips(times: list[float], view: dict[str, Any]) -> Any:
    """The numbers of the frames of each clip, (clips, frames): evenly spaced; the last frame is repeated."""
    numbers, num_clips = np.arange(len(times)), view["num_clips"]
    if view.get("fps"):  # the frame that is nearest to each instant
        since, step = np.array(times) - times[0], float(np.median(np.diff(times))) if len(times) > 1 else 0.0
        instants = np.arange(max(1, int((since[-1] + step) * view["fps"] + 0.02))) / view["fps"]
        distances = abs(since - instants[:, None])
        numbers = (distances <= distances.min(axis=1, keepdims=True) + min(1.1e-3, 0.1 * step)).argmax(axis=1)
    room, gaps = max(0, len(numbers) - view["clip_frames"]), num_clips - 1
    starts = [(2 * i * room + gaps) // (2 * gaps) for i in range(num_clips)] if gaps else [room // 2]
    starts = list(range(0, room + 1, view["stride"])) if view.get("stride") else starts
    return numbers[(np.array(starts)[:, None] + np.arange(view["clip_frames"])).clip(max=len(numbers) - 1)]


def _line(size: int, ratio: float, full: int, length: int) -> Any:
    """How much of each sample of a line is in each pixel, (size, length): resized, then the middle is cut out."""
    step, smaller = full / (ratio * size), round(full / length)
    number = ceil(min(4, ceil(step / 1.4)) / smaller)  # places in a pixel, whose values are averaged
    places = np.arange(size)[:, None] + (np.arange(number) + 0.5) / number + (ratio - 1) * size / 2
    places = (places * step / smaller - 0.5).clip(0, length - 1)
    return np.maximum(0, 1 - abs(places[..., None] - np.arange(length))).mean(axis=1)


def _picture(frame: Any, size: int) -> Any:
    """A frame as part of a clip: RGB in [0, 1], (3, size, size)."""
    if frame.format.name.replace("yuvj", "yuv") not in ("yuv420p", "yuv422p", "yuv444p"):
        frame = frame.reformat(format="yuv444p")
    planes = [np.frombuffer(each, np.uint8).reshape(-1, each.line_size)[:, : each.width] for each in frame.planes]
    planes = [np.rot90(plane, frame.rotation // 90) for plane in planes]
    (height, width), (tall, wide) = planes[0].shape, (256, 256) if size == 224 else (128 * 2, 171 * 2)
    y, u, v = (
        _line(size, tall / 224, height, len(plane)) @ plane @ _line(size, wide / 224, width, plane.shape[1]).T
        for plane in planes
    )
    red, blue = _SHARES.get(int(frame.colorspace), (0.299, 0.114))
    is_full = frame.format.name.startswith("yuvj") or int(frame.color_range) == 2
    y, more = (y, 1.0) if is_full else ((y - 16) * 255 / 219, 255 / 224)
    r, b = y + 2 * (1 - red) * more * (v - 128), y + 2 * (1 - blue) * more * (u - 128)
    rgb = np.stack([r, (y - red * r - blue * b) / (1 - red - blue), b])
    return np.floor(rgb + 0.5).clip(0, 255).astype(np.float32) / 255


def _softmax(values: Any) -> Any:
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def _main(path: str) -> None:
    import onnxruntime

    folder = Path(__file__).parent
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    how = config["recognition"]
    if how["view"].get("mask"):
        sys.exit(f"{folder}: was trained on videos with a mask: use v3s predict")
    times = [frame.time or 0.0 for frame in _decoded(path)]
    if not times:
        sys.exit(f"{path}: has no frame")
    clips = _clips(times, how["view"])
    wanted, size = set(clips.flat), how["view"]["clip_size"]
    pictures = {number: _picture(frame, size) for number, frame in enumerate(_decoded(path)) if number in wanted}
    inputs = np.stack([np.stack([pictures[number] for number in clip], axis=1) for clip in clips])
    (logits,) = onnxruntime.InferenceSession(str(folder / "model.onnx")).run(["logits"], {"clips": inputs})
    scores = logits.mean(axis=0) if how["average"] == "logits" else np.log(_softmax(logits).mean(axis=0) + 1e-38)
    probabilities = _softmax(scores / (how["calibration"] or {"temperature": 1})["temperature"])
    for number in np.argsort(-probabilities, kind="stable"):
        print(f"{probabilities[number]:.4f} {config['classes'][number]}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python predict_video.py VIDEO")
    try:
        _main(sys.argv[1])
    except (OSError, av.error.FFmpegError) as error:
        sys.exit(f"{error.filename or sys.argv[1]}: cannot be read ({error.strerror or error})")
