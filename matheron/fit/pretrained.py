r"""The trained solvers that come with the library."""

from __future__ import annotations

__all__ = ["model_folder", "pretrained"]

from pathlib import Path

HOME = Path(__file__).parents[1] / "pretrained"


def pretrained() -> dict[str, Path]:
    r"""Returns the folders of the trained solvers that come with the library, by name.

    Each says on its card which command made it.

    Example:
        >>> from matheron.fit import load_model
        >>> {name: load_model(folder).card.variable for name, folder in pretrained().items()}
        {...}
    """
    return {path.parent.name: path.parent for path in sorted(HOME.glob("*/model.json"))}


def model_folder(folder: Path) -> Path:
    r"""Returns a folder, or that of the trained solver of this name if there is no such folder.

    Example:
        >>> model_folder(Path("here/mine")).name
        'mine'
    """
    return folder if folder.exists() else pretrained().get(str(folder), folder)
