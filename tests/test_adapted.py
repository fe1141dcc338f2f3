"""Small maps on another encoder's vectors: their values, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mmsearch.encoders.adapted import BASE, PARTS, AdaptedEncoder, base_of, write_adapted
from mmsearch.encoders.registry import load_encoder
from mmsearch.errors import WeightsMismatchError, WeightsNotFoundError
from tests.conftest import paint
from tests.toy import ToyEncoder

D = 13


def write(folder: Path, base: str = "toy", **changed: np.ndarray) -> Path:
    parts = {name: np.zeros((D, D) if name.endswith("matrix") else D, np.float32) for name in PARTS} | changed
    write_adapted(folder, base=base, base_fingerprint="fingerprint of toy", parts=parts, facts={"summary": "mine"})
    return folder


def test_nothing_learnt_changes_nothing(tmp_path: Path) -> None:
    toy = ToyEncoder()
    encoder = AdaptedEncoder(write(tmp_path / "m"), toy)
    np.testing.assert_allclose(
        encoder.encode_texts(["red", "a blue car"]), toy.encode_texts(["red", "a blue car"]), atol=1e-6
    )
    assert encoder.space.fingerprint != toy.space.fingerprint
    assert encoder.space.name == str(tmp_path / "m")
    assert encoder.facts == {"summary": "mine"}


def test_values_by_hand(tmp_path: Path) -> None:
    """The first two numbers change places, the third is shifted; pictures and texts each by their own map."""
    matrix = np.zeros((D, D), np.float32)
    matrix[0, 0] = matrix[1, 1] = -1
    matrix[0, 1] = matrix[1, 0] = 1
    shift = np.zeros(D, np.float32)
    shift[2] = 0.5
    toy = ToyEncoder()
    encoder = AdaptedEncoder(write(tmp_path / "m", image_matrix=matrix, text_shift=shift), toy)
    from PIL import Image

    prepared = [toy.prepare(Image.open(paint(tmp_path / "red.png", "red")))]
    plain, said = toy.encode_images(prepared)[0], toy.encode_texts(["green"])[0]
    wanted = np.concatenate([[plain[1], plain[0]], plain[2:]])
    np.testing.assert_allclose(encoder.encode_images(prepared)[0], wanted, atol=1e-6)
    moved = said + shift
    np.testing.assert_allclose(encoder.encode_texts(["green"])[0], moved / np.linalg.norm(moved), atol=1e-6)


def test_other_weights_below_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsMismatchError, match="other weights"):
        AdaptedEncoder(write(tmp_path / "m"), ToyEncoder("another"))


def damaged_bytes(folder: Path) -> None:
    data = bytearray((folder / "adapter.npz").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "adapter.npz").write_bytes(bytes(data))


def no_weights(folder: Path) -> None:
    (folder / "adapter.npz").unlink()


def no_json(folder: Path) -> None:
    (folder / "encoder.json").write_text("{")


def other_json(folder: Path) -> None:
    (folder / "encoder.json").write_text("[]")


def no_list_of_files(folder: Path) -> None:
    manifest = json.loads((folder / "encoder.json").read_text())
    (folder / "encoder.json").write_text(json.dumps(manifest | {"files": ["adapter.npz"]}))


@pytest.mark.parametrize(
    ("damage", "error", "line"),
    [
        (other_json, WeightsMismatchError, "describes no encoder"),
        (no_list_of_files, WeightsMismatchError, "damaged"),
        (damaged_bytes, WeightsMismatchError, "damaged"),
        (no_weights, WeightsNotFoundError, "cannot be read"),
        (no_json, WeightsMismatchError, "not valid JSON"),
    ],
)
def test_damage_is_one_line(damage: Callable[[Path], None], error: type[Exception], line: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "m")
    damage(folder)
    with pytest.raises(error, match=line) as raised:
        AdaptedEncoder(folder, ToyEncoder())
    assert "\n" not in str(raised.value)


def test_vectors_of_another_length_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "m", image_shift=np.zeros(7, np.float32))
    with pytest.raises(WeightsMismatchError, match="vectors of 13"):
        AdaptedEncoder(folder, ToyEncoder())


def test_the_encoder_below_lies_in_the_folder_or_has_a_name(tmp_path: Path) -> None:
    assert base_of(write(tmp_path / "a", base=BASE)) == str(tmp_path / "a" / "base")
    assert base_of(write(tmp_path / "b", base="ViT-B-32/laion2b_s34b_b79k")) == "ViT-B-32/laion2b_s34b_b79k"
    manifest = json.loads((tmp_path / "b" / "encoder.json").read_text())
    (tmp_path / "b" / "encoder.json").write_text(json.dumps(manifest | {"base": 7}))
    with pytest.raises(WeightsMismatchError, match="names no encoder"):
        load_encoder(str(tmp_path / "b"))
