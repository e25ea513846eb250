"""Makers of the same pictures in every form: frames, stacks, video and DICOM."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pydicom
import pytest
import tifffile
from av.video.codeccontext import VideoCodecContext
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset

Values = NDArray[Any]
Write = Callable[..., Path]
_FORMATS = {
    (np.uint8, 3): "gray", (np.uint16, 3): "gray16le", (np.uint8, 4): "rgb24", (np.uint16, 4): "rgb48le",
}  # fmt: skip


def film_of(num_frames: int, kind: type, *, colour: bool = False) -> Values:
    """A bright spot that moves over noise, values from 100 to 900 (uint16) or from 0 to 255 (uint8)."""
    generator = np.random.default_rng(num_frames)
    rows, columns = np.mgrid[:24, :40]
    frames = []
    for number in range(num_frames):
        spot = np.exp(-((columns - 8 - number / 2) ** 2 + (rows - 12) ** 2) / 30)
        frames.append(0.9 * spot + 0.05 * generator.random((24, 40)))
    values = np.clip(frames, 0, 1)
    values = np.stack([values, values**2, 1 - values], axis=-1) if colour else values
    return (100 + 800 * values).astype(kind) if kind is np.uint16 else np.round(255 * values).astype(kind)


@pytest.fixture
def film() -> Callable[..., Values]:
    return film_of


def encoded(values: Values, codec: str = "png", pixel_format: str | None = None) -> bytes:
    """A picture as a file."""
    given = _FORMATS[values.dtype.type, values.ndim + 1]
    encoder = av.CodecContext.create(codec, "w")
    assert isinstance(encoder, VideoCodecContext)
    encoder.height, encoder.width = values.shape[:2]
    encoder.pix_fmt, encoder.time_base = pixel_format or given.replace("le", "be"), Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(values), format=given).reformat(format=encoder.pix_fmt)
    frame.pts = 0
    return b"".join(map(bytes, [*encoder.encode(frame), *encoder.encode(None)]))


@pytest.fixture
def picture() -> Callable[..., bytes]:
    return encoded


@pytest.fixture
def write_frames() -> Write:
    """Writes a folder of PNG or TIFF frames."""

    def write(folder: Path, values: Values, ending: str = "png") -> Path:
        folder.mkdir(parents=True)
        for number, frame in enumerate(values):
            file = folder / f"frame_{number}.{ending}"
            if ending == "png":
                file.write_bytes(encoded(frame))
            else:
                tifffile.imwrite(file, frame, compression="zlib", photometric="rgb" if frame.ndim == 3 else None)
        return folder

    return write


@pytest.fixture
def write_ffv1() -> Write:
    """Writes a lossless video."""

    def write(file: Path, values: Values) -> Path:
        name = _FORMATS[values.dtype.type, values.ndim]
        with av.open(str(file), "w") as output:
            stream = output.add_stream("ffv1", rate=25)
            assert isinstance(stream, av.VideoStream)
            stream.height, stream.width = values.shape[1:3]
            stream.pix_fmt = {"rgb24": "bgr0", "rgb48le": "gbrp16le"}.get(name, name)
            for number, values_of_frame in enumerate(values):
                frame = av.VideoFrame.from_ndarray(values_of_frame, format=name).reformat(format=stream.pix_fmt)
                frame.pts, frame.time_base = number, Fraction(1, 25)
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
        return file

    return write


@pytest.fixture
def write_dicom() -> Write:
    """Writes a DICOM file; ``data`` are compressed pictures, and other names are elements."""

    def write(file: Path, values: Values, *, syntax: str = "ExplicitVRLittleEndian", **elements: Any) -> Path:
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = getattr(pydicom.uid, syntax)
        meta.MediaStorageSOPClassUID = pydicom.uid.UltrasoundMultiFrameImageStorage
        meta.MediaStorageSOPInstanceUID = pydicom.uid.UID("1.2.3")
        dataset = FileDataset(str(file), {}, file_meta=meta, preamble=b"\0" * 128)
        dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        dataset.Rows, dataset.Columns = values.shape[1:3]
        dataset.NumberOfFrames, dataset.SamplesPerPixel = len(values), 3 if values.ndim == 4 else 1
        dataset.PhotometricInterpretation = "RGB" if values.ndim == 4 else "MONOCHROME2"
        dataset.BitsAllocated = dataset.BitsStored = 8 * values.itemsize
        dataset.PixelRepresentation = int(values.dtype.kind == "i")
        if values.ndim == 4:
            dataset.PlanarConfiguration = 0
        data = elements.pop("data", None)
        dataset.PixelData = values.tobytes() if data is None else data
        if data is not None:
            dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
        for name, value in elements.items():
            setattr(dataset, name, value)
        dataset.HighBit = elements.get("HighBit", dataset.BitsStored - 1)
        dataset.save_as(file, enforce_file_format=True)
        return file

    return write
