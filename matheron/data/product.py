r"""Maps out as the L4 products of Copernicus Marine: their names, units, axes and packing."""

from __future__ import annotations

__all__ = ["BRANCHES", "as_field", "file_digests", "l4_dataset"]

import hashlib
import numpy as np
import xarray as xr

from collections.abc import Mapping, Sequence
from jaxtyping import Float
from pathlib import Path
from torch import Tensor

from .currents import EQUATOR, geostrophic_currents
from .errors import call, refuse
from .quantity import LONG_NAMES, STANDARD_NAMES, metres
from .write import map_dataset
from ..domain import EARTH_RADIUS, Grid

BRANCHES = {"-180..180": -180.0, "0..360": 0.0}
SPEEDS = {"adt": "ugos vgos", "sla": "ugosa vgosa"}
TOWARDS = ("eastward", "northward")
KINDS = {
    "adt": "surface_geostrophic_{}_sea_water_velocity",
    "sla": "surface_geostrophic_{}_sea_water_velocity_assuming_sea_level_for_geoid",
}


def l4_dataset(
    grid: Grid,
    mean: Float[Tensor, " n"],
    std: Float[Tensor, " n"] | None = None,
    obs_std: Float[Tensor, " n"] | None = None,
    members: Float[Tensor, "size n"] | None = None,
    *,
    quantity: str,
    units: str = "m",
    currents: bool = False,
    branch: str = "-180..180",
    attributes: Mapping[str, object] | None = None,
) -> xr.Dataset:
    r"""Returns a map of sea level with the names of the L4 products, in metres.

    The field is ``adt`` or ``sla``, its std ``err_adt`` or ``err_sla`` (named by the
    ``ancillary_variables`` of the field), its ensemble ``adt_member`` on ``realization``, the std
    of a new datum ``adt_obs_std``. Currents are those of the mean, NaN within 5 degrees of the
    equator: ``ugos`` and ``vgos``, or ``ugosa`` and ``vgosa`` of an anomaly.

    References:
        | DUACS DT2018: 25 years of reprocessed sea level altimetry products (Taburet et al., 2019)
        | https://doi.org/10.5194/os-15-1207-2019

    Arguments:
        grid: The grid of the map, with :math:`n` nodes, whose last axes are ``lat`` and ``lon``.
        mean: The mean of the field.
        std: The std of the field.
        obs_std: The std of a new datum.
        members: An ensemble of fields.
        quantity: ``"adt"`` or ``"sla"``.
        units: The units of the field: m, cm or mm; they are written as metres.
        currents: Whether to add the geostrophic velocity of the mean.
        branch: The branch of longitudes, ``"-180..180"`` or ``"0..360"``; axes that do not fit on
            it stay continuous.
        attributes: Provenance, as for :func:`map_dataset`.

    Raises:
        InputError: If the field is no sea level, or is not on latitudes and longitudes.

    Example:
        >>> import torch
        >>> grid = Grid(lat=[43.0, 44.0], lon=[355.0, 356.0, 357.0])
        >>> ds = l4_dataset(grid, torch.ones(6), torch.ones(6), quantity="adt", units="cm")
        >>> ds.adt.dims, ds.adt.values[0, 0].item(), ds.longitude.values.tolist()
        (('latitude', 'longitude'), 0.009999999776482582, [-5.0, -4.0, -3.0])
        >>> ds.adt.attrs["ancillary_variables"]
        'err_adt'
    """
    scale = _check(grid, quantity, units)
    fields = [None if f is None else f * scale for f in (mean, std, obs_std, members)]
    assert fields[0] is not None
    ds = map_dataset(
        grid,
        fields[0],
        *fields[1:],
        variable=quantity,
        units="m",
        long_name=LONG_NAMES[quantity],
        standard_name=STANDARD_NAMES[quantity],
        attributes={**_discovery(quantity, grid), **(attributes or {})},
    )
    ds = _with_error_names(ds, quantity)
    if currents:
        ds = ds.assign(_speeds(grid, fields[0], quantity))
    return _on_the_globe(ds, branch)


def _check(grid: Grid, quantity: str, units: str) -> float:
    where = call("l4_dataset", quantity=quantity)
    if quantity not in LONG_NAMES:
        cure = "Say which it is with --quantity, or leave --product out"
        raise refuse(where, "adt or sla", f"'{quantity}'", cure)
    if grid.dims[-2:] != ("lat", "lon"):
        raise refuse(where, "a grid of lat and lon", ", ".join(grid.dims), "Name other axes")
    scale = metres(units or "m")
    if scale is None:
        raise refuse(where, "a field in m, cm or mm", f"'{units}'", "Convert it to metres")
    return scale


