"""Common pipelines for samples, written from their public descriptions; each uses the plan of one of our samples.

- Reference style: decode the whole video (with an ffmpeg pipe, or PyAV), then warp, resize and crop each frame in PIL
  and convert it to float.
- torchvision-v2 style: decode in sequence and convert the wanted frames (PyAV), or request them from torchcodec; then
  warp, resize and crop all of them as one tensor. torchvision itself is not imported: these are the torch operators
  that its ``v2.functional`` calls, ``interpolate`` with antialiasing on uint8 and ``grid_sample`` on floats for the
  perspective.

All return normalised float32, as their networks expect.
"""

import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module

import av
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from v3s.data.clips import PretextClips, SampleKey
from v3s.pretext.plan import ClipPlan, Picture, Sampling, resize_to_canvas
from v3s.pretext.spatial import SpatialScale, SpatialTransform
from v3s.pretext.task import PretextTask
from v3s.video.decode import Video
from v3s.video.homography import Homography

Pixels = NDArray[np.uint8]  # RGB frames, shape (T, H, W, 3)
Reader = Callable[[Video, Sequence[int]], Pixels]
MEAN, STD = 0.45, 0.225


@dataclass(frozen=True, slots=True)
class Steps:
    """A plan as separate steps: move the corners of the frame, resize it, crop it, resize the crop.

    Attributes:
        transform: moves the corners.
        height: height of the canvas that the moved frame is resized to.
        width: width of the canvas.
        crop: left, top, right and bottom of the crop on the canvas.
        size: side of the clip that the crop is resized to.
    """

    transform: SpatialTransform
    height: int
    width: int
    crop: tuple[float, float, float, float]
    size: int

    @property
    def whole_crop(self) -> tuple[int, int, int, int]:
        """The crop in whole pixels."""
        left, top, right, _ = self.crop
        side = round(right - left)
        return int(left), int(top), int(left) + side, int(top) + side

    def moved(self, height: int, width: int) -> tuple[Homography, int, int]:
        """The first step for a frame of this size: its map, and the height and width of its result."""
        to_moved = self.transform.homography(width, height)
        if isinstance(self.transform, SpatialScale):
            return to_moved, round(self.transform.b * height), round(self.transform.a * width)
        return to_moved, height, width


def steps_of(plan: ClipPlan, task: PretextTask, sampling: Sampling, height: int, width: int) -> Steps:
    """Split the plan of a clip from frames of this size into steps."""
    transform, side = task.spatial[plan.labels.spatial], sampling.canvas_size
    to_canvas = transform.homography(side, side) @ resize_to_canvas(Picture(width, height), sampling)
    clip = [[0, 0], [sampling.clip_size, sampling.clip_size]]
    (left, top), (right, bottom) = (to_canvas @ plan.to_clip.inverse())(clip).tolist()
    a, b = (transform.a, transform.b) if isinstance(transform, SpatialScale) else (1.0, 1.0)
    return Steps(transform, round(b * side), round(a * side), (left, top, right, bottom), sampling.clip_size)


