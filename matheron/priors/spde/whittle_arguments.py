r"""What a Whittle-Matern equation may be given, and what is said of the rest."""

from __future__ import annotations

__all__ = [
    "Field",
    "as_field",
    "check_choices",
    "check_elliptic",
    "check_scales",
    "split_variance",
]

import torch

from collections.abc import Sequence
from jaxtyping import Float
from torch import Tensor

from .fields import ParameterField
from .velocity import Given
from ...domain import Grid, Points

Field = ParameterField | Tensor | None
BOUNDARIES = ("neumann", "robin", "dirichlet")


def check_choices(
    nu: float, alpha: float, dimension: int, boundary: str, order: int | None
) -> None:
    r"""Checks the choices that are not numbers to be learned."""
    if not nu > 1e-9:
        msg = (
            f"WhittleMatern(alpha=...): expected more than {dimension / 2}, half the number of "
            f"axes, got {alpha}. A field has a finite variance with e.g. {dimension / 2 + 1}."
        )
        raise ValueError(msg)
    if boundary not in BOUNDARIES:
        msg = (
            f"WhittleMatern(boundary=...): expected one of {BOUNDARIES}, got {boundary!r}. "
            "Choose one."
        )
        raise ValueError(msg)
    if order is not None and order < 1:
        msg = (
            f"WhittleMatern(order=...): expected one part or more, got {order}. "
            "Two give the covariance within 1 %."
        )
        raise ValueError(msg)


def check_scales(
    domain: Grid | Points,
    lengthscale: float | Sequence[float] | Tensor | None,
    kappa: Field,
    diffusivity: Field,
    rotation: float | Sequence[float] | None,
) -> None:
    r"""Checks that lengths are told once."""
    if (lengthscale is None) == (kappa is None):
        given = "neither" if kappa is None else "both"
        msg = (
            f"WhittleMatern(lengthscale=..., kappa=...): expected one of them, got {given}. "
            "Give a lengthscale, or the field kappa = sqrt(2 nu) / lengthscale."
        )
        raise ValueError(msg)
    each = 0 if lengthscale is None else torch.as_tensor(lengthscale).ndim
    if rotation is not None and kappa is not None:
        msg = (
            "WhittleMatern(rotation=...): expected one lengthscale per axis beside it, got kappa. "
            "Give the field diffusivity=..., which holds the anisotropy."
        )
        raise ValueError(msg)
    if diffusivity is not None and (each > 0 or rotation is not None):
        msg = (
            "WhittleMatern(diffusivity=...): expected one lengthscale and no rotation beside it, "
            "got one per axis or a rotation. The diffusivity holds the anisotropy."
        )
        raise ValueError(msg)
    if "time" in domain.dims and len(domain.dims) > 1 and not each and diffusivity is None:
        msg = (
            f"WhittleMatern(lengthscale=...): expected a lengthscale per axis of {domain.dims}, "
            "got one number for both time and space. Give e.g. lengthscale=(7.0, 1e5, 1e5), or "
            "let the field drift and spread in time with AdvectionDiffusion(...)."
        )
        raise ValueError(msg)


def split_variance(
    variance: float | ParameterField | Tensor, tau: Field
) -> tuple[Field, Float[Tensor, ""]]:
    r"""Returns the variance as a field, if it is one, and as a number, else 1."""
    one = torch.ones((), dtype=torch.float64)
    if not isinstance(variance, ParameterField):
        number = torch.as_tensor(variance, dtype=torch.float64)
        if number.ndim == 0:
            return None, number
        variance = number
    if tau is not None:
        msg = (
            "WhittleMatern(tau=..., variance=...): expected one field of them, got both. Give "
            "tau, the weight of the noise, or the variance of the solution."
        )
        raise ValueError(msg)
    return variance, one


def as_field(
    name: str, value: Field, domain: Grid | Points, shape: tuple[int, ...]
) -> ParameterField | None:
    r"""Returns a field; values at the nodes of the domain are those of the nearest elsewhere."""
    if value is None:
        return None
    field = value if isinstance(value, ParameterField) else Given(domain, value)
    if tuple(field.shape) != shape:
        msg = (
            f"WhittleMatern({name}=...): expected values of shape {shape} at each node, got "
            f"{tuple(field.shape)}. Give one per node, in the order of the axes."
        )
        raise ValueError(msg)
    if shape == ():
        _check_positive(name, field(domain.points).detach())
    return field


def _check_positive(name: str, values: Float[Tensor, " n"]) -> None:
    if not (values > 0).all():
        msg = (
            f"WhittleMatern({name}=...): expected positive values, got {values.min().item():.3g} "
            "as the least. Check the units."
        )
        raise ValueError(msg)


def check_elliptic(H: Float[Tensor, "n d d"]) -> None:
    r"""Checks that a diffusivity is symmetric and positive definite."""
    least = torch.linalg.eigvalsh(H)[:, 0].min().item()
    if not least > 0 or not torch.allclose(H, H.mT):
        msg = (
            "WhittleMatern(diffusivity=...): expected symmetric positive definite matrices, got "
            f"an eigenvalue of {least:.3g}, or no symmetry. Build them as exp of a symmetric one."
        )
        raise ValueError(msg)
