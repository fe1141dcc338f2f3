"""The client: the calls of an `Engine`, over HTTP.

    with Client("http://127.0.0.1:8765") as client:
        for hit in client.search("a red sports car", k=5):
            print(hit.score, hit.path)

Needs nothing beyond the base install. Pictures that are paths, bytes, Pillow pictures or arrays are sent to the server,
once; URLs are fetched by the server. Errors are those that the engine there raised, below `MMSearchError`; a server
that cannot be reached is a CollectionError.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event, Lock
from typing import TYPE_CHECKING, Any, Literal, Self

import mmsearch.client.reading as reading
from mmsearch.client.transport import NotFoundError, Transport, error_named
from mmsearch.errors import PictureError, UsageError
from mmsearch.query import Query, Term, as_query, from_json, rest_to_json
from mmsearch.settings import Limits
from mmsearch.types import GivenTag, Hit, IndexReport, Kind, Progress, SearchResult, SourcedCaption, Status

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from mmsearch.describing import Description
    from mmsearch.explaining import Explanation

_LOOK_SECONDS = 0.25  # how often a run is asked how far it is


class Client:
    """One collection of a server. May be shared by threads; close it, or use it in a `with` block.

    url: as `mmsearch serve` says it. token: where the server needs one. collection: the name of one that is served;
    without one, the first. timeout_seconds: for each answer.
    """

    def __init__(
        self, url: str, token: str | None = None, collection: str | None = None, *, timeout_seconds: float = 60
    ) -> None:
        self._server = Transport(url, token, collection, timeout_seconds)
        self._sent: set[str] = set()
        self._lock = Lock()

    def close(self) -> None:
        self._server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- searching ------------------------------------------------------------------------------------------------

    def search(self, query: str | Term | Query, *, k: int | None = None, find: Kind | None = None) -> SearchResult:
        """As `Engine.search`: the best hits for a text, a term or a whole query; at most 500 at once. The paths of hits
        are those of the server's machine; from a server that others reach, they begin with the name of their root."""
        query = as_query(query)
        query = replace(query, k=query.k if k is None else k, find=query.find if find is None else find)
        found = reading.search_result(self._asked("/search", query, lambda asked: asked))
        return replace(found, hits=tuple(_named(hit, query) for hit in found))

    def why(self, image: int, query: str | Term | Query) -> Explanation:
        """As `Engine.why`, for the id of an image."""
        asked = as_query(query)
        return reading.explanation(self._asked("/why", asked, lambda shape: {"image": image, "query": shape}))

    def describe(
        self, picture: int | str | Path | bytes | Image.Image | NDArray[np.uint8], *, k: int = 5
    ) -> Description:
        """As `Engine.describe`, with the usual labels."""
        if isinstance(picture, int):
            return reading.description(self._server.json("GET", f"/images/{picture}/describe", k=k))
        content = _content(Term(picture=picture))
        return reading.description(
            self._with_uploads(
                lambda: self._server.json("POST", "/describe", {"upload": self._upload(content), "k": k})
            )
        )

    # --- saved queries --------------------------------------------------------------------------------------------

    def save_query(self, name: str, query: str | Term | Query) -> None:
        """Keep a query of texts, URLs and images of the collection under a name."""
        asked = as_query(query)
        for term in asked.terms:
            if term.picture is not None and not term.is_url:
                raise UsageError("Pictures that are sent cannot be kept in a query; use a URL or an image by its id.")
        self._server.json("PUT", f"/saved/{name}", self._shape(asked))

    def saved_query(self, name: str) -> Query:
        """The query that was kept under a name. UsageError names those that there are."""
        return from_json(self._server.json("GET", f"/saved/{name}")["query"])

    def saved_queries(self) -> dict[str, Query]:
        """All queries that were kept, by name."""
        return {one["name"]: from_json(one["query"]) for one in self._server.json("GET", "/saved")}

    def forget_query(self, name: str) -> None:
        """Remove a saved query. UsageError where there is none of that name."""
        self._server.json("DELETE", f"/saved/{name}")

    # --- images ---------------------------------------------------------------------------------------------------

    def original(self, image: int) -> bytes:
        """The picture file of an image."""
        return self._server.bytes("GET", f"/images/{image}/original")

    def thumbnail(self, image: int, size: Literal[160, 320, 640, 1280] = 320) -> bytes:
        """An image in small, as WebP; `size` is the most pixels of the shorter side."""
        return self._server.bytes("GET", f"/images/{image}/thumbnail", size=size)

    def captions(self, image: int) -> tuple[SourcedCaption, ...]:
        """The captions of an image."""
        return reading.captions(self._server.json("GET", f"/images/{image}/captions"))

    def tags(self) -> dict[str, int]:
        """tag -> how many images have it."""
        return {one["name"]: one["images"] for one in self._server.json("GET", "/tags")}

    def add_tags(self, image: int, names: str | Sequence[str]) -> tuple[GivenTag, ...]:
        """Give an image tags, as a person does; all that it has then."""
        named = [names] if isinstance(names, str) else list(names)
        return reading.given_tags(self._server.json("POST", f"/images/{image}/tags", {"names": named}))

    def remove_tag(self, image: int, name: str) -> tuple[GivenTag, ...]:
        """Take a tag away from an image; all that it has then."""
        return reading.given_tags(self._server.json("DELETE", f"/images/{image}/tags/{name}"))

    # --- the collection ---------------------------------------------------------------------------------------------

    def status(self) -> Status:
        """What the collection holds."""
        return reading.status(self._server.json("GET", "/status"))

    def index(
        self,
        folders: str | Sequence[str] = (),
        *,
        exclude: str | Sequence[str] = (),
        prune: bool = False,
        ocr: bool = False,
        on_progress: Callable[[Progress], None] | None = None,
        cancel: Event | None = None,
    ) -> IndexReport:
        """As `Engine.index`, for folders of the server's machine that belong to the collection, or all of them. Returns
        when the run there has ended; the failures are listed by `status`."""
        order = {
            "kind": "index",
            "folders": [folders] if isinstance(folders, str) else list(folders),
            "exclude": [exclude] if isinstance(exclude, str) else list(exclude),
            "prune": prune,
            "ocr": ocr,
        }
        asked = cancel or Event()
        run = self._server.json("POST", "/runs", order)
        told = False
        while run["state"] in ("waiting", "running"):
            if asked.wait(_LOOK_SECONDS) and not told:
                self._server.json("DELETE", f"/runs/{run['id']}")
                told = True
            elif told:
                Event().wait(_LOOK_SECONDS)
            run = self._server.json("GET", f"/runs/{run['id']}")
            if on_progress is not None and run["stage"] is not None:
                on_progress(Progress(run["stage"], run["done"], run["total"], run["message"]))
        if run["state"] == "failed":
            raise error_named(run["error"], run["message"])
        if run["report"] is None:
            return IndexReport("", cancelled=True)
        return reading.index_report(run["report"], cancelled=run["state"] == "cancelled")

    # --- queries and pictures as they are sent ------------------------------------------------------------------------

    def _asked(self, path: str, query: Query, body: Callable[[dict[str, Any]], Any]) -> Any:
        contents = {number: _content(term) for number, term in enumerate(query.terms) if _is_sent(term)}
        return self._with_uploads(lambda: self._server.json("POST", path, body(self._shape(query, contents))))

    def _with_uploads(self, call: Callable[[], Any]) -> Any:
        """Once more, with all pictures sent again, where the server has forgotten one."""
        try:
            return call()
        except NotFoundError:
            with self._lock:
                if not self._sent:
                    raise
                self._sent.clear()
            return call()

    def _shape(self, query: Query, contents: dict[int, bytes] | None = None) -> dict[str, Any]:
        terms: list[dict[str, Any]] = []
        for number, term in enumerate(query.terms):
            if term.vector is not None:
                raise UsageError("Vectors are searched by an Engine alone; a server takes texts, pictures and images.")
            what: dict[str, Any] = {"text": term.text, "image": term.image}
            if term.is_url:
                what["picture"] = term.picture
            elif contents and number in contents:
                what["upload"] = self._upload(contents[number])
            part = None if term.part is None else list(term.part)
            shape = {**what, "weight": term.weight, "part": part}
            terms.append({name: value for name, value in shape.items() if value is not None})
        return {"terms": terms, **rest_to_json(query)}

    def _upload(self, content: bytes) -> str:
        import hashlib

        name = hashlib.sha256(content).hexdigest()
        with self._lock:
            known = name in self._sent
        if not known:
            self._server.bytes("POST", "/uploads", content, {"Content-Type": "application/octet-stream"})
            with self._lock:
                self._sent.add(name)
        return name


