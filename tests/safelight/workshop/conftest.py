"""A home for each test of the workshop; an upscaler for each file."""

import pytest

from engine.backends.onnxruntime import OnnxRuntimeBackend
from safelight.shelf import Shelf
from safelight.upscalers import take_in_upscaler
from tests.engine.upscaler_graph import write_upscaler
from tests.safelight.workshop.home import Home


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    return Shelf(home / "models", home / "cache")


@pytest.fixture
def place(tmp_path, shelf):
    found = Home(tmp_path, shelf)
    yield found
    for workshop in found.open:
        workshop.close()
    found.vault.close()


@pytest.fixture(scope="module")
def double(shelf):
    """Give the name of an upscaler on the shelf, by two."""
    source = write_upscaler(shelf.models.parent / "double.onnx")
    shelf.models.mkdir(parents=True, exist_ok=True)
    take_in_upscaler(source, shelf.models / "double", OnnxRuntimeBackend(), lambda *_: None)
    return "double"
