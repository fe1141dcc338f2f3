"""What happened and what is there, in plain lines that read the same on a terminal and in a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import groupby
from typing import TYPE_CHECKING

from mmsearch.render.text import count, file_size, printable
from mmsearch.types import Duplicates, Finding, IndexReport, SpaceStatus, Status

if TYPE_CHECKING:
    from mmsearch.describing import Description
    from mmsearch.encoders.registry import ModelInfo
    from mmsearch.explaining import Explanation
    from mmsearch.following import Following
    from mmsearch.labels import LabelScore
    from mmsearch.tagging import LabelledPicture, TagReport

_FAILURES_SHOWN = 10  # the rest is in `status`


def index_report(report: IndexReport) -> str:
    """One line. What did not happen is not mentioned, but for new and unchanged."""
    counts = ((report.changed, "changed"), (report.moved, "moved"), (report.removed, "removed"))
    parts = [f"{report.new:,} new", *(f"{number:,} {word}" for number, word in counts if number)]
    parts.append(f"{report.unchanged:,} unchanged")
    if report.missing:
        parts.append(f"{report.missing:,} missing")
    if report.failed:
        parts.append(f"{report.failed:,} failed")
    if report.captions:
        parts.append(count(report.captions, "caption"))
    if report.texts:
        parts.append(f"text in {count(report.texts, 'picture')}")
    rate = f", {report.images_per_second:,.0f} pictures a second" if report.images_per_second >= 1 else ""
    return f"{', '.join(parts)}; {report.seconds:.1f} s{rate} ({printable(report.space)})"


def index_problems(report: IndexReport) -> list[str]:
    """A line each; of the files that failed, the first ones."""
    problems = [f"{printable(str(root))}: left alone: {reason}" for root, reason in report.left_alone]
    problems += report.notices
    shown = report.failures[:_FAILURES_SHOWN]
    problems += [f"{printable(str(failure.path))}: {failure.error}" for failure in shown]
    if report.failed > len(shown):  # those of earlier runs among them: they are tried again when they change
        more = f"{report.failed - len(shown):,} more failed" if shown else f"{report.failed:,} failed in earlier runs"
        problems.append(f"{more}; `mmsearch status` lists them all.")
    return problems


def following(roots: Iterable[Following]) -> str:
    """Part of a line."""
    ways = [
        f"{printable(str(one.folder))} by {one.how}{f' ({one.reason})' if one.reason else ''}"
        if one.how != "away"
        else f"{printable(str(one.folder))} once it is back"
        for one in roots
    ]
    return f"following {', '.join(ways) or 'nothing: there are no folders yet'}"


def duplicates(found: Duplicates) -> str:
    """One line: how much could go, and that nothing did."""
    sizes = {path: copy.size_bytes for group in found for copy in group.others for path in copy.paths}
    files = count(len(sizes), "file") + f", {file_size(sum(sizes.values()))}"
    return f"{count(len(found), 'group')}; {files} besides the keepers. Nothing was deleted (--paths lists them)."


def status(status: Status) -> str:
    """A block of lines; failed files come last, because there may be many."""
    lines = [
        f"Collection  {printable(str(status.collection))}",
        f"Pictures    {status.images:,}",
        f"Captions    {status.captions:,}",
    ]
    if status.missing:
        gone = count(status.missing, "file is", "files are")
        lines.append(f"Missing     {gone} gone or left out at the last run (`mmsearch index --prune` forgets them)")
    lines += ["", "Folders" if status.roots else "No folders yet; add some with `mmsearch index FOLDER`."]
    for root in status.roots:
        lines.append(
            f"  {printable(str(root.path))}: {count(root.files, 'file')}{'' if root.present else ', AWAY now'}"
        )
    if status.spaces:
        lines += ["", "Encoders", *(f"  {_space(space)}" for space in status.spaces)]
    if status.failed:
        lines += ["", f"Failed      {count(len(status.failed), 'file')}; each is tried again when it changes"]
        lines += [f"  {printable(str(failed.path))}: {printable(failed.error)}" for failed in status.failed]
    return "\n".join(lines)


def _space(space: SpaceStatus) -> str:
    marks = [mark for mark, true in (("current", space.current), ("not complete yet", not space.ready)) if true]
    held = f"{count(space.images, 'picture')}, {count(space.captions, 'caption')}, {space.dimension} dimensions"
    index = f"{space.index.kind} index, {'exact' if space.index.exact else 'approximate'}"
    marked = f" ({', '.join(marks)})" if marks else ""
    return f"{printable(space.encoder)}{marked}: {held}; {index}"


def explanation(found: Explanation) -> str:
    """Why an image is an answer, or not: a line, then one for each term."""
    name = printable(str(found.path)) if found.path is not None else f"Image #{found.id}"
    hit, reason = found.hit, f": {printable(found.reason)}" if found.reason else ""
    said = {
        "filtered": f"{name} is left out by {', '.join(found.filtered_by)}.",
        "failed": f"{name} could not be indexed{reason}.",
        "missing": f"{name} is missing{reason}.",
        "unknown": f"{name} is not in the collection{reason}.",
        "not encoded": f"{name} cannot be compared{reason}.",
        "no match": f"{name} is not among the {found.answers or 0:,} answers{reason}.",
    }
    if hit is None:
        return said.get(found.state, f"{name} is not among the answers{reason}.")
    place = f"{hit.rank:,} of {found.answers or 0:,}"
    line = {
        "found": f"{name} is answer {place}{_relevant(found)}.",
        "folded": f"{name} is folded into answer {place}, which looks the same: {printable(str(hit.path or hit.key))}.",
        "unlikely": f"{name} is left out, since it is less likely than --min-probability asks.",
    }[found.state]
    facts = [("score", f"{hit.score:+.3f}")] + [(printable(share.term), f"{share.score:+.3f}") for share in hit.shares]
    if hit.probability is not None:
        facts.insert(0, ("likely", f"{hit.probability:.1%}"))
    width = max(len(fact) for fact, _ in facts)
    return "\n".join([line, *(f"  {fact:<{width}}  {value:>7}" for fact, value in facts)])


def findings(findings: Iterable[Finding]) -> str:
    """A block of lines for each area: what is not in order is marked, what to do stands below it. Then the sum."""
    marks = {"ok": " ", "warning": "!", "problem": "X"}
    lines: list[str] = []
    states: Counter[str] = Counter()
    for area, several in groupby(findings, lambda one: one.area):
        lines.append(area.capitalize())
        for one in several:
            states[one.state] += 1
            lines.append(f"{marks[one.state]} {printable(one.message)}")
            lines += [f"    -> {printable(one.remedy)}"] if one.remedy else []
        lines.append("")
    wrong = f"{count(states['problem'], 'problem')} (X), {count(states['warning'], 'warning')} (!)."
    return "\n".join([*lines, wrong if states["problem"] or states["warning"] else "All is well."])


def _relevant(found: Explanation) -> str:
    if found.relevant is None:
        return ""
    inside = found.hit is not None and (found.hit.probability or 0) >= 0.5
    return (
        f", one of {found.relevant:,} relevant ones" if inside else f", below the {found.relevant:,} that are relevant"
    )


def models(models: Iterable[ModelInfo]) -> str:
    """Two lines a model: name and whether it is here, then what it is."""
    return "\n".join(line for model in models for line in _model(model))


def _model(model: ModelInfo) -> tuple[str, str]:
    facts = [
        "here" if model.weights else "not here",
        f"{model.megabytes:,} MB" if model.megabytes else "",
        f"{model.dimension} dimensions" if model.dimension else "",
        model.languages or "",
        model.licence or "",
        f"needs mmsearch[{model.extra}]" if model.extra else "",
    ]
    return f"{printable(model.name)}  ({', '.join(filter(None, facts))})", f"    {printable(model.summary)}"


def description(described: Description) -> str:
    """The captions nearest to a picture, then its labels, each with how likely it is, or its score."""
    lines = [f"  {_likely(hit.probability, hit.score)}  {printable(hit.caption or '')}" for hit in described.captions]
    if lines:
        lines = ["Captions", *lines, ""]
    return "\n".join([*lines, "Labels", *(f"  {_label(one)}" for one in described.labels)])


def labelled(picture: LabelledPicture) -> str:
    """One line: a file and its labels."""
    labels = [f"{printable(one.label)} {_likely(one.probability, one.score).strip()}" for one in picture.labels]
    return f"{printable(str(picture.path))}: {', '.join(labels) or 'none'}"


def tag_report(report: TagReport) -> str:
    """One line."""
    would = "would be " if report.dry_run else ""
    parts = [
        f"{count(report.tagged, 'picture')} of {report.images:,} {would}tagged",
        f"{count(report.added, 'tag')} {would}added",
        f"{report.removed:,} {would}removed",
    ]
    asked = f"{count(report.labels, 'label')} at {report.min_probability:.0%}"
    return f"{', '.join(parts)}; {asked} ({printable(report.space)})"


def _label(one: LabelScore) -> str:
    return f"{_likely(one.probability, one.score)}  {printable(one.label)}"


def _likely(probability: float | None, score: float) -> str:
    """Five characters."""
    return f"{score:5.3f}" if probability is None else f"{probability:5.0%}"
