r"""What users call their coordinates, errors, missions and passes."""

from __future__ import annotations

__all__ = [
    "ALIASES",
    "CYCLES",
    "GROUPS",
    "INSTRUMENTS",
    "LAND_IS_ONE",
    "MASKS",
    "PASSES",
    "clean",
    "closest",
    "find_coordinates",
    "find_name",
    "find_noise",
    "is_flag",
    "is_index",
    "ordered",
    "pick_variable",
    "spare_coordinates",
    "unit_in_name",
]

import difflib
import re

from collections.abc import Iterable, Mapping, Sequence

from .errors import call, refuse

ORDER = ("time", "z", "lat", "y", "lon", "x")

ALIASES: dict[str, tuple[str, ...]] = {
    "time": (
        *("time", "datetime", "date_time", "date", "dates", "timestamp", "julian", "julian_day"),
        *("julian_date", "jday", "juld", "time_utc", "obs_time", "time_counter", "ocean_time"),
        "sst_dtime",
    ),
    "lat": (
        *("lat", "latitude", "nav_lat", "lats", "latitudes", "lat_deg", "latitude_deg", "y_lat"),
        *("geolat", "gphit", "lat_rho", "xlat", "latitude_t", "lat_t"),
    ),
    "lon": (
        *("lon", "longitude", "nav_lon", "lons", "longitudes", "long", "lng", "lon_deg"),
        *("longitude_deg", "x_lon", "geolon", "glamt", "lon_rho", "xlong", "longitude_t", "lon_t"),
    ),
    "x": ("x", "xloc", "x_loc", "easting", "eastings", "xcoord", "x_coord", "coord_x", "utm_x"),
    "y": ("y", "yloc", "y_loc", "northing", "northings", "ycoord", "y_coord", "coord_y", "utm_y"),
    "z": (),  # a depth is a coordinate only where it is asked for
}
STANDARD_NAMES = {
    "time": ("time",),
    "lat": ("latitude",),
    "lon": ("longitude",),
    "x": ("projection_x_coordinate",),
    "y": ("projection_y_coordinate",),
}
INSTRUMENTS = (
    *("mission", "platform", "satellite", "sensor", "instrument", "platform_name"),
    "platform_id",
)
GROUPS = (*INSTRUMENTS, "source")
PASSES = ("segment", "pass_id", "pass", "pass_number", "track", "track_id", "track_number")
CYCLES = ("cycle", "cycle_number")
MASKS = ("mask", "lsm", "land_mask", "landmask", "sea_mask", "land_sea_mask", "tmask")
LAND_IS_ONE = ("lsm", "land_mask", "landmask", "land_sea_mask")
INDICES = ("index", "level_0", "row", "fid", "id")
FLAGS = (
    *("crs", "flag", "flags", "quality", "quality_flag", "quality_level", "validation"),
    *("cross_track_distance", "x_ac", "i_num_line"),
    *("i_num_pixel", "flag_ice", "platform_type", "lat_nadir", "lon_nadir"),
)
NOISES = ("noise_std", "obs_std", "measurement_error", "error", "err", "error_std", "std_error")


def clean(name: object) -> str:
    r"""Returns a name in lower case, without its unit in brackets.

    Example:
        >>> clean(" Longitude [degrees_east]")
        'longitude'
    """
    bare = re.sub(r"\s*[\[(][^\])]*[\])]\s*$", "", str(name).strip())
    return re.sub(r"[\s\-]+", "_", bare).lower()


def unit_in_name(name: object) -> str:
    r"""Returns the unit that a column name carries in brackets, or nothing.

    Example:
        >>> unit_in_name("adt [m]")
        'm'
    """
    found = re.search(r"[\[(]([^\])]*)[\])]\s*$", str(name))
    return found.group(1).strip() if found else ""


def ordered(names: Iterable[str]) -> tuple[str, ...]:
    r"""Returns axis names in the order of the library."""
    return tuple(sorted(names, key=ORDER.index))


