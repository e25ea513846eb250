"""The live page: from a click to a painted grid, previews, labels to a sorted grid: ``python -m benchmarks.serve``.

``--quick`` takes a tenth of the vectors and a recording of two minutes; the targets then do not apply. The server runs
as a user starts it. "Painted" is measured in Chromium by the page itself, from the click to the frame after the last
tile was added; where Chromium is not installed, the answer of the server is timed alone.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median

import httpx
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.machine import describe_machine
from benchmarks.recordings import make_recording
from benchmarks.search import made_entries, make_vectors
from v3s.serve.catalogue import read_catalogue
from v3s.serve.marks import Marks
from v3s.vectors.collection import open_vectors
from v3s.vectors.embed import EmbedConfig, embed

NUM_VECTORS, NUM_LABELLED_AMONG, NUM_LABELS, MINUTES = 1_000_000, 20_000, 50, 120
TARGETS = {
    "first page of the grid": 0.5,
    "search: from the click to the painted grid": 1.0,
    "preview of 5 s": 1.0,
    "the same again": 0.02,
    "50 labels to a sorted grid": 3.0,
}
_ROUNDS, _LOOKING_MS = 3, 5000
_CLICK = """async () => {
  const caption = document.querySelector("#caption"), before = caption.textContent;
  const tiles = document.querySelectorAll("#grid .tile"), tile = tiles[Math.floor(Math.random() * tiles.length)];
  const begin = performance.now();
  const done = new Promise((resolve) => new MutationObserver(() => {
    if (document.querySelectorAll("#grid .tile").length >= 60 && caption.textContent !== before) {
      requestAnimationFrame(() => setTimeout(resolve));
    }
  }).observe(document.querySelector("#results"), { childList: true, subtree: true, characterData: true }));
  tile.click();
  await done;
  return (performance.now() - begin) / 1000;
}"""


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """A server in a process of its own; gives its address."""
    command = [sys.executable, "-m", "v3s", "serve", str(folder), "--port", "0", "--device", "cpu"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield next(line.strip() for line in process.stdout if line.startswith("http://"))
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def timed(ask: Callable[[], object]) -> float:
    """Seconds that something takes."""
    begin = time.perf_counter()
    ask()
    return time.perf_counter() - begin


def time_pages(folder: Path) -> dict[str, float]:
    """Seconds to the first page of a large collection, and from a click to the painted grid."""
    with serving(folder) as address, httpx.Client(base_url=address, timeout=120) as client:
        first = timed(lambda: client.get("/api/spans").raise_for_status())
        browser = shutil.which("chromium") or shutil.which("google-chrome")
        if browser is None:
            rows = range(0, 5 * _ROUNDS, 5)
            search = [timed(lambda: client.get(f"/api/spans?order=like:{row}").raise_for_status()) for row in rows]  # noqa: B023
        else:
            from playwright.sync_api import sync_playwright

            with sync_playwright() as playwright:
                opened = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
                page = opened.new_page()
                page.set_default_timeout(120_000)
                page.goto(address)
                page.wait_for_selector(".tile")
                search = []
                for _ in range(_ROUNDS):
                    page.wait_for_timeout(_LOOKING_MS)
                    search.append(page.evaluate(_CLICK))
                opened.close()
    return {"first page of the grid": first, "search: from the click to the painted grid": median(search)}


def time_previews(folder: Path) -> dict[str, float]:
    """Seconds to a preview of 5 s of a long recording, and to the same one again."""
    vectors = open_vectors(folder)
    rows = np.linspace(0, len(vectors) - 1, 2 * _ROUNDS + 1).astype(int).tolist()
    with serving(folder) as address, httpx.Client(base_url=address, timeout=120) as client:
        stamp = vectors.description.stamp[:12]
        for row in rows[:2]:  # the processes that decode have started
            client.get(f"/media/{stamp}/{row}/picture.jpg").raise_for_status()
        paths = [f"/media/{stamp}/{row}/clip.mp4" for row in rows[2:]]
        first, again = ([timed(lambda: client.get(path).raise_for_status()) for path in paths] for _ in range(2))  # noqa: B023
    return {"preview of 5 s": median(first), "the same again": median(again)}


def time_labels(folder: Path) -> dict[str, float]:
    """Seconds from a click on the button that trains a probe to the sorted grid."""
    marks = Marks(read_catalogue(open_vectors(folder)))
    for number in range(5):
        marks.add(f"class {number}")
        marks.give(list(range(number, 5 * NUM_LABELS, 25)), f"class {number}")
    with serving(folder) as address, httpx.Client(base_url=address, timeout=120) as client:

        def train() -> None:
            sent = {"Origin": address.rstrip("/")}
            client.post("/api/probe", json={}, headers=sent).raise_for_status()
            client.get("/api/spans?order=answer:0").raise_for_status()

        return {"50 labels to a sorted grid": timed(train)}


def main() -> None:
    """Make the collections, measure, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the vectors, a recording of two minutes")
    arguments = parser.parse_args()
    share, minutes = (10, 2) if arguments.quick else (1, MINUTES)
    console, found = Console(), dict[str, float]()
    with tempfile.TemporaryDirectory() as folder:
        large, few, recording = (Path(folder) / name for name in ("large", "few", "recording.mp4"))
        make_vectors(large, made_entries(0, NUM_VECTORS // share), 0, console)
        found |= time_pages(large)
        shutil.rmtree(large)
        make_vectors(few, made_entries(0, NUM_LABELLED_AMONG // share), 1, console)
        found |= time_labels(few)
        make_recording(recording, 60 * minutes, 25)
        config = EmbedConfig(
            data=str(recording), out=str(Path(folder) / "spans"), backbone="random:r3d@0.125", segment=5
        )
        config = replace(config, segment_stride=max(5.0, 60 * minutes / 100), clip_frames=8, clip_size=32, num_clips=1)
        embed(config, console=Console(quiet=True))
        found |= time_previews(Path(folder) / "spans")
    console.print(
        f"{describe_machine()}; {NUM_VECTORS // share:,} vectors, {minutes} minutes of video", highlight=False
    )
    table = Table("what", "measured", "target")
    for name, target in TARGETS.items():
        table.add_row(name, f"{found[name]:.3f} s", "" if arguments.quick else f"< {target:g} s")
    console.print(table)


if __name__ == "__main__":
    main()
