"""The page, one picture and several: the detail view, why, tags, a part as a query, full screen, selection, export."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.browser import asked, origin, post, says, screenshot, settled, shown

Visit = Callable[..., Any]


def facts(page: Any, picture: int) -> Any:
    return page.request.get(f"{origin(page)}/api/v1/images/{picture}").json()


def opened(page: Any, at: int = 0) -> int:
    """Open one of the answers; its id."""
    picture = shown(page)[at]
    page.locator(f".tile[data-id='{picture}'] .tile-link").click()
    page.locator(".facts-head").wait_for()
    return picture


def test_a_picture_says_what_is_known_and_why_it_was_found(visit: Visit) -> None:
    page = visit("/?q=a+red+car&not=bus")
    picture = opened(page)
    known = facts(page, picture)
    panel = page.locator(".panel")
    panel.locator(".shares").wait_for()
    said = panel.inner_text()
    for value in (known["files"][0]["name"], known["captions"][0]["text"], known["files"][0]["path"], known["camera"]):
        assert value in said
    terms = [{"text": "a red car"}, {"text": "bus", "weight": -1}]
    why = post(page, "/why", {"image": picture, "query": {"terms": terms}})
    assert f"Number {why['hit']['rank']} of {why['answers']}" in said
    shares = {row.locator("th").inner_text(): row.locator(".number").inner_text() for row in panel.locator("tr").all()}
    assert shares == {one["term"]: f"{one['score']:+.3f}".replace("-", "−") for one in why["hit"]["shares"]}
    assert panel.locator(".percent").inner_text() == f"{why['hit']['probability'] * 100:.0f}%"
    near = page.request.get(f"{origin(page)}/api/v1/images/{picture}/similar?k=9").json()["hits"]
    links = panel.locator(".near a")
    links.first.wait_for()
    assert near[1]["name"] in links.first.get_attribute("aria-label")
    screenshot(page, "picture-light-1280")


def test_what_is_not_known_has_no_row(visit: Visit) -> None:
    page = visit("/")
    everything = page.request.get(f"{origin(page)}/api/v1/images?k=200").json()["hits"]
    bare = next(hit["id"] for hit in everything if facts(page, hit["id"])["latitude"] is None)
    page.goto(f"{origin(page)}/?image={bare}")
    page.locator(".sheet-facts").wait_for()
    rows = {
        row.locator("dt").inner_text(): row.locator("dd").inner_text() for row in page.locator(".sheet-facts div").all()
    }
    assert {"Size", "Id"} <= set(rows)
    assert all(rows.values())


def test_one_picture_follows_another(visit: Visit) -> None:
    page = visit("/?q=a+planet")
    answers = shown(page)
    opened(page)
    page.keyboard.press("ArrowRight")
    assert asked(page)["image"] == [str(answers[1])]
    page.get_by_role("button", name="The next picture").click()
    assert asked(page)["image"] == [str(answers[2])]
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Escape")
    page.locator("dialog.detail").wait_for(state="detached")
    assert asked(page) == {"q": ["a planet"]}  # one step back, whatever was looked at


def test_tags_are_given_and_taken(visit: Visit) -> None:
    page = visit("/?q=a+castle")
    picture = opened(page)
    page.keyboard.press("t")
    page.keyboard.type("old stones")
    page.keyboard.press("Enter")
    page.locator(".tags a", has_text="old stones").wait_for()
    assert {"old stones"} <= {tag["name"] for tag in facts(page, picture)["tags"]}
    page.locator(".tags a", has_text="old stones").click()
    page.locator("dialog.detail").wait_for(state="detached")
    says(page, "1 picture")
    assert shown(page) == [picture]
    page.go_back()
    page.locator("dialog.detail").wait_for()
    page.get_by_role("button", name="Remove the tag old stones").click()
    page.locator(".tags a", has_text="old stones").wait_for(state="detached")
    assert "old stones" not in {tag["name"] for tag in facts(page, picture)["tags"]}


def test_a_part_of_a_picture_is_searched_with(visit: Visit) -> None:
    page = visit("/?q=a+motorcycle")
    picture = opened(page)
    page.keyboard.press("c")
    box = page.locator(".crop").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.1, box["y"] + box["height"] * 0.2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.7, steps=5)
    page.mouse.up()
    page.get_by_role("button", name="Search with this part").click()
    page.locator("dialog.detail").wait_for(state="detached")
    image, part = asked(page)["like"][0].split("@")
    assert int(image) == picture
    found = [float(number) for number in part.split(",")]
    assert all(abs(one - other) < 0.02 for one, other in zip(found, [0.1, 0.2, 0.5, 0.5], strict=True))
    query = {"terms": [{"image": picture, "part": found}], "k": 5}
    assert shown(page)[:5] == [hit["id"] for hit in post(page, "/search", query)["hits"]]
    assert page.get_by_text("part of picture").is_visible()


def test_a_part_is_chosen_by_keys_alone(visit: Visit) -> None:
    page = visit("/?q=a+motorcycle")
    opened(page)
    page.keyboard.press("c")
    page.locator(".crop-frame:focus").wait_for()
    for key in ("ArrowLeft", "ArrowUp", "Shift+ArrowRight"):
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    page.locator("dialog.detail").wait_for(state="detached")
    assert asked(page)["like"][0].endswith("@0.23,0.23,0.52,0.5")


def test_similar_ones_are_found(visit: Visit) -> None:
    page = visit("/?q=a+butterfly")
    picture = opened(page)
    page.get_by_role("button", name="Find similar").click()
    assert asked(page) == {"like": [str(picture)]}
    assert shown(page)[0] == picture


def test_full_screen_shows_the_original(visit: Visit) -> None:
    page = visit("/?q=a+raccoon")
    picture = opened(page)
    with page.expect_response(f"**/api/v1/images/{picture}/original") as answer:
        page.keyboard.press("f")
    assert answer.value.status in (200, 206)
    page.locator(".pswp--open").wait_for()
    page.keyboard.press("Escape")
    page.locator(".pswp").wait_for(state="detached")
    assert page.locator("dialog.detail").is_visible()


def test_selected_pictures_are_exported(visit: Visit, tmp_path: Path) -> None:
    page = visit("/?q=a+red+car", permissions=["clipboard-read", "clipboard-write"])
    answers = shown(page)
    for at, modifiers in ((0, []), (2, ["Shift"])):  # the first, and all up to the third
        page.locator(f".tile[data-id='{answers[at]}']").hover()
        page.locator(f".tile[data-id='{answers[at]}'] .tile-select").click(modifiers=modifiers)
    says(page, "3 selected", ".selection")
    paths = [facts(page, picture)["files"][0]["path"] for picture in answers[:3]]
    with page.expect_download() as started:
        page.get_by_role("button", name="List").click()
    rows = list(csv.DictReader(io.StringIO(Path(started.value.path()).read_text("utf-8"))))
    assert [int(row["id"]) for row in rows] == answers[:3]
    assert [row["path"] for row in rows] == paths
    with page.expect_download() as started:
        page.get_by_role("button", name="ZIP").click()
    with zipfile.ZipFile(started.value.path()) as packed:
        contents = {packed.read(name) for name in packed.namelist()}
    assert contents == {Path(path).read_bytes() for path in paths}
    page.get_by_role("button", name="Copy paths").click()
    says(page, "copied", ".note")
    assert page.evaluate("navigator.clipboard.readText()").split("\n") == paths
    screenshot(page, "selection-light-1280")
    page.keyboard.press("Escape")
    page.locator(".selection").wait_for(state="detached")


def test_an_image_that_is_not_there_is_said_in_one_line(visit: Visit) -> None:
    page = visit("/?image=99999", expected=("404",))
    page.locator("dialog.detail .problem").wait_for()
    assert "99999" in page.locator("dialog.detail .problem").inner_text()
    page.keyboard.press("Escape")
    settled(page)
    assert asked(page) == {}