def read_all_by_pipe(video: Video, frames: Sequence[int]) -> Pixels:
    """The whole video through a pipe from the ffmpeg tool."""
    command = ["ffmpeg", "-v", "error", "-i", video.path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    whole = np.frombuffer(raw, np.uint8).reshape(-1, video.height, video.width, 3)
    return whole[np.minimum(frames, len(whole) - 1)]


def read_all(video: Video, frames: Sequence[int]) -> Pixels:
    """The whole video, decoded by PyAV."""
    with av.open(video.path, metadata_errors="ignore") as container:
        whole: Pixels = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    return whole[list(frames)]


def read_in_sequence(video: Video, frames: Sequence[int]) -> Pixels:
    """Decode by PyAV from the start to the last wanted frame, and convert only the wanted frames."""
    wanted, last = set(frames), max(frames)
    converted = {}
    with av.open(video.path, metadata_errors="ignore") as container:
        container.streams.video[0].thread_type = "NONE"
        for number, frame in enumerate(container.decode(video=0)):
            if number in wanted:
                converted[number] = frame.to_ndarray(format="rgb24")
            if number == last:
                break
    wanted_only: Pixels = np.stack([converted[number] for number in frames])
    return wanted_only


def read_by_torchcodec(video: Video, frames: Sequence[int]) -> Pixels:
    """Decode by torchcodec on one thread, in the mode that does not scan the file first."""
    decoders = import_module("torchcodec.decoders")  # the project does not require it
    decoder = decoders.VideoDecoder(video.path, seek_mode="approximate", num_ffmpeg_threads=1, dimension_order="NHWC")
    pixels: Pixels = decoder.get_frames_at(list(frames)).data.numpy()
    return pixels


def why_unusable(read: Reader, video: Video) -> str | None:
    """The reason why a reader cannot be measured on this machine, or None."""
    if read is read_all_by_pipe and shutil.which("ffmpeg") is None:
        return "the ffmpeg tool is not installed"
    try:
        read(video, [0])
    except (ImportError, OSError, RuntimeError) as error:
        return str(error).strip().splitlines()[0]
    return None


def two_steps_by_pil(image: Image.Image, steps: Steps) -> Image.Image:
    """The quality reference: a warp, then one resize of the exact crop, each in the best quality of PIL."""
    moved = _moved_by_pil(image, steps)
    across, down = moved.width / steps.width, moved.height / steps.height
    left, top, right, bottom = steps.crop
    box = (left * across, top * down, right * across, bottom * down)
    return moved.resize((steps.size, steps.size), Image.Resampling.BILINEAR, box=box)


def cut_by_pil(frames: Pixels, steps: Steps) -> Tensor:
    """Reference style: float, shape (3, T, size, size)."""
    return torch.stack([_frame_by_pil(Image.fromarray(frame), steps) for frame in frames], dim=1)


def _frame_by_pil(image: Image.Image, steps: Steps) -> Tensor:
    resized = _moved_by_pil(image, steps).resize((steps.width, steps.height), Image.Resampling.BILINEAR)
    cropped = resized.crop(steps.whole_crop)
    if cropped.width != steps.size:
        cropped = cropped.resize((steps.size, steps.size), Image.Resampling.BILINEAR)
    values = torch.from_numpy(np.array(cropped)).permute(2, 0, 1).contiguous().float().div(255)
    return (values - MEAN) / STD


def _moved_by_pil(image: Image.Image, steps: Steps) -> Image.Image:
    to_moved, height, width = steps.moved(image.height, image.width)
    numbers = to_moved.inverse().matrix.ravel()[:8].tolist()
    return image.transform((width, height), Image.Transform.PERSPECTIVE, numbers, Image.Resampling.BILINEAR)


def cut_as_torchvision(frames: Pixels, steps: Steps) -> Tensor:
    """torchvision-v2 style: float, shape (3, T, size, size)."""
    clip = uint8_as_torchvision(torch.from_numpy(frames).permute(0, 3, 1, 2), steps)
    return clip.float().div(255).sub(MEAN).div(STD).permute(1, 0, 2, 3).contiguous()


def uint8_as_torchvision(frames: Tensor, steps: Steps) -> Tensor:
    """Warp, resize, crop: uint8, (T, 3, H, W) to (T, 3, size, size)."""
    to_moved, height, width = steps.moved(*frames.shape[-2:])
    if isinstance(steps.transform, SpatialScale):
        moved = _resize(frames, height, width)
    else:
        moved = _perspective(frames, to_moved)
    left, top, right, bottom = steps.whole_crop
    cropped = _resize(moved, steps.height, steps.width)[..., top:bottom, left:right]
    return _resize(cropped, steps.size, steps.size)


def _resize(frames: Tensor, height: int, width: int) -> Tensor:
    if frames.shape[-2:] == (height, width):
        return frames
    return F.interpolate(frames, (height, width), mode="bilinear", align_corners=False, antialias=True)


def _perspective(frames: Tensor, to_moved: Homography) -> Tensor:
    height, width = frames.shape[-2:]
    x, y = torch.meshgrid(torch.arange(width) + 0.5, torch.arange(height) + 0.5, indexing="xy")
    points = torch.stack([x, y, torch.ones_like(x)], dim=-1) @ torch.from_numpy(to_moved.inverse().matrix).float().T
    grid = points[..., :2] / points[..., 2:] * torch.tensor([2 / width, 2 / height]) - 1
    grid = grid[None].expand(len(frames), -1, -1, -1)
    return F.grid_sample(frames.float(), grid, align_corners=False).round_().to(torch.uint8)


class PeerClips(Dataset[tuple[Tensor, Tensor]]):
    """The samples of `PretextClips`, made by another pipeline: same keys, same plans, float clips."""

    def __init__(self, clips: PretextClips, read: Reader, cut: Callable[[Pixels, Steps], Tensor]) -> None:
        self.clips, self.read, self.cut = clips, read, cut

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: SampleKey) -> tuple[Tensor, Tensor]:
        video, plan = self.clips.plan(*key)
        source = self.clips.table[video]
        steps = steps_of(plan, self.clips.task, self.clips.sampling, source.height, source.width)
        labels = torch.tensor([plan.labels.spatial, plan.labels.temporal])
        return self.cut(self.read(source, plan.frames), steps), labels
