r"""Random series along the lines of an instrument, from their power spectrum."""

from __future__ import annotations

__all__ = ["Sight", "Spectrum", "white"]

import math
import numpy as np
import torch

from dataclasses import dataclass
from jaxtyping import Float, Int
from scipy.fft import next_fast_len

from ..domain import EARTH_RADIUS


@dataclass(frozen=True)
class Sight:
    r"""What an instrument saw, for its errors.

    Arguments:
        passes: The pass of each line.
        index: The number of each line in its pass: lines are evenly spaced.
        offsets: The distances of pixels to nadir, in kilometres: 0 alone for a nadir altimeter.
        along: The step along the track, in kilometres.
        across: The step across the track, in kilometres.
        altitude: The altitude of the satellite, in metres.
    """

    passes: Int[np.ndarray, " t"]
    index: Int[np.ndarray, " t"]
    offsets: Float[np.ndarray, " p"]
    along: float
    across: float = 1.0
    altitude: float = 890_582.0

    @property
    def magnification(self) -> float:
        r"""The factor :math:`1 + H / R` of angles, by the curvature of the Earth."""
        return 1.0 + self.altitude / EARTH_RADIUS

    @property
    def shape(self) -> tuple[int, int]:
        r"""The number of lines and of pixels."""
        return self.index.size, self.offsets.size


def white(shape: tuple[int, ...], generator: torch.Generator | None) -> Float[np.ndarray, ...]:
    r"""Draws independent standard Gaussian numbers.

    Arguments:
        shape: The shape of the array.
        generator: The random generator.
    """
    return torch.randn(shape, generator=generator, dtype=torch.float64).numpy()


@dataclass(frozen=True)
class Spectrum:
    r"""A one-sided power spectrum along the track: red over a floor, flat at long wavelengths.

    .. math:: S(f) = S_0 + A \max(f, 1 / L)^{-s},
        \qquad \sigma^2 = \int_0^{1 / 2 \Delta} S(f) \, df

    Arguments:
        level: The level :math:`A` of the red part, at one cycle per kilometre, in squared units
            per (cycle/km).
        slope: The slope :math:`s`, above 1.
        longest: The wavelength :math:`L` beyond which it is flat, in kilometres.
        floor: The white level :math:`S_0`, in squared units per (cycle/km).

    Raises:
        ValueError: If a level is negative, or the slope or the wavelength out of range.

    Example:
        >>> spectrum = Spectrum.red(std=2.0, longest=1000.0)
        >>> round(float(np.sqrt(spectrum.variance(1e-3))), 3)
        2.0
    """

    level: float
    slope: float = 2.0
    longest: float = 4000.0
    floor: float = 0.0

    def __post_init__(self) -> None:
        for name, low in (("level", 0.0), ("slope", 1.01), ("longest", 1.0), ("floor", 0.0)):
            value = getattr(self, name)
            if not low <= value < math.inf:
                msg = (
                    f"Spectrum({name}={value}): expected a finite number of at least {low}, got "
                    f"{value}. Frequencies are in cycles per kilometre."
                )
                raise ValueError(msg)

    @classmethod
    def red(cls, std: float, slope: float = 2.0, longest: float = 4000.0) -> Spectrum:
        r"""Returns a red spectrum without floor, of a given standard deviation.

        Arguments:
            std: The standard deviation over all wavelengths.
            slope: The slope :math:`s`, above 1.
            longest: The wavelength :math:`L` beyond which it is flat, in kilometres.
        """
        level = std**2 * (slope - 1.0) / slope * longest ** (1.0 - slope)
        return cls(level, slope, longest)

    def __call__(self, frequencies: Float[np.ndarray, " f"]) -> Float[np.ndarray, " f"]:
        r"""Returns the spectrum :math:`S(f)` at frequencies in cycles per kilometre."""
        high = np.maximum(np.abs(frequencies), 1.0 / self.longest)
        return self.floor + self.level * high**-self.slope

    def variance(self, step: float) -> float:
        r"""Returns the variance :math:`\sigma^2` of a series with a step.

        Arguments:
            step: The step along the track :math:`\Delta`, in kilometres: below half of
                ``longest``.
        """
        low, high, power = 1.0 / self.longest, 0.5 / step, 1.0 - self.slope
        red = low**power + (high**power - low**power) / power
        return self.level * red + self.floor * high

    def draw(
        self, size: int, step: float, generator: torch.Generator | None = None
    ) -> Float[np.ndarray, " n"]:
        r"""Draws a stationary Gaussian series, on a circle longer by two longest wavelengths.

        Arguments:
            size: The number of values.
            step: The step along the track, in kilometres.
            generator: The random generator.
        """
        around = next_fast_len(size + int(2.0 * self.longest / step), real=True)
        gain = np.sqrt(self(np.fft.rfftfreq(around, step)) / (2.0 * step))
        return np.fft.irfft(np.fft.rfft(white((around,), generator)) * gain, around)[:size]

    def along(
        self, sight: Sight, generator: torch.Generator | None = None
    ) -> Float[np.ndarray, " t"]:
        r"""Draws a series at the lines of an instrument, anew for each pass.

        Arguments:
            sight: The lines.
            generator: The random generator.
        """
        values = np.empty(sight.index.size)
        for each in np.unique(sight.passes):
            mine = sight.passes == each
            index = sight.index[mine] - sight.index[mine].min()
            values[mine] = self.draw(int(index.max()) + 1, sight.along, generator)[index]
        return values
