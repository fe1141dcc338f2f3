"""Duplicates: what counts as one picture, groups against plain loops, keepers, and the command."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from mmsearch import Engine, duplicates
from mmsearch.cli.main import main
from mmsearch.duplicates import LEAST_DETAIL, NEAR_SHARE, same_picture
from mmsearch.errors import UsageError
from mmsearch.indexing import perceptual_hash
from mmsearch.settings import shipped_folder
from mmsearch.types import DuplicateGroup
from tests.conftest import paint
from tests.toy import ToyEncoder

DEMO = shipped_folder("demo") / "images"


def slow_detail(hash_: bytes) -> int:
    """Turns along the rows of the first matrix, and down the columns of the second, counted one by one."""
    bits = [[int(bit) for byte in half for bit in f"{byte:08b}"] for half in (hash_[:8], hash_[8:])]
    turns = 0
    for y in range(8):
        for x in range(8):
            turns += x < 7 and bits[0][8 * y + x] != bits[0][8 * y + x + 1]
            turns += y < 7 and bits[1][8 * y + x] != bits[1][8 * y + 8 + x]
    return turns


def slow_same(a: bytes, b: bytes) -> bool:
    detail = min(slow_detail(a), slow_detail(b))
    differ = sum(f"{x:08b}"[i] != f"{y:08b}"[i] for x, y in zip(a, b, strict=True) for i in range(8))
    return detail >= LEAST_DETAIL and differ / detail <= 1 / NEAR_SHARE


def touched(hash_: bytes, places: list[int]) -> bytes:
    """The hash with the bits at these places turned over."""
    number = int.from_bytes(hash_)
    for place in places:
        number ^= 1 << place
    return number.to_bytes(16)


hashes = st.binary(min_size=16, max_size=16)


@settings(deadline=None, max_examples=300)
@given(hashes, st.lists(st.integers(0, 127), max_size=24))
@example(bytes(16), [])
@example(b"\xff" * 16, [0])
def test_one_picture_or_two(hash_: bytes, places: list[int]) -> None:
    other = touched(hash_, places)
    assert same_picture(hash_, other) == same_picture(other, hash_) == slow_same(hash_, other)
    details = duplicates._detail(np.frombuffer(hash_ + other, np.uint8).reshape(2, 16))
    assert details.tolist() == [slow_detail(hash_), slow_detail(other)]


def test_unknown_hashes_are_of_no_picture() -> None:
    known = bytes(range(3, 19))
    assert same_picture(known, known)
    assert not same_picture(known, None)
    assert not same_picture(None, None)
    assert not same_picture(b"", b"")


def test_what_shows_nothing_is_no_duplicate() -> None:
    """Blank pages and plain gradients have the same hash, whatever their colour."""
    white, black = Image.new("RGB", (60, 40), "white"), Image.new("RGB", (60, 40), "black")
    ramp = Image.fromarray(np.repeat(np.arange(90, dtype=np.uint8)[None], 90, axis=0)).convert("RGB")
    steep = Image.fromarray(np.repeat(np.arange(0, 180, 2, dtype=np.uint8)[None], 90, axis=0)).convert("RGB")
    assert perceptual_hash(white) == perceptual_hash(black)
    assert not same_picture(perceptual_hash(white), perceptual_hash(black))
    assert perceptual_hash(ramp) == perceptual_hash(steep)
    assert not same_picture(perceptual_hash(ramp), perceptual_hash(steep))


# --- groups against plain loops ---------------------------------------------------------------------------------


def slow_groups(count: int, apart: dict[tuple[int, int], float]) -> list[list[int]]:
    """Complete linkage the plain way, on the pairs that are near."""
    groups = [[one] for one in range(count)]
    far = (9.0, 0, 0)
    while True:
        best = min(
            (
                (max(((apart[a, b], a, b) if (a, b) in apart else far) for a, b in between(one, other)), one, other)
                for one, other in combinations(groups, 2)
            ),
            default=(far, [], []),
        )
        if best[0] == far:
            return sorted(sorted(group) for group in groups if len(group) > 1)
        groups.remove(best[2])
        best[1].extend(best[2])


def between(one: list[int], other: list[int]) -> Iterator[tuple[int, int]]:
    for a in one:
        for b in other:
            yield min(a, b), max(a, b)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6))
def test_near_groups_against_a_plain_loop(seed: int) -> None:
    chance = np.random.default_rng(seed)
    roots = [chance.bytes(16) for _ in range(3)]
    kinds = [
        touched(roots[chance.integers(3)], chance.integers(0, 128, chance.integers(0, 12)).tolist()) for _ in "x" * 9
    ]
    kinds = sorted({*kinds, bytes(16)})  # ids go by the hashes, which decide among equal distances
    apart = {
        (i, j): sum((x ^ y).bit_count() for x, y in zip(a, b, strict=True)) / min(slow_detail(a), slow_detail(b))
        for (i, a), (j, b) in combinations(enumerate(kinds), 2)
        if slow_same(a, b)
    }
    images = np.arange(10, 10 + len(kinds), dtype=np.int64)
    rows = np.frombuffer(b"".join(kinds), np.uint8).reshape(-1, 16)
    found = duplicates._near(images, rows, lambda _: None, [])
    assert sorted(group for group, _ in found) == [[10 + i for i in group] for group in slow_groups(len(kinds), apart)]
    for group, alike in found:
        differ = [int(np.unpackbits(rows[a - 10] ^ rows[b - 10]).sum()) for a, b in combinations(group, 2)]
        assert alike == pytest.approx(1 - max(differ) / 128)


def test_equal_hashes_are_one_group() -> None:
    known, other = bytes(range(3, 19)), bytes(range(200, 216))
    rows = np.frombuffer(known + other + known + bytes(16) + bytes(16), np.uint8).reshape(-1, 16)
    assert duplicates._near(np.arange(5), rows, lambda _: None, []) == [([0, 2], 1.0)]
    assert duplicates._near(np.arange(0), rows[:0], lambda _: None, []) == []


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 12), st.sampled_from([0.5, 0.8, 0.95]))
def test_semantic_groups_against_a_plain_loop(seed: int, count: int, similarity: float) -> None:
    chance = np.random.default_rng(seed)
    rows = chance.normal(size=(count, 3)).astype(np.float16)
    unit = rows.astype(np.float32) / np.linalg.norm(rows.astype(np.float32), axis=1, keepdims=True)
    cosines = unit @ unit.T
    apart = {(i, j): 1 - cosines[i, j] for i, j in combinations(range(count), 2) if cosines[i, j] >= similarity}
    expected = slow_groups(count, apart)
    found = duplicates._semantic(np.arange(count), rows, similarity, lambda _: None, [])
    assert sorted(group for group, _ in found) == expected
    for group, alike in found:
        assert alike == pytest.approx(min(cosines[a, b] for a, b in combinations(group, 2)), abs=1e-6)


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = np.random.default_rng(1)
    rows = chance.normal(size=(50, 4)).astype(np.float16)
    bits = chance.integers(0, 256, (20, 16), dtype=np.uint8).repeat(3, axis=0)
    bits[1::3, 0] ^= 1
    whole = [duplicates._semantic(np.arange(50), rows, 0.9, lambda _: None, [])]
    whole.append(duplicates._near(np.arange(60), bits, lambda _: None, []))
    monkeypatch.setattr(duplicates, "BLOCK", 7)
    parts = [duplicates._semantic(np.arange(50), rows, 0.9, lambda _: None, [])]
    parts.append(duplicates._near(np.arange(60), bits, lambda _: None, []))
    assert [[ids for ids, _ in groups] for groups in parts] == [[ids for ids, _ in groups] for groups in whole]
    assert len(whole[0]) > 3
    assert len(whole[1]) == 20


def test_too_many_pairs_are_narrowed_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    angles = np.concatenate([np.linspace(0, 0.3, 40), [2.0, 2.001]])
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float16)
    notices: list[str] = []
    monkeypatch.setattr(duplicates, "MOST_PAIRS", 100)
    monkeypatch.setattr(duplicates, "BLOCK", 5)
    found = duplicates._semantic(np.arange(42), rows, 0.9, lambda _: None, notices)
    assert notices == ["More than 100 pairs of pictures are alike (semantic); only the nearest of them were grouped."]
    assert [40, 41] in [group for group, _ in found]
    for group, alike in found:
        assert min(rows[group].astype(float) @ rows[group].astype(float).T @ np.ones(len(group))) > 0
        assert alike > 0.95  # tighter than was asked for, never wider


# --- whole collections ------------------------------------------------------------------------------------------


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Three photographs of the demo, two of them in several forms."""
    folder = tmp_path / "album"
    folder.mkdir()
    for name in ("photo_coffee.jpg", "photo_camera.jpg", "photo_astronaut.jpg"):
        shutil.copy(DEMO / name, folder / name.removeprefix("photo_"))
    with Image.open(folder / "coffee.jpg") as opened:
        coffee = opened.convert("RGB")
    coffee.save(folder / "coffee again.jpg", quality=40)
    coffee.resize((coffee.width // 2, coffee.height // 2)).save(folder / "coffee small.png")
    ImageEnhance.Brightness(coffee).enhance(0.8).save(folder / "coffee dark.webp")
    shutil.copy(folder / "camera.jpg", folder / "camera copy.jpg")
    return folder


def names(group: DuplicateGroup) -> list[str]:
    return [copy.path.name if copy.path else str(copy.key) for copy in (group.keeper, *group.others)]


def test_copies_and_variants_are_found(engine: Engine, album: Path) -> None:
    engine.index(album)
    exact, near = engine.duplicates()
    assert (exact.tier, near.tier) == ("exact", "near")
    assert (exact.similarity, sorted(names(exact))) == (1.0, ["camera copy.jpg", "camera.jpg"])
    assert exact.keeper.sha256 == exact.others[0].sha256
    assert sorted(names(near)) == ["coffee again.jpg", "coffee dark.webp", "coffee small.png", "coffee.jpg"]
    assert names(near)[-1] == "coffee small.png"  # fewest pixels
    assert 1 - 128 / 4 / 128 <= near.similarity < 1
    assert near.keeper.size_bytes == max((album / name).stat().st_size for name in names(near)[:3])
    assert near.reason == "largest file"


def test_of_equal_files_the_oldest_is_kept_then_the_shortest_path(engine: Engine, images: Path) -> None:
    shutil.copy(images / "red.png", images / "more" / "red again.png")
    shutil.copy(images / "blue.png", images / "more" / "blue.png")
    os.utime(images / "more" / "red again.png", (1e9, 1e9))
    for path in (images / "blue.png", images / "more" / "blue.png"):
        os.utime(path, (1.5e9, 1.5e9))
    engine.index(images)
    found = {group.reason: names(group) for group in engine.duplicates("exact")}
    assert found == {"oldest": ["red again.png", "red.png"], "shortest path": ["blue.png", "blue.png"]}
    keepers = [group.keeper.path for group in engine.duplicates("exact")]
    assert images / "blue.png" in keepers


def test_files_that_are_gone_changed_or_links_are_no_copies(engine: Engine, album: Path) -> None:
    for name in ("gone", "gone later", "changed", "kept"):
        shutil.copy(album / "camera.jpg", album / f"{name}.jpg")
    (album / "a link.jpg").symlink_to(album / "camera.jpg")
    os.link(album / "kept.jpg", album / "hard link.jpg")
    engine.index(album)
    (album / "gone.jpg").unlink()
    engine.index(album)  # missing
    (album / "gone later.jpg").unlink()
    paint(album / "changed.jpg", "red")
    found = engine.duplicates("exact")
    assert len(found) == 1
    files = {"camera.jpg", "camera copy.jpg", "kept.jpg", "hard link.jpg"}
    assert set(names(found[0])) < files
    assert len(names(found[0])) == 3  # one of kept and its hard link
    (notice,) = found.notices
    assert notice.startswith("2 files among them are not as the last index run saw them, or away, such as ")
    assert str(album / "changed.jpg") in notice


def test_all_but_one_gone_is_no_group(engine: Engine, album: Path) -> None:
    engine.index(album)
    (album / "camera copy.jpg").unlink()
    assert len(engine.duplicates("exact")) == 0
    assert len(engine.duplicates("exact").notices) == 1


def test_what_applications_added_takes_part(engine: Engine, album: Path) -> None:
    engine.index(album)
    engine.add("camera of mine", (album / "camera.jpg").read_bytes())
    with Image.open(album / "astronaut.jpg") as opened:
        engine.add("astronaut of mine", opened.convert("RGB").resize((700, 700)))
    exact, near, *_ = sorted(engine.duplicates(), key=lambda group: (group.tier, "coffee.jpg" in names(group)))
    assert "camera of mine" in names(exact)
    assert exact.keeper.path is not None
    assert names(near) == ["astronaut.jpg", "astronaut of mine"]
    assert (near.reason, near.others[0].paths) == ("has a file", ())


@pytest.fixture
def series(engine: Engine, tmp_path: Path) -> Path:
    """Plain colours, which only vectors tell apart: three reds, four blues."""
    folder = tmp_path / "series"
    for number in range(3):
        paint(folder / f"red {number}.png", "red", number)
    for number in range(4):
        paint(folder / f"blue {number}.png", "blue", number)
    paint(folder / "green.png", "green")
    engine.index(folder)
    return folder


def test_alike_by_vectors(engine: Engine, series: Path) -> None:
    assert engine.duplicates("semantic", similarity=1).groups == ()
    blue, red = engine.duplicates("semantic", similarity=0.98)
    assert sorted(names(blue)) == [f"blue {number}.png" for number in range(4)]
    assert sorted(names(red)) == [f"red {number}.png" for number in range(3)]
    assert 0.98 <= red.similarity < 1


def test_a_pair_is_in_one_tier_alone_and_one_of_each_group_stays(engine: Engine, album: Path) -> None:
    with Image.open(album / "coffee.jpg") as opened:
        width, height = opened.size
        opened.crop((width // 5, height // 5, width, height)).save(album / "coffee cropped.png")
    engine.index(album)
    found = engine.duplicates(("semantic", "exact", "near"), similarity=0.5)
    assert [group.tier for group in found] == sorted(
        (group.tier for group in found), key=("exact", "near", "semantic").index
    )
    assert {group.tier for group in found} == {"exact", "near", "semantic"}
    pairs = [frozenset(pair) for group in found for pair in combinations(names(group), 2)]
    assert len(pairs) == len(set(pairs))
    gone = {path for group in found for copy in group.others for path in copy.paths}
    keeper_of = {
        path: group.keeper.path for group in reversed(found.groups) for copy in group.others for path in copy.paths
    }
    for path in gone:  # whoever asks for what is kept instead, again and again, comes to a picture that stays
        steps = 0
        while path in gone:
            path, steps = keeper_of[path], steps + 1
            assert steps < 4


def test_tiers_and_similarity_are_checked(engine: Engine, series: Path) -> None:
    with pytest.raises(UsageError, match="no tier 'same'; valid are: exact, near, semantic"):
        engine.duplicates("same")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="at least one tier"):
        engine.duplicates(())
    with pytest.raises(UsageError, match="not asked for"):
        engine.duplicates(similarity=0.9)
    for wrong in (0, 1.01, float("nan"), "much"):
        with pytest.raises(UsageError, match="above 0 and up to 1"):
            engine.duplicates("semantic", similarity=wrong)  # type: ignore[arg-type]


def test_an_empty_collection_has_none(tmp_path: Path) -> None:
    with Engine.open(tmp_path / "empty", model=ToyEncoder()) as engine:
        assert engine.duplicates(("exact", "near", "semantic")).groups == ()


# --- the command ------------------------------------------------------------------------------------------------


@pytest.fixture
def run(
    tmp_path: Path, album: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> Callable[..., tuple[int, bytes, str]]:
    """The command on the album, indexed with the encoder that ships."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, bytes, str]:
        capsysbinary.readouterr()
        code = main(["-c", str(tmp_path / "c"), *words])
        out, err = capsysbinary.readouterr()
        return code, out, err.decode()

    assert run("index", str(album))[0] == 0
    return run


def test_the_command(run: Callable[..., tuple[int, bytes, str]], album: Path) -> None:
    code, out, err = run("duplicates")
    assert (code, err) == (0, "")
    rows = [line.split("\t") for line in out.decode().splitlines()]
    assert [row[:2] for row in rows] == [["exact", "1"]] * 2 + [["near", "2"]] * 4
    assert [row[2] for row in rows][2:] == ["keep: largest file", "copy", "copy", "copy"]
    assert {row[5] for row in rows} == {str(path) for path in album.iterdir()} - {str(album / "astronaut.jpg")}
    assert {int(row[4]) for row in rows} == {Path(row[5]).stat().st_size for row in rows}

    code, out, _ = run("duplicates", "--json")
    groups: list[dict[str, Any]] = json.loads(out)["groups"]
    assert list(groups[0]) == ["tier", "reason", "similarity", "keeper", "others"]
    assert list(groups[0]["keeper"]) == [
        *("id", "sha256", "path", "paths", "key", "width", "height", "size_bytes", "taken_at", "changed_at"),
    ]
    assert [group["keeper"]["path"] for group in groups] == [row[5] for row in rows if row[2] != "copy"]

    code, out, _ = run("duplicates", "--paths")
    assert out.decode().splitlines() == [row[5] for row in rows if row[2] == "copy"]
    assert run("duplicates", "-0")[1] == out.replace(b"\n", b"\0")
    assert len(list(album.iterdir())) == 7  # nothing was deleted


def test_the_command_finds_a_cropped_copy_by_vectors(run: Callable[..., tuple[int, bytes, str]], album: Path) -> None:
    shutil.copy(DEMO / "photo_chelsea.jpg", album / "cat.jpg")
    with Image.open(album / "cat.jpg") as opened:
        opened.crop((opened.width // 20, 0, opened.width, opened.height * 19 // 20)).save(album / "cropped.png")
    run("index")
    code, out, _ = run("duplicates", "--tier", "semantic")
    assert code == 0
    assert {Path(line.split("\t")[5]).name for line in out.decode().splitlines()} == {"cat.jpg", "cropped.png"}


def test_the_command_complains_in_one_line(run: Callable[..., tuple[int, bytes, str]], album: Path) -> None:
    for words, expected in (
        (("--tier", "same"), "mmsearch: There is no tier 'same'; valid are: exact, near, semantic.\n"),
        (("--similarity", "2"), "mmsearch: The similarity is for the semantic tier, which was not asked for.\n"),
        (("--json", "--paths"), "mmsearch: --json and --paths do not go together; the JSON has the paths.\n"),
    ):
        assert run("duplicates", *words) == (2, b"", expected)
    for path in album.iterdir():
        if "coffee" in path.name or "copy" in path.name:
            path.unlink()
    run("index")
    assert run("duplicates") == (1, b"", "mmsearch: no duplicates found (exact, near).\n")


def test_the_demo_holds_one_drawing_in_two_colours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the near tier does not see: hashes know no colour."""
    assert main(["-c", str(tmp_path / "c"), "index", str(DEMO)]) == 0
    capsys.readouterr()
    assert main(["-c", str(tmp_path / "c"), "duplicates"]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert {Path(row[5]).name for row in rows} == {"clip_006.jpg", "clip_007.webp"}
