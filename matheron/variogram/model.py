r"""Models of the variogram, fitted by weighted least squares."""

from __future__ import annotations

__all__ = ["FittedVariogram", "Isotropic", "fit_model"]

import copy
import functools
import torch
import torch.nn as nn

from collections.abc import Callable
from dataclasses import dataclass
from jaxtyping import Float
from torch import Tensor
from typing import Any


class Isotropic(nn.Module):
    r"""A covariance :math:`\sigma^2 \rho(|a - b| / \ell)` made of a correlation function.

    Arguments:
        correlation: The correlation :math:`\rho`, with :math:`\rho(0) = 1`.
        variance: The variance :math:`\sigma^2`, in squared units of the field.
        lengthscale: The lengthscale :math:`\ell`, in the units of the distance.

    Example:
        >>> kernel = Isotropic(lambda u: (-u).exp(), variance=2.0, lengthscale=3.0)
        >>> round(kernel(torch.zeros(1, 1), torch.full((1, 1), 3.0)).item(), 4)  # 2 / e
        0.7358
    """

    def __init__(
        self, correlation: Callable[[Tensor], Tensor], variance: float, lengthscale: float
    ) -> None:
        super().__init__()
        self.correlation = correlation
        self.log_variance = nn.Parameter(torch.tensor(variance, dtype=torch.float64).log())
        self.log_lengthscale = nn.Parameter(torch.tensor(lengthscale, dtype=torch.float64).log())

    @property
    def variance(self) -> Float[Tensor, ""]:
        r"""The variance :math:`\sigma^2`."""
        return self.log_variance.exp()

    @property
    def lengthscale(self) -> Float[Tensor, ""]:
        r"""The lengthscale :math:`\ell`."""
        return self.log_lengthscale.exp()

    def forward(self, a: Float[Tensor, "p 1"], b: Float[Tensor, "q 1"]) -> Float[Tensor, "p q"]:
        return self.variance * self.correlation((a - b.mT).abs() / self.lengthscale)


