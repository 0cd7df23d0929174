"""Equations at the edge of what they are for: odd sizes, odd units, land, seams, bad numbers."""

from __future__ import annotations

import copy
import io
import math
import pytest
import torch
import warnings

from collections.abc import Callable
from torch import Tensor
from torch.testing import assert_close

import matheron as mt

from matheron.priors.markov import MarkovPrior
from matheron.priors.spde import (
    AdvectionDiffusion,
    Constant,
    Network,
    PerNode,
    Spline,
    Streamfunction,
    WhittleMatern,
)
from matheron.priors.spde.rational import parts

DOUBLE = torch.float64
Law = tuple[Tensor, Tensor, Tensor]


def line(n: int, step: float = 1.0) -> Tensor:
    return step * torch.arange(n, dtype=DOUBLE)


def square(n: int = 9, step: float = 1.0) -> mt.Grid:
    return mt.Grid(y=line(n, step), x=line(n, step))


def days(times: int = 3, n: int = 7, step: float = 1.0, day: float = 1.0) -> mt.Grid:
    return mt.Grid(time=line(times, day), y=line(n, step), x=line(n, step))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pick(points: mt.Points, index: list[int]) -> mt.Points:
    return points[torch.tensor(index)]


def law(prior: MarkovPrior, points: mt.Points, y: list[float], noise: float = 0.1) -> Law:
    """Returns mean, std and evidence."""
    seen = mt.PointObservation(prior.domain, points, noise)
    posterior = mt.SparseCholesky()(prior, seen)(torch.tensor(y, dtype=DOUBLE))
    return posterior.mean, posterior.std(), posterior.log_evidence


def assert_same(found: Law, expected: Law, rtol: float = 1e-9) -> None:
    for a, b in zip(found, expected, strict=True):
        assert ((a - b).abs().max() / b.abs().max()).item() < rtol


SIZES = {
    "a row": mt.Grid(y=[0.0], x=line(9)),
    "a node": mt.Grid(y=[0.0], x=[0.0]),
    "two rows": mt.Grid(y=[0.0, 1.0], x=line(9)),
    "a line of two": mt.Grid(x=[0.0, 1.0]),
    "a point": mt.Points(y=[0.0], x=[0.0]),
    "points at one place": mt.Points(y=[3.0] * 4, x=[2.0] * 4),
    "uneven": mt.Grid(y=[0.0, 0.1, 0.5, 2.0, 2.1, 4.0, 5.0], x=line(3)),
}


@pytest.mark.parametrize("name", SIZES)
def test_odd_sizes(name: str) -> None:
    """The variance is nominal; a datum at a node is weighed against it."""
    domain = SIZES[name]
    prior = WhittleMatern(domain, 4.0)
    v = prior.variance(domain.points)
    assert (v - 1).abs().max() < 0.05
    mean, std, evidence = law(prior, domain.points[:1], [1.0])
    assert_close(mean[0], v[0] / (v[0] + 0.01), rtol=1e-9, atol=0)
    assert_close(std[0], (v[0] * 0.01 / (v[0] + 0.01)).sqrt(), rtol=1e-7, atol=0)
    total = 2 * math.pi * (v[0] + 0.01)
    assert_close(evidence, -(total.log() + 1 / (v[0] + 0.01)) / 2, rtol=1e-9, atol=0)


def test_odd_sizes_in_time() -> None:
    for domain in (days(1), mt.Grid(time=line(2), y=[0.0], x=line(9)), days(2, 2)):
        prior = AdvectionDiffusion(domain, 4.0, 4.0, velocity=(0.5, 1.0))
        assert (prior.variance(domain.points) - 1).abs().max() < 0.04
    here = mt.Points(time=[1.0] * 3, y=[0.0] * 3, x=[2.0] * 3)
    prior = AdvectionDiffusion(here, 4.0, 4.0, step=1.0)
    mean, _, _ = law(prior, here, [1.0, 2.0, 3.0])
    v = prior.variance(here)[0]
    assert_close(mean, (2 * v / (v + 0.01 / 3)).expand(3), rtol=1e-9, atol=0)


