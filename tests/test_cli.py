"""What the commands print and how they end, through `main` in this process, on a real engine with an encoder that
people can check by eye (tests/plugin)."""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mmsearch.cli.main import main
from mmsearch.encoders import registry
from mmsearch.engine import Engine
from mmsearch.errors import DamagedError, MissingExtraError
from mmsearch.types import FailedFile, IndexReport, SearchResult, Verification

PLUGIN = Path(__file__).parent / "plugin"
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0)}


@dataclass
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ran]


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A data folder of its own, the plugin on the path, no settings of the person who runs the tests."""
    monkeypatch.syspath_prepend(PLUGIN)
    importlib.invalidate_caches()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("MMSEARCH_COLLECTION", raising=False)
    monkeypatch.delenv("MMSEARCH_DEBUG", raising=False)
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)
    sys.modules.pop("colour_encoder", None)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str | Path) -> Ran:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Ran(code, out, err)

    return run


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """One picture of each colour; red.png has a caption."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, colour in COLOURS.items():
        Image.new("RGB", (30, 20), colour).save(folder / f"{name}.png")
    (folder / "red.txt").write_text("a red thing\n")
    return folder


@pytest.fixture
def indexed(pictures: Path, run: Run) -> Path:
    assert run("index", pictures, "--model", "colour").code == 0
    return pictures


def only_line(ran: Ran) -> str:
    """stderr is one line that says who speaks, stdout is empty."""
    assert ran.out == ""
    assert ran.err.count("\n") == 1, ran.err
    assert ran.err.startswith("mmsearch: ")
    assert "Traceback" not in ran.err
    return ran.err


# --- index --------------------------------------------------------------------------------------------------------


def test_index_says_what_it_did(pictures: Path, run: Run) -> None:
    first = run("index", pictures, "--model", "colour")
    assert (first.code, first.err) == (0, "")
    assert first.out.startswith("4 new, 0 unchanged, 1 caption; ")
    assert first.out.endswith("(colour)\n")
    again = run("index", "--json")
    assert again.code == 0
    assert list(again.json)[:10] == [
        *("new", "changed", "moved", "removed", "unchanged"),
        *("failed", "captions", "seconds", "images_per_second", "space"),
    ]
    counts = {name: again.json[name] for name in ("new", "changed", "moved", "removed", "unchanged", "failed")}
    assert counts == {"new": 0, "changed": 0, "moved": 0, "removed": 0, "unchanged": 4, "failed": 0}
    assert again.json["space"] == "colour"


def test_index_options_reach_the_engine(pictures: Path, run: Run, tmp_path: Path) -> None:
    table = tmp_path / "captions.csv"
    table.write_text("image,caption\nblue.png,a blue sky\nnowhere.png,lost\n")
    ran = run("index", pictures, "--model", "colour", "--exclude", "green.*", "--captions", table, "--json")
    assert (ran.code, ran.json["new"], ran.json["captions"]) == (0, 3, 2)
    assert "nowhere.png" in ran.err
    (pictures / "red.png").unlink()
    assert run("index", "--json").json["missing"] == 1
    assert run("index", "--prune", "--json").json["removed"] == 1
    Image.new("RGB", (2000, 1000)).save(pictures / "large.png")
    ran = run("index", "--max-megapixels", "1.5")
    assert ran.code == 3
    assert "large.png: " in ran.err


