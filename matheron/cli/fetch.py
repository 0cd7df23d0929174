r"""How to get the products of Copernicus Marine: the command, which is run only if asked for."""

from __future__ import annotations

__all__ = ["PRODUCTS", "download", "fetch_command"]

import re
import shlex
import shutil
import subprocess

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .border import say
from ..data import InputError

TOOL = "copernicusmarine"
ALONG = "cmems_obs-sl_glo_phy-ssh_{}_{}-l3-duacs_PT1S"
GRIDDED = "cmems_obs-sl_glo_phy-ssh_{}_allsat-l4-duacs-0.125deg_P1D"


@dataclass(frozen=True)
class Remote:
    r"""A product that can be asked for.

    Arguments:
        dataset: The name of the dataset on Copernicus Marine.
        words: What it is.
        dated: Whether it has dates.
    """

    dataset: str
    words: str
    dated: bool = True


PRODUCTS = {
    "l4": Remote(GRIDDED.format("my"), "daily maps of SLA and ADT, reprocessed, 1/8 degree"),
    "l4-nrt": Remote(GRIDDED.format("nrt"), "daily maps of SLA and ADT, near real time"),
    "l3-SAT": Remote(ALONG.format("my", "SAT"), "along-track SLA of a satellite, reprocessed"),
    "l3-nrt-SAT": Remote(ALONG.format("nrt", "SAT"), "the same, near real time"),
    "mdt": Remote(
        "cmems_obs-sl_glo_phy-mdt_my_l4-0.125deg_P20Y", "mean dynamic topography", dated=False
    ),
    "glorys": Remote("cmems_mod_glo_phy_my_0.083deg_P1D-m", "daily reanalysis, 1/12 degree"),
}
SATELLITES = (
    *("al", "alg", "c2", "c2n", "e1", "e1g", "e2", "en", "enn", "g2", "h2a", "h2ag", "h2b"),
    *("j1", "j1g", "j1n", "j2", "j2g", "j2n", "j3", "j3n", "s3a", "s3b", "s6a-lr", "s6a-hr"),
    *("swon", "swonc", "tp", "tpn"),
)


def fetch_command(
    product: str,
    box: str | None = None,
    start: str | None = None,
    end: str | None = None,
    output: Path | None = None,
    variables: Sequence[str] = (),
) -> list[str]:
    r"""Returns the command that fetches a product over a box and a period.

    Arguments:
        product: The nick-name of a product, e.g. ``"l4"`` or ``"l3-j3"``.
        box: The box ``lon0:lon1,lat0:lat1``; the whole globe by default.
        start: The first date, as 2017-01-01.
        end: The last date, likewise.
        output: The file.
        variables: The variables; all by default.

    Raises:
        InputError: If the product, the box or the dates are not understood.

    Example:
        >>> print(shlex.join(fetch_command("l4", "295:305,33:43", "2017-01-01", "2017-12-31")))
        copernicusmarine subset --dataset-id cmems_obs-sl_glo_phy-ssh_my_allsat-l4-duacs-...
    """
    remote = _find(product)
    command = [TOOL, "subset", "--dataset-id", remote.dataset]
    for name in variables:
        command += ["--variable", name]
    command += [] if box is None else _box(box)
    if not remote.dated and (start or end):
        msg = (
            f"fetch(start={start}): expected no dates for '{product}', which has none, got "
            f"{start} to {end}. Leave --start and --end out."
        )
        raise InputError(msg)
    for option, date in (("--start-datetime", start), ("--end-datetime", end)):
        command += [] if date is None else [option, _date(option, date)]
    if start and end and end < start:
        msg = f"fetch(end={end}): expected an end after {start}, got {end}. Exchange them."
        raise InputError(msg)
    return command + ([] if output is None else _place(output))


def _find(product: str) -> Remote:
    name = product.lower()
    found = re.fullmatch(r"l3-(nrt-)?(.+)", name)
    if found and found.group(2) in SATELLITES:
        kind = "nrt" if found.group(1) else "my"
        return Remote(ALONG.format(kind, found.group(2)), f"along-track SLA of {found.group(2)}")
    if name in PRODUCTS and "sat" not in name:
        return PRODUCTS[name]
    known = f"{', '.join(PRODUCTS)} (SAT: {', '.join(SATELLITES)})"
    msg = f"fetch(product={product}): expected one of {known}, got '{product}'. Choose one."
    raise InputError(msg)


def _box(text: str) -> list[str]:
    number = r"[-+]?\d+(?:\.\d*)?"
    found = re.fullmatch(rf"\s*({number}):({number})\s*,\s*({number}):({number})\s*", text)
    ends = [float(e) for e in found.groups()] if found else []
    sound = len(ends) == 4 and ends[0] < ends[1] and -90 <= ends[2] < ends[3] <= 90
    if not sound or ends[1] - ends[0] > 360:
        msg = (
            f"fetch(box={text}): expected lon0:lon1,lat0:lat1 in increasing degrees, got "
            f"'{text}'. Write e.g. --box=-65:-55,33:43."
        )
        raise InputError(msg)
    turn = 360.0 if ends[0] >= 180.0 else 0.0  # the tool counts from -180, but across 180
    sides = ("minimum-longitude", "maximum-longitude", "minimum-latitude", "maximum-latitude")
    shifted = [ends[0] - turn, ends[1] - turn, *ends[2:]]
    return [w for k, v in zip(sides, shifted, strict=True) for w in (f"--{k}", f"{v:g}")]


def _date(option: str, text: str) -> str:
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2})?)?", text):
        name = option.strip("-").split("-")[0]
        msg = f"fetch({name}={text}): expected a date, got '{text}'. Write e.g. 2017-01-01."
        raise InputError(msg)
    return text


def _place(output: Path) -> list[str]:
    if not output.parent.is_dir():
        msg = (
            f"fetch(output={output}): expected an existing folder, got '{output.parent}'. "
            f"Make it: mkdir -p {output.parent}."
        )
        raise InputError(msg)
    return ["--output-directory", str(output.parent), "--output-filename", output.name]


def download(command: Sequence[str]) -> None:
    r"""Runs the command of :func:`fetch_command`, if the tool is installed.

    Raises:
        InputError: If it is not installed.
        RuntimeError: If it fails.
    """
    path = shutil.which(command[0])
    if path is None:
        msg = (
            f"fetch(run=True): expected {TOOL} on the path, got none. Install it, e.g. pip "
            f"install {TOOL}, and log in; or run the command elsewhere."
        )
        raise InputError(msg)
    say(f"running: {shlex.join(command)}")
    code = subprocess.run([path, *command[1:]], check=False).returncode
    if code != 0:
        msg = (
            f"fetch(run=True): expected {TOOL} to succeed, got exit code {code}. Read what it "
            "said above: an account is needed."
        )
        raise RuntimeError(msg)
