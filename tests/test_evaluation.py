"""Evaluation of a transparent encoder (mean colour of a picture, names of colours) on hand-worked folders, of the toy
encoder on collections, and of `lite` on the demo through the command line."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mmsearch import Engine, Term, evaluation
from mmsearch.cli.main import main
from mmsearch.encoders.protocol import Space
from mmsearch.errors import SpaceNotFoundError, UsageError
from mmsearch.evaluation import evaluate
from mmsearch.settings import Limits
from mmsearch.types import Progress, SearchResult
from tests.conftest import paint
from tests.toy import COLOURS as TOY_COLOURS
from tests.toy import ToyEncoder

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0)}


class ColourEncoder:
    """Pictures become their mean colour, texts the colour they start with; unit length."""

    space = Space("colour", "0", 3)
    image_size = 8
    batch_size = 2

    def prepare(self, picture: Image.Image) -> NDArray[Any]:
        return np.asarray(picture.resize((1, 1)), dtype=np.float32).reshape(3)

    def encode_images(self, prepared: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        rows = np.array(prepared, dtype=np.float32).reshape(-1, 3)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self.encode_images([np.float32(COLOURS[text.split()[0]]) for text in texts])


def folder_with(tmp_path: Path, pictures: dict[str, str], table: str, name: str = "captions.csv") -> Path:
    (tmp_path / "images").mkdir()
    for file, colour in pictures.items():
        Image.new("RGB", (20, 10), COLOURS[colour]).save(tmp_path / "images" / file)
    (tmp_path / name).write_text(table)
    return tmp_path


def test_figures_of_a_hand_worked_folder(tmp_path: Path) -> None:
    # c.png is green but all its captions say something else, so it is found by none of them at rank 1.
    folder = folder_with(
        tmp_path,
        {"a.png": "red", "b.png": "blue", "c.png": "green"},
        "image,caption\na.png,red\na.png,red again\nb.png,blue\nc.png,blue thing\nc.png,red thing\n",
    )
    seen: list[Progress] = []
    result = evaluate(folder, ColourEncoder(), on_progress=seen.append)
    assert (result.images, result.captions, result.space, result.left_out) == (3, 5, "colour", ())
    # t2i: a 1, a 1, b 1. "blue thing" of c: b scores 1, c and a score 0 (a tie of one, which costs nothing): rank 2.
    # "red thing" of c the same: 2.
    assert result.text_to_image.recall_at_1 == pytest.approx(60)
    assert result.text_to_image.recall_at_5 == 100
    assert result.text_to_image.median_rank == 1
    # i2t: a: its own two score 1, "red thing" of c ties: rank 1. b the same with one tie: 1.
    # c: all score 0, three competitors tie: 1 + 3 // 2 = 2.
    assert result.image_to_text.recall_at_1 == pytest.approx(200 / 3)
    assert result.image_to_text.recall_at_10 == 100
    assert seen[-1] == Progress("captions", 5, 5)
    assert Progress("encoding", 3, 3) in seen


def test_split_takes_only_the_images_it_names(tmp_path: Path) -> None:
    folder = folder_with(
        tmp_path,
        {"a.png": "red", "b.png": "blue", "c.png": "green", "uncaptioned.png": "red"},
        "image,caption\na.png,red\nb.png,red wrong\nc.png,green\n",
    )
    split = tmp_path / "test.txt"
    split.write_text("c.png\n\n a.png \na.png\nuncaptioned.png\n")
    result = evaluate(folder, ColourEncoder(), split=split)
    assert (result.images, result.captions) == (2, 2)
    assert result.text_to_image.recall_at_1 == 100
    assert [(failed.path.name, failed.error) for failed in result.left_out] == [
        ("uncaptioned.png", "it has no caption in captions.csv")
    ]


def test_pictures_that_are_gone_or_broken_are_left_out_and_named(tmp_path: Path) -> None:
    folder = folder_with(
        tmp_path,
        {"a.png": "red", "b.png": "blue"},
        "image,caption\na.png,red\ngone.png,red\nbroken.png,blue\nb.png,blue\n",
        name="captions.txt",
    )
    (folder / "images" / "broken.png").write_bytes(b"no picture")
    result = evaluate(folder, ColourEncoder())
    assert (result.images, result.captions) == (2, 2)
    assert result.image_to_text.recall_at_1 == 100
    assert [failed.path.name for failed in result.left_out] == ["gone.png", "broken.png"]
    assert all(failed.error for failed in result.left_out)


def test_order_survives_batches_and_threads(tmp_path: Path) -> None:
    names = list(COLOURS)
    pictures = {f"{number:02}.png": names[number % 4] for number in range(23)}
    table = "image,caption\n" + "".join(f"{file},{colour}\n" for file, colour in pictures.items())
    result = evaluate(folder_with(tmp_path, pictures, table), ColourEncoder())
    # Every colour occurs 5 or 6 times; equal pictures tie, and nothing else comes between: ranks are 3.
    assert result.text_to_image.median_rank == 3
    assert result.text_to_image.recall_at_5 == 100


def test_limits_are_kept(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, {"a.png": "red"}, "image,caption\na.png,red\n")
    with pytest.raises(UsageError, match="can be used, the first because"):
        evaluate(folder, ColourEncoder(), limits=Limits(max_megapixels=0.0001))


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda folder: (folder / "captions.csv").unlink(), "needs a folder images/ and a table"),
        (lambda folder: (folder / "images").rename(folder / "pictures"), "needs a folder images/ and a table"),
        (lambda folder: (folder / "images" / "a.png").unlink(), "None of the images"),
        (lambda folder: (folder / "captions.csv").write_text("image,caption\n"), "None of the images"),
    ],
)
def test_unusable_folders_say_what_is_needed(tmp_path: Path, break_it: Any, message: str) -> None:
    folder = folder_with(tmp_path, {"a.png": "red"}, "image,caption\na.png,red\n")
    break_it(folder)
    with pytest.raises(UsageError, match=message):
        evaluate(folder, ColourEncoder())


def test_unusable_splits_say_what_is_needed(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, {"a.png": "red"}, "image,caption\na.png,red\n")
    split = tmp_path / "split.txt"
    with pytest.raises(UsageError, match="cannot be read"):
        evaluate(folder, ColourEncoder(), split=split)
    split.write_text("\n")
    with pytest.raises(UsageError, match="is empty"):
        evaluate(folder, ColourEncoder(), split=split)
    split.write_text("other.png\n")
    with pytest.raises(UsageError, match="No image that"):
        evaluate(folder, ColourEncoder(), split=split)


class Backwards(ColourEncoder):
    """Takes red for blue in texts."""

    space = Space("backwards", "1", 3)

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return super().encode_texts(texts)[:, ::-1]


def test_two_encoders_side_by_side(tmp_path: Path) -> None:
    pictures = {f"{colour}{number}.png": colour for colour in ("red", "blue") for number in range(6)}
    table = "image,caption\n" + "".join(f"{file},{colour}\n" for file, colour in pictures.items())
    folder = folder_with(tmp_path, pictures, table)
    (folder / "images" / "red0.png").write_bytes(b"no picture")
    both = evaluate(folder, ColourEncoder(), rival=Backwards())
    alone, other = evaluate(folder, ColourEncoder()), evaluate(folder, Backwards())
    assert replace(both, rival=None, differences=()) == alone
    assert both.rival == replace(other, left_out=both.left_out)
    assert [one.path.name for one in both.left_out] == ["red0.png"]
    assert both.differences[0].value == other.measures[0].value - alone.measures[0].value
    assert next(one for one in both.differences if one.name == "R@5").value < 0


def test_a_folder_of_labels(tmp_path: Path) -> None:
    pictures = {"a.png": "red", "b.png": "red", "c.png": "green", "d.png": "blue"}
    folder = folder_with(
        tmp_path, pictures, "image,label\na.png,red\nb.png,red\nc.png,blue\nd.png,blue\n", "labels.csv"
    )
    (folder / "images" / "a.png").rename(folder / "images" / "gone.png")
    result = evaluate(folder, ColourEncoder())
    assert (result.images, result.captions, result.text_to_image, result.image_to_text) == (3, 0, None, None)
    assert [one.path.name for one in result.left_out] == ["a.png"]
    found = {(one.direction, one.name): one.value for one in result.measures}
    # red: b first: 1. blue: d first, then c and b tie at 0 and the wrong one comes first: (1 + 2/3) / 2.
    assert found["t2i", "mAP"] == pytest.approx(100 * (1 + (1 + 2 / 3) / 2) / 2)
    # c looks for d, d for c: b ties each time and comes first.
    assert found["i2i", "mAP"] == pytest.approx(50)
    assert [(one.label, one.images) for one in result.labels] == [("blue", 2), ("red", 1)]


# --- collections --------------------------------------------------------------------------------------------------


@pytest.fixture
def captioned(tmp_path: Path) -> Path:
    """Two pictures of each of eight colours with a caption, and one without."""
    for colour in TOY_COLOURS:
        for number in range(2):
            path = paint(tmp_path / "images" / colour / f"{number}.png", colour, number)
            path.with_suffix(".txt").write_text(f"{colour} {number}")
    paint(tmp_path / "images" / "red" / "without.png", "red", 7)
    return tmp_path / "images"


def test_a_collection_is_measured_with_its_stored_vectors(engine: Engine, toy: ToyEncoder, captioned: Path) -> None:
    engine.index(captioned)
    encoded = toy.texts, toy.pictures
    seen: list[Progress] = []
    result = engine.evaluate(on_progress=seen.append)
    assert (toy.texts, toy.pictures) == encoded
    assert (result.images, result.captions, result.space) == (17, 16, "toy")
    assert result.text_to_image is not None
    # The same by asking the engine: at which place comes the picture of each caption?
    ranks = []
    for colour in TOY_COLOURS:
        for number in range(2):
            hits = engine.search(f"{colour} {number}", k=17)
            ranks.append(next(hit.rank for hit in hits if hit.path == captioned / colour / f"{number}.png"))
    assert sorted(ranks) == sorted(result.ranks["t2i"].tolist())
    assert result.text_to_image.recall_at_1 == 100 * sum(rank == 1 for rank in ranks) / 16
    assert result.index is not None
    assert (result.index.recall, result.index.queries, result.index.exact, result.index.k) == (1, 16, True, 10)
    assert seen[-1] == Progress("comparing", 16, 16)


def test_pictures_that_are_gone_take_no_part(engine: Engine, captioned: Path) -> None:
    engine.index(captioned)
    (captioned / "red" / "0.png").unlink()
    engine.index()
    result = engine.evaluate()
    assert (result.images, result.captions) == (16, 15)


def test_folder_names_where_captions_are_few(engine: Engine, toy: ToyEncoder, tmp_path: Path) -> None:
    for number in range(5):
        paint(tmp_path / "images" / "red" / f"{number}.png", "red", number)
        paint(tmp_path / "images" / "blue" / f"{number}.png", "blue", number)
    engine.index(tmp_path / "images")
    result = engine.evaluate()
    assert result.about == "the folder names of the collection (2 folders)"
    assert {(one.direction, one.name): one.value for one in result.measures} == pytest.approx(
        {("t2i", "mAP"): 100, ("t2i", "P@10"): 50, ("i2i", "mAP"): 100, ("i2i", "P@10"): 40}
    )
    assert toy.texts == 2  # the two names
    with pytest.raises(UsageError, match="from captions"):
        engine.evaluate(source="captions")


def test_a_rival_is_measured_on_what_both_have(engine: Engine, captioned: Path) -> None:
    engine.index(captioned)
    with Engine.open(engine.folder, model=ToyEncoder("other")) as other:
        other.index([captioned / colour for colour in list(TOY_COLOURS)[:6]])
    result = engine.evaluate(rival=ToyEncoder("other"))
    assert result.rival is not None
    assert (result.rival.space, result.images, result.rival.images) == ("other", 13, 13)
    assert result.index is not None
    assert result.rival.index is not None
    assert {(one.value, one.p) for one in result.differences} == {(0, 1)}
    with pytest.raises(SpaceNotFoundError):
        engine.evaluate(rival=ToyEncoder("third"))


def test_captions_without_a_vector_are_encoded(engine: Engine, toy: ToyEncoder, captioned: Path) -> None:
    engine.index(captioned)
    whole = engine.evaluate()
    with engine._catalog.writing() as connection:
        connection.exec_driver_sql("DELETE FROM vector WHERE kind = 'captions' AND owner % 2")
    before = toy.texts
    again = engine.evaluate()
    assert toy.texts == before + 8
    assert again.measures == whole.measures


def test_an_index_that_misses_something_is_found_out(engine: Engine, captioned: Path) -> None:
    engine.index(captioned)
    side = engine._side()

    def careless(vector: NDArray[np.float32]) -> SearchResult:
        """Leaves out every second one."""
        hits = engine.search(Term(vector=vector), k=17).hits[::2]
        return SearchResult("toy", False, hits)

    texts = ToyEncoder().encode_texts(["red", "blue", "green"])
    check = evaluation.check_index(engine._catalog, replace(side, search=careless), texts, lambda _: None)
    assert (check.recall, check.exact, check.queries) == (pytest.approx(0.5), False, 3)


def test_a_collection_without_vectors(engine: Engine) -> None:
    with pytest.raises(SpaceNotFoundError, match="mmsearch index FOLDER"):
        engine.evaluate()


# --- the command line ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The demo pictures and their sentences, indexed by `lite` and by the plugin `colour`; the collection's folder."""
    folder = tmp_path_factory.mktemp("demo") / "collection"
    pictures = Path(__file__).parents[1] / "data" / "demo"
    table = ["--captions", str(pictures / "captions.csv")]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parent / "plugin")
        importlib.invalidate_caches()
        for model in ("colour", "lite"):
            arguments = ["index", str(pictures / "images"), *table, "--model", model, "-c", str(folder)]
            assert main(arguments) == 0
        yield folder
    sys.modules.pop("colour_encoder", None)


