"""A real browser does things at once: answers are late, the server is gone, others label too."""

import json
from pathlib import Path

from playwright.sync_api import APIResponse, Dialog, Page, Route

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
    found = [
        {"similarity": "similarity 1.000", "num_pairs": 1, "sides": [spans[one], spans[other]]} for one, other in pairs
    ]
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


def give_elsewhere(page: Page, row: int, label: str) -> None:
    """What another window would send."""
    request = {"method": "POST", "headers": {"Content-Type": "application/json"}}
    body = {"rows": [row], "label": label}
    page.evaluate(
        "([request, body]) => fetch('/api/labels', {...request, body: JSON.stringify(body)})", [request, body]
    )


def test_an_answer_from_before_a_label_does_not_take_it_back(files: Path, window: Open) -> None:
    held: list[tuple[Route, APIResponse]] = []

    def hold_first(route: Route) -> None:
        if held:
            route.continue_()
        else:
            held.append((route, route.fetch()))

    with serving(files) as address:
        page = window(address)
        add_classes(page, "walk", "run")
        page.route("**/api/labels?rows=*", hold_first)
        give_elsewhere(page, 5, "run")
        until(lambda: page.evaluate("1") and held)
        page.locator("#grid .tile").nth(0).focus()
        page.keyboard.press("1")
        until(lambda: page.evaluate(MARKS)[0] == "walk")
        route, answer = held[0]
        route.fulfill(response=answer)
        page.wait_for_timeout(300)
        assert page.evaluate(MARKS)[0] == "walk"
        until(lambda: page.evaluate(MARKS)[5] == "run")


def test_the_labels_of_all_tiles_are_asked_for(files: Path, window: Open) -> None:
    def answer(route: Route) -> None:
        found = route.fetch().json()
        route.fulfill(json={**found, "spans": found["spans"] * 70})

    asked: list[int] = []
    with serving(files) as address:
        page = window(address, path="?view=duplicates", wait_for="#duplicates:not([hidden])")
        page.route("**/api/spans?*", answer)
        page.locator("nav [data-view=grid]").click()
        until(lambda: page.locator("#grid .tile").count() == 560)
        page.on(
            "request", lambda request: asked.append(request.url.count("%2C") + 1) if "rows=" in request.url else None
        )
        add_classes(page, "walk")
        until(lambda: page.evaluate("1") and asked[-2:] == [500, 60])


def test_a_server_that_is_gone_is_said_once_until_it_is_back(spans_page: str, window: Open) -> None:
    page = window(spans_page, width=400)
    page.evaluate("scrollTo(0, 900)")
    page.route("**/api/labels", lambda route: route.abort())
    until(page.locator("#message").is_visible)
    assert page.evaluate("scrollY") >= 900  # what it shows stays in place
    page.unroute("**/api/labels")
    until(page.locator("#message").is_hidden)


def test_pictures_leave_connections_for_labels(spans_page: str, window: Open) -> None:
    page, asked = window(spans_page), list[Route]()
    page.goto("about:blank")
    page.route("**/picture.jpg", lambda route: asked.append(route))
    page.goto(spans_page)
    until(lambda: page.evaluate("1") and len(asked) == 4)
    page.evaluate("new Promise((done) => setTimeout(done, 300))")
    assert len(asked) == 4
    asked[0].continue_()
    until(lambda: page.evaluate("1") and len(asked) == 5)


def test_a_window_with_labels_that_are_not_saved_asks_before_it_closes(files: Path, window: Open) -> None:
    held, asked = list[Route](), list[str]()

    def hold(route: Route) -> None:
        if route.request.method == "POST" and not held:
            held.append(route)
        else:
            route.continue_()

    def stay(dialog: Dialog) -> None:
        asked.append(dialog.type)
        dialog.dismiss()

    with serving(files) as address:
        page = window(address)
        add_classes(page, "walk")
        page.route("**/api/labels", hold)
        page.on("dialog", stay)
        page.locator("#grid .tile").nth(0).focus()
        page.keyboard.press("1")
        page.keyboard.press("1")
        until(lambda: page.locator("#list").inner_text() == "saving 2 labels …")
        page.close(run_before_unload=True)
        until(lambda: page.evaluate("1") and asked == ["beforeunload"])
        held[0].continue_()
        until(lambda: page.locator("#list").inner_text().startswith("2 labels, saved in"))


