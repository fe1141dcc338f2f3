"""The contrastive objectives, each against slow loops in plain Python, with several positives a row."""

from __future__ import annotations

import inspect
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_type_hints

import pytest

torch = pytest.importorskip("torch", reason="training needs the extra: pip install 'mmsearch[train]'")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from mmsearch.errors import UsageError  # noqa: E402
from mmsearch.nn.features import Features  # noqa: E402
from mmsearch.training.objectives import OBJECTIVES, objective_class  # noqa: E402
from mmsearch.training.objectives.align import Align  # noqa: E402
from mmsearch.training.objectives.clip import Clip  # noqa: E402
from mmsearch.training.objectives.devise import DeViSE  # noqa: E402
from mmsearch.training.objectives.distillation import Distillation  # noqa: E402
from mmsearch.training.objectives.infonce import InfoNCE  # noqa: E402
from mmsearch.training.objectives.momentum import MomentumContrast  # noqa: E402
from mmsearch.training.objectives.ntxent import NTXent  # noqa: E402
from mmsearch.training.objectives.siglip import SigLIP  # noqa: E402
from mmsearch.training.objectives.temperature import Temperature  # noqa: E402
from mmsearch.training.objectives.unicl import UniCL  # noqa: E402
from mmsearch.training.objectives.vse import Vse  # noqa: E402
from mmsearch.training.outputs import Outputs  # noqa: E402

# Picture, caption: rows 0 and 3 show one picture, 3 and 5 say one thing, 1 and 6 one label; 2 and 4 stand alone.
GROUPS = [[0, 10], [1, -1], [2, 12], [0, 11], [-1, -1], [5, 11], [1, 13]]
TOGETHER = {(0, 3), (3, 5), (1, 6)}
Matrix = list[list[float]]


