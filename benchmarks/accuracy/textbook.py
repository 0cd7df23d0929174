"""The textbooks' data: meuse, jura and Walker lake, beside GSTools and PyKrige.

First the three libraries krige with the *same* model: they must agree. Then each chooses and
fits its own: ours by held-out blocks and likelihood inside the training data (and, fixed, the
exponential by likelihood alone), the others by an exponential variogram fitted to the
experimental one. Scores are those of new data.
"""

from __future__ import annotations

import argparse
import numpy as np
import sys
import time
import torch
import warnings

from dataclasses import dataclass
from pathlib import Path
from torch import Tensor
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import gstools
import pandas as pd

from harness import finish, real_data
from pykrige.ok import OrdinaryKriging
from pykrige.uk import UniversalKriging

import matheron as mt

from matheron.metrics import summary
from matheron.selection import choose

LINEAR = "1 + y + x"
LAGS = 15
Law = tuple[Tensor, Tensor]
Row = dict[str, object]


@dataclass
class Model:
    """An exponential covariance and its nugget."""

    variance: float
    lengthscale: float
    nugget: float


@dataclass
class Case:
    """Data, where they are to be predicted, the truth there (if known) and the drift."""

    name: str
    points: mt.Points
    y: Tensor
    targets: mt.Points
    truth: Tensor | None = None
    trend: str = "1"
    variable: str | None = None  # an external drift


def table(*name: str) -> pd.DataFrame:
    return pd.read_parquet(real_data("classics", *name))


def column(frame: pd.DataFrame, name: str) -> Tensor:
    return torch.as_tensor(frame[name].to_numpy(dtype="float64"))


def sites(frame: pd.DataFrame, x: str, y: str, scale: float, drift: bool = False) -> mt.Points:
    """Returns the sites about a middle, in km or grid steps: peers do not centre their drifts."""
    centers = (180_000.0, 331_500.0) if drift else (0.0, 0.0)
    axes = [(column(frame, k) - c) / scale for k, c in zip((y, x), centers[::-1], strict=True)]
    covered = {"root": column(frame, "dist").sqrt()} if drift else None
    return mt.Points(y=axes[0], x=axes[1], covariates=covered)


def meuse(formula: str, on_grid: bool) -> Case:
    data, grid = table("meuse.parquet"), table("meuse_grid.parquet")
    points, nodes = (sites(f, "x", "y", 1000.0, drift=True) for f in (data, grid))
    y = column(data, "zinc").log()
    name = f"meuse log zinc, {formula}"
    variable = "root" if "root" in formula else None
    return Case(name, points, y, nodes if on_grid else points, None, formula, variable)


def jura(metal: str, formula: str = "1") -> Case:
    data, new = table("jura_pred.parquet"), table("jura_val.parquet")
    points, targets = (sites(f, "Xloc", "Yloc", 1.0) for f in (data, new))
    y, truth = (column(f, metal) for f in (data, new))
    return Case(f"jura {metal}, {formula}", points, y, targets, truth, formula)


def walker(formula: str = "1", step: int = 1) -> Case:
    """Returns the 470 samples of V, and the exhaustive field where there is no sample."""
    data, full = table("walker.parquet"), table("walker_exh.parquet")
    points, nodes = (sites(f, "x", "y", 1.0) for f in (data, full))
    new = torch.nonzero(nodes.nearest_distance(points) > 0)[::step, 0]
    y, truth = column(data, "V"), column(full, "V")
    return Case(f"walker V, {formula}", points, y, nodes[new], truth[new], formula)


def xy(points: mt.Points) -> list[np.ndarray]:
    return [points.axis(k).numpy() for k in ("x", "y")]


def ours(case: Case, model: Model) -> Law:
    """Kriging of the field, without the nugget."""
    kernel = mt.Matern(0.5, model.variance, model.lengthscale)
    prior = mt.GaussianProcess(kernel, case.targets, trend=case.trend)
    seen = mt.PointObservation(case.targets, case.points, model.nugget**0.5)
    posterior = mt.Kriging()(prior, seen)(case.y)
    return posterior.mean.detach(), posterior.std().square().detach()


