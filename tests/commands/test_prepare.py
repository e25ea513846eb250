"""A store replaces its folder: the same lists and clips; written once, resumed, never silently out of date."""

import errno
import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console

from v3s.cli import main
from v3s.commands import prepare as prepare_module
from v3s.commands.prepare import PrepareConfig, prepare
from v3s.data.clips import PretextClips
from v3s.data.lists.splits import list_videos
from v3s.data.scan import scan
from v3s.data.store_folder import open_store
from v3s.files.lock import FolderInUseError
from v3s.files.writing import SaveError
from v3s.pretext.plan import Sampling
from v3s.pretext.task import TASKS
from v3s.video import store_writer as storing

QUIET = Console(quiet=True)
SAMPLING = Sampling(clip_frames=4, clip_size=24, canvas_size=48)


def run(data: Path, out: Path, *, console: Console = QUIET, **options: object) -> None:
    prepare(PrepareConfig(data=str(data), out=str(out), workers=0, **options), console=console)  # type: ignore[arg-type]


def copied(videos: Path, folder: Path) -> Path:
    """A folder of the same videos with dates of its own."""
    shutil.copytree(videos, folder)
    give_new_dates(folder, 1)
    return folder


def give_new_dates(folder: Path, day: int) -> None:
    for path in folder.rglob("*.mp4"):
        os.utime(path, (day * 86400, day * 86400))


def shards(store: Path, suffix: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((store / "shards").glob(f"*.{suffix}"))}


def clips_of(folder: Path) -> PretextClips:
    found = scan(list_videos(folder, subset="all"), min_frames=20)
    return PretextClips(found.usable_table, TASKS["v3s"], SAMPLING, seed=0)


def test_clips_from_the_store_are_those_of_the_videos(small_videos: Path, tmp_path: Path) -> None:
    run(small_videos, tmp_path / "store")
    stored, decoded = clips_of(tmp_path / "store"), clips_of(small_videos)
    for number in range(len(decoded)):
        for some, other in zip(stored[3, number], decoded[3, number], strict=True):
            assert torch.equal(some, other)


def test_lists_are_those_of_the_folder(labelled_videos: Path, tmp_path: Path) -> None:
    run(labelled_videos, tmp_path / "store")
    for subset in ("train", "test", "all"):
        ours = list_videos(tmp_path / "store", subset=subset)
        theirs = list_videos(labelled_videos, subset=subset)
        assert (ours.paths, ours.labels, ours.classes) == (theirs.paths, theirs.labels, theirs.classes)


def test_official_lists_find_stored_videos(shared: Path, tmp_path: Path) -> None:
    data, classes = tmp_path / "UCF-101", ("Archery", "Punch")
    for name in classes:
        (data / name).mkdir(parents=True)
        for path in sorted((shared / "data/UCF-101" / name).iterdir())[::60]:
            shutil.copy(path, data / name)
    splits = shared / "data/splits/ucf101-21"
    run(data, tmp_path / "store", short_side=48)
    for subset in ("train", "test"):
        ours, theirs = (
            list_videos(folder, splits=splits, subset=subset, allow_missing=True)
            for folder in (tmp_path / "store", data)
        )
        assert (ours.paths, ours.labels, ours.num_missing) == (theirs.paths, theirs.labels, theirs.num_missing)
    assert scan(list_videos(tmp_path / "store"), min_frames=1).table[0].height == 48


def test_second_run_decodes_only_what_is_new_or_changed(small_videos: Path, tmp_path: Path) -> None:
    data, out = tmp_path / "videos", tmp_path / "store"
    shutil.copytree(small_videos, data)
    videos = sorted(data.rglob("*.mp4"))
    held_back = videos.pop()
    held_back.rename(tmp_path / held_back.name)
    run(data, out)
    before = {path: path.stat().st_mtime_ns for path in (out / "shards").iterdir()}
    run(data, out)
    assert {path: path.stat().st_mtime_ns for path in (out / "shards").iterdir()} == before
    (tmp_path / held_back.name).rename(held_back)
    shutil.copy(videos[1], videos[0])
    (changed,) = (report for report in scan(list_videos(out), min_frames=1).reports if report.verdict != "usable")
    assert "changed since it was stored" in changed.reason
    run(data, out)
    assert scan(list_videos(out), min_frames=1).num_usable == 16
    assert len(list((out / "shards").glob("*.bin"))) == 2


