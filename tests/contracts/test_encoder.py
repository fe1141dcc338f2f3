"""What every encoder promises (DESIGN 3, `mmsearch.encoders.protocol`), checked on each of them by one suite.

Another encoder joins with one line in `ENCODERS`. The values themselves are checked beside each implementation.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from mmsearch.encoders.protocol import Encoder

TOLERANCE = 1e-5
TEXTS = [
    "a red sports car",
    "guitar",
    "a lighthouse on a cliff above the sea, painted in oil by somebody who had never seen one",
    "ein Hund im Schnee",
    "日本の城 🏯 và một con mèo",
    "naïve café: 50 % off!\n\ttabs and lines",
]
ODD_TEXTS = ["", " ", "?", "\x00", "\u200b", "\ud800 half a character", "the same word " * 2000, "x" * 20_000]


def lite(_folder: Path) -> Encoder:
    from mmsearch.encoders.registry import load_encoder

    return load_encoder("lite")


def open_clip(folder: Path) -> Encoder:
    from mmsearch.encoders.registry import load_encoder
    from tests.tiny_openclip import write_checkpoint

    _, checkpoint = write_checkpoint(folder)
    return load_encoder(f"mmsearch-tiny/{checkpoint}", device="cpu")


def trained(folder: Path) -> Encoder:
    from mmsearch.encoders.registry import load_encoder

    write_trained(folder / "mine")
    return load_encoder(str(folder / "mine"))


def with_pairs(folder: Path) -> Encoder:
    from mmsearch.encoders.pairs import KnownPairs, Numbers
    from mmsearch.encoders.registry import load_encoder
    from mmsearch.training.export import add_pairs

    write_trained(folder / "with")
    random = np.random.default_rng(0)
    images, texts = (random.normal(size=(20, 6)).astype(np.float32) for _ in range(2))
    add_pairs(folder / "with", KnownPairs.of(images, texts, Numbers()))
    return load_encoder(str(folder / "with"))


def adapted(folder: Path) -> Encoder:
    from mmsearch.encoders.adapted import PARTS, write_adapted
    from mmsearch.encoders.registry import load_encoder

    base = trained(folder)
    d, random = base.space.dimension, np.random.default_rng(0)
    parts = {name: random.normal(0, 0.2, (d, d) if name.endswith("matrix") else d).astype(np.float32) for name in PARTS}
    write_adapted(
        folder / "adapted",
        base=base.space.name,
        base_fingerprint=base.space.fingerprint,
        parts=parts,
        facts={},
    )
    return load_encoder(str(folder / "adapted"))


def write_trained(folder: Path) -> None:
    """A directory as our training writes it: mean colours of a grid, and the mean of word vectors."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from torch import nn

    from mmsearch.training.export import to_onnx, write_encoder

    def unit(rows: torch.Tensor) -> torch.Tensor:
        return rows / rows.norm(dim=-1, keepdim=True)

    class Pictures(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project = nn.Linear(48, 6)

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            grid = nn.functional.avg_pool2d(pixels.permute(0, 3, 1, 2).float() / 255, 4)  # (n, 3, 4, 4)
            return unit(self.project(grid.flatten(1)))

    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vectors = nn.Embedding(len(vocabulary), 6)

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            kept = mask.unsqueeze(-1).float()  # (n, tokens, 1)
            return unit((self.vectors(ids) * kept).sum(1))

    letters = [*"abcdefghijklmnopqrstuvwxyz"]
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    torch.manual_seed(0)
    ids, mask = torch.ones(2, 5, dtype=torch.long), torch.ones(2, 5, dtype=torch.long)
    write_encoder(
        folder,
        name="mine",
        image=to_onnx(Pictures(), [torch.zeros(2, 16, 16, 3, dtype=torch.uint8)], ["pixels"], ["vectors"]),
        text=to_onnx(Words(), [ids, mask], ["ids", "mask"], ["vectors"], tokens=True),
        tokenizer=tokenizer.to_str(),
        image_size=16,
        max_tokens=32,
        facts={},
    )


ENCODERS: dict[str, Callable[[Path], Encoder]] = {
    "lite": lite, "open_clip": open_clip, "trained": trained, "with_pairs": with_pairs, "adapted": adapted,
}  # fmt: skip


@pytest.fixture(scope="module", params=list(ENCODERS))
def make(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Encoder]:
    """Opens the encoder anew at each call, from the same files."""
    folder = tmp_path_factory.mktemp("encoder")
    return lambda: ENCODERS[request.param](folder)


@pytest.fixture(scope="module")
def encoder(make: Callable[[], Encoder]) -> Encoder:
    return make()


def pictures() -> list[Image.Image]:
    """Drawn, noisy, tiny, long: all different."""
    drawn = []
    for seed, size in enumerate([(300, 200), (200, 300), (64, 64), (1, 1), (3000, 10), (10, 3000), (520, 520)]):
        random = np.random.default_rng(seed)
        picture = Image.fromarray(random.integers(0, 256, (size[1], size[0], 3), np.uint8))
        if min(size) > 20:
            colour = tuple(random.integers(0, 256, 3).tolist())
            ImageDraw.Draw(picture).ellipse((5, 5, size[0] - 5, size[1] - 20), fill=colour)
        drawn.append(picture)
    return drawn


def prepared(encoder: Encoder) -> list[Any]:
    return [encoder.prepare(picture) for picture in pictures()]


def both(encoder: Encoder) -> list[tuple[Callable[[Any], Any], list[Any]]]:
    return [(encoder.encode_images, prepared(encoder)), (encoder.encode_texts, TEXTS)]


def test_space(encoder: Encoder) -> None:
    assert encoder.space.name
    assert len(encoder.space.fingerprint) >= 8
    assert encoder.space.dimension >= 1
    assert encoder.image_size >= 1
    assert encoder.batch_size >= 1


def test_fingerprint_is_stable(make: Callable[[], Encoder], encoder: Encoder) -> None:
    before = encoder.space
    for encode, items in both(encoder):
        encode(items)
    assert encoder.space == before == make().space


def test_rows(encoder: Encoder) -> None:
    """One float32 row of unit length for each item, all of them finite and different."""
    for encode, items in both(encoder):
        rows = encode(items)
        assert rows.shape == (len(items), encoder.space.dimension)
        assert rows.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=TOLERANCE)
        assert len({row.tobytes() for row in rows}) == len(items)


