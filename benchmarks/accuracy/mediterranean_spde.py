"""Real altimetry over the Mediterranean by advection and diffusion, and forecasts of it.

    python mediterranean_spde.py missions [none|constant|drift]
    python mediterranean_spde.py forecast [none|drift]

``missions``: each mission in turn is predicted from the two others, as in ``mediterranean.py``;
parameters have the largest likelihood of the two missions that are mapped. ``forecast``: from all
missions up to a time "now", the five days after it, beside the map of "now" kept as it is;
parameters have the largest likelihood of the data before the first "now"; a second table has the
memory of least CRPS at passes held out from these. The size of all variances makes the z-scores at
these passes one. Structures may be carried by the drift that a quasi-geostrophic model tells of
the map of the same data.

The sea is that of the DUACS map, wider by two cells: where its edge is the coast itself, the
natural boundary raises the variance in narrow seas.
"""

from __future__ import annotations

import math
import multiprocessing
import sys
import time
import torch
import torch.nn.functional as F
import warnings

from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import xarray as xr

from harness import finish, real_data

import matheron as mt

from matheron.data import Observations
from matheron.domain import Grid, Points
from matheron.mappers.drift import drift
from matheron.metrics import summary
from matheron.observations import Stack
from matheron.selection.choice import instruments

STEP = 1 / 5
"""The step of the lattice in degrees."""
DAYS, FORECAST_DAYS = 5.0, 2.0
"""The step in days of maps and of forecasts: with 5, days between are too smooth, and the memory
comes out short, which maps between data bear and forecasts do not."""
NOISE = 5e-3
"""A first guess of the white noise in metres; the rest of the error is that along the track."""
WIDER = 1
"""How many cells the sea is made wider by."""
WAVES, FASTEST = 1.2, 20e3
"""The speed of long internal waves in m/s, and the fastest drift, in metres a day."""
NOWS = (10.0, 11.0, 12.0, 13.0, 14.0, 15.0)
LEADS = 5
LONGER = (1.0, 2.0, 4.0)
"""The memory over the likeliest, to choose from: a likelihood sees the shortest lags alone."""

Known = list[dict[str, Any]]
"""Parameters of prior and observation, by name, as numbers: they go from process to process."""


def sea(points: Points, step: float, wider: int) -> Grid:
    """Returns the lattice: DUACS's sea, made wider, and the cells of the data."""
    lat = torch.arange(30.0, 46.01, step, dtype=torch.float64)
    lon = torch.arange(-6.0, 37.01, step, dtype=torch.float64)
    with xr.open_dataset(real_data("mediterranean", "duacs_l4_mean_20140515_20140531.nc")) as ds:
        field = ds["adt"][0].interp(latitude=lat.numpy(), longitude=lon.numpy(), method="nearest")
        mask = torch.as_tensor(field.notnull().values)
    wide = F.max_pool2d(mask[None, None].double(), 2 * wider + 1, 1, wider)[0, 0] > 0
    whole = Grid(lat=lat, lon=lon, metric="sphere")
    nodes, weights = whole.interpolation(Points(points.coords[:, 1:], whole.dims, metric="sphere"))
    wide.view(-1)[nodes.gather(1, weights.argmax(dim=1, keepdim=True))] = True
    return Grid(lat=lat, lon=lon, mask=wide, metric="sphere")


def even(end: float, step: float) -> torch.Tensor:
    """Returns times from the first day to the last, at most a step apart."""
    return torch.linspace(0.0, end, math.ceil(end / step) + 1, dtype=torch.float64)


def window(points: Points, end: float, step: float = FORECAST_DAYS) -> Grid:
    """Returns the grid of the sea over a window that starts at the first day."""
    space, times = sea(points, STEP, WIDER), even(end, step)
    assert space.mask is not None
    every = space.mask.reshape(space.shape).expand(len(times), -1, -1).clone()
    return Grid(time=times, **space.axes, mask=every, metric="sphere", epoch=points.epoch)


