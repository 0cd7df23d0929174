r"""The equation that gives a streamfunction from a potential vorticity, solved exactly."""

from __future__ import annotations

__all__ = ["Helmholtz"]

import math
import torch
import torch.nn as nn

from jaxtyping import Bool, Float
from torch import Tensor


def _sines(size: int) -> tuple[Tensor, Tensor]:
    """Orthonormal eigenvectors of the second difference with zero ends, and its eigenvalues."""
    angle = math.pi / (size + 1) * torch.arange(1, size + 1, dtype=torch.float64)
    rank = torch.arange(1, size + 1, dtype=torch.float64)
    basis = math.sqrt(2 / (size + 1)) * torch.sin(angle[:, None] * rank)
    return basis, -4 * torch.sin(angle / 2) ** 2


class Helmholtz(nn.Module):
    r"""Solves :math:`(\Delta - s) \psi = q` on a box with land, given :math:`\psi` elsewhere.

    The Laplacian is that of five points, in flux form: with the width :math:`w_j` of row
    :math:`j` (its spacing along x) and the height :math:`h` of a row,

    .. math::
        (\Delta \psi)_{j, i} = \frac{\psi_{j, i + 1} - 2 \psi_{j, i} + \psi_{j, i - 1}}{w_j^2}
        + \frac{w_{j + 1/2} (\psi_{j + 1, i} - \psi_{j, i})
        - w_{j - 1/2} (\psi_{j, i} - \psi_{j - 1, i})}{w_j h^2}.

    It is separable: a sine transform along x and the eigenvectors of a generalised problem along
    y make it diagonal, so that a solution costs four small matrix products, on any device and
    with gradients. Land is met by sources on the coast (a capacitance matrix), without
    iterations.

    References:
        | The direct solution of the discrete Poisson equation on irregular regions
        | (Buzbee, Dorr, George & Golub, 1971)
        | https://doi.org/10.1137/0708066

    Arguments:
        width: The spacing :math:`w_j` along x of every row, in metres, with shape
            :math:`(n_y)`.
        height: The spacing :math:`h` along y, in metres.
        screening: The term :math:`s_j \ge 0` of every row, in :math:`m^{-2}`, with shape
            :math:`(n_y)`.
        frozen: Where :math:`\psi` is given rather than solved for, with shape
            :math:`(n_y, n_x)`; the border is, in any case.

    Raises:
        ValueError: If the box has fewer than 3 nodes on a side, or ``screening`` is negative.

    Example:
        >>> width, s = torch.ones(6).double(), torch.zeros(6).double()
        >>> solver = Helmholtz(width, 1.0, s, torch.zeros(6, 7, dtype=torch.bool))
        >>> psi = torch.arange(42.0).double().reshape(6, 7)  # no Laplacian
        >>> bool(torch.allclose(solver(0 * psi, psi), psi))
        True
    """

    frozen: Tensor
    width: Tensor
    screening: Tensor
    between: Tensor
    along: Tensor
    across: Tensor
    division: Tensor
    weight: Tensor
    coast: Tensor
    capacity: Tensor

    def __init__(
        self,
        width: Float[Tensor, " ny"],
        height: float,
        screening: Float[Tensor, " ny"],
        frozen: Bool[Tensor, "ny nx"],
    ) -> None:
        super().__init__()
        self._check_arguments(frozen, screening)
        frozen = frozen.clone()
        frozen[[0, -1]] = True
        frozen[:, [0, -1]] = True
        self._keep("frozen", frozen)
        self._keep("width", width.to(torch.float64))
        self._keep("screening", screening.to(torch.float64))
        self.height = height
        self._keep("between", (self.width[1:] + self.width[:-1]) / (2 * height**2))
        self._set_box(frozen.shape[1] - 2)
        self._set_coast()

    @staticmethod
    def _check_arguments(frozen: Tensor, screening: Tensor) -> None:
        if min(frozen.shape) < 3:
            msg = (
                f"Helmholtz(frozen=...): expected 3 nodes or more on a side, got shape "
                f"{tuple(frozen.shape)}. Widen the box."
            )
            raise ValueError(msg)
        if not (screening >= 0).all():
            msg = (
                f"Helmholtz(screening=...): expected values that are not negative, got "
                f"{screening.min().item():.3g}. It is the square of an inverse radius."
            )
            raise ValueError(msg)

    def _keep(self, name: str, values: Tensor) -> None:
        self.register_buffer(name, values, persistent=False)

    def _set_box(self, columns: int) -> None:
        """Makes the box diagonal: T + lambda W, with T symmetric and W = 1 / width."""
        width, between = self.width[1:-1], self.between
        T = torch.diag(-(between[1:] + between[:-1]) - self.screening[1:-1] * width)
        T += torch.diag(between[1:-1], 1) + torch.diag(between[1:-1], -1)
        root = width.sqrt()
        values, vectors = torch.linalg.eigh(root[:, None] * T * root)
        sines, waves = _sines(columns)
        self._keep("across", root[:, None] * vectors)
        self._keep("along", sines)
        self._keep("division", 1 / (values[:, None] + waves))
        self._keep("weight", width[:, None])

    def _set_coast(self) -> None:
        inside = self.frozen[1:-1, 1:-1]
        sea = ~self.frozen
        beside = sea[:-2, 1:-1] | sea[2:, 1:-1] | sea[1:-1, :-2] | sea[1:-1, 2:]
        self._keep("coast", (inside & beside).flatten().nonzero()[:, 0])
        sources = torch.eye(inside.numel(), dtype=torch.float64)[self.coast]
        answer = self._box(sources.unflatten(-1, inside.shape)).flatten(-2)
        self._keep("capacity", torch.linalg.inv(answer[:, self.coast].mT))

    def laplacian(self, psi: Float[Tensor, "*batch ny nx"]) -> Float[Tensor, "*batch ny nx"]:
        r"""Returns :math:`\Delta \psi`; outside the box :math:`\psi` goes on linearly."""
        along = psi.diff(n=2, dim=-1) / self.width[:, None] ** 2
        rise = psi.diff(dim=-2) * self.between[:, None]
        across = rise.diff(dim=-2) / self.width[1:-1, None]
        pad = nn.functional.pad
        return pad(along, (1, 1)) + pad(across, (0, 0, 1, 1))

    def operate(self, psi: Float[Tensor, "*batch ny nx"]) -> Float[Tensor, "*batch ny nx"]:
        r"""Returns :math:`(\Delta - s) \psi`."""
        return self.laplacian(psi) - self.screening[:, None] * psi

    def forward(
        self, q: Float[Tensor, "*batch ny nx"], boundary: Float[Tensor, "*batch ny nx"]
    ) -> Float[Tensor, "*batch ny nx"]:
        r"""Returns the :math:`\psi` that solves the equation at sea.

        Arguments:
            q: The right-hand side; it is read at sea only.
            boundary: The values of :math:`\psi` on the frozen nodes; it is read there only.
        """
        given = torch.where(self.frozen, boundary, 0.0)
        rest = torch.where(self.frozen, 0.0, q - self.operate(given))[..., 1:-1, 1:-1]
        psi = self._box(rest * self.weight)
        if len(self.coast):
            wrong = psi.flatten(-2)[..., self.coast] @ self.capacity.mT
            sources = torch.zeros_like(psi).flatten(-2).index_copy(-1, self.coast, wrong)
            psi = psi - self._box(sources.unflatten(-1, psi.shape[-2:]))
        return torch.where(self.frozen, boundary, nn.functional.pad(psi, (1, 1, 1, 1)))

    def closed(self, q: Float[Tensor, "*batch ny nx"]) -> Float[Tensor, "*batch ny nx"]:
        r"""Returns the :math:`\psi` that solves the equation, zero on a border without land.

        Arguments:
            q: The right-hand side; it is read inside the border only.

        Raises:
            ValueError: If there is land.
        """
        if len(self.coast):
            msg = (
                f"Helmholtz.closed(frozen=...): expected a box without land, got a coast of "
                f"{len(self.coast)} nodes. Call the solver with its boundary values."
            )
            raise ValueError(msg)
        return nn.functional.pad(self._box(q[..., 1:-1, 1:-1] * self.weight), (1, 1, 1, 1))

    def _box(self, q: Tensor) -> Tensor:
        """Solves the equation in the box, with zeros on its border; ``q`` is times the width."""
        spectrum = (self.across.mT @ q @ self.along) * self.division
        return self.across @ spectrum @ self.along.mT
