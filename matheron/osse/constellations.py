r"""Altimetry missions and constellations, by name.

Revolutions, days and inclinations are those of the missions. Longitudes and phases:

- Jason (Topex/Poseidon, Sentinel-6), its interleaved orbit (half an inter-track further east),
  ERS (Envisat, SARAL) and HY-2A were adjusted to positions along real tracks of 2014: positions
  are the real ones of that year within 1 km, 4 km and 17 km (rms);
- both orbits of SWOT were adjusted to the official ephemerides of the mission: the tracks are the
  real ones, but the date at which a cycle starts is arbitrary;
- Sentinel-3A, Geosat Follow-On and CryoSat-2 have the real pattern and pace, at an arbitrary
  longitude and date; Sentinel-3B flies half an inter-track from Sentinel-3A.

Orbits are kept exactly, for ever. Eccentricities are those of frozen orbits. Only the repeat
phases are here: CryoSat-2 drifts in truth, and is given its cycle of 369 nodal days.
"""

from __future__ import annotations

__all__ = ["CONSTELLATIONS", "MISSIONS", "Mission", "constellation"]

import numpy as np

from collections.abc import Sequence
from dataclasses import dataclass, replace

from .orbits import RepeatOrbit
from .swath import Swath


@dataclass(frozen=True)
class Mission:
    r"""A satellite: its orbit, and what it carries.

    Arguments:
        name: The name, as in the files of the 2020a data challenge where it is there.
        orbit: The orbit.
        swath: The swath of a wide-swath altimeter; :py:`None` for a nadir altimeter alone.
        seconds: The step of the nadir altimeter in time, in seconds.

    Example:
        >>> MISSIONS["swot"].swath.outer
        60.0
    """

    name: str
    orbit: RepeatOrbit
    swath: Swath | None = None
    seconds: float = 1.0


def _beside(orbit: RepeatOrbit, tracks: float) -> RepeatOrbit:
    return replace(orbit, longitude=(orbit.longitude + tracks * orbit.spacing) % 360.0)


JASON = RepeatOrbit(
    revolutions=127,
    days=10,
    period=9.915648,
    inclination=66.03,
    altitude=1_336_000.0,
    eccentricity=1e-4,
    longitude=315.7376,
    phase=247.164,
    epoch=np.datetime64("1987-03-19T16:54:20"),
)
ERS = RepeatOrbit(
    revolutions=501,
    days=35,
    period=35.0,
    inclination=98.547,
    altitude=787_000.0,
    eccentricity=1.1e-3,
    longitude=91.0139,
    phase=77.5045,
    epoch=np.datetime64("1995-02-11"),
)
HAIYANG = RepeatOrbit(
    revolutions=193,
    days=14,
    period=14.0,
    inclination=99.358,
    altitude=970_000.0,
    eccentricity=1.1e-3,
    longitude=273.5020,
    phase=37.8867,
    epoch=np.datetime64("1999-01-02"),
)
SENTINEL3 = RepeatOrbit(
    revolutions=385,
    days=27,
    period=27.0,
    inclination=98.65,
    altitude=805_000.0,
    eccentricity=1.1e-3,
)
GEOSAT = RepeatOrbit(
    revolutions=244,
    days=17,
    period=17.0505,
    inclination=108.04,
    altitude=788_000.0,
    eccentricity=8e-4,
)
CRYOSAT = RepeatOrbit(
    revolutions=5344,
    days=369,
    period=368.24,
    inclination=92.0,
    altitude=717_000.0,
    eccentricity=1.4e-3,
)
SWOT_SCIENCE = RepeatOrbit(
    revolutions=292,
    days=21,
    period=20.86455,
    inclination=77.59246,
    altitude=890_582.0,
    eccentricity=1.0468e-3,
    longitude=35.32567,
    phase=179.87997,
)
SWOT_CALVAL = RepeatOrbit(
    revolutions=14,
    days=1,
    period=0.99349,
    inclination=77.59239,
    altitude=857_244.0,
    eccentricity=1.0523e-3,
    longitude=61.03999,
    phase=179.87951,
)

MISSIONS: dict[str, Mission] = {
    mission.name: mission
    for mission in (
        Mission("jason1", JASON),
        Mission("topex-poseidon_interleaved", _beside(JASON, 0.5)),
        Mission("envisat", ERS),
        Mission("geosat2", GEOSAT),
        Mission("sentinel3a", SENTINEL3),
        Mission("sentinel3b", _beside(SENTINEL3, 0.5)),
        Mission("hy2a", HAIYANG),
        Mission("cryosat2", CRYOSAT),
        Mission("swot", SWOT_SCIENCE, Swath()),
        Mission("swot_calval", SWOT_CALVAL, Swath()),
    )
}
"""Every mission, by name."""

CONSTELLATIONS: dict[str, tuple[str, ...]] = {
    "1nadir": ("jason1",),
    "4nadirs": ("topex-poseidon_interleaved", "jason1", "geosat2", "envisat"),
    "7nadirs": (
        "topex-poseidon_interleaved",
        "jason1",
        "geosat2",
        "envisat",
        "sentinel3a",
        "sentinel3b",
        "hy2a",
    ),
}
"""Constellations: those of the 2020a data challenge, and a dense one of today."""


def constellation(names: str | Sequence[str]) -> dict[str, Mission]:
    r"""Returns missions by name.

    Arguments:
        names: Missions or constellations, separated by commas or in a list.

    Raises:
        ValueError: If a name is unknown, or if none is given.

    Example:
        >>> list(constellation("1nadir,swot"))
        ['jason1', 'swot']
    """
    asked = names.split(",") if isinstance(names, str) else names
    asked = [name.strip() for name in asked if name.strip()]
    unknown = [name for name in asked if name not in CONSTELLATIONS and name not in MISSIONS]
    if unknown or not asked:
        got = repr(unknown[0]) if unknown else "none"
        msg = (
            f"constellation(names={names!r}): expected names among "
            f"{', '.join([*CONSTELLATIONS, *MISSIONS])}, got {got}. Separate them by commas."
        )
        raise ValueError(msg)
    flat = [mission for name in asked for mission in CONSTELLATIONS.get(name, (name,))]
    return {name: MISSIONS[name] for name in flat}
