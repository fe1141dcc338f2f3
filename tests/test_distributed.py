"""Two real processes that share each batch learn what one learns with all of it: in float64, step by step."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="training needs the extra: pip install 'mmsearch[train]'")

from mmsearch.errors import UsageError  # noqa: E402
from mmsearch.nn import checkpoint  # noqa: E402
from mmsearch.training.distributed import World, joined_world  # noqa: E402
from mmsearch.training.logs import read  # noqa: E402
from mmsearch.training.recipe import settings_of  # noqa: E402
from mmsearch.training.run_state import Running, State  # noqa: E402
from tests import train_in_process as process  # noqa: E402

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("together")
    command = [sys.executable, "-m", "tests.train_in_process", "together", str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def ranks(folder: Path) -> list[dict[str, Any]]:
    return [torch.load(folder / f"rank-{rank}.pt") for rank in range(2)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("alone")
    return {"folder": folder, **process.trained(folder, World())}


@pytest.mark.parametrize("kind", ["whole", "pieces", "resumed"])
def test_the_weights_are_those_of_one_process(kind: str, ranks: list[dict[str, Any]], alone: dict[str, Any]) -> None:
    """After all steps, with what is in the queue, and with the average that the best step had."""
    for rank in ranks:
        for part in ("weights", "objective"):
            assert rank[kind][part].keys() == alone[part].keys()
            for name, value in alone[part].items():
                torch.testing.assert_close(rank[kind][part][name], value, rtol=0, atol=1e-10, msg=name)
        assert rank[kind]["trained"] == alone["trained"]  # rank 0 judges, all stop at the same step
    steps, best_step, stopped = alone["trained"]
    assert stopped and best_step < steps < process.TOGETHER.steps
    for name, value in ranks[0][kind]["weights"].items():
        assert torch.equal(value, ranks[1][kind]["weights"][name]), name


def test_the_loss_of_every_step_is_that_of_one_process(folder: Path, alone: dict[str, Any]) -> None:
    wanted = [(row["step"], row["loss"], row["t2i_R@1"]) for row in read(alone["folder"] / "log.csv")]
    assert len(wanted) > 2
    for kind in ("whole", "pieces", "resumed"):
        assert [(row["step"], row["loss"], row["t2i_R@1"]) for row in read(folder / kind / "log.csv")] == wanted


def test_what_no_process_uses_stays_as_it_is(ranks: list[dict[str, Any]]) -> None:
    """Zeros in place of a gradient would let AdamW shrink it."""
    began, _ = process.learner_and_objective(0.0)
    assert torch.equal(ranks[0]["whole"]["weights"]["unused.weight"], began.unused.weight.double())


def test_a_run_of_two_goes_on_from_its_checkpoint_and_with_two_alone(
    folder: Path, ranks: list[dict[str, Any]], tmp_path: Path
) -> None:
    assert all(rank["checkpoint"] for rank in ranks)
    learner, objective = process.learner_and_objective(0.0)
    torch.manual_seed(0)
    written = tmp_path / "checkpoint.safetensors"
    running = _running(learner, objective, World())
    running.save(written, State(step=3))
    before = written.read_bytes()
    with pytest.raises(UsageError, match=r"written by a run in 1 processes, this one has 2; use as many again"):
        _running(learner, objective, World(0, 2)).load(written)
    assert written.read_bytes() == before


def _running(learner: Any, objective: Any, world: World) -> Any:
    modules = torch.nn.ModuleDict({"learner": learner, "objective": objective})
    optimiser = torch.optim.AdamW(modules.parameters())
    scaler = torch.amp.GradScaler(enabled=False)
    return Running(settings_of(process.TOGETHER), modules, optimiser, scaler, torch.device("cpu"), world)


@pytest.mark.parametrize("kind", ["words", "words in pieces"])
def test_captions_that_each_pads_by_itself(kind: str, ranks: list[dict[str, Any]]) -> None:
    """One process has captions of three words, the other of six: loss and gradients are those of all four at once."""
    wanted = process.words(World(), 0)
    assert wanted["loss"] > 0.1
    for rank in ranks:
        assert rank[kind]["loss"] == pytest.approx(wanted["loss"], abs=1e-6)
        assert rank[kind]["gradients"].keys() == wanted["gradients"].keys()
        for name, grad in wanted["gradients"].items():
            torch.testing.assert_close(rank[kind]["gradients"][name], grad, rtol=1e-4, atol=1e-6, msg=name)


def test_hidden_places_of_different_numbers(ranks: list[dict[str, Any]]) -> None:
    """By a slow loop over the places that count: 2 x 3 - 1 of the one, 2 x 2 - 1 of the other."""
    given = [process.hidden_words(rank) for rank in range(2)]
    losses = [
        -one.text.tokens[row, place].log_softmax(0)[one.targets.tokens[row, place, 0]]
        for one in given
        for row in range(2)
        for place in range(one.targets.mask.shape[1])
        if one.targets.mask[row, place]
    ]
    assert len(losses) == 8
    mean = torch.stack(losses).mean()
    mean.backward()
    for rank, one in zip(ranks, given, strict=True):
        assert rank["gathered"]["loss"] == pytest.approx(float(mean.detach()), abs=1e-12)
        torch.testing.assert_close(rank["gathered"]["gradient"], one.text.tokens.grad, rtol=0, atol=1e-12)


def test_what_one_finds_all_know(ranks: list[dict[str, Any]]) -> None:
    assert [rank["shared"] for rank in ranks] == [7.0, 7.0]
    assert [rank["collected"] for rank in ranks] == [[[0], [1]]] * 2


def test_only_the_first_writes(folder: Path) -> None:
    """One log, one file of the best weights, and the checkpoint is gone when all is done."""
    for kind in ("whole", "resumed"):
        names = sorted(path.name for path in (folder / kind).iterdir())
        assert names == ["best.safetensors", "log.csv", "tensorboard"]
    assert len(list((folder / "whole" / "tensorboard").iterdir())) == 1
    assert len(list((folder / "resumed" / "tensorboard").iterdir())) == 2
    _, facts = checkpoint.load(folder / "whole" / "best.safetensors")
    assert facts["recipe"]["name"] == "together"


def test_one_process_has_a_world_of_its_own_and_two_must_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with joined_world(torch.device("cpu")) as world:
        assert world == World(0, 1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with (
        pytest.raises(UsageError, match=r"WORLD_SIZE is 2, but the processes cannot meet .*RANK.*; use torchrun\.$"),
        joined_world(torch.device("cpu")),
    ):
        pass
