r"""The states of spun-up oceans, kept on disk: written whole or not at all, and never trusted."""

from __future__ import annotations

__all__ = ["folder", "load", "save"]

import hashlib
import json
import numpy as np
import os
import tempfile
import torch
import zipfile

from collections.abc import Mapping
from jaxtyping import Float
from pathlib import Path
from torch import Tensor
from typing import Any

BROKEN = (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile)


def folder(cache: str | Path | bool) -> Path | None:
    r"""Returns where states are kept: a path, the user's own cache for ``True``, or nowhere."""
    if cache is False:
        return None
    if cache is not True:
        return Path(cache)
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "matheron" / "nature"


def _key(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)


def _path(where: Path, settings: Mapping[str, Any]) -> Path:
    digest = hashlib.sha256(_key(settings).encode()).hexdigest()[:12]
    return where / f"{settings['preset']}-{settings['size']}-{settings['seed']}-{digest}.npz"


def save(where: Path, settings: Mapping[str, Any], q: Float[Tensor, "k n n"]) -> Path:
    r"""Writes a state beside the settings that made it; returns the path."""
    where.mkdir(parents=True, exist_ok=True)
    path = _path(where, settings)
    handle, name = tempfile.mkstemp(dir=where, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, q=q.numpy(), settings=np.array(_key(settings)))
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)
    return path


def load(
    where: Path, settings: Mapping[str, Any], layers: int = 2
) -> Float[Tensor, "k n n"] | None:
    r"""Returns the state that these settings made, or None where it is absent or broken."""
    try:
        # The file is opened here, because numpy leaves a broken one open.
        with _path(where, settings).open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            q, key = file["q"], str(file["settings"])
    except BROKEN:
        return None
    size = settings["size"]
    whole = q.shape == (layers, size, size) and np.isfinite(q).all()
    return torch.as_tensor(q) if whole and key == _key(settings) else None
