"""Sparse Cholesky side by side with other factorisations, on precisions of maps and space-time.

``m1000`` is a Matern field (alpha = 2) on 1000 x 1000 nodes, ``st200`` nine steps of advection and
diffusion on 200 x 200 nodes with a full, varying diffusion tensor; both conditioned on data at one
node of twenty. Each problem runs in a process of its own, for its peak of memory; the same library
is run alone in another one for the peak of each peer. Peers run where they are installed: CHOLMOD
(scikit-sparse, or the one of cvxopt), PARDISO (pypardiso), and SuperLU (scipy) on small problems.
"""

from __future__ import annotations

import argparse
import importlib
import json
import numpy as np
import os
import resource
import scipy.sparse as sparse
import scipy.sparse.linalg as sparse_linalg
import statistics
import subprocess
import sys
import tempfile
import time
import torch

from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import finish

from matheron.linalg.cholesky import Analysis, Cholesky, warm_up
from matheron.linalg.sparse import Sparse

THREADS, COLUMNS, STEPS = 2, 100, 9
PROBLEMS = ("m200", "m500", "m1000", "st100", "st200")
SLOW = {"superlu": 250_000, "cvxopt": 1_100_000}
"""The unknowns up to which a slow peer is run."""
Row = dict[str, object]


def line(n: int) -> sparse.dia_array:
    diagonal = np.r_[1.0, np.full(n - 2, 2.0), 1.0]
    return sparse.diags_array([-np.ones(n - 1), diagonal, -np.ones(n - 1)], offsets=[-1, 0, 1])


def laplacian(n: int) -> sparse.csc_array:
    one = sparse.eye_array(n)
    return sparse.csc_array(sparse.kron(line(n), one) + sparse.kron(one, line(n)))


def observed(n: int) -> sparse.dia_array:
    seen = np.random.default_rng(0).random(n) < 0.05
    return sparse.diags_array(seen / 0.1**2)


def matern(n: int) -> sparse.csc_array:
    """Matern field with a range of twenty nodes: 13 points."""
    shift = 8.0 / 20.0**2
    K = laplacian(n) + shift * sparse.eye_array(n * n)
    return sparse.csc_array(K.T @ K / (4 * np.pi * shift) + observed(n * n))


def transport(n: int) -> sparse.csc_array:
    """One implicit step of advection and diffusion: 9 points, upwind."""
    y, x = np.meshgrid(np.arange(n), np.arange(n), indexing="ij")
    angle = np.sin(2 * np.pi * x / n) + np.cos(2 * np.pi * y / n)
    c, s = np.cos(angle), np.sin(angle)
    Hx, Hy, Hxy = 4 * c * c + s * s, 4 * s * s + c * c, 3 * c * s
    u, v = np.sin(2 * np.pi * y / n), np.cos(2 * np.pi * x / n)
    weights = {
        (0, 1): -Hx - np.maximum(-u, 0), (0, -1): -Hx - np.maximum(u, 0),
        (1, 0): -Hy - np.maximum(-v, 0), (-1, 0): -Hy - np.maximum(v, 0),
        (1, 1): -Hxy / 2, (-1, -1): -Hxy / 2, (1, -1): Hxy / 2, (-1, 1): Hxy / 2,
    }  # fmt: skip
    middle = 1.02 + 2 * Hx + 2 * Hy + abs(u) + abs(v)
    at, total = y * n + x, sparse.diags_array(middle.ravel()).tocoo()
    for (dy, dx), weight in weights.items():
        inside = (y + dy >= 0) & (y + dy < n) & (x + dx >= 0) & (x + dx < n)
        places = at[inside], at[inside] + dy * n + dx
        total = total + sparse.coo_array((weight[inside], places), shape=(n * n, n * n))
    return sparse.csc_array(total)


def space_time(n: int) -> sparse.csc_array:
    """Block tridiagonal: 25 points on the diagonal, 9 off."""
    A, one = transport(n), sparse.eye_array(n * n)
    K = laplacian(n) + 0.02 * one
    first = sparse.diags_array(np.eye(STEPS)[0])
    later, last = sparse.eye_array(STEPS) - first, sparse.diags_array(np.eye(STEPS)[-1])
    Q = sparse.kron(first, 4.0 * K.T @ K) + 10.0 * sparse.kron(later, A.T @ A)
    Q += 10.0 * sparse.kron(sparse.eye_array(STEPS) - last, one)
    down = sparse.kron(sparse.eye_array(STEPS, k=-1), A.T)
    Q = Q - 10.0 * (down + down.T)
    return sparse.csc_array(Q + observed(STEPS * n * n))


