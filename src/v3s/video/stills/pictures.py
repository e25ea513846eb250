"""Compressed pictures to frames, by FFmpeg's decoders."""

import av
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from v3s.video.container import MAX_PIXELS, reason_of

_PADDING = bytes(64)  # FFmpeg's readers look ahead


class PictureDecoder:
    """Decodes pictures of one codec, each on its own.

    Args:
        codec: FFmpeg's name of it.
    """

    def __init__(self, codec: str) -> None:
        self._codec = codec

    def __call__(self, picture: bytes) -> VideoFrame:
        """Decode one picture.

        Raises:
            ValueError: It is none of the codec, is damaged or too large; the message does not name it.
        """
        decoder = av.CodecContext.create(self._codec, "r")
        assert isinstance(decoder, VideoCodecContext)
        decoder.thread_count = 1
        decoder.options = {"max_pixels": str(MAX_PIXELS), "err_detect": "explode"}
        try:
            frames = [*decoder.decode(av.Packet(picture + _PADDING)), *decoder.decode(None)]
        except (av.FFmpegError, MemoryError) as error:
            raise ValueError(f"it is not a {self._codec} picture, or is damaged: {reason_of(error)}") from error
        if len(frames) != 1:
            raise ValueError(f"it is not a {self._codec} picture, or is damaged: it gives {len(frames)} frames")
        if frames[0].is_corrupt:
            raise ValueError(f"it is a {self._codec} picture that is damaged: some of its pixels cannot be decoded")
        return frames[0]
