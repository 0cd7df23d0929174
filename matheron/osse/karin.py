r"""The random noise of KaRIn, the interferometer of SWOT."""

from __future__ import annotations

__all__ = ["karin_std"]

import numpy as np

from jaxtyping import Float

KARIN_ACROSS = (5, 7.5, 10, 12.5, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60)
KARIN_WAVES = (0, 2, 4, 6, 8)
KARIN_STD = (
    (3.14, 2.92, 2.57, 2.30, 2.06, 1.76, 1.59, 1.52, 1.54, 1.65, 1.87, 2.27, 3.01, 4.45),
    (4.09, 3.37, 2.89, 2.57, 2.31, 2.00, 1.83, 1.77, 1.78, 1.86, 2.06, 2.43, 3.13, 4.53),
    (8.02, 5.03, 3.99, 3.42, 3.04, 2.65, 2.45, 2.36, 2.34, 2.40, 2.54, 2.84, 3.45, 4.76),
    (21.2, 8.78, 6.44, 5.30, 4.65, 4.01, 3.71, 3.55, 3.48, 3.48, 3.55, 3.75, 4.20, 5.32),
    (80.9, 16.2, 11.1, 8.84, 7.70, 6.57, 6.05, 5.75, 5.59, 5.51, 5.50, 5.59, 5.87, 6.69),
)
"""The noise of KaRIn in centimetres over 1 km by 1 km, against the distance to nadir (km) and the
significant wave height (m): least squares on the logarithm of the law of the SWOT science team
(simulator of CNES/JPL, noise file of July 2016), within 3.2 % from 10 to 60 km."""


def karin_std(
    offsets: Float[np.ndarray, " p"], wave_height: float = 2.0
) -> Float[np.ndarray, " p"]:
    r"""Returns the standard deviation of the noise of KaRIn over one square kilometre, in metres.

    It is linear between the numbers of a table in the logarithm, and constant beyond 5 to 60 km.

    References:
        | The challenge of using future SWOT data for oceanic field reconstruction
          (Gaultier et al., 2016)
        | https://doi.org/10.1175/JTECH-D-15-0160.1

    Arguments:
        offsets: The distances to nadir, in kilometres, on either side.
        wave_height: The significant wave height, in metres, from 0 to 8.

    Raises:
        ValueError: If the wave height is out of the law.

    Example:
        >>> karin_std(np.array([-35.0, 60.0]), wave_height=2.0).round(4).tolist()
        [0.0178, 0.0453]
    """
    if not 0.0 <= wave_height <= 8.0:
        msg = (
            f"karin_std(wave_height={wave_height}): expected metres from 0 to 8, got "
            f"{wave_height}. The law is not known beyond."
        )
        raise ValueError(msg)
    rows = [np.interp(np.abs(offsets), KARIN_ACROSS, np.log(row)) for row in KARIN_STD]
    position = np.interp(wave_height, KARIN_WAVES, range(len(KARIN_WAVES)))
    low = min(int(position), len(rows) - 2)
    weight = position - low
    return 0.01 * np.exp((1.0 - weight) * rows[low] + weight * rows[low + 1])