@dataclass(frozen=True)
class FittedVariogram:
    r"""A covariance model and a nugget, fitted to a variogram."""

    kernel: nn.Module
    """The fitted kernel: a prior is made of it as it is."""
    nugget: float
    """The nugget :math:`\\tau^2`, in squared units of the field: noise plus unseen scales."""
    error: float
    """The root mean square of the relative residuals, weighted by the numbers of pairs."""
    iterations: int

    @torch.no_grad()
    def gamma(self, distance: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
        r"""Returns the model :math:`\tau^2 + c(0) - c(h)` at distances :math:`h > 0`."""
        return self.nugget + _structured(self.kernel, distance.to(torch.float64))


def _structured(kernel: nn.Module, distance: Tensor) -> Tensor:
    origin = distance.new_zeros(1, 1)
    return kernel(origin, origin)[0, 0] - kernel(origin, distance[:, None])[0]


def fit_model(
    distance: Float[Tensor, " k"],
    gamma: Float[Tensor, " k"],
    count: Float[Tensor, " k"],
    model: nn.Module | Callable[..., Any],
    nugget: bool = True,
    strict: bool = True,
    steps: int = 50,
) -> FittedVariogram:
    r"""Fits a covariance model to a variogram; see `Variogram.fit`.

    Arguments:
        distance: The distances :math:`h`, with shape :math:`(k)`.
        gamma: The experimental variogram, with shape :math:`(k)`.
        count: The numbers of pairs, with shape :math:`(k)`.
        model: A kernel, a kernel class, or a correlation function.
        nugget: Whether to fit a nugget.
        strict: Whether to raise where the fit does not converge.
        steps: The largest number of updates of the weights.

    Raises:
        ValueError: If there are fewer classes than parameters, if the lags have no say in a
            parameter, or if the fit does not converge.

    Example:
        >>> h = torch.linspace(1, 20, 20, dtype=torch.float64)
        >>> gamma = 0.5 + 2 * (1 - (-h / 5).exp())
        >>> fitted = fit_model(h, gamma, torch.ones_like(h), lambda u: (-u).exp())
        >>> [round(x, 4) for x in (fitted.nugget, fitted.kernel.lengthscale.item())]
        [0.5, 5.0]
    """
    kernel = _start(model, distance, gamma.clamp_min(1e-300))
    # a square rather than a logarithm, so that no nugget is a point and not a limit
    root = nn.Parameter(0.1 * gamma.max().sqrt().detach(), requires_grad=nugget)
    root = root if nugget else nn.Parameter(torch.zeros_like(root), requires_grad=False)
    problem = _LeastSquares(distance, gamma, count, kernel, root)
    return problem.solve(steps, strict)


def _start(model: nn.Module | Callable[..., Any], h: Tensor, gamma: Tensor) -> nn.Module:
    if isinstance(model, nn.Module):
        return copy.deepcopy(model)
    sill = gamma[len(gamma) // 2 :].mean()
    reach = h[(gamma >= 0.63 * sill).nonzero()[0, 0]]
    start = {"variance": sill.item(), "lengthscale": reach.item()}
    if not isinstance(model, type | functools.partial):
        return Isotropic(model, **start)
    return model(**start)


@dataclass
class _LeastSquares:
    """The weighted squares of a variogram, and their minimum by L-BFGS."""

    h: Tensor
    gamma: Tensor
    count: Tensor
    kernel: nn.Module
    root: nn.Parameter

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        named = {**dict(self.kernel.named_parameters()), "nugget": self.root}
        return {name: p for name, p in named.items() if p.requires_grad}

    def model(self) -> Tensor:
        return self.root**2 + _structured(self.kernel, self.h)

    def cost(self, weights: Tensor) -> Tensor:
        return (weights * (self.gamma - self.model()) ** 2).sum() / self.count.sum()

    def weights(self) -> Tensor:
        return self.count / self.model().detach().clamp_min(1e-6 * self.gamma.max()) ** 2

    def solve(self, steps: int, strict: bool) -> FittedVariogram:
        self.check()
        # the first weights are those of the data: the start may be far
        weights = self.count / self.gamma.clamp_min(1e-2 * self.gamma.max()) ** 2
        before, step, moving = torch.full_like(self.h, torch.inf), 0, True
        while moving and step < steps:
            self.minimise(weights)
            now, step, weights = self.model().detach(), step + 1, self.weights()
            moving = bool(((now - before).abs() > 1e-6 * now.max()).any())
            before = now
        if strict:
            self.certify(moving, step)
        return self.result(step)

    def minimise(self, weights: Tensor) -> None:
        optimiser = torch.optim.LBFGS(
            list(self.parameters.values()),
            max_iter=100,
            tolerance_grad=1e-12,
            tolerance_change=1e-16,
            history_size=20,
            line_search_fn="strong_wolfe",
        )

        def closure() -> Tensor:
            optimiser.zero_grad()
            cost = self.cost(weights)
            cost.backward()
            return cost

        optimiser.step(closure)

    def check(self) -> None:
        names = list(self.parameters)
        if not (names and (self.gamma > 0).any()):
            msg = (
                f"Variogram.fit(model=...): expected data that vary and parameters to fit, got "
                f"gamma up to {self.gamma.max().item():.4g} and parameters {names}. Check both."
            )
            raise ValueError(msg)
        if len(self.h) < len(names):
            msg = (
                f"Variogram.fit(model=...): expected at least {len(names)} classes for "
                f"parameters {names}, got {len(self.h)}. Ask for more bins."
            )
            raise ValueError(msg)
        total = self.model().sum()
        slopes = torch.autograd.grad(total, list(self.parameters.values()), allow_unused=True)
        flat = [
            name
            for (name, p), g in zip(self.parameters.items(), slopes, strict=True)
            if g is not None and (g * p.abs().clamp_min(1)).abs().max() < 1e-6 * total
        ]
        if flat:
            msg = (
                f"Variogram.fit(model=...): expected a start that the lags can tell from another, "
                f"got no slope in {flat}. Start with a lengthscale between {self.h[0]:.4g} and "
                f"{self.h[-1]:.4g}."
            )
            raise ValueError(msg)

    def result(self, steps: int) -> FittedVariogram:
        residual = self.gamma / self.model().detach() - 1
        error = ((self.count * residual**2).sum() / self.count.sum()).sqrt().item()
        return FittedVariogram(self.kernel, self.root.item() ** 2, error, steps)

    def certify(self, moving: bool, steps: int) -> None:
        found = {name: p.tolist() for name, p in self.parameters.items()}
        cure = "Ask for larger or smaller lags, a simpler model, or strict=False"
        if moving:
            msg = (
                f"Variogram.fit(strict=True): expected convergence within {steps} updates of the "
                f"weights, got {found} still moving. {cure}."
            )
            raise ValueError(msg)
        if self.distinctness() < 1e-3:
            msg = (
                f"Variogram.fit(strict=True): expected lags that tell the parameters apart, got "
                f"{found} among many as good. {cure}."
            )
            raise ValueError(msg)

    def distinctness(self) -> float:
        """The least singular value of the model's slopes, each scaled to a length of one.

        It is about the ratio of the largest lag to the lengthscale where that is far too long.
        """
        named = {k: p for k, p in self.parameters.items() if k != "nugget"}
        if not named:
            return 1.0
        model = self.model()
        rows = [
            torch.autograd.grad(g, list(named.values()), retain_graph=True, allow_unused=True)
            for g in model
        ]
        slopes = [torch.cat([x.flatten() for x in row if x is not None]) for row in rows]
        columns = torch.stack(slopes)
        if self.root.requires_grad:
            columns = torch.cat([columns, torch.ones_like(columns[:, :1])], dim=1)
        columns = self.weights().sqrt()[:, None] * columns
        size = columns.norm(dim=0)
        return torch.linalg.svdvals(columns[:, size > 0] / size[size > 0])[-1].item()
