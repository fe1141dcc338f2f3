"""Labels in words: articles, plurals, templates; worked by hand."""

from __future__ import annotations

import pytest

from mmsearch.labels import read_labels
from mmsearch.wording import TEMPLATES, article, plural, prompts


@pytest.mark.parametrize(
    ("name", "with_article", "many"),
    [
        ("apple", "an apple", "apples"),
        ("car", "a car", "cars"),
        ("unicorn", "a unicorn", "unicorns"),
        ("hour", "an hour", "hours"),
        ("x-ray", "an x-ray", "x-rays"),
        ("umbrella", "an umbrella", "umbrellas"),
        ("trousers", "trousers", "trousers"),
        ("people", "people", "people"),
        ("dress", "a dress", "dresses"),
        ("bus", "a bus", "buses"),
        ("church", "a church", "churches"),
        ("city at night", "a city at night", "cities at night"),
        ("group of friends", "a group of friends", "groups of friends"),
        ("police officer", "a police officer", "police officers"),
        ("woman", "a woman", "women"),
        ("child", "a child", "children"),
        ("computer mouse", "a computer mouse", "computer mice"),
        ("sheep", "a sheep", "sheep"),
        ("rice", "rice", "rice"),
        ("wine glass", "a wine glass", "wine glasses"),
        ("swimming", "swimming", "swimming"),
        ("building", "a building", "buildings"),
        ("playing in the snow", "playing in the snow", "playing in the snow"),
        ("living room", "a living room", "living rooms"),
        ("the sea", "the sea", "the sea"),
        ("an old door", "an old door", "an old door"),
        ("2 cats", "2 cats", "2 cats"),
        ("東京", "東京", "東京"),
        ("4x4", "4x4", "4x4"),
    ],
)
def test_articles_and_plurals(name: str, with_article: str, many: str) -> None:
    assert (article(name), plural(name)) == (with_article, many)


def test_prompts_fill_each_template() -> None:
    made = prompts("apple")
    assert len(made) == len(TEMPLATES) == len(set(made)) >= 8
    assert {"a photo of an apple", "a drawing of an apple", "a photo of several apples", "a large apple"} <= set(made)
    assert not any("{" in sentence for sentence in made)


def test_every_included_label_reads_well() -> None:
    labels = read_labels()
    assert 650 <= len(labels) <= 800
    for label in labels:
        assert label.name == label.name.lower().strip()
        assert not any(wrong in sentence for sentence in label.prompts for wrong in (" a a ", " an an ", "  ", "sss"))
