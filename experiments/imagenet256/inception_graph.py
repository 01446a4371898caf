"""ADM's own Inception, TensorFlow's ``classify_image_graph_def.pb``, read without TensorFlow.

`inception_graph.py classify_image_graph_def.pb inception.safetensors` makes a file for ``evaluate.weights``.

A GraphDef is a protobuf message: fields of (number, wire type, value). What is needed of it are the constants: NodeDef
(GraphDef's field 1) has its name in field 1 and its attributes in field 5, where "value" holds a TensorProto in field 8
of an AttrValue: type in field 1, shape in 2, float32 bytes in 4 (`tensorflow/core/framework/*.proto`).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from lwd.console import one_line_errors
from lwd.errors import UserError
from lwd.files import atomic_path

_FLOAT32 = 1
_BLOCKS = ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")
"""The port's Mixed_* of TensorFlow's mixed, mixed_1, ..., mixed_10."""
_STEM = ("1a_3x3", "2a_3x3", "2b_3x3", "3b_1x1", "4a_3x3")
"""The port's Conv2d_* of TensorFlow's conv, conv_1, ..., conv_4."""
_SEVEN = {"tower": ("7x7_1", "7x7_2", "7x7_3"), "tower_1": tuple(f"7x7dbl_{i}" for i in range(1, 6))}
_TOWERS: dict[str, dict[str, tuple[str, ...]]] = {
    "5": {"tower": ("5x5_1", "5x5_2"), "tower_1": ("3x3dbl_1", "3x3dbl_2", "3x3dbl_3")},
    "6a": {"": ("3x3",), "tower": ("3x3dbl_1", "3x3dbl_2", "3x3dbl_3")},
    "6": _SEVEN,
    "7a": {"tower": ("3x3_1", "3x3_2"), "tower_1": tuple(f"7x7x3_{i}" for i in range(1, 5))},
    "7": {
        "tower": ("3x3_1",),
        "tower/mixed": ("3x3_2a", "3x3_2b"),
        "tower_1": ("3x3dbl_1", "3x3dbl_2"),
        "tower_1/mixed": ("3x3dbl_3a", "3x3dbl_3b"),
    },
}
"""The port's branch* of a block's towers, each of conv, conv_1, ... in order."""
_PARTS = {
    "conv2d_params": "conv.weight",
    "batchnorm/gamma": "bn.weight",
    "batchnorm/beta": "bn.bias",
    "batchnorm/moving_mean": "bn.running_mean",
    "batchnorm/moving_variance": "bn.running_var",
}


def read_graph(path: Path) -> dict[str, Tensor]:
    """The graph's weights under the names of the PyTorch port. Raises UserError for a file that does not hold them."""
    try:
        constants = dict(_constants(path.read_bytes()))
    except (ValueError, LookupError) as error:  # a length beyond the end, a shape that does not fit its bytes
        raise UserError(f"{path}: damaged, or no TensorFlow graph ({error})") from error
    state = {}
    for theirs, ours in _names().items():
        if theirs not in constants:
            raise UserError(f"{path}: not the Inception graph of 2015-12-05: it has no constant {theirs!r}")
        tensor = torch.from_numpy(constants[theirs])
        if tensor.ndim == 4:  # height, width, in, out
            tensor = tensor.permute(3, 2, 0, 1)
        state[ours] = (tensor.T if ours == "fc.weight" else tensor).contiguous()
    return state


def _names() -> dict[str, str]:
    """TensorFlow's name of each constant, and the port's."""
    convs = {_numbered("conv", i): f"Conv2d_{name}" for i, name in enumerate(_STEM)}
    for i, block in enumerate(_BLOCKS):
        towers = dict(_TOWERS.get(block) or _TOWERS[block[0]])
        if block not in ("6a", "7a"):  # the others begin with a 1x1 branch and end with a pool
            towers |= {"": ("1x1",), "tower_2": ("_pool",)}
        for tower, branches in towers.items():
            for j, branch in enumerate(branches):
                place = "/".join(filter(None, (_numbered("mixed", i), tower, _numbered("conv", j))))
                convs[place] = f"Mixed_{block}.branch{branch}"
    names = {f"{conv}/{part}": f"{ours}.{end}" for conv, ours in convs.items() for part, end in _PARTS.items()}
    return names | {"softmax/weights": "fc.weight", "softmax/biases": "fc.bias"}


def _numbered(name: str, index: int) -> str:
    return f"{name}_{index}" if index else name


def _constants(data: bytes) -> Iterator[tuple[str, np.ndarray]]:
    """Name and value of every float32 constant of a GraphDef."""
    for number, _, node in _fields(memoryview(data)):
        if number == 1:
            name = b"".join(content for field, _, content in _fields(node) if field == 1).decode()
            for field, _, entry in _fields(node):
                attribute = {inner: content for inner, _, content in _fields(entry)} if field == 5 else {}
                if bytes(attribute.get(1, b"")) == b"value" and (array := _array(attribute[2])) is not None:
                    yield name, array


def _array(attribute: memoryview) -> np.ndarray | None:
    """The tensor of an AttrValue, None for what is no float32 tensor held as bytes."""
    for number, _, tensor in _fields(attribute):
        fields = {field: (value, content) for field, value, content in _fields(tensor)} if number == 8 else {}
        if 4 in fields and fields.get(1, (0,))[0] == _FLOAT32:
            dims = [dim for field, _, dim in _fields(fields[2][1]) if field == 2] if 2 in fields else []
            sizes = [sum(value for field, value, _ in _fields(dim) if field == 1) for dim in dims]
            return np.frombuffer(fields[4][1], "<f4").reshape(sizes).copy()
    return None


def _fields(data: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Number, value (of an integer) and content (of anything longer) of a message's fields.

    Raises ValueError or IndexError where it is cut.
    """
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        kind, value, length = key & 7, 0, 0
        if kind == 0:
            value, place = _varint(data, place)
        elif kind == 2:
            length, place = _varint(data, place)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if place + length > len(data):
            raise ValueError("cut short")
        yield key >> 3, value, data[place : place + length]
        place += length


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place


def main(arguments: Sequence[str] | None = None) -> None:
    """Convert one file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("graph", type=Path, help="TensorFlow's file")
    parser.add_argument("target", type=Path, help="the .safetensors file to write")
    paths = parser.parse_args(arguments)
    with one_line_errors(), atomic_path(paths.target) as temporary:
        save_file(read_graph(paths.graph), temporary)


if __name__ == "__main__":
    main()
