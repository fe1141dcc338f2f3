"""JSON shapes by value, tables on wide and narrow terminals, and text that strangers wrote."""

from __future__ import annotations

import io
import json
import os
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from rich.console import Console

from mmsearch.encoders.registry import ModelInfo
from mmsearch.evaluation import Evaluation, Figures
from mmsearch.render import json as as_json
from mmsearch.render import report, table
from mmsearch.render.text import count, printable
from mmsearch.types import (
    FailedFile,
    Hit,
    IndexInfo,
    IndexReport,
    RootStatus,
    SearchResult,
    Share,
    SpaceStatus,
    Status,
    Verification,
)

NOT_UTF8 = Path(os.fsdecode(b"/pictures/caf\xe9.jpg"))
CAR = Hit(1, 7, "ab" * 32, Path("/pictures/car.jpg"), (Path("/pictures/car.jpg"), Path("/copy.jpg")), None, None, 0.4)
CAFE = Hit(2, 8, "cd" * 32, NOT_UTF8, (NOT_UTF8,), None, None, 0.123456789)
ADDED = Hit(3, 9, "ef" * 32, None, (), "shop/17", None, -0.1)
CAPTION = Hit(1, 7, "ab" * 32, Path("/pictures/car.jpg"), (Path("/pictures/car.jpg"),), None, "a [red] car", 0.9)


def found(*hits: Hit) -> SearchResult:
    return SearchResult("lite", True, hits)


def test_query_json() -> None:
    data = as_json.search_result(SearchResult("lite", True, (CAR, CAFE, ADDED)))
    assert list(data) == ["space", "exact", "hits", "relevant", "calibration"]
    assert list(data["hits"][0])[:8] == ["rank", "id", "sha256", "path", "paths", "caption", "score", "key"]
    assert list(data["hits"][0])[8:] == ["probability", "shares", "taken_at", "folded", "width", "height"]
    assert data["hits"][0] == {
        "rank": 1,
        "id": 7,
        "sha256": "ab" * 32,
        "path": "/pictures/car.jpg",
        "paths": ["/pictures/car.jpg", "/copy.jpg"],
        "caption": None,
        "score": 0.4,
        "key": None,
        "probability": None,
        "shares": [],
        "taken_at": None,
        "folded": [],
        "width": None,
        "height": None,
    }
    assert data["hits"][1]["score"] == 0.123457
    assert (data["hits"][2]["path"], data["hits"][2]["paths"], data["hits"][2]["key"]) == (None, [], "shop/17")
    assert as_json.search_result(SearchResult("lite", True, (CAPTION,)))["hits"][0]["caption"] == "a [red] car"
    nothing = as_json.search_result(SearchResult("lite", False, ()))
    assert nothing == {"space": "lite", "exact": False, "hits": [], "relevant": None, "calibration": None}


def test_what_is_known_beside_a_score() -> None:
    hit = replace(
        CAR,
        probability=0.87654,
        shares=(Share("a car", 0.31), Share("not red", -0.0100004)),
        taken_at=datetime(2024, 5, 6, 7, 8, 9),
        folded=(replace(CAFE, probability=0.2),),
    )
    result = SearchResult("lite", True, (hit, CAFE), relevant=1, calibration="collection")
    data = as_json.search_result(result)
    assert (data["relevant"], data["calibration"]) == (1, "collection")
    first = data["hits"][0]
    assert first["probability"] == 0.8765
    assert first["shares"] == [{"term": "a car", "score": 0.31}, {"term": "not red", "score": -0.01}]
    assert first["taken_at"] == "2024-05-06T07:08:09"
    assert [other["id"] for other in first["folded"]] == [CAFE.id]


