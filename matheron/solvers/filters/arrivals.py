r"""Data in the order in which they come: which are seen at each time, and what predicts them."""

from __future__ import annotations

__all__ = ["Arrivals"]

import torch

from dataclasses import dataclass
from jaxtyping import Float, Int
from torch import Tensor

from ...linalg.sparse import Sparse
from ...observations import LinearObservation, MatrixObservation, Observation
from ...observations.nonlinear import NonlinearObservation
from ...priors.dynamics import Markovian


@dataclass(frozen=True)
class _Rows:
    r"""The entries of the rows of a matrix that end at one time."""

    rows: Int[Tensor, " e"]
    columns: Int[Tensor, " e"]
    values: Float[Tensor, " e"]
    count: int

    def times(self, x: Float[Tensor, "*batch n"], offset: int) -> Float[Tensor, "*batch m"]:
        seen = x[..., self.columns - offset] * self.values
        return x.new_zeros(*x.shape[:-1], self.count).index_add(-1, self.rows, seen)


class Arrivals:
    r"""The data of trajectories, by the time of the domain at which they are complete.

    A datum that is interpolated between two times comes at the later one, and is predicted from
    both.

    Arguments:
        where: The name of the solver, for the messages.
        prior: The prior.
        observation: The observation: linear, or nonlinear with the times of its data.

    Raises:
        TypeError: If an observation of another kind is given.
        ValueError: If instruments have biases, if the noise is correlated between times, or if
            domains differ.
    """

    def __init__(self, where: str, prior: Markovian, observation: Observation) -> None:
        self.where, self.prior, self.observation = where, prior, observation
        if len(observation.domain) != len(prior.domain):
            msg = (
                f"{where}(observation=...): expected one on the {len(prior.domain)} nodes of the "
                f"prior, got {len(observation.domain)}. Build both on one grid."
            )
            raise ValueError(msg)
        if isinstance(observation, LinearObservation):
            self._set_linear(observation)
        elif isinstance(observation, NonlinearObservation):
            self._set_function(observation)
        else:
            msg = (
                f"{where}(observation=...): expected a LinearObservation or a "
                f"NonlinearObservation, got {type(observation).__name__}. Use one of these."
            )
            raise TypeError(msg)

    def _set_linear(self, observation: LinearObservation) -> None:
        if len(observation.bias_variance):
            msg = (
                f"{self.where}(observation=...): expected data without biases, got "
                f"{len(observation.bias_variance)}. Remove them first, with Kriging, say."
            )
            raise ValueError(msg)
        H, s = observation.matrix().detach(), self.prior.states
        time = torch.zeros(H.shape[0], dtype=torch.int64)
        first = torch.full_like(time, self.prior.times)
        seen = H.values != 0  # a point on a node has corners of no weight beyond it
        rows, at = H.pattern.row_index[seen], H.pattern.column_index[seen] // s
        time = time.scatter_reduce(0, rows, at, "amax")
        self.first = first.scatter_reduce(0, rows, at, "amin")
        self._set_times(time)
        self._rows = [self._of(H, index) for index in self.index]
        self._noise = self._set_noise(observation, time)

    def _of(self, H: Sparse, index: Tensor) -> _Rows:
        place = torch.full((H.shape[0],), -1)
        place[index] = torch.arange(len(index))
        rows = place[H.pattern.row_index]
        here = (rows >= 0) & (H.values != 0)
        return _Rows(rows[here], H.pattern.column_index[here], H.values[here], len(index))

    def _set_function(self, observation: NonlinearObservation) -> None:
        time = observation.time_index()
        self.first = time
        self._set_times(time)
        self._rows = []
        self._noise = [observation.noise_variance.detach()[i] for i in self.index]

    def _set_times(self, time: Int[Tensor, " m"]) -> None:
        self.index = [(time == k).nonzero()[:, 0] for k in range(self.prior.times)]
        self.begins = [int(self.first[i].min()) if len(i) else k for k, i in enumerate(self.index)]

    def _set_noise(self, observation: LinearObservation, time: Tensor) -> list[Tensor]:
        alone = not isinstance(observation, MatrixObservation)
        precision = None if alone else observation.noise_precision()
        if precision is None or precision.pattern.nnz == len(time):
            return [observation.noise_variance.detach()[i] for i in self.index]
        at, to = time[precision.pattern.row_index], time[precision.pattern.column_index]
        if (precision.values[at != to] != 0).any():
            msg = (
                f"{self.where}(observation=...): expected noise that is independent from time to "
                "time, got correlations. Put the slow part in the state, or use SparseCholesky()."
            )
            raise ValueError(msg)
        return [self._block(observation, i) for i in self.index]

    @staticmethod
    def _block(observation: LinearObservation, index: Tensor) -> Float[Tensor, "m m"]:
        unit = torch.zeros(observation.count, len(index), dtype=torch.float64)
        unit[index, torch.arange(len(index))] = 1.0
        return observation.noise_times(unit).detach()[index]

    def noise(self, k: int) -> Float[Tensor, " m"] | Float[Tensor, "m m"]:
        r"""Returns the variance, or the covariance, of the data of a time."""
        return self._noise[k]

    def predict(
        self, k: int, states: list[Float[Tensor, "*batch s"]], since: int = 0
    ) -> Float[Tensor, "*batch m"]:
        r"""Returns what trajectories predict of the data of a time.

        Arguments:
            k: The time.
            states: The states from the time ``since`` to that time.
            since: The time of the first of them.
        """
        if self.begins[k] < since:
            msg = (
                f"{self.where}(observation=...): expected data that no window cuts, got one that "
                f"begins at time {self.begins[k]}, before {since}. Raise the lag."
            )
            raise ValueError(msg)
        begin, s = self.begins[k], self.prior.states
        if self._rows:
            x = torch.cat(states[begin - since :], dim=-1)
            return self._rows[k].times(x, begin * s)
        x = states[-1]
        whole = x.new_zeros(*x.shape[:-1], len(self.prior.domain))
        whole[..., k * s : (k + 1) * s] = x
        seen: Tensor = self.observation(whole)
        return seen[..., self.index[k]]

    def places(self) -> Float[Tensor, "s d"]:
        r"""Returns the places of the components of a state, without time."""
        return self.prior.domain.points[: self.prior.states].cartesian()[:, 1:]

    def seen_places(self, k: int) -> Float[Tensor, "m d"]:
        r"""Returns the places of the data of a time: the middle of what they see.

        Raises:
            TypeError: If the observation is not linear.
        """
        if not self._rows:
            msg = (
                f"{self.where}(localization=...): expected a linear observation, got "
                f"{type(self.observation).__name__}. Its data have no place: use method='etkf'."
            )
            raise TypeError(msg)
        rows, nodes = self._rows[k], self.places()
        weights = rows.values.abs()
        total = nodes.new_zeros(rows.count).index_add(0, rows.rows, weights)
        seen = nodes[rows.columns % self.prior.states] * weights[:, None]
        middle = nodes.new_zeros(rows.count, nodes.shape[1]).index_add(0, rows.rows, seen)
        return middle / total[:, None]
