"""Weights are found where a graph keeps them, and changed there and nowhere else."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.errors import GraphError
from export.graphweights import rewrite, stored_weights

WIDE = np.arange(12, dtype=np.float32).reshape(3, 4)
NARROW = np.arange(6, dtype=np.float16).reshape(2, 3)
INLINE = np.array([[1.0, 2.0]], np.float16)


def outside(name, array, at, **changed):
    tensor = TensorProto(name=name, dims=array.shape, data_location=TensorProto.EXTERNAL)
    tensor.data_type = helper.np_dtype_to_tensor_dtype(array.dtype)
    place = {"location": "model.onnx_data", "offset": str(at), "length": str(array.nbytes)}
    for key, value in (place | changed).items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def write(folder, *, data=b"", **changed):
    folder.mkdir()
    tensors = [
        outside("a.weight", WIDE, 16, **changed),
        outside("b.weight", NARROW, 64),
        numpy_helper.from_array(INLINE, "c.weight"),
        numpy_helper.from_array(np.array([7.0], np.float32), "val_1"),
        numpy_helper.from_array(np.array([7], np.int64), "d.index"),
    ]
    output = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph([], "main", [], [output], tensors)
    (folder / "model.onnx").write_bytes(helper.make_model(graph).SerializeToString())
    whole = b"\xaa" * 16 + WIDE.tobytes() + NARROW.tobytes() + b"\xbb" * 8
    (folder / "model.onnx_data").write_bytes(data or whole)
    return folder / "model.onnx", folder / "model.onnx_data"


def values(folder):
    graph = onnx.load(folder / "model.onnx", load_external_data=False).graph
    return {
        each.name: numpy_helper.to_array(each, base_dir=str(folder)) for each in graph.initializer
    }


def test_weights_are_found_in_both_places_and_constants_are_none(tmp_path):
    found = stored_weights(*write(tmp_path / "base"))
    assert {name: (each.shape, each.dtype, each.offset) for name, each in found.items()} == {
        "a.weight": ((3, 4), np.float32, 16),
        "b.weight": ((2, 3), np.float16, 64),
        "c.weight": ((1, 2), np.float16, None),
    }


@pytest.mark.parametrize("chosen", [["a.weight"], ["b.weight", "c.weight"], ["c.weight"]])
def test_what_is_named_is_changed_and_nothing_else(tmp_path, chosen):
    base = write(tmp_path / "base")
    before = base[0].read_bytes(), base[1].read_bytes()
    (tmp_path / "new").mkdir()
    rewrite(*base, tmp_path / "new", dict.fromkeys(chosen, lambda array: array * 3))
    assert (base[0].read_bytes(), base[1].read_bytes()) == before
    old, new = values(tmp_path / "base"), values(tmp_path / "new")
    for name, array in old.items():
        wanted = array * 3 if name in chosen else array
        assert new[name].dtype == array.dtype
        np.testing.assert_array_equal(new[name], wanted)
    data = (tmp_path / "new/model.onnx_data").read_bytes()
    assert (data[:16], data[-8:]) == (b"\xaa" * 16, b"\xbb" * 8)
    if "c.weight" not in chosen:
        assert (tmp_path / "new/model.onnx").read_bytes() == before[0]


def test_no_file_has_two_names_since_onnx_refuses_such_weights(tmp_path):
    base = write(tmp_path / "base")
    (tmp_path / "new").mkdir()
    rewrite(*base, tmp_path / "new", {})
    for file in base:
        copy = tmp_path / "new" / file.name
        assert (file.stat().st_nlink, copy.stat().st_nlink) == (1, 1)
        assert copy.read_bytes() == file.read_bytes()
    base[1].write_bytes(b"changed later")
    assert values(tmp_path / "new").keys() >= {"a.weight", "b.weight"}


@pytest.mark.parametrize(
    "changed",
    [
        {"offset": "80"},  # runs past the end
        {"offset": "-1"},
        {"offset": "9" * 30},
        {"length": "47"},
        {"length": ""},
        {"location": "../model.onnx_data"},
    ],
    ids=str,
)
def test_a_weight_that_lies_elsewhere_is_refused(tmp_path, changed):
    base = write(tmp_path / "base", **changed)
    with pytest.raises(GraphError, match="weight"):
        stored_weights(*base)


def test_a_shortened_data_file_is_refused(tmp_path):
    with pytest.raises(GraphError, match="outside"):
        stored_weights(*write(tmp_path / "base", data=b"short"))


def test_what_is_no_graph_is_refused(tmp_path):
    model, data = write(tmp_path / "base")
    model.write_bytes(b"\xff" * 40)
    with pytest.raises(GraphError, match="no ONNX file"):
        stored_weights(model, data)
