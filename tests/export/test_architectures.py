"""Random checkpoints are repeatable, of the published sizes, and answer to text and guidance."""

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from safetensors import safe_open

from export.architectures import SD15, TINY, write_random_checkpoint
from export.checkpoint import fingerprint
from export.modules import MODULES
from export.source import open_checkpoint


@pytest.mark.parametrize(
    ("module", "part", "count"),
    [
        ("unet", "unet", 859_520_964),
        ("text_encoder", "text_encoder", 123_060_480),
        ("vae_decoder", "vae", 83_653_863),
    ],
)
def test_sd15_has_the_published_number_of_parameters(module, part, count):
    with torch.device("meta"):
        net = MODULES[module](SD15[part]).net
    assert sum(parameter.numel() for parameter in net.parameters()) == count


def test_a_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        write_random_checkpoint(tmp_path / name, TINY, seed=seed)
    a, b, c = (fingerprint(open_checkpoint(tmp_path / name)) for name in "abc")
    assert a == b
    assert a != c


@pytest.mark.parametrize(("dtype", "name"), [("float16", "F16"), ("float32", "F32")])
def test_weights_have_the_precision_asked_for(tmp_path, dtype, name):
    write_random_checkpoint(tmp_path / "x", TINY, seed=1, dtype=dtype)
    with safe_open(tmp_path / "x/text_encoder/model.safetensors", "np") as weights:
        assert {weights.get_slice(key).get_dtype() for key in weights.keys()} == {name}  # noqa: SIM118


def psnr(one: np.ndarray, two: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((one - two) ** 2)))


@pytest.fixture(scope="module", params=["epsilon", "v_prediction"])
def draw(request, tmp_path_factory) -> Callable[[str, float], np.ndarray]:
    folder = tmp_path_factory.mktemp("random") / request.param
    scheduler = dict(TINY["scheduler"]) | {"prediction_type": request.param}
    write_random_checkpoint(folder, dict(TINY) | {"scheduler": scheduler}, seed=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline = StableDiffusionPipeline.from_pretrained(
            folder,
            torch_dtype=torch.float32,
            local_files_only=True,
            safety_checker=None,
            requires_safety_checker=False,
        )
        pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)

    def picture(prompt: str, guidance: float) -> np.ndarray:
        generator = torch.Generator().manual_seed(3)
        return pipeline(
            prompt,
            num_inference_steps=6,
            guidance_scale=guidance,
            generator=generator,
            output_type="np",
        ).images[0]

    return picture


# diffusers' schedulers hand torch's tensors to numpy in a way that numpy 2 is about to drop.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_changed_word_or_guidance_changes_the_picture(draw):
    picture = draw("red apple on a table", 5.0)
    assert picture.std() > 0.1, "a flat picture proves nothing"
    assert psnr(picture, draw("red pear on a table", 5.0)) < 30
    assert psnr(picture, draw("red apple on a table", 7.5)) < 30
    np.testing.assert_array_equal(picture, draw("red apple on a table", 5.0))
