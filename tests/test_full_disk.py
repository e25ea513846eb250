"""Every command on a full disk, where no output can be, or where others write: one true line; what it advises works."""

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from v3s.backbones import BACKBONES
from v3s.cli import main
from v3s.commands.reproduce import SCALES
from v3s.files import lock
from v3s.vectors.embed import EmbedConfig, embed

FullDisk = Callable[[int], AbstractContextManager[None]]
QUIET = Console(quiet=True)

SMALL = "--clip-frames=8 --clip-size=32 --workers=0 --device=cpu"
RANDOM = f"--backbone=random:r3d@0.125 {SMALL}"
TRAINING = f"--epochs=1 --batch-size=4 --validation-videos=4 {SMALL} --out={{out}}"
EMBED = f"embed {{videos}} {RANDOM} --out={{out}}"
SEARCH = "search {video} --in={vectors} -k 2"
OF_RUN = "--backbone={run} --clips=1 --workers=0"
COMMANDS = {
    "check": "check {videos} --min-frames=8 --workers=0 --out={out}/report.jsonl",
    "prepare": "prepare {videos} --workers=0 --out={out}",
    "preview": "preview {videos} --task=ts --clip-frames=4 --clip-size=16 --out={out}/page.html",
    "pretrain": f"pretrain {{videos}} --backbone=r3d --width=0.125 --task=ts {TRAINING}",
    "finetune": f"finetune {{labelled}} --backbone=random:r3d@0.125 {TRAINING}",
    "evaluate": f"evaluate {{videos}} {OF_RUN} --out={{out}}/scores.json",
    "audit": f"audit {{videos}} {OF_RUN} --out={{out}}/audit.json",
    "audit page": f"audit {{videos}} {OF_RUN} --page={{out}}/audit.html",
    "convert": "convert {weights} --out={out}",
    "probe": f"probe {{labelled}} {RANDOM} --out={{out}}/probe.json",
    "probe save": f"probe {{labelled}} {RANDOM} --save={{out}}",
    "retrieve": f"retrieve {{labelled}} {RANDOM} --out={{out}}/retrieve.json",
    "retrieve page": f"retrieve {{labelled}} {RANDOM} --page={{out}}/retrieve.html",
    "similarity": f"similarity {{labelled}} {RANDOM} --num-folds=2 --pairs-per-fold=8 --out={{out}}/similarity.json",
    "explain": "explain {video} --backbone={run} --out={out}",
    "compare": "compare {labelled} --backbones {run} --workers=0 --device=cpu --out={out}",
    "speediness": "speediness {video} --backbone={run} --out={out}/page.html",
    "embed": f"{EMBED} --append",
    "embed npy": f"{EMBED} --export=npy",
    "embed csv": f"{EMBED} --export=csv",
    "embed parquet": f"{EMBED} --export=parquet",
    "append": f"{EMBED} --append",
    "merge": "merge {half1} {half2} --out={out}",
    "index": "index {out} --recall-queries=2 -k 1",
    "search": f"{SEARCH} --out={{out}}/hits.json",
    "search page": f"{SEARCH} --clips={{out}}/clips --page={{out}}/hits.html",
    "search clips": f"{SEARCH} --clips={{out}}/clips",
    "explore": "explore {vectors} --out={out}",
    "export": "export {run} --out={out}",
    "demo": "demo {videos} --epochs=1 --workers=0 --device=cpu --out={out}",
    "reproduce": "reproduce table3 --data={labelled} --scale=tiny --rows=ss --workers=0 --device=cpu --out={out}",
}
"""Command lines; {out} is a folder that does not exist yet, except for those of vectors in `BEFORE`."""

FOLDERS = ("prepare", "pretrain", "finetune", "convert", "probe save", "compare", "embed", "merge", "search clips",
           "explore", "export")  # fmt: skip
"""Those that fill a folder, and nobody else meanwhile."""

BEFORE = {"append": "half1", "index": "vectors"}
LIMITS = dict.fromkeys(
    ("evaluate", "audit", "probe", "retrieve", "similarity", "embed", "embed npy", "append", "merge", "search"), 200
) | {"explain": 30_000, "search page": 8_000}
"""How many bytes a file may have, such that the last kind of file that the command writes does not fit; else 3,000."""
KEPT = {
    "prepare": {"store.json", "unfinished", "shards"},
    "pretrain": {"config.yaml", "manifest.json", "videos.jsonl", "train.log"},
    "finetune": {"config.yaml", "manifest.json", "videos.jsonl", "train.log"},
    "compare": {"rows"},
    "embed csv": {"vectors.json", "videos.jsonl", "shard-00000.safetensors", "shard-00001.safetensors"},
    "embed parquet": {"vectors.json", "videos.jsonl", "shard-00000.safetensors", "shard-00001.safetensors"},
    "demo": {"demo.json"},
    "reproduce": {"reproduce.json", "lists", "pretrain"},
}
"""What a command leaves from which the next one goes on; the others leave nothing."""
RESUMED = ("pretrain", "finetune")


