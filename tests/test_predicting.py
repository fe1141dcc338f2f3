"""The objectives that predict what was hidden, or neighbouring words, each against slow loops in plain Python."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="training needs the extra: pip install 'mmsearch[train]'")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from mmsearch.errors import UsageError  # noqa: E402
from mmsearch.nn.features import Features  # noqa: E402
from mmsearch.training.objectives.data2vec import Data2Vec  # noqa: E402
from mmsearch.training.objectives.mae import MaskedAutoencoding  # noqa: E402
from mmsearch.training.objectives.masked_language import MaskedLanguage  # noqa: E402
from mmsearch.training.objectives.skipgram import SkipGram  # noqa: E402
from mmsearch.training.outputs import Outputs  # noqa: E402

HIDDEN = [[True, False, True], [False, False, False], [False, True, True]]  # (3 rows, 3 places)
# Four captions; 0 is padding. Rows 0 and 2 are of one picture.
IDS = [[5, 3, 7, 3, 9], [3, 2, 8, 0, 0], [4, 7, 0, 0, 0], [6, 0, 0, 0, 0]]
PICTURES = [[0], [1], [0], [2]]


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def patches(width: int = 6) -> Outputs:
    return Outputs(
        image=Features(tokens=draw(3, 3, width)),
        targets=Features(tokens=3 * draw(3, 3, width, seed=1) + 1, mask=torch.tensor(HIDDEN)),
    )


def words(vocabulary: int = 6) -> Outputs:
    ids = torch.tensor([[[5], [1], [0]], [[3], [2], [4]], [[0], [0], [3]]])
    return Outputs(
        text=Features(tokens=draw(3, 3, vocabulary)), targets=Features(tokens=ids, mask=torch.tensor(HIDDEN))
    )


def captions(width: int = 4) -> Outputs:
    ids = torch.tensor(IDS)
    own, neighbour = draw(10, width, seed=1)[ids], draw(10, width, seed=2)[ids]
    images = draw(4, width, seed=3)
    return Outputs(
        image=Features(pooled=images / images.norm(dim=1, keepdim=True)),
        text=Features(draw(4, width, seed=4), torch.cat([own, neighbour], -1), ids > 0),
        targets=Features(tokens=ids[..., None]),
        groups=torch.tensor(PICTURES),
    )


CASES = {
    "mae": (MaskedAutoencoding(), patches, ("image.tokens", "targets.tokens", "targets.mask")),
    "data2vec": (Data2Vec(), patches, ("image.tokens", "targets.tokens", "targets.mask")),
    "masked_language": (MaskedLanguage(), words, ("text.tokens", "targets.tokens", "targets.mask")),
    "skipgram": (
        SkipGram(2, 3, 0.9, 0.7),
        captions,
        ("text.tokens", "text.pooled", "text.mask", "targets.tokens", "image.pooled"),
    ),
}


def test_masked_autoencoding_is_a_slow_loop_over_hidden_patches() -> None:
    made, total = patches(), 0.0
    for i, p in [(0, 0), (0, 2), (2, 1), (2, 2)]:
        true = made.targets.tokens[i, p].tolist()
        mean = sum(true) / 6
        spread = math.sqrt(sum((x - mean) ** 2 for x in true) / 5 + 1e-6)
        painted = made.image.tokens[i, p].tolist()
        total += sum((x - (y - mean) / spread) ** 2 for x, y in zip(painted, true, strict=True)) / 6 / 4
    assert MaskedAutoencoding()(made).item() == pytest.approx(total, abs=1e-9)


def test_data2vec_is_square_near_and_straight_far_away() -> None:
    made, total = patches(), 0.0
    far = 0
    for i, p in [(0, 0), (0, 2), (2, 1), (2, 2)]:
        for x, y in zip(made.image.tokens[i, p].tolist(), made.targets.tokens[i, p].tolist(), strict=True):
            difference = abs(x - y)
            far += difference >= 2
            total += (difference**2 / 4 if difference < 2 else difference - 1) / 24
    assert 0 < far < 24
    assert Data2Vec()(made).item() == pytest.approx(total, abs=1e-9)


def test_masked_language_is_a_slow_loop_over_hidden_words() -> None:
    made, total = words(), 0.0
    for i, p, word in [(0, 0, 5), (0, 2, 0), (2, 1, 0), (2, 2, 3)]:
        logits = made.text.tokens[i, p].tolist()
        total -= math.log(math.exp(logits[word]) / sum(math.exp(x) for x in logits)) / 4
    assert MaskedLanguage()(made).item() == pytest.approx(total, abs=1e-9)
    nothing = replace(made, targets=replace(made.targets, mask=torch.zeros(3, 3, dtype=torch.bool)))
    assert MaskedLanguage()(nothing).item() == 0


def test_what_was_not_hidden_does_not_count() -> None:
    for name in ("mae", "data2vec", "masked_language"):
        objective, make, _ = CASES[name]
        made = make()
        said = "text" if name == "masked_language" else "image"
        other = getattr(made, said).tokens.clone()
        other[~torch.tensor(HIDDEN)] = 9.0
        assert objective(replace(made, **{said: Features(tokens=other)})).item() == objective(made).item()


def slow_skipgram(made: Outputs, window: int, negatives: int, margin: float, visual_weight: float) -> float:
    """Words as a reader of the paper would go through them, one at a time."""
    places = [(i, s) for i, row in enumerate(IDS) for s, word in enumerate(row) if word]
    own = {place: made.text.tokens[place][:4].tolist() for place in places}
    neighbour = {IDS[i][s]: made.text.tokens[i, s][4:].tolist() for i, s in places}
    counts = {word: sum(row.count(word) for row in IDS) for row in IDS for word in row if word}
    images = made.image.pooled.tolist()

    def dot(x: list[float], y: list[float]) -> float:
        return sum(a * b for a, b in zip(x, y, strict=True))

    def log_sigmoid(x: float) -> float:
        return -math.log(1 + math.exp(-x))

    language, pairs = 0.0, 0
    for i, s in places:
        noise = {word: count**0.75 for word, count in counts.items() if word not in IDS[i]}
        missed = sum(k * log_sigmoid(-dot(own[i, s], neighbour[word])) for word, k in noise.items())
        for j, r in places:
            if i == j and 0 < abs(s - r) <= window:
                language -= log_sigmoid(dot(own[i, s], neighbour[IDS[j][r]]))
                language -= negatives * missed / sum(noise.values())
                pairs += 1
    visual = 0.0
    for i, s in places:
        u = own[i, s]
        cosine = [dot(u, v) / math.sqrt(dot(u, u)) for v in images]
        others = [j for j in range(4) if IDS[i][s] not in IDS[j] and PICTURES[i] != PICTURES[j]]
        fails = [max(0.0, margin - cosine[i] + cosine[j]) for j in others]
        visual += negatives * sum(fails) / len(others) / len(places)
    for i, caption in enumerate(made.text.pooled.tolist()):
        cosine = [dot(caption, v) for v in images]
        others = [j for j in range(4) if PICTURES[i] != PICTURES[j]]
        fails = [max(0.0, margin - cosine[i] + cosine[j]) for j in others]
        visual += negatives * sum(fails) / len(others) / 4
    return language / pairs + visual_weight * visual


def test_skipgram_is_a_slow_loop_over_words() -> None:
    assert SkipGram(2, 3, 0.9, 0.7)(captions()).item() == pytest.approx(slow_skipgram(captions(), 2, 3, 0.9, 0.7))
    assert SkipGram(1, 5, 0.2, 2.0)(captions()).item() == pytest.approx(slow_skipgram(captions(), 1, 5, 0.2, 2.0))


def test_a_word_that_everybody_says_and_a_caption_of_one_word_do_no_harm() -> None:
    made = captions()
    alone = replace(made, targets=Features(tokens=torch.full((4, 5, 1), 3)))  # one word in the whole batch
    assert torch.isfinite(SkipGram()(alone))
    one = replace(made, text=replace(made.text, mask=torch.arange(5).expand(4, 5) < 1))  # no neighbours at all
    assert torch.isfinite(SkipGram()(one))


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    objective, make, _ = CASES[name]
    made = make()
    said = (made.image if name in ("mae", "data2vec") else made.text).tokens.requires_grad_()
    more = [side.pooled.requires_grad_() for side in (made.text, made.image)] if name == "skipgram" else []
    assert torch.autograd.gradcheck(lambda *_: objective(made), (said, *more))


@pytest.mark.parametrize("name", CASES)
@given(data=st.data())
@settings(max_examples=5, deadline=None)
def test_the_order_of_the_rows_does_not_matter(name: str, data: st.DataObject) -> None:
    objective, make, _ = CASES[name]
    order = data.draw(st.permutations(range(4 if name == "skipgram" else 3)))
    assert objective(make().map(lambda t: t[order])).item() == pytest.approx(objective(make()).item(), abs=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_a_missing_part_fails_by_its_name(name: str) -> None:
    objective, make, needed = CASES[name]
    for told in needed:
        part, inner = told.split(".")
        without = replace(getattr(make(), part), **{inner: None})
        for gone, wanted in ((without, told), (None, part)):
            with pytest.raises(UsageError, match=rf"{type(objective).__name__} needs {wanted}, which"):
                objective(replace(make(), **{part: gone}))