class Model:
    """The prior and the observation of some of the data, fitted or not.

    Arguments:
        data: All the data.
        kept: Those to map from.
        grid: The grid of the prior.
        velocity: The velocity in metres per day: none, one vector to learn, or at the nodes.
    """

    def __init__(
        self,
        data: Observations,
        kept: torch.Tensor,
        grid: Grid,
        velocity: torch.Tensor | None = None,
    ) -> None:
        assert data.groups is not None
        assert data.passes is not None
        self.grid, codes, values = grid, data.groups.codes[kept], data.values[kept]
        seen, self.y = instruments(grid, data.points[kept], values, None, codes)
        assert isinstance(seen, Stack)
        self.seen = seen
        track = torch.cat([data.passes[kept][codes == k] for k in codes.unique()])
        kind = {"damping": "uniform", "margin": 1.0, "interpolation": "cubic"}
        fine = mt.AdvectionDiffusion(grid, 55e3, 100.0, 0.002, velocity, color=4, **kind)
        coarse = sea(data.points, 0.6, 1)
        broad = mt.AdvectionDiffusion(grid, 220e3, 140.0, 0.003, color=3, lattice=coarse, **kind)
        self.error = mt.AlongTrackError(grid, seen.points, track, 16.5e3, 0.016, nu=math.inf)
        self.prior = mt.MarkovSum(fine, broad, self.error, trend="1 + lat + lon")
        with torch.no_grad():
            seen.parts[0].bias.log_scale.fill_(math.log(0.3))  # a first guess of 5 mm
            for part in seen.parts:
                part.error.log_scale.fill_((NOISE / part.error.std.mean()).log())

    def fit(self) -> None:
        """Maximises the likelihood."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            mt.fit.maximum_likelihood(
                self.prior,
                self.seen,
                self.y,
                steps=8,
                tolerance=0.5,
                progress=lambda step, value: print(f"  step {step}: {value:.1f}", flush=True),
            )
        print(self.prior.summary(), flush=True)

    def parameters(self) -> Known:
        """Returns the parameters of prior and observation, in numbers."""
        every = (self.prior.state_dict(), self.seen.state_dict())
        return [{k: v.tolist() for k, v in d.items() if ".log_" in f".{k}"} for d in every]

    def like(self, known: Known) -> Model:
        """Takes the parameters of another."""
        for mine, theirs in zip((self.prior, self.seen), known, strict=True):
            state = {k: torch.tensor(v, dtype=torch.float64) for k, v in theirs.items()}
            mine.load_state_dict(state, strict=False)
        return self

    @torch.no_grad()
    def at(self, points: Grid | Points) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns mean and std of the field."""
        posterior = mt.SparseCholesky()(self.prior.on(points), self.seen)(self.y)
        return posterior.mean, posterior.std()

    @property
    def noise(self) -> torch.Tensor:
        """The variance of a new datum about the field: noise, bias and error along the track."""
        bias = self.seen.bias_variance.mean()
        white = self.seen.noise_variance.mean()
        return (white + bias + self.error.log_variance.exp()).detach()


def currents(model: Model) -> torch.Tensor:
    """Returns the drift of the structures of the map of a model, at the nodes of its grid."""
    mean, _ = model.at(model.grid)
    return drift(model.grid, mean, WAVES).clamp(-FASTEST, FASTEST)


def chosen(data: Observations, kept: torch.Tensor, grid: Grid, kind: str) -> Model:
    """Returns the model of a kind of velocity, fitted."""
    still = Model(data, kept, grid)
    still.fit()
    if kind == "none":
        return still
    m = torch.zeros(2, dtype=torch.float64) if kind == "constant" else currents(still)
    moving = Model(data, kept, grid, m).like(still.parameters())
    if kind == "constant":
        moving.fit()
    return moving


def missions(kind: str) -> None:
    """Leaves each mission out in turn."""
    data = tracks()
    assert data.groups is not None
    grid, rows = window(data.points, 20.0, DAYS), []
    for code in data.groups.codes.unique():
        start, out = time.perf_counter(), data.groups.codes == code
        model = chosen(data, ~out, grid, kind)
        mean, std = model.at(data.points[out])
        std = (std.square() + model.noise).sqrt()
        rows.append(
            {
                "mission": data.groups.labels[int(code)],
                "structure": "fine + broad, separable",
                "velocity": kind,
                "data": int(out.sum()),
                **scores(mean, std, data.values[out]),
                "unknowns": len(model.prior.places()),
                "seconds": time.perf_counter() - start,
            }
        )
        finish("Mediterranean by SPDE, mission left out", "mediterranean_spde", rows[-1:])
    means = {k: sum(r[k] for r in rows) / len(rows) for k in ("rmse_cm", "crps_cm", "z2")}
    print("mean", means)


def scores(mean: torch.Tensor, std: torch.Tensor, truth: torch.Tensor) -> dict[str, float]:
    """Returns the scores, lengths in cm; ``z2`` is the mean square of the errors in std."""
    found = summary(mean, std, truth)
    short = {f"{k}_cm": 100 * found[k] for k in ("rmse", "bias", "crps")}
    z2 = ((truth - mean) / std).square().mean().item()
    return {**short, **{k: found[k] for k in ("coverage_50", "coverage_90")}, "z2": z2}