@pytest.fixture(scope="module")
def places(
    small_videos: Path, labelled_videos: Path, pretrained: Path, small_embedding: EmbedConfig,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:  # fmt: skip
    """What the command lines name."""
    folder = tmp_path_factory.mktemp("places")
    for name, shard in (("vectors", "1/1"), ("half1", "1/2"), ("half2", "2/2")):
        embed(replace(small_embedding, out=str(folder / name), shard=shard), console=QUIET)
    torch.save(BACKBONES["r3d"](1.0).state_dict(), folder / "weights.pt")
    names = ("vectors", "half1", "half2", "weights.pt")
    made = {name.removesuffix(".pt"): folder / name for name in names}
    inputs = {"videos": small_videos, "labelled": labelled_videos, "run": pretrained}
    return {**made, **inputs, "video": next(small_videos.rglob("*.mp4"))}


@pytest.fixture
def small_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Demo and reproduction that take seconds."""
    small = replace(SCALES["tiny"], pretrain_epochs=1, finetune_epochs=1, clip_size=32)
    monkeypatch.setitem(SCALES, "tiny", small)
    for name in ("CLIPS_PER_EPOCH", "NUM_VALIDATION_CLIPS", "NUM_TEST_CLIPS"):
        monkeypatch.setattr(f"v3s.commands.demo.{name}", 16)


def words_of(name: str, out: Path, places: dict[str, Path]) -> list[str]:
    if name in BEFORE:
        shutil.copytree(places[BEFORE[name]], out)
    return COMMANDS[name].format(out=out, **places).split()


def error_of(words: list[str], capsys: pytest.CaptureFixture[str], *, before_work: bool = False) -> str:
    """The one line with which a command fails."""
    capsys.readouterr()
    code = main(words)
    printed, error = capsys.readouterr()
    error, _, see = error.partition("\n")
    assert (code, see) in ((1, ""), (2, f"See: v3s {words[0]} --help\n")), error
    assert not (before_work and " usable, " in printed), "videos were read first"
    return error


@pytest.mark.filterwarnings("ignore:[\\s\\S]*the next run reads all files again", "ignore:[\\s\\S]*in serial mode")
@pytest.mark.usefixtures("small_tables")
@pytest.mark.parametrize("name", COMMANDS)
def test_full_disk(
    name: str, places: dict[str, Path], tmp_path: Path, full_disk: FullDisk, capsys: pytest.CaptureFixture[str]
) -> None:
    if name == "index":
        pytest.importorskip("faiss")
    out = tmp_path / "out"
    words = words_of(name, out, places)
    before = {path.name for path in out.glob("*")}
    with full_disk(LIMITS.get(name, 3000)):
        error = error_of(words, capsys)
    assert "cannot be written" in error
    assert "intact" not in error, "there was nothing before"
    assert ("--resume" in error) == (name in RESUMED or name == "reproduce")
    left = {path.name for path in tmp_path.glob("out/*")}
    assert left == before | KEPT.get(name, set())
    assert out.exists() == bool(left)
    assert main([*words, "--resume"] if name in RESUMED else words) == 0


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_that_another_process_fills_in_between(
    name: str, places: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """What a folder contains is checked once nobody else can write to it."""

    def fill_first(folder: Path) -> int:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "mine").touch()
        return acquire(folder)

    acquire = lock._acquire
    monkeypatch.setattr(lock, "_acquire", fill_first)
    assert f"{tmp_path / 'out'}" in error_of(words_of(name, tmp_path / "out", places), capsys)
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["mine"]


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in BEFORE])  # the others need their output
def test_no_place_for_an_output(
    name: str, places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its folder is a file; its name is too long; where a file is wanted, it is a folder; found before the work."""
    (tmp_path / "file").write_text("mine")
    out = tmp_path / "folder"
    _, is_below, file = COMMANDS[name].rpartition("{out}/")
    if is_below and file != "clips":
        (out / file).mkdir(parents=True)
        assert "is a folder; give a file name" in error_of(words_of(name, out, places), capsys, before_work=True)
    for place in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / ("x" * 256)):
        error = error_of(words_of(name, place, places), capsys, before_work=True)
        assert str(tmp_path) in error or "256 bytes" in error
    assert (tmp_path / "file").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} <= {"file", "folder"}
