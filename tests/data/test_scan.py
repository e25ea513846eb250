"""A scan tells good files from bad, reads each once, and survives whatever befalls its cache."""

import multiprocessing
import os
import re
import shutil
import threading
from array import array
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import v3s.data.scan as scan_module
from v3s.commands.prepare import PrepareConfig, prepare
from v3s.data.index_cache import CacheWriter, default_cache, file_key, read_cache
from v3s.data.lists.spans import SpanOptions
from v3s.data.lists.splits import list_videos
from v3s.data.reports import summary
from v3s.data.scan import Scan, scan
from v3s.data.synthetic import make_clips
from v3s.data.usable import usable_videos
from v3s.video.index import VideoIndex, index_video

GOOD = "v_Archery_g01_c01.avi"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are decoded, as they are."""
    names: list[str] = []

    def counted(path: str, **options: Any) -> VideoIndex:
        names.append(Path(path).name)
        return index_video(path, **options)

    monkeypatch.setattr(scan_module, "index_video", counted)
    return names


@pytest.fixture
def folder(shared: Path, tmp_path: Path) -> Path:
    """A good file, a truncated one, a text, a short one, an empty one and a link to nowhere."""
    root = tmp_path / "videos"
    (root / "a").mkdir(parents=True)
    good = shared / "data/UCF-101/Archery" / GOOD
    shutil.copy(good, root / "a/good.avi")
    shutil.copy(shared / "data/UCF-101/Archery/v_Archery_g05_c04.avi", root / "short.avi")  # 51 frames
    (root / "cut.avi").write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    (root / "text.mp4").write_text("not a video\n" * 100)
    (root / "empty.mp4").touch()
    (root / "nowhere.mp4").symlink_to(root / "nothing")
    return root


def scan_folder(root: Path, min_frames: int = 69, **options: object) -> Scan:
    return scan(list_videos(root), min_frames=min_frames, **options)  # type: ignore[arg-type]


def test_hours_are_those_of_each_verdict(small_videos: Path) -> None:
    found = scan_folder(small_videos, min_frames=1, workers=0)
    long = [replace(report, seconds=1800.0) for report in found.reports]
    short = [replace(report, verdict="too short") for report in long[:3]]
    table = summary((*short, *long[3:]), found.videos)
    console = Console(width=100)
    with console.capture() as shown:
        console.print(table)
    rows = [line.split() for line in shown.get().splitlines()]
    assert ["usable", "13", "files,", "6.50", "h"] in rows
    assert ["too", "short", "3", "files,", "1.50", "h"] in rows


@pytest.mark.parametrize(
    ("shares", "mask", "expected"),
    [
        ([0.0, 0.0, 0.0], None, "median 0.0%, most 0.0% of the picture never changes"),
        (
            [0.0, 0.01, 0.25],
            None,
            "median 1.0%, most 25.0% of the picture never changes; if that is text, a scale or a logo, --mask auto "
            "makes it black",
        ),
        ([0.0, 0.01, 0.25], "auto", "median 1.0%, most 25.0% of the picture never changes"),
        (
            [0.0, 0.5, 0.9],
            None,
            "median 50.0%, most 90.0% of the picture never changes; more than 25% in 2: a still scene, where --mask "
            "auto changes nothing",
        ),
    ],
)
def test_what_never_changes_is_said_with_what_to_do(
    small_videos: Path, shares: list[float], mask: str | None, expected: str
) -> None:
    found = scan_folder(small_videos, min_frames=1, workers=0)
    pairs = zip(found.reports, shares, strict=False)
    reports = [replace(report, still_share=share) for report, share in pairs]
    table = summary(reports, replace(found.videos, spans=SpanOptions(mask=mask)))
    console = Console(width=300)
    with console.capture() as shown:
        console.print(table)
    (line,) = [line for line in shown.get().splitlines() if "still pixels" in line]
    assert line.split(maxsplit=2)[2].strip() == expected


@pytest.mark.parametrize(
    ("segment", "expected"),
    [
        (None, "15 of 16 videos usable, 0 too short, 0 partial, 1 unreadable (a video needs 8 frames)"),
        (0.8, "30 of 31 spans usable, 0 too short, 0 partial, 1 unreadable (a span needs 8 frames)"),
    ],
)
def test_a_count_of_usable_ones_says_of_how_many_and_of_what(
    small_videos: Path, tmp_path: Path, segment: float | None, expected: str
) -> None:
    root, console = shutil.copytree(small_videos, tmp_path / "videos"), Console(record=True, width=200)
    min(root.rglob("*.mp4")).write_text("no video")
    listed = list_videos(root, spans=SpanOptions(segment=segment))
    usable_videos(listed, min_frames=8, console=console, workers=0)
    assert expected in console.export_text().splitlines()


@pytest.mark.parametrize("number", [2, 6])
def test_a_few_videos_that_are_too_short_are_named(tmp_path: Path, number: int) -> None:
    make_clips(tmp_path / "short", num_videos=number, num_frames=6, height=32, width=32)
    make_clips(tmp_path / "long", num_videos=1, num_frames=9, height=32, width=32)
    console = Console(record=True, width=200)
    usable_videos(list_videos(tmp_path), min_frames=8, console=console, workers=0)
    text = console.export_text()
    named = [line for line in text.splitlines() if re.fullmatch(r"skipped: short/.*: 6 frames; the task needs 8", line)]
    assert len(named) == (number if number <= 5 else 0)
    assert f"{number} too short" in text


def test_every_file_has_a_verdict_and_a_reason(folder: Path) -> None:
    result = scan_folder(folder)
    reports = {report.path: report for report in result.reports}
    assert tuple(reports) == result.videos.paths
    assert {path: report.verdict for path, report in reports.items()} == {
        "a/good.avi": "usable",
        "cut.avi": "partial",
        "empty.mp4": "unreadable",
        "nowhere.mp4": "unreadable",
        "short.avi": "too short",
        "text.mp4": "unreadable",
    }
    assert reports["short.avi"].reason == "51 frames; the task needs 69"
    assert reports["a/good.avi"].reason == ""
    good = reports["a/good.avi"]
    assert (good.width, good.height, good.codec) == (176, 132, "h264")
    assert all(report.reason for report in result.reports if report.is_bad)
    assert not any(str(folder) in report.reason for report in result.reports)
    assert "damaged" in reports["cut.avi"].reason
    assert 0 < reports["cut.avi"].frames < good.frames
    assert [report.stage for report in result.reports] == ["", "demux", "open", "open", "", "open"]


def test_tables_hold_the_readable_and_the_usable(folder: Path) -> None:
    result = scan_folder(folder)
    assert result.readable.tolist() == [0, 4]
    assert result.usable.tolist() == [0]
    assert (result.num_usable, result.usable_labels) == (1, ("a",))
    assert result.table[1] == index_video(folder / "short.avi")
    assert [index.path for index in result.usable_table] == [str(folder / "a/good.avi")]
    assert scan_folder(folder, min_frames=51).num_usable == 2
    assert scan_folder(folder, min_frames=10_000).num_usable == 0


def test_second_scan_reads_nothing_and_says_the_same(folder: Path, reads: list[str]) -> None:
    first = scan_folder(folder)
    assert len(reads) == 6
    reads.clear()
    second = scan_folder(folder)
    assert reads == ["nowhere.mp4"]  # nothing is known of a file that is not there
    assert second.reports == first.reports
    assert list(second.table) == list(first.table)
    assert scan_folder(folder, min_frames=51).num_usable == 2
    assert default_cache(folder).parent == Path(os.environ["XDG_CACHE_HOME"]) / "v3s/index"


def test_changed_file_is_read_again(folder: Path, reads: list[str]) -> None:
    scan_folder(folder)
    reads.clear()
    os.utime(folder / "short.avi", ns=(0, 1_234_567_890))
    shutil.copy(folder / "a/good.avi", folder / "text.mp4")
    result = scan_folder(folder)
    assert sorted(reads) == ["nowhere.mp4", "short.avi", "text.mp4"]
    assert [report.path for report in result.reports if report.verdict == "usable"] == ["a/good.avi", "text.mp4"]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("reader", ["av.open", "v3s.video.first_pass.walk_chunks"])
def test_a_failure_that_may_pass_is_not_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch, reader: str, workers: int
) -> None:
    """The system refuses a file, or fails while it is read: neither is a fact about the file."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(reader, refuse)
        failed = scan_folder(folder, workers=workers)
    assert "Permission denied" in failed.skipped["cut.avi"]
    assert "Permission denied" not in str(scan_folder(folder, workers=workers).skipped)


