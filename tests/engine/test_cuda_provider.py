"""ONNX Runtime's real CUDA provider over a CUDA runtime that computes nothing and counts its calls.

The provider's own partitioning, IO binding and graph capture run as on a card; numbers do not come
out. It takes an environment with `safelight[cuda]`, named by SAFELIGHT_CUDA_PYTHON, and no card.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import safelight
from engine import Bundle
from engine.backends.devicestep import WARM_UPS
from export.targets import cuda
from export.targets.step_graph import write_step
from tests.engine.tiny_graph import write_unet

PYTHON = os.environ.get("SAFELIGHT_CUDA_PYTHON", "")
ROOT = Path(safelight.__file__).parents[1]
COMMON = """
import ctypes, json, sys
from pathlib import Path
from engine.backends.cudalibraries import LIBRARIES, _open
for each in LIBRARIES:
    if each.name != "cudnn" and not each.optional:
        assert _open(each) == "", each
from engine.backends.cuda import CudaBackend, Place
from engine.backends.onnxruntime import OnnxRuntimeBackend, runtime
from engine.backends.ortproviders import cuda_provider
from engine.backends.ortstep import open_step
from engine.backends.ortvalues import OrtValues
from engine.stepgraph import Program

STREAM = 64
folder = Path(sys.argv[1])
kinds = ("allocated", "copied", "waited", "launched", "captured", "replayed")
standin = ctypes.CDLL(None)
standin.counted.restype = ctypes.c_long


def counts():
    return [standin.counted(place) for place in range(len(kinds))]


def since(before):
    return dict(zip(kinds, (b - a for a, b in zip(before, counts()))))


class Timeline:
    def mark(self):
        return None

    def wait(self, mark):
        pass
"""
STEPS = (
    COMMON
    + """
import numpy as np
picture = (1, 4, 8, 8)
shapes = {"state": (9, *picture), "row": (1,), "table": (64, 16), "noise": (64, *picture),
          "mix": (2, 1, 1, 1, 1), "encoder_hidden_states": (2, 7, 4)}
backend = OnnxRuntimeBackend(cuda_provider(0, STREAM, graphs=True, exact=False))
before = counts()
session = backend.open(folder / "step.onnx", shapes)
step = open_step(runtime(), session, shapes, OrtValues(runtime(), "cuda"), Timeline(),
                       graphs=True)
told = {"warm up": since(before)}
zeros = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
embeds = zeros["encoder_hidden_states"]
program = Program(rows=20, table=zeros["table"], noise=zeros["noise"], state=zeros["state"],
                  mix=zeros["mix"], inputs={"encoder_hidden_states": embeds})
before = counts()
step.begin(program)
told["begin"] = since(before)
before = counts()
for _ in range(20):
    step.enqueue()
told["20 steps"] = since(before)
before = counts()
step.latents()
told["latents"] = since(before)
print(json.dumps(told))
"""
)
WHOLE = (
    COMMON
    + """
picture, text = (1, 4, 16, 16), (2, 32, 128)
steps = {"state": (9, *picture), "row": (1,), "table": (64, 16), "noise": (1, *picture),
         "mix": (2, 1, 1, 1, 1), "encoder_hidden_states": text}
every = {
    "text_encoder/model.onnx": {"input_ids": (1, 32)},
    "unet/model.onnx": {"sample": (2, *picture[1:]), "timestep": (), "encoder_hidden_states": text},
    "unet/step.onnx": steps,
    "vae_decoder/model.onnx": {"latent_sample": picture},
    "vae_encoder/model.onnx": {"sample": (1, 3, 128, 128)},
}
told = {}
for name, shapes in every.items():
    for graphs in (False, True):
        backend = OnnxRuntimeBackend(cuda_provider(0, STREAM, graphs=graphs, exact=False))
        session = backend.open(folder / name, shapes)
        told[f"{name} {graphs}"] = [list(port.shape) for port in session.get_outputs()]
print(json.dumps(told))
"""
)


@pytest.fixture(scope="module")
def standin(tmp_path_factory):
    """The environment of a child in which the stand-in comes before NVIDIA's own libraries."""
    folder = tmp_path_factory.mktemp("standin")
    source = Path(__file__).with_name("cuda_standin.c")
    for name in ("libcudart_standin.so", "libcudnn.so.9", "libcuda.so.1"):
        out = ["-Wl,-soname," + name, "-o", folder / name]
        subprocess.run(["cc", "-shared", "-fPIC", "-w", *out, source], check=True, timeout=60)
    return os.environ | {
        "PYTHONPATH": str(ROOT),
        "LD_LIBRARY_PATH": str(folder),
        "LD_PRELOAD": str(folder / "libcudart_standin.so"),
    }


def told_by(program, folder, environment):
    ended = subprocess.run(
        [PYTHON, "-c", program, str(folder)],
        check=False,  # looked at below
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


pytestmark = [
    pytest.mark.gpu_libs,
    pytest.mark.skipif(not PYTHON, reason="SAFELIGHT_CUDA_PYTHON names no environment with [cuda]"),
    pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler"),
    pytest.mark.skipif(sys.platform != "linux", reason="the stand-in is a library of Linux"),
]


def test_a_step_of_the_real_provider_is_one_graph_launch_and_nothing_else(standin, tmp_path):
    write_step(write_unet(tmp_path / "model.onnx", convolves=False))
    told = told_by(STEPS, tmp_path, standin)
    assert told["warm up"]["captured"] == 2  # one for each direction of the two buffers
    assert told["warm up"]["replayed"] == 2 * WARM_UPS
    nothing = dict.fromkeys(told["begin"], 0)
    assert told["begin"] == nothing | {"copied": 6, "waited": told["begin"]["waited"]}
    assert told["20 steps"] == nothing | {"replayed": 20}
    assert told["latents"] == nothing | {"copied": 1}


def test_the_real_provider_takes_every_node_of_pocket_s_form_and_captures_it(standin, tmp_path):
    """With `disable_cpu_ep_fallback` and `enable_cuda_graph`, it refuses a graph of which one node
    is not its own.
    """
    bundle = Bundle.open(ROOT / "safelight" / "models" / "pocket", hash_cache=None)
    cuda.build(bundle, tmp_path, progress=lambda *_: None)
    told = told_by(WHOLE, tmp_path, standin)
    assert told["unet/step.onnx True"] == [[9, 1, 4, 16, 16], [1], [1, 1, 4, 16, 16]]
    assert told["vae_decoder/model.onnx True"] == [[1, 3, 128, 128]]
    assert len(told) == 10
    assert all(
        isinstance(side, int) for shapes in told.values() for each in shapes for side in each
    )