def rows(n: int, width: int, seed: int) -> torch.Tensor:
    made = torch.randn(n, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return made / made.norm(dim=1, keepdim=True)


def outputs(n: int = 7, seed: int = 0, groups: list[list[int]] | None = GROUPS) -> Outputs:
    """All parts that contrastive objectives read; the teacher's vectors are longer than ours."""
    names = ("image", "text", "second", "teacher_image", "teacher_text")
    made = {name: Features(pooled=rows(n, 5, 10 * seed + k)) for k, name in enumerate(names)}
    return Outputs(**made, groups=None if groups is None else torch.tensor(groups))


def belong(i: int, j: int) -> bool:
    return i == j or (min(i, j), max(i, j)) in TOGETHER


def scores(ours: torch.Tensor, others: torch.Tensor) -> Matrix:
    return [[sum(a * b for a, b in zip(x, y, strict=True)) for y in others.tolist()] for x in ours.tolist()]


def turned(matrix: Matrix) -> Matrix:
    return [list(column) for column in zip(*matrix, strict=True)]


def softmax(row: list[float]) -> list[float]:
    whole = sum(math.exp(x) for x in row)
    return [math.exp(x) / whole for x in row]


def cross_entropy(logits: Matrix, targets: Matrix) -> float:
    total = 0.0
    for row, target in zip(logits, targets, strict=True):
        for p, wanted in zip(softmax(row), target, strict=True):
            total -= wanted * math.log(p) / len(logits) if wanted else 0.0
    return total


def shared(n: int, m: int, positive: Callable[[int, int], bool]) -> Matrix:
    found = [[float(positive(i, j)) for j in range(m)] for i in range(n)]
    return [[x / sum(row) for x in row] for row in found]


def times(matrix: Matrix, factor: float) -> Matrix:
    return [[x * factor for x in row] for row in matrix]


# --- against slow loops ---------------------------------------------------------------------------------------------


def slow_clip(o: Outputs, factor: float) -> float:
    logits, target = times(scores(o.image.pooled, o.text.pooled), factor), shared(7, 7, belong)
    return (cross_entropy(logits, target) + cross_entropy(turned(logits), target)) / 2


def slow_align(o: Outputs, factor: float, smoothing: float) -> float:
    logits = times(scores(o.image.pooled, o.text.pooled), factor)
    target = [[(1 - smoothing) * x + smoothing / 7 for x in row] for row in shared(7, 7, belong)]
    return (cross_entropy(logits, target) + cross_entropy(turned(logits), target)) / 2


def slow_unicl(o: Outputs, factor: float) -> float:
    s, total = scores(o.image.pooled, o.text.pooled), 0.0
    for i in range(7):
        own = [k for k in range(7) if belong(i, k)]
        towards_texts = sum(math.exp(factor * s[i][j]) for j in range(7))
        towards_images = sum(math.exp(factor * s[j][i]) for j in range(7))
        total -= sum(math.log(math.exp(factor * s[i][k]) / towards_texts) for k in own) / len(own)
        total -= sum(math.log(math.exp(factor * s[k][i]) / towards_images) for k in own) / len(own)
    return total / 7


def slow_siglip(o: Outputs, factor: float, bias: float) -> float:
    s, total = scores(o.image.pooled, o.text.pooled), 0.0
    for i in range(7):
        for j in range(7):
            z = 1 if belong(i, j) else -1
            total += math.log(1 + math.exp(-z * (factor * s[i][j] + bias)))
    return total / 7


def slow_vse(o: Outputs, margin: float, choose: Callable[[list[float]], float]) -> float:
    s, total = scores(o.image.pooled, o.text.pooled), 0.0
    for i in range(7):
        others = [j for j in range(7) if not belong(i, j)]
        total += choose([max(0.0, margin + s[i][j] - s[i][i]) for j in others])
        total += choose([max(0.0, margin + s[j][i] - s[i][i]) for j in others])
    return total / 7


def slow_devise(o: Outputs, margin: float) -> float:
    s, total = scores(o.image.pooled, o.text.pooled), 0.0
    for i in range(7):
        total += sum(max(0.0, margin + s[i][j] - s[i][i]) for j in range(7) if not belong(i, j))
    return total / 7


def slow_ntxent(o: Outputs, temperature: float) -> float:
    views = torch.cat([o.image.pooled, o.second.pooled])
    s, total = scores(views, views), 0.0
    for a in range(14):
        own = [b for b in range(14) if b != a and belong(a % 7, b % 7)]
        whole = sum(math.exp(s[a][b] / temperature) for b in range(14) if b != a)
        total -= sum(math.log(math.exp(s[a][p] / temperature) / whole) for p in own) / len(own)
    return total / 14


def slow_distillation(o: Outputs, factor: float, teacher: float, clip_weight: float, feature_weight: float) -> float:
    student = times(scores(o.image.pooled, o.text.pooled), factor)
    known = times(scores(o.teacher_image.pooled, o.teacher_text.pooled), 1 / teacher)
    total = clip_weight * slow_clip(o, factor)
    for one, two in ((known, student), (turned(known), turned(student))):
        for wanted, got in zip(one, two, strict=True):
            total += sum(p * math.log(p / q) for p, q in zip(softmax(wanted), softmax(got), strict=True)) / 7 / 2
    for ours, theirs in ((o.image, o.teacher_image), (o.text, o.teacher_text)):
        total += feature_weight * sum(1 - scores(ours.pooled, theirs.pooled)[i][i] for i in range(7)) / 7
    return total


CASES = {
    "clip": (Clip(0.2), lambda o: slow_clip(o, 5)),
    "align": (Align(0.2, smoothing=0.3), lambda o: slow_align(o, 5, 0.3)),
    "unicl": (UniCL(0.2), lambda o: slow_unicl(o, 5)),
    "siglip": (SigLIP(0.25, bias=-1.5), lambda o: slow_siglip(o, 4, -1.5)),
    "vse sum": (Vse(0.4, "sum"), lambda o: slow_vse(o, 0.4, sum)),
    "vse hardest": (Vse(0.4, "hardest"), lambda o: slow_vse(o, 0.4, max)),
    "devise": (DeViSE(0.3), lambda o: slow_devise(o, 0.3)),
    "ntxent": (NTXent(0.5), lambda o: slow_ntxent(o, 0.5)),
    "distillation": (Distillation(0.2, 0.3, 0.7, 0.4), lambda o: slow_distillation(o, 5, 0.3, 0.7, 0.4)),
}
PARTS = {
    "ntxent": ("image", "second"),
    "distillation": ("image", "text", "teacher_image", "teacher_text"),
    "momentum": ("image", "text", "teacher_image", "teacher_text"),
}


def case(name: str) -> torch.nn.Module:
    return MomentumContrast(width=5, size=8).double().eval() if name == "momentum" else CASES[name][0].double()


@pytest.mark.parametrize("name", CASES)
def test_the_loss_is_that_of_a_slow_loop(name: str) -> None:
    objective, slow = CASES[name]
    for seed in range(3):
        made = outputs(seed=seed)
        assert objective.double()(made).item() == pytest.approx(slow(made), abs=1e-6)


@pytest.mark.parametrize("name", [*CASES, "momentum"])
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    objective, made = case(name), outputs()
    read = PARTS.get(name, ("image", "text"))
    inputs = [getattr(made, part).pooled.requires_grad_() for part in read if not part.startswith("teacher")]
    learnt = [] if name == "momentum" else objective.parameters()  # its soft target moves with the temperature
    assert torch.autograd.gradcheck(lambda *_: objective(made), (*inputs, *learnt))


@pytest.mark.parametrize("name", [*CASES, "momentum"])
@given(order=st.permutations(range(7)))
@settings(max_examples=5, deadline=None)
def test_the_order_of_the_rows_does_not_matter(name: str, order: list[int]) -> None:
    objective, made = case(name), outputs()
    assert objective(made.map(lambda t: t[order])).item() == pytest.approx(objective(made).item(), abs=1e-9)


@pytest.mark.parametrize("name", [*CASES, "momentum"])
def test_without_groups_each_row_belongs_to_itself(name: str) -> None:
    objective, alone = case(name), outputs(groups=None)
    for groups in ([[i] for i in range(7)], [[-1]] * 7):
        assert objective(alone).item() == objective(replace(alone, groups=torch.tensor(groups))).item()
    assert objective(alone).item() != objective(outputs()).item()


@pytest.mark.parametrize("name", [*CASES, "momentum"])
def test_a_missing_part_fails_by_its_name(name: str) -> None:
    objective = case(name)
    for part in PARTS.get(name, ("image", "text")):
        for gone, told in ((None, part), (Features(), f"{part}.pooled")):
            with pytest.raises(UsageError, match=rf"{type(objective).__name__} needs {told}, which"):
                objective(replace(outputs(), **{part: gone}))


def test_one_caption_for_all_leaves_nothing_to_push_away() -> None:
    made = outputs(groups=[[4]] * 7)
    for negatives in ("sum", "hardest"):
        assert Vse(margin=0.5, negatives=negatives)(made).item() == 0
    assert DeViSE(margin=0.5)(made).item() == 0
    image = made.image.pooled.requires_grad_()
    SigLIP()(made).backward()
    towards = image.grad @ made.text.pooled.sum(0)
    assert (towards < 0).all()  # a step down the gradient brings each picture nearer to the texts


# --- what each one promises besides -------------------------------------------------------------------------------


def test_clip_is_infonce_and_half_of_unicl_and_align_without_smoothing() -> None:
    made = outputs()
    same = torch.tensor([[float(belong(i, j)) for j in range(7)] for i in range(7)])
    wanted = InfoNCE(scale=5.0)(made.image.pooled, made.text.pooled, same).item()
    assert Clip(0.2)(made).item() == pytest.approx(wanted, abs=1e-6)
    assert UniCL(0.2)(made).item() == pytest.approx(2 * wanted, abs=1e-6)
    assert Align(0.2, smoothing=0)(made).item() == pytest.approx(wanted, abs=1e-6)


def test_worked_examples_of_two_pairs() -> None:
    """Cosines [[1, 0], [0, 1]]; own views the same picture."""
    two = Outputs(image=Features(torch.eye(2)), text=Features(torch.eye(2)), second=Features(torch.eye(2)))
    assert Clip(1.0)(two).item() == pytest.approx(math.log(1 + math.exp(-1)), abs=1e-6)
    assert Vse(1.5, "sum")(two).item() == pytest.approx(2 * 0.5, abs=1e-6)
    assert DeViSE(1.5)(two).item() == pytest.approx(0.5, abs=1e-6)
    assert NTXent(1.0)(two).item() == pytest.approx(math.log((math.e + 2) / math.e), abs=1e-6)
    assert SigLIP()(two).item() == pytest.approx(math.log(2) + math.log(1 + math.exp(-10)), abs=1e-6)


def test_the_temperature_is_held_at_a_hundredth_and_can_come_back() -> None:
    temperature = Temperature(0.05)
    assert temperature().item() == pytest.approx(20, rel=1e-6)
    with torch.no_grad():
        temperature.scale.fill_(7.0)  # e^7 = 1097
    factor = temperature()
    assert factor.item() == pytest.approx(100, rel=1e-6)
    factor.backward()
    assert temperature.scale.grad.item() == pytest.approx(100, rel=1e-6)
    with pytest.raises(UsageError, match="temperature of 0 cannot be"):
        Clip(temperature=0)


def test_distillation_asks_for_equal_lengths_only_where_it_compares_vectors() -> None:
    made = replace(outputs(), teacher_image=Features(rows(7, 9, 1)), teacher_text=Features(rows(7, 9, 2)))
    assert torch.isfinite(Distillation()(made))
    with pytest.raises(UsageError, match="5 numbers with the teacher's of 9; set width=9 or feature_weight=0"):
        Distillation(feature_weight=1)(made)


def test_distillation_vanishes_where_the_student_is_its_teacher() -> None:
    made = outputs()
    same = replace(made, teacher_image=made.image, teacher_text=made.text)
    assert Distillation(0.1, 0.1, clip_weight=0, feature_weight=1).double()(same).item() == pytest.approx(0, abs=1e-6)


# --- the queue ------------------------------------------------------------------------------------------------------


def batch_of(which: list[int], seed: int) -> Outputs:
    """Rows about the pictures `which`; each has also a caption of its own."""
    groups = [[picture, 1000 + 10 * seed + place] for place, picture in enumerate(which)]
    return outputs(len(which), seed, groups)


def slow_momentum(o: Outputs, queue: list[tuple[int, list[float], list[float]]], alpha: float, factor: float) -> float:
    """queue: the picture, image key and text key of each pair before, in any order."""
    pictures = [int(row[0]) for row in o.groups]
    known = pictures + [picture for picture, _, _ in queue]
    n, total = len(pictures), 0.0
    hard = shared(n, len(known), lambda i, k: known[k] == pictures[i])
    ways = (
        (o.image.pooled, o.teacher_image.pooled, o.teacher_text.pooled.tolist() + [text for _, _, text in queue]),
        (o.text.pooled, o.teacher_text.pooled, o.teacher_image.pooled.tolist() + [image for _, image, _ in queue]),
    )
    for ours, teacher, keys in ways:
        matrix = torch.tensor(keys, dtype=torch.float64)
        soft = [softmax(row) for row in times(scores(teacher, matrix), factor)]
        target = [
            [alpha * a + (1 - alpha) * b for a, b in zip(one, two, strict=True)]
            for one, two in zip(soft, hard, strict=True)
        ]
        total += cross_entropy(times(scores(ours, matrix), factor), target) / 2
    return total


def test_momentum_contrast_is_a_slow_loop_over_a_first_in_first_out_queue() -> None:
    """Five steps of three pairs through a queue of seven: it fills, wraps round, and meets pictures again."""
    objective, queue = MomentumContrast(width=5, size=7, alpha=0.3, temperature=0.2).double(), []
    for step, which in enumerate([[0, 1, 2], [3, 0, 4], [1, 1, 5], [2, 6, 7], [0, 8, 1]]):
        made = batch_of(which, step)
        assert objective(made).item() == pytest.approx(slow_momentum(made, queue, 0.3, 5), abs=1e-6)
        images, texts = made.teacher_image.pooled.tolist(), made.teacher_text.pooled.tolist()
        queue = [*queue, *zip(which, images, texts, strict=True)][-7:]
    assert objective.count.item() == 7


def test_the_queue_rests_outside_training_keeps_no_graph_and_lies_in_the_checkpoint() -> None:
    objective = MomentumContrast(width=5, size=4).double()
    first = batch_of([0, 1, 2], 0)
    first.teacher_text.pooled.requires_grad_()
    objective(first).backward()
    assert not objective.text_queue.requires_grad
    assert first.teacher_text.pooled.grad is None
    before = objective.eval()(batch_of([0, 4], 1)).item()
    assert objective(batch_of([0, 4], 1)).item() == before
    other = MomentumContrast(width=5, size=4).double().eval()
    assert other(batch_of([0, 4], 1)).item() != before
    other.load_state_dict(objective.state_dict())
    assert other(batch_of([0, 4], 1)).item() == before


def test_of_a_batch_larger_than_the_queue_the_end_is_kept() -> None:
    objective, made = MomentumContrast(width=5, size=2).double(), batch_of([0, 1, 2], 0)
    objective(made)
    assert torch.equal(objective.text_queue, made.teacher_text.pooled[1:])
    assert objective.group_queue[:, 0].tolist() == [1, 2]
    with pytest.raises(UsageError, match=r"room for 4 respects .* not 5"):
        objective(replace(made, groups=torch.zeros(3, 5, dtype=torch.int64)))


# --- the names ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OBJECTIVES)
def test_each_name_is_a_file_with_a_paper_and_plain_arguments(name: str) -> None:
    found = objective_class(name)
    module = sys.modules[found.__module__]
    assert Path(module.__file__).stem == name
    assert "arXiv" in module.__doc__ or "NeurIPS" in module.__doc__
    assert "loss" in module.__doc__ or name == "vse"
    assert "Which one to choose" in module.__doc__
    hints = get_type_hints(found.__init__)
    for argument, details in inspect.signature(found).parameters.items():
        assert argument in hints
        assert (details.default is inspect.Parameter.empty) == (argument == "width")


def test_a_mistyped_name_is_guessed_and_the_valid_ones_are_listed() -> None:
    with pytest.raises(UsageError, match=r"no objective 'siglp'; did you mean siglip\? Valid are: clip, .*skipgram\."):
        objective_class("siglp")
    with pytest.raises(UsageError, match=r"no objective 'zzz'\. Valid"):
        objective_class("zzz")


def test_the_list_of_objectives_imports_none() -> None:
    program = "import sys, mmsearch.training.objectives as o; assert 'torch' not in sys.modules, o.OBJECTIVES"
    subprocess.run([sys.executable, "-c", program], check=True)
