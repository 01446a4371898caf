"""A network that knows nothing of lwd: learn when each group is denoised, train under that schedule, sample from it.

torchrun --nproc-per-node 2 examples/own_network.py
"""

import sys

import torch
from accelerate import Accelerator
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import lwd


class CNN(nn.Module):
    """z (B, 5, 4, 4), the local time of each group (B, 2), labels (B,) -> local velocities (B, 5, 4, 4)."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.time, self.label = nn.Linear(2, width), nn.Embedding(10, width)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in [(5, width), (width, width), (width, 5)])

    def forward(self, z: torch.Tensor, times: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        h = self.convs[0](z) + (self.time(times) + self.label(labels))[:, :, None, None]
        return self.convs[2](F.silu(h + self.convs[1](F.silu(h))))


def digits() -> TensorDataset:
    """Real 8x8 digits: 2x2 pixels as four channels of "fine", their mean as "coarse"; each standardised."""
    bunch = load_digits()
    pixels = torch.from_numpy(bunch.images).float()[:, None]
    x = torch.cat([F.pixel_unshuffle(pixels, 2), F.avg_pool2d(pixels, 2)], dim=1)
    return TensorDataset((x - x.mean((0, 2, 3), True)) / x.std((0, 2, 3), keepdim=True), torch.from_numpy(bunch.target))


def main(probe_steps: int = 100, steps: int = 300) -> torch.Tensor:  # the samples (10, 5, 4, 4), one of each digit
    torch.manual_seed(0)
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    layout = lwd.Layout([lwd.Group("fine", 4), lwd.Group("coarse", 1, weight=4.0)])
    loader = accelerator.prepare(DataLoader(digits(), batch_size=64, shuffle=True, drop_last=True))
    probe = {"steps": probe_steps, "burn_in": probe_steps // 2, "lr": 1e-3, "kinetic_weight": 0.05}
    schedule = lwd.probe.learn(CNN(), loader, layout, leader="coarse", **probe)  # Algorithm 1

    model = CNN()
    model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), 1e-3))
    for _, (x1, y) in zip(range(steps), (batch for _ in range(steps) for batch in loader), strict=False):
        loss = lwd.flow.loss(lambda z, times, y=y: model(z, times, y), x1, schedule, layout)  # Eq. 35
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
    accelerator.print(f"{schedule['fine'].formula()}; loss {loss.item():.3f}; processes: {accelerator.num_processes}")
    return lwd.sample.generate(model, schedule, layout, torch.arange(10), torch.arange(10), shape=(5, 4, 4)).latents


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
