r"""How a training goes on in time, and what is told of it."""

from __future__ import annotations

__all__ = ["History", "Schedule", "TrainingProgress"]

import dataclasses
import math

from dataclasses import dataclass, field
from typing import Any

DECAYS = ("cosine", "plateau", "constant")


@dataclass(frozen=True)
class Schedule:
    r"""How weights are moved.

    Arguments:
        steps: The number of steps.
        batch: The number of windows of a step, on all workers together.
        rate: The largest learning rate.
        decay: ``"cosine"``: the rate falls to zero; ``"plateau"``: it is halved when ``plateau``
            validations have brought no gain; ``"constant"``.
        warm_up: The steps over which the rate rises to its largest.
        weight_decay: The decay of weights.
        clip: The largest norm of the gradient.
        prior_rate: The factor of the rate for the parameters of the prior.
        pieces: In how many pieces the windows of a worker are solved, one after the other, for
            less memory.
        plateau: Validations without gain before the rate is halved.
        patience: Validations without gain before the end; ``None`` to go on.
        validate_every: The steps from one validation to the next.
        save_every: The steps from one checkpoint to the next.
        save_minutes: The minutes after which one is written anyway.

    Raises:
        ValueError: If the decay is not known, or a number not positive.
    """

    steps: int = 1000
    batch: int = 8
    rate: float = 1e-3
    decay: str = "cosine"
    warm_up: int = 0
    weight_decay: float = 0.0
    clip: float = math.inf
    prior_rate: float = 1.0
    pieces: int = 1
    plateau: int = 3
    patience: int | None = None
    validate_every: int = 100
    save_every: int = 100
    save_minutes: float = 10.0

    def __post_init__(self) -> None:
        names = ("steps", "batch", "rate", "clip", "pieces", "plateau", "validate_every")
        numbers = {k: getattr(self, k) for k in (*names, "save_every", "save_minutes")}
        wrong = [k for k, v in numbers.items() if not v > 0]
        if self.decay not in DECAYS or wrong or min(self.warm_up, self.weight_decay) < 0:
            msg = (
                f"Schedule(decay=...): expected one of {DECAYS} and positive numbers, got "
                f"{self.decay!r} and {wrong[:1] or 'a negative one'}. See the defaults."
            )
            raise ValueError(msg)

    def rate_at(self, step: int, factor: float = 1.0) -> float:
        r"""Returns the rate of a step, counted from zero.

        Example:
            >>> [Schedule(steps=4, rate=1.0).rate_at(i) for i in (0, 2)]
            [1.0, 0.5]
        """
        rising = min(1.0, (step + 1) / self.warm_up) if self.warm_up else 1.0
        falling = (1 + math.cos(math.pi * step / self.steps)) / 2
        return self.rate * factor * rising * (falling if self.decay == "cosine" else 1.0)

    def lasting(self) -> dict[str, Any]:
        r"""Returns what must not change in a run that goes on."""
        free = ("patience", "save_every", "save_minutes")
        kept = {k: v for k, v in dataclasses.asdict(self).items() if k not in free}
        return {k: str(v) if v == math.inf else v for k, v in kept.items()}


@dataclass(frozen=True)
class TrainingProgress:
    r"""Where a training stands.

    Arguments:
        step: The number of steps done.
        steps: The number of steps in all.
        loss: The loss of the last batch.
        validation: The last loss of validation, if there was one.
        rate: The learning rate.
        eta: The seconds to go.
    """

    step: int
    steps: int
    loss: float
    validation: float | None
    rate: float
    eta: float


@dataclass
class History:
    r"""What a training was like.

    Arguments:
        losses: The loss of each step.
        validations: Steps, and the loss of validation after them.
        best_step: The step after which the validation was best; its weights are kept.
        seconds: How long it took, in all.
        early: Whether it ended for want of gain.
    """

    losses: list[float] = field(default_factory=list)
    validations: list[tuple[int, float]] = field(default_factory=list)
    best_step: int = 0
    seconds: float = 0.0
    early: bool = False

    @property
    def best(self) -> float | None:
        r"""The least loss of validation."""
        return min((v for _, v in self.validations), default=None)
