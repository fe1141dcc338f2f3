"""What goes in, checked before anything is done. What queries and filters mean, and which of them cannot be, is said
by `mmsearch.query` and `mmsearch.filters`."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Query
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from mmsearch.filters import MAX_VALUES, Having, Orientation
from mmsearch.query import Match, Sort
from mmsearch.server.thumbnails import Size
from mmsearch.types import Kind, Tier

MOST_HITS = 500
MOST_TERMS = 32
LONGEST_TEXT = 5_000  # characters; encoders read some hundred
LARGEST = 2**63 - 1

Id = Annotated[int, Field(ge=0, le=LARGEST, description="An image of the collection.")]
UploadId = Annotated[str, Field(pattern="^[0-9a-f]{64}$", description="What POST /uploads answered.")]
Text = Annotated[str, Field(min_length=1, max_length=1_000)]
Values = Annotated[list[Text], Field(max_length=MAX_VALUES)]
ThumbnailSize = Annotated[Size, BeforeValidator(int), Query(description="Most pixels of the shorter side.")]
Count = Annotated[int, Field(ge=1, le=MOST_HITS)]


class Asked(BaseModel):
    """What clients send: nothing that is not known, and no guessing of types."""

    model_config = ConfigDict(extra="forbid", strict=True)


class TermShape(Asked):
    """One part of a query: exactly one of text, image, picture, upload."""

    text: Annotated[str, Field(max_length=LONGEST_TEXT)] | None = None
    image: Id | None = None
    picture: Annotated[str, Field(pattern="^[hH][tT][tT][pP][sS]?://", max_length=4_000)] | None = Field(
        default=None, description="The address of a picture of the web."
    )
    upload: UploadId | None = None
    weight: float = Field(1.0, description="How much it counts; below zero: look for what is unlike it.")
    part: Annotated[list[float], Field(min_length=4, max_length=4)] | None = Field(
        default=None, description="Of a picture: x, y, width, height, in pixels, or in shares where none is above 1."
    )


class FiltersShape(Asked):
    """An image must satisfy all of these."""

    inside: Values | None = Field(default=None, description="Folders; in one of them, or below.")
    after: Text | None = Field(default=None, examples=["2024-05-01"])
    before: Text | None = Field(default=None, examples=["2024-06-01T12:00"])
    camera: Values | None = None
    near: Annotated[list[float], Field(min_length=3, max_length=3)] | None = Field(
        default=None, description="Latitude, longitude in degrees, distance in kilometres."
    )
    min_width: int | None = None
    min_height: int | None = None
    orientation: Orientation | None = None
    format: Values | None = None
    tags: Values | None = None
    has: Annotated[list[Having], Field(max_length=10)] | None = None
    where: Annotated[str, Field(max_length=LONGEST_TEXT)] | None = Field(
        default=None, examples=["width >= 1920 and camera like 'Canon%'"]
    )


class QueryShape(Asked):
    """What to look for, and which answers to show; as `mmsearch.Query`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"terms": [{"text": "a red sports car"}], "k": 20},
                {"terms": [{"text": "a beach"}, {"text": "people", "weight": -1}], "filters": {"has": ["gps"]}},
                {"terms": [{"image": 12}], "unique": True},
            ]
        }
    )

    terms: Annotated[list[TermShape], Field(max_length=MOST_TERMS)] = []
    find: Kind = "images"
    k: Count = 10
    offset: Annotated[int, Field(ge=0, le=10**9)] = 0
    filters: FiltersShape = FiltersShape()
    match: Match = "vectors"
    sort: Sort = "relevance"
    min_probability: Annotated[float, Field(ge=0, le=1)] | None = None
    more: Annotated[list[Id], Field(max_length=500)] = []
    less: Annotated[list[Id], Field(max_length=500)] = []
    unique: bool = False
    diverse: Annotated[float, Field(ge=0, le=1)] = 0.0


# --- orders -------------------------------------------------------------------------------------------------------


class DescribeOrder(Asked):
    upload: UploadId
    k: Annotated[int, Field(ge=1, le=100)] = 5


class TagNames(Asked):
    names: Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(min_length=1, max_length=100)]


class WhyOrder(Asked):
    image: Id
    query: QueryShape


class DuplicatesOrder(Asked):
    tiers: Annotated[list[Tier], Field(min_length=1, max_length=3)] = ["exact", "near"]
    similarity: Annotated[float, Field(gt=0, le=1)] | None = None


class FacetsOrder(Asked):
    filters: FiltersShape = FiltersShape()


class ExportOrder(Asked):
    ids: Annotated[list[Id], Field(min_length=1, max_length=2_000)]


class IndexOrder(Asked):
    """Index the collection's folders again, or some folders inside them."""

    kind: Literal["index"]
    folders: Annotated[list[Text], Field(max_length=100)] = []
    exclude: Annotated[list[Text], Field(max_length=100)] = []
    prune: bool = False
    ocr: bool = False


class EvaluateOrder(Asked):
    """Measure how well the model finds the collection's own pictures; with another one beside it."""

    kind: Literal["evaluate"]
    rival: Text | None = None
    source: Literal["captions", "folders"] | None = None


class TagOrder(Asked):
    """Tag images by zero-shot classification: these labels, or common things; these images, or all."""

    kind: Literal["tag"]
    labels: Annotated[list[Text], Field(min_length=1, max_length=5_000)] | None = None
    min_probability: Annotated[float, Field(ge=0, le=1)] | None = None
    images: Annotated[list[Id], Field(min_length=1, max_length=5_000)] | None = None


class MapOrder(Asked):
    """Compute the map of all images, where there is none or too much has changed."""

    kind: Literal["map"]


RunOrder = IndexOrder | EvaluateOrder | TagOrder | MapOrder
