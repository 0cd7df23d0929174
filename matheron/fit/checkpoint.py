r"""Where a training stands, in one file: tensors, and counters as JSON. Nothing is unpickled."""

from __future__ import annotations

__all__ = ["match", "packed", "read_checkpoint", "unpacked", "write_checkpoint"]

import json
import safetensors
import torch

from collections.abc import Mapping
from pathlib import Path
from safetensors.torch import save_file
from torch import Tensor
from typing import Any

from ..data.write import whole_or_not

FORMAT = "1"


def _refusal(path: Path, expected: str, got: str, cure: str) -> ValueError:
    return ValueError(f"train(checkpoint={path}): expected {expected}, got {got}. {cure}.")


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], counters: Any) -> None:
    r"""Writes tensors and counters as one file, whole or not at all.

    Arguments:
        path: The file.
        tensors: The tensors by name, on any device.
        counters: Plain values: numbers, strings, lists and mappings.
    """
    # a file holds no two views of one storage, so each is copied
    plain = {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}
    told = {"format": FORMAT, "counters": json.dumps(counters)}
    with whole_or_not(path.absolute()) as temporary:
        save_file(plain, temporary, metadata=told)


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], Any]:
    r"""Returns the tensors and the counters of a file.

    Raises:
        ValueError: If it is not a whole checkpoint.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            told = file.metadata() or {}
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        if told.get("format") != FORMAT:
            raise ValueError(f"format {told.get('format')}, not {FORMAT}")  # noqa: EM102
        return tensors, json.loads(told["counters"])
    except (OSError, KeyError, ValueError, safetensors.SafetensorError) as error:
        short = " ".join(str(error).split())[:120]
        got = f"one that cannot be read: {short}"
        raise _refusal(path, "a whole checkpoint", got, "Delete it to start anew") from None


def packed(prefix: str, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    r"""Returns the state of an optimiser as tensors by name."""
    state = optimiser.state_dict()["state"]
    return {
        f"{prefix}.{i}.{name}": value
        for i, own in state.items()
        for name, value in own.items()
        if isinstance(value, Tensor)
    }


def unpacked(prefix: str, optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    r"""Gives an optimiser back the state that was packed."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith(f"{prefix}."):
            _, i, name = key.split(".", 2)
            state.setdefault(int(i), {})[name] = value
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})


def match(path: Path, own: Mapping[str, Any], held: Mapping[str, Any]) -> None:
    r"""Refuses a checkpoint of another run, and says what is other.

    Arguments:
        path: The file.
        own: What this run is of: architecture, data, schedule.
        held: The same, of the checkpoint.

    Raises:
        ValueError: If they differ.
    """
    for name, value in own.items():
        if held.get(name) != value:
            expected = f"a checkpoint of the same {name}, {_brief(value, held.get(name))[0]}"
            got = _brief(value, held.get(name))[1]
            cure = f"Give the {name} that it was made with, or name another file"
            raise _refusal(path, expected, got, cure)


def _brief(a: Any, b: Any) -> tuple[str, str]:
    r"""Returns what is different in words: of mappings, their first key that differs."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in a:
            if a[key] != b.get(key):
                return f"{key} {a[key]}", f"{key} {b.get(key)}"
    return str(a), str(b)
