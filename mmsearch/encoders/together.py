"""Texts of several threads, encoded together (group commit): while one batch is being encoded, others wait; the next
batch takes all of them. Nothing waits for a timer, and a thread alone pays nothing.

In: an encoder and texts, on any thread. Out: what `encoder.encode_texts` gives for these texts; the encoder's contract
says that nothing depends on what else is in a batch.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mmsearch.encoders.protocol import Encoder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_TEXTS = 64  # of one batch, so that the last to come does not wait for hundreds


@dataclass(slots=True, eq=False)  # two that ask for the same texts are two
class _Request:
    """taken: some batch has it, or had it. answer: None where that batch failed."""

    texts: Sequence[str]
    taken: bool = False
    answer: NDArray[np.float32] | None = None


@dataclass(slots=True)
class _Queue:
    """waiting: requests that no batch has taken yet. turn: who holds it encodes, for itself and for others."""

    waiting: list[_Request] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    turn: threading.Lock = field(default_factory=threading.Lock)


_queues: weakref.WeakKeyDictionary[Encoder, _Queue] = weakref.WeakKeyDictionary()
_making = threading.Lock()


def encode_texts(encoder: Encoder, texts: Sequence[str]) -> NDArray[np.float32]:
    """n texts -> (n, dimension) float32, unit length. Raises what the encoder raises for these very texts."""
    try:
        with _making:
            queue = _queues.setdefault(encoder, _Queue())
    except TypeError:  # an application's encoder that cannot be a key
        return encoder.encode_texts(texts)
    mine = _Request(texts)
    with queue.lock:
        queue.waiting.append(mine)
    with queue.turn:
        if not mine.taken:
            _encode(encoder, _batch(queue, mine))
    if mine.answer is None:  # the batch failed: alone, this fails only by its own fault
        return encoder.encode_texts(texts)
    return mine.answer


def _batch(queue: _Queue, mine: _Request) -> list[_Request]:
    """`mine` and as many of those that wait as one batch takes, in their order."""
    batch, size = [mine], len(mine.texts)
    with queue.lock:
        queue.waiting.remove(mine)
        while queue.waiting and size + len(queue.waiting[0].texts) <= MOST_TEXTS:
            batch.append(queue.waiting.pop(0))
            size += len(batch[-1].texts)
        for one in batch:
            one.taken = True
    return batch


def _encode(encoder: Encoder, batch: Sequence[_Request]) -> None:
    try:
        rows = encoder.encode_texts([text for one in batch for text in one.texts])
    except Exception:
        if len(batch) == 1:
            raise
        return  # each encodes its own texts again, and raises what is its own
    start = 0
    for one in batch:
        one.answer = rows[start : start + len(one.texts)]
        start += len(one.texts)
