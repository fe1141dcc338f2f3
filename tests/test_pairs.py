"""The last step of an encoder (encoders/pairs.py): neighbours and hubs, against loops and worked examples."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsearch.encoders.pairs import ENDS, KnownPairs, Numbers
from mmsearch.encoders.trained import PAIRS, TrainedEncoder
from mmsearch.errors import ModelError, WeightsMismatchError
from mmsearch.training.export import add_pairs
from tests.contracts.test_encoder import write_trained

Rows = np.ndarray


def unit_rows(count: int, width: int, seed: int) -> Rows:
    rows = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def length_one(row: list[float]) -> list[float]:
    length = math.sqrt(math.fsum(x * x for x in row))
    return [x / length for x in row]


def dot(a: list[float], b: list[float]) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def slowly(row: Rows, like: Rows, theirs: Rows, numbers: Numbers, mean_hub: float) -> tuple[list[float], float]:
    """Moved, and what is taken off its scores; pair by pair."""
    near = [math.exp(numbers.sharpness * dot(row.tolist(), one.tolist())) for one in like]
    towards = length_one(
        [math.fsum(w * one[k] for w, one in zip(near, theirs.tolist(), strict=True)) for k in range(len(row))]
    )
    moved = length_one([x + numbers.share * y for x, y in zip(row.tolist(), towards, strict=True)])
    sums = math.fsum(math.exp(numbers.hub_sharpness * dot(moved, one.tolist())) for one in theirs)
    return moved, numbers.hub_share * (math.log(sums / len(theirs)) / numbers.hub_sharpness - mean_hub)


@given(seed=st.integers(0, 10_000), count=st.integers(1, 12), width=st.integers(2, 9), share=st.floats(0, 2))
def test_against_loops(seed: int, count: int, width: int, share: float) -> None:
    """Vectors are (moved, ends), and a product is that of the moved ones less both hubs, all by one factor."""
    pairs = KnownPairs.of(unit_rows(count, width, seed), unit_rows(count, width, seed + 1), Numbers(share=share))
    rows, numbers = unit_rows(5, width, seed + 2), pairs.numbers
    pictures, texts = pairs.of_images(rows), pairs.of_texts(rows[::-1])
    assert pictures.shape == texts.shape == (5, width + ENDS)
    assert pictures.dtype == texts.dtype == np.float32
    lengths = []
    for i, row in enumerate(rows):
        moved, hub = slowly(row, pairs.images, pairs.texts, numbers, numbers.image_hub)
        wanted = [*moved, -hub / numbers.text_end, numbers.image_end]
        lengths.append(math.sqrt(dot(wanted, wanted)))
        np.testing.assert_allclose(pictures[i], length_one(wanted), atol=2e-5)
        said, text_hub = slowly(rows[4 - i], pairs.texts, pairs.images, numbers, numbers.text_hub)
        wanted = [*said, numbers.text_end, -text_hub / numbers.image_end]
        np.testing.assert_allclose(texts[i], length_one(wanted), atol=2e-5)
        product = (dot(moved, said) - hub - text_hub) / lengths[-1] / math.sqrt(dot(wanted, wanted))
        np.testing.assert_allclose(pictures[i] @ texts[i], product, atol=2e-5)


def test_a_picture_that_is_near_every_text_steps_back() -> None:
    """Texts lie around an axis; so does one picture, that of no text in particular, and it would come first."""
    around = np.eye(9, dtype=np.float32)[1:8] + np.eye(9, dtype=np.float32)[0]
    around /= np.linalg.norm(around, axis=1, keepdims=True)  # 45 degrees from the axis, 60 from one another
    hub, plain = np.eye(9, dtype=np.float32)[0], np.array([0.2, 0.68, *[0] * 6, 0.7054], np.float32)
    towers = around[0] @ np.stack((hub, plain)).T
    assert towers[0] > towers[1]
    pairs = KnownPairs.of(around, around, Numbers(share=0, image_end=2, text_end=2))
    scores = pairs.of_texts(around[:1]) @ pairs.of_images(np.stack((hub, plain))).T
    assert scores[0, 0] < scores[0, 1]


def test_a_picture_learns_what_pictures_like_it_are_called() -> None:
    """It looks like the first known picture, whose text lies elsewhere."""
    images, texts = np.eye(6, dtype=np.float32)[:2], np.eye(6, dtype=np.float32)[2:4]
    pairs = KnownPairs.of(images, texts, Numbers(hub_share=0))
    moved = pairs.of_images(images[:1])[0, :6]
    assert moved[2] > 0.1 > 1e-3 > abs(moved[3])


def test_pictures_are_to_one_another_what_they_were() -> None:
    """Hubs hardly count among pictures, and all lose the same."""
    pairs = KnownPairs.of(unit_rows(200, 24, 0), unit_rows(200, 24, 1), Numbers(share=0))
    rows = unit_rows(60, 24, 2)
    vectors = pairs.of_images(rows)
    before, after = (rows @ rows.T)[np.triu_indices(60, 1)], (vectors @ vectors.T)[np.triu_indices(60, 1)]
    assert np.corrcoef(before, after)[0, 1] > 0.999


def test_known_pairs_are_stored_in_bytes() -> None:
    pairs = KnownPairs.of(unit_rows(40, 12, 0), unit_rows(40, 12, 1), Numbers(share=0.3))
    content = pairs.to_bytes()
    again = KnownPairs.read(content)
    np.testing.assert_allclose(again.images, pairs.images, rtol=1e-6)
    np.testing.assert_allclose(again.texts, pairs.texts, rtol=1e-6)
    assert again.to_bytes() == content
    np.testing.assert_allclose(pairs.images, unit_rows(40, 12, 0), atol=0.005)
    assert len(content) < 2 * 40 * (12 + 4) + 10_000


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04 no archive", KnownPairs.of(unit_rows(2, 3, 0), unit_rows(2, 3, 1), Numbers()).to_bytes()[:200]],
)
def test_damaged_pairs_are_refused(content: bytes) -> None:
    with pytest.raises(ValueError):
        KnownPairs.read(content)


def test_an_encoder_with_pairs(tmp_path: Path) -> None:
    write_trained(tmp_path)
    before = TrainedEncoder(tmp_path)
    plain = before.encode_texts(["a dog", "cats"])
    pairs = KnownPairs.of(unit_rows(9, 6, 0), unit_rows(9, 6, 1), Numbers())
    add_pairs(tmp_path, pairs)
    after = TrainedEncoder(tmp_path)
    after.verify_files()
    assert after.space.dimension == 8
    assert after.space.fingerprint != before.space.fingerprint
    np.testing.assert_allclose(after.encode_texts(["a dog", "cats"]), pairs.of_texts(plain), atol=1e-6)


def test_pairs_of_another_width_are_refused(tmp_path: Path) -> None:
    write_trained(tmp_path)
    add_pairs(tmp_path, KnownPairs.of(unit_rows(9, 5, 0), unit_rows(9, 5, 1), Numbers()))
    with pytest.raises(WeightsMismatchError, match="do not belong together"):
        TrainedEncoder(tmp_path).encode_texts(["a dog"])


def test_pairs_that_are_none_are_refused(tmp_path: Path) -> None:
    write_trained(tmp_path)
    add_pairs(tmp_path, KnownPairs.of(unit_rows(9, 6, 0), unit_rows(9, 6, 1), Numbers()))
    (tmp_path / PAIRS).write_bytes(bytes((tmp_path / PAIRS).stat().st_size))
    with pytest.raises(WeightsMismatchError, match=r"pairs\.npz is damaged"):
        TrainedEncoder(tmp_path).verify_files()
    with pytest.raises(ModelError, match=r"pairs\.npz cannot be loaded"):
        TrainedEncoder(tmp_path).encode_texts(["a dog"])
    (tmp_path / PAIRS).unlink()
    with pytest.raises(WeightsMismatchError, match=r"pairs\.npz is missing"):
        TrainedEncoder(tmp_path)


def test_a_manifest_names_no_other_files(tmp_path: Path) -> None:
    write_trained(tmp_path)
    manifest = json.loads((tmp_path / "encoder.json").read_text())
    manifest["files"]["more.npz"] = {"bytes": 1, "sha256": "0" * 64}
    (tmp_path / "encoder.json").write_text(json.dumps(manifest))
    with pytest.raises(WeightsMismatchError, match="files must name exactly"):
        TrainedEncoder(tmp_path)