def problem(name: str) -> tuple[sparse.csc_array, np.ndarray]:
    """Returns a precision and the coordinates of its unknowns."""
    moving = name.startswith("st")
    n = int(name.lstrip("mst"))
    axes = ([np.arange(float(STEPS))] if moving else []) + [np.arange(float(n))] * 2
    places = np.stack([a.ravel() for a in np.meshgrid(*axes, indexing="ij")], axis=1)
    Q = sparse.csc_array(space_time(n) if moving else matern(n))
    Q.sort_indices()
    return Q, places


class Ours:
    """The library's own."""

    def __init__(self, Q: sparse.csc_array, places: np.ndarray) -> None:
        self.Q, self.places = Sparse.from_scipy(Q), torch.as_tensor(places)

    def analyse(self) -> None:
        self.analysis = Analysis(self.Q.pattern, self.places)

    def factorise(self) -> None:
        self.factor: Any = None  # its memory serves again
        self.factor = Cholesky(self.Q, self.analysis)

    def solve(self, b: np.ndarray) -> np.ndarray:
        return self.factor.solve(torch.as_tensor(b)).numpy()

    def sample(self, z: np.ndarray) -> np.ndarray:
        return self.factor.sqrt_solve(torch.as_tensor(z)).numpy()

    def variances(self) -> None:
        self.factor._inverse = None  # forgotten, to be worked out again
        self.factor.variance()

    def log_determinant(self) -> float:
        return self.factor.logdet().item()


class Cholmod:
    """CHOLMOD through scikit-sparse."""

    def __init__(self, Q: sparse.csc_array, places: np.ndarray) -> None:
        self.Q = sparse.csc_matrix(Q)

    def analyse(self) -> None:
        from sksparse.cholmod import analyze

        self.factor = analyze(self.Q, mode="supernodal", ordering_method="best")

    def factorise(self) -> None:
        self.factor.cholesky_inplace(self.Q)

    def solve(self, b: np.ndarray) -> np.ndarray:
        return self.factor(b)

    def sample(self, z: np.ndarray) -> np.ndarray:
        return self.factor.apply_Pt(self.factor.solve_Lt(z, use_LDLt_decomposition=False))

    def log_determinant(self) -> float:
        return self.factor.logdet()


class Cvxopt:
    """CHOLMOD through cvxopt."""

    def __init__(self, Q: sparse.csc_array, places: np.ndarray) -> None:
        import cvxopt

        low = sparse.coo_array(sparse.tril(Q))
        self.matrix, self.shape = cvxopt.matrix, Q.shape
        self.Q = cvxopt.spmatrix(low.data, low.row.astype(int), low.col.astype(int), Q.shape)

    def analyse(self) -> None:
        from cvxopt import cholmod

        cholmod.options["supernodal"] = 2
        self.cholmod, self.factor = cholmod, cholmod.symbolic(self.Q)

    def factorise(self) -> None:
        self.cholmod.numeric(self.Q, self.factor)

    def solve(self, b: np.ndarray) -> np.ndarray:
        x = self.matrix(np.asfortranarray(b))
        self.cholmod.solve(self.factor, x)
        return np.array(x).reshape(b.shape)

    def log_determinant(self) -> float:
        return 2 * float(np.log(np.array(self.cholmod.diag(self.factor))).sum())


class Pardiso:
    """PARDISO of MKL through pypardiso."""

    def __init__(self, Q: sparse.csc_array, places: np.ndarray) -> None:
        from pypardiso import PyPardisoSolver

        self.Q = sparse.csr_matrix(sparse.triu(Q))
        self.solver = PyPardisoSolver(mtype=2)

    def run(self, phase: int, b: np.ndarray) -> np.ndarray:
        self.solver.set_phase(phase)
        return self.solver._call_pardiso(self.Q, b)

    def analyse(self) -> None:
        self.run(11, np.zeros((self.Q.shape[0], 1)))

    def factorise(self) -> None:
        self.run(22, np.zeros((self.Q.shape[0], 1)))

    def solve(self, b: np.ndarray) -> np.ndarray:
        return self.run(33, np.asfortranarray(b))


class SuperLU:
    """SuperLU of scipy, which has no symbolic step of its own."""

    def __init__(self, Q: sparse.csc_array, places: np.ndarray) -> None:
        self.Q = Q

    def factorise(self) -> None:
        options = {"SymmetricMode": True}
        self.factor = sparse_linalg.splu(
            self.Q, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options
        )

    def solve(self, b: np.ndarray) -> np.ndarray:
        return self.factor.solve(b)

    def log_determinant(self) -> float:
        return float(np.log(np.abs(self.factor.U.diagonal())).sum())


LIBRARIES: dict[str, tuple[Any, str]] = {
    "matheron": (Ours, "matheron"),
    "cholmod": (Cholmod, "sksparse"),
    "cvxopt": (Cvxopt, "cvxopt"),
    "pardiso": (Pardiso, "pypardiso"),
    "superlu": (SuperLU, "scipy"),
}


