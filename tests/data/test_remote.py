"""Folders, videos and lists at URLs: a loopback web server and fsspec's memory are read like local folders."""

import errno
import os
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path
from shutil import copyfile, copytree
from typing import Any
from urllib.parse import unquote

import av
import fsspec
import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import load_file

from v3s.cli import main
from v3s.commands.check import CheckConfig, check
from v3s.commands.pretrain import PretrainConfig
from v3s.commands.reproduce import ReproduceConfig
from v3s.data.lists.remote import local_data
from v3s.data.lists.splits import VideoList, VideoOptions, list_videos
from v3s.data.scan import scan
from v3s.data.store_folder import content_digest
from v3s.files.remote import fetch, listing
from v3s.files.remote.address import PROTOCOLS, Address, RemoteError, parse_address, without_secrets
from v3s.files.remote.fetch import BOUND, bytes_to_fetch, held
from v3s.files.remote.mirror import address_of, mirror_folder, mirror_of, mirror_root
from v3s.video.decode import VideoIndex, index_video, read_frames


@pytest.fixture(autouse=True)
def _own_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("V3S_URL_SECRETS", raising=False)
    monkeypatch.setattr(fetch, "_unmeasured", None)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty bucket, ``memory://bucket``."""
    monkeypatch.setitem(PROTOCOLS, "memory", "fsspec")
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


