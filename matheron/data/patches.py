r"""Windows of time and patches of space, cut from long fields on large grids."""

from __future__ import annotations

__all__ = ["QUASI_GEOSTROPHIC", "Augmentation", "Mirror", "Windows"]

import functools
import itertools
import math
import torch

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from jaxtyping import Bool, Float, Int, Shaped
from torch import Generator, Tensor
from typing import Any

from .batches import Batch, Source, fingerprint_of
from .purposes import Purpose, Withhold
from ..domain import Grid

UNSIGNED = ("noise", "weights")
"""What keeps its sign where that of fields is changed."""
OWN = ("values", "mask", "truth", "hidden", "hidden_mask")
"""What a window holds beside that: covariates have other names."""
TRIES = 8
"""How often another place, or the gaps of another time, are sought for a window."""
Cut = tuple[slice, ...]


@dataclass(frozen=True)
class Mirror:
    r"""A symmetry of the law of fields: axes turned together, and perhaps the sign.

    Arguments:
        axes: The axes that are turned.
        sign: What the field is multiplied by, 1 or -1.
        others: What other fields are multiplied by, by name; those not named go with the field.

    Raises:
        ValueError: If there is no axis, or another sign.
    """

    axes: tuple[str, ...]
    sign: float = 1.0
    others: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        if not self.axes or not {self.sign, *dict(self.others).values()} <= {1.0, -1.0}:
            msg = (
                f"Mirror(axes=...): expected some axes and a sign of 1 or -1, got {self.axes} and "
                f"{self.sign}. Use e.g. Mirror(('lat',), sign=-1.0)."
            )
            raise ValueError(msg)

    @classmethod
    def of(cls, word: str) -> Mirror:
        r"""Returns the symmetry of a word.

        Example:
            >>> str(Mirror.of("-lat")), Mirror.of("time,lon").axes, Mirror.of("-lat;sst").others
            ('-lat', ('time', 'lon'), (('sst', 1.0),))
        """
        (axes, sign), *others = [_signed(part) for part in word.split(";")]
        return cls(tuple(axes.split(",")), sign, tuple(others))

    def __str__(self) -> str:
        parts = ((",".join(self.axes), self.sign), *self.others)
        return ";".join(("-" if sign < 0 else "") + name for name, sign in parts)

    def __repr__(self) -> str:
        # as before there were others: checkpoints know their data by it
        others = f", others={self.others!r}" if self.others else ""
        return f"Mirror(axes={self.axes!r}, sign={self.sign!r}{others})"

    def sign_of(self, name: str) -> float:
        r"""Returns what a part of a window is multiplied by.

        Example:
            >>> Mirror(("lat",), -1.0, (("depth", 1.0),)).sign_of("depth")
            1.0
        """
        return dict(self.others).get(name, 1.0 if name in UNSIGNED else self.sign)

    def turn(self, x: Shaped[Tensor, ...], dims: Sequence[str]) -> Shaped[Tensor, ...]:
        r"""Returns an array turned, with the sign that it had.

        Arguments:
            x: The array.
            dims: The names of its last axes.

        Example:
            >>> Mirror(("x",)).turn(torch.arange(3), ("x",)).tolist()
            [2, 1, 0]
        """
        return x.flip([dims.index(name) - len(dims) for name in self.axes])


def _signed(word: str) -> tuple[str, float]:
    return word.removeprefix("-"), -1.0 if word.startswith("-") else 1.0


QUASI_GEOSTROPHIC = (Mirror(("lat",), -1.0), Mirror(("time", "lon")))
r"""The symmetries of quasi-geostrophic flow on a beta-plane, the second one without friction.

With :math:`q_t + J(\psi, q) + \beta \psi_x = 0`, so do :math:`-\psi(t, x, -y)` and
:math:`\psi(-t, -x, y)`.
"""


