"""The challenge's OI against its formula, written out densely."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from torch import Tensor
from torch.testing import assert_close

import matheron as mt

from matheron.mappers import coarsen, oi_odc2020a

DOUBLE = torch.float64


def uniform(size: int, low: float, high: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(size, dtype=DOUBLE, generator=generator)


def formula(
    points: np.ndarray, y: np.ndarray, nodes: np.ndarray, day: float, noise: float
) -> np.ndarray:
    """B H' (H B H' + R)^-1 y, with the data within 14 days."""
    near = np.abs(points[:, 0] - day) < 14
    s, scale = points[near], np.array([7.0, 1.0, 1.0])
    B = lambda a, b: np.exp(-(((a[:, None] - b[None]) / scale) ** 2).sum(-1))
    return B(nodes, s) @ np.linalg.solve(B(s, s) + noise**2 * np.eye(len(s)), y[near])


def grid(lon0: float = 295.0) -> mt.Grid:
    lat, lon = np.arange(33, 36.01, 0.5), np.arange(lon0, lon0 + 3.01, 0.5)
    return mt.Grid(time=[0.0, 3.0, 21.0], lat=lat, lon=lon)


def tracks(m: int = 300, lon0: float = 295.0) -> tuple[mt.Points, Tensor]:
    t, lat = uniform(m, -20, 40, 1), uniform(m, 30, 38, 2)
    lon = uniform(m, lon0 - 1.5, lon0 + 4.5, 3)
    return mt.Points(time=t, lat=lat, lon=lon), uniform(m, -0.5, 1.0, 4)


@pytest.mark.parametrize("northern_limit", [False, True])
def test_equals_its_formula(northern_limit: bool) -> None:
    points, y = tracks()
    domain = grid()
    posterior = oi_odc2020a(points, y, domain, northern_limit=northern_limit)
    found = domain.unflatten(posterior.mean)
    s = points.coords.numpy()
    inside = (s[:, 1] >= 32) & (s[:, 2] >= 294) & (s[:, 2] <= 299)
    inside &= (s[:, 1] <= 37) | (not northern_limit)
    for k, day in enumerate((0.0, 3.0, 21.0)):
        nodes = domain.points.coords.numpy()[49 * k : 49 * (k + 1)]
        expected = formula(s[inside], y.numpy()[inside], nodes, day, 0.05)
        assert_close(found[k].flatten(), torch.as_tensor(expected), rtol=0, atol=1e-10)


def test_equals_kriging() -> None:
    """Variance 1, lengthscales of L over the square root of 2, noise of 0.05."""
    points, y = tracks(80)
    near = (points.axis("time") - 1.5).abs() < 10
    points, y = points[near], y[near]
    domain = grid()
    flat = mt.Grid(time=[0.0, 3.0], lat=domain.axes["lat"], lon=domain.axes["lon"], metric="plane")
    inside = (points.axis("lat") >= 32) & ((points.axis("lon") - 296.5).abs() <= 2.5)
    seen = mt.Points(points.coords[inside], points.dims, metric="plane")
    kernel = mt.Gaussian(1.0, (7.0 / 2**0.5, 1.0 / 2**0.5, 1.0 / 2**0.5))
    prior = mt.GaussianProcess(kernel, flat)
    exact = mt.Kriging()(prior, mt.PointObservation(flat, seen, 0.05))(y[inside])
    ours = oi_odc2020a(
        points, y, mt.Grid(time=[0.0, 3.0], lat=flat.axes["lat"], lon=flat.axes["lon"])
    )
    assert_close(ours.mean, exact.mean, rtol=0, atol=1e-10)
    assert_close(ours.std(), exact.std(), rtol=0, atol=1e-7)


def test_either_branch_of_longitudes() -> None:
    points, y = tracks()
    west = mt.Points(
        time=points.axis("time"), lat=points.axis("lat"), lon=points.axis("lon") - 360
    )
    a, b = oi_odc2020a(points, y, grid()), oi_odc2020a(west, y, grid())
    assert_close(a.mean, b.mean, rtol=0, atol=1e-9)
    c = oi_odc2020a(points, y, grid(-65.0))
    assert_close(a.mean, c.mean, rtol=0, atol=1e-9)


def test_dates_and_refusals() -> None:
    points, y = tracks()
    start = np.datetime64("2012-10-22", "ns")
    stamps = start + (points.axis("time").numpy() * 86400e9).astype("timedelta64[ns]")
    dated = mt.Points(time=stamps, lat=points.axis("lat"), lon=points.axis("lon"))
    axes = {k: grid().axes[k] for k in ("lat", "lon")}
    days = start + np.array([0, 3, 21]) * np.timedelta64(1, "D")
    found = oi_odc2020a(dated, y, mt.Grid(time=days, **axes))
    assert_close(found.mean, oi_odc2020a(points, y, grid()).mean, rtol=0, atol=1e-8)
    late = mt.Grid(time=[900.0], **axes)
    with pytest.raises(ValueError, match=r"oi_odc2020a\(points=...\): expected data near"):
        oi_odc2020a(points, y, late)
    with pytest.raises(ValueError, match=r"oi_odc2020a\(grid=...\): expected axes"):
        oi_odc2020a(points, y, mt.Grid(**axes))


@pytest.mark.parametrize("block", [(5,), (1,), (7,)])
def test_coarsen_along_a_track(block: tuple[int]) -> None:
    columns = {k: uniform(33, 0, 1, i) for i, k in enumerate(("time", "lat", "ssh"))}
    found = coarsen(columns, block)
    size = block[0]
    for name, v in columns.items():
        expected = [v[i : i + size].mean() for i in range(0, 33 - size + 1, size)]
        assert_close(found[name], torch.stack(expected))


def test_coarsen_a_swath() -> None:
    """Means leave gaps out; a block without values is dropped; the time is that of the lines."""
    time, ssh = uniform(31, 0, 1, 1), uniform(31 * 13, 0, 1, 2).reshape(31, 13)
    ssh[:15, 6:12], ssh[20, 3] = torch.nan, torch.nan
    found = coarsen({"time": time, "ssh": ssh}, (15, 6))
    blocks = [(0, 0), (15, 0), (15, 6)]
    expected = [ssh[i : i + 15, j : j + 6].nanmean() for i, j in blocks]
    assert_close(found["ssh"], torch.stack(expected))
    assert_close(found["time"], torch.stack([time[i : i + 15].mean() for i, _ in blocks]))
    with pytest.raises(ValueError, match=r"coarsen\(columns=.*expected the first axes"):
        coarsen({"time": time, "ssh": ssh}, (5,))
    with pytest.raises(ValueError, match=r"coarsen\(block=...\)"):
        coarsen({"time": time}, (0,))