def test_failed_files_are_named_and_the_rest_is_indexed(pictures: Path, run: Run) -> None:
    (pictures / "broken\n.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    ran = run("index", pictures, "--model", "colour")
    assert ran.code == 3
    assert ran.out.startswith("4 new, 0 unchanged, 1 failed, ")
    assert ran.err.startswith("mmsearch: ")
    assert ran.err.count("\n") == 1
    assert r"broken\n.png: " in ran.err
    again = run("index")
    assert again.code == 3
    assert again.err == "mmsearch: 1 failed in earlier runs; `mmsearch status` lists them all.\n"
    status = run("status", "--json").json
    assert [failed["path"] for failed in status["failed"]] == [str(pictures / "broken\n.png")]
    assert status["failed"][0]["error"]


def test_many_failures_do_not_flood_the_terminal(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = IndexReport("colour", failed=1234)
    report.failures += [FailedFile(Path(f"/p/{number}.jpg"), "truncated") for number in range(1234)]
    report.left_alone.append((Path("/usb"), "it is away"))
    monkeypatch.setattr(Engine, "index", lambda *_, **__: report)
    ran = run("index", tmp_path)
    assert ran.code == 3
    lines = ran.err.splitlines()
    assert lines[0] == "mmsearch: /usb: left alone: it is away"
    assert lines[-1] == "mmsearch: 1,224 more failed; `mmsearch status` lists them all."
    assert len(lines) == 12


# --- query --------------------------------------------------------------------------------------------------------


def test_query_through_a_pipe(indexed: Path, run: Run) -> None:
    ran = run("query", "red", "-k", "2")
    assert (ran.code, ran.err) == (0, "")
    rows = [line.split("\t") for line in ran.out.splitlines()]
    assert [(row[0], row[2]) for row in rows] == [("1", str(indexed / "red.png")), ("2", str(indexed / "yellow.png"))]
    assert float(rows[0][1]) == pytest.approx(1, abs=0.01)


def test_query_json(indexed: Path, run: Run) -> None:
    ran = run("query", "blue", "--json")
    assert (ran.code, ran.json["space"], ran.json["exact"]) == (0, "colour", True)
    hit = ran.json["hits"][0]
    assert list(hit)[:8] == ["rank", "id", "sha256", "path", "paths", "caption", "score", "key"]
    assert list(hit)[8:] == ["probability", "shares", "taken_at", "folded", "width", "height"]
    assert (hit["rank"], hit["path"], hit["paths"]) == (1, str(indexed / "blue.png"), [str(indexed / "blue.png")])
    assert (hit["caption"], hit["key"], len(hit["sha256"])) == (None, None, 64)


def test_query_by_picture_by_both_and_for_captions(indexed: Path, run: Run, tmp_path: Path) -> None:
    like = tmp_path / "like.jpg"
    Image.new("RGB", (50, 50), (0, 250, 0)).save(like)
    assert run("query", "--like", like, "--paths").out.splitlines()[0] == str(indexed / "green.png")
    both = run("query", "red", "--like", like, "--paths")  # red and green light make yellow
    assert both.out.splitlines()[0] == str(indexed / "yellow.png")
    captions = run("query", "--like", indexed / "red.png", "--find", "captions", "--json").json
    assert [(hit["caption"], hit["path"]) for hit in captions["hits"]] == [("a red thing", str(indexed / "red.png"))]
    plain = run("query", "red", "--find", "captions").out
    assert plain.split("\t")[2:] == ["a red thing", f"{indexed / 'red.png'}\n"]


@pytest.mark.skipif(sys.platform == "darwin", reason="file names are UTF-8 on macOS")
def test_paths_are_the_bytes_of_the_file_system(pictures: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    name = os.fsencode(pictures) + b"/caf\xe9\nred.png"
    (pictures / "red.png").rename(os.fsdecode(name))
    main(["index", str(pictures), "--model", "colour"])
    capsysbinary.readouterr()
    assert main(["query", "red", "-k", "1", "--null"]) == 0
    assert capsysbinary.readouterr().out == name + b"\0"
    assert main(["query", "red", "-k", "1", "--paths"]) == 0
    assert capsysbinary.readouterr().out == name + b"\n"
    main(["query", "red", "-k", "1", "--json"])
    assert os.fsencode(json.loads(capsysbinary.readouterr().out)["hits"][0]["path"]) == name
    main(["query", "red", "-k", "1"])
    assert capsysbinary.readouterr().out.endswith(b"/caf\\xe9\\nred.png\n")


@pytest.mark.parametrize("find", ["images", "captions"])
def test_nothing_found_is_valid_json_and_exit_code_1(find: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert run("index", tmp_path / "empty", "--model", "colour").code == 0
    ran = run("query", "red", "--find", find, "--json")
    assert ran.code == 1
    assert ran.json == {"space": "colour", "exact": True, "hits": [], "relevant": None, "calibration": None}
    assert ran.err.startswith("mmsearch: nothing found: ")
    assert run("query", "red", "--find", find).out == ""


def test_a_notice_goes_to_stderr(indexed: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    search = Engine.search

    def noticing(self: Engine, query: Any) -> SearchResult:
        found = search(self, query)
        return SearchResult(found.space, found.exact, found.hits, "the index is damaged;\nthe catalog was used")

    monkeypatch.setattr(Engine, "search", noticing)
    ran = run("query", "red", "--json")
    assert ran.err == "mmsearch: the index is damaged; the catalog was used\n"
    assert ran.json["hits"]


# --- which collection ---------------------------------------------------------------------------------------------


def test_a_collection_by_option_before_or_after_the_command_or_by_environment(
    pictures: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("-c", "./here", "index", pictures, "--model", "colour").code == 0
    assert (tmp_path / "here" / "catalog.sqlite").is_file()
    assert run("query", "red", "-c", "./here", "--paths").code == 0
    assert run("--collection", "./here", "roots", "list").code == 0
    assert run("-c", "./elsewhere", "query", "red", "-c", "./here").code == 0  # the nearer one counts
    assert run("query", "red").code == 4
    monkeypatch.setenv("MMSEARCH_COLLECTION", "./here")
    assert run("query", "red").code == 0


# --- the other commands -------------------------------------------------------------------------------------------


def test_status_and_verify(indexed: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    status = run("status", "--json").json
    assert list(status)[:6] == ["collection", "roots", "images", "captions", "failed", "spaces"]
    assert (status["roots"], status["images"], status["captions"]) == ([str(indexed)], 4, 1)
    assert list(status["spaces"][0])[:5] == ["encoder", "dimension", "images", "captions", "index"]
    assert f"{indexed}: 4 files" in run("status").out
    assert run("verify").out.startswith("Sound: ")
    assert run("verify", "--json").json["sound"] is True
    monkeypatch.setattr(Engine, "verify", lambda _: Verification(1, 1, ("row 3 is damaged; restore it", "another")))
    bad = run("verify")
    assert (bad.code, bad.out) == (4, "")
    assert bad.err == "mmsearch: row 3 is damaged; restore it\nmmsearch: another\n"
    assert run("verify", "--json").json["problems"] == ["row 3 is damaged; restore it", "another"]


def test_roots(indexed: Path, run: Run, tmp_path: Path) -> None:
    assert run("roots", "list").out == f"{indexed}\t4\tpresent\n"
    moved = indexed.rename(tmp_path / "moved")
    assert run("roots", "list").out == f"{indexed}\t4\taway\n"
    assert run("status", "--json").json["away"] == [str(indexed)]
    assert run("roots", "relocate", indexed, moved).out.endswith(": 4 files.\n")
    assert run("query", "red", "--paths").out.splitlines()[0] == str(moved / "red.png")
    assert run("roots", "remove", tmp_path).code == 2
    assert "4 files forgotten" in run("roots", "remove", moved).out
    assert run("query", "red").code == 1
    assert (moved / "red.png").exists()


def test_models(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    known = [registry.ModelInfo("lite", "small", 384, 36, weights=tmp_path), registry.ModelInfo("big", "larger")]
    monkeypatch.setattr(registry, "available_models", lambda: known)
    ran = run("models")
    assert (ran.code, ran.out) == (0, "lite  (here, 36 MB, 384 dimensions)\n    small\nbig  (not here)\n    larger\n")
    monkeypatch.setattr(registry, "pull", lambda name, on_progress: tmp_path / name)
    assert str(tmp_path / "big") in run("models", "pull", "big").out


def test_eval(pictures: Path, run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    pictures.rename(folder / "images")
    (folder / "captions.csv").write_text("image,caption\nred.png,red\nblue.png,blue\nblue.png,green\ngone.png,red\n")
    ran = run("eval", folder, "--model", "colour", "--json")
    assert (ran.code, ran.json["images"], ran.json["captions"]) == (0, 2, 3)
    assert list(ran.json)[:4] == ["images", "captions", "t2i", "i2t"]
    assert ran.json["i2t"] == {"R@1": 100, "R@5": 100, "R@10": 100, "median_rank": 1}
    assert "gone.png" in ran.err
    split = tmp_path / "split.txt"
    split.write_text("red.png\n")
    assert run("eval", folder, "--model", "colour", "--split", split, "--json").json["images"] == 1
    assert "i2t\t100.0\t100.0\t100.0\t1\n" in run("eval", folder, "--model", "colour").out


def test_version_and_help(run: Run) -> None:
    from mmsearch import __version__

    assert run("--version") == Ran(0, f"mmsearch {__version__}\n", "")
    assert run().out.startswith("Usage: mmsearch")
    assert run("query", "--help").code == 0


# --- errors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nonsense",), "mmsearch --help"),
        (("query", "--likes", "x"), "mmsearch query --help"),
        (("query", "red", "-k", "0"), "'-k'"),
        (("query", "red", "-k", "many"), "'-k'"),
        (("query", "red", "--find", "videos"), "'images', 'captions'"),
        (("query", "--like", "nowhere.jpg"), "nowhere.jpg"),
        (("query",), "at least one text or picture"),
        (("query", "  "), "empty"),
        (("query", "red", "--json", "--paths"), "do not go together"),
        (("query", "red", "--like", "setup.txt"), "setup.txt"),
        (("index", "nowhere", "--model", "colour"), "nowhere"),
        (("index", ".", "--device", "toaster"), "toaster"),
        (("index", "--captions", "nowhere.csv"), "nowhere.csv"),
        (("roots", "remove"), "PATH"),
        (("roots",), "mmsearch roots --help"),
        (("eval", ".", "--model", "colour"), "images/"),
        (("models", "pull"), "NAME"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...], says: str, indexed: Path, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "setup.txt").write_text("no picture")
    ran = run(*arguments)
    assert ran.code == 2
    assert says in only_line(ran)


def test_collection_and_model_errors_are_one_line_and_exit_code_4(
    indexed: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments, says in (
        (("query", "red", "-c", "./nowhere"), "no collection at"),
        (("status", "-c", "nowhere", "--json"), "no collection at"),
        (("query", "red", "--model", "lite"), "colour"),
        (("index", "--model", "colur"), "did you mean colour"),
    ):
        ran = run(*arguments)
        assert ran.code == 4, arguments
        assert says in only_line(ran)
    assert not (tmp_path / "nowhere").exists()
    for error in (
        DamagedError("the catalog\nis damaged"),
        MissingExtraError("pip install 'mmsearch[clip]'"),
        OSError(28, "No space left on device", "/full"),
    ):

        def fail(*_: Any, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(Engine, "search", fail)
        ran = run("query", "red", "--json")
        assert ran.code == 4
        only_line(ran)
    assert "No space left on device: /full" in ran.err


def test_a_bug_of_ours_is_one_line_unless_asked(indexed: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise KeyError("first\nsecond")

    monkeypatch.setattr(Engine, "search", fail)
    ran = run("query", "red")
    assert ran.code == 70
    assert "internal error: KeyError" in only_line(ran)
    monkeypatch.setenv("MMSEARCH_DEBUG", "1")
    ran = run("query", "red")
    assert ran.code == 70
    assert "Traceback" in ran.err


def interrupted(*_: Any) -> None:
    raise KeyboardInterrupt


def interrupted_in_a_compiled_module(*_: Any) -> None:
    try:
        interrupted()
    except KeyboardInterrupt as error:
        raise ImportError("initialization failed") from error


@pytest.mark.parametrize("search", [interrupted, interrupted_in_a_compiled_module])
def test_an_interrupt_outside_an_index_run(
    search: Callable[..., None], indexed: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Engine, "search", search)
    ran = run("query", "red")
    assert ran.code == 130
    assert only_line(ran) == "mmsearch: stopped.\n"
