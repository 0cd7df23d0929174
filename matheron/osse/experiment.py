r"""Observing system simulation experiments, whole: a truth, what is seen of it, and when."""

from __future__ import annotations

__all__ = ["Experiment", "Training", "shortened", "training_seed"]

import dataclasses
import functools
import numpy as np
import xarray as xr

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from . import folder as disk
from .calendar import CALENDARS, Calendar
from .recipes import Beside, Progress, Recipe, recipe
from .statistics import beside_statistics, in_words, statistics

SEEDS = 2**32
"""How many seeds there are: generators of random numbers know no more of them."""


def training_seed(seed: int) -> int:
    r"""Returns the seed of the ocean to train on: never that of the ocean to score.

    Example:
        >>> training_seed(0)
        2654435769
    """
    return seed ^ 0x9E3779B9


def shortened(calendar: Calendar, days: int | tuple[int, int] | None) -> Calendar:
    r"""Returns a calendar with fewer days, from the same first ones on.

    Arguments:
        calendar: The whole calendar.
        days: The days of spin-up and those to score; or their sum, shared out as in the calendar.
            The days to train on are cut in proportion. By default, the calendar is kept whole.

    Raises:
        ValueError: If there are more days than in the calendar, or none to observe or to score.

    Example:
        >>> shortened(CALENDARS["2020a"], 12).scored
        ('2012-10-05', '2012-10-12')
    """
    whole = (calendar.count("spin_up"), calendar.count("scored"))
    cut = _shares(days, whole)
    if cut == whole:
        return calendar
    if min(cut) < 1 or sum(cut) > sum(whole):
        msg = (
            f"Experiment.make(days={days}): expected at least one day of spin-up and one to "
            f"score, and {sum(whole)} at most, got {cut[0]} and {cut[1]}. Ask for 12, say."
        )
        raise ValueError(msg)
    training = max(1, round(calendar.count("training") * sum(cut) / sum(whole)))
    first = calendar.spin_up[0]
    return dataclasses.replace(
        calendar,
        name=f"{calendar.name}, {sum(cut)} days",
        spin_up=(first, _later(first, cut[0] - 1)),
        scored=(_later(first, cut[0]), _later(first, sum(cut) - 1)),
        training=(calendar.training[0], _later(calendar.training[0], training - 1)),
    )


def _shares(days: int | tuple[int, int] | None, whole: tuple[int, int]) -> tuple[int, int]:
    if days is None:
        return whole
    if isinstance(days, tuple):
        return days
    scored = max(1, round(days * whole[1] / sum(whole)))
    return days - scored, scored


def _later(day: str, days: int) -> str:
    return str(np.datetime64(day) + np.timedelta64(days, "D"))


@dataclasses.dataclass(frozen=True, eq=False)
class Training:
    r"""Another ocean, to train and to tune on.

    Arguments:
        seed: Its seed.
        truth: The truth, over the days to train on.
        observations: What is seen of it, by name.
        beside: Its other fields, by name.
    """

    seed: int
    truth: xr.Dataset
    observations: Mapping[str, xr.Dataset]
    beside: Mapping[str, Beside] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, eq=False)
