"""Signatures are checked while the tests run, but no more often than tells anything new.

Whether a call agrees with its signature depends only on the types, precisions and shapes of what
it is given and gives back, and on the values of flags, words and classes. A call that agrees in
all of these with one that passed passes too, and is not checked again; nor are the checks of an
inner function made anew each time that it is defined. Otherwise half the time of the suite would
go there. (A signature with a literal number, or with a ``{size}`` in a shape, would need the
values of numbers too; there is none.)
"""

import beartype
import functools
import inspect
import jaxtyping
import numpy as np
import threading
import torch

from types import FunctionType

LONG = 8  # items of a container beyond which it is checked at every call
SHAPED = {torch.Tensor, torch.nn.Parameter, np.ndarray}
BY_VALUE = {bool, str, type}
CONTAINERS = {tuple, list, set, frozenset}

_whole = jaxtyping.jaxtyped


class _Unknown(Exception):
    """Nothing short tells such a value from another."""


def _traits(values):
    """What decides whether values agree with a signature, in one row."""
    row = []
    for value in values:
        kind = type(value)
        row.append(kind)
        if kind in SHAPED:
            row += (value.dtype, value.shape)
        elif kind in BY_VALUE or isinstance(value, type):
            row.append(value)
        elif kind in CONTAINERS:
            row.append(_inner(value))
        elif kind is dict:
            row += (_inner(value), _inner(value.values()))
        elif isinstance(value, (torch.Tensor, np.ndarray)):
            SHAPED.add(kind)
            row += (value.dtype, value.shape)
    return tuple(row)


def _inner(values):
    if len(values) > LONG:
        raise _Unknown
    return _traits(values)


class _Signature:
    """The checks of a signature, and the traits of calls that passed them."""

    def __init__(self, function):
        self.function, self.signature = function, inspect.signature(function)
        self.told = threading.local()
        self.given, self.passed = set(), set()
        self.returns = self.signature.return_annotation is not inspect.Signature.empty

    def _probe(self, signature):
        """Returns a function of that signature, checked whole, that returns what it is told."""
        told = self.told

        def tell(*args, **kwargs):
            return told.out

        function = self.function
        probe = FunctionType(
            tell.__code__, function.__globals__, function.__name__, None, tell.__closure__
        )
        probe.__module__, probe.__qualname__ = function.__module__, function.__qualname__
        probe.__signature__ = signature
        return _whole(probe, typechecker=beartype.beartype)

    @functools.cached_property
    def _before(self):
        return self._probe(self.signature.replace(return_annotation=inspect.Signature.empty))

    @functools.cached_property
    def _after(self):
        return self._probe(self.signature)

    def before(self, args, kwargs):
        """Checks what is given, and returns its traits."""
        try:
            traits = _traits(args), tuple(kwargs), _traits(kwargs.values())
        except _Unknown:
            traits = None
        if traits is None or traits not in self.given:
            self.told.out = None
            self._before(*args, **kwargs)
            self.given.add(traits)
        return traits

    def after(self, traits, args, kwargs, out):
        """Checks what is given back, with what was given."""
        try:
            traits = traits and (traits, _traits((out,)))
        except _Unknown:
            traits = None
        if traits is None or traits not in self.passed:
            self.told.out = out
            self._after(*args, **kwargs)
            self.passed.add(traits)


_SIGNATURES = {}


def jaxtyped(thing=None, *, typechecker=None):
    """Stands in for ``jaxtyping.jaxtyped``, as the import hook uses it."""
    if thing is None:
        return functools.partial(jaxtyped, typechecker=typechecker)
    if not isinstance(thing, FunctionType):
        return _whole(thing, typechecker=typechecker)
    if not thing.__annotations__:
        return thing
    # inner functions of one definition have one signature
    key = thing.__module__, thing.__code__, tuple(thing.__annotations__.items())
    signature = _SIGNATURES.get(key)
    if signature is None:
        signature = _SIGNATURES[key] = _Signature(thing)

    @functools.wraps(thing)
    def checked(*args, **kwargs):
        traits = signature.before(args, kwargs)
        out = thing(*args, **kwargs)
        if signature.returns:
            signature.after(traits, args, kwargs, out)
        return out

    return checked
