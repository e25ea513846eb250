"""A folder of videos and a list file, in every form that users have, and every way in which one can be wrong."""

import inspect
import json
import re
import shutil
from dataclasses import fields
from pathlib import Path

import pytest
from rich.console import Console

from v3s.commands import demo, demo_page
from v3s.data.lists.folder import _OWN_OUTPUT, find_files, video_files
from v3s.data.lists.listfile import read_list
from v3s.data.lists.listing import Subset
from v3s.data.lists.splits import list_videos
from v3s.files.own import _KEYS
from v3s.protocols import explain
from v3s.video.container import ENDINGS


def make_files(root: Path, paths: list[str]) -> Path:
    """Create empty files; a listing looks at names only."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


# --- a folder ---------------------------------------------------------------------------------------------------------


def test_folder_lists_every_video_with_the_name_of_its_folder(tmp_path: Path) -> None:
    make_files(tmp_path, ["b/2.MP4", "b/1.avi", "a b/deep/x [1].mkv", "top.webm", "a b/notes.txt", ".hidden/h.mp4"])
    make_files(tmp_path, ["b/._1.avi"])
    videos = list_videos(tmp_path)
    assert videos.paths == ("a b/deep/x [1].mkv", "b/1.avi", "b/2.MP4", "top.webm")
    assert videos.labels == ("deep", "b", "b", None)
    assert videos.classes == ("b", "deep")
    assert videos.source == f"folder {tmp_path}: 4 videos in 2 classes"
    skipped = "1 file without a video's file extension (1 .txt), 2 hidden"
    assert (videos.skipped, videos.description) == (skipped, f"{videos.source}; skipped: {skipped}")
    assert (videos.num_missing, len(videos), videos.root) == (0, 4, tmp_path)


def test_folder_without_folders_has_no_labels(tmp_path: Path) -> None:
    videos = list_videos(str(make_files(tmp_path, ["1.mp4", "2.mp4"])), subset="all")
    assert videos.labels == (None, None)
    assert videos.source.endswith("2 videos without labels")


def test_videos_of_every_format_are_listed_and_what_is_not_is_counted(tmp_path: Path) -> None:
    """An ending that a format has is a video's; all others are counted, each by itself."""
    wanted = sorted(f"clips/a{ending}" for ending in ENDINGS)
    make_files(tmp_path, wanted)
    make_files(tmp_path, [f"shots/{letter}.png" for letter in "abcdefghijklmnopqrstuvwxy"])
    make_files(
        tmp_path, ["README", "draft.", "notes.TXT", "clips/a.srt", "clips/b.srt", ".cache/x.mp4", "clips/.DS_Store"]
    )
    videos = list_videos(tmp_path)
    assert list(videos.paths) == wanted
    by_ending = "2 .srt, 1 .txt, 2 without ending"
    assert sorted(videos.skipped.partition("(")[2].partition(")")[0].split(", ")) == sorted(by_ending.split(", "))
    assert videos.skipped.startswith("5 files without a video's file extension (2 ")
    assert videos.skipped.endswith(
        ", 2 hidden, 25 pictures (25 .png): to be the frames of a video, pictures need numbers in their names and a "
        "folder that holds no video"
    )
    found = find_files(tmp_path)
    counts = found.others.total(), found.pictures.total(), found.num_hidden, len(found.videos)
    assert counts == (5, 25, 2, len(wanted))


def test_nothing_is_said_where_nothing_is_skipped(tmp_path: Path) -> None:
    videos = list_videos(make_files(tmp_path, ["1.mp4", "b/2.y4m"]))
    assert (videos.skipped, videos.description) == ("", videos.source)


def test_what_v3s_wrote_is_skipped(tmp_path: Path) -> None:
    """Output of explain and demo below or in the folder; a file of the same name with other content marks nothing."""
    explained = json.dumps({"backbone": "run", "fingerprint": "ab", "no_evidence": False})
    make_files(tmp_path, ["a/1.mp4", "overlay.mp4", "overlay.gif", "a/why/overlay.mp4", "b/2.mp4", "b/overlay.mp4"])
    make_files(tmp_path, ["a/why/overlay.gif", "a/why/mine.mp4"])
    make_files(tmp_path, ["demo/videos/circle/clip_000.mp4", "demo/changing_speed.mp4"])
    for place in ("explain.json", "a/why/explain.json"):
        (tmp_path / place).write_text(explained)
    (tmp_path / "b/explain.json").write_text('["mine"]')
    (tmp_path / "b/demo.json").write_bytes(b"\xff")
    (tmp_path / "demo/demo.json").write_text(json.dumps({"epochs": None, "out": "demo", "overwrite": False}))
    videos = list_videos(tmp_path)
    assert videos.paths == ("a/1.mp4", "a/why/mine.mp4", "b/2.mp4", "b/overlay.mp4")
    assert videos.skipped.endswith("5 outputs of v3s")
    assert video_files(tmp_path / "demo") == ("videos/circle/clip_000.mp4",)


