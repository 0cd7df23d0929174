r"""Experiments on disk: a folder that is written whole or not at all, and never trusted."""

from __future__ import annotations

__all__ = ["INDEX", "check", "read", "write"]

import contextlib
import itertools
import json
import numpy as np
import os
import secrets
import shutil
import xarray as xr

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .calendar import PARTS

INDEX = "osse.json"
BESIDE = "beside"
"""What lists the names of other fields, where there are some."""
README = "README.md"
MADE_BY = "matheron osse"
FORMAT = 1
NEEDED = (
    *("preset", "constellation", "noise", "seed", "training_seed", "calendar", "options"),
    *("variable", "observed", "files"),
)
BROKEN = (OSError, RuntimeError, ValueError, KeyError)
"""What readers raise on files that are broken or not theirs."""

HOUR = np.timedelta64(1, "h")
LATEST = np.datetime64("2200-01-01", "ns")


def _refusal(folder: Path, call: str, expected: str, got: str, cure: str) -> ValueError:
    head = f"Experiment.{call}(folder={folder}): expected {expected}"
    return ValueError(" ".join(f"{head}, got {got}. {cure}.".split()))


def check(folder: str | Path, force: bool = False) -> Path:
    r"""Returns the path of a folder to write, refused before any work if it could not be.

    Arguments:
        folder: The folder: a new one, an empty one, or with ``force`` an experiment.
        force: Whether an experiment that is there may be replaced.

    Raises:
        ValueError: If it is a file, has no parent folder, holds anything, or is or holds the
            working folder.
    """
    path = Path(folder).expanduser().resolve()
    if path.exists() and not path.is_dir():
        raise _refusal(path, "save", "a folder", "a file", "Name another folder")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        got = "one that cannot be written" if path.parent.is_dir() else "none"
        raise _refusal(path, "save", "a parent folder to write in", got, "Make it first")
    if path in (Path.cwd(), *Path.cwd().parents):
        got = "the working folder" if path == Path.cwd() else "one that holds the working folder"
        raise _refusal(path, "save", "another folder", got, "Name one inside it, e.g. osse")
    if path.is_dir() and any(path.iterdir()):
        _check_replaced(path, force)
    return path


def _check_replaced(path: Path, force: bool) -> None:
    try:
        ours = {INDEX, README, *_index(path, "save")["files"]}
    except ValueError:
        cure = "Name another folder"
        raise _refusal(path, "save", "a new or an empty folder", "other files", cure) from None
    if not force:
        cure = "Give --force (force=True) to replace it, or name another folder"
        raise _refusal(path, "save", "a new or an empty folder", "an experiment", cure)
    others = sorted({found.name for found in path.iterdir()} - ours)
    if others:
        cure = "Move it away: it would be lost"
        raise _refusal(path, "save", "nothing but an experiment", f"{others[0]} as well", cure)


