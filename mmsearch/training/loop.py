"""The training loop: every recipe runs through it (the built-in model has its own; tuning.py says why).

In: a learner (batch -> outputs), an objective (outputs -> loss), batches by step, the recipe's numbers, a folder.
Out: the learner with its best weights, and in the folder `best.safetensors`, `log.csv`, TensorBoard's files; while it
runs also `checkpoint.safetensors`, from which a run that was killed goes on as if nothing had been; a small one may say
to the end that all steps were made.

A step is a function of the weights, the seed and its number, so that on a CPU a resumed run gives the same weights, bit
for bit. A loss, a gradient or weights that are no numbers end the run; the last good checkpoint stays.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from mmsearch.errors import ModelError, UsageError
from mmsearch.nn import checkpoint
from mmsearch.nn.tuning import decay_groups
from mmsearch.training import run_state
from mmsearch.training.batch import Batch
from mmsearch.training.distributed import World
from mmsearch.training.gradients import backward
from mmsearch.training.learners.average import follow, untrained_copy
from mmsearch.training.learners.learner import Learner
from mmsearch.training.logs import Logs
from mmsearch.training.recipe import Recipe, settings_of
from mmsearch.types import Progress

BEST = "best.safetensors"
CHECKPOINT = "checkpoint.safetensors"
EVERY_LOG = 10  # steps between two rows of the log

Score = Callable[[Learner], Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Trained:
    """steps that were made; the best one by dev recall (the last where nothing was scored); what it scored."""

    steps: int
    best_step: int
    best: Mapping[str, float]
    pairs_a_second: float
    seconds: float
    stopped_early: bool


def train(
    learner: Learner,
    objective: nn.Module,
    batches: Callable[[int], Batch],
    recipe: Recipe,
    folder: Path,
    *,
    data: str = "",
    score: Score | None = None,
    device: torch.device | None = None,
    world: World | None = None,
    keep_checkpoint: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> Trained:
    """batches(step): the rows of this process. data: what marks the material (`Batches.mark`); a run goes on with the
    same only. score(learner): its figures on the dev side, named as in logs.COLUMNS; `recall` decides.
    keep_checkpoint: something must still be written; until `forget`, the same run takes the best weights at once.

    Raises ModelError for a loss that is no number, UsageError for a checkpoint of another recipe and for a precision
    that the device does not have, MMSearchError where the folder cannot be written to.
    """
    device, world = device or torch.device("cpu"), world or World()
    check_precision(recipe, device)
    modules = nn.ModuleDict({"learner": learner, "objective": objective}).to(device).train()
    optimiser = torch.optim.AdamW(
        [*decay_groups(learner, recipe.weight_decay), *decay_groups(objective, 0.0)],
        lr=recipe.learning_rate,
        betas=(0.9, 0.98 if recipe.batch > 1000 else 0.999),
    )
    scaler = torch.amp.GradScaler(enabled=recipe.precision == "fp16")
    if recipe.ema:
        modules["average"] = untrained_copy(learner)
    judged: Learner = modules["average"] if recipe.ema else learner  # type: ignore[assignment]
    world.as_rank_0(modules)
    torch.manual_seed(recipe.seed + world.rank)

    running = run_state.Running(settings_of(recipe) | {"data": data}, modules, optimiser, scaler, device, world)
    saved = folder / CHECKPOINT
    progress = running.load(saved) if saved.is_file() else run_state.State()
    logs = Logs(folder, progress.step) if world.rank == 0 else None
    began, pairs, rate = time.monotonic(), 0, 0.0

    while progress.step < recipe.steps and not progress.stopped_early:
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(recipe, progress.step)
        optimiser.zero_grad(set_to_none=True)
        losses = []
        for turn in range(recipe.accumulate):
            batch = batches(progress.step * recipe.accumulate + turn).map(lambda part: part.to(device))
            pairs += len(batch) * world.size
            losses.append(
                backward(
                    learner, objective, batch,
                    piece=recipe.piece, share=1 / recipe.accumulate, precision=recipe.precision,
                    scaler=scaler if scaler.is_enabled() else None, world=world,
                )
            )  # fmt: skip
        world.sum_gradients(learner.parameters())
        loss = sum(losses) / len(losses)
        scaler.unscale_(optimiser)
        length = nn.utils.clip_grad_norm_([*modules.parameters()], recipe.clip or math.inf)
        if not math.isfinite(loss) or not (scaler.is_enabled() or bool(length.isfinite())):
            raise ModelError(_no_number(recipe, progress.step, saved.is_file()))
        scaler.step(optimiser)
        scaler.update()
        if not _all_finite(modules):
            raise ModelError(_no_number(recipe, progress.step, saved.is_file()))
        learner.after_step()
        if recipe.ema:
            follow(judged, learner, min(recipe.ema, (1 + progress.step) / (10 + progress.step)))
        progress.step += 1

        figures: dict[str, float] = {}
        if score and (progress.step % recipe.evaluate_every == 0 or progress.step == recipe.steps):
            found = _scored(judged, score) if world.rank == 0 else {"recall": 0.0}
            learner.train()
            recall = world.share(found["recall"])
            figures |= {name: value for name, value in found.items() if name != "recall"}
            if recall > progress.best_recall:
                progress.best_recall, progress.best_step, progress.best = recall, progress.step, dict(found)
                if world.rank == 0:
                    _save_best(folder, judged, recipe, data, progress)
            elif recipe.patience and progress.step - progress.best_step >= recipe.patience * recipe.evaluate_every:
                progress.stopped_early = progress.step < recipe.steps
        rate = pairs / max(time.monotonic() - began, 1e-9)
        if logs and (figures or progress.step % EVERY_LOG == 0 or progress.step == recipe.steps):
            used = learning_rate(recipe, progress.step - 1)
            logs.write(progress.step, {"loss": loss, "learning_rate": used, "pairs_a_second": rate} | figures)
        if progress.step % recipe.checkpoint_every == 0 and progress.step < recipe.steps:
            running.save(saved, progress)
        if on_progress:
            on_progress(Progress("training", progress.step, recipe.steps))

    if not progress.best_step:
        progress.best_step = progress.step
        if world.rank == 0:
            _save_best(folder, judged, recipe, data, progress)
    if world.rank == 0:
        tensors, facts = checkpoint.load(folder / BEST)
        learner.load_state_dict(tensors)
        # On CUDA, a better step that a killed run had made after its checkpoint may not come again: it counts.
        progress.best_step, progress.best = facts["step"], facts["dev"]
        if keep_checkpoint:
            running.end(saved, progress)
        else:
            forget(folder)
    world.as_rank_0(learner)
    learner.eval()
    return Trained(
        progress.step, progress.best_step, progress.best, rate, time.monotonic() - began, progress.stopped_early
    )


def forget(folder: Path) -> None:
    """What was trained in it lies elsewhere, whole: the next run begins anew."""
    (folder / CHECKPOINT).unlink(missing_ok=True)


def check_precision(recipe: Recipe, device: torch.device) -> None:
    """fp16 needs a GPU: on a CPU it is slower than fp32, and there is no scaling of the loss. Raises UsageError."""
    if recipe.precision == "fp16" and device.type != "cuda":
        raise UsageError(f"precision=fp16 needs a CUDA device, and this run is on {device.type}; set precision=bf16.")


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then half a cosine down to nothing (Loshchilov and Hutter 2017)."""
    warm = max(1, round(recipe.warmup * recipe.steps))
    if step < warm:
        return recipe.learning_rate * (step + 1) / warm
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, recipe.steps - warm)))