def test_marks_of_output_are_those_that_commands_write() -> None:
    assert (demo._MARK, demo_page._CHANGING) == ("demo.json", "changing_speed.mp4")
    assert {"epochs", "out", "overwrite"} <= {item.name for item in fields(demo.DemoConfig)}
    source = inspect.getsource(explain)
    assert all(f'"{name}"' in source for name in ("overlay.mp4", "overlay.gif", "explain.json", "no_evidence"))
    assert _OWN_OUTPUT.keys() <= _KEYS.keys()


def test_every_module_that_writes_videos_is_known() -> None:
    """Its videos may lie in a data folder: they need a row in ``_OWN_OUTPUT``, and their mark is written first."""
    writers = {"cutouts": "cutouts.json", "demo_page": "demo.json", "explain": "explain.json"}
    writers["synthetic"] = "for training"
    writes = re.compile(r"write_(files|whole|atomically)\(")
    makes = re.compile(r"\b(mp4|gif|encode_mp4)\(|av\.open\([^)]*[\"']w[\"']")
    source = Path(inspect.getfile(demo)).parents[1]
    texts = {path.stem: path.read_text() for path in source.rglob("*.py") if path.parent.name != "pages"}
    assert {name for name, text in texts.items() if makes.search(text) and writes.search(text)} == writers.keys()
    assert {mark for mark in writers.values() if mark.endswith(".json")} == _OWN_OUTPUT.keys()


def test_a_killed_explain_leaves_no_training_video(tmp_path: Path, pretrained: Path, small_videos: Path) -> None:
    """The disk is full, or the process is killed, after any number of files."""
    (data := tmp_path / "data").mkdir()
    video = shutil.copy(next(small_videos.rglob("*.mp4")), data / "one.mp4")
    config = explain.ExplainConfig(video=str(video), backbone=str(pretrained), out=str(data / "why"), device="cpu")
    for num_written in range(3):
        with pytest.MonkeyPatch.context() as patch:
            moved: list[Path] = []

            def replace(path: Path, target: Path, moved: list[Path] = moved, most: int = num_written) -> None:
                if len(moved) == most:
                    raise OSError(28, "No space left on device")
                moved.append(path)
                path.rename(target)

            patch.setattr(Path, "replace", replace)
            with pytest.raises(OSError, match="No space"):
                explain.explain(config, console=Console(quiet=True))
        assert video_files(data) == ("one.mp4",)


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    root = make_files(tmp_path / "data", ["a/1.mp4"])
    make_files(tmp_path / "elsewhere", ["2.mp4"])
    (root / "b").symlink_to(tmp_path / "elsewhere")
    (root / "a" / "back").symlink_to(root)
    (root / "dangling.mp4").symlink_to(tmp_path / "nothing")
    for name in ("circle.mp4", "circle", "1.png"):
        (root / name).symlink_to(name)
    found = find_files(root)
    assert found.videos == ["a/1.mp4", "b/2.mp4", "circle.mp4", "dangling.mp4"]
    assert (found.others.total(), found.pictures.total()) == (1, 1)


@pytest.mark.parametrize("test_folder", ["test", "val"])
def test_folder_of_train_and_test_folders(tmp_path: Path, test_folder: str) -> None:
    make_files(tmp_path, ["train/a/1.mp4", "train/b/2.mp4", "train/3.mp4", f"{test_folder}/a/4.mp4", "readme.txt"])
    train, test = list_videos(tmp_path), list_videos(tmp_path, subset="test")
    assert train.paths == ("train/3.mp4", "train/a/1.mp4", "train/b/2.mp4")
    assert train.labels == (None, "a", "b")
    assert (test.paths, test.labels, test.classes) == ((f"{test_folder}/a/4.mp4",), ("a",), ("a",))
    assert list_videos(tmp_path, subset="all").paths == train.paths + test.paths


def test_train_and_test_among_other_folders_are_classes(tmp_path: Path) -> None:
    make_files(tmp_path, ["train/1.mp4", "test/2.mp4", "boat/3.mp4"])
    assert list_videos(tmp_path).labels == ("boat", "test", "train")


def test_plain_folder_has_no_test_subset(tmp_path: Path) -> None:
    make_files(tmp_path, ["a/1.mp4"])
    with pytest.raises(ValueError, match=r"has no test subset.*lists \(--splits\).*--test-data or --subset all"):
        list_videos(tmp_path, subset="test")


def test_bad_folders(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="absent does not exist"):
        list_videos(tmp_path / "absent")
    (tmp_path / "empty" / "inside").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"contains no videos: .*such as \.avi or \.mp4; skipped: nothing"):
        list_videos(tmp_path / "empty")
    make_files(tmp_path / "other", ["a/front.jpg", "a/back.jpg"])
    with pytest.raises(ValueError, match=r"skipped, such as a/\w+\.jpg: 2 pictures \(2 \.jpg\): to be the frames"):
        list_videos(tmp_path / "other")


