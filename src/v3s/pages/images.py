"""Images and clips for pages: PNG, JPEG, GIF and MP4 in memory, small frames, contact sheets and outlines.

Convention: an image is uint8 RGB of shape (H, W, 3), a clip is (T, H, W, 3); arrays or tensors on the CPU.
"""

import base64
import tempfile
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import av.filter
import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from v3s.files.writing import SaveError, Writer
from v3s.video.decode import Video, read_frames
from v3s.video.warp import to_width, warp

Pixels = NDArray[np.uint8]

_CODECS = {
    "libx264": {"preset": "veryfast", "crf": "20"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "crf": "30", "b": "0"},
}
"""FFmpeg's encoders for browsers and their options, the best first."""

_QUANTISER = 3  # of JPEG: from 1, the best quality, to 31, the smallest file
_GAP = 2  # white pixels between the images of a sheet


def png(image: ArrayLike | Tensor) -> bytes:
    """Encode an image losslessly."""
    return _encode_still(_pixels(image, 3), "png", "rgb24")


def jpeg(image: ArrayLike | Tensor) -> bytes:
    """Encode an image with little loss."""
    return _encode_still(_pixels(image, 3), "mjpeg", "yuvj444p", _QUANTISER)


def mp4(clip: ArrayLike | Tensor, fps: float) -> bytes:
    """Encode a clip as H.264 for all browsers: 4:2:0, with the index at the start.

    VP9, which nearly all browsers play too, takes its place where FFmpeg has no encoder for H.264.

    4:2:0 needs even sizes, so an odd side grows by one pixel, which repeats the last row or column.
    """
    return _in_memory("clip.mp4", lambda path: encode_mp4(path, [_pixels(clip, 4)], fps))


