"""Two parts of labelled videos: which are included, which are skipped and reported, and which are refused."""

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from v3s.data.scan import Scan
from v3s.data.synthetic import MOTIONS
from v3s.data.usable import report_padded, scan_with_bar
from v3s.data.views import View
from v3s.protocols.labelled import LabelledOptions, labelled_parts
from v3s.protocols.labelled.parts import UNKNOWN, Parts


def read(console: Console | None = None, **options: object) -> Parts:
    return labelled_parts(LabelledOptions(**options), console=console or Console(quiet=True))  # type: ignore[arg-type]


def recording() -> Console:
    return Console(file=io.StringIO(), width=1000)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def write_list(path: Path, lines: list[tuple[Path, str]]) -> str:
    path.write_text("".join(f"{video} {label}\n" for video, label in lines))
    return str(path)


@pytest.fixture
def lists(labelled_videos: Path, tmp_path: Path) -> tuple[str, str]:
    """A training list with the labels b, c, b, b and a test list with the labels c, a, b, b, a."""
    train = sorted((labelled_videos / "train").rglob("*.mp4"))
    test = sorted((labelled_videos / "test").rglob("*.mp4"))
    return (
        write_list(tmp_path / "train.txt", list(zip(train, "bcbb", strict=False))),
        write_list(tmp_path / "test.txt", list(zip(test, "cabba", strict=False))),
    )


def test_folder_with_train_and_test(labelled_videos: Path) -> None:
    parts = read(data=str(labelled_videos))
    assert parts.classes == tuple(sorted(MOTIONS))
    assert (len(parts.train_table), len(parts.test_table)) == (16, 8)
    assert parts.train_labels.tolist() == sorted(list(range(8)) * 2)
    assert parts.test_labels.tolist() == list(range(8))
    for paths, labels in ((parts.train_paths, parts.train_labels), (parts.test_paths, parts.test_labels)):
        assert [path.split("/")[1] for path in paths] == [parts.classes[label] for label in labels]
    assert all(index.path.endswith(path) for index, path in zip(parts.test_table, parts.test_paths, strict=True))
    assert (parts.chance, parts.majority, parts.num_unknown) == (1 / 8, 1 / 8, 0)
    assert "train: 16 videos in 8 classes" in parts.train_source


def test_a_single_list_with_splits_is_divided(labelled_videos: Path, tmp_path: Path) -> None:
    """Such is the list of v3s serve for a store, whose paths are names in the store."""
    files = sorted(file.relative_to(labelled_videos) for file in labelled_videos.rglob("*.mp4"))
    (tmp_path / "labels.csv").write_text("".join(f"{file},{file.parent.name}\n" for file in files))
    with pytest.raises(ValueError, match="that the listed paths are relative to, and the list with --splits"):
        read(data=str(tmp_path / "labels.csv"))
    parts = read(data=str(labelled_videos), splits=str(tmp_path / "labels.csv"))
    assert parts.is_divided
    assert sorted([*parts.train_paths, *parts.test_paths]) == sorted(map(str, files))


def test_labels_are_numbers_of_the_training_classes_and_unknown_ones_are_reported(lists: tuple[str, str]) -> None:
    console = recording()
    parts = read(console, data=lists[0], test_data=lists[1])
    assert parts.classes == ("b", "c")
    assert parts.train_labels.tolist() == [0, 1, 0, 0]
    assert parts.test_labels.tolist() == [1, UNKNOWN, 0, 0, UNKNOWN]
    assert (parts.num_unknown, parts.majority) == (2, 2 / 5)  # b, not c
    assert "2 of 5 test videos have a class without training videos: a (2); they count as wrong" in printed(console)


def test_official_splits(shared: Path, tmp_path: Path) -> None:
    """Every eightieth line of UCF101's lists: reading all videos would take minutes."""
    for name in ("trainlist01.txt", "testlist01.txt"):
        lines = (shared / "data/splits/ucf101-21" / name).read_text().splitlines()
        (tmp_path / name).write_text("\n".join(lines[::80]) + "\n")
    parts = read(data=str(shared / "data/UCF-101"), splits=str(tmp_path))
    assert len(parts.classes) > 10
    assert not set(parts.train_paths) & set(parts.test_paths)
    for paths, labels in ((parts.train_paths, parts.train_labels), (parts.test_paths, parts.test_labels)):
        for path, label in zip(paths, labels.tolist(), strict=True):
            folder = path.split("/")[0]
            assert label == (parts.classes.index(folder) if folder in parts.classes else UNKNOWN)


