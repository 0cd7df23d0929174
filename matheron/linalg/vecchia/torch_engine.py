"""The Vecchia engine in batched torch, for any covariance function, on any device.

The covariance is a function ``covariance(a, b)`` of points (*, p, d) and (*, q, d), with values
(*, p, q). Rows are treated a few
hundred at a time; gradients use the closed-form adjoint of each block and one pass back through
the covariance per chunk, so that
the graph never holds all blocks.
"""

from __future__ import annotations

import torch

from collections.abc import Callable, Iterator, Sequence
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from typing import Any

__all__ = ["CHUNK", "fisher", "predict_weights", "whiten"]

CHUNK = 512
Covariance = Callable[[Tensor, Tensor], Tensor]


def blocks(neighbors: Tensor, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    """Indices of the rows of each chunk, neighbours first and the point last, and whether they are
    present.
    """
    own = torch.arange(start, start + len(neighbors), device=neighbors.device)
    for table, mine in zip(neighbors.long().split(CHUNK), own.split(CHUNK), strict=True):
        rows = torch.cat([table, mine[:, None]], 1)
        yield rows.clamp(min=0), rows >= 0


def block_covariance(
    covariance: Covariance, points: Tensor, noise: Tensor, present: Tensor
) -> Tensor:
    """Covariance of each block with its noise; absent rows are rows of the identity."""
    pair = present[:, :, None] & present[:, None, :]
    matrix = torch.where(pair, covariance(points, points).expand(pair.shape), 0.0)
    return matrix + torch.diag_embed(torch.where(present, noise, 1.0))


def factor(matrix: Tensor, rows: Tensor) -> Tensor:
    """Cholesky factors of a chunk."""
    root, failed = torch.linalg.cholesky_ex(matrix)
    pivots = root.diagonal(dim1=-2, dim2=-1).square()
    tolerance = 32 * matrix.shape[-1] * torch.finfo(matrix.dtype).eps
    bad = (failed > 0) | ~(pivots > tolerance * matrix.diagonal(dim1=-2, dim2=-1)).all(-1)
    if bad.any():
        datum = int(rows[bad][0, -1])
        msg = (
            "Vecchia(noise=...): expected positive definite covariances, got one that is not "
            f"positive definite at datum {datum}. "
            "Set noise_std > 0, or merge coincident data."
        )
        raise ValueError(msg)
    return root


def solve(root: Tensor, columns: Tensor) -> Tensor:
    """Forward substitution."""
    return torch.linalg.solve_triangular(root, columns, upper=False)


def last_column(root: Tensor) -> Tensor:
    """Solution ``a`` of ``L' a = e_r``, with shape (*, rows, 1)."""
    unit = torch.zeros_like(root[..., :1])
    unit[..., -1, :] = 1.0
    return torch.linalg.solve_triangular(root.mT, unit, upper=True)


def gathered(values: Tensor, rows: Tensor, present: Tensor) -> Tensor:
    """Rows of a table, zero where absent."""
    return torch.where(present[..., None], values[rows], 0.0)


class Whiten(torch.autograd.Function):
    """Log-determinant and Gram matrix with chunks in both directions."""

    @staticmethod
    def forward(
        ctx: Any,
        covariance: Covariance,
        neighbors: Tensor,
        coords: Tensor,
        noise: Tensor,
        columns: Tensor,
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor]:
        ctx.covariance, ctx.parameters = covariance, parameters
        ctx.save_for_backward(neighbors, coords, noise, columns)
        logdet, gram = noise.new_zeros(()), columns.new_zeros(columns.shape[1], columns.shape[1])
        for rows, present in blocks(neighbors):
            root = factor(block_covariance(covariance, coords[rows], noise[rows], present), rows)
            last = solve(root, gathered(columns, rows, present))[:, -1]
            logdet = logdet + 2 * root[:, -1, -1].log().sum()
            gram = gram + last.mT @ last
        return logdet, gram

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g0: Tensor, upstream: Tensor) -> tuple[Tensor | None, ...]:
        neighbors, coords, noise, columns = ctx.saved_tensors
        weights = 0.5 * (upstream + upstream.mT)
        leaf = coords.detach().requires_grad_(ctx.needs_input_grad[2])
        total = [torch.zeros_like(t) for t in (noise, columns, coords, *ctx.parameters)]
        needed = [leaf, *ctx.parameters]
        active = [k for k, t in enumerate(needed) if t.requires_grad]
        for rows, present in blocks(neighbors):
            with torch.enable_grad():
                matrix = block_covariance(
                    ctx.covariance, leaf[rows], noise.detach()[rows], present
                )
            adjoint, columns_adjoint = block_adjoint(
                matrix.detach(), gathered(columns, rows, present), g0, weights, rows
            )
            own = adjoint.diagonal(dim1=-2, dim2=-1)
            total[0].index_put_((rows[present],), own[present], accumulate=True)
            total[1].index_put_((rows[present],), columns_adjoint[present], accumulate=True)
            if active and matrix.requires_grad:
                found = torch.autograd.grad(
                    matrix, [needed[k] for k in active], adjoint, allow_unused=True
                )
                for k, g in zip(active, found, strict=True):
                    total[2 + k] = total[2 + k] if g is None else total[2 + k] + g
        needs = ctx.needs_input_grad
        ordered = [total[2], total[0], total[1], *total[3:]]
        return None, None, *(g if n else None for g, n in zip(ordered, needs[2:], strict=True))


