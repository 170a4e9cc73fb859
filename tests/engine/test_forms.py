"""OpenVINO reads a bundle's form where there is one that fits, and computes the same with it."""

import dataclasses

import numpy as np
import pytest

from engine.backends.openvino import OpenVinoBackend, runtime
from engine.derived import write
from engine.devices import choose
from engine.errors import BundleError
from engine.forms import key_for, source_of
from tests.engine.tiny_graph import DEPTH, multiplied, write_product

BUNDLE = "ab" * 32
LATENTS = {"sample": (2, 4, 64, 32), "timestep": (), "encoder_hidden_states": (2, 77, 768)}
X = np.random.default_rng(3).standard_normal((2, DEPTH), dtype=np.float32)


def put(cache, files, *, target="openvino", shapes=()):
    """Put a form with these files into the cache."""

    def fill(folder):
        for name in files:
            path = folder / name
            path.parent.mkdir(parents=True)
            path.write_text("<net/>")
        return {}

    return write(cache, dataclasses.replace(key_for(BUNDLE, target), shapes=shapes), fill)


def chosen(tmp_path, component="unet", shapes=LATENTS, *, int8=False):
    model = tmp_path / "shelf" / "mine" / component / "model.onnx"
    return source_of(model, shapes, f"{BUNDLE}/{component}", cache=tmp_path, int8=int8)


def test_without_a_form_the_bundles_own_graph_is_read(tmp_path):
    source = chosen(tmp_path)
    assert source.model.name == "model.onnx"
    assert (source.identity, source.form) == (f"{BUNDLE}/unet", None)


def test_a_form_for_the_shape_is_preferred_to_one_for_free_sizes(tmp_path):
    free = put(tmp_path, ["unet/model.xml"])
    # 32 latents wide and 64 high, two halves of one picture
    static = put(tmp_path, ["256x512x1/unet/model.xml"], shapes=("256x512x1",))
    assert chosen(tmp_path).form == static
    assert chosen(tmp_path).model == static.folder / "256x512x1/unet/model.xml"
    for sample in ((2, 4, 32, 64), (1, 4, 64, 32), (4, 4, 64, 32)):
        source = chosen(tmp_path, shapes=LATENTS | {"sample": sample})
        assert (source.form, source.model) == (free, free.folder / "unet/model.xml")


def test_what_is_kept_of_a_form_is_kept_under_the_forms_own_name(tmp_path):
    names = {chosen(tmp_path).identity}
    put(tmp_path, ["unet/model.xml"])
    names.add(chosen(tmp_path).identity)
    put(tmp_path, ["unet/model.xml"], target="int8")
    names.add(chosen(tmp_path, int8=True).identity)
    assert len(names) == 3


def test_int8_is_the_unet_alone_and_only_when_asked_for(tmp_path):
    quantised = put(tmp_path, ["unet/model.xml"], target="int8")
    assert chosen(tmp_path, int8=True).form == quantised
    assert chosen(tmp_path).form is None
    decoder = {"latent_sample": (1, 4, 64, 32)}
    assert chosen(tmp_path, "vae_decoder", decoder, int8=True).form is None


def test_a_missing_int8_form_is_one_sentence_that_says_how_to_make_it(tmp_path):
    with pytest.raises(BundleError, match=r"^'mine' has no int8 form$") as caught:
        chosen(tmp_path, int8=True)
    assert caught.value.hint == "`safelight export mine --target int8` makes it"


def test_an_int8_form_of_another_openvino_is_not_used_and_named(tmp_path):
    key = dataclasses.replace(key_for(BUNDLE, "int8"), libraries={"openvino": "2001.1"})
    write(tmp_path, key, lambda folder: {})
    with pytest.raises(BundleError, match=r"libraries is openvino 2001\.1, needed is openvino 20"):
        chosen(tmp_path, int8=True)


# -- in the back end ---------------------------------------------------------------------------


def derive(cache, model, *, target="openvino"):
    """Write the graph in `model` as IR into the cache."""

    def fill(folder):
        graph = runtime().Core().read_model(model)
        (folder / "unet").mkdir()
        runtime().save_model(graph, folder / "unet/model.xml", compress_to_fp16=False)
        return {}

    return write(cache, key_for(BUNDLE, target), fill)


@pytest.fixture
def model(tmp_path):
    return write_product(tmp_path / "mine" / "unet" / "model.onnx", external=True)


def result(model, cache, precision="fp32"):
    backend = OpenVinoBackend(precision, cache, threads=1)
    return backend.load(model, {"x": X.shape}, identity=f"{BUNDLE}/unet").run({"x": X}).copy()


def test_the_form_is_what_is_read_and_computes_the_same_bit_by_bit(tmp_path, model):
    wanted = result(model, None)
    derive(tmp_path, model)
    model.write_bytes(b"not a graph any more")
    assert np.array_equal(result(model, tmp_path), wanted)
    assert np.abs(wanted - multiplied(X)).max() < 1e-4  # as in test_backends: fp32 arithmetic


def test_a_spoilt_form_is_passed_over_for_the_graph_that_computes_the_same(tmp_path, model):
    form = derive(tmp_path, model)
    (form.folder / "unet/model.bin").write_bytes(bytes(form.files["unet/model.bin"].bytes))
    assert np.abs(result(model, tmp_path) - multiplied(X)).max() < 1e-4


def test_a_spoilt_int8_form_is_an_error_and_not_another_precision(tmp_path, model):
    form = derive(tmp_path, model, target="int8")
    (form.folder / "unet/model.bin").write_bytes(bytes(form.files["unet/model.bin"].bytes))
    with pytest.raises(BundleError, match="not what was written"):
        result(model, tmp_path, "int8")


def test_int8_without_a_cache_has_no_form(model):
    backend = OpenVinoBackend("int8", None, threads=1)
    with pytest.raises(BundleError, match="'mine' has no int8 form"):
        backend.load(model, {"timestep": ()})


def test_int8_is_never_chosen_by_itself_and_says_that_it_is_approximate():
    choice = choose("cpu", "int8")
    assert choice.backend.precision == "int8"
    assert "approximate" in choice.reason
    assert choose("cpu").backend.precision != "int8"
    assert choice.backend.exact().precision == "fp32"
