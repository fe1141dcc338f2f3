"""The package as people get it: built as a wheel, installed without network, run from any folder."""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the checkout, without what lies about there."""
    source = tmp_path_factory.mktemp("source") / "mmsearch"
    ignored = shutil.ignore_patterns(".*", "__pycache__", "build", "dist")
    shutil.copytree(REPOSITORY, source, ignore=ignored)
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-q",
        "-w",
        str(folder),
        str(source),
    ]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PIP_NO_INDEX": "1"})
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment of its own that sees the packages of the tests, but not the checkout."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    there = subprocess.run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    packages = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()}
    (Path(there) / "packages-of-the-tests.pth").write_text("\n".join(sorted(packages)) + "\n")
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-index", "--no-deps"]
    subprocess.run([*command, "--force-reinstall", "--no-build-isolation", str(wheel)], check=True, capture_output=True)
    return folder / "bin" / "mmsearch"


def test_the_wheel_holds_what_it_needs_and_no_more(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        weights = sum(info.file_size for info in archive.infolist() if "/weights/" in info.filename)
    tops = {name.split("/")[0] for name in names}
    assert tops == {"mmsearch", next(name for name in tops if name.endswith(".dist-info"))}
    assert "mmsearch/_migrations/env.py" in names
    assert "mmsearch/_demo/SOURCES.csv" in names
    assert len([name for name in names if name.startswith("mmsearch/_demo/images/")]) == 104
    assert "mmsearch/encoders/weights/lite/MODEL_CARD.md" in names
    assert "mmsearch/py.typed" in names
    assert {"mmsearch/server/page/index.html", "mmsearch/server/page/assets/vendor/VERSIONS"} <= set(names)
    assert 10 * MEGABYTE < weights <= 40 * MEGABYTE
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_demo_index_and_query_from_any_folder(program: Path, tmp_path: Path, images: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["XDG_DATA_HOME"] = str(tmp_path / "data")

    def run(*arguments: str) -> str:
        command = [str(program), *arguments]
        done = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    where = subprocess.run(
        [str(program.with_name("python")), "-c", "import mmsearch; print(mmsearch.__file__)"],
        cwd=elsewhere, env=environment, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert str(program.parent.parent) in where
    assert "a red sports car" in run("demo")
    report = json.loads(run("index", str(images), "--json"))
    assert (report["new"], report["failed"]) == (10, 0)
    hits = json.loads(run("query", "red", "--json", "-k", "3"))["hits"]
    assert len(hits) == 3
    assert all(Path(hit["path"]).is_file() for hit in hits)
