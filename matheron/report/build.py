r"""The sections of the page, and the page itself."""

from __future__ import annotations

__all__ = ["report"]

import xarray as xr

from collections.abc import Iterator
from pathlib import Path
from torch import Generator, Tensor
from typing import Any

from .chart import (
    Data,
    Map,
    Pairs,
    as_pair,
    inside_of,
    is_field,
    pairs_of,
    parameter_of,
    read_map,
    true_state,
)
from .page import page, picture, score_table, section, table, write_whole
from .. import plots
from ..data import check_output
from ..domain import Grid, Points
from ..metrics import calibration, scores
from ..plots.frame import date_of

PARAMETERS = {
    "lengthscale": "How far the field of the model is alike: its lengthscales as half axes.",
    "velocity": "Where the model carries the field, at the middle of the dates.",
}


def report(
    dataset: xr.Dataset,
    path: str | Path,
    *,
    truth: xr.Dataset | xr.DataArray | Data | None = None,
    observations: Data | None = None,
    noisy: bool | None = None,
    generator: Generator | None = None,
) -> Path:
    r"""Writes one self-contained HTML page about a map.

    It holds the provenance, the mean, the std, members, the observations and their residuals,
    and, where a truth is given, scores and calibration. It is written whole or not at all.

    Arguments:
        dataset: The map: ``V``, ``V_std``, ``V_obs_std`` and ``V_member`` on a grid, as written
            by ``matheron map``, or ``mean``, ``std`` and ``member`` of a posterior.
        path: The page to write, whose name ends in ``.html``.
        truth: The truth: a field on the same grid, or data as below.
        observations: The data that were mapped, as read by :func:`matheron.data.read`, or a pair
            of points and values.
        noisy: Whether the truth carries the noise of a datum, so that it is compared with
            ``V_obs_std``. By default data do, and fields do not.
        generator: The random number generator, for the ranks of a noisy truth.

    Returns:
        The path of the page.

    Raises:
        ValueError: If the dataset is not a map on a grid, if the truth is on another grid, or if
            the page cannot be written there.

    Example:
        >>> field = xr.DataArray([[0.0, 1.0], [2.0, 3.0]], {"y": [0.0, 1.0], "x": [0.0, 1.0]})
        >>> ds = xr.Dataset({"zinc": field, "zinc_std": field * 0 + 0.5})
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     page = report(ds, Path(folder) / "report.html", truth=field)
        ...     "root mean square error" in page.read_text(encoding="utf-8")
        True
    """
    path = check_output(path, (".html",))
    chart = read_map(dataset)
    noisy = truth is not None and not is_field(truth) if noisy is None else noisy
    pairs = None if truth is None else pairs_of(chart, truth, noisy, generator)
    sections = [
        provenance(dataset, chart),
        *pictures(chart, truth, observations),
        *parameters(dataset, chart),
        *([] if pairs is None else verification(chart, pairs, noisy, generator)),
    ]
    write_whole(path, page(chart.long_name, sections))
    return path


def provenance(dataset: xr.Dataset, chart: Map) -> str:
    r"""Returns the table of what the map is and where it comes from."""
    grid = chart.grid
    rows = {"variable": chart.name, "units": chart.units or "not known"}
    rows["grid"] = ", ".join(f"{k}: {len(v)}" for k, v in grid.axes.items())
    for name, axis in grid.axes.items():
        rows[name] = _range(grid, name, axis)
    rows["cells"] = f"{len(grid):,}"
    rows["members"] = "none" if chart.members is None else str(len(chart.members))
    rows |= {str(k): str(v) for k, v in dataset.attrs.items()}
    return section("Provenance", table(rows))


def _range(grid: Grid, name: str, axis: Tensor) -> str:
    if name == "time" and grid.epoch is not None:
        return f"{date_of(grid, 0)} to {date_of(grid, len(axis) - 1)}"
    return f"{axis[0].item():.8g} to {axis[-1].item():.8g}"


