r"""What an experiment is like: in numbers, and in words."""

from __future__ import annotations

__all__ = ["beside_statistics", "geostrophic_speed", "in_words", "statistics"]

import numpy as np
import xarray as xr

from collections.abc import Mapping
from jaxtyping import Float
from typing import Any

from ..domain import EARTH_RADIUS

GRAVITY = 9.81
ROTATION = 7.292115e-5


def geostrophic_speed(
    ssh: Float[np.ndarray, "time lat lon"],
    lat: Float[np.ndarray, " lat"],
    lon: Float[np.ndarray, " lon"],
) -> Float[np.ndarray, "time lat lon"]:
    r"""Returns the speed of the geostrophic current, in metres per second.

    .. math:: \frac{g}{2 \Omega |\sin \varphi|} |\nabla \eta|

    Arguments:
        ssh: The height :math:`\eta`, in metres.
        lat: The latitudes, in degrees, away from the equator.
        lon: The longitudes, in degrees.

    Example:
        >>> lat, lon = np.arange(40.0, 42.0, 0.5), np.arange(3.0)
        >>> slope = np.broadcast_to(1e-6 * EARTH_RADIUS * np.deg2rad(lat)[:, None], (1, 4, 3))
        >>> geostrophic_speed(slope, lat, lon)[0, 0, 0].round(3)  # 9.81e-6 / 9.37e-5
        np.float64(0.105)
    """
    phi = np.deg2rad(lat)
    north, east = np.gradient(ssh, EARTH_RADIUS * phi, EARTH_RADIUS * np.deg2rad(lon), axis=(1, 2))
    east = east / np.cos(phi)[:, None]
    return np.hypot(north, east) * (GRAVITY / np.abs(2 * ROTATION * np.sin(phi)))[:, None]


def statistics(
    truth: xr.Dataset, observations: Mapping[str, xr.Dataset], variable: str, observed: str
) -> dict[str, Any]:
    r"""Returns what a truth and its observations are like, in numbers.

    Arguments:
        truth: The truth, with ``variable(time, lat, lon)``.
        observations: What is seen of it, by name.
        variable: ``ssh`` or ``spm``.
        observed: The observed variable, errors included.
    """
    describe = _height if variable == "ssh" else _load
    return {
        "truth": {k: _plain(v) for k, v in describe(truth[variable]).items()},
        "observations": {k: _told(ds, truth, observed) for k, ds in observations.items()},
    }


def beside_statistics(truth: xr.DataArray, seen: xr.DataArray) -> dict[str, float]:
    r"""Returns what another field and what is seen of it are like, in numbers.

    Arguments:
        truth: The field.
        seen: What is seen of it, on the same days and nodes.
    """
    x, e = truth.values.astype(np.float64), (seen - truth).values.astype(np.float64)
    found = {"low": x.min(), "high": x.max(), "std": x.std()}
    found["error_std"] = e[np.isfinite(e)].std()
    return {k: _plain(float(v)) for k, v in (found | {"hidden": np.isnan(e).mean()}).items()}


def _plain(value: float) -> float:
    return float(f"{value:.6g}")


def _height(ssh: xr.DataArray) -> dict[str, float]:
    values = ssh.values
    speed = geostrophic_speed(values, ssh["lat"].values, ssh["lon"].values)
    return {
        "std": float(values.std()),
        "std_about_mean": float(values.std(axis=0).mean()),
        "speed_rms": float(np.sqrt(np.square(speed).mean())),
        "speed_max": float(speed.max()),
    }


def _load(spm: xr.DataArray) -> dict[str, float]:
    sea = spm.values[np.isfinite(spm.values)]
    low, middle, high = np.quantile(sea, [0.05, 0.5, 0.95])
    return {
        "low": float(low),
        "median": float(middle),
        "high": float(high),
        "max": float(sea.max()),
        "log_std": float(np.log(sea).std()),
        "sea": float(np.isfinite(spm.values[0]).sum()),
    }


