r"""Trends: the part of a field that is a known function with unknown coefficients."""

from __future__ import annotations

__all__ = ["Trend"]

import ast
import torch

from collections.abc import Callable
from jaxtyping import Float
from torch import Tensor

from ..domain import Grid, Points, nearest_turn

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sqrt": torch.sqrt,
    "log": torch.log,
    "exp": torch.exp,
    "abs": torch.abs,
    "sin": torch.sin,
    "cos": torch.cos,
}
OPERATIONS: dict[type, Callable[[Tensor, Tensor], Tensor]] = {
    ast.Mult: torch.mul,
    ast.Div: torch.div,
    ast.Pow: torch.pow,
    ast.Sub: torch.sub,
    ast.Add: torch.add,
}


class Trend:
    r"""A trend :math:`F \beta`, e.g. ``"1 + lon + lat"`` or ``"1 + sqrt(dist)"``.

    Names are coordinates of the domain, or covariates of its points. Each term between plus signs
    is a column of :math:`F`; terms may use ``* / **`` and sqrt, log, exp, abs, sin, cos.

    Arguments:
        formula: The terms of the trend.
        domain: The domain, about whose middle coordinates are taken: the longitudes of a trend
            are then continuous on either branch, and its columns well conditioned.

    Raises:
        ValueError: If the formula cannot be read, or names something unknown.

    Example:
        >>> trend = Trend("1 + x", Points(x=[1.0, 3.0]))
        >>> trend.design(Points(x=[4.0])).tolist()  # x is counted from the middle, 2
        [[1.0, 2.0]]
    """

    def __init__(self, formula: str, domain: Grid | Points) -> None:
        self.formula = formula
        self.terms = _terms(formula)
        points = domain.points
        self.epoch = domain.epoch
        self.center = dict(zip(points.dims, points.coords.mean(dim=0).tolist(), strict=True))
        if domain.metric == "sphere":
            self.center["lat"], self.center["lon"] = domain.center

    @property
    def names(self) -> list[str]:
        r"""The text of each term."""
        return [ast.unparse(term) for term in self.terms]

    def design(self, points: Points) -> Float[Tensor, "m p"]:
        r"""Returns the columns :math:`F` at some points."""
        points = points.since(self.epoch)
        values = {k: self._coordinate(points, k) for k in points.dims} | points.covariates
        columns = [_evaluate(term, values, self.formula) for term in self.terms]
        F = torch.stack([c.expand(len(points)) for c in columns], dim=-1)
        if not F.isfinite().all():
            bad = self.names[int((~F.isfinite()).sum(dim=0).argmax())]
            msg = (
                f"Trend({self.formula!r}): expected finite columns, got NaN or Inf in {bad!r}. "
                "Check its logarithms and square roots."
            )
            raise ValueError(msg)
        return F

    def _coordinate(self, points: Points, name: str) -> Tensor:
        value = points.axis(name) - self.center[name]
        if name == "lon" and points.metric == "sphere":
            value = nearest_turn(value)
        return value


def _terms(formula: str) -> list[ast.expr]:
    try:
        body = ast.parse(formula, mode="eval").body
    except (SyntaxError, TypeError, ValueError):
        msg = (
            f"Trend(formula=...): expected a sum of terms such as '1 + lon + lat', got "
            f"{formula!r}. Check the brackets and operators."
        )
        raise ValueError(msg) from None
    terms: list[ast.expr] = []
    while isinstance(body, ast.BinOp) and isinstance(body.op, ast.Add):
        terms.insert(0, body.right)
        body = body.left
    return [body, *terms]


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def _evaluate(node: ast.expr, values: dict[str, Tensor], formula: str) -> Tensor:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return torch.tensor(float(node.value), dtype=torch.float64)
    if isinstance(node, ast.Name) and node.id in values:
        return values[node.id]
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATIONS:
        left, right = (_evaluate(n, values, formula) for n in (node.left, node.right))
        return OPERATIONS[type(node.op)](left, right)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_evaluate(node.operand, values, formula)
    if isinstance(node, ast.Call) and len(node.args) == 1 and _name(node.func) in FUNCTIONS:
        return FUNCTIONS[_name(node.func)](_evaluate(node.args[0], values, formula))
    msg = (
        f"Trend({formula!r}): expected coordinates or covariates among {sorted(values)}, got "
        f"{ast.unparse(node)!r}. Pass it in Points(covariates=...) and Grid(covariates=...)."
    )
    raise ValueError(msg)
