"""The options of a query, declared once for all commands that take one: `query`, `save`, `why`."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmsearch.errors import UsageError
from mmsearch.filters import Filters, Orientation, parse_date, parse_near
from mmsearch.query import Match, Query, Sort, Term, image_id, picture_term, text_term
from mmsearch.settings import Limits
from mmsearch.types import Kind

if TYPE_CHECKING:
    from mmsearch.engine import Engine

DIVERSITY = 0.5  # half relevance, half novelty


@dataclass(frozen=True, slots=True)
class Asked:
    """What the options of a query say. saved: names of saved queries that it begins with (`@NAME`). given: the names of
    the values that were really given, and are not just as usual."""

    saved: tuple[str, ...]
    values: Mapping[str, Any]
    given: frozenset[str]

    def query(self, engine: Engine) -> Query:
        """The whole query: what was saved, with everything that is given beside it added or in its place."""
        if not self.saved:
            return Query(**self.values)
        if len(self.saved) > 1:
            raise UsageError(f"One saved query at a time; these are {len(self.saved)}: {', '.join(self.saved)}.")
        kept = engine.saved_query(self.saved[0])
        changed: dict[str, Any] = {}
        for name, value in self.values.items():
            if name in ("terms", "more", "less"):
                changed[name] = (*getattr(kept, name), *value)
            elif name == "filters":
                given = {one.name: getattr(value, one.name) for one in fields(Filters)}
                given = {key: one for key, one in given.items() if one not in ((), None)}
                changed[name] = replace(kept.filters, **given)
            elif name in self.given:
                changed[name] = value
        return replace(kept, **changed)


def asks(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command with a parameter `asked: Asked` -> one with all options of a query in its place, in Typer's eyes."""
    own = inspect.signature(command, eval_str=True).parameters
    shared = inspect.signature(_asked, eval_str=True).parameters

    @wraps(command)
    def run(**given: Any) -> Any:
        asked = _asked(**{name: given.pop(name) for name in shared})
        return command(asked=asked, **given)

    parameters: list[inspect.Parameter] = []
    for name, parameter in own.items():
        parameters += shared.values() if name == "asked" else [parameter]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _asked(
    texts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TEXT...",
            help="What to look for; put a sentence in quotes. `2:sunset` counts double, `=2:30` is meant literally, "
            "@NAME is a saved query.",
        ),
    ] = None,
    unwanted: Annotated[
        list[str] | None, typer.Option("--not", metavar="TEXT", help="What should not be there. Can be repeated.")
    ] = None,
    like: Annotated[
        list[str] | None,
        typer.Option(
            "--like",
            metavar="PICTURE",
            help="Find what resembles a picture: a file, a URL, - for stdin, #12 for an indexed image; "
            "0.5:photo.jpg counts half, photo.jpg@10,20,300,200 is a part of it (x,y,width,height). Can be repeated.",
        ),
    ] = None,
    unlike: Annotated[
        list[str] | None,
        typer.Option("--unlike", metavar="PICTURE", help="Find what does not resemble it. Can be repeated."),
    ] = None,
    more: Annotated[
        list[str] | None, typer.Option("--more", metavar="ID", help="A good answer: more like it. Can be repeated.")
    ] = None,
    less: Annotated[
        list[str] | None, typer.Option("--less", metavar="ID", help="A bad answer: less like it. Can be repeated.")
    ] = None,
    find: Annotated[Kind, typer.Option("--find", help="Find pictures, or the captions of pictures.")] = "images",
    keywords: Annotated[
        bool, typer.Option("--keywords", help="By words alone: in captions, names, tags, text inside pictures.")
    ] = False,
    hybrid: Annotated[bool, typer.Option("--hybrid", help="By meaning and by words, both together.")] = False,
    joint: Annotated[bool, typer.Option("--joint", help="By meaning of a picture and its captions as one.")] = False,
    inside: Annotated[
        list[str] | None, typer.Option("--in", metavar="DIR", help="Only in this folder and below. Can be repeated.")
    ] = None,
    after: Annotated[
        str | None, typer.Option("--after", metavar="DATE", help="Taken then or later: 2024, 2024-05, 2024-05-31.")
    ] = None,
    before: Annotated[str | None, typer.Option("--before", metavar="DATE", help="Taken earlier than that.")] = None,
    camera: Annotated[
        list[str] | None,
        typer.Option("--camera", metavar="NAME", help="Taken with it; a part is enough. Can be repeated."),
    ] = None,
    near: Annotated[
        str | None, typer.Option("--near", metavar="LAT,LON,KM", help="Taken near there, as in 48.86,2.35,20.")
    ] = None,
    min_width: Annotated[int | None, typer.Option("--min-width", metavar="N", help="Pixels at least.")] = None,
    min_height: Annotated[int | None, typer.Option("--min-height", metavar="N", help="Pixels at least.")] = None,
    orientation: Annotated[Orientation | None, typer.Option("--orientation", help="How it lies.")] = None,
    formats: Annotated[
        list[str] | None, typer.Option("--format", metavar="NAME", help="JPEG, PNG, ... Can be repeated.")
    ] = None,
    tags: Annotated[
        list[str] | None, typer.Option("--tag", metavar="NAME", help="Has this tag. Can be repeated: all of them.")
    ] = None,
    has: Annotated[
        list[str] | None,
        typer.Option("--has", metavar="WHAT", help="Has this: caption, gps, date, tag, text. Can be repeated."),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option("--where", metavar="CONDITION", help="Any condition: \"width >= 1920 and camera like 'Canon%'\"."),
    ] = None,
    min_probability: Annotated[
        float | None, typer.Option("--min-probability", metavar="P", help="Only what is as likely as this, 0 to 1.")
    ] = None,
    sort: Annotated[Sort, typer.Option("--sort", help="The order of what is relevant.")] = "relevance",
    unique: Annotated[bool, typer.Option("--unique", help="Fold near-duplicates into one answer.")] = False,
    diverse: Annotated[bool, typer.Option("--diverse", help="Answers that differ from one another.")] = False,
    k: Annotated[int, typer.Option("-k", min=1, metavar="N", help="How many answers at most: a page.")] = 10,
    offset: Annotated[int, typer.Option("--offset", min=0, metavar="N", help="Leave out the first N answers.")] = 0,
    context: typer.Context = None,  # type: ignore[assignment] # Typer hands it over
) -> Asked:
    ways: tuple[tuple[Match, bool], ...] = (("keywords", keywords), ("hybrid", hybrid), ("joint", joint))
    matches = [name for name, wanted in ways if wanted]
    if len(matches) > 1:
        raise UsageError(f"--{matches[0]} and --{matches[1]} do not go together; choose one.")
    saved = tuple(text[1:] for text in texts or () if text.startswith("@"))
    terms = [text_term(text) for text in texts or () if not text.startswith("@")]
    terms += [text_term(text, unwanted=True) for text in unwanted or ()]
    if [*(like or ()), *(unlike or ())].count("-") > 1:
        raise UsageError("stdin holds one picture; - can be given once.")
    terms += [_picture(written, unwanted=False) for written in like or ()]
    terms += [_picture(written, unwanted=True) for written in unlike or ()]
    filters = Filters(
        inside=tuple(map(Path, _folders(inside or ()))),
        after=None if after is None else parse_date(after),
        before=None if before is None else parse_date(before),
        camera=tuple(camera or ()),
        near=None if near is None else parse_near(near),
        min_width=min_width,
        min_height=min_height,
        orientation=orientation,
        format=tuple(formats or ()),
        tags=tuple(tags or ()),
        has=tuple(has or ()),  # type: ignore[arg-type] # Filters says what is valid
        where=where,
    )
    values: dict[str, Any] = {
        "terms": tuple(terms),
        "find": find,
        "k": k,
        "offset": offset,
        "filters": filters,
        "match": matches[0] if matches else "vectors",
        "sort": sort,
        "min_probability": min_probability,
        "more": tuple(map(image_id, more or ())),
        "less": tuple(map(image_id, less or ())),
        "unique": unique,
        "diverse": DIVERSITY if diverse else 0.0,
    }
    if not saved:
        Query(**values)  # whatever is wrong with it is said before anything is opened
    named = {"find", "k", "offset", "sort", "min_probability", "unique", "diverse"}
    options = {name: (name,) for name in named} | {"match": ("keywords", "hybrid", "joint")}
    given = {name for name, of in options.items() if any(_is_given(context, one) for one in of)}
    return Asked(saved, values, frozenset(given))


def _is_given(context: typer.Context, option: str) -> bool:
    source = context.get_parameter_source(option)
    return source is not None and source.name == "COMMANDLINE"


def _folders(written: Sequence[str]) -> Sequence[str]:
    if not all(one.strip() for one in written):
        raise UsageError("--in names no folder; . is the one you are in.")
    return written


def _picture(written: str, *, unwanted: bool) -> Term:
    """`-` stands for stdin, also with a weight or a part."""
    term = picture_term(written, unwanted=unwanted)
    if term.picture != Path("-") or written.startswith("="):
        return term
    limit = int(Limits().max_megabytes * 1e6)
    content = sys.stdin.buffer.read(limit + 1)
    if not content:
        raise UsageError("There is no picture on stdin; pipe one in, as in `mmsearch query --like - < photo.jpg`.")
    if len(content) > limit:
        raise UsageError(f"The picture on stdin has more than {Limits().max_megabytes:g} MB.")
    return replace(term, picture=content)
