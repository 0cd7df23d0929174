"""From a simulated Mediterranean to the real one: tune on maps of 2005, apply to tracks of 2014.

The covariance is chosen and fitted on simulated data: the DUACS maps of 2005 seen along the real
tracks of 2014, a window of 20 days, with errors as large as those of the real data. Then each real
mission is predicted from the two others with that covariance; only the noise and the trend are
those of the real data. Beside it, the covariance that is chosen on the real data themselves.
"""

from __future__ import annotations

import math
import sys
import time
import torch
import warnings

from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import xarray as xr

from harness import finish, real_data

import matheron as mt

from matheron.data import Observations
from matheron.metrics import summary
from matheron.reconstruct import automatic
from matheron.selection import Choice, choose, instruments

NOISE, LENGTH = 0.018, 16e3
"""The std in metres of the error along the tracks, and its lengthscale in metres."""
FIRST = np.datetime64("2005-04-10")


def simulated(data: Observations, generator: torch.Generator) -> torch.Tensor:
    """Returns what the altimeters would have seen of the maps of 2005, with errors."""
    points = data.points
    with xr.open_dataset(real_data("mediterranean", "duacs_l4_adt_2005-04_2005-05.nc")) as ds:
        adt = ds["adt"].load()
    t = FIRST + (points.axis("time").numpy() * 86400e9).astype("timedelta64[ns]")
    names = {"time": t, "latitude": points.axis("lat").numpy()}
    names["longitude"] = np.mod(points.axis("lon").numpy() - adt.longitude.values[0], 360.0)
    names["longitude"] = names["longitude"] + adt.longitude.values[0]
    seen = torch.as_tensor(adt.interp({k: ("m", v) for k, v in names.items()}).values).double()
    assert data.passes is not None
    error = mt.AlongTrackError(points, points, data.passes, LENGTH, NOISE, nu=math.inf)
    return seen + error.sample_nodes(1, generator)[0]


def applied(choice: Choice, data: Observations, kept: torch.Tensor) -> Choice:
    """Returns the covariance of a choice, with the trend and the noise of other data."""
    assert data.groups is not None
    targets = data.points[~kept]
    seen, y = instruments(
        targets, data.points[kept], data.values[kept], None, data.groups.codes[kept]
    )
    kernel = choice.prior.kernel
    kernel.requires_grad_(False)
    trend = choice.prior.trend.formula if choice.prior.trend else None
    prior = mt.GaussianProcess(kernel, targets, trend=trend)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        mt.fit.maximum_likelihood(prior, seen, y, mt.Vecchia(30))
    return Choice(prior, seen, y, choice.structure)


def predicted(choice: Choice, truth: torch.Tensor) -> dict[str, float]:
    """Returns the scores of the prediction of a mission, in cm."""
    solver, _ = automatic(choice.prior, choice.observation)
    posterior = solver(choice.prior, choice.observation)(choice.y)
    noise = choice.observation.noise_variance.mean() + choice.observation.bias_variance.mean()
    std = (posterior.std().square() + noise).sqrt().detach()
    found = summary(posterior.mean, std, truth)
    return {
        "rmse_cm": 100 * found["rmse"],
        "crps_cm": 100 * found["crps"],
        "coverage_90": found["coverage_90"],
    }


def main() -> None:
    """Tunes on the simulation, applies to the real data, mission by mission."""
    name = "adt_alongtrack_20140515_20140603_al_h2_j2.parquet"
    data = mt.data.read(real_data("mediterranean", name), "adt")
    assert data.groups is not None
    values = simulated(data, torch.Generator().manual_seed(0))
    rows = []
    for code in data.groups.codes.unique():
        start, out = time.perf_counter(), data.groups.codes == code
        sea = ~out & values.isfinite()
        train = choose(
            data.points[out],
            data.points[sea],
            values[sea],
            groups=data.groups.codes[sea],
        )
        own = choose(
            data.points[out],
            data.points[~out],
            data.values[~out],
            groups=data.groups.codes[~out],
        )
        label = data.groups.labels[int(code)]
        for what, choice in (("2005, simulated", applied(train, data, ~out)), ("2014", own)):
            row = {"mission": label, "tuned_on": what, **predicted(choice, data.values[out])}
            rows.append({**row, "structure": choice.structure})
        rows[-1]["seconds"] = time.perf_counter() - start
        finish("Mediterranean, tuned on a simulation", "mediterranean_osse", rows[-2:])
    for what in ("2005, simulated", "2014"):
        mean = [r["rmse_cm"] for r in rows if r["tuned_on"] == what]
        print(what, "mean RMSE", sum(mean) / len(mean), "cm")


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