def by_gstools(case: Case, model: Model) -> Law:
    covariance = gstools.Exponential(dim=2, var=model.variance, len_scale=model.lengthscale)
    given = (covariance, xy(case.points), case.y.numpy())
    noise: dict[str, Any] = {"cond_err": model.nugget, "exact": False}
    where = {}
    if case.variable is not None:
        kriging = gstools.krige.ExtDrift(
            *given, case.points.covariates[case.variable].numpy(), **noise
        )
        where = {"ext_drift": case.targets.covariates[case.variable].numpy()}
    elif case.trend == LINEAR:
        kriging = gstools.krige.Universal(*given, "linear", **noise)
    else:
        kriging = gstools.krige.Ordinary(*given, **noise)
    mean, variance = kriging(xy(case.targets), **where)
    return torch.as_tensor(mean), torch.as_tensor(variance)


def by_pykrige(case: Case, model: Model | None) -> tuple[Law, list[float]]:
    """Its variance is that of a new datum; without a model, it fits its own."""
    given: dict[str, Any] = {"variogram_model": "exponential", "nlags": LAGS, "weight": True}
    if model is not None:  # its range is three lengthscales
        given["variogram_parameters"] = {
            "psill": model.variance,
            "range": 3 * model.lengthscale,
            "nugget": model.nugget,
        }
    where = {}
    if case.trend == "1":
        kriging = OrdinaryKriging(*xy(case.points), case.y.numpy(), **given)
    elif case.variable is None:
        given["drift_terms"] = ["regional_linear"]
        kriging = UniversalKriging(*xy(case.points), case.y.numpy(), **given)
    else:
        drift = [case.points.covariates[case.variable].numpy()]
        given |= {"drift_terms": ["specified"], "specified_drift": drift}
        kriging = UniversalKriging(*xy(case.points), case.y.numpy(), **given)
        where = {"specified_drift_arrays": [case.targets.covariates[case.variable].numpy()]}
    mean, variance = kriging.execute("points", *xy(case.targets), **where)
    law = (torch.as_tensor(np.asarray(mean)), torch.as_tensor(np.asarray(variance)))
    return law, [float(v) for v in kriging.variogram_model_parameters]


def likeliest(case: Case) -> Model:
    """Fits the exponential model by likelihood: any sensible model will do to compare."""
    spread = (case.points.coords.max(0)[0] - case.points.coords.min(0)[0]).mean().item()
    kernel = mt.Matern(0.5, case.y.var().item(), spread / 10)
    prior = mt.GaussianProcess(kernel, case.points, trend=case.trend)
    guess = 0.3 * case.y.std().item()
    seen = mt.PointObservation(case.points, case.points, guess, learn_noise=True)
    mt.fit.maximum_likelihood(prior, seen, case.y, mt.Kriging())
    nugget = seen.noise_variance[0].item()
    return Model(kernel.variance.item(), kernel.lengthscale.item(), nugget)


def agreement(case: Case) -> list[Row]:
    """Compares means and variances at all the targets, in units of the std of the data."""
    model = likeliest(case)
    mean, variance = ours(case, model)
    scale = case.y.std().item()
    rows: list[Row] = []
    noisy = by_pykrige(case, model)[0]
    peers = {
        "GSTools": by_gstools(case, model),
        "PyKrige": (noisy[0], noisy[1] - model.nugget),
    }
    for name, law in peers.items():
        found: Row = {"case": case.name, "peer": name, "targets": len(mean)}
        found["mean"] = ((law[0] - mean).abs().max() / scale).item()
        found["variance"] = ((law[1] - variance).abs().max() / scale**2).item()
        rows.append(found | {"bar": 1e-6})
    return rows


def chosen(case: Case) -> tuple[Law, str]:
    """Our own model: structure and parameters from the training data alone."""
    choice = choose(case.targets, case.points, case.y, trend=case.trend)
    posterior = mt.Kriging()(choice.prior, choice.observation)(choice.y)
    noise = choice.observation.noise_variance.mean()
    return (posterior.mean, (posterior.std().square() + noise).sqrt().detach()), choice.structure


