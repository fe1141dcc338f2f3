"""Gradients in pieces are those of one big batch, for every objective that couples its rows; and what accumulates."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch", reason="training needs the extra: pip install 'mmsearch[train]'")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch import nn  # noqa: E402

from mmsearch.nn.dual_encoder import DualEncoder  # noqa: E402
from mmsearch.nn.features import Features  # noqa: E402
from mmsearch.nn.heads import LinearHead  # noqa: E402
from mmsearch.nn.towers.tower import Tower  # noqa: E402
from mmsearch.training.batch import Batch  # noqa: E402
from mmsearch.training.gradients import backward  # noqa: E402
from mmsearch.training.learners.contrastive import Contrastive  # noqa: E402
from mmsearch.training.learners.learner import Learner  # noqa: E402
from mmsearch.training.learners.momentum import Momentum  # noqa: E402
from mmsearch.training.learners.two_views import TwoViews  # noqa: E402
from mmsearch.training.objectives import objective_class  # noqa: E402
from mmsearch.training.outputs import Outputs, joined  # noqa: E402
from tests.test_learners import LEARNERS, made_by  # noqa: E402
from tests.test_learners import batch as pictures_and_texts  # noqa: E402

WIDTHS, SPACE = (7, 5), 6
COUPLED = ("clip", "vse", "devise", "ntxent", "align", "unicl", "siglip", "distillation", "momentum")


class Head(nn.Sequential):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__(nn.Linear(width, 9), nn.GELU(), nn.Dropout(dropout), LinearHead(9, SPACE))


class Given(Tower):
    """Rows as they are."""

    width = WIDTHS[0]

    def forward(self, rows: torch.Tensor) -> Features:
        return Features(pooled=rows)

    def stages(self) -> list[nn.Module]:
        return []


def rows(n: int, seed: int = 0) -> Batch:
    """Rows of locked towers, in float64; some belong together."""
    draw = torch.Generator().manual_seed(seed)

    def numbers(width: int) -> torch.Tensor:
        return torch.randn(n, width, generator=draw, dtype=torch.float64)

    return Batch(
        groups=torch.stack([torch.arange(n), torch.where(torch.arange(n) % 4 == 3, 0, torch.arange(n))], 1),
        images=numbers(WIDTHS[0]), second=numbers(WIDTHS[0]), texts=numbers(WIDTHS[1]),
        teacher_images=numbers(4), teacher_texts=numbers(4),
    )  # fmt: skip


def two_heads(objective: str, dropout: float = 0.0) -> tuple[Learner, nn.Module]:
    torch.manual_seed(2)
    kind = objective_class(objective)
    if objective == "ntxent":  # one head, two views
        return TwoViews(Given(), projection_width=SPACE).double(), kind().double()
    encoder = DualEncoder(nn.Identity(), nn.Identity(), Head(WIDTHS[0], dropout), Head(WIDTHS[1], dropout))
    learner = (Momentum if objective == "momentum" else Contrastive)(encoder)
    return learner.double(), (kind(SPACE, size=11) if objective == "momentum" else kind()).double()


def all_gradients(*modules: nn.Module) -> dict[str, torch.Tensor | None]:
    return {
        f"{number}.{name}": None if weight.grad is None else weight.grad.clone()
        for number, module in enumerate(modules)
        for name, weight in module.named_parameters()
    }


def assert_same(found: dict[str, torch.Tensor | None], wanted: dict[str, torch.Tensor | None], atol: float) -> None:
    assert found.keys() == wanted.keys()
    for name, grad in wanted.items():
        assert (found[name] is None) == (grad is None), name
        if grad is not None:
            torch.testing.assert_close(found[name], grad, rtol=0, atol=atol, msg=name)
    assert any(grad is not None and grad.abs().max() > 1e-4 for grad in wanted.values())


def plainly(learner: Learner, objective: nn.Module, *batches: Batch, share: float = 1.0) -> float:
    """Without anything of ours: one graph over all rows."""
    losses = [objective(learner(one)) * share for one in batches]
    total = torch.stack(losses).sum()
    total.backward()
    return float(total.detach())


@pytest.mark.parametrize("objective", COUPLED)
@settings(max_examples=6, deadline=None)
@given(n=st.integers(2, 13), piece=st.integers(0, 14), share=st.sampled_from([1.0, 0.25]))
def test_pieces_give_the_gradients_of_the_whole_batch(objective: str, n: int, piece: int, share: float) -> None:
    """With two batches, so that the queue holds the first when the second comes."""
    whole, both = two_heads(objective)
    cached, of_cached = copy.deepcopy((whole, both))
    for seed in (0, 1):
        wanted = plainly(whole, both, rows(n, seed), share=share)
        found = backward(cached, of_cached, rows(n, seed), piece=piece, share=share)
        assert found * share == pytest.approx(wanted, rel=1e-12 if objective != "distillation" else 1e-6)
    assert_same(all_gradients(cached, of_cached), all_gradients(whole, both), 1e-6 if "dist" in objective else 1e-11)
    for (name, one), two in zip(of_cached.named_buffers(), both.buffers(), strict=True):
        torch.testing.assert_close(one, two, msg=name)  # a queue remembers the batch once, not once a piece
    if hasattr(both, "temperature") and isinstance(both.temperature, nn.Module):
        assert both.temperature.scale.grad is not None


@pytest.mark.parametrize("name", LEARNERS)
def test_pieces_that_do_not_divide_the_batch_with_towers(name: str) -> None:
    """Without dropout and hiding at random, five rows in twos are five rows at once."""
    learner, objective = made_by(name)
    whole = pictures_and_texts(5)
    if name in ("masked_image", "data2vec", "masked_language"):  # what is hidden depends on the draw: cut it by row
        learner = _hiding_by_row(learner)
    for module in learner.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    other, of_other = copy.deepcopy((learner, objective))
    wanted = plainly(other, of_other, whole)
    assert backward(learner, objective, whole, piece=2) == pytest.approx(wanted, abs=1e-5)
    gradients = all_gradients(other, of_other)
    largest = max(float(grad.abs().max()) for grad in gradients.values() if grad is not None)
    assert_same(all_gradients(learner, objective), gradients, 1e-3 * largest)  # towers compute in float32


def _hiding_by_row(learner: Learner) -> Learner:
    """Random numbers of each row come from what the row says, so that a row hides the same in any company."""
    forward = type(learner).forward

    class ByRow(type(learner)):  # type: ignore[misc]
        def forward(self, batch: Batch) -> object:
            made = []
            for row in batch.pieces(1):
                torch.manual_seed(int(row.groups[0, 0]))
                made.append(forward(self, row))
            return joined(made)

    learner.__class__ = ByRow
    return learner


def test_dropout_is_replayed_and_the_random_numbers_go_on() -> None:
    """Each piece drops the same in its second pass as in its first, and the next step draws as if there were one."""
    learner, objective = two_heads("clip", dropout=0.5)
    other, of_other = copy.deepcopy((learner, objective))
    torch.manual_seed(4)
    of_other(joined([other(part) for part in rows(8).pieces(3)])).backward()
    after = torch.get_rng_state()
    torch.manual_seed(4)
    backward(learner, objective, rows(8), piece=3)
    assert torch.equal(torch.get_rng_state(), after)
    assert_same(all_gradients(learner, objective), all_gradients(other, of_other), 1e-12)


def test_what_no_objective_reads_gets_no_gradient() -> None:
    learner, objective = two_heads("clip")
    learner.unread = nn.Linear(2, 2)
    backward(learner, objective, rows(6), piece=2)
    for name, weight in learner.named_parameters():
        assert (weight.grad is None) == name.startswith("unread"), name


def test_accumulated_is_the_mean_over_the_batches() -> None:
    learner, objective = two_heads("clip")
    other, of_other = copy.deepcopy((learner, objective))
    for seed in range(3):
        backward(learner, objective, rows(5, seed), piece=2, share=1 / 3)
    plainly(other, of_other, *(rows(5, seed) for seed in range(3)), share=1 / 3)
    assert_same(all_gradients(learner, objective), all_gradients(other, of_other), 1e-12)


@pytest.mark.parametrize("piece", [0, 3])
def test_bf16_stays_close_to_fp32_and_the_objective_sees_float32(piece: int) -> None:
    learner, objective = two_heads("clip")
    learner, objective = learner.float(), objective.float()
    other, of_other = copy.deepcopy((learner, objective))
    batch = rows(8).map(lambda part: part.float() if part.is_floating_point() else part)
    seen: list[torch.dtype] = []
    objective.register_forward_pre_hook(lambda _, outputs: seen.append(outputs[0].image.pooled.dtype))
    loss = backward(learner, objective, batch, piece=piece, precision="bf16")
    assert seen == [torch.float32]
    assert loss == pytest.approx(plainly(other, of_other, batch), rel=0.03)
    exact, half = all_gradients(other, of_other), all_gradients(learner, objective)
    for name, grad in exact.items():
        assert nn.functional.cosine_similarity(half[name].flatten(), grad.flatten(), 0) > 0.99, name
        assert half[name].dtype == torch.float32
    assert any(not torch.equal(half[name], grad) for name, grad in exact.items())


def test_by_hand_through_two_pieces() -> None:
    """One weight w and pictures of one number: L = (w (x1 + x2 + x3))^2, dL/dw = 2 w (x1 + x2 + x3)^2."""

    class Line(Learner):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.tensor(0.5))

        def forward(self, batch: Batch) -> Outputs:
            return Outputs(image=Features(pooled=self.w * batch.images))

    class Square(nn.Module):
        def forward(self, outputs: Outputs) -> torch.Tensor:
            return outputs.image.pooled.sum().square()

    learner = Line()
    batch = Batch(groups=torch.arange(3)[:, None], images=torch.tensor([[1.0], [2.0], [4.0]]))
    assert backward(learner, Square(), batch, piece=2) == pytest.approx(12.25)
    assert float(learner.w.grad) == pytest.approx(2 * 0.5 * 49)


class Scaled:
    """A loss scaler as fp16 has it: a factor on the loss, taken out of the gradients again."""

    factor = 1024.0

    def scale(self, loss: torch.Tensor) -> torch.Tensor:
        return loss * self.factor


@pytest.mark.parametrize("piece", [0, 2])
def test_a_scaled_loss_scales_every_gradient_and_not_what_is_told(piece: int) -> None:
    learner, objective = two_heads("siglip")
    other, of_other = copy.deepcopy((learner, objective))
    told = backward(learner, objective, rows(5), piece=piece, scaler=Scaled())  # type: ignore[arg-type]
    assert told == pytest.approx(plainly(other, of_other, rows(5)))
    wanted = {name: grad * 1024 for name, grad in all_gradients(other, of_other).items()}  # type: ignore[operator]
    assert_same(all_gradients(learner, objective), wanted, 1e-8)
