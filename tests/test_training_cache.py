"""The feature cache: the right rows in the right order, whatever happened to the files before."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

torch = pytest.importorskip("torch", reason="training needs the extra: pip install 'mmsearch[train]'")

from mmsearch.encoders.preprocess import squeeze  # noqa: E402
from mmsearch.errors import ModelError, PictureError, UsageError  # noqa: E402
from mmsearch.nn.features import Features  # noqa: E402
from mmsearch.training import cache as cache_module  # noqa: E402
from mmsearch.training import locked, rows  # noqa: E402
from mmsearch.training.cache import FeatureCache  # noqa: E402
from mmsearch.training.picture import Picture, file_bytes  # noqa: E402
from mmsearch.training.rows import Shelf  # noqa: E402
from tests.conftest import paint  # noqa: E402
from tests.tiny_tokenizer import learned_word_pieces  # noqa: E402
from tests.toy import COLOURS, ToyEncoder  # noqa: E402

TOKENIZER = learned_word_pieces(["red green blue a of with"], 40)


def pictures(folder: Path, count: int) -> list[Picture]:
    made = []
    for one in range(count):
        path = folder / f"{one}.png"
        if not path.exists():
            paint(path, list(COLOURS)[one % 8], one)
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        made.append(Picture(path.name, path, content, lambda path=path: file_bytes(path), (f"text {one}",)))
    return made


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "SHARD", 8)


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def expected(encoder: ToyEncoder, some: list[Picture], mirrored: bool = False) -> np.ndarray:
    """One at a time, past the cache."""
    made = []
    for picture in some:
        with Image.open(picture.place) as opened:
            turned = opened.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else opened
            made.append(encoder.encode_images([encoder.prepare(turned.convert("RGB"))])[0])
    return np.stack(made)


def test_rows_of_an_encoder_and_only_what_is_new_is_encoded(tmp_path: Path) -> None:
    some, encoder, seen = pictures(tmp_path / "p", 21), ToyEncoder(), []
    tower, folder = locked.of_encoder(encoder), tmp_path / "cache"
    got = FeatureCache(folder, "float32").images(tower, some, on_progress=seen.append)
    np.testing.assert_array_equal(got.take(np.arange(21)), expected(ToyEncoder(), some))
    assert encoder.pictures == 21
    assert len(files_of(folder)) == 3  # 8 + 8 + 5
    assert [(one.stage, one.done, one.total) for one in seen] == [
        ("encoding", done, 21) for done in (4, 8, 12, 16, 20, 21)
    ]
    more = pictures(tmp_path / "p", 23)
    other_order = more[::-1] + more[3:5]
    again = FeatureCache(folder, "float32").images(tower, other_order)
    assert encoder.pictures == 23
    pick = np.array([24, 0, 7, 7])
    np.testing.assert_array_equal(again.take(pick), expected(ToyEncoder(), [other_order[one] for one in pick]))
    assert (len(again), again.width) == (25, 13)


def test_views_texts_precisions_and_fingerprints_do_not_mix(tmp_path: Path) -> None:
    some, encoder = pictures(tmp_path / "p", 5), ToyEncoder()
    tower = locked.of_encoder(encoder)
    cache = FeatureCache(tmp_path / "cache")
    plain, mirrored = cache.images(tower, some), cache.images(tower, some, "mirrored")
    everything = np.arange(5)
    np.testing.assert_allclose(plain.take(everything), expected(encoder, some), atol=1e-3)
    np.testing.assert_allclose(mirrored.take(everything), expected(encoder, some, mirrored=True), atol=1e-3)
    assert np.abs(plain.take(everything) - mirrored.take(everything)).max() > 1e-3
    texts = ["a red car", "blue", "a red car", "\udcff"]
    said = cache.texts(tower, texts)
    np.testing.assert_allclose(said.take(np.arange(4)), ToyEncoder().encode_texts(texts), atol=1e-3)
    assert encoder.texts == 3
    other = ToyEncoder("another")
    cache.images(locked.of_encoder(other), some)
    assert other.pictures == 5
    assert len({path.parent for path in files_of(tmp_path / "cache")}) == 4


class Means(torch.nn.Module):
    """The mean colours; `broken`: no number for dark pictures."""

    def __init__(self, broken: bool = False) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(2.0))
        self.drop = torch.nn.Dropout(0.9)
        self.broken = broken

    def forward(self, pixels: torch.Tensor) -> Features:
        mean = self.drop(pixels.float().mean((1, 2))) * self.scale  # (n, 3)
        return Features(pooled=torch.log(mean.sum(1, keepdim=True) - 100) if self.broken else mean)


class Words(torch.nn.Module):
    """The mean of the token numbers, and how many there are: wrong if padding counted."""

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> Features:
        count = mask.sum(1)
        return Features(pooled=torch.stack([(ids * mask).sum(1) / count, count], 1).float())


def towers(image: torch.nn.Module, max_tokens: int = 4) -> locked.Locked:
    return locked.of_towers(
        "means", image, Words(), side=10, tokenizer=TOKENIZER, max_tokens=max_tokens, fingerprint="f"
    )


def test_rows_of_towers_are_those_in_use(tmp_path: Path) -> None:
    some, tower = pictures(tmp_path / "p", 5), Means().train()
    cache = FeatureCache(tmp_path / "cache", "float32")
    got = cache.images(towers(tower), some).take(np.arange(5))
    by_hand = [2 * squeeze(picture.open(10), 10).astype(np.float64).mean((0, 1)) for picture in some]
    np.testing.assert_allclose(got, by_hand, rtol=1e-5)
    assert tower.training  # as it was
    from tokenizers import Tokenizer

    read = Tokenizer.from_str(TOKENIZER)
    texts = ["red", "a red of green with blue", "a red", "blue"]
    ids = [read.encode(text).ids for text in texts]
    cut = [[*one[:3], one[-1]] if len(one) > 4 else one for one in ids]  # the end mark stays
    wanted = [[np.mean(one), len(one)] for one in cut]
    np.testing.assert_allclose(cache.texts(towers(tower), texts).take(np.arange(4)), wanted, rtol=1e-6)
    assert len(files_of(tmp_path / "cache")) == 2
    cache.texts(towers(tower, max_tokens=5), texts)
    assert len(files_of(tmp_path / "cache")) == 3  # cut elsewhere: other rows


def test_no_numbers_and_too_large_ones_are_told(tmp_path: Path) -> None:
    some = pictures(tmp_path / "p", 8)
    with pytest.raises(ModelError, match=r"means gives what is no number.* for 1 of 8, first for .*4\.png"):
        FeatureCache(tmp_path / "cache").images(towers(Means(broken=True)), some)
    large = Means()
    large.scale.data.fill_(1e4)
    with pytest.raises(ModelError, match="float32"):
        FeatureCache(tmp_path / "cache").images(towers(large), some)
    assert files_of(tmp_path / "cache") == []
    FeatureCache(tmp_path / "cache", "float32").images(towers(large), some)


class Killed(BaseException):
    pass


def test_a_killed_run_loses_one_piece_and_the_next_goes_on(tmp_path: Path) -> None:
    some, encoder = pictures(tmp_path / "p", 30), ToyEncoder()
    tower, folder = locked.of_encoder(encoder), tmp_path / "cache"

    def kill(progress: Any) -> None:
        if progress.done >= 20:
            raise Killed

    with pytest.raises(Killed):
        FeatureCache(folder).images(tower, some, on_progress=kill)
    assert encoder.pictures == 20
    got = FeatureCache(folder).images(tower, some)
    assert encoder.pictures == 20 + 30 - 16
    np.testing.assert_allclose(got.take(np.arange(30)), expected(ToyEncoder(), some), atol=1e-3)


def test_a_damaged_shard_is_made_again(tmp_path: Path) -> None:
    some, encoder = pictures(tmp_path / "p", 20), ToyEncoder()
    tower, folder = locked.of_encoder(encoder), tmp_path / "cache"
    FeatureCache(folder).images(tower, some)
    shards = files_of(folder)
    lost = sum(len(np.load(shard)) for shard in shards[:2])
    data = bytearray(shards[1].read_bytes())
    data[-3] ^= 1
    shards[1].write_bytes(data)
    os.truncate(shards[0], 100)
    cache = FeatureCache(folder)
    got = cache.images(tower, some)
    np.testing.assert_allclose(got.take(np.arange(20)), expected(ToyEncoder(), some), atol=1e-3)
    assert encoder.pictures == 20 + lost
    assert cache.notices == [f"2 damaged files of the cache {folder} are made again."]
    again = FeatureCache(folder)
    again.images(tower, some)
    assert again.notices == []


def test_two_that_write_at_once_and_what_they_leave_behind(tmp_path: Path) -> None:
    """Both see an empty shelf, both add the same contents and some of their own."""
    one, two = Shelf(tmp_path, "float32"), Shelf(tmp_path, "float32")
    names = [hashlib.sha256(bytes([number])).digest() for number in range(6)]
    values = np.arange(12, dtype=np.float32).reshape(6, 2)
    one.add(names[:4], values[:4])
    two.add(names[2:], values[2:])
    one.add(names[:4], values[:4])  # the very same file
    old = tmp_path / f"x.1{rows._UNFINISHED}"
    young = tmp_path / f"y.2{rows._UNFINISHED}"
    for path in (old, young):
        path.write_bytes(b"begun")
    os.utime(old, (0, 0))
    both = Shelf(tmp_path, "float32")
    assert both.missing(names) == []
    np.testing.assert_array_equal(both.rows(names[::-1]).take(np.arange(6)), values[::-1])
    assert sorted(path.suffix for path in files_of(tmp_path)) == [".npy", ".npy", rows._UNFINISHED]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(0, 30), max_size=12), max_size=5), st.lists(st.integers(0, 40), max_size=20))
def test_a_shelf_is_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory, added: list[list[int]], asked: list[int]
) -> None:
    folder, known = tmp_path_factory.mktemp("shelf"), {}

    def content(number: int) -> bytes:
        return number.to_bytes(30) + b"\0\0"  # bytes that a string type would drop

    shelf = Shelf(folder, "float32")
    for part in added:
        which = [part[one] for one in shelf.missing([content(number) for number in part])]
        assert sorted(which) == sorted(set(part) - set(known))
        if which:
            shelf.add([content(number) for number in which], np.array([[number, -number] for number in which]))
            known |= {number: [number, -number] for number in which}
    wanted = [number for number in asked if number in known]
    for one in (shelf, Shelf(folder, "float32")):
        found = one.rows([content(number) for number in wanted]).take(np.arange(len(wanted)))
        assert found.tolist() == [known[number] for number in wanted]


def test_a_full_disk_and_a_picture_that_went_away_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some, tower = pictures(tmp_path / "p", 3), locked.of_encoder(ToyEncoder())

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(rows.os, "fsync", full)
        with pytest.raises(UsageError, match="cannot be used: no space left on device; free some space"):
            FeatureCache(tmp_path / "cache").images(tower, some)
    assert files_of(tmp_path / "cache") == []
    some[1].place.unlink()
    with pytest.raises(PictureError, match=r"1\.png cannot be read any more: it is not there"):
        FeatureCache(tmp_path / "cache").images(tower, some)
