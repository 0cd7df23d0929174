r"""From anomalies to absolute heights and back, by a mean dynamic topography."""

from __future__ import annotations

__all__ = ["LWE", "MeanTopography", "as_heights", "check_quantities"]

import numpy as np
import torch

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .errors import InputError, call, refuse
from .names import clean, find_name, find_noise
from .netcdf import netcdf_source, netcdf_variables
from .quantity import ABSOLUTE, LONG_NAMES, STANDARD_NAMES, metres, mixed, quantity_of
from .source import Source
from ..domain import Grid, Points

LWE = ("keep", "remove")
MEANS = ("mdt", "mean_dynamic_topography")
CHUNK = 500_000
"""The points that are interpolated at once: a swath has millions."""


class MeanTopography:
    r"""A mean dynamic topography :math:`\overline{\eta}`, on a grid of latitudes and longitudes.

    Arguments:
        path: A NetCDF file with a variable ``mdt``, or with one variable only.

    Raises:
        InputError: If the file has no such field on one grid.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        source = netcdf_source(self.path, self._variable(), {})
        source.axes = {k: v for k, v in source.axes.items() if k != "time" or v.size > 1}
        if tuple(source.axes) != ("lat", "lon"):
            got = ", ".join(source.axes) or "scattered points"
            raise refuse(self._where(), "a mean on a grid of lat and lon", got, "Average it first")
        own = _tag(source)
        if own != "unknown":
            got, cure = f"'{source.variable}' ({own})", "Rename the variable to mdt, if it is one"
            raise refuse(self._where(), "a mean dynamic topography", got, cure)
        self.units = source.attributes.get("units", "")
        axes: dict[str, Any] = source.axes
        self.grid = Grid(**axes)
        field = torch.tensor(source.values)
        self.sea, self.field = field.isfinite(), field.nan_to_num(0.0)

    def _where(self) -> str:
        return call("read", mdt=self.path)

    def _variable(self) -> str | None:
        return next((v for v in netcdf_variables(self.path, {}) if clean(v) in MEANS), None)

    def at(self, lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
        r"""Returns the mean at some places, by linear interpolation; NaN where it has no value.

        Nodes on land take no weight.

        Arguments:
            lat: The latitudes, with shape :math:`(m)`.
            lon: The longitudes, on any branch, with shape :math:`(m)`.
        """
        found = np.full(lat.size, np.nan)
        inside = np.flatnonzero(self._inside(lat, lon))
        for start in range(0, inside.size, CHUNK):
            part = inside[start : start + CHUNK]
            found[part] = self._interpolate(Points(lat=lat[part], lon=lon[part]))
        return found

    def _inside(self, lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
        y, x = (self.grid.axes[k].numpy() for k in ("lat", "lon"))
        east = x[0] + np.mod(lon - x[0] + 1e-9, 360.0) - 1e-9
        closed = x.size > 1 and x[0] + 360.0 - x[-1] <= 1.5 * np.diff(x).max()
        within = (lat >= y[0]) & (lat <= y[-1]) & ((east <= x[-1]) | closed)
        return np.asarray(within & np.isfinite(lat + lon))

    def _interpolate(self, points: Points) -> np.ndarray:
        nodes, weights = self.grid.interpolation(points)
        weights = weights * self.sea[nodes]
        total = weights.sum(dim=1)
        mean = (weights * self.field[nodes]).sum(dim=1) / total
        return mean.where(total > 1e-6, torch.nan).numpy()


def as_heights(
    sources: Sequence[Source], mdt: str | Path | None, lwe: str, quantity: str | None
) -> None:
    r"""Turns the heights of some files, in place, to the ones that are asked for.

    .. math:: \text{ADT} = \text{SLA} + \overline{\eta}

    Arguments:
        sources: The files.
        mdt: The file of the mean dynamic topography, or the column of the data that holds it.
        lwe: Whether to ``"keep"`` the long-wavelength correction of the product, or to
            ``"remove"`` it, by subtraction of the column ``lwe``.
        quantity: What is asked for, ``"adt"`` or ``"sla"``; ``"adt"`` by default with ``mdt``.

    Raises:
        InputError: If the data are no heights, or are what is asked for already.
    """
    if lwe not in LWE:
        raise refuse(call("read", lwe=lwe), " or ".join(LWE), f"'{lwe}'", "Choose one of them")
    if quantity not in {None, *LONG_NAMES}:
        where = call("read", quantity=quantity)
        raise refuse(where, "adt or sla", f"'{quantity}'", "Choose one of them")
    if lwe == "remove":
        for source in sources:
            _remove_lwe(source)
    if mdt is not None:
        _by_mean(sources, mdt, quantity or "adt")
    elif quantity is not None:
        for source in sources:
            _declare(source, quantity)


def _tag(source: Source) -> str:
    return quantity_of(source.variable, source.attributes)


def _remove_lwe(source: Source) -> None:
    where, name = call("read", lwe="remove"), find_name("lwe", list(source.columns))
    if _tag(source) not in LONG_NAMES:
        got = f"'{source.variable}' in {source.path}"
        raise refuse(where, "a sea level anomaly or topography", got, "Leave --lwe out")
    if name is None:
        cure = "Leave --lwe out, or give the files of the product"
        raise refuse(where, f"a column 'lwe' in {source.path}", "none", cure)
    source.values = source.values - source.columns[name]
    source.notes.append(f"subtracted '{name}', the long-wavelength correction")


def _by_mean(sources: Sequence[Source], mdt: str | Path, target: str) -> None:
    others = [s for s in sources if _changes(s, target)]
    if not others:
        where, other = call("read", mdt=mdt), "sla" if target == "adt" else "adt"
        cure = f"Leave --mdt out, or ask for the other: --quantity {other}"
        raise refuse(where, f"data to turn into {target}", f"'{sources[0].variable}'", cure)
    file = None if _is_column(mdt, others) else MeanTopography(mdt)
    for source in others:
        _shift(source, target, _mean_of(source, mdt, file))


def _changes(source: Source, target: str) -> bool:
    own = _tag(source)
    if own == "unknown":
        where, got = call("read", mdt=target), f"'{source.variable}' in {source.path}"
        raise refuse(where, "a sea level: sla, adt or ssh", got, "Rename the variable")
    return (own == "sla") != (target == "sla")


def _is_column(mdt: str | Path, sources: Sequence[Source]) -> bool:
    columns = [find_name(str(mdt), list(s.columns)) for s in sources]
    return not Path(mdt).exists() and all(c is not None for c in columns)


def _mean_of(source: Source, mdt: str | Path, file: MeanTopography | None) -> np.ndarray:
    if file is None:
        return source.columns[str(find_name(str(mdt), list(source.columns)))]
    if not {"lat", "lon"} <= source.coords.keys():
        got = f"{', '.join(source.coords)} in {source.path}"
        raise refuse(call("read", mdt=mdt), "data located by lat and lon", got, "Add them")
    return file.at(source.coords["lat"], source.coords["lon"]) * _ratio(source, file)


def _ratio(source: Source, file: MeanTopography) -> float:
    r"""Returns the units of the mean in those of the data; without units they are metres."""
    units = [u or "m" for u in (file.units, source.attributes.get("units", ""))]
    scales = [metres(u) for u in units]
    if scales[0] is None or scales[1] is None:
        cure = "Convert them to metres"
        raise refuse(call("read", mdt=file.path), "heights in m, cm or mm", str(units), cure)
    return scales[0] / scales[1]


def _shift(source: Source, target: str, mean: np.ndarray) -> None:
    sign, word = (1.0, "added") if target == "adt" else (-1.0, "subtracted")
    lost = int((np.isfinite(source.values) & ~np.isfinite(mean)).sum())
    source.values = source.values + sign * mean
    source.notes.append(f"{word} the mean dynamic topography: '{source.variable}' is now {target}")
    if lost:
        source.notes.append(f"left out {lost} values where the mean topography has none")
    _rename(source, target)


def _declare(source: Source, target: str) -> None:
    r"""Takes a height whose kind is not known for what the user says that it is."""
    own = _tag(source)
    if "sla" in {own, target} and own in {"sla", *ABSOLUTE} and own != target:
        where = call("read", quantity=target)
        got = f"'{source.variable}' ({own}) in {source.path}"
        raise refuse(where, f"{target}, or a mean topography", got, "Add --mdt FILE")
    if own != target:
        source.notes.append(f"'{source.variable}' is taken for {target}, as you say")
    _rename(source, target)


def _rename(source: Source, target: str) -> None:
    noise = find_noise(source.variable, list(source.columns))
    if noise is not None:
        source.columns[f"{target}_std"] = source.columns.pop(noise)
    source.variable = target
    source.attributes = {
        **source.attributes,
        "long_name": LONG_NAMES[target],
        "standard_name": STANDARD_NAMES[target],
    }


def check_quantities(sources: Sequence[Source]) -> None:
    r"""Refuses to mix anomalies with absolute heights; metres join centimetres.

    Raises:
        InputError: If some files hold anomalies and others do not.
    """
    first = sources[0]
    for other in sources[1:]:
        pair = {_tag(first), _tag(other)}
        if "sla" in pair and pair & set(ABSOLUTE):
            raise _mixed(first, other)
        if pair == set(ABSOLUTE):
            told = f"'{first.variable}' and '{other.variable}' are taken for the same height"
            first.notes.append(f"{told}: they may differ by a constant")
        if "unknown" not in pair:
            _same_units(first, other)


def _mixed(first: Source, other: Source) -> InputError:
    where, like = call("read", path=other.path), f"in {first.path.name}"
    return mixed(where, _tag(first), like, f"'{other.variable}' ({_tag(other)})")


def _same_units(first: Source, other: Source) -> None:
    units = [s.attributes.get("units", "") for s in (first, other)]
    scales = [metres(u) for u in units]
    if scales[0] is None or scales[1] is None or units[0] == units[1]:
        return
    factor = scales[1] / scales[0]
    other.values = other.values * factor
    noise = find_noise(other.variable, list(other.columns))
    if noise is not None and other.columns[noise].dtype == np.float64:
        other.columns[noise] = other.columns[noise] * factor
    other.attributes = {**other.attributes, "units": units[0]}
    if factor != 1.0:
        other.notes.append(f"converted {other.path.name} from {units[1]} to {units[0]}")
