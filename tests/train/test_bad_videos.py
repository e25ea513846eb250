"""Bad videos cost only themselves: the run continues, reports them, and can be reproduced bit by bit."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from rich.console import Console

from v3s import PretrainConfig, pretrain
from v3s.data.lists.splits import list_videos
from v3s.data.scan import scan
from v3s.files.weights import fingerprint
from v3s.train.progress import Progress

QUIET = Console(quiet=True)


@pytest.fixture
def config(small_pretraining: PretrainConfig, tmp_path: Path) -> PretrainConfig:
    """A run on a copy of the videos, which a test may damage."""
    return replace(small_pretraining, data=str(shutil.copytree(small_pretraining.data, tmp_path / "data")))


def files(config: PretrainConfig) -> list[Path]:
    return sorted(Path(config.data).rglob("*.mp4"))


def weights_of(run: Path) -> str:
    return fingerprint(torch.load(run / "checkpoints/last.pt", weights_only=True)["model"])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def overwrite(path: Path, data: bytes) -> None:
    """Change a file but not its date, so that no scan notices."""
    status = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def spoil(path: Path) -> None:
    """Damage a file but not its size, as a bad sector does."""
    overwrite(path, bytes(path.stat().st_size))


def quarantined(run: Path) -> set[str]:
    return {json.loads(line)["path"] for line in (run / "quarantine.jsonl").read_text().splitlines()}


def test_fifth_of_bad_files_is_named_and_the_run_is_the_same_twice(config: PretrainConfig, tmp_path: Path) -> None:
    bad = files(config)[::5]
    for path in bad:
        cut(path)
    for name in ("one", "two"):
        pretrain(replace(config, out=str(tmp_path / name)), console=QUIET)
    assert weights_of(tmp_path / "one") == weights_of(tmp_path / "two")
    manifest = json.loads((tmp_path / "one/manifest.json").read_text())
    assert set(manifest["left_out"]) == {str(path.relative_to(config.data)) for path in bad}
    assert all("damaged" in reason for reason in manifest["left_out"].values())
    assert manifest["videos"]["train"] + manifest["videos"]["validation"] == 16 - len(bad)


def test_more_than_half_bad_stops_with_a_table_before_anything_is_written(
    config: PretrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in files(config)[:9]:
        cut(path)
    with pytest.raises(ValueError, match="9 of 16 files are bad, more than half"):
        pretrain(replace(config, out=str(tmp_path / "run")), console=Console(width=200))
    assert "usable         7 files" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_file_that_fails_after_the_scan_is_skipped_and_a_resumed_run_skips_the_same(
    config: PretrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Damaged after the scan; intact again when a killed run is resumed, which still trains on the same samples."""
    scan(list_videos(config.data), min_frames=1)
    spoilt = files(config)[3:5]
    whole = [path.read_bytes() for path in spoilt]
    for path in spoilt:
        spoil(path)
    pretrain(replace(config, out=str(tmp_path / "one")), console=QUIET)
    pretrain(replace(config, out=str(tmp_path / "two"), workers=2), console=QUIET)
    weights = weights_of(tmp_path / "one")
    assert weights_of(tmp_path / "two") == weights
    assert quarantined(tmp_path / "one") == quarantined(tmp_path / "two") == {str(path) for path in spoilt}
    assert (tmp_path / "one/train.log").read_text().count("skipped from now on") == 2

    killed = replace(config, out=str(tmp_path / "killed"))
    with monkeypatch.context() as context:
        context.setattr(Progress, "step", Mock(side_effect=[None, None, None, None, KeyboardInterrupt]))
        with pytest.raises(KeyboardInterrupt):
            pretrain(killed, console=QUIET)
    for path, data in zip(spoilt, whole, strict=True):
        overwrite(path, data)
    pretrain(replace(killed, resume=True), console=QUIET)
    assert weights_of(tmp_path / "killed") == weights


def test_too_many_files_that_fail_after_the_scan_stop_the_run(config: PretrainConfig, tmp_path: Path) -> None:
    scan(list_videos(config.data), min_frames=1)
    for path in files(config)[:14]:
        spoil(path)
    with pytest.raises(ValueError, match="of 12 files failed after the scan, more than half"):
        pretrain(replace(config, out=str(tmp_path / "run")), console=QUIET)
