"""What a training run found, as people and programs read it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs the extra: pip install 'mmsearch[train]'")

from mmsearch.judging import Difference, Measure  # noqa: E402
from mmsearch.render import table as tables  # noqa: E402
from mmsearch.render.training import as_json, lines, recipe_lines, recipes_json, table, use  # noqa: E402
from mmsearch.training.loop import Trained  # noqa: E402
from mmsearch.training.measuring import Compared  # noqa: E402
from mmsearch.training.promotion import Verdict, verdict  # noqa: E402
from mmsearch.training.recipe import KEYS, Recipe, own_keys  # noqa: E402
from mmsearch.training.recipes import RECIPES  # noqa: E402
from mmsearch.training.run import Report  # noqa: E402


def measures(*values: float) -> tuple[Measure, ...]:
    names = ("R@1", "R@10", "MRR")
    return tuple(Measure("t2i", name, value, 0.0, 99.0) for name, value in zip(names, values, strict=True))


def compared(before: float, after: float, low: float | None, about: str = "my pictures") -> Compared:
    high = None if low is None else 2 * (after - before) - low
    gained = (
        Difference("t2i", "R@1", 2.0, None, None, None),
        Difference("t2i", "R@10", after - before, low, high, 0.01),
        Difference("t2i", "MRR", 1.0, -1.0, 3.0, 0.3),
    )
    return Compared(about, measures(1.0, before, 2.0), measures(3.0, after, 3.0), gained)


REPORT = Report(
    RECIPES["finetune"], Path("out/m"), Trained(100, 100, {}, 1234.5, 3.21, False), 295_680, 61.4,
    compared(39.1, 72.04, 27.123456), compared(81.0, 80.0, -3.0, "the demo"), 0.5, ("a notice",),
)  # fmt: skip


def test_lines_end_with_before_and_after() -> None:
    assert list(lines(REPORT)) == [
        "finetune: 295,680 parameters, 100 steps, 1,234 pairs/s, 61 s in all",
        "strength 0.5 of 1, chosen on held-out pictures",
        "written to out/m; use it with: mmsearch index --model out/m",
        "before t2i R@1/R@10 1.0/39.1",
        "after  t2i R@1/R@10 3.0/72.0",
    ]


def test_a_tower_alone_and_a_run_that_stopped_early() -> None:
    alone = replace(
        REPORT,
        held_out=None,
        general=None,
        strength=None,
        trained=replace(REPORT.trained, steps=60, stopped_early=True),
    )
    assert list(lines(alone)) == [
        "finetune: 295,680 parameters, 100 steps, stopped early at 60, 1,234 pairs/s, 61 s in all",
        "a tower for other recipes; its weights are in out/m/run",
    ]
    resumed = replace(REPORT, trained=replace(REPORT.trained, pairs_a_second=0.0))  # only the encoder had to be written
    assert next(lines(resumed)) == "finetune: 295,680 parameters, 100 steps, trained before, 61 s in all"


@pytest.mark.parametrize(
    ("out", "shown"),
    [
        ("m", "./m"),  # else it would be the name of a model
        ("a b/m", "'a b/m'"),
        ("/x/it's", """'/x/it'"'"'s'"""),
        ("m\udce9", r"'./m\xe9'"),
        ("a\nb", r"'./a\nb'"),
    ],
)
def test_the_command_can_be_copied(out: str, shown: str) -> None:
    assert use(replace(REPORT, out=Path(out))) == f"mmsearch index --model {shown}"


def test_the_table_has_what_was_gained() -> None:
    assert tables.as_text(table(compared(39.1, 72.04, 27.123456))).splitlines()[1] == (
        "t2i\tR@10\t39.1\t72.0\t+32.9\t+27.1\t+38.8\t0.0100"
    )


def test_json_by_value() -> None:
    made = as_json(REPORT, None)
    assert made["held_out"]["measures"][1] == {
        "direction": "t2i", "measure": "R@10", "before": 39.1, "after": 72.04, "gained": 32.94,
        "low": 27.123, "high": 38.757, "p": 0.01,
    }  # fmt: skip
    assert made["held_out"]["measures"][0]["low"] is None
    assert (made["seconds"], made["promoted"], made["notices"]) == (61.4, None, ["a notice"])
    told = as_json(REPORT, Verdict(False, "because"))
    assert (told["promoted"], told["why"]) == (False, "because")


@pytest.mark.parametrize(
    ("low", "general", "allowed", "better", "why"),
    [
        (0.1, 80.0, 2.0, True, "+32.9 points (95 % interval +0.1 to "),
        (0.0, 80.0, 2.0, False, "95 % interval from +0.0"),
        (-1.0, 90.0, 2.0, False, "95 % interval from -1.0"),
        (None, 90.0, 2.0, False, "too few different captions to be sure; it takes 10, or pictures sorted into"),
        (5.0, 79.0, 2.0, True, "t2i R@10 of the demo -2.0"),  # as much as may be lost
        (5.0, 78.9, 2.0, False, "the demo -2.1 points, more than the 2 that may be lost"),
        (5.0, 80.9, 0.0, False, "the demo -0.1 points, more than the 0 that may be lost"),
    ],
)
def test_promotion(low: float | None, general: float, allowed: float, better: bool, why: str) -> None:
    report = replace(REPORT, held_out=compared(39.1, 72.0, low), general=compared(81.0, general, -9.0, "the demo"))
    found = verdict(report, allowed)
    assert found.better is better
    assert why in found.why
    assert "\n" not in found.why


@pytest.mark.parametrize(
    ("asked", "sure", "pictures", "better", "why"),
    [
        (4.0, None, 1.0, True, "i2i mAP of held-out pictures +3.0 points (labels are too few to decide by t2i mAP, "
                               "+4.0) (95 % interval +1.0 to +5.0), t2i R@10 of the demo -1.0"),
        (0.0, None, 1.0, True, "i2i mAP"),  # texts find as much as before
        (-0.5, None, 1.0, False, "t2i mAP, -0.5): texts find less than before"),
        (4.0, None, -0.1, False, "i2i mAP of held-out pictures +3.0 points (labels are too few to decide by t2i mAP, "
                                 "+4.0), 95 % interval from -0.1"),
        (4.0, None, None, False, "t2i mAP of held-out pictures +4.0 points, too few pictures or labels to be sure"),
        (4.0, 0.5, -0.1, True, "t2i mAP of held-out pictures +4.0 points (95 % interval +0.5 to"),  # enough labels
        (4.0, -0.5, 1.0, False, "t2i mAP of held-out pictures +4.0 points, 95 % interval from -0.5"),
    ],
)  # fmt: skip
def test_pictures_decide_where_labels_are_too_few(
    asked: float, sure: float | None, pictures: float | None, better: bool, why: str
) -> None:
    gained = (
        Difference("t2i", "mAP", asked, sure, None if sure is None else 9.0, None),
        Difference("t2i", "P@10", 9.0, None, None, None),
        Difference("i2i", "mAP", 3.0, pictures, None if pictures is None else 5.0, None),
        Difference("i2i", "P@10", 9.0, 8.0, 10.0, 0.01),
    )
    found = verdict(replace(REPORT, held_out=Compared("labels", (), (), gained)), 2.0)
    assert found.better is better
    assert why in found.why


def test_what_fine_tunes_nothing_is_not_promoted() -> None:
    assert not verdict(replace(REPORT, general=None), 2.0).better


def test_recipes_are_explained_by_their_parts() -> None:
    made = {
        "mine": Recipe(name="mine", good_for="this " * 40, image="vit", text="words", text_tune="lora:2"),
        "one": Recipe(name="one", good_for="that", image="vit", objective="mae"),
        "small": Recipe(name="small", good_for="those", model="lite"),
        "tuned": Recipe(name="tuned", good_for="these", model="ViT/x", tune="last:2"),
    }
    listed = list(recipe_lines(made, None))
    told = [line for line in listed[: listed.index("")] if not line.startswith(" ")]
    assert told == [
        "mine: image vit (full), text words (lora:2), objective clip",
        "one: image vit (full), objective mae",
        "small: small maps on the vectors of lite, objective clip",
        "tuned: the towers of ViT/x (last:2), objective clip",
    ]
    assert max(map(len, listed)) <= 78
    made_json = recipes_json(made, None)["recipes"]
    assert [one["trains"] for one in made_json] == [line.split(": ", 1)[1] for line in told]
    assert [one["settings"] for one in made_json] == [None] * 4
    assert listed[-1] == "With pip install 'mmsearch[train]', what each recipe takes is listed, too."


def test_recipes_are_listed_with_what_can_be_set_in_them() -> None:
    made = {
        "vse": replace(RECIPES["vse"], good_for="this", options={"negatives": "sum"}),
        "mae": replace(RECIPES["mae"], good_for="that", learner_options={"mask_ratio": 0.5}),
    }
    own = {name: own_keys(recipe) for name, recipe in made.items()}
    listed = list(recipe_lines(made, own))
    assert listed[: listed.index("")] == [
        "vse: image lite (locked), text lite (locked), objective vse",
        "    this",
        "    --set margin=0.2 negatives=sum image.side=260 text.max_tokens=64",
        "mae: image vit (full), objective mae",
        "    that",
        "    --set mask_ratio=0.5 decoder_width=96 decoder_depth=2 decoder_heads=3",
        "      image.side=64 image.patch=8 image.width=128 image.depth=4 image.heads=4",
        "      image.dropout=0",
    ]
    assert recipes_json(made, own)["recipes"][0]["settings"] == own["vse"]
    assert own["vse"] == {"margin": 0.2, "negatives": "sum", "image.side": 260, "text.max_tokens": 64}


def test_what_can_be_set_in_all_recipes_is_explained_once() -> None:
    listed = " ".join(" ".join(recipe_lines({}, {})).split())
    assert all(" ".join(f"{question} {told}".split()) in listed for question, told in KEYS.items())
    assert recipes_json({}, {})["keys"] == KEYS
    own = {name: own_keys(recipe) for name, recipe in RECIPES.items()}
    assert max(map(len, recipe_lines(RECIPES, own, 40))) <= 40
