"""A real browser lays out the pages: nothing is wider than the window, on a phone and on a desktop."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from v3s.pages.charts import bar_chart, confusion_matrix, line_chart
from v3s.pages.images import jpeg_uri
from v3s.pages.page import figure, page, paragraph, section, side_by_side, strip, table

LOOK = """<script>addEventListener("load", () => {
  const room = document.documentElement.clientWidth;  // without the scroll bar
  const wide = [...document.querySelectorAll("body *")].filter((element) => {
    const right = Math.max(element.getBoundingClientRect().right, element.getBoundingClientRect().left);
    return right > room + 1 && !element.parentElement.closest(".scroll");
  });
  const letters = [...document.querySelectorAll("svg")].map((svg) =>
    13 * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width);
  const covered = [], box = (element) => element.getBoundingClientRect();
  for (const svg of document.querySelectorAll("svg")) {
    const texts = [...svg.querySelectorAll("text")], edge = box(svg);
    for (const [place, text] of texts.entries()) {
      const own = box(text), inside = own.left >= edge.left - 1 && own.right <= edge.right + 1
        && own.top >= edge.top - 1 && own.bottom <= edge.bottom + 1;
      if (!inside) covered.push(`${text.textContent} leaves the chart`);
      for (const other of texts.slice(place + 1)) {
        const its = box(other);
        const across = Math.min(own.right, its.right) - Math.max(own.left, its.left);
        const down = Math.min(own.bottom, its.bottom) - Math.max(own.top, its.top);
        if (Math.min(across, down) > 4) covered.push(`${text.textContent} and ${other.textContent}`);
      }
    }
  }
  const found = {window: innerWidth, excess: document.documentElement.scrollWidth - room, charts: letters.length,
                 wide: wide.map((element) => element.outerHTML.slice(0, 80)), letters: Math.min(...letters), covered};
  document.documentElement.dataset.found = JSON.stringify(found);
})</script>"""


def laid_out(html: str, width: int, folder: Path) -> dict[str, object]:
    """What a browser finds when it shows a page in a window of this width."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("chromium is not installed, also not by .ci/run")
    frame = folder / "frame.html"
    (folder / "page.html").write_text(html.replace("</head>", f"{LOOK}</head>"))
    frame.write_text(f"""<body><iframe src="page.html" width="{width}" height="900" style="border:0"></iframe><script>
      const read = () => frames[0].document.documentElement.dataset.found;
      const show = () => read() ? (document.body.dataset.found = read()) : setTimeout(show, 20);
      addEventListener("load", show)</script></body>""")
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom"]
    command = [browser, *words, "--virtual-time-budget=10000", f"--user-data-dir={folder / 'profile'}", frame.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    match = re.search(r'<body data-found="([^"]*)"', shown)
    assert match, shown[:2000]
    found: dict[str, object] = json.loads(match[1].replace("&quot;", '"').replace("&lt;", "<").replace("&amp;", "&"))
    assert found["window"] == width
    return found


def everything() -> str:
    """A page of everything that pages are made of, with long names."""
    name = "a/very/long/folder/" + "of_a_name_without_any_space" * 4 + ".mp4"
    curve = line_chart(
        {f"{head}, {part}": [(0, 1e-4), (1e5, 0.3)] for head in ("spatial", "temporal") for part in ("train", "test")},
        title="Accuracy of each head", x_label="epoch", y_label="accuracy",
        reference_lines={"chance (spatial)": 0.0556, "chance (temporal)": 0.0909}, markers={"kept": 5e4},
    )  # fmt: skip
    matrix = confusion_matrix(np.eye(18) * 900, ["projection 0.65 bottom"] * 18, title="spatial head")
    counts = confusion_matrix(np.full((8, 8), 99999), ["pendulum", "WWWW", "mammoth", *"abcde"], title="Test videos")
    bars = bar_chart({"with the whole network": 0.4, "without": 0.2}, title="Bars", reference=0.3, note="chance")
    picture = jpeg_uri(np.zeros((112, 454, 3), np.uint8))
    blocks = [
        paragraph(name),
        side_by_side(figure(curve, name), figure(matrix, name), figure(bars, name), figure(counts, name)),
        strip([(name, picture)] * 5),
        figure(picture, name),
        table(("name", "number"), [(name, 1)]),
    ]
    return page("Everything", [section("All", *blocks)], lead=name)


@pytest.mark.parametrize("width", [400, 1400])
def test_nothing_is_wider_than_the_window(width: int, tmp_path: Path) -> None:
    found = laid_out(everything(), width, tmp_path)
    assert found["wide"] == []
    assert (found["excess"], found["covered"]) == (0, [])
    assert found["charts"] == 4
    assert float(str(found["letters"])) >= 8.5


@pytest.mark.parametrize("width", [400, 1400])
def test_the_report_of_a_run_fits(pretrained: Path, width: int, tmp_path: Path) -> None:
    found = laid_out((pretrained / "report.html").read_text(), width, tmp_path)
    assert found["wide"] == []
    assert (found["excess"], found["covered"]) == (0, [])
    assert float(str(found["letters"])) >= 9
