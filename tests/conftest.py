"""Shared by all tests: painted pictures, a toy encoder, collections in temporary folders; no network, no home."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmsearch import Engine
from tests.browser import browser, contexts, page_collection, page_server, visit  # noqa: F401 - fixtures
from tests.toy import COLOURS, ToyEncoder


@pytest.fixture(autouse=True)
def _closed_world(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the person who runs the tests is read or written, and only this machine is spoken to."""
    monkeypatch.setenv("HOME", str(tmp_path_factory.getbasetemp() / "home"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path_factory.getbasetemp() / "data"))
    monkeypatch.delenv("MMSEARCH_COLLECTION", raising=False)
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: object) -> None:
        if self.family != socket.AF_UNIX and not (isinstance(address, tuple) and str(address[0]).startswith("127.")):
            raise OSError(f"tests use no network: {address}")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", local_only)


def paint(path: Path, colour: str, seed: int = 0, size: tuple[int, int] = (40, 30)) -> Path:
    """A noisy picture of one colour; another seed gives another content."""
    noise = np.random.default_rng([seed, *COLOURS[colour]]).normal(0, 12, (size[1], size[0], 3))
    pixels = np.clip(np.array(COLOURS[colour]) + noise, 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with one picture of each colour, and two more red ones below it."""
    folder = tmp_path / "images"
    for colour in COLOURS:
        paint(folder / f"{colour}.png", colour)
    paint(folder / "more" / "red one.jpg", "red", 1)
    paint(folder / "more" / "red two.webp", "red", 2)
    return folder


@pytest.fixture
def toy() -> ToyEncoder:
    return ToyEncoder()


@pytest.fixture
def engine(tmp_path: Path, toy: ToyEncoder) -> Iterator[Engine]:
    with Engine.open(tmp_path / "collection", model=toy) as opened:
        yield opened


@pytest.fixture
def found(engine: Engine) -> Callable[..., list[str]]:
    """Names of the pictures found, best first."""

    def names(text: str, k: int = 100) -> list[str]:
        return [hit.path.name if hit.path else str(hit.key) for hit in engine.search(text, k=k)]

    return names