@dataclass(frozen=True)
class Augmentation:
    r"""How windows are made different each time they are seen.

    Arguments:
        exchange: The probability that a window is seen through the gaps of another time, at the
            same place. It is then observed anew: the truth plus noise, where there are data.
        shift: Whether patches are moved at random, by up to half a stride.
        flips: The axes of space along which patches are mirrored, half of the time.
        mirrors: Other symmetries, each also used half of the time.

    Raises:
        ValueError: If the probability is not one, or time alone is to be mirrored.
    """

    exchange: float = 0.0
    shift: bool = False
    flips: tuple[str, ...] = ()
    mirrors: tuple[Mirror, ...] = ()

    @property
    def symmetries(self) -> tuple[Mirror, ...]:
        r"""All symmetries."""
        return (*(Mirror((name,)) for name in self.flips), *self.mirrors)

    def __post_init__(self) -> None:
        if not 0 <= self.exchange <= 1 or "time" in self.flips:
            msg = (
                f"Augmentation(exchange=...): expected a probability, and flips of axes of space, "
                f"got {self.exchange} and {self.flips}. Use e.g. exchange=0.5, flips=('lon',)."
            )
            raise ValueError(msg)


class Windows(Source):
    r"""The windows of a data set: fields of space and time, what is seen of them, and how well.

    A window is a box of nodes. Windows overlap where the stride is less than their size: they
    are then not independent, and :attr:`independent` says how many would be.

    Arguments:
        grid: The grid of the fields, with time first, and :math:`n` nodes.
        size: The nodes of a window on each axis.
        values: The data, with shape :math:`(n)`; what stands under gaps is never read. Without
            them a window is observed anew each time: the truth plus noise.
        mask: Where there are data, with shape :math:`(n)`.
        noise_std: The standard deviation of their errors, with shape :math:`()` or :math:`(n)`.
        truth: The truth, where it is known, with shape :math:`(n)`.
        stride: The nodes from one window to the next; half a window by default, one in time.
        span: The first time and that after the last, as :func:`split_times` gives them.
        purpose: What a window is for: mapping by default.
        augmentation: How windows are made different; not at all by default.
        withhold: Which data are hidden from the solver; those of the future only, by default.
        labels: The pass or mission of each datum, with shape :math:`(n)`.
        covariates: Other fields by name: values and where they are known, each with shape
            :math:`(n)`.
        timely: Which of them are data of their time: those of the future are hidden, as data are.
        rim: The nodes along the borders of a patch that weigh nothing.

    Raises:
        ValueError: If sizes do not agree, if nothing is seen, or if data are to be drawn without
            a truth.

    Example:
        >>> grid = Grid(time=range(9), y=range(6), x=range(6))
        >>> x = torch.rand(324, dtype=torch.float64)
        >>> windows = Windows(grid, (5, 4, 4), x, x > 0.5, 0.1, truth=x)
        >>> len(windows), round(windows.independent, 2)
        (20, 4.05)
        >>> windows.batch(torch.tensor([0, 7]), torch.tensor([0, 0])).values.shape
        torch.Size([2, 80])
    """

    def __init__(
        self,
        grid: Grid,
        size: Sequence[int],
        values: Float[Tensor, " n"] | None,
        mask: Bool[Tensor, " n"],
        noise_std: float | Float[Tensor, " n"],
        *,
        truth: Float[Tensor, " n"] | None = None,
        stride: Sequence[int] | None = None,
        span: tuple[int, int] | None = None,
        purpose: Purpose | None = None,
        augmentation: Augmentation | None = None,
        withhold: Withhold | None = None,
        labels: Int[Tensor, " n"] | None = None,
        covariates: Mapping[str, tuple[Tensor, Tensor]] | None = None,
        timely: Collection[str] = (),
        rim: int = 0,
    ) -> None:
        self.whole, self.size = grid, tuple(size)
        self.stride = (1, *(max(1, s // 2) for s in size[1:])) if stride is None else tuple(stride)
        self.span = span or (0, grid.shape[0])
        self.purpose, self.withhold = purpose or Purpose(), withhold
        self.augmentation, self.rim = augmentation or Augmentation(), rim
        self._check(values, mask, truth)
        self._check_mirrors()
        self._check_names(covariates or {})
        std = torch.as_tensor(noise_std, dtype=torch.float64)
        self._check_noise(std, mask)
        self.sea = self._field(torch.ones(len(grid), dtype=torch.bool))
        self.mask = self._field(mask)
        # a product would let NaN through, and the sign of what is hidden
        self.values = None if values is None else _where(self.mask, self._field(values))
        self.truth = None if truth is None else self._field(truth)
        # where nothing is seen the noise is never used, but must not be zero
        usual = std[mask].mean() if std.ndim else std
        own = self._field(torch.where(mask, std, usual)) if std.ndim else std
        self.noise = torch.where(self.sea, own, usual) if std.ndim else std
        self.labels = None if labels is None else self._field(labels)
        self.covariates = {
            k: (_where(self._field(known), self._field(v)), self._field(known))
            for k, (v, known) in (covariates or {}).items()
        }
        self.timely = tuple(sorted(timely))
        self.weights = self._window_weights()
        self.starts = self._kept(self._lattice())
        middle = self.starts[len(self.starts) // 2]
        self.grid = self._grid(middle)

    def _check(self, values: Tensor | None, mask: Tensor, truth: Tensor | None) -> None:
        shape, first = self.whole.shape, self.whole.dims[0]
        bad = len(self.size) != len(shape) or len(self.stride) != len(shape) or first != "time"
        times = self.span[1] - self.span[0]
        if bad or any(
            not 1 <= s <= n for s, n in zip(self.size, (times, *shape[1:]), strict=True)
        ):
            msg = (
                f"Windows(size=...): expected a size and a stride for each axis of "
                f"{self.whole.dims}, time first, within {(times, *shape[1:])} nodes, got "
                f"{self.size} and {self.stride}. Use e.g. (15, 64, 64)."
            )
            raise ValueError(msg)
        if truth is None and (values is None or self.augmentation.exchange > 0):
            msg = (
                "Windows(truth=...): expected a truth to observe anew, got none. Give the data, "
                "without exchange of gaps: withhold=Withhold(..., by='exchange') needs no truth."
            )
            raise ValueError(msg)
        for name, x, where in (("values", values, mask), ("truth", truth, slice(None))):
            if x is not None and not x[where].isfinite().all():
                bad_count = int((~x[where].isfinite()).sum())
                msg = (
                    f"Windows({name}=...): expected finite values, got {bad_count} NaN or Inf. "
                    "Mask them, or the land in the grid."
                )
                raise ValueError(msg)

    def _check_mirrors(self) -> None:
        turned = {k for mirror in self.augmentation.symmetries for k in mirror.axes}
        unknown = turned - set(self.whole.dims)
        if unknown or ("time" in turned and self.purpose.name != "mapping"):
            got = ", ".join(sorted(unknown)) or f"time, for {self.purpose.name}"
            msg = (
                f"Windows(augmentation=...): expected mirrors of axes among {self.whole.dims}, of "
                f"time for mapping only, got {got}. Leave them out."
            )
            raise ValueError(msg)

    def _check_names(self, covariates: Mapping[str, Any]) -> None:
        taken = sorted({*OWN, *UNSIGNED} & set(covariates))
        if taken:
            msg = (
                f"Windows(covariates=...): expected names of other fields, got {taken[0]!r}, that "
                "of a part of every window. Rename it."
            )
            raise ValueError(msg)

    def _check_noise(self, std: Tensor, mask: Tensor) -> None:
        used = std[mask] if std.ndim else std
        if std.shape not in {(), mask.shape} or not (used.isfinite() & (used > 0)).all():
            msg = (
                f"Windows(noise_std=...): expected one positive number or {len(mask)} of them, "
                f"got shape {tuple(std.shape)} and a least of {used.min().item():.3g}. Give a "
                "small one where data are clean."
            )
            raise ValueError(msg)

    def _field(self, x: Tensor) -> Tensor:
        r"""Returns a state with the shape of the grid: zero, or ``False``, on land."""
        land = self.whole.mask
        if land is not None:
            full = x.new_zeros(land.shape)
            full[land] = x
            x = full
        return x.reshape(self.whole.shape)

    def _window_weights(self) -> Float[Tensor, ...]:
        weights = self.purpose.weights(self.size[0])
        for s in self.size[1:]:
            inner = torch.zeros(s, dtype=torch.float64)
            inner[min(self.rim, (s - 1) // 2) : s - min(self.rim, (s - 1) // 2)] = 1.0
            weights = weights[..., None] * inner
        return weights

    def _lattice(self) -> list[tuple[int, ...]]:
        ranges = [self.span, *((0, n) for n in self.whole.shape[1:])]
        lines = [
            sorted({*range(a, b - s + 1, d), b - s})
            for (a, b), s, d in zip(ranges, self.size, self.stride, strict=True)
        ]
        return list(itertools.product(*lines))

    def _kept(self, starts: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        kept = [s for s in starts if self._useful(s)]
        if not kept:
            msg = (
                f"Windows(mask=...): expected windows with data, and with sea that weighs, got "
                f"none of {len(starts)}. Check the mask, the span and the rim."
            )
            raise ValueError(msg)
        return kept

    def _useful(self, start: tuple[int, ...]) -> bool:
        cut = self._cut(start)
        seen = bool(self._visible(self.mask[cut]).any())
        return seen and bool((self.sea[cut] & (self.weights > 0)).any())

    def _visible(self, mask: Tensor) -> Tensor:
        visible = self.purpose.visible(self.size[0])
        return mask & visible.reshape(-1, *[1] * (mask.ndim - 1))

    def _cut(self, start: Sequence[int]) -> Cut:
        return tuple(slice(a, a + s) for a, s in zip(start, self.size, strict=True))

    def _grid(self, start: Sequence[int]) -> Grid:
        cut = zip(self.whole.axes.items(), self._cut(start), strict=True)
        axes: dict[str, Any] = {k: axis[c] for (k, axis), c in cut}
        axes["time"] = axes["time"] - axes["time"][0]
        return Grid(metric=self.whole.metric, **axes)

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def independent(self) -> float:
        r"""How many windows would cover the data without overlap: what they are worth, at most."""
        extent = (self.span[1] - self.span[0], *self.whole.shape[1:])
        apart = math.prod(n / s for n, s in zip(extent, self.size, strict=True))
        return min(float(len(self)), apart)

    def statistics(self) -> tuple[float, float]:
        r"""Returns mean and standard deviation of the truth, or of the data, over the span."""
        x, where = (self.values, self.mask) if self.truth is None else (self.truth, self.sea)
        assert x is not None
        times = slice(*self.span)
        used = x[times][where[times]]
        return used.mean().item(), used.std().item()

    @functools.cached_property
    def _hash(self) -> str:
        fields = [self.values, self.mask, self.noise, self.truth, self.labels, self.sea]
        others = [x for name in sorted(self.covariates) for x in self.covariates[name]]
        axes = [*self.whole.axes.values(), *others]
        settings: tuple[Any, ...] = (self.size, self.stride, self.span, self.rim, self.purpose)
        settings += (self.augmentation, self.withhold)
        return fingerprint_of([*fields, *axes], *settings, *self.timely)

    def fingerprint(self) -> str:
        return self._hash

    def batch(self, index: Int[Tensor, " b"], seeds: Int[Tensor, " b"]) -> Batch:
        pairs = zip(index.tolist(), seeds.tolist(), strict=True)
        parts = [self._window(i, Generator().manual_seed(seed)) for i, seed in pairs]

        def stacked(name: str) -> Tensor | None:
            return None if parts[0].get(name) is None else _flat([p[name] for p in parts])

        known = {k: stacked(k) for k in ("values", "mask", "weights", "truth")}
        known |= {k: stacked(k) for k in ("hidden", "hidden_mask")}
        axes = {k: torch.stack([p["axes"][k] for p in parts]) for k in self.whole.dims}
        others = {
            k: (_flat([p[k][0] for p in parts]), _flat([p[k][1] for p in parts]))
            for k in self.covariates
        }
        noise = stacked("noise") if self.noise.ndim else self.noise
        arguments: dict[str, Any] = {**known, "noise_std": noise, "covariates": others}
        return Batch(self.grid, axes=axes, **arguments)

    def _window(self, i: int, generator: Generator) -> dict[str, Any]:
        start = self._place(self.starts[i], generator)
        cut = self._cut(start)
        seen, noise, anew = self._gaps(start, generator)
        truth = None if self.truth is None else self.truth[cut]
        values = self._observed(cut, seen, noise, anew, generator)
        hidden = self._hidden(start, seen, generator)
        window: dict[str, Any] = {
            "values": _where(~hidden, values),
            "mask": seen & ~hidden,
            "weights": self.weights * self.sea[cut],
            "truth": truth,
            "hidden": _where(hidden, values),
            "hidden_mask": hidden,
            "noise": noise,
            **{k: self._beside(k, cut) for k in self.covariates},
        }
        axes = {k: v[c] for (k, v), c in zip(self.whole.axes.items(), cut, strict=True)}
        return self._mirrored(window, axes, generator)

    def _beside(self, name: str, cut: Cut) -> tuple[Tensor, Tensor]:
        x, known = (v[cut] for v in self.covariates[name])
        if name not in self.timely:
            return x, known
        known = self._visible(known)
        return _where(known, x), known

    def _place(self, start: tuple[int, ...], generator: Generator) -> tuple[int, ...]:
        if not self.augmentation.shift:
            return start
        for _ in range(TRIES):
            moved = [start[0]]
            for a, s, d, n in zip(
                start[1:], self.size[1:], self.stride[1:], self.whole.shape[1:], strict=True
            ):
                away = int(torch.randint(-(d // 2), d // 2 + 1, (), generator=generator))
                moved.append(min(max(a + away, 0), n - s))
            if self._useful(tuple(moved)):
                return tuple(moved)
        return start

    def _elsewhen(self, start: Sequence[int], generator: Generator) -> Cut:
        r"""Returns the window at the same place, at a time drawn at random."""
        last = self.span[1] - self.size[0] + 1
        other = int(torch.randint(self.span[0], last, (), generator=generator))
        return self._cut((other, *start[1:]))

    def _gaps(self, start: tuple[int, ...], generator: Generator) -> tuple[Tensor, Tensor, bool]:
        r"""Returns where a window is seen, how well, and whether it is observed anew."""
        cut, p = self._cut(start), self.augmentation.exchange
        anew = self.values is None
        if p > 0 and float(torch.rand((), generator=generator)) < p:
            for _ in range(TRIES):
                other = self._elsewhen(start, generator)
                if self._visible(self.mask[other]).any():
                    cut, anew = other, True
                    break
        return self.mask[cut], self.noise[cut] if self.noise.ndim else self.noise, anew

    def _observed(
        self, cut: Cut, seen: Tensor, noise: Tensor, anew: bool, generator: Generator
    ) -> Float[Tensor, ...]:
        if not anew:
            assert self.values is not None
            return self.values[cut].to(torch.float64)
        assert self.truth is not None
        e = torch.randn(self.size, dtype=torch.float64, generator=generator)
        return _where(seen, self.truth[cut] + noise * e)

    def _hidden(self, start: Sequence[int], seen: Tensor, generator: Generator) -> Tensor:
        visible = self._visible(seen)
        future = seen & ~visible
        if self.withhold is None:
            return future
        labels = None if self.labels is None else self.labels[self._cut(start)]
        other = self.mask[self._elsewhen(start, generator)]
        return future | self.withhold.draw(visible, labels, other, generator)

    def _mirrored(
        self, window: dict[str, Any], axes: dict[str, Tensor], generator: Generator
    ) -> dict[str, Any]:
        for mirror in self.augmentation.symmetries:
            if float(torch.rand((), generator=generator)) < 0.5:
                window = {k: self._turned(v, mirror, k) for k, v in window.items()}
                axes = {k: v.flip(0) if k in mirror.axes else v for k, v in axes.items()}
        return {**window, "axes": axes}

    def _turned(self, x: Any, mirror: Mirror, name: str) -> Any:
        if isinstance(x, tuple):
            return tuple(self._turned(v, mirror, name) for v in x)
        if x is None or not x.ndim:
            return x
        x = mirror.turn(x, self.whole.dims)
        return x if x.dtype == torch.bool else mirror.sign_of(name) * x


def _where(mask: Tensor, x: Tensor) -> Tensor:
    return torch.where(mask, x, 0.0)


def _flat(parts: list[Tensor]) -> Shaped[Tensor, "b n"]:
    x = torch.stack(parts).flatten(1)
    return x.to(torch.float64) if x.is_floating_point() else x
