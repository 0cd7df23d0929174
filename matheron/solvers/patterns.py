r"""Patterns of gappy images, learned from the images themselves: the work of DINEOF."""

from __future__ import annotations

__all__ = ["Choice", "Errors", "Images", "Learned", "Progress", "Rules", "learn"]

import torch

from collections.abc import Callable
from dataclasses import dataclass
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from ..domain import Grid
from ..linalg.filling import Filled, LowRank, fill, low_rank, time_filter

WHERE = "DINEOF"
Progress = Callable[[int, float], None]
"""Called with a number of patterns and the error of the data held out."""


@dataclass(frozen=True)
class Rules:
    r"""How patterns are learned: the arguments of :class:`matheron.solvers.dineof.DINEOF`."""

    modes: int | None
    most: int
    hold_out: str
    fraction: float | None
    tolerance: float
    steps: int
    patience: int
    smoothing: float
    smoothing_steps: int
    least: float
    redundancy: float | None
    seed: int
    progress: Progress


@dataclass(frozen=True)
class Images:
    r"""Images as columns, about what is known of them, and which of them train."""

    values: Float[Tensor, "s t"]
    seen: Bool[Tensor, "s t"]
    trains: Bool[Tensor, " t"]
    noise: float


@dataclass(frozen=True)
class Errors:
    r"""The law of the amplitudes given the data of each image, :math:`x_t = L a_t`.

    Their covariance is :math:`\mu^2 (L_p^\top L_p + \mu^2 I)^{-1}`, with the rows of :math:`L`
    that are seen; its eigenvectors are kept.
    """

    L: Float[Tensor, "s p"]
    values: Float[Tensor, "t p"]
    vectors: Float[Tensor, "t p p"]

    @classmethod
    def of(cls, L: Float[Tensor, "s p"], seen: Bool[Tensor, "s t"]) -> Errors:
        grams = torch.stack([L[k].mT @ L[k] for k in seen.unbind(dim=1)])
        values, vectors = torch.linalg.eigh(grams)
        return cls(L, values.clamp(min=0), vectors)

    def shrinkage(self, mu2: float) -> Float[Tensor, "t p"]:
        r"""Returns the eigenvalues of the covariances."""
        return mu2 / (self.values + max(mu2, 1e-300))

    def variance(self, mu2: float) -> Float[Tensor, "t s"]:
        r"""Returns the variances of the images, given errors of variance ``mu2``."""
        pairs = zip(self.vectors, self.shrinkage(mu2), strict=True)
        return torch.stack([(self.L @ Q).square() @ c for Q, c in pairs])

    def at(self, site: Int[Tensor, " k"], time: Int[Tensor, " k"]) -> Float[Tensor, "k p"]:
        r"""Returns the squares of :math:`L Q` at some places."""
        rotated = (self.L[site, None] @ self.vectors[time])[:, 0]
        return rotated.square()

    def draw(self, size: int, mu2: float, generator: Generator | None) -> Float[Tensor, "z t s"]:
        shape = (size, *self.values.shape)
        z = torch.randn(*shape, dtype=torch.float64, generator=generator)
        z = z * self.shrinkage(mu2).sqrt()
        return torch.einsum("tpq,ztq->ztp", self.vectors, z) @ self.L.mT


@dataclass(frozen=True)
class Choice:
    r"""A number of patterns, the anomalies that they filled, and how the choice was made."""

    modes: int
    start: Float[Tensor, "s t"]
    scores: dict[int, float]
    redundancy: float


@dataclass(frozen=True)
class Learned:
    r"""What was learned from one vector of data."""

    offset: float
    parts: LowRank
    fields: Float[Tensor, "t s"]
    errors: Errors
    mu2: float
    rest: Float[Tensor, " s"]
    choice: Choice
    filled: Filled


def learn(images: Images, grid: Grid, rules: Rules) -> Learned:
    r"""Returns what images tell of patterns, amplitudes and errors."""
    on = images.trains
    X, seen = images.values[:, on], images.seen[:, on]
    times = grid.axes["time"][on]
    F = time_filter(times, rules.smoothing, rules.smoothing_steps) if rules.smoothing else None
    choice = _choose(X, seen, images.noise, F, grid, rules)
    # the data held out are back; the gaps start as they were left
    offset = X[seen].mean().item()
    start = torch.where(seen, X - offset, choice.start)
    filled = _fill(start, ~seen, choice.modes, F, rules)
    parts = _parts(filled.X, choice.modes, F)
    trained = parts.dense()
    mu2 = choice.redundancy * _misfit(filled.X - trained, seen, images.noise)
    L = _loadings(parts)
    errors = Errors.of(L, images.seen)
    fields = _from_own_data(images, offset, errors, mu2)
    fields[on] = trained.mT
    never = ~seen.any(dim=1)
    rest = torch.where(never, L[~never].square().sum(dim=1).mean(), 0)
    return Learned(offset, parts, fields + offset, errors, mu2, rest, choice, filled)


def _fill(
    X: Float[Tensor, "s t"], gaps: Bool[Tensor, "s t"], p: int, F: Tensor | None, rules: Rules
) -> Filled:
    scale = float(X[~gaps].std(correction=0)) or 1.0  # a constant field is as it is
    return fill(X, gaps, p, scale, rules.tolerance, rules.steps, F)