class Experiment:
    r"""An ocean that is known everywhere, and what satellites would have seen of it.

    Make one with :meth:`make`, or read one with :meth:`load`.

    Arguments:
        recipe: What it is made of: preset, constellation and noise.
        seed: The seed of the ocean and of the errors.
        calendar: Which days are observed only, scored, forbidden, and trained on.
        truth: The truth over spin-up and scored days: ``ssh`` in metres, mean front included,
            every 6 hours; or ``spm`` in grams per cubic metre, every day; on (time, lat, lon).
        observations: What is seen of it, by name: tracks, swaths or images.
        mdt: The mean dynamic topography, in metres, where there is one.
        training: Another ocean, to train and to tune on.
        beside: Other fields of the ocean by name, e.g. its temperature: truth and what is seen.

    Example:
        >>> experiment = Experiment.make("gulfstream", "1nadir", days=3, size=16, spacing=1.0,
        ...     spin_up=5, cache=False)
        >>> experiment.calendar.scored, list(experiment.observations)
        (('2012-10-02', '2012-10-03'), ['jason1'])
    """

    recipe: Recipe
    seed: int
    calendar: Calendar
    truth: xr.Dataset
    observations: Mapping[str, xr.Dataset]
    mdt: xr.DataArray | None = None
    training: Training | None = None
    beside: Mapping[str, Beside] = dataclasses.field(default_factory=dict)

    @classmethod
    def make(
        cls,
        preset: str = "gulfstream",
        constellation: str | None = None,
        noise: str | None = None,
        seed: int = 0,
        *,
        calendar: str | Calendar = "2020a",
        days: int | tuple[int, int] | None = None,
        train: bool = False,
        size: int | None = None,
        spacing: float | None = None,
        spin_up: int | None = None,
        sst: bool | str = False,
        cache: str | Path | bool = True,
        progress: Progress | None = None,
    ) -> Experiment:
        r"""Makes an experiment, in memory.

        The same arguments give the same experiment. A mission has the same errors in every
        constellation. With fewer days, the sea level is the same on the days that are left.

        Arguments:
            preset: A region (``gulfstream``, ``mediterranean``, ``quiet``), or ``sediment``.
            constellation: The missions, as :func:`~matheron.osse.constellations.constellation`
                names them; ``4nadirs`` by default. For ``sediment``, what hides the sea:
                ``clouds`` (by default), ``random`` or both.
            noise: The errors: ``none`` (by default), ``white``, ``karin`` or ``full``; for
                ``sediment``, ``none`` or ``lognormal`` (by default).
            seed: The seed of the ocean and of the errors, under :math:`2^{32}`.
            calendar: Which days are scored: a calendar, or the name of one.
            days: Fewer days than the calendar has: see :func:`shortened`.
            train: Whether to make another ocean to train on, with other dates too.
            size: The number of nodes of the ocean on a side.
            spacing: The spacing of latitudes and longitudes, in degrees.
            spin_up: The days that the ocean runs before the first field.
            sst: Whether the currents also carry a temperature, which is seen each day everywhere;
                or, with ``"clouds"``, where there are none. The heights are the same.
            cache: Where spun-up oceans are kept: see :func:`~matheron.osse.nature.nature_run`.
            progress: Called with what is being done, how much is done, and how much there is.

        Raises:
            ValueError: If a name is not known, or a number cannot be used.
        """
        options = {"size": size, "spacing": spacing, "spin_up": spin_up, "cache": cache}
        options["sst"] = sst or None
        own = recipe(preset, constellation, noise, options)
        cut = shortened(_calendar(calendar), days)
        _check_seed(seed)
        tell = progress or (lambda _what, _done, _total: None)
        count = cut.count("spin_up") + cut.count("scored")
        truth, seen = own.make(seed, cut.spin_up[0], count, tell)
        _check_seen(own, seen, count)
        mdt = truth.get("mdt")
        other = _training(own, seed, cut, tell) if train else None
        beside = own.beside(seed, truth)
        return cls(own, seed, cut, _alone(own, truth), seen, mdt, other, beside)

    @property
    def preset(self) -> str:
        r"""The name of the ocean."""
        return self.recipe.preset

    @property
    def variable(self) -> str:
        r"""The name of the field in the truth."""
        return self.recipe.variable

    @property
    def observed(self) -> str:
        r"""The name of the observed variable, errors included."""
        return self.recipe.observed

    @property
    def days(self) -> int:
        r"""The number of days of the truth."""
        return self.calendar.count("spin_up") + self.calendar.count("scored")

    @property
    def scored(self) -> xr.Dataset:
        r"""The truth over the scored days."""
        return self.calendar.select(self.truth, "scored")

    @functools.cached_property
    def statistics(self) -> dict[str, Any]:
        r"""What the truth and the observations are like, in numbers."""
        found = statistics(self.truth, self.observations, self.variable, self.observed)
        beside = {k: beside_statistics(b.truth[k], b.seen[k]) for k, b in self.beside.items()}
        return found | ({"beside": beside} if beside else {})

    @functools.cached_property
    def summary(self) -> str:
        r"""What there is, in words."""
        training = self.training
        found = in_words(self._settings(), self.statistics)
        if training is None:
            return found
        numbers = statistics(training.truth, training.observations, self.variable, self.observed)
        days, seed = self.calendar.training, training.seed
        head = f"\nTo train on, another ocean from {days[0]} to {days[1]}, of seed {seed}:"
        return "\n".join([found, head, *in_words({}, numbers).splitlines()])

    def save(self, folder: str | Path, force: bool = False) -> Path:
        r"""Writes the experiment as a folder, whole or not at all; returns its path.

        It holds ``truth.nc``, ``mdt.nc``, ``obs_NAME.nc``, the same with ``train_`` before if
        there is another ocean to train on, ``osse.json`` (what was asked for, and statistics)
        and ``README.md``; with a temperature also ``sst.nc``, what is seen of it, and
        ``truth_sst.nc``.

        Arguments:
            folder: The folder: a new or an empty one.
            force: Whether to replace another experiment that is there.

        Raises:
            ValueError: If the folder holds anything else, or cannot be written.
        """
        told = {"statistics": self.statistics}
        return disk.write(
            folder, self._files(), self._settings() | told, self.summary + "\n", force
        )

    @classmethod
    def load(cls, folder: str | Path) -> Experiment:
        r"""Reads an experiment; fields are read from their files when they are used.

        Raises:
            ValueError: If the folder holds no experiment, or not a whole one.
        """
        told, found = disk.read(folder)
        own = recipe(told["preset"], told["constellation"], told["noise"], told["options"])
        calendar = _calendar_of(told["calendar"])
        training = None
        if told["training_seed"] is not None:
            other = found["train.nc"]
            seen = _seen(found, "train_obs_")
            training = Training(told["training_seed"], other, seen, _beside(told, found, "train_"))
        mdt = found["mdt.nc"]["mdt"] if "mdt.nc" in found else None
        seen = _seen(found, "obs_")
        beside = _beside(told, found)
        return cls(own, told["seed"], calendar, found["truth.nc"], seen, mdt, training, beside)

    def close(self) -> None:
        r"""Closes the files that the experiment is read from."""
        for dataset in self._files().values():
            dataset.close()

    def _settings(self) -> dict[str, Any]:
        own = self.recipe
        options = {k: v for k, v in own.options.items() if k != "cache"}
        others = {disk.BESIDE: list(self.beside)} if self.beside else {}
        return {
            **others,
            "version": version("matheron"),
            "preset": own.preset,
            "constellation": own.constellation,
            "noise": own.noise,
            "seed": self.seed,
            "training_seed": None if self.training is None else self.training.seed,
            "calendar": dataclasses.asdict(self.calendar),
            "options": options,
            "variable": self.variable,
            "observed": self.observed,
        }

    def _files(self) -> dict[str, xr.Dataset]:
        files = {"truth.nc": self.truth}
        if self.mdt is not None:
            files["mdt.nc"] = self.mdt.to_dataset()
        files |= {f"obs_{name}.nc": ds for name, ds in self.observations.items()}
        files |= _files_beside(self.beside)
        if self.training is not None:
            files["train.nc"] = self.training.truth
            seen = self.training.observations.items()
            files |= {f"train_obs_{name}.nc": ds for name, ds in seen}
            files |= _files_beside(self.training.beside, "train_")
        return files


