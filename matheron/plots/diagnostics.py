r"""Pictures of statistics: calibration of a probabilistic map, variograms."""

from __future__ import annotations

__all__ = ["calibration", "coverage", "pit", "ranks", "spread_skill", "variogram"]

import numpy as np
import torch

from collections.abc import Callable, Mapping
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from torch import Tensor
from typing import Any

from .frame import new_figure

IDEAL: dict[str, Any] = {"color": "0.35", "linestyle": "--", "linewidth": 1.2}


def _axes(ax: Axes | None) -> tuple[Figure, Axes]:
    if ax is None:
        ax = new_figure(4.4, 3.8).subplots()
    ax.spines[["top", "right"]].set_visible(False)
    figure = ax.get_figure(root=True)
    assert figure is not None
    return figure, ax


def _bars(ax: Axes, frequency: np.ndarray, count: int, edges: np.ndarray) -> None:
    r"""Draws frequencies relative to their expectation, with their 95 % band if independent."""
    size = len(frequency)
    ax.bar(
        edges[:-1], frequency * size, np.diff(edges), align="edge", edgecolor="w", linewidth=0.5
    )
    half = 1.96 * np.sqrt((size - 1) / max(count, 1))
    ax.axhspan(max(1 - half, 0), 1 + half, color="0.35", alpha=0.2, linewidth=0, zorder=3)
    ax.axhline(1.0, **IDEAL, zorder=4)
    ax.set_ylim(0, max(1.6, 1.08 * float((frequency * size).max(initial=0.0))))
    ax.set_ylabel("frequency / expected")


def pit(
    values: Float[Tensor, " m"], ax: Axes | None = None, *, bins: int = 20, title: str = "PIT"
) -> Figure:
    r"""Draws the histogram of the probability integral transform: flat where calibrated.

    A U shape says that the std is too small, a dome that it is too large, a slope that the mean
    is biased. The band holds 95 % of the bars of independent data.

    Arguments:
        values: The transforms :math:`F(y)`, between 0 and 1, with shape :math:`(m)`.
        ax: Where to draw. A new figure by default.
        bins: The number of bars.
        title: The title.

    Raises:
        ValueError: If values are not between 0 and 1.

    Example:
        >>> pit(torch.linspace(0, 1, 50)).axes[0].get_xlabel()
        'probability integral transform'
    """
    values = torch.as_tensor(values).detach().cpu()
    if not ((values >= 0) & (values <= 1)).all():
        msg = (
            f"pit(values=...): expected values between 0 and 1, got {values.min():.4g} to "
            f"{values.max():.4g}. Transform the data by their predicted law first."
        )
        raise ValueError(msg)
    figure, ax = _axes(ax)
    counts, edges = np.histogram(values.numpy(), bins=bins, range=(0, 1))
    _bars(ax, counts / max(len(values), 1), len(values), edges)
    ax.set(xlabel="probability integral transform", title=title, xlim=(0, 1))
    return figure


def ranks(
    counts: Int[Tensor, " k"], ax: Axes | None = None, *, title: str = "rank histogram"
) -> Figure:
    r"""Draws a rank histogram: flat where the truth is one more member of the ensemble.

    Arguments:
        counts: How many data have each rank, with shape :math:`(size + 1)`.
        ax: Where to draw. A new figure by default.
        title: The title.

    Example:
        >>> ranks(torch.tensor([4, 6, 5])).axes[0].get_xlabel()
        'rank of the truth among the members'
    """
    figure, ax = _axes(ax)
    total, size = int(counts.sum()), len(counts)
    frequency = counts.cpu().numpy() / max(total, 1)
    _bars(ax, frequency, total, np.arange(size + 1) - 0.5)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.set(xlabel="rank of the truth among the members", title=title, xlim=(-0.5, size - 0.5))
    return figure


def coverage(
    nominal: Float[Tensor, " k"],
    empirical: Float[Tensor, " k"],
    ax: Axes | None = None,
    *,
    title: str = "coverage",
) -> Figure:
    r"""Draws how many data fall within the central intervals, against how many should.

    Arguments:
        nominal: The levels of the intervals, with shape :math:`(k)`.
        empirical: The fraction of data inside, with shape :math:`(k)`.
        ax: Where to draw. A new figure by default.
        title: The title.

    Example:
        >>> levels = torch.linspace(0.05, 0.95, 19)
        >>> coverage(levels, levels**1.2).axes[0].get_ylabel()
        'data inside'
    """
    figure, ax = _axes(ax)
    ax.plot([0, 1], [0, 1], **IDEAL)
    ax.plot(torch.as_tensor(nominal), torch.as_tensor(empirical), marker="o", markersize=3)
    ax.xaxis.set_major_formatter(PercentFormatter(1.0))
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.set(xlim=(0, 1), ylim=(0, 1), box_aspect=1)
    ax.set(xlabel="central interval", ylabel="data inside", title=title)
    return figure


