"""The training loop: each step by hand, what is kept, and that neither a kill, bad numbers nor a full disk cost more
than the steps since the last checkpoint."""

from __future__ import annotations

import itertools
import math
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra: pip install 'mmsearch[train]'")

from torch import nn  # noqa: E402

from mmsearch.errors import MMSearchError, ModelError, UsageError, WeightsMismatchError  # noqa: E402
from mmsearch.nn import checkpoint  # noqa: E402
from mmsearch.nn.features import Features  # noqa: E402
from mmsearch.training.batch import Batch  # noqa: E402
from mmsearch.training.learners.learner import Learner  # noqa: E402
from mmsearch.training.logs import read  # noqa: E402
from mmsearch.training.loop import BEST, CHECKPOINT, Trained, learning_rate, train  # noqa: E402
from mmsearch.training.outputs import Outputs  # noqa: E402
from mmsearch.training.recipe import Recipe  # noqa: E402
from mmsearch.types import Progress  # noqa: E402
from tests import train_in_process as process  # noqa: E402

REPOSITORY = Path(__file__).parent.parent


class Line(Learner):
    """Says w . x + b of each picture."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(2, 1)
        with torch.no_grad():
            self.line.weight.copy_(torch.tensor([[0.5, -1.0]]))
            self.line.bias.fill_(0.25)

    def forward(self, batch: Batch) -> Outputs:
        return Outputs(image=Features(pooled=self.line(batch.images)))


class ToOne(nn.Module):
    """The mean of (said - 1)^2."""

    def forward(self, outputs: Outputs) -> torch.Tensor:
        return (outputs.image.pooled - 1).square().mean()


ROWS = np.array([[[1.0, 2.0], [0.5, -1.0], [3.0, 0.0]], [[-1.0, 1.0], [2.0, 2.0], [0.0, 1.5]]])


def rows(step: int) -> Batch:
    images = torch.tensor(ROWS[step % 2] * (1 + step), dtype=torch.float32)
    return Batch(groups=torch.arange(3)[:, None], images=images)


LINE = Recipe(name="line", steps=6, batch=3, learning_rate=0.1, warmup=1 / 3, weight_decay=0.5, clip=2.0)


def weights(learner: nn.Module) -> np.ndarray:
    return np.concatenate([one.detach().double().flatten().numpy().copy() for one in learner.parameters()])


def watched(recipe: Recipe, folder: Path, **arguments: Any) -> tuple[list[np.ndarray], Learner, Trained]:
    """The weights before the first and after each step; the learner in the end."""
    learner = Line()
    seen = [weights(learner)]

    def look(progress: Progress) -> None:
        seen.append(weights(learner))

    trained = train(learner, ToOne(), rows, recipe, folder, on_progress=look, **arguments)
    return seen, learner, trained


# --- each step --------------------------------------------------------------------------------------------------------


def test_warm_up_and_cosine() -> None:
    recipe = replace(LINE, learning_rate=1.0)
    found = [learning_rate(recipe, step) for step in range(6)]
    assert found == pytest.approx([0.5, 1.0, 1.0, 0.8535534, 0.5, 0.1464466])
    assert learning_rate(replace(recipe, warmup=0.0), 0) == 1.0
    assert learning_rate(replace(recipe, warmup=1.0), 5) == 1.0


def test_adamw_with_clipping_by_hand(tmp_path: Path) -> None:
    """Decoupled decay of the matrix, none of the bias; two batches are one step."""
    seen, _, trained = watched(replace(LINE, accumulate=2), tmp_path)
    assert trained.steps == trained.best_step == 6
    w = np.array([0.5, -1.0, 0.25])
    m, v, decay = np.zeros(3), np.zeros(3), np.array([0.5, 0.5, 0.0])
    for step, rate in enumerate([0.05, 0.1, 0.1, 0.08535534, 0.05, 0.01464466]):
        grad = np.zeros(3)
        for turn in range(2):
            x = np.concatenate([ROWS[turn] * (1 + 2 * step + turn), np.ones((3, 1))], axis=1)  # (3, 3), last: the bias
            grad += (2 * (x @ w - 1)[:, None] * x).mean(axis=0) / 2
        grad *= min(1, 2.0 / (np.linalg.norm(grad) + 1e-6))
        m, v = 0.9 * m + 0.1 * grad, 0.999 * v + 0.001 * grad**2
        unbiased_m, unbiased_v = m / (1 - 0.9 ** (step + 1)), v / (1 - 0.999 ** (step + 1))
        w = w * (1 - rate * decay) - rate * unbiased_m / (np.sqrt(unbiased_v) + 1e-8)
        np.testing.assert_allclose(seen[step + 1], w, atol=2e-6)


def test_the_average_by_its_formula_is_what_remains(tmp_path: Path) -> None:
    seen, learner, _ = watched(replace(LINE, ema=0.3), tmp_path)
    average = seen[0]
    for step, made in enumerate(seen[1:]):
        stays = min(0.3, (1 + step) / (10 + step))
        average = stays * average + (1 - stays) * made
    np.testing.assert_allclose(weights(learner), average, atol=1e-6)
    assert not np.allclose(average, seen[-1], atol=1e-3)


def test_each_batch_comes_once_in_order_and_progress_is_told(tmp_path: Path) -> None:
    asked: list[int] = []
    told: list[Progress] = []

    def batches(step: int) -> Batch:
        asked.append(step)
        return rows(step)

    train(Line(), ToOne(), batches, replace(LINE, accumulate=3, steps=4), tmp_path, on_progress=told.append)
    assert asked == list(range(12))
    assert [(one.stage, one.done, one.total) for one in told] == [("training", step, 4) for step in (1, 2, 3, 4)]


def test_pairs_a_second_counts_the_rows_that_were_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small sets make smaller batches than the recipe names. The clock goes on by one second a step."""
    monkeypatch.setattr("mmsearch.training.loop.time", SimpleNamespace(monotonic=itertools.count().__next__))
    _, _, trained = watched(replace(LINE, batch=500, accumulate=2), tmp_path)
    assert trained.pairs_a_second == 6.0


