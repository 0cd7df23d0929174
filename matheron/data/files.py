r"""What a file is, before it is read: there, whole, and of the format that its name says."""

from __future__ import annotations

__all__ = ["TABLES", "check_file", "expand", "format_of"]

import glob

from collections.abc import Sequence
from pathlib import Path

from .errors import call, refuse

FORMATS = {
    ".csv": "csv",
    ".txt": "csv",
    ".tsv": "csv",
    ".dat": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".nc": "netcdf",
    ".nc4": "netcdf",
    ".cdf": "netcdf",
}
TABLES = ("csv", "parquet")
MAGIC = {b"PAR1": "parquet", b"\x89HDF": "netcdf", b"CDF\x01": "netcdf", b"CDF\x02": "netcdf"}
MAGIC |= {b"CDF\x05": "netcdf"}
LABELS = {"csv": "a CSV table", "parquet": "a Parquet table", "netcdf": "a NetCDF file"}
OTHERS = {b"PK\x03\x04": "a ZIP archive or spreadsheet", b"\x1f\x8b": "a gzip archive"}
SUFFIX = {"csv": ".csv", "parquet": ".parquet", "netcdf": ".nc"}


def format_of(path: str | Path, where: str = "read(path={path})") -> str:
    r"""Returns the format that the suffix of a path says: csv, parquet or netcdf.

    Raises:
        InputError: If the suffix is not known.

    Example:
        >>> format_of("tracks.CSV")
        'csv'
    """
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        got = f"suffix '{suffix}'"
        expected, cure = ", ".join(FORMATS), "Convert the file, or rename it"
        raise refuse(where.format(path=path), f"a file in {expected}", got, cure)
    return FORMATS[suffix]


def check_file(path: str | Path) -> str:
    r"""Returns the format of a file that can be read.

    Raises:
        InputError: If it is absent, a folder, empty, or not in the format that its suffix says.
    """
    path, where = Path(path), call("read", path=path)
    if not path.exists():
        raise refuse(where, "a file", "no such file", _nearby(path))
    if path.is_dir():
        raise refuse(where, "a file", "a folder", "Name the files, e.g. FOLDER/*.nc")
    said = format_of(path)
    if path.stat().st_size == 0:
        raise refuse(where, LABELS[said], "an empty file", "Download or write it again")
    found = _sniff(path)
    if found != said:
        label = LABELS.get(found, found)
        cure = f"Rename it with {SUFFIX[found]}" if found in SUFFIX else "Check the file"
        raise refuse(where, f"{LABELS[said]}, as its suffix says", label, cure)
    return said


def _nearby(path: Path) -> str:
    if not path.parent.is_dir():
        return f"The folder {path.parent} does not exist"
    same = sorted(p.name for p in path.parent.iterdir() if p.name.lower() == path.name.lower())
    return f"Did you mean '{same[0]}'?" if same else "Check the path"


def _sniff(path: Path) -> str:
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise refuse(
            call("read", path=path),
            "a readable file",
            str(error.strerror),
            "Check its permissions",
        ) from error
    for magic, name in (MAGIC | OTHERS).items():
        if head.startswith(magic):
            return name
    return "neither text nor a known format" if b"\x00" in head else "csv"


def expand(path: str | Path | Sequence[str | Path]) -> list[Path]:
    r"""Returns the files that are meant by a path, a pattern or a list of them, sorted.

    Raises:
        InputError: If a pattern matches nothing, or the list is empty.
    """
    if not isinstance(path, (str, Path)):
        files = [file for one in path for file in expand(one)]
        if not files:
            raise refuse(call("read", path=[]), "at least one file", "none", "Name a file")
        return files
    if Path(path).exists() or not glob.has_magic(str(path)):
        return [Path(path)]
    files = sorted(Path(p) for p in glob.glob(str(path)))
    if not files:
        raise refuse(call("read", path=path), "files that match", "none", "Check the pattern")
    return files
