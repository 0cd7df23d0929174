r"""Other fields that a trained solver is given beside the data, as it was in its training."""

from __future__ import annotations

__all__ = ["Covariates"]


from collections.abc import Iterable, Mapping
from torch import Tensor
from typing import Any

from .problem import Problem, Say
from ..data.beside import Known, missing, of_order_one
from ..data.errors import call, refuse
from ..domain import Grid


class Covariates:
    r"""The fields of a card, in the order of their names.

    Arguments:
        about: What each is made of order one by (``mean``, ``std``) and its ``units``.

    Example:
        >>> Covariates({"sst": {"mean": 19.0, "std": 5.0, "units": "degree_Celsius"}}).names
        ('sst',)
    """

    def __init__(self, about: Mapping[str, Mapping[str, Any]]) -> None:
        self.about, self.names = about, tuple(sorted(about))

    def check(self, given: Iterable[str]) -> None:
        r"""Refuses names of fields that lack one.

        Raises:
            InputError: If one is lacking; it is named.
        """
        for name in self.names:
            if name not in given:
                got = ", ".join(given) or "none"
                where, expected = call("learned", covariate=name), f"{name}, as in the training"
                raise refuse(where, expected, got, f"Give it, e.g. --covariate {name}=FILE")

    def of(self, problem: Problem, days: Grid, first: int, count: int, say: Say) -> dict[str, Any]:
        r"""Returns the fields of a problem on a grid, of order one, and where each is known.

        Arguments:
            problem: The problem.
            days: The grid.
            first: The first of its days that is mapped.
            count: How many are mapped.
            say: Where to say what is missing.

        Raises:
            InputError: If one is missing on a day that is mapped, or is nothing like that of the
                training.
        """
        self.check(problem.beside)
        mapped, found = slice(first, first + count), dict[str, Known]()
        for name in self.names:
            about = self.about[name]
            field = problem.beside[name].within(about["units"], about["mean"], about["std"])
            values, known = field.onto(days)
            there = known.reshape(days.shape)[mapped]
            if none := missing(there, days, first):
                shown = ", ".join(none[:3]) + (f" and {len(none) - 3} more" if none[3:] else "")
                where, expected = call("learned", covariate=name), f"{name} on all days of the map"
                raise refuse(where, expected, f"none on {shown}", "Give a file that covers them")
            if (part := 1 - there.double().mean().item()) > 0:
                say(f"note: {part:.0%} of {name} is missing")
            found[name] = self.of_order_one(name, values, known)
        return found

    def of_order_one(self, name: str, values: Tensor, known: Tensor) -> Known:
        r"""Returns a field as the solver is given it: zero in its gaps."""
        about = self.about[name]
        return of_order_one(values, known, about["mean"], about["std"])