def test_undo_gives_back_a_label_that_the_page_did_not_know(files: Path, window: Open) -> None:
    with serving(files) as address:
        page = window(address)
        add_classes(page, "walk", "run")
        page.route("**/api/labels", lambda route: route.abort() if route.request.method == "GET" else route.continue_())
        give_elsewhere(page, 0, "run")
        page.locator("#grid .tile").nth(0).focus()
        page.keyboard.press("1")
        until(lambda: page.evaluate(MARKS)[0] == "walk")
        page.keyboard.press("u")
        until(lambda: page.evaluate(MARKS)[0] == "run")


def test_the_colours_are_those_of_the_last_choice_and_of_the_labels_of_now(files: Path, window: Open) -> None:
    held: list[Route] = []
    with serving(files) as address:
        page = window(address, path="?view=map")
        until(lambda: page.locator(".legend li").count())
        page.route("**/api/colours?by=cluster", lambda route: held.append(route))
        colours, legend = page.locator("#map select").nth(1), page.locator(".legend li")
        colours.select_option("cluster")
        until(lambda: page.evaluate("1") and held)
        colours.select_option("mark")
        until(lambda: legend.all_inner_texts() == ["none"])
        held[0].continue_()
        page.wait_for_timeout(1000)
        assert legend.all_inner_texts() == ["none"]
        add_classes(page, "walk")
        page.locator("#grid .tile").nth(0).focus()
        page.keyboard.press("1")
        until(lambda: legend.all_inner_texts() == ["none", "walk"])


def test_more_duplicates_that_are_asked_for_twice_are_loaded_once(spans_page: str, window: Open) -> None:
    asked: list[Route] = []
    page = window(spans_page)
    show_pairs(page, [(0, 4), (8, 12)])
    page.route("**/api/duplicates*", lambda route: asked.append(route))
    for _ in range(2):
        page.evaluate("document.querySelector('#duplicates > button').click()")
    until(lambda: page.evaluate("1") and asked)
    page.wait_for_timeout(300)  # as long as a second request would take
    assert ["offset=2" in route.request.url for route in asked] == [True]


def test_the_player_shows_the_span_that_was_opened_last(spans_page: str, window: Open) -> None:
    """Its controls wait for it: also where the content of an earlier answer comes last."""
    page = window(spans_page)
    page.evaluate("""() => {
        const { blob } = Response.prototype;
        globalThis.held = [];
        Response.prototype.blob = async function () {
            await new Promise((done) => held.push(done));
            return blob.call(this);
        };
    }""")
    for number, row in enumerate((0, 9), start=1):
        page.locator("#grid .tile").nth(row).focus()
        page.keyboard.press("p")
        until(lambda expected=number: page.evaluate("held.length") == expected)  # type: ignore[misc]
        assert page.locator("#player input").is_disabled()
    page.evaluate("held[1]()")
    until(page.locator("#player input").is_enabled)
    shown = page.evaluate("document.querySelector('#player video').src")
    page.evaluate("held[0]()")
    page.wait_for_timeout(300)
    assert page.evaluate("document.querySelector('#player video').src") == shown
    page.route("**/api/spans/*", lambda route: None)  # where the file ends is not known
    page.locator("#grid .tile").nth(5).focus()
    page.keyboard.press("p")
    until(page.locator("#player input").is_disabled)
    for name in ("earlier", "later"):
        assert page.locator(f"#player [data-do={name}]").is_disabled()


def test_vectors_that_are_embedded_again_are_said(files: Path, window: Open) -> None:
    description = files / "vectors.json"
    with serving(files) as address:
        page = window(address)
        changed = json.loads(description.read_text()) | {"files_sha256": 64 * "0"}
        description.write_text(json.dumps(changed))
        until(page.locator("#message").is_visible)
        assert page.locator("#message").inner_text().endswith("shows the earlier ones; start v3s serve again")


def test_a_window_of_other_vectors_labels_nothing(files: Path, spans: Path, window: Open) -> None:
    """A server of another folder on the same port: span 5 is another one there."""
    with serving(spans) as address:
        page = window(address)
        add_classes(page, "walk")
        page.locator("#grid .tile").nth(5).focus()
    with serving(files, port=address.rstrip("/").rpartition(":")[2]) as address:
        other = window(address)
        add_classes(other, "walk")
        page.keyboard.press("1")
        until(lambda: page.locator("#message").inner_text().endswith("than this window; reload the page"))
        page.reload()
        page.wait_for_selector(".tile")
        assert page.evaluate(MARKS) == [None] * 8