def pictures(chart: Map, truth: Any, observations: Data | None) -> Iterator[str]:
    r"""Yields the pictures of the map, of its error if known, and of the data."""
    true = true_state(chart, truth) if is_field(truth) else None
    yield _maps(chart, true)
    points = None if observations is None else as_pair(observations)[0]
    if chart.std is not None:
        figure = plots.field(chart.grid, chart.std, units=chart.units, kind="std", points=points)
        text = "How far the field may be from the mean, one standard deviation."
        yield picture("Standard deviation", figure, text)
    if true is not None:
        figure = plots.field(chart.grid, chart.mean - true, units=chart.units)
        yield picture("Error", figure, "Mean minus truth; grey where the truth is not known.")
    if observations is not None:
        yield from _about_data(chart, *as_pair(observations))


def _maps(chart: Map, true: Tensor | None) -> str:
    panels = {"mean": chart.mean} if true is None else {"truth": true, "mean": chart.mean}
    if chart.members is None:
        text = "The mean is smoother than the field itself."
        return picture("Mean", plots.fields(chart.grid, panels, units=chart.units), text)
    panels |= {f"member {i + 1}": x for i, x in enumerate(chart.members[:2])}
    columns = 2 if len(panels) == 4 else 3
    figure = plots.fields(chart.grid, panels, units=chart.units, columns=columns)
    text = "The mean is smoother than the field; each member is one field that the data allow."
    return picture("Mean and members", figure, text)


def _about_data(chart: Map, points: Points, values: Tensor) -> Iterator[str]:
    units = chart.units
    figure = plots.observations(chart.grid, points, values, units=units)
    yield picture("Observations", figure, f"{len(values):,} data, all dates together.")
    inside = inside_of(chart.grid, points)
    if not inside.any():
        return
    points, values = points[inside], values[inside]
    nodes, weights = chart.grid.interpolation(points)
    left = values - (chart.mean[nodes] * weights).sum(dim=-1)
    text = f"Data minus mean, for the {len(values):,} data that lie on the map."
    yield picture("Residuals", plots.residuals(chart.grid, points, left, units=units), text)


def parameters(dataset: xr.Dataset, chart: Map) -> Iterator[str]:
    r"""Yields the pictures of the parameters of the model, where the map has them."""
    for name, text in PARAMETERS.items():
        found = parameter_of(dataset, chart, name)
        if found is None:
            continue
        points, values = found
        units = str(dataset[f"parameter_{name}"].attrs.get("units", "")).replace("m s-1", "m/s")
        figure = plots.parameters(chart.grid, points, {name: values}, units={name: units})[name]
        yield picture(name.capitalize(), figure, text)


def verification(
    chart: Map, pairs: Pairs, noisy: bool, generator: Generator | None
) -> Iterator[str]:
    r"""Yields the scores and the calibration against the truth."""
    if pairs.std is None:
        yield section("Scores", score_table(_errors(pairs), chart.units))
        return
    law = "a new datum, noise included" if noisy and chart.obs_std is not None else "the field"
    summary = scores.summary(pairs.mean, pairs.std, pairs.truth, pairs.members)
    note = f"<p>On {len(pairs.truth):,} values; the std is that of {law}.</p>"
    yield section("Scores", note + score_table(summary, chart.units))
    figure = plots.calibration(**_statistics(pairs, generator), units=chart.units)
    text = (
        "A U-shaped histogram says that the std is too small, a dome that it is too large; "
        "the band holds 95 % of the bars of independent data."
    )
    yield picture("Calibration", figure, text)


def _errors(pairs: Pairs) -> dict[str, float]:
    functions = {"mae": scores.mae, "rmse": scores.rmse, "bias": scores.bias}
    return {k: f(pairs.mean, pairs.truth).item() for k, f in functions.items()}


def _statistics(pairs: Pairs, generator: Generator | None) -> dict[str, Any]:
    assert pairs.std is not None
    sure = pairs.std > 0
    found: dict[str, Any] = {}
    if sure.any():
        law = (pairs.mean[sure], pairs.std[sure], pairs.truth[sure])
        found["pit"] = calibration.pit_gaussian(*law)
        curve = calibration.reliability(found["pit"])
        found["coverage"] = (curve.level, curve.coverage)
        classes = min(10, max(1, len(law[0]) // 20))
        errors = calibration.spread_skill(*law, bins=classes)
        found["spread_skill"] = (errors.spread, errors.skill)
    if pairs.members is not None:
        found["ranks"] = calibration.rank_histogram(pairs.members, pairs.truth, generator)
    return found
