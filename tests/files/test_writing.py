"""Whatever is written: a full disk is one error that names the file, and leaves nothing; no link is followed."""

import json
import logging
import os
import shutil
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from v3s import PretrainConfig, pretrain
from v3s.cli import main
from v3s.commands.check import CheckConfig, check
from v3s.data.lists.listfile import write_list
from v3s.data.quarantine import Quarantine
from v3s.files.lock import only_writer
from v3s.files.writing import (
    SaveError,
    append_line,
    partial_path,
    write_json,
    write_keeping,
    write_together,
    write_whole,
)
from v3s.pages.templates import write_page
from v3s.train.checkpoint import save_checkpoint
from v3s.train.run import RunFolder, open_log
from v3s.vectors.collection import open_vectors
from v3s.vectors.embed import EmbedConfig, embed
from v3s.vectors.export import EXPORTS
from v3s.vectors.index import IndexConfig, index
from v3s.video.container import Failure

QUIET = Console(quiet=True)
FullDisk = Callable[[int], AbstractContextManager[None]]


@pytest.fixture(scope="module")
def vectors(small_embedding: EmbedConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("vectors") / "vectors"
    embed(replace(small_embedding, out=str(out)), console=QUIET)
    return out


def log_much(folder: Path) -> None:
    with open_log(RunFolder(folder)) as log:
        log.log(logging.INFO, "x" * 1000)


TEXT = "x" * 1000
WRITERS: dict[str, Callable[[Path], object]] = {
    "a.json": lambda folder: write_json(folder / "a.json", {"a": TEXT}),
    "a.html": lambda folder: write_page(folder / "a.html", TEXT),
    "a.csv": lambda folder: write_list(folder / "a.csv", [(TEXT, None)]),
    "metrics.jsonl": lambda folder: RunFolder(folder).add_metrics({"epoch": 1, "text": TEXT}),
    "train.log": log_much,
    "q.jsonl": lambda folder: Quarantine(log=folder / "q.jsonl", report=QUIET.print).add("a", Failure("open", TEXT), 0),
    "last.pt": lambda folder: save_checkpoint(folder / "last.pt", {"a": torch.zeros(1000)}),
    "line.txt": lambda folder: append_line(folder / "line.txt", TEXT),
    "config.json": lambda folder: write_together(folder, {"config.json": TEXT.encode()}),
}


@pytest.mark.parametrize("name", WRITERS)
def test_full_disk(name: str, tmp_path: Path, full_disk: FullDisk) -> None:
    with full_disk(100), pytest.raises(SaveError, match=rf"{name} cannot be written: File too large"):
        WRITERS[name](tmp_path)
    left = {path.name for path in tmp_path.rglob("*")} - {".next"}
    assert left <= {"metrics.jsonl", "train.log", "q.jsonl", "line.txt"}, "only what grows line by line"


@pytest.mark.parametrize("export", EXPORTS)
def test_full_disk_in_export(export: str, vectors: Path, full_disk: FullDisk) -> None:
    before = set(vectors.iterdir())
    with full_disk(100), pytest.raises(SaveError, match=rf"vectors\.{export} cannot be written: .*[Ff]ile too large"):
        EXPORTS[export](open_vectors(vectors))
    assert set(vectors.iterdir()) == before


def test_full_disk_in_index(vectors: Path, full_disk: FullDisk) -> None:
    pytest.importorskip("faiss")
    before = set(vectors.iterdir())
    with full_disk(100), pytest.raises(SaveError, match=r"index\.faiss cannot be written: FAISS: "):
        index(IndexConfig(vectors=str(vectors), recall_queries=2, k=1), console=QUIET)
    assert set(vectors.iterdir()) == before


@pytest.mark.filterwarnings("ignore:[\\s\\S]*the next run reads all files again")
def test_full_disk_in_check_and_lock(small_videos: Path, tmp_path: Path, full_disk: FullDisk) -> None:
    out = tmp_path / "r.jsonl"
    check(CheckConfig(data=str(small_videos), out=str(out), workers=0), console=QUIET)  # the cache is written here
    out.unlink()
    with full_disk(100), pytest.raises(SaveError, match=r"r\.jsonl cannot be written"):
        check(CheckConfig(data=str(small_videos), out=str(out), workers=0), console=QUIET)
    with full_disk(0), pytest.raises(SaveError, match=r"\.lock cannot be written"), only_writer(tmp_path / "run"):
        pass
    assert not list(tmp_path.iterdir())


def link(path: Path, target: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


@pytest.mark.parametrize("name", [".lock", ".next", "metrics.jsonl", "train.log", "checkpoints", "config.json"])
def test_a_link_in_a_run_is_refused(
    name: str, pretrained: Path, small_pretraining: PretrainConfig, tmp_path: Path
) -> None:
    run, elsewhere = shutil.copytree(pretrained, tmp_path / "run"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "config.json").write_text("mine")
    link(run / name, elsewhere if name in (".next", "checkpoints") else elsewhere / "config.json")
    for options in ({"resume": True, "epochs": 3}, {"overwrite": True}):
        with pytest.raises(ValueError, match=rf"run/{name} is a link.* remove it"):
            pretrain(replace(small_pretraining, out=str(run), **options), console=QUIET)
    assert [path.name for path in elsewhere.iterdir()] == ["config.json"]
    assert (elsewhere / "config.json").read_text() == "mine"


def test_links_and_pipes_in_other_folders(
    vectors: Path, small_videos: Path, small_embedding: EmbedConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine"
    mine.write_text("mine")
    folder = shutil.copytree(vectors, tmp_path / "vectors")
    link(folder / "shard-00000.safetensors", mine)
    with pytest.raises(ValueError, match="safetensors is a link"):
        embed(replace(small_embedding, out=str(folder)), console=QUIET)
    (folder / "shard-00000.safetensors").unlink()
    os.mkfifo(folder / "shard-00000.safetensors")
    with pytest.raises(ValueError, match="neither a file nor a folder"):
        embed(replace(small_embedding, out=str(folder)), console=QUIET)
    with pytest.raises(ValueError, match="missing; run v3s embed again"):
        open_vectors(folder)
    words = ["prepare", f"--data={small_videos}", f"--out={tmp_path / 'store'}", "--workers=0"]
    assert main(words) == 0
    link(tmp_path / "store/shards/00000.bin", mine)
    assert main(words) == 1
    assert "00000.bin is a link" in capsys.readouterr().err
    os.mkfifo(tmp_path / ".lock")
    with pytest.raises(ValueError, match="not a regular file"), only_writer(tmp_path):
        pass
    assert mine.read_text() == "mine"
    assert json.loads((vectors / "vectors.json").read_text())["num_videos"] == 16


def test_what_a_killed_process_left_is_removed_and_what_another_writes_is_not(tmp_path: Path) -> None:
    file, ended = tmp_path / "a.csv", subprocess.Popen(["true"])
    ended.wait()
    mine, elsewhere = partial_path(tmp_path / "b.csv", ended.pid), tmp_path / f".a.csv.0badhost-{ended.pid}.part"
    left, running = partial_path(file, ended.pid), partial_path(file, os.getppid())
    for path in (left, running, mine, elsewhere):
        path.write_text("half")
    write_whole(file, b"whole")
    assert set(tmp_path.iterdir()) == {file, running, mine, elsewhere}
    assert file.read_bytes() == b"whole"


@pytest.mark.parametrize("is_link", [False, True])
def test_a_file_with_another_content_is_kept(is_link: bool, tmp_path: Path, full_disk: FullDisk) -> None:
    folder = tmp_path / "place"
    folder.mkdir()
    file = tmp_path / "a.csv" if is_link else folder / "a.csv"
    if is_link:
        file.symlink_to(folder / "a.csv")

    def write(text: str) -> Path | None:
        return write_keeping(file, lambda path: path.write_text(text))

    assert [write("one"), write("one"), write("two")] == [None, None, folder / "a-1.csv"]
    with full_disk(100), pytest.raises(SaveError, match="the file that was there before is intact"):
        write("x" * 1000)
    assert write("three") == folder / "a-2.csv"
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        "a.csv": "three", "a-1.csv": "one", "a-2.csv": "two",
    }  # fmt: skip
    assert file.is_symlink() == is_link


def test_a_pipe_or_a_device_is_not_replaced_and_a_link_stays(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SaveError, match="pipe is a pipe or a device, which cannot be replaced by a file"):
        write_whole(tmp_path / "pipe", b"text")
    assert (tmp_path / "pipe").is_fifo()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_whole(tmp_path / "link", b"text")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"text"
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(SaveError, match="loop is a link that leads back to itself; remove it"):
        write_whole(tmp_path / "loop", b"text")
    assert (tmp_path / "loop").is_symlink()
