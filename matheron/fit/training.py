r"""Training a solver and its prior together: one loop, whatever the loss.

What is trained is what is used: a step calls ``solver(prior, observation).estimate(y)``, as a map
does.
"""

from __future__ import annotations

__all__ = ["train"]

import contextlib
import math
import time
import torch

from collections.abc import Callable, Iterator
from jaxtyping import Float, Int
from lightning_fabric import Fabric
from pathlib import Path
from torch import Generator, Tensor
from typing import Any

from .checkpoint import match, packed, read_checkpoint, unpacked, write_checkpoint
from .fabric import hardware
from .losses import Loss
from .objective import Objective, Observe, Sealed, observe
from .schedule import History, Schedule, TrainingProgress
from ..data.batches import Source
from ..priors.base import Prior
from ..solvers.base import Solver

SEEDS = 2**62
"""How many seeds there are for a window."""
GAIN = 1e-6
"""The least relative gain of a validation that counts as one."""


def train(
    solver: Solver[Any],
    prior: Prior,
    source: Source,
    loss: Loss,
    validation: Source | None = None,
    schedule: Schedule | None = None,
    *,
    observe: Observe = observe,
    fabric: Fabric | None = None,
    generator: Generator | None = None,
    checkpoint: Path | None = None,
    progress: Callable[[TrainingProgress], None] | None = None,
) -> History:
    r"""Trains a solver and its prior, in place.

    A run that is cut off, at any moment, goes on from its checkpoint to the same weights as one
    that was not: bit for bit on a processor with the same number of threads. With validation,
    the best weights are kept.

    References:
        | Learning variational data assimilation models and solvers (Fablet et al., 2021)
        | https://doi.org/10.1029/2021MS002572

    Arguments:
        solver: The solver.
        prior: The prior, on a grid of the size of a window.
        source: The windows to train on.
        loss: What is made small.
        validation: Other windows, far from the first.
        schedule: How weights are moved.
        observe: What makes an observation, and data, of a batch.
        fabric: What the training runs on, as :func:`hardware` gives it: one processor by default.
        generator: The random number generator of the order of windows, and of all seeds.
        checkpoint: A file (``.safetensors``) where the run is kept, and from which it goes on.
        progress: What is told after each step.

    Returns:
        What the training was like.

    Raises:
        ValueError: If nothing can move, if sizes do not agree, if the loss is no longer finite,
            or if the checkpoint is of another run.
    """
    schedule = schedule or Schedule()
    _check(prior, source, validation, schedule)
    run = _Run(
        Objective(solver, prior, loss, observe),
        (source, validation),
        schedule,
        fabric or hardware(),
        _Dice(generator),
        checkpoint,
    )
    return run.go(progress)


def _check(prior: Prior, source: Source, validation: Source | None, schedule: Schedule) -> None:
    for name, windows in (("source", source), ("validation", validation)):
        if windows is not None and len(windows.grid) != len(prior.domain):
            msg = (
                f"train({name}=...): expected windows of {len(prior.domain)} nodes, as the prior "
                f"has, got {len(windows.grid)}. Put the prior on the grid of the windows."
            )
            raise ValueError(msg)
    if validation is None and (schedule.decay == "plateau" or schedule.patience is not None):
        msg = (
            "train(validation=...): expected windows for a decay at a plateau, or for patience, "
            "got none. Give some, or let the rate fall along a cosine."
        )
        raise ValueError(msg)


class _Dice:
    r"""The order of windows, and their seeds: all that is drawn at random in a run."""

    def __init__(self, generator: Generator | None) -> None:
        if generator is None:
            seed = int(torch.randint(SEEDS, ()))
            generator = Generator().manual_seed(seed)
        self.generator = generator
        self.left = torch.empty(0, dtype=torch.long)

    def throw(self, count: int, size: int) -> tuple[Int[Tensor, " b"], Int[Tensor, " b"]]:
        r"""Returns the windows of the next batch and their seeds; epochs follow each other."""
        while len(self.left) < size:
            self.left = torch.cat([self.left, torch.randperm(count, generator=self.generator)])
        index, self.left = self.left[:size], self.left[size:]
        return index, torch.randint(SEEDS, (size,), generator=self.generator)

    def state(self) -> dict[str, Tensor]:
        return {"dice.generator": self.generator.get_state(), "dice.left": self.left}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        self.generator.set_state(tensors["dice.generator"])
        self.left = tensors["dice.left"]


