"""Local OI against the challenge's own algorithm: 42 days on a 0.1 degree grid, in one run.

The peer is the algorithm of the 2020a challenge, written afresh in numpy from its formulas: for
each day a dense inverse of the covariance of the data within 14 days, and its product with the
dense covariance of nodes and data, whose columns are filled datum after datum. Ours is
``oi_odc2020a``, which gives the same map. Both take the same coarsened data of four synthetic
nadir tracks, and as many threads as OMP_NUM_THREADS says.
"""

from __future__ import annotations

import argparse
import math
import numpy as np
import os
import sys
import time
import torch

from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import finish

import matheron as mt

from matheron.mappers import coarsen, oi_odc2020a

DAYS, BEFORE = 42, 15
NOISE = 0.05
SCALES = (7.0, 1.0, 1.0)


def one_pass(k: int, mission: int) -> np.ndarray:
    """A straight pass through the box, every 6.7 km: time, lat and lon."""
    lat = np.arange(32.0, 44.0, 0.06)
    up = 1 if k % 2 else -1
    crossing = 293.0 + 14.0 * math.modf(0.618034 * k + 0.25 * mission)[0]
    start = 0.9 * k + 0.2 * mission - BEFORE
    lon = crossing + 0.45 * up * (lat - 38.0)
    points = np.stack([start + np.arange(len(lat)) * 1e-5, lat[::up], lon[::up]], axis=-1)
    return points[(points[:, 2] >= 294) & (points[:, 2] <= 306)]


def truth(points: np.ndarray) -> np.ndarray:
    """Waves that drift to the west, and a front."""
    t, lat, lon = points.T
    front = 0.5 * np.tanh((38.0 - lat) / 1.5)
    waves = [(0.9, 0.7, 0.11, 0.12), (1.7, -1.3, 0.15, 0.08), (0.4, 1.1, 0.05, 0.15)]
    found = [a * np.sin(2 * (k * lon + m * lat) + w * t) for k, m, w, a in waves]
    return front + np.sum(found, axis=0)


def simulate() -> tuple[mt.Points, torch.Tensor]:
    """Returns the coarsened data of four missions, in the order of time."""
    files = []
    for mission in range(4):
        count = math.ceil((DAYS + 2 * BEFORE) / 0.9)
        track = np.concatenate([one_pass(k, mission) for k in range(count)])
        columns = dict(zip(("time", "lat", "lon"), track.T, strict=True))
        files.append(coarsen(columns | {"ssh": truth(track)}))
    joined = {k: torch.cat([f[k] for f in files]) for k in files[0]}
    order = joined["time"].argsort()
    joined = {k: v[order] for k, v in joined.items()}
    return mt.Points(**{k: joined[k] for k in ("time", "lat", "lon")}), joined["ssh"]


def peer(points: np.ndarray, y: np.ndarray, nodes: np.ndarray, day: float) -> np.ndarray:
    """The map of one day: B H' (H B H' + R)^-1 y, the inverse and both products dense."""
    near = np.abs(points[:, 0] - day) < 2 * SCALES[0]
    s, v = points[near], y[near]
    m = len(s)
    cross, within = np.empty((len(nodes), m)), np.empty((m, m))
    for j in range(m):
        for matrix, x in ((cross, nodes), (within, s)):
            lags = [(x[:, i] - s[j, i]) / SCALES[i] for i in range(3)]
            matrix[:, j] = np.exp(-(lags[0] ** 2) - lags[1] ** 2 - lags[2] ** 2)
    inverse = np.linalg.inv(within + np.diag(np.full(m, NOISE**2)))
    return np.dot(np.dot(cross, inverse), v)


def clock() -> np.ndarray:
    return np.array([time.perf_counter(), time.process_time()])


def main() -> None:
    """Maps 42 days by ours, and as many of them as asked for by the peer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="the days that the peer maps")
    every = parser.parse_args().every
    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    torch.set_num_threads(threads)
    points, y = simulate()
    lat, lon = np.linspace(33, 43, 101), np.linspace(295, 305, 101)
    grid = mt.Grid(time=np.arange(DAYS, dtype=float), lat=lat, lon=lon)
    oi_odc2020a(points, y, mt.Grid(time=[0.0], lat=lat[:5], lon=lon[:5]))  # warm
    start = clock()
    posterior = oi_odc2020a(points, y, grid)
    found = grid.unflatten(posterior.mean).numpy()
    ours = clock() - start
    start = clock()
    posterior.std()
    spread = clock() - start
    days = range(0, DAYS, every)
    nodes = np.stack([a.ravel() for a in np.meshgrid(0.0, lat, lon, indexing="ij")], axis=-1)
    start, worst = clock(), 0.0
    for day in days:
        nodes[:, 0] = day
        expected = peer(points.coords.numpy(), y.numpy(), nodes, float(day))
        worst = max(worst, np.abs(found[day].ravel() - expected).max())
    theirs = (clock() - start) * DAYS / len(days)
    info, load = posterior.info, os.getloadavg()[0]
    note = f"{len(days)} of {DAYS} days by the peer; load {load:.1f}; {threads} threads"
    rows = [
        {"what": "data in a window, most", "ours": info["data_most"]},
        {"what": "seconds of the processors", "ours": ours[1], "challenge": theirs[1]},
        {"what": "seconds of the wall", "ours": ours[0], "challenge": theirs[0]},
        {"what": "ratio of the processors", "ours": theirs[1] / ours[1], "note": note},
        {"what": "largest difference, m", "ours": worst},
        {"what": "seconds of the std, processors", "ours": spread[1], "note": "no std of theirs"},
    ]
    finish(f"Local OI, {DAYS} days on 101 x 101 nodes", "local_oi", rows)


if __name__ == "__main__":
    main()
