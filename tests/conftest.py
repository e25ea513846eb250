"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest
import torch

from v3s.data.synthetic import make_clips

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """One thread per process: results are exact for a given number of threads, and tests run in parallel."""
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the results of scans in tests out of the cache of the user."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real videos and split lists next to the checkout.

    Skips where it is absent; on CI its absence is a failure.
    """
    if not (SHARED / "data").is_dir():
        message = f"real videos not found: {SHARED / 'data'} does not exist"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return SHARED


@pytest.fixture(scope="session")
def small_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 16 small generated videos in 8 class folders, 40 frames of 48 x 64 pixels."""
    folder = tmp_path_factory.mktemp("videos")
    make_clips(folder, num_videos=16, num_frames=40, height=48, width=64)
    return folder


@pytest.fixture(scope="session")
def labelled_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``train`` (16 videos) and ``test`` (8) of 8 classes; 20 frames of 32 x 48 pixels."""
    folder = tmp_path_factory.mktemp("labelled")
    for part, num_videos, seed in (("train", 16, 1), ("test", 8, 2)):
        make_clips(folder / part, num_videos=num_videos, num_frames=20, height=32, width=48, seed=seed)
    return folder