def forecast(kind: str) -> None:
    """Forecasts one to five days, beside the persistence of the map of "now"."""
    start = time.perf_counter()
    # a process for each, as its factor is a good part of the memory
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        known = pool.apply(_fitted)
        tried = pool.starmap(_held_out, [(known, k) for k in LONGER], chunksize=1)
        print(f"CRPS and factor of variances at held-out passes: {tried}", flush=True)
        for longer in sorted({1.0, LONGER[tried.index(min(tried))]}):
            crps, factor = tried[LONGER.index(longer)]
            asked = [(now, kind, _lasting(known, longer)) for now in NOWS]
            pieces = pool.starmap(_from, asked, chunksize=1)
            found = torch.tensor([row for piece in pieces for row in piece], dtype=torch.float64)
            found *= found.new_tensor([1, 1, 1, factor**0.5, 1, factor**0.5, factor])
            rows = _by_lead(found, kind)
            for row in rows:
                row |= {"longer": longer, "factor": factor, "held_out_crps": crps}
                row["seconds"] = time.perf_counter() - start
            title = f"Mediterranean by SPDE, forecasts, velocity {kind}, memory times {longer:g}"
            finish(title, "mediterranean_forecast", rows)


def _fitted() -> Known:
    """Returns the likeliest parameters of the data before the first "now"."""
    data = tracks()
    model = Model(data, data.points.axis("time") <= NOWS[0], window(data.points, NOWS[0]))
    model.fit()
    return model.parameters()


def _lasting(known: Known, longer: float) -> Known:
    """Returns the parameters with a memory that is longer."""
    shift = math.log(longer)
    return [
        {k: v + shift if k.endswith("log_timescale") else v for k, v in d.items()} for d in known
    ]


def _held_out(known: Known, longer: float) -> tuple[float, float]:
    """Returns the CRPS at every fifth pass before the first "now", and the factor of variances.

    The factor makes the mean square of the z-scores one; the mean of the law is the same.
    """
    data = tracks()
    assert data.passes is not None
    past = data.points.axis("time") <= NOWS[0]
    out = past & (data.passes % 5 == 0)
    model = Model(data, past & ~out, window(data.points, NOWS[0])).like(_lasting(known, longer))
    mean, std = model.at(data.points[out])
    variance, truth = std.square() + model.noise, data.values[out]
    factor = ((mean - truth).square() / variance).mean()
    return summary(mean, (factor * variance).sqrt(), truth)["crps"], factor.item()


def _from(now: float, kind: str, known: Known) -> list[list[float]]:
    """Returns the forecasts from a time."""
    data = tracks()
    past = data.points.axis("time") <= now
    model = Model(data, past, window(data.points, now + LEADS)).like(known)
    if kind == "drift":
        model = Model(data, past, model.grid, currents(model)).like(known)
    return _ahead(data, now, model).tolist()


def _by_lead(found: torch.Tensor, kind: str) -> list[dict[str, float | str]]:
    """Returns the scores of forecasts and of persistence, a row for each lead."""
    lead, truth, mean, std, kept, kept_std, noise = found.unbind(dim=-1)
    rows = []
    for k in range(1, LEADS + 1):
        at = lead == k
        ours, persistence = (
            scores(m[at], (s[at].square() + noise[at]).sqrt(), truth[at])
            for m, s in ((mean, std), (kept, kept_std))
        )
        rows.append(
            {
                "structure": "fine + broad, separable",
                "velocity": kind,
                "lead_days": k,
                "data": int(at.sum()),
                "map_std_cm": 100 * std[at].square().mean().sqrt().item(),
                "map_std_now_cm": 100 * kept_std[at].square().mean().sqrt().item(),
                **ours,
                "persistence_rmse_cm": persistence["rmse_cm"],
                "persistence_crps_cm": persistence["crps_cm"],
                "persistence_z2": persistence["z2"],
            }
        )
    return rows


def _ahead(data: Observations, now: float, model: Model) -> torch.Tensor:
    """Returns, at the data to come, lead, truth, forecast and std, map of now and std, noise."""
    t = data.points.axis("time")
    new = (t > now) & (t <= now + LEADS)
    later = data.points[new]
    held = later.coords.clone()
    held[:, 0] = now
    coords = torch.cat([later.coords, held])
    both = Points(coords, later.dims, metric="sphere", epoch=later.epoch)
    (mean, kept), (std, kept_std) = (v.chunk(2) for v in model.at(both))
    print(f"now {now:g}: {len(model.y)} data, {len(later)} to come", flush=True)
    lead = (t[new] - now).ceil()
    noise = model.noise.expand_as(mean)
    return torch.stack([lead, data.values[new], mean, std, kept, kept_std, noise], dim=-1)


def tracks() -> Observations:
    """Returns the data."""
    name = "adt_alongtrack_20140515_20140603_al_h2_j2.parquet"
    return mt.data.read(real_data("mediterranean", name), "adt")


if __name__ == "__main__":
    torch.manual_seed(0)
    velocity = sys.argv[2] if len(sys.argv) > 2 else "none"
    if sys.argv[1:2] == ["forecast"]:
        forecast(velocity)
    else:
        missions(velocity)
