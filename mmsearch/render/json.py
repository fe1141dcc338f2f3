"""The JSON that commands print with `--json`. The shapes are a promise: keys keep their names, meaning and order;
new ones are added at the end.

Paths that are no UTF-8 are os.fsdecode'd; `dumps` escapes everything above ASCII, so their bytes survive:
Python reads them back with os.fsencode.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmsearch.comparing import ChangedQuery, Comparison, Reach
    from mmsearch.describing import Description
    from mmsearch.evaluation import Evaluation
    from mmsearch.explaining import Explanation
    from mmsearch.judging import Figures
    from mmsearch.labels import LabelScore
    from mmsearch.tagging import TagReport
    from mmsearch.types import Copy, Duplicates, Finding, Hit, IndexReport, SearchResult, Status, Verification


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
        "texts": report.texts,
    }


def search_result(result: SearchResult) -> dict[str, Any]:
    """`path` is absolute, or null for what an application added by key; `caption` is null for image hits;
    `probability`, `relevant` and `calibration` are null where the space is not calibrated for the query; `folded` are
    the near-duplicates that --unique folded into a hit, in the shape of hits."""
    return {
        "space": result.space,
        "exact": result.exact,
        "hits": [_hit(hit) for hit in result],
        "relevant": result.relevant,
        "calibration": result.calibration,
    }


def _hit(hit: Hit) -> dict[str, Any]:
    return {
        "rank": hit.rank,
        "id": hit.id,
        "sha256": hit.sha256,
        "path": None if hit.path is None else str(hit.path),
        "paths": [str(path) for path in hit.paths],
        "caption": hit.caption,
        "score": round(hit.score, 6),
        "key": hit.key,
        "probability": None if hit.probability is None else round(hit.probability, 4),
        "shares": [{"term": share.term, "score": round(share.score, 6)} for share in hit.shares],
        "taken_at": None if hit.taken_at is None else hit.taken_at.isoformat(),
        "folded": [_hit(other) for other in hit.folded],
        "width": hit.width,
        "height": hit.height,
    }


def explanation(found: Explanation) -> dict[str, Any]:
    """`state` is one of: found, filtered, folded, unlikely, no match, not encoded, failed, missing, unknown; `hit` has
    its rank among all `answers`."""
    return {
        "state": found.state,
        "path": None if found.path is None else str(found.path),
        "id": found.id,
        "hit": None if found.hit is None else _hit(found.hit),
        "answers": found.answers,
        "filtered_by": list(found.filtered_by),
        "reason": found.reason,
        "relevant": found.relevant,
    }


def duplicates(found: Duplicates) -> dict[str, Any]:
    """`keeper` is the copy that we suggest to keep, `reason` why; `similarity` is that of the two least alike."""
    return {
        "groups": [
            {
                "tier": group.tier,
                "reason": group.reason,
                "similarity": round(group.similarity, 6),
                "keeper": _copy(group.keeper),
                "others": [_copy(copy) for copy in group.others],
            }
            for group in found
        ],
        "notices": list(found.notices),
    }


def _copy(copy: Copy) -> dict[str, Any]:
    """`path` is null for what an application added by key; `paths` has all its files. Times are local."""
    return {
        "id": copy.id,
        "sha256": copy.sha256,
        "path": None if copy.path is None else str(copy.path),
        "paths": [str(path) for path in copy.paths],
        "key": copy.key,
        "width": copy.width,
        "height": copy.height,
        "size_bytes": copy.size_bytes,
        "taken_at": None if copy.taken_at is None else copy.taken_at.isoformat(),
        "changed_at": None if copy.changed_at is None else copy.changed_at.isoformat(),
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


def description(picture: str, described: Description) -> dict[str, Any]:
    """`picture` as it was named; `captions` in the shape of hits; `probability` is null without a calibration."""
    return {
        "picture": picture,
        "space": described.space,
        "captions": [_hit(hit) for hit in described.captions],
        "labels": [_label(one) for one in described.labels],
        "calibration": described.calibration,
    }


def tag_report(report: TagReport) -> dict[str, Any]:
    """`labels`: how many were looked for; `counts`: of those that a picture has or had before; `pictures`: the files
    that were named one by one."""
    return {
        "space": report.space,
        "labels": report.labels,
        "min_probability": report.min_probability,
        "dry_run": report.dry_run,
        "images": report.images,
        "tagged": report.tagged,
        "left_out": report.left_out,
        "added": report.added,
        "removed": report.removed,
        "counts": [
            {
                "label": one.label,
                "images": one.images,
                "added": one.added,
                "removed": one.removed,
                "examples": [str(path) for path in one.examples],
            }
            for one in report.counts
        ],
        "pictures": [
            {"path": str(one.path), "labels": [_label(label) for label in one.labels]} for one in report.pictures
        ],
        "calibration": report.calibration,
        "cancelled": report.cancelled,
    }


def _label(one: LabelScore) -> dict[str, Any]:
    return {
        "label": one.label,
        "score": round(one.score, 6),
        "probability": None if one.probability is None else round(one.probability, 4),
    }


def findings(findings: Sequence[Finding]) -> dict[str, Any]:
    """`sound`: there are no problems. `remedy` is null where nothing is to be done."""
    return {
        "sound": all(one.state != "problem" for one in findings),
        "findings": [
            {"area": one.area, "state": one.state, "message": one.message, "remedy": one.remedy} for one in findings
        ],
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
    """Everything in percent and points but ranks, probabilities and the index's recall (0 to 1). `left_out` counts the
    named images that could not be used. `t2i` and `i2t` are null for a set of labels, `low` and `high` (the ends of the
    95 % interval) and `p` where the queries are too few. `differences`: what the rival has over this model."""
    data = _evaluation(evaluation)
    data["rival"] = None if evaluation.rival is None else _evaluation(evaluation.rival)
    data["differences"] = [
        {
            "direction": one.direction,
            "measure": one.name,
            "difference": round(one.value, 3),
            "low": _rounded(one.low),
            "high": _rounded(one.high),
            "p": one.p,
        }
        for one in evaluation.differences
    ]
    return data


def _evaluation(evaluation: Evaluation) -> dict[str, Any]:
    index = evaluation.index
    return {
        "images": evaluation.images,
        "captions": evaluation.captions,
        "t2i": None if evaluation.text_to_image is None else _figures(evaluation.text_to_image),
        "i2t": None if evaluation.image_to_text is None else _figures(evaluation.image_to_text),
        "space": evaluation.space,
        "left_out": len(evaluation.left_out),
        "about": evaluation.about,
        "measures": [
            {
                "direction": one.direction,
                "measure": one.name,
                "value": round(one.value, 3),
                "low": _rounded(one.low),
                "high": _rounded(one.high),
            }
            for one in evaluation.measures
        ],
        "labels": [
            {"label": one.label, "images": one.images, "AP": round(one.average_precision, 3)}
            for one in evaluation.labels
        ],
        "index": None
        if index is None
        else {"k": index.k, "recall": round(index.recall, 6), "queries": index.queries, "exact": index.exact},
    }


def comparison(comparison: Comparison) -> dict[str, Any]:
    """`stay`: how many of the first `of` answers are the same; `overlap`: rank-biased overlap of the two orders, 0 to
    1; `error`: why a query could not be asked. `evaluation` is the old model's, with the new one as its rival."""
    return {
        "old": _reach(comparison.old),
        "new": _reach(comparison.new),
        "k": comparison.k,
        "queries": [_changed(one) for one in comparison.queries],
        "evaluation": None if comparison.evaluation is None else evaluation(comparison.evaluation),
        "no_evaluation": comparison.no_evaluation,
    }


def _reach(reach: Reach) -> dict[str, Any]:
    return {
        "encoder": reach.encoder,
        "encoded": reach.encoded,
        "images": reach.images,
        "current": reach.current,
    }


def _changed(changed: ChangedQuery) -> dict[str, Any]:
    def hits(found: tuple[Hit, ...]) -> list[dict[str, Any]]:
        return [
            {"rank": hit.rank, "id": hit.id, "path": None if hit.path is None else str(hit.path), "key": hit.key}
            for hit in found
        ]

    return {
        "name": changed.name,
        "stay": changed.stay,
        "of": changed.of,
        "overlap": round(changed.overlap, 6),
        "come": hits(changed.come),
        "go": hits(changed.go),
        "error": changed.error,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _figures(figures: Figures) -> dict[str, float]:
    return {
        "R@1": round(figures.recall_at_1, 2),
        "R@5": round(figures.recall_at_5, 2),
        "R@10": round(figures.recall_at_10, 2),
        "median_rank": figures.median_rank,
    }
