"""Pictures in words: /describe and /images/{id}/describe, tags by people, and /why a picture is found."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response

from mmsearch.render import json as as_json
from mmsearch.server import answers, shapes
from mmsearch.server.images import known
from mmsearch.server.replies import reply, seen, shown
from mmsearch.server.search import ImageId, asked
from mmsearch.server.settings import API
from mmsearch.server.state import Collection, Served

router = APIRouter(prefix=API, tags=["words"])

Few = Annotated[int, Query(ge=1, le=100)]
TagName = Annotated[str, Path(min_length=1, max_length=200)]


@router.get("/images/{image}/describe", response_model=answers.Description)
async def describe_image(image: ImageId, served: Collection, k: Few = 5) -> Response:
    """The captions nearest to an image of the collection, and the labels most probable for it."""

    def job() -> Response:
        known(served, image)
        return reply(_described(served, f"#{image}", image, k))

    return await served.state.workers.run(job)


@router.post("/describe", response_model=answers.Description)
async def describe(order: shapes.DescribeOrder, served: Collection) -> Response:
    """The same for an uploaded picture."""
    return await served.state.workers.run(
        lambda: reply(_described(served, order.upload, served.state.uploads.get(order.upload), order.k))
    )


@router.post("/images/{image}/tags", response_model=list[answers.TagOfImage])
async def add_tags(image: ImageId, names: shapes.TagNames, served: Collection) -> Response:
    """Give an image tags, as a person. Answers with all that it has."""

    def job() -> Response:
        known(served, image)
        served.engine.add_tags([image], names.names)
        return reply(_tags(served, image))

    return await served.state.workers.run(job)


@router.delete("/images/{image}/tags/{name:path}", response_model=list[answers.TagOfImage])
async def remove_tag(image: ImageId, name: TagName, served: Collection) -> Response:
    """Take a tag away from an image, whoever gave it. Answers with those that are left."""

    def job() -> Response:
        known(served, image)
        served.engine.remove_tags([image], [name])
        return reply(_tags(served, image))

    return await served.state.workers.run(job)


@router.get("/tags", response_model=list[answers.TagCount])
async def tags(served: Collection) -> Response:
    """All tags, and how many images have each."""
    return await served.state.workers.run(
        lambda: reply([{"name": name, "images": images} for name, images in served.engine.tags().items()])
    )


@router.post("/why", response_model=answers.Explanation)
async def why(order: shapes.WhyOrder, served: Collection) -> Response:
    """Why a query finds an image where it does, or why not."""

    def job() -> Response:
        known(served, order.image)
        found = as_json.explanation(served.engine.why(order.image, asked(order.query, served.state)))
        if found["hit"] is not None:
            shown([found["hit"]], served)
        return reply(seen([found], served)[0])

    return await served.state.workers.run(job)


def _described(served: Served, name: str, picture: int | bytes, k: int) -> dict[str, Any]:
    found = as_json.description(name, served.engine.describe(picture, k=k))
    shown(found["captions"], served)
    return found


def _tags(served: Served, image: int) -> list[dict[str, Any]]:
    return [{"name": one.name, "by": one.by, "probability": one.probability} for one in known(served, image).tags]
