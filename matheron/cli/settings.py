r"""Settings of a fit or of a map, from the command line and from TOML."""

from __future__ import annotations

__all__ = ["LEARNED", "MARKOV", "METHODS", "Settings"]

import math
import sys

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

from ..data import InputError
from ..solvers import InducingPoints, Kriging, Solver, SparseCholesky, Taper, Vecchia
from ..solvers.base import LikelihoodSolver

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MARKOV = ("spde", "advection-diffusion")
"""The methods with a prior of their own, and one solver."""
LEARNED = ("unet", "4dvarnet", "fixedpoint", "4dvarnet-spde")
"""The methods that learn on an experiment."""
METHODS = ("auto", "kriging", "vecchia", "taper", "inducing", *MARKOV)


@dataclass(frozen=True)
class Settings:
    r"""What a user may set.

    Arguments:
        method: The solver, or the kind of prior.
        trend: The trend; chosen if not given.
        metric: ``sphere`` or ``plane``; the sphere for latitudes and longitudes.
        neighbors: The number of neighbours in the likelihood (Vecchia).
        prediction_neighbors: The number of neighbours of a node (Vecchia).
        inducing: The number of inducing points.
        radius: The radius of the taper, in lengthscales.
        alpha: The power of the operator (spde, advection-diffusion); chosen if not given.
        velocity: A file of velocities (advection-diffusion); a constant is learned if not given.
        seed: The seed of every random number.
    """

    method: str = "auto"
    trend: str | None = None
    metric: str | None = None
    neighbors: int = 30
    prediction_neighbors: int = 60
    inducing: int = 500
    radius: float = 3.0
    alpha: float | None = None
    velocity: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            msg = (
                f"map(method={self.method}): expected one of {', '.join(METHODS)} (or, to fit to "
                f"an OSSE, {', '.join(LEARNED)}), got {self.method!r}. Use --method auto."
            )
            raise InputError(msg)
        if self.metric not in {None, "sphere", "plane"}:
            msg = (
                f"map(metric={self.metric}): expected sphere or plane, got {self.metric!r}. "
                "Leave it out for the sphere where there are latitudes."
            )
            raise InputError(msg)

        self._check_markov()

    def _check_markov(self) -> None:
        if self.alpha is not None and not (0 < self.alpha < math.inf):
            msg = (
                f"map(alpha={self.alpha}): expected a finite number > 0, got {self.alpha}. "
                "Leave it out to choose by likelihood."
            )
            raise InputError(msg)
        for name, methods in (("alpha", MARKOV), ("velocity", MARKOV[1:])):
            value = getattr(self, name)
            if value is not None and self.method not in methods:
                msg = (
                    f"map({name}={value}): expected --method {' or '.join(methods)} with it, got "
                    f"{self.method}. Give that method, or leave {name} out."
                )
                raise InputError(msg)

    @classmethod
    def read(cls, path: Path | None, **given: object) -> Settings:
        r"""Returns the settings of a file, overridden by those given on the command line.

        What is ``None`` was not given.
        """
        chosen = {} if path is None else _toml(path)
        known = {f.name: f for f in fields(cls)}
        unknown = sorted(set(chosen) - set(known))
        if unknown:
            msg = (
                f"config({path}): expected keys among {', '.join(known)}, got {unknown[0]!r}. "
                "Check the spelling."
            )
            raise InputError(msg)
        for name, value in chosen.items():
            _check_type(path, name, value)
        extra = {k: v for k, v in given.items() if v is not None}
        if extra.get("method") not in {None, *MARKOV}:  # what the file says of another method
            chosen = {k: v for k, v in chosen.items() if k not in {"alpha", "velocity"}}
        both = chosen | extra
        return cls(**both)  # type: ignore[arg-type]

    def solver(self) -> Solver | None:
        r"""Returns the solver that was asked for, or ``None`` to choose one."""
        makers: dict[str, Callable[[], Solver]] = {
            "kriging": Kriging,
            "vecchia": lambda: Vecchia(self.neighbors, self.prediction_neighbors),
            "taper": lambda: Taper(self.radius),
            "inducing": lambda: InducingPoints(self.inducing),
        }
        return makers[self.method]() if self.method in makers else None

    def likelihood_solver(self) -> LikelihoodSolver | None:
        r"""Returns the solver whose likelihood is to be fitted, or ``None`` to choose one."""
        solver = SparseCholesky() if self.method in MARKOV else self.solver()
        if solver is None or isinstance(solver, LikelihoodSolver):
            return solver
        msg = (
            f"fit(method={self.method}): expected a method with a likelihood, got "
            f"{self.method!r}. Fit with --method auto, and give {self.method} to `matheron map`."
        )
        raise InputError(msg)


def _toml(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"config({path}): expected a file, got {error.strerror}. Check the path."
        raise InputError(msg) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        msg = f"config({path}): expected TOML, got {error}. Write e.g. neighbors = 30."
        raise InputError(msg) from None


KINDS: dict[str, type] = {
    **dict.fromkeys(("method", "trend", "metric", "velocity"), str),
    **dict.fromkeys(("neighbors", "prediction_neighbors", "inducing", "seed"), int),
    **dict.fromkeys(("radius", "alpha"), float),
}


def _check_type(path: Path | None, name: str, value: object) -> None:
    kind = KINDS[name]
    fine = isinstance(value, kind) or (kind is float and isinstance(value, int))
    if not fine or isinstance(value, bool):
        msg = f"config({path}): expected {name} to be {kind.__name__}, got {value!r}. Correct it."
        raise InputError(msg)
    if isinstance(value, int | float) and not _in_range(name, value):
        wanted = "seed from 0 to 2^63 - 1" if name == "seed" else f"finite {name} > 0"
        msg = f"config({path}): expected a {wanted}, got {value}. Correct it."
        raise InputError(msg)


def _in_range(name: str, value: int | float) -> bool:
    return 0 <= value < 2**63 if name == "seed" else 0 < value < math.inf
