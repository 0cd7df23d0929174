r"""Laws of models that are learned: they hold the toy atmospheres, exactly."""

import pytest
import torch

from torch.testing import assert_close

from matheron.dynamics import Lorenz63, Lorenz96
from matheron.dynamics.networks import BilinearNetwork, ConvDynamics, MLPDynamics

MODELS = {
    "bilinear": (lambda g, **k: BilinearNetwork(3, generator=g, **k), 3),
    "mlp": (lambda g, **k: MLPDynamics(3, (8, 8), generator=g, **k), 3),
    "conv": (lambda g, **k: ConvDynamics(9, generator=g, **k), 9),
}


@pytest.fixture(params=list(MODELS))
def made(request):
    return MODELS[request.param]


def filled(**values):
    return {k: torch.as_tensor(v, dtype=torch.float64) for k, v in values.items()}


def set_(model, **values):
    with torch.no_grad():
        for name, value in filled(**values).items():
            getattr(model, name).copy_(value)


def true_bilinear():
    model = BilinearNetwork(3, products=2)
    set_(
        model,
        linear=[[-10.0, 10.0, 0.0], [28.0, -1.0, 0.0], [0.0, 0.0, -8 / 3]],
        left=[[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]],
        right=[[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]],
        mixing=[[0.0, 0.0], [-1.0, 0.0], [0.0, 1.0]],
    )
    return model


def test_the_bilinear_network_holds_lorenz63(generator):
    model, true = true_bilinear(), Lorenz63()
    x = true.initial(generator, (5,))
    assert_close(model.tendency(x), true.tendency(x), rtol=1e-13, atol=1e-12)
    assert_close(model(x, 50), true(x, 50), rtol=1e-10, atol=1e-10)


def test_the_convolution_holds_lorenz96(generator):
    model, true = ConvDynamics(12, products=1), Lorenz96(12)
    set_(
        model,
        constant=[8.0],
        linear=[0.0, 0.0, -1.0, 0.0, 0.0],
        left=[[-1.0, 0.0, 0.0, 1.0, 0.0]],
        right=[[0.0, 1.0, 0.0, 0.0, 0.0]],
        mixing=[1.0],
    )
    x = true.initial(generator, (5,))
    assert_close(model(x, 20), true(x, 20), rtol=1e-10, atol=1e-12)


def test_units_change_numbers_not_laws(generator):
    """In other units the same law has other weights; its coefficients say the same."""
    model = BilinearNetwork(3, generator=generator)
    states = 5 * torch.randn(50, 3, dtype=torch.float64, generator=generator) + 20
    model.normalise(states)
    b, A, B = model.coefficients()
    by_hand = b + states @ A.mT + torch.einsum("ijk,nj,nk->ni", B, states, states)
    assert_close(by_hand, model.tendency(states), rtol=1e-9, atol=1e-9)


def test_the_convolution_turns_with_the_circle(generator):
    model = ConvDynamics(9, generator=generator)
    x = torch.randn(4, 9, dtype=torch.float64, generator=generator)
    model.normalise(10 * x + 3)
    assert_close(model(x.roll(2, -1), 5), model(x, 5).roll(2, -1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scheme", ["runge-kutta", "residual"])
def test_gradients_are_those_of_finite_differences(made, scheme, generator):
    make, size = made
    model = make(generator, scheme=scheme)
    x, way, weight = torch.randn(3, size, dtype=torch.float64, generator=generator)
    x.requires_grad_()
    parameters = [x, *model.parameters()]
    value = lambda: (model(x, 5) * weight).sum()
    slopes = torch.autograd.grad(value(), parameters)
    h = 1e-4
    for p, slope in zip(parameters, slopes, strict=True):
        way = torch.randn(p.shape, dtype=torch.float64, generator=generator)
        start, found = p.detach().clone(), []
        with torch.no_grad():
            for t in (-2, -1, 1, 2):
                p.copy_(start + t * h * way)
                found.append(value())
            p.copy_(start)
        # Fourth-order central differences; the error is O(h^4) plus round-off.
        finite = (8 * (found[2] - found[1]) - found[3] + found[0]) / (12 * h)
        assert_close((slope * way).sum(), finite, rtol=1e-7, atol=1e-9)


def test_a_residual_step_is_one_of_euler(made, generator):
    make, size = made
    model = make(generator, scheme="residual", dt=0.1)
    x = torch.randn(4, size, dtype=torch.float64, generator=generator)
    assert_close(model.step(x), x + 0.1 * model.tendency(x), rtol=1e-12, atol=1e-12)


def test_the_same_seed_the_same_network_and_back_from_its_state(made):
    make, size = made
    one, two = (make(torch.Generator().manual_seed(3)) for _ in range(2))
    other = make(torch.Generator().manual_seed(4))
    x = torch.ones(size, dtype=torch.float64)
    x[0] = 2.0
    assert torch.equal(one(x, 3), two(x, 3))
    assert not torch.equal(one(x, 3), other(x, 3))
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(x, 3), other(x, 3))


def test_bad_arguments_are_told(made):
    make, size = made
    with pytest.raises(ValueError, match=r"scheme=\.\.\..*got 'euler'"):
        make(None, scheme="euler")
    with pytest.raises(ValueError, match=r"normalise\(states=\.\.\.\).*do not"):
        make(None).normalise(torch.ones(5, size, dtype=torch.float64))


def test_bad_sizes_are_told():
    for make in (lambda: BilinearNetwork(3, 0), lambda: MLPDynamics(3, (0,)),
                 lambda: ConvDynamics(4, reach=2)):  # fmt: skip
        with pytest.raises(ValueError, match="expected sizes of one or more"):
            make()
