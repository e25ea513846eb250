"""The file beside an exported recognizer: what it says without v3s and torch is what ``predict`` says."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from rich.console import Console

from tests.export.test_export import write_recognizer
from v3s.backbones.normalisation import KINETICS
from v3s.data.views import View
from v3s.export.export import ExportConfig, export
from v3s.features.encoder import Feature
from v3s.recognizers.calibration import Calibration
from v3s.recognizers.recognizer import load_recognizer

ALONE = """
import runpy, sys
sys.modules["v3s"] = sys.modules["torch"] = None  # an import of them fails
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def made(folder: Path, view: View, **values: Any) -> tuple[Path, Path]:
    """A recognizer, and its ONNX file with what lies beside it."""
    run = write_recognizer(folder / "run", view=view, **values)
    return run, export(ExportConfig(run=str(run), out=str(folder / "onnx"), format="onnx"), console=Console(quiet=True))


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """It averages probabilities of clips of consecutive frames."""
    return made(
        tmp_path_factory.mktemp("paper"), View(clip_frames=8, clip_size=24, num_clips=3), normalisation=KINETICS
    )


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """It averages logits of clips at a rate, and is calibrated."""
    calibration = Calibration(
        temperature=1.7, num_videos=9, loss_before=1.0, loss_after=0.9, error_before=0.2, error_after=0.1
    )
    view = View(clip_frames=6, clip_size=32, num_clips=2, fps=9.0)
    feature = Feature("conv4", "max")
    return made(tmp_path_factory.mktemp("other"), view, average="logits", calibration=calibration, feature=feature)


def said(folder: Path, video: Path) -> dict[str, float]:
    """What the file prints, in a process that can import neither v3s nor torch."""
    words = [sys.executable, "-P", "-c", ALONE, str(folder / "predict_video.py"), str(video)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment | {"PYTHONUTF8": "1"}, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line.split(" ", 1) for line in done.stdout.splitlines()]
    return {name: float(probability) for probability, name in rows}


def compare(folders: tuple[Path, Path], video: Path) -> None:
    run, exported = folders
    (ours,) = load_recognizer(run, device="cpu", precision="fp32").predict(video)
    found = said(exported, video)
    assert tuple(found) == ours.classes
    assert list(found.values()) == pytest.approx(ours.probabilities, abs=1e-3)


@pytest.mark.parametrize("which", ["paper", "other"])
def test_it_says_what_predict_says(which: str, small_videos: Path, request: pytest.FixtureRequest) -> None:
    compare(request.getfixturevalue(which), max(small_videos.rglob("*.mp4")))


@pytest.mark.parametrize(
    "name", ["UCF-101/Archery/v_Archery_g01_c01.avi", "odd/decord_video_90.mov", "odd/bt709_full_range.mp4",
             "odd/testsrc2_odd_height_and_width_vp9.mp4"],
)  # fmt: skip
def test_it_says_what_predict_says_of_real_videos(name: str, shared: Path, paper: tuple[Path, Path]) -> None:
    compare(paper, shared / "data" / name)


def test_deep_pictures_are_refused_in_one_line(paper: tuple[Path, Path], tmp_path: Path) -> None:
    """They are seen through a window, which the file does not know; swscale would show them black."""
    with av.open(str(tmp_path / "a.mkv"), "w") as output:
        stream = output.add_stream("ffv1", rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = 24, 32, "gray16le"
        for _ in range(9):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((24, 32), 900, np.uint16), format="gray16le")))
        output.mux(stream.encode(None))
    words = [sys.executable, str(paper[1] / "predict_video.py"), str(tmp_path / "a.mkv")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    expected = "has gray16le frames, which v3s sees through a window: use v3s predict, or 8 bits"
    assert done.stderr == f"{tmp_path / 'a.mkv'}: {expected}\n"


@pytest.mark.parametrize("name", ["missing.mp4", "text.mp4", "sound.wav", None])
def test_what_is_no_video_is_one_line(name: str | None, paper: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_bytes(b"no video")
    with av.open(str(tmp_path / "sound.wav"), "w") as output:
        stream = output.add_stream("pcm_s16le", rate=8000)
        assert isinstance(stream, av.AudioStream)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        frame.sample_rate = 8000
        output.mux(stream.encode(frame))
    words = [sys.executable, str(paper[1] / "predict_video.py"), *([] if name is None else [str(tmp_path / name)])]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("usage: " if name is None else str(tmp_path / name))


def test_what_lies_beside_the_graph(paper: tuple[Path, Path]) -> None:
    assert sorted(path.name for path in paper[1].iterdir()) == [
        "README.md", "config.json", "model.onnx", "predict_video.py",
    ]  # fmt: skip
    assert "python predict_video.py VIDEO" in (paper[1] / "README.md").read_text()
