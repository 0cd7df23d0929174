r"""All methods on one experiment, from the command line."""

from __future__ import annotations

__all__ = ["compare_methods", "listed"]

from pathlib import Path

from .border import say
from ..compare import Board
from ..data import InputError


def listed(names: str | None) -> list[str] | None:
    r"""Returns names that are given with commas between.

    Example:
        >>> listed("oi, spde"), listed(None)
        (['oi', 'spde'], None)
    """
    if names is None:
        return None
    return [name.strip() for name in names.split(",") if name.strip()]


def compare_methods(
    folder: Path,
    methods: str,
    output: Path,
    step: float | None,
    only: str | None,
    members: int,
    against: str | None,
    seed: int,
    force: bool,
) -> str:
    r"""Maps an experiment by several methods, writes the leaderboard, and returns its table."""
    if against not in {None, "published"}:
        msg = (
            f"compare(against={against}): expected 'published', got {against!r}. Leave it out, or "
            "say --against published."
        )
        raise InputError(msg)
    names = listed(methods) or []
    if not names:
        msg = "compare(methods=...): expected names of methods, got none. Try --methods oi,spde."
        raise InputError(msg)
    board = Board(folder, output, step, listed(only), members, seed)
    board.run(names, say, force)
    table = board.write(against is not None, say)
    failed = [row for row in board.rows() if "failed" in row and row["method"] in names]
    if failed:
        first = failed[0]
        msg = f"{len(failed)} of {len(names)} methods failed: {first['method']}: {first['failed']}"
        raise ValueError(msg)
    return table.to_string(float_format=lambda v: f"{v:.3g}", na_rep="")