def test_folder_reached_by_another_way_shares_the_cache(
    folder: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scan_folder(folder)
    reads.clear()
    monkeypatch.chdir(folder.parent)
    result = scan_folder(Path("videos"))
    assert reads == ["nowhere.mp4"]
    assert result.table[0].path == "videos/a/good.avi"


def test_killed_scan_goes_on_where_it_was(folder: Path, reads: list[str]) -> None:
    def kill(done: int, total: int) -> None:
        assert total == 6
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan_folder(folder, progress=kill)
    with default_cache(folder).open("a") as file:
        file.write('["short.avi", 123, 4')  # as a killed process may leave it
    reads.clear()
    assert len(scan_folder(folder).reports) == 6
    assert reads == ["empty.mp4", "nowhere.mp4", "short.avi", "text.mp4"]
    reads.clear()
    scan_folder(folder)
    assert reads == ["nowhere.mp4"]


def test_lines_that_are_not_ours_are_ignored(folder: Path, reads: list[str]) -> None:
    scan_folder(folder)
    cache = default_cache(folder)
    odd = [
        b"\xff\xfe",
        b"[]",
        b'{"a": 1}',
        b'["short.avi", 1, 2, null, "{}"]',
        b'["short.avi", 1, 2, null, "{\\"path\\": 3}"]',
        b'[[], 1, 2, "", null]',
    ]
    cache.write_bytes(b"\n".join([*odd, cache.read_bytes()]))
    reads.clear()
    scan_folder(folder)
    assert reads == ["nowhere.mp4"]


def test_no_cache(folder: Path, reads: list[str]) -> None:
    scan_folder(folder, cache=None)
    scan_folder(folder, cache=None)
    assert len(reads) == 12
    assert not default_cache(folder).exists()


def test_cache_that_cannot_be_written_costs_one_warning(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="cannot be written .*set XDG_CACHE_HOME") as caught:
        result = scan_folder(folder)
    assert len(caught) == 1
    assert result.num_usable == 1


def test_disk_that_is_full_costs_one_warning(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("v3s.data.index_cache.os.write", full)
    with pytest.warns(UserWarning, match="No space left on device") as caught:
        assert scan_folder(folder).num_usable == 1
    assert len(caught) == 1


def test_writers_at_once_do_not_mix_their_lines(folder: Path, tmp_path: Path) -> None:
    index = replace(index_video(folder / "short.avi"), timestamps=array("q", (n * n for n in range(2_000))))
    cache = tmp_path / "shared.jsonl"

    def add_many(writer_number: int) -> None:
        with CacheWriter(cache) as writer:
            for number in range(50):
                writer.add((f"{writer_number}/{number}.mp4", 1, 2), index)

    threads = [threading.Thread(target=add_many, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    known = read_cache(cache, folder)
    assert len(known) == 200
    assert known["3/49.mp4", 1, 2] == replace(index, path=str(folder / "3/49.mp4"))


def test_file_that_changes_while_it_is_read_is_not_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def touching(path: str, **options: Any) -> VideoIndex:
        index = index_video(path, **options)
        os.utime(path, ns=(0, 77))
        return index

    monkeypatch.setattr(scan_module, "index_video", touching)
    scan_folder(folder)
    kept = read_cache(default_cache(folder), folder)
    assert file_key(folder, "a/good.avi") not in kept
    assert {path for path, _, _ in kept} == {"cut.avi", "empty.mp4", "text.mp4"}


def test_several_processes_say_the_same_as_one_and_one_that_dies_costs_a_file(shared: Path) -> None:
    videos = list_videos(shared / "data/UCF-101/Archery")
    videos = replace(videos, paths=videos.paths[:32], labels=videos.labels[:32])
    seen: list[tuple[int, int]] = []

    def kill_once(done: int, total: int) -> None:
        seen.append((done, total))
        if done == 5:
            multiprocessing.active_children()[0].kill()

    several = scan(videos, min_frames=69, workers=2, cache=None, progress=kill_once)
    one = scan(videos, min_frames=69, workers=0, cache=None)
    assert seen == [(done, 32) for done in range(33)]
    bad = [report.reason for report in several.reports if report.is_bad]
    assert bad in ([], ["the worker that read it was killed by signal 9"])
    readable = [number for number, report in enumerate(several.reports) if not report.is_bad]
    assert [several.reports[number] for number in readable] == [one.reports[number] for number in readable]
    assert list(several.table) == [one.table[number] for number in readable]


def test_what_is_no_file_of_the_folder_is_refused_and_not_opened(shared: Path, tmp_path: Path) -> None:
    good = shared / "data/UCF-101/Archery" / GOOD
    root = tmp_path / "data"
    root.mkdir()
    shutil.copy(good, root / "a.avi")
    (root / "inside.avi").symlink_to("a.avi")
    (root / "outside.avi").symlink_to(good)
    (root / "others").symlink_to(good.parent)
    os.mkfifo(root / "pipe.mp4")
    (root / "device.mp4").symlink_to("/dev/zero")
    (root / "folder.mp4").mkdir()
    result = scan_folder(root)
    assert {report.path: report.verdict for report in result.reports} == {
        "a.avi": "usable",
        "inside.avi": "usable",
    } | dict.fromkeys(("device.mp4", "folder.mp4", "others", "outside.avi", "pipe.mp4"), "unreadable")
    reasons = {report.path: report.reason for report in result.reports}
    for name, target, named in (("outside.avi", good, "it"), ("others", good.parent, "its videos")):
        remedy = f"copy it into the folder, or name {named} in a list file and give that as DATA"
        assert reasons[name] == f"links out of the data folder to {target.resolve()}; {remedy}"
    assert reasons["pipe.mp4"] == "is not a file"
    assert reasons["folder.mp4"] == "is a folder without numbered pictures; give a video, or a folder of frames"
    listed = tmp_path / "list.txt"
    listed.write_text(f"data/outside.avi\n{good.resolve()}\n/dev/zero\n")
    assert [report.verdict for report in scan_folder(listed).reports] == ["usable", "usable", "unreadable"]


def test_data_folder_may_be_a_link_itself(shared: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    shutil.copy(shared / "data/UCF-101/Archery" / GOOD, tmp_path / "data/a.avi")
    (tmp_path / "link").symlink_to("data")
    assert scan_folder(tmp_path / "link").num_usable == 1


def test_subset_folder_may_not_link_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data/test").mkdir(parents=True)
    (tmp_path / "data/train").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"train links out of the data folder to .*elsewhere; give that folder"):
        list_videos(tmp_path / "data")


def test_what_is_to_be_said_of_a_usable_file_is_in_its_report_and_its_cache(shared: Path, tmp_path: Path) -> None:
    root = tmp_path / "odd"
    root.mkdir()
    for case in ("12-vfr/pauses.mkv", "14-fps/black.mp4", "10-midgop/cut.ts", "03-mirror/plain.mp4"):
        shutil.copy(shared / "data/cases" / case, root)
    first, second = scan_folder(root), scan_folder(root)
    assert first.reports == second.reports
    said = {report.path: (report.verdict, report.rate_varies, report.remarks) for report in first.reports}
    assert said == {
        "black.mp4": ("usable", False, "black throughout"),
        "cut.ts": ("usable", False, "starts mid-GOP: 40 packets come before its first key frame"),
        "pauses.mkv": ("usable", True, "its rate varies: 1.949 frames per second on average"),
        "plain.mp4": ("usable", False, ""),
    }


def test_a_store_says_the_same_of_its_videos(shared: Path, tmp_path: Path) -> None:
    root, out = tmp_path / "odd", tmp_path / "store"
    root.mkdir()
    for case in ("12-vfr/pauses.mkv", "14-fps/black.mp4"):
        shutil.copy(shared / "data/cases" / case, root)
    prepare(PrepareConfig(data=str(root), out=str(out), workers=0), console=Console(quiet=True))
    for ours, theirs in zip(scan_folder(out).reports, scan_folder(root).reports, strict=True):
        assert (ours.path, ours.fps, ours.remarks) == (theirs.path, theirs.fps, theirs.remarks)
        assert (ours.verdict, ours.rate_varies) == (theirs.verdict, theirs.rate_varies)
