"""Collections of small AVI files with hostile names, which no browser plays as they are; their servers, and windows."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from playwright.sync_api import Browser, Page, Route
from rich.console import Console
from starlette.testclient import TestClient

from v3s.features.encoder import Encoder
from v3s.serve.app import make_app
from v3s.serve.catalogue import read_catalogue
from v3s.serve.decoders import Previews
from v3s.serve.desk import Desk
from v3s.serve.guard import Guard
from v3s.serve.marks import Marks
from v3s.vectors.collection import open_vectors
from v3s.vectors.embed import EmbedConfig, embed

HOST = "127.0.0.1:8000"
ORIGIN = f"http://{HOST}"
NAMES = (
    "left/a.avi", "left/b.avi", "left/<script>document.title='owned'<!script>.avi", "left/\"quoted\" 'name'.avi",
    "right/c.avi", "right/d.avi", "right/two\nlines.avi", "right/" + os.fsdecode(b"not-utf-8-\xff.avi"),
)  # fmt: skip


def write_avi(path: Path, number: int, seconds: float = 2.0) -> None:
    """A bright square that moves over a background of another brightness, in MPEG-4 part 2, which browsers refuse."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="avi") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for frame in range(round(10 * seconds)):
            picture = np.full((48, 64, 3), 20 * number + 20, np.uint8)
            left = (3 + number) * frame % 48
            picture[16:32, left : left + 16] = (255, 30 * number, 0)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


@pytest.fixture(scope="session")
def avi_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 8 AVI files of 2 s, in 2 folders."""
    folder = tmp_path_factory.mktemp("avi")
    for number, name in enumerate(NAMES):
        write_avi(folder / name, number)
    return folder


@pytest.fixture(scope="session")
def embedded(
    avi_videos: Path, small_embedding: EmbedConfig, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Vectors of these videos: one per file, and one per half second."""
    folder = tmp_path_factory.mktemp("embedded")
    config = replace(small_embedding, data=str(avi_videos), num_clips=1)
    options = {"files": {}, "spans": {"segment": 0.5}}
    for name, changes in options.items():
        embed(replace(config, out=str(folder / name), **changes), console=Console(quiet=True))  # type: ignore[arg-type]
    return {name: folder / name for name in options}


@pytest.fixture
def files(embedded: dict[str, Path], tmp_path: Path) -> Path:
    """A folder of vectors of whole files, of its own: labels are kept in it."""
    return Path(shutil.copytree(embedded["files"], tmp_path / "files"))


@pytest.fixture
def spans(embedded: dict[str, Path], tmp_path: Path) -> Path:
    """A folder of vectors of spans, of its own."""
    return Path(shutil.copytree(embedded["spans"], tmp_path / "spans"))


@pytest.fixture(scope="module")
def previews() -> Iterator[Previews]:
    """One process that decodes, for all tests of a file: tests of other rooms count the processes that are left."""
    made = Previews(1)
    made.start()
    yield made
    made.stop()


def no_encoder() -> Encoder:
    raise ValueError("this test opens no network")


Open = Callable[..., TestClient]


@pytest.fixture
def client(previews: Previews) -> Open:
    """Opens the server of a folder of vectors; its client sends what a browser would."""

    def open_client(folder: Path, open_encoder: Callable[[], Encoder] = no_encoder) -> TestClient:
        catalogue = read_catalogue(open_vectors(folder))
        app = make_app(Desk(catalogue, Marks(catalogue), previews, open_encoder))
        guarded = Guard(app, hosts=frozenset({HOST}), token=None)
        return TestClient(guarded, base_url=ORIGIN, headers={"Origin": ORIGIN, "Content-Type": "application/json"})

    return open_client


@contextmanager
def serving(folder: Path, *options: str, port: str = "0") -> Iterator[str]:
    """A server in a process of its own; gives its address, and kills it at the end."""
    command = [sys.executable, "-m", "v3s", "serve", str(folder), "--port", port, *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    lines = []
    try:
        for line in process.stdout:
            lines.append(line)
            if line.startswith("http://"):
                yield line.strip()
                return
        pytest.fail(f"the server did not start: {''.join(lines)}")
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


@pytest.fixture(scope="module")
def spans_page(embedded: dict[str, Path]) -> Iterator[str]:
    """The address of a server for all tests that change nothing: of spans."""
    with serving(embedded["spans"], "--device", "cpu") as address:
        yield address


OpenPage = Callable[..., Page]


@pytest.fixture
def window(browser: Browser) -> Iterator[OpenPage]:
    """Opens windows; at the end none of them has complained or asked another server for anything."""
    contexts, problems = [], []

    def open_window(address: str, *, width: int = 1400, path: str = "", wait_for: str = ".tile") -> Page:
        context = browser.new_context(viewport={"width": width, "height": 900})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        own = address.partition("?")[0]
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "console", lambda message: problems.append(message.text) if "Content Security" in message.text else None
        )
        page.on("request", lambda asked: None if asked.url.startswith((own, "blob:")) else problems.append(asked.url))
        page.goto(address + path)
        page.wait_for_selector(wait_for)
        return page

    yield open_window
    for context in contexts:
        context.close()
    assert problems == []


def until(check: Callable[[], object], seconds: float = 60) -> None:
    """Wait until something holds; the page's own waiting needs eval, which its policy forbids.

    A handler of a route is called only while something is asked of a page: a check for what it did asks for "1".
    """
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def names(page: Page) -> list[str]:
    found: list[str] = page.evaluate("[...document.querySelectorAll('#grid .tile')].map((tile) => tile.span.name)")
    return found


def slowly(route: Route) -> None:
    time.sleep(0.2)
    route.continue_()
