r"""Learning a model of time evolution from trajectories that are clean, noisy, or full of gaps."""

from __future__ import annotations

__all__ = ["ensemble_likelihood", "learn_dynamics"]

import torch

from jaxtyping import Bool, Float
from pathlib import Path
from torch import Generator, Tensor

from .forecasts import Training, fit_forecasts
from .learned import LearnedDynamics
from .optimise import Progress
from .records import Record, first_guess
from .scoring import Scoring
from ..dynamics import Dynamics
from ..dynamics.networks import NetworkDynamics
from ..observations import Observation
from ..posterior import Conditional
from ..priors.base import Energy
from ..priors.dynamics import Markovian
from ..solvers.base import Solver
from ..solvers.ensemble_kalman import EnsembleKalman
from ..solvers.modal import ModalConditional

METHODS = ("em", "scoring")


@torch.no_grad()
def ensemble_likelihood(
    prior: Markovian,
    observation: Observation,
    y: Float[Tensor, " k"],
    size: int = 100,
    generator: Generator | None = None,
) -> float:
    r"""Returns the log-likelihood of data, from the forecasts of an ensemble Kalman filter.

    .. math:: \log p(y) \approx \sum_k \log \mathcal{N}(y_k; H \bar x_k, H P_k H^\top + R_k)

    with mean and covariance of the forecast ensemble: exact for linear models, as it grows.

    References:
        | Estimating model evidence using data assimilation (Carrassi et al., 2017)
        | https://doi.org/10.1002/qj.2972

    Arguments:
        prior: The law of trajectories.
        observation: How they are seen.
        y: The data.
        size: The number of members.
        generator: The random number generator.
    """
    conditional = EnsembleKalman(size, lag=0).prepare(prior, observation)
    fields = conditional.sample(y, size, generator)
    values, arrivals, total = conditional.select(y), conditional.arrivals, 0.0
    before: list[Tensor] = []
    for k, analysed in enumerate(prior.unfold(fields).unbind(-2)):
        if len(arrivals.index[k]):
            forecast = _ahead(prior, before, size, generator)
            seen = arrivals.predict(k, [*before, forecast])
            total += _log_density(seen, values[arrivals.index[k]], arrivals.noise(k))
        before.append(analysed)
    return total


def _ahead(
    prior: Markovian, before: list[Tensor], size: int, generator: Generator | None
) -> Float[Tensor, "size s"]:
    if not before:
        return prior.initial_sample(size, generator)
    return prior.advance(before[-1]) + prior.error_sample(size, generator)


def _log_density(seen: Float[Tensor, "size m"], y: Float[Tensor, " m"], R: Tensor) -> float:
    S = torch.cov(seen.mT).reshape(len(y), len(y)) + (torch.diag(R) if R.ndim == 1 else R)
    law = torch.distributions.MultivariateNormal(seen.mean(dim=0), S)
    return law.log_prob(y).item()


def learn_dynamics(
    model: Dynamics,
    trajectories: Float[Tensor, "*batch t s"],
    mask: Bool[Tensor, "*batch t s"] | None = None,
    noise_std: float | Float[Tensor, " s"] | None = None,
    steps: int = 1,
    iterations: int = 20,
    members: int = 40,
    horizon: int = 1,
    solver: Solver[Energy] | Solver[Markovian] | None = None,
    training: Training | None = None,
    generator: Generator | None = None,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
    method: str = "em",
) -> LearnedDynamics:
    r"""Learns a model, in place, with the covariance of its errors.

    Clean trajectories are fitted at once, by :func:`fit_forecasts`. Noisy ones, with gaps or
    without, are learned in rounds. By expectation and maximisation, a smoother draws the
    trajectories that the present model allows given the data; the model, and the covariance
    :math:`Q` of its errors, are then fitted to these draws. Each round raises the likelihood of
    the data, up to the sampling error of the draws; the nearer the model to a perfect one, the
    slower. By scoring, a joint smoother of states and parameters steps on the likelihood itself:
    a few tens of rounds come to its maximum, for up to some hundred parameters.

    References:
        | Maximum likelihood from incomplete data via the EM algorithm
        | (Dempster, Laird & Rubin, 1977)
        | https://doi.org/10.1111/j.2517-6161.1977.tb01600.x
        | Assimilation-based learning of chaotic dynamical systems from noisy and partial data
        | (Nguyen, Ouala, Drumetz & Fablet, 2020)
        | https://doi.org/10.1109/ICASSP40776.2020.9054718
        | Joint estimation of model and observation error covariance matrices in data
        | assimilation (Tandeo et al., 2020)
        | https://doi.org/10.1175/MWR-D-19-0240.1
        | Finding the observed information matrix when using the EM algorithm (Louis, 1982)
        | https://doi.org/10.1111/j.2517-6161.1982.tb01203.x

    Arguments:
        model: The model, with parameters that may move. A :class:`NetworkDynamics` is first
            given the mean and the standard deviation of the data as its units.
        trajectories: The data at regular times, flat, with shape :math:`(*, t, s)`; what stands
            under gaps is never read.
        mask: Where there are data, with the same shape; everywhere by default.
        noise_std: The standard deviation of the noise, with shape :math:`()` or :math:`(s)`;
            ``None`` for clean data.
        steps: The number of time steps of the model from one time to the next.
        iterations: The number of rounds; those of scoring stop earlier, once at rest.
        members: The number of trajectories drawn in each.
        horizon: How many times ahead clean data are forecast.
        solver: The smoother: an ensemble Kalman smoother of ``members`` by default, or e.g.
            ``Variational("smoother")``, whose evidence is then taken as likelihood.
        training: How parameters are moved in each round.
        generator: The random number generator.
        progress: What is called with the round and the log-likelihood of the data before it, or
            with the iteration and the cost for clean data.
        checkpoint: A file (``.safetensors``) where every round is kept, and from which an
            interrupted run goes on, to the same bits.
        method: ``"em"``, expectation and maximisation, or ``"scoring"``, which draws nothing and
            has a smoother of its own.

    Raises:
        ValueError: If the method is not known, or given a solver that it does not take; if gaps
            come without noise, a component is never seen, the noise is not positive, or the
            checkpoint is of another model.

    Example:
        >>> from matheron.dynamics import Lorenz63
        >>> from matheron.dynamics.networks import BilinearNetwork
        >>> generator = torch.Generator().manual_seed(0)
        >>> path = Lorenz63().trajectory(torch.ones(3, dtype=torch.float64), 500)
        >>> few = Training(steps=50)
        >>> learned = learn_dynamics(BilinearNetwork(generator=generator), path, training=few)
        >>> learned.noise.shape
        torch.Size([3, 3])
    """
    _check_method(method, solver)
    x = trajectories.to(torch.float64).reshape(-1, *trajectories.shape[-2:])
    if noise_std is None:
        if mask is not None and not mask.all():
            msg = (
                "learn_dynamics(noise_std=...): expected the noise of data with gaps, got None. "
                "Give a small one where they are clean."
            )
            raise ValueError(msg)
        return _learn_clean(model, x, steps, horizon, training, generator, progress)
    seen = torch.ones_like(x, dtype=torch.bool) if mask is None else mask.reshape(x.shape)
    data = Record(x, seen, noise_std)
    training = training or Training(steps=30, tolerance=1e-4)
    rounds: _Rounds | Scoring = Scoring(data, training, generator)
    if method == "em":
        smoother = EnsembleKalman(members) if solver is None else solver
        rounds = _Rounds(data, smoother, members, training, generator)
    state, moves = _begin(rounds, model, steps, checkpoint), True
    while moves and len(state.log_likelihoods) < iterations:
        moves = rounds.run(state)
        if progress is not None:
            progress(len(state.log_likelihoods), state.log_likelihoods[-1])
        if checkpoint is not None:
            state.save(checkpoint, generator)
    return state


