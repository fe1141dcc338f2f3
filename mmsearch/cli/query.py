"""`mmsearch query`: pictures by meaning."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from mmsearch.cli import options
from mmsearch.cli.asking import Asked, asks
from mmsearch.cli.console import on_terminal, say, show_json, show_raw, show_table, warn
from mmsearch.cli.exits import Exit
from mmsearch.errors import UsageError
from mmsearch.query import Query
from mmsearch.render import json, table
from mmsearch.render.cutoff import summary
from mmsearch.settings import Limits
from mmsearch.types import Hit, SearchResult

EXAMPLES = """\b
Examples:
  mmsearch query "a red sports car"
  mmsearch query "a beach" 2:sunset --not people
  mmsearch query "snow" --like 0.5:holiday.jpg
  mmsearch query --like "#12" --more 7 --less 3
  mmsearch query --like holiday.jpg --find captions
  mmsearch query "a dog" --in ~/Pictures --after 2024-05
  mmsearch query --where "width >= 1920" --sort date
  mmsearch query penguin -0 | xargs -0 cp -t /tmp
  mmsearch query penguin --html penguins.html --open
"""


def add_to(app: typer.Typer) -> None:
    app.command("query", short_help="Find pictures by what they show.", epilog=EXAMPLES)(query)


@asks
def query(
    asked: Asked,
    explain: Annotated[bool, typer.Option("--explain", help="Say what each term has to do with an answer.")] = False,
    expand: Annotated[bool, typer.Option("--expand", help="With --unique: list what was folded, too.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 1 when nothing is relevant.")] = False,
    as_json: options.AsJson = False,
    paths: Annotated[bool, typer.Option("--paths", help="Print paths alone, one a line.")] = False,
    null: Annotated[
        bool, typer.Option("--null", "-0", help="Print paths alone, each ended by a NUL byte: for xargs -0.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write the answers as a page with pictures.")
    ] = None,
    opened: Annotated[bool, typer.Option("--open", help="Look at the answers in the browser.")] = False,
    preview: Annotated[bool, typer.Option("--preview", help="Show the pictures in the terminal.")] = False,
    allow_private: options.AllowPrivate = False,
    model: options.Model = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    collection: options.Collection = None,
) -> Exit:
    """Find pictures by what they show.

    Texts and pictures are looked for together; what is relevant comes first, and a line shows where that ends. Filters
    are decided before the search, so that they never cost answers; without a text or picture they list what there is.

    Through a pipe an answer is one line of rank, score and path (for captions: rank, score, caption, path), separated
    by tabs. The exit code is 1 when nothing was found.
    """
    from mmsearch.engine import Engine

    if as_json and (paths or null):
        raise UsageError("--json and --paths do not go together; the JSON has the paths.")
    if explain and (paths or null):
        raise UsageError("--explain and --paths do not go together; paths alone explain nothing.")
    if expand and not (asked.values["unique"] or asked.saved):
        raise UsageError("--expand lists what --unique folded; give both.")
    if preview:
        from mmsearch.cli import seeing

        seeing.check_terminal()
    limits = Limits(private_addresses=allow_private)
    with Engine.open(
        collection, model=model, device=device, precision=precision, limits=limits, create=False
    ) as engine:
        question = asked.query(engine)
        result = engine.search(question)
    if result.notice:
        warn(result.notice)
    if as_json:
        show_json(json.search_result(result))
    elif paths or null:
        show_raw(_paths(result, expand, b"\0" if null else b"\n"))
    elif preview:
        from mmsearch.cli import seeing

        seeing.preview(result)
    elif result.hits and not (html or opened):
        _show(result, question, explain=explain, expand=expand)
    if html or opened:
        from mmsearch.cli import seeing

        if html:
            seeing.write_gallery(html, result, title(question))
        if opened:
            seeing.open_gallery(result, title(question), html)
    if not result.hits:
        warn(_nothing(question))
        return Exit.NOTHING_FOUND
    if result.relevant == 0:
        if not as_json and question.offset:
            warn("nothing on this page is relevant; what is comes on earlier ones.")
        elif not as_json:
            warn("nothing here seems to match; these are the nearest.")
        if strict:
            return Exit.NOTHING_FOUND
    return Exit.DONE


def title(query: Query) -> str:
    """The query in a line, as people write it; of filters alone, what they say."""
    terms = [*map(str, query.terms), *(f"more #{one}" for one in query.more), *(f"less #{one}" for one in query.less)]
    if terms:
        return ", ".join(terms)
    return ", ".join(f"{name} {written(value)}" for name, value in query.filters.to_json().items())


def written(value: object) -> str:
    """A value of a filter in a line."""
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _show(result: SearchResult, query: Query, *, explain: bool, expand: bool) -> None:
    base = Path.cwd() if on_terminal() else None
    show_table(table.hits_table(result, base, explain=explain, expand=expand))
    if not on_terminal():
        return
    if result.relevant:
        rough = ", as far as this collection itself can tell" if result.calibration == "collection" else ""
        say(f"{summary(result)}{rough}")
    words = [term.text for term in query.terms if term.text is not None and term.weight == 1]
    if len(words) == len(query.terms) > 1 and not any(" " in word for word in words):
        warn(f"these are the answers to {len(words)} texts together; quotes make them one sentence.")


def _nothing(query: Query) -> str:
    what = "pictures" if query.find == "images" else "captions"
    if query.offset:
        return f"nothing found: there are no more than {query.offset:,} answers."
    if query.min_probability is not None:
        return f"nothing found that is as likely as {query.min_probability:g}."
    if query.match == "keywords":
        return f"nothing found: no {what} have all these words{' and satisfy the filters' if query.filters else ''}."
    if query.filters:
        return f"nothing found: no {what} satisfy the filters."
    return f"nothing found: the collection has no {what} yet; `mmsearch index --help` says how to add some."


def _paths(hits: Iterable[Hit], expand: bool, end: bytes) -> bytes:
    """The bytes of the file names as the file system has them."""
    every = (one for hit in hits for one in (hit, *(hit.folded if expand else ())))
    return b"".join(os.fsencode(hit.path) + end for hit in every if hit.path is not None)
