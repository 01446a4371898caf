"""Lets autograd run backward over fake CUDA tensors where there is no card; import it before torch.

PyTorch's CPU build follows fake CUDA tensors forward by itself; backward, its engine asks for a device guard and a
stream. card_guard.cpp has both, and they do nothing; it is compiled here, in seconds, against PyTorch's own headers.
"""

from __future__ import annotations

import ctypes
import importlib.util
import subprocess
import tempfile
from pathlib import Path


def load() -> None:
    """Compile and load the guard. Nothing where this is PyTorch's CUDA build, which has one."""
    spec = importlib.util.find_spec("torch")
    assert spec is not None and spec.origin is not None
    torch = Path(spec.origin).parent
    if (torch / "lib" / "libtorch_cuda.so").exists():
        return
    source = Path(__file__).with_suffix(".cpp")
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / "card_guard.so"
        flags = ["-std=c++20", "-O0", "-shared", "-fPIC", f"-I{torch / 'include'}", f"-L{torch / 'lib'}"]
        command = ["g++", *flags, str(source), "-o", str(built), "-lc10", "-ltorch_cpu"]
        subprocess.run(command, check=True)  # noqa: S603
        for library in (torch / "lib" / "libc10.so", torch / "lib" / "libtorch_cpu.so", built):
            ctypes.CDLL(str(library))


load()
