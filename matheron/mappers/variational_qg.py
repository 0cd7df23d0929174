r"""Four-dimensional variational mapping with a one-layer model: 4DVarQG."""

from __future__ import annotations

__all__ = ["Assimilate", "QGVariational", "variational_qg"]

import math
import numpy as np
import torch

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from jaxtyping import Float
from scipy.optimize import minimize
from torch import Generator, Tensor
from torch.utils.checkpoint import checkpoint
from typing import Any

from .basin import QUARTERS, Basin, Windows
from .calibrated import Calibrated, held_out
from .problem import Mapped, Problem, Say
from ..dynamics import OneLayerQG


@dataclass(frozen=True)
class Assimilate:
    r"""What the model is allowed, and how long.

    Arguments:
        start: The std of the correction of the first state of a window, in metres.
        forcing: The std of the forcing of a day, in metres.
        noise: The std of the errors of data, the model's cells included, in metres.
        speed: The speed :math:`c` of long internal waves, in metres per second.
        length: The days of a window.
        stride: The days from one window to the next.
        steps: The most iterations.
        tolerance: The gradient, relative to the first one, at which to stop.
        member_steps: The iterations of a member; with none, members differ from the map as
            those of the first guess do from theirs.
    """

    start: float = 0.1
    forcing: float = 0.04
    noise: float = 0.03
    speed: float = 2.7
    length: int = 8
    stride: int = 5
    steps: int = 40
    tolerance: float = 1e-3
    member_steps: int = 0


