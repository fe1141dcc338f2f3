"""A label in words: the sentences that stand for it before a text tower. Pure, English.

In: a name as people write it in a list, `apple`, `trousers`, `playing in the snow`. Out: the templates filled with it,
with the article or the plural that it takes: "a photo of an apple", "a photo of several apples".

A text tower has learned sentences, so a bare word lies beside what it knows; the mean over several sentences lies
nearer to the middle of what they share (prompt ensembling, Radford 2021). The templates are our own; they were chosen
on the words of Flickr8k dev, and benchmarks/tagging.md has their gain.
"""
# ruff: noqa: SIM905 (words read better as words)

from __future__ import annotations

import re

# {a}: with its article, where it takes one. {many}: in the plural, where it has one. {}: as it stands.
TEMPLATES = (
    "a photo of {a}",
    "a picture of {a}",
    "a close-up of {a}",
    "a drawing of {a}",
    "a coloured drawing of {a}",
    "a painting of {a}",
    "a scene with {a}",
    "a photo of several {many}",
    "there is {a} here",
    "{a} can be seen",
    "a large {}",
    "someone with {a}",
)

_DETERMINED = frozenset("a an the my your his her its our their some any this that two three four five".split())
_UNCOUNTED = frozenset(
    "art bacon badminton ballet bamboo baseball basketball beef bread broccoli butter calligraphy candy cereal cheese "
    "chess chocolate christmas clothing coffee coral corn cricket earth fabric food football fruit furniture garlic "
    "glass golf graffiti grass ham handwriting hockey honey ice jam lavender lettuce lightning luggage marble meat "
    "metal milk money moss mud music nature paper pasta pepper popcorn rain rice rubbish rugby sand smoke snow soap "
    "spaghetti spinach sport steel sugar sushi tea tennis text traffic underwater volleyball water wheat wine wood "
    "yoga".split()
) | {"american football", "sheet music", "stained glass", "table tennis"}
_THINGS_IN_ING = frozenset(
    "building ceiling clothing crossing drawing dumpling earring evening king lightning morning painting pudding "
    "railing ring sibling spring sting string swing thing wedding wing".split()
)
_IRREGULAR = {
    "child": "children", "foot": "feet", "goose": "geese", "leaf": "leaves", "knife": "knives", "mouse": "mice",
    "person": "people", "shelf": "shelves", "tooth": "teeth", "wife": "wives", "wolf": "wolves", "calf": "calves",
    "deer": "deer", "fish": "fish", "goldfish": "goldfish", "jellyfish": "jellyfish", "moose": "moose",
    "potato": "potatoes", "sheep": "sheep", "shrimp": "shrimp", "squid": "squid", "starfish": "starfish",
    "tomato": "tomatoes", "volcano": "volcanoes",
}  # fmt: skip
_PLURALS = frozenset(_IRREGULAR.values()) - frozenset(_IRREGULAR) | {"pyjamas"}
_SINGULAR_ENDINGS = ("ss", "us", "is", "as", "ceros")
_AFTER_THE_NOUN = re.compile(r" (?:of|with|in|on|at|from|for|to|into|under|over|\w+ing (?:a|an|the|in|on|at|with)) ")
_ACTIVITY = re.compile(r"\w+ing (?:a|an|the|in|on|at|to|with|by|through|over|\w+ly) ")
_LATIN = re.compile("[a-z\u00df-\u024f-]+")
_SOUNDS_LIKE_A_CONSONANT = re.compile(r"(?:uni(?!n)|use|usu|ufo|eu|one\b)", re.IGNORECASE)
_SOUNDS_LIKE_A_VOWEL = re.compile(r"[aeiou]|hour|honest|heir|x-ray|[fhlmnrsx]\b", re.IGNORECASE)


def prompts(name: str) -> list[str]:
    """The sentences of a label, one a template."""
    with_article, many = article(name), plural(name)
    return [t.replace("{a}", with_article).replace("{many}", many).replace("{}", name) for t in TEMPLATES]


def article(name: str) -> str:
    """`apple` -> "an apple"; what takes no article as it is: `trousers`, `rice`, `swimming`, `the sea`."""
    if not _is_countable(name):
        return name
    vowel = _SOUNDS_LIKE_A_VOWEL.match(name) and not _SOUNDS_LIKE_A_CONSONANT.match(name)
    return f"{'an' if vowel else 'a'} {name}"


def plural(name: str) -> str:
    """`group of friends` -> "groups of friends"; what has no plural, or is one, as it is."""
    if not _is_countable(name):
        return name
    noun = _noun(name)
    return _plural_of(noun) + name[len(noun) :]


def _is_countable(name: str) -> bool:
    noun = _noun(name).lower()
    words = noun.split()
    if not words or words[0] in _DETERMINED or not _LATIN.fullmatch(words[-1]):
        return False
    last = words[-1]
    activity = (last.endswith("ing") and last not in _THINGS_IN_ING) or _ACTIVITY.match(name.lower() + " ")
    several = last in _PLURALS or (last.endswith("s") and not last.endswith(_SINGULAR_ENDINGS))
    return not activity and not several and noun not in _UNCOUNTED and not last.endswith(("men", "people"))


def _noun(name: str) -> str:
    """The part before what is said about it: `city at night` -> "city"."""
    return _AFTER_THE_NOUN.split(name, maxsplit=1)[0]


def _plural_of(noun: str) -> str:
    start, _, last = noun.rpartition(" ")
    space = " " if start else ""
    low = last.lower()
    if low in _IRREGULAR:
        ending = _IRREGULAR[low]
    elif low.endswith("man") and low not in ("human", "german", "roman"):
        ending = last[:-3] + "men"
    elif low.endswith(("s", "x", "z", "ch", "sh")):
        ending = last + "es"
    elif low.endswith("y") and low[-2:-1] not in "aeiou":
        ending = last[:-1] + "ies"
    else:
        ending = last + "s"
    return start + space + ending
