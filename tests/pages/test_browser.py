"""A real browser shows the pages: nothing is wider than the window, films play, and nothing else is loaded or run."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, Page

from tests.pages.conftest import sample_page
from v3s.pages.charts import bar_chart, confusion_matrix, line_chart
from v3s.pages.images import data_uri, jpeg_uri, mp4
from v3s.pages.templates import render

LOOK = """() => {
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
  return {excess: document.documentElement.scrollWidth - room, charts: letters.length,
          wide: wide.map((element) => element.outerHTML.slice(0, 80)), letters: Math.min(...letters), covered};
}"""
Show = Callable[..., Page]


@pytest.fixture
def show(browser: Browser, tmp_path: Path) -> Iterator[Show]:
    """Shows a page as a file; at the end it has not complained, nor asked for any other."""
    contexts, problems = [], []

    def shown(html: str, *, width: int = 1400, script: bool = True) -> Page:
        path = tmp_path / "page.html"
        path.write_text(html)
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, java_script_enabled=script))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text))
        page.on("dialog", lambda dialog: problems.append(dialog.message))
        page.on("request", lambda asked: problems.append(asked.url) if asked.url.startswith("http") else None)
        page.goto(path.as_uri())
        return page

    yield shown
    for context in contexts:
        context.close()
    assert problems == []


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
    charts = [(chart, name) for chart in (curve, matrix, counts, bars)]
    return sample_page(name, charts=charts, films=[(picture, name), (film(), name)] * 3)


def film() -> str:
    return data_uri(mp4(np.random.default_rng(0).integers(0, 255, (40, 48, 64, 3), np.uint8), 20), "video/mp4")


def plays(video: Locator) -> bool:
    """Whether a film moves on within ten seconds."""
    start = video.evaluate("film => film.currentTime")
    for _ in range(100):
        video.page.wait_for_timeout(100)
        if video.evaluate("film => film.currentTime") != start:
            return True
    return False


@pytest.mark.parametrize("width", [400, 1400])
def test_nothing_is_wider_than_the_window(show: Show, width: int) -> None:
    found = show(everything(), width=width).evaluate(LOOK)
    assert found["wide"] == []
    assert (found["excess"], found["covered"]) == (0, [])
    assert found["charts"] == 4
    assert found["letters"] >= 8.5


@pytest.mark.parametrize("width", [400, 1400])
def test_a_long_name_in_a_table_leaves_its_numbers_in_sight(show: Show, width: int) -> None:
    scores = ["class", "top-1"], [["c" * 200, "31.4%"]]
    page = show(sample_page("a page", scores=scores), width=width)
    box = page.get_by_text("31.4%").bounding_box()
    assert box is not None
    assert box["x"] + box["width"] <= width


@pytest.mark.parametrize("width", [400, 1400])
def test_the_report_of_a_run_fits(show: Show, pretrained: Path, width: int) -> None:
    found = show((pretrained / "report.html").read_text(), width=width).evaluate(LOOK)
    assert found["wide"] == []
    assert (found["excess"], found["covered"]) == (0, [])
    assert found["letters"] >= 9


def test_a_page_of_many_sections_has_contents_that_lead_to_them(show: Show, pretrained: Path) -> None:
    page = show((pretrained / "report.html").read_text(), width=400)
    links = page.locator(".contents a")
    names = page.locator("h2").all_inner_texts()
    assert links.all_inner_texts() == names
    assert len(names) > 3
    links.last.click()
    assert page.locator("h2").last.evaluate("section => section.matches(':target')")
    assert show(sample_page("few sections", films=[])).locator(".contents").count() == 0


def test_a_film_plays_and_its_controls_are_below_it(show: Show) -> None:
    page = show(sample_page("name", films=[(film(), "name")]), width=400)
    video, button, time = (page.locator(name) for name in ("video", ".controls button", ".controls input"))
    assert plays(video)
    picture, below = video.bounding_box(), page.locator(".controls").bounding_box()
    assert picture is not None
    assert below is not None
    assert picture["y"] + picture["height"] <= below["y"]
    button.click()
    assert video.evaluate("film => film.paused")
    time.fill("0.5")
    assert video.evaluate("film => film.currentTime") == pytest.approx(1, abs=0.05)
    button.press("Enter")
    assert not video.evaluate("film => film.paused")


def test_a_film_that_is_a_link_plays_while_one_points_at_it(show: Show) -> None:
    html = render(
        "search.html", title="t", lead="", query=(film(), "q"), hits=[(film(), "hit", "a%20b.avi#t=1,2")], num_hits=1
    )
    page = show(html)
    video = page.locator("a video")
    assert video.evaluate("film => film.paused")
    video.hover()
    assert plays(video)
    page.mouse.move(0, 0)
    assert video.evaluate("film => film.paused")
    page.locator("a").first.focus()
    assert plays(video)
    assert plays(show(html, script=False).locator("a video"))


def test_a_page_loads_and_runs_nothing_of_others(show: Show) -> None:
    name = 'a"><img src="http://127.0.0.1:9/a.png" onerror="alert(1)"><script>alert(2)</script>'
    html = sample_page(name, films=[(film(), name)])
    page = show(html)
    page.wait_for_timeout(300)
    assert page.locator("img").count() == 0


def test_a_script_of_others_would_not_run(browser: Browser, tmp_path: Path) -> None:
    """Even if something were not escaped, the policy of the page holds."""
    path = tmp_path / "page.html"
    html = sample_page("name", films=[])
    hole = "<img src='http://127.0.0.1:9/' onerror='document.title = 1'><script>document.title = 2</script>"
    path.write_text(html.replace("</h1>", f"</h1>{hole}"))
    with browser.new_context() as context, context.new_page() as page:
        asked: list[str] = []
        page.on("requestfinished", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_timeout(300)
        assert page.title() == "Audit"
        assert not [url for url in asked if url.startswith("http")]
