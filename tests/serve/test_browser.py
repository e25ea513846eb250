"""A real browser does the user's work: search, jump, play an AVI, draw a lasso, label, reload, in two windows."""

import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route
from rich.console import Console

from tests.serve.conftest import NAMES, names, serving, slowly, until, write_avi
from tests.serve.conftest import OpenPage as Open
from v3s.data.lists.splits import list_videos
from v3s.serve.marks import FOLDER
from v3s.vectors.embed import EmbedConfig, embed

HOSTILE = next(row for row, name in enumerate(sorted(NAMES, key=os.fsencode)) if "<script>" in name)


def test_a_click_searches_and_opens_the_player_which_jumps(spans_page: str, window: Open) -> None:
    page = window(spans_page)
    assert len(names(page)) == 32
    tile = page.locator("#grid .tile").nth(9)
    chosen = tile.evaluate("(tile) => tile.span")
    tile.click()
    until(lambda: page.locator("#caption").inner_text().startswith("32 spans, similar to"))
    until(lambda: names(page)[0] == chosen["name"])
    assert f"order=like%3A{chosen['row']}" in page.url
    until(lambda: page.evaluate("document.querySelector('#player video').readyState >= 2"))
    page.locator("#player [data-do=play]").click()  # pause
    page.locator("#player input[type=range]").evaluate(
        "(slider) => { slider.value = 1.6; slider.dispatchEvent(new Event('input')); }"
    )
    until(lambda: page.locator("#player .time").inner_text().startswith("0:00:01.6 of 0:00:02"))
    page.go_back()
    until(lambda: page.locator("#caption").inner_text() == "32 spans, as listed")


def test_other_files_only_stays_chosen(spans_page: str, window: Open) -> None:
    page = window(spans_page)
    box = page.locator("[name=other_files]")
    assert box.is_hidden()
    for number in (3, 9):  # the second time it is still chosen
        asked = page.locator("#grid .tile").nth(number).evaluate("(tile) => tile.span.name")
        page.locator("#grid .tile").nth(number).click()
        if number == 3:
            until(lambda: names(page)[:1] == [asked])  # noqa: B023
            box.check()
        until(lambda: len(names(page)) == 28 and asked not in names(page))  # noqa: B023
        assert box.is_checked()


def test_a_search_on_a_phone_shows_the_player_and_results(spans_page: str, window: Open) -> None:
    page = window(spans_page, width=400)
    page.locator("#grid .tile").nth(20).click()
    page.wait_for_selector("#player:not([hidden])")
    until(lambda: page.locator("#caption").inner_text().startswith("32 spans, similar to"))
    until(lambda: len(names(page)) == 32)

    def edges(selector: str) -> tuple[float, float]:
        box = page.locator(selector).first.bounding_box()
        assert box is not None
        return box["y"], box["y"] + box["height"]

    until(lambda: edges("#player")[0] >= -1)
    assert edges("#grid .tile")[1] < edges("#labels")[0]


def test_a_stretch_of_the_player_is_searched_with(spans_page: str, window: Open) -> None:
    page = window(spans_page)
    page.locator("#grid .tile").nth(6).focus()
    page.keyboard.press("p")
    until(lambda: page.evaluate("document.querySelector('#player video').readyState >= 2"))
    page.locator("#player [data-do=play]").click()
    page.evaluate("document.querySelector('#player video').currentTime = 0.5")
    page.locator("#grid .tile").nth(6).focus()
    until(lambda: page.evaluate("document.querySelector('#player video').currentTime === 0.5"))
    page.keyboard.press("i")
    page.evaluate("document.querySelector('#player video').currentTime = 1.5")
    until(lambda: page.evaluate("document.querySelector('#player video').currentTime === 1.5"))
    page.keyboard.press("o")
    until(lambda: page.locator("#player .chosen").inner_text() == "0:00:00.5 \u2013 0:00:01.5")
    page.keyboard.press("s")
    until(lambda: "0:00:00.5 to 0:00:01.5" in page.locator("#caption").inner_text())
    assert page.locator("#message").is_hidden()


