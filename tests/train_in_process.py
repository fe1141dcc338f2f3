"""A small run that can be killed or be one of two, and the processes for it (see test_loop.py, test_distributed.py).

    python -m tests.train_in_process killed FOLDER     undisturbed, and killed again and again
    python -m tests.train_in_process together FOLDER   two processes in one world

Both fork before torch has computed anything: one start of Python serves all processes.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmsearch.nn.dual_encoder import DualEncoder
from mmsearch.nn.features import Features
from mmsearch.nn.heads import LinearHead
from mmsearch.nn.towers.words import WordBag
from mmsearch.training.batch import Batch
from mmsearch.training.distributed import World, joined_world
from mmsearch.training.gradients import backward
from mmsearch.training.learners.learner import Learner
from mmsearch.training.learners.momentum import Momentum
from mmsearch.training.learners.skipgram import SkipGram
from mmsearch.training.loop import train
from mmsearch.training.objectives import objective_class
from mmsearch.training.objectives.momentum import MomentumContrast
from mmsearch.training.outputs import Outputs
from mmsearch.training.recipe import Recipe
from mmsearch.types import Progress

ROWS, WIDTHS, SPACE = 12, (7, 5), 6

# Dropout, an average, a queue, a temperature, accumulation, pieces, early stopping: all that has a state.
KILLED = Recipe(
    name="killed", steps=40, batch=ROWS, piece=5, accumulate=2, learning_rate=0.02, ema=0.9,
    evaluate_every=4, patience=1, checkpoint_every=3,
)  # fmt: skip
TOGETHER = Recipe(
    name="together", steps=12, batch=ROWS, learning_rate=0.02, ema=0.8,
    evaluate_every=2, patience=2, checkpoint_every=3,
)  # fmt: skip


class Head(nn.Sequential):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__(nn.Linear(width, 9), nn.GELU(), nn.Dropout(dropout), LinearHead(9, SPACE))


def learner_and_objective(dropout: float) -> tuple[Learner, nn.Module]:
    torch.manual_seed(5)
    encoder = DualEncoder(nn.Identity(), nn.Identity(), Head(WIDTHS[0], dropout), Head(WIDTHS[1], dropout))
    learner = Momentum(encoder, momentum=0.9)
    learner.unused = nn.Linear(3, 3)  # no objective reads it: it has to stay as it is
    return learner, MomentumContrast(SPACE, size=30)


def batch(step: int, world: World | None = None, dtype: torch.dtype = torch.float32) -> Batch:
    """The rows of this process, of one batch that all share."""
    world = world or World()
    draw = torch.Generator().manual_seed(step)
    about = torch.randn(ROWS, 4, generator=draw, dtype=dtype)
    ways = torch.Generator().manual_seed(99)
    images, texts = (about @ torch.randn(4, width, generator=ways, dtype=dtype) for width in WIDTHS)
    share = ROWS // world.size
    whole = Batch(groups=torch.arange(ROWS)[:, None] + 1000 * step, images=images, texts=texts)
    return whole.map(lambda part: part[world.rank * share : (world.rank + 1) * share])


def score(learner: Learner) -> dict[str, float]:
    """A recall that rises and falls with the weights, in hundredths, so that the best step is none of the last."""
    held = batch(12345, dtype=next(learner.encoder.parameters()).dtype)
    images, texts = learner.encoder.images(held.images).pooled, learner.encoder.texts(held.texts).pooled
    found = float(((images @ texts.T).argmax(1) == torch.arange(ROWS)).double().mean())
    return {"recall": found, "t2i_R@1": found}


# --- killed -----------------------------------------------------------------------------------------------------------


def to_the_end(folder: Path, on_progress: Callable[[Progress], None] | None = None) -> None:
    """-> FOLDER/made.pt, as far as nobody kills it."""
    learner, objective = learner_and_objective(dropout=0.3)
    trained = train(learner, objective, batch, KILLED, folder, score=score, on_progress=on_progress)
    torch.save({"weights": learner.state_dict(), "trained": (trained.best_step, trained.steps)}, folder / "made.pt")


def forked(work: Callable[[], None]) -> int:
    """The id of a process that does the work and ends."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            sys.stderr.flush()
            os._exit(status)
    return child


def killed_at_step(folder: Path, steps: int, seconds: float) -> None:
    """SIGKILL, `seconds` after it has said that so many steps are made in this attempt."""
    out, into = os.pipe()
    child = forked(lambda: to_the_end(folder, lambda _: (os.write(into, b"."), time.sleep(0.002))[1]))
    os.close(into)
    with os.fdopen(out, "rb", buffering=0) as told:
        for _ in range(steps):
            told.read(1)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1]), "it ended before it was killed"


def killed_while_writing(folder: Path, call: str, number: int, after: bool) -> None:
    """SIGKILL at the n-th call of os.fsync (a part is written) or os.replace (not yet, or just renamed)."""
    real, left = getattr(os, call), [number]

    def deadly(*arguments: Any) -> None:
        left[0] -= 1
        if left[0] == 0 and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        real(*arguments)
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def work() -> None:
        setattr(os, call, deadly)
        to_the_end(folder)

    assert os.WIFSIGNALED(os.waitpid(forked(work), 0)[1]), "it ended before it was killed"


