"""The window of deep pictures: what becomes black and white, and that it is the same for all frames."""

from pathlib import Path

import av
import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from rich.console import Console

from v3s.commands.pretrain import PretrainConfig, pretrain
from v3s.data.lists.spans import SpanOptions
from v3s.data.lists.splits import list_videos
from v3s.data.scan import scan
from v3s.features.saved import describe_trained
from v3s.vectors.embed import EmbedConfig, embed
from v3s.vectors.search import SearchConfig, search
from v3s.video.decode import read_frames
from v3s.video.index import index_video
from v3s.video.light.window import DEEP, ValueCounts, choose_window, shown, values_of

QUIET = Console(quiet=True)


def frame_of(values: NDArray[np.uint16], name: str = "gray16le") -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(values, format=name)


@pytest.mark.parametrize("name", sorted(DEEP))
def test_every_deep_format_gives_its_values_and_8_bits(name: str) -> None:
    """Converted from 16 bits by swscale, whose rounding is not ours: within a level."""
    most = (1 << DEEP[name]) - 1
    values = np.linspace(0, 65535, 48 * 64).astype(np.uint16).reshape(48, 64)
    frame = frame_of(values).reformat(format=name)
    found = values_of(frame).astype(float)
    assert found.shape[:2] == (48, 64)
    assert np.abs(found.reshape(48, 64, -1)[..., 0] / most - values / 65535).max() < 1.5 / most
    levels = shown(frame, choose_window("full", name, None)).to_ndarray().astype(float).reshape(48, 64, -1)[..., 0]
    assert np.abs(levels - values / 257).max() <= 1.5


def test_percentiles_of_all_frames() -> None:
    generator, counts = np.random.default_rng(0), ValueCounts()
    films = [generator.integers(0, 1 << 12, (50, 60)).astype(np.uint16) for _ in range(20)]
    for values in films:
        counts.add(frame_of(values))
    expected = np.quantile(np.stack(films), [0.001, 0.999], method="inverted_cdf")
    assert counts.window() == pytest.approx(expected, abs=1)


def test_a_few_bright_points_on_an_even_ground_are_seen() -> None:
    values, counts = np.full((200, 200), 500, np.uint16), ValueCounts()
    values[7, 7:10] = 4000
    counts.add(frame_of(values))
    assert counts.window() == (500, 4000)
    assert ValueCounts().window() is None


def test_levels_are_even_and_no_frame_changes_another(tmp_path: Path) -> None:
    ramp = np.arange(100, 900, dtype=np.uint16).reshape(20, 40)
    film = np.stack([ramp, ramp // 2 + 50, np.full_like(ramp, 500)] * 4)
    tifffile.imwrite(tmp_path / "a.tif", film)
    index = index_video(tmp_path / "a.tif")
    assert index.window is not None
    low, high = index.window
    expected = np.floor(np.clip((film - low) / (high - low), 0, 1) * 255 + 0.5)
    assert np.array_equal(read_frames(index, range(12)).rgb()[:, 0].numpy(), expected)
    assert np.array_equal(read_frames(index, [2]).rgb()[0, 0].numpy(), expected[2])


def test_8_bits_and_yuv_have_no_window(small_videos: Path) -> None:
    index = index_video(next(small_videos.rglob("*.mp4")))
    assert index.window is None
    assert choose_window("100,900", index.pixel_format, None) is None
    assert choose_window("full", "yuv420p10le", None) is None
    frame = frame_of(np.zeros((8, 8), np.uint16)).reformat(format="yuv420p10le")
    assert shown(frame, (0, 9)) is frame


@pytest.mark.parametrize("choice", ["", "1", "5,5", "9,1", "a,b", "1,2,3", "nan,1", "0,inf", "Auto"])
def test_a_window_that_is_none_is_refused(choice: str) -> None:
    with pytest.raises(ValueError, match="give auto, full, or two values as LOW,HIGH"):
        SpanOptions(window=choice)


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six stacks of 16 bits, 30 frames of 24 x 32 pixels."""
    folder, generator = tmp_path_factory.mktemp("stacks"), np.random.default_rng(5)
    rows, columns = np.mgrid[:24, :32]
    for number in range(6):
        spots = [
            np.exp(-((columns - 4 - frame * (1 + number) / 6) ** 2 + (rows - 3 - 3 * number) ** 2) / 20)
            for frame in range(30)
        ]
        values = 100 + 800 * np.clip(0.9 * np.array(spots) + 0.1 * generator.random((30, 24, 32)), 0, 1)
        tifffile.imwrite(folder / f"cell {number}.tif", values.astype(np.uint16))
    return folder


def test_a_window_is_part_of_a_run_and_of_its_vectors(stacks: Path, tmp_path: Path) -> None:
    """Trained with a window: config.json has it, embed and search obey it, and another window is another space."""
    run = str(tmp_path / "run")
    pretrain(
        PretrainConfig(
            data=str(stacks), out=run, backbone="r3d", width=0.125, task="ts", epochs=1, batch_size=2,
            validation_videos=2, workers=0, window="200,700", clip_frames=8, clip_size=32,
        ),
        console=QUIET,
    )  # fmt: skip
    assert describe_trained(run).window == "200,700"
    same, other = (
        embed(
            EmbedConfig(
                data=str(stacks), out=str(tmp_path / name), backbone=run, workers=0, device="cpu", window=window
            ),
            console=QUIET,
        )
        for name, window in (("same", None), ("other", "full"))
    )
    assert same.description.space.view.window == "200,700"
    assert other.description.space.view.window == "full"
    assert same.description.space.fingerprint != other.description.space.fingerprint
    assert not torch.equal(same.take(torch.arange(6)), other.take(torch.arange(6)))
    hits = search(SearchConfig(query=str(stacks / "cell 3.tif"), vectors=str(tmp_path / "same"), k=1), console=QUIET)
    assert hits[0].score == pytest.approx(1, abs=1e-3)
    seen = scan(list_videos(stacks, spans=SpanOptions(window="200,700")), min_frames=1, cache=None)
    assert "values from 200 to 700 are shown as black to white" in seen.reports[0].remarks
