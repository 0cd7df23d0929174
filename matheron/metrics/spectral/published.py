r"""Published scores, with their source: always those of other data than the user's."""

from __future__ import annotations

__all__ = ["Published", "beside", "published"]

from collections.abc import Mapping
from dataclasses import dataclass

from .scored import Scored

GITHUB = "https://github.com/"
ODC = GITHUB + "ocean-data-challenges/"


@dataclass(frozen=True)
class Published:
    r"""A published row.

    Attributes:
        definition: The definition of its numbers.
        setting: The data that were mapped.
        method: The method, as it is named there.
        values: The scores, by the names of the definition, as printed.
        generation: When, or in which version of the leaderboard: definitions have changed.
        source: Where it is.
    """

    definition: str
    setting: str
    method: str
    values: Mapping[str, float]
    generation: str
    source: str


def _rows(
    definition: str, generation: str, source: str, columns: str, table: str
) -> tuple[Published, ...]:
    r"""Reads lines of ``setting | method | numbers``; a dash is a number that is not there."""
    found = []
    for line in table.strip().splitlines():
        setting, method, numbers = (x.strip() for x in line.split("|"))
        pairs = zip(columns.split(), numbers.split(), strict=True)
        values = {k: float(v) for k, v in pairs if v != "-"}
        found.append(Published(definition, setting, method, values, generation, source))
    return tuple(found)


_2020A = "mu sigma lambda_x lambda_t"
_REGIMES = "coastal offshore_high offshore_low equatorial arctic antarctic"
_BANDS = " ".join(f"{k} {k}_band" for k in _REGIMES.split())
_BENCH = "nrmse lambda_iso lambda_x lambda_t"