def test_the_first_arrow_key_goes_to_the_first_tile(spans_page: str, window: Open) -> None:
    page = window(spans_page)
    page.keyboard.press("ArrowDown")
    until(lambda: page.evaluate("document.activeElement.dataset.row") == "0")
    page.keyboard.press("ArrowRight")
    until(lambda: page.evaluate("document.activeElement.dataset.row") == "1")


def test_a_stretch_is_not_set_before_the_player_shows_it(spans_page: str, window: Open) -> None:
    page = window(spans_page)
    page.route("**/window.mp4*", lambda route: None)  # it never comes
    page.locator("#grid .tile").nth(5).focus()
    page.keyboard.press("p")
    until(lambda: page.locator("#player .chosen").inner_text() != "")
    assert page.locator("#player .time").inner_text().startswith("loading")
    before = page.locator("#player .chosen").inner_text()
    page.keyboard.press("i")
    assert page.locator("#player .chosen").inner_text() == before
    assert page.locator("#player [data-do=from]").is_disabled()


@pytest.mark.parametrize("reach", ["hover", "focus"])
def test_an_avi_plays_where_the_pointer_or_the_focus_is(spans_page: str, window: Open, reach: str) -> None:
    page = window(spans_page)
    tile = page.locator("#grid .tile").nth(1)
    getattr(tile, reach)()
    video = "document.querySelectorAll('#grid .tile')[1].querySelector('video')"
    until(lambda: page.evaluate(f"{video}?.currentTime > 0.2"))
    assert page.evaluate(f"{video}.videoWidth") == 64
    assert tile.locator(".reason").count() == 0
    page.mouse.move(0, 0)
    page.locator("#help-button").focus()
    until(lambda: page.evaluate(f"{video} === null"))


def test_a_hostile_name_is_text(files: Path, window: Open) -> None:
    with serving(files) as address:
        page = window(address)
        title = page.title()
        row = page.locator(f"#grid .tile[data-row='{HOSTILE}']")
        assert "<script>" in row.locator(".name").inner_text() or "<script>" in row.get_attribute("title")  # type: ignore[operator]
        row.click()
        until(lambda: "<script>" in page.locator("#player .name").inner_text())
        assert page.locator("#player [data-do=search]").is_disabled()  # these vectors are of whole files
        page.locator("#new-class input").fill("<img src=x onerror=document.title='owned'>")
        page.locator("#new-class button").click()
        until(lambda: "<img" in page.locator("#classes").inner_text())
        assert page.title() == title
        assert page.locator("#classes img").count() == 0
        shown = names(page)
        assert "right/two\\nlines.avi" in shown
        assert "right/not-utf-8-\\xff.avi" in shown


def test_a_lasso_on_the_map_filters_the_grid(spans_page: str, window: Open) -> None:
    page = window(spans_page, path="?view=map")
    until(lambda: page.locator(".legend li").count() and page.locator("#map output").inner_text().startswith("Draw"))

    def draw() -> bool:  # the map may move while the page is still laid out: then once more
        box = page.locator("#map canvas").bounding_box()
        assert box is not None
        x, middle, top, bottom = box["x"] + 20, box["x"] + box["width"] / 2, box["y"] + 8, box["y"] + box["height"] - 8
        places = [(x, top), (middle, top), (middle, bottom), (x, bottom)]
        page.mouse.move(*places[0])
        page.mouse.down()
        for place in places[1:]:
            page.mouse.move(*place, steps=5)
        page.mouse.up()
        page.wait_for_timeout(500)
        return "lasso=" in page.url

    until(draw)
    until(lambda: re.match(r"\d+ spans, as listed", page.locator("#caption").inner_text()))
    until(lambda: 0 < len(names(page)) < 32)
    before = names(page)
    page.reload()
    page.wait_for_selector(".tile")
    until(lambda: names(page) == before)
    page.locator("#clear").click()
    until(lambda: len(names(page)) == 32)