def test_new_dates_cost_no_decoding(small_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dataset that was copied again."""
    data, out, printed = copied(small_videos, tmp_path / "videos"), tmp_path / "store", io.StringIO()
    (data / "bad.mp4").write_text("no video")
    run(data, out)
    frames, clips = shards(out, "bin"), clips_of(out)
    give_new_dates(data, 2)
    assert scan(list_videos(out), min_frames=1).num_usable == 0
    monkeypatch.delattr(prepare_module, "_write_shard")
    monkeypatch.setattr(prepare_module, "LINES_PER_LIST", 10)
    run(data, out, console=Console(file=printed))
    assert "17 are already stored, 17 of them with new dates but the same content" in printed.getvalue()
    assert shards(out, "bin") == frames
    assert list(shards(out, "jsonl")) == ["00000.jsonl", "00001.jsonl", "00002.jsonl"]
    for number, clip in enumerate(clips_of(out)[3, number] for number in range(len(clips))):
        assert all(map(torch.equal, clip, clips[3, number]))
    run(data, out, console=Console(file=printed))
    assert "17 are already stored\n" in printed.getvalue()


def test_other_content_of_the_same_size_is_decoded(small_videos: Path, tmp_path: Path) -> None:
    data, out = copied(small_videos, tmp_path / "videos"), tmp_path / "store"
    changed, other = sorted(data.rglob("*.mp4"))[:2]
    size = max(changed.stat().st_size, other.stat().st_size)
    for path in (changed, other):
        with path.open("ab") as file:
            file.write(bytes(size - path.stat().st_size))  # padding, which is read as nothing
    run(data, out)
    shutil.copyfile(other, changed)
    give_new_dates(data, 2)
    run(data, out)
    stored = open_store(out).files
    mine, theirs = (stored[path.relative_to(data).as_posix()].outcome for path in (changed, other))
    assert (Path(mine.shard).name, Path(theirs.shard).name) == ("00002.bin", "00000.bin")  # type: ignore[union-attr]
    assert mine.checksum == theirs.checksum  # type: ignore[union-attr]


def test_store_without_digests_is_read(small_videos: Path, tmp_path: Path) -> None:
    """Stores once had none: their files are decoded again when their dates change."""
    data, out = copied(small_videos, tmp_path / "videos"), tmp_path / "store"
    run(data, out)
    (listed,) = (out / "shards").glob("*.jsonl")
    listed.write_text("".join(f"{json.dumps(json.loads(line)[:5])}\n" for line in listed.read_text().splitlines()))
    assert scan(list_videos(out), min_frames=1).num_usable == 16
    give_new_dates(data, 2)
    run(data, out)
    assert scan(list_videos(out), min_frames=1).num_usable == 16
    assert list(shards(out, "bin")) == ["00000.bin", "00001.bin"]


def test_leftovers_of_killed_runs_are_removed(small_videos: Path, tmp_path: Path) -> None:
    """But no shard that a line names, be it in another list, and none that a process may be reading."""
    data, out = copied(small_videos, tmp_path / "videos"), tmp_path / "store"
    run(data, out)
    give_new_dates(data, 2)
    run(data, out)
    (out / "shards/00000.jsonl").unlink()
    for name in ("00002.part", ".00002.jsonl.1234.part", "00003.bin", "00004.bin", "00004.jsonl"):
        (out / "shards" / name).touch()
    (out / ".store.json.1234.part").touch()
    run(data, out)
    assert {path.name for path in out.iterdir()} == {"shards", "store.json"}
    left = sorted(path.name for path in (out / "shards").iterdir())
    assert left == ["00000.bin", "00001.jsonl", "00004.bin", "00004.jsonl"]
    assert scan(list_videos(out), min_frames=1, verify=True).num_usable == 16


def test_deleted_shard_is_decoded_again(small_videos: Path, tmp_path: Path) -> None:
    """Whichever list names it, and if all are deleted."""
    data, out = copied(small_videos, tmp_path / "videos"), tmp_path / "store"
    run(data, out)
    give_new_dates(data, 2)
    run(data, out)
    for suffix in ("bin", "jsonl"):
        (out / f"shards/00000.{suffix}").unlink()
    run(data, out)
    assert scan(list_videos(out), min_frames=1, verify=True).num_usable == 16
    shutil.rmtree(out / "shards")
    run(data, out)
    assert scan(list_videos(out), min_frames=1, verify=True).num_usable == 16


def test_second_run_at_once_is_refused_and_a_killed_one_leaves_no_process(small_videos: Path, tmp_path: Path) -> None:
    data, out = tmp_path / "videos", tmp_path / "store"
    for number in range(16):
        shutil.copytree(small_videos, data / str(number))
    command = [sys.executable, "-m", "v3s", "prepare", "--data", str(data), "--out", str(out), "--workers", "2"]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: any(out.glob("shards/*.part")))
        with pytest.raises(FolderInUseError, match=rf"store is in use by process {first.pid} on"):
            run(data, out)
        workers = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()
        assert len(workers) >= 2
    finally:
        first.kill()
        first.wait()
    wait_until(lambda: not any(map(lives, workers)))
    run(data, out)
    assert {path.name for path in out.iterdir()} == {"shards", "store.json"}
    assert set(shards(out, "bin")) == {f"{name.split('.')[0]}.bin" for name in shards(out, "jsonl")}
    assert scan(list_videos(out), min_frames=1).num_usable == 256


def wait_until(holds: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def lives(process: str) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_unfinished_shard_does_not_count(small_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill before the list of a shard is written: the next run writes that shard again."""
    monkeypatch.setattr(prepare_module, "VIDEOS_PER_SHARD", 6)
    run(small_videos, tmp_path / "whole")
    run(small_videos, tmp_path / "store")
    (tmp_path / "store/shards/00002.jsonl").unlink()
    (tmp_path / "store/shards/00002.part").write_bytes(b"half")
    assert len(open_store(tmp_path / "store").files) == 12
    run(small_videos, tmp_path / "store")
    for path in (tmp_path / "whole/shards").glob("*.bin"):
        assert path.read_bytes() == (tmp_path / "store/shards" / path.name).read_bytes()


def test_a_store_that_is_replaced_counts_only_when_it_is_whole(
    small_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill while --overwrite removes the old shards leaves some of them: no command takes those for all videos."""
    monkeypatch.setattr(prepare_module, "VIDEOS_PER_SHARD", 6)
    run(small_videos, tmp_path / "store")

    def killed(folder: Path, **_: object) -> None:
        for suffix in ("bin", "jsonl"):
            (folder / f"00001.{suffix}").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("v3s.commands.prepare.shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            run(small_videos, tmp_path / "store", overwrite=True)
    with pytest.raises(ValueError, match="unfinished store"):
        open_store(tmp_path / "store")
    run(small_videos, tmp_path / "store")
    assert len(open_store(tmp_path / "store").files) == 16


def test_gap_between_shards_costs_no_other_shard(
    small_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several processes one may have been killed; a damaged shard is deleted by hand."""
    monkeypatch.setattr(prepare_module, "VIDEOS_PER_SHARD", 6)
    run(small_videos, tmp_path / "store")
    for suffix in ("bin", "jsonl"):
        (tmp_path / f"store/shards/00001.{suffix}").unlink()
    run(small_videos, tmp_path / "store")
    assert [path.name for path in sorted((tmp_path / "store/shards").glob("*.bin"))] == [
        "00000.bin", "00002.bin", "00003.bin"
    ]  # fmt: skip
    assert scan(list_videos(tmp_path / "store"), min_frames=1, verify=True).num_usable == 16


def test_bad_file_is_named_with_its_reason(small_videos: Path, tmp_path: Path) -> None:
    data = tmp_path / "videos"
    shutil.copytree(small_videos, data)
    (data / "bad.mp4").write_text("no video")
    run(data, tmp_path / "store")
    reports = {report.path: report for report in scan(list_videos(tmp_path / "store"), min_frames=1).reports}
    assert reports["bad.mp4"].verdict == "unreadable"
    assert reports["bad.mp4"].reason


@pytest.mark.parametrize("reader", ["v3s.video.container.av.open", "v3s.video.first_pass.Pass.add_packet"])
def test_a_file_that_could_not_be_read_once_is_tried_again(
    small_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(reader, refuse)
        run(small_videos, tmp_path / "store")
    (reason, *_) = scan(list_videos(tmp_path / "store"), min_frames=1).skipped.values()
    assert reason.endswith("Input/output error, when it was stored; run v3s prepare again")
    shutil.copytree(small_videos, tmp_path / "moved")
    run(tmp_path / "moved", tmp_path / "store")
    assert scan(list_videos(tmp_path / "store"), min_frames=1).num_usable == 16


def test_disk_too_small_is_refused_before_work_starts(
    small_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**6, 0, 10**6))
    with pytest.raises(ValueError, match=r"take about 2\.9 MB, but the disk has only 1\.0 MB free; free some, or"):
        run(small_videos, tmp_path / "store")
    assert not (tmp_path / "store/shards").exists()
    monkeypatch.undo()
    run(small_videos, tmp_path / "store", pixel_format="jpeg", short_side=32)  # as it advises
    assert len(open_store(tmp_path / "store").files) == 16
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**6, 0, 10**6))
    with pytest.raises(
        ValueError, match=r"the disk has only 1\.\d MB free once the old store is removed; free some, or"
    ):
        run(small_videos, tmp_path / "store", overwrite=True)
    assert len(open_store(tmp_path / "store").files) == 16, "the old store was removed for one that does not fit"