class _Handler(SimpleHTTPRequestHandler):
    """Serves a folder, and counts what it sends; files may be cut short, or kept for those with a password."""

    server: "_Server"

    def do_GET(self) -> None:
        self.server.asked[unquote(self.path)] += 1
        if self.server.key and self.server.key not in (self.headers["Authorization"], self.path.partition("?")[2]):
            self.send_error(403, "secret-body")
        elif self.server.num_cut and self.path.endswith(".mp4"):
            self.server.num_cut -= 1
            content = Path(self.translate_path(self.path)).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
        else:
            super().do_GET()

    def do_HEAD(self) -> None:
        if self.server.key and self.server.key not in (self.headers["Authorization"], self.path.partition("?")[2]):
            self.send_error(403, "secret-body")
        else:
            super().do_HEAD()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Print nothing."""


class _Server(ThreadingHTTPServer):
    key, num_cut = "", 0

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), partial(_Handler, directory=str(folder)))
        self.asked: Counter[str] = Counter()
        self.url = f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def server(tmp_path: Path, small_videos: Path) -> Iterator[_Server]:
    """A web server of a copy of the small videos, ``/videos/CLASS/NAME.mp4``."""
    if os.environ.get("CI") != "true":
        pytest.importorskip("aiohttp", reason="fsspec reads http by aiohttp")
    copytree(small_videos, tmp_path / "www/videos")
    with _Server(tmp_path / "www") as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def videos_asked(server: _Server) -> int:
    return sum(number for path, number in server.asked.items() if path.endswith(".mp4"))


def check_said(data: str, **options: Any) -> str:
    text = StringIO()
    check(CheckConfig(data=data, min_frames=1, workers=0, **options), console=Console(file=text, width=200))
    return text.getvalue()


def is_like(remote: VideoList, local: VideoList) -> bool:
    return (remote.paths, remote.labels, remote.classes) == (local.paths, local.labels, local.classes)


def test_a_web_folder_is_like_a_local_one(server: _Server, small_videos: Path) -> None:
    """Names, labels, indices and pixels are equal; what is known is not fetched again."""
    remote, local = list_videos(f"{server.url}/videos"), list_videos(small_videos)
    assert is_like(remote, local)
    assert remote.source == f"folder {server.url}/videos: 16 videos in 8 classes"
    assert not videos_asked(server)  # a listing fetches nothing
    found, expected = scan(remote, min_frames=1, workers=2), scan(local, min_frames=1)
    assert [report.verdict for report in found.reports] == [report.verdict for report in expected.reports]
    assert found.num_fetched_bytes == sum((small_videos / path).stat().st_size for path in local.paths)
    assert set(server.asked.values()) == {1}
    one, other = found.table[3], expected.table[3]
    assert isinstance(one, VideoIndex)
    assert isinstance(other, VideoIndex)
    for plane, same in zip(read_frames(one, [5, 0]).planes, read_frames(other, [5, 0]).planes, strict=True):
        assert np.array_equal(plane, same)
    assert scan(list_videos(f"{server.url}/videos/"), min_frames=1).num_fetched_bytes == 0
    assert videos_asked(server) == 16


def test_known_files_are_not_fetched_even_if_their_content_is_gone(server: _Server) -> None:
    scan(list_videos(f"{server.url}/videos"), min_frames=1)
    for path in list(mirror_root().rglob("*.mp4")):
        assert fetch._take_content(str(path))
    assert scan(list_videos(f"{server.url}/videos"), min_frames=1).num_fetched_bytes == 0
    assert videos_asked(server) == 16


def test_a_video_a_list_and_a_list_at_a_url(server: _Server, small_videos: Path, tmp_path: Path) -> None:
    paths = list_videos(small_videos).paths[:3]
    one = list_videos(f"{server.url}/videos/{paths[0]}")
    assert (one.source, one.paths) == (
        f"file {server.url}/videos/{paths[0]}: 1 video without labels",
        (Path(paths[0]).name,),
    )
    (tmp_path / "www/near.csv").write_text(
        "path,start,end,label\n" + "".join(f"videos/{path},0,1,a\n" for path in paths)
    )
    host = server.url.removeprefix("http://").replace(":", "%3A")
    (tmp_path / "list.txt").write_text("\n".join(f"{server.url}/videos/{path} name{n}" for n, path in enumerate(paths)))
    listed = list_videos(tmp_path / "list.txt")
    assert listed.paths == tuple(f"http/{host}/videos/{path}" for path in paths)
    assert listed.labels == ("name0", "name1", "name2")
    near = list_videos(f"{server.url}/near.csv")
    assert (near.paths, near.bounds[0], near.labels[0]) == (tuple(f"videos/{path}" for path in paths), (0.0, 1.0), "a")
    assert not videos_asked(server)
    copyfile(small_videos / paths[0], tmp_path / "own.mp4")
    (tmp_path / "list.txt").write_text(f"own.mp4\n{server.url}/videos/{paths[1]}\n{server.url}/videos/none.mp4\n")
    mixed = list_videos(tmp_path / "list.txt", allow_missing=True)
    assert (mixed.paths[0], mixed.num_missing) == ("own.mp4", 1)
    assert scan(mixed, min_frames=1).num_usable == 2


def test_names_with_any_characters(server: _Server, small_videos: Path, tmp_path: Path) -> None:
    names = ["50% (1)&ü #2?.mp4", "a+b;c=d,e'f.mp4", "[x] {y}~!@$^`.mp4"]
    for name in names:
        copyfile(next(small_videos.rglob("*.mp4")), tmp_path / "www/videos" / name)
    found = scan(list_videos(f"{server.url}/videos"), min_frames=1)
    assert set(names) <= set(found.videos.paths)
    assert found.num_usable == 19


def test_a_job_streams_through_the_cache(server: _Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store and vectors of a URL equal those of the folder, with a cache that holds a few files."""
    here = tmp_path / "www/videos"
    monkeypatch.setenv(BOUND, "0.00002")
    run = str(tmp_path / "run")
    small = ("--width=0.125", "--clip-frames=8", "--clip-size=16", "--task=v3s-short", "--device=cpu", "--epochs=1")
    assert main(["prepare", f"{server.url}/videos", f"--out={tmp_path / 'far'}", "--workers=1"]) == 0
    assert main(["prepare", str(here), f"--out={tmp_path / 'near'}", "--workers=1"]) == 0
    names = [path.name for path in sorted((tmp_path / "near/shards").glob("*.bin"))]
    assert names
    assert all((tmp_path / f"{s}/shards/{n}").exists() for n in names for s in ("far", "near"))
    assert all(
        (tmp_path / "far/shards" / name).read_bytes() == (tmp_path / "near/shards" / name).read_bytes()
        for name in names
    )
    assert main(["pretrain", f"{server.url}/videos", f"--out={run}", *small, "--workers=0", "--batch-size=4"]) == 0
    for name, data in (("of_far", f"{server.url}/videos"), ("of_near", str(here))):
        assert (
            main(["embed", data, f"--backbone={run}", f"--out={tmp_path / name}", "--workers=0", "--device=cpu"]) == 0
        )
    one, other = (load_file(tmp_path / name / "shard-00000.safetensors") for name in ("of_far", "of_near"))
    assert all(np.array_equal(one[name], other[name]) for name in other)
    kept = [path.stat() for path in mirror_root().rglob("*.mp4")]
    assert 0 < sum(status.st_size for status in kept if status.st_mode & 0o200) <= 20_000