def closest(name: str, names: Iterable[str]) -> str:
    r"""Returns a suggestion, as a sentence, or the list of what there is."""
    names = [str(n) for n in names]
    lower = {clean(n): n for n in reversed(names)}
    near = difflib.get_close_matches(clean(name), lower, n=1, cutoff=0.6)
    return f"Did you mean '{lower[near[0]]}'?" if near else f"Choose one of {listed(names)}"


def listed(names: Iterable[object], most: int = 12) -> str:
    r"""Returns names in quotes, a dozen at most."""
    quoted = [f"'{n}'" for n in names]
    more = f" and {len(quoted) - most} more" if len(quoted) > most else ""
    return (", ".join(quoted[:most]) + more) or "nothing"


def find_name(asked: str, names: Sequence[str]) -> str | None:
    r"""Returns the name that is meant: exactly, else without regard to case and brackets."""
    if asked in names:
        return asked
    near = [n for n in names if clean(n) == clean(asked)]
    return near[0] if len(near) == 1 else None


def find_coordinates(
    path: object,
    names: Sequence[str],
    asked: Mapping[str, str | None],
    attributes: Mapping[str, Mapping[str, object]],
) -> dict[str, str]:
    r"""Returns which column or variable holds each coordinate.

    What is asked for wins; then the usual names, then CF attributes. Latitude and longitude win
    over ``x`` and ``y``, unless these are asked for.

    Arguments:
        path: The file, for the error.
        names: The columns or variables of the file.
        asked: The names given by the user, by axis.
        attributes: The CF attributes of the variables, if any.

    Raises:
        InputError: If coordinates are absent, incomplete or ambiguous.
    """
    found = {k: _asked(path, k, v, names) for k, v in asked.items() if v is not None}
    plane = any(k in found for k in ("x", "y"))
    axes = ["time", *(("x", "y") if plane else ("lat", "lon"))]
    found |= _usual(path, [k for k in axes if k not in found], names, attributes)
    space = [k for k in found if k != "time"]
    if not space:
        found |= _usual(path, ["x", "y"], names, attributes)
    _check_complete(path, found, names)
    return {k: found[k] for k in ordered(found)}


def _asked(path: object, axis: str, name: str, names: Sequence[str]) -> str:
    found = find_name(name, names)
    if found is None:
        known = f"a column or variable of {path}"
        raise refuse(call("read", **{axis: name}), known, f"'{name}'", closest(name, names))
    return found


def _usual(
    path: object,
    axes: Sequence[str],
    names: Sequence[str],
    attributes: Mapping[str, Mapping[str, object]],
) -> dict[str, str]:
    chosen = {}
    for axis in axes:
        name = _by_alias(path, axis, names) or _by_attribute(axis, attributes)
        if name is not None:
            chosen[axis] = name
    return chosen


def _by_alias(path: object, axis: str, names: Sequence[str]) -> str | None:
    for alias in ALIASES[axis]:
        near = [n for n in names if clean(n) == alias]
        if len(near) > 1:
            raise refuse(
                call("read", path=path),
                f"one column for '{axis}'",
                listed(near),
                f"Name it, e.g. {axis}='{near[0]}'",
            )
        if near:
            return near[0]
    return None


def _by_attribute(axis: str, attributes: Mapping[str, Mapping[str, object]]) -> str | None:
    unit = {"lat": r"degrees?_?n(orth)?$", "lon": r"degrees?_?e(ast)?$"}.get(axis)
    for name, attrs in attributes.items():
        if attrs.get("standard_name") in STANDARD_NAMES[axis] and "bounds" not in name:
            return name
    for name, attrs in attributes.items():
        units = str(attrs.get("units", "")).lower()
        if unit and re.match(unit, units) and "bnds" not in name:
            return name
    return None