TABLES = (
    *_rows(
        "odc2020a",
        "current",
        ODC + "2020a_SSH_mapping_NATL60",
        _2020A,
        """
        1 nadir | baseline OI | .69 .03 3.31 33.32
        4 nadirs | baseline OI | .83 .04 2.25 15.67
        1 SWOT | baseline OI | .85 .05 1.22 12.38
        4 nadirs | DUACS | .92 .01 1.42 12.13
        4 nadirs | BFN | .92 .02 1.23 10.82
        4 nadirs | DYMOST | .91 .01 1.36 11.91
        4 nadirs | MIOST | .93 .01 1.35 10.41
        4 nadirs | 4DVarNet | .94 .01 1.19 10.64
        4 nadirs | 4DVarNet v2022 | .94 .01 .83 8.03
        4 nadirs | 4DVarQG | .95 .01 .82 5.84
        1 SWOT + 4 nadirs | DUACS | .92 .02 1.22 11.37
        1 SWOT + 4 nadirs | BFN | .93 .02 1.00 10.24
        1 SWOT + 4 nadirs | DYMOST | .93 .02 1.19 10.04
        1 SWOT + 4 nadirs | MIOST | .94 .01 1.18 10.33
        1 SWOT + 4 nadirs | 4DVarNet | .95 .01 .70 6.48
        1 SWOT + 4 nadirs | 4DVarNet v2022 | .96 .01 .62 4.35
        1 SWOT + 4 nadirs | 4DVarQG | .96 .01 .66 4.65
        """,
    ),
    *_rows(
        "odc2020a",
        "Nov 2020",
        ODC + "2020a_SSH_mapping_NATL60",
        _2020A,
        """
        4 nadirs | DUACS | - - 1.45 12.01
        4 nadirs | BFN | .92 .01 1.23 10.18
        4 nadirs | DYMOST | - - 1.36 10.77
        4 nadirs | MIOST | - - 1.37 10.23
        1 SWOT + 4 nadirs | DUACS | - - 1.23 11.15
        1 SWOT + 4 nadirs | BFN | - - .80 7.86
        1 SWOT + 4 nadirs | DYMOST | - - 1.20 9.19
        1 SWOT + 4 nadirs | MIOST | - - 1.18 10.02
        """,
    ),
    *_rows(
        "odc2020a",
        "Nov 2021",
        ODC + "2020a_SSH_mapping_NATL60",
        _2020A,
        """
        4 nadirs | DUACS | - - 1.42 12.0
        4 nadirs | BFN | .92 .02 1.23 10.6
        4 nadirs | DYMOST | - - 1.36 11.79
        4 nadirs | MIOST | - - 1.35 10.19
        4 nadirs | 4DVarNet | .94 .01 1.18 10.34
        1 SWOT + 4 nadirs | DUACS | - - 1.22 11.15
        1 SWOT + 4 nadirs | BFN | - - .80 10.09
        1 SWOT + 4 nadirs | DYMOST | - - 1.20 10.07
        1 SWOT + 4 nadirs | MIOST | - - 1.18 10.14
        1 SWOT + 4 nadirs | 4DVarNet | .95 .01 .82 6.57
        """,
    ),
    *_rows(
        "odc2020a",
        "June 2022",
        ODC + "2020a_SSH_mapping_NATL60",
        _2020A,
        """
        4 nadirs | 4DVarNet | .94 .01 .83 8.01
        1 SWOT + 4 nadirs | 4DVarNet | .95 .01 .62 5.29
        """,
    ),
    *_rows(
        "oceanbench",
        "NeurIPS 2023",
        GITHUB + "jejjohnson/oceanbench",
        _BENCH,
        """
        4 nadirs | BFN | .927 88.18 138.64 10.43
        4 nadirs | 4DVarNet | .942 64.59 116.63 7.74
        4 nadirs | DUACS | .915 122.62 174.49 10.77
        4 nadirs | DYMOST | .911 118.61 156.46 11.50
        4 nadirs | MIOST | .927 99.85 157.37 10.07
        4 nadirs | NeRF-FFN | .932 91.73 152.92 11.37
        4 nadirs | NeRF-MLP | .920 90.76 164.83 8.15
        4 nadirs | SIREN | .914 97.77 156.76 13.07
        1 SWOT + 4 nadirs | BFN | .935 64.45 118.11 35.95
        1 SWOT + 4 nadirs | 4DVarNet | .959 47.00 77.35 5.60
        1 SWOT + 4 nadirs | DUACS | .921 105.68 138.61 11.65
        1 SWOT + 4 nadirs | DYMOST | .926 107.75 135.28 9.93
        1 SWOT + 4 nadirs | MIOST | .938 87.64 131.21 10.13
        1 SWOT + 4 nadirs | NeRF-FFN | .937 90.45 140.77 8.18
        1 SWOT + 4 nadirs | NeRF-MLP | .936 87.61 153.43 9.36
        1 SWOT + 4 nadirs | SIREN | .934 87.47 136.72 8.35
        4 nadirs + SST | MUSTI | .946 45.70 137.66 4.14
        4 nadirs + SST | 4DVarNet | .959 45.62 87.32 3.72
        """,
    ),
    *_rows(
        "oceanbench-ose",
        "NeurIPS 2023, segments of 850 km",
        GITHUB + "jejjohnson/oceanbench",
        "nrmse lambda_x",
        """
        2017, 6 nadirs | BFN | .884 121.65
        2017, 6 nadirs | 4DVarNet | .909 97.90
        2017, 6 nadirs | ConvLSTM | .894 113.41
        2017, 6 nadirs | ConvLSTM-SST | .902 107.54
        2017, 6 nadirs | MUSTI | .903 112.09
        2017, 6 nadirs | DUACS | .882 150.91
        2017, 6 nadirs | DYMOST | .898 130.60
        2017, 6 nadirs | MIOST | .896 135.33
        """,
    ),
    *_rows(
        "odc2021a",
        "current",
        ODC + "2021a_SSH_mapping_OSE",
        "mu sigma lambda_x",
        """
        2017, 6 nadirs | baseline OI | .85 .09 140
        2017, 6 nadirs | DUACS | .88 .07 152
        2017, 6 nadirs | MIOST | .89 .08 139
        2017, 6 nadirs | DYMOST | .89 .06 129
        2017, 6 nadirs | BFN | .88 .06 122
        2017, 6 nadirs | 4DVarNet v2021 | .89 .06 122
        2017, 6 nadirs | 4DVarNet v2022 | .89 .09 109
        2017, 6 nadirs | 4DVarQG | .90 .06 106
        2017, 6 nadirs | ConvLSTM SSH | .90 .06 113
        2017, 6 nadirs | ConvLSTM SSH-SST | .90 .06 100
        2017, 6 nadirs | NeurOST SSH-SST | .90 .06 114
        """,
    ),
    *_rows(
        "ocb",
        "current",
        GITHUB + "quentinf00/ocb-dc-ose-2021",
        "mu lambda_x",
        """
        2017, 6 nadirs | DUACS | .888 154.58
        2017, 6 nadirs | 4DVarNet | .920 102.77
        """,
    ),
    *_rows(
        "regimes",
        "2023a, band 65 to 500 km",
        ODC + "2023a_SSH_mapping_OSE",
        _BANDS,
        """
        2019, global | DUACS | \
        .683678 .682788 .941316 .941316 .800111 .868348 \
        .764560 .415881 .667031 .585653 .415025 .077469
        2019, global | MIOST | \
        .689822 .697257 .945153 .956015 .806072 .873085 \
        .757493 .423876 .650382 .594350 .429089 .103416
        2019, global | MIOST + equatorial waves | \
        .693327 .697649 .945677 .955963 .812999 .873896 \
        .765894 .426543 .658796 .600981 .458979 .096746
        2019, N Atlantic | DUACS | \
        .526339 .534991 .939611 .947624 .777629 .857139 \
        .636678 .412013 - - - -
        2019, Gulf Stream | DUACS | .864663 .941740 .942486 .951841 .898770 .945300 - - - - - -
        """,
    ),
    *_rows(
        "regimes",
        "2024, band 65 to 200 km",
        ODC + "2024_DC_SSH_mapping_SWOT_OSE",
        _BANDS,
        """
        3 nadirs | MIOST | \
        .688212 .495194 .942200 .874269 .821071 .777468 \
        .838642 .106489 .621974 .421964 -.521463 .132570
        3 nadirs + SWOT | MIOST | \
        .693855 .519650 .955659 .910722 .836213 .815445 \
        .845436 .095713 .619800 .431201 -.773 .153
        6 nadirs | MIOST | \
        .722200 .544347 .957591 .913875 .839035 .811812 \
        .853440 .116960 .648981 .460871 -.520 .147
        6 nadirs + SWOT | MIOST | \
        .716802 .546440 .961968 .927090 .844561 .827471 \
        .854408 .106254 .638924 .449883 -.769 .160
        6 nadirs + SWOT | 4DVarNet | \
        .718571 .538985 .950770 .911154 .829916 .802880 \
        .839814 -.079633 .615341 .438382 -.289 .173
        6 nadirs + SWOT | 4DVarQG (regional) | \
        .714736 .721879 .963770 .949031 .848876 .855504 \
        - - - - - -
        """,
    ),
)


