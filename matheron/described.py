r"""Objects that remember how they were made."""

from __future__ import annotations

__all__ = ["Described"]

import inspect

from torch import Generator
from typing import Any


class Described:
    r"""A class whose objects keep the arguments that they were made with.

    They can then be written as plain data, and made again. A base class is enough: constructors
    need not know of it.

    Example:
        >>> class Line(Described):
        ...     def __init__(self, slope, height=0.0):
        ...         self.line = (slope, height)
        >>> Line(2.0).made_with
        {'slope': 2.0}
    """

    _made_with: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        self = super().__new__(cls)
        # past nn.Module, which would take modules among the arguments for parts
        object.__setattr__(self, "_made_with", (args, kwargs))
        return self

    @property
    def made_with(self) -> dict[str, Any]:
        r"""The arguments by name, those left at their defaults and generators left out."""
        args, kwargs = self._made_with
        constructor = type(self).__init__  # the signature of the class would be that of __new__
        signature = inspect.signature(constructor)
        bound = dict(list(signature.bind(self, *args, **kwargs).arguments.items())[1:])
        for name, parameter in signature.parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                bound |= bound.pop(name, {})
            if parameter.kind is parameter.VAR_POSITIONAL:
                bound.pop(name, None)
        return {k: v for k, v in bound.items() if not isinstance(v, Generator)}
