r"""What heights to map, and how to write the map: as a field, or as an L4 product."""

from __future__ import annotations

__all__ = ["Heights", "Product", "write_map"]

import re
import xarray as xr

from dataclasses import dataclass
from pathlib import Path
from torch import Tensor

from .parameters import with_parameters
from .structure import Law
from ..data import InputError, Observations, l4_dataset, map_dataset, write_dataset
from ..data.product import file_digests
from ..domain import Grid

PRODUCTS = ("field", "l4")


@dataclass(frozen=True)
class Heights:
    r"""How sea levels are turned into the ones to map, as :func:`matheron.data.read` takes it."""

    mdt: Path | None = None
    lwe: str = "keep"
    quantity: str | None = None


@dataclass(frozen=True)
class Product:
    r"""How a map is written."""

    name: str = "field"
    currents: bool = False
    pack: bool = False

    def check(self, output: Path, at: Path | None) -> None:
        r"""Refuses, before any work, what could not be written."""
        if self.name not in PRODUCTS:
            msg = (
                f"map(product={self.name}): expected {' or '.join(PRODUCTS)}, got "
                f"'{self.name}'. Choose one of them."
            )
            raise InputError(msg)
        if self.currents and self.name != "l4":
            msg = "map(currents=True): expected an L4 product, got a field. Add --product l4."
            raise InputError(msg)
        if at is not None and (self.name != "field" or self.pack):
            msg = (
                f"map(at={at}): expected a grid for a packed file or an L4 product, got points. "
                "Give --grid, or leave --product and --pack out."
            )
            raise InputError(msg)

    def check_quantity(self, data: Observations) -> None:
        r"""Refuses an L4 product of data that are neither anomalies nor topographies."""
        if self.name == "l4" and data.quantity not in {"sla", "adt"}:
            msg = (
                f"map(product=l4): expected adt or sla, got '{data.variable}' "
                f"({data.quantity}). Say which it is: --quantity adt or --quantity sla."
            )
            raise InputError(msg)


def write_map(
    path: Path,
    grid: Grid,
    data: Observations,
    fields: dict[str, Tensor],
    attributes: dict[str, object],
    law: Law | None,
    product: Product,
    asked: str | None = None,
) -> None:
    r"""Writes a map on a grid, whole or not at all.

    Arguments:
        path: The file.
        grid: The grid of the map.
        data: The data, which say names and units.
        fields: The mean and its companions, by suffix.
        attributes: The provenance.
        law: The law of the field, whose parameters may be written beside the map.
        product: How to write it.
        asked: The grid as the user wrote it, whose branch of longitudes is followed.
    """
    attributes = {**attributes, "input_files": file_digests(data.files)}
    parts = [fields.get(k) for k in ("", "_std", "_obs_std", "_member")]
    assert parts[0] is not None
    dataset: xr.Dataset
    if product.name == "l4":
        dataset = l4_dataset(
            grid,
            parts[0],
            *parts[1:],
            quantity=data.quantity,
            units=data.units,
            currents=product.currents,
            branch=_branch(asked),
            attributes=attributes,
        )
    else:
        dataset = map_dataset(
            grid,
            parts[0],
            *parts[1:],
            variable=data.variable,
            units=data.units,
            long_name=data.long_name,
            standard_name=data.attributes.get("standard_name", ""),
            attributes=attributes,
        )
    write_dataset(with_parameters(dataset, law, grid), path, pack=product.pack)


def _branch(asked: str | None) -> str:
    r"""Returns the branch of the spans that were asked for, -180..180 where they are none.

    Example:
        >>> _branch("295:305:0.2,33:43:0.2"), _branch("same")
        ('0..360', '-180..180')
    """
    found = re.match(r"\s*([-+.\d]+):([-+.\d]+):", asked or "")
    return "0..360" if found and float(found.group(2)) > 180.0 else "-180..180"
