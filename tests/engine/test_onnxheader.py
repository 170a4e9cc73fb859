"""The header reader agrees with the onnx library, and survives any bytes."""

from pathlib import Path

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from engine.errors import BundleError
from engine.onnxheader import read_onnx_header

SHIPPED = Path(__file__).parents[2] / "safelight/models/pocket"
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def external(name: str, location: str) -> TensorProto:
    tensor = helper.make_tensor(name, FLOAT, [1], [0.0])
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def graph(nodes=(), initializers=(), dtype=FLOAT) -> onnx.GraphProto:
    node = helper.make_node("Identity", ["x"], ["y"])
    port = [helper.make_tensor_value_info(name, dtype, ["batch", 3]) for name in "xy"]
    return helper.make_graph([node, *nodes], "g", port[:1], port[1:], initializers)


def save(folder: Path, proto: onnx.GraphProto) -> Path:
    (folder / "model.onnx").write_bytes(helper.make_model(proto).SerializeToString())
    return folder / "model.onnx"


@pytest.mark.parametrize("part", ["text_encoder", "unet", "vae_decoder", "vae_encoder"])
def test_it_agrees_with_the_library(part):
    header = read_onnx_header(SHIPPED / part / "model.onnx")
    model = onnx.load(SHIPPED / part / "model.onnx", load_external_data=False).graph
    for ports, wanted in ((header.inputs, model.input), (header.outputs, model.output)):
        assert list(ports) == [port.name for port in wanted]
        for port in wanted:
            spec = ports[port.name]
            tensor = port.type.tensor_type
            assert helper.np_dtype_to_tensor_dtype(__import__("numpy").dtype(spec.dtype)) == (
                tensor.elem_type
            )
            assert list(spec.shape) == [
                dim.dim_value if dim.HasField("dim_value") else dim.dim_param
                for dim in tensor.shape.dim
            ]
    assert header.data_files == {"model.onnx_data"}


def test_weights_in_every_place_are_found(tmp_path):
    inner = helper.make_graph([], "inner", [], [], [external("w1", "one")])
    constant = helper.make_node("Constant", [], ["c"], value=external("w2", "../two"))
    branch = helper.make_node("If", ["x"], ["z"], then_branch=inner, else_branch=inner)
    path = save(tmp_path, graph([constant, branch], [external("w3", "/three")]))
    assert read_onnx_header(path).data_files == {"one", "../two", "/three"}


def test_ports_of_an_inner_graph_are_not_the_model_s(tmp_path):
    inside = helper.make_tensor_value_info("inside", FLOAT, [])
    inner = helper.make_graph([], "inner", [inside], [inside])
    branch = helper.make_node("If", ["x"], ["z"], then_branch=inner, else_branch=inner)
    header = read_onnx_header(save(tmp_path, graph([branch])))
    assert (list(header.inputs), list(header.outputs)) == (["x"], ["y"])


def test_a_foreign_element_type_is_refused(tmp_path):
    with pytest.raises(BundleError, match="'x' has a type"):
        read_onnx_header(save(tmp_path, graph(dtype=TensorProto.STRING)))


def test_graphs_nested_without_end_are_refused(tmp_path):
    inner = helper.make_graph([], "inner", [], [])
    for _ in range(20):
        node = helper.make_node("If", ["x"], ["z"], then_branch=inner, else_branch=inner)
        inner = helper.make_graph([node], "inner", [], [])
        inner.node[0].attribute.pop()  # one branch: two of them double the size each time
    branch = helper.make_node("If", ["x"], ["z"], then_branch=inner)
    with pytest.raises(BundleError, match="too deeply"):
        read_onnx_header(save(tmp_path, graph([branch])))


@pytest.mark.parametrize("data", [b"", b"\x00", b"not onnx at all", b"\xff" * 40, b":\x05abc"])
def test_what_is_no_onnx_is_refused(tmp_path, data):
    (tmp_path / "model.onnx").write_bytes(data)
    with pytest.raises(BundleError):
        read_onnx_header(tmp_path / "model.onnx")


WHOLE = (SHIPPED / "text_encoder/model.onnx").read_bytes()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_cut_or_spoilt_file_is_read_or_refused_but_never_crashes(tmp_path_factory, data):
    end = data.draw(st.integers(0, len(WHOLE)))
    spoilt = bytearray(WHOLE[:end])
    if spoilt:
        at = data.draw(st.integers(0, len(spoilt) - 1))
        spoilt[at] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "spoilt.onnx"
    path.write_bytes(spoilt)
    try:
        header = read_onnx_header(path)
    except BundleError:
        return
    assert header.outputs
