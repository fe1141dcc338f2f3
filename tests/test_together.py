"""Texts of several threads in one batch; one model in memory for all collections."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mmsearch import Engine
from mmsearch.encoders.registry import load_encoder, shared_encoder
from mmsearch.encoders.together import encode_texts
from mmsearch.errors import ModelError
from tests.toy import COLOURS, ToyEncoder

TEXTS = [f"a {colour} field number {number}" for number in range(4) for colour in COLOURS]


class Gated(ToyEncoder):
    """Waits at a gate in its first batch, so that others queue behind it; notes its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.inside = threading.Event(), threading.Event()
        self.batches: list[list[str]] = []

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.batches.append(list(texts))
        self.inside.set()
        assert self.gate.wait(30)
        if any("broken" in text for text in texts):
            raise ModelError("this one is broken")
        return super().encode_texts(texts)


def queued(encoder: Gated, first: str, others: Sequence[Sequence[str]]) -> list[NDArray[np.float32] | ModelError]:
    """Encode `first`, and all of the others while it is at work; each answer or error, `first` last."""

    def one(texts: Sequence[str]) -> NDArray[np.float32] | ModelError:
        try:
            return encode_texts(encoder, texts)
        except ModelError as error:
            return error

    from mmsearch.encoders import together

    with ThreadPoolExecutor(len(others) + 1) as pool:
        begun = pool.submit(one, [first])
        assert encoder.inside.wait(30)
        rest = [pool.submit(one, texts) for texts in others]
        deadline = time.monotonic() + 30
        while len(together._queues[encoder].waiting) < len(others):
            assert time.monotonic() < deadline
            time.sleep(0.001)
        encoder.gate.set()
        return [*(one.result() for one in rest), begun.result()]


def test_what_waits_is_encoded_together_and_gives_each_its_own() -> None:
    encoder = Gated()
    answers = queued(encoder, "red", [TEXTS[at : at + 2] for at in range(0, 20, 2)])
    assert [len(batch) for batch in encoder.batches] == [1, 20]
    alone = ToyEncoder()
    for at, answer in zip(range(0, 20, 2), answers, strict=False):
        assert isinstance(answer, np.ndarray)
        np.testing.assert_array_equal(answer, alone.encode_texts(TEXTS[at : at + 2]))


def test_the_same_text_from_many_threads() -> None:
    encoder = Gated()
    answers = queued(encoder, "red", [["red"]] * 70)
    assert [len(batch) for batch in encoder.batches] == [1, 64, 6]
    for answer in answers:
        np.testing.assert_array_equal(answer, ToyEncoder().encode_texts(["red"]))  # type: ignore[arg-type]


def test_two_that_ask_for_the_same_are_two() -> None:
    from mmsearch.encoders.together import _batch, _Queue, _Request

    first, second = _Request(["red"]), _Request(["red"])
    queue = _Queue([first, second])
    batch = _batch(queue, second)
    assert batch[0] is second and batch[1] is first and len(batch) == 2
    assert not queue.waiting


def test_a_batch_has_an_end() -> None:
    encoder = Gated()
    queued(encoder, "red", [[f"text {number}"] * 20 for number in range(7)])
    assert [len(batch) for batch in encoder.batches] == [1, 60, 60, 20]
    seen = [text for batch in encoder.batches[1:] for text in dict.fromkeys(batch)]
    assert sorted(seen) == [f"text {number}" for number in range(7)]


def test_a_text_that_fails_fails_alone() -> None:
    encoder = Gated()
    answers = queued(encoder, "red", [["green"], ["broken"], ["blue"]])
    kinds = [type(answer) for answer in answers]
    assert kinds == [np.ndarray, ModelError, np.ndarray, np.ndarray]
    np.testing.assert_array_equal(answers[2], ToyEncoder().encode_texts(["blue"]))  # type: ignore[arg-type]


def test_alone_it_is_called_once_and_raises_what_it_raises() -> None:
    encoder = Gated()
    encoder.gate.set()
    encode_texts(encoder, ["red"])
    with pytest.raises(ModelError):
        encode_texts(encoder, ["broken"])
    assert encoder.batches == [["red"], ["broken"]]
    assert encode_texts(encoder, []).shape == (0, 13)


def test_encoders_are_let_go() -> None:
    encoder = ToyEncoder()
    encode_texts(encoder, ["red"])
    gone = weakref.ref(encoder)
    del encoder
    gc.collect()
    assert gone() is None


def test_searches_give_the_same_alone_and_in_a_crowd(tmp_path: Path, images: Path) -> None:
    with Engine.open(tmp_path / "lite") as engine:
        engine.index(images)
        texts = [f"{word} {colour}" for word in ("a", "a picture of a large and noisy", "dark") for colour in COLOURS]
        alone = [[(hit.id, hit.score) for hit in engine.search(text)] for text in texts]
        with ThreadPoolExecutor(24) as pool:
            crowd = list(pool.map(lambda text: [(hit.id, hit.score) for hit in engine.search(text)], texts))
        for one, other in zip(alone, crowd, strict=True):
            assert dict(one) == pytest.approx(dict(other), abs=1e-5)


def test_collections_share_one_model(tmp_path: Path, images: Path) -> None:
    with Engine.open(tmp_path / "a") as first, Engine.open(tmp_path / "b") as second:
        for engine in (first, second):
            engine.index(images)
            engine.search("red")
        assert first._load("lite") is second._load("lite")
        kept = weakref.ref(first._load("lite"))
    del first, second, engine
    gc.collect()
    assert kept() is None


def test_a_shared_encoder_is_one_of_its_weights() -> None:
    first = shared_encoder("lite")
    assert shared_encoder("lite") is first
    assert shared_encoder("lite", precision="fp32") is not first
    assert load_encoder("lite") is not first
