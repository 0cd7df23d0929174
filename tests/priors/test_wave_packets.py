"""Wave packets against the formulas written out in numpy, their variance, and what is refused."""

from __future__ import annotations

import itertools
import math
import numpy as np
import pytest
import torch

from torch.testing import assert_close

import matheron as mt

from matheron.priors.wave_packets import WavePackets
from matheron.testing import check_prior

DOUBLE = torch.float64
OPTIONS = {
    "variance": 1.5,
    "wavelengths": (1.5, 5.0),
    "turning": 3.0,
    "duration": 2.0,
    "durations": (1.5, 3.0),
}


def small(timed: bool = True) -> mt.Grid:
    time = {"time": [0.0, 1.0, 3.0]} if timed else {}
    y, x = torch.linspace(0, 3, 4, dtype=DOUBLE), torch.linspace(0, 4, 5, dtype=DOUBLE)
    return mt.Grid(**time, y=y, x=x)


def few(domain: mt.Grid | None = None, **options) -> WavePackets:
    """A few hundred packets: laws of dense matrices ask for no more."""
    given = OPTIONS | {"directions": 3, "step": 9.0, "margin": (0.1, 0.1)} | options
    return WavePackets(domain or small(), **given)


def by_hand(prior: WavePackets, s: np.ndarray, flat: bool) -> tuple[np.ndarray, np.ndarray]:
    """Each packet in turn, and its std, by the published formulas.

    ``s`` holds time, y and x. Windows are wherever they may be felt, and many where they are not.
    """
    cycles, step, turning, slope, power = 3.5, 1.5, 3.0, 2.0, 1.28
    count = round(math.log(5.0 / 1.5) / math.log(1 + step / cycles)) + 1
    directions = int(math.pi * cycles) - 1
    columns, stds = [], []
    lengths = [1.5 * (5.0 / 1.5) ** (k / (count - 1)) for k in range(count)]
    shares = [min(1.0, length / turning) ** (2 * slope) for length in lengths]
    for length, share in zip(lengths, shares, strict=True):
        half = 0.5 * cycles * length
        days = min(max(2.0 * (length / turning) ** power, 1.5), 3.0)
        std = math.sqrt(1.5 * share / sum(shares) / (2 * directions))
        std = std if flat else std / math.sqrt(0.75**3)
        axes = [_windows_by_hand(s[:, j], w, flat) for j, w in enumerate([days, half, half])]
        for t, y, x in itertools.product(*axes):
            if not np.any(t * y * x > 0):
                continue
            for j, wave in itertools.product(range(directions), (np.cos, np.sin)):
                angle = math.pi * j / directions
                phase = s[:, 1] * math.sin(angle) + s[:, 2] * math.cos(angle)
                column = math.sqrt(2) * t * y * x * wave(2 * math.pi / length * phase)
                columns.append(column)
                stds.append(std)
    return np.array(columns).T, np.array(stds)


def _windows_by_hand(x: np.ndarray, half: float, flat: bool) -> list[np.ndarray]:
    centres = (x.min() + x.max()) / 2 + half * np.arange(-9, 10)
    raw = [
        np.where(np.abs(x - c) < half, np.cos(math.pi * (x - c) / 2 / half) ** 2, 0.0)
        for c in centres
    ]
    total = np.sqrt(np.square(raw).sum(axis=0))
    return [w / total for w in raw] if flat else raw


