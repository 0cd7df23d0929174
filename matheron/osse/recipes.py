r"""What an experiment is made of: an ocean, and how it is seen."""

from __future__ import annotations

__all__ = ["SEDIMENT", "SST", "Beside", "Progress", "Recipe", "SeaLevel", "Sediment", "recipe"]

import abc
import dataclasses
import numpy as np
import torch
import xarray as xr

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from .constellations import constellation
from .images import GAPS, see
from .nature import PRESETS, nature_run
from .noise import noise_model
from .plume import plume_run
from .sampling import observe
from .temperature import see_temperature

SEDIMENT = "sediment"
SST = "sst"
SKIES = (True, "clear", "clouds")
"""How the temperature is seen: clear skies for ``True``."""
MOMENT = np.timedelta64(1, "us")

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is to do."""


def errors_of(seed: int, stream: int = 1) -> torch.Generator:
    r"""Returns the generator of errors and gaps: another stream than that of the ocean itself."""
    own = np.random.SeedSequence([seed, stream]).generate_state(1)
    return torch.Generator().manual_seed(int(own[0]))


@dataclasses.dataclass(frozen=True, eq=False)
class Beside:
    r"""Another field of an ocean, and what is seen of it: the field that is mapped goes with it.

    Arguments:
        truth: The truth, each day.
        seen: What is seen of it, with errors and gaps, on the same days and nodes.
    """

    truth: xr.Dataset
    seen: xr.Dataset


@dataclasses.dataclass(frozen=True)
class Recipe(abc.ABC):
    r"""How to make an ocean and its observations, but for the seed and the dates.

    Arguments:
        preset: The name of the ocean.
        constellation: The names of what sees it, separated by commas.
        noise: The name of the errors.
        options: Further arguments of the function that makes the ocean.

    Raises:
        ValueError: If a name is not known.
    """

    variable: ClassVar[str]
    """The name of the field."""

    preset: str
    constellation: str
    noise: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        self.check()

    @abc.abstractmethod
    def check(self) -> None:
        r"""Refuses names that are not known, before any work."""

    @property
    @abc.abstractmethod
    def observed(self) -> str:
        r"""The name of the observed variable, errors included."""

    @abc.abstractmethod
    def make(
        self, seed: int, start: str, days: int, tell: Progress
    ) -> tuple[xr.Dataset, dict[str, xr.Dataset]]:
        r"""Returns a truth over some days, and its observations by name.

        Arguments:
            seed: The seed of the ocean, of gaps and of errors.
            start: The first day.
            days: The number of days.
            tell: What is told of the progress.
        """

    def beside(self, seed: int, truth: xr.Dataset) -> dict[str, Beside]:
        r"""Returns the other fields of an ocean by name, if there are any.

        Arguments:
            seed: The seed of the ocean.
            truth: The truth that :meth:`make` gave.
        """
        return {}


class SeaLevel(Recipe):
    r"""A turbulent ocean, its surface seen by altimeters."""

    variable = "ssh"

    def check(self) -> None:
        constellation(self.constellation)
        noise_model(self.noise)
        skies = self.options.get(SST)
        if skies is not None and skies not in SKIES:
            msg = (
                f"Experiment.make(sst={skies!r}): expected True, 'clear' or 'clouds', got "
                f"{skies!r}. Choose one."
            )
            raise ValueError(msg)

    @property
    def observed(self) -> str:
        return "ssh_model" if self.noise == "none" else "ssh_obs"

    def make(
        self, seed: int, start: str, days: int, tell: Progress
    ) -> tuple[xr.Dataset, dict[str, xr.Dataset]]:
        # One day more, so that the evening of the last day is observed too.
        run = nature_run(
            self.preset,
            seed,
            days + 1,
            start=start,
            progress=lambda done, total: tell("simulate", done, total),
            **{**self.options, SST: SST in self.options},
        )
        end = np.datetime64(start, "ns") + np.timedelta64(days, "D")
        seen: dict[str, xr.Dataset] = {}
        missions = constellation(self.constellation)
        for k, (name, mission) in enumerate(missions.items(), start=1):
            # A mission draws its errors from the seed and its name, whatever its company.
            own = errors_of(seed)
            seen |= observe(run, {name: mission}, own, self.noise, end=end - MOMENT)
            tell("observe", k, len(missions))
        truth = run.isel(time=run["time"].values < end)
        return truth, {name: _slim(ds) for name, ds in seen.items()}

    def beside(self, seed: int, truth: xr.Dataset) -> dict[str, Beside]:
        if SST not in self.options:
            return {}
        daily = truth[[SST]].isel(time=truth["time"].dt.hour.values == 0)
        clouds = self.options[SST] == "clouds"
        return {SST: Beside(daily, see_temperature(daily, errors_of(seed, 2), clouds=clouds))}


class Sediment(Recipe):
    r"""Sediment off a coast, seen through clouds."""

    variable = "spm"

    def check(self) -> None:
        if unknown := [name for name in self.names if name not in GAPS]:
            msg = _refusal("constellation", self.constellation, GAPS, unknown[0])
            raise ValueError(msg)
        if self.noise not in ("none", "lognormal"):
            msg = _refusal("noise", self.noise, ("none", "lognormal"), self.noise)
            raise ValueError(msg)

    @property
    def names(self) -> list[str]:
        r"""The kinds of gaps."""
        return [name.strip() for name in self.constellation.split(",")]

    @property
    def observed(self) -> str:
        return "spm"

    def make(
        self, seed: int, start: str, days: int, tell: Progress
    ) -> tuple[xr.Dataset, dict[str, xr.Dataset]]:
        tell("simulate", 0, days)
        truth = plume_run(seed, days, start=start, **self.options)
        tell("simulate", days, days)
        seen = see(truth, self.names, errors_of(seed), noisy=self.noise != "none")
        tell("observe", len(seen), len(seen))
        return truth, seen


def _refusal(argument: str, value: str, known: tuple[str, ...], got: str) -> str:
    return (
        f"Experiment.make({argument}={value!r}): expected {' or '.join(known)} for the preset "
        f"{SEDIMENT}, got {got!r}. Choose among them, or take another preset."
    )


def _slim(seen: xr.Dataset) -> xr.Dataset:
    """Heights in single precision as in the truth, times to the microsecond: what files keep."""
    heights = {k: v.astype(np.float32) for k, v in seen.data_vars.items()}
    time = seen["time"].values.astype("datetime64[us]").astype("datetime64[ns]")
    slim = seen.assign(heights).assign_coords(time=("time", time))
    for name in {"ssh_model", "ssh_obs"} & set(slim):
        slim[name].attrs["standard_name"] = "sea_surface_height_above_geoid"
    return slim


def recipe(
    preset: str,
    constellation: str | None = None,
    noise: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Recipe:
    r"""Returns a recipe by name.

    Arguments:
        preset: A region of :data:`~matheron.osse.nature.PRESETS`, or ``sediment``.
        constellation: What sees it, by name; ``4nadirs`` or ``clouds`` by default.
        noise: The errors by name; ``none`` or ``lognormal`` by default.
        options: Further arguments of the function that makes the ocean; those that are
            :py:`None` are left to it.

    Raises:
        ValueError: If a name is not known, or an option does not go with the preset.

    Example:
        >>> recipe("gulfstream", "1nadir,swot").observed
        'ssh_model'
    """
    if preset not in (*PRESETS, SEDIMENT):
        known = ", ".join((*PRESETS, SEDIMENT))
        msg = f"Experiment.make(preset=...): expected one of {known}, got {preset!r}. Choose one."
        raise ValueError(msg)
    given = {k: v for k, v in (options or {}).items() if v is not None}
    if preset != SEDIMENT:
        return SeaLevel(preset, constellation or "4nadirs", noise or "none", given)
    for name, why in (("size", "its grid follows from the spacing"), (SST, "it has no currents")):
        if name in given:
            msg = (
                f"Experiment.make({name}={given[name]}): expected none for the preset {SEDIMENT}, "
                f"got {given[name]}. Leave it out: {why}."
            )
            raise ValueError(msg)
    given.pop("cache", None)
    return Sediment(preset, constellation or "clouds", noise or "lognormal", given)