def test_disk_that_fills_up_is_not_the_videos_fault(
    small_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare_module, "VIDEOS_PER_SHARD", 6)
    real = os.write

    def full_disk(file: int, values: memoryview) -> int:
        if os.readlink(f"/proc/self/fd/{file}").endswith("00001.part") and os.lseek(file, 0, os.SEEK_CUR):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(file, values)

    with monkeypatch.context() as patch:
        patch.setattr(storing, "PIECE", 1 << 16)
        patch.setattr(os, "write", full_disk)
        with pytest.raises(SaveError, match=r"00001\.part cannot be written: No space left on device; completed"):
            run(small_videos, tmp_path / "store")
    assert [path.name for path in sorted((tmp_path / "store/shards").iterdir())] == ["00000.bin", "00000.jsonl"]
    with pytest.raises(ValueError, match="is an unfinished store: v3s prepare is still running or was stopped"):
        list_videos(tmp_path / "store")  # of which it holds a third
    run(small_videos, tmp_path / "store")
    assert scan(list_videos(tmp_path / "store"), min_frames=1).num_usable == 16


def test_few_videos_are_shared_out_among_the_processes(small_videos: Path, tmp_path: Path) -> None:
    """Shards of 32 would leave all 16 videos to one of them."""
    prepare(PrepareConfig(data=str(small_videos), out=str(tmp_path / "store"), workers=2), console=QUIET)
    assert len(shards(tmp_path / "store", "bin")) == 16


