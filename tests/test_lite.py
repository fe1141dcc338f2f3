"""The encoder that ships: what it knows, that it is whole, and that a text needs little."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmsearch.encoders.lite import FACTS, FOLDER, LiteEncoder
from mmsearch.errors import UsageError
from mmsearch.settings import shipped_folder

# Everyday words and the pictures of the demo that answer them (captions.csv says what each shows).
EVERYDAY = {
    "guitar": "guitar",
    "penguin": "penguin",
    "strawberry": "strawberry",
    "a lighthouse": "lighthouse",
    "a bicycle": "bicycle",
    "pizza": "pizza",
    "a castle": "castle",
    "cat": "cat",
    "a clock": "clock",
    "a cup of coffee": "coffee|espresso",
    "a tree": "tree",
    "a musical instrument": "guitar|drum|saxophone|trumpet|violin|piano",
    "a flower": "flower|tulip",
    "a house": "house",
}


@pytest.fixture(scope="module")
def encoder() -> LiteEncoder:
    return LiteEncoder()


@pytest.fixture(scope="module")
def demo(encoder: LiteEncoder) -> tuple[list[str], np.ndarray[Any, Any], dict[str, str]]:
    """Names, vectors and captions of the demo's pictures."""
    folder = shipped_folder("demo")
    with (folder / "captions.csv").open(encoding="utf-8", newline="") as stream:
        captions = {row["image"]: row["caption"] for row in csv.DictReader(stream)}
    prepared = []
    for name in captions:
        with Image.open(folder / "images" / name) as picture:
            prepared.append(encoder.prepare(picture.convert("RGB")))
    return list(captions), encoder.encode_images(prepared), captions


def best(encoder: LiteEncoder, demo: Any, query: str, k: int) -> list[str]:
    names, rows, _ = demo
    scores = rows @ encoder.encode_texts([query])[0]
    return [names[i] for i in np.argsort(-scores)[:k]]


def test_red_cars_come_first(encoder: LiteEncoder, demo: Any) -> None:
    assert {name[:8] for name in best(encoder, demo, "a red sports car", 2)} == {"clip_001", "clip_003"}


def test_everyday_words_find_drawings_and_photographs(encoder: LiteEncoder, demo: Any) -> None:
    """At least twelve of them on the first place, all of them among the first three."""
    captions = demo[2]
    first, missed = 0, []
    for query, words in EVERYDAY.items():
        right = [any(w in captions[name].lower() for w in words.split("|")) for name in best(encoder, demo, query, 3)]
        first += right[0]
        if not any(right):
            missed.append(query)
    assert missed == []
    assert first >= 12


def test_the_files_are_those_of_the_manifest_and_small(encoder: LiteEncoder) -> None:
    encoder.verify_files()
    size = sum(path.stat().st_size for path in FOLDER.iterdir())
    assert size <= 40_000_000
    assert abs(size / 1e6 - FACTS["megabytes"]) < 1
    assert encoder.space.dimension == FACTS["dimension"] <= 768
    assert encoder.space.name == "lite"


def test_the_licences_and_the_card_stand_beside_the_weights() -> None:
    card, licences = (FOLDER / "MODEL_CARD.md").read_text("utf-8"), (FOLDER / "LICENCES").read_text("utf-8")
    facts = json.loads((FOLDER / "encoder.json").read_text("utf-8"))["facts"]
    for name in facts["licences"]:
        assert name in card
    assert "python -m mmsearch.training.lite" in card
    for part in ("EfficientNet-Lite2", "MiniLM", "Apache", "MIT"):
        assert part in card
        assert part in licences


def test_vectors_do_not_depend_on_the_batch(encoder: LiteEncoder) -> None:
    texts = ["guitar", "a man in a red shirt climbs a rock while two others watch him from below", "", "  ", "木"]
    together = encoder.encode_texts(texts * 9)
    alone = np.concatenate([encoder.encode_texts([text]) for text in texts])
    np.testing.assert_allclose(together, np.tile(alone, (9, 1)), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (260, 260, 3), dtype=np.uint8) // (i + 1) for i in range(3)]
    together = encoder.encode_images(pictures)
    alone = np.concatenate([encoder.encode_images([p]) for p in pictures])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)


def test_letter_case_does_not_matter_and_long_texts_are_cut(encoder: LiteEncoder) -> None:
    rows = encoder.encode_texts(["A Red CAR", "a red car"])
    np.testing.assert_array_equal(rows[0], rows[1])
    longer = encoder.encode_texts(["dog " * 62 + "cat", "dog " * 62 + "mountain lake"])
    np.testing.assert_array_equal(longer[0], longer[1])  # 64 tokens with the marks at both ends


def test_other_devices_are_refused() -> None:
    with pytest.raises(UsageError, match="valid are: auto, cpu"):
        LiteEncoder(device="cuda")


def test_a_query_imports_little(tmp_path: Path) -> None:
    code = (
        "import sys; from mmsearch.encoders.lite import LiteEncoder; LiteEncoder().encode_texts(['a red car']);"
        "print([m for m in ('torch', 'torchvision', 'open_clip', 'transformers', 'onnx', 'scipy', 'faiss')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "[]"