def killed_again_and_again(folder: Path) -> None:
    undisturbed, disturbed = folder / "undisturbed", folder / "disturbed"
    assert os.waitpid(forked(lambda: to_the_end(undisturbed)), 0)[1] == 0
    chance = random.Random(3)
    killed_at_step(disturbed, 1, 0.0)  # before the first checkpoint
    killed_while_writing(disturbed, "replace", 2, after=False)
    killed_while_writing(disturbed, "fsync", 3, after=False)
    killed_at_step(disturbed, chance.randint(4, 5), chance.uniform(0, 0.02))
    killed_while_writing(disturbed, "replace", 3, after=True)
    killed_at_step(disturbed, chance.randint(4, 6), chance.uniform(0, 0.02))
    assert os.waitpid(forked(lambda: to_the_end(disturbed)), 0)[1] == 0


# --- together ---------------------------------------------------------------------------------------------------------


def trained(folder: Path, world: World, piece: int = 0, stop_at: int = 0) -> dict[str, Any]:
    """In float64, without dropout. stop_at: at this step something breaks."""
    learner, objective = learner_and_objective(dropout=0.0)

    def batches(step: int) -> Batch:
        if stop_at and step == stop_at:
            raise KeyboardInterrupt
        return batch(step, world, torch.float64)

    made = train(
        learner.double(), objective.double(), batches, replace(TOGETHER, piece=piece), folder, score=score, world=world
    )
    return {
        "weights": learner.state_dict(),
        "objective": objective.state_dict(),
        "trained": (made.steps, made.best_step, made.stopped_early),
    }


TEXTS = torch.tensor([[2, 9, 3, 0, 0, 0], [2, 7, 3, 0, 0, 0], [2, 8, 9, 10, 7, 3], [2, 6, 7, 9, 3, 0]])


def words(world: World, piece: int) -> dict[str, Any]:
    """Loss and gradients of the skip-gram on captions that each process pads by itself: to 3 and to 6 words."""
    from tests.test_learners import TOKENIZER

    torch.manual_seed(7)
    learner = SkipGram(DualEncoder(nn.Identity(), WordBag(TOKENIZER, 6), LinearHead(5, 4), LinearHead(6, 4)))
    draw = torch.Generator().manual_seed(3)
    whole = Batch(
        groups=torch.arange(4)[:, None], images=torch.randn(4, 5, generator=draw), texts=TEXTS, mask=(TEXTS > 0).long()
    )
    share = 4 // world.size
    own = whole.map(lambda part: part[world.rank * share : (world.rank + 1) * share])
    longest = int(own.mask.sum(1).max())
    own = replace(own, texts=own.texts[:, :longest], mask=own.mask[:, :longest])
    loss = backward(learner, objective_class("skipgram")(window=2), own, piece=piece, world=world)
    world.sum_gradients(learner.parameters())
    return {
        "loss": loss,
        "gradients": {name: one.grad for name, one in learner.named_parameters() if one.grad is not None},
    }


def hidden_words(rank: int) -> Outputs:
    """Two texts of each process, with 3 hidden places here and 2 there; the last of the second text does not count."""
    places, draw = 3 - rank, torch.Generator().manual_seed(20 + rank)
    logits = torch.randn(2, places, 5, generator=draw, dtype=torch.float64, requires_grad=True)
    ids = torch.randint(5, (2, places, 1), generator=draw)
    counts = torch.ones(2, places, dtype=torch.bool)
    counts[1, -1] = False
    return Outputs(
        text=Features(tokens=logits), targets=Features(tokens=ids, mask=counts), groups=torch.arange(2)[:, None]
    )


def gathered(world: World) -> dict[str, Any]:
    own = hidden_words(world.rank)
    loss = objective_class("masked_language")()(world.gather(own))
    loss.backward()
    return {"loss": float(loss.detach()), "gradient": own.text.tokens.grad}


def one_of_two(folder: Path) -> None:
    made: dict[str, Any] = {}
    with joined_world(torch.device("cpu")) as world:
        made["whole"] = trained(folder / "whole", world)
        made["pieces"] = trained(folder / "pieces", world, piece=4)
        try:
            trained(folder / "resumed", world, stop_at=5)
        except KeyboardInterrupt:
            made["checkpoint"] = (folder / "resumed" / "checkpoint.safetensors").is_file()
        with world.one_after_another():  # both have looked before it is taken away
            pass
        made["resumed"] = trained(folder / "resumed", world)
        made["words"] = words(world, 0)
        made["words in pieces"] = words(world, 1)
        made["gathered"] = gathered(world)
        made["shared"] = world.share(float(world.rank + 7))
        made["collected"] = [[int(one) for one in part] for part in world.collect([torch.tensor(world.rank)])]
    torch.save(made, folder / f"rank-{world.rank}.pt")


def two_together(folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    children = []
    for rank in range(2):
        os.environ["RANK"] = os.environ["LOCAL_RANK"] = str(rank)
        children.append(forked(lambda: one_of_two(folder)))
    for child in children:
        status = os.waitpid(child, 0)[1]
        assert status == 0, status


if __name__ == "__main__":
    import tensorboardX.proto.event_pb2  # noqa: F401 - once, not in every child

    torch.set_num_threads(1)
    {"killed": killed_again_and_again, "together": two_together}[sys.argv[1]](Path(sys.argv[2]))
