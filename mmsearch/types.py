"""The records that go in and out of the public door. Plain data, no imports of ours, no work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

Kind = Literal["images", "captions"]
CalibrationKind = Literal["encoder", "collection"]
Area = Literal["collection", "disk", "index", "model", "extras", "versions"]
Tier = Literal["exact", "near", "semantic"]


@dataclass(frozen=True, slots=True)
class Share:
    """One term's part of a hit's score; the parts add up to it. term: as people write it, as in `2:sunset`,
    `not people`, `#12`; with keywords beside vectors the two parts are called `vectors` and `keywords`."""

    term: str
    score: float


@dataclass(frozen=True, slots=True)
class Hit:
    """One answer: an image, or a caption of one.

    rank: from 1, over all pages. id: the image in this collection. sha256: hex digest of its bytes.
    path: its first present file that satisfies the filters, absolute; None for what an application added by key
    alone. paths: all of them.
    key: the application's own key, where there is one.
    caption: the text, for caption hits; else None.
    score: what ranks: the cosine similarity to the query, -1 to 1 (BM25 for keywords, reciprocal ranks for both
    together, 0 where nothing but filters were asked for). It is not a probability.
    probability: that this answers the query, 0 to 1; None where the space is not calibrated for such a query.
    shares: each term's part of the score. taken_at: when the picture was taken, local time, where that is known.
    folded: near-duplicates that `unique` folded into this hit, best first; those among the first 200 answers at least.
    width, height: in pixels, upright; None where they are not known (images known by their vectors alone).
    """

    rank: int
    id: int
    sha256: str
    path: Path | None
    paths: tuple[Path, ...]
    key: str | None
    caption: str | None
    score: float
    probability: float | None = None
    shares: tuple[Share, ...] = ()
    taken_at: datetime | None = None
    folded: tuple[Hit, ...] = ()
    width: int | None = None
    height: int | None = None


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The hits of one query, best first, with the space they were found in.

    exact: True when no vector was left out of the comparison. notice: one line for the person, or None
    (a damaged index was worked around, say).
    relevant: how many of these hits are relevant (more likely than not, or as likely as `min_probability` asked);
    None where that cannot be told. calibration: where the probabilities come from: labelled pairs and a background
    that the `encoder` brings along, or the `collection` itself, which is rougher; None without probabilities.
    """

    space: str
    exact: bool
    hits: tuple[Hit, ...]
    notice: str | None = None
    relevant: int | None = None
    calibration: CalibrationKind | None = None

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def __len__(self) -> int:
        return len(self.hits)

    def __getitem__(self, position: int) -> Hit:
        return self.hits[position]


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A place where an image lies, or lay: `relative` below `root`. size_bytes, mtime_ns: as they were indexed."""

    root: Path
    relative: Path
    present: bool
    size_bytes: int
    mtime_ns: int

    @property
    def path(self) -> Path:
        return self.root / self.relative


@dataclass(frozen=True, slots=True)
class SourcedCaption:
    """A text attached to an image, and where it came from."""

    text: str
    source: str


@dataclass(frozen=True, slots=True)
class GivenTag:
    """A tag of an image. by: `person`, or `zero-shot` classification, which knows a probability."""

    name: str
    by: str
    probability: float | None


@dataclass(frozen=True, slots=True)
class ImageDetails:
    """All that a collection knows about one image.

    width, height: in pixels, upright. format: `jpeg`, `png`, ... taken_at: local time. latitude, longitude: degrees.
    files: where it lies, those that are present first. text: what was read inside the picture. key: the application's
    own key. None: not known.
    """

    id: int
    sha256: str
    width: int | None
    height: int | None
    format: str | None
    taken_at: datetime | None
    camera: str | None
    lens: str | None
    latitude: float | None
    longitude: float | None
    files: tuple[ImageFile, ...]
    captions: tuple[SourcedCaption, ...]
    tags: tuple[GivenTag, ...]
    text: str | None
    key: str | None


@dataclass(frozen=True, slots=True)
class Count:
    """How many images have a value: a month (`2024-05`), a camera, a tag, a format."""

    name: str
    count: int


@dataclass(frozen=True, slots=True)
class FolderCount:
    """How many images lie in a folder or below it. label: the name of its root and the way below it, for people; path:
    absolute, what `Filters.inside` takes. depth: 0 for a root, 1 for a folder in it, ..."""

    label: str
    path: Path
    count: int
    depth: int


@dataclass(frozen=True, slots=True)
class Facets:
    """How the images that satisfy some filters are spread; `total` is how many there are.

    dates: by month, in order. folders: each before those in it, by name. cameras, tags, formats: the most frequent
    first. places: how many know where they were taken; points: latitude, longitude and id of them, of at most 2,000
    evenly chosen ones. What nothing has is left out. without_*: how many do not know it.
    """

    total: int
    dates: tuple[Count, ...]
    folders: tuple[FolderCount, ...]
    cameras: tuple[Count, ...]
    tags: tuple[Count, ...]
    formats: tuple[Count, ...]
    places: int
    points: tuple[tuple[float, float, int], ...]
    without_date: int
    without_place: int
    without_camera: int


@dataclass(frozen=True, slots=True)
class FailedFile:
    """A file that could not be indexed, and why (one line)."""

    path: Path
    error: str


@dataclass(frozen=True, slots=True)
class Progress:
    """What an index run is doing. `done` of `total` files; total is 0 while it is not known yet.

    stage: waiting (another run holds the collection; `message` says who), scanning, encoding, captions, reading (text
    inside pictures), building, calibrating, tagging, comparing, mapping; training, where the files are steps.
    """

    stage: Literal[
        "waiting",
        "scanning",
        "encoding",
        "captions",
        "reading",
        "building",
        "calibrating",
        "tagging",
        "comparing",
        "training",
        "mapping",
    ]
    done: int = 0
    total: int = 0
    message: str = ""


@dataclass(slots=True)
class IndexReport:
    """What an index run did. The counts are of files, but for captions (texts added).

    new: files not seen before. changed: other content at a known place. moved: known content whose old place is
    gone. removed: deleted by `prune`. unchanged: left as they were. failed: cannot be indexed as they are now,
    those known from earlier runs included. missing: gone since the last run from a folder that is there; they keep
    their vectors and are not found any more. left_alone: roots that are away or suddenly empty, with the reason.
    notices: other lines worth showing. cancelled: stopped early; what was committed is kept.
    texts: pictures in which this run found text, where it was asked to read it.
    """

    space: str
    new: int = 0
    changed: int = 0
    moved: int = 0
    removed: int = 0
    unchanged: int = 0
    failed: int = 0
    captions: int = 0
    missing: int = 0
    seconds: float = 0.0
    images_per_second: float = 0.0
    cancelled: bool = False
    failures: list[FailedFile] = field(default_factory=list)
    left_alone: list[tuple[Path, str]] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    texts: int = 0

    @property
    def changes(self) -> int:
        """How much is other than before; 0 where the run only looked."""
        files = self.new + self.changed + self.moved + self.removed + self.missing
        return files + self.captions + self.texts


@dataclass(frozen=True, slots=True)
class IndexInfo:
    """How the vectors of a space are searched. kind: `flat` (FAISS, float16) or `scan` (no generation yet)."""

    kind: str
    exact: bool


@dataclass(frozen=True, slots=True)
class SpaceStatus:
    """One space of a collection: whose it is, how many vectors it holds, whether queries use it by default."""

    encoder: str
    dimension: int
    images: int
    captions: int
    index: IndexInfo
    current: bool
    ready: bool


@dataclass(frozen=True, slots=True)
class RootStatus:
    """A root and whether it can be read now."""

    path: Path
    files: int
    present: bool


@dataclass(frozen=True, slots=True)
class Status:
    """What a collection holds. images: contents with at least one present file. missing: files gone from a root
    that is there."""

    collection: Path
    roots: tuple[RootStatus, ...]
    images: int
    captions: int
    missing: int
    failed: tuple[FailedFile, ...]
    spaces: tuple[SpaceStatus, ...]


@dataclass(frozen=True, slots=True)
class Verification:
    """What `verify` found. problems: one line each, with the remedy; empty means sound."""

    checked_vectors: int
    checked_files: int
    problems: tuple[str, ...]

    @property
    def sound(self) -> bool:
        return not self.problems


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that `doctor` looked at. state: ok; warning: it works, but not as it could; problem: something does
    not work. message, remedy: one line each; no remedy where nothing is to be done."""

    area: Area
    state: Literal["ok", "warning", "problem"]
    message: str
    remedy: str | None = None