def _all_finite(modules: nn.Module) -> bool:
    """A loss may still be finite while the step it leads to is not; such weights must not be judged or kept."""
    return bool(torch.stack([one.detach().isfinite().all() for one in modules.parameters()]).all())


@torch.no_grad()
def _scored(learner: Learner, score: Score) -> Mapping[str, float]:
    """As it would be used: nothing is dropped out."""
    return {name: float(value) for name, value in score(learner.eval()).items()}


def _save_best(folder: Path, learner: Learner, recipe: Recipe, data: str, state: run_state.State) -> None:
    tensors = {name: value.detach().cpu() for name, value in learner.state_dict().items()}
    facts = {"recipe": settings_of(recipe), "data": data, "step": state.best_step, "dev": dict(state.best)}
    checkpoint.save(folder / BEST, tensors, facts)


def _no_number(recipe: Recipe, step: int, has_checkpoint: bool) -> str:
    cure = f"a smaller learning_rate (now {recipe.learning_rate:g})"
    cure += "" if recipe.precision == "fp32" else " or precision=fp32"
    kept = "; the last checkpoint is kept, and the same command goes on from it" if has_checkpoint else ""
    return (
        f"Training {recipe.name} ended at step {step + 1}: the loss, its gradient or the weights are no numbers. In "
        f"another --out, {cure} usually helps{kept}."
    )
