r"""Observations at scattered points: stations, cores, along-track altimetry."""

from __future__ import annotations

__all__ = ["PointObservation"]

import torch

from functools import cached_property
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .base import LinearObservation, Noise
from ..domain import Grid, Points
from ..linalg.sparse import Assembly, Sparse


class PointObservation(LinearObservation):
    r"""Observations of a field at points, with independent noise.

    On a grid, :math:`H` is multilinear interpolation, for the solvers that hold a state there.
    Solvers that know the covariance between any two points (kriging, Vecchia) see the field at
    the points themselves; those may then lie outside the grid.

    Arguments:
        domain: The domain of the state, with :math:`n` nodes.
        points: The :math:`m` observed points.
        noise_std: The standard deviation of the noise, in the units of the field, with shape
            :math:`()` or :math:`(m)`.
        learn_noise: Whether a fit may scale ``noise_std``.
        bias_std: The standard deviation of a bias shared by all the data, or ``None``.
        learn_bias: Whether a fit may scale ``bias_std``.

    Raises:
        ValueError: If there is no point, or if a standard deviation is negative or of another
            size.

    Example:
        >>> grid = Grid(x=[0.0, 1.0, 2.0])
        >>> observation = PointObservation(grid, Points(x=[0.5, 2.0]), noise_std=0.1)
        >>> observation(torch.tensor([0.0, 1.0, 4.0], dtype=torch.float64)).tolist()
        [0.5, 4.0]
    """

    def __init__(
        self,
        domain: Grid | Points,
        points: Points,
        noise_std: float | Tensor,
        learn_noise: bool = False,
        bias_std: float | None = None,
        learn_bias: bool = True,
    ) -> None:
        super().__init__()
        if len(points) == 0:
            msg = "PointObservation(points=...): expected at least one datum, got none. Add data."
            raise ValueError(msg)
        if points.dims != domain.dims or points.metric != domain.metric:
            msg = (
                f"PointObservation(points=...): expected dims {domain.dims} on the "
                f"{domain.metric}, got {points.dims} on the {points.metric}. Name them alike."
            )
            raise ValueError(msg)
        self.domain, self.points = domain, points.since(domain.epoch)
        where = type(self).__name__
        self.error = Noise(where, "noise_std", noise_std, len(points), learn_noise)
        self.bias = None
        if bias_std is not None:
            if not bias_std > 0:
                msg = (
                    f"PointObservation(bias_std=...): expected a positive number or None, got "
                    f"{bias_std}. Use None where there is no bias."
                )
                raise ValueError(msg)
            self.bias = Noise(where, "bias_std", float(bias_std), 1, learn_bias)

    @cached_property
    def _corners(self) -> tuple[Tensor, Tensor]:
        if isinstance(self.domain, Grid):
            return self.domain.interpolation(self.points)
        same = (self.points.coords[:, None] == self.domain.coords[None]).all(dim=-1)
        if not same.any(dim=1).all():
            msg = (
                f"PointObservation(points=...): expected points of the domain, got "
                f"{int((~same.any(dim=1)).sum())} elsewhere. Use a grid, which interpolates."
            )
            raise ValueError(msg)
        nodes = same.double().argmax(dim=1)[:, None]
        return nodes, torch.ones(nodes.shape, dtype=torch.float64)

    def take(
        self, index: Int[Tensor, " k"] | Bool[Tensor, " m"], domain: Grid | Points | None = None
    ) -> PointObservation:
        r"""Returns the observation of some of the points, at the present noise."""
        std = self.noise_variance.detach().sqrt()[index]
        bias = None if self.bias is None else self.bias.variance.detach().sqrt().item()
        domain = self.domain if domain is None else domain
        return PointObservation(domain, self.points[index], std, bias_std=bias)

    @property
    def noise_variance(self) -> Float[Tensor, " m"]:
        return self.error.variance

    @property
    def bias_design(self) -> Float[Tensor, "m q"]:
        return torch.ones(len(self.points), 0 if self.bias is None else 1, dtype=torch.float64)

    @property
    def bias_variance(self) -> Float[Tensor, " q"]:
        return super().bias_variance if self.bias is None else self.bias.variance

    def forward(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
        nodes, weights = self._corners
        return (x[..., nodes] * weights.to(x.dtype)).sum(dim=-1)

    def adjoint(self, y: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n"]:
        nodes, weights = self._corners
        x = y.new_zeros(*y.shape[:-1], len(self.domain))
        spread = (y[..., None] * weights.to(y.dtype)).flatten(-2)
        return x.index_add(-1, nodes.flatten(), spread)

    @cached_property
    def _assembly(self) -> Assembly:
        nodes = self._corners[0]
        rows = torch.arange(len(nodes))[:, None].expand_as(nodes)
        size = (len(nodes), len(self.domain))
        return Assembly(rows.flatten().numpy(), nodes.flatten().numpy(), size)

    def matrix(self) -> Sparse:
        return self._assembly(self._corners[1].flatten())
