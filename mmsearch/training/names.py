"""What someone typed for a name -> what they should have typed. In: a name, the valid ones. Out: one line."""

from __future__ import annotations

import difflib
from collections.abc import Collection

from mmsearch.errors import UsageError


def unknown(kind: str, name: str, valid: Collection[str]) -> UsageError:
    """kind: what is named, as in `recipe`. Lists the valid names and guesses the typo."""
    near = difflib.get_close_matches(name, valid, 1)
    guess = f"; did you mean {near[0]}?" if near else "."
    return UsageError(f"There is no {kind} {name!r}{guess} Valid are: {', '.join(valid)}.")