def spread_skill(
    spread: Float[Tensor, " k"],
    skill: Float[Tensor, " k"],
    ax: Axes | None = None,
    *,
    units: str = "",
    title: str = "spread and skill",
) -> Figure:
    r"""Draws the RMSE of the mean against the predicted std, by bins of the std.

    Arguments:
        spread: The root mean square of the std in each bin, with shape :math:`(k)`.
        skill: The RMSE of the mean in each bin, with shape :math:`(k)`.
        ax: Where to draw. A new figure by default.
        units: The units of the field.
        title: The title.

    Example:
        >>> figure = spread_skill(torch.tensor([1.0, 2.0]), torch.tensor([1.1, 1.9]), units="m")
        >>> figure.axes[0].get_xlabel()
        'predicted std [m]'
    """
    figure, ax = _axes(ax)
    x, y = torch.as_tensor(spread), torch.as_tensor(skill)
    both = torch.cat([x, y])
    top = 1.08 * float(both[both.isfinite()].max()) if both.isfinite().any() else 1.0
    ax.plot([0, top], [0, top], **IDEAL)
    ax.plot(x, y, marker="o", markersize=4)
    unit = f" [{units}]" if units else ""
    ax.set(xlim=(0, top), ylim=(0, top), title=title, box_aspect=1)
    ax.set(xlabel=f"predicted std{unit}", ylabel=f"RMSE{unit}")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(5))
    return figure


def calibration(
    *,
    pit: Float[Tensor, " m"] | None = None,
    coverage: tuple[Tensor, Tensor] | None = None,
    ranks: Int[Tensor, " k"] | None = None,
    spread_skill: tuple[Tensor, Tensor] | None = None,
    units: str = "",
) -> Figure:
    r"""Draws the calibration of a probabilistic map: a panel per statistic at hand.

    Arguments:
        pit: The probability integral transforms, see :func:`matheron.plots.pit`.
        coverage: Nominal and empirical levels, see :func:`matheron.plots.coverage`.
        ranks: The counts of a rank histogram, see :func:`matheron.plots.ranks`.
        spread_skill: Spread and skill by bin, see :func:`matheron.plots.spread_skill`.
        units: The units of the field.

    Raises:
        ValueError: If no statistic is given.

    Example:
        >>> levels = torch.linspace(0.05, 0.95, 19)
        >>> len(calibration(pit=torch.linspace(0, 1, 50), coverage=(levels, levels)).axes)
        2
    """
    panels = _panels(pit, coverage, ranks, spread_skill, units)
    if not panels:
        msg = "calibration(...): expected at least one statistic, got none. Pass e.g. pit=..."
        raise ValueError(msg)
    figure = new_figure(3.3 * len(panels) + 0.2, 3.4)
    axes = figure.subplots(1, len(panels), squeeze=False)
    for ax, panel in zip(axes.flat, panels, strict=True):
        panel(ax)
        ax.set_box_aspect(1)
        ax.title.set_fontsize("medium")
    return figure


def _panels(
    transform: Tensor | None,
    levels: tuple[Tensor, Tensor] | None,
    counts: Tensor | None,
    bins: tuple[Tensor, Tensor] | None,
    units: str,
) -> list[Callable[[Axes], Figure]]:
    panels: list[Callable[[Axes], Figure]] = []
    if transform is not None:
        panels.append(lambda ax: pit(transform, ax))
    if levels is not None:
        panels.append(lambda ax: coverage(*levels, ax))
    if counts is not None:
        panels.append(lambda ax: ranks(counts, ax))
    if bins is not None:
        panels.append(lambda ax: spread_skill(*bins, ax, units=units))
    return panels


def variogram(
    distance: Float[Tensor, " k"],
    gamma: Float[Tensor, " k"] | Mapping[str, Tensor],
    *,
    count: Tensor | None = None,
    model: Callable[[Tensor], Tensor] | None = None,
    distance_units: str = "",
    units: str = "",
    title: str = "",
    ax: Axes | None = None,
) -> Figure:
    r"""Draws an experimental variogram, or several (one per direction), and a model.

    Arguments:
        distance: The mean distance of the pairs of each bin, with shape :math:`(k)`.
        gamma: The semi-variances :math:`\gamma(h) = \frac12 E (x(s) - x(s + h))^2`, with shape
            :math:`(k)`; or such vectors by name.
        count: The number of pairs of each bin, with shape :math:`(k)`: the area of the marks.
        model: The semi-variance of a model, as a function of distances.
        distance_units: The units of the distance.
        units: The units of the field.
        title: The title.
        ax: Where to draw. A new figure by default.

    Example:
        >>> h = torch.linspace(0.5, 5.0, 10)
        >>> figure = variogram(h, 1 - torch.exp(-h), model=lambda h: 1 - torch.exp(-h))
        >>> figure.axes[0].get_ylabel()
        'semi-variance'
    """
    figure, ax = _axes(ax)
    area = 18.0 if count is None else 6 + 40 * (count / count.max()).sqrt()
    for name, values in (gamma if isinstance(gamma, Mapping) else {"data": gamma}).items():
        ax.scatter(distance, values, s=area, label=name, alpha=0.85, linewidths=0, zorder=3)
    if model is not None:
        h = torch.linspace(0.0, 1.05 * float(distance.max()), 400, dtype=torch.float64)[1:]
        ax.plot(h, model(h).detach(), color="k", linewidth=1.3, label="model")
    if model is not None or isinstance(gamma, Mapping):
        ax.legend(frameon=False, loc="lower right")
    ax.set_xlim(0, 1.05 * float(distance.max()))
    ax.set_ylim(bottom=0)
    across = f"distance [{distance_units}]" if distance_units else "distance"
    up = f"semi-variance [{units}²]" if units else "semi-variance"
    ax.set(xlabel=across, ylabel=up, title=title)
    return figure