def test_a_folder_of_frames(server: _Server, tmp_path: Path, small_videos: Path) -> None:
    pictures = tmp_path / "www/pictures/one"
    pictures.mkdir(parents=True)
    with av.open(str(next(small_videos.rglob("*.mp4")))) as video:
        for number, frame in zip(range(12), video.decode(video=0), strict=False):
            encoder = av.CodecContext.create("png", "w")
            encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, "rgb24"
            encoder.time_base = Fraction(1, 25)
            (pictures / f"frame_{number:03}.png").write_bytes(
                b"".join(map(bytes, encoder.encode(frame.reformat(format="rgb24"))))
            )
    remote = list_videos(f"{server.url}/pictures/")
    assert remote.paths == ("one",)
    found, expected = scan(remote, min_frames=1), scan(list_videos(tmp_path / "www/pictures"), min_frames=1)
    assert found.reports == expected.reports
    assert found.num_fetched_bytes == sum(path.stat().st_size for path in pictures.iterdir())
    (tmp_path / "list.txt").write_text(f"{server.url}/pictures/one/\n")
    assert scan(list_videos(tmp_path / "list.txt"), min_frames=1).table.num_frames.tolist() == [12]


def test_check_says_what_was_fetched(server: _Server) -> None:
    assert re.search(r"fetched [1-9][\d.]* kB;", check_said(f"{server.url}/videos"))
    assert "fetched 0 bytes;" in check_said(f"{server.url}/videos")


def test_memory_is_like_a_local_folder(memory: Any, small_videos: Path) -> None:
    for path in list_videos(small_videos).paths:
        memory.pipe(f"memory://bucket/set/{path}", (small_videos / path).read_bytes())
    memory.pipe("memory://bucket/set/notes.txt", b"text")
    remote = list_videos("memory://bucket/set")
    assert is_like(remote, list_videos(small_videos))
    assert remote.skipped == "1 file without a video's file extension (1 .txt)"
    assert scan(remote, min_frames=1).num_usable == 16
    path = remote.paths[0]
    assert content_digest(remote.root / path) == content_digest(small_videos / path)
    memory.rm(f"memory://bucket/set/{path}")
    assert list_videos("memory://bucket/set").paths == remote.paths[1:]
    assert not (remote.root / path).exists()


def test_a_changed_file_is_fetched_again_and_never_mixed(memory: Any, small_videos: Path) -> None:
    first, second = (path.read_bytes() for path in sorted(small_videos.rglob("*.mp4"))[:2])
    url = "memory://bucket/a.mp4"
    memory.pipe(url, first)
    path = local_data(url)
    with held(path):
        assert path.read_bytes() == first
    memory.pipe(url, second)
    assert local_data(url) == path
    assert bytes_to_fetch(path) == len(second)
    with held(path):
        assert path.read_bytes() == second
    memory.pipe(url, first)
    local_data(url)
    memory.pipe(url, second)  # between listing and fetching
    with pytest.raises(RemoteError, match=r"^memory://bucket/a\.mp4: has changed since it was listed"), held(path):
        pass
    found = scan(VideoList(path.parent, ("a.mp4",), (None,), (), ""), min_frames=1)
    assert "memory://bucket/a.mp4: has changed" in found.reports[0].reason
    assert scan(list_videos(url), min_frames=1).num_usable == 1