def test_clusters_filter_and_duplicates_are_shown_side_by_side(spans_page: str, window: Open) -> None:
    page = window(spans_page, path="?view=clusters")
    card = page.locator(".card").nth(1)
    size = int(card.inner_text().rpartition(" ")[2])
    card.click()
    until(lambda: len(names(page)) == size)
    until(lambda: card.get_attribute("aria-pressed") == "true")
    until(lambda: page.locator("#caption").inner_text() == f"{size} spans of cluster 2, as listed")
    page.locator("nav [data-view=duplicates]").click()
    until(lambda: "same" in page.locator("#duplicates").inner_text())
    assert page.locator("#results").is_hidden()


@pytest.mark.parametrize(("number", "words"), [(1, "1 pair with"), (2, "2 pairs with"), (0, "No two files have")])
def test_duplicates_say_what_was_measured(spans_page: str, window: Open, number: int, words: str) -> None:
    page = window(spans_page)
    spans = page.evaluate("[...document.querySelectorAll('#grid .tile')].map((tile) => tile.span)")
    pair = {"similarity": "similarity 0.951 (best pair; mean 0.924)", "num_pairs": 3, "sides": spans[:2]}
    page.route(
        "**/api/duplicates*",
        lambda route: route.fulfill(json={"num_duplicates": number, "pairs": [pair] * number}),
    )
    page.locator("nav [data-view=duplicates]").click()
    until(lambda: f"{words} nearly the same vectors" in page.locator("#duplicates").inner_text())
    assert page.locator("#duplicates").inner_text().count("similarity 0.951 (best pair; mean 0.924); 3 spans") == number


def test_more_that_is_asked_for_twice_is_loaded_once(spans_page: str, window: Open) -> None:
    """The button and the end of the page both ask; the answer of the second page is late."""
    asked, held = [], []

    def answer(route: Route) -> None:
        if "offset=0" in route.request.url:
            found = route.fetch().json()
            spans = (found["spans"] * 2)[:60]  # a whole page, so that there may be more
            route.fulfill(json={**found, "spans": spans})
        else:
            asked.append(route.request.url)
            held.append(route)

    page = window(spans_page, path="?view=duplicates", wait_for="#duplicates:not([hidden])")
    page.route("**/api/spans?*", answer)
    page.locator("nav [data-view=grid]").click()
    until(lambda: len(names(page)) == 60)
    for _ in range(2):
        page.evaluate("document.querySelector('#more').click()")
    until(lambda: page.evaluate("1") and held)
    page.wait_for_timeout(300)  # as long as a second request would take
    assert len(asked) == 1
    assert "offset=60" in asked[0]
    held[0].fulfill(json={"caption": "as listed", "num_chosen": 61, "spans": [held_span(page)]})
    until(lambda: len(names(page)) == 61)
    assert len(asked) == 1


def held_span(page: Page) -> object:
    return page.evaluate("document.querySelector('#grid .tile').span")


def test_a_time_that_is_none_is_refused_and_not_ignored(spans_page: str, window: Open) -> None:
    page = window(spans_page)
    page.locator("#filters summary").click()
    page.locator("[name=after]").fill("abc")
    page.keyboard.press("Enter")
    page.locator("[name=after]").blur()
    until(lambda: page.locator("#message").inner_text() == '"abc" is not a time: write 754.5, 12:34.5 or 0:12:34.5.')
    assert len(names(page)) == 32
    page.locator("[name=after]").fill("1.4")
    page.locator("[name=after]").blur()
    until(lambda: len(names(page)) == 8)
    until(lambda: page.locator("#message").is_hidden())


