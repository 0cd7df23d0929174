"""What the pictures share: a small ocean, and a look for labels that collide or are cut."""

import itertools
import numpy as np
import pytest
import xarray as xr

from matplotlib.backends.backend_agg import FigureCanvasAgg

SLACK = 1.0  # pixels


def _texts(figure):
    for ax in figure.axes:
        if not ax.get_visible():
            continue
        yield ax.title
        legend = ax.get_legend()
        yield from legend.get_texts() if legend else ()
        yield from ax.texts
        for axis in (ax.xaxis, ax.yaxis):
            yield axis.label
            low, high = sorted(axis.get_view_interval())
            ticks = [t for t in axis.get_major_ticks() if low <= t.get_loc() <= high]
            yield from (t for k in ticks for t in (k.label1, k.label2) if t.get_visible())


def _boxes(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    shown = [t for t in _texts(figure) if t.get_text() and t.get_visible()]
    return [(t.get_text(), t.get_window_extent(renderer)) for t in shown]


def _trouble(figure):
    boxes, frame = _boxes(figure), figure.bbox
    pairs = itertools.combinations(boxes, 2)
    found = [(a, b) for (a, p), (b, q) in pairs if p.overlaps(q)]
    cut = [
        a
        for a, p in boxes
        if min(p.x0 - frame.x0, p.y0 - frame.y0, frame.x1 - p.x1, frame.y1 - p.y1) < -SLACK
    ]
    return found + cut


@pytest.fixture(scope="session")
def trouble():
    """The texts of a figure that overlap, or that its edges cut."""
    return _trouble


def _ocean(step, land=False, days=5):
    lat, lon = np.arange(33.0, 43.01, step), np.arange(-65.0, -54.99, step)
    time = np.datetime64("2012-10-22", "ns") + np.arange(days) * np.timedelta64(1, "D")
    rng = np.random.default_rng(1)
    height = np.zeros((days, lat.size, lon.size))
    for _ in range(20):
        y, x, amplitude, size = rng.uniform((33, -65, -0.5, 0.5), (43, -55, 0.5, 1.2))
        east = lon - x + 0.06 * np.arange(days)[:, None, None]
        height += amplitude * np.exp(-((lat[:, None] - y) ** 2 + east**2) / (2 * size**2))
    if land:
        height[:, lat > 41, :4] = np.nan
    return xr.DataArray(height, {"time": time, "lat": lat, "lon": lon})


@pytest.fixture(scope="session")
def ocean():
    """Eddies that drift west: ``ocean(step, land=False, days=5)``."""
    return _ocean
