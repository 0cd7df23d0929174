"""The drift of structures: linear waves go as theory says; what moves is found to move."""

from __future__ import annotations

import math
import torch

from matheron.domain import Grid, Points
from matheron.dynamics import OneLayerQG
from matheron.kernels import Gaussian, separable
from matheron.mappers.drift import drift
from matheron.mappers.held_out import Chosen, HeldOut
from matheron.mappers.moving import moving
from matheron.mappers.problem import Problem
from matheron.mappers.tuning import plain

EARTH = 6_371_008.8


def box(days, count=41, low=12.0, width=10.0):
    lat = torch.linspace(low, low + width, count, dtype=torch.float64)
    lon = torch.linspace(-30.0, -30.0 + width, count, dtype=torch.float64)
    return Grid(time=days, lat=lat, lon=lon, metric="sphere")


def test_a_weak_wave_goes_at_its_phase_speed():
    grid = box([0.0])
    lon = torch.deg2rad(grid.points.axis("lon"))
    middle = math.radians(17.0)
    k = 2 * math.pi / 400e3
    eta = 1e-4 * torch.sin(k * EARTH * math.cos(middle) * lon)
    c = drift(grid, eta).reshape(41, 41, 2)[20, 12:29]
    f = 2 * 7.292115e-5 * math.sin(middle)
    beta = 2 * 7.292115e-5 * math.cos(middle) / EARTH
    expected = -beta / (k**2 + (f / 2.7) ** 2) * 86400.0
    assert abs(c[:, 1].mean() / expected - 1) < 0.1  # the ridge and the steps in space take a part
    assert c[:, 0].abs().max() < 0.05 * abs(expected)


def test_a_sea_at_rest_does_not_drift_and_land_is_left_out():
    grid = box([0.0, 1.0], count=11)
    mask = torch.ones(grid.shape, dtype=torch.bool)
    mask[:, :3, :4] = False
    sea = Grid(
        time=[0.0, 1.0], **{k: grid.axes[k] for k in ("lat", "lon")}, mask=mask, metric="sphere"
    )
    c = drift(sea, torch.full((len(sea),), 0.3, dtype=torch.float64))
    assert c.shape == (len(sea), 2)
    assert c.abs().max() < 1e-6


def trial(still):
    """Returns a problem on a sea of weak waves, that go or not, and the heights of the map."""
    generator = torch.Generator().manual_seed(3)
    days = torch.arange(0.0, 9.0, dtype=torch.float64)
    grid = box(days)
    model = OneLayerQG.on_sphere(grid.axes["lat"], grid.axes["lon"], dt=3600.0)
    rough = torch.randn(1, 1, 41, 41, dtype=torch.float64, generator=generator)
    blur = torch.exp(-torch.linspace(-3, 3, 31, dtype=torch.float64).square() / 2)
    smooth = torch.nn.functional.conv2d(rough, (blur[:, None] * blur)[None, None], padding=15)[
        0, 0
    ]
    x = 0.01 * smooth / smooth.std()
    states = [x]
    for _ in days[1:]:
        x = x if still else model(x, 24)
        states.append(x)
    heights = torch.stack(states).flatten()
    place = torch.rand(160, 2, dtype=torch.float64, generator=generator) * 8 + 1
    t = torch.rand(160, dtype=torch.float64, generator=generator) * 8
    points = Points(time=t, lat=12 + place[:, 0], lon=-30 + place[:, 1], metric="sphere")
    nodes, weights = grid.interpolation(points)
    values = (heights[nodes] * weights).sum(dim=1)
    return Problem(grid, points, values, passes=(t / 0.2).long()), heights


def law(chosen):
    time, space = chosen.scales["duration"], chosen.scales["lengthscale"]
    return separable(Gaussian(1.0, time, axes="time"), Gaussian(1e-4, space, axes="space"))


def found(still):
    problem, heights = trial(still)
    held = HeldOut(problem, windows=1, size=500)
    chosen = held.choose(
        lambda s: plain(law(Chosen(dict(s), 0.0, 1.0, 0.0))),
        {"duration": 12.0, "lengthscale": 1.5e5},
        1e-3,
    )
    return moving(problem, held, law, chosen, heights, lambda text: None), chosen


def test_waves_that_go_are_followed():
    moved, still = found(still=False)
    assert moved.part > 0
    assert moved.chosen.error < 0.95 * still.error
    assert moved.velocity[:, 1].mean() < -1000  # to the west, some km a day


def test_what_stays_is_left_where_it_is():
    moved, still = found(still=True)
    assert moved.part == 0
    assert moved.chosen == still
    assert moved.velocity.abs().max() == 0