def _index(path: Path, call: str) -> dict[str, Any]:
    cure = "Make one: matheron osse -o FOLDER"
    try:
        told = json.loads((path / INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        got = f"a broken {INDEX}" if (path / INDEX).exists() else f"no {INDEX}"
        raise _refusal(path, call, "an experiment", got, cure) from None
    if not isinstance(told, dict) or told.get("made_by") != MADE_BY:
        raise _refusal(path, call, "an experiment", f"a foreign {INDEX}", cure)
    if told.get("format") != FORMAT:
        got = f"format {told.get('format')}"
        raise _refusal(path, call, f"an experiment of format {FORMAT}", got, "Make it again")
    missing = [name for name in NEEDED if name not in told]
    if not missing and not {"name", *PARTS} <= set(told["calendar"]):
        missing = [f"calendar of {', '.join(PARTS)}"]
    if missing:
        raise _refusal(path, call, f"{missing[0]!r} in {INDEX}", "none", "Make it again")
    return told


def write(
    folder: str | Path,
    files: Mapping[str, xr.Dataset],
    settings: Mapping[str, Any],
    readme: str,
    force: bool = False,
) -> Path:
    r"""Writes datasets, settings and a text as a folder, whole or not at all; returns its path.

    Arguments:
        folder: The folder: see :func:`check`.
        files: The datasets, by the names of their files.
        settings: What to know to read them again, as plain values.
        readme: The text.
        force: Whether an experiment that is there may be replaced.

    Raises:
        ValueError: If the folder cannot be written.
    """
    path = check(folder, force)
    told = {"made_by": MADE_BY, "format": FORMAT, **settings, "files": list(files)}
    with _whole_or_not(path) as temporary, _worker() as worker:
        for name, dataset in files.items():
            worker.submit(_write_one, dataset, temporary / name).result()
        (temporary / README).write_text(readme, encoding="utf-8")
        (temporary / INDEX).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return path


def _write_one(dataset: xr.Dataset, path: Path) -> None:
    dataset.to_netcdf(path, engine="netcdf4", encoding=_encoding(dataset))


@contextlib.contextmanager
def _worker() -> Iterator[ThreadPoolExecutor]:
    """A thread that no interruption stops: a file cut in the middle would keep its locks shut.

    An interruption is raised at once where the work is waited for, and leaves when it has ended.
    """
    with ThreadPoolExecutor(1) as pool:
        pool.submit(int).result()  # it runs before there is work, so it is always waited for
        yield pool


@contextlib.contextmanager
def _whole_or_not(path: Path) -> Iterator[Path]:
    """A temporary folder beside the path, which takes its place if all goes well."""
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.iterdir():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
        _take_place(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _take_place(temporary: Path, path: Path) -> None:
    """Puts a folder in the place of another, which comes back if that fails."""
    if not path.exists():
        temporary.rename(path)
        return
    old = temporary.with_name(f"{temporary.name}-old")
    try:
        path.rename(old)
        temporary.rename(path)
    finally:
        if old.exists() and not path.exists():
            old.rename(path)
        elif old.exists():
            shutil.rmtree(old)


def _encoding(dataset: xr.Dataset) -> dict[str, dict[str, Any]]:
    return {str(k): _one_encoding(v) for k, v in dataset.variables.items()}


def _one_encoding(variable: xr.Variable) -> dict[str, Any]:
    small = {"zlib": True, "complevel": 4, "shuffle": True} if variable.ndim else {}
    if variable.dtype.kind != "M":
        return small
    # Whole numbers: a date that is read is the date that was written.
    first = np.append(variable.values, LATEST).min().astype("datetime64[D]")
    whole = (variable.values - first) % HOUR == np.timedelta64(0)
    units = f"{'hours' if whole.all() else 'microseconds'} since {first}"
    return {**small, "units": units, "calendar": "standard", "dtype": "int64"}


def read(folder: str | Path) -> tuple[dict[str, Any], dict[str, xr.Dataset]]:
    r"""Returns the settings and the datasets of a folder, which are read when they are used.

    Raises:
        ValueError: If it holds no experiment, or a file is missing or broken.
    """
    path = Path(folder)
    told = _index(path, "load")
    with contextlib.ExitStack() as opened:
        found = {name: opened.enter_context(_opened(path, name)) for name in told["files"]}
        _check_truth(path, told, found)
        opened.pop_all()
    return told, found


def _opened(path: Path, name: str) -> xr.Dataset:
    if not (path / name).is_file():
        raise _refusal(path, "load", f"{name}, as {INDEX} says", "no such file", "Make it again")
    try:
        return xr.open_dataset(path / name, engine="netcdf4")
    except BROKEN as error:
        got = f"a file that cannot be read ({error})"
        raise _refusal(path, "load", f"NetCDF in {name}", got, "Make it again") from None


def _check_truth(path: Path, told: Mapping[str, Any], found: Mapping[str, xr.Dataset]) -> None:
    """Whether every file holds what the settings say, over the days that they say."""
    starts = ("", "train_") if "train.nc" in found else ("",)
    parts = itertools.product(starts, ("", "truth_"), told.get(BESIDE, ()))
    needed = {f"{start}{kind}{name}.nc": name for start, kind, name in parts}
    for name in sorted({"truth.nc", *needed} - found.keys()):
        raise _refusal(path, "load", name, "none in its list", "Make it again")
    known = {"mdt.nc": "mdt", "train.nc": told["variable"], "truth.nc": told["variable"], **needed}
    for name, dataset in found.items():
        wanted = known.get(name, told["observed"])
        if wanted not in dataset:
            got = ", ".join(map(str, dataset)) or "nothing"
            raise _refusal(path, "load", f"{wanted!r} in {name}", got, "Make it again")
    time = found["truth.nc"]["time"].values.astype("datetime64[D]")
    days = (told["calendar"]["spin_up"][0], told["calendar"]["scored"][1])
    if (str(time[0]), str(time[-1])) != days:
        expected = f"{days[0]} to {days[1]} in truth.nc"
        raise _refusal(path, "load", expected, f"{time[0]} to {time[-1]}", "Make it again")