def variogram_of_gstools(case: Case) -> Model:
    """Fits an exponential variogram, that of the residuals where there is a drift."""
    value = case.y.numpy()
    if case.trend != "1":
        names = {LINEAR: xy(case.points)}
        columns = names.get(case.trend) or [case.points.covariates[str(case.variable)].numpy()]
        F = np.column_stack([np.ones(len(value)), *columns])
        value = value - F @ np.linalg.lstsq(F, value, rcond=None)[0]
    # The defaults (bins, first guess, equal weights) end in a pure nugget on Walker lake. With
    # these it does as well as a careful user would.
    reach = np.hypot(*np.ptp(case.points.coords.numpy(), axis=0)) / 3
    lags, gamma = gstools.vario_estimate(xy(case.points), value, np.linspace(0, reach, LAGS + 1))
    covariance = gstools.Exponential(dim=2, var=float(value.var()), len_scale=float(lags[-1]) / 4)
    covariance.fit_variogram(
        lags, gamma, nugget=True, init_guess="current", weights="inv", max_eval=20_000
    )
    return Model(covariance.var, covariance.len_scale, covariance.nugget)


def laws(case: Case) -> dict[str, tuple[Law, str, float]]:
    """Returns the law of new data by each library, the model it chose and the time it took."""
    found: dict[str, tuple[Law, str, float]] = {}
    start = time.perf_counter()
    law, structure = chosen(case)
    found["matheron"] = (law, structure, time.perf_counter() - start)
    start = time.perf_counter()
    model = likeliest(case)
    mean, variance = ours(case, model)
    law = (mean, (variance + model.nugget).sqrt())
    found["matheron, fixed"] = (law, "exponential", time.perf_counter() - start)
    start = time.perf_counter()
    model = variogram_of_gstools(case)
    mean, variance = by_gstools(case, model)
    law = (mean, (variance + model.nugget).clamp(min=1e-12).sqrt())
    found["GSTools"] = (law, "exponential", time.perf_counter() - start)
    start = time.perf_counter()
    mean, variance = by_pykrige(case, None)[0]
    law = (mean, variance.clamp(min=1e-12).sqrt())
    found["PyKrige"] = (law, "exponential", time.perf_counter() - start)
    return found


def scored(name: str, library: str, law: Law, truth: Tensor, model: str, taken: float) -> Row:
    scores = summary(*law, truth)
    kept = {k: scores[k] for k in ("mae", "rmse", "crps", "coverage_90", "coverage_95")}
    return {"case": name, "library": library} | kept | {"seconds": taken, "model": model}


def against_truth(case: Case) -> list[Row]:
    assert case.truth is not None
    found = laws(case)
    return [
        scored(case.name, k, law, case.truth, model, taken)
        for k, (law, model, taken) in found.items()
    ]


def cross_validated(case: Case, folds: int = 5) -> list[Row]:
    """Leaves each of some folds out in turn: each library chooses and fits again."""
    order = torch.randperm(len(case.y), generator=torch.Generator().manual_seed(0))
    means: dict[str, Tensor] = {}
    stds: dict[str, Tensor] = {}
    models: dict[str, list[str]] = {}
    seconds: dict[str, float] = {}
    for out in order.chunk(folds):
        kept = torch.ones(len(case.y), dtype=torch.bool)
        kept[out] = False
        part = Case("", case.points[kept], case.y[kept], case.points[out], None, case.trend)
        part.variable = case.variable
        for name, (law, model, taken) in laws(part).items():
            means.setdefault(name, torch.empty_like(case.y))[out] = law[0]
            stds.setdefault(name, torch.empty_like(case.y))[out] = law[1]
            models.setdefault(name, []).append(model)
            seconds[name] = seconds.get(name, 0.0) + taken
    name = f"{case.name}, {folds} folds"
    return [
        scored(name, k, (means[k], stds[k]), case.y, max(models[k], key=models[k].count), t)
        for k, t in seconds.items()
    ]


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the agreement only")
    quick = parser.parse_args().quick
    warnings.simplefilter("ignore")
    same = [
        *(meuse(f, on_grid=True) for f in ("1", LINEAR, "1 + root")),
        *(jura("Cd", f) for f in ("1", LINEAR)),
        *(walker(f, step=20) for f in ("1", LINEAR)),
    ]
    rows = [row for case in same for row in agreement(case)]
    finish("Same model: largest difference, in std of the data", "textbook_agreement", rows)
    if quick:
        return
    for case in (walker(), *(jura(k) for k in ("Cd", "Ni", "Zn"))):
        finish(f"{case.name}, against the truth", "textbook", against_truth(case))
    for formula in ("1", "1 + root"):
        case = meuse(formula, on_grid=False)
        finish(f"{case.name}, held out", "textbook", cross_validated(case))


if __name__ == "__main__":
    main()
