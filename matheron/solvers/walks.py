r"""Walks of members by Langevin's equation, each at its own pace."""

from __future__ import annotations

__all__ = ["Plan", "Walk", "walk_over"]

import math
import torch

from dataclasses import dataclass
from jaxtyping import Float, Int
from torch import Tensor

from .descent import Objective
from .gaussian_laws import GaussianLaw
from .grounds import Ground

NUMBERS = 2_000_000
"""The numbers of the members that walk at once."""
RECORDS = 50
"""The most fields of each member that mean and spread are made of."""
FARTHEST = 10.0
"""The longest drift, in widths of the Gaussian law."""
WIDEST = 2.0
"""The longest step: it forgets where it came from."""
SHORTEST = 1e-8
"""The shortest step that a walk may come down to."""


@dataclass(frozen=True)
class Plan:
    r"""How far members walk.

    Arguments:
        steps: The number of steps.
        settling: In how many of them, the first, the length of the steps is learned.
        acceptance: The acceptance that they learn to have.
    """

    steps: int
    settling: int
    acceptance: float


@dataclass(frozen=True)
class _At:
    r"""Where members are, and what their next steps need.

    Arguments:
        d: The places, from the mean of the Gaussian law.
        potential: The cost, less that of the Gaussian law.
        slope: Its gradient, that of the cost shortened where it is out of proportion.
        way: The covariance of the law times that.
    """

    d: Float[Tensor, "b c"]
    potential: Float[Tensor, " b"]
    slope: Float[Tensor, "b c"]
    way: Float[Tensor, "b c"]

    def where(self, moved: Tensor, other: _At) -> _At:
        r"""Returns the others where members moved."""
        pairs = zip(self._values(), other._values(), strict=True)
        new = [torch.where(moved.reshape(-1, *[1] * (a.ndim - 1)), b, a) for a, b in pairs]
        return _At(*new)

    def _values(self) -> tuple[Tensor, ...]:
        return (self.d, self.potential, self.slope, self.way)


class _Chain:
    r"""Steps of Crank-Nicolson Langevin, accepted or not, each member by itself.

    With :math:`\Phi` the cost less that of the law :math:`\mathcal{N}(m, C)`, and :math:`d` the
    place from :math:`m`,

    .. math:: d' = \rho d - (1 - \rho) C \nabla \Phi + \sqrt{1 - \rho^2} \, \xi, \qquad
        \xi \sim \mathcal{N}(0, C), \quad \rho = \frac{2 - \delta}{2 + \delta}

    is accepted with the probability of Metropolis and Hastings, which is one if :math:`\Phi` is
    constant.
    """

    def __init__(self, law: GaussianLaw, objective: Objective) -> None:
        self.law, self.objective = law, objective

    def at(self, d: Float[Tensor, "b c"]) -> _At:
        r"""Returns what the next steps from some places need."""
        cost, g = self.objective.gradient(self.law.mode + d)
        weighed = self.law.weigh(d)
        potential = cost - (d * weighed).sum(dim=-1) / 2
        down = self.law.times(g)
        length = (g * down).sum(dim=-1).clamp(min=0).sqrt()
        # far out a slope may throw a member further still, on the other side
        short = (FARTHEST * (1 + math.sqrt(d.shape[1])) / length).clamp(max=1.0)[:, None]
        potential = torch.where(potential.isnan(), torch.inf, potential)
        slope, way = short * g - weighed, short * down - d
        return _At(d, potential, slope.nan_to_num(), way.nan_to_num())

    def step(
        self, here: _At, delta: Float[Tensor, " b"], z: Float[Tensor, "b c"], u: Tensor
    ) -> tuple[_At, Float[Tensor, " b"]]:
        r"""Returns where members are after a step, and the probabilities that it was accepted."""
        rho = ((2 - delta) / (2 + delta))[:, None]
        noise = (1 - rho.square()).sqrt() * self.law.color(z)
        there = self.at(rho * here.d - (1 - rho) * here.way + noise)
        back = self._flow(there, here, rho) - self._flow(here, there, rho)
        log_ratio = here.potential - there.potential - back / (1 + rho[:, 0])
        chance = log_ratio.nan_to_num(-torch.inf).clamp(max=0.0).exp()
        return here.where(u < chance, there), chance

    @staticmethod
    def _flow(a: _At, b: _At, rho: Float[Tensor, "b 1"]) -> Float[Tensor, " b"]:
        r"""Returns what the drift at ``a`` has to do with a step from there to ``b``."""
        along = ((b.d - rho * a.d) * a.slope).sum(dim=-1)
        return along + (1 - rho[:, 0]) * (a.slope * a.way).sum(dim=-1) / 2


