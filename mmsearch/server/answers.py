"""What comes out, as OpenAPI shows it. Answers are written by `render.json`; these classes describe them, and a test
holds the two together."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from mmsearch.types import CalibrationKind, Tier

LocalTime = Annotated[str, Field(description="ISO 8601, by the clock where it was; cameras know no time zones.")]


class Share(BaseModel):
    term: str
    score: float


class Hit(BaseModel):
    """An image, or a caption of one."""

    rank: int
    id: int
    sha256: str
    path: str | None
    paths: list[str]
    caption: str | None
    score: float
    key: str | None
    probability: float | None
    shares: list[Share]
    taken_at: LocalTime | None
    folded: list[Hit]
    width: int | None
    height: int | None
    name: str


class Found(BaseModel):
    """`relevant` of these hits are relevant; `total` images satisfy the filters."""

    space: str
    exact: bool
    hits: list[Hit]
    relevant: int | None
    calibration: CalibrationKind | None
    notice: str | None
    total: int
    seconds: float


class Problem(BaseModel):
    """What went wrong, in `detail`. `type` names the class of the error in Python, after `urn:mmsearch:`."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[dict[str, Any]] | None = None


class FileOfImage(BaseModel):
    path: str
    name: str
    present: bool


class CaptionOfImage(BaseModel):
    text: str
    source: str


class TagOfImage(BaseModel):
    name: str
    by: Literal["person", "zero-shot"]
    probability: float | None


class Image(BaseModel):
    """All that is known about an image."""

    id: int
    sha256: str
    width: int | None
    height: int | None
    format: str | None
    taken_at: LocalTime | None
    camera: str | None
    lens: str | None
    latitude: float | None
    longitude: float | None
    size_bytes: int | None
    files: list[FileOfImage]
    captions: list[CaptionOfImage]
    tags: list[TagOfImage]
    text: str | None
    key: str | None


class Space(BaseModel):
    encoder: str
    dimension: int
    images: int
    captions: int
    index: dict[str, Any]
    current: bool
    ready: bool


class Status(BaseModel):
    """What the collection holds. `files`: how many each root has."""

    collection: str
    roots: list[str]
    images: int
    captions: int
    failed: list[dict[str, str]]
    spaces: list[Space]
    missing: int
    away: list[str]
    files: list[int]
    encoder: str | None
    version: str
    watching: Literal["events", "polling"] | None


class Served(BaseModel):
    name: str
    images: int
    current: bool


class Upload(BaseModel):
    id: str
    width: int
    height: int


class Saved(BaseModel):
    """`query` as POST /search takes it; one that was saved in a shell may name files of the server's machine."""

    name: str
    query: dict[str, Any]


class Label(BaseModel):
    label: str
    score: float
    probability: float | None


class Description(BaseModel):
    picture: str
    space: str
    captions: list[Hit]
    labels: list[Label]
    calibration: CalibrationKind | None


class TagCount(BaseModel):
    name: str
    images: int


class Explanation(BaseModel):
    state: Literal["found", "filtered", "folded", "unlikely", "no match", "not encoded", "failed", "missing", "unknown"]
    path: str | None
    id: int | None
    hit: Hit | None
    answers: int | None
    filtered_by: list[str]
    reason: str | None
    relevant: int | None


class Copy(BaseModel):
    id: int
    sha256: str
    path: str | None
    paths: list[str]
    key: str | None
    width: int | None
    height: int | None
    size_bytes: int
    taken_at: LocalTime | None
    changed_at: LocalTime | None


class DuplicateGroup(BaseModel):
    tier: Tier
    reason: str
    similarity: float
    keeper: Copy
    others: list[Copy]


class Duplicates(BaseModel):
    groups: list[DuplicateGroup]
    notices: list[str]


class Run(BaseModel):
    """`stage` and `done` of `total` say how far it is; `message` why it waits or failed, `error` as which class of
    `mmsearch.errors`; `report` what it did."""

    id: int
    kind: Literal["index", "evaluate", "tag", "map"]
    collection: str
    state: Literal["waiting", "running", "done", "failed", "cancelled"]
    stage: str | None
    done: int
    total: int
    message: str
    started_at: datetime | None
    ended_at: datetime | None
    report: dict[str, Any] | None
    error: str | None


class CountOf(BaseModel):
    name: str
    count: int


class MonthCount(BaseModel):
    month: str
    count: int


class FolderOf(BaseModel):
    """`prefix` is what the filter `inside` takes; `path` is for people."""

    path: str
    prefix: str
    count: int
    depth: int


class Places(BaseModel):
    """`points`: latitude, longitude and id, of at most 2,000 images, evenly chosen."""

    count: int
    points: list[tuple[float, float, int]]


class Without(BaseModel):
    date: int
    place: int
    camera: int


class Facets(BaseModel):
    total: int
    dates: list[MonthCount]
    folders: list[FolderOf]
    cameras: list[CountOf]
    tags: list[CountOf]
    formats: list[CountOf]
    places: Places
    without: Without


class MapWord(BaseModel):
    text: str
    x: float
    y: float


class Map(BaseModel):
    """`ids`, `x` and `y` (0 to 1) belong together. While it is computed, `run` says by which run."""

    state: Literal["ready", "computing", "none"]
    method: str | None
    ids: list[int]
    x: list[float]
    y: list[float]
    labels: list[MapWord]
    run: int | None
    message: str
