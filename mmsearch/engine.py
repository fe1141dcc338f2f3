"""The engine: what applications use, and the command line too.

    with Engine.open("my-collection") as engine:
        engine.index("images")
        for hit in engine.search("a red sports car", k=5):
            print(hit.score, hit.path)

It prints nothing, raises errors below `MMSearchError`, and may be shared by threads. This file is longer than most
because the whole door stands in one place: most of it is documentation, each method hands on to the file of its job.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from threading import Event, RLock
from typing import TYPE_CHECKING, Literal, Self

from mmsearch import roots
from mmsearch.catalog import details, read, saved, tags, where
from mmsearch.catalog.catalog import Catalog
from mmsearch.catalog.read import SpaceRow
from mmsearch.encoders.protocol import Encoder
from mmsearch.encoders.registry import BUILTIN, ENTRY_POINTS, shared_encoder
from mmsearch.errors import (
    CollectionError,
    CollectionNotFoundError,
    MissingExtraError,
    ModelError,
    SpaceNotFoundError,
    UsageError,
    WeightsMismatchError,
)
from mmsearch.filters import Filters
from mmsearch.query import Query, Term, as_query
from mmsearch.searching import search
from mmsearch.settings import DEFAULT_MODEL, Limits, collection_folder
from mmsearch.types import (
    Duplicates,
    Facets,
    FailedFile,
    Finding,
    ImageDetails,
    IndexInfo,
    IndexReport,
    Kind,
    Progress,
    RootStatus,
    SearchResult,
    SpaceStatus,
    Status,
    Tier,
    Verification,
)
from mmsearch.views import View

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray
    from PIL import Image
    from sqlalchemy import Connection

    from mmsearch.catalog.columns import ColumnReader
    from mmsearch.comparing import Comparison
    from mmsearch.describing import Description
    from mmsearch.evaluation import Evaluation, Side
    from mmsearch.explaining import Explanation
    from mmsearch.following import Following
    from mmsearch.indexing import Order
    from mmsearch.labels import Labels
    from mmsearch.mapping import LabelImages, Map, MapKeeper
    from mmsearch.reading_text import TextReader
    from mmsearch.tagging import TagReport


class Engine:
    """One open collection. Make it with `Engine.open`; close it, or use it in a `with` block."""

    def __init__(
        self, catalog: Catalog, model: str | Encoder | None, device: str, precision: str, limits: Limits
    ) -> None:
        self._opened = catalog
        self._closed, self._was_there = False, False
        self._model, self._device, self._precision, self._limits = model, device, precision, limits
        self._lock = RLock()
        self._encoders: dict[str, Encoder] = {}
        self._views: dict[int, View] = {}
        self._column_reader: ColumnReader | None = None
        self._map_keeper: MapKeeper | None = None

    @classmethod
    def open(
        cls,
        collection: str | os.PathLike[str] | None = None,
        *,
        model: str | Encoder | None = None,
        device: str = "auto",
        precision: str = "auto",
        limits: Limits | None = None,
        create: bool = True,
    ) -> Self:
        """Open a collection by folder (anything with a path separator, or a Path) or by name.

        collection: without one, MMSEARCH_COLLECTION, else the collection named `default`.
        model: the encoder to use, by name or ready-made; without one, the collection's current space, else `lite`.
        device: auto, cpu, cuda, cuda:N, mps. precision: auto, fp32, bf16, fp16. limits: what one picture may cost.
        create: make the collection where there is none, and bring an older one up to date.

        Raises CollectionNotFoundError (only with create=False), SchemaError, LockError, DamagedError, CollectionError.
        """
        if isinstance(collection, str) and not collection.strip():
            raise UsageError("The name of the collection is empty; name one, or leave out -c.")
        if isinstance(collection, os.PathLike):
            folder = Path(collection).expanduser().absolute()
        else:
            folder = collection_folder(collection)
        return cls(Catalog(folder, create=create), model, device, precision, limits or Limits())

    @property
    def folder(self) -> Path:
        """Where the collection lies."""
        return self._opened.folder

    def close(self) -> None:
        """Close the collection; whatever is asked of it after that raises CollectionError, also of searches that
        still run on other threads."""
        with self._lock:
            self._closed = True
            for view in self._views.values():
                view.close()
            self._views.clear()
            if self._column_reader is not None:
                self._column_reader.close()
            self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _catalog(self) -> Catalog:
        """The catalog, for as long as it may be used: SQLite goes on for a while with files that were deleted."""
        if self._closed:
            raise CollectionError(f"This collection is closed ({self.folder}); open it again with Engine.open.")
        if self._opened.exists:
            self._was_there = True
        elif self._was_there:
            raise CollectionNotFoundError(
                f"The collection {self.folder} is not there any more; mount its disk, or open it again to begin anew."
            )
        return self._opened

    # --- indexing -------------------------------------------------------------------------------------------------

    def index(
        self,
        paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
        *,
        captions: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
        exclude: str | Sequence[str] = (),
        prune: bool = False,
        ocr: bool | TextReader = False,
        on_progress: Callable[[Progress], None] | None = None,
        cancel: Event | None = None,
    ) -> IndexReport:
        """Bring folders of pictures into the collection, or up to date. Without paths: all its roots again.
        Whatever was added by key takes part in the vector indexes that a run builds.

        captions: tables of captions (CSV with `image,caption`, Kaggle's captions.txt, JSON lines).
        exclude: gitignore patterns, relative to each root. A single path, table or pattern may stand alone.
        prune: delete what is gone from roots that are there.
        ocr: read the text inside pictures, too, so that keywords find it: all that were not read before. True: with
        the extra `ocr`; else a reader of your own (`mmsearch.reading_text.TextReader`).
        on_progress: called on this thread, often. cancel: set it from another thread to stop after the current batch;
        what was committed is kept. Waits while another run is at work on the collection.

        Raises UsageError (a path that is no folder, a table that cannot be read), ModelError, CollectionError,
        MissingExtraError.
        A picture that cannot be read raises nothing: it is counted as failed and listed by `status`.
        """
        if isinstance(paths, str | os.PathLike):
            paths = [paths]
        order = self._order(paths, captions, exclude, prune=prune, ocr=ocr)
        if not self._catalog.exists:  # what cannot be indexed leaves no empty collection behind
            roots.check_new(order.folders)
            self._own_encoder()
        return self._run(order, on_progress, cancel)

    def _order(
        self,
        paths: Sequence[str | os.PathLike[str]],
        captions: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        exclude: str | Sequence[str],
        *,
        prune: bool,
        ocr: bool | TextReader,
    ) -> Order:
        from mmsearch.indexing import Order
        from mmsearch.reading_text import RapidReader

        if isinstance(captions, str | os.PathLike):
            captions = [captions]
        if isinstance(exclude, str):
            exclude = [exclude]
        return Order(
            folders=tuple(roots.check_folders(paths)),
            captions=tuple(Path(path) for path in captions),
            exclude=tuple(exclude),
            prune=prune,
            limits=self._limits,
            reader=RapidReader() if ocr is True else None if ocr is False else ocr,
        )

    def _run(self, order: Order, on_progress: Callable[[Progress], None] | None, cancel: Event | None) -> IndexReport:
        from mmsearch import indexing

        def choose_encoder() -> Encoder | None:
            with self._catalog.reading() as connection:
                only_keys = not order.folders and not read.roots(connection) and bool(read.count_files(connection))
            return None if only_keys else self._own_encoder()

        return indexing.index(
            self._catalog,
            choose_encoder,
            order,
            on_progress=on_progress or (lambda _: None),
            cancel=cancel or Event(),
        )

    def watch(
        self,
        paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
        *,
        captions: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
        exclude: str | Sequence[str] = (),
        prune: bool = False,
        ocr: bool | TextReader = False,
        poll: bool | None = None,
        on_report: Callable[[IndexReport], None] | None = None,
        on_following: Callable[[tuple[Following, ...]], None] | None = None,
        on_trouble: Callable[[str], None] | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        cancel: Event | None = None,
    ) -> None:
        """Keep the collection up to date until `cancel` is set: an index run at the beginning and whenever its roots
        change. Returns then; set `cancel` before the engine is closed.

        paths: only the roots around these folders, which an index run knows already; without, all roots, also those
        that are added meanwhile. captions, exclude, prune, ocr, on_progress: as for `index`.
        poll: look at the folders again and again (True), trust the system's events (False), or the one or the other as
        their file systems need (None). Events need the extra `watch`; without, folders are looked at.
        on_report: called after each run. on_following: how each root is followed, at the beginning and when that
        changes. on_trouble: why a run could not begin; it is tried again. All on this thread.

        Raises UsageError (a folder that is not known) and what `index` raises, but for LockError.
        """
        from mmsearch import watching

        if isinstance(paths, str | os.PathLike):
            paths = [paths]
        order = self._order(paths, captions, exclude, prune=prune, ocr=ocr)
        stop = cancel or Event()

        def followed() -> list[Path]:
            with self._catalog.reading() as connection:
                known = roots.around(connection, order.folders)
            return [Path(os.fsdecode(root.path)) for root in known]

        if order.folders and not followed():
            raise UsageError(f"{paths[0]} belongs to no root of this collection; index it first.")

        def run(folders: Sequence[Path]) -> IndexReport:
            again = replace(order, folders=tuple(map(os.fsencode, folders)), add_roots=False)
            return self._run(again, on_progress, stop)

        watching.watch(
            run,
            followed,
            self.folder,
            exclude=order.exclude,
            poll=poll,
            on_report=on_report or (lambda _: None),
            on_following=on_following or (lambda _: None),
            on_trouble=on_trouble or (lambda _: None),
            cancel=stop,
        )

    def add(
        self,
        key: str,
        content: bytes | Image.Image | NDArray[np.uint8],
        metadata: Mapping[str, object] | None = None,
    ) -> int:
        """Add one picture under the application's own key; what the key held before is replaced.

        content: the bytes of a picture file, a Pillow picture, or an array (height, width, 3) uint8. Pictures without
        a file are the same image when they look the same. Returns the id of the image.
        metadata: any of caption (text, or a sequence of texts), taken_at (datetime; of one with a time zone the clock
        time is kept), camera, lens, latitude, longitude (degrees). They outrank what is embedded in the picture and
        what was given before; what is not given stays. Captions given under a key that is new to the image add to
        those it has; under a key that it has already, they replace all that were given.

        Raises UsageError for a picture that cannot be read or metadata that is not known or not what it should be.
        """
        from mmsearch import adding

        return adding.add(self._catalog, self._own_encoder(), key, content, metadata or {}, self._limits)

    def add_vectors(self, keys: Sequence[str], vectors: ArrayLike, *, space: str | None = None) -> int:
        """Add vectors that were made elsewhere: (n, dimension) floats of any length but zero, one for each key.

        space: the name of a space of the application's own, made when it is new and searched with
        `Term(vector=...)`; without one, the space of this engine's encoder, whose vectors they must be.
        A key that `add` knows gets its vector in that space, in place of the one it had; another becomes an image
        without content. Vectors in a space of its own stay with a key when `add` gives it content.
        Returns how many were stored. Raises UsageError where shapes do not fit, or two keys of one image differ.
        """
        from mmsearch import adding

        chosen = self._own_encoder().space if space is None else space
        return adding.add_vectors(self._catalog, chosen, keys, vectors)

    def remove(self, keys: Sequence[str]) -> int:
        """Remove what was added under these keys; returns how many there were. Keys not known are passed over."""
        from mmsearch import adding

        return adding.remove(self._catalog, keys)

    def relocate(self, old: str | os.PathLike[str], new: str | os.PathLike[str]) -> int:
        """The root `old` now lies at `new`: nothing is read or encoded again. Returns how many files it has."""
        return roots.relocate(self._catalog, old, new)

    def remove_root(self, path: str | os.PathLike[str]) -> int:
        """Forget a root and its pictures (the files stay). Returns how many files it had."""
        return roots.remove(self._catalog, path)

    # --- searching ------------------------------------------------------------------------------------------------

    def search(self, query: str | Term | Query, *, k: int | None = None, find: Kind | None = None) -> SearchResult:
        """The best hits for a text, a term or a whole query; min(k, what there is) of them, best first.

        k: how many, 10 by default. find: `images` (default) or `captions`. Both outrank those of a Query.

        Raises UsageError (an empty text, a picture that cannot be read, an unknown tag), SpaceNotFoundError (no
        vectors of the model that was asked for), ModelError (its encoder cannot be loaded).
        """
        query = as_query(query)
        if k is not None and not isinstance(k, int):
            raise UsageError(f"k is {k!r}; it must be a whole number.")
        query = replace(query, k=query.k if k is None else k, find=query.find if find is None else find)
        with self._catalog.reading() as connection:
            space = self._asked_space(read.spaces(connection))
        if space is None:
            return SearchResult(self._asked_name or DEFAULT_MODEL, True, ())
        view = self._view(space)
        view.preload(space, query.find)
        return search(self._catalog, view, self._encoder_for(space, query), query, self._limits)

    def why(self, image: int | str | os.PathLike[str], query: str | Term | Query) -> Explanation:
        """Why an image is found by a query where it is, or why not: its rank, each term's share of its score, the
        filters that leave it out, or the reason why it could not be indexed.

        image: its id, or the path of a file. Raises as `search` does; UsageError for an id that is not known.
        """
        from mmsearch import explaining

        query = as_query(query)
        with self._catalog.reading() as connection:
            space = self._asked_space(read.spaces(connection))
        view = None if space is None else self._view(space)
        encoder = None if space is None else self._encoder_for(space, query)
        return explaining.explain(self._catalog, view, encoder, query, image, self._limits)

    def warm(self) -> None:
        """Load what the first text query would wait for: the text tower and the index. Raises as `search` does."""
        with self._catalog.reading() as connection:
            space = self._asked_space(read.spaces(connection))
        if space is not None and not space.fingerprint.startswith(read.GIVEN):
            self._encoder_of(space).encode_texts(["warm"])
            with self._catalog.reading() as connection:
                self._view(space).rows(connection, "images")

    def count(self, filters: Filters | None = None) -> int:
        """How many images satisfy filters; without, how many there are. UsageError for a tag that is not known."""
        tree = None if filters is None else filters.tree()
        with self._catalog.reading() as connection:
            if tree is not None:
                where.check(connection, tree)
            return read.count_satisfying(connection, tree)

    def facets(self, filters: Filters | None = None) -> Facets:
        """How the images that satisfy filters are spread over months, folders, cameras, tags, formats and places.
        UsageError for a tag or a folder that is not known."""
        from mmsearch.facets import facets

        return facets(self._columns(), filters or Filters())

    def map(
        self,
        *,
        build: bool = True,
        on_progress: Callable[[Progress], None] | None = None,
        cancel: Event | None = None,
    ) -> Map | None:
        """A place for each image, those that look alike near each other, with words where they are at home.

        Made when it is first asked for (100,000 images: minutes), kept beside the index, and made again when a tenth of
        the images changed; until then new ones stand among their nearest neighbours. With openTSNE (the extra `map`)
        by t-SNE, without by principal components, which tell less; `method` says so. Equal vectors give equal maps.
        build: make it where it is missing; else None is the answer. cancel: set it from another thread; the answer is
        None, too. So it is for a collection without images, or one that changed much while its map was made.

        Raises SpaceNotFoundError.
        """
        with self._catalog.reading() as connection:
            space = self._asked_space(read.spaces(connection))
        if space is None:
            return None
        keeper = self._maps()
        found = keeper.read(space)
        if found is None and build:
            report = on_progress or (lambda _: None)
            keeper.build(space, self._label_images(space, report), report, cancel or Event())
            found = keeper.read(space)
        return found

    def _label_images(self, space: SpaceRow, on_progress: Callable[[Progress], None]) -> LabelImages:
        """Words for the map, where no tags give them and the encoder can."""
        from mmsearch.mapping import zero_shot

        if space.fingerprint.startswith(read.GIVEN) or self.tags():
            return lambda _: ()
        try:
            encoder = self._encoder_of(space)
        except (ModelError, MissingExtraError):
            return lambda _: ()
        with self._catalog.reading() as connection:
            calibration = self._view(space).calibration(connection, encoder)
        return zero_shot(self._catalog, space, encoder, calibration, on_progress)

    def image(self, image: int) -> ImageDetails | None:
        """All that is known about an image: its files, metadata, captions and tags. None for an unknown id."""
        with self._catalog.reading() as connection:
            return details.details(connection, image)

    def save_query(self, name: str, query: str | Term | Query) -> None:
        """Keep a query under a name, feedback included; another one of that name is replaced.

        UsageError: an empty name, or a term that has no written form (a vector, a picture that is no file)."""
        if not name.isprintable() or not name.strip() or name != name.strip():
            raise UsageError(f"{name!a} is no name for a query; write one that can be printed, without spaces around.")
        with self._catalog.writing() as connection:
            saved.put(connection, name, as_query(query))

    def saved_query(self, name: str) -> Query:
        """The query that was kept under a name. UsageError names those that there are."""
        with self._catalog.reading() as connection:
            found = saved.find(connection, name)
            if found is None:
                raise _no_saved(connection, name)
        return found

    def saved_queries(self) -> dict[str, Query]:
        """All queries that were kept, by name."""
        with self._catalog.reading() as connection:
            return dict(saved.read_all(connection))

    def forget_query(self, name: str) -> None:
        """Remove a saved query. UsageError where there is none of that name."""
        with self._catalog.writing() as connection:
            if not saved.drop(connection, name):
                raise _no_saved(connection, name)

    # --- labels -----------------------------------------------------------------------------------------------------

    def describe(
        self,
        picture: int | str | Path | bytes | Image.Image | NDArray[np.uint8],
        *,
        k: int = 5,
        labels: Labels = None,
    ) -> Description:
        """A picture in words: the k captions of the collection nearest to it, and the k labels most probable for it.

        picture: the id of an image, or whatever a `Term` takes as a picture. labels: as for `tag`. Without captions,
        or without a collection, there are labels alone. Raises as `search` does; UsageError for a bad list of labels.
        """
        from mmsearch import describing
        from mmsearch.labels import read_labels

        space = None
        if self._catalog.exists:
            with self._catalog.reading() as connection:
                space = self._asked_space(read.spaces(connection))
        encoder = self._own_encoder() if space is None else self._encoder_of(space)
        view = None if space is None else self._view(space)
        term = Term(image=picture) if isinstance(picture, int) else Term(picture=picture)
        return describing.describe(self._catalog, view, encoder, term, read_labels(labels), k, self._limits)

    def tag(
        self,
        labels: Labels = None,
        *,
        images: Sequence[int | str | os.PathLike[str]] | None = None,
        min_probability: float | None = None,
        dry_run: bool = False,
        on_progress: Callable[[Progress], None] | None = None,
        cancel: Event | None = None,
    ) -> TagReport:
        """Tag images by zero-shot classification: each gets the labels that are probable enough, any number of them.
        What earlier runs decided about these labels is replaced; tags given by people stay. Nothing is encoded but
        the labels.

        labels: names, or a file with one a line (`label` or `label,prompt`); without, a list of common things.
        images: ids, files and folders of the collection; without, all of it. min_probability: 0.5 by default.
        dry_run: change nothing; files that are not in the collection may be named, too.

        Raises UsageError (a bad list, a path that is not known), ModelError (a space without a calibration).
        """
        from mmsearch import tagging
        from mmsearch.labels import read_labels

        wanted = read_labels(labels)
        with self._catalog.reading() as connection:
            space = self._asked_space(read.spaces(connection))
        if space is None:
            raise UsageError("This collection holds no pictures yet; `mmsearch index FOLDER` adds some.")
        encoder = self._encoder_of(space)
        with self._catalog.reading() as connection:
            calibration = self._view(space).calibration(connection, encoder)
        return tagging.tag(
            self._catalog,
            encoder,
            space,
            calibration,
            wanted,
            images=images,
            min_probability=min_probability,
            dry_run=dry_run,
            limits=self._limits,
            on_progress=on_progress or (lambda _: None),
            cancel=cancel or Event(),
        )

    def add_tags(self, images: Sequence[int | str | os.PathLike[str]], names: Sequence[str]) -> int:
        """Give images (ids, files, folders) tags, as a person does. Returns how many they did not have from people."""
        from mmsearch import tagging

        return tagging.add(self._catalog, images, [names] if isinstance(names, str) else names)

    def remove_tags(self, images: Sequence[int | str | os.PathLike[str]], names: Sequence[str]) -> int:
        """Take tags away from images (ids, files, folders), whoever gave them. Returns how many there were.

        UsageError for a tag that no image of the collection has. A later `tag` may give it again."""
        from mmsearch import tagging

        return tagging.remove(self._catalog, images, [names] if isinstance(names, str) else names)

    def tags(self) -> dict[str, int]:
        """tag -> how many images have it, in alphabetical order."""
        with self._catalog.reading() as connection:
            return tags.counts(connection)

    # --- duplicates -----------------------------------------------------------------------------------------------

    def duplicates(
        self,
        tiers: Tier | Sequence[Tier] = ("exact", "near"),
        *,
        similarity: float | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Duplicates:
        """Groups of pictures that are the same, each with the one we suggest to keep; nothing is deleted.

        tiers: `exact` (one content in several files), `near` (re-encoded, resized, brightened: perceptual hashes),
        `semantic` (cropped copies, series, the same thing again: vectors of the engine's space). A pair is in one tier
        alone. similarity: the least cosine of the semantic tier, 0.9 by default.
        Compares all with all: 100,000 pictures take about ten seconds, with `semantic` about a minute.

        Raises UsageError (no such tier, a similarity that is none), SpaceNotFoundError.
        """
        from mmsearch import duplicates

        chosen = duplicates.check_tiers([tiers] if isinstance(tiers, str) else tiers)
        least = duplicates.check_similarity(similarity, chosen)
        space = None
        if "semantic" in chosen:
            with self._catalog.reading() as connection:
                space = self._asked_space(read.spaces(connection))
        return duplicates.duplicates(self._catalog, space, chosen, least, on_progress or (lambda _: None))

    # --- looking after it -----------------------------------------------------------------------------------------

    def roots(self) -> tuple[Path, ...]:
        """The folders whose pictures belong to the collection, absolute, whether they can be read now or not."""
        with self._catalog.reading() as connection:
            return tuple(Path(os.fsdecode(root.path)) for root in read.roots(connection))

    def status(self) -> Status:
        """What the collection holds, which files failed and why, which spaces there are."""
        with self._catalog.reading() as connection:
            files = read.count_files(connection)
            known = read.roots(connection)
            spaces = tuple(
                SpaceStatus(
                    encoder=space.encoder,
                    dimension=space.dimension,
                    images=read.count_vectors(connection, space.id, "images"),
                    captions=read.count_vectors(connection, space.id, "captions"),
                    index=IndexInfo("flat" if space.images_generation else "scan", exact=True),
                    current=space.current,
                    ready=space.state == "ready",
                )
                for space in read.spaces(connection)
            )
            return Status(
                collection=self.folder,
                roots=tuple(
                    RootStatus(Path(os.fsdecode(root.path)), files.get(root.id, 0), os.path.isdir(root.path))
                    for root in known
                ),
                images=read.count_images(connection),
                captions=read.count_captions(connection),
                missing=sum(read.count_files(connection, status="missing").values()),
                failed=tuple(
                    FailedFile(Path(os.fsdecode(os.path.join(root, relative))), error)
                    for root, relative, error in read.failed_files(connection)
                ),
                spaces=spaces,
            )

    def evaluate(
        self,
        *,
        rival: str | Encoder | None = None,
        source: Literal["captions", "folders"] | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Evaluation:
        """How well this engine's model finds the collection's own pictures: by their captions, or by the names of their
        folders where there are not enough captions. Stored vectors are used; only texts are encoded.

        rival: another model that the collection has vectors of, measured on the same queries. source: what to build the
        test set from. Raises UsageError where there is too little for one, SpaceNotFoundError, ModelError.
        `mmsearch.evaluation.evaluate` measures an encoder on a folder that was prepared for it.
        """
        from mmsearch.evaluation import evaluate_collection

        if rival is None:
            return evaluate_collection(self._catalog, self._side(), source=source, on_progress=on_progress)
        with self._with_model(rival) as other:
            side = other._side()  # noqa: SLF001 - an engine as well
            return evaluate_collection(self._catalog, self._side(), side, source=source, on_progress=on_progress)

    def compare(
        self,
        old: str | Encoder,
        new: str | Encoder,
        *,
        k: int = 10,
        source: Literal["captions", "folders"] | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Comparison:
        """What changes when queries go over from one model to another: the first k answers to the saved queries, and
        the figures of `evaluate`. The collection needs vectors of both; the new one's need not be complete.

        Raises SpaceNotFoundError. What cannot be asked or measured is said in the result.
        """
        from mmsearch import comparing

        with self._with_model(old) as before, self._with_model(new) as after:
            sides = before._side(), after._side()  # noqa: SLF001 - engines as well
            return comparing.compare(
                self._catalog, sides, (before.search, after.search), k=k, source=source, on_progress=on_progress
            )

    def _with_model(self, model: str | Encoder) -> Engine:
        """Another engine on this collection."""
        catalog = Catalog(self._catalog.folder, create=False)
        return Engine(catalog, model, self._device, self._precision, self._limits)

    def _side(self) -> Side:
        """This engine's space, for measuring."""
        from mmsearch.evaluation import INDEX_K, Side

        with self._catalog.reading() as connection:
            space = self._asked_space(read.spaces(connection))
        if space is None:
            raise SpaceNotFoundError(f"{self.folder} has no vectors yet; `mmsearch index FOLDER` makes some.")
        return Side(space, lambda: self._encoder_of(space), lambda vector: self.search(Term(vector=vector), k=INDEX_K))

    def verify(self) -> Verification:
        """Compare everything that is stored with its checksums, and let stored images find themselves. The files of
        the encoder are compared too, where they are `lite`'s or a folder of our own training."""
        from mmsearch import verifying
        from mmsearch.encoders.trained import TrainedEncoder

        found = verifying.verify(self._catalog)
        try:
            encoder = self._own_encoder()
            if isinstance(encoder, TrainedEncoder):
                encoder.verify_files()
        except WeightsMismatchError as error:
            found = replace(found, problems=(*found.problems, str(error)))
        except (ModelError, MissingExtraError):
            pass  # an encoder that cannot be used here is no damage of the collection
        return found

    def check(self) -> tuple[Finding, ...]:
        """A quick check-up of the collection and of this installation: findings by area, each with its remedy. Where a
        collection cannot even be opened, `mmsearch doctor` and `mmsearch.checkup.check(folder)` say why."""
        from mmsearch import checkup

        given = None if self._model is None or isinstance(self._model, str) else self._model
        return checkup.check(self.folder, given)

    def _columns(self) -> ColumnReader:
        from mmsearch.catalog.columns import ColumnReader

        catalog = self._catalog
        with catalog.reading():  # makes the collection where it is new
            pass
        with self._lock:
            if self._column_reader is None:
                self._column_reader = ColumnReader(catalog.folder)
            return self._column_reader

    def _maps(self) -> MapKeeper:
        from mmsearch.mapping import MapKeeper

        reader = self._columns()
        with self._lock:
            if self._map_keeper is None:
                self._map_keeper = MapKeeper(self._catalog, reader)
            return self._map_keeper

    # --- encoders and spaces --------------------------------------------------------------------------------------

    def _asked_space(self, spaces: Sequence[SpaceRow]) -> SpaceRow | None:
        """The space to search; None in a collection without any. The newest where several have the name."""
        name = self._asked_name
        if self._model is None or name is None:
            return next((space for space in spaces if space.current), None)
        if isinstance(self._model, str):
            found = [space for space in spaces if space.encoder == name]
        else:
            found = [space for space in spaces if space.fingerprint == self._model.space.fingerprint]
        if found or not spaces:
            return found[-1] if found else None
        there = ", ".join(dict.fromkeys(space.encoder for space in spaces)) or "none"
        raise SpaceNotFoundError(
            f"The collection {self.folder} has no vectors of the model {name}; it has those of: {there}. "
            f"`mmsearch index --model {name}` makes them."
        )

    @cached_property
    def _asked_name(self) -> str | None:
        """What the space of the model that was asked for is called; None when none was. A folder that training wrote
        is stored by its absolute path, but the registry looks for other encoders of that name first."""
        from importlib.metadata import entry_points

        from mmsearch.encoders.trained import MANIFEST

        if self._model is None:
            return None
        if not isinstance(self._model, str):
            return self._model.space.name
        if self._model in BUILTIN or self._model in entry_points(group=ENTRY_POINTS).names:
            return self._model
        folder = Path(self._model).expanduser().absolute()
        return str(folder) if (folder / MANIFEST).is_file() else self._model

    def _own_encoder(self) -> Encoder:
        """The encoder that new pictures are encoded with."""
        if self._model is not None and not isinstance(self._model, str):
            return self._model
        name = self._model
        if name is None and not self._catalog.exists:
            name = DEFAULT_MODEL
        if name is None:
            with self._catalog.reading() as connection:
                made = [one for one in read.spaces(connection) if not one.fingerprint.startswith(read.GIVEN)]
            newest = made[-1].encoder if made else DEFAULT_MODEL
            name = next((one.encoder for one in made if one.current), newest)
        return self._load(name)

    def _encoder_of(self, space: SpaceRow) -> Encoder:
        encoder = self._model if self._model is not None and not isinstance(self._model, str) else None
        if encoder is None:
            if space.fingerprint.startswith(read.GIVEN):
                raise ModelError(
                    f"The vectors of {space.encoder} were given by an application; "
                    "search them with a vector, as in Term(vector=...)."
                )
            encoder = self._load(space.encoder)
        if encoder.space.fingerprint != space.fingerprint:
            raise WeightsMismatchError(
                f"The vectors of {space.encoder} in {self.folder} were made by other weights than the ones here; "
                "`mmsearch index` encodes the pictures again."
            )
        return encoder

    def _encoder_for(self, space: SpaceRow, query: Query) -> Encoder | None:
        """The encoder, where a query needs one; or where asking costs nothing, since it brings its calibration."""
        needed = any(term.text is not None or term.picture is not None or term.part is not None for term in query.terms)
        if needed and query.match != "keywords":
            return self._encoder_of(space)
        if space.encoder in BUILTIN:
            with suppress(ModelError):
                return self._encoder_of(space)
        return None

    def _load(self, name: str) -> Encoder:
        with self._lock:
            if name not in self._encoders:
                self._encoders[name] = shared_encoder(name, device=self._device, precision=self._precision)
            return self._encoders[name]

    def _view(self, space: SpaceRow) -> View:
        with self._lock:
            if space.id not in self._views:
                self._views[space.id] = View(self._catalog.folder, space)
            return self._views[space.id]


def _no_saved(connection: Connection, name: str) -> UsageError:
    there = ", ".join(saved.names(connection)) or "none; `mmsearch save NAME ...` keeps one"
    return UsageError(f"There is no saved query {name!r}; there are: {there}.")
