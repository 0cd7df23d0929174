"""A nature run side by side with the same equations in plain numpy, in one run.

The peer is what one would write in an afternoon: two layers, numpy's transforms, Adams-Bashforth
of third order in double precision, with the longest step that it bears. Both start from the same
turbulence. The peer is clocked on fewer days, in turns with ours, and its time is scaled to all.
"""

from __future__ import annotations

import argparse
import math
import numpy as np
import os
import sys
import time
import torch

from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import finish

from matheron.dynamics import TwoLayerQG
from matheron.osse.nature import PRESETS, nature_run

DAY = 86400.0
PEER_STEP = 1200.0
Row = dict[str, object]


class Plain:
    """Two layers in numpy: potential vorticity as a spectrum, stepped by three tendencies."""

    def __init__(self, q: np.ndarray, model: dict[str, Any]) -> None:
        n, side = q.shape[-1], model["length"]
        turn = 2 * math.pi / side
        self.k = turn * np.arange(n // 2 + 1)[None, :]
        self.l = turn * np.fft.fftfreq(n, 1 / n)[:, None]
        self.k2 = self.k**2 + self.l**2
        ratio = 0.25
        self.F = np.array([1, ratio]) / model["radius"] ** 2 / (1 + ratio)
        self.U = np.array(model["flow"])
        self.Q = model["beta"] + self.F * (self.U - self.U[::-1])
        self.drag, self.scale = model["drag"], model["coriolis"] / 9.81
        high = np.hypot(self.k, self.l) * side / n
        self.filter = np.exp(-23.6 * np.maximum(high - 0.65 * np.pi, 0) ** 4)
        self.q, self.old = np.fft.rfft2(q), []

    def psi(self) -> np.ndarray:
        """Returns the two streamfunctions."""
        det = self.k2 * (self.k2 + self.F.sum())
        det[0, 0] = np.inf
        a, b = self.q
        F, G = self.F
        return -np.array([(self.k2 + G) * a + F * b, G * a + (self.k2 + F) * b]) / det

    def rate(self) -> np.ndarray:
        """Returns the tendency of the potential vorticity."""
        psi = self.psi()
        u, v = np.fft.irfft2(-1j * self.l * psi), np.fft.irfft2(1j * self.k * psi)
        q = np.fft.irfft2(self.q)
        across, along = np.fft.rfft2((u + self.U[:, None, None]) * q), np.fft.rfft2(v * q)
        rate = -1j * self.k * (across + self.Q[:, None, None] * psi) - 1j * self.l * along
        rate[1] += self.drag * self.k2 * psi[1]
        return rate

    def run(self, days: float) -> np.ndarray:
        """Returns the sea surface height at the end."""
        weights = [(1,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12)]
        for _ in range(round(days * DAY / PEER_STEP)):
            self.old = [self.rate(), *self.old[:2]]
            w = weights[len(self.old) - 1]
            step = sum(a * b for a, b in zip(w, self.old, strict=True))
            self.q = self.filter * (self.q + PEER_STEP * step)
        return np.fft.irfft2(self.psi()[0]) * self.scale


def clock(what: str, run: Callable[[], Any]) -> tuple[Any, Row]:
    """Returns the result, and the times of the wall and of the processors."""
    wall, used = time.perf_counter(), time.process_time()
    result = run()
    took = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - used}
    return result, {"what": what, **took, "load": os.getloadavg()[0]}


def ours(q: torch.Tensor, days: float, dtype: torch.dtype, dt: float) -> np.ndarray:
    """Returns the sea surface height after some days, by the model of the nature runs."""
    model = TwoLayerQG(q.shape[-1], dt=dt, dtype=dtype, **PRESETS["gulfstream"].model)
    with torch.no_grad():
        return model.ssh(model(q.to(dtype), round(days * DAY / dt))).numpy()


def compare(size: int, days: int, peer_days: int, spin_up: int) -> list[Row]:
    """Clocks both from the same turbulence; the whole run of ours with its cut and its start."""
    region = PRESETS["gulfstream"]
    dt = region.step * 128 / size
    start = TwoLayerQG(size, dt=dt, dtype=torch.float32, **region.model)
    with torch.no_grad():
        q = start(start.initial(torch.Generator().manual_seed(0)), round(spin_up * DAY / dt))
    rows: list[Row] = []
    turns = max(1, peer_days // 10)
    peer = Plain(q.double().numpy(), region.model)
    model_s = peer_s = model_cpu = peer_cpu = 0.0
    for _ in range(turns):  # in turns, so that a load on the machine falls on both
        _, a = clock("", lambda: ours(q, peer_days / turns, torch.float32, dt))
        _, b = clock("", lambda: peer.run(peer_days / turns))
        model_s, model_cpu = model_s + float(a["wall_s"]), model_cpu + float(a["cpu_s"])
        peer_s, peer_cpu = peer_s + float(b["wall_s"]), peer_cpu + float(b["cpu_s"])
    scale = days / peer_days
    said = f"from {peer_days} days" if scale != 1 else ""
    load = os.getloadavg()[0]
    times = {"ours, steps": (model_s, model_cpu), "plain numpy, steps": (peer_s, peer_cpu)}
    for what, (wall, used) in times.items():
        row = {"what": what, "wall_s": wall * scale, "cpu_s": used * scale, "load": load}
        rows.append(row | {"note": said})
    rows[1]["note"] = f"{said}; {peer_cpu / model_cpu:.1f} times ours in processor seconds"
    options = {"size": size, "cache": False, "spin_up": 0}
    _, whole = clock("nature_run", lambda: nature_run("gulfstream", 0, days, **options))
    rows.append(whole | {"note": "snapshots every 6 h, cut to .1 degree; without spin-up"})
    h = Plain(q.double().numpy(), region.model).run(2)
    rows[0]["note"] = "; ".join(filter(None, [said, agreement(q, h, dt)]))
    return [{"size": size, "days": days, **row} for row in rows]


def agreement(q: torch.Tensor, h: np.ndarray, dt: float) -> str:
    """Says how far the two codes are apart, over the std of the field."""
    runs = [(torch.float64, PEER_STEP), (torch.float32, PEER_STEP), (torch.float32, dt)]
    apart = [np.abs(ours(q, 2, *run) - h).max() / h.std() for run in runs]
    said = (
        "apart after 2 days, over the std: {:.1e} with the same step, {:.1e} in single precision"
    )
    return (said + ", {:.1e} with ours (another strength of the filter)").format(*apart)


def main() -> None:
    """Runs the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=128, help="nodes on a side")
    parser.add_argument("--days", type=int, default=400)
    parser.add_argument("--peer-days", type=int, default=40, help="days that the peer runs")
    parser.add_argument("--spin-up", type=int, default=200)
    parser.add_argument("--quick", action="store_true", help="a small square, for a few days")
    given = parser.parse_args()
    torch.set_num_threads(1)
    size, days, peer_days, spin_up = given.size, given.days, given.peer_days, given.spin_up
    if given.quick:
        size, days, peer_days, spin_up = 64, 20, 10, 100
    rows = compare(size, days, peer_days, spin_up)
    finish(f"nature run, {size} x {size}, {days} days, one thread", "nature", rows)


if __name__ == "__main__":
    main()