def _check_complete(path: object, found: Mapping[str, str], names: Sequence[str]) -> None:
    space = {k for k in found if k not in {"time", "z"}}
    if not space:
        raise refuse(
            call("read", path=path),
            "coordinates, e.g. 'lon' and 'lat'",
            listed(names),
            "Rename the columns, or name them, e.g. --lon COLUMN --lat COLUMN",
        )
    pairs = {"lat": "lon", "lon": "lat"}
    for one, other in pairs.items():
        if one in space and other not in space:
            raise refuse(
                call("read", path=path),
                f"a '{other}' beside '{found[one]}'",
                listed(names),
                f"Add the column, or name it, e.g. --{other} COLUMN",
            )
    if len(set(found.values())) < len(found):
        raise refuse(
            call("read", path=path),
            "one column per coordinate",
            str(dict(found)),
            "Give each coordinate its own column",
        )


def is_index(name: str) -> bool:
    r"""Tells a number of the row from what is known of the place."""
    return clean(name) in INDICES or clean(name).startswith("unnamed:")


def is_flag(name: str) -> bool:
    r"""Tells a mask, a flag or an index from a measured variable."""
    bare = clean(name)
    listed_so = bare in (*FLAGS, *MASKS) or is_index(name)
    return listed_so or bare.endswith(("_flag", "_mask", "_bnds", "_bounds"))


def spare_coordinates(names: Iterable[str]) -> list[str]:
    r"""Returns what is named as a coordinate, e.g. x and y beside the lon and lat that are used.

    Example:
        >>> spare_coordinates(["Xloc", "adt", "nav_lat"])
        ['Xloc', 'nav_lat']
    """
    aliases = {alias for known in ALIASES.values() for alias in known}
    return [n for n in names if clean(n) in aliases]


def find_noise(variable: str, names: Sequence[str]) -> str | None:
    r"""Returns the column that holds the error std of a variable, if there is one."""
    v = clean(variable)
    specific = [f"{v}_{s}" for s in ("std", "error", "err", "noise", "sigma", "uncertainty")]
    bare = {clean(n): n for n in names if n != variable}
    shared = () if re.match(r"[uv]gos", v) else NOISES  # 'err' is that of the height, in metres
    for alias in (*specific, f"err_{v}", f"error_{v}", *shared):
        if alias in bare:
            return bare[alias]
    return None


SIMULATED = {"ssh_obs", "ssh_model"}


def pick_variable(
    path: object, asked: str | None, candidates: Sequence[str], names: Sequence[str]
) -> str:
    r"""Returns the variable that is meant.

    Arguments:
        path: The file, for the error.
        asked: The name given by the user, if any.
        candidates: The numeric variables that are neither coordinates nor flags.
        names: All variables of the file: what is asked for may be any of them.

    Raises:
        InputError: If the variable is unknown, or if none is given and there are several.
    """
    if asked is not None:
        found = find_name(asked, names)
        if found is None:
            known = f"one of {listed(candidates)} in {path}"
            cure = closest(asked, dict.fromkeys([*candidates, *names]))
            raise refuse(call("read", variable=asked), known, f"'{asked}'", cure)
        return found
    candidates = _measured(candidates)
    if set(candidates) >= SIMULATED:  # what was seen, and what a perfect instrument would see
        return "ssh_obs"
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise refuse(
            call("read", path=path),
            "a numeric variable",
            f"only {listed(names)}",
            "Add the column of the measured values",
        )
    raise refuse(
        call("read", variable=None),
        f"one of {listed(candidates)} in {path}",
        "no choice",
        f"Name the variable, e.g. --variable {candidates[0]}",
    )


def _measured(candidates: Sequence[str]) -> list[str]:
    r"""Returns the candidates that are not the error, nor the ensemble, of another one."""
    apart = {find_noise(c, candidates) for c in candidates}
    apart |= {f"{c}_{part}" for c in candidates for part in ("obs_std", "member")}
    left = [c for c in candidates if c not in apart]
    return left or list(candidates)