def test_people_see_how_likely_and_where_relevance_ends() -> None:
    hits = [replace(CAR, rank=n, probability=p, shares=(Share("x", 0.1),)) for n, p in ((1, 0.9), (2, 0.6), (3, 0.1))]
    hits[0] = replace(hits[0], folded=(CAFE,))
    result = SearchResult("lite", True, tuple(hits), relevant=2, calibration="encoder")
    lines = drawn(table.hits_table(result, Path("/pictures")), 80).splitlines()
    assert [line.split()[1] for line in lines[1:3]] == ["90%", "60%"]
    assert set(lines[3].replace(" ", "")) == {"─"}
    assert lines[4].split()[:2] == ["3", "10%"]
    assert "1 alike" in lines[1]
    expanded = table.hits_table(result, Path("/pictures"), explain=True, expand=True)
    assert [row[0].text for row in expanded.rows] == ["1", "=", "2", "3"]
    assert expanded.rows[0][-1].text == "x +0.100"
    assert expanded.line_after == 3  # the folded one stands above the line, too
    piped = table.as_text(table.hits_table(result))
    assert piped.splitlines()[0] == "1\t0.400\t/pictures/car.jpg"


def test_json_keeps_the_bytes_of_names_that_are_no_utf8() -> None:
    text = as_json.dumps(as_json.search_result(SearchResult("lite", True, (CAFE,))))
    assert text.isascii()
    assert os.fsencode(json.loads(text)["hits"][0]["path"]) == b"/pictures/caf\xe9.jpg"


def test_index_json() -> None:
    made = IndexReport("lite", 1, 2, 3, 4, 5, 6, 7, 8, seconds=1.23456, images_per_second=89.123)
    made.left_alone.append((Path("/usb"), "it is away"))
    made.notices.append("something")
    assert list(as_json.index_report(made).items()) == [
        ("new", 1),
        ("changed", 2),
        ("moved", 3),
        ("removed", 4),
        ("unchanged", 5),
        ("failed", 6),
        ("captions", 7),
        ("seconds", 1.235),
        ("images_per_second", 89.1),
        ("space", "lite"),
        ("missing", 8),
        ("left_alone", [{"root": "/usb", "reason": "it is away"}]),
        ("notices", ["something"]),
        ("texts", 0),
    ]


STATUS = Status(
    collection=Path("/data/trips"),
    roots=(RootStatus(Path("/pictures"), 1200, True), RootStatus(Path("/usb"), 1, False)),
    images=1100,
    captions=3,
    missing=2,
    failed=(FailedFile(Path("/pictures/a\nb.jpg"), "the JPEG is truncated"),),
    spaces=(
        SpaceStatus("lite", 512, 1100, 3, IndexInfo("flat", True), True, True),
        SpaceStatus("ViT", 640, 4, 0, IndexInfo("scan", False), False, False),
    ),
)


def test_status_json() -> None:
    data = as_json.status(STATUS)
    assert list(data) == ["collection", "roots", "images", "captions", "failed", "spaces", "missing", "away"]
    assert data["roots"] == ["/pictures", "/usb"]
    assert data["away"] == ["/usb"]
    assert data["failed"] == [{"path": "/pictures/a\nb.jpg", "error": "the JPEG is truncated"}]
    assert list(data["spaces"][0].items()) == [
        ("encoder", "lite"),
        ("dimension", 512),
        ("images", 1100),
        ("captions", 3),
        ("index", {"kind": "flat", "exact": True}),
        ("current", True),
        ("ready", True),
    ]


def test_verify_and_eval_json() -> None:
    assert as_json.verification(Verification(5, 2, ("x is damaged",))) == {
        "sound": False,
        "checked_vectors": 5,
        "checked_files": 2,
        "problems": ["x is damaged"],
    }
    made = Evaluation("lite", 2, 10, Figures(1 / 3, 50, 100, 1.5), Figures(0, 0, 0, 3), ())
    data = as_json.evaluation(made)
    assert list(data)[:6] == ["images", "captions", "t2i", "i2t", "space", "left_out"]
    assert [data[name] for name in ("measures", "labels", "index", "rival", "differences")] == [[], [], None, None, []]
    assert list(data["t2i"].items()) == [("R@1", 0.33), ("R@5", 50), ("R@10", 100), ("median_rank", 1.5)]
    rows = table.as_text(table.figures_table(made))
    assert rows == "t2i\t0.3\t50.0\t100.0\t1.5\ni2t\t0.0\t0.0\t0.0\t3\n"


def test_hits_through_a_pipe_are_tab_separated_lines_with_whole_paths() -> None:
    text = table.as_text(table.hits_table(found(CAR, CAFE, ADDED)))
    assert text == "1\t0.400\t/pictures/car.jpg\n2\t0.123\t/pictures/caf\\xe9.jpg\n3\t-0.100\tshop/17\n"
    assert table.as_text(table.hits_table(found(CAPTION))) == "1\t0.900\ta [red] car\t/pictures/car.jpg\n"


