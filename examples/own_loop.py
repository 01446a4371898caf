"""The schedule learned inside a loop of one's own, with any optimiser: rho are the parameters of `lwd.probe.Probe`.

python examples/own_loop.py
"""

import torch
from torch.utils.data import DataLoader

import lwd
from own_network import CNN, digits


def main(steps: int = 100) -> lwd.Schedule:
    """The learned schedule, averaged over the second half of the steps."""
    torch.manual_seed(0)
    layout = lwd.Layout([lwd.Group("fine", 4), lwd.Group("coarse", 1, weight=4.0)])
    model = CNN()
    probe = lwd.probe.Probe(layout, leader="coarse", kinetic_weight=0.1, burn_in=steps // 2)
    optimizer = torch.optim.RAdam([{"params": model.parameters()}, {"params": probe.parameters(), "lr": 1e-2}], lr=1e-3)
    loader = DataLoader(digits(), batch_size=64, shuffle=True, drop_last=True)
    for _, (x1, y) in zip(range(steps), (batch for _ in range(steps) for batch in loader), strict=False):
        terms = probe(lambda z, times, y=y: model(z, times, y), x1)  # draws tau and noise: the terms of Eq. 38
        terms.total.backward()
        optimizer.step()
        optimizer.zero_grad()
        probe.after_step()
    schedule = probe.averaged()
    print(f"loss {terms.flow.item():.3f}, kinetic {terms.kinetic.item():.3f}; {schedule['fine'].formula()}")
    return schedule


if __name__ == "__main__":
    main().save("schedule.json")
