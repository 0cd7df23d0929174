r"""Pictures of trajectories: in phase space, and component by component in time."""

from __future__ import annotations

__all__ = ["phase_space", "time_series"]

import torch

from collections.abc import Mapping, Sequence
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from typing import Any

from .frame import new_figure

TRUTH: dict[str, Any] = {"color": "0.15", "linewidth": 0.9}
MEMBERS: dict[str, Any] = {"color": "tab:blue", "linewidth": 0.5}
DATA: dict[str, Any] = {"color": "tab:red", "marker": ".", "linestyle": "none", "markersize": 3}
MOST = 12
"""The most members that are drawn: more hide one another."""


def _checked(where: str, truth: Tensor, ensembles: Mapping[str, Tensor]) -> None:
    for name, E in ensembles.items():
        if E.shape[1:] != truth.shape:
            msg = (
                f"{where}(ensembles=...): expected members with shape (size, {len(truth)}, "
                f"{truth.shape[1]}), as the truth, got {tuple(E.shape)} for '{name}'. Unfold them."
            )
            raise ValueError(msg)
    if not ensembles:
        msg = f"{where}(ensembles=...): expected one or more, got none. Name an ensemble."
        raise ValueError(msg)


def phase_space(
    truth: Float[Tensor, "t s"],
    ensembles: Mapping[str, Float[Tensor, "_ _ _"]],
    data: Float[Tensor, "t s"] | None = None,
    seen: Bool[Tensor, "t s"] | None = None,
    components: tuple[int, int] = (0, 2),
    names: Sequence[str] = ("x", "y", "z"),
) -> Figure:
    r"""Draws trajectories in a plane of two components: a panel for each ensemble.

    Arguments:
        truth: The true trajectory, with shape :math:`(t, s)`.
        ensembles: The members of each method, with shape :math:`(size, t, s)`.
        data: The noisy states, of which those are drawn that are seen in both components.
        seen: Where they are seen; everywhere by default.
        components: The two components.
        names: The names of all components.

    Raises:
        ValueError: If shapes differ.

    Example:
        >>> path = torch.randn(50, 3).double().cumsum(dim=0)
        >>> figure = phase_space(path, {"members": path + torch.randn(4, 50, 3).double()})
        >>> figure.axes[0].get_ylabel()
        'z'
    """
    _checked("phase_space", truth, ensembles)
    columns = min(3, len(ensembles))
    rows = -(-len(ensembles) // columns)
    figure = new_figure(3.4 * columns, 3.1 * rows)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    i, j = components
    for ax in axes.flat[len(ensembles) :]:
        ax.set_axis_off()
    for ax, (name, E) in zip(axes.flat, ensembles.items(), strict=False):
        for member in E[:MOST]:
            ax.plot(member[:, i], member[:, j], alpha=0.35, **MEMBERS)
        ax.plot(truth[:, i], truth[:, j], **TRUTH)
        if data is not None:
            here = torch.ones(len(data), dtype=torch.bool)
            here = here if seen is None else seen[:, i] & seen[:, j]
            ax.plot(data[here, i], data[here, j], **DATA)
        ax.set(title=name, xlabel=names[i], ylabel=names[j])
        ax.spines[["top", "right"]].set_visible(False)
    _legend(figure, axes.flat[0], data is not None)
    return figure


def time_series(
    times: Float[Tensor, " t"],
    truth: Float[Tensor, "t s"],
    ensembles: Mapping[str, Float[Tensor, "_ _ _"]],
    data: Float[Tensor, "t s"] | None = None,
    seen: Bool[Tensor, "t s"] | None = None,
    names: Sequence[str] = ("x", "y", "z"),
) -> Figure:
    r"""Draws components in time, with the mean of each ensemble and its band of two deviations.

    Arguments:
        times: The times, with shape :math:`(t)`.
        truth: The true trajectory, with shape :math:`(t, s)`.
        ensembles: The members of each method, with shape :math:`(size, t, s)`: a column each.
        data: The noisy states.
        seen: Where they are seen; everywhere by default.
        names: The names of the components: a row each.

    Raises:
        ValueError: If shapes differ.

    Example:
        >>> path = torch.randn(50, 3).double().cumsum(dim=0)
        >>> members = {"members": path + torch.randn(4, 50, 3).double()}
        >>> len(time_series(torch.arange(50.0).double(), path, members).axes)
        3
    """
    _checked("time_series", truth, ensembles)
    s, columns = truth.shape[1], len(ensembles)
    figure = new_figure(3.6 * columns, 1.7 * s + 0.4)
    axes = figure.subplots(s, columns, squeeze=False, sharex=True, sharey="row")
    for column, (name, E) in zip(axes.T, ensembles.items(), strict=True):
        column[0].set_title(name)
        column[-1].set_xlabel("time")
        for k, ax in enumerate(column):
            _band(ax, times, E[..., k])
            ax.plot(times, truth[:, k], **TRUTH)
            if data is not None:
                here = torch.ones(len(data), dtype=torch.bool) if seen is None else seen[:, k]
                ax.plot(times[here], data[here, k], **DATA)
            ax.spines[["top", "right"]].set_visible(False)
    for ax, name in zip(axes[:, 0], names, strict=False):
        ax.set_ylabel(name)
    return figure


def _band(ax: Axes, times: Tensor, E: Float[Tensor, "size t"]) -> None:
    mean, std = E.mean(dim=0), E.std(dim=0)
    low, high = mean - 2 * std, mean + 2 * std
    ax.fill_between(times.numpy(), low.numpy(), high.numpy(), color="tab:blue", alpha=0.25)
    ax.plot(times, mean, color="tab:blue", linewidth=0.9)


def _legend(figure: Figure, ax: Axes, seen: bool) -> None:
    kinds = {"members": MEMBERS, "truth": TRUTH, "data": DATA}
    if not seen:
        del kinds["data"]
    lines = [ax.plot([], [], label=name, **style)[0] for name, style in kinds.items()]
    figure.legend(handles=lines, loc="outside lower center", ncols=3, frameon=False)
