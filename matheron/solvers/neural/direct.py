r"""One network from the data to the field, with no cost: the baseline of all others."""

from __future__ import annotations

__all__ = ["DirectInversion"]

import math
import torch
import torch.nn as nn

from collections.abc import Iterator
from jaxtyping import Float
from torch import Tensor
from typing import Any, ClassVar

from .base import Geometry, LearnedConditional, LearnedSolver
from ...nets import Net
from ...observations import Observation
from ...priors.base import Prior


class _Direct(LearnedConditional):
    solver: DirectInversion

    def iterates(self, y: Float[Tensor, "*batch m"]) -> Iterator[Float[Tensor, "*batch n"]]:
        geometry = self.geometry(y)
        yield self.first(geometry)
        z = self.layout.gather(self.solver.network(self._seen(geometry)), y.shape[:-1])
        yield (geometry.start + self.solver.rest * self.scale * z).to(z.dtype)

    def _seen(self, geometry: Geometry) -> Float[Tensor, "b k *space"]:
        units = geometry.finer(self.solver.rest)
        d, w = self.arrays(units.guess), self.arrays(units.weight)
        sea = self.sea.expand(len(w), *self.sea.shape[1:])
        return torch.cat([d, w, sea, *self.beside(geometry), *self.named(geometry)], dim=1)


class DirectInversion(LearnedSolver[Prior]):
    r"""A network that is given the data and tells the field.

    It takes :math:`2 c + 1` channels, of the :math:`c` of the field: the data less the mean times
    their weight, in standard deviations of the field, that weight (0 in gaps, towards 1 for
    precise data), and where there is sea; and gives :math:`c`. Of the prior it uses the grid, the
    mean and the standard deviation only. Fields that come with the data (:class:`Informed`) are
    :math:`c` more channels each. With ``first="guess"`` the first of them is where it starts: the
    network takes the data less the guess, and gives what is to be added to it. Fields by name
    (``others``) come last, as they are.

    References:
        | Deep convolutional neural network for inverse problems in imaging
        | (Jin, McCann, Froustey & Unser, 2017)
        | https://doi.org/10.1109/TIP.2017.2713099

    Arguments:
        network: The network, e.g. a :class:`matheron.nets.UNet`.
        rest: The standard deviation of what the network adds to where it starts, in units of that
            of the field: less than one with a first guess.
        dtype: The floating type of the weights.
        settings: Those of :class:`LearnedSolver`.

    Raises:
        ValueError: If a setting is not known, ``rest`` is not positive, or the network takes
            another number of channels.

    Example:
        >>> import matheron as mt
        >>> from matheron.nets import UNet
        >>> grid = mt.Grid(y=torch.arange(8.0), x=torch.arange(8.0))
        >>> prior = mt.GaussianProcess(mt.Matern(), grid)
        >>> seen = mt.GriddedObservation(grid, torch.arange(64) % 5 == 0, noise_std=0.1)
        >>> net = UNet(3, 1, width=4, generator=torch.Generator().manual_seed(0))
        >>> DirectInversion(net)(prior, seen)(torch.ones(64).double()).mean.shape
        torch.Size([64])
    """

    requires: ClassVar = Prior

    def __init__(
        self,
        network: nn.Module,
        rest: float = 1.0,
        dtype: torch.dtype = torch.float32,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        if not 0 < rest < math.inf:
            msg = f"DirectInversion(rest=...): expected a positive number, got {rest}. Use e.g. 1."
            raise ValueError(msg)
        self.rest = rest
        self.network = network.to(dtype)

    def conditional(self, prior: Prior, observation: Observation) -> LearnedConditional:
        found = _Direct(prior, observation, self)
        needed = (2 + found.told + len(self.others)) * found.layout.channels + 1
        if isinstance(self.network, Net) and self.network.channels != needed:
            msg = (
                f"DirectInversion(network=...): expected a network of {needed} channels, data, "
                f"weight, sea and what comes with them, got {self.network.channels}. Build it for "
                "them."
            )
            raise ValueError(msg)
        return found
