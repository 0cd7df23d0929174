r"""Maps by trained solvers: a window of days about each day, tile by tile."""

from __future__ import annotations

__all__ = [
    "CLASSES",
    "ERROR_SCALES",
    "LOG",
    "LearnedMapper",
    "correlated",
    "days_of",
    "learned",
    "on_grid",
]

import itertools
import math
import torch
import torch.nn as nn

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from jaxtyping import Bool, Float
from pathlib import Path
from torch import Generator, Tensor

from .covariates import Covariates
from .departures import Departures
from .field_law import FieldLaw, Windowed
from .first_guess import FirstGuess
from .problem import Mapped, Problem, Say
from ..data.batches import GUESS
from ..data.beside import Known
from ..data.cells import Cells, to_cells
from ..data.errors import call, refuse
from ..data.patches import Mirror
from ..data.purposes import Purpose
from ..data.tiles import Tiling
from ..domain import Grid
from ..fit.architecture import build, describe, known_classes
from ..fit.model_file import Card, LearnedModel, load_model
from ..fit.spread import GapSpread
from ..kernels.quick import closed_form, half_integer
from ..nets import coarsest
from ..observations import GriddedObservation, Informed, Observation, PointObservation
from ..observations.informed import with_known
from ..posterior import Conditional, Posterior
from ..priors.base import Prior
from ..solvers.tiled import Tiled

PATCH = 160
"""The most nodes of a tile on a side, but for a part of a cell; a fifth of them is halo."""
FADE = 8
"""The nodes over which a tile fades into the next."""
FEWEST = 8
"""The fewest nodes of a map on a side: networks of several scales see nothing in fewer."""
NARROW = 0.15
"""The relative difference in the width of a degree of longitude that is told."""
ROOM = 200_000
"""The most nodes of a window of the law of a field: its factor takes some 10 GiB."""
LOG = "log_"
"""What the name of a variable begins with if it is the logarithm of another."""
DIMS = ("time", "lat", "lon")
CLASSES = {"FirstGuess": FirstGuess, "FieldLaw": FieldLaw}
"""What a trained solver may have beside it."""
ERROR_SCALES = ("error_duration", "error_lat", "error_lon")
"""The scales of errors in days and degrees, among the numbers of a card."""


def learned(folder: Path, variable: str | None = None, units: str | None = None) -> LearnedMapper:
    r"""Returns the mapper of a trained solver.

    Arguments:
        folder: A folder of :func:`matheron.fit.save_model`, for windows of days.
        variable: The variable of the problems, refused if the model is of another. A model of a
            logarithm, ``log_spm``, is for problems of ``spm``, whose values are logarithms.
        units: Their units, likewise.

    Raises:
        InputError: If the folder does not hold such a model, or is of another variable, or of
            other units.
    """
    model = load_model(folder, classes=CLASSES)
    where, card = call("learned", folder=folder), model.card
    if card.variable != f"{LOG}{variable}":  # problems of positive fields are of logarithms
        _check_same(where, card, variable, units)
    needed = {"mean", "std", "noise", *ERROR_SCALES}
    has = isinstance(model.others.get("spread"), GapSpread)
    if model.grid.dims != DIMS or not has or not needed <= set(card.normalisation):
        cure = "Name a folder of `matheron fit OSSE --method unet`"
        raise refuse(where, "a model of windows of days, with a spread", "another", cure)
    return LearnedMapper(model)


def _check_same(where: str, card: Card, variable: str | None, units: str | None) -> None:
    r"""Refuses problems of another variable than that of the training, or in other units."""
    if variable and card.variable and variable != card.variable:
        expected, cure = f"the variable of the model, '{card.variable}'", "Train a model of it"
        raise refuse(where, expected, f"'{variable}'", cure)
    if units and card.units and units != card.units:
        raise refuse(where, f"data in {card.units}, as in the training", units, "Convert them")


def on_grid(prior: Prior, grid: Grid) -> Prior:
    r"""Returns a prior with the same numbers on another grid."""
    classes, tensors = known_classes(), dict[str, Tensor]()
    made: nn.Module = build(describe(prior, classes, tensors), classes, tensors, grid)
    made.load_state_dict(prior.state_dict())
    assert isinstance(made, Prior)
    return made.requires_grad_(False).eval()


