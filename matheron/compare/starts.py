r"""What a training begins with: a trained solver that it is told of."""

from __future__ import annotations

__all__ = ["LAW_RUN", "check_start"]

from .plans import Plan
from ..fit import LearnedModel

LAW_RUN = "law.safetensors"
"""Where the training of the law of a field stands."""


def check_start(plan: Plan, start: LearnedModel) -> None:
    r"""Refuses a trained solver that was not trained for what a plan is for.

    Raises:
        ValueError: If its purpose, its lead or its days are others.
    """
    card = start.card
    own, asked = (card.purpose, card.lead), (plan.purpose, plan.lead)
    if own != asked or start.grid.shape[0] != plan.window:
        msg = (
            f"learn(start=...): expected a solver of windows of {plan.window} days for "
            f"{asked[0]}, lead {asked[1]}, got one of {start.grid.shape[0]} for {own[0]}, lead "
            f"{own[1]}. Ask for what it was trained for."
        )
        raise ValueError(msg)
