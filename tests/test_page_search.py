"""The page, searched: typing, terms, pictures, filters, the line of relevance, the address."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser import DEMO, asked, drop, post, says, screenshot, settled, shown

Visit = Callable[..., Any]


def test_typing_shows_answers_and_enter_keeps_them(visit: Visit) -> None:
    page = visit()
    says(page, "105 pictures")
    page.locator("#search").press_sequentially("a red sports car")
    says(page, "likely")
    assert asked(page) == {}  # nothing in the history for each letter
    page.keyboard.press("Enter")
    answer = post(page, "/search", {"terms": [{"text": "a red sports car"}], "k": 60})
    ids = [hit["id"] for hit in answer["hits"]]
    assert shown(page) == ids[: len(shown(page))]
    assert asked(page) == {"q": ["a red sports car"]}
    assert page.locator(".chip-text").inner_text() == "a red sports car"
    first = page.locator(f".tile[data-id='{ids[0]}']")
    assert first.locator(".badge").inner_text() == f"{answer['hits'][0]['probability'] * 100:.0f}%"
    screenshot(page, "search-light-1280")


def test_the_line_of_relevance_is_drawn_where_the_answers_say(visit: Visit) -> None:
    page = visit("/?q=a+red+car")
    answer = post(page, "/search", {"terms": [{"text": "a red car"}], "k": 60})
    shown(page)
    line = page.locator(".cut-off").bounding_box()["y"]
    likely, others = (
        [page.locator(f".tile[data-id='{hit['id']}']").bounding_box()["y"] for hit in part]
        for part in (answer["hits"][: answer["relevant"]], answer["hits"][answer["relevant"] :][:4])
    )
    assert 0 < answer["relevant"] < 60
    assert max(likely) < line < min(others)
    assert f"{answer['relevant']} likely match" in page.locator(".count").inner_text()


def test_where_nothing_matches_it_says_so(visit: Visit) -> None:
    page = visit("/?q=quarterly+tax+report")
    settled(page)
    assert page.get_by_role("heading", name="Nothing here seems to match").is_visible()
    assert len(shown(page)) > 3
    page = visit("/?q=quarterly&match=keywords")
    page.get_by_role("button", name="Go by meaning").click()
    assert "match" not in asked(page)


def test_terms_are_weighed_turned_round_and_taken_away(visit: Visit) -> None:
    page = visit("/?q=a+car")
    page.locator("#search").fill("-red")
    page.keyboard.press("Enter")
    page.locator("#search").fill("2:blue")
    page.keyboard.press("Enter")
    assert asked(page) == {"q": ["a car", "2:blue"], "not": ["red"]}
    terms = [{"text": "a car"}, {"text": "red", "weight": -1}, {"text": "blue", "weight": 2}]
    assert shown(page)[:5] == [hit["id"] for hit in post(page, "/search", {"terms": terms, "k": 5})["hits"]]
    page.get_by_role("button", name="Change the term: blue").click()
    page.get_by_text("½×").click()
    assert asked(page)["q"] == ["a car", "0.5:blue"]
    page.get_by_role("button", name="Change the term: a car").click()
    page.get_by_label("Words").fill("a bus")
    page.keyboard.press("Enter")
    assert asked(page)["q"] == ["a bus", "0.5:blue"]
    page.get_by_role("button", name="Remove the term: without red").click()
    assert "not" not in asked(page)
    page.locator("#search").press("Backspace")  # the last term comes back to be written again
    assert page.locator("#search").input_value() == "0.5:blue"


@pytest.mark.parametrize("way", ["drop", "choose", "paste"])
def test_a_picture_is_searched_with(visit: Visit, page_collection: Path, way: str) -> None:
    page = visit("/?q=an+animal")
    settled(page)
    picture = DEMO / "images" / "photo_raccoon.jpg"
    if way == "drop":
        drop(page, picture)
    elif way == "choose":
        page.locator("input[type=file]").set_input_files(picture)
    else:
        page.evaluate(
            """async content => {
                const data = new DataTransfer();
                data.items.add(new File([Uint8Array.from(content)], "raccoon.jpg", { type: "image/jpeg" }));
                const paste = new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true });
                document.querySelector("#search").dispatchEvent(paste);
            }""",
            list(picture.read_bytes()),
        )
    page.wait_for_url("**like=**")
    best = shown(page)[0]
    names = [
        file["name"] for file in page.request.get(f"{page.url.split('/?')[0]}/api/v1/images/{best}").json()["files"]
    ]
    assert "raccoon.jpg" in names
    assert asked(page)["q"] == ["an animal"]  # it refines what was there
    page.locator(".chip-picture img").evaluate("image => image.decode()")


def test_what_is_no_picture_is_refused_in_one_line(visit: Visit, tmp_path: Path) -> None:
    page = visit("/", expected=("status of 4",))
    text = tmp_path / "notes.jpg"
    text.write_text("no picture")
    drop(page, text)
    page.locator(".note.bad").wait_for()
    assert len(page.locator(".note.bad").inner_text().splitlines()) == 1
    assert asked(page) == {}


def test_filters_count_and_choose(visit: Visit) -> None:
    page = visit()
    facets = post(page, "/facets", {"filters": {}})
    for camera in facets["cameras"]:
        row = page.locator(".choices-list label", has_text=camera["name"])
        assert row.locator(".number").inner_text() == str(camera["count"])
    page.locator(".choices-list label", has_text="Canon EOS R6").click()
    assert page.locator(".filter-chip", has_text="Canon EOS R6").is_visible()
    page.get_by_role("button", name="Iceland").click()
    iceland = next(one for one in facets["folders"] if one["path"].endswith("Iceland"))
    assert asked(page) == {"camera": ["Canon EOS R6"], "in": [iceland["prefix"]]}
    wanted = {"camera": ["Canon EOS R6"], "inside": [iceland["prefix"]]}
    hits = post(page, "/search", {"filters": wanted, "sort": "date", "k": 60})["hits"]
    says(page, f"{len(hits)} pictures")
    assert shown(page) == [hit["id"] for hit in hits][: len(shown(page))]
    page.get_by_role("button", name="Remove the filter: Canon EOS R6").click()
    assert "camera" not in asked(page)
    page.get_by_label("Width").select_option("3840")
    page.get_by_role("heading", name="No picture satisfies these filters").wait_for()
    page.get_by_role("button", name="Clear the filters").click()
    says(page, "105 pictures")


def test_dates_are_chosen_by_click_and_by_brush(visit: Visit) -> None:
    page = visit()
    months = post(page, "/facets", {"filters": {}})["dates"]
    bars = page.locator(".histogram g")
    bars.first.wait_for()
    box = page.locator(".histogram svg").bounding_box()
    step = box["width"] / bars.count()
    page.mouse.click(box["x"] + step / 2, box["y"] + box["height"] - 4)
    says(page, f"{months[0]['count']} pictures")
    assert asked(page)["after"] == [f"{months[0]['month']}-01"]
    page.mouse.move(box["x"] + step / 2, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + step * 2.5, box["y"] + 20, steps=4)
    page.mouse.up()
    three = sum(one["count"] for one in months[:3])
    says(page, f"{three} pictures")


def test_places_are_chosen_on_the_map(visit: Visit) -> None:
    page = visit()
    world = page.locator(".places canvas")
    world.wait_for()
    page.get_by_role("button", name="Iceland").click()
    says(page, "26 pictures")
    world.focus()
    page.keyboard.press("Enter")  # the heap nearest to the middle
    page.wait_for_url("**near=**")
    latitude, longitude, _ = map(float, asked(page)["near"][0].split(","))
    assert 63 < latitude < 66
    assert -23 < longitude < -20
    settled(page)
    assert 0 < len(shown(page)) <= 26


def test_more_and_less_like_this(visit: Visit) -> None:
    page = visit("/?q=a+vehicle")
    first, second, *_ = shown(page)
    page.locator(f".tile[data-id='{second}']").hover()
    page.locator(f".tile[data-id='{second}'] .tile-marks button").first.click()
    assert asked(page)["more"] == [str(second)]
    page.locator(f".tile[data-id='{first}']").hover()
    page.locator(f".tile[data-id='{first}'] .tile-marks button").last.click()
    assert asked(page)["less"] == [str(first)]
    query = {"terms": [{"text": "a vehicle"}], "more": [second], "less": [first], "k": 6}
    assert shown(page)[:6] == [hit["id"] for hit in post(page, "/search", query)["hits"]]
    assert page.locator(".chip-mark").count() == 2


def test_the_address_carries_everything_and_back_goes_back(visit: Visit) -> None:
    page = visit()
    settled(page)
    page.locator("#search").fill("a penguin")
    page.keyboard.press("Enter")
    answers = shown(page)
    page.locator(f".tile[data-id='{answers[0]}'] .tile-link").click()
    page.locator("dialog.detail").wait_for()
    link = page.url
    page.go_back()
    page.locator("dialog.detail").wait_for(state="detached")
    assert shown(page) == answers
    page.go_back()
    assert asked(page) == {}
    assert page.locator(".chip").count() == 0
    page.go_forward()
    assert shown(page) == answers
    other = visit(link.removeprefix(link.split("/?")[0]))
    other.locator("dialog.detail").wait_for()
    assert other.locator(".chip-text").inner_text() == "a penguin"
    other.keyboard.press("Escape")
    other.locator("dialog.detail").wait_for(state="detached")
    assert shown(other) == answers


@pytest.mark.parametrize(
    "address",
    [
        "/?sort=colour&match=magic&find=x&view=nowhere&tab=y&has=wings&orientation=round&after=soon&before=2024-99-99",
        "/?near=1,2&min=7&diverse=no&more=a,b&less=,&image=x&min_width=-3&q=&not=%20&like=https://&where=",
    ],
)
def test_what_an_address_cannot_mean_is_passed_over(visit: Visit, address: str) -> None:
    page = visit(address, expected=("status of 4",))
    settled(page)
    assert page.locator(".toolbar").is_visible()
    page.get_by_role("link", name="mmsearch: all pictures").click()
    says(page, "105 pictures")


def test_filters_that_contradict_each_other_can_be_undone(visit: Visit) -> None:
    page = visit("/?after=2024-05-01", expected=("status of 4",))
    settled(page)
    page.get_by_label("Before").fill("2023-01-01")
    page.locator(".problem").wait_for()
    assert "after" in page.locator(".problem").inner_text()
    page.get_by_label("From").fill("")
    page.locator(".problem").wait_for(state="detached")
    assert asked(page) == {"before": ["2023-01-01"]}


def test_pages_follow_as_one_scrolls(visit: Visit) -> None:
    page = visit("/?q=a+drawing")
    settled(page)
    assert page.locator(".tile").first.get_attribute("aria-setsize") == "60"
    page.mouse.move(700, 500)
    page.wait_for_function(
        "() => (scrollTo(0, document.body.scrollHeight), document.querySelector('.tile[aria-setsize=\"105\"]'))"
    )
    assert page.locator(".tile").count() < 105  # those far away are not drawn


def test_options_change_how_it_searches(visit: Visit) -> None:
    page = visit("/?q=lighthouse")
    page.get_by_role("button", name="Options").click()
    page.get_by_text("In captions, names, tags and pictures").click()
    assert asked(page)["match"] == ["keywords"]
    assert len(shown(page)) == 1
    page.get_by_text("Find captions").click()
    page.keyboard.press("Escape")
    settled(page)
    assert "lighthouse" in page.locator(".tile-caption").first.inner_text()
    page.get_by_label("Sort by").select_option("name")
    assert asked(page)["sort"] == ["name"]


def test_searches_are_saved(visit: Visit) -> None:
    page = visit("/?q=a+moon&tag=bird")
    page.get_by_role("button", name="Saved searches").click()
    page.get_by_label("A name for this search").fill("moons")
    page.get_by_role("button", name="Save", exact=True).click()
    page.locator(".saved-list .row", has_text="moons").wait_for()
    other = visit()
    other.get_by_role("button", name="Saved searches").click()
    other.locator(".saved-list .row", has_text="moons").click()
    assert asked(other) == {"q": ["a moon"], "tag": ["bird"]}
    other.get_by_role("button", name="Saved searches").click()
    other.get_by_role("button", name="Forget “moons”").click()
    other.get_by_text("None yet").wait_for()
