r"""What comes of learning a model, and the file that keeps it."""

from __future__ import annotations

__all__ = ["LearnedDynamics"]

import safetensors
import torch

from dataclasses import dataclass, field
from jaxtyping import Float
from pathlib import Path
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor

from ..data.write import whole_or_not
from ..domain import Grid
from ..dynamics import Dynamics
from ..priors.dynamics import WeakConstraint


@dataclass
class LearnedDynamics:
    r"""A model that was learned, with what it leaves unsaid.

    Arguments:
        model: The model.
        steps: The number of its time steps from one time of the data to the next.
        mean: The mean of the states, with shape :math:`(s)`.
        covariance: Their covariance, with shape :math:`(s, s)`.
        noise: The covariance :math:`Q` of the errors of the model from one time to the next.
        log_likelihoods: The log-likelihood of the data before each round.
        trajectories: The likeliest trajectories behind the data, with shape :math:`(b, t, s)`,
            where the method has found them.
        damping: How much the next step of scoring is held back, relative to the information.
    """

    model: Dynamics
    steps: int
    mean: Float[Tensor, " s"]
    covariance: Float[Tensor, "s s"]
    noise: Float[Tensor, "s s"]
    log_likelihoods: list[float] = field(default_factory=list)
    trajectories: Float[Tensor, "b t s"] | None = None
    damping: float = 1e-2

    def prior(self, domain: Grid) -> WeakConstraint:
        r"""Returns the law of trajectories, on a grid with the time step of the data."""
        initial = (self.mean, self.covariance)
        return WeakConstraint(domain, self.model, self.steps, initial, self.noise)

    def save(self, path: Path, generator: Generator | None = None) -> None:
        r"""Writes weights and history (safetensors), whole or not at all.

        Arguments:
            path: The file.
            generator: The random number generator whose state is kept, for a run to go on.
        """
        held = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        held |= {"mean": self.mean, "covariance": self.covariance, "noise": self.noise}
        held["log_likelihoods"] = torch.tensor(self.log_likelihoods, dtype=torch.float64)
        held["damping"] = torch.tensor(self.damping, dtype=torch.float64)
        if self.trajectories is not None:
            held["trajectories"] = self.trajectories
        if generator is not None:
            held["generator"] = generator.get_state()
        with whole_or_not(path.absolute()) as temporary:
            save_file({k: v.contiguous() for k, v in held.items()}, temporary)

    def load(self, path: Path, generator: Generator | None = None) -> None:
        r"""Takes back what was written, in place.

        Arguments:
            path: The file.
            generator: The random number generator that goes on from where it was.

        Raises:
            ValueError: If the file is of another model, or cannot be read.
        """
        try:
            held = load_file(path)
            model = {k[6:]: v for k, v in held.items() if k.startswith("model.")}
            history = held["log_likelihoods"].tolist()
            named = [held[k] for k in ("mean", "covariance", "noise")]
            self.model.load_state_dict(model)
        except (OSError, KeyError, RuntimeError, safetensors.SafetensorError) as error:
            short = " ".join(str(error).split())[:120]
            msg = (
                f"LearnedDynamics.load(path={path}): expected weights of the same model, got: "
                f"{short}. Name another file, or delete this one."
            )
            raise ValueError(msg) from None
        self.mean, self.covariance, self.noise = named
        self.log_likelihoods, self.trajectories = history, held.get("trajectories")
        self.damping = held["damping"].item() if "damping" in held else self.damping
        if generator is not None and "generator" in held:
            generator.set_state(held["generator"])
