"""Ray itself: two actors give the vectors of the plain command, and a check by an engine the report of one without."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from v3s.commands.check import CheckConfig, check
from v3s.vectors.embed import EmbedConfig, embed

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'v3s[ray]'")
QUIET = Console(quiet=True)
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(autouse=True)
def _two_cores() -> object:
    ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False)
    yield
    ray.shutdown()


def test_two_actors_are_one_process(small_embedding: EmbedConfig, tmp_path: Path) -> None:
    config = replace(small_embedding, out=str(tmp_path / "plain"), num_clips=2, shard_videos=5)
    plain = embed(config, console=QUIET)
    ours = embed(replace(config, out=str(tmp_path / "engine"), engine="ray", actors=2), console=QUIET)
    assert ours.lines == plain.lines
    assert all(torch.equal(a.vectors, b.vectors) for a, b in zip(ours.shards, plain.shards, strict=True))
    reports = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    check(CheckConfig(data=config.data, out=str(reports[0]), workers=0), console=QUIET)
    check(CheckConfig(data=config.data, out=str(reports[1]), engine="ray", actors=1), console=QUIET)
    assert reports[0].read_bytes() == reports[1].read_bytes()
