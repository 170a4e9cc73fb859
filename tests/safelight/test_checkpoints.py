"""What `--model` names: the shelf goes first, a checkpoint is named by its path."""

import shutil
from pathlib import Path

import pytest

import safelight
from engine import BundleError, DeviceError
from export.architectures import TINY, write_random_checkpoint
from export.checkpoint import fingerprint
from export.source import open_checkpoint
from safelight.checkpoints import open_model
from safelight.exits import UsageError, exit_status
from safelight.settings import load_settings
from safelight.shelf import Shelf

POCKET = Path(safelight.__file__).with_name("models") / "pocket"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    write_random_checkpoint(folder, TINY, seed=1)
    return folder


def opened(model, home, device="torch", **environ):
    flags = {"home": str(home), "model": str(model), "device": device}
    settings = load_settings(flags, environ)
    return open_model(settings, Shelf(settings.models, settings.cache)), settings


def test_a_folder_s_path_is_a_checkpoint_for_torch(checkpoint, tmp_path):
    model, settings = opened(checkpoint, tmp_path)
    assert model.bundle.hash == fingerprint(open_checkpoint(checkpoint))
    assert model.bundle.path.parent == settings.cache / "checkpoints"
    choice = model.choose(settings)
    assert choice.backend.name == "torch"
    assert "there is no parity report" in choice.reason


def test_a_name_on_the_shelf_goes_first(checkpoint, tmp_path, monkeypatch):
    shutil.copytree(checkpoint, tmp_path / "pocket")
    shutil.copytree(checkpoint, tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    model, settings = opened("pocket", tmp_path / "home", "cpu")
    assert (model.bundle.path, model.unexported) == (POCKET, None)
    assert "parity" not in model.choose(settings).reason
    assert opened("mine", tmp_path / "home")[0].unexported is not None


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda:0", "onnxruntime", "openvino:GPU"])
def test_another_device_is_refused_before_anything_is_read(checkpoint, tmp_path, device):
    with pytest.raises(DeviceError, match=f"the device is {device}$") as caught:
        opened(checkpoint, tmp_path, device)
    assert "--device torch" in caught.value.hint
    assert not (tmp_path / "cache").exists()


def test_what_is_no_checkpoint_is_not_on_the_shelf(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in (tmp_path / "empty", tmp_path / "nothing.safetensors", "a" * 300):
        with pytest.raises(BundleError, match=r"there is no model '.*' on the shelf"):
            opened(name, tmp_path)


def test_a_bundle_s_folder_belongs_on_the_shelf(tmp_path):
    with pytest.raises(UsageError, match="'pocket' is a bundle") as caught:
        opened(POCKET, tmp_path)
    assert f"`safelight models add {POCKET} --to NAME`" in caught.value.hint


@pytest.mark.parametrize("name", ["old.ckpt", "old.BIN", "old.pt"])
def test_a_pickle_is_refused_by_name(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x80\x04.")
    with pytest.raises(Exception, match=f"'{name}' is a pickle") as caught:
        opened(tmp_path / name, tmp_path)
    assert exit_status(caught.value) == 6
