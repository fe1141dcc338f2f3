"""Batches: pure functions of seed and step, each picture once an epoch, and what belongs together has equal numbers."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

torch = pytest.importorskip("torch", reason="training needs the extra: pip install 'mmsearch[train]'")

from mmsearch import judging  # noqa: E402
from mmsearch.encoders.preprocess import squeeze  # noqa: E402
from mmsearch.errors import UsageError  # noqa: E402
from mmsearch.testsets import Captioned, Labelled  # noqa: E402
from mmsearch.training import augment  # noqa: E402
from mmsearch.training.batch import Batch  # noqa: E402
from mmsearch.training.batches import Batches  # noqa: E402
from mmsearch.training.held_out import HeldOut, asked  # noqa: E402
from mmsearch.training.order import Order  # noqa: E402
from mmsearch.training.outputs import positives  # noqa: E402
from mmsearch.training.picture import Picture, file_bytes, number, spoken  # noqa: E402
from mmsearch.training.pixels import Pixels  # noqa: E402
from mmsearch.training.rows import Rows  # noqa: E402
from mmsearch.training.tokens import Tokens  # noqa: E402
from tests.conftest import paint  # noqa: E402
from tests.tiny_tokenizer import learned_word_pieces  # noqa: E402
from tests.toy import COLOURS  # noqa: E402

TOKENIZER = learned_word_pieces(["a red green blue yellow thing number one two three four"], 60)


def pictures(folder: Path, count: int, captions: int = 3) -> list[Picture]:
    made = []
    for one in range(count):
        colour = list(COLOURS)[one % 8]
        path = paint(folder / f"{one}.png", colour, one)
        said = tuple(f"a {colour} thing{' number' * text} {one}" for text in range(captions))
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        made.append(Picture(path.name, path, content, lambda path=path: file_bytes(path), said))
    return made


def unread(one: int, captions: tuple[str, ...] = (), labels: tuple[str, ...] = ()) -> Picture:
    return Picture(str(one), Path(str(one)), hashlib.sha256(str(one).encode()).hexdigest(), bytes, captions, labels)


def numbered(count: int, width: int = 2, start: float = 0) -> Rows:
    """Row i is i + start everywhere, in two shards."""
    values = np.repeat(np.arange(count, dtype=np.float32)[:, None] + start, width, axis=1)
    places = [(0, one) if one < count // 2 else (1, one - count // 2) for one in range(count)]
    return Rows([values[: count // 2], values[count // 2 :]], np.array(places, np.int64))


def same(one: Batch, two: Batch) -> bool:
    pairs = [(getattr(one, name), getattr(two, name)) for name in Batch.__slots__]
    return all((a is None and b is None) or torch.equal(a, b) for a, b in pairs)


def rows_of(batch: Batch, some: list[Picture]) -> list[int]:
    """Which of these (different) pictures each row of a batch is."""
    rows = {number(picture.content): row for row, picture in enumerate(some)}
    return [rows[content] for content in batch.groups[:, 0].tolist()]


# --- the order --------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 60), st.integers(2, 20), st.integers(0, 3), st.integers(0, 4))
def test_an_epoch_takes_each_picture_at_most_once(count: int, size: int, seed: int, epoch: int) -> None:
    order = Order([count], [1.0], size=size, seed=seed)
    steps = range(epoch * order.per_epoch, (epoch + 1) * order.per_epoch)
    taken = np.concatenate([order.rows(step) for step in steps]).tolist()
    assert len(taken) == len(set(taken)) == order.per_epoch * order.size
    assert set(taken) <= set(range(count))
    assert count - len(taken) < order.size
    late = Order([count], [1.0], size=size, seed=seed)  # begins in the middle
    assert late.rows(steps[-1]).tolist() == taken[-order.size :]


def test_epochs_and_seeds_differ() -> None:
    order = Order([50], [1.0], size=50, seed=0)
    assert order.rows(0).tolist() != order.rows(1).tolist() != Order([50], [1.0], size=50, seed=1).rows(1).tolist()


def test_sets_are_mixed_by_weight_in_every_batch() -> None:
    order = Order([300, 20, 80], [2.0, 1.0, 1.0], size=40, seed=0)
    assert order.per_epoch == 10
    seen: Counter[int] = Counter()
    for step in range(20):
        rows = order.rows(step)
        parts = [(rows < 300).sum(), ((rows >= 300) & (rows < 320)).sum(), (rows >= 320).sum()]
        assert np.abs(np.array(parts) - [20, 10, 10]).max() <= 2, parts
        seen.update(rows.tolist())
    assert [sum(seen[row] for row in part) for part in (range(300), range(300, 320), range(320, 400))] == [
        400,
        200,
        200,
    ]
    assert {seen[row] for row in range(300, 320)} == {10}  # 100 of 20 in each epoch: five times round


def test_small_sets_make_small_batches_or_none() -> None:
    order = Order([7], [1.0], size=100, seed=0, world=2)
    assert (order.size, order.per_epoch) == (6, 1)
    assert order.notices == ["A batch has 6 rows instead of 100: there are 7 pictures."]
    with pytest.raises(UsageError, match="A batch of 1 pictures is too small"):
        Order([1], [1.0], size=8, seed=0)
    with pytest.raises(UsageError, match="for 4 processes"):
        Order([3], [1.0], size=8, seed=0, world=4)


# --- views ------------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 500), st.integers(1, 500), st.sampled_from([0.2, 0.6]))
def test_crops_lie_inside_and_are_large_enough(seed: int, width: int, height: int, least: float) -> None:
    left, top, right, bottom = augment.crop((width, height), least, np.random.default_rng(seed))
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert (right - left) * (bottom - top) >= least * width * height * 0.999
    aspect = (right - left) / (bottom - top) * height / width
    assert 0.7 < aspect < 1.43 or min(right - left, width) == width or bottom - top == height


def gradient() -> Image.Image:
    """Red rises to the right, green downwards, blue is constant."""
    pixels = np.full((60, 80, 3), 128, np.uint8)
    pixels[..., 0] = np.linspace(0, 200, 80)
    pixels[..., 1] = np.linspace(0, 200, 60)[:, None]
    return Image.fromarray(pixels)


def test_views_of_each_strength() -> None:
    picture = gradient()
    np.testing.assert_array_equal(augment.view(picture, 32, "none", np.random.default_rng(0)), squeeze(picture, 32))
    views = {
        strength: [augment.view(picture, 32, strength, np.random.default_rng([7, one])) for one in range(60)]
        for strength in ("light", "strong")
    }
    mirrored = [view[:, 0, 0].mean() > view[:, -1, 0].mean() for view in views["light"]]
    assert 15 < sum(mirrored) < 45
    assert all(view[0, :, 1].mean() < view[-1, :, 1].mean() for view in views["light"])  # never upside down
    grey = [np.ptp(view.astype(int), axis=2).max() == 0 for view in views["strong"]]
    assert 3 < sum(grey) < 25
    whole = squeeze(picture, 32).astype(float)
    far = {name: np.mean([np.abs(view - whole).mean() for view in made]) for name, made in views.items()}
    assert 3 < far["light"] < far["strong"]
    again = augment.view(picture, 32, "strong", np.random.default_rng([7, 3]))
    np.testing.assert_array_equal(again, views["strong"][3])


def test_hue_turns_and_leaves_grey_alone() -> None:
    how = augment._Views(area=1, colour=0, hue=0.5, jitter=1, grey=0, blur=0)
    for colour, turns in (((200, 20, 20), True), ((90, 90, 90), False)):
        picture = Image.new("RGB", (4, 4), colour)
        made = np.asarray(augment._jittered(picture, how, np.random.default_rng(1)))[0, 0]
        assert (np.abs(made.astype(int) - colour).max() > 20) == turns
        assert abs(int(made.max()) - max(colour)) <= 2  # the value of HSV stays


# --- batches ----------------------------------------------------------------------------------------------------


def pixel_batches(some: list[Picture], seed: int = 0, rank: int = 0, world: int = 1, keep: float = 100) -> Batches:
    return Batches(
        [(1.0, some)],
        size=6,
        seed=seed,
        images=Pixels(some, 16, "strong", keep_megabytes=keep),
        texts=Tokens(TOKENIZER, 5),
        second=True,
        rank=rank,
        world=world,
    )


def test_a_batch_is_a_function_of_seed_and_step(tmp_path: Path) -> None:
    some = pictures(tmp_path, 20)
    with pixel_batches(some) as batches, pixel_batches(some, keep=0) as other, pixel_batches(some, seed=1) as seeded:
        forward = [batches.batch(step) for step in range(5)]
        backward = [other.batch(step) for step in reversed(range(5))][::-1]  # another order, nothing kept decoded
        assert all(same(a, b) for a, b in zip(forward, backward, strict=True))
        assert same(batches.batch(1), forward[1])
        assert not same(seeded.batch(0), forward[0])
        assert not torch.equal(forward[0].images, forward[0].second)
        assert batches.per_epoch == 3


def test_two_processes_see_what_one_would(tmp_path: Path) -> None:
    some = pictures(tmp_path, 20)
    with (
        pixel_batches(some) as whole,
        pixel_batches(some, rank=0, world=2) as left,
        pixel_batches(some, 0, 1, 2) as right,
    ):
        for step in (0, 4):
            one, parts = whole.batch(step), (left.batch(step), right.batch(step))
            for name in ("groups", "images", "second"):
                assert torch.equal(getattr(one, name), torch.cat([getattr(part, name) for part in parts])), name
            wide = [
                torch.nn.functional.pad(part.texts, (0, one.texts.shape[1] - part.texts.shape[1])) for part in parts
            ]
            assert torch.equal(one.texts, torch.cat(wide))


def test_texts_are_drawn_cut_and_padded(tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    some = pictures(tmp_path, 12)
    read = Tokenizer.from_str(TOKENIZER)
    read.enable_truncation(7)
    drawn: set[str] = set()
    with Batches([(1.0, some)], size=12, seed=3, texts=Tokens(TOKENIZER, 7)) as batches:
        for step in range(12):
            batch = batches.batch(step)
            assert batch.images is None
            assert batch.mask.sum(1).max() == batch.mask.shape[1] <= 7
            for row, picture in enumerate(rows_of(batch, some)):
                texts = [t for t in some[picture].captions if number(t) == batch.groups[row, 1].item()]
                assert len(texts) == 1
                ids = read.encode(texts[0]).ids
                assert batch.texts[row].tolist() == ids + [0] * (batch.mask.shape[1] - len(ids))
                assert batch.mask[row].tolist() == [1] * len(ids) + [0] * (batch.mask.shape[1] - len(ids))
                assert batch.groups[row, 0] == number(some[picture].content)
                drawn.add(texts[0])
    assert len(drawn) > 30  # of 36


def test_cached_rows_go_with_their_pictures_and_texts() -> None:
    some = [unread(one, (f"t {one}", f"u {one}")) for one in range(10)]
    texts = spoken(some)
    with Batches(
        [(1.0, some[:4]), (1.0, some[4:])],
        size=10,
        seed=0,
        images=[numbered(10), numbered(10, start=100)],
        texts=numbered(20, width=3),
        teacher_images=numbered(10, start=1000),
        teacher_texts=numbered(20, start=2000),
    ) as batches:
        mirrored = 0
        for step in range(20):
            batch = batches.batch(step)
            index = torch.tensor(rows_of(batch, some)).float()
            assert torch.equal(batch.images[:, 0] % 100, index)
            said = [texts[int(row)] for row in batch.texts[:, 2]]
            assert [text in some[row].captions for text, row in zip(said, rows_of(batch, some), strict=True)] == [
                True
            ] * 10
            assert torch.equal(batch.teacher_images[:, 0], index + 1000)
            assert torch.equal(batch.teacher_texts[:, 0], batch.texts[:, 0] + 2000)
            assert batch.mask is None
            mirrored += int((batch.images[:, 0] >= 100).sum())
        assert 60 < mirrored < 140


def test_equal_captions_and_labels_are_positives_across_sets() -> None:
    first = [unread(0, ("A dog.",)), unread(1, ("a cat",), ("pet",)), unread(2, ("x",))]
    second = [unread(3, ("a DOG",)), unread(4, (), ("pet",)), unread(0, ("y",))]
    with Batches([(1.0, first), (1.0, second)], size=6, seed=0, images=[numbered(6)]) as batches:
        batch = batches.batch(0)
    row = {picture: at for at, picture in enumerate(batch.images[:, 0].long().tolist())}
    assert len(row) == 6
    together = positives(batch.groups)
    wanted = {(0, 3), (1, 4), (0, 5)}  # equal caption, equal label, equal picture
    for a in range(6):
        for b in range(6):
            expected = a == b or (a, b) in wanted or (b, a) in wanted
            assert together[row[a], row[b]] == expected, (a, b)
    assert batch.groups[row[0], 2] == -1
    assert batch.groups.min() >= -1


def test_pictures_without_a_text_where_no_texts_are_read() -> None:
    said, silent = [unread(one, (f"t {one}",), ("pet",)) for one in range(4)], [unread(one) for one in range(4, 8)]
    with Batches([(1.0, [*said, *silent])], size=8, seed=0, images=[numbered(8)]) as batches:
        batch, mark = batches.batch(0), batches.mark
    for row, one in enumerate(batch.images[:, 0].long().tolist()):
        content = number(hashlib.sha256(str(one).encode()).hexdigest())
        assert batch.groups[row].tolist() == [content, *((number(f"t {one}"), number("pet")) if one < 4 else (-1, -1))]
    together = positives(batch.groups)
    assert together.sum() == 4 * 4 + 4  # one label for four; each of the others belongs to itself alone
    with Batches([(1.0, said)], size=4, seed=0) as batches:
        assert batches.mark != mark
    for texts in ({"texts": numbered(4)}, {"teacher_texts": numbered(4)}, {"texts": Tokens(TOKENIZER, 5)}):
        with pytest.raises(UsageError, match="pictures without a text, and texts are to be read"):
            Batches([(1.0, [*said, *silent])], size=8, seed=0, **texts)


def test_a_picture_that_goes_away_is_replaced_by_the_next(tmp_path: Path) -> None:
    some = pictures(tmp_path, 12)
    (tmp_path / "4.png").unlink()
    pixels = Pixels(some, 8, keep_megabytes=0)
    with Batches([(1.0, some)], size=12, seed=0, images=pixels, texts=Tokens(TOKENIZER, 9)) as batches:
        batch = batches.batch(0)
        assert Counter(rows_of(batch, some))[5] == 2
        assert 4 not in rows_of(batch, some)
        for at, row in enumerate(rows_of(batch, some)):
            np.testing.assert_array_equal(batch.images[at].numpy(), squeeze(some[row].open(8), 8))
            assert batch.groups[at, 1].item() in {number(text) for text in some[row].captions}
        assert ["4.png cannot be read any more (it is not there)" in one for one in batches.notices] == [True]
        for path in tmp_path.iterdir():
            path.unlink()
        with pytest.raises(UsageError, match="see that their disk is there"):
            batches.batch(20)


def test_rows_of_another_set_are_refused() -> None:
    some = [unread(one, (f"t {one}",)) for one in range(10)]
    with pytest.raises(UsageError, match="There are 9 rows for 10 texts"):
        Batches([(1.0, some)], size=4, seed=0, texts=numbered(9))


# --- the held-out side ------------------------------------------------------------------------------------------


def test_the_held_out_side_is_judged(tmp_path: Path) -> None:
    some = pictures(tmp_path, 10, captions=2)
    test = asked("the test", [*some, unread(99)])
    assert isinstance(test, Captioned)
    assert test.owners.tolist() == [row for row in range(10) for _ in range(2)]
    test = test.only(range(10))
    held = HeldOut(test, Pixels(some, 8), Tokens(TOKENIZER, 9))
    parts = list(held.images(4))
    assert [len(part) for part in parts] == [4, 4, 2]
    wanted = np.stack([squeeze(picture.open(8), 8) for picture in some])
    np.testing.assert_array_equal(torch.cat(parts).numpy(), wanted)
    words = list(held.texts(7))
    ids, _ = Tokens(TOKENIZER, 9)(list(test.texts))
    np.testing.assert_array_equal(words[1][0].numpy(), ids[7:14][:, : words[1][0].shape[1]])
    cached = HeldOut(test, numbered(10), numbered(20))
    assert torch.cat(list(cached.images(3)))[:, 0].tolist() == list(range(10))
    assert torch.cat([rows for rows, _ in cached.texts(6)])[:, 1].tolist() == list(range(20))
    unit = np.eye(10, dtype=np.float32)
    perfect = judging.judge(test, unit, unit[test.owners])
    assert judging.figures(perfect[0]).recall_at_1 == 100


def test_labels_are_held_out_as_labels() -> None:
    some = [unread(0, (), ("cat",)), unread(1, (), ("dog", "pet")), unread(2, (), ("cat", "pet"))]
    test = asked("the test", some)
    assert isinstance(test, Labelled)
    assert test.texts == ("cat", "dog", "pet")
    assert test.right.tolist() == [[True, False, True], [False, True, False], [False, True, True]]
    with pytest.raises(UsageError, match="fewer than two labels"):
        asked("the test", some[:1])


def test_a_held_out_picture_that_is_gone_ends_the_measuring(tmp_path: Path) -> None:
    some = pictures(tmp_path, 4)
    (tmp_path / "2.png").unlink()
    held = HeldOut(asked("the test", some), Pixels(some, 8), Tokens(TOKENIZER, 9))
    with pytest.raises(UsageError, match=r"2\.png cannot be read any more"):
        list(held.images(2))
