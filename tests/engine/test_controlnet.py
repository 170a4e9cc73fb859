"""ControlNets in the engine: their sum, when they act, what fits, and that the picture follows."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import safelight
from engine import Bundle, BundleError, FakeBackend, Picture, Pipeline, RequestError
from engine.control import Control
from engine.controlnet import Residuals, check_fit, fitted, residual_shapes
from engine.inputs import Inputs
from engine.manifest import TensorSpec
from engine.moment import Moment
from tests.engine.beside_bundles import CountingBackend, controlled, controlnet, xl

POCKET = Path(safelight.__file__).with_name("models") / "pocket"
UNET, UNET_CONTROL = "pocket/unet/model.onnx", "pocket/unet/model_control.onnx"


@pytest.fixture(scope="module")
def plain():
    return Bundle.open(POCKET, hash_cache=None)


@pytest.fixture(scope="module")
def base(plain):
    return controlled(plain)


@pytest.fixture(scope="module")
def nets(plain):
    return {name: controlnet(plain, name) for name in ("edges", "depth")}


def picture(seed=1, height=128, width=128):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def draw(base, nets, controls, pictures, *, backend=None, **given):
    made = base.request(
        **{"prompt": "red apple", "seed": 7, "steps": 4, "controls": controls} | given
    )
    pipeline = Pipeline(base, backend or FakeBackend(), beside=nets)
    events = pipeline.generate(made, inputs=Inputs(controls=tuple(pictures)))
    return [event for event in events if isinstance(event, Picture)]


def pixels(*args, **given):
    return draw(*args, **given)[0].pixels


# -- residuals ---------------------------------------------------------------------------------


class Net:
    """Answers with two residuals that its factor, the scale, the picture and the latents make."""

    def __init__(self, factor):
        self.factor, self.seen = factor, []

    def run_all(self, inputs):
        self.seen.append({name: np.array(value) for name, value in inputs.items()})
        scale, sample = float(inputs["conditioning_scale"]), inputs["sample"]
        value = self.factor * scale * inputs["controlnet_cond"].mean() * sample
        return {
            "some": value.astype(np.float32),
            "other": value[:, :2, ::2, ::2].astype(np.float32),
        }


SHAPES = {"down_block_res_sample_0": (2, 4, 2, 4), "mid_block_res_sample": (2, 2, 1, 2)}


def unet_inputs(channels=4, seed=0):
    draw = np.random.default_rng(seed)
    return {
        "sample": draw.standard_normal((2, channels, 2, 4), dtype=np.float32),
        "timestep": np.array(5.0, np.float32),
        "encoder_hidden_states": draw.standard_normal((2, 3, 5), dtype=np.float32),
    }


def test_residuals_of_several_nets_are_added_each_by_its_scale():
    nets = [Net(1.0), Net(10.0)]
    levels = [np.full((16, 32, 3), level, np.uint8) for level in (51, 255)]
    controls = [Control(model="a", scale=0.5), Control(model="b", scale=2.0)]
    residuals = Residuals(list(zip(controls, nets, levels, strict=True)), SHAPES)
    inputs = unet_inputs()
    found = residuals(inputs, Moment(0, 0, 4, 1.0, 5.0))
    factor = 0.5 * 51 / 255 + 10.0 * 2.0 * 1.0  # scale, picture in 0..1
    # fp32 adds two products of fp32: an ulp or two
    np.testing.assert_allclose(
        found["down_block_res_sample_0"], factor * inputs["sample"], rtol=1e-6
    )
    np.testing.assert_allclose(
        found["mid_block_res_sample"], factor * inputs["sample"][:, :2, ::2, ::2], rtol=1e-6
    )
    assert nets[0].seen[0]["controlnet_cond"].shape == (2, 3, 16, 32)
    assert nets[0].seen[0]["timestep"] == np.float32(5.0)


def test_outside_of_its_span_a_net_is_not_run_and_adds_nothing():
    nets = [Net(1.0), Net(1.0)]
    controls = [Control(model="a", end=0.5), Control(model="b", start=0.5)]
    white = np.full((16, 32, 3), 255, np.uint8)
    residuals = Residuals([(c, n, white) for c, n in zip(controls, nets, strict=True)], SHAPES)
    inputs = unet_inputs()
    for step in range(4):
        found = residuals(inputs, Moment(step, step, 4, 1.0, 5.0))
        np.testing.assert_array_equal(found["down_block_res_sample_0"], inputs["sample"])
    assert [len(net.seen) for net in nets] == [2, 2]
    ended = Residuals([(controls[0], nets[0], white)], SHAPES)
    for step in (0, 2, 3):  # what was added before is not added again
        found = ended(inputs, Moment(step, step, 4, 1.0, 5.0))
        assert found["down_block_res_sample_0"].any() == (step < 2)


def test_of_an_inpainting_unet_s_input_it_sees_the_latents_alone():
    net = Net(1.0)
    white = np.full((16, 32, 3), 255, np.uint8)
    Residuals([(Control(model="a"), net, white)], SHAPES)(
        unet_inputs(channels=9), Moment(0, 0, 1, 1.0, 5.0)
    )
    assert net.seen[0]["sample"].shape == (2, 4, 2, 4)


def test_residuals_of_another_shape_are_refused():
    white = np.full((16, 32, 3), 255, np.uint8)
    wrong = SHAPES | {"mid_block_res_sample": (2, 3, 1, 2)}
    residuals = Residuals([(Control(model="a"), Net(1.0), white)], wrong)
    with pytest.raises(BundleError, match="'a' gives other residuals than the unet takes"):
        residuals(unet_inputs(), Moment(0, 0, 1, 1.0, 5.0))


def test_shapes_are_in_the_order_of_the_network_and_rounded_up(base):
    sizes = {"down_block_res_sample_10": 4, "down_block_res_sample_2": 2, "mid_block_res_sample": 8}
    ports = {
        name: TensorSpec(dtype="float32", shape=("batch", 3, f"height_{by}", f"width_{by}"))
        for name, by in sizes.items()
    } | {"down_block_res_sample_0": TensorSpec(dtype="float32", shape=("b", 3, "height", "width"))}
    unet = replace(base.manifest.components["unet"], inputs=ports)
    assert list(residual_shapes(unet, 2, 9, 20).items()) == [
        ("down_block_res_sample_0", (2, 3, 9, 20)),
        ("down_block_res_sample_2", (2, 3, 5, 10)),
        ("down_block_res_sample_10", (2, 3, 3, 5)),
        ("mid_block_res_sample", (2, 3, 2, 3)),
    ]


@pytest.mark.parametrize(
    "shape", [("b", 3, "rows", "width"), ("b", "c", "height", "width"), ("b",)]
)
def test_a_size_of_another_name_is_refused(base, shape):
    ports = {"mid_block_res_sample": TensorSpec(dtype="float32", shape=shape)}
    with pytest.raises(BundleError, match="in a shape that nothing is known of"):
        residual_shapes(replace(base.manifest.components["unet"], inputs=ports), 2, 8, 8)


def test_a_picture_of_another_size_is_resized_and_one_of_this_size_is_not():
    given = picture(height=16, width=32)
    assert fitted(given, 32, 16) is given
    assert fitted(given, 64, 24).shape == (24, 64, 3)


# -- what fits ---------------------------------------------------------------------------------


def test_only_what_fits_is_taken(plain, base, nets):
    net = nets["edges"]
    check_fit(base.manifest, net.manifest)
    other = replace(net.manifest, family="controlnet-sdxl")
    second = replace(base.manifest, family="sd2")
    wide = replace(net.manifest, embed_dim=64)
    outputs = dict(net.manifest.components["controlnet"].outputs)
    outputs["mid_block_res_sample"] = TensorSpec(dtype="float32", shape=("batch", 8, "h", "w"))
    part = replace(net.manifest.components["controlnet"], outputs=outputs)
    deep = replace(net.manifest, components={"controlnet": part})
    for one, two, match in (
        (plain.manifest, net.manifest, "no unet that a ControlNet can steer"),
        (base.manifest, plain.manifest, "it is no ControlNet"),
        (base.manifest, other, "controlnet-sdxl and does not fit 'pocket' of family sd1"),
        (second, net.manifest, "does not fit 'pocket' of family sd2"),
        (base.manifest, wide, "for a unet of another shape"),
        (base.manifest, deep, "for a unet of another shape"),
    ):
        with pytest.raises(BundleError, match=match):
            check_fit(one, two)
    with pytest.raises(BundleError) as raised:
        check_fit(plain.manifest, net.manifest)
    assert "--with control" in raised.value.hint


@pytest.mark.parametrize(
    ("controls", "pictures", "error", "match"),
    [
        (1, [], RequestError, "has 1 ControlNets and 0 pictures"),
        (0, [picture()], RequestError, "has 0 ControlNets and 1 pictures"),
        (
            1,
            [picture(width=64)],
            RequestError,
            "has 64x128 pixels, another proportion than the 128",
        ),
        (1, [picture(height=0)], RequestError, "has 128x0 pixels"),
        (1, [picture().astype(np.float32)], RequestError, r"is float32\[128, 128, 3\]; uint8"),
        (1, [picture()[:, :, 0]], RequestError, r"is uint8\[128, 128\]; uint8"),
        (9, [], RequestError, "number of controls is 9; from 0 to 8"),
    ],
)
def test_pictures_go_with_controls_one_by_one(base, nets, controls, pictures, error, match):
    with pytest.raises(error, match=match):
        draw(base, nets, (Control(model="edges"),) * controls, pictures)


@pytest.mark.parametrize("size", [(256, 256), (64, 64), (127, 128), (1000, 1060)])
def test_a_picture_of_nearly_the_proportion_is_resized(base, nets, size):
    height, width = size
    given = picture(height=height, width=width)
    resized = fitted(given, 128, 128)
    one, two = (pixels(base, nets, (Control(model="edges"),), [each]) for each in (given, resized))
    assert np.array_equal(one, two)


def test_the_hint_names_a_size_that_fits(base, nets):
    with pytest.raises(RequestError) as raised:
        draw(base, nets, (Control(model="edges"),), [picture(height=1080, width=1920)])
    assert raised.value.hint == "crop it, or draw 128x72"
    given = [picture(height=1080, width=1920)]
    assert len(draw(base, nets, (Control(model="edges"),), given, width=128, height=72)) == 1


def test_a_net_that_was_not_opened_or_does_not_fit_is_refused_before_anything_is_loaded(base, nets):
    backend = CountingBackend(FakeBackend())
    with pytest.raises(BundleError, match="'lines', which was not opened beside 'pocket'"):
        draw(base, nets, (Control(model="lines"),), [picture()], backend=backend)
    with pytest.raises(BundleError, match="does not fit"):
        draw(xl(base), nets, (Control(model="edges"),), [picture()], backend=backend)
    assert backend.loads == []


def test_int8_has_no_unet_that_is_steered(base, nets):
    with pytest.raises(BundleError, match="int8 has a form of a model's own unet alone"):
        draw(
            base,
            nets,
            (Control(model="edges"),),
            [picture()],
            backend=FakeBackend(precision="int8"),
        )


# -- pictures ----------------------------------------------------------------------------------


def test_the_picture_follows_the_control_and_says_which(base, nets):
    one, two = Control(model="edges"), Control(model="depth", scale=0.5)
    (made,) = draw(base, nets, (one, two), [picture(1), picture(2)])
    assert made.beside == (("edges", "hash of edges"), ("depth", "hash of depth"))
    assert made.request.controls == (one, two)
    assert made.pixels.shape == (128, 128, 3)
    for other in (
        pixels(base, nets, (), []),
        pixels(base, nets, (one,), [picture(1)]),
        pixels(base, nets, (one, two), [picture(1), np.zeros_like(picture())]),
        pixels(base, nets, (one, replace(two, scale=0.6)), [picture(1), picture(2)]),
        pixels(base, nets, (one, replace(two, end=0.5)), [picture(1), picture(2)]),
    ):
        assert not np.array_equal(made.pixels, other)


@pytest.mark.parametrize("given", [{"scale": 0.0}, {"start": 0.99}])
def test_a_control_that_never_acts_changes_nothing(base, nets, given):
    steered = pixels(base, nets, (Control(model="edges", **given),), [picture()])
    assert np.array_equal(steered, pixels(base, nets, (), []))


def test_the_unet_that_is_steered_takes_the_place_of_the_other(base, nets):
    backend = CountingBackend(FakeBackend())
    pipeline = Pipeline(base, backend, beside=nets)
    steered = base.request(
        prompt="red apple", seed=7, steps=4, controls=(Control(model="edges", end=0.5),)
    )
    inputs = Inputs(controls=(picture(),))
    list(pipeline.generate(steered, inputs=inputs))
    assert backend.runs["edges/controlnet/model.onnx"] == 2
    assert (backend.runs[UNET], backend.runs[UNET_CONTROL]) == (0, 4)
    assert ("edges/controlnet/model.onnx", "hash of edges/controlnet") in backend.loads
    list(pipeline.generate(replace(steered, controls=())))
    assert (backend.runs[UNET], backend.runs[UNET_CONTROL]) == (4, 4)
    list(pipeline.generate(steered, inputs=inputs))
    counts = {place: [each for each, _ in backend.loads].count(place) for place, _ in backend.loads}
    assert (counts[UNET], counts[UNET_CONTROL]) == (1, 2)  # one at a time


def test_each_picture_of_many_equals_the_one_made_alone(base, nets):
    controls = (Control(model="edges", end=0.6),)
    many = draw(base, nets, controls, [picture()], count=3, sampler="euler_a")
    for index, made in enumerate(many):
        alone = pixels(base, nets, controls, [picture()], seed=7 + index, sampler="euler_a")
        assert np.array_equal(made.pixels, alone)


def test_an_overflow_is_repaired_with_the_control(base, nets):
    controls = (Control(model="edges"),)
    fake = FakeBackend(precision="bf16", nan_at_step=1)
    (made,) = draw(base, nets, controls, [picture()], backend=fake)
    assert made.repairs == ("denoise in fp32",)
    assert np.array_equal(made.pixels, pixels(base, nets, controls, [picture()]))
