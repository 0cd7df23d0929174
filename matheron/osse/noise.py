r"""Errors of altimeters: white, of the interferometer, of the attitude, of the instruments.

An error is drawn for the lines of a :class:`Sight`. Errors with a spectrum are drawn along each
pass, gaps included, and anew for each pass: passes over one region are further apart in time than
these errors last.
"""

from __future__ import annotations

__all__ = [
    "NOISES",
    "Altimeter",
    "BaselineDilation",
    "Error",
    "ErrorModel",
    "Karin",
    "Phase",
    "Roll",
    "Timing",
    "White",
    "noise_model",
]

import abc
import math
import numpy as np
import torch

from dataclasses import dataclass
from jaxtyping import Float
from typing import ClassVar

from .karin import karin_std
from .spectra import Sight, Spectrum, white

LIGHT = 299_792_458.0
BASELINE = 10.0
WAVENUMBER = 2.0 * math.pi * 35.75e9 / LIGHT
"""Of SWOT: the speed of light (m/s), the baseline (m), the wavenumber in band Ka (rad/m)."""

ARCSECOND = math.pi / 648_000.0

RED_ALTIMETER = Spectrum(level=1.05e-8, slope=2.2, longest=4232.0, floor=8e-4)
ROLL = Spectrum.red(std=0.05)
PHASE = Spectrum.red(std=0.1)
DILATION = Spectrum.red(std=20.0)
DELAY = Spectrum.red(std=50.0)
"""Default spectra: that of Jason-2 in m² (cycle/km)⁻¹; attitude and instruments of SWOT in squared
arcseconds, degrees, micrometres and picoseconds. The latter are plain models, each of 1 to 2 cm at
60 km from nadir, not the error budget of the mission."""


class Error(abc.ABC):
    r"""An error of an instrument, in metres of sea surface height."""

    name: ClassVar[str]
    """The name of its variable in files."""

    @abc.abstractmethod
    def draw(
        self, sight: Sight, generator: torch.Generator | None = None
    ) -> Float[np.ndarray, "t p"]:
        r"""Draws the error.

        Arguments:
            sight: What was seen.
            generator: The random generator.
        """


@dataclass(frozen=True)
class White(Error):
    r"""An error that is independent from datum to datum.

    Arguments:
        std: The standard deviation, in metres.

    Raises:
        ValueError: If it is negative or not finite.
    """

    name: ClassVar[str] = "white_err"
    std: float = 0.03

    def __post_init__(self) -> None:
        _expect_std("White", "std", self.std)

    def draw(
        self, sight: Sight, generator: torch.Generator | None = None
    ) -> Float[np.ndarray, "t p"]:
        return self.std * white(sight.shape, generator)


@dataclass(frozen=True)
class Karin(Error):
    r"""The random noise of the interferometer of SWOT: least in mid-swath, less on large pixels.

    Its standard deviation is :func:`karin_std` over the root of the area of a pixel in km².

    Arguments:
        wave_height: The significant wave height, in metres, from 0 to 8.

    Raises:
        ValueError: If the wave height is out of the law.
    """

    name: ClassVar[str] = "karin_err"
    wave_height: float = 2.0

    def __post_init__(self) -> None:
        karin_std(np.zeros(1), self.wave_height)

    def draw(
        self, sight: Sight, generator: torch.Generator | None = None
    ) -> Float[np.ndarray, "t p"]:
        std = karin_std(sight.offsets, self.wave_height) / math.sqrt(sight.along * sight.across)
        return std * white(sight.shape, generator)


@dataclass(frozen=True)
class Altimeter(Error):
    r"""The error of a nadir altimeter: a floor and a red part, 2.3 cm in all at 1 Hz.

    The default spectrum, :math:`8 + 1.05 \times 10^{-4} f^{-2.2}` cm²/(cycle/km), is the one that
    simulators of SWOT fit to Jason-2.

    Arguments:
        spectrum: The spectrum, in m²/(cycle/km).
    """

    name: ClassVar[str] = "altimeter_err"
    spectrum: Spectrum = RED_ALTIMETER

    def draw(
        self, sight: Sight, generator: torch.Generator | None = None
    ) -> Float[np.ndarray, "t p"]:
        return self.spectrum.along(sight, generator)[:, None] * np.ones(sight.shape)


@dataclass(frozen=True)
class Roll(Error):
    r"""The roll :math:`\theta` of the satellite: :math:`h = (1 + H / R) \, \theta \, x`.

    The default, a model of what a calibration at crossovers leaves, is 1.7 cm at 60 km from nadir.

    Arguments:
        spectrum: The spectrum of the angle, in arcsecond²/(cycle/km).
    """

    name: ClassVar[str] = "roll_err"
    spectrum: Spectrum = ROLL

    def draw(
        self, sight: Sight, generator: torch.Generator | None = None
    ) -> Float[np.ndarray, "t p"]:
        angle = ARCSECOND * self.spectrum.along(sight, generator)
        return sight.magnification * angle[:, None] * (1e3 * sight.offsets)