def _alone(own: Recipe, truth: xr.Dataset) -> xr.Dataset:
    return truth[[own.variable]]


def _training(own: Recipe, seed: int, calendar: Calendar, tell: Progress) -> Training:
    other = training_seed(seed)
    days = calendar.count("training")

    def also(what: str, done: int, total: int) -> None:
        tell(f"{what} to train on", done, total)

    truth, seen = own.make(other, calendar.training[0], days, also)
    return Training(other, _alone(own, truth), seen, own.beside(other, truth))


def _files_beside(beside: Mapping[str, Beside], start: str = "") -> dict[str, xr.Dataset]:
    files = {f"{start}{name}.nc": found.seen for name, found in beside.items()}
    return files | {f"{start}truth_{name}.nc": found.truth for name, found in beside.items()}


def _beside(
    told: Mapping[str, Any], found: Mapping[str, xr.Dataset], start: str = ""
) -> dict[str, Beside]:
    names = told.get(disk.BESIDE, ())
    return {k: Beside(found[f"{start}truth_{k}.nc"], found[f"{start}{k}.nc"]) for k in names}


def _seen(found: Mapping[str, xr.Dataset], start: str) -> dict[str, xr.Dataset]:
    names = [file for file in found if file.startswith(start)]
    return {file.removeprefix(start).removesuffix(".nc"): found[file] for file in names}


def _calendar(calendar: str | Calendar) -> Calendar:
    if isinstance(calendar, Calendar):
        return calendar
    if calendar not in CALENDARS:
        msg = (
            f"Experiment.make(calendar=...): expected one of {', '.join(CALENDARS)}, got "
            f"{calendar!r}. Choose one, or give a Calendar."
        )
        raise ValueError(msg)
    return CALENDARS[calendar]


def _calendar_of(told: Mapping[str, Any]) -> Calendar:
    parts = {k: tuple(v) for k, v in told.items() if k != "name"}
    return Calendar(told["name"], **parts)


def _check_seed(seed: int) -> None:
    if not 0 <= seed < SEEDS:
        msg = (
            f"Experiment.make(seed=...): expected a seed from 0 to {SEEDS - 1}, got {seed}. "
            "Take 0, say."
        )
        raise ValueError(msg)


def _check_seen(own: Recipe, seen: Mapping[str, xr.Dataset], days: int) -> None:
    if not any(np.isfinite(ds[own.observed].values).any() for ds in seen.values()):
        msg = (
            f"Experiment.make(constellation={own.constellation!r}): expected data in {days} days, "
            "got none. Ask for more days, or for more missions."
        )
        raise ValueError(msg)