class _Pace:
    r"""The lengths of the steps of each member, which learn from what is accepted.

    Arguments:
        size: The number of members.
        goal: The acceptance to come to.
        rounds: For how many steps they learn; then the mean of the second half of them is kept.
    """

    def __init__(self, size: int, goal: float, rounds: int) -> None:
        self.log = torch.zeros(size, dtype=torch.float64)
        self.total = torch.zeros_like(self.log)
        self.goal, self.rounds, self.done, self.counted = goal, rounds, 0, 0

    def __call__(self) -> Float[Tensor, " b"]:
        return self.log.exp()

    def learn(self, chance: Float[Tensor, " b"]) -> None:
        r"""Takes note of the probabilities of a step, as long as there is something to learn."""
        if self.done >= self.rounds:
            return
        self.done += 1
        self.log = self.log + 2 * self.done**-0.6 * (chance - self.goal)
        self.log = self.log.clamp(math.log(SHORTEST), math.log(WIDEST))
        if 2 * self.done > self.rounds:
            self.total, self.counted = self.total + self.log, self.counted + 1
        if self.done == self.rounds:
            self.log = self.total / self.counted


@dataclass(frozen=True)
class Walk:
    r"""What became of members.

    Arguments:
        members: The fields of the members at the end.
        mean: The mean of each member over its way, once the steps are settled.
        square: The mean square of all of them, about ``origin``.
        origin: The field that squares are taken about.
        acceptance: The share of the steps that each member took.
        step: The length of its steps, :math:`\delta`.
        kept: How many fields of each member are in the means.
        remembered: The correlation of the last fields with those when the steps were settled.
    """

    members: Float[Tensor, "b n"]
    mean: Float[Tensor, "b n"]
    square: Float[Tensor, " n"]
    origin: Float[Tensor, " n"]
    acceptance: Float[Tensor, " b"]
    step: Float[Tensor, " b"]
    kept: int
    remembered: float

    def variance(self) -> Float[Tensor, " n"]:
        r"""Returns the variance of the field, of all the members on all their ways."""
        within = self.square - (self.mean.mean(dim=0) - self.origin).square()
        count = max(self.draws(), 2.0)
        return within.clamp(min=0) * (count / (count - 1))

    def draws(self) -> float:
        r"""Returns how many independent draws have means that spread as those of the members.

        .. math:: b \, \frac{\sum_j \mathrm{Var}(x_j)}{\sum_j \mathrm{Var}(\bar x_j)}

        over nodes :math:`j`, at most all the fields that were kept.
        """
        whole = (self.square - (self.mean.mean(dim=0) - self.origin).square()).sum()
        most = len(self.mean) * self.kept
        if len(self.mean) < 2:
            return float(most)
        apart = self.mean.var(dim=0).sum()
        return min(len(self.mean) * (whole / apart).item(), float(most)) if apart > 0 else most


