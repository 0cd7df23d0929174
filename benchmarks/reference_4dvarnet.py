"""The published recipe of 4DVarNet, rebuilt from its description, to measure ours beside it.

4dvarnet-starter, base configuration: a bilinear auto-encoder with 32 channels at half the
resolution, costs that are means over pixels, a gradient by automatic differentiation through which
training differentiates again, divided by one norm over the whole batch, and a convolutional LSTM
with 48 channels.
"""

from __future__ import annotations

__all__ = ["Bilinear", "Reference"]

import torch
import torch.nn as nn
import torch.nn.functional as F

from torch import Tensor


class Bilinear(nn.Module):
    """The auto-encoder of the reference, for windows of some days."""

    def __init__(self, days: int, width: int = 32) -> None:
        super().__init__()
        self.enter = nn.Conv2d(days, width, 3, padding=1)
        self.inner = nn.Conv2d(width, width, 3, padding=1)
        self.parts = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(3))
        self.leave = nn.Conv2d(2 * width, days, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.inner(F.relu(self.enter(F.avg_pool2d(x, 2))))
        plain, a, b = (part(h) for part in self.parts)
        y = self.leave(torch.cat([plain, a * b], dim=1))
        return F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=True)


class Reference(nn.Module):
    """The unrolled solver of the reference.

    ``pull`` multiplies the gradient itself. Costs are means over pixels, so that it has to be
    chosen anew for each size of a patch: 1e3 goes with 240 x 240.
    """

    def __init__(self, days: int, steps: int, width: int = 48, pull: float = 1e3) -> None:
        super().__init__()
        self.steps, self.width, self.pull = steps, width, pull
        self.phi = Bilinear(days)
        self.gates = nn.Conv2d(days + width, 4 * width, 3, padding=1)
        self.leave = nn.Conv2d(width, days, 3, padding=1, bias=False)

    def forward(self, y: Tensor, mask: Tensor) -> Tensor:
        x = torch.where(mask, y, 0.0).requires_grad_()
        h = c = y.new_zeros(len(y), self.width, *y.shape[2:])
        norm: Tensor | None = None
        for k in range(self.steps):
            cost = (x - self.phi(x)).square().mean() + (x - y)[mask].square().mean()
            (slope,) = torch.autograd.grad(cost, x, create_graph=True)
            norm = slope.square().mean().sqrt() if norm is None else norm
            gates = self.gates(torch.cat([slope / norm, h], dim=1)).chunk(4, dim=1)
            take, forget, give = (g.sigmoid() for g in gates[:3])
            c = forget * c + take * gates[3].tanh()
            h = give * c.tanh()
            x = x - self.leave(h) / (k + 1) - self.pull * (k + 1) / self.steps * slope
        return x