class QGVariational(Calibrated):
    r"""The law of a sea whose model is corrected, at its start and every day, to meet the data.

    .. math:: J(\xi) = \tfrac12 |\xi|^2 + \tfrac12 \sum_i (H_i \eta(\xi) - y_i)^2 / \sigma_i^2,
        \qquad \eta_0 = \bar\eta_0 + s_0 G \xi_0, \quad
        \eta_{k + 1} = M(\eta_k) + s_1 G \xi_{k}.

    :math:`G` is a square root of the covariance of wave packets (those of MIOST), by its leading
    eigenvectors; the forcing of a day is added in four parts. On the border the model follows the
    changes of the first guess, and is corrected too. Gradients are those of the code, states
    being computed again rather than kept; the minimum is sought by L-BFGS, in all the windows at
    once, and windows are blended.

    Members minimise the cost of perturbed data and a perturbed control (randomise, then
    optimise): exact where the model is linear and the minimum is reached. By default they cost
    less: the map plus the deviations of members of the first guess, so that its error is taken to
    be like that of the first guess but smaller. In either case the spread is made that of the
    error at passes that were held out.

    References:
        | Regional mapping of energetic short mesoscale ocean dynamics from altimetry: performances
        | from real observations (Le Guillou et al., 2023)
        | https://doi.org/10.5194/os-19-1517-2023
        | Randomize-then-optimize: a method for sampling from posterior distributions in nonlinear
        | inverse problems (Bardsley et al., 2014)
        | https://doi.org/10.1137/140964023

    Arguments:
        basin: The sea and its data.
        allow: What the model is allowed.
        members: The runs that the std is from.
        seed: The seed of the runs that calibrate it.
    """

    def __init__(self, basin: Basin, allow: Assimilate, members: int = 16, seed: int = 0) -> None:
        super().__init__(basin, members, seed)
        self.allow = allow
        self.report: dict[str, Any] = {}
        size = min(QUARTERS * allow.length, basin.total)
        self.windows = Windows.over(basin.total, size, QUARTERS * allow.stride)

    def on(self, basin: Basin) -> QGVariational:
        return QGVariational(basin, self.allow, self.members, self.seed)

    @cached_property
    def guess(self) -> Float[Tensor, "w k n"]:
        r"""The first guess of each window."""
        return self.basin.first_guess[self.windows.index].to(self.basin.dtype)

    @cached_property
    def model(self) -> OneLayerQG:
        r"""The model, with steps short enough for the first guess and half as fast again."""
        fastest = 1.5 * self.basin.fastest(self.guess)
        return self.basin.model(fastest, speed=self.allow.speed)

    @cached_property
    def packets(self) -> Float[Tensor, "n r"]:
        r"""The square root :math:`G` of the covariance of packets, of variance one."""
        return self.basin.packets.to(self.basin.dtype)

    @cached_property
    def stds(self) -> Float[Tensor, " d"]:
        r"""The stds of the correction of the start and of the forcing of each day."""
        days = math.ceil(self.windows.size / QUARTERS)
        forcing = [self.allow.forcing] * days
        return torch.tensor([self.allow.start, *forcing], dtype=self.basin.dtype)

    @property
    def shape(self) -> tuple[int, int, int]:
        r"""The windows, the corrections and the packets of a control."""
        return len(self.windows.starts), len(self.stds), self.packets.shape[1]

    @cached_property
    def sites(self) -> tuple[Tensor, Tensor, Tensor]:
        r"""The data of the windows, the nodes about them among those of all windows, weights."""
        nodes, weights = self.basin.corners
        found = []
        for w, start in enumerate(self.windows.starts.tolist()):
            local = nodes - start * self.basin.n
            top = (self.windows.size + 1) * self.basin.n
            # a datum on the last state has no weight beyond it
            inside = ((local >= 0) & ((local < top) | (weights == 0))).all(dim=1)
            rows = torch.nonzero(inside)[:, 0]
            found.append((rows, local[rows].clamp(max=top - 1) + w * top, weights[rows]))
        rows, places, shares = (torch.cat(part) for part in zip(*found, strict=True))
        return rows, places, shares.to(self.basin.dtype)

    def states(self, control: Float[Tensor, "*batch w d r"]) -> Float[Tensor, "*batch w k n"]:
        r"""Returns the heights of a control, every quarter of a day of each window."""
        corrections = (control @ self.packets.mT) * self.stds[:, None]
        guess, shape = self.guess, self.basin.shape
        x = guess[:, 0] + corrections[..., 0, :]
        states = [x]
        for k in range(0, self.windows.size, QUARTERS):
            few = guess[:, k : k + QUARTERS + 1].unflatten(-1, shape)
            force = corrections[..., 1 + k // QUARTERS, :] / QUARTERS
            part = checkpoint(
                self._day, x, few, force, use_reentrant=False, preserve_rng_state=False
            )
            states += part.unbind(dim=-2)
            x = states[-1]
        return torch.stack(states, dim=-2)

    def _day(self, x: Tensor, guess: Tensor, force: Tensor) -> Tensor:
        r"""Returns the states of a day after the first."""
        model, shape, found = self.model, self.basin.shape, []
        steps = round(86400 / QUARTERS / model.dt)
        x, force = x.unflatten(-1, shape), force.unflatten(-1, shape)
        for k in range(guess.shape[-3] - 1):
            change = guess[..., k + 1, :, :] - guess[..., k, :, :]
            x = model(x, steps) + torch.where(model.frozen, change, 0.0) + force
            found.append(x.flatten(-2))
        return torch.stack(found, dim=-2)

    @torch.no_grad()
    def encode(self, states: Float[Tensor, "w k n"]) -> Float[Tensor, "w d r"]:
        r"""Returns a control whose states come near to others, day by day: where to begin."""
        x, found = self.guess[:, 0], [torch.zeros_like(self.guess[:, 0] @ self.packets)]
        for k in range(0, self.windows.size, QUARTERS):
            few = self.guess[:, k : k + QUARTERS + 1].unflatten(-1, self.basin.shape)
            free = self._day(x, few, torch.zeros_like(x))[..., -1, :]
            gap = states[:, min(k + QUARTERS, self.windows.size)] - free
            std = self.allow.forcing
            size = self.packets.square().sum(dim=0)
            found.append(std * (gap @ self.packets) / (std**2 * size + self.allow.noise**2))
            x = self._day(x, few, (std * found[-1] @ self.packets.mT) / QUARTERS)[..., -1, :]
        return torch.stack(found, dim=-2)

    def misfit(
        self, states: Float[Tensor, "*batch w k n"], y: Float[Tensor, "*batch m"]
    ) -> Float[Tensor, "*batch s"]:
        r"""Returns what the data say beyond the states, over the std of their errors."""
        rows, places, weights = self.sites
        mean = self.basin.mean.to(states.dtype)
        seen = ((states - mean).flatten(-3)[..., places] * weights).sum(dim=-1)
        return (seen - y[..., rows].to(states.dtype)) / self.noise[rows]

    @cached_property
    def noise(self) -> Float[Tensor, " m"]:
        r"""The std of the errors of the data."""
        own = self.basin.observation.noise_variance.detach()
        return own.clamp(min=self.allow.noise**2).sqrt().to(self.basin.dtype)

    def cost(
        self,
        control: Float[Tensor, "*batch w d r"],
        y: Float[Tensor, "*batch m"],
        middle: Float[Tensor, "*batch w d r"],
    ) -> Float[Tensor, "*batch"]:
        r"""Returns :math:`J`, about another middle of the control than zero."""
        apart = (control - middle).square().flatten(-3).sum(dim=-1)
        return (apart + self.misfit(self.states(control), y).square().sum(dim=-1)) / 2

    def minimise(
        self, y: Float[Tensor, "*batch m"], middle: Tensor, start: Tensor, steps: int
    ) -> Float[Tensor, "*batch w d r"]:
        r"""Returns the control of least cost, from a first one."""
        dtype = self.basin.dtype

        def value(v: np.ndarray) -> tuple[float, np.ndarray]:
            with torch.enable_grad():
                control = torch.as_tensor(v, dtype=dtype).reshape(start.shape).requires_grad_()
                total = self.cost(control, y, middle).sum()
                (slope,) = torch.autograd.grad(total, control)
            return total.item(), slope.double().flatten().numpy()

        first = start.double().flatten().numpy()
        largest = np.abs(value(first)[1]).max()
        options = {
            "maxiter": steps,
            "maxfun": 2 * steps,
            "maxcor": 20,
            "ftol": 0.0,
            "gtol": self.allow.tolerance * largest,
        }
        found = minimize(value, first, jac=True, method="L-BFGS-B", options=options)
        left = float(np.abs(found.jac).max() / largest)
        self.report = {"iterations": found.nit, "cost": float(found.fun), "gradient": left}
        return torch.as_tensor(found.x, dtype=dtype).reshape(start.shape)

    @cached_property
    def best(self) -> Float[Tensor, "w d r"]:
        r"""The control of least cost."""
        zero = torch.zeros(self.shape, dtype=self.basin.dtype)
        start = self.encode(self.guess)
        return self.minimise(self.basin.y, zero, start, self.allow.steps)

    def run(self, y: Float[Tensor, " m"]) -> Float[Tensor, "q n"]:
        control = self.best
        if not torch.equal(y, self.basin.y):
            zero = torch.zeros_like(control)
            control = self.minimise(y, zero, control, self.allow.steps)
        return self._blended(control)

    def runs(self, size: int, generator: Generator | None) -> Float[Tensor, "size q n"]:
        if not self.allow.member_steps:
            return self.basin.simulate(size, generator)[0]
        z = torch.randn(size, *self.shape, generator=generator, dtype=torch.float64)
        e = torch.randn(size, len(self.basin.y), generator=generator, dtype=torch.float64)
        middle = z.to(self.basin.dtype)
        y = self.basin.y - e * self.noise
        found = self.minimise(y, middle, self.best + middle, self.allow.member_steps)
        return self._blended(found)

    @torch.no_grad()
    def _blended(self, control: Float[Tensor, "*batch w d r"]) -> Float[Tensor, "*batch q n"]:
        return self.windows.blend(self.states(control).double())

    def info(self, y: Float[Tensor, " m"]) -> dict[str, Any]:
        return super().info(y) | self.report


CANDIDATES = (Assimilate(), Assimilate(noise=0.02), Assimilate(speed=2.2))
"""What a model may be allowed: to choose from."""


def variational_qg(
    problem: Problem,
    say: Say,
    *,
    candidates: Sequence[Assimilate] = CANDIDATES,
    spacing: float = 0.25,
    members: int = 16,
) -> Mapped:
    r"""A one-layer quasi-geostrophic model, corrected by wave packets to meet the data (4DVarQG).

    First guess and border are an optimal interpolation. Speed and stds are those, among
    candidates, with the least error at passes that are held out of a window in the middle.

    Arguments:
        problem: The problem.
        say: Where to say what is found.
        candidates: What the model may be allowed; one is taken as it is.
        spacing: The width of a cell of the model, in degrees.
        members: The runs that the std is from.
    """
    basin = Basin(problem, say, spacing)
    allow = choose_allowance(basin, candidates, say)
    law = QGVariational(basin, allow, members, problem.seed)
    return Mapped(law(basin.y), problem.shift, asdict(allow))


def choose_allowance(basin: Basin, candidates: Sequence[Assimilate], say: Say) -> Assimilate:
    r"""Returns what the model is best allowed, by the error at passes that are held out."""
    held = held_out(basin)
    if len(candidates) == 1 or held is None:
        return candidates[0]
    kept, out = basin.take(~held), basin.take(held)
    errors = [_error_at(kept, out, allow) for allow in candidates]
    shown = [
        f"c {a.speed:g}, forcing {a.forcing:g}, noise {a.noise:g}: {e:.4f}"
        for a, e in zip(candidates, errors, strict=True)
    ]
    say(f"held-out error by allowance: {'; '.join(shown)}")
    return candidates[errors.index(min(errors))]


def _error_at(kept: Basin, out: Basin, allow: Assimilate) -> float:
    law, other = QGVariational(kept, allow), QGVariational(out, allow)
    law.windows = other.windows = law.windows.middle
    if not len(other.sites[0]):
        return 0.0
    with torch.no_grad():
        error = other.misfit(law.states(law.best), out.y) * other.noise[other.sites[0]]
    return error.square().mean().sqrt().item()
