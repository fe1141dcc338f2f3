"""Tuning by value: what is free, what decays, what lies between before and after."""

from __future__ import annotations

import copy
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="training needs the extra: pip install 'mmsearch[train]'")

from torch import nn  # noqa: E402

from mmsearch.errors import UsageError, WeightsMismatchError  # noqa: E402
from mmsearch.nn.towers.tower import Tower, stages_of  # noqa: E402
from mmsearch.nn.towers.vit import ViT  # noqa: E402
from mmsearch.nn.tuning import decay_groups, interpolate, merge, read_mode, tune, wise_ft  # noqa: E402


def vit() -> ViT:
    torch.manual_seed(0)
    return ViT(side=16, patch=8, width=16, depth=3, heads=2, dropout=0.2)


def free(tower: nn.Module) -> set[str]:
    return {name for name, parameter in tower.named_parameters() if parameter.requires_grad}


def test_the_last_stages_are_the_last_blocks_and_the_norm_behind_them() -> None:
    tower = vit()
    tune(tower, "last:1")
    assert free(tower) == {name for name, _ in tower.named_parameters() if name.startswith(("blocks.2.", "norm."))}
    tune(tower, "last:2")
    assert free(tower) == {n for n, _ in tower.named_parameters() if n.startswith(("blocks.1.", "blocks.2.", "norm."))}
    tune(tower, "last:4")
    assert free(tower) == {name for name, _ in tower.named_parameters()}  # the class token counts with the patches
    tune(tower, "locked")
    assert free(tower) == set()


def test_a_locked_tower_stays_as_in_use_and_an_unlocked_one_does_not() -> None:
    tower, pixels = vit(), torch.randint(0, 256, (2, 16, 16, 3), dtype=torch.uint8)
    wanted = tower.eval()(pixels).pooled
    tune(tower, "locked")
    assert torch.equal(nn.Sequential(tower).train()[0](pixels).pooled, wanted)
    tune(tower, "full")
    assert not torch.equal(tower.train()(pixels).pooled, wanted)  # dropout


class Mixed(Tower):
    """All that has a matrix, once."""

    width = 6

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 6, 3)
        self.alone = nn.Conv2d(6, 6, 3, groups=6)
        self.norm = nn.BatchNorm2d(6)
        self.table = nn.Embedding(4, 6)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.line = nn.Linear(6, 6)
        self.positions = nn.Parameter(torch.randn(4, 6))
        self.temperature = nn.Parameter(torch.tensor(1.0))

    def forward(self, pixels: Any) -> Any:
        x = self.norm(self.alone(self.convolution(pixels.permute(0, 3, 1, 2).float() / 255))).flatten(2).mean(2)
        x = (x[:, None] + self.table.weight + self.positions) * self.temperature
        return self.line(self.attention(x, x, x, need_weights=False)[0]).mean(1)

    def stages(self) -> list[nn.Module]:
        return stages_of(*self.children())


def test_only_matrices_decay() -> None:
    tower = Mixed()
    names = {id(parameter): name for name, parameter in tower.named_parameters()}
    decays, stays = decay_groups(tower, 0.1)
    assert (decays["weight_decay"], stays["weight_decay"]) == (0.1, 0.0)
    assert {names[id(p)] for p in decays["params"]} == {
        "convolution.weight", "alone.weight", "attention.in_proj_weight", "attention.out_proj.weight", "line.weight",
    }  # fmt: skip
    assert len(decays["params"]) + len(stays["params"]) == len(names)
    tower.line.weight.requires_grad_(False)
    assert len(decay_groups(tower, 0.1)[0]["params"]) == 4
    tied = nn.ModuleList([tower.line, tower.line])
    assert sum(len(group["params"]) for group in decay_groups(tied, 0.1)) == 1