def test_labels_by_the_keyboard_in_two_windows_survive_a_reload_and_a_kill(files: Path, window: Open) -> None:
    with serving(files) as address:
        one, other = window(address), window(address)
        one.keyboard.press("n")
        one.keyboard.type("walk")
        one.keyboard.press("Enter")
        until(lambda: "walk" in one.locator("#classes").inner_text())
        until(lambda: "walk" in other.locator("#classes").inner_text())  # it asks every two seconds
        until(lambda: one.evaluate("document.activeElement.dataset.row") == "0")
        one.keyboard.press("1")
        until(lambda: one.locator("#grid .tile .mark").count() == 1)
        until(lambda: one.evaluate("document.activeElement.dataset.row") == "1")  # it goes on to the next
        one.keyboard.press("ArrowRight")
        one.keyboard.press("1")
        until(lambda: one.locator("#grid .tile .mark").count() == 2)
        until(lambda: other.locator("#grid .tile .mark").count() == 2)
        other.locator("#new-class input").fill("run")
        other.locator("#new-class button").click()
        until(lambda: "run" in other.locator("#classes").inner_text())
        other.locator("#grid .tile").nth(4).focus()
        other.keyboard.press("2")
        until(lambda: one.locator("#grid .tile .mark").count() == 3)
        one.keyboard.press("1")
        until(lambda: one.locator("#grid .tile .mark").count() == 4)
        one.keyboard.press("u")
        until(lambda: one.locator("#grid .tile .mark").count() == 3)
        one.reload()
        one.wait_for_selector(".tile .mark")
        marks = "[...document.querySelectorAll('#grid .tile')].map((tile) => tile.span.mark)"
        until(lambda: one.evaluate(marks) == ["walk", None, "walk", None, "run", None, None, None])
        one.keyboard.press("t")
        until(lambda: one.locator("#caption").inner_text() == "8 videos, sorted by the probability of walk")
        until(lambda: one.locator("#trained").inner_text().startswith("Trained on 3 labels of 2 classes"))
    listed = list_videos(files / "labels" / "labels.csv")  # the server was killed
    assert sorted(filter(None, listed.labels)) == ["run", "walk", "walk"]
    with serving(files) as address:
        again = window(address)
        until(lambda: again.locator("#grid .tile .mark").count() == 3)


def test_keys_go_on_from_the_span_in_the_player(files: Path, window: Open) -> None:
    with serving(files) as address:
        page = window(address)
        page.locator("#new-class input").fill("walk")
        page.locator("#new-class button").click()
        page.wait_for_selector("#classes >> text=walk")
        page.locator("#grid .tile").nth(3).click()
        until(lambda: "similar to" in page.locator("#caption").inner_text())
        until(lambda: page.locator("#grid .tile").count() == 8)
        page.keyboard.type("11")
        until(lambda: page.locator("#grid .tile .mark").count() == 2)
        marks = "[...document.querySelectorAll('#grid .tile')].map((tile) => tile.span.mark)"
        assert page.evaluate(marks)[:3] == ["walk", "walk", None]


def test_a_label_is_given_removed_and_undone_without_keys(files: Path, window: Open) -> None:
    with serving(files) as address:
        page = window(address, width=400)
        page.locator("#new-class input").fill("walk")
        page.locator("#new-class button").click()
        page.locator("#grid .tile").nth(1).click()
        page.wait_for_selector("#player:not([hidden])")
        for button, num_labels in (("#classes button", 1), ("#unlabel", 0), ("#undo", 1), ("#undo", 0)):
            page.locator(button).click()
            until(lambda expected=num_labels: page.locator("#classes .quiet").inner_text() == str(expected))  # type: ignore[misc]
        labels = page.locator("#labels").bounding_box()
        assert labels is not None
        assert labels["width"] <= 400
        assert labels["height"] < 200


def test_a_trained_probe_leaves_a_phone_its_results(files: Path, window: Open) -> None:
    with serving(files) as address:
        page, origin = window(address, width=400), address.rstrip("/")
        for row, name in ((0, "walk"), (4, "run")):
            for path, data in (("classes", {"name": name}), ("labels", {"rows": [row], "label": name})):
                assert page.request.post(f"{origin}/api/{path}", data=data, headers={"Origin": origin}).ok
        page.locator("#train").click()
        page.wait_for_selector("#trained >> text=Trained on 2 labels")
        labels = page.locator("#labels").bounding_box()
        assert labels is not None
        assert labels["height"] < 300