def _in_memory(name: str, write: Writer) -> bytes:
    """What a temporary file contains: moving an MP4's index to its start needs a real file.

    Raises:
        SaveError: it cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder) / name)
            return (Path(folder) / name).read_bytes()
    except OSError as error:
        raise SaveError(
            f"a temporary file cannot be written: {error.strerror}; free some space in the folder for temporary "
            "files, or choose another one with the environment variable TMPDIR"
        ) from error


def encode_mp4(path: Path, pieces: Iterable[ArrayLike | Tensor], fps: float) -> None:
    """Encode a clip that comes in pieces, as `mp4`, into a file: only one piece is held in memory.

    Args:
        path: The file; its name may have any ending.
        pieces: At least one, of frames of one size.
        fps: Frames per second.

    Raises:
        OSError: The file cannot be written.
    """
    options = {"movflags": "+faststart"}
    codec = next((name for name in _CODECS if name in av.codecs_available), "libx264")
    with av.open(str(path), "w", format="mp4", options=options) as container:
        stream = container.add_stream(codec, rate=_rate(fps), options=dict(_CODECS[codec]))
        assert isinstance(stream, av.VideoStream)
        stream.codec_context.thread_count = 1  # the bytes do not depend on the number of processors
        for piece in pieces:
            clip = _pixels(piece, 4)
            clip = np.pad(clip, ((0, 0), (0, clip.shape[1] % 2), (0, clip.shape[2] % 2), (0, 0)), mode="edge")
            if not stream.codec_context.is_open:
                stream.height, stream.width, stream.pix_fmt = *clip.shape[1:3], "yuv420p"
            for pixels in clip:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


def gif(clip: ArrayLike | Tensor, fps: float) -> bytes:
    """Encode a clip as a looping GIF with its own palette; GIF rounds frame times to 0.01 s."""
    clip = _pixels(clip, 4)
    rate = _rate(fps)

    def write(path: Path) -> None:
        with av.open(str(path), "w") as container:
            stream = container.add_stream("gif", rate=rate)
            stream.height, stream.width, stream.pix_fmt = *clip.shape[1:3], "pal8"
            for frame in _with_palette(clip, rate):
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))

    return _in_memory("clip.gif", write)


def data_uri(data: bytes, mime: str) -> str:
    """Encode bytes as a data URI to embed in a page, for example ``data_uri(png(image), "image/png")``."""
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"


def jpeg_uri(image: ArrayLike | Tensor) -> str:
    """Encode an image as a JPEG data URI to embed in a page."""
    return data_uri(jpeg(image), "image/jpeg")


def small_frames(video: Video, frames: Sequence[int], width: int) -> Tensor:
    """Read whole frames at most ``width`` pixels wide, for a page: uint8, shape (frames, height, width, 3).

    Raises:
        VideoError: the file cannot be read.
    """
    to_picture, new_height, new_width = to_width(video.width, video.height, width)
    return warp(read_frames(video, frames), to_picture, new_height, new_width).permute(1, 2, 3, 0)


def tile(images: ArrayLike | Tensor, columns: int) -> Pixels:
    """Arrange images of equal size, (N, H, W, 3), row by row on a white sheet.

    Args:
        images: The images, in reading order; a clip gives a contact sheet of its frames.
        columns: Images in a row, at least 1.

    Returns:
        One image; unused cells of the last row stay white.

    Raises:
        ValueError: ``images`` has another shape, or ``columns`` is below 1.
    """
    images = _pixels(images, 4)
    if columns < 1:
        raise ValueError(f"a sheet needs columns >= 1, got {columns = }")
    num_images, height, width, _ = images.shape
    rows = -(-num_images // columns)
    sheet = np.full((rows, height + _GAP, columns, width + _GAP, 3), 255, np.uint8)
    for index, image in enumerate(images):
        sheet[index // columns, :height, index % columns, :width] = image
    return sheet.reshape(rows * (height + _GAP), columns * (width + _GAP), 3)[:-_GAP, :-_GAP]


def outline(
    image: ArrayLike | Tensor, corners: ArrayLike, *, colour: tuple[int, int, int] = (230, 159, 0), thickness: float = 2
) -> Pixels:
    """Draw a closed polygon onto a copy of an image, with soft edges.

    Convention: corners (N, 2) are continuous pixel coordinates (x, y), with (0, 0) at the frame's top left corner; they
    may be outside the frame.
    """
    pixels, points = _pixels(image, 3), np.asarray(corners, np.float64)
    height, width, _ = pixels.shape
    centres = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), axis=-1)
    distance = np.full((height, width), np.inf)
    for start, end in zip(points, np.roll(points, -1, axis=0), strict=True):
        edge, offset = end - start, centres - start
        along = np.clip(offset @ edge / max(float(edge @ edge), 1e-12), 0, 1)
        distance = np.minimum(distance, np.linalg.norm(offset - along[..., None] * edge, axis=-1))
    cover = np.clip(thickness / 2 + 0.5 - distance, 0, 1)[..., None]
    return np.rint(pixels + cover * (np.asarray(colour) - pixels)).astype(np.uint8)


def _pixels(values: ArrayLike | Tensor, num_axes: int) -> Pixels:
    """Check that values are a uint8 RGB image (3 axes) or clip (4 axes) and return them as a contiguous array."""
    array = np.asarray(values)
    if array.dtype != np.uint8 or array.ndim != num_axes or array.shape[-1] != 3 or not array.size:
        shape = "(H, W, 3)" if num_axes == 3 else "(T, H, W, 3)"
        raise ValueError(f"expected uint8 pixels of shape {shape}, not empty; got {array.dtype} {array.shape}")
    return np.ascontiguousarray(array)


def _rate(fps: float) -> Fraction:
    """Convert frames per second to the fraction that a container stores."""
    if not 0 < fps < float("inf"):
        raise ValueError(f"frames per second must be positive and finite, got {fps}")
    return max(Fraction(fps).limit_denominator(1001), Fraction(1, 1001))


def _encode_still(image: Pixels, codec: str, pixel_format: str, quantiser: int | None = None) -> bytes:
    """Encode one frame with a still-image codec."""
    context = av.CodecContext.create(codec, "w")
    assert isinstance(context, av.VideoCodecContext)
    context.height, context.width = image.shape[:2]
    context.pix_fmt, context.time_base = pixel_format, Fraction(1)
    if quantiser is not None:
        context.qmin = context.qmax = quantiser
    frame = av.VideoFrame.from_ndarray(image, format="rgb24")
    return b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)])


def _with_palette(clip: Pixels, rate: Fraction) -> Iterable[av.VideoFrame]:
    """Reduce a clip to its best 256 colours; yields paletted frames."""
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=clip.shape[2], height=clip.shape[1], format=av.VideoFormat("rgb24"), time_base=1 / rate
    )
    split, palette, use = graph.add("split"), graph.add("palettegen"), graph.add("paletteuse")
    sink = graph.add("buffersink")
    source.link_to(split)
    split.link_to(use, 0, 0)
    split.link_to(palette, 1, 0)
    palette.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    for number, pixels in enumerate(clip):
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.pts, frame.time_base = number, 1 / rate
        graph.push(frame)
    graph.push(None)
    for _ in clip:
        paletted = graph.pull()
        assert isinstance(paletted, av.VideoFrame)
        yield paletted