def test_space_is_estimated_from_some_of_many_videos(
    small_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for num_opened in (1000, 4):
        monkeypatch.setattr(prepare_module, "NUM_OPENED", num_opened)
        opened: list[Path] = []
        monkeypatch.setattr(
            prepare_module, "_estimated_bytes", lambda path, config, opened=opened: opened.append(path) or 5e7
        )
        with Console(file=io.StringIO(), width=200) as console, console.capture() as capture:
            run(small_videos, tmp_path / f"store{num_opened}", console=console)
        results.append((len(opened), "16 videos to decode, about 800.0 MB" in capture.get()))
    assert results == [(16, True), (4, True)]


def test_another_format_or_a_foreign_folder_is_refused(small_videos: Path, tmp_path: Path) -> None:
    run(small_videos, tmp_path / "store")
    with pytest.raises(ValueError, match="with other settings: pixel_format was yuv, now jpeg;"):
        run(small_videos, tmp_path / "store", pixel_format="jpeg")
    run(small_videos, tmp_path / "store", pixel_format="jpeg", overwrite=True)
    with pytest.raises(ValueError, match="is already a store"):
        run(tmp_path / "store", tmp_path / "again")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").touch()
    with pytest.raises(ValueError, match="not empty and is not a store"):
        run(small_videos, tmp_path / "other")


def test_videos_that_have_moved_are_not_decoded_again(
    small_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(small_videos, tmp_path / "here")
    run(tmp_path / "here", tmp_path / "store")
    shutil.copytree(tmp_path / "here", tmp_path / "there", copy_function=shutil.copyfile)  # under new dates
    shutil.rmtree(tmp_path / "here")
    with monkeypatch.context() as patch:
        patch.delattr(prepare_module, "_write_shard")
        run(tmp_path / "there", tmp_path / "store")
    assert scan(list_videos(tmp_path / "store"), min_frames=1).num_usable == 16
    assert open_store(tmp_path / "store").settings.source == str(tmp_path / "there")
    shutil.copytree(tmp_path / "there", tmp_path / "elsewhere")
    next((tmp_path / "elsewhere").rglob("*.mp4")).unlink()
    with pytest.raises(ValueError, match=r"with other settings: source was .*there, now .*elsewhere;"):
        run(tmp_path / "elsewhere", tmp_path / "store")


def test_a_store_without_videos_names_the_command_that_fills_it(small_videos: Path, tmp_path: Path) -> None:
    run(small_videos, tmp_path / "store")
    shutil.rmtree(tmp_path / "store/shards")
    with pytest.raises(ValueError, match=r"is a store without videos; run v3s prepare --data .* --out "):
        list_videos(tmp_path / "store")


def test_check_verifies_every_byte(small_videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "store"
    assert main(["prepare", "--data", str(small_videos), "--out", str(out), "--workers", "2"]) == 0
    assert main(["check", "--data", str(out), "--min-frames", "1"]) == 0
    shard = out / "shards/00000.bin"
    data = bytearray(shard.read_bytes())
    data[5] ^= 255
    shard.write_bytes(data)
    capsys.readouterr()
    assert main(["check", "--data", str(out), "--min-frames", "1"]) == 0
    assert "damaged" in capsys.readouterr().out
