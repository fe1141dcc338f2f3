"""Texts that people type become FTS5 expressions that SQLite takes, whatever they hold."""

from __future__ import annotations

import sqlite3

from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.errors import UsageError
from mmsearch.words import expression, phrases


def matching(texts: list[str], match: str) -> list[int]:
    """Numbers of the texts that an FTS5 table finds."""
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE VIRTUAL TABLE t USING fts5(text, tokenize='porter unicode61 remove_diacritics 2')")
    connection.executemany("INSERT INTO t(rowid, text) VALUES (?, ?)", enumerate(texts))
    found = [row[0] for row in connection.execute("SELECT rowid FROM t WHERE t MATCH ? ORDER BY rowid", [match])]
    connection.close()
    return found


def test_words_phrases_and_stop_words() -> None:
    assert phrases('a red "sports car" on the IMG_12.jpg') == ["red", "sports car", "IMG_12.jpg"]
    assert phrases("the who") == ["the", "who"]  # nothing else is left
    assert phrases('an "open quotation') == ["open quotation"]
    assert phrases("- ! red") == ["red"]


def test_all_words_any_word_and_unwanted_ones() -> None:
    texts = ["a red car", "a blue car", "two red cars by the sea", "trip/IMG_1234.jpg", "1234 img", "Café au lait"]
    assert matching(texts, expression(["red car"], every=True)) == [0, 2]
    assert matching(texts, expression(["red blue"], every=False)) == [0, 1, 2]
    assert matching(texts, expression(["car"], ["sea", "blue"], every=True)) == [0]
    assert matching(texts, expression(["IMG_1234"], every=True)) == [3]
    assert matching(texts, expression(["cafe"], every=True)) == [5]
    assert matching(texts, expression(["car", "sea"], every=True)) == [2]


def test_operators_are_words_like_others() -> None:
    assert matching(["red", "do NOT"], expression(["NOT red OR NEAR"], every=False)) == [0, 1]
    assert matching(["text"], expression(['text: "x" ^ *'], every=False)) == [0]


@settings(deadline=None, max_examples=300)
@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=40), st.booleans())
def test_whatever_is_typed_is_no_syntax_error(text: str, every: bool) -> None:
    try:
        match = expression([text], [text], every=every)
    except UsageError as error:
        assert "no word to look for" in str(error)
        assert not any(sign.isalnum() for sign in text)
        return
    matching(["anything"], match)
