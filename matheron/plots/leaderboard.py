r"""A leaderboard as dots: methods in rows, scores in columns."""

from __future__ import annotations

__all__ = ["leaderboard"]

import numpy as np
import pandas as pd

from collections.abc import Mapping, Sequence
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator
from matplotlib.transforms import blended_transform_factory
from typing import NamedTuple

from .frame import new_figure
from .snapshot import call, refusal

OWN, BEST, OTHER = "#0072B2", "#D55E00", "0.6"


class _Column(NamedTuple):
    label: str
    better: int
    """1 where more is better, -1 where less is, 0 where the nominal level is."""
    units: str = ""
    log: bool = False


COLUMNS = {
    "mu": _Column("µ", 1),
    "lambda_x": _Column("λx", -1, "deg"),
    "lambda_t": _Column("λt", -1, "days"),
    "rmse": _Column("RMSE", -1, "m"),
    "crps": _Column("CRPS", -1, "m"),
    "coverage": _Column("coverage", 0),
    "seconds": _Column("time", -1, "s", log=True),
}


def leaderboard(
    table: pd.DataFrame,
    *,
    columns: Sequence[str] | None = None,
    units: Mapping[str, str] | None = None,
    nominal: float = 0.9,
    title: str = "",
) -> Figure:
    r"""Draws the scores of methods as dots, one row per method and one column per score.

    The best method of each column stands out, among those that were run on these data. Published
    methods are grey, hollow and said to be of other data: they are never the best. A score that is
    missing has no dot; one that is infinite (a scale that is not resolved) is written as such.

    Arguments:
        table: The scores, one row per method, named by the index, with columns among ``mu``,
            ``lambda_x``, ``lambda_t``, ``rmse``, ``crps``, ``coverage`` and ``seconds``; and
            ``published``, true where a row is of other data.
        columns: The scores to draw, in order: all that are there by default.
        units: The units by score, where they are not deg, days, m and s.
        nominal: The level of the intervals whose coverage is given: a line.
        title: The title.

    Raises:
        ValueError: If there is no method or no score, or if a name is unknown.

    Example:
        >>> table = pd.DataFrame({"mu": [0.92, 0.91], "lambda_x": [1.2, 1.4],
        ...                       "published": [False, True]}, index=["SPDE", "DUACS"])
        >>> [t.get_text() for t in leaderboard(table).axes[0].get_yticklabels()]
        ['SPDE', 'DUACS (other data)']
    """
    names = _names(table, columns)
    other = _other(table)
    scores = table[names].astype(float)
    size = len(table)
    long = max(len(str(k)) + 13 * o for k, o in zip(table.index, other, strict=True))
    figure = new_figure(1.55 * len(names) + 0.085 * long + 0.5, 0.32 * size + 1.3)
    axes = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
    for ax, name in zip(axes, names, strict=True):
        known = COLUMNS[name]._replace(units=(units or {}).get(name, COLUMNS[name].units))
        _column(ax, scores[name].to_numpy(), other, known, nominal)
    _rows(axes[0], [str(k) for k in table.index], other)
    if title:
        figure.suptitle(title, fontsize="medium")
    return figure


def _names(table: pd.DataFrame, columns: Sequence[str] | None) -> list[str]:
    there = [k for k in COLUMNS if k in table.columns and table[k].notna().any()]
    names = there if columns is None else list(columns)
    if len(table) == 0 or not names:
        got = f"{len(table)} rows, columns {', '.join(map(str, table.columns))}"
        raise refusal(
            call("leaderboard", "table"),
            f"methods with {', '.join(COLUMNS)}",
            got,
            "Rename columns",
        )
    for name in names:
        if name not in COLUMNS or name not in table.columns:
            expected = f"columns of the table among {', '.join(COLUMNS)}"
            raise refusal(call("leaderboard", "columns"), expected, f"'{name}'", "Rename it")
    return names


def _other(table: pd.DataFrame) -> np.ndarray:
    if "published" not in table.columns:
        return np.zeros(len(table), dtype=bool)
    return table["published"].fillna(value=False).to_numpy(dtype=bool)


def _rows(ax: Axes, names: Sequence[str], other: np.ndarray) -> None:
    told = [f"{k} (other data)" if o else k for k, o in zip(names, other, strict=True)]
    ax.set_yticks(range(len(names)), told)
    for text, grey in zip(ax.get_yticklabels(), other, strict=True):
        text.set_color("0.45" if grey else "k")
    ax.set_ylim(len(names) - 0.5, -0.5)


def _best(values: np.ndarray, other: np.ndarray, column: _Column, nominal: float) -> int | None:
    gain = -np.abs(values - nominal) if column.better == 0 else column.better * values
    gain = np.where(np.isfinite(values) & ~other, gain, -np.inf)
    alone = (~other).sum() < 2 or not np.isfinite(gain).any()
    return None if alone else int(gain.argmax())


def _column(
    ax: Axes, values: np.ndarray, other: np.ndarray, column: _Column, nominal: float
) -> None:
    best = _best(values, other, column, nominal)
    finite = np.isfinite(values)
    _axis(ax, values[finite], column, nominal)
    for row in range(len(values)):
        ax.axhline(row, color="0.9", linewidth=0.8, zorder=0)
        if finite[row]:
            colour = OTHER if other[row] else BEST if row == best else OWN
            ax.plot([values[row]], [row], marker="D" if row == best else "o", color=colour,
                    markersize=7 if row == best else 6, linestyle="none",
                    markerfacecolor="w" if other[row] else colour)  # fmt: skip
        _number(ax, row, values[row], grey=bool(other[row]), strong=row == best)


def _number(ax: Axes, row: int, value: float, *, grey: bool, strong: bool) -> None:
    r"""Writes a score at the right end of its row."""
    text = "–" if np.isnan(value) else "inf" if np.isinf(value) else _short(value)
    ax.text(
        1.0, row, text, ha="right", va="center", fontsize="x-small",
        transform=blended_transform_factory(ax.transAxes, ax.transData),
        color="0.45" if grey else "k", weight="bold" if strong else "normal",
    )  # fmt: skip


def _short(value: float) -> str:
    r"""Returns three digits, and all those of a larger number: 0.900, 12.0, 300, 4000."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")


def _axis(ax: Axes, values: np.ndarray, column: _Column, nominal: float) -> None:
    arrow = {1: " ↑", -1: " ↓", 0: ""}[column.better]
    unit = f" [{column.units}]" if column.units else ""
    ax.set_title(f"{column.label}{unit}{arrow}", fontsize="medium")
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.tick_params(axis="x", labelsize="x-small")
    if column.better == 0:
        ax.axvline(nominal, color="0.35", linestyle="--", linewidth=1.2, zorder=1)
        values = np.append(values, nominal)
    log = column.log and values.size > 0 and bool((values > 0).all())
    if values.size:
        ax.set_xlim(*_limits(np.log10(values) if log else values, log))
    if log:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(numticks=4))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        ax.minorticks_off()
    else:
        ax.xaxis.set_major_locator(MaxNLocator(3))
        if column.better >= 0:  # a share: nothing is over one
            ax.set_xticks([x for x in ax.get_xticks() if x <= 1])
            ax.set_xlim(*_limits(values, log))


def _limits(values: np.ndarray, log: bool) -> tuple[float, float]:
    r"""Returns the ends of an axis: a third of it is left to the numbers, at the right."""
    low, high = float(values.min()), float(values.max())
    wide = high - low or abs(high) * 0.1 or 1.0
    ends = (low - 0.08 * wide, high + 0.55 * wide)
    return (10 ** ends[0], 10 ** ends[1]) if log else ends
