"""Three groups on grids of their own: an image, a sequence and one global token. The condition is a dict of tensors.

python examples/three_groups.py
"""

import torch
from torch import nn

import lwd

LAYOUT = lwd.Layout(
    [
        lwd.Group("image", 2, shape=(4, 4)),
        lwd.Group("sequence", 3, shape=(6,)),
        lwd.Group("token", 8, weight=2.0, shape=()),
    ]
)  # latents are (B, 2 * 16 + 3 * 6 + 8)


class Net(nn.Module):
    """Any network: it gets (B, D), and each group in its own shape by `layout.split`."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.enter = nn.ModuleDict({g.name: nn.Linear(g.size, width) for g in LAYOUT.groups})
        self.told = nn.Linear(3 + 4, width)
        self.leave = nn.ModuleDict({g.name: nn.Linear(width, g.size) for g in LAYOUT.groups})

    def forward(self, z: torch.Tensor, times: torch.Tensor, condition: dict[str, torch.Tensor]) -> torch.Tensor:
        parts = LAYOUT.split(z)  # image (B, 2, 4, 4), sequence (B, 3, 6), token (B, 8)
        h = self.told(torch.cat([times, condition["text"]], dim=1))
        h = torch.tanh(h + sum(self.enter[name](part.flatten(1)) for name, part in parts.items()))
        return LAYOUT.join({name: self.leave[name](h).view_as(part) for name, part in parts.items()})


def batches(count: int) -> list[tuple[torch.Tensor, dict[str, torch.Tensor]]]:
    """Made-up latents that all depend on the token, and a "text" that names it roughly."""
    token = torch.randn(count, 64, 8)
    mixing = torch.randn(8, LAYOUT.channels - 8, generator=torch.Generator().manual_seed(1))
    rest = 0.35 * token @ mixing + 0.1 * torch.randn(count, 64, mixing.shape[1])
    return [(torch.cat([x, t], dim=1), {"text": t[:, :4]}) for x, t in zip(rest, token, strict=True)]


def main(steps: int = 100) -> torch.Tensor:
    """Samples (5, D) under a schedule learned with the token in the lead."""
    torch.manual_seed(0)
    data, net = batches(steps), Net()
    schedule = lwd.probe.learn(Net(), data, LAYOUT, leader="token", steps=steps, burn_in=steps // 2, lr=1e-3)
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for x1, condition in data:
        lwd.flow.loss(lambda z, times, c=condition: net(z, times, c), x1, schedule, LAYOUT).backward()
        optimizer.step()
        optimizer.zero_grad()
    told = {"text": torch.randn(5, 4)}
    return lwd.sample.generate(net, schedule, LAYOUT, told, torch.arange(5), shape=(LAYOUT.channels,)).latents


if __name__ == "__main__":
    print(main().shape)