def test_bad_files_are_skipped_and_reported(labelled_videos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    shutil.copytree(labelled_videos, folder)
    broken = folder / "train/walk/broken.mp4"
    broken.write_bytes(b"no video")
    console = recording()
    parts = read(console, data=str(folder))
    assert len(parts.train_table) == len(parts.train_labels) == len(parts.train_paths) == 16
    assert list(parts.left_out) == ["train/walk/broken.mp4"]
    assert "skipped: train/walk/broken.mp4" in printed(console)


def test_short_videos_are_included_and_reported(labelled_videos: Path) -> None:
    parts, console = read(data=str(labelled_videos)), recording()
    report_padded(parts.tables, View(clip_frames=20), console)
    assert printed(console) == ""
    report_padded(parts.tables, View(clip_frames=21), console)
    assert "16 of 16 training videos are shorter than 21 frames" in printed(console)
    assert "8 of 8 test videos are shorter than 21 frames" in printed(console)
    few, console = {"training videos": parts.train_table.subset(np.array([0]))}, recording()
    report_padded(few, View(clip_frames=21), console)
    assert "1 of 1 training videos is shorter than 21 frames" in printed(console)


def test_videos_without_labels_are_refused(labelled_videos: Path, tmp_path: Path, lists: tuple[str, str]) -> None:
    video = next((labelled_videos / "train").rglob("*.mp4"))
    (tmp_path / "bare.txt").write_text(f"{video}\n")
    with pytest.raises(
        ValueError, match=r"1 of 1 videos has no label; .*labels.csv of v3s serve\), or give the official --splits"
    ):
        read(data=lists[0], test_data=str(tmp_path / "bare.txt"))


def test_a_file_in_both_parts_is_refused(lists: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="4 of 4 test videos are also training videos; first: "):
        read(data=lists[0], test_data=lists[0])


def test_two_kinds_of_test_videos_are_refused(labelled_videos: Path, lists: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match=r"test_data \(.*\) and splits \(lists\) cannot be combined"):
        read(data=str(labelled_videos), splits="lists", test_data=lists[1])


def test_one_class_is_not_enough(labelled_videos: Path, tmp_path: Path, lists: tuple[str, str]) -> None:
    videos = sorted((labelled_videos / "train").rglob("*.mp4"))[:2]
    only = write_list(tmp_path / "one.txt", [(video, "walk") for video in videos])
    with pytest.raises(ValueError, match="all videos are of the class 'walk'; at least two classes are needed"):
        read(data=only, test_data=lists[1])


def test_the_scan_uses_the_requested_processes(labelled_videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def record(*arguments: Any, workers: int | None, **options: Any) -> Scan:
        calls.append(workers)
        return scan_with_bar(*arguments, workers=0, **options)

    monkeypatch.setattr("v3s.data.usable.scan_with_bar", record)
    labelled_parts(LabelledOptions(data=str(labelled_videos)), workers=3, console=Console(quiet=True))
    assert calls == [3, 3]


def test_spans_of_one_file_may_be_trained_and_tested_on_but_no_time_of_it_twice(
    labelled_videos: Path, tmp_path: Path
) -> None:
    file = next(labelled_videos.rglob("*.mp4"))

    def spans(name: str, *lines: str) -> str:
        (tmp_path / name).write_text("path,start,end,label\n" + "".join(f"{file},{line}\n" for line in lines))
        return str(tmp_path / name)

    train = spans("train.csv", "0,0.2,a", "0.2,0.4,b", "0.6,0.8,a")
    options = LabelledOptions(data=train, test_data=spans("test.csv", "0.4,0.6,b"))
    parts = labelled_parts(options, console=Console(quiet=True), divides=True)
    assert (len(parts.train_table), len(parts.test_table)) == (3, 1)
    assert parts.train_groups is not None
    assert len(set(parts.train_groups.tolist())) == 3  # stretches of the recording
    for line in ("0.3,0.5,b", "0.7,,b", "0,0.1,a"):
        with pytest.raises(ValueError, match=r"1 of 1 test videos is also .*; give parts that share no file or time"):
            read(data=train, test_data=spans("test.csv", line))
