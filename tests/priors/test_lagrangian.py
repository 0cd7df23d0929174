"""The Lagrangian prior: trajectories, closed forms, and its use in moving windows."""

from __future__ import annotations

import math
import pytest
import torch

from torch import Tensor
from torch.testing import assert_close

import matheron as mt

from matheron.domain import EARTH_RADIUS
from matheron.priors.lagrangian import LagrangianProcess, transported
from matheron.priors.spde import Given
from matheron.solvers.local import LocalKriging
from matheron.testing import check_prior

DOUBLE = torch.float64


class Turning(torch.nn.Module):
    """Solid-body rotation about the origin, once in so many days."""

    def __init__(self, period: float) -> None:
        super().__init__()
        self.period = period

    def forward(self, points: mt.Points) -> Tensor:
        rate = 2 * math.pi / self.period
        return rate * torch.stack([points.axis("x"), -points.axis("y")], dim=-1)


class Pulsing(torch.nn.Module):
    """A wind that turns with time, the same everywhere."""

    def forward(self, points: mt.Points) -> Tensor:
        t = points.axis("time")
        return torch.stack([t.cos(), 2 * t], dim=-1)


def uniform(size: int, low: float, high: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(size, dtype=DOUBLE, generator=generator)


def sites(m: int = 30, days: float = 6.0) -> mt.Points:
    return mt.Points(time=uniform(m, 0, days, 1), y=uniform(m, 0, 3, 2), x=uniform(m, 0, 4, 3))


def grid(days: int = 4) -> mt.Grid:
    y, x = torch.linspace(0, 3, 4, dtype=DOUBLE), torch.linspace(0, 4, 5, dtype=DOUBLE)
    return mt.Grid(time=torch.arange(days, dtype=DOUBLE), y=y, x=x)


def uniform_flow(south: float, east: float) -> Given:
    box = mt.Grid(y=[-50.0, 50.0], x=[-50.0, 50.0])
    return Given(box, torch.tensor([south, east], dtype=DOUBLE).expand(4, 2))


def eddies() -> Given:
    """Random velocities on a coarse grid of space and time."""
    y, x = torch.linspace(-1, 4, 6, dtype=DOUBLE), torch.linspace(-1, 5, 7, dtype=DOUBLE)
    box = mt.Grid(time=[-1.0, 2.0, 5.0, 8.0], y=y, x=x)
    return Given(box, uniform(2 * len(box), -0.6, 0.6, 9).reshape(-1, 2))


KERNEL = (1.0, (5.0, 0.8, 1.0))


def test_uniform_flow_has_a_closed_form() -> None:
    """k(t - t', x - x' - m (t - t'))."""
    m = torch.tensor([0.3, -0.7], dtype=DOUBLE)
    prior = LagrangianProcess(mt.Matern(1.5, *KERNEL), grid(), uniform_flow(*m.tolist()))
    s = sites()
    moved = s.coords.clone()
    moved[:, 1:] -= m * s.axis("time")[:, None]
    expected = mt.Matern(1.5, *KERNEL)(moved, moved)
    for time in (-3.0, 0.0, 2.5):
        assert_close(prior.at(time).covariance(s, s), expected, rtol=0, atol=1e-10)


def test_without_flow_it_is_oi() -> None:
    kernel, seen = mt.Gaussian(*KERNEL), mt.PointObservation(grid(), sites(), 0.2)
    still = LagrangianProcess(kernel, seen.domain, uniform_flow(0.0, 0.0))
    plain, y = mt.GaussianProcess(kernel, seen.domain), uniform(30, -1, 1, 5)
    for window in (1.6, math.inf):
        a, b = (LocalKriging(window)(p, seen)(y) for p in (still, plain))
        assert_close(a.mean, b.mean, rtol=0, atol=1e-10)
        assert_close(a.std(), b.std(), rtol=0, atol=1e-7)


def test_a_turn_brings_parcels_back() -> None:
    """After a turn the error of the method is of order four in the step."""
    points, errors = mt.Points(time=[0.0, 4.0, 12.0], y=[1.0, 0.5, 0.2], x=[0.0, 2.0, -1.0]), []
    for step in (0.2, 0.1):
        back = transported(points, Turning(8.0), time=8.0, step=step)
        turned = points.coords.clone()
        turned[1:, 1:] *= -1  # half a turn, forth and back
        errors.append((back - turned).abs().max().item())
    assert errors[0] < 1e-4
    assert errors[0] / errors[1] > 12


def test_velocity_of_each_time() -> None:
    """The integral of the velocity from the time of each parcel."""
    points = sites(9)
    t = points.axis("time")
    found = transported(points, Pulsing(), time=2.0, step=0.05)
    shift = torch.stack([math.sin(2.0) - t.sin(), 4.0 - t.square()], dim=-1)
    assert_close(found[:, 1:], points.coords[:, 1:] + shift, rtol=0, atol=1e-7)
    assert_close(found[:, 0], t)


def test_around_the_sphere() -> None:
    """Along a parallel by its length in metres per day; across the dateline too."""
    lat, days = 60.0, 3.0
    speed = math.radians(10.0) * EARTH_RADIUS * math.cos(math.radians(lat)) / days
    field = Given(
        mt.Grid(lat=[-80.0, 80.0], lon=[-180.0, 0.0, 179.0]),
        torch.tensor([0.0, speed]).expand(6, 2),
    )
    points = mt.Points(time=[0.0, 0.0], lat=[lat, lat], lon=[5.0, 175.0])
    found = transported(points, field, time=days)
    assert_close(found[:, 1], torch.full((2,), lat, dtype=DOUBLE), rtol=0, atol=1e-9)
    assert_close(found[:, 2], torch.tensor([15.0, 185.0], dtype=DOUBLE), rtol=0, atol=1e-6)
    domain = mt.Grid(time=[0.0, 3.0], lat=[59.0, 61.0], lon=[170.0, 190.0])
    prior = LagrangianProcess(mt.Matern(1.5, 1.0, (30.0, 1e5, 1e5)), domain, field, time=3.0)
    a = mt.Points(time=[0.0], lat=[60.0], lon=[175.0])
    b = mt.Points(time=[3.0], lat=[60.0], lon=[-175.0])
    lag = torch.tensor([[0.0], [3.0]], dtype=DOUBLE)
    expected = mt.Matern(1.5, 1.0, 30.0)(lag[:1], lag[1:]).item()
    assert prior.covariance(a, b).item() == pytest.approx(expected, abs=1e-8)


def test_laws() -> None:
    domain = mt.Grid(time=[0.0, 2.0], y=[0.0, 1.0, 2.0], x=[0.0, 1.5, 3.0])
    check_prior(LagrangianProcess(mt.Matern(1.5, *KERNEL), domain, eddies(), mean=0.4))
    prior = LagrangianProcess(mt.Matern(0.5, *KERNEL), domain, eddies())
    s = sites(80)
    assert torch.linalg.eigvalsh(prior.covariance(s, s).detach())[0] > 0


def test_each_window_about_its_own_time() -> None:
    """The map of a day is kriging with the law about that day, from the data of its window."""
    domain, points, y = grid(), sites(40, 4.0), uniform(40, -1, 1, 5)
    prior = LagrangianProcess(mt.Gaussian(*KERNEL), domain, eddies(), trend="1")
    seen = mt.PointObservation(domain, points, 0.2)
    posterior = LocalKriging(1.6)(prior, seen)(y)
    mean, std = (domain.unflatten(v) for v in (posterior.mean, posterior.std()))
    axes = {k: domain.axes[k] for k in ("y", "x")}
    for day in range(4):
        near = torch.nonzero((points.axis("time") - day).abs() < 1.6)[:, 0]
        here = mt.Grid(time=[float(day)], **axes)
        law = prior.on(here).at(float(day))
        expected = mt.Kriging()(law, mt.PointObservation(here, points[near], 0.2))(y[near])
        assert_close(mean[day].flatten(), expected.mean, rtol=0, atol=1e-10)
        assert_close(std[day].flatten(), expected.std(), rtol=0, atol=1e-7)


@pytest.mark.parametrize("dense", [0, 3000])
def test_draws_have_the_std(dense: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matheron.solvers.local_draws.DENSE", dense)
    prior = LagrangianProcess(mt.Gaussian(*KERNEL), grid(3), eddies())
    seen = mt.PointObservation(prior.domain, sites(20, 3.0), 0.3)
    posterior, size = LocalKriging(1.6)(prior, seen)(uniform(20, -1, 1, 5)), 1500
    draws, std = posterior.sample(size, torch.Generator().manual_seed(0)), posterior.std()
    assert ((draws.std(dim=0) - std).abs() / (std / (2 * size) ** 0.5)).max() < 5
    assert ((draws.mean(dim=0) - posterior.mean).abs() / (std / size**0.5)).max() < 5


def test_maps_better_what_is_carried() -> None:
    """A field that turns as a whole: the Lagrangian prior keeps it, the plain OI does not."""
    y = torch.linspace(-1, 1, 9, dtype=DOUBLE)
    domain = mt.Grid(time=[5.0], y=y, x=y)
    points = mt.Points(
        time=uniform(150, 0, 10, 1), y=uniform(150, -1.3, 1.3, 2), x=uniform(150, -1.3, 1.3, 3)
    )
    turning = Turning(9.0)
    flows = {"still": uniform_flow(0.0, 0.0), "carried": turning}

    def truth(s: mt.Points) -> Tensor:
        at = transported(s, turning, time=0.0, step=0.05)
        return (3 * at[:, 1]).sin() * (2 * at[:, 2]).cos()

    values, target = truth(points), truth(domain.points)
    seen = mt.PointObservation(domain, points, 0.05)
    errors = {}
    for name, scale in (("still", 1.5), ("carried", 20.0)):
        kernel = mt.Gaussian(0.3, (scale, 0.5, 0.5))
        prior = LagrangianProcess(kernel, domain, flows[name])
        mean = LocalKriging(6.0)(prior, seen)(values).mean
        errors[name] = (mean - target).square().mean().sqrt().item()
    assert errors["carried"] < 0.3 * errors["still"]


def test_refusals() -> None:
    flow = uniform_flow(0.0, 0.0)
    with pytest.raises(ValueError, match=r"LagrangianProcess\(domain=..., step=0.25\)"):
        LagrangianProcess(mt.Gaussian(), mt.Grid(y=[0.0, 1.0], x=[0.0, 1.0]), flow)
    line = mt.Grid(time=[0.0, 1.0], x=[0.0, 1.0])
    with pytest.raises(ValueError, match=r"LagrangianProcess\(velocity=...\): expected 1 comp"):
        LagrangianProcess(mt.Gaussian(1.0, (1.0, 1.0)), line, Pulsing())
