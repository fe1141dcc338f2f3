"""What was asked: terms, filters, a page. Pure data and its two written forms; `searching` answers it.

People write a term in a shell as

    a beach           a text                 photo.jpg         a picture file
    2:sunset          with a weight          0.5:photo.jpg     with a weight
    =2:30 pm          literally, as it is    =2:photo.jpg      literally
                                             #12               an image of the collection, by its id
                                             https://...       a picture of the web
                                             photo.jpg@10,20,300,200     a part of it: x, y, width, height

and programs as a `Term`. `to_json` and `from_json` keep a query whole, for saved queries and for HTTP.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from mmsearch.errors import UsageError
from mmsearch.filters import Filters
from mmsearch.types import Kind

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

Match = Literal["vectors", "joint", "keywords", "hybrid"]
Sort = Literal["relevance", "date", "name"]

LIGHTEST = 1e-6  # the smallest weight; its inverse is the largest
MOST_ANSWERS = 10**9
_LARGEST_ID = 2**63 - 1

_WEIGHTED = re.compile(r"(?P<weight>[+-]?[\d.][\d.,eE+-]*|[+-]?(?:nan|inf)):(?P<rest>.*)", re.DOTALL)
_PART = re.compile(r"(?P<picture>.+)@(?P<numbers>[-\d.]+(?:,[-\d.]+){3})", re.DOTALL)
_URL = re.compile(r"https?://", re.IGNORECASE)


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """One part of a query: exactly one of

    text: words or a sentence.
    picture: a path, a URL (http or https), the bytes of a picture file, a Pillow picture, or an array
        (height, width, 3) uint8.
    image: the id of an image of the collection.
    vector: (dimension,) floats in the space that is searched; any length but zero.

    weight: how much it counts beside the others; below zero: look for what is unlike it.
    part: for pictures and images, the part to look at: x, y, width, height, in pixels of the upright picture, or in
        shares of its size where none is above 1.
    """

    text: str | None = None
    picture: str | Path | bytes | Image.Image | NDArray[np.uint8] | None = None
    vector: NDArray[Any] | None = None
    weight: float = 1.0
    image: int | None = None
    part: tuple[float, float, float, float] | None = None

    def __post_init__(self) -> None:
        given = sum(part is not None for part in (self.text, self.picture, self.vector, self.image))
        if given != 1:
            raise UsageError(f"A term is one text, one picture, one image or one vector; this one has {given} of them.")
        if self.text is not None and (not isinstance(self.text, str) or not self.text.strip()):
            raise UsageError('The query text is empty; say what to look for, as in "a red sports car".')
        if self.image is not None:
            check_id(self.image)
        if not _is_number(self.weight) or not LIGHTEST <= abs(self.weight) <= 1 / LIGHTEST:
            raise UsageError(
                f"The weight {self.weight!r} of a term is none; it must be a number other than 0, "
                f"of a size from {LIGHTEST:g} to {1 / LIGHTEST:,.0f}."
            )
        if self.part is not None:
            if len(self.part) != 4 or not all(map(_is_number, self.part)):
                raise UsageError(f"The part {self.part!r} is none: it needs four numbers, x, y, width and height.")
            if self.picture is None and self.image is None:
                raise UsageError("Only pictures have parts; this term is none.")
            x, y, width, height = self.part
            if not all(map(math.isfinite, self.part)) or min(x, y) < 0 or min(width, height) <= 0:
                raise UsageError(f"The part of {self} is none: it needs x, y, width, height, as in @10,20,300,200.")

    @property
    def is_url(self) -> bool:
        return isinstance(self.picture, str) and _URL.match(self.picture) is not None

    def __str__(self) -> str:
        """As people write it, with `not` or `unlike` before what is unwanted."""
        word = ""
        if self.weight < 0:
            word = "not " if self.text is not None else "unlike "
        weight = "" if abs(self.weight) == 1 else f"{abs(self.weight):g}:"
        part = "" if self.part is None else f"@{_numbers(self.part)}"
        return f"{word}{weight}{self._what()}{part}"

    def _what(self) -> str:
        if self.text is not None:
            return self.text
        if self.image is not None:
            return f"#{self.image}"
        if self.is_url:
            return str(self.picture)
        if isinstance(self.picture, str | Path):
            return os.path.basename(self.picture) or str(self.picture)
        return "vector" if self.vector is not None else "picture"


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """What to look for, and which answers to show.

    terms: looked for together. Each kind of term (texts, pictures, vectors) is added up by weight and normalised on
        its own, then the kinds are added: many pictures do not drown one text. Without terms, `filters` alone choose.
    find: `images`, or `captions` for image-to-text and text-to-text. k: how many hits at most, the size of a page.
    offset: how many hits come before this page. filters: decided before the search.
    match: `vectors`; `keywords` for words in captions, names, tags and pictures' own text; `hybrid` for both;
        `joint` for vectors of images with their captions.
    sort: `relevance`, or what is relevant by `date` (newest first) or `name`; what is not follows by relevance. Where
        probabilities are not known, the hundred nearest are sorted.
    min_probability: leave out what is less likely than this (0 to 1).
    more, less: ids of images that were good or bad answers (Rocchio's feedback).
    unique: fold near-duplicates into the best of them. diverse: 0 to 1, how much answers should differ (MMR); 0: off.
    """

    terms: tuple[Term, ...] = ()
    find: Kind = "images"
    k: int = 10
    offset: int = 0
    filters: Filters = field(default_factory=Filters)
    match: Match = "vectors"
    sort: Sort = "relevance"
    min_probability: float | None = None
    more: tuple[int, ...] = ()
    less: tuple[int, ...] = ()
    unique: bool = False
    diverse: float = 0.0

    def __post_init__(self) -> None:
        if self.lists_only and not self.filters and self.sort == "relevance":
            raise UsageError('A query needs at least one text or picture, as in "a red sports car".')
        for name, value, valid in (
            ("find", self.find, get_args(Kind)),
            ("match", self.match, get_args(Match)),
            ("sort", self.sort, get_args(Sort)),
        ):
            if value not in valid:
                raise UsageError(f"Cannot {name} {value!r}; valid are: {', '.join(valid)}.")
        for name, count, least in (("k", self.k, 1), ("the offset", self.offset, 0)):
            if not isinstance(count, int) or not least <= count <= MOST_ANSWERS:
                raise UsageError(f"{name} is {count!r}; it must be a whole number, at least {least} and at most 10^9.")
        for name, share in (("probability", self.min_probability), ("diversity", self.diverse)):
            if share is not None and not (_is_number(share) and 0 <= share <= 1):
                raise UsageError(f"The {name} is {share!r}; it must be from 0 to 1.")
        if not isinstance(self.unique, bool):
            raise UsageError(f"unique is {self.unique!r}; it must be true or false.")
        for image in (*self.more, *self.less):
            check_id(image)
        both = set(self.more) & set(self.less)
        if both:
            raise UsageError(f"The image #{min(both)} was both good and bad; leave it out of one.")
        self._check_together()

    @property
    def lists_only(self) -> bool:
        """Whether nothing is looked for: filters alone choose."""
        return not (self.terms or self.more or self.less)

    def _check_together(self) -> None:
        words = [term for term in self.terms if term.text is not None]
        if self.match == "keywords" and (len(words) < len(self.terms) or self.more or self.less):
            raise UsageError(
                "Keywords are texts: pictures, images and feedback do not go with them; `hybrid` has both."
            )
        if self.match in ("keywords", "hybrid") and not any(term.weight > 0 for term in words):
            raise UsageError('Keywords need a text to look for, as in "red car".')
        if self.match == "joint" and self.find != "images":
            raise UsageError("Joint vectors are of images; they do not find captions.")
        if self.match in ("keywords", "joint") and self.min_probability is not None:
            raise UsageError("A probability is known for vectors alone; leave out the least one, or `match`.")
        if self.find == "captions" and (self.unique or self.diverse):
            raise UsageError("Captions have no near-duplicates; `unique` and `diverse` are for images.")
        if self.diverse and self.sort != "relevance":
            raise UsageError(f"Answers are sorted by {self.sort} or made diverse, not both.")


def as_query(query: str | Term | Query) -> Query:
    """A text, a term or a whole query -> a query. UsageError for anything else."""
    if isinstance(query, str):
        query = Term(text=query)
    if isinstance(query, Term):
        query = Query((query,))
    if not isinstance(query, Query):
        raise UsageError(f"A query is a text, a Term or a Query, not {type(query).__name__}.")
    return query


# --- as people write it -------------------------------------------------------------------------------------------


def text_term(written: str, *, unwanted: bool = False) -> Term:
    """`2:sunset` -> a term. unwanted: what `--not` names. UsageError says where the mistake is."""
    weight, text = _weight(written)
    return Term(text=text, weight=-weight if unwanted else weight)


def picture_term(written: str, *, unwanted: bool = False) -> Term:
    """`0.5:photo.jpg@10,20,300,200` -> a term. unwanted: what `--unlike` names."""
    weight, rest = _weight(written)
    weight = -weight if unwanted else weight
    part = None
    if not written.startswith("=") and (found := _PART.fullmatch(rest)):
        rest = found["picture"]
        try:
            x, y, width, height = map(float, found["numbers"].split(","))
        except ValueError as error:
            raise UsageError(f"{written!r}: @{found['numbers']} is no part; write x,y,width,height.") from error
        part = (x, y, width, height)
    if not rest:
        raise UsageError(f"{written!r} names no picture.")
    if rest.startswith("#") and not written.startswith("="):
        return Term(image=image_id(rest), weight=weight, part=part)
    address = _URL.match(rest) and not written.startswith("=")
    if not address and re.match(r"[a-z][a-z0-9+.-]+://", rest, re.IGNORECASE) and not written.startswith("="):
        raise UsageError(f"{rest!r}: only http:// and https:// addresses are fetched.")
    return Term(picture=rest if address else Path(rest), weight=weight, part=part)


def image_id(written: str) -> int:
    """`#12` or `12` -> 12."""
    digits = written.removeprefix("#")
    if not digits.isascii() or not digits.isdigit() or len(digits) > len(str(_LARGEST_ID)):
        raise UsageError(f"{written[:40]!r} is no image; write its id, as in #12 (`--json` shows them).")
    check_id(int(digits))
    return int(digits)


def check_id(image: object) -> None:
    """UsageError for what cannot be the id of an image."""
    if not isinstance(image, int) or isinstance(image, bool) or not 0 <= image <= _LARGEST_ID:
        raise UsageError(f"{image!r} is no id of an image; it is a whole number, as `--json` shows.")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _weight(written: str) -> tuple[float, str]:
    if written.startswith("="):
        return 1.0, written[1:]
    found = _WEIGHTED.fullmatch(written)
    if not found or found["rest"].startswith("//"):
        return 1.0, written
    try:
        weight = float(found["weight"])
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        raise UsageError(
            f"{written!r}: {found['weight']!r} is no weight; write a number above 0, as in 2:sunset, "
            f"or ={written} for these very words."
        )
    return weight, found["rest"]


def _numbers(part: tuple[float, ...]) -> str:
    return ",".join(f"{number:g}" for number in part)


# --- as programs keep it ------------------------------------------------------------------------------------------


def to_json(query: Query) -> dict[str, Any]:
    """Everything that is not as usual, in plain JSON values. UsageError where a term has no written form."""
    return {"terms": [_term_to_json(term) for term in query.terms], **rest_to_json(query)}


def rest_to_json(query: Query) -> dict[str, Any]:
    """The same without the terms."""
    usual = Query(filters=Filters(has=("date",)))
    kept: dict[str, Any] = {}
    for name in ("find", "k", "offset", "match", "sort", "min_probability", "unique", "diverse"):
        if getattr(query, name) != getattr(usual, name):
            kept[name] = getattr(query, name)
    for name in ("more", "less"):
        if getattr(query, name):
            kept[name] = list(getattr(query, name))
    if query.filters:
        kept["filters"] = query.filters.to_json()
    return kept


def from_json(kept: Mapping[str, Any]) -> Query:
    """What `to_json` gave -> the query. UsageError for keys and values that are not known."""
    if not isinstance(kept, Mapping):
        raise UsageError("A query is a JSON object.")
    _check_keys("query", kept, {one.name for one in fields(Query)})
    values = dict(kept)
    for name in ("terms", "more", "less"):
        given = kept.get(name, [])
        if not isinstance(given, list | tuple):
            raise UsageError(f"The {name} of a query are a list, not {given!r}.")
        values[name] = tuple(map(_term_from_json, given)) if name == "terms" else tuple(given)
    filters = kept.get("filters", {})
    if not isinstance(filters, Mapping):
        raise UsageError(f"The filters of a query are an object, not {filters!r}.")
    values["filters"] = Filters.from_json(filters)
    return Query(**values)


def _term_to_json(term: Term) -> dict[str, Any]:
    kept: dict[str, Any]
    if term.text is not None:
        kept = {"text": term.text}
    elif term.image is not None:
        kept = {"image": term.image}
    elif isinstance(term.picture, str | Path):
        kept = {"picture": term.picture if term.is_url else os.path.abspath(Path(term.picture).expanduser())}
    else:
        raise UsageError("Only texts, picture files, URLs and images of the collection can be kept in a query.")
    if term.weight != 1:
        kept["weight"] = term.weight
    if term.part is not None:
        kept["part"] = list(term.part)
    return kept


def _term_from_json(kept: Any) -> Term:
    if not isinstance(kept, Mapping):
        raise UsageError('A term is a JSON object, as in {"text": "a beach"}.')
    _check_keys("term", kept, {"text", "picture", "image", "weight", "part"})
    values = dict(kept)
    for name, kind in (("text", str), ("picture", str), ("part", list)):
        if name in kept and not isinstance(kept[name], kind):
            raise UsageError(f"The {name} of a term cannot be {kept[name]!r}.")
    if "part" in kept:
        values["part"] = tuple(kept["part"])
    return Term(**values)


def _check_keys(what: str, kept: Mapping[str, Any], valid: set[str]) -> None:
    unknown = sorted(map(str, set(kept) - valid))
    if unknown:
        raise UsageError(f"A {what} has no {', '.join(unknown)}; valid are: {', '.join(sorted(valid))}.")
