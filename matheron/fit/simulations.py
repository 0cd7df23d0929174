r"""Windows drawn from a law, without end, for a learned solver where the law is known."""

from __future__ import annotations

__all__ = ["Simulations"]

import torch

from collections.abc import Callable
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from ..data.batches import Batch, Source, fingerprint_of
from ..domain import Grid
from ..priors.base import Sampling

Gaps = Callable[[Generator], Tensor]
"""What draws where a field is seen, with shape (n)."""


class Simulations(Source):
    r"""Fields of a law, each seen through gaps of its own and with noise.

    Arguments:
        grid: The grid, with :math:`n` nodes.
        law: The fields, with shape :math:`(k, n)`, drawn beforehand; or the prior to draw them
            from, anew for each batch: right where a draw costs little.
        gaps: Where fields are seen: always the same nodes, with shape :math:`(n)`; one of several
            sets of nodes by chance, with shape :math:`(k, n)`; a fraction of nodes by chance; or
            what draws them from a generator.
        noise_std: The standard deviation of the noise; of two, one between them is drawn, evenly
            in its logarithm.
        count: The number of windows that are called an epoch, of those drawn anew.
        weights: The weight of each node; one by default.

    Raises:
        ValueError: If sizes do not agree, or nothing would be seen, or the noise is not positive.

    Example:
        >>> import matheron as mt
        >>> grid = mt.Grid(x=range(5))
        >>> law = mt.GaussianProcess(mt.Matern(1.5, lengthscale=2.0), grid)
        >>> windows = Simulations(grid, law.sample(10), 0.5, noise_std=0.1)
        >>> windows.batch(torch.arange(3), torch.arange(3)).truth.shape
        torch.Size([3, 5])
    """

    def __init__(
        self,
        grid: Grid,
        law: Float[Tensor, "k n"] | Sampling,
        gaps: float | Bool[Tensor, "*k n"] | Gaps,
        noise_std: float | tuple[float, float],
        count: int = 1024,
        weights: Float[Tensor, " n"] | None = None,
    ) -> None:
        self.grid, self.law, self.gaps = grid, law, gaps
        self.count = len(law) if isinstance(law, Tensor) else count
        self.noise = noise_std if isinstance(noise_std, tuple) else (noise_std, noise_std)
        self._check()
        one = torch.ones(len(self.grid), dtype=torch.float64)
        self.weights = one if weights is None else weights

    def _check(self) -> None:
        gaps, n = self.gaps, len(self.grid)
        size = self.law.shape[-1] if isinstance(self.law, Tensor) else len(self.law.domain)
        bad = isinstance(gaps, float) and not 0 < gaps <= 1
        if isinstance(gaps, Tensor):
            bad = gaps.shape[-1] != n or not bool(gaps.any(dim=-1).all())
        if bad or size != n or not 0 < self.noise[0] <= self.noise[1] or self.count < 1:
            msg = (
                f"Simulations(gaps=...): expected a fraction, or masks that see something, fields "
                f"of {n} nodes, a positive noise and count, got fields of {size} nodes, noise "
                f"{self.noise} and count {self.count}. Use e.g. 0.2 and 0.1."
            )
            raise ValueError(msg)

    def __len__(self) -> int:
        return self.count

    def fingerprint(self) -> str:
        gaps = self.gaps if isinstance(self.gaps, Tensor) else None
        told = self.gaps if isinstance(self.gaps, float) else "masks"
        law = [self.law] if isinstance(self.law, Tensor) else list(self.law.state_dict().values())
        settings = (type(self.law).__name__, self.noise, self.count, told)
        return fingerprint_of([*law, gaps, self.weights], *settings)

    def batch(self, index: Int[Tensor, " b"], seeds: Int[Tensor, " b"]) -> Batch:
        dice = [Generator().manual_seed(int(seed)) for seed in seeds]
        noise = torch.stack([self._level(g) for g in dice])[:, None]
        mask = torch.stack([self._seen(g) for g in dice])
        truth = self._fields(index, dice)
        e = torch.stack([torch.randn(len(self.grid), generator=g).double() for g in dice])
        values = torch.where(mask, truth + noise * e, 0.0)
        weights = self.weights.expand_as(truth)
        return Batch(self.grid, values, mask, self._told(noise, truth), weights, truth)

    @torch.no_grad()
    def _fields(self, index: Int[Tensor, " b"], dice: list[Generator]) -> Float[Tensor, "b n"]:
        if isinstance(self.law, Tensor):
            return self.law[index].to(torch.float64)
        return self.law.sample(len(index), dice[0])  # together: factorising costs most

    def _told(self, noise: Float[Tensor, "b 1"], like: Tensor) -> Float[Tensor, ...]:
        same = self.noise[0] == self.noise[1]
        return noise[0, 0] if same else noise.expand_as(like).contiguous()

    def _level(self, generator: Generator) -> Float[Tensor, ""]:
        low, high = torch.tensor(self.noise, dtype=torch.float64).log()
        return (low + (high - low) * torch.rand((), generator=generator).double()).exp()

    def _seen(self, generator: Generator) -> Bool[Tensor, " n"]:
        gaps = self.gaps
        if isinstance(gaps, Tensor):
            if gaps.ndim == 1:
                return gaps
            return gaps[int(torch.randint(len(gaps), (), generator=generator))]
        if not isinstance(gaps, float):
            return gaps(generator)
        seen = torch.rand(len(self.grid), generator=generator) < gaps
        if not seen.any():
            seen[int(torch.randint(len(seen), (), generator=generator))] = True
        return seen