def _told(seen: xr.Dataset, truth: xr.Dataset, observed: str) -> dict[str, int | float]:
    finite = np.isfinite(seen[observed].values)
    told: dict[str, int | float] = {"count": int(finite.sum())}
    if "pass_number" in seen.coords:
        told["passes"] = len(
            set(zip(seen["cycle"].values, seen["pass_number"].values, strict=True))
        )
    if observed == "ssh_obs" and told["count"]:
        told["noise_std"] = _plain(float((seen["ssh_obs"] - seen["ssh_model"]).std()))
    return told | (_gaps(finite, truth[observed].values) if observed in truth else {})


def _gaps(finite: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """The part of the sea that is hidden: over all days, on the clearest and on the worst."""
    hidden = 1 - finite.sum(axis=(1, 2)) / np.isfinite(truth).sum(axis=(1, 2))
    parts = {"hidden": hidden.mean(), "hidden_least": hidden.min(), "hidden_most": hidden.max()}
    return {k: _plain(float(v)) for k, v in parts.items()}


def in_words(settings: Mapping[str, Any], numbers: Mapping[str, Any]) -> str:
    r"""Returns what an experiment is like, in words.

    Arguments:
        settings: What was asked for; nothing, and only the statistics are told.
        numbers: The statistics.
    """
    truth = numbers["truth"]
    lines = _asked(settings) if settings else []
    lines += _of_load(truth) if "median" in truth else _of_height(truth)
    lines += [_of_data(name, told) for name, told in numbers["observations"].items()]
    lines += [_of_beside(name, told) for name, told in numbers.get("beside", {}).items()]
    return "\n".join(lines)


def _asked(settings: Mapping[str, Any]) -> list[str]:
    days = settings["calendar"]
    first, last = days["spin_up"][0], days["scored"][1]
    return [
        f"# {settings['preset']}, seen by {settings['constellation']}",
        "",
        f"An observing system simulation experiment made by matheron {settings['version']}, with "
        f"noise {settings['noise']} and seed {settings['seed']}.",
        "",
        f"- days: {first} to {last}, of which {days['scored'][0]} to {last} are scored; nothing "
        f"from {days['buffer'][0]} to {days['buffer'][1]} may be used",
        f"- truth: `{settings['variable']}` in truth.nc; observed: `{settings['observed']}`",
    ]


def _of_height(truth: Mapping[str, float]) -> list[str]:
    return [
        f"- sea surface height: std {truth['std']:.3f} m, and {truth['std_about_mean']:.3f} m "
        "about the mean in time",
        f"- geostrophic currents: rms {truth['speed_rms']:.2f} m/s, at most "
        f"{truth['speed_max']:.2f} m/s",
    ]


def _of_load(truth: Mapping[str, float]) -> list[str]:
    return [
        f"- suspended matter: median {truth['median']:.2g} g m-3, 90 % between "
        f"{truth['low']:.2g} and {truth['high']:.2g}, at most {truth['max']:.3g}; the std of its "
        f"logarithm is {truth['log_std']:.2f}",
        f"- {truth['sea']:.0f} cells of sea",
    ]


def _of_data(name: str, told: Mapping[str, int | float]) -> str:
    words = f"- {name}: {told['count']} data"
    words += f" on {told['passes']} passes" if "passes" in told else ""
    words += f", noise std {told['noise_std']:.3f} m" if "noise_std" in told else ""
    if "hidden" in told:
        words += f"; {told['hidden']:.0%} of the sea is hidden, from {told['hidden_least']:.0%} "
        words += f"to {told['hidden_most']:.0%} from day to day"
    return words


def _of_beside(name: str, told: Mapping[str, float]) -> str:
    words = f"- {name}: {told['low']:.1f} to {told['high']:.1f} degrees, std {told['std']:.2f}; "
    words += f"seen with errors of {told['error_std']:.2f}"
    return words + (f", {told['hidden']:.0%} of it hidden" if told["hidden"] else "")
