"""`mmsearch tag`: labels on pictures, by zero-shot classification or by hand."""

from __future__ import annotations

from typing import Annotated

import typer

from mmsearch.cli import options
from mmsearch.cli.console import on_terminal, say, show_json, show_table, warn
from mmsearch.cli.exits import Exit
from mmsearch.cli.interrupt import polite_interrupt
from mmsearch.cli.progress import progress_shown
from mmsearch.errors import UsageError
from mmsearch.query import image_id
from mmsearch.render import json, report, table
from mmsearch.render.text import count

_LABELS_SHOWN = 20  # on a terminal; a pipe and JSON get all

EXAMPLES = """\b
Examples:
  mmsearch tag --dry-run
  mmsearch tag
  mmsearch tag ~/Pictures/2024 --labels mine.txt
  mmsearch tag photo.jpg "#12" --add holiday
  mmsearch tag ~/Pictures/old --remove draft
  mmsearch tag --list
"""


def add_to(app: typer.Typer) -> None:
    app.command("tag", short_help="Give pictures labels.", epilog=EXAMPLES)(tag)


def tag(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH...",
            help="Files and folders of the collection, or #12 for an image by its id. "
            "Without one: the whole collection.",
        ),
    ] = None,
    labels: options.LabelFile = None,
    min_probability: Annotated[
        float | None,
        typer.Option(
            "--min-probability",
            min=0,
            max=1,
            metavar="P",
            help="Give a label where it is at least this probable (0 to 1). Without it: 0.5.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would change; files that are not indexed can be named, too.")
    ] = False,
    add: Annotated[
        list[str] | None, typer.Option("--add", metavar="NAME", help="Give this tag by hand. Can be repeated.")
    ] = None,
    remove: Annotated[
        list[str] | None, typer.Option("--remove", metavar="NAME", help="Take this tag away. Can be repeated.")
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="Print all tags, and how many pictures have each.")] = False,
    as_json: options.AsJson = False,
    model: options.Model = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    collection: options.Collection = None,
) -> Exit:
    """Give pictures labels by what they show, and find them with `query --tag`.

    Each label of a list is decided by itself: a picture gets all that are probable enough, or none. Running it again
    replaces what it gave before for the same labels. Tags given by hand (--add) are never touched by that.

    `--labels FILE` has one label a line, or `label,prompt` to say it in your own words; `#` begins a remark.
    """
    by_hand = bool(add or remove)
    zero_shot = bool(labels or min_probability is not None or dry_run)
    if listed and (paths or by_hand or zero_shot):
        raise UsageError("--list goes alone; it prints the tags of the whole collection.")
    if by_hand and zero_shot:
        raise UsageError("--add and --remove are by hand; they do not go with --labels, --min-probability, --dry-run.")
    both = {name.casefold() for name in add or ()} & {name.casefold() for name in remove or ()}
    if both:
        raise UsageError(f"{min(both)!r} is to be added and removed; choose one.")
    if by_hand and not paths:
        raise UsageError("--add and --remove need a PATH: files or folders of the collection, or #12.")
    from mmsearch.engine import Engine

    images = [image_id(path) if path.startswith("#") else path for path in paths or ()]
    with Engine.open(collection, model=model, device=device, precision=precision, create=False) as engine:
        if listed:
            tags = engine.tags()
            if as_json:
                show_json({"tags": tags})
            elif tags:
                show_table(table.tags_table(tags))
            else:
                warn("no picture has a tag yet; `mmsearch tag` gives them some.")
            return Exit.DONE if tags else Exit.NOTHING_FOUND
        if by_hand:
            # First what may be refused: a tag that is not there.
            removed = engine.remove_tags(images, remove) if remove else 0
            added = engine.add_tags(images, add) if add else 0
            if as_json:
                show_json({"added": added, "removed": removed})
            else:
                say(f"{count(added, 'tag')} added, {removed:,} removed")
            return Exit.DONE
        with polite_interrupt() as interrupt, progress_shown() as on_progress:
            found = engine.tag(
                labels,
                images=images or None,
                min_probability=min_probability,
                dry_run=dry_run,
                on_progress=on_progress,
                cancel=interrupt.asked,
            )
    if as_json:
        show_json(json.tag_report(found))
    else:
        for picture in found.pictures:
            say(report.labelled(picture))
        shown = found.counts[:_LABELS_SHOWN] if on_terminal() else found.counts
        if found.images > len(found.pictures):
            show_table(table.label_counts_table(shown))
            if len(found.counts) > len(shown):
                warn(f"and {count(len(found.counts) - len(shown), 'more label')}; --json has them all.")
        say(report.tag_report(found))
    if found.left_out:
        left = count(found.left_out, "picture has", "pictures have")
        warn(f"{left} no vector of {found.space}; `mmsearch index` makes it.")
    if found.cancelled:
        warn("stopped early; what was tagged is kept, and the same command goes on from there.")
        return interrupt.code
    return Exit.DONE
