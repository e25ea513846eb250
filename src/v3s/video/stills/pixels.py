"""Arrays of pixels, as scientific files hold them, to frames as FFmpeg's decoders give them."""

import numpy as np
from av.video.frame import VideoFrame

_FORMATS = {
    (np.dtype(np.uint8), 1): "gray",
    (np.dtype(np.uint8), 3): "rgb24",
    (np.dtype(np.uint16), 1): "gray16le",
    (np.dtype(np.uint16), 3): "rgb48le",
}


def as_frame(values: np.ndarray) -> VideoFrame:
    """One picture as a frame: "gray", "rgb24", "gray16le" or "rgb48le". Signed values count from the least one on.

    Args:
        values: Shape (height, width) or (height, width, channels), of which the first three are used: bool, or 8 or 16
            bits.

    Raises:
        ValueError: They are of another kind; the message does not name the file.
    """
    if values.ndim not in (2, 3) or not values.size:
        raise ValueError(f"has pictures of shape {values.shape}; {_NEEDED}")
    if values.ndim == 3:
        values = values[..., 0] if values.shape[2] < 3 else values[..., :3]
    if values.dtype == np.bool_:
        values = values.astype(np.uint8) * 255
    if values.dtype in (np.int8, np.int16):
        values = (values.astype(np.int32) - np.iinfo(values.dtype).min).astype(f"u{values.itemsize}")
    kind = values.dtype.newbyteorder("="), values.shape[2] if values.ndim == 3 else 1
    if kind not in _FORMATS:
        raise ValueError(f"holds values of type {values.dtype}; {_NEEDED}")
    values = values.astype(kind[0], copy=False)
    return VideoFrame.from_ndarray(np.ascontiguousarray(values), format=_FORMATS[kind])


_NEEDED = "pictures of one or three channels of 8 or 16 bits are read; save it as such"