@dataclass(frozen=True, slots=True)
class Copy:
    """One of several pictures that are the same, or alike.

    id: the image in this collection. path: where it lies, absolute; None for what an application added by key alone.
    paths: all its present files, that one first (in the tier `exact` each file is a copy by itself).
    width, height: in pixels, where known. size_bytes: of the file. taken_at: when it was taken, local time, where that
    is known; changed_at: when the file was last changed.
    """

    id: int
    sha256: str
    path: Path | None
    paths: tuple[Path, ...]
    key: str | None
    width: int | None
    height: int | None
    size_bytes: int
    taken_at: datetime | None
    changed_at: datetime | None


@dataclass(frozen=True, slots=True)
class DuplicateGroup:
    """Pictures of which every two are alike.

    tier: `exact` (the same bytes), `near` (the same picture), `semantic` (alike). keeper: the one we suggest to keep;
    reason: what sets it apart from the next best, in a word or two. others: the rest, the best first.
    similarity: of the two least alike: 1 for equal bytes, the share of equal bits of the perceptual hash, the cosine.
    """

    tier: Tier
    keeper: Copy
    others: tuple[Copy, ...]
    reason: str
    similarity: float


@dataclass(frozen=True, slots=True)
class Duplicates:
    """What `duplicates` found: groups by tier, then by the keeper's path. notices: lines worth showing."""

    groups: tuple[DuplicateGroup, ...]
    notices: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[DuplicateGroup]:
        return iter(self.groups)

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, position: int) -> DuplicateGroup:
        return self.groups[position]