def _check_method(method: str, solver: Solver[Energy] | Solver[Markovian] | None) -> None:
    if method not in METHODS:
        msg = f"learn_dynamics(method=...): expected one of {METHODS}, got {method!r}. Choose one."
        raise ValueError(msg)
    if method == "scoring" and solver is not None:
        msg = (
            f"learn_dynamics(solver=...): expected none for method='scoring', which has its own "
            f"smoother, got {type(solver).__name__}. Leave it out, or use method='em'."
        )
        raise ValueError(msg)


def _begin(
    rounds: _Rounds | Scoring, model: Dynamics, steps: int, checkpoint: Path | None
) -> LearnedDynamics:
    if checkpoint is not None and (
        checkpoint.is_dir() or not checkpoint.absolute().parent.is_dir()
    ):
        msg = (
            f"learn_dynamics(checkpoint={checkpoint}): expected a file in a folder that exists, "
            "got another. Name a file, e.g. model.safetensors."
        )
        raise ValueError(msg)
    state = rounds.start(model, steps)
    if checkpoint is not None and checkpoint.exists():
        state.load(checkpoint, rounds.generator)
    return state


def _learn_clean(
    model: Dynamics,
    x: Float[Tensor, "b t s"],
    steps: int,
    horizon: int,
    training: Training | None,
    generator: Generator | None,
    progress: Progress | None,
) -> LearnedDynamics:
    if isinstance(model, NetworkDynamics):
        model.normalise(x)
    Q = fit_forecasts(
        model,
        x,
        steps,
        horizon,
        training=training,
        generator=generator,
        progress=progress,
    )
    flat = x.flatten(0, 1)
    return LearnedDynamics(model, steps, flat.mean(dim=0), torch.cov(flat.mT), Q)


class _Rounds:
    r"""The rounds of expectation and maximisation."""

    def __init__(
        self,
        data: Record,
        smoother: Solver[Energy] | Solver[Markovian],
        members: int,
        training: Training,
        generator: Generator | None,
    ) -> None:
        self.data, self.smoother, self.members = data, smoother, members
        self.training, self.generator = training, generator

    def start(self, model: Dynamics, steps: int) -> LearnedDynamics:
        r"""Returns the model as given, with the errors it makes on interpolated data."""
        return first_guess(self.data, model, steps, self.training, self.generator)

    def run(self, state: LearnedDynamics) -> bool:
        r"""Draws trajectories, then fits model and errors to them; goes on for ever."""
        prior = state.prior(self.data.grid)
        drawn: list[Tensor] = [torch.empty(0)] * self.data.count
        total = 0.0
        for alike in self.data.alike():
            observation = self.data.observation(alike[0])
            conditional = self.smoother.prepare(prior, observation)  # type: ignore[arg-type]
            if isinstance(conditional, ModalConditional):
                # one descent for all windows: what follows finds their minima again
                conditional.estimate(torch.stack([self.data.values(i) for i in alike]))
            for i in alike:
                y = self.data.values(i)
                drawn[i] = prior.unfold(conditional.sample(y, self.members, self.generator))
                total += self._evidence(prior, conditional, y)
        x = torch.cat(drawn)
        state.noise = fit_forecasts(
            state.model,
            x,
            state.steps,
            noise=state.noise,
            training=self.training,
            generator=self.generator,
        )
        state.log_likelihoods.append(total)
        return True

    def _evidence(self, prior: Markovian, conditional: Conditional, y: Tensor) -> float:
        found = conditional.info(y).get("log_evidence")
        if found is not None:
            return float(found)
        observation = conditional.observation
        return ensemble_likelihood(prior, observation, y, self.members, self.generator)