def test_a_file_that_ends_early_is_fetched_twice(server: _Server) -> None:
    remote = list_videos(f"{server.url}/videos")
    url = f"{server.url}/videos/{remote.paths[0]}"
    server.num_cut = 1
    with held(remote.root / remote.paths[0]):
        assert index_video(remote.root / remote.paths[0]).num_frames == 40
    assert server.asked[f"/videos/{remote.paths[0]}"] == 2
    server.num_cut = 2
    with pytest.raises(RemoteError, match=rf"^{url.rpartition('/')[0]}/.*: ends "), held(remote.root / remote.paths[1]):
        pass
    assert server.asked[f"/videos/{remote.paths[1]}"] == 2
    assert bytes_to_fetch(remote.root / remote.paths[1])
    assert not list((mirror_root() / ".part").iterdir())
    server.num_cut = 2
    assert scan(remote, min_frames=1).num_usable == 15
    assert scan(remote, min_frames=1).num_usable == 16  # the failure was not kept


def test_a_store_lacks_nothing_that_was_not_fetched_once(server: _Server, tmp_path: Path) -> None:
    """What could not be fetched is no fact about the file: the next run tries again."""
    words = ["prepare", f"{server.url}/videos", f"--out={tmp_path / 'store'}", "--workers=1"]
    server.num_cut = 1000
    main(words)
    server.num_cut = 0
    assert main(words) == 0
    assert scan(list_videos(tmp_path / "store"), min_frames=1).num_usable == 16


