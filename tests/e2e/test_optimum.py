"""optimum loads our bundles and draws our pictures, in an environment of its own.

SAFELIGHT_OPTIMUM_PYTHON names that environment's interpreter (README: Where optimum fits in).
"""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

import safelight
from engine import Bundle, Picture, Pipeline, choose
from export import Ingredients, export_checkpoint
from export.architectures import TINY, TINY_XL, write_random_checkpoint
from tests.export.originals import TINY_SD2

PYTHON = os.environ.get("SAFELIGHT_OPTIMUM_PYTHON", "")
SIDE = Path(__file__).with_name("optimum_side.py")
POCKET = Path(safelight.__file__).with_name("models") / "pocket"
SAME = 45.0  # dB; our rounding to bytes leaves 59, two runtimes' fp32 far more
MOVED = 30.0
SEED, STEPS = 7, 8
V = {"scheduler": dict(TINY_SD2["scheduler"]) | {"prediction_type": "v_prediction"}}
# family -> checkpoint, and (sampler, schedule) of optimum's scheduler, in our words
CHECKPOINTS = {
    "sd1": (TINY, "ddim", ("ddim", "leading")),
    "sd2": (dict(TINY_SD2) | V, "ddim", ("ddim", "leading")),
    "sdxl": (TINY_XL, "own", ("euler", "leading")),
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="SAFELIGHT_OPTIMUM_PYTHON names no interpreter"),
]


def theirs(folder, bundle, *, scheduler, prompt, width, height):
    noise = torch.randn(
        (1, 4, height // 8, width // 8), generator=torch.Generator("cpu").manual_seed(SEED)
    )
    np.save(folder / "latents.npy", noise.numpy())
    job = {
        "bundle": str(bundle.path),
        "family": bundle.manifest.family,
        "prompt": prompt,
        "negative_prompt": "blue",
        "steps": STEPS,
        "guidance_scale": 4.0,
        "latents": str(folder / "latents.npy"),
        "scheduler": scheduler,
        "out": str(folder / "picture.npy"),
    }
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        [PYTHON, "-P", str(SIDE)],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        check=False,
        env=env | {"HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    versions = json.loads(done.stdout.splitlines()[-1])
    assert versions["optimum-onnx"]
    return np.load(folder / "picture.npy") * 255


def ours(bundle, back_end, sampler, *, prompt, width, height):
    request = bundle.request(
        prompt=prompt,
        negative_prompt="blue",
        seed=SEED,
        steps=STEPS,
        sampler=sampler[0],
        schedule=sampler[1],
        guidance_scale=4.0,
        width=width,
        height=height,
    )
    events = Pipeline(bundle, choose(back_end, "fp32")).generate(request)
    return next(event.pixels for event in events if isinstance(event, Picture))


def psnr(a, b):
    error = np.mean((a.astype(np.float64) - b) ** 2)
    return 200.0 if error == 0.0 else 10.0 * np.log10(255.0**2 / error)


def compare(folder, bundle, scheduler, sampler, **given):
    picture = theirs(folder, bundle, scheduler=scheduler, **given)
    assert picture.std() > 10.0
    for back_end in ("onnxruntime", "openvino"):
        assert psnr(ours(bundle, back_end, sampler, **given), picture) >= SAME
    other = ours(bundle, "onnxruntime", sampler, **(given | {"prompt": "pear"}))
    assert psnr(other, picture) < MOVED


def test_the_shipped_model_draws_the_same_by_its_own_scheduler(tmp_path):
    bundle = Bundle.open(POCKET, hash_cache=None)
    sampler = ("dpmpp_2m", "linspace")
    compare(tmp_path, bundle, "own", sampler, prompt="red apple", width=128, height=128)


@pytest.mark.parametrize("family", CHECKPOINTS)
def test_an_export_draws_the_same(tmp_path, family):
    architecture, scheduler, sampler = CHECKPOINTS[family]
    write_random_checkpoint(tmp_path / "source", architecture, seed=3)
    out = tmp_path / "bundle"
    export_checkpoint(
        Ingredients(source=tmp_path / "source"),
        out,
        name=family,
        licence=None,
        progress=lambda *_: None,
    )
    bundle = Bundle.open(out, hash_cache=None)
    compare(tmp_path, bundle, scheduler, sampler, prompt="red apple", width=72, height=64)
