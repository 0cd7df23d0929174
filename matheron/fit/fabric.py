r"""What a training runs on."""

from __future__ import annotations

__all__ = ["hardware"]

from lightning_fabric import Fabric
from lightning_fabric.loggers import TensorBoardLogger
from pathlib import Path
from typing import Any


def hardware(
    accelerator: str = "cpu",
    devices: int | str = 1,
    precision: str = "32-true",
    log: Path | None = None,
) -> Fabric:
    r"""Returns what runs a training: on one processor, on accelerators, on many workers.

    Under ``torchrun`` each process calls it with the number of devices of its machine.

    Arguments:
        accelerator: ``"cpu"``, ``"gpu"`` or ``"auto"``.
        devices: How many of them, or ``"auto"``.
        precision: The precision of networks: ``"32-true"``, ``"bf16-mixed"``, ``"64-true"``...
            Sums and solvers choose their own.
        log: A folder for TensorBoard, if that is installed.

    Raises:
        ValueError: If TensorBoard is asked for, and not installed.
    """
    loggers = [] if log is None else [_logger(log)]
    arguments: Any = {"accelerator": accelerator, "devices": devices, "precision": precision}
    fabric = Fabric(loggers=loggers, **arguments)
    fabric.launch()
    return fabric


def _logger(log: Path) -> Any:
    try:
        return TensorBoardLogger(log.parent, name=log.name)
    except ModuleNotFoundError:
        msg = (
            f"hardware(log={log}): expected TensorBoard, got none. Install it: pip install "
            "tensorboard, or leave log out."
        )
        raise ValueError(msg) from None