def test_nothing_gives_nothing(encoder: Encoder) -> None:
    for rows in (encoder.encode_images([]), encoder.encode_texts([])):
        assert rows.shape == (0, encoder.space.dimension)
        assert rows.dtype == np.float32


def test_a_batch_equals_its_single_items(encoder: Encoder) -> None:
    """Nothing depends on what else is in the batch, nor on how long the other texts are."""
    for encode, items in both(encoder):
        single = np.concatenate([encode([item]) for item in items])
        np.testing.assert_allclose(encode(items), single, atol=TOLERANCE, rtol=0)


def test_order_is_kept(encoder: Encoder) -> None:
    """Also over several batches."""
    for encode, items in both(encoder):
        once = encode(items)
        order = np.random.default_rng(0).permutation(np.arange(2 * encoder.batch_size + 3) % len(items))
        np.testing.assert_allclose(encode([items[i] for i in order]), once[order], atol=TOLERANCE, rtol=0)


def test_the_same_every_time(make: Callable[[], Encoder], encoder: Encoder) -> None:
    again = make()
    for (encode, items), (encode_again, _) in zip(both(encoder), both(again), strict=True):
        rows = encode(items)
        np.testing.assert_array_equal(encode(items), rows)
        np.testing.assert_allclose(encode_again(items), rows, atol=TOLERANCE, rtol=0)


def test_threads_share_an_encoder(make: Callable[[], Encoder], encoder: Encoder) -> None:
    """Four threads at once on one that has loaded nothing yet get what one thread gets."""
    fresh = make()
    expected = [encode(items) for encode, items in both(encoder)]
    found: list[list[Any]] = []
    start = threading.Barrier(4)

    def work() -> None:
        start.wait()
        found.extend([encode(items) for encode, items in both(fresh)] for _ in range(3))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 12
    for results in found:
        for rows, wanted in zip(results, expected, strict=True):
            np.testing.assert_allclose(rows, wanted, atol=TOLERANCE, rtol=0)


def test_odd_texts(encoder: Encoder) -> None:
    """Empty, invisible, endless, not even valid Unicode: each gets its row and disturbs no other."""
    rows = encoder.encode_texts([*ODD_TEXTS, TEXTS[0]])
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=TOLERANCE)
    np.testing.assert_allclose(rows[-1], encoder.encode_texts([TEXTS[0]])[0], atol=TOLERANCE, rtol=0)


def test_long_texts_are_cut(encoder: Encoder) -> None:
    """What lies beyond the tower's reach changes nothing, what lies within it does."""
    start = "a red sports car in front of an old house near the sea, " * 20
    same, other = encoder.encode_texts([start + "with a dog", start + "with a cat"])
    np.testing.assert_allclose(same, other, atol=TOLERANCE, rtol=0)
    assert np.abs(encoder.encode_texts(["blue " + start])[0] - same).max() > 10 * TOLERANCE


def test_prepared_pictures_are_alike(encoder: Encoder) -> None:
    """Whatever the size, the arrays have one shape and dtype, so that they can be kept and stacked."""
    arrays = prepared(encoder)
    assert len({(array.shape, array.dtype) for array in arrays}) == 1
    assert arrays[0].nbytes <= encoder.image_size**2 * 3 * 4
    np.testing.assert_array_equal(arrays[0], encoder.prepare(pictures()[0]))


def test_prepare_leaves_the_picture_alone(encoder: Encoder) -> None:
    picture = pictures()[0]
    before = picture.tobytes()
    encoder.prepare(picture)
    assert picture.tobytes() == before
