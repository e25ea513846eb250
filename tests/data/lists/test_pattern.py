"""Several folders and files by one pattern."""

import os
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from v3s.commands.check import CheckConfig, check
from v3s.commands.prepare import PrepareConfig, prepare
from v3s.data.lists.splits import list_videos

QUIET = Console(quiet=True)


@pytest.fixture
def cages(tmp_path: Path, small_videos: Path) -> Path:
    """The same names in two folders, and other files."""
    video = min(small_videos.rglob("*.*"))
    for name in ("one/a.mp4", "one/b.mp4", "two/a.mp4", "two/deep/c.mp4", "two/notes.txt", "x[1]/d.mp4", "{y,z}/e.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(video, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*/a.mp4", ["one/a.mp4", "two/a.mp4"]),
        ("{one,two}", ["one/a.mp4", "one/b.mp4", "two/a.mp4", "two/deep/c.mp4"]),
        ("**/[ac].mp4", ["one/a.mp4", "two/a.mp4", "two/deep/c.mp4"]),
        ("{one,two/{deep,a.mp4}}", ["one/a.mp4", "one/b.mp4", "two/a.mp4", "two/deep/c.mp4"]),
        ("one/?.mp4", ["a.mp4", "b.mp4"]),
        ("x[1]", ["d.mp4"]),
        ("x[1]/?.mp4", ["d.mp4"]),
        ("x[1]/{d.mp4,../one}", ["one/a.mp4", "one/b.mp4", "x[1]/d.mp4"]),
        ("{y,z}/*", ["e.mp4"]),
        ("two/{*,a.mp4}", ["a.mp4", "deep/c.mp4"]),
    ],
)
def test_names_are_unique_and_relative_to_what_the_pattern_fixes(cages: Path, pattern: str, names: list[str]) -> None:
    listed = list_videos(f"{cages}/{pattern}")
    assert list(listed.paths) == names
    assert all((listed.root / name).exists() for name in names)


def test_a_new_file_changes_no_name(cages: Path) -> None:
    before = list_videos(f"{cages}/{{one,two}}/**").paths
    shutil.copy(cages / "one" / "a.mp4", cages / "one" / "new.mp4")
    after = list_videos(f"{cages}/{{one,two}}/**").paths
    assert set(after) - set(before) == {"one/new.mp4"}
    assert set(before) < set(after)


def test_what_is_no_video_is_said(cages: Path) -> None:
    assert "1 matching name without a video" in list_videos(f"{cages}/two/*").skipped


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("*/none*.mp4", "no file or folder matches"),
        ("{one,three}", "no file or folder matches .*three"),
        ("two/*.txt", "none of 1 matching name is a video or a folder"),
        ("{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}", "more than 1,000 paths"),
    ],
)
def test_a_pattern_that_gives_nothing_is_one_line(cages: Path, pattern: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        list_videos(f"{cages}/{pattern}")
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="has no splits and no test subset"):
        list_videos(f"{cages}/{pattern}", subset="test")


def test_check_and_a_store_take_a_pattern(cages: Path, tmp_path: Path) -> None:
    pattern = f"{cages}/{{one,two}}"
    assert check(CheckConfig(data=pattern, min_frames=1), console=QUIET).num_usable == 4
    config = PrepareConfig(data=pattern, out=str(tmp_path / "store"), workers=1)
    assert sorted(prepare(config, console=QUIET).files) == ["one/a.mp4", "one/b.mp4", "two/a.mp4", "two/deep/c.mp4"]
    assert len(prepare(config, console=QUIET).files) == 4
    assert list_videos(str(tmp_path / "store")).paths == ("one/a.mp4", "one/b.mp4", "two/a.mp4", "two/deep/c.mp4")
    with pytest.raises(ValueError, match="is a store; a store is given alone"):
        list_videos(f"{cages}/{{one,store}}")


def test_a_folder_that_cannot_be_read_is_not_one_without_videos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.mp4").touch()
    honest = os.scandir

    def refuse(folder: Path) -> object:
        if Path(folder).name == "two":
            raise PermissionError(13, "Permission denied")
        return honest(folder)

    monkeypatch.setattr("v3s.data.lists.folder.os.scandir", refuse)
    with pytest.raises(ValueError, match="two cannot be read: Permission denied"):
        list_videos(str(tmp_path / "*"))