def test_the_page_says_that_a_list_was_replaced(files: Path, window: Open) -> None:
    """Also while it is open: a person changed the list between two labels."""
    with serving(files) as address:
        page, listed = window(address), files / FOLDER / "labels.csv"
        page.locator("#new-class input").fill("walk")
        page.locator("#new-class button").click()
        page.wait_for_selector("#classes >> text=walk")
        page.keyboard.type("1")
        until(listed.exists)
        assert page.locator("#message").is_hidden()
        listed.write_text(listed.read_text() + "mine.avi,0,,run\n")
        page.keyboard.type("1")
        until(lambda: "that list is now" in page.locator("#message").inner_text())
        listed.write_text(listed.read_text() + "mine.avi,0,,run\n")
    with serving(files) as address:
        until(lambda: "labels-2.csv" in window(address).locator("#message").inner_text())


def test_a_button_labels_the_span_that_the_keys_went_to(files: Path, window: Open) -> None:
    """There is no player. An undo that the server did not answer is not lost."""
    with serving(files) as address:
        page = window(address)
        page.locator("#new-class input").fill("walk")
        page.locator("#new-class button").click()
        page.locator("#grid .tile").nth(3).focus()
        page.locator("#classes button").click()
        marks = "[...document.querySelectorAll('#grid .tile')].map((tile) => tile.span.mark)"
        until(lambda: page.evaluate(marks)[3] == "walk")
        page.route("**/api/labels*", lambda route: route.abort())
        page.locator("#undo").click()
        until(lambda: "does not answer" in page.locator("#message").inner_text())
        page.unroute("**/api/labels*")
        page.locator("#undo").click()
        until(lambda: "walk" not in page.evaluate(marks))


def test_undo_keeps_what_another_window_has_changed_since(files: Path, window: Open) -> None:
    marks = "[...document.querySelectorAll('#grid .tile')].map((tile) => tile.span.mark)"
    with serving(files) as address:
        one, other = window(address), window(address)
        for name in ("walk", "run"):
            one.locator("#new-class input").fill(name)
            one.locator("#new-class button").click()
            one.wait_for_selector(f"#classes >> text={name}")
        one.locator("#grid .tile").nth(0).focus()
        one.keyboard.type("11")
        until(lambda: other.evaluate(marks)[:2] == ["walk", "walk"])
        other.locator("#grid .tile").nth(1).focus()
        other.keyboard.type("2")
        until(lambda: other.evaluate(marks)[1] == "run")
        one.keyboard.type("u")
        until(lambda: one.locator("#message").inner_text().startswith("Not undone: another window"))
        until(lambda: one.evaluate(marks)[:2] == ["walk", "run"])
        one.keyboard.type("u")  # the label before it is still its own
        until(lambda: one.evaluate(marks)[:2] == [None, "run"])
        one.locator("#grid .tile").nth(0).focus()
        one.keyboard.type("1")
        until(lambda: one.evaluate(marks)[0] == "walk")
        one.locator("#grid .tile").nth(0).focus()
        one.keyboard.type("2")
        until(lambda: other.evaluate(marks)[0] == "run")
        other.locator("#grid .tile").nth(0).focus()
        other.keyboard.type("1")
        until(lambda: one.evaluate(marks)[0] == "walk")
        one.keyboard.type("uu")  # its first label was the same: not a reason to take away the other window's
        until(lambda: one.locator("#message").inner_text().startswith("Not undone: another window"))
        one.wait_for_timeout(1000)
        assert one.evaluate(marks)[0] == "walk"


