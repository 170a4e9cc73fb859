"""What all texts of a unet have in common, computed once: the same numbers, and fewer of them."""

from pathlib import Path

import numpy as np
import pytest

import safelight
from engine import Bundle, Pipeline, choose
from engine.backends.openvino import OpenVinoBackend, runtime
from engine.backends.sharedprefix import one_text, share_prefix, shared_pictures
from engine.components import Components
from tests.engine.tiny_graph import write_unet

OV = runtime()
OP = OV.opset13
POCKET = Path(safelight.__file__).parent / "models" / "pocket"
DRAW = np.random.default_rng(4)
# Six digits of float32 in another order of additions, of values about 1.
TOLERANCE = 2e-6


def constant(*shape):
    return DRAW.standard_normal(shape).astype(np.float32)


def picture_of(texts, *shape, pictures=1):
    """The same pictures for each text."""
    return np.concatenate([constant(pictures, *shape)] * texts)


def stock(model, given):
    graph = OV.Core().read_model(model)
    graph.reshape({name: list(value.shape) for name, value in given.items()})
    compiled = OV.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled(given)[0].copy()


def shapes_of(given):
    return {name: value.shape for name, value in given.items()}


def once(given, pictures=1):
    return {name: value[:pictures] if name == "sample" else value for name, value in given.items()}


def unet_inputs(texts, *, tokens=32, width=128, side=16, pictures=1):
    return {
        "sample": picture_of(texts, 4, side, side, pictures=pictures),
        "timestep": np.array(321.0, np.float32),
        "encoder_hidden_states": constant(texts * pictures, tokens, width),
    }


@pytest.mark.parametrize(("texts", "pictures"), [(2, 1), (3, 1), (2, 2), (2, 3)])
def test_pocket_computes_the_same_by_fewer_products(texts, pictures, tmp_path):
    """Again from the cache of compiled models, which keeps both forms apart."""
    model, given = POCKET / "unet" / "model.onnx", unet_inputs(texts, pictures=pictures)
    right = stock(model, given)
    assert np.abs(right[0] - right[pictures]).max() > 0.1 * np.abs(right).max()  # the texts matter
    for _ in range(2):
        backend = OpenVinoBackend("fp32", tmp_path)
        whole = backend.load(model, shapes_of(given), identity="a/unet").run(given).copy()
        asked = shared_pictures(shapes_of(given), pictures)
        got = backend.load(model, asked, identity="a/unet").run(once(given, pictures))
        for each in (whole, got):
            assert np.abs(each - right).max() < TOLERANCE * np.abs(right).max()
    assert len(list((tmp_path / "openvino").glob("*.blob"))) == 2


@pytest.mark.parametrize("pictures", [1, 2])
def test_only_what_a_text_was_seen_by_has_a_row_for_each(pictures):
    graph = OV.Core().read_model(POCKET / "unet" / "model.onnx")
    one, shapes = graph.clone(), shapes_of(unet_inputs(2, pictures=pictures))
    graph.reshape({name: list(shape) for name, shape in shapes.items()})
    alone = one_text(shared_pictures(shapes, pictures))
    one.reshape({name: list(shape) for name, shape in alone.items()})
    shared = share_prefix(OV, graph, one)
    rows = {"Convolution": [], "Softmax": []}
    for node in shared.get_ordered_ops():
        if node.get_type_name() in rows:
            rows[node.get_type_name()].append(node.output(0).get_shape()[0])
    # The latents' own 1, a block of 2 without attention, its halving 1, the next level's block
    # with a change of channels 3, and 1 before that level's self-attention.
    few, all_of_them = pictures, 2 * pictures
    assert rows["Convolution"] == [few] * 8 + [all_of_them] * (len(rows["Convolution"]) - 8)
    assert rows["Softmax"].count(few) == 1


def combined(texts, side=8):
    """A unet as SD XL's: what it is told beside the text goes into every block."""
    ports = {
        "sample": [texts, 4, side, side],
        "timestep": [],
        "encoder_hidden_states": [texts, 5, 6],
        "text_embeds": [texts, 4],
    }
    given = {name: OP.parameter(shape, np.float32, name=name) for name, shape in ports.items()}
    for name, node in given.items():
        node.output(0).set_names({name})
    # Plain exports take the number of rows from what is told as well as from the picture.
    rows = OP.gather(OP.shape_of(given["text_embeds"]), OP.constant(0), OP.constant(0))
    ones = OP.constant(np.array([1]))
    time = OP.broadcast(given["timestep"], OP.concat([OP.unsqueeze(rows, OP.constant(0)), ones], 0))
    told = OP.add(OP.sin(time), given["text_embeds"])
    # Two nodes that are alike: made static, a graph joins them, and has one node less.
    sized = OP.multiply(given["sample"], OP.convert(rows, "f32"))
    sized = OP.divide(sized, OP.convert(rows, "f32"))
    seen = OP.convolution(sized, OP.constant(WEIGHT), [1, 1], [1, 1], [1, 1], [1, 1])
    block = OP.add(OP.tanh(seen), OP.unsqueeze(told, OP.constant(np.array([2, 3]))))
    text = OP.reduce_mean(given["encoder_hidden_states"], OP.constant(np.array([1, 2])), False)
    last = OP.multiply(block, OP.unsqueeze(text, OP.constant(np.array([1, 2, 3]))))
    return OV.Model([OP.add(last, given["sample"])], list(given.values()))