@pytest.fixture
def run(demo: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Arguments -> exit code, stdout, stderr; the demo is the usual collection."""
    monkeypatch.setenv("MMSEARCH_COLLECTION", str(demo))

    def go(*arguments: str | Path) -> tuple[int, str, str]:
        code = main(list(map(str, arguments)))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return go


def test_the_demo_is_measured_by_its_captions(run: Any) -> None:
    code, out, err = run("eval")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line.split("\t")[0] for line in lines[:2]] == ["t2i", "i2t"]
    assert lines[-3:] == [
        "index recall@10 1.000 (exact, 104 queries)",
        "the captions of the collection (104 captioned pictures)",
        "104 pictures, 104 captions, lite",
    ]
    code, out, _ = run("eval", "--json")
    data = json.loads(out)
    assert list(data)[:6] == ["images", "captions", "t2i", "i2t", "space", "left_out"]
    assert data["index"] == {"k": 10, "recall": 1, "queries": 104, "exact": True}
    first = data["measures"][0]
    assert (first["direction"], first["measure"]) == ("t2i", "R@1")
    assert 30 < first["low"] < first["value"] < first["high"] < 80
    assert first["value"] == pytest.approx(data["t2i"]["R@1"], abs=0.01)
    assert (data["rival"], data["differences"], data["labels"]) == (None, [], [])


def test_two_models_on_the_demo_and_a_report(run: Any, tmp_path: Path) -> None:
    report = tmp_path / "both.md"
    code, out, err = run("eval", "--model", "colour", "--model", "lite", "--report", report)
    assert (code, err) == (0, "")
    assert "lite finds more: text to image, R@1 +" in out
    assert "p < 0.001" in out
    text = report.read_text()
    for expected in ("# What `colour` and `lite` find", "| t2i | R@1 |", "## Side by side", "Python 3.", "numpy "):
        assert expected in text
    pytest.importorskip("matplotlib", reason="without matplotlib (extra plots) reports have no plots")
    for name in ("recall", "ranks", "differences"):
        assert f"(both-{name}.png)" in text
        with Image.open(tmp_path / f"both-{name}.png") as plot:
            assert plot.width > 400


def test_a_report_without_matplotlib_says_what_to_install(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, err = run("eval", "--model", "colour", "--report", tmp_path / "plain.md")
    assert code == 0
    assert err.count("\n") == 1
    assert "pip install 'mmsearch[plots]'" in err
    assert "![" not in (tmp_path / "plain.md").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["plain.md"]


def test_labelled_folders_on_the_command_line(run: Any, tmp_path: Path) -> None:
    for number in range(5):
        paint(tmp_path / "set" / "red" / f"{number}.png", "red", number)
        paint(tmp_path / "set" / "bl|ue`s" / f"{number}.png", "blue", number)
    code, out, _ = run("eval", tmp_path / "set", "--model", "colour", "--report", tmp_path / "r.md")
    assert code == 0
    assert "t2i\tP@10\t50.0\t-\t-\n" in out
    assert "found worst: " in out
    assert "10 pictures, 2 labels, colour" in out
    assert "| bl\\|ue\\`s | 5 |" in (tmp_path / "r.md").read_text()


def test_comparing_on_the_command_line(run: Any) -> None:
    code, out, err = run("compare", "colour", "lite")
    assert code == 0
    assert "mmsearch save NAME" in err
    assert "lite finds more" in out
    assert run("save", "cars", "a red car")[0] == 0
    code, out, err = run("compare", "colour", "lite", "-k", "5")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[:2] == ["colour: all 104 pictures", "lite: all 104 pictures; queries use it"]
    assert lines[2].startswith("cars\t")
    assert lines[2].split("\t")[1].endswith(" of 5")
    data = json.loads(run("compare", "colour", "lite", "--json")[1])
    assert list(data) == ["old", "new", "k", "queries", "evaluation", "no_evaluation"]
    (query,) = data["queries"]
    assert query["stay"] + len(query["come"]) == query["of"] == 10
    assert data["evaluation"]["rival"]["space"] == "lite"
    assert run("saved", "remove", "cars")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("eval", "--split", "names.txt"), "--split is for a DIR"),
        (("eval", ".", "-c", "other"), "DIR needs no collection"),
        (("eval", ".", "--from", "folders"), "DIR needs no collection"),
        (("eval", "--from", "tags"), "'captions', 'folders'"),
        (("eval", "--model", "lite", "--model", "lite"), "two different names"),
        (("eval", "--report", "names.txt"), "must end in .md"),
        (("eval", "--report", "nowhere/r.md"), "nowhere is no folder"),
        (("eval", "--from", "folders"), "name that says what they show: 0"),
        (("compare", "lite"), "NEW"),
        (("compare", "lite", "lite"), "Both models are lite"),
        (("compare", "lite", "colour", "-k", "0"), "-k"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_usage_is_one_line(
    arguments: tuple[str, ...], says: str, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "names.txt").write_text("a.png\n")
    code, out, err = run(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert says in err


def test_a_model_that_the_collection_lacks(run: Any) -> None:
    code, out, err = run("compare", "lite", "other")
    assert (code, out, err.count("\n")) == (4, "", 1)
    assert "no vectors of the model other" in err
