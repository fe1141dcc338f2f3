"""Filters, the language of `where`, and what is wrong with either, by place."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch import decode
from mmsearch.conditions import (
    FORMATS,
    And,
    Between,
    Compare,
    Contains,
    Like,
    Missing,
    Near,
    Node,
    Not,
    OneOf,
    Or,
    Within,
    span,
)
from mmsearch.errors import UsageError
from mmsearch.filters import Filters, parse, parse_date, parse_near

WIDE, CANON, OLD = Compare("width", ">=", 1920), Like("camera", "Canon%"), Compare("year", "<", 2000)


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("width >= 1920 and camera like 'Canon%'", And((WIDE, CANON))),
        ('WIDTH>=1920 AND Camera LIKE "Canon%"', And((WIDE, CANON))),
        ("width >= 1920 or camera like 'Canon%' and year < 2000", Or((WIDE, And((CANON, OLD))))),
        ("(width >= 1920 or camera like 'Canon%') and year < 2000", And((Or((WIDE, CANON)), OLD))),
        ("not width >= 1920 and year < 2000", And((Not(WIDE), OLD))),
        ("not (width >= 1920 and year < 2000)", Not(And((WIDE, OLD)))),
        ("not not width>=1920", Not(Not(WIDE))),
        ("camera not like 'Canon%'", Not(CANON)),
        ("height != 10", Not(Compare("height", "=", 10))),
        ("height <> 10", Not(Compare("height", "=", 10))),
        ("id in (1, 2,3)", OneOf("id", (1, 2, 3))),
        ("format not in ('JPG', 'png')", Not(OneOf("format", ("jpeg", "png")))),
        ("aspect between .5 and 1.5e0", Between("aspect", 0.5, 1.5)),
        ("latitude not between -10 and +10", Not(Between("latitude", -10, 10))),
        ("lens is null", Missing("lens")),
        ("lens is not null", Not(Missing("lens"))),
        ("name = 'it''s'", Compare("name", "=", "it's")),
        ('name = "say ""hi"" \' "', Compare("name", "=", 'say "hi" \' ')),
        ("tag = ''", Compare("tag", "=", "")),
        (
            "text like '%sale%'\n\tand\nnot caption='x'",
            And((Like("text", "%sale%"), Not(Compare("caption", "=", "x")))),
        ),
        ("orientation = 'Portrait'", Compare("orientation", "=", "Portrait")),
        ("date >= '2024-05'", Compare("date", ">=", datetime(2024, 5, 1))),
        ("date < 2024-05", Compare("date", "<", datetime(2024, 5, 1))),
        ("date > 2024", Compare("date", ">=", datetime(2025, 1, 1))),
        ("date <= '2024-05-01 14:30'", Compare("date", "<", datetime(2024, 5, 1, 14, 31))),
        (
            "date = 2024-02-29",
            And((Compare("date", ">=", datetime(2024, 2, 29)), Compare("date", "<", datetime(2024, 3, 1)))),
        ),
        (
            "date between '2023' and 2024-05",
            And((Compare("date", ">=", datetime(2023, 1, 1)), Compare("date", "<", datetime(2024, 6, 1)))),
        ),
        (
            "date not in (2023)",
            Not(And((Compare("date", ">=", datetime(2023, 1, 1)), Compare("date", "<", datetime(2024, 1, 1))))),
        ),
        ("id = 9007199254740993", Compare("id", "=", 9007199254740992.0)),
    ],
)
def test_expressions(text: str, tree: Node) -> None:
    assert parse(text) == tree
    assert hash(parse(text)) == hash(tree)


@pytest.mark.parametrize(
    ("text", "column", "reason"),
    [
        ("width >= tall", 10, "width is compared with a number, not 'tall'."),
        ("width >= 'abc'", 10, "width is compared with a number, not 'abc'."),
        ("width >= 2024-05-01", 10, "width is compared with a number, not 2024-05-01."),
        ("width like 'x'", 12, "`like` is for texts; width is a number."),
        ("date like '2024%'", 11, "`like` is for texts; date is a date."),
        (
            "date = 'May'",
            8,
            "date is compared with a date such as 2024, 2024-05, 2024-05-01 or '2024-05-01 14:30', not 'May'.",
        ),
        ("date = 2024-13", 8, "not 2024-13."),
        ("camera = Canon", 10, "camera is compared with a text in quotes, as in 'Canon'."),
        ("camera = 5", 10, "camera is compared with a text in quotes, as in '5'."),
        ("height > 1 and widht > 3", 16, "there is no field 'widht'; did you mean width? Valid are: id, width, "),
        ("zzz > 3", 1, "there is no field 'zzz'. Valid are: id, width, "),
        ("width => 5", 7, "'=>' is no operator; did you mean >=? Valid are: =, "),
        ("camera == 'x'", 8, "'==' is no operator; did you mean =? Valid"),
        ("camera lik 'x'", 8, "'lik' is no operator; did you mean like? Valid"),
        ("camera contains 'x'", 8, "'contains' is no operator; did you mean like? Valid"),
        ("a b c", 3, "'b' is no operator; valid are: =, "),
        ("width", 6, "an operator is missing, one of: =, "),
        ("width not 5", 11, "after `not` stands like, in or between here, not '5'."),
        ("width >= ", 9, "a number, a date or a text in quotes is missing before the end."),
        ("tag in ()", 9, "a number, a date or a text in quotes is missing before ')'."),
        ("id in 5", 7, "after `in` stand values in parentheses, as in (1, 2)."),
        ("id in (1 2)", 10, "a comma or the closing parenthesis is missing before '2'."),
        ("year between 1 or 2", 16, "after `between` stand two values, as in between 1 and 2."),
        ("width is 5", 10, "after `is` stands null or not null, not '5'; to compare, write =."),
        ("width > 1 height > 2", 11, "`and` or `or` is missing before 'height'."),
        ("width > 1 and", 14, "a field such as width is missing before the end."),
        ("((width > 1)", 13, "a parenthesis that was opened is not closed."),
        ("width > 1)", 10, "this parenthesis was never opened."),
        ("camera = 'Canon and width > 1", 10, "this quote ' is never closed."),
        ('camera = "Canon', 10, 'this quote " is never closed.'),
        ("camera = ‘Canon’", 10, "'‘' does not belong here; texts stand in straight quotes."),
        ("width > 5; drop table image", 10, "';' does not belong here"),
        ("width = 1e999", 9, "the number 1e999 is too large."),
        ("format = 'jpgg'", 10, "there is no format 'jpgg'; valid are: avif, bmp, "),
        (
            "orientation in ('square', 'wide')",
            27,
            "there is no orientation 'wide'; valid are: landscape, portrait, square.",
        ),
        ("(" * 5000, 5001, "a field such as width is missing before the end."),
    ],
)
def test_mistakes_are_named_with_their_place(text: str, column: int, reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    message = str(caught.value)
    assert message.startswith(f'The filter has a mistake at column {column}: "')
    assert reason in message
    assert len(message) < 500
    assert len(text) > 100 or f'"{text}"' in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (" \n", "The filter is empty"),
        ("id = 1" + " " * 10_000, "has 10,006 characters; at most 10,000"),
        ("not " * 2000 + "id = 1", "nested more than 30 deep"),
        ("(id = 1 or not " * 500 + "id = 1" + ")" * 500, "nested more than 30 deep"),
        (" or ".join(["id = 1"] * 201), "more than 200 conditions"),
        (f"date in ({','.join(['2024'] * 201)})", "more than 200 conditions"),
    ],
)
def test_what_is_too_much(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(text)


WORDS = ["width", "camera", "date", "tag", "and", "or", "not", "like", "in", "is", "null", "between", "(", ")", ","]
WORDS += ["=", ">=", "=>", "5", "-1.5", "2024-05", "'x'", '"', "'", "‘", "é", "\udce9", ";", "%", "\x00", "--"]


@settings(deadline=None, max_examples=300)
@given(st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join) | st.text(max_size=30))
def test_anything_is_read_or_refused_in_one_line(text: str) -> None:
    try:
        assert parse(text)
    except UsageError as error:
        assert str(error).count("\n") <= text.count("\n")
        assert str(error).endswith((".", "%'\"."))


def test_only_where_costs_the_grammar_library() -> None:
    program = (
        "import sys; from mmsearch.filters import Filters\n"
        "Filters(tags=('x',), camera=('y',)).tree(); before = 'lark' in sys.modules\n"
        "Filters(where='id = 1'); print(before, 'lark' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False True False\n"


# --- dates and places ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("2024", datetime(2024, 1, 1), datetime(2025, 1, 1)),
        ("2024-02", datetime(2024, 2, 1), datetime(2024, 3, 1)),
        ("2024-12", datetime(2024, 12, 1), datetime(2025, 1, 1)),
        ("2024-12-31", datetime(2024, 12, 31), datetime(2025, 1, 1)),
        ("2024-05-01 23:59", datetime(2024, 5, 1, 23, 59), datetime(2024, 5, 2)),
        (" 2024-05-01T14:30:59 ", datetime(2024, 5, 1, 14, 30, 59), datetime(2024, 5, 1, 14, 31)),
        ("9999", datetime(9999, 1, 1), datetime.max),
        ("9999-12", datetime(9999, 12, 1), datetime.max),
        ("9999-12-31", datetime(9999, 12, 31), datetime.max),
        ("0001", datetime(1, 1, 1), datetime(2, 1, 1)),
    ],
)
def test_dates(text: str, start: datetime, end: datetime) -> None:
    assert span(text) == (start, end)
    assert parse_date(text) == start


@pytest.mark.parametrize(
    "text", ["", "24", "2024-5", "2024-13", "2023-02-29", "2024-05-01 25:00", "0000", "٢٠٢٤", "1 May"]
)
def test_what_is_no_date(text: str) -> None:
    with pytest.raises(UsageError, match="is no date; write 2024, 2024-05, 2024-05-01 or '2024-05-01 14:30'"):
        parse_date(text)


def test_places() -> None:
    assert parse_near("48.1,11.5,20") == (48.1, 11.5, 20.0)
    assert parse_near(" -90 , 180 , .5 ") == (-90.0, 180.0, 0.5)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("48.1,11.5", "is no place; write latitude,longitude,kilometres"),
        ("48.1,11.5,20,3", "is no place"),
        ("Munich", "is no place"),
        ("91,0,1", "the latitude 91 is not from -90 to 90 degrees"),
        ("0,-180.5,1", "the longitude -180.5 is not from -180 to 180 degrees"),
        ("nan,0,1", "the latitude nan"),
        ("0,0,0", "the distance 0 is not a number of kilometres above 0"),
        ("0,0,inf", "the distance inf"),
    ],
)
def test_what_is_no_place(text: str, reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_near(text)
    assert reason in str(caught.value)
    assert repr(text) in str(caught.value)


# --- Filters ------------------------------------------------------------------------------------------------------


def test_no_filters() -> None:
    assert not Filters()
    assert Filters().tree() is None


def test_every_filter_has_its_condition(tmp_path: Path) -> None:
    noon = datetime(2024, 5, 1, 12)
    filters = Filters(
        inside=(tmp_path, tmp_path / "x"),
        after=noon,
        before=noon + timedelta(days=1),
        camera=("canon", "50%"),
        near=(48, 11.5, 20),
        min_width=10,
        min_height=20,
        orientation="portrait",
        format=("JPG", "webp"),
        tags=("cat", "dog"),
        has=("gps", "caption", "date", "tag", "text"),
        where="width >= 1920",
    )
    there = str(tmp_path.resolve()).encode()
    assert filters.tree() == And(
        (
            Or((Within(str(tmp_path), (there,)), Within(f"{tmp_path}/x", (there + b"/x",)))),
            Compare("date", ">=", noon),
            Compare("date", "<", noon + timedelta(days=1)),
            Or((Contains("camera", "canon"), Contains("camera", "50%"))),
            Near(48.0, 11.5, 20.0),
            Compare("width", ">=", 10),
            Compare("height", ">=", 20),
            Compare("orientation", "=", "portrait"),
            OneOf("format", ("jpeg", "webp")),
            Compare("tag", "=", "cat"),
            Compare("tag", "=", "dog"),
            *(Not(Missing(field)) for field in ("latitude", "longitude", "caption", "date", "tag", "text")),
            WIDE,
        )
    )
    assert Filters.from_json(filters.to_json()) == filters
    assert hash(filters) == hash(Filters.from_json(filters.to_json()))
    assert Filters(where="id = 1").tree() == Compare("id", "=", 1)


def test_folders_through_links_and_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real" / "below").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real" / "out").symlink_to("/usr")
    there = str(tmp_path.resolve()).encode()
    monkeypatch.chdir(tmp_path)

    def names(folder: str) -> set[bytes]:
        node = Filters(inside=(Path(folder),)).tree()
        assert isinstance(node, Within)
        return set(node.names)

    assert names("link/below") == {there + b"/real/below", there + b"/link/below"}
    assert names("link/../real/") == {there + b"/real"}
    # The catalog may have what a link inside a root leads to under either name, and the root by its real one.
    assert names("link/out/share") == {
        there + b"/real/out/share", there + b"/link/out/share", b"/usr/share"
    }  # fmt: skip
    assert names("/") == {b""}
    kept = Filters(inside=(Path("link"),)).to_json()
    monkeypatch.chdir("/")
    assert Filters.from_json(kept).inside == (tmp_path / "link",)


def test_dates_with_a_zone_keep_their_clock_time() -> None:
    assert Filters(after=datetime(2024, 5, 1, 12, tzinfo=UTC)).tree() == Compare("date", ">=", datetime(2024, 5, 1, 12))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tags": "dog"}, "The filter tags is 'dog'; it must be a tuple, as in ('dog',)."),
        ({"tags": ("dog", "")}, "The filter tags has ''; it must be a text that is not empty."),
        ({"camera": (3,)}, "The filter camera has 3"),
        ({"camera": ("x",) * 101}, "The filter camera has 101 values; at most 100"),
        ({"inside": ("a\0b",)}, r"The filter inside has 'a\x00b'"),
        ({"inside": ("~no such user/x",)}, "There is no folder ~no such user/x: nobody here has that name."),
        ({"inside": ("/a" * 101,)}, "more than 100 folders deep"),
        ({"after": "2024"}, "The filter after is '2024'; it must be a datetime."),
        ({"near": (91, 0, 1)}, "The filter near: the latitude 91 is not from -90 to 90 degrees."),
        ({"near": "48,11,2"}, "The filter near is '48,11,2'; it must be latitude, longitude, kilometres."),
        ({"near": (48, 11)}, "The filter near is (48, 11)"),
        ({"min_width": 0}, "The filter min_width is 0; it must be a number of pixels, at least 1."),
        ({"min_height": 1.5}, "The filter min_height is 1.5"),
        ({"min_height": True}, "The filter min_height is True"),
        ({"orientation": "wide"}, "The filter orientation is 'wide'; valid are: landscape, portrait, square."),
        ({"format": ("doc",)}, "There is no format 'doc'; valid are: avif, bmp, gif, "),
        ({"has": ("colour",)}, "The filter has is 'colour'; valid are: caption, gps, date, tag, text."),
        ({"where": 5}, "The filter where is 5"),
        ({"where": "width >= tall"}, "The filter has a mistake at column 10"),
    ],
)
def test_programs_are_told_what_cannot_be(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Filters(**values)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ({"colour": "red"}, "There is no filter colour; valid are: after, before, "),
        ({"after": "yesterday"}, "The filter after is 'yesterday'; it must be a date"),
        ({"before": 5}, "The filter before is 5; it must be a date"),
        ({"tags": "x"}, "The filter tags is 'x'"),
        ({"inside": [5]}, "The filter inside has 5"),
        ([], "Filters are a JSON object"),
    ],
)
def test_kept_filters_that_cannot_be_read(kept: Any, message: str) -> None:
    with pytest.raises(UsageError, match="^" + message.replace("(", r"\(")):
        Filters.from_json(kept)


def test_the_formats_are_those_that_are_decoded() -> None:
    assert set(FORMATS) == set(decode._LABELS)
    assert Filters(format=("JPG", "TIF", "HEIC", "Jp2")).tree() == OneOf("format", ("jpeg", "tiff", "heif", "jpeg2000"))