def _parts(X: Float[Tensor, "s t"], p: int, F: Float[Tensor, "t t"] | None) -> LowRank:
    return low_rank(X if F is None else X @ F.mT, p)


def _loadings(parts: LowRank) -> Float[Tensor, "s p"]:
    r"""Returns :math:`L = U \Sigma / \sqrt{n}`: amplitudes are then of variance one."""
    return parts.left * (parts.size / len(parts.right) ** 0.5)


def _misfit(r: Float[Tensor, "s t"], seen: Bool[Tensor, "s t"], noise: float) -> float:
    r"""Returns the error variance of the data: what the patterns leave of them, or their noise."""
    return max(r[seen].square().mean().item(), noise)


def _from_own_data(
    images: Images, offset: float, errors: Errors, mu2: float
) -> Float[Tensor, "t s"]:
    r"""Returns images from the known patterns and what is seen of each of them."""
    r = torch.where(images.seen, images.values - offset, 0)
    b = (errors.L.mT @ r).mT[:, None] @ errors.vectors  # (t, 1, p)
    a = (b / (errors.values + max(mu2, 1e-300))[:, None]) @ errors.vectors.mT
    return a[:, 0] @ errors.L.mT


def _choose(
    X: Float[Tensor, "s t"],
    seen: Bool[Tensor, "s t"],
    noise: float,
    F: Float[Tensor, "t t"] | None,
    grid: Grid,
    rules: Rules,
) -> Choice:
    r"""Chooses the number of patterns by data held out, and the redundancy of data by them."""
    largest = X.shape[1] - 1
    if rules.modes is not None and rules.modes > largest:
        msg = (
            f"{WHERE}(modes={rules.modes}): expected fewer patterns than images that train, got "
            f"{largest + 1} images. Lower modes."
        )
        raise ValueError(msg)
    held = _held_out(seen, grid, rules)
    kept = seen & ~held
    offset = X[kept].mean().item()
    truth, best = X - offset, None
    start = torch.where(kept, truth, 0)
    scores: dict[int, float] = {}
    trials = range(1, min(rules.most, largest) + 1) if rules.modes is None else [rules.modes]
    for p in trials:
        start = _fill(start, ~kept, p, F, rules).X
        scores[p] = (start - truth)[held].square().mean().sqrt().item()
        rules.progress(p, scores[p])
        if best is None or scores[p] < scores[best[0]]:
            best = (p, start)
        elif p - best[0] >= rules.patience:
            break
    assert best is not None
    p, start = best
    redundancy = rules.redundancy or _redundancy(
        start, truth, kept, held, noise, _parts(start, p, F)
    )
    return Choice(p, start, scores, redundancy)


def _redundancy(
    start: Float[Tensor, "s t"],
    truth: Float[Tensor, "s t"],
    kept: Bool[Tensor, "s t"],
    held: Bool[Tensor, "s t"],
    noise: float,
    parts: LowRank,
) -> float:
    r"""Returns how many data share an error, such that those held out are as far as is said."""
    mu2 = _misfit(start - parts.dense(), kept, noise)
    errors = Errors.of(_loadings(parts), kept)
    site, time = torch.nonzero(held, as_tuple=True)
    squares, e2 = errors.at(site, time), (start - truth)[held].square()
    if mu2 == 0 or not len(e2):
        return 1.0
    low, high = 1.0, float(kept.sum(dim=0).max())
    for _ in range(50):  # by bisection of the logarithm: the variance grows with it
        middle = (low * high) ** 0.5
        P = (squares * errors.shrinkage(middle * mu2)[time]).sum(dim=1)
        low, high = (middle, high) if (e2 / (P + mu2)).mean() > 1 else (low, middle)
    return (low * high) ** 0.5


def _held_out(seen: Bool[Tensor, "s t"], grid: Grid, rules: Rules) -> Bool[Tensor, "s t"]:
    r"""Returns which data are held out."""
    generator = torch.Generator().manual_seed(rules.seed)
    total = int(seen.sum())
    count = min(int(0.01 * total + 40), int(0.03 * total))
    if rules.fraction is not None:
        count = int(rules.fraction * total)
    count = max(count, 1)
    if rules.hold_out == "clouds":
        return _clouds(seen, grid, count, generator)
    where = torch.nonzero(seen)[torch.randperm(total, generator=generator)[:count]]
    held = torch.zeros_like(seen)
    held[where[:, 0], where[:, 1]] = True
    return held


def _clouds(
    seen: Bool[Tensor, "s t"], grid: Grid, count: int, generator: Generator, pieces: int = 12
) -> Bool[Tensor, "s t"]:
    r"""Returns pieces of the clouds of other images, over what is clear: about ``count`` data."""
    x = grid.points[torch.arange(len(seen))].local()[:, 1:]
    held, times = torch.zeros_like(seen), seen.shape[1]
    for _ in range(20 * pieces):
        left = count - int(held.sum())
        if left <= 0:
            break
        t, other = torch.randint(times, (2,), generator=generator).tolist()
        clear = seen[:, t] & ~held[:, t]
        under = torch.nonzero(clear & ~seen[:, other])[:, 0]
        size = min(left, max(count // pieces, 1), len(under), int(clear.sum()) // 2)
        if size == 0:
            continue
        middle = under[torch.randint(len(under), (1,), generator=generator)]
        near = (x[under] - x[middle]).square().sum(dim=1).topk(size, largest=False).indices
        held[under[near], t] = True
    return held