class _Way:
    r"""The way of some members, and what is noted of it."""

    def __init__(
        self,
        ground: Ground,
        law: GaussianLaw,
        y: Float[Tensor, " m"],
        v: Float[Tensor, "b c"],
        seeds: Int[Tensor, " b"],
        plan: Plan,
    ) -> None:
        self.ground, self.law, self.plan = ground, law, plan
        self.chain = _Chain(law, ground.objective(y.expand(len(v), -1)))
        self.pace = _Pace(len(v), plan.acceptance, plan.settling)
        self.generators = [torch.Generator().manual_seed(s) for s in seeds.tolist()]
        self.here = self.chain.at(v - law.mode)
        self._check(self.here)

    @staticmethod
    def _check(here: _At) -> None:
        bad = ~here.potential.isfinite()
        if bad.any():
            msg = (
                f"Langevin(start=...): expected members with a finite cost, got {int(bad.sum())} "
                f"of {len(bad)} without. Start from a solver whose members the data allow."
            )
            raise ValueError(msg)

    def _step(self) -> Float[Tensor, " b"]:
        c = self.here.d.shape[1]
        z = torch.stack(
            [torch.randn(c, dtype=torch.float64, generator=g) for g in self.generators]
        )
        u = torch.cat([torch.rand(1, dtype=torch.float64, generator=g) for g in self.generators])
        self.here, chance = self.chain.step(self.here, self.pace(), z, u)
        return chance

    def _fields(self) -> Float[Tensor, "b n"]:
        return self.ground.decode(self.law.mode + self.here.d)

    def to_the_end(self) -> Walk:
        r"""Walks: the steps learn their lengths first, then fields are noted."""
        for _ in range(self.plan.settling):
            self.pace.learn(self._step())
        first, left = self._fields(), self.plan.steps - self.plan.settling
        every = max(1, left // RECORDS)
        origin = self.ground.decode(self.law.mode[None])[0]
        total, square = torch.zeros_like(first), torch.zeros_like(origin)
        chances = first.new_zeros(len(first))
        for k in range(left):
            chances = chances + self._step()
            if (left - 1 - k) % every == 0:
                x = self._fields() - origin
                total, square = total + x, square + x.square().mean(dim=0)
        kept = -(-left // every)
        members = self._fields()
        return Walk(
            members, origin + total / kept, square / kept, origin, chances / left, self.pace(),
            kept, _correlation(first, members),
        )  # fmt: skip


def _correlation(a: Float[Tensor, "b n"], b: Float[Tensor, "b n"]) -> float:
    r"""Returns the correlation of two ensembles, over members, of all nodes together."""
    if len(a) < 2:
        return math.nan
    a, b = a - a.mean(dim=0), b - b.mean(dim=0)
    scale = (a.square().sum() * b.square().sum()).sqrt()
    return ((a * b).sum() / scale).item() if scale > 0 else math.nan


def _joined(walks: list[Walk]) -> Walk:
    sizes = torch.tensor([len(w.members) for w in walks], dtype=torch.float64)
    share = sizes / sizes.sum()
    whole = lambda values: torch.cat(list(values))
    return Walk(
        whole(w.members for w in walks),
        whole(w.mean for w in walks),
        sum((s * w.square for s, w in zip(share, walks, strict=True)), torch.zeros(())),
        walks[0].origin,
        whole(w.acceptance for w in walks),
        whole(w.step for w in walks),
        walks[0].kept,
        sum(s.item() * w.remembered for s, w in zip(share, walks, strict=True)),
    )


def walk_over(
    ground: Ground,
    law: GaussianLaw,
    y: Float[Tensor, " m"],
    v: Float[Tensor, "b c"],
    seeds: Int[Tensor, " b"],
    plan: Plan,
) -> Walk:
    r"""Returns what becomes of members, each with random numbers of its own.

    Arguments:
        ground: What they walk over.
        law: The Gaussian law that scales their steps.
        y: The data.
        v: Where they start.
        seeds: The seeds of their random numbers.
        plan: How far they walk.
    """
    parts = torch.arange(len(v)).split(max(1, NUMBERS // v.shape[1]))
    return _joined([_Way(ground, law, y, v[i], seeds[i], plan).to_the_end() for i in parts])
