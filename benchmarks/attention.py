"""Heads of width 72 (LightningDiT-XL: 16 heads of 1152 channels) are awkward for attention kernels: what is fastest?

    python benchmarks/attention.py --batch 256          # GPU, bf16
    python benchmarks/attention.py --batch 8            # CPU, float32

Forward and backward of attention over 256 tokens, by kernel, at head width 72 as it is, zero-padded to 80 and to 96,
and 64 for comparison. Padding leaves the result as it is (the scale stays 1 / sqrt(72)). A kernel that refuses a width
is reported as such. Times include the padding and its gradient.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from common import DEVICE, machine, median_seconds, record
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

HEADS, TOKENS, WIDTH = 16, 256, 72
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def padded(width: int, attention: Attention) -> Attention:
    """Attention on heads padded to ``width`` with zeros."""

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        extra = width - q.shape[-1]
        return attention(*(F.pad(x, (0, extra)) for x in (q, k, v)))[..., : q.shape[-1]]

    return run


def sdpa(backend: SDPBackend | None, scale: float) -> Attention:
    """PyTorch's attention with one kernel, or with the one that it chooses."""

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if backend is None:
            return F.scaled_dot_product_attention(q, k, v, scale=scale)
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(q, k, v, scale=scale)

    return run


def flex(scale: float) -> Attention:
    """FlexAttention, compiled."""
    from torch.nn.attention.flex_attention import flex_attention

    compiled = torch.compile(flex_attention)
    return lambda q, k, v: compiled(q, k, v, scale=scale)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=256 if DEVICE == "cuda" else 8)
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    dtype = torch.bfloat16 if DEVICE == "cuda" else torch.float32
    kernels: dict[str, Callable[[float], Attention]] = {
        "default": lambda scale: sdpa(None, scale),
        "flash": lambda scale: sdpa(SDPBackend.FLASH_ATTENTION, scale),
        "cudnn": lambda scale: sdpa(SDPBackend.CUDNN_ATTENTION, scale),
        "efficient": lambda scale: sdpa(SDPBackend.EFFICIENT_ATTENTION, scale),
        "math": lambda scale: sdpa(SDPBackend.MATH, scale),
        "flex": flex,
    }
    print(machine())
    print(f"batch {arguments.batch}, {HEADS} heads, {TOKENS} tokens, {dtype}; ms forward / forward and backward")
    print(f"{'kernel':10s} {'72':>17s} {'72 padded to 80':>17s} {'72 padded to 96':>17s} {'64':>17s}")
    for name, make in kernels.items():
        cells = []
        for width, pad in ((WIDTH, WIDTH), (WIDTH, 80), (WIDTH, 96), (64, 64)):
            attention = make(width**-0.5)
            one = padded(pad, attention) if pad > width else attention
            cells.append(measure(one, f"{name}, width {width} as {pad}", width, dtype, arguments))
        print(f"{name:10s} " + " ".join(f"{cell:>17s}" for cell in cells), flush=True)


def measure(attention: Attention, title: str, width: int, dtype: torch.dtype, arguments: argparse.Namespace) -> str:
    """One cell of the table, checked against exact attention first."""
    shape = (arguments.batch, HEADS, TOKENS, width)
    q, k, v = (torch.randn(shape, device=DEVICE, dtype=dtype).requires_grad_() for _ in range(3))
    try:
        with torch.no_grad():
            few = [x[:2] for x in (q, k, v)]
            exact = F.scaled_dot_product_attention(*(x.double() for x in few))
            error = float((attention(*few).double() - exact).abs().max())
            forward = median_seconds(lambda: attention(q, k, v), arguments.repeats)
        both = median_seconds(lambda: attention(q, k, v).sum().backward(), arguments.repeats)
    except Exception as error:  # noqa: BLE001 - a kernel that is not there for this device or width
        return f"no ({type(error).__name__})"[:17]
    if error > (0.05 if dtype is torch.bfloat16 else 1e-4):
        raise AssertionError(f"head width {width}: off by {error}")
    record(title, forward_ms=1e3 * forward, both_ms=1e3 * both)
    return f"{1e3 * forward:.2f} / {1e3 * both:.2f}"


if __name__ == "__main__":
    main()
