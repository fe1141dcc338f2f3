"""Every flag of `query`, `save`, `saved` and `why`, through the command line, with the built-in encoder, on the demo's
pictures and three photographs that say when, where and with what they were taken."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mmsearch.cli.main import main
from mmsearch.settings import shipped_folder

CAR, COFFEE, PENGUIN, BICYCLE = "clip_003.jpg", "clip_045.jpg", "clip_060.jpg", "clip_012.jpg"
PARIS, MUNICH = (48.8584, 2.2945), (48.1374, 11.5755)


@dataclass
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def names(self) -> list[str]:
        """File names of the hits, best first."""
        return [Path(hit["path"]).name for hit in self.json["hits"]]


Run = Callable[..., Ran]


def with_exif(source: Path, target: Path, taken: str, camera: tuple[str, str], place: tuple[float, float]) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = camera
    exif.get_ifd(0x8769)[0x9003] = taken
    gps = exif.get_ifd(0x8825)
    for reference, number, value, letters in ((1, 2, place[0], "NS"), (3, 4, place[1], "EW")):
        degrees = abs(value)
        minutes = (degrees - int(degrees)) * 60
        gps[reference] = letters[value < 0]
        gps[number] = (int(degrees), int(minutes), round((minutes - int(minutes)) * 60, 3))
    Image.open(source).save(target, exif=exif, quality=92)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with pictures/ and an indexed collection c/; the whole module searches it."""
    world = tmp_path_factory.mktemp("world")
    demo = shipped_folder("demo")
    shutil.copytree(demo / "images", world / "pictures" / "demo")
    trips = world / "pictures" / "trips"
    trips.mkdir()
    shown = [
        ("coffee", "photo_coffee.jpg", "2023:05:06 10:00:00", ("Canon", "Canon EOS R6"), PARIS),
        ("rocket", "photo_rocket.jpg", "2024:05:31 23:59:59", ("NIKON", "NIKON Z 6"), MUNICH),
        ("chelsea", "photo_chelsea.jpg", "2024:06:01 00:00:00", ("Canon", "Canon PowerShot"), MUNICH),
    ]
    for name, source, taken, camera, place in shown:
        with_exif(demo / "images" / source, trips / f"{name}.jpg", taken, camera, place)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMSEARCH_COLLECTION", str(world / "c"))
        captions = world / "captions.csv"
        captions.write_text((demo / "captions.csv").read_text())
        assert main(["index", str(world / "pictures"), "--captions", str(captions)]) == 0
    yield world


@pytest.fixture
def run(world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("MMSEARCH_COLLECTION", str(world / "c"))
    monkeypatch.chdir(world)

    def run(*arguments: str | Path) -> Ran:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Ran(code, out, err)

    return run


def ask(run: Run, *arguments: str | Path) -> Ran:
    ran = run("query", *arguments, "--json")
    assert ran.code == 0, ran.err
    return ran


def refused(run: Run, *arguments: str | Path) -> str:
    """One line on stderr, nothing on stdout, exit code 2."""
    ran = run(*arguments)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1), ran
    assert ran.err.startswith("mmsearch: ")
    return ran.err


# --- terms --------------------------------------------------------------------------------------------------------


def test_texts_weights_and_unwanted_ones(run: Run) -> None:
    assert ask(run, "a red sports car").names[0] in (CAR, "clip_001.jpg")
    assert ask(run, "penguin", "0.01:guitar").names[0] == PENGUIN
    assert "clip_080.jpg" in ask(run, "0.01:penguin", "guitar").names[:2]
    cars = ask(run, "a car", "-k", "5").names
    without = ask(run, "a car", "--not", "red", "-k", "5").names
    assert CAR in cars
    assert CAR not in without[:1]
    assert ask(run, "=penguin").names == ask(run, "penguin").names


