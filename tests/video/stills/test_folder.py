"""A folder of frames is a video: the pixels of its pictures, the same verdicts, and one line for what is wrong."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from v3s.data.index_cache import file_key
from v3s.data.lists.splits import list_videos
from v3s.data.scan import scan
from v3s.pages.images import jpeg, png
from v3s.video.decode import read_frames, video_from_json
from v3s.video.index import VideoError, index_video

Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def film() -> Pixels:
    """30 frames of 24 x 40 pixels, no two alike."""
    return np.random.default_rng(3).integers(0, 256, (30, 24, 40, 3)).astype(np.uint8)


def write_frames(folder: Path, film: Pixels, encode: Callable[[Pixels], bytes] = png, ending: str = "png") -> Path:
    folder.mkdir(parents=True)
    for number, frame in enumerate(film):
        (folder / f"frame_{number}.{ending}").write_bytes(encode(frame))
    return folder


def test_frames_are_the_pictures_in_the_order_of_their_numbers(tmp_path: Path, film: Pixels) -> None:
    folder = write_frames(tmp_path / "100% ü" / "clip", film)
    index = index_video(folder)
    assert (index.num_frames, index.height, index.width, index.codec) == (30, 24, 40, "png")
    assert index.num_bytes == sum(file.stat().st_size for file in folder.iterdir())
    wanted = [29, 0, 3, 3, 10]
    assert np.array_equal(read_frames(index, wanted).rgb().permute(0, 2, 3, 1).numpy(), film[wanted])
    assert video_from_json(index.to_json()) == index
    assert json.loads(index.to_json())["stills"]["names"]["prefix"] == "frame_"


def test_jpeg_frames_keep_the_planes_of_the_codec(tmp_path: Path, film: Pixels) -> None:
    frames = read_frames(index_video(write_frames(tmp_path / "clip", film, jpeg, "JPG")), [4])
    assert [plane.shape for plane in frames.planes] == [(1, 1, 24, 40), (1, 2, 24, 40)]
    assert frames.colour is not None
    assert frames.colour.full


def test_a_copy_has_the_same_identity_and_another_video_has_not(tmp_path: Path, film: Pixels) -> None:
    one, other = write_frames(tmp_path / "a", film), write_frames(tmp_path / "b", film[::-1])
    copy = tmp_path / "c"
    copy.mkdir()
    for number in range(30):
        (copy / f"{number + 5:04}.png").write_bytes((one / f"frame_{number}.png").read_bytes())
    first, second, third = (index_video(folder).fingerprint for folder in (one, other, copy))
    assert first == third != second


def test_subfolders_are_videos_beside_files_and_other_pictures_are_counted(small_videos: Path, tmp_path: Path) -> None:
    film = np.zeros((3, 8, 8, 3), np.uint8)
    write_frames(tmp_path / "walk" / "clip1", film)
    write_frames(tmp_path / "walk" / "clip2", film)
    write_frames(tmp_path / "run", film)
    source = next(small_videos.rglob("*.mp4"))
    (tmp_path / "run" / "a.mp4").write_bytes(source.read_bytes())
    write_frames(tmp_path / "top", film)
    listed = list_videos(tmp_path)
    assert listed.paths == ("run/a.mp4", "top", "walk/clip1", "walk/clip2")
    assert listed.labels == ("run", None, "walk", "walk")
    assert "skipped: 3 pictures (3 .png): to be the frames of a video, " in listed.description
    one = list_videos(tmp_path / "walk" / "clip1")
    assert (one.root, one.paths) == (tmp_path / "walk", ("clip1",))
    (tmp_path / "list.txt").write_text("walk/clip2 a\nrun/a.mp4 b\n")
    found = scan(list_videos(tmp_path / "list.txt"), min_frames=1, cache=None)
    assert [report.frames for report in found.reports] == [3, 40]


def damage(folder: Path, kind: str, film: Pixels) -> None:
    if kind == "size":
        (folder / "frame_7.png").write_bytes(png(film[0, :, :30]))
    elif kind == "gap":
        (folder / "frame_7.png").unlink()
    elif kind == "truncated":
        os.truncate(folder / "frame_7.png", 500)
    elif kind == "not a picture":
        (folder / "frame_7.png").write_bytes(b"text" * 99)
    elif kind == "empty":
        (folder / "frame_7.png").write_bytes(b"")
    elif kind == "no access":
        (folder / "frame_7.png").unlink()
        (folder / "frame_7.png").mkdir()
    elif kind == "nowhere":
        (folder / "frame_29.png").unlink()
        (folder / "frame_29.png").symlink_to("nothing.png")
    elif kind == "pipe":
        (folder / "frame_7.png").unlink()
        os.mkfifo(folder / "frame_7.png")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("size", "frame size changes from 40x24 to 30x24 at frame 7; 7 of 30 frames are good"),
        ("gap", "frames are missing between frame_6.png and frame_8.png"),
        ("truncated", "frame_7.png cannot be read: it is not a png picture, or is damaged"),
        ("not a picture", "frame_7.png cannot be read: it is not a png picture, or is damaged"),
        ("empty", "frame_7.png cannot be read: it is not a png picture, or is damaged"),
        ("no access", "frames are missing between frame_6.png and frame_8.png"),
        ("nowhere", "frame_29.png is not a file, or is a broken link; put the frame there"),
        ("pipe", "frame_7.png is not a file, or is a broken link; put the frame there"),
    ],
)
def test_a_bad_frame_makes_the_video_partial(tmp_path: Path, film: Pixels, kind: str, reason: str) -> None:
    folder = write_frames(tmp_path / "data" / "clip", film)
    damage(folder, kind, film)
    (report,) = scan(list_videos(tmp_path / "data"), min_frames=1, cache=None).reports
    assert (report.verdict, report.frames) == ("partial", 29 if kind == "nowhere" else 7)
    assert report.reason.startswith(reason)
    assert "\n" not in report.reason


def test_a_grey_frame_among_coloured_ones_is_not_counted_as_good(
    tmp_path: Path, film: Pixels, picture: Callable[..., bytes]
) -> None:
    folder = write_frames(tmp_path / "clip", film)
    (folder / "frame_7.png").write_bytes(picture(film[0, :, :, 0]))
    with pytest.raises(VideoError, match="from rgb24 to gray at frame 7; 7 of 30 frames are good") as error:
        index_video(folder)
    assert error.value.num_frames == 7


def test_a_frame_that_is_lost_after_the_scan_is_named(tmp_path: Path, film: Pixels) -> None:
    folder = write_frames(tmp_path / "clip", film)
    index = index_video(folder)
    (folder / "frame_3.png").unlink()
    assert len(read_frames(index, [2])) == 1
    with pytest.raises(VideoError, match=r"clip: frame_3\.png cannot be read: No such file"):
        read_frames(index, [3])
    (folder / "frame_4.png").write_bytes(png(film[0, :, :30]))
    with pytest.raises(VideoError, match="it changed since"):
        read_frames(index, [4])


def test_the_cache_notices_every_change(tmp_path: Path, film: Pixels) -> None:
    """Of a file in the folder, also where its size and the folder's time stay."""
    folder = write_frames(tmp_path / "data" / "clip", film)
    keys = [file_key(tmp_path / "data", "clip")]
    (folder / "notes.txt").write_text("no frame")
    assert file_key(tmp_path / "data", "clip") == keys[0]
    content = (folder / "frame_0.png").read_bytes()
    with (folder / "frame_0.png").open("r+b") as file:
        file.write(content)
    os.utime(folder / "frame_0.png", ns=(1, 1))
    keys.append(file_key(tmp_path / "data", "clip"))
    (folder / "frame_29.png").rename(folder / "frame_30.png")
    keys.append(file_key(tmp_path / "data", "clip"))
    assert len(set(keys)) == 3


def test_links_out_of_the_data_folder_are_refused(tmp_path: Path, film: Pixels) -> None:
    outside = write_frames(tmp_path / "outside", film)
    folder = write_frames(tmp_path / "data" / "clip", film)
    (folder / "frame_2.png").unlink()
    (folder / "frame_2.png").symlink_to(outside / "frame_2.png")
    (tmp_path / "data" / "linked").symlink_to(outside)
    reports = scan(list_videos(tmp_path / "data"), min_frames=1, cache=None).reports
    assert [report.verdict for report in reports] == ["unreadable", "unreadable"]
    assert all("links out of the data folder" in report.reason for report in reports)
