"""The page for everybody: phones and large screens, light and dark, keys alone, screen readers, slow lines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.browser import asked, origin, says, screenshot, settled, shown

Visit = Callable[..., Any]

VIEWS = {
    "search": ("/?q=a+red+car&camera=Canon+EOS+R6", ".tile img.loaded"),
    "picture": ("/?q=a+bird&image=7", ".facts-head"),
    "map": ("/?view=map", ".map-view[data-painted]"),
    "duplicates": ("/?view=duplicates", ".pair-group"),
    "status": ("/?view=collection", ".figure"),
    "indexing": ("/?view=collection&tab=indexing", "td"),
    "evaluation": ("/?view=collection&tab=evaluation", ".block"),
}
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}
MOST_BYTES = 200_000  # before pictures


@pytest.mark.parametrize("view", VIEWS)
def test_axe_finds_nothing_serious(visit: Visit, view: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="the extra dev brings axe")
    path, there = VIEWS[view]
    page = visit(path)
    page.locator(there).first.wait_for()
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        found = axe.Axe().run(page).response["violations"]
        serious = [
            f"{one['id']}: {one['help']}: {one['nodes'][0]['html'][:160]} ({len(one['nodes'])})"
            for one in found
            if one["impact"] in ("serious", "critical")
        ]
        assert serious == [], theme
        screenshot(page, f"{view}-{theme}-1280")


@pytest.mark.parametrize("width", [360, 768, 2560])
def test_nothing_is_wider_than_the_window(visit: Visit, width: int) -> None:
    page = visit("/", **(PHONE if width == 360 else {"viewport": {"width": width, "height": 1000}}))
    for view, (path, there) in VIEWS.items():
        page.goto(origin(page) + path)
        page.locator(there).first.wait_for()
        wide = page.evaluate(
            "[...document.querySelectorAll('body, dialog[open], .sidebar, .panel, main')]"
            ".filter(one => one.scrollWidth > one.clientWidth + 1).map(one => one.tagName + '.' + one.className)"
        )
        assert wide == [], view
        screenshot(page, f"{view}-light-{width}")


def test_a_phone_has_everything(visit: Visit) -> None:
    page = visit("/?q=a+vehicle", **PHONE)
    settled(page)
    page.get_by_role("button", name="Filters").tap()
    page.locator(".drawer label", has_text="Canon EOS R6").tap()
    screenshot(page, "filters-light-360")
    page.get_by_role("button", name="Show").tap()
    assert asked(page)["camera"] == ["Canon EOS R6"]
    first = shown(page)[0]
    page.locator(f".tile[data-id='{first}'] .tile-link").tap()
    page.get_by_role("button", name="More", exact=True).tap()
    assert asked(page)["more"] == [str(first)]
    page.get_by_role("button", name="Menu").tap()
    page.get_by_role("link", name="Duplicates").tap()
    page.locator(".pair-group").first.wait_for()


def test_dark_follows_the_system_until_chosen(visit: Visit) -> None:
    page = visit("/", color_scheme="dark")
    background = "getComputedStyle(document.documentElement).backgroundColor.match(/\\d+/g).map(Number)"
    assert max(page.evaluate(background)) < 40
    page.emulate_media(color_scheme="light")
    assert min(page.evaluate(background)) > 240
    page.get_by_role("button", name="Settings").click()
    page.locator("label[title=Dark]").click()
    assert max(page.evaluate(background)) < 40
    page.reload()
    assert max(page.evaluate(background)) < 40


def test_keys_alone_find_refine_and_open(visit: Visit) -> None:
    page = visit()
    settled(page)
    page.keyboard.press("/")
    page.keyboard.type("a musical instrument")
    page.keyboard.press("Enter")
    answers = shown(page)
    page.keyboard.press("ArrowDown")
    focused = "document.activeElement.closest('.tile')?.dataset.id"
    assert page.evaluate(focused) == str(answers[0])
    page.keyboard.press("ArrowRight")
    assert page.evaluate(focused) == str(answers[1])
    page.keyboard.press("Enter")
    page.locator(".facts-head").wait_for()
    page.keyboard.press("Escape")
    page.locator("dialog.detail").wait_for(state="detached")
    assert page.evaluate(focused) == str(answers[1])  # back where it was
    page.keyboard.press("x")
    says(page, "1 selected", ".selection")
    page.keyboard.press("ArrowDown")
    top = "document.activeElement.closest('.tile').getBoundingClientRect().top"
    assert page.evaluate(top) > 0
    assert page.evaluate(focused) not in (str(answers[0]), str(answers[1]))
    liked = page.evaluate(focused)
    page.keyboard.press("m")
    assert asked(page)["more"] == [liked]
    settled(page)
    page.keyboard.press("?")
    page.get_by_role("heading", name="Keys").wait_for()
    page.keyboard.press("Escape")
    page.locator(".keys-dialog").wait_for(state="detached")


def test_what_changes_is_read_out(visit: Visit) -> None:
    page = visit("/?q=a+fruit")
    settled(page)
    count = page.get_by_role("status").filter(has_text="likely")
    before = count.inner_text()
    page.locator("#search").fill("-banana")
    page.keyboard.press("Enter")
    settled(page)
    assert page.get_by_role("status").filter(has_text="among").inner_text() != before
    first = page.locator(".tile-link").first.get_attribute("aria-label")
    assert "likely" in first


def test_it_is_light(visit: Visit, browser: Any, page_server: str) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    requests: list[Any] = []
    page.on("requestfinished", lambda request: requests.append(request))
    page.goto(page_server)
    page.locator(".tile img.loaded").first.wait_for()
    page.wait_for_load_state("networkidle")
    sizes = {
        request.url: request.sizes()["responseBodySize"]
        for request in list(requests)
        if request.url.endswith(".svg") or not request.response().headers.get("content-type", "").startswith("image/")
    }
    context.close()
    assert len(sizes) > 10
    assert sum(sizes.values()) < MOST_BYTES, sizes