class LearnedMapper:
    r"""A trained solver as a mapper: each day from the window of days about it.

    Data are averaged over the cells of a grid with the steps of the training, the map is
    interpolated from that grid. Estimates are averaged over the symmetries of the field that the
    solver was trained by: turned data give the map, turned. A solver that mends a first guess is
    given the one that it was trained with; one that was trained with other fields needs them on
    all days of the map, and takes those about them if they are there. Of a forecast, no day knows
    of data after its lead. The std is what the density of the data tells of the errors on days
    held out of the training; draws are the mean plus Gaussian errors with that std, and with the
    correlations that errors had on these days. Where a law of the field was trained with it, std
    and draws are of that law: see :class:`FieldLaw`.

    Arguments:
        model: The trained solver.
        patch: The most nodes of a tile on a side.

    Raises:
        InputError: If a problem is not on days, latitudes and longitudes of the sphere, or is
            smaller than eight steps of the training, or lacks a field that the solver looks at.
    """

    def __init__(self, model: LearnedModel, patch: int = PATCH) -> None:
        self.model, self.patch = model, patch
        self.mean = model.card.normalisation["mean"]
        self.cell = coarsest(model.solver, model.prior)
        self.times = model.grid.shape[0]
        self.purpose = Purpose(model.card.purpose, model.card.lead)
        mapping = self.purpose.name == "mapping"
        self.wanted = self.times // 2 if mapping else self.times - 1
        self.visible = self.purpose.visible(self.times)
        self.turns = _turns(model.card.symmetries)
        self.steps = [a.diff().median().item() for a in model.grid.axes.values()]
        self.covariates = Covariates(model.card.covariates)
        law = model.others.get("law")
        self.law = law if isinstance(law, FieldLaw) else None

    def __call__(self, problem: Problem, say: Say) -> Mapped:
        self._check(problem)
        conditional = _Windowed(self, problem, say)
        n, d = conditional.days.shape[1:], self.times
        say(f"{self.model.card.notes}; windows of {d} days on {n[0]} x {n[1]} nodes")
        wide = self._width(problem.grid) / self._width(self.model.grid)
        if abs(wide - 1) > NARROW:
            say(f"note: degrees of longitude are {wide:.2f} times as wide as in its training")
        return Mapped(Posterior(conditional, problem.anomalies), problem.shift)

    def _check(self, problem: Problem) -> None:
        grid, where = problem.grid, call("learned", problem="...")
        if grid.dims != DIMS or grid.metric != "sphere":
            got = f"{grid.dims} on the {grid.metric}"
            raise refuse(where, f"a map on {DIMS} of the sphere", got, "Give it dates and degrees")
        for name, step in zip(DIMS[1:], self.steps[1:], strict=True):
            axis = grid.axes[name]
            width = (axis[-1] - axis[0]).item()
            if width < (FEWEST - 1) * step * 0.99:
                expected = f"a box of {FEWEST} steps of {step:.3g} degrees, those of the training"
                raise refuse(where, expected, f"{width:.3g} along {name}", "Map a larger box")
        self.covariates.check(problem.beside)
        if self.law is not None:
            self._check_room(where, grid, self.law)

    def _check_room(self, where: str, grid: Grid, law: FieldLaw) -> None:
        r"""Refuses maps whose windows are too large for one sparse factor."""
        steps = [law.coarser * s for s in self.steps[1:]]
        axes = [grid.axes[k] for k in DIMS[1:]]
        widths = [(a[-1] - a[0]).item() / s for a, s in zip(axes, steps, strict=True)]
        nodes = self.times * math.prod(math.ceil(w) + 1 for w in widths)
        if nodes > ROOM:
            expected = f"windows of at most {ROOM} nodes of the law of the field"
            cure = "Map smaller boxes, or by the solver that was trained without it"
            raise refuse(where, expected, str(nodes), cure)

    @staticmethod
    def _width(grid: Grid) -> float:
        return math.cos(math.radians(grid.axes["lat"].mean().item()))

    def daily(
        self,
        grid: Grid,
        values: Float[Tensor, " n"],
        mask: Bool[Tensor, " n"],
        guess: Float[Tensor, " n"] | None = None,
        asked: Bool[Tensor, " d"] | None = None,
        beside: Mapping[str, Known] | None = None,
    ) -> Float[Tensor, "d h w"]:
        r"""Returns the estimate of each day that has a window about it.

        Arguments:
            grid: A grid of consecutive days.
            values: The data of its cells.
            mask: Where there are some.
            guess: The first guess, for solvers that mend one.
            asked: Which of these days are asked for: others are zero. All by default.
            beside: The fields that it was trained with, of order one: see
                :meth:`Covariates.of_order_one`.
        """
        windows = self.windows(grid, values, mask, guess, asked, beside)
        return torch.stack([window[self.wanted] for window in windows])

    def windows(
        self,
        grid: Grid,
        values: Float[Tensor, " n"],
        mask: Bool[Tensor, " n"],
        guess: Float[Tensor, " n"] | None = None,
        asked: Bool[Tensor, " d"] | None = None,
        beside: Mapping[str, Known] | None = None,
        turned: bool = True,
    ) -> Iterator[Float[Tensor, "t h w"]]:
        r"""Yields the estimates of all days of each window, which :meth:`daily` is made of.

        Arguments:
            grid: A grid of consecutive days.
            values: The data of its cells.
            mask: Where there are some.
            guess: The first guess, for solvers that mend one.
            asked: Which windows are asked for: others are zero. All by default.
            beside: The fields that it was trained with.
            turned: Whether estimates are averaged over the symmetries of the field.
        """
        self.covariates.check(beside or {})
        window = self.window(grid)
        small = on_grid(self.model.prior, self._tile(window))
        whole = on_grid(self.model.prior, window)
        cut = [k for k in DIMS[1:] if len(window.axes[k]) > self.patch]
        halo, fade, cell = (dict.fromkeys(cut, n) for n in (self.patch // 5, FADE, self.cell))
        solver = Tiled(self.model.solver, small, halo, fade, cell)
        fields = {"values": values, **({} if guess is None else {GUESS: guess})}
        parts = {k: x.reshape(grid.shape) for k, x in fields.items()}
        names = self.covariates.names
        others = {k: [x.reshape(grid.shape) for x in (beside or {})[k]] for k in names}
        days, turns = mask.reshape(grid.shape), self.turns if turned else self.turns[:1]
        for a in range(grid.shape[0] - self.times + 1):
            if asked is not None and not asked[a]:
                yield values.new_zeros(window.shape)
                continue
            span, now = slice(a, a + self.times), self.visible[:, None, None]
            told = {k: x[span] for k, x in parts.items()}
            for name, (x, known) in others.items():
                seen = known[span] & now
                told |= {name: torch.where(seen, x[span], 0.0), f"{name}_known": seen.double()}
            yield self._averaged(solver, whole, told, days[span] & now, turns)

    @torch.no_grad()
    def _averaged(
        self,
        solver: Tiled,
        whole: Prior,
        told: Mapping[str, Tensor],
        seen: Tensor,
        ways: Sequence[tuple[Turns, float]],
    ) -> Float[Tensor, "t h w"]:
        r"""Returns the mean of the estimates of a window from data turned each way."""
        if not seen.any():
            return seen.new_full(seen.shape, self.mean, dtype=torch.float64)
        found = []
        for turns, sign in ways:
            signs = {k: _sign(turns, k) for k in told}
            y = torch.cat([signs[k] * _turned(x, turns).flatten() for k, x in told.items()])
            x = self._solved(solver, whole, y, _turned(seen, turns).flatten())
            found.append(sign * _turned(x, turns))
        return torch.stack(found).mean(dim=0)

    def _solved(
        self, solver: Tiled, whole: Prior, y: Tensor, seen: Tensor
    ) -> Float[Tensor, "t h w"]:
        grid = whole.domain
        assert isinstance(grid, Grid)
        numbers = self.model.card.normalisation
        observation: Observation = GriddedObservation(grid, seen, numbers["noise"])
        fields, names = len(y) // len(grid) - 1, with_known(self.covariates.names)
        if fields:
            observation = Informed(observation, fields - len(names), names)
        x = solver(whole, observation).estimate(y)  # type: ignore[attr-defined]
        return x.reshape(grid.shape)

    @torch.no_grad()
    def spread(self, grid: Grid, mask: Bool[Tensor, " n"]) -> Float[Tensor, "d h w"]:
        r"""Returns the std of each day that has a window about it."""
        law = self.model.others["spread"]
        assert isinstance(law, GapSpread)
        seen = self.seen(mask.reshape(grid.shape))
        return torch.stack([law.of(window[None])[0, self.wanted] for window in seen])

    def seen(self, mask: Bool[Tensor, "t h w"]) -> Bool[Tensor, "d k h w"]:
        r"""Returns where the solver sees data, in the window of each day that has one."""
        windows = mask.unfold(0, self.times, 1).movedim(-1, 1)
        return windows & self.visible[:, None, None]

    def window(self, grid: Grid) -> Grid:
        r"""Returns the grid of a window of a grid of days."""
        lat, lon = grid.axes["lat"], grid.axes["lon"]
        return Grid(time=grid.axes["time"][: self.times], lat=lat, lon=lon, metric=grid.metric)

    def _tile(self, window: Grid) -> Grid:
        axes = [window.axes[k] for k in DIMS[1:]]
        lat, lon = (a[: Tiling.fitting(len(a), self.patch, self.cell)] for a in axes)
        return Grid(time=window.axes["time"], lat=lat, lon=lon, metric=window.metric)


Turns = tuple[Mirror, ...]


def _turns(words: Sequence[str]) -> list[tuple[Turns, float]]:
    r"""Returns every way to turn a field by some symmetries, and its sign."""
    mirrors = [Mirror.of(word) for word in words]
    sizes = range(len(mirrors) + 1)
    ways = [way for k in sizes for way in itertools.combinations(mirrors, k)]
    return [(way, math.prod((m.sign for m in way), start=1.0)) for way in ways]


def _sign(turns: Turns, name: str) -> float:
    r"""Returns the sign of a field that is turned; what is known stays known."""
    if name.endswith("_known"):
        return 1.0
    return math.prod((m.sign_of(name) for m in turns), start=1.0)


def _turned(x: Tensor, turns: Turns) -> Tensor:
    for mirror in turns:
        x = mirror.turn(x, DIMS)
    return x


def days_of(grid: Grid, steps: list[float], before: int, after: int) -> Grid:
    r"""Returns a grid of some steps about another, with more times before and after it.

    Arguments:
        grid: The grid to cover.
        steps: The steps in time, latitude and longitude.
        before: How many times to add before.
        after: How many after.

    Example:
        >>> box = Grid(time=[3.0], lat=[0.0, 1.0], lon=[0.0, 0.9], metric="sphere")
        >>> days_of(box, [1.0, 0.5, 0.5], 2, 2)
        Grid(time: 5, lat: 3, lon: 3, metric='sphere')
    """
    time, lat, lon = (_covering(grid.axes[k], s) for k, s in zip(DIMS, steps, strict=True))
    first = time[0] - before * steps[0]
    days = first + steps[0] * torch.arange(len(time) + before + after, dtype=torch.float64)
    return Grid(time=days, lat=lat, lon=lon, metric="sphere", epoch=grid.epoch)


def _covering(axis: Float[Tensor, " k"], step: float) -> Float[Tensor, " j"]:
    width = (axis[-1] - axis[0]).item()
    count = math.ceil(width / step - 0.01)  # steps are the same to a hundredth
    end = width if abs(count * step - width) <= 0.01 * step else count * step
    return torch.linspace(0.0, end, count + 1, dtype=torch.float64) + axis[0]


class _Windowed(Conditional):
    r"""The law of a map, by windows."""

    def __init__(self, mapper: LearnedMapper, problem: Problem, say: Say) -> None:
        prior = on_grid(mapper.model.prior, problem.grid)
        numbers = mapper.model.card.normalisation
        seen = PointObservation(problem.grid, problem.points, numbers["noise"])
        super().__init__(prior, seen)
        self.mapper, self.problem = mapper, problem
        before, after = mapper.wanted, mapper.times - 1 - mapper.wanted
        self.days = days_of(problem.grid, mapper.steps, before, after)
        inner = slice(before, len(self.days.axes["time"]) - after)
        axes = {k: v[inner] if k == "time" else v for k, v in self.days.axes.items()}
        self.inner = Grid(metric="sphere", epoch=self.days.epoch, **axes)  # type: ignore[arg-type]
        self.corners = self.inner.interpolation(problem.grid.points)
        many = self.inner.shape[0]
        self.beside = mapper.covariates.of(problem, self.days, before, many, say)
        self.scales = [numbers[k] for k in ERROR_SCALES]
        self.last: tuple[Tensor, Tensor, Departures | None] | None = None

    def _cells(self, y: Float[Tensor, " m"]) -> Cells:
        return to_cells(self.days, self.problem.points, y)

    def _interpolated(self, x: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch n"]:
        nodes, weights = self.corners
        return (x[..., nodes] * weights).sum(dim=-1)

    def estimate(self, y: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n"]:
        rows = [self._mean(row) for row in y.reshape(-1, y.shape[-1])]
        return torch.stack(rows).reshape(*y.shape[:-1], -1)

    def _mean(self, y: Float[Tensor, " m"]) -> Float[Tensor, " n"]:
        return self._made(y)[0]

    def departures(self, y: Float[Tensor, " m"]) -> Departures | None:
        r"""Returns what members depart from the map by, where a law of the field was trained."""
        return self._made(y)[1]

    def _made(self, y: Float[Tensor, " m"]) -> tuple[Tensor, Departures | None]:
        if self.last is None or not torch.equal(self.last[0], y):
            cells, mapper = self._cells(y), self.mapper
            told = (cells.mean, cells.mask, self._guess(y))
            windows = mapper.windows(self.days, *told, beside=self.beside)
            law = None
            if mapper.law is not None:
                windows = iter(kept := list(windows))
                law = self._departures(mapper.law, kept, cells)
            daily = torch.stack([window[mapper.wanted] for window in windows])
            self.last = (y, self._interpolated(daily.flatten()), law)
        return self.last[1:]

    def _departures(self, law: FieldLaw, windows: list[Tensor], cells: Cells) -> Departures:
        mean, mask = (x.reshape(self.days.shape) for x in (cells.mean, cells.mask))
        seen, wanted = self.mapper.seen(mask), self.mapper.wanted
        values = mean.unfold(0, self.mapper.times, 1).movedim(-1, 1)
        made = Windowed(torch.stack(windows), values, seen)
        return Departures(law, self.mapper.window(self.days), made, wanted)

    def _guess(self, y: Float[Tensor, " m"]) -> Float[Tensor, " k"] | None:
        law = self.mapper.model.others.get("guess")
        if not isinstance(law, FirstGuess):
            return None
        return law.of(replace(self.problem, values=y, known=None), self.days)

    def std(
        self, y: Float[Tensor, " m"], size: int, generator: Generator | None
    ) -> Float[Tensor, " n"]:
        return self._interpolated(self._sigma(y).flatten())

    def _sigma(self, y: Float[Tensor, " m"]) -> Float[Tensor, "d h w"]:
        gaps, law = self.mapper.spread(self.days, self._cells(y).mask), self.departures(y)
        if law is None or self.mapper.law is None:
            return gaps
        return self.mapper.law.sigma(law.std(), gaps)

    def sample(
        self, y: Float[Tensor, " m"], size: int, generator: Generator | None = None
    ) -> Float[Tensor, "size n"]:
        law = self.departures(y)
        if law is None:
            errors = correlated(self.inner, self.scales, size, generator)
        else:
            errors = law.sample(size, generator).flatten(1)
        # an average of neighbours is less variable than they are
        nodes, weights = self.corners
        errors = self._interpolated(errors) / self._shrunk(nodes, weights)
        return self.estimate(y) + self.std(y, size, generator) * errors

    def _shrunk(self, nodes: Tensor, weights: Tensor) -> Float[Tensor, " n"]:
        r"""Returns the std of interpolated errors, where that of nodes is one."""
        x = self.inner.points.coords[nodes]
        away = (x[:, :, None] - x[:, None]).abs()
        c = torch.stack([_matern(away[..., k] / s) for k, s in enumerate(self.scales)]).prod(dim=0)
        return torch.einsum("nk,nkl,nl->n", weights, c, weights).sqrt()


def correlated(
    grid: Grid, scales: list[float], size: int, generator: Generator | None = None
) -> Float[Tensor, "size n"]:
    r"""Draws fields of variance one: products of Matern correlations (3/2) along the axes.

    Arguments:
        grid: The grid, without land.
        scales: The lengthscale along each axis, in its units.
        size: The number of draws.
        generator: The random number generator.

    Example:
        >>> grid = Grid(time=[0.0, 1.0], x=[0.0, 1.0, 2.0])
        >>> correlated(grid, [2.0, 3.0], 5).shape
        torch.Size([5, 6])
    """
    z = torch.randn(size, *grid.shape, dtype=torch.float64, generator=generator)
    for place, (axis, scale) in enumerate(zip(grid.axes.values(), scales, strict=True), start=1):
        root = torch.linalg.cholesky(_matern((axis[:, None] - axis).abs() / scale))
        z = (z.movedim(place, -1) @ root.mT).movedim(-1, place)
    return z.flatten(1)


def _matern(r: Float[Tensor, ...]) -> Float[Tensor, ...]:
    return closed_form(math.sqrt(3.0) * r, half_integer(1))
