"""500 damaged TIFF and DICOM files: each is read, or refused in one line."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from pydicom.encaps import encapsulate

from v3s.data.lists.splits import list_videos
from v3s.data.scan import scan
from v3s.video.index import VideoError, index_video
from v3s.video.stills.found import FoundStills
from v3s.video.stills.tiff import open_tiff

Film = Callable[..., NDArray[Any]]
Write = Callable[..., Path]
_NUM_FILES = 500


def test_a_file_that_kills_its_reader_is_named(tmp_path: Path, film: Film, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash in a library's C code ends a process that scans, and costs one file."""

    def open_or_die(path: str) -> FoundStills:
        if path.endswith("deadly.tif"):
            os.kill(os.getpid(), signal.SIGSEGV)
        return open_tiff(path)

    monkeypatch.setattr("v3s.video.stills.source.open_tiff", open_or_die)
    for name in ("deadly.tif", "good.tif"):
        tifffile.imwrite(tmp_path / name, film(5, np.uint8))
    reports = scan(list_videos(tmp_path), min_frames=1, workers=1, cache=None).reports
    assert [report.verdict for report in reports] == ["unreadable", "usable"]
    assert "\n" not in reports[0].reason


def damaged(content: bytes, generator: np.random.Generator) -> Iterator[bytes]:
    """The content cut, with a hole, with other bytes in its header, and with bits turned over."""
    size = len(content)
    yield content[: generator.integers(size)]
    start = int(generator.integers(size))
    yield content[:start] + content[start + int(generator.integers(1, 200)) :]
    for changes, upto in ((4, min(size, 1000)), (8, size)):
        changed = bytearray(content)
        for place in generator.integers(upto, size=changes):
            changed[place] = int(generator.integers(256))
        yield bytes(changed)


def refusal_of(file: Path) -> str:
    """Why a file is refused; empty if it is read."""
    try:
        index_video(file)
    except VideoError as error:
        return str(error)
    return ""


def test_no_damage_crashes(tmp_path: Path, film: Film, write_dicom: Write, picture: Callable[..., bytes]) -> None:
    grey, colour = film(5, np.uint16), film(5, np.uint8, colour=True)
    tifffile.imwrite(tmp_path / "imagej.tif", grey, imagej=True, metadata={"axes": "TYX", "finterval": 0.5})
    tifffile.imwrite(tmp_path / "tiles.tif", colour, photometric="rgb", compression="zlib", tile=(16, 16))
    tifffile.imwrite(tmp_path / "ome.tif", grey, ome=True, metadata={"axes": "TYX", "TimeIncrement": 0.1})
    write_dicom(tmp_path / "plain.dcm", grey, FrameTime=40)
    photos = encapsulate([picture(frame, "mjpeg", "yuvj420p") for frame in colour])
    write_dicom(
        tmp_path / "jpeg.dcm", colour, syntax="JPEGBaseline8Bit", data=photos, PhotometricInterpretation="YBR_FULL_422"
    )
    sources = [(file.suffix, file.read_bytes()) for file in sorted(tmp_path.iterdir())]
    generator = np.random.default_rng(2025)
    outcomes: list[bool] = []
    while len(outcomes) < _NUM_FILES:
        for suffix, content in sources:
            for changed in damaged(content, generator):
                file = tmp_path / f"damaged{suffix}"
                file.write_bytes(changed)
                reason = refusal_of(file)
                assert "\n" not in reason
                outcomes.append(not reason)
    assert 0.1 < np.mean(outcomes) < 0.6  # both happen
