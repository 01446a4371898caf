"""`pip install lwd` alone: what the library needs, and one line, with the extra's name, where a command needs more."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
EXTRAS = {"matplotlib", "scipy", "sklearn", "diffusers", "transformers", "peft"}
"""What the extras bring, by the name that is imported."""

BLOCK = f"import sys\nsys.modules.update(dict.fromkeys({sorted(EXTRAS)}))\n"
LIBRARY = """
import torch, lwd
import lwd.data, lwd.maps, lwd.metrics, lwd.models, lwd.times, lwd.training
from lwd.sample import generate

layout = lwd.Layout([lwd.Group("tex", 4), lwd.Group("sem", 2)])

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Conv2d(6, 6, 1)

    def forward(self, z, times, y):
        return self.inner(z)

loader = [(torch.randn(8, 6, 2, 2), torch.zeros(8, dtype=torch.long))]
schedule = lwd.probe.learn(Net(), loader, layout, leader="sem", kinetic_weight=0.04, steps=2, burn_in=1)
labels, seeds = torch.zeros(2, dtype=torch.long), torch.arange(2)
assert generate(Net(), schedule, layout, labels, seeds, (6, 2, 2)).latents.shape == (2, 6, 2, 2)
"""


def run(code: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BLOCK + code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


def test_the_library_needs_no_extra(tmp_path: Path) -> None:
    done = run(LIBRARY, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_command_that_needs_an_extra_names_it(tmp_path: Path) -> None:
    done = run("from lwd.cli.main import main; main()", "demo", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "lwd: this needs sklearn, which is not installed: pip install 'lwd[stages]'"
    done = run("from lwd.cli.main import main; main()", "keys", "train", cwd=tmp_path)
    assert done.returncode == 0 and "train.steps" in done.stdout


def test_every_lower_bound_is_met_and_every_package_is_pinned() -> None:
    """What the tests run on is what constraints.txt says, for each dependency and extra."""
    pins = {
        Requirement(line).name.lower().replace("_", "-"): Requirement(line)
        for line in (Path(__file__).parents[1] / "constraints.txt").read_text().splitlines()
        if "==" in line and not line.startswith("#")
    }
    for text in requires("lwd") or []:
        requirement = Requirement(text)
        if requirement.name == "lwd" or "docs" in str(requirement.marker):
            continue
        (pin,) = pins[requirement.name.lower().replace("_", "-")].specifier
        assert requirement.specifier.contains(pin.version), requirement
