"""What checks signatures refuses what jaxtyping and beartype refuse, at every call."""

import numpy as np
import pytest
import torch

from jaxtyping import Float, TypeCheckError
from numpy import ndarray
from torch import Tensor
from typing import Literal

from matheron.kernels import Matern
from tests.shape_checks import jaxtyped


@jaxtyped
def joined(a: Float[Tensor, "*b n"], b: Float[Tensor, "*b m"]) -> Float[Tensor, "*b k"]:
    return torch.cat([a, b], dim=-1)


@jaxtyped
def same(a: Float[Tensor, " n"], back: Tensor | None = None) -> Float[Tensor, " n"]:
    return a if back is None else back


def refuses(call):
    with pytest.raises(TypeCheckError):
        call()


@pytest.mark.parametrize("before", [0, 1, 5])
def test_what_passed_before_hides_nothing(before):
    right = torch.zeros(2, 3), torch.zeros(2, 4)
    for _ in range(before):
        assert joined(*right).shape == (2, 7)
    refuses(lambda: joined(torch.zeros(2, 3), torch.zeros(5, 4)))
    refuses(lambda: joined(torch.zeros(2, 3).long(), torch.zeros(2, 4)))
    refuses(lambda: joined(right[0], b=right[1].numpy()))
    assert joined(*right).shape == (2, 7)


def test_what_is_given_back_is_checked_with_what_is_given():
    a = torch.zeros(3)
    for _ in range(3):
        assert same(a).shape == (3,)
        assert same(a, torch.ones(3)).shape == (3,)
        refuses(lambda: same(a, torch.ones(4)))
        refuses(lambda: same(a, torch.ones(3).int()))


def test_a_refusal_is_not_remembered_as_a_pass():
    for _ in range(3):
        refuses(lambda: same(torch.zeros(3, 3)))


def test_what_is_given_is_refused_before_the_call():
    called = []

    @jaxtyped
    def note(a: Float[Tensor, " n"]) -> None:
        called.append(a)

    refuses(lambda: note(torch.zeros(2, 2)))
    assert not called
    with pytest.raises(TypeError, match="missing a required argument"):
        note()


def test_inner_functions_of_one_definition_keep_what_they_close_over():
    def adder(shift):
        @jaxtyped
        def add(a: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
            return a + shift

        return add

    one, two, broken = adder(1.0), adder(2.0), adder(torch.zeros(4, 1))
    for _ in range(2):
        assert one(torch.zeros(4)).eq(1).all()
        assert two(torch.zeros(4)).eq(2).all()
        refuses(lambda: broken(torch.zeros(4)))
        refuses(lambda: two(torch.zeros(4, 4)))


@pytest.mark.parametrize(
    ("hint", "right", "wrong"),
    [
        (list[Float[Tensor, " n"]], [torch.zeros(2)] * 2, [torch.zeros(2, 1)] * 2),
        (list[Float[Tensor, " n"]], [torch.zeros(2)] * 20, [torch.zeros(2, 1)] * 20),
        (dict[str, Float[Tensor, " n"]], {"a": torch.zeros(2)}, {"a": torch.zeros(2, 1)}),
        (tuple[int, float], (1, 2.0), (1.5, 2.0)),
        (Float[ndarray, " n"], np.zeros(2), np.zeros(2, int)),
        (Literal["a", "b"], "a", "c"),
        (type[Tensor], Tensor, int),
        (int | None, None, "none"),
        (Float[torch.nn.Parameter, " n"], torch.nn.Parameter(torch.zeros(1)), torch.zeros(1)),
    ],
    ids=str,
)
def test_values_of_every_kind(hint, right, wrong):
    def takes(value):
        return value

    def gives(value):
        return value

    takes.__annotations__ = {"value": hint}
    gives.__annotations__ = {"return": hint}
    for call in (jaxtyped(takes), jaxtyped(gives)):
        for _ in range(3):
            assert call(right) is right
            refuses(lambda call=call: call(wrong))


def test_the_package_is_checked():
    kernel, x = Matern(1.5), torch.zeros(3, 2, dtype=torch.float64)
    for _ in range(2):
        assert kernel(x, x).shape == (3, 3)
        refuses(lambda: kernel(x, torch.zeros(4, 3).double()))
        refuses(lambda: kernel(x, "a"))
