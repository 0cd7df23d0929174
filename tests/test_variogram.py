"""Laws of the variogram: brute force, peers, fields whose variogram is known."""

import functools
import importlib
import itertools
import math
import numpy as np
import pytest
import torch

from matheron.domain import EARTH_RADIUS, Points
from matheron.kernels import Gaussian, Matern
from matheron.variogram import Variogram, variogram

ANGLES = [0, 45, 90, 135]


def rand(generator, *shape):
    return torch.rand(*shape, generator=generator, dtype=torch.float64)


def randn(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.fixture
def plane(generator):
    points = Points(10 * rand(generator, 120, 2), ("y", "x"))
    return points, randn(generator, 120)


def brute(points, values, edges, estimator="matheron", keep=lambda i, j: True):
    """Pair by pair, as the textbook writes it."""
    x, d, v = points.cartesian().numpy(), [], []
    for i, j in itertools.combinations(range(len(points)), 2):
        if keep(i, j):
            d.append(math.dist(x[i], x[j]))
            v.append(abs(values[i].item() - values[j].item()))
    d, v, rows = np.array(d), np.array(v), []
    for low, high in itertools.pairwise(edges.tolist()):
        inside = (d >= low) & (d < high)
        n = inside.sum()
        if n and estimator == "matheron":
            rows.append((d[inside].mean(), (v[inside] ** 2).mean() / 2, n))
        elif n:
            scale = 2 * (0.457 + 0.494 / n + 0.045 / n**2)
            rows.append((d[inside].mean(), (v[inside] ** 0.5).mean() ** 4 / scale, n))
    return torch.tensor(np.array(rows).T)


def stacked(v):
    return torch.stack([v.distance, v.gamma, v.count])


@pytest.mark.parametrize("estimator", ["matheron", "cressie"])
def test_equals_brute_force_on_the_plane(plane, estimator):
    edges = torch.tensor([0.0, 0.01, 0.5, 1.0, 3.0, 6.0]).double()
    got = variogram(*plane, bins=edges, estimator=estimator)
    torch.testing.assert_close(stacked(got), brute(*plane, edges, estimator))


@pytest.mark.parametrize("dims", [("x",), ("z", "y", "x")])
def test_equals_brute_force_in_one_and_three_dimensions(dims, generator):
    points, z = Points(rand(generator, 60, len(dims)), dims), randn(generator, 60)
    edges = torch.linspace(0, 0.8, 7).double()
    torch.testing.assert_close(stacked(variogram(points, z, edges)), brute(points, z, edges))


def test_equals_brute_force_on_the_sphere_and_does_not_see_the_dateline(generator):
    lat, lon = 20 * rand(generator, 80) - 60, 20 * rand(generator, 80) + 170
    z, edges = randn(generator, 80), torch.linspace(0, 2e6, 6).double()
    a = variogram(Points(lat=lat, lon=lon), z, edges)
    torch.testing.assert_close(stacked(a), brute(Points(lat=lat, lon=lon), z, edges))
    assert a.unit == "m"
    other = Points(lat=lat, lon=torch.where(lon > 180, lon - 360, lon))
    torch.testing.assert_close(stacked(variogram(other, z, edges)), stacked(a))


def test_a_chord_is_in_metres():
    quarter = variogram(
        Points(lat=[0.0, 0.0], lon=[0.0, 90.0]), torch.tensor([0.0, 2.0]), max_distance=1e7
    )
    assert quarter.distance.item() == pytest.approx(math.sqrt(2) * EARTH_RADIUS)
    assert quarter.gamma.item() == 2.0


def test_equals_brute_force_in_space_and_in_time(generator):
    n = 100
    t, lat, lon = 10 * rand(generator, n), rand(generator, n) + 40, rand(generator, n) + 5
    points, z = Points(time=t, lat=lat, lon=lon), randn(generator, n)
    space, time = Points(lat=lat, lon=lon), Points(time=t)
    x = space.cartesian()

    edges = torch.linspace(0, 8e4, 5).double()
    got = variogram(points, z, edges, within=1.5)
    near = lambda i, j: abs(t[i] - t[j]) <= 1.5
    torch.testing.assert_close(stacked(got), brute(space, z, edges, keep=near))

    edges = torch.linspace(0, 5, 6).double()
    got = variogram(points, z, edges, along="time", within=3e4)
    near = lambda i, j: (x[i] - x[j]).norm() <= 3e4
    torch.testing.assert_close(stacked(got), brute(time, z, edges, keep=near))
    assert got.unit == "days"
    # a time series alone needs no word
    torch.testing.assert_close(stacked(variogram(time, z, edges)), brute(time, z, edges))


def test_directions_equal_brute_force(plane):
    points, z = plane
    edges = torch.linspace(0, 5, 4).double()
    several = variogram(points, z, edges, direction=ANGLES, tolerance=20, bandwidth=1.5)
    for angle, got in zip(ANGLES, several, strict=True):
        turn = math.radians(angle)
        line = torch.tensor([math.sin(turn), math.cos(turn)], dtype=torch.float64)

        def keep(i, j, line=line):
            step = points.coords[j] - points.coords[i]
            across = (step[0] * line[1] - step[1] * line[0]).abs()
            lies = (step @ line).abs() >= math.cos(math.radians(20)) * step.norm()
            return bool(lies and across <= 1.5)

        torch.testing.assert_close(stacked(got), brute(points, z, edges, keep=keep))
        one = variogram(points, z, edges, direction=angle, tolerance=20, bandwidth=1.5)
        torch.testing.assert_close(stacked(one), stacked(got))
        assert got.direction == angle


def test_four_directions_share_all_pairs(plane):
    edges = torch.linspace(0, 5, 4).double()
    parts = variogram(*plane, edges, direction=ANGLES)
    whole = variogram(*plane, edges)
    torch.testing.assert_close(sum(v.count for v in parts), whole.count)
    torch.testing.assert_close(sum(v.count * v.gamma for v in parts), whole.count * whole.gamma)


def test_directions_on_the_sphere_are_east_and_north(generator):
    # z grows to the east only, across the dateline: flat along the meridians
    lat, east = 2 * rand(generator, 300) + 60, 4 * rand(generator, 300)
    points = Points(lat=lat, lon=(178 + east + 180) % 360 - 180)
    along, across = variogram(points, east, 5, max_distance=8e4, direction=[0, 90], tolerance=5)
    # one degree of longitude is 111.2 km * cos(lat), with lat within 60 and 62
    degrees = along.distance / (math.radians(1) * EARTH_RADIUS * math.cos(math.radians(61)))
    ratio = along.gamma / (degrees**2 / 2)
    assert ((ratio > 0.85) & (ratio < 1.25)).all()
    assert (across.gamma < 0.03 * along.gamma[: len(across.gamma)]).all()


@pytest.mark.parametrize("estimator", ["matheron", "cressie"])
def test_a_linear_field_is_a_parabola(estimator):
    x = torch.arange(50).double()
    edges = torch.arange(0, 11).double() + 0.5
    got = variogram(Points(x=x), 3 * x, edges, estimator=estimator)
    expected = 9 * torch.arange(1, 11).double() ** 2 / 2
    if estimator == "cressie":  # |z - z'| is one number: the mean is that number
        expected = expected / (0.457 + 0.494 / got.count + 0.045 / got.count**2)
    torch.testing.assert_close(got.gamma, expected)


@pytest.mark.parametrize("estimator", ["matheron", "cressie"])
def test_white_noise_is_flat(generator, estimator):
    fields = 2 * randn(generator, 400, 100)  # 400 fields on the same 100 sites
    points = Points(rand(generator, 100, 2), ("y", "x"))
    each = torch.stack([variogram(points, f, 6, estimator=estimator).gamma for f in fields])
    error = each.std(0) / math.sqrt(400)
    # Cressie and Hawkins' correction is an expansion: right to a percent
    bias = 0.0 if estimator == "matheron" else 0.04
    assert ((each.mean(0) - 4.0).abs() < 5 * error + bias).all()


def test_cressie_resists_outliers(generator):
    points, z = Points(rand(generator, 1000, 2), ("y", "x")), randn(generator, 1000)
    z[:3] += 50  # in 0.6 % of the pairs: matheron gains 0.006 * 50^2 / 2 = 7.5
    assert (variogram(points, z, 5, estimator="matheron").gamma > 5).all()
    assert (variogram(points, z, 5, estimator="cressie").gamma < 1.4).all()


def test_fields_on_the_same_sites_are_pooled(plane, generator):
    points, _ = plane
    fields = randn(generator, 3, 2, 120)
    whole = variogram(points, fields)
    each = torch.stack([variogram(points, f).gamma for f in fields.reshape(6, 120)])
    torch.testing.assert_close(whole.gamma, each.mean(0))


def test_shift_scale_order_and_rotation(plane, generator):
    points, z = plane
    edges = torch.linspace(0, 5, 6).double()
    plain = variogram(points, z, edges)
    torch.testing.assert_close(variogram(points, 7 - 3 * z, edges).gamma, 9 * plain.gamma)
    p = torch.randperm(120, generator=generator)
    torch.testing.assert_close(stacked(variogram(points[p], z[p], edges)), stacked(plain))
    turn = torch.tensor([[math.cos(1), math.sin(1)], [-math.sin(1), math.cos(1)]]).double()
    turned = Points(points.coords @ turn, ("y", "x"))
    torch.testing.assert_close(stacked(variogram(turned, z, edges)), stacked(plain))


def test_coincident_sites_belong_to_the_first_class_and_to_all_directions():
    points = Points(y=[0.0, 0.0, 5.0], x=[0.0, 0.0, 5.0])
    z = torch.tensor([0.0, 4.0, 9.0])
    for angle in (None, 0, 90):
        got = variogram(points, z, torch.tensor([0.0, 1.0]), direction=angle)
        assert stacked(got).flatten().tolist() == [0.0, 8.0, 1.0]


# --- many data ------------------------------------------------------------------------------


def test_chunks_change_nothing(plane, monkeypatch):
    whole = variogram(*plane, cloud=True)
    # by its full name: the function `matheron.variogram` hides the package of that name
    module = importlib.import_module("matheron.variogram.experimental")
    monkeypatch.setattr(module, "CHUNK", 500)
    parts = variogram(*plane, cloud=True)
    torch.testing.assert_close(stacked(parts), stacked(whole))
    assert len(parts.cloud.distance) == len(whole.cloud.distance)


def test_a_draw_of_pairs_keeps_short_lags_whole_and_is_unbiased(generator):
    points = Points(rand(generator, 1500, 2), ("y", "x"))
    z = (6 * points.coords).sin().sum(1) + 0.3 * randn(generator, 1500)
    exact = variogram(points, z, 10, size=2_000_000)
    draws = [variogram(points, z, 10, size=20_000, generator=generator) for _ in range(60)]
    counts = torch.stack([v.count for v in draws])
    assert (counts[:, 0] == exact.count[0]).all()
    assert (counts[:, -1] < 0.2 * exact.count[-1]).all()
    assert (counts[:, -1] > 1000).all()
    # ratio estimators: sum of values over sum of counts
    total = torch.stack([v.gamma * v.count for v in draws])
    gamma = total.sum(0) / counts.sum(0)
    error = (total - gamma * counts).std(0) / counts.mean(0) / math.sqrt(60)
    assert ((gamma - exact.gamma).abs() <= 5 * error + 1e-12).all()


def test_a_draw_counts_no_pair_twice(generator):
    points, z = Points(rand(generator, 300, 2), ("y", "x")), randn(generator, 300)
    got = variogram(points, z, 5, size=3000, cloud=True, generator=generator)
    pairs = got.cloud.pairs.sort(dim=1).values
    assert len(pairs.unique(dim=0)) == len(pairs)
    assert (pairs[:, 0] < pairs[:, 1]).all()


def test_same_generator_same_draw(generator):
    points, z = Points(rand(generator, 800, 2), ("y", "x")), randn(generator, 800)
    a, b, c = (
        variogram(points, z, size=5000, generator=torch.Generator().manual_seed(s))
        for s in (1, 1, 2)
    )
    assert torch.equal(stacked(a), stacked(b))
    assert not torch.equal(stacked(a), stacked(c))


def test_space_time_draw_is_a_part_of_the_whole(generator):
    n = 1500
    points = Points(time=10 * rand(generator, n), y=rand(generator, n), x=rand(generator, n))
    z = randn(generator, n)
    exact = variogram(points, z, 6, within=0.5, size=2_000_000)
    part = variogram(points, z, 6, within=0.5, size=10_000, generator=generator)
    assert (part.count <= exact.count).all()
    assert part.count[0] == exact.count[0]


@pytest.mark.slow
def test_a_hundred_thousand_data_take_seconds(generator):
    points = Points(rand(generator, 100_000, 2), ("y", "x"))
    got = variogram(points, randn(generator, 100_000), generator=generator)
    # white noise: pairs of S data, S > sqrt(2 * size), have a relative error below sqrt(2 / S)
    assert ((got.gamma - 1).abs() < 5 * math.sqrt(2 / math.sqrt(2 * 5e6))).all()


def test_the_cloud_holds_every_pair_or_a_part(plane, generator):
    points, z = plane
    cloud = variogram(points, z, max_distance=20, cloud=True).cloud
    assert len(cloud.distance) == 120 * 119 // 2
    i, j = cloud.pairs.T
    torch.testing.assert_close(cloud.gamma, (z[i] - z[j]) ** 2 / 2)
    torch.testing.assert_close(cloud.distance, (points.coords[i] - points.coords[j]).norm(dim=1))
    part = variogram(points, z, cloud=True, size=100, generator=generator).cloud
    assert len(part.distance) <= 100
    assert variogram(points, z).cloud is None


# --- peers ----------------------------------------------------------------------------------


@pytest.mark.reference
@pytest.mark.parametrize("estimator", ["matheron", "cressie"])
def test_equals_gstools(plane, estimator):
    gs = pytest.importorskip("gstools")
    points, z = plane
    edges = np.linspace(0, 5, 8)
    y, x = points.coords.numpy().T
    _, gamma, count = gs.vario_estimate(
        (x, y), z.numpy(), edges, estimator=estimator, return_counts=True
    )
    got = variogram(points, z, torch.as_tensor(edges), estimator=estimator)
    np.testing.assert_allclose(got.gamma, gamma, rtol=1e-10)
    np.testing.assert_array_equal(got.count, count)


@pytest.mark.reference
def test_directions_equal_gstools(plane):
    gs = pytest.importorskip("gstools")
    points, z = plane
    edges, angles = np.linspace(0, 5, 6), np.radians(ANGLES)
    y, x = points.coords.numpy().T
    _, gamma, count = gs.vario_estimate(
        (x, y),
        z.numpy(),
        edges,
        direction=np.stack([np.cos(angles), np.sin(angles)], axis=1),
        angles_tol=math.radians(22.5),
        bandwidth=2.0,
        return_counts=True,
    )
    several = variogram(points, z, torch.as_tensor(edges), direction=ANGLES, bandwidth=2.0)
    for k, got in enumerate(several):
        np.testing.assert_array_equal(got.count, count[k][count[k] > 0])
        np.testing.assert_allclose(got.gamma, gamma[k][count[k] > 0], rtol=1e-10)


# --- fit ------------------------------------------------------------------------------------


def seen(gamma, h):
    return Variogram(h, gamma, torch.linspace(2, 1, len(h)).double())


H = torch.linspace(2e3, 6e4, 30, dtype=torch.float64)


@pytest.mark.parametrize("nu", [0.5, 1.5, 2.5])
@pytest.mark.parametrize("how", ["kernel", "partial"])
def test_fit_finds_the_model_that_made_the_variogram(nu, how):
    true = Matern(nu, variance=2.0, lengthscale=1.5e4)
    origin = torch.zeros(1, 1).double()
    gamma = (0.3 + 2.0 - true(origin, H[:, None])[0]).detach()
    kernel, make = Matern(nu, variance=1.0, lengthscale=5e3), functools.partial(Matern, nu)
    fitted = seen(gamma, H).fit(kernel if how == "kernel" else make)
    assert fitted.nugget == pytest.approx(0.3, rel=1e-5)
    assert fitted.kernel.variance.item() == pytest.approx(2.0, rel=1e-5)
    assert fitted.kernel.lengthscale.max().item() == pytest.approx(1.5e4, rel=1e-5)
    assert fitted.error < 1e-6
    torch.testing.assert_close(fitted.gamma(H), gamma, rtol=1e-6, atol=0)
    # a start at the answer stays there
    again = seen(gamma - 0.3, H).fit(true, nugget=False).kernel
    assert again.lengthscale.max().item() == pytest.approx(1.5e4, rel=1e-9)
    # the start is the user's, and is left as it was
    assert kernel.lengthscale.max().item() == pytest.approx(5e3)


def test_fit_takes_a_class_a_sum_and_a_function():
    exponential = 1 - (-H / 1e4).exp()
    fitted = seen(0.5 * exponential, H).fit(lambda u: (-u).exp())
    assert fitted.nugget < 1e-6
    assert fitted.kernel.lengthscale.item() == pytest.approx(1e4, rel=1e-3)
    bell = 1 - (-0.5 * (H / 1e4) ** 2).exp()
    fitted = seen(0.1 + bell, H).fit(Gaussian)
    assert fitted.nugget == pytest.approx(0.1, rel=1e-5)
    two = Matern(0.5, 0.3, 8e3) + Gaussian(0.7, 1.5e4)
    fitted = seen(0.5 * exponential + bell, H).fit(two, nugget=False)
    torch.testing.assert_close(fitted.gamma(H), 0.5 * exponential + bell, rtol=1e-3, atol=0)
    assert fitted.nugget == 0.0


def test_fit_minimises_the_weighted_squares(generator):
    """No other model nearby does better with the final weights: a brute-force twin."""
    gamma = (0.2 + 1 - (-H / 1e4).exp()) * (1 + 0.1 * randn(generator, 30))
    fitted = seen(gamma, H).fit(lambda u: (-u).exp())
    v, ell = fitted.kernel.variance.item(), fitted.kernel.lengthscale.item()
    weights = seen(gamma, H).count / fitted.gamma(H) ** 2

    def cost(nugget, variance, lengthscale):
        model = nugget + variance * (1 - (-H / lengthscale).exp())
        return (weights * (gamma - model) ** 2).sum().item()

    best = cost(fitted.nugget, v, ell)
    steps = list(itertools.product([0.99, 1.0, 1.01], repeat=3))
    assert all(cost(fitted.nugget * a, v * b, ell * c) >= best * (1 - 1e-9) for a, b, c in steps)


def test_fit_of_simulated_fields_finds_their_parameters(generator):
    """Fields with a known law: the mean of estimates is within five standard errors."""
    n, repeats = 200, 20
    points = Points(x=torch.arange(n).double())
    d = (points.coords - points.coords.mT).abs()
    covariance = 2.0 * (-d / 8.0).exp() + 0.5 * torch.eye(n).double()
    factor = torch.linalg.cholesky(covariance)
    found = []
    for _ in range(repeats):
        fields = randn(generator, 30, n) @ factor.mT
        fitted = variogram(points, fields, 30, max_distance=30).fit(lambda u: (-u).exp())
        kernel = fitted.kernel
        found.append([fitted.nugget, kernel.variance.item(), kernel.lengthscale.item()])
    found = torch.tensor(found).double()
    error = found.std(0) / math.sqrt(repeats)
    truth = torch.tensor([0.5, 2.0, 8.0]).double()
    # least squares have a bias of second order in the noise of gamma, a few percent here
    assert ((found.mean(0) - truth).abs() < 5 * error + 0.02 * truth).all()


def test_fit_says_what_is_wrong():
    gamma = 1 - (-H / 1e4).exp()
    with pytest.raises(ValueError, match=r"no slope in \['log_lengthscale'\].*between 2000 and"):
        seen(gamma, H).fit(Matern(1.5, variance=1.0, lengthscale=1.0))
    with pytest.raises(ValueError, match="expected at least 3 classes"):
        seen(gamma[:2], H[:2]).fit(Matern(1.5, variance=1.0, lengthscale=1e4))
    with pytest.raises(ValueError, match="expected data that vary"):
        seen(0 * H, H).fit(lambda u: (-u).exp())
    # no sill: only variance / lengthscale is known; noise: only variance + nugget
    for gamma, error in [(H / 1e4, 0.05), (torch.ones_like(H), 1e-3)]:
        with pytest.raises(ValueError, match=r"strict=True\): expected lags that tell"):
            seen(gamma, H).fit(lambda u: (-u).exp())
        assert seen(gamma, H).fit(lambda u: (-u).exp(), strict=False).error < error


# --- the rest -------------------------------------------------------------------------------


def test_plot_draws_classes_cloud_and_model(plane):
    plt = pytest.importorskip("matplotlib.pyplot")
    points, z = plane
    got = variogram(points, (points.coords / 3).sin().sum(1) + 0.1 * z, cloud=True)
    fitted = got.fit(Gaussian)
    ax = got.plot(fitted=fitted)
    assert len(ax.lines) == 3
    assert ax.get_ylabel() == "semivariance"
    for v in variogram(*plane, direction=ANGLES):
        v.plot(ax)
    assert ax.lines[-1].get_label() == "135°"
    plt.close(ax.figure)


BAD = [
    (dict(values=torch.zeros(3)), r"values=...\): expected one value per point"),
    (dict(values=torch.full((120,), torch.nan)), "got 120 NaN or Inf among 120"),
    (dict(estimator="robust"), r"estimator=...\): expected one of \['cressie', 'matheron'\]"),
    (dict(bins=torch.tensor([1.0])), "expected at least two increasing edges"),
    (dict(bins=torch.tensor([2.0, 1.0])), "expected at least two increasing edges"),
    (dict(max_distance=0.0), "expected at least two increasing edges"),
    (dict(max_distance=1e-9), r"expected pairs between 0 and 1e-09, got none"),
    (dict(along="time"), r"expected one of \['space'\], got 'time'"),
    (dict(within=3.0), "expected a positive separation for points with space and time"),
    (dict(size=0), r"size=...\): expected a positive number, got 0"),
    (dict(tolerance=-1.0), r"tolerance=...\): expected a positive number"),
]


@pytest.mark.parametrize(("bad", "message"), BAD)
def test_bad_input_is_refused_by_name(plane, bad, message):
    points, z = plane
    with pytest.raises(ValueError, match=message):
        variogram(points, **{"values": z, **bad})


def test_space_and_time_are_not_mixed(generator):
    points = Points(time=rand(generator, 20), lat=rand(generator, 20), lon=rand(generator, 20))
    z = randn(generator, 20)
    with pytest.raises(ValueError, match=r"within=...\): .* e.g. within=1.0 \(days\)"):
        variogram(points, z)
    with pytest.raises(ValueError, match="expected two space axes to turn in"):
        variogram(points, z, along="time", within=1e5, direction=0)
    with pytest.raises(ValueError, match="expected two space axes to turn in"):
        variogram(Points(x=rand(generator, 20)), z, direction=90)
    with pytest.raises(ValueError, match="expected at least two increasing edges"):
        variogram(Points(x=torch.zeros(20)), z)
