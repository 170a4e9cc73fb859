"""A plain optimum export is described from its own files, and only if it is of a known make."""

import json
import shutil
from pathlib import Path

import onnx
import pytest

from engine.errors import BundleError
from engine.plainexport import describe_plain_export

SHIPPED = Path(__file__).parents[2] / "safelight/models/pocket"


@pytest.fixture
def plain(tmp_path) -> Path:
    folder = Path(shutil.copytree(SHIPPED, tmp_path / "My model (v2)"))
    (folder / "safelight.json").unlink()
    return folder


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_it_gets_a_name_that_a_shelf_can_hold(plain):
    assert describe_plain_export(plain).name == "My-model--v2-"


def test_an_old_vae_without_scaling_factor_has_sd1_s(plain):
    config = json.loads((plain / "vae_decoder/config.json").read_text())
    del config["scaling_factor"]
    (plain / "vae_decoder/config.json").write_text(json.dumps(config))
    assert describe_plain_export(plain).scaling_factor == 0.18215


def test_the_encoder_may_be_missing_and_the_rest_may_not(plain):
    shutil.rmtree(plain / "vae_encoder")
    assert "vae_encoder" not in describe_plain_export(plain).components
    shutil.rmtree(plain / "vae_decoder")
    with pytest.raises(BundleError, match="lacks vae_decoder") as caught:
        describe_plain_export(plain)
    assert "safelight export" in caught.value.hint


@pytest.mark.parametrize(
    ("part", "values", "match"),
    [
        ("unet", {"in_channels": 9}, "9 latent channels"),
        ("vae_decoder", {"block_out_channels": [8, 8]}, "at 1/2 size"),
        ("unet", {"sample_size": 0}, "sample_size"),
        ("text_encoder", {"max_position_embeddings": "many"}, "max_position_embeddings"),
    ],
)
def test_another_make_is_refused(plain, part, values, match):
    edit(plain / part / "config.json", **values)
    with pytest.raises(BundleError, match=match):
        describe_plain_export(plain)


def test_two_text_encoders_without_layers_are_no_xl(plain):
    shutil.copytree(plain / "text_encoder", plain / "text_encoder_2")
    with pytest.raises(BundleError, match="gives no hidden_states"):
        describe_plain_export(plain)


@pytest.mark.parametrize("location", ["../unet/model.onnx_data", "/etc/passwd", "gone"])
def test_weights_from_elsewhere_are_refused(plain, location):
    path = plain / "text_encoder/model.onnx"
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match="takes weights from elsewhere"):
        describe_plain_export(plain)


def test_weights_inside_the_graph_are_fine(plain):
    path = plain / "text_encoder/model.onnx"
    onnx.save(onnx.load(path), path)
    assert describe_plain_export(plain).components["text_encoder"].data_file == ""
