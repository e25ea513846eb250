"""A small system: little shared memory, few open files, no home folder."""

import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from v3s.backbones.device import choose_compute
from v3s.cli import main
from v3s.commands.check import CheckConfig, check
from v3s.commands.own import _scan
from v3s.commands.pretrain import PretrainConfig, set_up_pretraining
from v3s.commands.preview import PreviewConfig, preview
from v3s.data import handover
from v3s.data.handover import BatchReader, BatchWriter, check_room
from v3s.train.distributed import Processes

QUIET = Console(quiet=True)


def test_without_shared_memory_nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "_free_shared_bytes", lambda: 16_000)
    with pytest.raises(ValueError, match=r"/dev/shm has 16 kB free.*--shm-size=1g.*--workers 0"):
        check_room(2)


def test_the_way_out_works_where_videos_are_read_for_training_and_for_a_preview(
    small_pretraining: PretrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "_free_shared_bytes", lambda: 16_000)
    data, compute = small_pretraining.data, choose_compute("cpu", "auto")

    def train(workers: int) -> None:
        config = replace(small_pretraining, workers=workers)
        set_up_pretraining(config, compute=compute, processes=Processes(), console=QUIET)

    def show(workers: int) -> None:
        config = PreviewConfig(data=data, out=str(tmp_path / "p.html"), clip_frames=8, clip_size=16, workers=workers)
        preview(config, console=QUIET)

    def choose(workers: int) -> None:
        _scan({"data": data, "workers": workers}, {}, QUIET)

    for number, read in enumerate((train, show, choose)):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / str(number)))  # where no file is known yet
        with pytest.raises(ValueError, match="or use --workers 0"):
            read(1)
        read(0)


def test_a_batch_that_does_not_fit_goes_through_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    clips = torch.rand(2, 3, 4, 5, 6).to(memory_format=torch.channels_last_3d)
    for free in (0.0, float("inf")):
        monkeypatch.setattr(handover, "_free_shared_bytes", lambda free=free: free)
        writer, reader = BatchWriter(0, num_slots=2), BatchReader(pin_memory=False)
        (sent,) = writer.write((clips,))
        assert isinstance(sent.memory, np.ndarray) == (free == 0)
        (read,) = reader.read((sent,))
        assert torch.equal(read, clips)
        assert read.stride() == clips.stride()


def test_few_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [(20, 20)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: limits.append(new))
    with pytest.raises(ValueError, match=r"only 20 files may be open at once, but 2 reading processes need 112; raise"):
        check_room(2)
    limits[0] = (20, 4096)
    check_room(2)
    assert limits[-1] == (112, 4096)


def test_no_home_folder(
    monkeypatch: pytest.MonkeyPatch, small_videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_home(*_: object) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.setattr(Path, "expanduser", no_home)
    with pytest.warns(UserWarning, match="the next run reads all files again; set XDG_CACHE_HOME"):
        scan = check(CheckConfig(data=str(small_videos), workers=0, min_frames=8), console=QUIET)
    assert scan.num_usable == 16
    assert main(["check", "--data=~/videos"]) == 2
    error = "error: ~/videos: this user has no home folder; give the whole path\nSee: v3s check --help\n"
    assert capsys.readouterr().err == error
