r"""Scores by scale and in time, as the data challenges of ocean mapping draw them."""

from __future__ import annotations

__all__ = ["rmse_in_time", "score_plane", "track_spectra"]

import cmocean.cm
import numpy as np

from collections.abc import Mapping
from itertools import cycle
from jaxtyping import Float, Shaped
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy import ndarray
from typing import Any

from .frame import new_figure
from .snapshot import call, refusal

Reading = tuple[float, float]
Plane = tuple[ndarray, ...]
"""Frequencies of time, frequencies of longitude, and the score on them."""
Spectrum = tuple[ndarray, ndarray]

LEVEL = 0.5
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
"""The colours of Okabe and Ito, which most eyes tell apart; their darkest first."""
STROKES = ("-", "--", "-.", (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)))
MARKS = ("o", "D", "s", "^", "v")
FAINT: dict[str, Any] = {"color": "0.35", "linewidth": 1.0, "linestyle": ":"}


def _styles(names: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    r"""Returns the colour and the stroke of each line: told apart in grey, too."""
    pairs = zip(names, cycle(COLOURS), cycle(STROKES), strict=False)
    return {name: {"color": c, "linestyle": s, "linewidth": 1.4} for name, c, s in pairs}


def _edges(frequency: Float[ndarray, " k"]) -> Float[ndarray, " k+1"]:
    r"""Returns the wavelengths between frequencies, and those at both ends."""
    if len(frequency) == 1:
        return 1 / (frequency[0] * np.array([0.7, 1.4]))
    middle = (frequency[1:] + frequency[:-1]) / 2
    first = max(frequency[0] - (middle[0] - frequency[0]), frequency[0] / 2)
    last = frequency[-1] + (frequency[-1] - middle[-1])
    return 1 / np.concatenate([[first], middle, [last]])


def _plain(ax: Axes, *names: str) -> None:
    r"""Writes logarithmic axes in plain numbers: 1, 2, 5, 10."""
    for name in names:
        axis = getattr(ax, f"{name}axis")
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        axis.set_minor_formatter(NullFormatter())


def _check_frequency(where: str, frequency: ndarray, shape: tuple[int, ...], axis: int) -> None:
    f = np.asarray(frequency)
    if f.ndim != 1 or len(shape) <= axis or len(f) != shape[axis]:
        cure = "Give (time, lon, power), power with shape (time, lon)"
        got = f"{f.shape} for {shape}"
        raise refusal(where, "as many frequencies as the power has", got, cure)
    if len(f) == 0 or not (f > 0).all() or (np.diff(f) <= 0).any():
        cure = "Leave the frequency 0 out, and sort"
        raise refusal(where, "increasing frequencies > 0", f"{f[:3].tolist()}...", cure)


def score_plane(
    scores: Plane | Mapping[str, Plane],
    *,
    readings: Mapping[str, Mapping[str, Reading]] | Mapping[str, Reading] | None = None,
    units: tuple[str, str] = ("days", "deg"),
    level: float = LEVEL,
) -> Figure:
    r"""Draws scores by wavelength and period, a panel per method: which scales are resolved.

    The axes are logarithmic and run from the large scales, at the bottom left, to the small ones.
    The line is where the score is one half; marks are the scales that each definition reads off.

    Arguments:
        scores: Frequencies of time, frequencies of longitude, and the score
            :math:`1 - P_{error} / P_{truth}`, with shape :math:`(time, lon)`; or such triples by
            method.
        readings: The wavelength and the period that were read off, by definition, e.g.
            ``{"odc2020a": (1.22, 11.2), "robust": (1.3, 12.0)}``; by method first where ``scores``
            are by method. What is not finite has no mark, and is said in the legend.
        units: The units of the period and of the wavelength.
        level: The level of the line.

    Raises:
        ValueError: If ``scores`` is empty, if frequencies are not positive and increasing, or if
            shapes do not agree; if readings are those of an unknown method.

    Example:
        >>> f = np.array([0.1, 0.2, 0.4])
        >>> plane = (f, f, np.array([[1.0, 0.8, 0.1], [0.8, 0.6, 0.0], [0.2, 0.0, 0.0]]))
        >>> score_plane(plane, readings={"robust": (4.3, 4.3)}).axes[0].get_xlabel()
        'wavelength [deg]'
    """
    planes, read = _by_method(scores, readings)
    marks = {name: MARKS[i % len(MARKS)] for i, name in enumerate(dict.fromkeys(
        k for found in read.values() for k in found))}  # fmt: skip
    columns = len(planes) if len(planes) <= 4 else 3
    rows = -(-len(planes) // columns)
    figure = new_figure(3.3 * columns + 1.2, rows * (3.3 + 0.25 * len(marks)) + 0.2)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for ax, (name, plane) in zip(axes.flat, planes.items(), strict=False):
        drawn = _plane(ax, plane, level)
        ax.set_title(name, fontsize="medium")
        _marks(ax, read.get(name, {}), marks, units)
    for unused in axes.flat[len(planes) :]:
        unused.set_visible(False)
    _frame(axes, len(planes), units)
    bar = figure.colorbar(drawn, ax=list(axes.flat), label="score", extend="min", pad=0.02)
    bar.ax.axhline(level, color="k", linewidth=1.2)
    bar.outline.set_visible(False)
    return figure


def _by_method(scores: Any, readings: Any) -> tuple[dict[str, Plane], dict[str, Any]]:
    single = not isinstance(scores, Mapping)
    planes = {"": scores} if single else dict(scores)
    read = {"": readings or {}} if single else dict(readings or {})
    if not planes:
        raise refusal(call("score_plane", "scores"), "one method or more", "none", "Pass a score")
    if unknown := set(read) - set(planes):
        expected, cure = f"methods among {', '.join(planes)}", "Name methods, then definitions"
        raise refusal(call("score_plane", "readings"), expected, ", ".join(sorted(unknown)), cure)
    for name, plane in planes.items():
        where = call("score_plane", f"scores[{name!r}]" if name else "scores")
        if len(plane) != 3:
            got, cure = f"{len(plane)} arrays", "Give those of one method, or a dict of methods"
            raise refusal(where, "(time, lon, power)", got, cure)
        for axis in (0, 1):
            _check_frequency(where, plane[axis], np.shape(plane[2]), axis)
    return planes, read


def _plane(ax: Axes, plane: Plane, level: float) -> QuadMesh:
    time, lon, power = (np.asarray(x, dtype=np.float64) for x in plane)
    drawn = ax.pcolormesh(
        _edges(lon), _edges(time), np.ma.masked_invalid(power), cmap=cmocean.cm.ice,
        vmin=0, vmax=1, rasterized=True,
    )  # fmt: skip
    finite = power[np.isfinite(power)]
    if min(power.shape) > 1 and finite.size and finite.min() < level < finite.max():
        line = ax.contour(1 / lon, 1 / time, np.ma.masked_invalid(power), [level], colors="w")
        # white within black: seen on any colour, and in grey
        line.set(linewidth=1.6, path_effects=[withStroke(linewidth=3.4, foreground="k")])
    ax.set(xscale="log", yscale="log")
    ax.set_facecolor("0.72")
    return drawn


def _marks(
    ax: Axes, read: Mapping[str, Reading], marks: Mapping[str, str], units: tuple[str, str]
) -> None:
    handles = []
    for name, (x, t) in read.items():
        look: dict[str, Any] = {"marker": marks[name], "markersize": 8, "linestyle": "none"}
        look |= {"markerfacecolor": "w", "markeredgecolor": "k", "markeredgewidth": 1.3}
        said = f"{name}: {_said(x, units[1])}, {_said(t, units[0])}"
        if np.isfinite([x, t]).all():
            handles += ax.plot([x], [t], label=said, clip_on=False, zorder=5, **look)
        else:
            handles.append(Line2D([], [], linestyle="none", label=said))
    if handles:
        ax.legend(handles=handles, frameon=False, fontsize="small", loc="upper center",
                  bbox_to_anchor=(0.5, -0.17), borderaxespad=0)  # fmt: skip


def _said(value: float, unit: str) -> str:
    if np.isnan(value):
        return "undefined"
    return f"{value:.3g} {unit}" if np.isfinite(value) else "unresolved"


def _frame(axes: ndarray, used: int, units: tuple[str, str]) -> None:
    first = axes[0, 0]
    first.invert_xaxis()
    first.invert_yaxis()
    for i, ax in enumerate(axes.flat[:used]):
        _plain(ax, "x", "y")
        if i + axes.shape[1] >= used:
            ax.set_xlabel(f"wavelength [{units[1]}]")
            ax.tick_params(labelbottom=True)
        if i % axes.shape[1] == 0:
            ax.set_ylabel(f"period [{units[0]}]")


def track_spectra(
    reference: Spectrum,
    maps: Mapping[str, Spectrum],
    errors: Mapping[str, Spectrum],
    *,
    readings: Mapping[str, float] | None = None,
    units: tuple[str, str] = ("km", "m²/cpkm"),
    level: float = LEVEL,
) -> Figure:
    r"""Draws spectra along tracks, and the score of each scale.

    .. math:: S(k) = 1 - P_{error}(k) / P_{reference}(k)

    On the left the spectra of the reference, of the maps and (thin) of their errors; on the right
    the scores, which cross one half at the scale that is resolved. The axis of wavelengths is
    logarithmic, from the large scales to the small ones; the frequency 0 is left out.

    Arguments:
        reference: The frequencies, and the spectrum of the data.
        maps: The frequencies and the spectrum of each map at the data.
        errors: Those of each map minus the data; its frequencies are those of the reference.
        readings: The wavelength that was read off for each map, drawn on the level.
        units: The units of the wavelength and of the spectra.
        level: The level of the line.

    Raises:
        ValueError: If there is no error, or if its frequencies are not those of the reference.

    Example:
        >>> f = np.array([0.0, 0.005, 0.01, 0.02])
        >>> data, error = (f, np.array([9.0, 4.0, 2.0, 1.0])), (f, np.array([0.1, 0.4, 1.0, 1.0]))
        >>> figure = track_spectra(data, {}, {"OI": error}, readings={"OI": 100.0})
        >>> figure.axes[1].get_lines()[0].get_ydata()
        array([0.9, 0.5, 0. ])
    """
    _check_spectra(reference, maps, errors, readings or {})
    figure = new_figure(9.6, 3.9)
    left, right = figure.subplots(1, 2)
    styles = _styles(dict.fromkeys([*errors, *maps]))
    _line(left, reference, label="data", color="k", linewidth=2.0)
    for name, spectrum in maps.items():
        _line(left, spectrum, label=name, **styles[name])
    for name, spectrum in errors.items():
        thin = styles[name] | {"linewidth": 0.8}
        _line(left, spectrum, label=f"error of {name}", **thin)
        score = 1 - spectrum[1] / reference[1]
        at = (readings or {}).get(name, np.nan)
        said = f"{name}: {_said(at, units[0])}" if name in (readings or {}) else name
        _line(right, (spectrum[0], score), label=said, **styles[name])
        if np.isfinite(at):
            right.plot([at], [level], marker="o", color=styles[name]["color"],
                       markeredgecolor="k", linestyle="none", zorder=5)  # fmt: skip
    right.axhline(level, **FAINT, zorder=0)
    left.set(yscale="log", ylabel=f"spectrum [{units[1]}]")
    right.set(ylim=(-0.05, 1.02), ylabel="score")
    for ax, place in ((left, "lower left"), (right, "lower left")):
        ax.set(xscale="log", xlabel=f"wavelength [{units[0]}]")
        ax.invert_xaxis()
        _plain(ax, "x")
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, fontsize="small", loc=place)
    return figure


def _line(ax: Axes, spectrum: Spectrum, **style: Any) -> None:
    frequency, power = (np.asarray(x, dtype=np.float64) for x in spectrum)
    kept = frequency > 0
    ax.plot(1 / frequency[kept], power[kept], **style)


def _check_spectra(
    reference: Spectrum,
    maps: Mapping[str, Spectrum],
    errors: Mapping[str, Spectrum],
    readings: Mapping[str, float],
) -> None:
    if not errors:
        raise refusal(call("track_spectra", "errors"), "one error or more", "none", "Pass a map's")
    if unknown := set(readings) - set(errors):
        expected = f"names among {', '.join(errors)}"
        got = ", ".join(sorted(unknown))
        raise refusal(call("track_spectra", "readings"), expected, got, "Name the errors alike")
    for name, (frequency, power) in (("reference", reference), *maps.items(), *errors.items()):
        if np.shape(frequency) != np.shape(power) or np.ndim(power) != 1:
            got = f"{np.shape(frequency)} and {np.shape(power)}"
            cure = "Give one power per frequency"
            raise refusal(call("track_spectra", name), "two vectors of one size", got, cure)
    for name, (frequency, _) in errors.items():
        alike = np.shape(frequency) == np.shape(reference[0])
        if not alike or not np.allclose(frequency, reference[0]):
            cure = "Cut the same segments"
            expected = "the frequencies of the reference"
            raise refusal(call("track_spectra", name), expected, "others", cure)


def rmse_in_time(
    time: Shaped[ndarray, " n"],
    values: Mapping[str, Float[ndarray, " n"]],
    *,
    bands: Mapping[str, tuple[ndarray, ndarray]] | None = None,
    count: Float[ndarray, " n"] | None = None,
    label: str = "RMSE",
    units: str = "m",
) -> Figure:
    r"""Draws scores date by date, with their bands, over the number of data.

    A line ends where a score is NaN, or where dates are lacking: over 1.5 times their median step.

    Arguments:
        time: The dates, increasing.
        values: The scores by method, e.g. the RMSE of each date.
        bands: The ends of the band of a method, e.g. where its own std puts the RMSE.
        count: The number of data of each date, drawn as bars.
        label: What the scores are.
        units: Their units; none for scores without.

    Raises:
        ValueError: If there is no score, or if shapes do not agree.

    Example:
        >>> days = np.datetime64("2012-10-22") + np.arange(4)
        >>> rmse_in_time(days, {"OI": np.array([0.1, 0.2, np.nan, 0.1])}).axes[0].get_ylabel()
        'RMSE [m]'
    """
    bands = bands or {}
    _check_times(time, values, bands, count)
    figure = new_figure(8.6, 3.4 if count is None else 4.4)
    ratios = [1] if count is None else [3, 1]
    axes = figure.subplots(len(ratios), 1, squeeze=False, sharex=True, height_ratios=ratios)[:, 0]
    for name, style in _styles(values).items():
        axes[0].plot(*_broken(time, values[name]), label=name, **style)
        if name in bands:
            when, low = _broken(time, bands[name][0])
            _, high = _broken(time, bands[name][1])
            axes[0].fill_between(when, low, high, color=style["color"], alpha=0.2, linewidth=0)
    axes[0].set_ylabel(f"{label} [{units}]" if units else label)
    if len(values) > 1 or bands:
        axes[0].legend(frameon=False, fontsize="small", ncols=4, loc="lower left",
                       bbox_to_anchor=(0, 1), borderaxespad=0.2)  # fmt: skip
    if count is not None:
        axes[1].bar(time, count, width=_step(time), color="0.6", linewidth=0)
        axes[1].set_ylabel("data")
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.margins(x=0.01)
    if np.asarray(time).dtype.kind == "M":
        locator = AutoDateLocator(minticks=4, maxticks=9)
        axes[-1].xaxis.set_major_locator(locator)
        axes[-1].xaxis.set_major_formatter(ConciseDateFormatter(locator))
    else:
        axes[-1].set_xlabel("time")
    return figure


def _step(time: ndarray) -> Any:
    one = np.timedelta64(1, "D") if np.asarray(time).dtype.kind == "M" else 1.0
    return np.median(np.diff(time)) if len(time) > 1 else one


def _broken(time: ndarray, values: ndarray) -> tuple[ndarray, ndarray]:
    r"""Returns a line with a NaN where dates are lacking."""
    time, values = np.asarray(time), np.asarray(values, dtype=np.float64)
    gaps = np.flatnonzero(np.diff(time) > 1.5 * _step(time)) + 1
    return np.insert(time, gaps, time[gaps - 1] + _step(time)), np.insert(values, gaps, np.nan)


def _check_times(
    time: ndarray,
    values: Mapping[str, ndarray],
    bands: Mapping[str, tuple[ndarray, ndarray]],
    count: ndarray | None,
) -> None:
    if not values or len(time) == 0:
        raise refusal(
            call("rmse_in_time", "values"), "one score or more", "none", "Pass {'OI': rmse}"
        )
    if (np.diff(time) <= np.diff(time)[:1] * 0).any():
        raise refusal(
            call("rmse_in_time", "time"), "increasing dates", "dates that do not", "Sort them"
        )
    if unknown := set(bands) - set(values):
        expected, got = f"names among {', '.join(values)}", ", ".join(sorted(unknown))
        raise refusal(call("rmse_in_time", "bands"), expected, got, "Name the scores alike")
    given = dict(values) if count is None else {**values, "count": count}
    for name, ends in bands.items():
        given |= {f"lower band of {name}": ends[0], f"upper band of {name}": ends[1]}
    for name, found in given.items():
        if np.shape(found) != (len(time),):
            got = f"shape {np.shape(found)} for '{name}'"
            raise refusal(
                call("rmse_in_time", "values"), f"shape ({len(time)},)", got, "Give one per date"
            )
