r"""Scores of maps by scale, as the data challenges of ocean mapping define them."""

from .definitions import DEFINITIONS, Definition, challenge_score
from .fields import Field, Track
from .intercept import (
    below_level,
    first_contour,
    first_crossing,
    largest_component,
    sorted_by_score,
)
from .oceanbench import oceanbench
from .odc2020a import odc2020a, spectral_score
from .odc2021a import ocb, odc2021a, segment_score
from .psd import Plane, Radial, along_track, isotropic, time_lon
from .published import Published, beside, published
from .regimes import lanczos, regime_masks, regimes
from .regrid import at_points, daily_mean, gauss_seidel, interpolate_to_tracks, regrid
from .robust import robust
from .scored import Scored
from .segments import Segments, legacy_segments, regular_segments

__all__ = [
    "DEFINITIONS",
    "Definition",
    "Field",
    "Plane",
    "Published",
    "Radial",
    "Scored",
    "Segments",
    "Track",
    "along_track",
    "at_points",
    "below_level",
    "beside",
    "challenge_score",
    "daily_mean",
    "first_contour",
    "first_crossing",
    "gauss_seidel",
    "interpolate_to_tracks",
    "isotropic",
    "lanczos",
    "largest_component",
    "legacy_segments",
    "oceanbench",
    "ocb",
    "odc2020a",
    "odc2021a",
    "published",
    "regime_masks",
    "regimes",
    "regrid",
    "regular_segments",
    "robust",
    "segment_score",
    "sorted_by_score",
    "spectral_score",
    "time_lon",
]