def _discovery(quantity: str, grid: Grid) -> dict[str, object]:
    lat, lon = (grid.axes[k] for k in ("lat", "lon"))
    return {
        "title": f"{LONG_NAMES[quantity]} mapped from observations by matheron",
        "processing_level": "L4",
        "cdm_data_type": "Grid",
        "geospatial_lat_min": lat[0].item(),
        "geospatial_lat_max": lat[-1].item(),
        "geospatial_lat_units": "degrees_north",
        "geospatial_lon_units": "degrees_east",
        "geospatial_lon_resolution": lon.diff().median().item() if len(lon) > 1 else None,
    }


def _with_error_names(ds: xr.Dataset, quantity: str) -> xr.Dataset:
    r"""Names the std of the field as the products do."""
    if f"{quantity}_std" not in ds:
        return ds
    ds = ds.rename({f"{quantity}_std": f"err_{quantity}"})
    ds[f"err_{quantity}"].attrs["long_name"] = "Formal mapping error"
    names = ds[quantity].attrs["ancillary_variables"]
    ds[quantity].attrs["ancillary_variables"] = names.replace(f"{quantity}_std", f"err_{quantity}")
    return ds


def _speeds(grid: Grid, height: Tensor, quantity: str) -> dict[str, xr.Variable]:
    dims = tuple({"lat": "latitude", "lon": "longitude"}.get(k, k) for k in grid.dims)
    found = geostrophic_currents(grid, height)
    made = {}
    for name, way, speed in zip(SPEEDS[quantity].split(), TOWARDS, found, strict=True):
        kind = "Absolute geostrophic velocity" if quantity == "adt" else "Geostrophic anomaly"
        attributes = {
            "units": "m/s",
            "long_name": f"{kind}: {way}",
            "standard_name": KINDS[quantity].format(way),
            "comment": f"of the mean map; not defined within {EQUATOR:g} degrees of the equator",
        }
        values = grid.unflatten(speed).numpy().astype(np.float32)
        made[name] = xr.Variable(dims, values, attributes)
    return made


def _on_the_globe(ds: xr.Dataset, branch: str) -> xr.Dataset:
    r"""Puts longitudes on a branch, and says of which sphere latitude and longitude are."""
    if branch not in BRANCHES:
        where, known = call("l4_dataset", branch=branch), " or ".join(BRANCHES)
        raise refuse(where, known, f"'{branch}'", "Choose one of them")
    lon, low = ds["longitude"].values, BRANCHES[branch]
    turns = np.floor((lon[0] - low) / 360.0)
    if lon[-1] - 360.0 * turns <= low + 360.0:
        lon = lon - 360.0 * turns
    ds = ds.assign_coords(longitude=("longitude", lon, ds["longitude"].attrs))
    ds.attrs |= {"geospatial_lon_min": float(lon[0]), "geospatial_lon_max": float(lon[-1])}
    for name in ds:
        ds[name].attrs["grid_mapping"] = "crs"
    shape = {"grid_mapping_name": "latitude_longitude", "earth_radius": EARTH_RADIUS}
    return ds.assign(crs=xr.Variable((), np.int32(0), shape))


def as_field(ds: xr.Dataset, variable: str) -> xr.Dataset:
    r"""Returns an L4 product with the names of a plain map: its std is ``V_std``, not ``err_V``.

    Example:
        >>> import torch
        >>> grid = Grid(lat=[43.0, 44.0], lon=[5.0, 6.0])
        >>> ds = l4_dataset(grid, torch.ones(4), torch.ones(4), quantity="sla")
        >>> "sla_std" in as_field(ds, "sla")
        True
    """
    named = f"err_{variable}" in ds and f"{variable}_std" not in ds
    return ds.rename({f"err_{variable}": f"{variable}_std"}) if named else ds


def file_digests(files: Sequence[str | Path]) -> str:
    r"""Returns the names of some files with the start of their SHA-256, to say what was used.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "a.csv"
        ...     _ = file.write_text("lon,lat,v\n")
        ...     file_digests([file])
        'a.csv sha256:1cca2e3f07cea1dc'
    """
    return "; ".join(f"{Path(f).name} sha256:{_digest(Path(f))}" for f in files)


def _digest(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()[:16]
