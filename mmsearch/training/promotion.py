"""Whether a fine-tuned encoder should take over: it must be better at home, and not much worse elsewhere.

In: what a run measured, how many points may be lost on the general set. Out: yes or no, and why, in one line.
"""

from __future__ import annotations

from dataclasses import dataclass

from mmsearch.judging import LEAST_GROUPS, Difference
from mmsearch.training.run import Report


@dataclass(frozen=True, slots=True)
class Verdict:
    better: bool
    why: str


def verdict(report: Report, allowed_loss: float) -> Verdict:
    """Held out: the figure rises, its whole 95 % interval above zero; where pictures decide, as labels are too few,
    texts find no less. General: what texts find falls by no more than is allowed."""
    if report.held_out is None or report.general is None:
        return Verdict(False, f"the recipe {report.recipe.name} fine-tunes no encoder; only those are promoted")
    home, asked, away = report.held_out.main, report.held_out.asked, report.general.asked
    figure = f"{home.direction} {home.name} of held-out pictures {home.value:+.1f} points"
    if home is not asked:
        figure += f" (labels are too few to decide by t2i mAP, {asked.value:+.1f})"
    if home.low is None or home.low <= 0:
        reach = _too_few(home) if home.low is None else f"95 % interval from {home.low:+.1f}"
        return Verdict(False, f"{figure}, {reach}")
    if home is not asked and asked.value < 0:
        return Verdict(False, f"{figure}: texts find less than before")
    if away.value < -allowed_loss:
        lost = f"{away.direction} {away.name} of {report.general.about} {away.value:+.1f} points"
        return Verdict(False, f"{lost}, more than the {allowed_loss:g} that may be lost")
    return Verdict(
        True,
        f"{figure} (95 % interval {home.low:+.1f} to {home.high:+.1f}), {away.direction} {away.name} of "
        f"{report.general.about} {away.value:+.1f}",
    )


def _too_few(home: Difference) -> str:
    if home.name == "mAP":
        return f"too few pictures or labels to be sure; it takes {LEAST_GROUPS}"
    return (
        f"too few different captions to be sure; it takes {LEAST_GROUPS}, or pictures sorted into a subfolder for each "
        "label"
    )
