r"""Pictures of fields, observations and calibration, on the plane or on the sphere.

Every function returns a :class:`matplotlib.figure.Figure` and opens no window: save it, or show
it with the tools of your choice. Fields are states of a grid; statistics come as plain vectors,
from :mod:`matheron.metrics`.
"""

__all__ = [
    "arrows",
    "calibration",
    "coverage",
    "ellipses",
    "field",
    "fields",
    "observations",
    "parameters",
    "pit",
    "posterior",
    "ranks",
    "residuals",
    "spread_skill",
    "variogram",
]

from .diagnostics import calibration, coverage, pit, ranks, spread_skill, variogram
from .maps import field, fields, observations, posterior, residuals
from .parameters import arrows, ellipses, parameters