def drawn(rows: table.Table, width: int, terminal: bool = False) -> str:
    file = io.StringIO()
    Console(file=file, width=width, force_terminal=terminal, legacy_windows=False, _environ={}).print(
        table.as_rich(rows)
    )
    return file.getvalue()


def test_hits_on_a_terminal_are_short_and_say_how_many_copies() -> None:
    lines = drawn(table.hits_table(found(CAR, CAFE, ADDED), Path("/pictures")), 80).splitlines()
    assert [line.split() for line in lines[:2]] == [
        ["rank", "score", "id", "file"],
        ["1", "0.400", "#7", "car.jpg", "(+", "1", "copy)"],
    ]
    assert lines[2].split() == ["2", "0.123", "#8", "caf\\xe9.jpg"]
    assert "a [red] car" in drawn(table.hits_table(found(CAPTION), Path("/")), 80)  # brackets are not markup


def test_a_narrow_terminal_folds_and_loses_nothing() -> None:
    long = Path("/pictures") / ("x" * 90 + ".jpg")
    text = drawn(table.hits_table(found(Hit(1, 1, "00", long, (long,), None, None, 0.5))), 60)
    assert max(map(len, text.splitlines())) <= 60
    assert str(long) in "".join(line[10:].strip() for line in text.splitlines()[1:])


def test_files_are_links_on_a_terminal() -> None:
    assert "file:///pictures/caf%E9.jpg" in drawn(table.hits_table(found(CAFE)), 80, terminal=True)


@pytest.mark.parametrize(
    ("raw", "safe"),
    [
        (
            "caf\u00e9 \U0001f469\u200d\U0001f680",
            "caf\u00e9 \U0001f469\u200d\U0001f680",
        ),  # accents and joined emoji stay
        ("a\nb\tc", r"a\nb\tc"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("evil\u202egpj.exe", r"evil\u202egpj.exe"),
        (os.fsdecode(b"\xff.jpg"), r"\xff.jpg"),
        ("\ud800", r"\ud800"),
    ],
)
def test_text_of_strangers_is_made_safe(raw: str, safe: str) -> None:
    assert printable(raw) == safe


def test_count() -> None:
    assert [count(0, "file"), count(1, "file"), count(1234, "file"), count(2, "copy", "copies")] == [
        "0 files",
        "1 file",
        "1,234 files",
        "2 copies",
    ]


def test_index_report_in_one_line() -> None:
    assert report.index_report(IndexReport("lite", new=1200, seconds=12.34, images_per_second=97.2)) == (
        "1,200 new, 0 unchanged; 12.3 s, 97 pictures a second (lite)"
    )
    made = IndexReport("lite", 0, 1, 2, 3, 4, 5, 1, 6, 0.06)
    assert report.index_report(made) == (
        "0 new, 1 changed, 2 moved, 3 removed, 4 unchanged, 6 missing, 5 failed, 1 caption; 0.1 s (lite)"
    )


def test_status_in_words() -> None:
    text = report.status(STATUS)
    assert "Pictures    1,100\n" in text
    assert "2 files are gone" in text
    assert "/usb: 1 file, AWAY now" in text
    assert "lite (current): 1,100 pictures, 3 captions, 512 dimensions; flat index, exact" in text
    assert "ViT (not complete yet): 4 pictures, 0 captions, 640 dimensions; scan index, approximate" in text
    assert r"/pictures/a\nb.jpg: the JPEG is truncated" in text
    empty = report.status(Status(Path("/c"), (), 0, 0, 0, (), ()))
    assert "No folders yet" in empty
    assert "Failed" not in empty


def test_models_in_words() -> None:
    here = ModelInfo("lite", "small", 512, 33, "Apache-2.0", "English", None, Path("/w"))
    away = ModelInfo("ViT-B-32/x", "larger", megabytes=605, extra="clip")
    assert report.models([here, away]) == (
        "lite  (here, 33 MB, 512 dimensions, English, Apache-2.0)\n    small\n"
        "ViT-B-32/x  (not here, 605 MB, needs mmsearch[clip])\n    larger"
    )
