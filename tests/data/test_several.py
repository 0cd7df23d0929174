"""Several sources as one; symmetries of fields."""

import pytest
import torch

from matheron.data import Augmentation, Mirror, Purpose, Several, Windows
from matheron.data.patches import QUASI_GEOSTROPHIC
from matheron.domain import Grid

GRID = Grid(time=range(7), lat=range(5), lon=range(6))
N = len(GRID)


def windows(seed=0, noise=0.1, **settings):
    dice = torch.Generator().manual_seed(seed)
    x = torch.randn(N, dtype=torch.float64, generator=dice)
    mask = torch.rand(N, generator=dice) < 0.4
    other = {"guess": (x + 1, torch.ones(N, dtype=torch.bool))}
    given = {"truth": x, "covariates": other, **settings}
    return Windows(GRID, (5, 4, 4), x + 0.1, mask, noise, **given)


@pytest.mark.parametrize("noise", [(0.1, 0.1), (0.1, 0.2)])
def test_windows_are_those_of_their_source(noise):
    one, other = windows(0, noise[0]), windows(1, noise[1])
    both = Several([one, other])
    assert len(both) == len(one) + len(other)
    index, seeds = torch.tensor([1, len(one), len(one) + 2]), torch.tensor([5, 6, 7])
    found = both.batch(index, seeds)
    parts = [
        one.batch(index[:1], seeds[:1]),
        other.batch(index[1:] - len(one), seeds[1:]),
    ]
    for name in ("values", "mask", "truth", "weights"):
        expected = torch.cat([getattr(p, name) for p in parts])
        assert torch.equal(getattr(found, name), expected)
    expected = torch.cat([p.covariates["guess"][0] for p in parts])
    assert torch.equal(found.covariates["guess"][0], expected)
    std = found.noise_std.expand(3, found.values.shape[1])[:, 0]
    assert std.tolist() == [noise[0], noise[1], noise[1]]
    assert both.fingerprint() != Several([other, one]).fingerprint()


def test_windows_of_two_sizes_are_refused():
    small = Windows(
        GRID, (3, 4, 4), None, torch.ones(N, dtype=torch.bool), 0.1, truth=torch.ones(N)
    )
    with pytest.raises(ValueError, match="of one size"):
        Several([windows(), small])


def test_mirrors_turn_axes_together_and_change_the_sign():
    plain = windows()
    turned = windows(augmentation=Augmentation(mirrors=(Mirror(("time", "lon"), -1.0),)))
    index = torch.zeros(1, dtype=torch.long)
    seen = set()
    for seed in range(12):
        a, b = plain.batch(index, index), turned.batch(index, torch.tensor([seed]))
        was = b.truth[0, 0] != a.truth[0, 0]
        seen.add(bool(was))
        for get, sign in (
            (lambda v: v.values, -1),
            (lambda v: v.truth, -1),
            (lambda v: v.covariates["guess"][0], -1),
            (lambda v: v.weights, 1),
            (lambda v: v.mask.double(), 1),
        ):
            expected = a.space(get(a))
            if was:
                expected = sign * expected.flip(1, 3)
            torch.testing.assert_close(b.space(get(b)), expected)
    assert seen == {True, False}


def test_quasi_geostrophic_mirrors_are_symmetries_of_the_equation():
    """The tendency of a turned field is the turned tendency, by central differences on a torus."""
    n, beta = 16, 0.3
    psi = torch.randn(3, n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def d(f, axis):
        return (f.roll(-1, axis) - f.roll(1, axis)) / 2

    def residual(p):  # q_t + J(p, q) + beta p_x at the middle time; axes time, y, x
        q = sum(p.roll(1, k) + p.roll(-1, k) - 2 * p for k in (1, 2)) - 0.1 * p
        q_t, p, q = (q[2] - q[0]) / 2, p[1], q[1]
        return q_t + d(p, 1) * d(q, 0) - d(p, 0) * d(q, 1) + beta * d(p, 1)

    whole = residual(psi)
    for mirror in QUASI_GEOSTROPHIC:
        places = tuple({"time": 0, "lat": 1, "lon": 2}[k] for k in mirror.axes)
        turned = residual(mirror.sign * psi.flip(places))
        space = tuple(k - 1 for k in places if k)
        expected = whole.flip(space)
        same = any(torch.allclose(turned, s * expected, atol=1e-12) for s in (1.0, -1.0))
        assert same, mirror
    # the sign is needed: without it latitude is no symmetry
    other = residual(psi.flip(1))
    assert not any(torch.allclose(other, s * whole.flip(0)) for s in (1.0, -1.0))


def test_bad_mirrors_are_refused():
    with pytest.raises(ValueError, match="a sign of 1 or -1"):
        Mirror(("lat",), 2.0)
    with pytest.raises(ValueError, match="axes among"):
        windows(augmentation=Augmentation(flips=("depth",)))
    with pytest.raises(ValueError, match="time, for forecast"):
        windows(
            purpose=Purpose("forecast", 1), augmentation=Augmentation(mirrors=QUASI_GEOSTROPHIC)
        )


@pytest.mark.parametrize("name", ["truth", "hidden_mask", "noise"])
def test_covariates_do_not_take_the_names_of_windows(name):
    other = {name: (torch.zeros(N, dtype=torch.float64), torch.ones(N, dtype=torch.bool))}
    with pytest.raises(ValueError, match="Rename it"):
        windows(covariates=other)
