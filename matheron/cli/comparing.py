r"""All methods on one experiment, from the command line."""

from __future__ import annotations

__all__ = ["compare_methods", "listed", "named"]

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


def named(methods: str) -> dict[str, Path | None]:
    r"""Returns the folders of trained solvers by their names; nothing for other methods.

    Example:
        >>> {k: str(v) for k, v in named("oi, unet=models/a").items()}
        {'oi': 'None', 'unet': 'models/a'}
    """
    found: dict[str, Path | None] = {}
    for text in listed(methods) or []:
        name, is_, folder = (part.strip() for part in text.partition("="))
        if name in found or (is_ and not folder):
            msg = (
                f"compare(methods={text}): expected each name once, and a folder after '=', got "
                f"{text!r}. Write e.g. oi,unet=model/."
            )
            raise InputError(msg)
        found[name] = Path(folder) if folder else None
    return found


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
    names = named(methods)
    if not names:
        msg = "compare(methods=...): expected names of methods, got none. Try --methods oi,spde."
        raise InputError(msg)
    models = {k: v for k, v in names.items() if v is not None}
    board = Board(folder, output, step, listed(only), members, seed, models)
    board.run(list(names), say, force)
    table = board.write(against is not None, say)
    failed = [row for row in board.rows() if "failed" in row and row["method"] in names]
    if failed:
        first = failed[0]
        msg = f"{len(failed)} of {len(names)} methods failed: {first['method']}: {first['failed']}"
        raise ValueError(msg)
    return table.to_string(float_format=lambda v: f"{v:.3g}", na_rep="")