def _sides(
    spectrum: Spectrum, sight: Sight, generator: torch.Generator | None
) -> Float[np.ndarray, "t p"]:
    r"""One series for the left half of the swath, one for the right half."""
    left, right = (spectrum.along(sight, generator)[:, None] for _ in range(2))
    return np.where(sight.offsets < 0.0, left, right)


@dataclass(frozen=True)
class Phase(Error):
    r"""The phase :math:`\phi` of each antenna: :math:`h = (1 + H / R) \, \phi x / (k B)`.

    Arguments:
        spectrum: The spectrum of the phase of one side, in degree²/(cycle/km).
    """

    name: ClassVar[str] = "phase_err"
    spectrum: Spectrum = PHASE

    def draw(
        self, sight: Sight, generator: torch.Generator | None = None
    ) -> Float[np.ndarray, "t p"]:
        phase = np.deg2rad(_sides(self.spectrum, sight, generator))
        lever = sight.magnification / (WAVENUMBER * BASELINE)
        return lever * phase * (1e3 * sight.offsets)


@dataclass(frozen=True)
class BaselineDilation(Error):
    r"""A stretch of the baseline :math:`\delta`: :math:`h = -(1 + H / R) \, \delta x^2 / (H B)`.

    Arguments:
        spectrum: The spectrum of the stretch, in µm²/(cycle/km).
    """

    name: ClassVar[str] = "bd_err"
    spectrum: Spectrum = DILATION

    def draw(
        self, sight: Sight, generator: torch.Generator | None = None
    ) -> Float[np.ndarray, "t p"]:
        stretch = 1e-6 * self.spectrum.along(sight, generator)
        lever = -sight.magnification / (sight.altitude * BASELINE)
        return lever * stretch[:, None] * (1e3 * sight.offsets) ** 2


@dataclass(frozen=True)
class Timing(Error):
    r"""The delay :math:`\tau` of each side: :math:`h = c \tau / 2`, constant across the side.

    Arguments:
        spectrum: The spectrum of the delay of one side, in picosecond²/(cycle/km).
    """

    name: ClassVar[str] = "timing_err"
    spectrum: Spectrum = DELAY

    def draw(
        self, sight: Sight, generator: torch.Generator | None = None
    ) -> Float[np.ndarray, "t p"]:
        return 0.5e-12 * LIGHT * _sides(self.spectrum, sight, generator)


def _expect_std(where: str, name: str, value: float) -> None:
    if not 0.0 <= value < math.inf:
        msg = (
            f"{where}({name}={value}): expected a standard deviation of at least 0 in metres, "
            f"got {value}. 0.03 is usual."
        )
        raise ValueError(msg)


@dataclass(frozen=True)
class ErrorModel:
    r"""The errors of a constellation.

    Arguments:
        nadir: The errors of nadir altimeters.
        swath: The errors of wide-swath altimeters.

    Example:
        >>> [error.name for error in NOISES["karin"].swath]
        ['karin_err', 'roll_err']
    """

    nadir: tuple[Error, ...] = ()
    swath: tuple[Error, ...] = ()


NOISES: dict[str, ErrorModel] = {
    "none": ErrorModel(),
    "white": ErrorModel((White(),), (White(),)),
    "karin": ErrorModel((Altimeter(),), (Karin(), Roll())),
    "full": ErrorModel((Altimeter(),), (Karin(), Roll(), Phase(), BaselineDilation(), Timing())),
}
"""Errors by name: none (as in the 2020a challenge), white of 3 cm, the noise and the roll of
KaRIn with the spectrum of Jason at nadir, and every error of the instruments."""


def noise_model(noise: str | ErrorModel) -> ErrorModel:
    r"""Returns errors by name, or as they are.

    Arguments:
        noise: A name among ``none``, ``white``, ``karin`` and ``full``, or the errors.

    Raises:
        ValueError: If the name is unknown.

    Example:
        >>> noise_model("none")
        ErrorModel(nadir=(), swath=())
    """
    if isinstance(noise, ErrorModel):
        return noise
    if noise not in NOISES:
        msg = (
            f"noise_model(noise={noise!r}): expected a name among {', '.join(NOISES)}, got "
            f"{noise!r}. Or build an ErrorModel."
        )
        raise ValueError(msg)
    return NOISES[noise]
