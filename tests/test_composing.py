"""Terms become one vector that looks for all of them; each has its share of a score."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mmsearch import Engine, Limits, Query, Term, errors, fetching
from mmsearch.composing import FULL_SIZE, Composed, compose, open_picture
from mmsearch.feedback import LESS, MORE
from mmsearch.relevance import Calibration
from tests.conftest import paint
from tests.toy import ToyEncoder


class Spread:
    """A calibration that only knows how far scores spread."""

    def spread(self, modality: Literal["texts", "pictures"]) -> float:
        return {"texts": 0.05, "pictures": 0.2}[modality]


def composed(
    *terms: Term,
    more: tuple[int, ...] = (),
    less: tuple[int, ...] = (),
    stored: dict[int, NDArray[np.float32]] | None = None,
    calibration: object = None,
    dimension: int = 13,
) -> Composed:
    assert calibration is None or isinstance(calibration, Spread | Calibration)
    return compose(
        Query(terms, more=more, less=less),
        dimension,
        encoder=ToyEncoder(),
        stored=stored or {},
        files=Path,  # type: ignore[arg-type]
        calibration=calibration,  # type: ignore[arg-type]
        limits=Limits(),
    )


def unit(vector: NDArray[np.floating]) -> NDArray[np.float64]:
    wide = np.asarray(vector, np.float64)
    return wide / np.linalg.norm(wide)


def of(text: str) -> NDArray[np.float64]:
    return ToyEncoder().encode_texts([text])[0].astype(np.float64)


RED = np.full((16, 16, 3), (220, 30, 30), np.uint8)


def test_one_term_is_its_own_vector() -> None:
    assert np.allclose(composed(Term(text="blue")).vector, of("blue"), atol=1e-6)
    assert np.allclose(composed(Term(text="blue", weight=7)).vector, of("blue"), atol=1e-6)
    assert np.allclose(composed(Term(text="blue", weight=-1)).vector, -of("blue"), atol=1e-6)


def test_weights_and_what_is_unwanted() -> None:
    vector = composed(Term(text="blue", weight=2), Term(text="red"), Term(text="green", weight=-0.5)).vector
    assert np.allclose(vector, unit(2 * of("blue") + of("red") - 0.5 * of("green")), atol=1e-6)


def test_each_kind_is_brought_to_unit_length_before_they_are_added() -> None:
    picture = ToyEncoder().encode_images([RED.astype(np.float32)])[0].astype(np.float64)
    expected = unit(of("blue") + picture)
    assert np.allclose(composed(Term(text="blue"), Term(picture=RED)).vector, expected, atol=1e-6)
    three = composed(Term(text="blue"), Term(picture=RED), Term(picture=RED), Term(picture=RED)).vector
    assert np.allclose(three, expected, atol=1e-6)


def test_the_mean_weight_of_a_kind_is_its_weight_beside_the_others() -> None:
    picture = ToyEncoder().encode_images([RED.astype(np.float32)])[0].astype(np.float64)
    vector = composed(Term(text="blue", weight=2), Term(text="green", weight=4), Term(picture=RED, weight=1.5)).vector
    assert np.allclose(vector, unit(unit(2 * of("blue") + 4 * of("green")) * 3 + picture * 1.5), atol=1e-6)


def test_pictures_do_not_drown_texts() -> None:
    """As in the spaces of real encoders: scores of pictures lie four times as far apart as those of texts."""
    rng = np.random.default_rng(1)
    common, text, picture = np.eye(8)[:3]
    rows = common + 0.3 * rng.normal(size=(400, 8)) * np.array([0, 0.2, 1, 0.1, 0.1, 0.1, 0.1, 0.1])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    terms = (Term(vector=text), Term(vector=picture))
    by_text, by_picture = (set(np.argsort(-(rows @ one))[:40]) for one in (text, picture))

    def share_of_text(scores: NDArray[np.float64]) -> float:
        best = set(np.argsort(-scores)[:40])
        return len(best & by_text) / max(1, len(best & by_text) + len(best & by_picture))

    # What `compose` makes of a text and a picture, with these two vectors in their places.
    class Encoder(ToyEncoder):
        def encode_texts(self, texts: object) -> NDArray[np.float32]:
            return text[None].astype(np.float32)

        def encode_images(self, prepared: object) -> NDArray[np.float32]:
            return picture[None].astype(np.float32)

    def vector(calibration: Spread | None) -> NDArray[np.float32]:
        query = Query((Term(text="x"), Term(picture=RED)))
        return compose(
            query,
            8,
            encoder=Encoder(),
            stored={},
            files=Path,
            calibration=calibration,
            limits=Limits(),  # type: ignore[arg-type]
        ).vector

    assert len(terms) == 2
    assert share_of_text(rows @ vector(None)) < 0.25  # a plain sum: the text hardly counts
    assert 0.35 < share_of_text(rows @ vector(Spread())) < 0.65


def test_parts_add_up_to_the_vector_and_have_names() -> None:
    stored = {3: of("red").astype(np.float32), 9: of("yellow").astype(np.float32), 4: of("white").astype(np.float32)}
    got = composed(
        Term(text="blue", weight=2), Term(image=9, weight=-1), more=(3,), less=(4,), stored=stored, calibration=Spread()
    )
    assert got.names == ("2:blue", "unlike #9", "more #3", "less #4")
    assert np.allclose(got.parts.sum(0), got.vector, atol=1e-6)
    assert np.linalg.norm(got.vector) == pytest.approx(1, abs=1e-6)


def test_feedback_is_rocchios() -> None:
    good, bad = of("red"), of("yellow")
    stored = {1: good.astype(np.float32), 2: of("orange").astype(np.float32), 3: bad.astype(np.float32)}
    vector = composed(Term(text="blue"), more=(1, 2), less=(3,), stored=stored).vector
    expected = of("blue") + MORE * (good + of("orange")) / 2 - LESS * bad
    assert np.allclose(vector, unit(expected), atol=1e-6)
    alone = composed(more=(1,), stored=stored).vector
    assert np.allclose(alone, good, atol=1e-6)


def test_what_asks() -> None:
    stored = {1: of("red").astype(np.float32)}
    assert composed(Term(text="a")).direction("images") == "t2i"
    assert composed(Term(image=1), stored=stored).direction("images") == "i2i"
    assert composed(Term(image=1), Term(text="white", weight=-1), stored=stored).direction("captions") == "i2t"
    assert composed(Term(image=1), Term(text="blue"), stored=stored).direction("captions") == "t2t"


def test_terms_that_cancel_each_other_out() -> None:
    with pytest.raises(errors.UsageError, match="cancel"):
        composed(Term(text="blue"), Term(text="blue", weight=-1))
    stored = {1: of("red").astype(np.float32)}
    with pytest.raises(errors.UsageError, match="cancel"):
        composed(Term(vector=of("red")), Term(image=1, weight=-1), stored=stored)


# --- pictures -----------------------------------------------------------------------------------------------------


@pytest.fixture
def quarters(tmp_path: Path) -> Path:
    """200 x 100 pixels: red, green above blue, yellow; stored sideways, so that only its upright form is right."""
    picture = Image.new("RGB", (200, 100), (255, 0, 0))
    picture.paste((0, 255, 0), (100, 0, 200, 50))
    picture.paste((0, 0, 255), (0, 50, 100, 100))
    picture.paste((255, 255, 0), (100, 50, 200, 100))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise by 90 degrees to see it upright
    path = tmp_path / "quarters.png"
    picture.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    return path


@pytest.mark.parametrize(
    ("part", "size", "colour"),
    [
        ((100, 0, 100, 50), (100, 50), (0, 255, 0)),
        ((0, 50, 100, 50), (100, 50), (0, 0, 255)),
        ((0.5, 0.5, 0.5, 0.5), (100, 50), (255, 255, 0)),
        ((150, 60, 9999, 9999), (50, 40), (255, 255, 0)),
        ((10, 10, 1.5, 0.4), (2, 1), (255, 0, 0)),
    ],
)
def test_a_part_of_a_picture(
    quarters: Path, part: tuple[float, float, float, float], size: tuple[int, int], colour: tuple[int, int, int]
) -> None:
    cut = open_picture(quarters, FULL_SIZE, Limits(), part=part)
    assert cut.size == size
    assert cut.getcolors() == [(size[0] * size[1], colour)]


def test_a_part_outside_the_picture(quarters: Path) -> None:
    with pytest.raises(errors.UsageError, match=r"lies outside .*quarters.png, which has 200 x 100 pixels"):
        open_picture(quarters, FULL_SIZE, Limits(), part=(200, 0, 10, 10))


def test_a_part_of_an_indexed_image_and_the_image_itself(engine: Engine, tmp_path: Path) -> None:
    both = Image.new("RGB", (80, 40), (220, 30, 30))
    both.paste((30, 40, 220), (40, 0, 80, 40))
    (tmp_path / "in").mkdir()
    both.save(tmp_path / "in" / "both.png")
    paint(tmp_path / "in" / "blue.png", "blue")
    paint(tmp_path / "in" / "red.png", "red")
    engine.index(tmp_path / "in")
    image = next(hit.id for hit in engine.search("red") if hit.path and hit.path.name == "both.png")
    assert engine.search(Term(image=image), k=1)[0].id == image
    left = engine.search(Term(image=image, part=(0, 0, 40, 40)), k=1)[0]
    right = engine.search(Term(image=image, part=(0.5, 0, 0.5, 1)), k=1)[0]
    assert (left.path and left.path.name, right.path and right.path.name) == ("red.png", "blue.png")


def test_images_that_cannot_be_asked_by_id(engine: Engine, images: Path) -> None:
    engine.index(images)
    with pytest.raises(errors.UsageError, match="no image #999"):
        engine.search(Query(more=(999,)))
    with pytest.raises(errors.UsageError, match="no image #999"):
        engine.search(Term(image=999))
    engine.add("key", np.asarray(Image.open(images / "red.png").resize((9, 9))))
    keyed = next(hit.id for hit in engine.search("red", k=99) if hit.key)
    assert engine.search(Term(image=keyed), k=1)[0].id == keyed
    with pytest.raises(errors.UsageError, match="has no file here"):
        engine.search(Term(image=keyed, part=(0, 0, 1, 1)))


def test_an_url_is_fetched_and_used(engine: Engine, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.index(images)
    asked = []

    def fetch(url: str, *, max_bytes: int, private_addresses: bool) -> bytes:
        asked.append((url, max_bytes, private_addresses))
        return (images / "green.png").read_bytes()

    monkeypatch.setattr(fetching, "fetch", fetch)
    hit = engine.search(Term(picture="https://a.example/green.png"), k=1)[0]
    assert hit.path == images / "green.png"
    assert asked == [("https://a.example/green.png", 200_000_000, False)]
    with pytest.raises(errors.UsageError, match=r"a\.example.*not a picture"):
        monkeypatch.setattr(fetching, "fetch", lambda *_, **__: b"<html>")
        engine.search(Term(picture="http://a.example/x"))
