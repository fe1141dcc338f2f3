"""captions.py: every form of caption file, by value, and what is said about the wrong ones."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.captions import clean, read_sidecar, read_table
from mmsearch.errors import PictureError, UsageError


def table(tmp_path: Path, content: str | bytes, name: str = "captions.csv") -> list[tuple[str, str]]:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(path)


# --- sidecars


def test_one_caption_a_line(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffA dog.\r\n\r\n  Two\tdogs. \nA dog.\n犬\n\x07\n".encode())
    assert read_sidecar(path) == ["A dog.", "Two dogs.", "犬"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", []),
        (b"\n \n", []),
        ("Ein Mädchen – am Meer".encode("cp1252"), ["Ein Mädchen – am Meer"]),
        ("Ein Mädchen".encode("utf-16"), ["Ein Mädchen"]),
        (b"\xfe\xff" + "Ein Mädchen".encode("utf-16-be"), ["Ein Mädchen"]),
        (b"\x7fELF\0\0\0\1", []),
        (b"x" * 1_000_000, ["x" * 1_000_000]),
        (b"x" * 1_000_001, []),
    ],
)
def test_sidecars_as_they_come(tmp_path: Path, content: bytes, expected: list[str]) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    assert read_sidecar(path) == expected


def test_a_sidecar_that_is_gone_or_unreadable(tmp_path: Path) -> None:
    assert read_sidecar(tmp_path / "gone.txt") == []
    (tmp_path / "loop.txt").symlink_to("loop.txt")
    with pytest.raises(PictureError, match=r"its captions in loop\.txt cannot be read: too many levels"):
        read_sidecar(tmp_path / "loop.txt")


# --- CSV

EXPECTED = [("a.jpg", "A dog."), ("a.jpg", "Two dogs, one cat."), ("b.png", 'They say "woof".')]


@pytest.mark.parametrize(
    "content",
    [
        'image,caption\na.jpg,A dog.\na.jpg,"Two dogs, one cat."\nb.png,"They say ""woof""."\n',
        'caption,image\r\nA dog.,a.jpg\r\n"Two dogs, one cat.",a.jpg\r\n"They say ""woof"".",b.png\r\n',
        '\ufeffimage;caption\na.jpg;A dog.\na.jpg;Two dogs, one cat.\nb.png;"They say ""woof""."',
        'id\timage\tcaption\n1\ta.jpg\tA dog.\n2\ta.jpg\tTwo dogs, one cat.\n3\tb.png\t"They say ""woof""."\n',
        'id,image,caption,x\n1,a.jpg,A dog.,\n2,a.jpg,"Two dogs, one cat.",,,\n3,b.png,"They say ""woof"".",9\n',
        '\n"Image", CAPTION\n\na.jpg,A dog.\na.jpg,"Two dogs,\n one cat."\n,\nb.png,"They say ""woof""."\nb.png, \n',
        'file_name,text\na.jpg,A dog.\na.jpg,"Two dogs, one cat."\nb.png,"They say ""woof""."\n',
        # The last column needs no quotation marks.
        'image,caption\na.jpg,A dog.\na.jpg,Two dogs, one cat.\nb.png,"They say ""woof""."\n',
    ],
)
def test_csv(tmp_path: Path, content: str) -> None:
    assert table(tmp_path, content) == EXPECTED
    assert table(tmp_path, content.removeprefix("\ufeff").encode("utf-16")) == EXPECTED


def test_a_header_without_rows(tmp_path: Path) -> None:
    assert table(tmp_path, "image,caption\n") == []


def test_windows_encoding(tmp_path: Path) -> None:
    content = "image,caption\nmädchen.jpg,Ein Mädchen – am Meer\n".encode("cp1252")
    assert table(tmp_path, content) == [("mädchen.jpg", "Ein Mädchen – am Meer")]


def test_kaggles_captions_and_the_original_tokens(tmp_path: Path) -> None:
    kaggle = "image,caption\n1000.jpg,A child climbs up stairs .\n1000.jpg,A girl goes in .\n"
    tokens = "1000.jpg#0\tA child climbs up stairs .\n\n1000.jpg#1\tA girl goes in .\n"
    expected = [("1000.jpg", "A child climbs up stairs ."), ("1000.jpg", "A girl goes in .")]
    assert table(tmp_path, kaggle, "captions.txt") == expected
    assert table(tmp_path, tokens, "Flickr8k.token.txt") == expected


@pytest.mark.parametrize(
    ("content", "line", "what"),
    [
        ("", 1, "expected is a CSV header such as image,caption, or JSON lines"),
        ("picture,words\na.jpg,A dog.\n", 1, "expected is a CSV header such as image,caption"),
        ("a.jpg,A dog.\n", 1, "expected is a CSV header such as image,caption"),
        ('[{"image": "a.jpg", "caption": "A dog."}]', 1, "expected is a CSV header such as image,caption, or JSON"),
        ("image,caption\na.jpg,A dog.\nb.jpg\n", 3, "1 columns; expected are 2, as in the header"),
        ('image,caption\na.jpg,"A\ndog."\n,No name.\n', 4, "no image name in the column 'image'"),
        ('image,caption\na.jpg,"A dog.\nb.jpg,A cat.\n', 2, "is a quotation mark missing"),
        ('image,caption\na.jpg,"' + "x" * 200_000 + '"\n', 2, "field larger than field limit"),
        ("image,caption\na.jpg,A\0dog.\n", 2, "a zero byte; expected is text in UTF-8"),
        ('{"image": "a.jpg", "caption": "A dog."}\n\nimage,caption\n', 3, "no JSON; expected is"),
        ('{"image": "a.jpg", "caption": "A dog."}\n["a.jpg"]\n', 2, "no JSON object; expected is"),
        ('{"caption": "A dog."}', 1, "a text under image, image_name, file_name or filename"),
        ('{"image": 7, "caption": "A dog."}', 1, "a text under image, image_name, file_name or filename"),
        ('{"image": "a.jpg"}', 1, "a text or a list of texts under caption, captions or text"),
        ('{"image": "a.jpg", "caption": ["A dog.", 7]}', 1, "a text or a list of texts under caption"),
        ('{"image": "a.jpg", "caption": null}', 1, "a text or a list of texts under caption"),
        ('{"image":' + "[" * 100_000, 1, "no JSON; expected is"),
        ("a.jpg#0\tA dog.\nb.jpg A cat.\n", 2, "expected is name.jpg#0, a tab, and the caption"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, content: str, line: int, what: str) -> None:
    with pytest.raises(UsageError) as caught:
        table(tmp_path, content)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'captions.csv'}, line {line}: ")
    assert what in message
    assert "\n" not in message


def test_a_table_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: no such file or directory"):
        read_table(tmp_path / "gone.csv")
    with pytest.raises(UsageError, match="cannot be read: is a directory"):
        read_table(tmp_path)


# --- JSON lines


def test_json_lines(tmp_path: Path) -> None:
    records = [
        {"image": "a.jpg", "caption": "A dog."},
        {"file_name": "b.jpg", "captions": ["A\u2028cat.", "", "Two cats."], "id": 3},
        {"filename": " c.jpg ", "text": ["犬"]},
    ]
    lines = "\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    expected = [("a.jpg", "A dog."), ("b.jpg", "A cat."), ("b.jpg", "Two cats."), ("c.jpg", "犬")]
    assert table(tmp_path, "\ufeff\n" + lines + "\n\n", "captions.jsonl") == expected
    # The content decides, not the name.
    assert table(tmp_path, lines.replace("\n", "\r\n"), "captions.txt") == expected


# --- against the writers of the standard library

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)
NAMES = st.text("abcxyz012_-. ü犬/,;\"'", min_size=1, max_size=12).map(str.strip).filter(bool)


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(NAMES, TEXTS), max_size=6), st.sampled_from(",;\t"))
def test_what_csv_and_json_write_is_what_is_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], delimiter: str
) -> None:
    expected = [(name, clean(text)) for name, text in rows if clean(text)]
    written = io.StringIO(newline="")
    writer = csv.writer(written, delimiter=delimiter)
    writer.writerow(("image", "caption"))
    writer.writerows(rows)
    folder = tmp_path_factory.getbasetemp()
    assert table(folder, written.getvalue()) == expected
    if rows:
        lines = "\n".join(json.dumps({"image": name, "caption": text}) for name, text in rows)
        assert table(folder, lines) == expected


# --- cleaning


@given(st.text())
def test_clean_texts_are_one_line_and_stay_as_they_are(text: str) -> None:
    cleaned = clean(text)
    assert cleaned == clean(cleaned)
    assert "\n" not in cleaned
    assert cleaned == cleaned.strip()
    cleaned.encode()


def test_clean_by_value() -> None:
    assert clean(" A\u00a0dog\x00\x1b[31m\r\n barks\ufeff\ud800 ") == "A dog[31m barks"
    assert clean("Cafe\u0301") == "Café"
    assert clean("👩\u200d👧 می\u200cخواهم") == "👩\u200d👧 می\u200cخواهم"


def test_a_table_named_by_bytes_that_are_no_utf_8(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.csv"))
    path.write_text("image,caption\na.jpg,A dog.\n")
    assert read_table(path) == [("a.jpg", "A dog.")]
