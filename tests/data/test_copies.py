"""One video is one entry: a list that names it again, copies under other names, and the division that keeps both."""

import shutil
from pathlib import Path

import av
import numpy as np
import pytest
from rich.console import Console

from v3s.commands.check import CheckConfig, check
from v3s.commands.prepare import PrepareConfig, prepare
from v3s.data.groups import hold_out
from v3s.data.lists.splits import list_videos
from v3s.data.scan import scan
from v3s.data.synthetic import make_clips
from v3s.data.usable import usable_videos
from v3s.video.index import index_video

PATHS = ("a/one.mp4", "two.mp4")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two videos, and copies of the first: a file, a link and one with another tag at its end."""
    data = tmp_path / "data"
    make_clips(tmp_path / "made", num_videos=2, num_frames=30, height=32, width=48)
    made = sorted((tmp_path / "made").rglob("*.mp4"))
    (data / "a").mkdir(parents=True)
    for source, path in zip(made, PATHS, strict=True):
        shutil.copy(source, data / path)
    return data


def copies(folder: Path) -> None:
    shutil.copy(folder / PATHS[0], folder / "copy.mp4")
    (folder / "link.mp4").symlink_to(PATHS[0])
    (folder / "tagged.mp4").write_bytes((folder / PATHS[0]).read_bytes() + b"\0\0\0\x10free" + bytes(8))


@pytest.mark.parametrize(
    "again",
    ["a/one.mp4", "./a/one.mp4", "a//one.mp4", "a/../a/one.mp4", "{folder}/a/one.mp4", "{folder}/a/./one.mp4"],
)
def test_a_path_that_is_listed_again_is_one_entry(again: str, folder: Path) -> None:
    lines = ["a/one.mp4", "two.mp4", again.format(folder=folder), "two.mp4"]
    (folder / "list.txt").write_text("\n".join(lines))
    videos = list_videos(folder / "list.txt")
    assert videos.paths == PATHS
    assert videos.description.endswith("2 videos without labels; skipped: 2 entries that are already listed")


def test_a_path_through_a_link_is_another(folder: Path) -> None:
    """``links/../two.mp4`` lies beside the folder that the link leads to."""
    (folder.parent / "elsewhere/inner").mkdir(parents=True)
    shutil.copy(folder / "two.mp4", folder.parent / "elsewhere/two.mp4")
    (folder / "links").symlink_to(folder.parent / "elsewhere/inner")
    (folder / "list.txt").write_text("two.mp4\nlinks/../two.mp4\n")
    assert list_videos(folder / "list.txt").paths == ("two.mp4", "links/../two.mp4")


def test_two_labels_of_a_path_are_refused(folder: Path) -> None:
    (folder / "list.csv").write_text("a/one.mp4,run\ntwo.mp4,run\n./a/one.mp4,jump\n")
    with pytest.raises(ValueError, match=r"one\.mp4 has two labels in list .*list\.csv, 'run' and 'jump'; keep one"):
        list_videos(folder / "list.csv")
    (folder / "list.csv").write_text("a/one.mp4,run\ntwo.mp4,run\n./a/one.mp4,run\n")
    assert list_videos(folder / "list.csv").labels == ("run", "run")


def test_an_official_list_that_names_a_video_twice(folder: Path) -> None:
    (folder.parent / "lists").mkdir()
    (folder.parent / "lists/train.csv").write_text("a/one.mp4,run\ntwo.mp4,run\na/one.mp4,run\n")
    videos = list_videos(folder, splits=folder.parent / "lists")
    assert (videos.paths, videos.labels) == (PATHS, ("run", "run"))
    assert "1 entry that is already listed" in videos.description


def test_the_same_content_under_other_names_is_reported(folder: Path) -> None:
    copies(folder)
    console = Console(record=True, width=200)
    reports = {
        report.path: report for report in check(CheckConfig(data=str(folder), workers=0), console=console).reports
    }
    originals = {path: report.copy_of for path, report in reports.items()}
    assert originals == dict.fromkeys(("copy.mp4", "link.mp4", "tagged.mp4"), "a/one.mp4") | dict.fromkeys(PATHS, "")
    assert "note: copy.mp4: has the same content as 'a/one.mp4'" in console.export_text()
    console = Console(record=True, width=200)
    usable_videos(list_videos(folder), min_frames=8, console=console, workers=0)
    assert "3 videos with the same content as another one; v3s check names them" in console.export_text()


def test_spans_of_copies_are_counted_as_spans(folder: Path) -> None:
    copies(folder)
    lines = [f"{path},{start},{start + 0.4}" for path in ("a/one.mp4", "copy.mp4", "tagged.mp4") for start in (0, 0.4)]
    (folder / "spans.csv").write_text("\n".join(["path,start,end", *lines]) + "\n")
    console = Console(record=True, width=200)
    usable_videos(list_videos(folder / "spans.csv"), min_frames=4, console=console, workers=0)
    assert "4 spans of 2 files with the same content as another one; v3s check names" in console.export_text()


@pytest.mark.parametrize("pixel_format", ["yuv", "jpeg"])
def test_a_store_knows_copies_too(folder: Path, pixel_format: str) -> None:
    copies(folder)
    out = folder.parent / "store"
    config = PrepareConfig(data=str(folder), out=str(out), pixel_format=pixel_format, workers=0)  # type: ignore[arg-type]
    prepare(config, console=Console(quiet=True))
    found = scan(list_videos(out), min_frames=8)
    assert [report.copy_of for report in found.reports] == ["", *["a/one.mp4"] * 3, ""]
    assert list(found.table.fingerprints) == list(scan(list_videos(folder), min_frames=8).table.fingerprints)


def test_a_fingerprint_identifies_the_pictures_as_they_are_shown(folder: Path) -> None:
    """A change of tags or container keeps it; the same packets with another display matrix are another video."""
    copies(folder)
    one, two = (index_video(folder / path).fingerprint for path in PATHS)
    assert 0 < one != two > 0
    assert index_video(folder / "tagged.mp4").fingerprint == one
    for name, matrix in (("again.mkv", None), ("turned.mp4", [0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30])):
        with av.open(str(folder / PATHS[0])) as given, av.open(str(folder / name), "w") as output:
            stream = output.add_stream_from_template(given.streams.video[0])
            if matrix:
                stream.set_display_matrix(matrix)
            for packet in (packet for packet in given.demux(video=0) if packet.size):
                packet.stream = stream
                output.mux(packet)
        assert (index_video(folder / name).fingerprint == one) == (matrix is None)


@pytest.mark.parametrize("seed", range(50))
def test_copies_are_held_out_together(seed: int) -> None:
    """50 seeds: no content lies on both sides, the number is met, and without copies the division is what it was."""
    contents = np.array([1, 1, 2, 3, 4, 5, 5, 5, 6, 7], np.uint64)
    train, validation = hold_out(10, 3, seed, contents)
    assert not set(contents[train]) & set(contents[validation])
    assert sorted([*train, *validation]) == list(range(10))
    drawn = hold_out(10, 3, seed)[1]
    assert len(validation) == 3
    assert np.array_equal(hold_out(10, 3, seed, np.arange(10))[1], drawn)


def test_copies_of_one_video_cannot_be_divided() -> None:
    with pytest.raises(ValueError, match="all 4 usable videos belong together, by their content or their group"):
        hold_out(4, 1, 0, np.ones(4, np.uint64))
