r"""Pictures of fields, observations and calibration, on the plane or on the sphere.

Every function returns a :class:`matplotlib.figure.Figure` and opens no window: save it, or show
it with the tools of your choice. Fields are states of a grid; statistics come as plain vectors,
from :mod:`matheron.metrics`. The pictures of the ocean (:func:`panels`, :func:`uncertainty`,
:func:`hovmoller`) take labelled arrays, as they are read from files.
"""

__all__ = [
    "arrows",
    "calibration",
    "coverage",
    "ellipses",
    "field",
    "fields",
    "hovmoller",
    "leaderboard",
    "observations",
    "panels",
    "parameters",
    "phase_space",
    "pit",
    "posterior",
    "ranks",
    "residuals",
    "rmse_in_time",
    "score_plane",
    "spread_skill",
    "time_series",
    "told_errors",
    "track_spectra",
    "uncertainty",
    "variogram",
]

from .day_by_day import told_errors
from .diagnostics import calibration, coverage, pit, ranks, spread_skill, variogram
from .hovmoller import hovmoller
from .leaderboard import leaderboard
from .maps import field, fields, observations, posterior, residuals
from .ocean import panels, uncertainty
from .parameters import arrows, ellipses, parameters
from .phase import phase_space, time_series
from .spectra import rmse_in_time, score_plane, track_spectra
