r"""Several files of points as one cloud: which mission each file is of, and of which date."""

from __future__ import annotations

__all__ = ["add_platform", "date_files", "label_missions", "mission_of"]

import numpy as np
import re

from collections.abc import Sequence
from pathlib import Path

from .names import GROUPS, INSTRUMENTS, clean
from .source import Source

PRODUCT = re.compile(r"(?:^|_)(?:dt|nrt)_[a-z]+_([a-z0-9-]+)_.*l3(?:_|$)", re.IGNORECASE)
"""The names of along-track files, e.g. ``dt_gulfstream_c2_phy_l3_20161201-20180131``."""
CHALLENGE = re.compile(r"^\d{4}[a-z]_SSH_mapping_[A-Za-z0-9]+_(.+)$")
SWATH = re.compile(r"^SWOT_L\d", re.IGNORECASE)
SIMULATED = re.compile(r"^(?:train_)?obs_")
"""What the names of simulated observations begin with."""
DATED = re.compile(r"[_-]?(?<!\d)\d{6,8}(?:T\d{4,6})?Z?(?!\d)")
COVERAGE = re.compile(r"(\d{8}T\d{6})_(\d{8}T\d{6})")
STARTS = ("time_coverage_start", "time_coverage_begin")
ENDS = ("time_coverage_end", "time_coverage_stop")


def mission_of(path: str | Path) -> str:
    r"""Returns the mission that the name of a file says, else the name without its dates.

    Example:
        >>> mission_of("dt_gulfstream_alg_phy_l3_20161201-20180131_285-315_23-53.nc")
        'alg'
        >>> mission_of("2020a_SSH_mapping_NATL60_topex-poseidon_interleaved.nc")
        'topex-poseidon_interleaved'
        >>> mission_of("SWOT_L3_LR_SSH_Basic_001_003.nc"), mission_of("c2_201701.nc")
        ('swot', 'c2')
    """
    stem = Path(path).stem
    if SWATH.match(stem):
        return "swot"
    found = PRODUCT.search(stem) or CHALLENGE.match(stem)
    plain = SIMULATED.sub("", stem)
    if found:
        return found.group(1)
    return next((k for k in (DATED.sub("", s).strip("_-") for s in (plain, stem)) if k), stem)


def label_missions(sources: Sequence[Source]) -> None:
    r"""Gives every source the column of its mission: from its own column, else from its file.

    Nothing is done where all files have such a column, or where the names of the files, but for
    dates, are one: then the files are of one mission.
    """
    if len(sources) < 2 or any(s.gridded for s in sources):
        return
    own = [_own(s) for s in sources]
    if len(set(own)) == 1 and own[0] is not None:
        return
    labels = [mission_of(s.path) for s in sources]
    if all(k is None for k in own) and len(set(labels)) == 1:
        return
    for source, column, label in zip(sources, own, labels, strict=True):
        told = None if column is None else source.columns[column]
        size = source.values.size
        source.columns["mission"] = np.full(size, label, dtype=object) if told is None else told
    named = dict.fromkeys(k for k, column in zip(labels, own, strict=True) if column is None)
    sources[0].notes.append(f"missions by the names of files: {', '.join(named)}")


def _own(source: Source) -> str | None:
    named = {clean(c): c for c in source.columns}
    return next((named[g] for g in GROUPS if g in named), None)


def add_platform(source: Source) -> None:
    r"""Makes a column of the mission that a file says of itself, where it has none."""
    instrument = [v for k, v in source.attributes.items() if k.lower() in INSTRUMENTS]
    if instrument and not source.gridded and _own(source) is None:
        source.columns["platform"] = np.full(source.values.size, instrument[0], dtype=object)


def date_files(sources: Sequence[Source]) -> None:
    r"""Gives the date of its coverage to every file of points that has no times of its own.

    The middle of the coverage is taken: a pass of a swath lasts under an hour. It is done among
    several files only, where passes of several days would be mixed without it.
    """
    bare = [s for s in sources if "time" not in s.coords and not s.gridded]
    dates = [_middle(s) for s in bare]
    if len(sources) < 2 or not bare or any(d is None for d in dates):
        return
    for source, date in zip(bare, dates, strict=True):
        size = source.values.size
        source.coords = {"time": np.full(size, date, dtype="datetime64[ns]"), **source.coords}
        source.names = {"time": "time_coverage_start", **source.names}
    told = f"{len(bare)} of {len(sources)} files have no times"
    sources[0].notes.append(f"{told}: the middle of their coverage is taken")


def _middle(source: Source) -> np.datetime64 | None:
    r"""Returns the middle of what a file covers, by its attributes, else by its name."""
    ends = [
        next((source.attributes[k] for k in keys if k in source.attributes), None)
        for keys in (STARTS, ENDS)
    ]
    if None in ends:
        found = COVERAGE.search(source.path.stem)
        ends = [_iso(t) for t in found.groups()] if found else []
    try:
        start, end = (np.datetime64(str(e).removesuffix("Z"), "ns") for e in ends)
    except ValueError:
        return None
    return np.datetime64(start + (end - start) // 2)


def _iso(text: str) -> str:
    return f"{text[:4]}-{text[4:6]}-{text[6:8]}T{text[9:11]}:{text[11:13]}:{text[13:15]}"
