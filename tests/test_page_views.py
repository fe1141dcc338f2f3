"""The page's other views: the map, duplicates, status, indexing, evaluation; a token, an empty collection."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmsearch import Engine
from tests.browser import asked, command, origin, post, says, screenshot, serve, settled, shown

Visit = Callable[..., Any]


def drawn(page: Any) -> tuple[float, float, float]:
    """What the map shows: what lies in its middle, and the scale."""
    page.wait_for_function("() => document.querySelector('.map-view')?.dataset.painted")
    _, x, y, scale = page.locator(".map-view").get_attribute("data-painted").split()
    return float(x), float(y), float(scale)


def place_of(page: Any, chart: dict[str, Any], at: int) -> tuple[float, float]:
    """Where a point of the map stands in the window."""
    x, y, scale = drawn(page)
    box = page.locator(".map-top").bounding_box()
    ratio = max(0.55, min(1.8, box["width"] / box["height"]))  # the longer side has the longer axis
    across, down = (1, 1 / ratio) if ratio > 1 else (ratio, 1)
    return (
        box["x"] + box["width"] / 2 + (0.5 + (chart["x"][at] - 0.5) * across - x) * scale,
        box["y"] + box["height"] / 2 + (0.5 + (chart["y"][at] - 0.5) * down - y) * scale,
    )


def test_a_click_on_the_map_searches_near(visit: Visit) -> None:
    page = visit("/?view=map")
    drawn(page)
    chart = page.request.get(f"{origin(page)}/api/v1/map").json()
    assert f"{len(chart['ids'])} pictures" in page.locator(".map-note").inner_text()
    alone = max(range(len(chart["ids"])), key=lambda at: _room(chart, at))  # no other is as near to the pointer
    page.mouse.move(*place_of(page, chart, alone))
    page.wait_for_function(f"() => document.querySelector('.map-top').dataset.over === '{chart['ids'][alone]}'")
    page.locator(".map-card img").evaluate("image => image.decode()")
    screenshot(page, "map-light-1280")
    page.mouse.click(*place_of(page, chart, alone))
    page.wait_for_url("**like=**")
    assert asked(page) == {"like": [str(chart["ids"][alone])]}
    assert shown(page)[0] == chart["ids"][alone]


def _room(chart: dict[str, Any], at: int) -> float:
    here = chart["x"][at], chart["y"][at]
    others = (place for number, place in enumerate(zip(chart["x"], chart["y"], strict=True)) if number != at)
    return min((here[0] - x) ** 2 + (here[1] - y) ** 2 for x, y in others)


def test_the_map_moves_and_zooms(visit: Visit) -> None:
    page = visit("/?view=map")
    *_, scale = drawn(page)
    page.mouse.move(600, 400)
    page.mouse.wheel(0, -400)
    page.wait_for_function(f"() => +document.querySelector('.map-view').dataset.painted.split(' ')[3] > {scale}")
    closer = drawn(page)
    page.mouse.down()
    page.mouse.move(500, 350, steps=4)
    page.mouse.up()
    page.wait_for_function(f"() => +document.querySelector('.map-view').dataset.painted.split(' ')[1] > {closer[0]}")
    assert asked(page) == {"view": ["map"]}  # a drag is no click
    page.get_by_role("button", name="All of it").click()
    page.wait_for_function(f"() => +document.querySelector('.map-view').dataset.painted.split(' ')[3] == {scale}")
    page.locator(".map-top").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**like=**")


def test_duplicates_lie_side_by_side(visit: Visit) -> None:
    page = visit("/?view=duplicates")
    found = post(page, "/duplicates", {"tiers": ["near"]})["groups"]
    page.locator(".pair-group").first.wait_for()
    assert page.locator(".pair-group").count() == len(found)
    keeper = page.locator(".copy.keeper .copy-name").first.inner_text()
    assert keeper == Path(found[0]["keeper"]["path"]).name
    screenshot(page, "duplicates-light-1280")
    page.get_by_text("Same file").click()
    page.get_by_text("equal in every byte").first.wait_for()
    names = page.locator(".copy-name").all_inner_texts()
    assert any(name.startswith("copy of") for name in names)
    page.locator(".copy-picture").first.click()
    page.locator("dialog.detail .paths li").nth(1).wait_for()


def test_status_says_what_there_is(visit: Visit, page_collection: Path) -> None:
    page = visit("/?view=collection")
    page.locator(".figure").first.wait_for()
    figures = dict(
        zip(page.locator(".figure dt").all_inner_texts(), page.locator(".figure dd").all_inner_texts(), strict=True)
    )
    with Engine.open(page_collection) as engine:
        status = engine.status()
    assert figures == {
        "Pictures": f"{status.images}",
        "Captions": f"{status.captions}",
        "Missing files": "0",
        "Failed files": f"{len(status.failed)}",
    }
    assert page.get_by_text(str(status.roots[0].path)).is_visible()


def test_an_index_run_shows_its_progress_and_failed_files(visit: Visit, page_collection: Path, tmp_path: Path) -> None:
    album = tmp_path / "album"
    album.mkdir()
    source = next(page_collection.parent.rglob("raccoon.jpg"))
    shutil.copy(source, album / "one.jpg")
    subprocess.run(command("index", "-c", str(tmp_path / "own"), str(album)), check=True, capture_output=True)
    for number in range(3):
        shutil.copy(next(page_collection.parent.rglob(f"clip_00{number + 3}.jpg")), album / f"new {number}.jpg")
    (album / "bad.jpg").write_bytes(source.read_bytes()[:300])
    with serve(tmp_path / "own", "-c", str(page_collection)) as address:
        page = visit("/?view=collection&tab=indexing", server=address)
        page.get_by_role("button", name="Update now").click()
        page.locator(".run[data-state=done]").wait_for()
        assert "3 new, 1 unchanged, 1 failed" in page.locator(".run").inner_text()
        page.locator("td", has_text="bad.jpg").wait_for()
        assert "truncated" in page.locator("tr", has_text="bad.jpg").inner_text()
        screenshot(page, "indexing-light-1280")
        page.get_by_role("link", name="mmsearch: all pictures").click()
        says(page, "4 pictures")
        page.get_by_role("button", name="Settings").click()
        page.locator(".option", has_text="105 pictures").click()  # the other collection
        says(page, "105 pictures")
        page.locator(".tile img.loaded").first.wait_for()
        page.close()


def test_an_evaluation_shows_its_figures(visit: Visit, page_collection: Path) -> None:
    page = visit("/?view=collection&tab=evaluation")
    page.get_by_role("button", name="Evaluate").click()
    page.locator(".run[data-state=done] table").first.wait_for()
    with Engine.open(page_collection) as engine:
        measured = {one.name: one.value for one in engine.evaluate().measures if one.direction == "t2i"}
    row = page.locator(".run table").first.locator("tr", has_text=re.compile(r"^R@10"))
    assert f"{measured['R@10']:.1f}%" in row.inner_text()
    screenshot(page, "evaluation-light-1280")


def test_the_page_asks_for_the_token(visit: Visit, page_collection: Path) -> None:
    with serve(page_collection, "--token", "open-sesame-open") as address:
        page = visit("/?q=a+penguin", server=address, expected=("401",))
        page.get_by_role("textbox", name="Token").fill("open, barley")
        page.keyboard.press("Enter")
        page.get_by_text("This is not the token.").wait_for()
        page.get_by_role("textbox", name="Token").fill("open-sesame-open")
        page.keyboard.press("Enter")
        page.locator(".tile").first.wait_for()
        assert asked(page) == {"q": ["a penguin"]}  # what was asked stays, the token does not
        page.reload()
        settled(page)
        page.locator(".tile img.loaded").first.wait_for()
        page.close()


def test_an_empty_collection_says_how_to_begin(visit: Visit, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    subprocess.run(
        command("index", "-c", str(tmp_path / "none"), str(tmp_path / "images")),
        capture_output=True,
        env={**os.environ},
    )
    with serve(tmp_path / "none") as address:
        page = visit("/", server=address)
        page.get_by_role("heading", name="No pictures yet").wait_for()
        page.get_by_role("link", name="Map").click()
        page.get_by_role("heading", name="No map yet").wait_for()
        page.close()


def test_a_server_that_is_gone_is_said_in_one_line(visit: Visit, page_collection: Path) -> None:
    with serve(page_collection) as address:
        page = visit("/", server=address, expected=("ERR_CONNECTION_REFUSED", "Failed to"))
        settled(page)
    page.locator("#search").fill("a penguin")
    page.keyboard.press("Enter")
    page.locator(".problem").first.wait_for()
    assert "does not answer" in page.locator(".problem").first.inner_text()
