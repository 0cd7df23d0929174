r"""The one error of the border: an input that cannot be used, and what to do about it."""

from __future__ import annotations

__all__ = ["InputError", "call", "refuse"]


class InputError(ValueError):
    r"""An input that cannot be used. Its message is one line, and ends with the cure."""


def call(function: str, **argument: object) -> str:
    r"""Returns a call with the argument at fault, as the head of an error.

    Example:
        >>> call("read", path="a.csv")
        'read(path=a.csv)'
    """
    return f"{function}({', '.join(f'{k}={v}' for k, v in argument.items())})"


def refuse(where: str, expected: str, got: str, cure: str) -> InputError:
    r"""Returns the error to raise, worded as everywhere in the library.

    Arguments:
        where: The call that refuses, as :func:`call` writes it.
        expected: What was expected.
        got: What was found.
        cure: What to do, as a sentence without its full stop, or as a question.

    Example:
        >>> print(refuse(call("read", path="a.csv"), "a file", "no such file", "Check the path"))
        read(path=a.csv): expected a file, got no such file. Check the path.
    """
    end = "" if cure.endswith("?") else "."
    return InputError(" ".join(f"{where}: expected {expected}, got {got}. {cure}{end}".split()))
