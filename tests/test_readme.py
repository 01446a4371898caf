"""The README's example runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import lwd
from lwd.config import load
from lwd.datasets.prepared import read_prepared
from lwd.stages.experiment import Experiment

ROOT = Path(__file__).parents[1]


class MyNet(nn.Module):
    """A network that begins at v = 0 and knows nothing of lwd."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(48, 1, 1))

    def forward(self, z: torch.Tensor, times: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        assert times.shape == (len(y), 2)
        return self.scale * z


def test_the_readmes_lines_run_and_do_what_they_say() -> None:
    block = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block is not None
    short = block[1].replace(", steps=10_000, burn_in=5_000", "").replace("5_000", "0")
    short = short.replace('layout, leader="sem"', 'layout, leader="sem", steps=8, burn_in=4, rho_lr=0.2', 2)
    assert short.count("steps=8") == 2, "the README's calls changed; they must be made short to be run"
    torch.manual_seed(0)
    loader = [(torch.randn(16, 48, 16, 16), torch.zeros(16)) for _ in range(3)]
    names: dict[str, Any] = {"MyNet": MyNet, "loader": loader}
    exec(short, names)
    schedule, samples = names["schedule"], names["samples"]
    assert schedule.names == ("tex", "sem") and schedule.learned == ("tex",)
    assert schedule.provenance["lambda"] == min(row.kinetic_weight for row in names["table"] if not row.collapsed)
    # With v = 0 the loss is E|x1 - x0|^2 = 2 in each group, weighted by 2/3 + 2/3 (mean-flat) and E t' = 1. The curve
    # is still near the identity, and 200 000 entries leave it within a per cent of 8/3; two steps of 1e-4 do not show.
    assert names["loss"].item() == pytest.approx(8 / 3, rel=0.05)
    assert samples.shape == (16, 48, 16, 16) and bool(samples.isfinite().all())
    # A new probe's curves are the identity, and there the flow term of Eq. 38 is that same expectation.
    assert names["terms"].flow.item() == pytest.approx(8 / 3, rel=0.05)
    assert int(names["probe"].steps) == 1 and all(p.grad is not None for p in names["probe"].parameters())


def test_the_configs_of_docs_data_load(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n# (\w+\.yaml)\n(.*?)```", (ROOT / "docs" / "data.md").read_text(), re.DOTALL)
    assert [name for name, _ in blocks] == ["imagenet.yaml", "own.yaml"]
    for name, text in blocks:
        (tmp_path / name).write_text(text)
        load(Experiment, tmp_path / name, [])


def test_the_data_set_of_docs_data_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "data.md").read_text(), re.DOTALL)
    assert block is not None
    monkeypatch.chdir(tmp_path)
    names = {f"{split}images": torch.zeros(2, 3, 4, 4, dtype=torch.uint8) for split in ("", "heldout_")}
    exec(block[1], names | {f"{split}labels": torch.tensor([0, 1]) for split in ("", "heldout_")})
    assert read_prepared(Path("dataset.safetensors"))["heldout"][1].tolist() == [0, 1]


def test_the_lines_of_docs_map_run_and_agree_with_the_closed_form() -> None:
    """v = 0: the loss is |x1 - x0|^2, so that N_g, L and J follow from the data and the noise; nothing is coupled."""
    block = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "map.md").read_text(), re.DOTALL)
    assert block is not None
    torch.manual_seed(0)
    layout = lwd.Layout([lwd.Group("tex", 32), lwd.Group("sem", 16, weight=2.0)])
    model = MyNet()
    names: dict[str, Any] = {"lwd": lwd, "torch": torch, "layout": layout, "model": model}
    names |= {"loader": [(torch.randn(16, 48, 16, 16), torch.zeros(16))]}
    names |= {"x1": torch.randn(8, 48, 2, 2), "y": torch.zeros(8)}
    names |= {"optimizer": torch.optim.SGD(model.parameters(), 0.0)}
    exec(block[1].replace("batch=512", "batch=2048"), names)
    assert names["loss"].item() == pytest.approx(8 / 3, rel=0.05), "as under a schedule, see above"
    u = (names["x1"] - names["x0"]).double().square()
    # L is the integral of sum_g d_g l_g dt_g, and l_g is the same at every time: the sum of all squares.
    each = u.flatten(1).sum(1)
    assert torch.allclose(names["along"], each, rtol=1e-5), "float32 losses"
    assert names["nats"].shape == (8,) and bool((names["nats"] > 0).all())
    assert all(abs(nats) < 1e-4 for nats, _ in names["routes"].values()), "the network sees no group from the other"
    assert names["schedule"].learned == ("tex",)
