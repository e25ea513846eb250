"""A real browser at the keyboard: what is typed stays, a held key acts once, and the focus stays where it was."""

from pathlib import Path

from playwright.sync_api import Route

from tests.serve.conftest import OpenPage as Open
from tests.serve.conftest import serving, until
from tests.serve.test_browser_labels import MARKS, add_classes, give_elsewhere

FOCUSED = "document.activeElement.title || document.activeElement.name || document.activeElement.tagName"


def test_what_is_typed_stays_when_a_label_comes(files: Path, window: Open) -> None:
    """The name of a class may be that of a view, too: the address keeps it."""
    with serving(files) as address:
        page = window(address)
        add_classes(page, "grid", "walk")
        page.locator("[name=label]").select_option("mark:grid")
        until(lambda: page.url.endswith("?mark=grid"))
        page.locator("summary").click()
        page.locator("[name=shortest]").focus()
        page.keyboard.type("12")
        give_elsewhere(page, 3, "walk")
        until(lambda: page.locator("#list").inner_text().startswith("1 label"))
        assert page.locator("[name=shortest]").input_value() == "12"


def test_a_class_that_is_given_by_enter_keeps_the_focus(files: Path, window: Open) -> None:
    with serving(files) as address:
        page = window(address)
        add_classes(page, "walk", "run")
        page.locator("#grid .tile").nth(0).focus()
        page.keyboard.press("p")
        page.locator("#classes button").nth(1).focus()
        page.keyboard.press("Enter")
        until(lambda: page.evaluate(MARKS)[0] == "run")
        assert page.evaluate(FOCUSED) == "Give the span this class: run"


def test_the_next_class_is_typed_while_one_is_on_its_way(files: Path, window: Open) -> None:
    """An answer takes neither what is typed nor the focus: letters would become keys."""
    held: list[Route] = []
    with serving(files) as address:
        page = window(address)
        page.route("**/api/classes", lambda route: held.append(route))
        for name in ("walk", "run"):
            page.keyboard.press("n")
            page.keyboard.type(name)
            if name == "walk":
                page.keyboard.press("Enter")
        until(lambda: page.evaluate("1") and held)
        held[0].continue_()
        page.wait_for_selector("#classes >> text=walk")
        assert page.locator("#new-class input").input_value() == "run"
        assert page.evaluate(FOCUSED) == "name"
        page.unroute("**/api/classes")
        page.locator("#new-class input").fill("=run")
        page.keyboard.press("Enter")
        until(page.locator("#message").is_visible)
        assert page.locator("#new-class input").input_value() == "=run"  # to be corrected
        page.locator("#grid .tile").nth(0).focus()
        for name in ("walk", "run"):  # "walk" is there already, and "run" replaces it
            page.keyboard.press("n")
            page.keyboard.type(name)
            page.keyboard.press("Enter")
            until(lambda: "there already" in page.locator("#message").inner_text())
        page.wait_for_selector("#classes >> text=run")
        assert page.locator("#classes button").count() == 2


def test_keys_are_not_for_the_page_behind_the_list_of_keys(spans_page: str, window: Open) -> None:
    page = window(spans_page)
    page.locator("#grid .tile").nth(0).focus()
    page.keyboard.press("p")
    page.keyboard.press("?")
    page.locator("#help h2").click()
    page.keyboard.press("Escape")
    until(page.locator("#help").is_hidden)
    assert page.locator("#player").is_visible()


def test_a_key_that_is_held_down_trains_once_and_polls_do_not_pile_up(spans_page: str, window: Open) -> None:
    asked: list[str] = []
    page = window(spans_page)
    page.route("**/api/probe", lambda route: asked.append("probe"))
    page.route("**/api/labels", lambda route: asked.append("poll"))
    page.locator("#grid .tile").nth(0).focus()
    for _ in range(5):
        page.keyboard.down("t")
    page.keyboard.up("t")
    page.keyboard.press("t")
    page.wait_for_timeout(6500)  # three polls
    assert sorted(asked) == ["poll", "probe"]


def test_what_is_chosen_is_seen_in_forced_colours(spans_page: str, window: Open) -> None:
    page = window(spans_page)
    page.emulate_media(forced_colors="active")
    colour = "(button) => getComputedStyle(button).backgroundColor"
    buttons = [page.locator(f"nav [data-view={view}]").evaluate(colour) for view in ("grid", "map")]
    assert buttons[0] != buttons[1]
    page.locator("#grid .tile").nth(0).click()
    until(page.locator("#player .stretch").is_visible)
    stretch, sheet = (page.locator(name).evaluate(colour) for name in ("#player .stretch", "body"))
    assert stretch != sheet