def test_a_demo_of_a_url(server: _Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CLIPS_PER_EPOCH", "NUM_VALIDATION_CLIPS", "NUM_TEST_CLIPS"):
        monkeypatch.setattr(f"v3s.commands.demo.{name}", 16)
    out, url = tmp_path / "demo", server.url.replace("//", "//somebody:password@")
    assert main(["demo", f"{url}/videos", f"--out={out}", "--epochs=1", "--workers=0", "--device=cpu"]) == 0
    assert f"{server.url}/videos" in (out / "report.html").read_text()
    assert not [path for path in out.rglob("*") if path.is_file() and b"somebody" in path.read_bytes()]


@pytest.mark.parametrize("way", ["user", "query"])
def test_secrets_open_files_and_are_nowhere(
    server: _Server, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Neither in outputs nor in any file that v3s writes, also where it is refused."""
    file = next(path.relative_to(tmp_path / "www") for path in (tmp_path / "www").rglob("*.mp4")).as_posix()
    host = server.url.removeprefix("http://")
    if way == "user":
        url, wrong = f"http://somebody:pass%2Bword@{host}/videos", f"http://somebody:verywrong@{host}/videos"
        server.key = "Basic c29tZWJvZHk6cGFzcyt3b3Jk"
    else:
        url, wrong, server.key = (
            f"{server.url}/{file}?sig=pass%2Bword",
            f"{server.url}/{file}?verywrong",
            "sig=pass%2Bword",
        )
    small = ("--width=0.125", "--clip-frames=8", "--clip-size=16", "--task=v3s-short", "--device=cpu", "--epochs=1")
    out, workers = tmp_path / "out", "--workers=1"
    assert main(["check", wrong, workers]) == 1
    assert main(["prepare", url, f"--out={out / 'store'}", workers]) == 0
    assert main(["check", url, f"--out={out / 'report.jsonl'}", "--min-frames=1", workers]) == 0
    if way == "user":
        words = ["pretrain", url, f"--out={out / 'run'}", *small, "--workers=0", "--batch-size=4"]
        monkeypatch.setattr(sys, "argv", ["v3s", *words])
        assert main(words) == 0
        assert server.url in (out / "run/manifest.json").read_text()
    assert main(["check", url, "--window=" + url]) == 2
    said = capfd.readouterr()
    assert "permission denied" in said.err
    written = [path for top in (out, tmp_path / "cache") for path in top.rglob("*") if path.is_file()]
    texts = [said.out, said.err, *(path.read_bytes().decode(errors="replace") for path in written), *map(str, written)]
    for secret in ("pass%2B", "pass+word", "verywrong", "sig=", "somebody", "c29tZ", "secret-body"):
        assert not [text for text in texts if secret in text], secret


def test_configurations_and_texts_lose_secrets() -> None:
    assert VideoOptions(data="https://me:word@host/a/").data == "https://host/a/"
    assert PretrainConfig(data="https://host/a.mp4?sig=1", out="x").data == "https://host/a.mp4"
    table = ReproduceConfig(table="table5", data="a", hmdb51="https://me:word@host/b/", aslan="https://host/c/?sig=1")
    assert (table.data, table.hmdb51, table.aslan) == ("a", "https://host/b/", "https://host/c/")
    assert without_secrets("a 'https://u:p@h/x?y#z', s3://b/k and x@y?z") == "a 'https://h/x', s3://b/k and x@y?z"
    for secret in ("secret", "sec/ret", "sec'ret", "sec@ret"):
        with pytest.raises(RemoteError, match=r"^s3://bucket/x: credentials belong"):
            parse_address(f"s3://key:{secret}@bucket/x")
        assert without_secrets(f"from https://me:{secret}@host/x to") == "from https://host/x to"
    for secret in ("12a/b", "a?b", "a#b"):
        with pytest.raises(RemoteError, match=r"^https://host/x: is not a URL"):
            parse_address(f"https://me:{secret}@host/x")
    for kept in ("https://host:80/@me/a", "http://[::1]:80/a@b", "['https://host:80','x@y']"):
        assert without_secrets(kept) == kept
    assert str(parse_address("http://me:word@[::1]:8000/a/")) == "http://[::1]:8000/a/"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://host/a.mp4", r"ftp://host/a\.mp4: ftp:// is not read; give a folder, a file, or s3://"),
        ("file:///etc/a.mp4", "file:// is not read"),
        ("https:///a.mp4", "is not a name that a file in a folder can have"),
        ("https://host/../a.mp4", "is not a name"),
        ("https://host/%2e%2e/a.mp4", "is not a name"),
        ("https://host/a%2Fb.mp4", "a name with a slash"),
        ("https://host/a%00.mp4", "is not a name"),
        ("https://host:x/a.mp4", "is not a URL"),
        ("s3://../a.mp4", "is not a name"),
        ("s3://bucket//a.mp4", "is not a name"),
    ],
)
def test_urls_that_are_refused(url: str, message: str) -> None:
    with pytest.raises(RemoteError, match=message) as caught:
        list_videos(url)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", ["/videos", "/videos/"])
def test_a_query_of_a_folder_is_refused_and_not_kept(server: _Server, path: str) -> None:
    url = server.url + path
    with pytest.raises(RemoteError, match=f"^{url}: is a folder, and a query .* each with its own$"):
        list_videos(f"{url}?sig=1")
    assert len(list_videos(url).paths) == 16


def test_a_missing_package_is_named() -> None:
    for url, package in (("s3://bucket/a", "s3fs"), ("gs://bucket/a", "gcsfs")):
        if not pytest.importorskip("importlib.util").find_spec(package):
            with pytest.raises(RemoteError, match=f"^{url}: needs {package}, .*: pip install {package}$"):
                list_videos(url)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/none/", r"/none/: does not exist"),
        ("/none.mp4", r"/none\.mp4: does not exist"),
        ("/empty/", r"/empty/: contains no files"),
    ],
)
def test_what_does_not_exist(server: _Server, tmp_path: Path, path: str, message: str) -> None:
    (tmp_path / "www/empty").mkdir()
    with pytest.raises(RemoteError, match=f"^{re.escape(server.url)}{message}"):
        list_videos(server.url + path)


def test_no_such_host(server: _Server) -> None:
    for url in ("http://127.0.0.1:9/a.mp4", "http://127.0.0.1:9/a/", "http://no-host.invalid/a/"):
        with pytest.raises(RemoteError, match=f"^{url}: the host does not exist, or cannot be reached$"):
            list_videos(url)


@pytest.mark.parametrize("name", ["../x.mp4", "a/../../x.mp4", "/x.mp4", "a//x.mp4", "./x.mp4", "x\0.mp4", "a/.."])
def test_hostile_names_of_a_bucket(memory: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    memory.pipe("memory://bucket/set/a.mp4", b"x")
    entry = {"name": f"/bucket/set/{name}", "size": 1, "type": "file"}
    monkeypatch.setattr(type(memory), "find", lambda *_, **__: {entry["name"]: entry})
    with pytest.raises(RemoteError, match=r"^memory://bucket/set: .* is not a name that a file in a folder can have$"):
        list_videos("memory://bucket/set")
    assert not list(tmp_path.rglob("x*.mp4"))


def test_hostile_links_of_a_page(server: _Server, tmp_path: Path) -> None:
    (tmp_path / "www/page").mkdir()
    page, video = tmp_path / "www/page/index.html", next((tmp_path / "www").rglob("*.mp4"))
    copyfile(video, tmp_path / "www/page/a&b.mp4")
    others = [
        "../videos/",
        "/videos/",
        "//other/x.mp4",
        "mailto:x",
        "?C=N;O=D",
        "#top",
        ".",
        "..",
        "https://other/x.mp4",
        "sub/x.mp4",
    ]
    page.write_text("".join(f'<a href="{link}">x</a>' for link in [*others, "./a&amp;b.mp4"]))
    assert list_videos(f"{server.url}/page/").paths == ("a&b.mp4",)
    for link in ("%2e%2e%2f%2e%2e%2fx.mp4", "%2e%2e/", "%2fetc%2fx.mp4", "x%00.mp4"):
        page.write_text(f'<a href="{link}">x</a>')
        with pytest.raises(RemoteError, match="is not a name that a file in a folder can have"):
            list_videos(f"{server.url}/page/")


def test_a_dead_link_costs_one_file_and_not_the_folder(server: _Server, tmp_path: Path) -> None:
    (tmp_path / "www/page/sub").mkdir(parents=True)
    page, video = tmp_path / "www/page/index.html", next((tmp_path / "www").rglob("*.mp4"))
    copyfile(video, tmp_path / "www/page/a.mp4")
    page.write_text("".join(f'<a href="{link}">x</a>' for link in ("a.mp4", "gone.mp4")))
    reports = scan(list_videos(f"{server.url}/page/"), min_frames=1, cache=None).reports
    assert [(report.path, report.verdict) for report in reports] == [("a.mp4", "usable"), ("gone.mp4", "unreadable")]
    assert reports[1].reason == f"{server.url}/page/gone.mp4: does not exist"
    (tmp_path / "www/page/a.mp4").unlink()
    with pytest.raises(RemoteError, match=r"/page/a\.mp4: does not exist"):
        list_videos(f"{server.url}/page/")
    page.write_text('<a href="gone/">x</a>')
    with pytest.raises(RemoteError, match="/page/gone/: does not exist"):
        list_videos(f"{server.url}/page/")


def test_a_file_that_is_also_a_folder(memory: Any) -> None:
    """Buckets can hold both; a disk cannot."""
    found = {f"/b/{name}": {"size": 1, "type": "file"} for name in ("a", "a/x.mp4")}
    memory.pipe("memory://b/a", b"x")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(memory), "find", lambda *_, **__: found)
        with pytest.raises(RemoteError, match="a is a file and a folder"):
            list_videos("memory://b/")


def test_a_file_becomes_a_folder_and_a_file_again(memory: Any) -> None:
    for path in ("x.mp4", "x.mp4/y.mp4", "x.mp4"):
        memory.store.clear()
        memory.pipe(f"memory://b/{path}", b"1")
        assert list_videos("memory://b/").paths == (path,)


def test_the_bound(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was used last stays, and what is being read."""
    for name in "abcd":
        memory.pipe(f"memory://bucket/{name}.mp4", name.encode() * 300)
    root = mirror_folder(parse_address("memory://bucket/"))
    monkeypatch.setenv(BOUND, "0.000001")  # 1,000 bytes
    with held(root / "a.mp4"):
        for name in "bcd":
            with held(root / f"{name}.mp4"):
                assert (root / f"{name}.mp4").read_text() == name * 300
        assert (root / "a.mp4").read_text() == "a" * 300
    assert [bytes_to_fetch(root / f"{name}.mp4") for name in "abcd"] == [0, 300, 300, 0]
    monkeypatch.setenv(BOUND, "0.0000002")
    with pytest.raises(RemoteError, match="has 300 bytes, but the cache keeps 200 bytes; set"), held(root / "b.mp4"):
        pass
    monkeypatch.setenv(BOUND, "much")
    with pytest.raises(RemoteError, match="V3S_REMOTE_GB is 'much'"), held(root / "b.mp4"):
        pass


def test_a_full_disk(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.pipe("memory://bucket/a.mp4", b"a" * 300)
    path = local_data("memory://bucket/a.mp4")

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(type(memory), "get_file", fail)
    with (
        pytest.raises(
            RemoteError, match=r"^memory://bucket/a.mp4: cannot be kept in .*: No space left on device; free"
        ),
        held(path),
    ):
        pass


def test_a_file_longer_than_listed_is_not_written(memory: Any, tmp_path: Path) -> None:
    memory.pipe("memory://bucket/a.mp4", b"a" * 20_000_000)
    with pytest.raises(RemoteError, match="is longer than it was"):
        listing.download(parse_address("memory://bucket/a.mp4"), tmp_path / "x", 10, lambda: None)


def test_two_processes_fetch_once(server: _Server) -> None:
    remote = list_videos(f"{server.url}/videos")
    code = "import sys; from v3s.files.remote.fetch import held; exec('with held(sys.argv[1]): pass')"
    words = [sys.executable, "-c", code, str(remote.root / remote.paths[0])]
    assert [process.wait() for process in [subprocess.Popen(words) for _ in range(3)]] == [0, 0, 0]
    assert server.asked[f"/videos/{remote.paths[0]}"] == 1


def test_a_remote_store_is_refused(memory: Any) -> None:
    memory.pipe("memory://bucket/store/store.json", b"{}")
    with pytest.raises(RemoteError, match="memory://bucket/store is a store"):
        list_videos("memory://bucket/store")


def test_a_mirror_and_its_url() -> None:
    for url in ("https://host:8443/a/b%20c.mp4", "s3://bucket/a?b#c%20.mp4", "gs://bucket/x"):
        address = parse_address(url)
        assert str(address) == url
        assert address_of(mirror_of(address)) == address
    assert address_of("/somewhere/a.mp4") is None
    assert address_of(mirror_root()) is None
    assert address_of(mirror_root() / ".part/x") is None
    assert Address("s3", "b", "a/b/").parent == Address("s3", "b", "a/")


def test_local_files_ask_nobody(small_videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_system", None)
    assert scan(list_videos(small_videos), min_frames=1, cache=None).num_usable == 16
    assert not mirror_root().exists()