def test_updates_of_low_rank_by_hand() -> None:
    torch.manual_seed(0)
    tower = Mixed().eval()
    plain = copy.deepcopy(tower)
    tune(tower, "lora:2")
    made = {name.partition(".parametrizations")[0] for name in free(tower)}
    assert made == {"convolution", "attention", "attention.out_proj", "line"}
    update = tower.line.parametrizations.weight[0]
    assert (update.a.shape, update.b.shape) == ((2, 6), (6, 2))
    assert {id(p) for group in decay_groups(tower, 0.1)[:1] for p in group["params"]} == {
        id(parameter) for parameter in tower.parameters() if parameter.requires_grad
    }
    with torch.no_grad():
        for name, parameter in tower.named_parameters():
            if name.endswith(".b"):
                parameter.normal_()
        wanted = plain.line.weight + update.b @ update.a
        changed = plain.convolution.weight.clone()
        inner = tower.convolution.parametrizations.weight[0]
        for out in range(6):
            for i, (channel, down, across) in enumerate(
                (c, d, a) for c in range(3) for d in range(3) for a in range(3)
            ):
                changed[out, channel, down, across] += sum(inner.b[out, r] * inner.a[r, i] for r in range(2))
        merge(tower)
    assert torch.equal(tower.line.weight.detach(), wanted)
    torch.testing.assert_close(tower.convolution.weight.detach(), changed)
    assert torch.equal(tower.alone.weight, plain.alone.weight)
    assert set(tower.state_dict()) == set(plain.state_dict())
    merge(tower)  # nothing is left to do


def test_low_rank_learns_a_change_of_low_rank() -> None:
    """A target that differs from the start by rank one is reached by rank one; the base stays where it was."""
    torch.manual_seed(0)
    tower = Line()
    base = tower.line.weight.detach().clone()
    target = base + torch.outer(torch.randn(5), torch.randn(5)) * 0.3
    tune(tower, "lora:1")
    optimiser = torch.optim.Adam([p for p in tower.parameters() if p.requires_grad], 0.05)
    for _ in range(300):
        optimiser.zero_grad()
        loss = (tower.line.weight - target).square().sum()
        loss.backward()
        optimiser.step()
    assert loss.item() < 1e-4
    assert torch.equal(tower.line.parametrizations.weight.original, base)


class Line(Tower):
    width = 5

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(5, 5)

    def stages(self) -> list[nn.Module]:
        return [self.line]


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("lock", "tuned 'lock'; did you mean locked"),
        ("lora:0", "Valid are locked, full, last:N, lora:R"),
        ("last:", "with N and R from 1"),
        ("last:9", "last:9 is more than the 4 stages of ViT"),
        ("lora:²", "cannot be tuned"),
    ],
)
def test_what_cannot_be_tuned_so_is_said(how: str, words: str) -> None:
    tower = vit()
    before = free(tower)
    with pytest.raises(UsageError, match=words):
        tune(tower, how)
    assert free(tower) == before


def test_modes_are_read() -> None:
    assert [read_mode(how) for how in ("locked", "full", "last:3", "lora:16")] == [
        ("locked", 0), ("full", 0), ("last", 3), ("lora", 16),
    ]  # fmt: skip


def test_wise_ft_lies_between() -> None:
    before = {"w": torch.tensor([1.0, 2.0]), "steps": torch.tensor(3)}
    after = {"w": torch.tensor([3.0, -2.0]), "steps": torch.tensor(7)}
    assert wise_ft(before, after, 0.25)["w"].tolist() == [1.5, 1.0]
    assert wise_ft(before, after, 0.25)["steps"].item() == 7
    assert torch.equal(wise_ft(before, after, 0)["w"], before["w"])
    assert torch.equal(wise_ft(before, after, 1)["w"], after["w"])
    with pytest.raises(UsageError, match=r"from 0 to 1, not 1\.5"):
        wise_ft(before, after, 1.5)
    with pytest.raises(WeightsMismatchError, match="they differ in steps"):
        wise_ft(before, {"w": after["w"]}, 0.5)
    with pytest.raises(WeightsMismatchError, match="they differ in w"):
        wise_ft(before, {**after, "w": torch.zeros(3)}, 0.5)


def test_half_an_update_of_low_rank_is_half_of_it() -> None:
    torch.manual_seed(0)
    tower = Line()
    base = tower.line.weight.detach().clone()
    tune(tower, "lora:2")
    before = copy.deepcopy(tower.state_dict())
    update = tower.line.parametrizations.weight[0]
    with torch.no_grad():
        update.a.normal_()
        update.b.normal_()
    learnt = (update.b @ update.a).detach().clone()
    interpolate(tower, before, 0.5)
    torch.testing.assert_close(tower.line.weight.detach(), base + 0.5 * learnt)


def test_wise_ft_of_a_linear_network_lies_between_its_outputs() -> None:
    torch.manual_seed(0)
    one, two, x = nn.Linear(4, 3), nn.Linear(4, 3), torch.randn(5, 4)
    mixed = nn.Linear(4, 3)
    mixed.load_state_dict(wise_ft(one.state_dict(), two.state_dict(), 0.3))
    torch.testing.assert_close(mixed(x), 0.7 * one(x) + 0.3 * two(x))