def block_adjoint(
    matrix: Tensor, columns: Tensor, g0: Tensor, weights: Tensor, rows: Tensor
) -> tuple[Tensor, Tensor]:
    """Adjoints of the covariance blocks and of their columns: g0 a a' - (a b' + b a' + (w'Mw) a
    a').
    """
    root = factor(matrix, rows)
    whitened = solve(root, columns)
    last = whitened[:, -1]
    pull = last @ weights
    a = last_column(root)
    inner = whitened @ pull[..., None]
    inner[:, -1] = 0.0
    b = torch.linalg.solve_triangular(root.mT, inner, upper=True)
    alpha = g0 - (last * pull).sum(-1)
    ab = a @ b.mT
    return alpha[:, None, None] * (a @ a.mT) - ab - ab.mT, 2 * a @ pull[:, None]


def whiten(
    covariance: Covariance,
    coords: Float[Tensor, "n d"],
    noise: Float[Tensor, " n"],
    columns: Float[Tensor, "n c"],
    neighbors: Int[Tensor, "n m"],
    parameters: Sequence[Tensor] = (),
) -> tuple[Float[Tensor, ""], Float[Tensor, "c c"]]:
    r"""Log-determinant and Gram matrix under the Vecchia approximation, for any covariance
    function.

    Differentiable once in coordinates, noise, columns and the parameters given.

    Arguments:
        covariance: The covariance of the signal between points (*, p, d) and (*, q, d).
        coords: The points, with shape :math:`(n, d)`.
        noise: The noise variances, with shape :math:`(n)`.
        columns: The columns, with shape :math:`(n, c)`.
        neighbors: The earlier neighbours of each point, absent ones -1, with shape :math:`(n, m)`.
        parameters: The tensors that the covariance depends on and whose gradients are wanted.

    Returns:
        The log-determinant, with shape :math:`()`, and the Gram matrix, with shape :math:`(c, c)`.

    Raises:
        ValueError: If the covariance of a point and its neighbours is not positive definite.

    Example:
        >>> x = torch.arange(3, dtype=torch.float64).reshape(3, 1)
        >>> chain = torch.tensor([[-1], [0], [1]], dtype=torch.int32)
        >>> def covariance(a, b):
        ...     return torch.exp(-(a - b.mT).abs())
        >>> logdet, gram = whiten(covariance, x, 0 * x[:, 0], torch.ones_like(x), chain)
        >>> round(logdet.item(), 4), round(gram.item(), 4)
        (-0.2908, 1.9242)
    """
    return Whiten.apply(covariance, neighbors, coords, noise, columns, *parameters)


