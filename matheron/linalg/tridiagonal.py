r"""Block tridiagonal matrices: what a chain of states makes of any quadratic cost."""

from __future__ import annotations

__all__ = ["BlockCholesky"]

import torch

from jaxtyping import Float
from torch import Tensor


class BlockCholesky:
    r"""The Cholesky factor of positive definite matrices with blocks next to the diagonal only.

    .. math::
        A = \begin{pmatrix} D_1 & C_1^\top & \\ C_1 & D_2 & \ddots \\ & \ddots & \ddots
        \end{pmatrix} = L L^\top

    Time grows as :math:`k s^3` and memory as :math:`k s^2`, for :math:`k` blocks of size
    :math:`s`. Such is the precision of a Markov chain; the recursions here are those of the
    Kalman filter (the factor) and of the smoother of Rauch, Tung and Striebel (what is solved
    backwards), in information form.

    References:
        | Bayesian Filtering and Smoothing (Särkkä, 2013)
        | https://doi.org/10.1017/CBO9781139344203

    Arguments:
        diagonal: The blocks :math:`D`, with shape :math:`(*, k, s, s)`.
        below: The blocks :math:`C`, with shape :math:`(*, k - 1, s, s)`.

    Raises:
        ValueError: If a matrix is not positive definite in double precision.

    Example:
        >>> D = 2 * torch.ones(3, 1, 1, dtype=torch.float64)
        >>> A = BlockCholesky(D, -torch.ones(2, 1, 1, dtype=torch.float64))
        >>> A.solve(torch.ones(3, 1, dtype=torch.float64)).flatten().tolist()
        [1.5, 2.0, 1.5]
        >>> A.variance().flatten().tolist()
        [0.75, 1.0, 0.75]
    """

    def __init__(
        self, diagonal: Float[Tensor, "*batch k s s"], below: Float[Tensor, "*batch j s s"]
    ) -> None:
        self.blocks = diagonal.shape[-3]
        self.roots: list[Tensor] = []
        self.links: list[Tensor] = []
        A = diagonal[..., 0, :, :]
        for k in range(self.blocks):
            L, info = torch.linalg.cholesky_ex(A)
            if info.any():
                self._refuse(k)
            self.roots.append(L)
            if k + 1 < self.blocks:
                W = torch.linalg.solve_triangular(L, below[..., k, :, :].mT, upper=False).mT
                self.links.append(W)
                A = diagonal[..., k + 1, :, :] - W @ W.mT

    def _refuse(self, k: int) -> None:
        msg = (
            f"BlockCholesky(diagonal=...): expected positive definite matrices, got a pivot that "
            f"is not positive in block {k} of {self.blocks}. Give the model larger errors, or the "
            "first state a smaller variance."
        )
        raise ValueError(msg)

    def forward_solve(self, r: Float[Tensor, "*batch k s"]) -> Float[Tensor, "*batch k s"]:
        r"""Returns :math:`L^{-1} r`."""
        return self.forward_columns(r[..., None])[..., 0]

    def forward_columns(self, r: Float[Tensor, "*batch k s p"]) -> Float[Tensor, "*batch k s p"]:
        r"""Returns :math:`L^{-1} r` for :math:`p` columns at once."""
        z: list[Tensor] = []
        for k, L in enumerate(self.roots):
            b = r[..., k, :, :]
            if k:
                b = b - self.links[k - 1] @ z[-1]
            z.append(torch.linalg.solve_triangular(L, b, upper=False))
        return torch.stack(z, dim=-3)

    def backward_solve(self, z: Float[Tensor, "*batch k s"]) -> Float[Tensor, "*batch k s"]:
        r"""Returns :math:`L^{-\top} z`: of white noise, a draw with covariance :math:`A^{-1}`."""
        x: list[Tensor] = []
        for k in reversed(range(self.blocks)):
            b = z[..., k, :, None]
            if x:
                b = b - self.links[k].mT @ x[-1]
            x.append(torch.linalg.solve_triangular(self.roots[k].mT, b, upper=True))
        return torch.stack(x[::-1], dim=-3)[..., 0]

    def solve(self, r: Float[Tensor, "*batch k s"]) -> Float[Tensor, "*batch k s"]:
        r"""Returns :math:`A^{-1} r`."""
        return self.backward_solve(self.forward_solve(r))

    def inverse_blocks(
        self,
    ) -> tuple[Float[Tensor, "*batch k s s"], Float[Tensor, "*batch j s s"]]:
        r"""Returns the blocks of :math:`A^{-1}` on and below the diagonal, without the others."""
        S, C = [torch.cholesky_inverse(self.roots[-1])], []
        for L, W in zip(self.roots[-2::-1], self.links[::-1], strict=True):
            J = torch.linalg.solve_triangular(L.mT, W.mT, upper=True)
            C.append(-S[-1] @ J.mT)
            S.append(torch.cholesky_inverse(L) - J @ C[-1])
        diagonal = torch.stack(S[::-1], dim=-3)
        below = torch.stack(C[::-1], dim=-3) if C else diagonal[..., :0, :, :]
        return diagonal, below

    def variance(self) -> Float[Tensor, "*batch k s"]:
        r"""Returns the diagonal of :math:`A^{-1}`."""
        return self.inverse_blocks()[0].diagonal(dim1=-2, dim2=-1)

    def log_determinant(self) -> Float[Tensor, "*batch"]:
        r"""Returns :math:`\log |A|`."""
        roots = torch.stack(self.roots, dim=-3)
        return 2 * roots.diagonal(dim1=-2, dim2=-1).log().sum(dim=(-2, -1))
