r"""The variogram: how unlike are two values as a function of their distance?

.. math:: \gamma(h) = \tfrac{1}{2} \, E \, (Z(s + h) - Z(s))^2
"""

from .experimental import Cloud, Variogram, variogram
from .model import FittedVariogram, Isotropic

__all__ = ["Cloud", "FittedVariogram", "Isotropic", "Variogram", "variogram"]