def test_bf16_learns_the_same_in_coarser_numbers(tmp_path: Path) -> None:
    exact, _, _ = watched(LINE, tmp_path / "fp32")
    coarse, learner, _ = watched(replace(LINE, precision="bf16"), tmp_path / "bf16")
    assert learner.line.weight.dtype == torch.float32
    np.testing.assert_allclose(coarse[-1], exact[-1], atol=0.05)
    assert not np.array_equal(coarse[-1], exact[-1])


def test_fp16_without_a_gpu_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^precision=fp16 needs a CUDA device, and this run is on cpu; set"):
        watched(replace(LINE, precision="fp16"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# --- dev recall -------------------------------------------------------------------------------------------------------


def test_it_stops_early_and_the_best_weights_come_back(tmp_path: Path) -> None:
    """Evaluated every second step; 0.4 twice is no better, and two in a row are too many."""
    recalls = iter([0.1, 0.4, 0.4, 0.3, 0.9])
    judged: list[bool] = []

    def score(learner: Learner) -> dict[str, float]:
        judged.append(learner.training)
        recall = next(recalls)
        return {"recall": recall, "t2i_R@1": recall / 2}

    recipe = replace(LINE, steps=20, evaluate_every=2, patience=2)
    seen, learner, trained = watched(recipe, tmp_path, score=score, data="a mark")
    assert (trained.steps, trained.best_step, trained.stopped_early) == (8, 4, True)
    assert trained.best == {"recall": 0.4, "t2i_R@1": 0.2}
    assert judged == [False] * 4 and not learner.training
    assert np.array_equal(weights(learner), seen[4])
    tensors, facts = checkpoint.load(tmp_path / BEST)
    assert torch.equal(tensors["line.weight"], learner.line.weight) and facts["step"] == 4
    assert facts["data"] == "a mark"
    assert [row["t2i_R@1"] for row in read(tmp_path / "log.csv")] == ["0.05", "0.2", "0.2", "0.15"]


def test_without_patience_it_goes_to_the_end_and_scores_the_last_step(tmp_path: Path) -> None:
    recalls = iter([0.5, 0.1, 0.2])
    recipe = replace(LINE, steps=5, evaluate_every=2)
    seen, learner, trained = watched(recipe, tmp_path, score=lambda _: {"recall": next(recalls)})
    assert (trained.steps, trained.best_step, trained.stopped_early) == (5, 2, False)
    assert np.array_equal(weights(learner), seen[2])


# --- seeds, kills, checkpoints ----------------------------------------------------------------------------------------


def small(folder: Path, recipe: Recipe, batches: Callable[[int], Batch] = process.batch, **arguments: Any) -> Learner:
    """With dropout, a momentum average and a queue."""
    learner, objective = process.learner_and_objective(dropout=0.3)
    train(learner, objective, batches, recipe, folder, **arguments)
    return learner


SMALL = replace(process.KILLED, steps=9, accumulate=1, piece=0, patience=0, checkpoint_every=2)


def test_the_seed_alone_decides(tmp_path: Path) -> None:
    first = weights(small(tmp_path / "a", SMALL))
    torch.manual_seed(77)  # whatever was drawn before
    assert np.array_equal(weights(small(tmp_path / "b", SMALL)), first)
    assert not np.allclose(weights(small(tmp_path / "c", replace(SMALL, seed=1))), first)
    assert np.array_equal(weights(small(tmp_path / "a", SMALL)), first)  # a finished run begins anew
    assert [row["step"] for row in read(tmp_path / "a" / "log.csv")] == ["9"]


def test_killed_again_and_again_it_makes_the_same_weights_bit_for_bit(tmp_path: Path) -> None:
    """SIGKILL before the first checkpoint, between steps, while a checkpoint and the best weights are written, before
    and after the renaming; then to the end. Dropout, averages, queue, accumulation, early stopping."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.train_in_process", "killed", str(tmp_path)],
        cwd=REPOSITORY, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    one, two = (torch.load(tmp_path / name / "made.pt") for name in ("undisturbed", "disturbed"))
    best_step, steps = one["trained"]
    assert 4 < best_step < steps < process.KILLED.steps
    assert two["trained"] == one["trained"]
    assert one["weights"].keys() == two["weights"].keys()
    for name, value in one["weights"].items():
        assert torch.equal(two["weights"][name], value), name
    logs = [
        [
            {name: value for name, value in row.items() if name != "pairs_a_second"}
            for row in read(tmp_path / of / "log.csv")
        ]
        for of in ("undisturbed", "disturbed")
    ]
    assert logs[0] == logs[1] and len(logs[0]) > 4
    left = {path.name for path in (tmp_path / "disturbed").iterdir()}
    assert {BEST, "log.csv", "tensorboard", "made.pt"} <= left and CHECKPOINT not in left


class BrokenError(Exception):
    pass


def broken_at(step: int) -> Callable[[int], Batch]:
    def batches(number: int) -> Batch:
        if number == step:
            raise BrokenError
        return process.batch(number)

    return batches


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """A run that broke at step 5, with a checkpoint of step 4."""
    with pytest.raises(BrokenError):
        small(tmp_path, SMALL, broken_at(5))
    return tmp_path


def test_a_checkpoint_of_another_recipe_is_refused_and_stays(stopped: Path) -> None:
    before = (stopped / CHECKPOINT).read_bytes()
    with pytest.raises(UsageError) as caught:
        small(stopped, replace(SMALL, learning_rate=0.5, objective="siglip"))
    said = "another recipe or other data (objective was 'clip', is 'siglip', learning_rate was 0.02, is 0.5)"
    assert said in str(caught.value)
    assert "choose another --out" in str(caught.value) and "\n" not in str(caught.value)
    assert (stopped / CHECKPOINT).read_bytes() == before


def test_a_checkpoint_of_other_data_is_refused(stopped: Path) -> None:
    with pytest.raises(UsageError, match=r"other data \(data was '', is 'of other pictures'\)"):
        train(Line(), ToOne(), rows, SMALL, stopped, data="of other pictures")


def test_other_weights_in_the_checkpoint_are_told_in_one_line(stopped: Path) -> None:
    before = (stopped / CHECKPOINT).read_bytes()
    with pytest.raises(WeightsMismatchError, match=r"holds other weights than this run trains .*--out\.$") as caught:
        train(Line(), ToOne(), rows, SMALL, stopped)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    assert (stopped / CHECKPOINT).read_bytes() == before


@pytest.mark.parametrize("how", ["cut", "flipped", "empty", "foreign", "best"])
def test_a_damaged_checkpoint_is_told_in_one_line(how: str, stopped: Path) -> None:
    path = stopped / CHECKPOINT
    whole = bytearray(path.read_bytes())
    flipped = whole.copy()
    flipped[-100] ^= 1
    contents: dict[str, bytes] = {
        "cut": whole[: len(whole) // 2],
        "flipped": flipped,
        "empty": b"",
        "foreign": b"hello" * 9,
    }
    path.write_bytes(contents[how] if how in contents else _of_best(stopped))
    with pytest.raises(WeightsMismatchError, match=r"(?i)delete it to begin this run anew\.$") as caught:
        small(stopped, SMALL)
    assert "\n" not in str(caught.value) and CHECKPOINT in str(caught.value)


def _of_best(folder: Path) -> bytes:
    small(folder / "other", SMALL)
    return (folder / "other" / BEST).read_bytes()


# --- bad numbers, a full disk -----------------------------------------------------------------------------------------


def test_rows_that_are_no_numbers_end_the_run_and_it_goes_on_from_the_checkpoint(tmp_path: Path) -> None:
    wanted = weights(small(tmp_path / "undisturbed", SMALL))

    def spoilt(step: int) -> Batch:
        made = process.batch(step)
        if step == 5:
            made.images[3] = math.nan  # type: ignore[index]
        return made

    with pytest.raises(ModelError) as caught:
        small(tmp_path / "run", SMALL, spoilt)
    told = str(caught.value)
    assert "ended at step 6" in told and "no numbers" in told and "the last checkpoint is kept" in told
    assert "learning_rate (now 0.02)" in told and "\n" not in told
    assert checkpoint.load(tmp_path / "run" / CHECKPOINT)[1]["state"]["step"] == 4
    assert np.array_equal(weights(small(tmp_path / "run", SMALL)), wanted)


@pytest.mark.parametrize(("decay", "step"), [(0.5, 2), (10.0, 1)])
def test_a_huge_learning_rate_is_never_judged_or_kept(decay: float, step: int, tmp_path: Path) -> None:
    """With the second decay, the weights overflow in the first step, whose loss and gradient were numbers."""

    def score(learner: Learner) -> dict[str, float]:
        assert np.isfinite(weights(learner)).all()
        return {"recall": 0.5}

    learner = Line()
    with torch.no_grad():
        learner.line.weight *= 2
    recipe = replace(LINE, learning_rate=3e37, warmup=0.0, weight_decay=decay, evaluate_every=1, checkpoint_every=1)
    told = rf"ended at step {step}: .*a smaller learning_rate \(now 3e\+37\) usually helps"
    with pytest.raises(ModelError, match=told):
        train(learner, ToOne(), rows, recipe, tmp_path, score=score)
    assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == ([BEST, CHECKPOINT] if step == 2 else [])
    for path in tmp_path.glob("*.safetensors"):
        tensors, _ = checkpoint.load(path)
        assert all(value.isfinite().all() for name, value in tensors.items() if "line" in name)


def test_a_gradient_that_is_no_number_counts_though_the_loss_is_one(tmp_path: Path) -> None:
    class Root(nn.Module):
        def forward(self, outputs: Outputs) -> torch.Tensor:
            return (outputs.image.pooled * 0).sum().sqrt()  # 0, with an infinite slope

    with pytest.raises(ModelError, match="ended at step 1"):
        train(Line(), Root(), rows, LINE, tmp_path)
    assert not (tmp_path / CHECKPOINT).exists()


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """The system takes no byte beyond that, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(("room", "what"), [(2000, CHECKPOINT), (60, "log")])
def test_a_full_disk_is_told_and_the_run_goes_on_when_there_is_room(room: int, what: str, tmp_path: Path) -> None:
    recipe = replace(SMALL, evaluate_every=3)
    wanted = weights(small(tmp_path / "undisturbed", recipe, score=process.score))
    with pytest.raises(BrokenError):
        small(tmp_path / "run", recipe, broken_at(2), score=process.score)
    before = (tmp_path / "run" / CHECKPOINT).read_bytes()
    with pytest.raises(MMSearchError, match=rf"{what}.* cannot be written .*[Mm]ake room") as caught, files_up_to(room):
        small(tmp_path / "run", replace(recipe), process.batch, score=None if what == CHECKPOINT else process.score)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "run" / CHECKPOINT).read_bytes() == before
    assert np.array_equal(weights(small(tmp_path / "run", recipe, score=process.score)), wanted)
    rows_of = [[row["step"] for row in read(tmp_path / name / "log.csv")] for name in ("run", "undisturbed")]
    assert rows_of[0] == rows_of[1]
