"""TensorFlow's graph file, written here with TensorBoard's copy of TensorFlow's own message classes."""

import sys
from pathlib import Path

import pytest
import torch
from tensorboard.compat.proto.graph_pb2 import GraphDef

from lwd.errors import UserError
from lwd.metrics import FidInception
from lwd.metrics.inception_weights import read_weights

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments" / "imagenet256"))

from inception_graph import _names, main, read_graph

DT_FLOAT, DT_INT32 = 1, 3
# A sample of the correspondence that torch-fidelity found by matching shapes and outputs, one of each kind.
CORRESPONDENCE = {
    "conv/conv2d_params": "Conv2d_1a_3x3.conv.weight",
    "conv_4/batchnorm/gamma": "Conv2d_4a_3x3.bn.weight",
    "mixed/conv/conv2d_params": "Mixed_5b.branch1x1.conv.weight",
    "mixed/tower/conv_1/conv2d_params": "Mixed_5b.branch5x5_2.conv.weight",
    "mixed_2/tower_1/conv_2/conv2d_params": "Mixed_5d.branch3x3dbl_3.conv.weight",
    "mixed_1/tower_2/conv/batchnorm/beta": "Mixed_5c.branch_pool.bn.bias",
    "mixed_3/conv/conv2d_params": "Mixed_6a.branch3x3.conv.weight",
    "mixed_3/tower/conv_1/batchnorm/moving_mean": "Mixed_6a.branch3x3dbl_2.bn.running_mean",
    "mixed_4/tower/conv_2/conv2d_params": "Mixed_6b.branch7x7_3.conv.weight",
    "mixed_6/conv/batchnorm/moving_variance": "Mixed_6d.branch1x1.bn.running_var",
    "mixed_7/tower_1/conv_4/conv2d_params": "Mixed_6e.branch7x7dbl_5.conv.weight",
    "mixed_8/tower/conv_1/conv2d_params": "Mixed_7a.branch3x3_2.conv.weight",
    "mixed_8/tower_1/conv_3/conv2d_params": "Mixed_7a.branch7x7x3_4.conv.weight",
    "mixed_9/tower/mixed/conv_1/conv2d_params": "Mixed_7b.branch3x3_2b.conv.weight",
    "mixed_10/tower_1/mixed/conv/batchnorm/gamma": "Mixed_7c.branch3x3dbl_3a.bn.weight",
    "mixed_10/tower/conv/conv2d_params": "Mixed_7c.branch3x3_1.conv.weight",
    "softmax/weights": "fc.weight",
    "softmax/biases": "fc.bias",
}


def constant(graph, name, array):
    node = graph.node.add(name=name, op="Const")
    node.attr["dtype"].type = DT_FLOAT
    tensor = node.attr["value"].tensor
    tensor.dtype = DT_FLOAT
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_content = array.contiguous().numpy().tobytes()


@pytest.fixture(scope="module")
def network():
    network = FidInception()
    generator = torch.Generator().manual_seed(0)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(-1, 1, generator=generator)
    return network


@pytest.fixture(scope="module")
def graph(network):
    names, state = _names(), network.state_dict()
    assert CORRESPONDENCE.items() <= names.items()
    assert set(names.values()) == {name for name in state if not name.endswith("num_batches_tracked")}
    graph = GraphDef()
    graph.versions.producer = 9
    graph.node.add(name="ExpandDims", op="ExpandDims").input.extend(["Cast", "ExpandDims/dim"])
    scalar = graph.node.add(name="ExpandDims/dim", op="Const").attr["value"].tensor
    scalar.dtype = DT_INT32
    scalar.int_val.append(0)
    for graph_name, name in names.items():
        tensor = state[name]
        kernel = tensor.permute(2, 3, 1, 0) if tensor.ndim == 4 else tensor.T if tensor.ndim == 2 else tensor
        constant(graph, graph_name, kernel)
        graph.node.add(name=f"{graph_name}/use", op="BatchNormWithGlobalNormalization").attr[
            "variance_epsilon"
        ].f = 0.001
    return graph


@pytest.fixture(scope="module")
def file(graph, tmp_path_factory):
    path = tmp_path_factory.mktemp("graph") / "classify_image_graph_def.pb"
    path.write_bytes(graph.SerializeToString())
    return path


def test_every_weight_comes_through(network, file, tmp_path):
    main([str(file), str(tmp_path / "inception.safetensors")])
    loaded = FidInception(tmp_path / "inception.safetensors")
    state = network.state_dict()
    for name, tensor in loaded.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(tensor, state[name]), name


def test_the_script_writes_what_evaluate_reads(file, network, tmp_path):
    main([str(file), str(tmp_path / "inception.safetensors")])
    weights = read_weights(tmp_path / "inception.safetensors")
    assert all(torch.equal(weights[name], tensor) for name, tensor in network.state_dict().items() if name in weights)
    assert len(weights) >= len(CORRESPONDENCE)
    with pytest.raises(UserError, match=r"inception_graph\.py"):
        read_weights(file)


def test_a_number_without_end(tmp_path):
    path = tmp_path / "endless.pb"
    path.write_bytes(b"\xff" * 10_000)
    with pytest.raises(UserError, match="more than 64 bits"):
        read_graph(path)


@pytest.mark.parametrize("size", [0, 1, 1000, 90_000_000])
def test_cut_files(file, tmp_path, size):
    path = tmp_path / "cut.pb"
    path.write_bytes(file.read_bytes()[:size])
    with pytest.raises(UserError, match=r"cut.pb: (damaged, or no TensorFlow graph|not the Inception graph)") as caught:
        read_graph(path)
    assert "\n" not in str(caught.value)


def test_other_files(tmp_path):
    path = tmp_path / "other.pb"
    path.write_bytes(b"\x80\x02 not a graph" * 100)
    with pytest.raises(UserError, match=r"other.pb: damaged, or no TensorFlow graph"):
        read_graph(path)
    graph = GraphDef()
    constant(graph, "some/weights", torch.zeros(2, 3))
    path.write_bytes(graph.SerializeToString())
    with pytest.raises(UserError, match=r"not the Inception graph .* no constant 'conv/conv2d_params'"):
        read_graph(path)
    constant(graph, "conv/conv2d_params", torch.zeros(5))
    graph.node[-1].attr["value"].tensor.tensor_shape.dim[0].size = 7
    path.write_bytes(graph.SerializeToString())
    with pytest.raises(UserError, match=r"other.pb: damaged"):
        read_graph(path)
