"""The HTML gallery: whole in itself, honest about what is relevant, safe with what strangers wrote."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

import numpy as np
import pytest
from PIL import Image

from mmsearch.errors import UsageError
from mmsearch.render import gallery as module
from mmsearch.render.cutoff import cut_off, summary
from mmsearch.render.gallery import gallery, write
from mmsearch.settings import Limits
from mmsearch.types import Hit, SearchResult, Share
from tests.conftest import paint
from tests.toy import COLOURS

VOID = {"meta", "img", "wbr", "rect", "path", "br"}


class Page(HTMLParser):
    """A page taken apart: elements with their attributes and all their text, in order. Fails where tags don't pair."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self._open: list[tuple[str, list[str]]] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        text: list[str] = []
        self.elements.append((tag, dict(attributes), text))
        if tag not in VOID:
            self._open.append((tag, text))

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes), []))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        for _, text in self._open:
            text.append(data)

    def all(self, tag: str, kind: str | None = None) -> list[tuple[dict[str, str | None], str]]:
        return [
            (attributes, " ".join("".join(text).split()))
            for name, attributes, text in self.elements
            if name == tag and (kind is None or kind in (attributes.get("class") or "").split())
        ]

    def texts(self, tag: str, kind: str | None = None) -> list[str]:
        return [text for _, text in self.all(tag, kind)]

    def pictures(self) -> list[Image.Image]:
        return [opened(str(attributes["src"])) for attributes, _ in self.all("img")]


def opened(uri: str) -> Image.Image:
    kind, _, data = uri.partition(";base64,")
    assert kind == "data:image/webp"
    return Image.open(io.BytesIO(base64.b64decode(data, validate=True)))