WEIGHT = constant(4, 4, 3, 3)


def test_what_is_told_beside_the_text_counts_as_a_text():
    given = {
        "sample": picture_of(2, 4, 8, 8),
        "timestep": np.array(0.5, np.float32),
        "encoder_hidden_states": constant(2, 5, 6),
        "text_embeds": constant(2, 4),
    }
    right = OV.Core().compile_model(combined(2), "CPU")(given)[0].copy()
    graph = combined(2)
    for number, node in enumerate(graph.get_ordered_ops()):
        node.set_friendly_name(f"node {number}")  # as exporters do: a copy keeps given names alone
    one = graph.clone()
    one.reshape(
        {name: list(shape) for name, shape in one_text(shared_pictures(shapes_of(given))).items()}
    )
    shared = share_prefix(OV, graph, one)
    rows = [
        node.output(0).get_shape()[0]
        for node in shared.get_ordered_ops()
        if node.get_type_name() == "Convolution"
    ]
    assert rows == [1]
    assert [port.get_any_name() for port in shared.inputs] == list(given)
    got = OV.Core().compile_model(shared, "CPU")(once(given))[0]
    assert np.abs(got - right).max() < TOLERANCE * np.abs(right).max()


def test_shapes_of_one_picture_are_those_of_networks_that_see_texts():
    unet = {"sample": (2, 4, 8, 8), "timestep": (), "encoder_hidden_states": (2, 77, 8)}
    assert shared_pictures(unet) == unet | {"sample": (1, 4, 8, 8)}
    controlnet = unet | {"controlnet_cond": (2, 3, 64, 64), "conditioning_scale": ()}
    assert shared_pictures(controlnet)["controlnet_cond"] == (1, 3, 64, 64)
    several = unet | {"sample": (6, 4, 8, 8), "encoder_hidden_states": (6, 77, 8)}
    assert shared_pictures(several, 3) == several | {"sample": (3, 4, 8, 8)}
    encoder = {"sample": (2, 3, 64, 64)}
    assert shared_pictures(encoder) == encoder


class Asked:
    """A back end that shares, and keeps what it is asked for and what a run is given."""

    name, device, precision, libraries = "asked", "CPU", "fp32", ()
    shares_prefix = True

    def load(self, model, shapes, *, identity=""):
        self.shapes = dict(shapes)
        return self

    def exact(self):
        return self

    def run(self, inputs):
        self.rows = {name: each.shape[:1] for name, each in inputs.items()}
        return inputs["sample"]


def test_the_pipelines_networks_are_given_the_picture_once():
    backend = Asked()
    bundle = Bundle.open(POCKET, hash_cache=None)
    session = Components(bundle, backend).unet(2, 32, 128, 128)
    assert backend.shapes["sample"] == (1, 4, 16, 16)
    assert backend.shapes["encoder_hidden_states"] == (2, 32, 128)
    session.run(unet_inputs(2))
    assert backend.rows == {"sample": (1,), "timestep": (), "encoder_hidden_states": (2,)}
    session = Components(bundle, backend).unet(2, 32, 128, 128, pictures=3)
    assert backend.shapes["sample"] == (3, 4, 16, 16)
    assert backend.shapes["encoder_hidden_states"] == (6, 32, 128)
    session.run(unet_inputs(2, pictures=3))
    assert backend.rows == {"sample": (3,), "timestep": (), "encoder_hidden_states": (6,)}


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_a_picture_is_what_onnx_runtime_draws(guidance, tmp_path):
    """With guidance the unet shares its beginning, without it has one row; AND makes three."""
    bundle = Bundle.open(POCKET, hash_cache=None)
    request = bundle.request(
        prompt="a red apple AND a blue car", seed=5, steps=3, guidance_scale=guidance
    )
    pixels = []
    for device in ("openvino", "onnxruntime"):
        pipeline = Pipeline(bundle, choose(device, "fp32", tmp_path))
        picture = list(pipeline.generate(request))[-1]
        pixels.append(picture.pixels.astype(np.float64))
    assert np.abs(pixels[0] - pixels[1]).max() <= 1  # of 255: a rounding


def test_a_unet_that_looks_at_texts_at_once_shares_nothing_and_is_right(tmp_path):
    model = write_unet(tmp_path / "model.onnx")
    given = unet_inputs(2, tokens=4, width=4, side=8)
    right = stock(model, given)
    session = OpenVinoBackend("fp32", None).load(model, shared_pictures(shapes_of(given)))
    assert np.abs(session.run(once(given)) - right).max() < TOLERANCE * np.abs(right).max()
