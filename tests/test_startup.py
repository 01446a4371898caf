"""What an import loads: people who use a part wait for that part, and need no package that it does not use."""

from __future__ import annotations

import subprocess
import sys

import pytest

FIRST_HOUSE = {"generate": 2788}
"""Modules loaded before the library had its own floors, PyTorch's 1 123 included."""


def loaded(code: str) -> set[str]:
    """The names of all modules after ``code``, in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(' '.join(sys.modules))"],
        check=True,
        capture_output=True,
        text=True,
    )
    return set(done.stdout.split())


def packages(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


def test_lwd_alone_loads_nothing() -> None:
    assert not {"torch", "numpy", "pydantic", "typer"} & packages(loaded("import lwd"))


def test_names_and_rooms_come_when_they_are_touched() -> None:
    names = "import lwd; lwd.Schedule; lwd.Layout; lwd.Group; lwd.flow.loss"
    heavy = {"matplotlib", "typer", "accelerate", "pydantic", "scipy", "safetensors", "PIL"}
    assert not heavy & packages(loaded(names))
    with pytest.raises(subprocess.CalledProcessError):
        loaded("import lwd; lwd.nothing")


def test_sampling_needs_neither_pictures_nor_launchers() -> None:
    modules = loaded("from lwd.sample import generate")
    assert not {"matplotlib", "typer", "accelerate", "pydantic", "PIL", "scipy"} & packages(modules)
    assert len(modules) < 0.75 * FIRST_HOUSE["generate"]


def test_stages_load_nothing_that_only_some_of_them_use() -> None:
    modules = loaded("from lwd.stages import encode, evaluate, experiment, probe, sample, semvae, train")
    assert not {"matplotlib", "scipy", "sklearn", "diffusers", "transformers"} & packages(modules)


def test_the_command_line_needs_no_torch_to_say_what_it_can() -> None:
    assert not {"torch", "numpy", "pydantic"} & packages(loaded("import lwd.cli.main"))


def test_metrics_need_torch_and_numpy_alone() -> None:
    """As in an environment where nothing else is installed."""
    block = (
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in BLOCKED: raise ModuleNotFoundError(name)\n"
        "BLOCKED = {'pydantic', 'accelerate', 'safetensors', 'scipy', 'sklearn', 'PIL', 'matplotlib', 'typer', 'yaml',"
        " 'rich', 'huggingface_hub', 'psutil', 'jinja2'}\n"
        "sys.meta_path.insert(0, Block())\n"
        "import torch, lwd\n"
        "a, b = torch.randn(50, 4), torch.randn(60, 4) + 1\n"
        "assert 2 < lwd.metrics.fid(a, b) < 8\n"
        "lwd.metrics.precision_recall(a, b); lwd.metrics.kernel_distance(a, b); lwd.metrics.FidInception()\n"
        "lwd.metrics.inception_score(torch.randn(20, 5))\n"
    )
    assert "lwd.metrics" in loaded(block)
