r"""Laws of networks: adjoints equal autograd, holes stay holes, members of a batch stay apart."""

import pytest
import torch

from torch.testing import assert_close

from matheron import nets
from matheron.nets.layers import fold, pool, pool_adjoint, unpool, wrap

PADDINGS = ["zeros", "circular", "reflect"]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, dtype=torch.float64, generator=generator(seed)).to(dtype)


def build(kind, dims, padding="zeros"):
    made = {
        "conv": lambda: nets.Conv(3, 3, 3, dims, padding, generator=generator()),
        "hole": lambda: nets.Conv(3, 3, 5, dims, padding, hole=True, generator=generator()),
        "bilinear": lambda: nets.BilinearAutoencoder(
            3, 4, (1, 2, 3), dims=dims, padding=padding, generator=generator()
        ),
        "two-scale": lambda: nets.TwoScale(
            3, 4, 3, dims=dims, padding=padding, generator=generator()
        ),
        "unet": lambda: nets.UNet(3, width=4, dims=dims, padding=padding, generator=generator()),
        "patches": lambda: patches(dims, padding),
        "residual": lambda: nets.Residual(build("unet", dims, padding)),
    }
    return made[kind]()


def patches(dims, padding="zeros"):
    inner = {"dims": dims, "padding": padding, "generator": generator()}
    return nets.Patches(nets.UNet(3 * 2**dims, width=4, levels=2, **inner), 2)


def field(dims, dtype=torch.float64, seed=0):
    return normal(2, 3, *((17,) if dims == 1 else (17, 12)), seed=seed, dtype=dtype)


KINDS = ["conv", "hole", "bilinear", "two-scale", "unet", "patches", "residual"]


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("dims", [1, 2])
def test_a_border_folds_back_as_its_adjoint(dims, padding):
    x = field(dims)
    modes = (padding,) * dims
    r = normal(2, 3, *(n + 4 for n in x.shape[2:]), seed=1)
    assert_close((wrap(x, 2, modes) * r).sum(), (x * fold(r, 2, modes)).sum())


@pytest.mark.parametrize("factor", [2, 3, 5])
@pytest.mark.parametrize("dims", [1, 2])
def test_cells_and_their_adjoints(dims, factor):
    x = field(dims)
    space, coarse = x.shape[2:], pool(x, factor)
    r = normal(*coarse.shape, seed=1)
    assert_close((coarse * r).sum(), (x * pool_adjoint(r, space, factor)).sum())
    up = unpool(r, space, factor)
    assert_close((up * x).sum(), (r * unpool(x, space, factor, adjoint=True)).sum())
    modes = ("circular",) * dims
    up, down = unpool(r, space, factor, modes), unpool(x, space, factor, modes, adjoint=True)
    assert_close((up * x).sum(), (r * down).sum())
    ones = torch.ones_like(x)
    assert_close(pool(ones, factor), torch.ones_like(coarse))
    assert_close(unpool(torch.ones_like(coarse), space, factor), ones)


def test_interpolation_between_cells_keeps_straight_lines():
    line = torch.arange(12.0, dtype=torch.float64)[None, None]
    back = unpool(pool(line, 3), (12,), 3)
    assert_close(back[..., 1:-1], line[..., 1:-1])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("padding", [*PADDINGS, ("circular", "zeros")])
@pytest.mark.parametrize("kind", KINDS)
def test_the_adjoint_is_that_of_autograd(kind, padding, dtype, tolerance):
    net = build(kind, 2, padding).to(dtype)
    x, r = field(2, dtype), field(2, dtype, seed=1)
    y, adjoint = nets.pullback(net, x)
    assert_close(y, net(x), rtol=tolerance, atol=tolerance)
    v = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad((net(v) * r).sum(), v)
    bound = tolerance * expected.abs().max().item()
    assert_close(adjoint(r), expected, rtol=0, atol=10 * bound)


@pytest.mark.parametrize("kind", KINDS)
def test_the_adjoint_in_one_dimension(kind):
    net, x, r = build(kind, 1).double(), field(1), field(1, seed=1)
    v = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad((net(v) * r).sum(), v)
    assert_close(nets.pullback(net, x)[1](r), expected, rtol=1e-12, atol=1e-12)


def unrolled(net, x, closed):
    r"""Three steps down ``|x - Phi(x)|^2 / 2``, the gradient closed or by autograd."""
    for _ in range(3):
        if closed:
            y, adjoint = nets.pullback(net, x)
            slope = (x - y) - adjoint(x - y)
        else:
            v = x if x.requires_grad else x.clone().requires_grad_()
            cost = (v - net(v)).square().sum() / 2
            (slope,) = torch.autograd.grad(cost, v, create_graph=True)
        x = x - 0.2 * slope
    return x


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("kind", ["bilinear", "two-scale", "unet"])
def test_parameters_get_the_gradients_of_double_backpropagation(kind, dtype, tolerance):
    net, x = build(kind, 2).to(dtype), field(2, dtype)
    parameters = list(net.parameters())
    found = [
        torch.autograd.grad(unrolled(net, x, closed).square().sum(), parameters)
        for closed in (True, False)
    ]
    for a, b in zip(*found, strict=True):
        assert_close(a, b, rtol=tolerance, atol=tolerance * b.abs().max().item())


