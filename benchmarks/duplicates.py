"""Which variants of photographs `duplicates` finds, what it takes for the same that is not, and how long it takes.

In: --data (or MMSEARCH_DATA) with flickr8k.tar and clothing.tar; without it, or with --quick, the demo's photographs.
Each photograph gets variants: re-encoded, resized, cropped by 5 %, brighter, darker. Thresholds were chosen on Flickr8k
dev, with photographs of clothes on the same tables as hard distractors; the first tables say what speaks for them. The
groups that `Engine.duplicates` makes are judged on Flickr8k test.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import chain, combinations, product
from pathlib import Path

import numpy as np
from common import own_peak_mib, parser, table, write_report
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from quality import contents

from mmsearch import Engine
from mmsearch.catalog import likeness, read
from mmsearch.catalog.catalog import Catalog
from mmsearch.duplicates import LEAST_DETAIL, NEAR_SHARE, SIMILARITY
from mmsearch.settings import shipped_folder
from mmsearch.types import Tier

KINDS = (
    "copy",
    "jpeg 90",
    "jpeg 60",
    "jpeg 30",
    "size 200 %",
    "size 50 %",
    "cropped 5 %",
    "brighter 20 %",
    "darker 20 %",
)
BITS = np.array([number.bit_count() for number in range(256)], np.uint8)
TIERS: tuple[Tier, ...] = ("exact", "near", "semantic")


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--data", type=Path, default=os.environ.get("MMSEARCH_DATA"), help="folder of the data")
    args = options.parse_args()
    if args.quick:
        args.data = None
    elif args.data is None:
        options.error("name the folder of the data with --data DIR or MMSEARCH_DATA, or use --quick")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        parts = [choice(args, work), judged(args, work), speed(work, 3_000 if args.quick else 100_000)]
    write_report(
        args,
        "Duplicates: what is found, what is confused",
        parts,
        packages=("numpy", "faiss-cpu", "pillow", "onnxruntime"),
    )


# --- photographs and their variants -----------------------------------------------------------------------------


def photographs(args: argparse.Namespace, split: str) -> dict[str, bytes]:
    """Name without suffix -> content."""
    if args.data is None:
        paths = sorted((shipped_folder("demo") / "images").glob("photo_*.jpg"))
        return {path.stem: path.read_bytes() for path in (paths[::2] if split == "dev" else paths[1::2])}
    files = contents(args.data / "flickr8k.tar")
    return {Path(name).stem: files[f"images/{name}"] for name in files[f"{split}.txt"].decode().split()}


def write_variants(photographs: dict[str, bytes], folder: Path) -> None:
    """`name.original.ext`, `name.size 50 %.jpg`, ...; the part before the dot says what belongs together."""
    folder.mkdir()
    for name, content in photographs.items():
        (folder / f"{name}.original.img").write_bytes(content)
        (folder / f"{name}.copy.img").write_bytes(content)
        with Image.open(io.BytesIO(content)) as opened:
            picture = opened.convert("RGB")
        for kind, (variant, quality) in variants(picture, name).items():
            variant.save(folder / f"{name}.{kind}.jpg", quality=quality)


def variants(picture: Image.Image, name: str) -> dict[str, tuple[Image.Image, int]]:
    """Kind -> picture, JPEG quality. Cropped pictures lose 5 % of the width and of the height, somewhere."""
    width, height = picture.size
    chance = random.Random(name)
    left, top = chance.randint(0, width // 20), chance.randint(0, height // 20)
    sizes = {percent: (max(1, width * percent // 100), max(1, height * percent // 100)) for percent in (200, 50)}
    made = {f"jpeg {quality}": (picture, quality) for quality in (90, 60, 30)}
    made |= {f"size {p} %": (picture.resize(size, Image.Resampling.LANCZOS), 85) for p, size in sizes.items()}
    made["cropped 5 %"] = picture.crop((left, top, left + width * 19 // 20, top + height * 19 // 20)), 85
    made["brighter 20 %"] = ImageEnhance.Brightness(picture).enhance(1.2), 85
    made["darker 20 %"] = ImageEnhance.Brightness(picture).enhance(0.8), 85
    return made


# --- the choice of thresholds -----------------------------------------------------------------------------------


class Looks:
    """What pictures are compared by, of a folder that is indexed here. names: of the files, without the suffix."""

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        collection = folder.with_name(f"{folder.name} collection")
        with Engine.open(collection, model=args.model) as engine:
            engine.index(folder)
        catalog = Catalog(collection, create=False)
        with catalog.reading() as connection:
            space = read.spaces(connection)[0]
            images, self.hashes = likeness.present_hashes(connection)
            of_vectors, rows = likeness.present_vectors(connection, space.id, space.dimension)
            files = likeness.copies(connection, images.tolist())
        catalog.close()
        assert np.array_equal(images, of_vectors)
        self.rows = rows.astype(np.float32) / np.linalg.norm(rows.astype(np.float32), axis=1, keepdims=True)
        paths = [Path(os.fsdecode(files[image][-1].relative)) for image in images.tolist()]
        self.names = [path.name.rpartition(".")[0] for path in paths]
        self.detail = detail(self.hashes)

    def pairs(self, most_bits: int) -> Iterator[tuple[NDArray[np.int64], ...]]:
        """For each picture with those after it: positions, bits that differ, least detail, cosines; of the pairs that
        differ in so many bits at most or have a cosine of 0.8."""
        for i in range(len(self.rows) - 1):
            bits = BITS[self.hashes[i] ^ self.hashes[i + 1 :]].sum(axis=1, dtype=np.int64)
            cosines = self.rows[i + 1 :] @ self.rows[i]
            near = np.flatnonzero((bits <= most_bits) | (cosines >= 0.8))
            others = i + 1 + near
            yield (
                np.full(len(near), i),
                others,
                bits[near],
                np.minimum(self.detail[i], self.detail[others]),
                cosines[near],
            )


def detail(hashes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """In how many places a pattern turns from brighter to darker, or back."""
    bits = np.unpackbits(hashes, axis=1).reshape(-1, 2, 8, 8).astype(np.int64)
    rows, columns = np.diff(bits[:, 0], axis=2), np.diff(bits[:, 1], axis=1)
    return np.abs(rows).sum((1, 2)) + np.abs(columns).sum((1, 2))


def choice(args: argparse.Namespace, work: Path) -> str:
    """Every rule, pair by pair: the share of variants that it takes for their original, and wrong pairs."""
    write_variants(photographs(args, "dev"), work / "dev")
    looks = Looks(args, work / "dev")
    owners = np.array([name.partition(".")[0] for name in looks.names])
    kinds = np.array([name.partition(".")[2] for name in looks.names])
    _, shown = np.unique(owners, return_inverse=True)
    a, b, *values = (np.concatenate(part) for part in zip(*looks.pairs(40), strict=True))
    same = shown[a] == shown[b]
    of_kind = {
        k: same & (((kinds[a] == k) & original(kinds[b])) | ((kinds[b] == k) & original(kinds[a]))) for k in KINDS[1:]
    }
    hard = hard_pairs(args, work)
    rows = []
    for name, rule in rules().items():
        found = rule(*values)
        recalls = [
            f"{100 * (found & mine).sum() / max(1, (kinds == kind).sum()):.1f}" for kind, mine in of_kind.items()
        ]
        wrong = "-" if hard is None else int(rule(*hard).sum())
        rows.append([name, *recalls, int((found & ~same).sum()), wrong])
    return (
        "## Thresholds\n\n"
        f"{len(looks.names):,} pictures of {len(set(owners)):,} photographs (dev). Percent of the variants "
        "that a rule takes for their original; then how many pairs of different photographs it takes for "
        "one, among these, and among 1,713 photographs of clothes (1.5 million pairs; one pair is really one "
        "picture). `bits`: the Hamming distance of the perceptual hashes; `detail`: in how many places the "
        f"pattern of the flatter one turns. Chosen: near = bits up to detail / {NEAR_SHARE}, detail from "
        f"{LEAST_DETAIL}; semantic = cosine from {SIMILARITY}.\n\n"
        + table(["rule", *KINDS[1:], "wrong", "wrong, clothes"], rows)
    )


def original(kinds: NDArray[np.str_]) -> NDArray[np.bool_]:
    """Copies are the same image."""
    return np.isin(kinds, ("original", "copy"))


def hard_pairs(args: argparse.Namespace, work: Path) -> list[NDArray[np.int64]] | None:
    if args.data is None:
        return None
    folder = work / "clothes"
    folder.mkdir()
    for number, (name, content) in enumerate(sorted(contents(args.data / "clothing.tar").items())):
        if name.startswith("images/"):
            (folder / f"{number}.img").write_bytes(content)
    return [np.concatenate(part) for part in zip(*Looks(args, folder).pairs(40), strict=True)][2:]


def rules() -> dict[str, Callable[..., NDArray[np.bool_]]]:
    """Name -> rule of bits, detail, cosine."""
    made: dict[str, Callable[..., NDArray[np.bool_]]] = {}
    for most in (4, 8, 10, 16):
        made[f"bits to {most}"] = lambda bits, _detail, _cosine, most=most: bits <= most
    for share in (5, 4, 3):
        made[f"**bits to detail / {share}**" if share == NEAR_SHARE else f"bits to detail / {share}"] = (
            lambda bits, detail, _cosine, share=share: (bits * share <= detail) & (detail >= LEAST_DETAIL)
        )
    for least in (0.6, 0.8):
        made[f"bits to detail / 3, cosine from {least}"] = lambda bits, detail, cosine, least=least: (
            (bits * 3 <= detail) & (detail >= LEAST_DETAIL) & (cosine >= least)
        )
    for least in (0.85, 0.9, 0.95):
        made[f"**cosine from {least}**" if least == SIMILARITY else f"cosine from {least}"] = (
            lambda _bits, _detail, cosine, least=least: cosine >= least
        )
    return made


# --- what the engine makes of it --------------------------------------------------------------------------------


def judged(args: argparse.Namespace, work: Path) -> str:
    """Groups of `Engine.duplicates` on pictures that played no part in the choice."""
    folder = work / "test"
    write_variants(photographs(args, "test"), folder)
    with Engine.open(work / "test collection", model=args.model) as engine:
        engine.index(folder)
        started = time.perf_counter()
        found = engine.duplicates(TIERS)
        seconds = time.perf_counter() - started
    leader: dict[str, str] = {}  # name -> another that some tier joins it with

    def top(name: str) -> str:
        while (above := leader.get(name, name)) != name:
            name = above
        return name

    pairs: dict[Tier, set[frozenset[str]]] = {tier: set() for tier in TIERS}
    for group in found:
        copies = [[path.name for path in copy.paths] for copy in (group.keeper, *group.others)]
        for one, other in combinations(copies, 2):
            pairs[group.tier].update(map(frozenset, product(one, other)))
        for name in chain(*copies):
            leader[top(name)] = top(copies[0][0])
    rows = []
    for tier, mine in pairs.items():
        right = sum(len({name.partition(".")[0] for name in pair}) == 1 for pair in mine)
        precision = f"{100 * right / len(mine):.2f}" if mine else "-"
        groups = sum(group.tier == tier for group in found)
        rows.append([tier, groups, len(mine), precision, *recall(folder, lambda a, b, mine=mine: {a, b} in mine)])
    rows.append(["any", len(found), "", "", *recall(folder, lambda a, b: top(a) == top(b))])
    names = [path.name for path in folder.iterdir()]
    return (
        "## Groups\n\n"
        f"{len(names):,} files of {len({name.partition('.')[0] for name in names}):,} photographs (test), all "
        f"three tiers in {seconds:.1f} s. Precision: of the pairs of files that a tier puts into one group, "
        "those of one photograph, in percent; recall: of the pairs of a variant and its original. A pair is "
        "in one tier alone, so the last line, which joins what any tier joins, says what is found at all.\n\n"
        + table(["tier", "groups", "pairs", "precision", *KINDS], rows)
    )


def recall(folder: Path, joined: Callable[[str, str], bool]) -> list[str]:
    """Per kind, in percent."""
    found = []
    for kind in KINDS:
        names = [path.name for path in folder.glob(f"*.{kind}.*")]
        right = sum(joined(name, f"{name.partition('.')[0]}.original.img") for name in names)
        found.append(f"{100 * right / len(names):.1f}")
    return found


# --- speed ------------------------------------------------------------------------------------------------------


def speed(work: Path, count: int) -> str:
    """A made-up collection: smooth patterns and vectors around some thousand centres, a fifth of them near another."""
    chance = np.random.default_rng(5)
    scenes = count * 4 // 5
    centres = chance.normal(size=(2_000, 384)).astype(np.float32)
    rows = centres[chance.integers(0, len(centres), scenes)] + chance.normal(size=(scenes, 384)).astype(np.float32)
    greys = chance.normal(size=(scenes, 9, 9)).cumsum(axis=1).cumsum(axis=2)
    turns = np.concatenate(
        [(greys[:, :8, :8] < greys[:, :8, 1:]).reshape(-1, 64), (greys[:, :8, :8] < greys[:, 1:, :8]).reshape(-1, 64)],
        axis=1,
    )
    again = count - scenes
    rows[again : 2 * again] = rows[:again] + 0.1 * chance.normal(size=(again, 384))
    rows = np.concatenate([rows, chance.normal(size=(again, 384)).astype(np.float32)])
    turns = np.concatenate([turns, turns[-again:]])
    turns[np.arange(count), chance.integers(0, 128, count)] ^= True
    hashes = np.packbits(turns, axis=1)
    with Engine.open(work / "many", model=None) as engine:
        engine.add_vectors([str(number) for number in range(count)], rows, space="made up")
    catalog = Catalog(work / "many", create=False)
    with catalog.writing() as connection:
        for number, bits in enumerate(hashes):  # keys were numbered in the order of the images
            connection.exec_driver_sql(
                "UPDATE image SET perceptual_hash = ? WHERE id = ?", (bits.tobytes(), number + 1)
            )
    catalog.close()
    lines = []
    before = own_peak_mib()
    for tier in TIERS:
        with Engine.open(work / "many", model="made up", create=False) as engine:
            started = time.perf_counter()
            found = engine.duplicates(tier)
            lines.append([tier, f"{time.perf_counter() - started:.1f}", len(found)])
        print(*lines[-1], file=sys.stderr)
    return (
        f"## Time\n\n{count:,} made-up pictures, 384 dimensions; a fifth of the patterns and a fifth of the "
        "vectors are near another, and all are compared with all. The semantic tier does the near tier's "
        f"work first. Peak memory {own_peak_mib():,.0f} MiB; {before:,.0f} before it began.\n\n"
        + table(["tier", "seconds", "groups"], lines)
    )


if __name__ == "__main__":
    main()
