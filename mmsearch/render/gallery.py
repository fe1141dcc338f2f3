"""Hits -> one HTML page that needs nothing else: small pictures inside, no script, nothing fetched.

In: the result of a search. Out: the page as text (`gallery`), written beside its place and then moved there (`write`).
The layout is in gallery.html, its looks in gallery.css; both end up in the page, and its Content-Security-Policy lets
in nothing but them and pictures inside the page.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import secrets
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from mmsearch import files
from mmsearch.decode import decode
from mmsearch.errors import PictureError, UsageError
from mmsearch.render.cutoff import cut_off, summary
from mmsearch.render.text import printable
from mmsearch.settings import Limits
from mmsearch.types import Hit, SearchResult, Share

# Sharp at the width of a tile on common screens, and about 15 KB.
THUMBNAIL_SIDE = 400
_WEBP_QUALITY = 78
# In the first line of each page: only such files are ever overwritten.
_MARK = "<!doctype html><!-- mmsearch gallery -->"


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small picture as a data: URI with its size in pixels; or the reason why there is none."""

    uri: str = ""
    width: int = 0
    height: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Bar:
    """A term's share of a score, drawn from `start` over `length`, in percent of the room there is."""

    term: str
    score: float
    start: float
    length: float


@dataclass(frozen=True, slots=True)
class Tile:
    """A hit as the page shows it. All texts are one line and safe to print; the template escapes them."""

    hit: Hit
    name: str
    folder: str
    link: str
    key: str
    thumbnail: Thumbnail
    caption: str
    copies: tuple[tuple[str, str], ...]
    bars: tuple[Bar, ...]
    folded: tuple[Tile, ...]


def gallery(result: SearchResult, *, title: str, limits: Limits | None = None) -> str:
    """The page. title: the query as people write it. The pictures are read from where the hits say they are, within
    `limits`; one that cannot be read gets a tile that says why."""
    import jinja2

    from mmsearch import __version__

    every = [one for hit in result for one in (hit, *hit.folded)]
    small = thumbnails(every, limits or Limits())
    tiles = [_tile(hit, small, _scale(every)) for hit in result]
    line = cut_off(result)
    here = Path(__file__).parent
    style = (here / "gallery.css").read_text("utf-8")
    template = jinja2.Environment(
        loader=jinja2.FileSystemLoader(here),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("gallery.html")
    return template.render(
        mark=_MARK,
        style=style,
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        title=printable(" ".join(title.split())) or "pictures",
        summary=summary(result),
        rough=result.calibration == "collection",
        notice=printable(result.notice or ""),
        space=printable(result.space),
        exact=result.exact,
        likely=tiles[:line],
        others=[] if line is None else tiles[line:],
        divided=line is not None,
        made=datetime.now(),
        version=__version__,
    )


# --- what a tile shows --------------------------------------------------------------------------------------------


def thumbnails(hits: Iterable[Hit], limits: Limits) -> dict[str, Thumbnail]:
    """sha256 -> its small picture, each made once, on several threads."""
    wanted = {hit.sha256: hit.path for hit in hits}
    pool = ThreadPoolExecutor(os.cpu_count(), "mmsearch-thumbnail")
    try:
        made = pool.map(lambda path: _thumbnail(path, limits), wanted.values())
        return dict(zip(wanted, made, strict=True))
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C waits for no more than what is at work


def _thumbnail(path: Path | None, limits: Limits) -> Thumbnail:
    if path is None:
        return Thumbnail(problem="an application added it without a file")
    try:
        data = files.read(path, limits.max_megabytes)[0]
        picture = decode(data, target=THUMBNAIL_SIDE // 2, limits=limits).picture
    except PictureError as error:
        return Thumbnail(problem=printable(str(error)))
    picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    packed = io.BytesIO()
    picture.save(packed, "WEBP", quality=_WEBP_QUALITY)
    uri = "data:image/webp;base64," + base64.b64encode(packed.getvalue()).decode()
    return Thumbnail(uri, picture.width, picture.height)


def _tile(hit: Hit, small: Mapping[str, Thumbnail], scale: tuple[float, float]) -> Tile:
    path = hit.path
    return Tile(
        hit=hit,
        name=printable(path.name if path is not None else hit.key if hit.key is not None else f"#{hit.id}"),
        folder="" if path is None else printable(str(path.parent)),
        link="" if path is None else path.as_uri(),
        key=printable(hit.key or ""),
        thumbnail=small[hit.sha256],
        caption=printable(" ".join((hit.caption or "").split())),
        copies=tuple((printable(str(other)), other.as_uri()) for other in hit.paths if other != path),
        bars=tuple(_bar(share, scale) for share in hit.shares),
        folded=tuple(_tile(other, small, scale) for other in hit.folded),
    )


def _scale(hits: Iterable[Hit]) -> tuple[float, float]:
    """The least and the greatest share on the page, 0 among them: all bars are drawn to one scale."""
    scores = [share.score for hit in hits for share in hit.shares]
    return min([0.0, *scores]), max([0.0, *scores])


def _bar(share: Share, scale: tuple[float, float]) -> Bar:
    low, high = scale
    whole = (high - low) or 1.0
    start = (min(share.score, 0.0) - low) / whole * 100
    return Bar(printable(share.term), share.score, round(start, 2), round(abs(share.score) / whole * 100, 2))


# --- writing ------------------------------------------------------------------------------------------------------


def write(page: str, path: Path) -> None:
    """The page is there whole or not at all. UsageError where something else than such a page is there already, or
    it cannot be written."""
    if not path.name:
        raise UsageError("The page has no name; write it as in --html answers.html.")
    beside = path.with_name(f".mmsearch-{secrets.token_hex(6)}.html")
    try:
        if path.exists() and not _may_replace(path):
            raise UsageError(
                f"{path} is there already and is no page of answers, so it is left alone; choose another name."
            )
        try:
            with open(beside, "x", encoding="utf-8", newline="\n") as file:
                file.write(page)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {(error.strerror or str(error)).lower()}.") from error


def _may_replace(path: Path) -> bool:
    """Whether it is empty or a page that `gallery` made."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        head = file.read(len(_MARK))
    return head in (b"", _MARK.encode())
