"""Whether a fine-tuned encoder should take over: it must be better at home, and not much worse elsewhere.

In: what a run measured, how many points may be lost on the general set. Out: yes or no, and why, in one line.
"""

from __future__ import annotations

from dataclasses import dataclass

from mmsearch.training.run import Report


@dataclass(frozen=True, slots=True)
class Verdict:
    better: bool
    why: str


def verdict(report: Report, allowed_loss: float) -> Verdict:
    """Held out: the figure rises, its whole 95 % interval above zero. General: it falls by no more than is allowed."""
    if report.held_out is None or report.general is None:
        return Verdict(False, f"the recipe {report.recipe.name} fine-tunes no encoder; only those are promoted")
    home, away = report.held_out.main, report.general.main
    if home.low is None or home.low <= 0:
        reach = "too few captions or labels to be sure" if home.low is None else f"95 % interval from {home.low:+.1f}"
        return Verdict(False, f"{home.direction} {home.name} of held-out pictures {home.value:+.1f} points, {reach}")
    if away.value < -allowed_loss:
        lost = f"{away.direction} {away.name} of {report.general.about} {away.value:+.1f} points"
        return Verdict(False, f"{lost}, more than the {allowed_loss:g} that may be lost")
    return Verdict(
        True,
        f"{home.direction} {home.name} of held-out pictures {home.value:+.1f} points (95 % interval {home.low:+.1f} to "
        f"{home.high:+.1f}), of {report.general.about} {away.value:+.1f}",
    )