def test_each_key_labels_the_next_span_also_when_the_server_is_slow(files: Path, window: Open) -> None:
    with serving(files) as address:
        page = window(address)
        for name in ("walk", "run", "sit"):
            page.locator("#new-class input").fill(name)
            page.locator("#new-class button").click()
            page.wait_for_selector(f"#classes >> text={name}")
        page.route("**/api/labels", slowly)
        page.locator("#grid .tile").nth(0).focus()
        page.keyboard.type("12331u")  # the last one is taken back
        until(lambda: page.locator("#grid .tile .mark").count() == 4)
        marks = "[...document.querySelectorAll('#grid .tile')].map((tile) => tile.span.mark)"
        until(lambda: page.evaluate(marks) == ["walk", "run", "sit", "sit", None, None, None, None])
        until(lambda: page.locator("#list").inner_text().startswith("4 labels, saved"))


def test_a_video_that_was_moved_away_is_grey_with_the_reason(
    embedded: dict[str, Path], avi_videos: Path, files: Path, window: Open, tmp_path: Path
) -> None:
    path, aside = avi_videos / "right/d.avi", tmp_path / "aside.avi"
    shutil.move(path, aside)
    try:
        with serving(files) as address:
            page = window(address)
            until(lambda: page.locator(".tile.is-grey .reason").count() == 1)
            assert "d.avi: is no longer there" in page.locator(".tile .reason").inner_text()
            page.locator(".tile.is-grey").click()
            until(lambda: "is no longer there" in page.locator("#player .reason").inner_text())
    finally:
        shutil.move(aside, path)


def test_it_fits_a_phone(spans_page: str, window: Open) -> None:
    for view in ("grid", "map", "clusters"):
        page = window(spans_page, width=400, path=f"?view={view}")
        page.locator("#grid .tile").nth(0).click()
        page.wait_for_selector("#player:not([hidden])")
        excess = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert excess == 0, view


def test_what_an_address_asks_for_in_vain_is_said_and_seen(spans_page: str, window: Open) -> None:
    asked = {
        "?view=map&map=foo": ("#map select >> nth=0", "foo", "it must be one of pca, tsne"),
        "?folder=77": ("[name=folder]", "77", "there are 2, from 0 to 1"),
        "?mark=gone": ("[name=label]", "gone", "no class is called 'gone'"),
    }
    for path, (select, value, reason) in asked.items():
        page = window(spans_page, path=path, wait_for="#message:not([hidden])")
        until(lambda: reason in page.locator("#message").inner_text())  # noqa: B023
        assert page.locator(select).locator("option:checked").inner_text() == f"{value} (not listed)"
    page.locator("[name=label]").select_option("")
    until(lambda: len(names(page)) == 32)
    assert page.locator("[data-asked]").count() == 0


def test_on_the_map_y_grows_upwards(spans_page: str, window: Open) -> None:
    """As on that of v3s explore, which draws the same points; every point is seen where it belongs."""
    page = window(spans_page, path="?view=map")
    until(lambda: page.locator(".legend li").count())
    asked = page.evaluate(
        """async () => {
            const points = new Uint16Array(await (await fetch('/api/map')).arrayBuffer());
            const canvas = document.querySelector('#map canvas'), { width, height } = canvas;
            const side = Math.min(width, height) - 24, context = canvas.getContext('2d');
            const seen = (x, y) => context.getImageData(Math.round(x), Math.round(y), 1, 1).data[3] > 0;
            return Array.from({ length: points.length / 2 }, (_, row) => seen(
                (width - side) / 2 + points[2 * row] / 65535 * side,
                (height - side) / 2 + (1 - points[2 * row + 1] / 65535) * side));
        }"""
    )
    assert asked == [True] * 32