@pytest.mark.parametrize("flat", [True, False])
def test_covariance_of_the_published_basis(flat: bool) -> None:
    prior = WavePackets(small(), **OPTIONS, flat=flat)
    s = prior.domain.points
    G, q = by_hand(prior, s.coords.numpy(), flat)
    expected = torch.as_tensor((G * q**2) @ G.T)
    assert_close(prior.covariance(s, s).detach(), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("timed", [True, False])
def test_every_form_of_the_basis(timed: bool) -> None:
    """The matrix, its products, its squares, and the covariance of the separate axes."""
    prior = few(small(timed))
    s = prior.domain.points
    basis = prior.basis(s)
    A = prior.embedding(s).to_dense().detach()
    assert A.shape == basis.shape
    assert basis.shape[1] == sum(prior.counts()) == len(prior.coefficient_variance())
    generator = torch.Generator().manual_seed(0)
    u, y = (torch.randn(k, 3, dtype=DOUBLE, generator=generator) for k in reversed(A.shape))
    w = torch.rand(len(s), dtype=DOUBLE, generator=generator)
    assert_close(basis @ u, A @ u)
    assert_close(basis.adjoint(y), A.mT @ y)
    gram = A.mT @ (w[:, None] * A)
    assert_close(basis.gram(w), gram)
    at = 0
    for block in basis.blocks(w):
        for window in block:
            size = len(window)
            assert_close(window, gram[at : at + size, at : at + size])
            at += size
    D = prior.coefficient_variance().detach()
    assert_close((A * D) @ A.mT, prior.covariance(s, s).detach())
    assert_close(prior.variance(s).detach(), ((A * D) * A).sum(dim=1))


def scattered(size: int = 4000) -> mt.Points:
    generator = torch.Generator().manual_seed(1)
    t, lat, lon = torch.rand(3, size, dtype=DOUBLE, generator=generator)
    return mt.Points(time=30 * t, lat=33.5 + 9 * lat, lon=-64.5 + 9 * lon)


@pytest.mark.parametrize("overlap", [(1.0, 1.0), (1.5, 1.5), (1.2, 2.0)])
def test_the_variance_is_flat(overlap: tuple[float, float]) -> None:
    grid = mt.Grid(time=[0.0, 30.0], lat=[33.0, 38.0, 43.0], lon=[-65.0, -60.0, -55.0])
    prior = WavePackets(grid, 0.04, overlap=overlap)
    found = prior.variance(scattered()).detach()
    assert_close(found, torch.full_like(found, 0.04))


def test_published_windows_are_flat_if_they_overlap() -> None:
    """Squares of cos^2 windows sum to a constant from an overlap of 3/2 on, not at 1."""
    grid = mt.Grid(time=[0.0, 30.0], lat=[33.0, 43.0], lon=[-65.0, -55.0])
    for overlap, spread in ((1.5, 0.0), (2.0, 0.0), (1.0, 0.05)):
        prior = WavePackets(grid, 1.0, overlap=(overlap, overlap), flat=False)
        v = prior.variance(scattered()).detach()
        if spread:
            assert v.std() > spread
        else:
            assert_close(v, torch.ones_like(v))


def test_correlation_does_not_depend_on_the_place_much() -> None:
    """With windows that overlap twice, correlations over 100 km and 5 days vary by a few %."""
    grid = mt.Grid(time=[0.0, 30.0], lat=[33.0, 43.0], lon=[-65.0, -55.0])
    prior = WavePackets(grid, 1.0, overlap=(2.0, 2.0))
    s = scattered(300)
    a = s[(s.axis("time") < 25) & (s.axis("lat") < 41.5)]
    b = mt.Points(time=a.axis("time") + 5, lat=a.axis("lat") + 0.9, lon=a.axis("lon"))
    found = torch.cat([prior.covariance(a[i], b[i]) for i in torch.arange(len(a)).split(1)])
    assert found.std() < 0.03
    assert 0 < found.mean() < 0.9


@pytest.mark.parametrize("timed", [True, False])
def test_laws(timed: bool) -> None:
    check_prior(few(small(timed), trend="1 + x"))


def test_gradients_reach_every_parameter() -> None:
    prior = few(learn_duration=True, durations=(0.1, 90.0))
    s = prior.domain.points
    K = lambda: prior.covariance(s, s).sin().sum()
    parameters = dict(prior.named_parameters())
    slopes = torch.autograd.grad(K(), list(parameters.values()))
    for (name, p), slope in zip(parameters.items(), slopes, strict=True):
        start, h = p.detach().clone(), 1e-5
        sides = []
        for sign in (1, -1):
            with torch.no_grad():
                p.copy_(start + sign * h)
            sides.append(K().item())
        with torch.no_grad():
            p.copy_(start)
        assert slope.item() == pytest.approx((sides[0] - sides[1]) / (2 * h), rel=1e-6), name


def test_the_duration_goes_on_where_windows_come_and_go() -> None:
    """The covariance is continuous where one more window is needed at the edge."""
    grid = mt.Grid(time=[0.0, 4.0], y=[0.0, 1.0], x=[0.0, 1.0])
    s, found = grid.points, []
    for duration in (2.0 - 1e-6, 2.0 + 1e-6):
        prior = few(grid, duration=duration, duration_slope=0.0, durations=(0.1, 90.0))
        found.append(prior.covariance(s, s).detach())
    assert_close(found[0], found[1], rtol=1e-5, atol=1e-5)


def test_fit_finds_the_scales() -> None:
    """Variance, slope, duration and noise from 300 data, by the dense likelihood.

    Twice the gain in log-likelihood over the truth is chi-squared with four degrees of freedom:
    that it is over 40 has a probability of 4e-8.
    """
    grid = mt.Grid(time=[0.0, 15.0], lat=[35.0, 40.0], lon=[-65.0, -58.0])
    generator = torch.Generator().manual_seed(0)
    t, lat, lon = torch.rand(3, 300, dtype=DOUBLE, generator=generator)
    sites = mt.Points(time=15 * t, lat=35 + 5 * lat, lon=-65 + 7 * lon)
    given = {"wavelengths": (2e5, 9e5), "durations": (1.0, 60.0), "learn_duration": True}
    truth = WavePackets(grid, 0.04, slope=2.5, duration=8.0, **given)
    u = truth.sample_nodes(1, generator).mT
    e = 0.02 * torch.randn(300, dtype=DOUBLE, generator=generator)
    y = (truth.basis(sites) @ u)[:, 0] + e
    best = mt.Kriging()(truth, mt.PointObservation(grid, sites, 0.02))(y).log_evidence
    prior = WavePackets(grid, 0.01, slope=1.5, duration=5.0, **given)
    seen = mt.PointObservation(grid, sites, 0.05, learn_noise=True)
    mt.fit.maximum_likelihood(prior, seen, y, mt.Kriging(), refresh=1)
    found = mt.Kriging()(prior, seen)(y).log_evidence
    assert 0 <= 2 * (found - best) < 40
    assert prior.log_duration.exp().item() == pytest.approx(8.0, rel=0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variance": -1.0}, "variance=...): expected positive"),
        ({"wavelengths": (5.0, 1.0)}, "wavelengths=...): expected two positive"),
        ({"durations": (0.0, 1.0)}, "durations=...): expected two positive"),
        ({"overlap": (0.5, 1.0)}, "overlap=...): expected at least 1"),
        ({"turning": 0.0}, "turning=...): expected positive"),
    ],
)
def test_bad_numbers(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(").replace(")", r"\)")):
        few(**options)


def test_bad_places() -> None:
    with pytest.raises(ValueError, match="two axes of space"):
        few(mt.Grid(x=[0.0, 1.0]))
    with pytest.raises(ValueError, match="within 30 degrees"):
        WavePackets(mt.Grid(lat=[-60.0, 60.0], lon=[0.0, 90.0]))
    prior = few(small(False))
    far = mt.Points(y=[1.0], x=[9.0])
    with pytest.raises(ValueError, match="Drop them, or give a margin"):
        prior.variance(far)
    assert_close(few(small(False), margin=(6.0, 0.0)).variance(far).item(), 1.5)


def test_dateline_and_epoch() -> None:
    """A box across the dateline, on either branch; dates on both sides."""
    days = np.array(["2020-01-01", "2020-01-04"], dtype="datetime64[D]")
    axes = {"time": days, "lat": [38.0, 40.0]}
    prior = WavePackets(mt.Grid(**axes, lon=[178.0, 182.0]), 0.04)
    a = mt.Points(time=days, lat=[38.5, 39.0], lon=[179.0, 181.5])
    b = mt.Points(time=days, lat=[38.5, 39.0], lon=[179.0, -178.5])
    assert_close(prior.covariance(a, a), prior.covariance(b, a))
