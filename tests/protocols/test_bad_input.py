"""Unusable features and labels on the command line: an error of one line says what to do."""

from pathlib import Path

import pytest

from v3s.cli import main
from v3s.vectors.collection import shard_path

SMALL = "--clip-frames 8 --clip-size 32 --num-clips 1 --workers 0 --device cpu"
NETWORK = "--backbone random:r3d@0.125"


@pytest.fixture(autouse=True)
def _read_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("v3s.data.scan.default_workers", lambda: 0)


def error_of(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The only line that a failing command prints as an error."""
    capsys.readouterr()
    assert main(command.split()) == 1
    text = capsys.readouterr().err
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    return text


def test_features_of_another_model_and_a_truncated_shard(
    small_videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vectors, query = tmp_path / "vectors", next(small_videos.rglob("*.mp4"))
    assert main(f"embed --data {small_videos} {NETWORK} {SMALL} --out {vectors}".split()) == 0
    other = error_of(f"search {query} --in {vectors} --backbone random:r3d@0.25", capsys)
    assert "contains vectors of another model" in other
    assert "give the network that embed used" in other
    added = error_of(f"embed --data {small_videos} --backbone random:c3d@0.125 {SMALL} --out {vectors}", capsys)
    assert "from another network or preprocessing: r3d@0.125" in added
    assert "--overwrite" in added
    shard = shard_path(vectors, 0)
    shard.write_bytes(shard.read_bytes()[:-30])
    damaged = error_of(f"search {query} --in {vectors}", capsys)
    assert f"{shard}: damaged" in damaged
    assert "run v3s embed again" in damaged


def test_stored_vectors_on_the_command_line(
    labelled_videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vectors = tmp_path / "vectors"
    assert main(f"embed {labelled_videos} {NETWORK} {SMALL} --out {vectors}".split()) == 0
    for same in ("", " --num-clips 1 --pool mean"):
        assert main(f"retrieve --in {vectors}{same}".split()) == 0
        assert "8 queries, and a gallery of 16 videos" in capsys.readouterr().out
    other = error_of(f"retrieve --in {vectors} --num-clips 10", capsys)
    assert "was embedded with --num-clips 1, not --num-clips 10; give " in other
    assert main(["probe"]) == 2
    assert "--data is missing; give DATA and --backbone, or vectors with --in" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["retrieve", "probe"])
def test_empty_gallery_missing_labels_and_unknown_stage(
    command: str, labelled_videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = f"{command} {NETWORK} {SMALL} --test-data {labelled_videos / 'test'} --data"
    (tmp_path / "empty").mkdir()
    assert "contains no videos" in error_of(f"{prefix} {tmp_path / 'empty'}", capsys)
    (tmp_path / "list.txt").write_text(f"{next((labelled_videos / 'train').rglob('*.mp4'))}\n")
    unlabelled = error_of(f"{prefix} {tmp_path / 'list.txt'}", capsys)
    assert "1 of 1 videos has no label" in unlabelled
    assert "put the videos in one folder per class" in unlabelled
    stage = error_of(f"{prefix} {labelled_videos / 'train'} --stage conv9", capsys)
    assert "no stage 'conv9'; it has: conv1, conv2, conv3, conv4, conv5" in stage
