"""Why an image is found, or why not: its rank, each term's share, what filters it out, or why it failed.

In: an image, by its id or a path of one of its files, and a query. Out: an `Explanation`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

from sqlalchemy import Connection

from mmsearch import files
from mmsearch.catalog import places, read, where
from mmsearch.catalog.catalog import Catalog
from mmsearch.encoders.protocol import Encoder
from mmsearch.errors import UsageError
from mmsearch.filters import Filters
from mmsearch.query import Query, check_id
from mmsearch.roots import real_place
from mmsearch.searching import search
from mmsearch.settings import Limits
from mmsearch.types import Hit
from mmsearch.views import View

State = Literal["found", "filtered", "folded", "unlikely", "no match", "not encoded", "failed", "missing", "unknown"]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What became of one image in a query.

    state: found; filtered (by `filtered_by`); folded (into the near-duplicate `hit`, with unique); unlikely (below
    min_probability); no match (keywords that it does not have); not encoded (no vector in the space); failed (could
    not be indexed: `reason`); missing (gone from its folder); unknown (no run has seen it).
    path: the file that was asked about. id: its image. hit: as `search` gives it, its rank counted over all answers.
    answers: how many there are. relevant: how many of them are; None where that is not known. filtered_by: the names
    of the filters that it does not satisfy.
    """

    state: State
    path: Path | None
    id: int | None
    hit: Hit | None = None
    answers: int | None = None
    filtered_by: tuple[str, ...] = ()
    reason: str | None = None
    relevant: int | None = None


def explain(
    catalog: Catalog,
    view: View | None,
    encoder: Encoder | None,
    query: Query,
    image: int | str | os.PathLike[str],
    limits: Limits,
) -> Explanation:
    """See `Engine.why`."""
    path = None if isinstance(image, int) else real_place(image)
    if path is not None and path.is_dir():
        raise UsageError(f"{path} is a folder; name a picture, or #12 for an image by its id.")
    filters = query.filters.tree()
    with catalog.reading() as connection:
        if filters is not None:
            where.check(connection, filters)
        if isinstance(image, int):
            check_id(image)
            if not read.existing_images(connection, [image]):
                raise UsageError(f"There is no image #{image} in this collection; `mmsearch query --json` shows ids.")
            known: int | None = image
            status, reason = "ok", None
            if image not in read.present_files(connection, [image]):
                status = "missing"
        else:
            assert path is not None
            found = places.file_at(connection, os.fsencode(path))
            if found is None:
                return Explanation("unknown", path, None, reason=_why_unknown(connection, path))
            known, status, reason = found
        if status == "failed":
            return Explanation("failed", path, known, reason=reason)
        if status == "missing":
            why = "it is gone from its folder; it is found again once it is back and indexed"
            return Explanation("missing", path, known, reason=why)
        assert known is not None
        filtered = _filtered_by(connection, query.filters, known)
    if filtered:
        return Explanation("filtered", path, known, filtered_by=filtered)
    if view is None:
        why = "the collection has no vectors yet; `mmsearch index` makes them"
        return Explanation("not encoded", path, known, reason=why)
    return _among_answers(catalog, view, encoder, query, path, known, limits)


def _among_answers(
    catalog: Catalog,
    view: View,
    encoder: Encoder | None,
    query: Query,
    path: Path | None,
    image: int,
    limits: Limits,
) -> Explanation:
    """Where the image comes in the whole list of answers."""
    with catalog.reading() as connection:
        encoded = any(len(one.row) for one in read.owned(connection, view.space.id, "images", [image]))
        everything = max(1, read.count_images(connection), read.count_captions(connection))
    whole = search(catalog, view, encoder, replace(query, k=everything, offset=0), limits)
    hit = next((one for one in whole if one.id == image), None)
    if hit is not None:
        return Explanation("found", path, image, hit, len(whole), relevant=whole.relevant)
    head = next((one for one in whole if any(other.id == image for other in one.folded)), None)
    if head is not None:
        return Explanation("folded", path, image, head, len(whole))
    if not encoded and query.match != "keywords":
        why = f"it has no vector of {view.space.encoder} yet; `mmsearch index` makes it"
        return Explanation("not encoded", path, image, answers=len(whole), reason=why)
    if query.min_probability is not None:
        every = search(catalog, view, encoder, replace(query, k=everything, offset=0, min_probability=None), limits)
        hit = next((one for one in every if one.id == image), None)
        return Explanation("unlikely", path, image, hit, len(whole))
    why = "it has not all the words" if query.match == "keywords" else "it has no captions"
    return Explanation("no match", path, image, answers=len(whole), reason=why)


def _filtered_by(connection: Connection, filters: Filters, image: int) -> tuple[str, ...]:
    """The filters that an image does not satisfy, each by itself; all of them where only together they leave it out."""
    given = [one.name for one in fields(filters) if getattr(filters, one.name) not in ((), None)]
    usual = Filters()
    failing = []
    for name in given:
        alone = replace(usual, **{name: getattr(filters, name)})
        if image not in read.present_files(connection, [image], alone.tree()):
            failing.append(name)
    if not failing and given and image not in read.present_files(connection, [image], filters.tree()):
        return tuple(given)
    return tuple(failing)


def _why_unknown(connection: Connection, path: Path) -> str:
    if not path.exists():
        return "there is no such file, and no run has seen one"
    roots = [Path(os.fsdecode(root.path)) for root in read.roots(connection)]
    if not any(path.is_relative_to(root) for root in roots):
        return f"its folder does not belong to the collection; `mmsearch index {path.parent}` adds it"
    try:
        if path.is_file() and not files.sniff(path):
            return "it is no picture"
    except OSError as error:
        return f"it cannot be read: {files.reason(error)}"
    return "no run has seen it yet, or an ignore rule leaves it out; `mmsearch index` looks again"
