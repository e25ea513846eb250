"""What a folder or a file of pictures says of itself before any picture is decoded."""

from dataclasses import dataclass
from typing import Any, Literal

from v3s.video.stills.numbered import Numbered


@dataclass(frozen=True, slots=True)
class Stills:
    """How the frames of a video are kept that is no video file: each is a picture of its own.

    Attributes:
        kind: "folder" of pictures, or a stack in one file: "tiff" or "dicom".
        names: Of the pictures of a folder.
    """

    kind: Literal["folder", "tiff", "dicom"]
    names: Numbered | None = None

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Stills":
        """The inverse of ``dataclasses.asdict``."""
        return cls(**values | {"names": values["names"] and Numbered(**values["names"])})


@dataclass(frozen=True, slots=True)
class FoundStills:
    """Pictures that are the frames of a video.

    Attributes:
        stills: How they are kept.
        num_frames: How many there are.
        num_bytes: Their size in all.
        codec: How they are compressed, by FFmpeg's name of the decoder.
        fps: Frames per second, if anything states them.
    """

    stills: Stills
    num_frames: int
    num_bytes: int
    codec: str
    fps: float | None = None