def directional(matrix: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """Derivatives of a matrix along each entry of the parameters: the transpose of the pullback,
    itself by a pullback.
    """
    probe = torch.zeros_like(matrix).requires_grad_()
    pulled = torch.autograd.grad(matrix, parameters, probe, create_graph=True, allow_unused=True)
    result = []
    for parameter, gradient in zip(parameters, pulled, strict=True):
        if gradient is None or not gradient.requires_grad:
            result += [torch.zeros_like(matrix)] * parameter.numel()
            continue
        for entry in gradient.reshape(-1):
            (along,) = torch.autograd.grad(entry, probe, retain_graph=True)
            result.append(along)
    return result


def fisher(
    covariance: Covariance,
    coords: Float[Tensor, "n d"],
    noise: Float[Tensor, " n"],
    columns: Float[Tensor, "n c"],
    neighbors: Int[Tensor, "n m"],
    parameters: Sequence[Tensor],
    noise_tangents: Float[Tensor, "p n"] | None = None,
) -> tuple[
    Float[Tensor, ""],
    Float[Tensor, "c c"],
    Float[Tensor, " p"],
    Float[Tensor, "p c c"],
    Float[Tensor, "p p"],
]:
    r"""Log-determinant and Gram matrix, their derivatives along the entries of some parameters,
    and the Fisher information.

    The covariance must be twice differentiable by torch. For a few parameters only: each costs one
    pass back through it.

    Arguments:
        covariance: The covariance of the signal between points (*, p, d) and (*, q, d).
        coords: The points, with shape :math:`(n, d)`.
        noise: The noise variances, with shape :math:`(n)`.
        columns: The columns, with shape :math:`(n, c)`.
        neighbors: The earlier neighbours of each point, absent ones -1, with shape :math:`(n, m)`.
        parameters: The tensors whose :math:`p` entries in all are the parameters; they must
            require a gradient.
        noise_tangents: The derivatives of the noise along each entry, with shape :math:`(p, n)`,
            or None.

    Returns:
        As :func:`matheron.linalg.vecchia.fisher`.

    Raises:
        ValueError: If the covariance of a point and its neighbours is not positive definite.

    Example:
        >>> x = torch.arange(3, dtype=torch.float64).reshape(3, 1)
        >>> chain = torch.tensor([[-1], [0], [1]], dtype=torch.int32)
        >>> s = torch.ones((), dtype=torch.float64, requires_grad=True)
        >>> def covariance(a, b):
        ...     return s * torch.exp(-(a - b.mT).abs())
        >>> fisher(covariance, x, 0 * x[:, 0], torch.ones_like(x), chain, [s])[-1]
        tensor([[1.5000]], dtype=torch.float64)
    """
    p, c = sum(t.numel() for t in parameters), columns.shape[1]
    result = [noise.new_zeros(s) for s in ((), (c, c), (p,), (p, c, c), (p, p))]
    for rows, present in blocks(neighbors):
        with torch.enable_grad():
            matrix = block_covariance(
                covariance, coords.detach()[rows], noise.detach()[rows], present
            )
            along = (
                torch.stack(directional(matrix, parameters))
                if p
                else matrix.new_zeros(0, *matrix.shape)
            )
        if noise_tangents is not None:
            along = along + torch.diag_embed(torch.where(present, noise_tangents[:, rows], 0.0))
        chunk = fisher_block(
            factor(matrix.detach(), rows), along, gathered(columns.detach(), rows, present)
        )
        result = [total + part for total, part in zip(result, chunk, strict=True)]
    return result[0], result[1], result[2], result[3], result[4]


def fisher_block(root: Tensor, along: Tensor, columns: Tensor) -> list[Tensor]:
    """Contribution of a chunk to the five results."""
    whitened = solve(root, columns)
    last = whitened[:, -1]
    g = solve(root, along @ last_column(root))[..., 0]
    end = g[..., -1]
    mixed = torch.einsum("pbr,brk,bl->pkl", g, whitened, last)
    own = torch.einsum("pb,bk,bl->pkl", end, last, last)
    info = torch.einsum("pbr,qbr->pq", g, g) - 0.5 * end @ end.mT
    logdet = 2 * root[:, -1, -1].log().sum()
    return [logdet, last.mT @ last, end.sum(-1), own - mixed - mixed.mT, info]


def predict_weights(
    covariance: Covariance,
    coords: Float[Tensor, "n d"],
    noise: Float[Tensor, " n"],
    neighbors: Int[Tensor, "t m"],
    start: int,
) -> tuple[Float[Tensor, "t m"], Float[Tensor, " t"]]:
    r"""Conditional mean weights and standard deviation of each target given its neighbours, for
    any covariance function.

    Arguments:
        covariance: The covariance of the signal between points (*, p, d) and (*, q, d).
        coords: The data, then the targets, with shape :math:`(n, d)`.
        noise: The noise variances, 0 for targets, with shape :math:`(n)`.
        neighbors: The neighbours of the targets, absent ones -1, with shape :math:`(t, m)`.
        start: The number of data :math:`n - t`.

    Returns:
        The weights, with shape :math:`(t, m)`, and the standard deviations, with shape
        :math:`(t)`.

    Raises:
        ValueError: If the covariance of the neighbours of a target is not positive definite.

    Example:
        >>> x = torch.tensor([[0.0], [2.0], [2.0]], dtype=torch.float64)
        >>> nearest = torch.tensor([[1, 0]], dtype=torch.int32)
        >>> def covariance(a, b):
        ...     return torch.exp(-(a - b.mT).abs())
        >>> predict_weights(covariance, x, 0 * x[:, 0], nearest, 2)[1].item()
        0.0
    """
    found = []
    with torch.no_grad():
        for rows, present in blocks(neighbors, start):
            matrix = block_covariance(covariance, coords[rows], noise[rows], present)
            root = factor(matrix[:, :-1, :-1].contiguous(), rows)
            whitened = solve(root, matrix[:, :-1, -1:])
            weights = torch.linalg.solve_triangular(root.mT, whitened, upper=True)[..., 0]
            variance = matrix[:, -1, -1] - whitened[..., 0].square().sum(-1)
            found.append((weights, variance.clamp(min=0).sqrt()))
    if not found:
        return noise.new_zeros(neighbors.shape), noise.new_zeros(0)
    return torch.cat([w for w, _ in found]), torch.cat([s for _, s in found])
