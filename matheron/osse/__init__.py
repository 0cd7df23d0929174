r"""Observing system simulation experiments: oceans nobody has seen, seen as satellites would."""

from .calendar import CALENDARS, Calendar
from .clouds import AVHRR, Clouds
from .constellations import CONSTELLATIONS, MISSIONS, Mission, constellation
from .experiment import Experiment, Training, training_seed
from .images import see
from .karin import karin_std
from .nature import PRESETS, Preset, mean_front, nature_run
from .noise import (
    NOISES,
    Altimeter,
    BaselineDilation,
    Error,
    ErrorModel,
    Karin,
    Phase,
    Roll,
    Timing,
    White,
    noise_model,
)
from .orbits import RepeatOrbit
from .passes import Box
from .plume import Coast, plume_run
from .recipes import Beside
from .sampling import observe
from .simple import gaussian_truth, lorenz_truth
from .spectra import Spectrum
from .statistics import geostrophic_speed
from .swath import Swath
from .temperature import Climate, see_temperature

__all__ = [
    "AVHRR",
    "CALENDARS",
    "CONSTELLATIONS",
    "MISSIONS",
    "NOISES",
    "PRESETS",
    "Altimeter",
    "BaselineDilation",
    "Beside",
    "Box",
    "Calendar",
    "Climate",
    "Clouds",
    "Coast",
    "Error",
    "ErrorModel",
    "Experiment",
    "Karin",
    "Mission",
    "Phase",
    "Preset",
    "RepeatOrbit",
    "Roll",
    "Spectrum",
    "Swath",
    "Timing",
    "Training",
    "White",
    "constellation",
    "gaussian_truth",
    "geostrophic_speed",
    "karin_std",
    "lorenz_truth",
    "mean_front",
    "nature_run",
    "noise_model",
    "observe",
    "plume_run",
    "see",
    "see_temperature",
    "training_seed",
]
