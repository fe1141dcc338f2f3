"""Draws the picture at the top of the README: queries of the demo, and the first three pictures each of them finds.

    python benchmarks/readme_picture.py

In: the demo's pictures and queries, the built-in encoder. Out: data/demo.png. Run it when either changes.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from mmsearch import Engine
from mmsearch.cli.demo import QUERIES
from mmsearch.settings import shipped_folder

SIDE, GAP, TITLE = 104, 8, 26
COLUMNS, SHOWN = 3, 3
PAPER, INK, FAINT = "#ffffff", "#1c1c1c", "#6b6b6b"


def block(query: str, engine: Engine) -> Image.Image:
    """One query with its answers, as the command line would be asked."""
    block = Image.new("RGB", (SHOWN * (SIDE + GAP) - GAP, TITLE + SIDE + 18), PAPER)
    draw = ImageDraw.Draw(block)
    draw.text((0, 4), f'mmsearch query "{query}"', INK, ImageFont.load_default(14))
    for hit in engine.search(query, k=SHOWN):
        assert hit.path is not None
        left = (hit.rank - 1) * (SIDE + GAP)
        with Image.open(hit.path) as picture:
            rgba = ImageOps.pad(picture.convert("RGBA"), (SIDE, SIDE), color=(255, 255, 255, 0))
        block.paste(rgba, (left, TITLE), rgba)
        draw.rectangle((left, TITLE, left + SIDE - 1, TITLE + SIDE - 1), outline="#d0d0d0")
        draw.text((left, TITLE + SIDE + 3), f"{hit.score:.2f}", FAINT, ImageFont.load_default(11))
    return block


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the picture of the README.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "data" / "demo.png")
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as collection, Engine.open(Path(collection)) as engine:
        engine.index(shipped_folder("demo") / "images")
        blocks = [block(query, engine) for query in QUERIES]
    width, height = blocks[0].width + 3 * GAP, blocks[0].height + 2 * GAP
    rows = -(-len(blocks) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * width, rows * height + GAP), PAPER)
    for number, one in enumerate(blocks):
        sheet.paste(one, (GAP + number % COLUMNS * width, GAP + number // COLUMNS * height))
    sheet.quantize(128, Image.Quantize.MEDIANCUT).save(out, optimize=True)
    print(f"wrote {out}: {out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