def hit(rank: int, path: Path | None, probability: float | None = None, **changes: object) -> Hit:
    plain = Hit(
        rank=rank,
        id=rank * 10,
        sha256=hashlib.sha256(str(path).encode("utf-8", "surrogateescape")).hexdigest(),
        path=path,
        paths=() if path is None else (path,),
        key=None,
        caption=None,
        score=round(0.4 - rank / 100, 3),
        probability=probability,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def result(hits: Sequence[Hit], relevant: int | None = None, **changes: object) -> SearchResult:
    plain = SearchResult("lite", True, tuple(hits), relevant=relevant, calibration=None)
    return replace(plain, **changes)  # type: ignore[arg-type]


def page_of(hits: Sequence[Hit], relevant: int | None = None, title: str = "a red car", **changes: object) -> Page:
    return Page(gallery(result(hits, relevant, **changes), title=title))


@pytest.fixture
def painted(tmp_path: Path) -> list[Path]:
    return [paint(tmp_path / "pictures" / f"{name}.png", name, size=(80, 60)) for name in COLOURS]


# --- what it shows ------------------------------------------------------------------------------------------------


def test_answers_in_their_order_with_their_numbers(painted: list[Path]) -> None:
    hits = [hit(n, path, 0.9 - n / 10) for n, path in enumerate(painted[:4], 11)]
    page = page_of(hits, 4, title="a red car, 2:sunset")
    assert page.texts("h1") == ["a red car, 2:sunset"]
    assert page.texts("title") == ["a red car, 2:sunset – mmsearch"]
    assert page.texts("span", "rank") == ["11", "12", "13", "14"]
    assert page.texts("p", "name") == [path.name for path in painted[:4]]
    assert page.texts("span", "score") == ["0.290", "0.280", "0.270", "0.260"]
    assert [attributes["alt"] for attributes, _ in page.all("img")] == [path.name for path in painted[:4]]


def test_probabilities_in_percent(painted: list[Path]) -> None:
    page = page_of([hit(1, painted[0], 0.987), hit(2, painted[1], 0.004)], 1)
    assert page.texts("span", "likely") == ["99 %", "0 %"]
    assert page_of([hit(1, painted[0])]).texts("span", "likely") == []


def test_each_picture_is_inside_and_is_the_right_one(painted: list[Path]) -> None:
    page = page_of([hit(n, path) for n, path in enumerate(painted, 1)])
    assert len(page.pictures()) == len(painted)
    for picture, path in zip(page.pictures(), painted, strict=True):
        assert picture.size == (80, 60)  # not enlarged
        mean = np.asarray(picture.convert("RGB"), np.float64).mean((0, 1))
        original = np.asarray(Image.open(path).convert("RGB"), np.float64).mean((0, 1))
        assert np.abs(mean - original).max() < 4


def test_pictures_are_small_upright_and_say_nothing_about_where_they_were_taken(tmp_path: Path) -> None:
    wide = Image.new("RGB", (3000, 1500), "red")
    wide.paste("blue", (0, 0, 1500, 1500))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise: blue, at the left, goes to the top
    exif[0x010F] = "a camera"
    wide.save(tmp_path / "wide.jpg", exif=exif, quality=95)
    ((attributes, _),) = page_of([hit(1, tmp_path / "wide.jpg")]).all("img")
    picture = opened(str(attributes["src"]))
    assert picture.size == (200, 400) == (int(str(attributes["width"])), int(str(attributes["height"])))
    top, bottom = np.asarray(picture.convert("RGB"), int)[[20, -20], 100]
    assert top[2] > 200 > 60 > top[0]
    assert bottom[0] > 200 > 60 > bottom[2]
    assert dict(picture.getexif()) == {}
    assert len(str(attributes["src"])) < 20_000


def test_the_same_content_is_read_once(painted: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    decode = module.decode
    monkeypatch.setattr(module, "decode", lambda *args, **options: made.append(1) or decode(*args, **options))
    hits = [hit(n, painted[0], caption=f"caption {n}") for n in range(1, 6)]
    page = page_of(hits)
    assert len(made) == 1
    assert len(page.pictures()) == 5


def test_pictures_that_cannot_be_shown_say_why(painted: list[Path], tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(painted[0].read_bytes()[:200])
    hits = [
        hit(1, tmp_path / "gone.jpg"),
        hit(2, tmp_path / "broken.png"),
        hit(3, None, key="shop/17"),
        hit(4, painted[0]),
    ]
    page = page_of(hits)
    assert [text.partition(": ")[0] for text in page.texts("span", "missing")] == ["gone.jpg", "broken.png", "shop/17"]
    assert [text.partition(": ")[2] for text in page.texts("span", "missing")] == [
        "it is not there",
        "the PNG is truncated",
        "an application added it without a file",
    ]
    assert len(page.pictures()) == 1


def test_limits_hold_for_thumbnails_too(painted: list[Path]) -> None:
    page = Page(gallery(result([hit(1, painted[0])]), title="x", limits=Limits(max_megapixels=0.001)))
    assert page.pictures() == []
    assert "the limit is 0.001 megapixels" in page.texts("span", "missing")[0]


def test_captions(painted: list[Path]) -> None:
    page = page_of([hit(1, painted[0], caption="a  dog\n runs"), hit(2, painted[0], caption="a cat")])
    assert page.texts("p", "caption") == ["a dog runs", "a cat"]
    assert [attributes["alt"] for attributes, _ in page.all("img")] == ["a dog runs", "a cat"]
    assert page.texts("strong") == ["2 captions"]


def test_details(painted: list[Path]) -> None:
    one = hit(1, painted[0], 0.9876, taken_at=datetime(2021, 5, 4, 13, 7), key="k1", paths=(painted[0], painted[1]))
    page = page_of([one], 1)
    facts = dict(zip(page.texts("dt"), page.texts("dd"), strict=True))
    assert facts == {
        "Likely": "98.8 %",
        "Score": "0.3900",
        "Picture": "#10",
        "Taken": "2021-05-04 13:07",
        "Key": "k1",
        "Folder": str(painted[0].parent),
        "Also at": str(painted[1]),
    }


def test_what_each_term_adds(painted: list[Path]) -> None:
    shares = (Share("a beach", 0.3), Share("2:boats", 0.05), Share("not people", -0.1))
    page = page_of([hit(1, painted[0], shares=shares), hit(2, painted[1], shares=(Share("a beach", 0.1),))])
    assert page.texts("th") == ["a beach", "2:boats", "not people", "a beach"]
    assert page.texts("td", "number") == ["+0.300", "+0.050", "-0.100", "+0.100"]
    drawn = [(one["class"], one["x"], one["width"]) for one, _ in page.all("rect")]
    # from -0.1 to 0.3 is all the room there is, so that 0 lies at a quarter of it
    assert drawn == [
        ("more", "25.0", "75.0"),
        ("more", "25.0", "12.5"),
        ("less", "0.0", "25.0"),
        ("more", "25.0", "25.0"),
    ]
    assert page_of([hit(1, painted[0])]).all("table") == []


def test_shares_of_nothing_are_no_bars(painted: list[Path]) -> None:
    page = page_of([hit(1, painted[0], shares=(Share("a", 0.0),))])
    assert [(one["x"], one["width"]) for one, _ in page.all("rect")] == [("0.0", "0.0")]


def test_near_duplicates_are_folded_into_one(painted: list[Path]) -> None:
    folded = (hit(1, painted[1], 0.8), hit(1, painted[2], 0.7))
    page = page_of([hit(1, painted[0], 0.9, folded=folded), hit(2, painted[3], 0.6, folded=folded[:1])], 2)
    assert [text for text in page.texts("summary") if text != "Details"] == ["2 near-duplicates", "1 near-duplicate"]
    assert [one["alt"] for one, _ in page.all("img")] == [painted[n].name for n in (0, 1, 2, 3, 1)]
    assert page.texts("span", "rank") == ["1", "2"]


def test_no_answers() -> None:
    page = page_of([])
    assert page.texts("strong") == ["nothing found"]
    assert page.texts("p", "nothing") == ["No pictures to show."]


def test_notices(painted: list[Path]) -> None:
    assert page_of([hit(1, painted[0])], notice="The index is damaged.").texts("p", "notice") == [
        "The index is damaged."
    ]
    assert page_of([hit(1, painted[0])]).texts("p", "notice") == []


# --- where relevance ends -----------------------------------------------------------------------------------------


def test_a_line_divides_what_is_relevant_from_what_is_not(painted: list[Path]) -> None:
    hits = [hit(n, path, 0.9 - n / 5) for n, path in enumerate(painted[:4], 1)]  # 0.7, 0.5, 0.3, 0.1
    text = gallery(result(hits, 2), title="x")
    assert Page(text).texts("strong") == ["2 relevant of 4 shown"]
    before, line, after = text.partition('id="cut-off"')
    assert line
    assert [name.name in before for name in painted[:4]] == [True, True, False, False]
    assert [name.name in after for name in painted[:4]] == [False, False, True, True]
    assert Page(text).texts("h2") == ["Less likely from here on"]


def test_nothing_relevant_is_said(painted: list[Path]) -> None:
    page = page_of([hit(1, painted[0], 0.2)], 0, calibration="collection")
    assert page.texts("h2") == ["Nothing here seems to match; these are the nearest"]
    assert "0 relevant of 1 shown" in page.texts("p", "summary")[0]
    assert "as far as this collection itself can tell" in page.texts("p", "summary")[0]


@pytest.mark.parametrize(
    ("probabilities", "relevant", "line"),
    [
        ((0.9, 0.8, 0.2), 2, 2),
        ((0.8, 0.9, 0.2), 2, 2),  # sorted by date within what is relevant
        ((0.9, 0.2, 0.8), 2, None),  # words decide the order as well
        ((0.9, 0.8), 2, None),  # all of them
        ((0.2, 0.1), 0, 0),
        ((0.9, None), 1, None),
        ((None, None), None, None),
        ((), 0, None),
        ((), None, None),
    ],
)
def test_where_the_line_is(probabilities: tuple[float | None, ...], relevant: int | None, line: int | None) -> None:
    assert cut_off(result([hit(n, None, one) for n, one in enumerate(probabilities, 1)], relevant)) == line


def test_without_calibration_nothing_is_said_about_relevance(painted: list[Path]) -> None:
    found = result([hit(1, painted[0]), hit(2, painted[1])])
    assert summary(found) == "2 pictures"
    assert Page(gallery(found, title="x")).all("h2") == []


# --- whole in itself, and safe ------------------------------------------------------------------------------------

NASTY = "</style><script>alert(1)</script>\"'&<img src=x onerror=alert(2)>"


def test_nothing_is_fetched_and_nothing_runs(painted: list[Path]) -> None:
    text = gallery(result([hit(n, path, 0.5) for n, path in enumerate(painted, 1)], 3), title="x")
    page = Page(text)
    tags = {tag for tag, _, _ in page.elements}
    assert tags.isdisjoint({"script", "link", "iframe", "object", "embed", "base", "form", "use"})
    for _, attributes, _ in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "srcset")]
        assert str(attributes.get("src", "data:")).startswith("data:")
        assert str(attributes.get("href", "file:///")).startswith("file:///")
    ((_, style),) = [(a, t) for tag, a, t in page.elements if tag == "style"]
    assert "url(" not in "".join(style)
    assert "@import" not in "".join(style)


def test_the_policy_allows_this_page_and_nothing_else(painted: list[Path]) -> None:
    page = Page(gallery(result([hit(1, painted[0])]), title="x"))
    (policy,) = [str(a["content"]) for a, _ in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    (style,) = ["".join(text) for tag, _, text in page.elements if tag == "style"]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    rules = [rule.strip() for rule in policy.split(";")]
    assert rules == [
        "default-src 'none'",
        "img-src data:",
        f"style-src 'sha256-{digest}'",
        "base-uri 'none'",
        "form-action 'none'",
    ]


def test_what_strangers_wrote_stays_text(tmp_path: Path) -> None:
    path = paint(tmp_path / "<b>&\"'onerror=1>.png", "red")
    shares = (Share(NASTY, 0.1),)
    one = hit(1, path, caption=NASTY, key=NASTY, shares=shares, folded=(hit(1, path, caption=NASTY),))
    plain = Page(
        gallery(result([hit(1, path, caption="x", key="x", shares=(Share("x", 0.1),), folded=one.folded)]), title="x")
    )
    page = Page(gallery(result([one], notice=NASTY, space=NASTY), title=NASTY))
    assert page.texts("h1") == [NASTY]
    assert page.texts("p", "caption") == [NASTY]
    assert page.texts("p", "name") == [path.name]
    assert page.texts("th") == [NASTY]
    assert page.texts("p", "notice") == [NASTY]
    assert len(page.all("p")) == len(plain.all("p")) + 1  # the notice
    assert len(page.all("img")) == len(plain.all("img"))
    assert page.all("script") == []


def test_names_that_are_not_text(tmp_path: Path) -> None:
    name = os.fsdecode(b"r\xe9sum\xe9\n\xe2\x80\xaegpj.png")
    try:
        path = paint(tmp_path / name, "red")
    except OSError:
        pytest.skip("this file system takes only names that are UTF-8")
    one = hit(1, path, key=name, caption=name, shares=(Share(name, 0.1),), paths=(path, path.parent / f"2{name}"))
    page = Page(gallery(result([one], notice=name), title=f"like {name}").encode("utf-8").decode("utf-8"))
    assert page.texts("p", "name") == [r"r\xe9sum\xe9\n\u202egpj.png"]
    link = str(page.all("a", "picture")[0][0]["href"])
    assert unquote_to_bytes(urlsplit(link).path) == os.fsencode(path)


def test_links_lead_to_the_originals(tmp_path: Path) -> None:
    path = paint(tmp_path / "a b#c?d%20é.png", "red")
    page = Page(gallery(result([hit(1, path)]), title="x"))
    links = {str(attributes["href"]) for attributes, _ in page.all("a")}
    assert links == {path.as_uri()}
    assert unquote_to_bytes(urlsplit(links.pop()).path) == os.fsencode(path)


# --- its looks ----------------------------------------------------------------------------------------------------


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    digits = colour.lstrip("#")
    digits = "".join(2 * one for one in digits) if len(digits) == 3 else digits
    channels = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_contrast_formula() -> None:
    assert contrast("#000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#fff") == pytest.approx(4.54, abs=0.01)  # the well-known least grey on white


@pytest.mark.parametrize("theme", [0, 1, 2], ids=["light", "dark", "print"])
def test_every_text_can_be_read(theme: int) -> None:
    style = (Path(module.__file__).parent / "gallery.css").read_text()
    colours: dict[str, str] = {}
    themes = [
        dict(re.findall(r"--([\w-]+): (#\w+);", block)) for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    ]
    for number in {0, theme}:
        colours |= themes[number]
    pairs = [
        ("ink", "page"),
        ("soft", "page"),
        ("soft", "well"),
        ("link", "page"),
        ("accent", "tint"),
        ("warn-ink", "warn"),
    ]
    for text, ground in pairs:
        assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    for shape, ground in [("accent", "page"), ("accent", "well"), ("less", "well")]:
        assert contrast(colours[shape], colours[ground]) >= 3, (shape, ground)


# --- writing it ---------------------------------------------------------------------------------------------------


def test_a_page_is_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "answers.html"
    write(gallery(result([]), title="first"), path)
    write(gallery(result([]), title="second"), path)
    assert Page(path.read_text("utf-8")).texts("h1") == ["second"]
    assert os.listdir(tmp_path) == ["answers.html"]
    assert path.stat().st_mode & 0o444 & ~_umask() == 0o444 & ~_umask()  # as any file that a program writes


def _umask() -> int:
    now = os.umask(0o022)
    os.umask(now)
    return now


def test_an_empty_file_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "answers.html").touch()
    write(gallery(result([]), title="x"), tmp_path / "answers.html")
    assert (tmp_path / "answers.html").stat().st_size > 1000


@pytest.mark.parametrize("content", [b"<!doctype html><p>my page", b"\xff\xd8\xff\xe0 a photograph", b"x"])
def test_other_files_are_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"photo\.jpg is there already and is no page of answers"):
        write(gallery(result([]), title="x"), path)
    assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["photo.jpg"]


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    page = gallery(result([]), title="x")
    with pytest.raises(UsageError, match="is there already"):
        write(page, tmp_path)
    with pytest.raises(UsageError, match=r"cannot be written: no such file or directory\."):
        write(page, tmp_path / "no folder" / "answers.html")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot be written: not a directory\."):
        write(page, tmp_path / "file" / "answers.html")
    with pytest.raises(UsageError, match=r"cannot be written: file name too long\."):
        write(page, tmp_path / ("x" * 300))


def test_a_write_that_fails_leaves_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "answers.html"
    write(gallery(result([]), title="first"), path)
    for broken in ("fsync", "replace"):
        with monkeypatch.context() as patched:

            def full(*args: object) -> None:
                raise OSError(28, "No space left on device")

            patched.setattr(os if broken == "fsync" else Path, broken, full)
            with pytest.raises(UsageError, match="no space left on device"):
                write(gallery(result([]), title="second"), path)
        assert os.listdir(tmp_path) == ["answers.html"]
        assert Page(path.read_text("utf-8")).texts("h1") == ["first"]
