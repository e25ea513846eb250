"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest
import torch

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """One thread a process: results are exact at a named thread count, and tests run side by side."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real videos and split lists beside the checkout.

    Skips where it is absent; on CI its absence is a failure.
    """
    if not (SHARED / "data").is_dir():
        message = f"real videos not found: {SHARED / 'data'} does not exist"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return SHARED
