"""A real browser gives labels where answers are late, the server is gone, or others label too."""

from pathlib import Path

from playwright.sync_api import Page

from tests.serve.conftest import OpenPage as Open
from tests.serve.conftest import serving, slowly, until

MARKS = "[...document.querySelectorAll('#grid .tile')].map((tile) => tile.span.mark)"
SPANS = "[...document.querySelectorAll('#grid .tile')].map((tile) => tile.span)"


def add_classes(page: Page, *names: str) -> None:
    for name in names:
        page.locator("#new-class input").fill(name)
        page.locator("#new-class button").click()
        page.wait_for_selector(f"#classes >> text={name}")


def show_pairs(page: Page, pairs: list[tuple[int, int]]) -> None:
    """Let the server find these duplicates."""
    spans = page.evaluate(SPANS)
    found = [{"similarity": 1, "num_pairs": 1, "sides": [spans[one], spans[other]]} for one, other in pairs]
    page.route(
        "**/api/duplicates*", lambda route: route.fulfill(json={"num_duplicates": 2 * len(found), "pairs": found})
    )
    page.locator("nav [data-view=duplicates]").click()
    page.wait_for_selector(".pair")


def test_more_of_the_spans_without_a_label_leaves_none_out(files: Path, window: Open) -> None:
    with serving(files) as address:
        page = window(address)
        add_classes(page, "walk")
        page.route(
            "**/api/spans?*", lambda route: route.continue_(url=route.request.url.replace("limit=60", "limit=4"))
        )
        page.locator("[name=label]").select_option("mark:")
        until(lambda: page.locator("#grid .tile").count() == 4)
        page.locator("#grid .tile").nth(0).focus()
        page.route("**/api/labels", slowly)
        page.keyboard.type("11")
        page.evaluate("document.querySelector('#more').click()")  # before the server has the labels
        until(lambda: page.locator("#grid .tile").count() == 8)
        assert [span["row"] for span in page.evaluate(SPANS)] == list(range(8))


def test_a_key_labels_the_focused_span_of_a_pair(files: Path, window: Open) -> None:
    with serving(files) as address:
        page = window(address)
        add_classes(page, "walk")
        page.locator("#grid .tile").nth(0).focus()
        page.keyboard.press("p")
        show_pairs(page, [(5, 6)])
        page.locator(".pair .tile").nth(1).focus()
        page.keyboard.press("1")
        until(lambda: page.locator(".pair .tile").nth(1).locator(".mark").count() == 1)
        page.locator("nav [data-view=grid]").click()
        until(lambda: page.evaluate(MARKS) == [None] * 6 + ["walk", None])
