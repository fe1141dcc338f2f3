"""Answers in JSON -> the records that an engine gives. Keys that a newer server adds are passed over."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmsearch.types import (
    FailedFile,
    GivenTag,
    Hit,
    IndexInfo,
    IndexReport,
    RootStatus,
    SearchResult,
    Share,
    SourcedCaption,
    SpaceStatus,
    Status,
)

if TYPE_CHECKING:
    from mmsearch.describing import Description
    from mmsearch.explaining import Explanation

_COUNTS = ("new", "changed", "moved", "removed", "unchanged", "failed", "captions", "missing", "texts")


def search_result(data: Mapping[str, Any]) -> SearchResult:
    return SearchResult(
        space=data["space"],
        exact=data["exact"],
        hits=tuple(map(hit, data["hits"])),
        notice=data["notice"],
        relevant=data["relevant"],
        calibration=data["calibration"],
    )


def hit(data: Mapping[str, Any]) -> Hit:
    return Hit(
        rank=data["rank"],
        id=data["id"],
        sha256=data["sha256"],
        path=_path(data["path"]),
        paths=tuple(map(Path, data["paths"])),
        key=data["key"],
        caption=data["caption"],
        score=data["score"],
        probability=data["probability"],
        shares=tuple(Share(one["term"], one["score"]) for one in data["shares"]),
        taken_at=None if data["taken_at"] is None else datetime.fromisoformat(data["taken_at"]),
        folded=tuple(map(hit, data["folded"])),
        width=data["width"],
        height=data["height"],
    )


def status(data: Mapping[str, Any]) -> Status:
    away = set(data["away"])
    return Status(
        collection=Path(data["collection"]),
        roots=tuple(
            RootStatus(Path(root), files, root not in away)
            for root, files in zip(data["roots"], data["files"], strict=True)
        ),
        images=data["images"],
        captions=data["captions"],
        missing=data["missing"],
        failed=tuple(FailedFile(Path(one["path"]), one["error"]) for one in data["failed"]),
        spaces=tuple(
            SpaceStatus(
                encoder=one["encoder"],
                dimension=one["dimension"],
                images=one["images"],
                captions=one["captions"],
                index=IndexInfo(one["index"]["kind"], one["index"]["exact"]),
                current=one["current"],
                ready=one["ready"],
            )
            for one in data["spaces"]
        ),
    )


def explanation(data: Mapping[str, Any]) -> Explanation:
    from mmsearch.explaining import Explanation

    return Explanation(
        state=data["state"],
        path=_path(data["path"]),
        id=data["id"],
        hit=None if data["hit"] is None else hit(data["hit"]),
        answers=data["answers"],
        filtered_by=tuple(data["filtered_by"]),
        reason=data["reason"],
        relevant=data["relevant"],
    )


def description(data: Mapping[str, Any]) -> Description:
    from mmsearch.describing import Description
    from mmsearch.labels import LabelScore

    return Description(
        space=data["space"],
        captions=tuple(map(hit, data["captions"])),
        labels=tuple(LabelScore(one["label"], one["score"], one["probability"]) for one in data["labels"]),
        calibration=data["calibration"],
    )


def index_report(data: Mapping[str, Any], *, cancelled: bool) -> IndexReport:
    """Without the failures, which `status` lists."""
    return IndexReport(
        space=data["space"],
        seconds=data["seconds"],
        images_per_second=data["images_per_second"],
        cancelled=cancelled,
        left_alone=[(Path(one["root"]), one["reason"]) for one in data["left_alone"]],
        notices=list(data["notices"]),
        **{name: data[name] for name in _COUNTS},
    )


def captions(data: list[Mapping[str, Any]]) -> tuple[SourcedCaption, ...]:
    return tuple(SourcedCaption(one["text"], one["source"]) for one in data)


def given_tags(data: list[Mapping[str, Any]]) -> tuple[GivenTag, ...]:
    return tuple(GivenTag(one["name"], one["by"], one["probability"]) for one in data)


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)
