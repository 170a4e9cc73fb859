"""The parity gate again, on a finished bundle: it holds for what is right and sees what is not."""

import json
import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import onnx
import pytest
from typer.testing import CliRunner

import safelight
from engine.manifest import FileEntry, read_manifest, write_manifest
from export import GraphError
from export.recheck import measure_graphs
from safelight.cli.models import app
from safelight.exits import exit_status

POCKET = Path(safelight.__file__).with_name("models") / "pocket"


def bundle_of_one(models: Path) -> Path:
    """Put pocket's VAE encoder alone on a shelf: a whole bundle, in a quarter of the time."""
    folder = shutil.copytree(
        POCKET,
        models / "mine",
        ignore=lambda *_: ["unet", "text_encoder", "vae_decoder", "safelight.json"],
    )
    manifest = read_manifest(POCKET)
    (folder / "safelight.json").write_bytes(
        write_manifest(
            replace(
                manifest,
                components={"vae_encoder": manifest.components["vae_encoder"]},
                files={k: v for k, v in manifest.files.items() if (folder / k).is_file()},
            )
        )
    )
    return folder


def change(folder: Path, name: str, data: bytes) -> None:
    """Write other bytes into a file of the bundle, and into its manifest what it takes to pass."""
    (folder / name).write_bytes(data)
    manifest = read_manifest(folder)
    entry = FileEntry(bytes=len(data), sha256=sha256(data).hexdigest())
    changed = replace(manifest, files={**manifest.files, name: entry})
    (folder / "safelight.json").write_bytes(write_manifest(changed))


def verify(home: Path):
    env = {"SAFELIGHT_HOME": str(home)}
    return CliRunner(env=env).invoke(app, ["verify", "mine", "--json"])


def test_a_good_bundle_is_measured_in_each_runtime_again(tmp_path):
    bundle_of_one(tmp_path / "models")
    done = verify(tmp_path)
    assert done.exit_code == 0, done.exception
    measures = json.loads(done.stdout)["parity"]
    assert [(each["subject"], each["runtime"]) for each in measures] == [
        ("vae_encoder", "onnxruntime"),
        ("vae_encoder", "openvino"),
    ]
    assert all(each["psnr"] > 120 for each in measures)


def test_a_graph_that_was_changed_with_its_manifest_ends_with_status_6(tmp_path):
    folder = bundle_of_one(tmp_path / "models")
    graph = onnx.load(folder / "vae_encoder/model.onnx", load_external_data=False)
    node = next(node for node in graph.graph.node if node.op_type == "Sigmoid")
    node.op_type = "Tanh"
    change(folder, "vae_encoder/model.onnx", graph.SerializeToString())
    done = verify(tmp_path)
    assert exit_status(done.exception) == 6
    assert "vae_encoder by onnxruntime is not what torch computes" in str(done.exception)
    assert done.stdout == ""


def test_a_configuration_that_does_not_fit_the_weights_is_said(tmp_path):
    folder = bundle_of_one(tmp_path / "models")
    config = json.loads((folder / "vae_encoder/config.json").read_text())
    config["layers_per_block"] += 1
    (folder / "vae_encoder/config.json").write_text(json.dumps(config))
    with pytest.raises(GraphError, match="lacks the weight"):
        measure_graphs(folder, lambda stage, fraction: None)
