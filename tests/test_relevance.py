"""Scores become probabilities: the mapping itself, what it hangs on, how it is stored, how well it does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch import metrics
from mmsearch.calibrating import background_of
from mmsearch.encoders.lite import FOLDER, LiteEncoder
from mmsearch.encoders.trained import TrainedEncoder
from mmsearch.errors import ModelError, UsageError, WeightsMismatchError
from mmsearch.relevance import (
    DIRECTIONS,
    FORMAT,
    ROUGH,
    Background,
    Calibration,
    Scale,
    Weights,
    calibration_for,
    from_json,
    own_calibration,
    to_json,
)

finite = st.floats(-1, 1)


def unit(rows: object) -> np.ndarray:
    array = np.asarray(rows, np.float32)
    return array / np.linalg.norm(array, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def background() -> Background:
    rng = np.random.default_rng(0)
    return Background(
        images_mean=np.array([0.1, 0.0, 0.0, 0.2]),
        captions_mean=np.array([0.0, 0.3, 0.0, 0.0]),
        bank=unit(rng.normal(size=(40, 4))),
        parts=(3, 1),
        spreads={"t2i": 0.1, "i2i": 0.2, "i2t": 0.1, "t2t": 0.25},
    )


# --- the mapping ------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=100)
@given(st.floats(0.1, 200), st.floats(-100, 100), st.lists(finite, min_size=2, max_size=20))
def test_probabilities_never_contradict_the_scores(slope: float, intercept: float, scores: list[float]) -> None:
    found = Scale(slope, intercept).probability(np.sort(scores))
    assert (np.diff(found) >= 0).all()
    assert ((found >= 0) & (found <= 1)).all()


def test_a_scale_by_hand() -> None:
    scale = Scale(10.0, -2.0)
    np.testing.assert_allclose(scale.probability(np.array([0.2, 0.2 + np.log(3) / 10])), [0.5, 0.75])


# --- what it hangs on -------------------------------------------------------------------------------------------


def test_the_features_by_a_slow_loop(background: Background) -> None:
    rng = np.random.default_rng(1)
    query, best = unit(rng.normal(size=4)), unit(rng.normal(size=(12, 4)))
    best = best[np.argsort(-(best @ query))]
    features, gap = background.features(query, best, 700)
    top = [(float(query @ row) - float(query @ background.images_mean)) / 0.1 for row in best]
    heights, ranks = [[], []], []
    for row in best[:5]:
        for part, where in enumerate((slice(0, 3), slice(3, 4))):
            neutral = [float(text[where] @ row[where]) for text in background.bank]
            heights[part].append((float(query[where] @ row[where]) - np.mean(neutral)) / np.std(neutral))
        ranks.append(np.log(1 + sum(float(text @ row) > float(query @ row) for text in background.bank)))
    nearness = (float(query @ background.captions_mean) - 0.09) / 0.25
    wanted = [1, top[0], np.mean(heights[0]), np.mean(heights[1]), np.mean(ranks), nearness, np.log(700)]
    np.testing.assert_allclose(features, wanted, rtol=1e-3, atol=1e-4)
    assert gap == pytest.approx(np.log(top[0] - top[9] + 0.1), abs=1e-5)


def test_the_best_hit_lies_on_the_line_exactly_where_presence_does(background: Background) -> None:
    """The logit of the best hit has the sign of the presence logistic, whatever the slopes."""
    rng = np.random.default_rng(2)
    signs = set()
    for _ in range(50):
        query, best = unit(rng.normal(size=4)), unit(rng.normal(size=(10, 4)))
        best = best[np.argsort(-(best @ query))]
        weights = Weights((0.3, *rng.normal(size=6) / 5), (0.4, 2.0), (0.9, -0.6), 0.4, ROUGH.plain)
        features, _ = background.features(query, best, 100)
        presence = float(features @ weights.presence)
        scale = Calibration("encoder", background, weights).scale(query, "t2i", best, 100)
        assert scale is not None
        logit = scale.slope * float(query @ best[0]) + scale.intercept
        assert logit == pytest.approx(presence * (0.4 if presence > 0 else 2.0), abs=1e-3)
        signs.add(presence > 0)
    assert signs == {True, False}


def test_fewer_than_ten_hits_and_few_or_many_pictures(background: Background) -> None:
    rng = np.random.default_rng(3)
    query, best = unit(rng.normal(size=4)), unit(rng.normal(size=(1, 4)))
    features, gap = background.features(query, best, 1)
    assert gap is None
    assert features[-1] == pytest.approx(np.log(50))
    assert background.features(query, best, 10**7)[0][-1] == pytest.approx(np.log(10_000))
    weights = Weights((0.0,) * 7, (1.0, 1.0), (0.5, 1.0), 0.25, ROUGH.plain)
    scale = Calibration("encoder", background, weights).scale(query, "t2i", best)
    assert scale is not None
    assert scale.slope == pytest.approx(np.exp(0.75) / 0.1)


def test_without_hits_the_score_alone_counts_in_units_of_the_background(background: Background) -> None:
    query = unit([1.0, 2, 3, 4])
    calibration = Calibration("encoder", background, replace(ROUGH, plain=dict.fromkeys(DIRECTIONS, (2.0, -6.0))))
    for direction, mean, spread in (
        ("t2i", background.images_mean, 0.1), ("i2i", background.images_mean, 0.2),
        ("i2t", background.captions_mean, 0.1), ("t2t", background.captions_mean, 0.25),
    ):  # fmt: skip
        scale = calibration.scale(query, direction)
        assert scale is not None
        three = float(query @ mean) + 3 * spread  # where 2 z - 6 is 0
        assert scale.probability(np.array([three]))[0] == pytest.approx(0.5, abs=1e-6)
    assert (calibration.spread("texts"), calibration.spread("pictures")) == (0.1, 0.2)


def test_a_space_without_texts_answers_pictures_only(background: Background) -> None:
    given_vectors = replace(background, bank=np.empty((0, 4), np.float32), parts=(4,), spreads={"i2i": 0.2})
    calibration = from_json(to_json(given_vectors), "collection")
    query = unit([1.0, 2, 3, 4])
    assert calibration.scale(query, "i2i") is not None
    assert [calibration.scale(query, one) for one in ("t2i", "i2t", "t2t")] == [None] * 3
    assert calibration.spread("texts") == 1.0


# --- stored form ------------------------------------------------------------------------------------------------


def test_what_is_stored_comes_back(background: Background) -> None:
    weights = Weights((1.0, 2, 3, 4, 5, 6, 7), (0.4, 2.0), (0.9, -0.6), 0.4, ROUGH.plain)
    again = from_json(json.loads(json.dumps(to_json(background, weights))), "encoder")
    assert again.weights == weights
    assert (again.kind, again.background.parts, again.background.spreads) == ("encoder", (3, 1), background.spreads)
    np.testing.assert_allclose(again.background.images_mean, background.images_mean, atol=1e-7)
    assert np.abs(again.background.bank - background.bank).max() < 1 / 200
    assert from_json(to_json(replace(background, parts=(4,))), "collection").weights == ROUGH


def test_the_encoders_own_calibration_outranks_the_collections(background: Background) -> None:
    whole = replace(background, parts=(4,))

    class WithCalibration:
        calibration = to_json(whole, ROUGH)

    stored = {"images": 100, **to_json(whole)}
    for encoder, kept, kind in ((WithCalibration(), stored, "encoder"), (object(), stored, "collection")):
        found = calibration_for(encoder, kept)  # type: ignore[arg-type]
        assert found is not None
        assert found.kind == kind
    assert calibration_for(None, None) is None
    assert calibration_for(None, {"format": 1, "images": 3}) is None  # too few pictures
    assert calibration_for(None, {**stored, "format": 999}) is None  # written by another version


def test_the_weights_folder_knows_its_calibration(tmp_path: Path) -> None:
    for path in FOLDER.iterdir():
        (tmp_path / path.name).symlink_to(path)
    manifest = json.loads((FOLDER / "encoder.json").read_text("utf-8"))
    without = {key: value for key, value in manifest.items() if key != "calibration.json"}
    (tmp_path / "encoder.json").unlink()
    (tmp_path / "encoder.json").write_text(json.dumps(without))
    encoder = TrainedEncoder(tmp_path)
    assert encoder.calibration is None
    assert encoder.space.fingerprint == LiteEncoder().space.fingerprint  # vectors made before it stay valid

    (tmp_path / "encoder.json").write_text(json.dumps(manifest))
    content = (FOLDER / "calibration.json").read_bytes()
    (tmp_path / "calibration.json").unlink()
    (tmp_path / "calibration.json").write_bytes(content.replace(b'"usual_gap"', b'"usual_gaq"'))
    with pytest.raises(WeightsMismatchError, match=r"calibration\.json is damaged"):
        TrainedEncoder(tmp_path).verify_files()
    (tmp_path / "calibration.json").write_bytes(b"{" * len(content))
    with pytest.raises(WeightsMismatchError, match=r"calibration\.json is damaged"):
        _ = TrainedEncoder(tmp_path).calibration
    (tmp_path / "calibration.json").unlink()
    with pytest.raises(WeightsMismatchError, match=r"calibration\.json is missing"):
        TrainedEncoder(tmp_path)


def test_the_calibration_error_by_hand() -> None:
    probabilities = np.array([0.05, 0.15, 0.12, 0.95, 1.0, 0.55])
    right = np.array([False, False, True, True, True, False])
    found = metrics.reliability(probabilities, right)
    assert [one.low for one in found] == [0.0, 0.1, 0.5, 0.9]
    assert [one.share for one in found] == pytest.approx([1 / 6, 2 / 6, 1 / 6, 2 / 6])
    assert [one.right for one in found] == [0, 0.5, 0, 1]
    # distances: 0.05, |0.135 - 0.5|, 0.55, |0.975 - 1|
    wanted = (0.05 + 2 * 0.365 + 0.55 + 2 * 0.025) / 6
    assert metrics.calibration_error(probabilities, right) == pytest.approx(wanted)
    weights = np.array([1.0, 0, 0, 0, 0, 3])
    assert metrics.calibration_error(probabilities, right, weights) == pytest.approx((0.05 + 3 * 0.55) / 4)
    with pytest.raises(UsageError, match="between 0 and 1"):
        metrics.reliability(np.array([1.2]), np.array([True]))
    with pytest.raises(UsageError, match="one outcome"):
        metrics.calibration_error(np.empty(0), np.empty(0, bool))


# --- the one that is shipped: clear cases; benchmarks/relevance.py measures ---------------------------------------


@pytest.fixture(scope="module")
def demo() -> tuple[LiteEncoder, Calibration, np.ndarray, list[str]]:
    from PIL import Image

    encoder = LiteEncoder()
    calibration = calibration_for(encoder, None)
    assert calibration is not None
    paths = sorted((Path(__file__).parents[1] / "data" / "demo" / "images").iterdir())
    pictures = [encoder.prepare(Image.open(path).convert("RGB")) for path in paths]
    return encoder, calibration, encoder.encode_images(pictures), [path.name for path in paths]


def best_probability(demo: tuple[LiteEncoder, Calibration, np.ndarray, list[str]], text: str) -> float:
    encoder, calibration, images, _ = demo
    (vector,) = encoder.encode_texts([text])
    best = images[np.argsort(-(images @ vector))[:10]]
    scale = calibration.scale(vector, "t2i", best, len(images))
    assert scale is not None
    return float(scale.probability(best[:1] @ vector)[0])


@pytest.mark.parametrize("text", ["a red sports car", "guitar", "a castle", "cat", "telephone"])
def test_what_the_demo_shows_is_probable(
    demo: tuple[LiteEncoder, Calibration, np.ndarray, list[str]], text: str
) -> None:
    assert best_probability(demo, text) >= 0.5


@pytest.mark.parametrize(
    "text", ["an octopus playing chess", "a submarine", "a hospital bed", "a washing machine", "snow on a beach"]
)
def test_what_it_does_not_show_is_not(demo: tuple[LiteEncoder, Calibration, np.ndarray, list[str]], text: str) -> None:
    assert best_probability(demo, text) < 0.5


def test_an_indexed_picture_is_surely_itself(demo: tuple[LiteEncoder, Calibration, np.ndarray, list[str]]) -> None:
    _, calibration, images, _ = demo
    for row in images:
        scale = calibration.scale(row, "i2i", images[:10])
        assert scale is not None
        assert scale.probability(np.array(1.0)) > 0.97


def test_a_calibration_that_does_not_fit_is_refused_and_not_used() -> None:
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(80, 6)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    background = background_of(rows[:60], rows[60:])
    assert background is not None
    good = to_json(background, ROUGH)
    assert from_json(good, "encoder").scale(rows[0], "t2i", rows[:12]) is not None
    short = {**good, "weights": {**good["weights"], "presence": [1.0, 2.0]}}
    parts = {**good, "background": {**good["background"], "parts": [2, 2]}}
    for broken in ({"format": FORMAT}, short, parts, {**good, "background": {**good["background"], "bank": "AAAA"}}):
        with pytest.raises(ModelError, match="calibration of this space cannot be read"):
            from_json(broken, "encoder")
    newer = SimpleNamespace(calibration={**good, "format": FORMAT + 1})
    assert own_calibration(newer) is None  # type: ignore[arg-type]
    borrowed = calibration_for(newer, good)  # type: ignore[arg-type]
    assert borrowed is not None
    assert borrowed.kind == "collection"