def test_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_files(tmp_path, ["a/1.mp4"])

    def refuse(folder: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("v3s.data.lists.folder.os.scandir", refuse)
    with pytest.raises(ValueError, match="cannot be read: Permission denied"):
        list_videos(tmp_path)


def test_folders_may_be_nested_but_not_without_end(tmp_path: Path) -> None:
    make_files(tmp_path, [f"{'d/' * 200}a.mp4"])
    assert len(list_videos(tmp_path)) == 1
    make_files(tmp_path, [f"{'d/' * 300}a.mp4"])
    with pytest.raises(ValueError, match="folders more than 200 deep"):
        list_videos(tmp_path)


def test_wrong_subset_and_split(tmp_path: Path) -> None:
    make_files(tmp_path, ["a/1.mp4"])
    wrong: Subset = "val"  # type: ignore[assignment]
    with pytest.raises(ValueError, match="subset is 'val'; give one of train, test, all"):
        list_videos(tmp_path, subset=wrong)
    with pytest.raises(ValueError, match=r"split 2 was given, but .* has only one split"):
        list_videos(tmp_path, split=2)


# --- a list file ------------------------------------------------------------------------------------------------------


def test_list_file_in_all_its_forms(tmp_path: Path) -> None:
    make_files(tmp_path, ["a.mp4", "my video.mp4", "x, y.mp4", "sub/#2&(3).avi", "b.mp4", "c.mp4"])
    absolute = tmp_path / "c.mp4"
    lines = [
        "a.mp4 12",
        "",
        "my video.mp4",
        "my video.mp4,play violin",
        "x, y.mp4",
        '"x, y.mp4", 3',
        "x, y.mp4 3",
        "my video.mp4 3",
        "sub/#2&(3).avi  jump",
        "b.mp4, jump ",
        f"{absolute},jump",
    ]
    listing = read_list(write(tmp_path / "list.txt", "\r\n".join(lines) + "\r\n"), tmp_path)
    assert [(*entry.names, entry.label) for entry in listing.entries] == [
        ("a.mp4", "12"),
        ("my video.mp4", None),
        ("my video.mp4", "play violin"),
        ("x, y.mp4", None),
        ("x, y.mp4", "3"),
        ("x, y.mp4", "3"),
        ("my video.mp4", "3"),
        ("sub/#2&(3).avi", "jump"),
        ("b.mp4", "jump"),
        (str(absolute), "jump"),
    ]
    assert all((tmp_path / entry.names[0]).is_file() for entry in listing.entries)


@pytest.mark.parametrize("header", ["path,label", "Path,Label", "path, label", '"PATH","LABEL"'])
def test_integer_labels_are_in_numerical_order_and_a_header_is_not_a_video(header: str, tmp_path: Path) -> None:
    make_files(tmp_path, ["1.mp4", "2.mp4", "3.mp4"])
    videos = list_videos(write(tmp_path / "list.csv", f"{header}\n1.mp4,10\n2.mp4,9\n3.mp4,10\n"), subset="all")
    assert videos.classes == ("9", "10")
    assert videos.source == f"list {tmp_path / 'list.csv'}: 3 videos in 2 classes"


def test_bad_lists(tmp_path: Path) -> None:
    make_files(tmp_path, ["1.mp4"])
    missing = write(tmp_path / "missing.txt", "1.mp4 a\nabsent.mp4 b\n")
    with pytest.raises(ValueError, match=r"1 of 2 videos of list .* is missing under .*, first: absent\.mp4"):
        list_videos(missing)
    videos = list_videos(missing, allow_missing=True)
    assert (videos.paths, videos.classes, videos.num_missing) == (("1.mp4",), ("a",), 1)
    with pytest.raises(ValueError, match="contains no videos"):
        list_videos(write(tmp_path / "blank.txt", "\n\n"))
    with pytest.raises(ValueError, match=r"no video of list .* \(1 listed\) .* looked for no\.mp4"):
        list_videos(write(tmp_path / "none.txt", "no.mp4"), allow_missing=True)
    with pytest.raises(ValueError, match="a single list without a test subset"):
        list_videos(missing, subset="test")
    with pytest.raises(ValueError, match=r"need a folder of videos, but .* is a file; give the folder"):
        list_videos(missing, splits=tmp_path)


@pytest.mark.parametrize(
    ("line", "label"), [("my cell", None), ("my cell across", "across"), ("my cell,across", "across")]
)
def test_a_list_names_a_folder_of_frames_as_a_file(line: str, label: str | None, tmp_path: Path) -> None:
    make_files(tmp_path, ["my cell/1.png", "my cell/2.png", "my/a.mp4"])
    (entry,) = read_list(write(tmp_path / "list.txt", line), tmp_path).entries
    assert (entry.names, entry.label) == (("my cell",), label)
