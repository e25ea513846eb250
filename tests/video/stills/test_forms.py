"""One law: the same pictures give the same vectors, as a folder of frames, a TIFF stack, a video or a DICOM file."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from rich.console import Console

from v3s import load_encoder
from v3s.commands.prepare import PrepareConfig, prepare
from v3s.data.lists.splits import list_videos
from v3s.data.scan import scan
from v3s.video.decode import read_frames, stream_frames, video_from_json
from v3s.video.index import index_video
from v3s.video.light.mask import mask_to_text
from v3s.video.span import seen
from v3s.video.store import PixelFormat
from v3s.video.store_writer import ShardWriter, store_video

Film = Callable[..., NDArray[Any]]
Write = Callable[..., Path]
QUIET = Console(quiet=True)


@pytest.fixture(params=[(np.uint8, False), (np.uint16, False), (np.uint8, True), (np.uint16, True)], ids=str)
def forms(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    film: Film,
    write_frames: Write,
    write_ffv1: Write,
    write_dicom: Write,
) -> tuple[NDArray[Any], dict[str, Path]]:
    """A film, and its files."""
    kind, colour = request.param
    values = film(20, kind, colour=colour)
    photometric = "rgb" if colour else "minisblack"
    tifffile.imwrite(tmp_path / "stack.tif", values, photometric=photometric)
    tifffile.imwrite(tmp_path / "packed.tif", values, photometric=photometric, compression="zlib", tile=(16, 16))
    found = {
        "frames": write_frames(tmp_path / "frames", values),
        "tiff frames": write_frames(tmp_path / "tiff frames", values, "tif"),
        "stack": tmp_path / "stack.tif",
        "packed": tmp_path / "packed.tif",
        "video": write_ffv1(tmp_path / "video.mkv", values),
        "dicom": write_dicom(tmp_path / "cine.dcm", values),
    }
    return values, found


def test_every_form_gives_the_same_pixels_and_vectors(forms: tuple[NDArray[Any], dict[str, Path]]) -> None:
    values, files = forms
    encoder = load_encoder("random:r3d@0.125")
    indices = {name: index_video(file) for name, file in files.items()}
    frames = {name: read_frames(index, [19, 0, 7, 7]).rgb().int() for name, index in indices.items()}
    vectors = {name: encoder.encode(file) for name, file in files.items()}
    for name, index in indices.items():
        assert video_from_json(index.to_json()) == index
        assert (index.num_frames, index.height, index.width) == (20, 24, 40)
        assert index.window == indices["frames"].window
        assert torch.equal(frames[name], frames["frames"]), name
        assert torch.equal(vectors[name], vectors["frames"]), name
        streamed = torch.cat([part.rgb() for part in stream_frames(index, range(20), at_once=8)])
        assert torch.equal(streamed[[19, 0, 7, 7]].int(), frames[name])
    stills = {index.fingerprint for name, index in indices.items() if name != "video"}
    assert len(stills) == 1
    shown = frames["frames"].permute(0, 2, 3, 1).numpy()
    if values.dtype == np.uint8:
        expected = values if values.ndim == 4 else np.stack([values] * 3, axis=-1)
        assert np.array_equal(shown, expected[[19, 0, 7, 7]])
    else:
        assert shown.min() == 0
        assert shown.max() == 255


def test_a_store_holds_what_the_window_shows(forms: tuple[NDArray[Any], dict[str, Path]], tmp_path: Path) -> None:
    values, files = forms
    root, out = files["stack"].parent, tmp_path.parent / f"{tmp_path.name}-store"
    prepare(PrepareConfig(data=str(root), out=str(out), pixel_format="rgb", workers=0), console=QUIET)
    read = [scan(list_videos(data), min_frames=1, cache=None) for data in (root, out)]
    for found in read:
        assert {report.verdict for report in found.reports} == {"usable"}
    for file, stored in zip(read[0].table, read[1].table, strict=True):
        assert torch.equal(read_frames(file, range(20)).rgb(), read_frames(stored, range(20)).rgb()), file.path
        assert file.window == stored.window
    remark = "are shown as black to white" in read[1].reports[0].remarks
    assert remark == (values.dtype == np.uint16)


@pytest.mark.parametrize("pixel_format", ["yuv", "rgb", "jpeg"])
@pytest.mark.parametrize("masked", [False, True])
def test_a_store_turns_deep_pictures_as_they_are_shown(
    tmp_path: Path, film: Film, write_frames: Write, pixel_format: PixelFormat, masked: bool
) -> None:
    """PNG of 16 bits whose EXIF asks for a quarter turn: the frame that the window makes no longer says it."""
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x112, 3, 1, 6, 0, 0)
    exif = struct.pack(">I", len(tiff)) + b"eXIf" + tiff + struct.pack(">I", zlib.crc32(b"eXIf" + tiff))
    folder = write_frames(tmp_path / "frames", film(3, np.uint16))
    for path in folder.iterdir():
        content = path.read_bytes()
        path.write_bytes(content[:33] + exif + content[33:])  # after the signature and IHDR
    corner = np.zeros((40, 24), bool)
    corner[:7, :5] = True
    mask = mask_to_text(corner) if masked else None
    shown = read_frames(seen(index_video(folder), None, mask), range(3)).rgb()
    with ShardWriter(tmp_path / "s.bin") as writer:
        name = str(tmp_path / "s.bin")
        made = store_video(folder, writer, pixel_format=pixel_format, short_side=99, shard_name=name, mask=mask)
    stored = read_frames(made, range(3)).rgb()
    assert stored.shape == shown.shape == (3, 3, 40, 24)
    assert torch.equal(stored, shown) or pixel_format != "rgb"
    assert (stored.int() - shown.int()).abs().float().mean() < 4