def test_pictures_in_every_form(run: Run, world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    car = world / "pictures" / "demo" / CAR
    by_file = ask(run, "--like", car)
    assert by_file.names[0] == CAR
    image = by_file.json["hits"][0]["id"]
    assert ask(run, "--like", f"#{image}").names == by_file.names
    assert ask(run, "--like", f"0.5:{car}").names == by_file.names
    assert ask(run, "--like", f"={car}").names == by_file.names

    class Stdin:
        buffer = io.BytesIO(car.read_bytes())

    monkeypatch.setattr(sys, "stdin", Stdin)
    assert ask(run, "--like", "-").names == by_file.names
    both = Image.new("RGB", (600, 300))
    both.paste(Image.open(car).convert("RGB").resize((300, 300)), (0, 0))
    both.paste(Image.open(world / "pictures" / "demo" / PENGUIN).convert("RGB").resize((300, 300)), (300, 0))
    both.save(world / "both.png")
    assert CAR in ask(run, "--like", "both.png@0,0,300,300", "-k", "2").names
    assert PENGUIN in ask(run, "--like", "both.png@300,0,300,300", "-k", "2").names
    assert ask(run, "--unlike", car, "-k", "200").names[-1] == CAR


def test_feedback(run: Run) -> None:
    hits = {Path(hit["path"]).name: hit["id"] for hit in ask(run, "a car", "-k", "300").json["hits"]}
    before = ask(run, "a car", "-k", "300").names
    after = ask(run, "a car", "--more", str(hits[PENGUIN]), "-k", "300").names
    assert after.index(PENGUIN) < before.index(PENGUIN)
    after = ask(run, "a car", "--less", f"#{hits[before[0]]}", "-k", "300").names
    assert after.index(before[0]) >= before.index(before[0])
    assert ask(run, "--more", str(hits[PENGUIN])).names[0] == PENGUIN


def test_explain(run: Run, world: Path) -> None:
    ran = run("query", "a beach", "2:boat", "--not", "people", "--like", f"pictures/demo/{CAR}", "--explain", "-k", "2")
    assert ran.code == 0
    line = ran.out.splitlines()[0].split("\t")
    assert [part.rsplit(" ", 1)[0] for part in line[3].split("; ")] == ["a beach", "2:boat", "not people", CAR]
    assert sum(float(part.rsplit(" ", 1)[1]) for part in line[3].split("; ")) == pytest.approx(
        float(line[1]), abs=0.003
    )


def test_an_url_must_not_lead_into_the_local_network(run: Run) -> None:
    assert "127.0.0.1" in refused(run, "query", "--like", "http://127.0.0.1:9/x.jpg")
    line = refused(run, "query", "--like", "http://127.0.0.1:9/x.jpg", "--allow-private")  # nobody listens there
    assert "127.0.0.1" in line


def test_saved_queries(run: Run) -> None:
    assert run("saved", "list").out == "No saved queries yet; `mmsearch save NAME ...` keeps one.\n"
    assert run("save", "birds", "penguin", "--format", "jpg", "-k", "3").code == 0
    plain = ask(run, "penguin", "--format", "jpg", "-k", "3")
    assert ask(run, "@birds").json == plain.json
    assert len(ask(run, "@birds", "-k", "5").names) == 5
    assert ask(run, "@birds", "-k", "10").names == ask(run, "penguin", "--format", "jpg").names  # also what is as usual
    assert run("save", "sorted", "penguin", "--sort", "name", "--find", "captions", "--hybrid").code == 0
    usual = ask(run, "@sorted", "--sort", "relevance", "--find", "images")
    assert usual.names == ask(run, "penguin", "--hybrid").names
    assert run("saved", "remove", "sorted").code == 0
    other = ask(run, "@birds", "--not", "ice", "--format", "png")
    assert all(name.endswith(".png") for name in other.names)
    worst = plain.json["hits"][2]["id"]
    assert run("save", "birds", "@birds", "--less", str(worst)).code == 0
    assert ask(run, "@birds").json != plain.json
    listed = run("saved", "list", "--json").json["queries"]
    assert [(one["name"], one["query"]["less"]) for one in listed] == [("birds", [worst])]
    assert run("saved", "list").out == f"birds\tpenguin, less #{worst}; format jpg; k 3\n"
    assert "no saved query 'cats'" in refused(run, "query", "@cats")
    assert "birds" in refused(run, "query", "@cats")
    assert run("saved", "remove", "birds").code == 0
    assert "no saved query" in refused(run, "saved", "remove", "birds")


# --- filters --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (["--in", "pictures/trips"], {"coffee", "rocket", "chelsea"}),
        (["--after", "2024-05-31"], {"rocket", "chelsea"}),
        (["--after", "2023", "--before", "2024"], {"coffee"}),
        (["--before", "2024-06"], {"coffee", "rocket"}),
        (["--camera", "canon"], {"coffee", "chelsea"}),
        (["--camera", "powershot", "--camera", "z 6"], {"chelsea", "rocket"}),
        (["--near", "48.85,2.35,20"], {"coffee"}),
        (["--near", "48.1,11.6,30"], {"rocket", "chelsea"}),
        (["--has", "gps"], {"coffee", "rocket", "chelsea"}),
        (["--has", "gps", "--has", "caption"], set()),
        (["--where", "camera like 'Canon%' and date >= '2024'"], {"chelsea"}),
        (["--where", "year = 2024 and not month = 6"], {"rocket"}),
        (["--where", "name = 'COFFEE.jpg' or folder like 'trip_' and hour = 23"], {"coffee", "rocket"}),
    ],
)
def test_filters(run: Run, flags: list[str], names: set[str]) -> None:
    ran = run("query", "a photograph", "-k", "300", "--json", *flags)
    assert {Path(hit["path"]).stem for hit in ran.json["hits"]} == names
    assert ran.code == (0 if names else 1)
    alone = run("query", "-k", "300", "--json", *flags)  # a filter needs no text beside it
    assert {Path(hit["path"]).stem for hit in alone.json["hits"]} == names