def published(definition: str) -> tuple[Published, ...]:
    r"""Returns the published rows of a definition, or none.

    Example:
        >>> [r.method for r in published("ocb")]
        ['DUACS', '4DVarNet']
    """
    return tuple(r for r in TABLES if r.definition == definition)


def beside(scored: Scored) -> str:
    r"""Returns a table of some scores and of the published ones of the same definition.

    Example:
        >>> print(beside(Scored("ocb", {"mu": 0.9, "lambda_x": 120.0})))
        definition: ocb
        method             mu lambda_x  setting, generation
        this map          0.9      120  your data
        DUACS           0.888   154.58  2017, 6 nadirs; current; other data
        4DVarNet         0.92   102.77  2017, 6 nadirs; current; other data
        source: https://github.com/quentinf00/ocb-dc-ose-2021
    """
    rows = published(scored.definition)
    head = f"definition: {scored.definition}"
    if not rows:
        return f"{head}\nnothing is published under this definition"
    names = [k for k in scored.values if any(k in r.values for r in rows)]
    width = {k: max(len(k), 8) for k in names}
    cells = lambda texts: " ".join(f"{texts.get(k, '-'):>{width[k]}}" for k in names)
    own = cells({k: scored.printed(k) for k in names})
    long = max(12, *(len(r.method) for r in rows))
    lines = [f"{'method':<{long}} {cells({k: k for k in names})}  setting, generation"]
    lines.append(f"{'this map':<{long}} {own}  your data")
    for r in rows:
        found = cells({k: f"{v:g}" for k, v in r.values.items()})
        lines.append(f"{r.method:<{long}} {found}  {r.setting}; {r.generation}; other data")
    sources = [f"source: {s}" for s in dict.fromkeys(r.source for r in rows)]
    return "\n".join([head, *lines, *sources])
