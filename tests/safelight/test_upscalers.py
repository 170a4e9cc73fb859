"""`models add FILE.onnx`: what is taken, what is said of it, what is refused."""

import shutil

import onnx
import pytest
from onnx import TensorProto, helper

from engine import Bundle, BundleError, FakeBackend, Pipeline
from tests.engine.tiny_graph import write_two
from tests.engine.upscaler_graph import write_upscaler
from tests.safelight.test_models import Home, flip


@pytest.fixture
def home(tmp_path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def file(tmp_path):
    return write_upscaler(tmp_path / "Real 4x.onnx", scale=4)


def refused(home, status, said, source):
    home.fails(status, said, "add", source, "--to", "mine")
    assert list(home.models.glob("*")) == list(home.models.glob(".*")) == []


def test_it_is_listed_shown_and_verified(home, file):
    added = home.line("add", file, "--to", "mine")
    assert (added["name"], added["scale"], added["verified"]) == ("mine", 4, True)
    listed = home.good("ls").stdout
    assert "x4" in listed
    assert "onnx Real 4x.onnx" in listed
    shown = home.line("show", "mine")
    assert (shown["family"], shown["scale"], shown["verified"]) == ("upscaler", 4, True)
    assert "prediction_type" not in shown
    assert shown["components"]["upscaler"]["data_file"] == ""
    checked = home.line("verify", "mine")
    assert (checked["files"], checked["parity"]) == (2, None)
    assert "no module of torch" in checked["parity_skipped"]
    assert (home.models / "mine/upscaler/model.onnx").read_bytes() == file.read_bytes()


def test_its_licence_is_what_the_person_says(home, file):
    home.good("add", file, "--to", "mine", "--licence", "bsd-3-clause")
    assert home.line("show", "mine")["licence"] == "bsd-3-clause"
    home.good("add", file, "--to", "other")
    assert home.line("show", "other")["licence"] == "unknown"


@pytest.mark.parametrize("text", ["", "two\nlines", "x" * 101])
def test_a_licence_is_one_line(home, file, text):
    home.fails(2, "one line of text", "add", file, "--to", "mine", "--licence", text)
    assert list(home.models.glob("*")) == []


def test_a_bundle_names_its_own_licence(home, tmp_path):
    home.fails(2, "names its own", "add", tmp_path, "--to", "mine", "--licence", "mit")


def test_weights_beside_the_graph_come_along_and_are_vouched_for(home, tmp_path):
    file = write_upscaler(tmp_path / "big.onnx", scale=2, external="big.onnx.data")
    assert home.line("add", file, "--to", "mine")["scale"] == 2
    data = home.models / "mine/upscaler/big.onnx.data"
    assert data.read_bytes() == (tmp_path / "big.onnx.data").read_bytes()
    flip(data)
    home.fails(6, "upscaler/big.onnx.data has another sha256", "verify", "mine", "--quick")


def test_an_upscaler_is_no_model_to_draw_with(home, file):
    home.good("add", file, "--to", "mine")
    bundle = Bundle.open(home.models / "mine", hash_cache=None)
    with pytest.raises(BundleError, match="'mine' is an upscaler, which draws no pictures"):
        Pipeline(bundle, FakeBackend())
    home.good("rm", "mine", "--yes")
    assert home.listed() == ["pocket"]


@pytest.mark.parametrize(
    ("graph", "said"),
    [
        ({"scale": 5}, "so it is no upscaler"),
        ({"scale": 1}, "so it is no upscaler"),
        ({"gain": float("inf")}, "NaN or Inf"),
        ({"size": (4096, 4096)}, "too large"),
    ],
    ids=str,
)
def test_what_does_not_enlarge_a_picture_is_refused(home, tmp_path, graph, said):
    refused(home, 6, said, write_upscaler(tmp_path / "odd.onnx", **graph))


def test_another_network_is_refused_by_its_ports(home, tmp_path):
    refused(home, 6, "has 2 outputs; one is needed", write_two(tmp_path / "two.onnx"))
    grey = write_upscaler(tmp_path / "grey.onnx")
    model = onnx.load(grey)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1
    onnx.save(model, grey)
    refused(home, 6, "no [B, 3, H, W]", grey)
    x = helper.make_tensor_value_info("x", TensorProto.INT64, ["n"])
    y = helper.make_tensor_value_info("y", TensorProto.INT64, ["n"])
    same = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])
    onnx.save(helper.make_model(same), tmp_path / "whole.onnx")
    refused(home, 6, "is int64 with 1 dimensions", tmp_path / "whole.onnx")


def test_a_graph_that_no_runtime_can_read_is_refused(home, file):
    model = onnx.load(file)
    model.graph.node[1].op_type = "NoSuchOperator"
    onnx.save(model, file)
    refused(home, 6, "cannot read", file)


def test_what_is_no_onnx_file_is_refused(home, tmp_path, file):
    (tmp_path / "text.onnx").write_text("hello")
    refused(home, 6, "text.onnx is no ONNX file", tmp_path / "text.onnx")
    refused(home, 5, "", tmp_path / "gone.onnx")
    (tmp_path / "link.onnx").symlink_to(file)
    refused(home, 2, "no ordinary file", tmp_path / "link.onnx")


@pytest.mark.parametrize("place", ["../outside", "deeper/weights", "config.json"])
def test_weights_from_elsewhere_are_refused(home, tmp_path, place):
    folder = tmp_path / "source"
    file = write_upscaler(folder / "up.onnx", external="weights")
    model = onnx.load(file, load_external_data=False)
    for tensor in model.graph.initializer:
        tensor.external_data[0].value = place
    file.write_bytes(model.SerializeToString())
    target = folder / place
    target.parent.mkdir(exist_ok=True)
    shutil.copy(folder / "weights", target)
    refused(home, 2, "takes its weights from elsewhere", file)


def test_missing_weights_are_named(home, tmp_path):
    file = write_upscaler(tmp_path / "up.onnx", external="weights")
    (tmp_path / "weights").unlink()
    refused(home, 2, "needs its weights, 'weights', beside it", file)


def test_a_model_of_that_name_is_not_overwritten(home, file):
    home.place("mine")
    home.fails(2, "there is a model 'mine' already", "add", file, "--to", "mine")