BAD = {
    "nan lengthscale": (dict(lengthscale=math.nan), "expected positive numbers, got nan"),
    "no lengthscale": (dict(lengthscale=0.0), "expected positive numbers, got 0"),
    "endless lengthscale": (dict(lengthscale=math.inf), "expected positive numbers, got inf"),
    "nan variance": (dict(variance=math.nan), "variance=...): expected positive"),
    "negative variance": (dict(variance=-1.0), "variance=...): expected positive"),
    "negative variances": (dict(variance=-torch.ones(81)), "expected positive values, got -1"),
    "nan alpha": (dict(alpha=math.nan), "alpha=...): expected more than 1.0"),
    "endless margin": (dict(margin=math.inf), "margin=...): expected one lengthscale or more"),
    "nan margin": (dict(margin=math.nan), "margin=...): expected one lengthscale or more"),
    "nan kappa": (dict(lengthscale=None, kappa=torch.full((81,), math.nan)), "finite values"),
    "negative kappa": (dict(lengthscale=None, kappa=-torch.ones(81)), "kappa=...): expected pos"),
    "endless tau": (dict(tau=torch.full((81,), math.inf)), "finite values"),
    "a map, not a state": (dict(lengthscale=None, kappa=torch.ones(9, 9)), "81 nodes"),
    "oblique": (
        dict(diffusivity=torch.tensor([[1.0, 0.5], [0.2, 1.0]]).expand(81, 2, 2)),
        "no symmetry",
    ),
    "far too long": (dict(lengthscale=1e9), "positive definite precision"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_numbers_are_refused_in_one_line(name: str) -> None:
    options, said = BAD[name]
    with pytest.raises(ValueError) as refusal:  # noqa: PT011
        WhittleMatern(square(), **({"lengthscale": 4.0} | options)).variance(square().points)
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


BAD_IN_TIME = {
    "nan timescale": (dict(timescale=math.nan), "timescale=...): expected positive"),
    "endless timescale": (dict(timescale=math.inf), "timescale=...): expected positive"),
    "negative kappa": (dict(kappa=-torch.ones(49)), "kappa=...): expected positive values"),
    "negative tau": (dict(tau=-torch.ones(49)), "tau=...): expected positive values, got -1"),
    "no tau": (dict(tau=torch.zeros(49)), "tau=...): expected positive values, got 0"),
    "not elliptic": (
        dict(diffusivity=-torch.eye(2).expand(49, 2, 2)),
        "diffusivity=...): expected symmetric positive definite",
    ),
    "no symmetry": (
        dict(diffusivity=torch.tensor([[1.0, 0.5], [0.2, 1.0]]).expand(49, 2, 2)),
        "no symmetry",
    ),
    "endless velocity": (dict(velocity=(math.inf, 0.0)), "velocity=...): expected finite"),
    "endless margin": (dict(margin=math.inf), "margin=...): expected one lengthscale"),
    "steps without end": (dict(step=1e-9), "step=...): expected at most 100000 steps"),
    "steps back": (dict(step=-1.0), "step=...): expected a positive number"),
}


@pytest.mark.parametrize("name", BAD_IN_TIME)
def test_bad_numbers_in_time_are_refused_in_one_line(name: str) -> None:
    options, said = BAD_IN_TIME[name]
    with pytest.raises(ValueError) as refusal:  # noqa: PT011
        AdvectionDiffusion(days(), **({"lengthscale": 3.0, "timescale": 4.0} | options))
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_times_and_places_elsewhere_are_refused() -> None:
    with pytest.raises(ValueError, match="outside"):
        law(WhittleMatern(square(), 4.0), mt.Points(y=[99.0], x=[0.0]), [1.0])
    for late in (2.1, -0.1):
        with pytest.raises(ValueError, match=r"within \[0, 2\], got 1 of 1 outside"):
            law(
                AdvectionDiffusion(days(), 3.0, 4.0),
                mt.Points(time=[late], y=[0.0], x=[0.0]),
                [1.0],
            )


def test_data_in_the_margin_are_seen() -> None:
    prior = WhittleMatern(square(), 4.0)
    assert law(prior, mt.Points(y=[-1.5], x=[0.0]), [1.0])[0][0] > 0.5


@pytest.mark.parametrize("alpha", [1.5, 2.0, 3.0])
@pytest.mark.parametrize("unit", [1e-6, 3.7, 1e6])
def test_units_of_length_do_not_matter(alpha: float, unit: float) -> None:
    laws = []
    for c in (1.0, unit):
        grid = square(step=c)
        prior = WhittleMatern(grid, 4.0 * c, alpha=alpha)
        laws.append(law(prior, pick(grid.points, [0, 20, 44]), [1.0, -2.0, 0.5]))
    assert_same(laws[1], laws[0])


@pytest.mark.parametrize("unit", [1e-5, 1e6])
def test_units_of_fields_do_not_matter(unit: float) -> None:
    laws = []
    for c in (1.0, unit):
        grid = square(step=c)
        y = grid.points.axis("y") / c
        H = torch.diag_embed(torch.stack([1 + y / 8, 1 + 0 * y], dim=-1))
        prior = WhittleMatern(grid, kappa=0.35 * (1 + y / 20) / c, diffusivity=H)
        laws.append(law(prior, pick(grid.points, [0, 20, 44]), [1.0, -2.0, 0.5]))
    assert_same(laws[1], laws[0])


@pytest.mark.parametrize(("length", "time"), [(1e5, 1.0), (1.0, 86400.0), (1e-4, 1e-3)])
def test_units_of_length_and_time_do_not_matter(length: float, time: float) -> None:
    """Named tolerance: the variance that steps take away is read from a table, good to 1e-7."""
    laws = []
    for c, t in ((1.0, 1.0), (length, time)):
        grid = days(3, 7, c, t)
        velocity = (0.5 * c / t, 1.0 * c / t)
        prior = AdvectionDiffusion(grid, 3.0 * c, 4.0 * t, velocity=velocity)
        laws.append(law(prior, pick(grid.points, [0, 60, 144]), [1.0, -2.0, 0.5]))
    assert_same(laws[1], laws[0], rtol=1e-7)


@pytest.mark.parametrize("unit", [1e-8, 1e8])
def test_units_of_the_field_do_not_matter(unit: float) -> None:
    laws = []
    for c in (1.0, unit):
        prior = WhittleMatern(square(), 4.0, variance=c**2, mean=3 * c)
        points = pick(prior.domain.points, [0, 20, 44])
        mean, std, evidence = law(prior, points, [1.0 * c, -2.0 * c, 0.5 * c], 0.1 * c)
        laws.append((mean / c, std / c, evidence + 3 * math.log(c)))
    assert_same(laws[1], laws[0])


def test_only_the_ratio_of_diffusivity_and_kappa_matters() -> None:
    grid = square()
    H, kappa = torch.eye(2, dtype=DOUBLE).expand(81, 2, 2), torch.full((81,), 0.35, dtype=DOUBLE)
    one = WhittleMatern(grid, kappa=kappa, diffusivity=H)
    other = WhittleMatern(grid, kappa=1e3 * kappa, diffusivity=1e6 * H)
    B, C = (p.covariance(grid.points, grid.points).detach() for p in (one, other))
    assert_close(C, B, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("turn", [0.0, 160.0, -160.0])
def test_meridians_are_alike(turn: float) -> None:
    """A box across the dateline, or seen from the other branch, is as any other."""
    laws = []
    for shift, branch in ((0.0, 0.0), (turn, -360.0 if turn else 0.0)):
        lon = 10.0 + shift + line(11, 2.0)
        grid = mt.Grid(lat=40.0 + line(5, 2.0), lon=lon)
        prior = WhittleMatern(grid, 8e5, trend="1 + lon")
        seen = lon[[5, 3]] + torch.tensor([0.7, -0.9], dtype=DOUBLE)
        seen = torch.where(seen > 180, seen + branch, seen)
        laws.append(law(prior, mt.Points(lat=[43.0, 45.5], lon=seen), [1.0, -1.0]))
    assert_same(laws[1], laws[0], rtol=1e-8)


def test_around_the_globe_every_longitude_is_alike() -> None:
    lat, lon = -80.0 + line(17, 10.0), line(36, 10.0)
    prior = WhittleMatern(mt.Grid(lat=lat, lon=lon), 3e6)
    v = prior.variance(prior.domain.points).unflatten(0, (17, 36))
    assert_close(v, v[:, :1].expand(17, 36), rtol=1e-9, atol=0)
    here = mt.Points(lat=[0.0], lon=[0.0])
    near = prior.covariance(here, mt.Points(lat=[0.0] * 3, lon=[10.0, 350.0, -10.0]))[0]
    assert_close(near.detach(), near[:1].detach().expand(3), rtol=1e-9, atol=0)
    pole = mt.Grid(lat=-90.0 + line(19, 10.0), lon=lon)
    found = law(WhittleMatern(pole, 3e6), mt.Points(lat=[90.0], lon=[77.0]), [1.0])[0]
    assert_close(found[-36:], found[-1:].expand(36), rtol=0, atol=0.05)
    with pytest.raises(ValueError, match=r"0 and 360, which are one place\. Drop the last"):
        WhittleMatern(mt.Grid(lat=lat, lon=line(37, 10.0)), 3e6)


def walled() -> mt.Grid:
    mask = torch.ones(9, 9, dtype=torch.bool)
    mask[:, 4] = False
    return mt.Grid(y=line(9), x=line(9), mask=mask)


@pytest.mark.parametrize("x", [3.0, 3.4, 3.999999, 4.000001, 4.6, 5.0])
def test_data_at_the_edge_of_land_are_of_their_side(x: float) -> None:
    grid = walled()
    found = grid.unflatten(law(WhittleMatern(grid, 4.0), mt.Points(y=[4.0], x=[x]), [1.0])[0])
    near, far = (found[4, 3], found[4, 5])[:: 1 if x < 4 else -1]
    assert near > 0.9
    assert far == 0.0
    with pytest.raises(ValueError, match="at sea"):
        law(WhittleMatern(grid, 4.0), mt.Points(y=[4.0], x=[4.0]), [1.0])


def test_a_lake_is_on_its_own_and_its_law_is_finite() -> None:
    mask = torch.ones(9, 9, dtype=torch.bool)
    mask[2:7, 2:7] = False
    mask[4, 4] = True  # a single node of sea
    grid = mt.Grid(y=line(9), x=line(9), mask=mask)
    prior = WhittleMatern(grid, 4.0)
    found = grid.unflatten(law(prior, mt.Points(y=[4.0], x=[4.0]), [1.0])[0])
    sea = grid.unflatten(torch.zeros(len(grid), dtype=DOUBLE)) == 0
    assert found[4, 4] > 0.9
    found[4, 4] = 0.0
    assert (found[sea] == 0).all()
    assert prior.variance(grid.points).isfinite().all()


PRIORS: dict[str, Callable[[], MarkovPrior]] = {
    "rotated": lambda: WhittleMatern(square(), (4.0, 5.0), rotation=20.0, trend="1"),
    "rational": lambda: WhittleMatern(square(), 4.0, alpha=1.5),
    "splines": lambda: WhittleMatern(
        square(), kappa=Spline(square(), 3, 0.35), diffusivity=Spline(square(), 3, shape=(2, 2))
    ),
    "network": lambda: WhittleMatern(
        square(), kappa=Network(square(), value=0.35, generator=generator())
    ),
    "nodes": lambda: WhittleMatern(square(), kappa=PerNode(square(), 0.35)),
    "constant": lambda: WhittleMatern(square(), kappa=Constant(0.35)),
    "given": lambda: WhittleMatern(square(), kappa=torch.full((81,), 0.35)),
    "moving": lambda: AdvectionDiffusion(days(), 3.0, 4.0, velocity=(0.5, 1.0)),
    "swirling": lambda: AdvectionDiffusion(days(), 3.0, 4.0, velocity=Streamfunction(days(), 4)),
}


@pytest.mark.parametrize("name", PRIORS)
def test_single_precision_is_close_to_double(name: str) -> None:
    """Named tolerance: parameters rounded at 6e-8."""
    prior = PRIORS[name]()
    points = pick(prior.domain.points, [0, 40])
    single = copy.deepcopy(prior).float()
    exact, found = (law(p, points, [1.0, -1.0]) for p in (prior, single))
    assert_same(found, exact, rtol=1e-6)
    assert single.sample(2, generator()).dtype == DOUBLE
    seen = mt.PointObservation(single.domain, points, 0.1)
    value = mt.SparseCholesky().likelihood(single, seen, torch.ones(2, dtype=DOUBLE)).value()
    free = [p for p in single.parameters() if p.requires_grad]
    if free:
        (value - single.penalty()).backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in free)


@pytest.mark.parametrize("name", PRIORS)
def test_copies_are_their_own_and_states_round_trip(name: str) -> None:
    prior = PRIORS[name]()
    points = pick(prior.domain.points, [0, 40])
    before = law(prior, points, [1.0, -1.0])
    stream = io.BytesIO()
    torch.save(prior.state_dict(), stream)
    stream.seek(0)
    other = copy.deepcopy(prior).to("cpu")
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1)
    after = law(other, points, [1.0, -1.0])
    if any(True for _ in prior.parameters()):
        assert (after[0] - before[0]).abs().max() > 1e-5
    assert_same(law(prior, points, [1.0, -1.0]), before, rtol=1e-15)
    other.load_state_dict(torch.load(stream, weights_only=True))
    assert_same(law(other, points, [1.0, -1.0]), before, rtol=1e-12)


@pytest.mark.parametrize("alpha", [1.1, 1.5, 1.9, 2.3])
def test_any_number_of_parts_is_found_without_a_warning(alpha: float) -> None:
    x = torch.logspace(0, 2, 50, dtype=DOUBLE)
    errors = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for order in (1, 2, 4, 7, 10):
            found = parts(alpha, 2, order, 1.0, 1e3)
            total = sum(p.weight * x ** (1 - p.power) / (x + p.shift) for p in found)
            errors.append((total * x**alpha - 1).abs().max().item())
    assert errors[1] < errors[0] / 2
    assert errors[2] < errors[1] / 10
    assert max(errors[3:]) < 1e-4


@pytest.mark.parametrize("lengthscale", [1e3, 1e4])
def test_lengthscales_far_beyond_the_domain(lengthscale: float) -> None:
    """The field is nearly one number, whose mean and evidence are those of a single unknown."""
    prior = WhittleMatern(square(5), lengthscale)
    v = prior.variance(prior.domain.points)
    assert (v - 1).abs().max() < 0.01
    mean, _, evidence = law(prior, pick(prior.domain.points, [0, 24]), [1.0, 1.0], 1.0)
    assert_close(mean, torch.full((25,), 2 / 3, dtype=DOUBLE), rtol=0, atol=0.02)
    S = torch.ones(2, 2, dtype=DOUBLE) + torch.eye(2, dtype=DOUBLE)
    one = torch.ones(2, dtype=DOUBLE)
    exact = -(one @ torch.linalg.solve(S, one) + torch.logdet(2 * math.pi * S)) / 2
    assert_close(evidence, exact, rtol=0, atol=0.02)