class _Run:
    r"""A training: where it stands, and how it goes on."""

    def __init__(
        self,
        objective: Objective,
        sources: tuple[Source, Source | None],
        schedule: Schedule,
        fabric: Fabric,
        dice: _Dice,
        path: Path | None,
    ) -> None:
        self.objective, self.schedule, self.fabric = objective, schedule, fabric
        self.source, self.validation = sources
        self.dice, self.path = dice, path
        self._check_workers()
        groups = objective.groups(schedule.prior_rate)
        self.adam = torch.optim.AdamW(groups, lr=schedule.rate, weight_decay=schedule.weight_decay)
        self.module = fabric.setup_module(objective)
        self.optimiser: Any = fabric.setup_optimizers(self.adam)
        state = fabric.broadcast(dice.generator.get_state())
        dice.generator.set_state(state.cpu())
        self.history = History()
        self.step, self.factor, self.waited = 0, 1.0, 0
        self.best: dict[str, Tensor] = {}
        self.saved = time.monotonic()
        self.identity = self._identity()

    def _check_workers(self) -> None:
        workers, size = self.fabric.world_size, self.schedule.batch
        if size % workers:
            msg = (
                f"train(schedule=...): expected a batch that {workers} workers can share, got "
                f"{size}. Take a multiple of {workers}."
            )
            raise ValueError(msg)
        if self.path is not None and (
            self.path.is_dir() or not self.path.absolute().parent.is_dir()
        ):
            msg = (
                f"train(checkpoint={self.path}): expected a file in a folder that exists, got "
                "another. Name a file, e.g. run.safetensors."
            )
            raise ValueError(msg)

    def go(self, progress: Callable[[TrainingProgress], None] | None) -> History:
        self._resume()
        first, start, before = self.step, time.monotonic(), self.history.seconds
        while self.step < self.schedule.steps and not self.history.early:
            loss = self._advance()
            self.history.losses.append(loss)
            self.step += 1
            self._validate()
            spent = time.monotonic() - start
            self.history.seconds = before + spent
            self._save()
            if progress is not None and self.fabric.is_global_zero:
                eta = spent / (self.step - first) * (self.schedule.steps - self.step)
                progress(self._progress(loss, eta))
        if self.best:
            self.objective.load_state_dict(self.best)
        self.adam.zero_grad()
        return self.history

    def _progress(self, loss: float, eta: float) -> TrainingProgress:
        known = self.history.validations
        validation = known[-1][1] if known else None
        rate = self.schedule.rate_at(self.step - 1, self.factor)
        return TrainingProgress(self.step, self.schedule.steps, loss, validation, rate, eta)

    # one step

    def _advance(self) -> float:
        index, seeds = self.dice.throw(len(self.source), self.schedule.batch)
        rank, workers = self.fabric.global_rank, self.fabric.world_size
        rate = self.schedule.rate_at(self.step, self.factor)
        for group in self.adam.param_groups:
            group["lr"] = rate * group["factor"]
        self.adam.zero_grad()
        own = slice(rank, None, workers)
        loss = self._descend(index[own], seeds[own])
        told = float(self._reduced(loss, "mean"))
        self._check_finite(told, "loss")
        norm: Any = self.fabric.clip_gradients(
            self.module,
            self.optimiser,
            max_norm=self.schedule.clip,
            error_if_nonfinite=False,
        )
        if self.fabric.strategy.precision.precision != "16-mixed":  # whose scaler skips such steps
            self._check_finite(float(norm), "gradient")
        self.optimiser.step()
        self.fabric.log_dict({"loss": told, "rate": rate}, self.step)
        return told

    def _descend(self, index: Int[Tensor, " b"], seeds: Int[Tensor, " b"]) -> Float[Tensor, ""]:
        r"""Adds up gradients over pieces of a batch, and returns the loss."""
        pieces = list(
            zip(index.chunk(self.schedule.pieces), seeds.chunk(self.schedule.pieces), strict=True)
        )
        total = torch.zeros((), dtype=torch.float64, device=self.fabric.device)
        for k, (i, s) in enumerate(pieces):
            batch = self.source.batch(i, s).to(self.fabric.device)
            waits = self.fabric.world_size > 1 and k + 1 < len(pieces)
            with self._drawing(int(s[0])), self._alone(waits):
                value = self.module(Sealed(batch)).content * (len(i) / len(index))
                self.fabric.backward(value)
            total += value.detach()
        return total

    @contextlib.contextmanager
    def _drawing(self, seed: int) -> Iterator[None]:
        r"""Whatever a network draws, dropout say, is drawn from a seed that a resumed run has."""
        device = self.fabric.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            yield

    def _alone(self, waits: bool) -> contextlib.AbstractContextManager[Any]:
        r"""Workers add their gradients once, after the last piece."""
        return self.fabric.no_backward_sync(self.module, enabled=waits)

    def _check_finite(self, value: float, what: str) -> None:
        if math.isfinite(value):
            return
        kept = "" if self.path is None else f" The checkpoint {self.path} is of an earlier step."
        msg = (
            f"train(schedule=...): expected a finite {what}, got {value} at step {self.step + 1} "
            f"of {self.schedule.steps}. Lower the rate, clip the gradient (clip=1.0) or warm up."
            f"{kept}"
        )
        raise ValueError(msg)

    # validation

    def _validate(self) -> None:
        last = self.step == self.schedule.steps
        if self.validation is None or (self.step % self.schedule.validate_every and not last):
            return
        value = self._score(self.validation)
        self._check_finite(value, "loss of validation")
        best = self.history.best
        self.history.validations.append((self.step, value))
        self.fabric.log_dict({"validation": value}, self.step)
        if best is None or value < best - GAIN * abs(best):
            held = self.objective.state_dict()
            self.best = {k: v.detach().clone() for k, v in held.items()}
            self.history.best_step, self.waited = self.step, 0
            return
        self.waited += 1
        if self.schedule.decay == "plateau" and self.waited % self.schedule.plateau == 0:
            self.factor /= 2
        patience = self.schedule.patience
        self.history.early = patience is not None and self.waited >= patience

    @torch.no_grad()
    def _score(self, source: Source) -> float:
        r"""Returns the mean loss over all windows, with the same seeds each time."""
        own = torch.arange(self.fabric.global_rank, len(source), self.fabric.world_size)
        size = max(1, self.schedule.batch // self.fabric.world_size // self.schedule.pieces)
        total = torch.zeros(2, dtype=torch.float64, device=self.fabric.device)
        self.objective.eval()
        with self._drawing(0), self.fabric.autocast():
            for index in own.split(size):
                batch = source.batch(index, index).to(self.fabric.device)
                values = self.objective.values(batch)
                total += torch.stack([values.sum().double(), total.new_tensor(len(values))])
        self.objective.train()
        total = self._reduced(total, "sum")
        return float(total[0] / total[1])

    def _reduced(self, value: Tensor, how: str) -> Tensor:
        r"""Returns the sum, or the mean, over workers."""
        reduced = self.fabric.all_reduce(value, reduce_op=how)
        assert isinstance(reduced, Tensor)
        return reduced

    # the checkpoint

    def _identity(self) -> dict[str, Any]:
        others = {} if self.validation is None else {"validation": self.validation.fingerprint()}
        return {
            "architecture": self.objective.architecture(),
            "data": self.source.fingerprint(),
            "loss": repr(self.objective.loss),
            "schedule": self.schedule.lasting(),
            **others,
        }

    def _save(self) -> None:
        if self.path is None or not self.fabric.is_global_zero:
            return
        done = self.step == self.schedule.steps or self.history.early
        late = time.monotonic() - self.saved > 60 * self.schedule.save_minutes
        if not (done or late or self.step % self.schedule.save_every == 0):
            return
        history = self.history
        tensors = {f"weights.{k}": v for k, v in self.objective.state_dict().items()}
        tensors |= {f"best.{k}": v for k, v in self.best.items()}
        tensors |= packed("adam", self.adam) | self.dice.state()
        tensors["losses"] = torch.tensor(history.losses, dtype=torch.float64)
        counters = {
            "identity": self.identity,
            "step": self.step,
            "factor": self.factor,
            "waited": self.waited,
            "validations": history.validations,
            "best_step": history.best_step,
            "seconds": history.seconds,
            "early": history.early,
            "precision": self.fabric.strategy.precision.state_dict(),
        }
        write_checkpoint(self.path, tensors, counters)
        self.saved = time.monotonic()

    def _resume(self) -> None:
        if self.path is None or not self.path.exists():
            return
        tensors, counters = read_checkpoint(self.path)
        match(self.path, self.identity, counters["identity"])

        def named(start: str) -> dict[str, Tensor]:
            cut = len(start)
            return {k[cut:]: v for k, v in tensors.items() if k.startswith(start)}

        self.objective.load_state_dict(named("weights."))
        self.best = {k: v.to(self.fabric.device) for k, v in named("best.").items()}
        unpacked("adam", self.adam, tensors)
        self.dice.restore(tensors)
        self.step, self.factor = counters["step"], counters["factor"]
        self.waited = counters["waited"]
        self.fabric.strategy.precision.load_state_dict(counters["precision"])
        self.history = History(
            tensors["losses"].tolist(),
            [(step, value) for step, value in counters["validations"]],
            counters["best_step"],
            counters["seconds"],
            counters["early"],
        )