def test_one_backward_pass_is_enough():
    net, x = build("bilinear", 2), field(2, torch.float32)
    names = set()
    stack = [unrolled(net, x, closed=True).sum().grad_fn]
    while stack:
        node = stack.pop()
        if node is not None and node not in names:
            names.add(node)
            stack += [n for n, _ in node.next_functions]
    assert not any("BackwardBackward" in type(n).__name__ for n in names)


@pytest.mark.parametrize("padding", ["zeros", "circular"])
def test_a_gibbs_net_never_reads_a_node_for_itself(padding):
    net = build("two-scale", 2, padding).double()
    x = field(2)[:1]
    J = torch.autograd.functional.jacobian(net, x)[0, :, :, :, 0]  # (c, h, w, c, h, w)
    for i in range(17):
        for j in range(12):
            assert (J[:, i, j, :, i, j] == 0).all()
    assert (J != 0).any()


@pytest.mark.parametrize("kind", KINDS)
def test_members_of_a_batch_do_not_know_each_other(kind):
    net, x = build(kind, 2).double(), field(2)
    assert_close(net(x)[1:], net(x[1:]), rtol=1e-13, atol=1e-13)
    assert torch.equal(net(x), net(x))


@pytest.mark.parametrize("kind", KINDS)
def test_round_fields_turn_with_circular_padding(kind):
    net = build(kind, 1, "circular").double()
    x = normal(2, 3, 24)
    turned = net(x.roll(12, -1))
    assert_close(turned, net(x).roll(12, -1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_those_of_the_generator(kind):
    first, second = build(kind, 2), build(kind, 2)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("cell", [nets.ConvLSTMCell, nets.ConvGRUCell])
def test_cells_of_a_memory(cell):
    net = cell(3, 5, generator=generator()).double()
    x = field(2)
    state = net.start(x)
    for _ in range(3):
        h, state = net(x, state)
    assert h.shape == (2, 5, 17, 12)
    assert h.abs().max() <= 1
    alone = net.start(x[1:])
    for _ in range(3):
        g, alone = net(x[1:], alone)
    assert_close(g, h[1:], rtol=1e-12, atol=1e-12)


def test_a_pyramid_is_linear_and_its_gates_are_not():
    net = nets.GatedPyramid(2, 1, 3, levels=3, generator=generator()).double()
    a, b = normal(2, 2, 17, 12), normal(2, 2, 17, 12, seed=1)
    gates = net.gates(normal(2, 3, 17, 12, seed=2))
    both = net(2 * a - 3 * b, gates)
    assert_close(both, 2 * net(a, gates) - 3 * net(b, gates), rtol=1e-12, atol=1e-12)
    other = net.gates(normal(2, 3, 17, 12, seed=3))
    assert (net(a, gates) - net(a, other)).abs().max() > 1e-4


class Alone(nets.Net):
    r"""What gives back the first half of what it takes."""

    def __init__(self, channels, dims):
        super().__init__()
        self.channels, self.dims = channels, dims

    def forward(self, x):
        return x[:, : self.channels // 2]


@pytest.mark.parametrize(
    ("factor", "space"), [((2, 3), (8, 9)), ((3, 1), (7, 5)), ((4, 2), (3, 3))]
)
def test_nodes_of_a_cell_keep_their_places(factor, space):
    x = normal(2, 4, *space)
    net = nets.Patches(Alone(4 * factor[0] * factor[1], 2), factor)
    assert net.channels == 4
    assert torch.equal(net(x), x[:, :2])


def test_a_cell_is_read_by_the_network_on_cells_alone():
    net = nets.Patches(nets.Conv(6, 6, 1, 1, generator=generator()), 3).double()
    x = normal(1, 2, 12)
    change = net(x.index_fill(2, torch.tensor([4]), 9.0)) - net(x)
    assert (change[..., 3:6] != 0).all()
    assert (change[..., [*range(3), *range(6, 12)]] == 0).all()


BAD = [
    (
        lambda: nets.Patches(nets.Conv(3, 3, dims=1), 2),
        r"Patches\(factor=\(2,\)\): expected one side per dimension, and a network of a mult",
    ),
    (lambda: nets.Patches(nets.Conv(4, 4), (2,)), r"got 2 dimensions and 4 channels"),
    (lambda: nets.Patches(nets.Conv(4, 4), 0), r"Patches\(factor=...\): expected one or more"),
    (lambda: nets.Conv(1, 1, 4), r"Conv\(size=...\): expected an odd width, got 4"),
    (lambda: nets.Conv(0, 1), r"Conv\(channels=...\): expected one or more, got 0"),
    (lambda: nets.UNet(1, padding="mirror"), r"UNet\(dims=2, padding='mirror'\): expected one or"),
    (lambda: nets.TwoScale(1, dims=3), r"TwoScale\(dims=3"),
    (lambda: nets.BilinearAutoencoder(2, factors=()), r"factors=...\): expected one or more"),
    (
        lambda: nets.Conv(1, 1, 5, 1, "circular")(torch.zeros(1, 1, 1)),
        r"expected at least 2 nodes along each dimension for a border of 2, got 1",
    ),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_residual_network_keeps_what_its_network_does_not_move():
    inner = build("unet", 2)
    torch.nn.init.zeros_(inner.leave.weight)
    torch.nn.init.zeros_(inner.leave.bias)
    x = field(2, torch.float32)
    assert torch.equal(nets.Residual(inner)(x), x)