def test_sizes_formats_and_orientation(run: Run, world: Path) -> None:
    sizes = {}
    for path in (world / "pictures").rglob("*.*"):
        with Image.open(path) as picture:
            sizes[path.name] = (*picture.size, picture.format)
    for flags, wanted in (
        (["--min-width", "500"], {name for name, (width, _, _) in sizes.items() if width >= 500}),
        (["--min-height", "480"], {name for name, (_, height, _) in sizes.items() if height >= 480}),
        (["--format", "WebP"], {name for name, (_, _, kind) in sizes.items() if kind == "WEBP"}),
        (["--format", "png", "--format", "webp"], {name for name, (_, _, kind) in sizes.items() if kind != "JPEG"}),
        (["--orientation", "portrait"], {name for name, (width, height, _) in sizes.items() if width < height}),
        (["--orientation", "square"], {name for name, (width, height, _) in sizes.items() if width == height}),
    ):
        got = ask(run, "-k", "300", *flags).names
        assert set(got) == wanted, flags
        assert len(wanted) > 2


def test_pages_are_stable(run: Run) -> None:
    whole = ask(run, "a toy", "-k", "300").names
    assert len(whole) == 107
    assert [name for offset in range(0, 120, 25) for name in _page(run, offset)] == whole
    ran = run("query", "a toy", "--offset", "107")
    assert (ran.code, ran.err) == (1, "mmsearch: nothing found: there are no more than 107 answers.\n")


def _page(run: Run, offset: int) -> list[str]:
    ran = run("query", "a toy", "-k", "25", "--offset", str(offset), "--json")
    return ran.names


def test_sorting(run: Run) -> None:
    assert ask(run, "--in", "pictures/trips", "--sort", "date").names == ["chelsea.jpg", "rocket.jpg", "coffee.jpg"]
    assert ask(run, "--in", "pictures/trips", "--sort", "name").names == ["chelsea.jpg", "coffee.jpg", "rocket.jpg"]
    ran = ask(run, "a car", "--sort", "name", "-k", "300")
    relevant = ran.json["relevant"]
    assert relevant >= 2
    assert ran.names[:relevant] == sorted(ran.names[:relevant])
    by_score = [hit["score"] for hit in ran.json["hits"][relevant:]]
    assert by_score == sorted(by_score, reverse=True)


# --- relevance ------------------------------------------------------------------------------------------------------


def test_probabilities_and_cut_off(run: Run) -> None:
    ran = ask(run, "a guitar", "-k", "20").json
    probabilities = [hit["probability"] for hit in ran["hits"]]
    assert ran["calibration"] == "encoder"
    assert probabilities == sorted(probabilities, reverse=True)
    assert len(probabilities) == 20  # JSON is never cut by relevance
    assert ran["relevant"] == sum(one >= 0.5 for one in probabilities)
    assert 1 <= ran["relevant"] < 20
    cut = ask(run, "a guitar", "-k", "20", "--min-probability", "0.5").json
    assert [hit["id"] for hit in cut["hits"]] == [hit["id"] for hit in ran["hits"][: ran["relevant"]]]


def test_a_query_that_matches_nothing_says_so(run: Run) -> None:
    ran = run("query", "a submarine under an ice sheet")
    assert (ran.code, len(ran.out.splitlines())) == (0, 10)
    assert ran.err == "mmsearch: nothing here seems to match; these are the nearest.\n"
    assert run("query", "a submarine under an ice sheet", "--strict").code == 1
    assert run("query", "a guitar", "--strict").code == 0
    assert run("query", "a submarine under an ice sheet", "--min-probability", "0.5").code == 1


# --- words ----------------------------------------------------------------------------------------------------------


