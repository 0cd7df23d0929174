r"""The border of the library: files in, files out. Missing data never goes further than here."""

from __future__ import annotations

__all__ = [
    "Augmentation",
    "Batch",
    "Cells",
    "Description",
    "Gridded",
    "Groups",
    "InputError",
    "Map",
    "Mirror",
    "Observations",
    "MeanTopography",
    "Purpose",
    "Several",
    "Source",
    "Tiling",
    "Windows",
    "Withhold",
    "check_output",
    "check_same",
    "describe",
    "geostrophic_currents",
    "l4_dataset",
    "map_dataset",
    "parse_grid",
    "quantity_of",
    "read",
    "read_map",
    "read_points",
    "split_times",
    "to_cells",
    "write_dataset",
    "write_table",
]

from .batches import Batch, Source
from .beside import Gridded
from .cells import Cells, to_cells
from .currents import geostrophic_currents
from .describe import Description, describe
from .errors import InputError
from .maps import Map, read_map
from .patches import Augmentation, Mirror, Windows
from .product import l4_dataset
from .purposes import Purpose, Withhold, split_times
from .quantity import check_same, quantity_of
from .read import Groups, Observations, read
from .several import Several
from .targets import parse_grid, read_points
from .tiles import Tiling
from .topography import MeanTopography
from .write import check_output, map_dataset, write_dataset, write_table
