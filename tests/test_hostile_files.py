"""Opening a model runs no code, and a malformed file is one clear error within a second."""

import json
import pickle
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from v3s.cli import main
from v3s.train.checkpoint import save_checkpoint

SECONDS = 1.0


@pytest.fixture(scope="module")
def run(pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small finished run with a single checkpoint."""
    copied = shutil.copytree(pretrained, tmp_path_factory.mktemp("runs") / "run")
    (copied / "checkpoints/previous.pt").unlink()
    return copied


def with_header(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    """A safetensors file whose header was changed."""

    def changed(whole: bytes) -> bytes:
        (length,) = struct.unpack("<Q", whole[:8])
        header = json.loads(whole[8 : 8 + length])
        change(header)
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + whole[8 + length :]

    return changed


FIRST = "conv1.0.weight"


def setting(key: str, value: object) -> Callable[[bytes], bytes]:
    return with_header(lambda header: header[FIRST].__setitem__(key, value))


MALFORMED: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda whole: b"",
    "one byte": lambda whole: b"\0",
    "seven bytes": lambda whole: whole[:7],
    "only a length": lambda whole: whole[:8],
    "half a header": lambda whole: whole[:100],
    "header without data": lambda whole: whole[: 8 + struct.unpack("<Q", whole[:8])[0]],
    "half the data": lambda whole: whole[: len(whole) // 2],
    "last byte missing": lambda whole: whole[:-1],
    "a byte more": lambda whole: whole + b"\0",
    "length zero": lambda whole: struct.pack("<Q", 0) + whole[8:],
    "length too small": lambda whole: struct.pack("<Q", struct.unpack("<Q", whole[:8])[0] - 1) + whole[8:],
    "length too large": lambda whole: struct.pack("<Q", struct.unpack("<Q", whole[:8])[0] + 1) + whole[8:],
    "length of a terabyte": lambda whole: struct.pack("<Q", 1 << 40) + whole[8:],
    "largest length": lambda whole: b"\xff" * 8 + whole[8:],
    "text": lambda whole: b"these are no weights",
    "json": lambda whole: json.dumps({"weights": [1, 2]}).encode(),
    "header is a list": lambda whole: struct.pack("<Q", 2) + b"[]",
    "header is not utf-8": lambda whole: struct.pack("<Q", 4) + b"\xff\xfe\xff\xfe",
    "nested header": lambda whole: struct.pack("<Q", 200_000) + b"[" * 200_000,
    "zip": lambda whole: b"PK\x03\x04" + whole,
    "offsets overlap": setting("data_offsets", [8, 600]),
    "offsets backwards": setting("data_offsets", [600, 8]),
    "offsets outside": setting("data_offsets", [0, 1 << 40]),
    "offsets negative": setting("data_offsets", [-8, 0]),
    "offsets text": setting("data_offsets", "all"),
    "unknown type": setting("dtype", "F31"),
    "other type": setting("dtype", "I32"),
    "wrong shape": setting("shape", [1, 2, 3]),
    "huge shape": setting("shape", [1 << 62, 1 << 62]),
    "tensor left out": with_header(lambda header: header.pop(FIRST)),
    "tensor renamed": with_header(lambda header: header.update({"conv9.0.weight": header.pop(FIRST)})),
    "zeroed block": lambda whole: whole[:-5000] + bytes(4000) + whole[-1000:],
    "one bit flipped": lambda whole: whole[:-300] + bytes([whole[-300] ^ 1]) + whole[-299:],
}


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one-line error of a command that must fail, and soon."""
    start = time.monotonic()
    code = main(arguments)
    seconds = time.monotonic() - start
    error = capsys.readouterr().err
    assert code == 1, error
    assert error.startswith("error: ")
    assert "Traceback" not in error
    assert seconds < SECONDS
    return error


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_weights(
    name: str, run: Path, small_videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = shutil.copytree(run, tmp_path / "given")
    file = given / "backbone.safetensors"
    file.write_bytes(MALFORMED[name](file.read_bytes()))
    error = refused(["evaluate", f"--data={small_videos}", f"--backbone={given}"], capsys)
    assert "backbone.safetensors: " in error


@pytest.mark.parametrize("name", ["folder", "fifo", "other type", "nothing"])
def test_weights_that_are_not_a_file(
    name: str, run: Path, small_videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = shutil.copytree(run, tmp_path / "given")
    file = given / "backbone.safetensors"
    if name == "other type":  # whole, and of the right shapes
        save_file({key: value.double() for key, value in load_file(file).items()}, file)
    else:
        file.unlink()
    if name == "folder":
        file.mkdir()
    if name == "fifo":
        import os

        os.mkfifo(file)
    refused(["evaluate", f"--data={small_videos}", f"--backbone={given}"], capsys)


class Payload:
    """Runs code when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def spoil(path: Path, mark: Path, how: str) -> None:
    """Replace a file by one that runs code when it is loaded."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if how == "pickle":
        path.write_bytes(pickle.dumps(Payload(mark)))
    elif how == "torch":
        torch.save(Payload(mark), path)
    else:
        path.write_text(f"!!python/object/apply:os.mkdir ['{mark}']\n")


PLACES = {
    "backbone.safetensors": "evaluate --data={videos} --backbone={run}",
    "spatial_head.safetensors": "evaluate --data={videos} --backbone={run}",
    "config.json": "retrieve --data={videos} --backbone={run}",
    "weights.pt": "probe --data={videos} --backbone={run}/weights.pt",
    "weights.pth": "convert --weights={run}/weights.pth --out={run}/new",
    "checkpoints/last.pt": "pretrain --out={run} --resume",
    "config.yaml": "pretrain --out={run} --resume",
    "list.txt": "pretrain --data={run}/list.txt --out={run}/new",
    "clip.mp4": "embed --data={run}/list --backbone={run} --out={run}/new",
    "vectors/vectors.json": "search {videos} --in {run}/vectors",
}


@pytest.mark.parametrize("how", ["pickle", "torch", "yaml"])
@pytest.mark.parametrize("place", PLACES)
def test_no_file_runs_code(
    place: str, how: str, run: Path, small_videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, mark = shutil.copytree(run, tmp_path / "given"), tmp_path / "executed"
    spoil(given / place, mark, how)
    if place == "clip.mp4":
        (given / "list").mkdir()
        shutil.copy(given / place, given / "list" / place)
    try:
        code = main(PLACES[place].format(videos=small_videos, run=given).split())
    except SystemExit as stop:
        code = int(stop.code or 0)
    assert code in (1, 2)
    assert "Traceback" not in capsys.readouterr().err
    assert not mark.exists()


def test_a_checkpoint_with_a_right_checksum_runs_no_code(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, mark = shutil.copytree(run, tmp_path / "given"), tmp_path / "executed"
    save_checkpoint(given / "checkpoints/last.pt", {"model": Payload(mark)})
    (given / "checkpoints/previous.pt").unlink()
    assert "cannot be read as a checkpoint" in refused(["pretrain", f"--out={given}", "--resume"], capsys)
    assert not mark.exists()
