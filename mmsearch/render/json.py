"""The JSON that commands print with `--json`. The shapes are a promise: keys keep their names, meaning and order;
new ones are added at the end.

Paths that are no UTF-8 are os.fsdecode'd; `dumps` escapes everything above ASCII, so their bytes survive:
Python reads them back with os.fsencode.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmsearch.evaluation import Evaluation, Figures
    from mmsearch.types import IndexReport, SearchResult, Status, Verification


def dumps(data: dict[str, Any]) -> str:
    """ASCII only, indented, one trailing newline left to the caller."""
    return json.dumps(data, indent=2, ensure_ascii=True, allow_nan=False)


def index_report(report: IndexReport) -> dict[str, Any]:
    """Counts of files; seconds; images_per_second over the whole run."""
    return {
        "new": report.new,
        "changed": report.changed,
        "moved": report.moved,
        "removed": report.removed,
        "unchanged": report.unchanged,
        "failed": report.failed,
        "captions": report.captions,
        "seconds": round(report.seconds, 3),
        "images_per_second": round(report.images_per_second, 1),
        "space": report.space,
        "missing": report.missing,
        "left_alone": [{"root": str(root), "reason": reason} for root, reason in report.left_alone],
        "notices": list(report.notices),
    }


def search_result(result: SearchResult) -> dict[str, Any]:
    """`path` is absolute, or null for what an application added by key; `caption` is null for image hits."""
    return {
        "space": result.space,
        "exact": result.exact,
        "hits": [
            {
                "rank": hit.rank,
                "id": hit.id,
                "sha256": hit.sha256,
                "path": None if hit.path is None else str(hit.path),
                "paths": [str(path) for path in hit.paths],
                "caption": hit.caption,
                "score": round(hit.score, 6),
                "key": hit.key,
            }
            for hit in result
        ],
    }


def status(status: Status) -> dict[str, Any]:
    """`roots` are absolute paths; `away` those of them that cannot be read now."""
    return {
        "collection": str(status.collection),
        "roots": [str(root.path) for root in status.roots],
        "images": status.images,
        "captions": status.captions,
        "failed": [{"path": str(failed.path), "error": failed.error} for failed in status.failed],
        "spaces": [
            {
                "encoder": space.encoder,
                "dimension": space.dimension,
                "images": space.images,
                "captions": space.captions,
                "index": {"kind": space.index.kind, "exact": space.index.exact},
                "current": space.current,
                "ready": space.ready,
            }
            for space in status.spaces
        ],
        "missing": status.missing,
        "away": [str(root.path) for root in status.roots if not root.present],
    }


def verification(verification: Verification) -> dict[str, Any]:
    """`problems` holds one line each, with the remedy."""
    return {
        "sound": verification.sound,
        "checked_vectors": verification.checked_vectors,
        "checked_files": verification.checked_files,
        "problems": list(verification.problems),
    }


def evaluation(evaluation: Evaluation) -> dict[str, Any]:
    """Recalls in percent. `left_out` counts the named images that could not be used."""
    return {
        "images": evaluation.images,
        "captions": evaluation.captions,
        "t2i": _figures(evaluation.text_to_image),
        "i2t": _figures(evaluation.image_to_text),
        "space": evaluation.space,
        "left_out": len(evaluation.left_out),
    }


def _figures(figures: Figures) -> dict[str, float]:
    return {
        "R@1": round(figures.recall_at_1, 2),
        "R@5": round(figures.recall_at_5, 2),
        "R@10": round(figures.recall_at_10, 2),
        "median_rank": figures.median_rank,
    }
