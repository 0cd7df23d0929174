"""Bad arguments of the library: an error that names the argument, what it wants, and a cure."""

import numpy as np
import pytest
import re
import torch

import matheron as mt

NAN, INF = float("nan"), float("inf")
LINE = re.compile(r"[\w.]+(\(.*?\))?: expected .+, got .+\. .+\.( .+)?")


def vector(*values):
    return torch.tensor(values, dtype=torch.float64)


def line():
    return mt.Grid(x=[0.0, 1.0, 2.0])


def places(*x):
    return mt.Points(x=list(x or (0.5, 1.5)))


def prior(**options):
    return mt.GaussianProcess(mt.Matern(1.5), line(), **options)


def seen(noise_std=0.1, **options):
    return mt.PointObservation(line(), places(), noise_std, **options)


def dates(*text):
    return np.array(text, dtype="datetime64[ns]")


def exact_repeats(solver):
    observation = mt.PointObservation(line(), places(1.0, 1.0), 0.0)
    return solver(prior(), observation)(vector(1, 2)).mean


CASES = {
    # domain
    "no axis": (lambda: mt.Grid(), "at least one axis"),
    "2-D axis": (lambda: mt.Grid(x=[[0.0, 1.0]]), r"Grid\(x=...\): expected a vector"),
    "empty axis": (lambda: mt.Grid(x=[]), "at least one value"),
    "axis of NaN": (lambda: mt.Grid(x=[0.0, NAN]), "1 NaN or Inf among 2"),
    "falling axis": (lambda: mt.Grid(x=[2.0, 1.0]), "Sort the axis"),
    "repeated node": (lambda: mt.Grid(x=[1.0, 1.0]), "strictly increasing"),
    "axis of text": (lambda: mt.Grid(x=["a", "b"]), "numbers or datetimes"),
    "missing date": (lambda: mt.Grid(time=dates("NaT")), "1 missing dates"),
    "unknown metric": (lambda: mt.Grid(x=[0.0], metric="torus"), "'plane' or 'sphere'"),
    "sphere of a line": (lambda: mt.Grid(x=[0.0], metric="sphere"), "axes 'lat' and 'lon'"),
    "lat 95": (lambda: mt.Grid(lat=[95.0], lon=[0.0]), r"within \+-90, got 95"),
    "lon 400": (lambda: mt.Grid(lat=[5.0], lon=[400.0]), r"within \+-360, got 400"),
    "over a turn": (lambda: mt.Grid(lat=[5.0], lon=[-180.0, 0, 185]), "at most one turn"),
    "mask of numbers": (lambda: mt.Grid(x=[0.0, 1.0], mask=[0, 1]), "expected booleans"),
    "mask too short": (lambda: mt.Grid(x=[0.0, 1.0], mask=[True]), "Transpose it"),
    "no sea": (lambda: mt.Grid(x=[0.0, 1.0], mask=[False, False]), "expected some sea"),
    "covariate of NaN": (
        lambda: mt.Grid(x=[0.0, 1.0], covariates={"d": [1.0, NAN]}),
        "2 finite values",
    ),
    "field of a shape": (lambda: line().flatten(vector(1, 2)), "the last axes"),
    "state of a size": (lambda: line().unflatten(vector(1, 2)), "states of 3 nodes"),
    "outside": (lambda: line().interpolation(places(5.0)), "1 of 1 points outside"),
    "other axes": (lambda: line().interpolation(mt.Points(y=[1.0])), "Name the coordinates"),
    "dates against days": (
        lambda: mt.Grid(time=[0.0, 1.0]).interpolation(mt.Points(time=dates("2014-05-15"))),
        "dates on both sides",
    ),
    "no coordinate": (lambda: mt.Points(), "at least one coordinate"),
    "unequal": (lambda: mt.Points(x=[0.0, 1.0], y=[0.0]), "equal length"),
    "unnamed": (lambda: mt.Points(torch.zeros(2, 2).double(), ("x",)), "one name per column"),
    "infinite point": (lambda: places(INF), "1 NaN or Inf"),
    "covariate size": (lambda: mt.Points(x=[0.0], covariates={"d": [1.0, 2]}), "1 finite values"),
    "unknown axis": (lambda: places().axis("lat"), "expected one of"),
    "unlike clouds": (lambda: mt.Points.join(places(), mt.Points(y=[1.0])), "the same dims"),
    # observations
    "no data": (lambda: mt.PointObservation(line(), places()[:0], 0.1), "at least one datum"),
    "data elsewhere": (lambda: mt.PointObservation(line(), mt.Points(y=[1.0]), 0.1), "dims"),
    "noise < 0": (lambda: seen(-0.1), "at least zero, got -0.1"),
    "noise of NaN": (lambda: seen(NAN), "at least zero, got nan"),
    "noise of a size": (lambda: seen(vector(1, 2, 3)), "one number or 2"),
    "no bias": (lambda: seen(bias_std=0.0), "a positive number or None"),
    "learn from 0": (lambda: seen(0.0, learn_noise=True), "a positive start"),
    "off the points": (
        lambda: mt.PointObservation(places(), places(9.0), 0.1)(vector(1, 2)),
        "points of the domain",
    ),
    "mask of a size": (
        lambda: mt.GriddedObservation(line(), torch.ones(2, dtype=torch.bool), 0.1),
        "3 booleans",
    ),
    "nothing seen": (
        lambda: mt.GriddedObservation(line(), torch.zeros(3, dtype=torch.bool), 0.1),
        "some data in every member",
    ),
    "empty stack": (lambda: mt.Stack(), "one and the same domain"),
    # kernels and priors
    "nu < 0": (lambda: mt.Matern(-1.0), r"Matern\(nu=...\)"),
    "variance 0": (lambda: mt.Matern(1.5, variance=0.0), "positive numbers, got 0"),
    "lengthscale < 0": (lambda: mt.Matern(1.5, lengthscale=-1.0), "positive numbers"),
    "lengthscale NaN": (lambda: mt.Matern(1.5, lengthscale=NAN), "got nan"),
    "no lengthscale": (lambda: mt.Matern(1.5, lengthscale=()), "positive numbers"),
    "angle alone": (lambda: mt.Matern(1.5, rotation=20.0), "lengthscale per axis"),
    "axes of a kernel": (lambda: mt.Matern(1.5, axes="depth"), "'time', 'space' or None"),
    "smoothness": (lambda: mt.Wendland(smoothness=9), "0, 1 or 2"),
    "period": (lambda: mt.Periodic(period=-1.0), "positive numbers"),
    "nugget": (lambda: mt.Nugget(-1.0), "positive numbers"),
    "too many lengthscales": (
        lambda: mt.GaussianProcess(mt.Matern(1.5, lengthscale=(1.0, 2.0)), line()),
        "one per axis of the domain",
    ),
    "time where none is": (
        lambda: mt.GaussianProcess(mt.Matern(1.5, axes="time"), line()),
        "an axis 'time'",
    ),
    "unknown name": (lambda: prior(trend="1 + z").design(places()), "got 'z'"),
    "nonsense": (lambda: prior(trend="1 +* x"), "a sum of terms"),
    "log of less than 0": (lambda: prior(trend="log(x)").design(places()), "Check its log"),
    "no draw": (lambda: prior().sample(0), "at least one draw"),
    # solvers and posterior
    "data of a size": (lambda: mt.Kriging()(prior(), seen())(vector(1, 2, 3)).mean, "got 3"),
    "data of NaN": (lambda: mt.Kriging()(prior(), seen())(vector(1, NAN)).mean, "1 NaN or Inf"),
    "Vecchia of NaN": (lambda: mt.Vecchia()(prior(), seen())(vector(1, NAN)).mean, "1 NaN"),
    "no neighbour": (lambda: mt.Vecchia(0), "at least one neighbour"),
    "radius": (lambda: mt.Taper(-1.0), "a positive radius"),
    "no inducing point": (lambda: mt.InducingPoints(0), "at least one point"),
    "no member": (lambda: mt.Kriging()(prior(), seen())(vector(1, 2)).sample(0), "one draw"),
    "repeats": (lambda: exact_repeats(mt.Kriging()), "Give the data some noise_std"),
    "repeats in Vecchia": (lambda: exact_repeats(mt.Vecchia()), "Give noise_std"),
    "other field": (
        lambda: (
            mt.Kriging()(mt.GaussianProcess(mt.Matern(1.5), mt.Grid(y=[0.0, 9.0])), seen())(
                vector(1, 2)
            ).mean
        ),
        "Name the coordinates alike",
    ),
    "nothing to fit": (
        lambda: mt.fit.maximum_likelihood(prior().requires_grad_(False), seen(), vector(1, 2)),
        "parameters to learn",
    ),
    "fit of NaN": (lambda: mt.fit.maximum_likelihood(prior(), seen(), vector(1, NAN)), "1 NaN"),
    "fit of a size": (lambda: mt.fit.maximum_likelihood(prior(), seen(), vector(1)), "got 1"),
    "variogram": (lambda: mt.variogram(places(), vector(1, 2, 3)), "one value per point"),
    # scores
    "std < 0": (
        lambda: mt.metrics.scores.crps_gaussian(vector(1, 2), vector(1, -1), vector(1, 2)),
        "non-negative standard deviations",
    ),
    "truth of NaN": (
        lambda: mt.metrics.scores.rmse(vector(1, 2), vector(1, NAN)),
        "1 NaN or Inf among 2",
    ),
    "level": (
        lambda: mt.metrics.scores.interval_score(vector(1, 2), vector(1, 1), vector(1, 2), 1.5),
        "between 0 and 1",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_is_refused(name):
    call, said = CASES[name]
    with pytest.raises(ValueError, match=said) as refused:
        call()
    assert LINE.fullmatch(str(refused.value)), refused.value


def test_a_solver_names_those_that_accept_a_prior():
    class Stranger(mt.priors.Prior):
        domain = line()

    with pytest.raises(TypeError, match=r"Kriging\(prior=...\): expected a prior that is"):
        mt.Kriging()(Stranger(), seen())