def _is_sent(term: Term) -> bool:
    return term.picture is not None and not term.is_url


def _named(hit: Hit, query: Query) -> Hit:
    """With the names of pictures that were sent: the server knows them as `picture` alone."""
    names = {number: str(term) for number, term in enumerate(query.terms) if isinstance(term.picture, str | Path)}
    if len(hit.shares) < len(query.terms) or not names or query.match == "hybrid":
        return hit
    shares = tuple(replace(one, term=names.get(number, one.term)) for number, one in enumerate(hit.shares))
    return replace(hit, shares=shares, folded=tuple(_named(one, query) for one in hit.folded))


def _content(term: Term) -> bytes:
    """The bytes of a picture file that shows what the term does."""
    picture = term.picture
    if isinstance(picture, bytes):
        return picture
    if isinstance(picture, str | Path):
        from mmsearch import files

        try:
            return files.read(Path(picture).expanduser(), Limits().max_megabytes)[0]
        except PictureError as error:
            raise UsageError(f"Cannot use {picture}: {error}.") from error
    from mmsearch.composing import FULL_SIZE, open_picture

    assert picture is not None
    out = io.BytesIO()
    open_picture(picture, FULL_SIZE, Limits()).save(out, "PNG", compress_level=1)
    return out.getvalue()