def tasks(library: Any, n: int) -> dict[str, Callable[[], Any]]:
    """Returns what a library can do, in order."""
    rng = np.random.default_rng(0)
    b, B = rng.standard_normal(n), rng.standard_normal((n, COLUMNS))
    found: dict[str, Callable[[], Any]] = {}
    if not isinstance(library, SuperLU):
        found["symbolic"] = library.analyse
    found |= {"first factor": library.factorise, "factor again": library.factorise}
    found |= {"solve 1": lambda: library.solve(b), f"solve {COLUMNS}": lambda: library.solve(B)}
    if isinstance(library, (Ours, Cholmod)):
        found[f"sample {COLUMNS}"] = lambda: library.sample(B)
    if isinstance(library, Ours):
        found["inverse on the pattern"] = library.variances
    return found


def clock(libraries: dict[str, Any], n: int, times: int) -> list[Row]:
    """Clocks each step of all libraries in turn, so that a load on the machine falls on all."""
    steps = {name: tasks(library, n) for name, library in libraries.items()}
    rows: list[Row] = []
    for what in steps["matheron"]:
        taken: dict[str, list[tuple[float, float]]] = {}
        for _ in range(1 if what in ("symbolic", "first factor") else times):
            for name in (k for k in steps if what in steps[k]):
                start = time.perf_counter(), time.process_time()
                steps[name][what]()
                wall, processors = time.perf_counter() - start[0], time.process_time() - start[1]
                taken.setdefault(name, []).append((wall, processors))
        row: Row = {"what": what}
        for name, each in taken.items():
            wall, processors = (statistics.median(v) for v in zip(*each, strict=True))
            row |= {f"{name}_s": wall, f"{name}_cpu_s": processors}
        rows.append(row | {"load": os.getloadavg()[0]})
    return rows


def agreement(libraries: dict[str, Any], Q: sparse.csc_array) -> list[Row]:
    """Compares solutions and log-determinants."""
    b = np.random.default_rng(1).standard_normal(Q.shape[0])
    residual: Row = {"what": "residual"}
    for name, library in libraries.items():
        x = library.solve(b)
        residual[f"{name}_s"] = float(np.linalg.norm(Q @ x.ravel() - b) / np.linalg.norm(b))
    determinant: Row = {"what": "log-determinant"}
    for name, library in libraries.items():
        if not isinstance(library, Pardiso):
            determinant[f"{name}_s"] = library.log_determinant()
    return [residual, determinant]


def one_problem(name: str, names: list[str], times: int) -> list[Row]:
    torch.set_num_threads(THREADS)
    warm_up()
    Q, places = problem(name)
    libraries = {k: LIBRARIES[k][0](Q, places) for k in names}
    rows = clock(libraries, Q.shape[0], times)
    rows += agreement(libraries, Q)
    return [{"problem": name, "n": Q.shape[0], **row} for row in rows]


def peak(name: str, library: str) -> float:
    """Returns the peak of memory of one library alone, in GiB, beyond that of the problem."""
    torch.set_num_threads(THREADS)
    Q, places = problem(name)
    one = LIBRARIES[library][0](Q, places)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if library != "superlu":
        one.analyse()
    one.factorise()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20


def apart(*arguments: str) -> Any:
    """Runs this file in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows.json"
        threads = {k: str(THREADS) for k in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        command = [sys.executable, __file__, *arguments, "--out", str(out)]
        subprocess.run(command, check=True, env={**os.environ, **threads})
        return json.loads(out.read_text())


def importable(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True


def available(problem: str) -> list[str]:
    """Returns the libraries that are installed and not too slow for a problem."""
    size = int(problem.lstrip("mst")) ** 2 * (STEPS if problem.startswith("st") else 1)
    moving = problem.startswith("st")
    found = [k for k, (_, module) in LIBRARIES.items() if importable(module)]
    limits = {k: v / 10 if moving else v for k, v in SLOW.items()}
    return [k for k in found if size <= limits.get(k, size)]


def main() -> None:
    """Runs the problems one after another."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("problems", nargs="*", default=PROBLEMS)
    parser.add_argument("--times", type=int, default=5, help="repetitions of each step")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.out:
        name = given.problems[0]
        found = (
            peak(name, given.peak)
            if given.peak
            else one_problem(name, available(name), given.times)
        )
        given.out.write_text(json.dumps(found))
        return
    for name in given.problems:
        rows = apart(name, "--times", str(given.times))
        memory: Row = {"problem": name, "n": rows[0]["n"], "what": "memory to factorise, GiB"}
        memory |= {f"{k}_s": apart(name, "--peak", k) for k in available(name)}
        finish(f"Sparse Cholesky, {name}, {THREADS} threads", "sparse_cholesky", [*rows, memory])


if __name__ == "__main__":
    main()
