r"""The border of the library: files in, files out. Missing data never goes further than here."""

from __future__ import annotations

__all__ = [
    "Description",
    "Groups",
    "InputError",
    "Map",
    "Observations",
    "check_output",
    "describe",
    "map_dataset",
    "parse_grid",
    "read",
    "read_map",
    "read_points",
    "write_dataset",
    "write_table",
]

from .describe import Description, describe
from .errors import InputError
from .maps import Map, read_map
from .read import Groups, Observations, read
from .targets import parse_grid, read_points
from .write import check_output, map_dataset, write_dataset, write_table