def test_keywords_hybrid_joint(run: Run) -> None:
    assert CAR in ask(run, "red sports car", "--keywords").names
    assert ask(run, "trips coffee", "--keywords").names == ["coffee.jpg"]
    ran = run("query", "zzz", "--keywords")
    assert (ran.code, ran.err) == (1, "mmsearch: nothing found: no pictures have all these words.\n")
    hybrid = ask(run, "red sports car", "--hybrid")
    assert CAR in hybrid.names[:2]
    assert [share["term"] for share in hybrid.json["hits"][0]["shares"]] == ["vectors", "keywords"]
    joint = ask(run, "red sports car", "--joint", "-k", "300")
    assert CAR in joint.names[:2]
    assert len(joint.names) == 107


# --- duplicates, diversity ------------------------------------------------------------------------------------------


def test_unique_expand_diverse(run: Run, world: Path) -> None:
    plain = ask(run, "coffee", "-k", "300")
    assert {"coffee.jpg", "photo_coffee.jpg"} <= set(plain.names)
    folded = ask(run, "coffee", "-k", "300", "--unique")
    assert len(folded.names) < len(plain.names)
    group = next(hit for hit in folded.json["hits"] if hit["folded"])
    assert {Path(one["path"]).name for one in (group, *group["folded"])} >= {"coffee.jpg", "photo_coffee.jpg"}
    lines = run("query", "coffee", "-k", "300", "--unique", "--expand").out.splitlines()
    assert len(lines) == len(plain.names)
    assert ask(run, "a car", "--diverse").names[0] == ask(run, "a car").names[0]


# --- why ------------------------------------------------------------------------------------------------------------


def test_why(run: Run, world: Path) -> None:
    ran = run("why", f"pictures/demo/{CAR}", "a red sports car", "--not", "people")
    assert ran.code == 0
    assert f"{CAR} is answer " in ran.out
    assert "not people" in ran.out
    found = run("why", f"pictures/demo/{CAR}", "a red sports car", "--json").json
    assert (found["state"], found["answers"], found["hit"]["rank"]) == ("found", 107, found["hit"]["rank"])
    assert ask(run, "a red sports car").names[found["hit"]["rank"] - 1] == CAR
    ran = run("why", f"#{found['id']}", "a car", "--after", "2024", "--format", "jpg")
    assert (ran.code, ran.out) == (1, f"Image #{found['id']} is left out by after.\n")
    ran = run("why", "pictures/demo/none.jpg", "a car")
    assert (ran.code, "no such file" in ran.out) == (1, True)
    assert run("why", f"pictures/demo/{CAR}", "penguin", "--keywords", "--json").json["state"] == "no match"
    assert (
        run("why", f"pictures/demo/{CAR}", "penguin", "--min-probability", "0.9", "--json").json["state"] == "unlikely"
    )
    assert "no image #99999" in refused(run, "why", "#99999", "a car")


# --- what cannot be asked -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "at least one text or picture"),
        ([""], "empty"),
        (["1,5:car"], "'1,5' is no weight"),
        (["car", "--not", "x:y", "--not", "0:red"], "'0' is no weight"),
        (["--like", "none.jpg"], "none.jpg: it is not there"),
        (["--like", "captions.csv"], "captions.csv: not a picture"),
        (["--like", "#99999"], "no image #99999"),
        (["--like", "#abc"], "'#abc' is no image"),
        (["car", "--more", "x"], "'x' is no image"),
        (["car", "--in", "nowhere"], "nowhere"),
        (["car", "--after", "yesterday"], "yesterday"),
        (["car", "--near", "48,11"], "48,11"),
        (["car", "--near", "98,11,5"], "98"),
        (["car", "--tag", "nothing"], "nothing"),
        (["car", "--has", "colour"], "colour"),
        (["car", "--format", "tiger"], "tiger"),
        (["car", "--where", "widht > 3"], "width"),
        (["car", "--where", "width >= tall"], "column 10"),
        (["car", "--where", "(width > 3"], "column"),
        (["car", "--keywords", "--hybrid"], "do not go together"),
        (["car", "--keywords", "--like", "#1"], "Keywords are texts"),
        (["car", "--keywords", "--min-probability", "0.5"], "probability"),
        (["car", "--min-probability", "2"], "from 0 to 1"),
        (["car", "--diverse", "--sort", "date"], "not both"),
        (["car", "--json", "--paths"], "do not go together"),
        (["car", "-k", "0"], "-k"),
        (["car", "--sort", "size"], "size"),
    ],
)
def test_mistakes_are_named_in_one_line(run: Run, arguments: list[str], said: str) -> None:
    assert said in refused(run, "query", *arguments)
