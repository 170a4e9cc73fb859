"""The step graph against the loop on the host, for every sampler; and what it is made of."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from engine.backends.cuda import processor_place
from engine.backends.onnxruntime import OnnxRuntimeBackend, runtime
from engine.backends.ortproviders import Provider
from engine.backends.ortstep import open_step
from engine.backends.ortvalues import OrtValues
from engine.denoiser import Denoiser
from engine.loop import integrate
from engine.noise import noise_source
from engine.samplers import METHODS, tabulate
from engine.schedule import Training
from engine.stepgraph import COLUMNS, SLOTS, fits, mixed, padded, program_of
from export.errors import GraphError
from export.targets.step_graph import step_beside, write_step
from tests.engine.tiny_graph import write_product, write_unet

SIDES = (6, 5)
TRAINING = Training(set_alpha_to_one=False)
EMBEDS = np.random.default_rng(2).standard_normal((3, 7, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("step")


@pytest.fixture(scope="module")
def unet(folder):
    return write_unet(folder / "unet" / "model.onnx")


@pytest.fixture(scope="module")
def opened(unet):
    """Step sessions by texts, pieces of noise and pictures."""
    file = write_step(unet)
    onnx.checker.check_model(file, full_check=True)
    made = {}

    def open_step(texts, noises, pictures=1, rows=64, file=file):
        key = (texts, noises, pictures, rows, file)
        if key not in made:
            made[key] = step_session(file, texts, noises, pictures, rows)
        return made[key]

    return open_step


def step_session(file, texts, noises, pictures, rows):
    picture = (pictures, 4, *SIDES)
    shapes = {
        "state": (SLOTS, *picture),
        "row": (1,),
        "table": (rows, COLUMNS),
        "noise": (noises, *picture),
        "mix": (texts, 1, 1, 1, 1),
        "encoder_hidden_states": (texts * pictures, *EMBEDS.shape[1:]),
    }
    session = OnnxRuntimeBackend(Provider(static=True), threads=1).open(file, shapes)
    values = OrtValues(runtime())
    timeline = processor_place().timeline
    return open_step(runtime(), session, shapes, values, timeline, graphs=False)


def on_the_host(unet, table, prediction_type, embeds, scale, weights, seed=5):
    """Integrate on the host; gives the latents and the last prediction."""
    texts = len(embeds)
    session = OnnxRuntimeBackend(threads=1).load(
        unet,
        {
            "sample": (texts, 4, *SIDES),
            "timestep": (),
            "encoder_hidden_states": embeds.shape,
        },
    )

    def predict(x, moment):
        return session.run(
            {
                "sample": np.concatenate([x] * texts),
                "timestep": np.array(moment.timestep),
                "encoder_hidden_states": embeds,
            }
        )

    start = np.zeros((1, 4, *SIDES), np.float32)
    denoise = Denoiser(predict, prediction_type, scale, weights)
    for _, x, denoised in integrate(table, noise_source("torch", seed), start, denoise):
        last = x.copy(), denoised.copy()
    return last


def written(table, prediction_type, embeds, mix, seed=5):
    source = noise_source("torch", seed)
    shape = (1, 4, *SIDES)
    start = source.normal(shape) * np.float32(table.initial_scale)
    pieces = [source.normal(shape) for _ in range(np.count_nonzero(table.noise))]
    conditions = {"encoder_hidden_states": embeds}
    return program_of(table, prediction_type, start, pieces, mix, conditions)


def run(step, program):
    step.begin(program)
    for _ in range(program.rows):
        step.enqueue()
    return step.latents(), step.denoised()


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("sampler", METHODS)
def test_every_sampler_comes_to_the_loop_s_latents(opened, unet, sampler, prediction_type):
    table = tabulate(sampler, TRAINING, "leading", 6, 1.0)
    assert fits(table)
    wanted = on_the_host(unet, table, prediction_type, EMBEDS[:2], 3.5, (1.0,))
    program = written(table, prediction_type, EMBEDS[:2], mixed(3.5, (1.0,)))
    got = run(opened(2, len(program.noise)), program)
    for a, b in zip(got, wanted, strict=True):
        assert np.abs(a - b).max() <= 3e-5 * np.abs(b).max()


@pytest.mark.parametrize(
    ("texts", "weights"), [(1, ()), (3, (1.0, -0.4))], ids=["unguided", "two parts"]
)
def test_one_text_and_several(opened, unet, texts, weights):
    table = tabulate("dpmpp_2m", TRAINING, "karras", 4, 0.0)
    embeds = EMBEDS[:texts]
    wanted = on_the_host(unet, table, "epsilon", embeds, 5.0, weights or (1.0,))
    got = run(opened(texts, 1), written(table, "epsilon", embeds, mixed(5.0, weights)))
    assert np.abs(got[0] - wanted[0]).max() <= 3e-5 * np.abs(wanted[0]).max()


def test_more_rows_than_one_filling_of_the_table(opened, unet):
    table = tabulate("heun", TRAINING, "karras", 40, 0.0)
    assert len(table.sigmas) == 79
    assert padded(79) == 128
    wanted = on_the_host(unet, table, "epsilon", EMBEDS[:2], 2.0, (1.0,))
    program = written(table, "epsilon", EMBEDS[:2], mixed(2.0, (1.0,)))
    got = run(opened(2, 1, rows=128), program)
    assert np.abs(got[0] - wanted[0]).max() <= 1e-4 * np.abs(wanted[0]).max()


def test_noise_in_every_row_of_a_full_table(opened, unet):
    """64 rows, 63 pieces: the last row, which adds none, must look at something that exists."""
    table = tabulate("euler_a", TRAINING, "leading", 64, 1.0)
    program = written(table, "epsilon", EMBEDS[:2], mixed(1.5, (1.0,)))
    assert np.count_nonzero(table.noise) == 63
    assert len(program.table) == 64
    got = run(opened(2, 64), program)
    wanted = on_the_host(unet, table, "epsilon", EMBEDS[:2], 1.5, (1.0,))
    assert np.abs(got[0] - wanted[0]).max() <= 1e-4 * np.abs(wanted[0]).max()


def test_several_pictures_are_each_what_they_are_alone(opened, unet):
    table = tabulate("euler_a", TRAINING, "leading", 5, 1.0)
    programs = [written(table, "epsilon", EMBEDS[:2], mixed(3.0, (1.0,)), s) for s in (1, 2)]
    both = programs[0].__class__(
        rows=5,
        table=programs[0].table,
        noise=np.concatenate([each.noise for each in programs], axis=1),
        state=np.concatenate([each.state for each in programs], axis=1),
        mix=programs[0].mix,
        # texts outermost: both pictures' first text, then their second one
        inputs={"encoder_hidden_states": np.repeat(EMBEDS[:2], 2, axis=0)},
    )
    got, _ = run(opened(2, 64, pictures=2), both)
    for place, seed in enumerate((1, 2)):
        wanted, _ = on_the_host(unet, table, "epsilon", EMBEDS[:2], 3.0, (1.0,), seed)
        assert np.abs(got[place] - wanted[0]).max() <= 3e-5 * np.abs(wanted).max()


def test_a_whole_number_timestep_is_rounded(folder):
    file = write_unet(folder / "whole" / "model.onnx", timestep=TensorProto.INT64)
    step = step_session(write_step(file), 1, 1, 1, 64)
    table = tabulate("dpm2", TRAINING, "karras", 3, 0.0)  # its middles lie between timesteps
    assert any(each % 1 for each in table.timesteps)
    wanted = on_the_host(file, table, "epsilon", EMBEDS[:1], 1.0, (1.0,))
    got = run(step, written(table, "epsilon", EMBEDS[:1], mixed(1.0, ())))
    assert np.abs(got[0] - wanted[0]).max() <= 3e-5 * np.abs(wanted[0]).max()


def test_mixing_is_guidance():
    factors = mixed(4.0, (1.0, -0.5)).ravel()
    assert factors.tolist() == [-1.0, 4.0, -2.0]
    assert mixed(9.0, ()).ravel().tolist() == [1.0]


def test_the_graph_can_be_captured(unet):
    """What CUDA graphs ask for, seen on the graph: fixed sizes everywhere, nothing of shapes left,
    no control flow.
    """
    options = runtime().SessionOptions()
    sizes = {"batch": 2, "texts": 2, "pictures": 1, "rows": 64, "noises": 1, "tokens": 7}
    for name, size in {**sizes, "height": 8, "width": 8}.items():
        options.add_free_dimension_override_by_name(name, size)
    optimised = unet.with_name("optimised.onnx")
    options.optimized_model_filepath = str(optimised)
    options.log_severity_level = 3
    options.graph_optimization_level = runtime().GraphOptimizationLevel.ORT_ENABLE_BASIC
    runtime().InferenceSession(str(write_step(unet)), options, ["CPUExecutionProvider"])
    graph = onnx.load(optimised).graph
    kinds = {node.op_type for node in graph.node}
    assert not kinds & {"Shape", "If", "Loop", "Scan", "NonZero", "Range"}
    assert all(
        dim.dim_value > 0
        for port in (*graph.input, *graph.output)
        for dim in port.type.tensor_type.shape.dim
    )


def test_what_is_no_unet_gets_no_step_graph(folder):
    file = write_product(folder / "product" / "model.onnx")
    with pytest.raises(GraphError, match=r"product/model\.onnx is no unet of 4 channels"):
        write_step(file)
    assert "no unet" in step_beside(file)