def test_numbers_of_clusters_hide_no_point_and_no_other_number(spans_page: str, window: Open) -> None:
    page = window(spans_page)
    marks = [{"name": number + 1, "x": 100 + 9 * (number % 3), "y": 14 + 8 * (number // 3)} for number in range(9)]
    places = page.evaluate("async (marks) => (await import('/static/numbers.js')).placesBeside(marks, 400, 300)", marks)
    boxes = [(place["x"], place["y"], 5, 6) for place in places]
    for number, (x, y, across, down) in enumerate(boxes):
        others = boxes[:number] + [(mark["x"], mark["y"], 3, 3) for mark in marks]
        assert all(abs(x - other[0]) >= across + other[2] or abs(y - other[1]) >= down + other[3] for other in others)
        assert y >= 6
    middles = page.evaluate(
        """async () => [...(await import('/static/numbers.js'))
            .middlesOf([0, 0, 9, 9, 1, 1, 2, 2, 5, 5], [1, 0, 1, 1, -1])]"""
    )
    assert middles == [[0, 1], [1, 2]]


def test_with_many_classes_training_stays_in_sight(files: Path, window: Open) -> None:
    with serving(files) as address:
        page = window(address)
        headers = "{'Content-Type': 'application/json'}"
        post = f"(body) => fetch('/api/classes', {{ method: 'POST', headers: {headers}, body }})"
        for number in range(60):
            page.evaluate(post, f'{{"name": "class {number:02}"}}')
        until(lambda: page.locator("#classes li").count() == 60)
        for place in ("#train", "#undo"):
            assert page.locator(place).bounding_box()["y"] < 870  # type: ignore[index]
        page.locator("#grid .tile").nth(2).click()
        page.wait_for_selector("#player:not([hidden])")
        page.evaluate("scrollTo(0, 0)")
        assert page.locator("#train").bounding_box()["y"] < 870  # type: ignore[index]
        page = window(address, width=320)
        until(lambda: page.locator("#classes li").count() == 60)
        box = page.locator("#labels").bounding_box()
        assert box is not None
        assert box["height"] < 140
        excess = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert excess == 0


def test_a_token_opens_the_page_elsewhere_and_nothing_else_does(files: Path, window: Open, browser: Browser) -> None:
    with serving(files, "--host", "0.0.0.0") as address:
        assert "0.0.0.0" not in address
        page = window(address, path="&order=like%3A3")
        assert page.url == address.partition("?")[0] + "?order=like%3A3"
        assert "token" not in page.url
        assert len(names(page)) == 8
        stranger = browser.new_context().new_page()
        answer = stranger.goto(address.partition("?")[0])
        assert answer is not None
        assert answer.status == 403
        mail = f"<a href='{address}'>look</a>"
        stranger.route("http://mail.example/", lambda route: route.fulfill(body=mail, content_type="text/html"))
        stranger.goto("http://mail.example/")
        stranger.locator("a").click()  # a link on another site, with the token
        stranger.wait_for_selector(".tile", timeout=60_000)
        stranger.context.close()


def test_a_name_that_leads_here_is_refused(spans_page: str, browser: Browser) -> None:
    page = browser.new_context().new_page()
    port = spans_page.rstrip("/").rpartition(":")[2]
    answer = page.goto(f"http://rebound.localhost:{port}/")  # Chromium takes it to this machine
    assert answer is not None
    assert answer.status == 421
    page.context.close()


def test_one_video_with_a_long_label_is_counted_and_fits(
    small_embedding: EmbedConfig, tmp_path: Path, window: Open
) -> None:
    label = "l" * 200
    write_avi(tmp_path / "videos" / label / "a.avi", 0)
    config = replace(small_embedding, data=str(tmp_path / "videos"), num_clips=1, out=str(tmp_path / "vectors"))
    embed(config, console=Console(quiet=True))
    with serving(tmp_path / "vectors") as address:
        page = window(address, width=400, path="?view=map")
        until(lambda: page.locator("#caption").inner_text() == "1 video, as listed")
        until(lambda: label in page.locator(".legend").inner_text())
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.locator("#grid .tile").click()
        page.wait_for_selector("#player:not([hidden])")
        page.locator("nav [data-view=clusters]").click()
        page.wait_for_selector(".card")
        until(
            lambda: page.evaluate(
                "document.querySelector('#clusters').getBoundingClientRect().top < 0.75 * innerHeight"
            )
        )
