r"""One analysis of an ensemble: weights, inflation, rotation, localisation."""

from __future__ import annotations

__all__ = ["METHODS", "EnsembleAnalysis"]

import torch

from jaxtyping import Float
from torch import Generator, Tensor

from .localization import Localization, local_weights
from .transforms import (
    Departures,
    deterministic_weights,
    finite_size_inflation,
    perturbed_weights,
    random_rotation,
    reweighted,
    symmetric_weights,
    whitened,
)

METHODS = ("etkf", "perturbed", "denkf", "letkf")
"""The analyses by name."""

CHUNK = 2_000_000
"""The most numbers of local weights held at once."""


class EnsembleAnalysis:
    r"""The way an ensemble takes data in.

    Arguments:
        method: ``"etkf"``, the symmetric square root; ``"perturbed"`` observations; ``"denkf"``,
            the deterministic filter with half the gain; ``"letkf"``, the square root node by node
            with the data around it.
        inflation: The factor of the analysis anomalies, or ``"adaptive"`` for the factor of the
            forecast anomalies that the size of the ensemble calls for.
        rotation: Whether the anomalies are rotated at random after each analysis.
        localization: How far a datum is seen, for ``"letkf"``.

    Raises:
        ValueError: If the method is not known, the inflation is not positive, or a localisation
            is missing or of no use.

    Example:
        >>> E = torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64)
        >>> y, R = torch.tensor([3.0]).double(), torch.tensor([1.0]).double()
        >>> analysis = EnsembleAnalysis("etkf", inflation=2.0)
        >>> round(analysis(E, E, y, R).var().item(), 9)
        2.0
    """

    def __init__(
        self,
        method: str = "etkf",
        inflation: float | str = 1.0,
        rotation: bool = False,
        localization: Localization | None = None,
    ) -> None:
        self.method, self.inflation, self.rotation = method, inflation, rotation
        self.localization = localization
        problem = None
        if method not in METHODS:
            problem = f"method=...): expected one of {METHODS}, got {method!r}. Choose one"
        elif isinstance(inflation, str) and inflation != "adaptive":
            problem = f"inflation=...): expected a number or 'adaptive', got {inflation!r}. Try 1"
        elif not isinstance(inflation, str) and not inflation > 0:
            problem = f"inflation=...): expected a positive factor, got {inflation}. Try 1.02"
        elif (method == "letkf") != (localization is not None):
            problem = (
                f"localization=...): expected one for 'letkf' and for no other method, got "
                f"{localization} with {method!r}. Give Localization(radius), or drop it"
            )
        if problem:
            msg = f"EnsembleAnalysis({problem}."
            raise ValueError(msg)

    def weights(
        self, seen: Departures, generator: Generator | None = None
    ) -> Float[Tensor, "*batch size size"]:
        r"""Returns the weights of one analysis, without inflation by a constant or rotation."""
        factor = torch.ones((), dtype=torch.float64)
        if self.inflation == "adaptive":
            factor = finite_size_inflation(seen)
            seen = seen.inflated(factor)
        if self.method == "perturbed":
            weights = perturbed_weights(seen, generator)
        elif self.method == "denkf":
            weights = deterministic_weights(seen)
        else:
            weights = symmetric_weights(seen)
        return weights * factor[..., None, None]

    def __call__(
        self,
        E: Float[Tensor, "*batch size n"],
        predicted: Float[Tensor, "*batch size m"],
        y: Float[Tensor, "*batch m"],
        noise: Float[Tensor, " m"] | Float[Tensor, "m m"],
        generator: Generator | None = None,
        coefficients: Float[Tensor, "n m"] | None = None,
    ) -> Float[Tensor, "*batch size n"]:
        r"""Returns the analysis of one state.

        Arguments:
            E: The forecast.
            predicted: The data that it predicts.
            y: The data; there may be none.
            noise: The variance of each datum, or their covariance.
            generator: The random number generator.
            coefficients: The weight of each datum for each node, for ``"letkf"``.
        """
        (analysed,) = self.update([E], predicted, y, noise, generator, coefficients)
        return self.spread(analysed)

    def update(
        self,
        states: list[Float[Tensor, "*batch size n"]],
        predicted: Float[Tensor, "*batch size m"],
        y: Float[Tensor, "*batch m"],
        noise: Float[Tensor, " m"] | Float[Tensor, "m m"],
        generator: Generator | None = None,
        coefficients: Float[Tensor, "n m"] | None = None,
    ) -> list[Float[Tensor, "*batch size n"]]:
        r"""Returns several states updated by the same data: that of now, those of the past.

        Nothing changes where there are no data. No constant inflation is applied here.
        """
        if y.shape[-1] == 0:
            return states
        seen = whitened(predicted, y, noise)
        batch, N = predicted.shape[:-2], predicted.shape[-2]
        turn = random_rotation(N, generator, tuple(batch)) if self.rotation else None
        if self.method == "letkf":
            return self._local(states, seen, turn, noise, coefficients)
        weights = _turned(self.weights(seen, generator), turn)
        return [reweighted(E, weights) for E in states]

    def _local(
        self,
        states: list[Tensor],
        seen: Departures,
        turn: Tensor | None,
        noise: Tensor,
        coefficients: Tensor | None,
    ) -> list[Tensor]:
        if coefficients is None or noise.ndim > 1:
            msg = (
                "EnsembleAnalysis(method='letkf'): expected coefficients and independent noise, "
                f"got {'no coefficients' if coefficients is None else 'correlated noise'}. Use "
                "method='etkf'."
            )
            raise ValueError(msg)
        N = seen.anomalies.shape[-2]
        rows = max(1, CHUNK // (N * max(N, seen.anomalies.shape[-1])))
        parts: list[list[Tensor]] = [[] for _ in states]
        turn = None if turn is None else turn[..., None, :, :]
        for nodes in torch.arange(len(coefficients)).split(rows):
            weights = _turned(local_weights(seen, coefficients[nodes], self.weights), turn)
            for part, E in zip(parts, states, strict=True):
                part.append(_by_node(E[..., nodes], weights))
        return [torch.cat(part, dim=-1) for part in parts]

    def refresh(
        self, E: Float[Tensor, "*batch size n"], generator: Generator | None = None
    ) -> Float[Tensor, "*batch size n"]:
        r"""Returns the ensemble rotated and inflated, without data."""
        if self.rotation:
            batch = tuple(E.shape[:-2])
            E = reweighted(E, random_rotation(E.shape[-2], generator, batch))
        return self.spread(E)

    def spread(self, E: Float[Tensor, "*batch size n"]) -> Float[Tensor, "*batch size n"]:
        r"""Returns the ensemble with its anomalies inflated, where the factor is a constant."""
        if isinstance(self.inflation, str) or self.inflation == 1.0:
            return E
        mean = E.mean(dim=-2, keepdim=True)
        return mean + self.inflation * (E - mean)


def _turned(weights: Tensor, turn: Tensor | None) -> Tensor:
    r"""Rotates the anomalies of the analysis: the mean part of the weights stays."""
    if turn is None:
        return weights
    return turn @ weights


def _by_node(E: Tensor, weights: Tensor) -> Float[Tensor, "*batch size n"]:
    mean = E.mean(dim=-2, keepdim=True)
    A = (E - mean).movedim(-2, -1)[..., None]
    return mean + (weights @ A)[..., 0].movedim(-1, -2)
