r"""Which days a challenge trains on, forbids and scores."""

from __future__ import annotations

__all__ = ["CALENDARS", "Calendar"]

import dataclasses
import numpy as np
import xarray as xr

PARTS = ("spin_up", "scored", "buffer", "training")
Days = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class Calendar:
    r"""The parts of a challenge, each from its first day to its last one, both included.

    Arguments:
        name: The name of the challenge.
        spin_up: The days that may be observed before the scored ones.
        scored: The days whose maps are scored.
        buffer: The days between, which nobody may use.
        training: The days to train and to tune on.

    Raises:
        ValueError: If a part ends before it begins, or if two parts share a day.

    Example:
        >>> calendar = CALENDARS["2020a"]
        >>> calendar.count("scored"), calendar.days, calendar.start
        (42, 365, '2012-10-01')
    """

    name: str
    spin_up: Days
    scored: Days
    buffer: Days
    training: Days

    def __post_init__(self) -> None:
        parts = sorted((np.datetime64(a), np.datetime64(b), k) for k, (a, b) in self._parts())
        ends = [part[1] for part in parts]
        if any(a > b for a, b, _ in parts) or any(
            end >= later[0] for end, later in zip(ends, parts[1:], strict=False)
        ):
            msg = (
                f"Calendar(name={self.name!r}): expected parts that follow one another, got "
                f"{dict(self._parts())}. Give the first and the last day of each."
            )
            raise ValueError(msg)

    def _parts(self) -> list[tuple[str, Days]]:
        return [(part, getattr(self, part)) for part in PARTS]

    @property
    def start(self) -> str:
        r"""The first day."""
        return min(first for _, (first, _) in self._parts())

    @property
    def end(self) -> str:
        r"""The last day."""
        return max(last for _, (_, last) in self._parts())

    @property
    def days(self) -> int:
        r"""The number of days from the first to the last."""
        return _count(self.start, self.end)

    def count(self, part: str) -> int:
        r"""Returns the number of days of a part."""
        return _count(*self._days(part))

    def select(self, dataset: xr.Dataset, part: str) -> xr.Dataset:
        r"""Returns the times of a dataset that fall in a part.

        Raises:
            ValueError: If the part is not known, or no time falls in it.
        """
        first, last = self._days(part)
        end = np.datetime64(last) + np.timedelta64(1, "D")
        time = dataset["time"].values
        inside = (time >= np.datetime64(first)) & (time < end)
        if not inside.any():
            msg = (
                f"Calendar.select(part={part!r}): expected times from {first} to {last}, got none "
                f"among {len(time)}. Simulate more days, or start on {self.start}."
            )
            raise ValueError(msg)
        return dataset.isel(time=inside)

    def _days(self, part: str) -> Days:
        if part not in PARTS:
            msg = f"Calendar(part=...): expected one of {PARTS}, got {part!r}. Choose one."
            raise ValueError(msg)
        return getattr(self, part)


def _count(first: str, last: str) -> int:
    return int((np.datetime64(last) - np.datetime64(first)) / np.timedelta64(1, "D")) + 1


CALENDARS = {
    "2020a": Calendar(
        "2020a",
        spin_up=("2012-10-01", "2012-10-21"),
        scored=("2012-10-22", "2012-12-02"),
        buffer=("2012-12-03", "2013-01-01"),
        training=("2013-01-02", "2013-09-30"),
    )
}
"""The calendars of the challenges, by name."""
