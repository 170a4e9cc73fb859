"""Weighted, broken and joined prompts against diffusers, given the same embeddings by torch."""

import json
import warnings
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch

import safelight
from engine import Bundle, Picture, Pipeline, choose
from export.reference import load_torch_pipeline

POCKET = Path(safelight.__file__).parent / "models" / "pocket"
SAME = 45.0  # dB, as in test_parity.py; what fp32 leaves is 85 and more
MOVED = 30.0  # dB; beneath it two pictures are plainly two


def psnr(one, other):
    error = np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2)
    return 200.0 if error == 0 else 10 * np.log10(255**2 / error)


def weighted(reference, chunks):
    """Encode chunks of (words, weight) with transformers, and weigh them in torch."""
    tokenizer, limit = reference.tokenizer, reference.tokenizer.model_max_length
    rows = []
    for chunk in chunks:
        ids, weights = [tokenizer.bos_token_id], [1.0]
        for words, weight in chunk:
            found = tokenizer(words, add_special_tokens=False)["input_ids"]
            ids += found
            weights += [weight] * len(found)
        missing = limit - len(ids) - 1
        ids += [tokenizer.eos_token_id] + [tokenizer.pad_token_id] * missing
        weights += [1.0] * (missing + 1)
        with torch.inference_mode():
            z = reference.text_encoder(torch.tensor([ids])).last_hidden_state
        scaled = z * torch.tensor(weights)[None, :, None]
        rows.append(scaled * (z.mean() / scaled.mean()))
    return torch.cat(rows, dim=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prompt", "chunks"),
    [
        ("(red:1.5) apple", [[("red", 1.5), ("apple", 1.0)]]),
        ("((blue:2) [[cat]]) face", [[("blue", 2.2), ("cat", 0.909091), ("face", 1.0)]]),
        ("(red:0.3) apple BREAK leaf", [[("red", 0.3), ("apple", 1.0)], [("leaf", 1.0)]]),
    ],
    ids=["stronger", "nested", "break"],
)
def test_a_weighted_prompt_gives_diffusers_picture(tmp_path, prompt, chunks):
    bundle = Bundle.open(POCKET, hash_cache=None)
    reference = load_torch_pipeline(POCKET)
    config = json.loads((POCKET / "scheduler/scheduler_config.json").read_text())
    config["timestep_spacing"] = bundle.manifest.defaults.schedule
    reference.scheduler = diffusers.DPMSolverMultistepScheduler.from_config(config)
    pipeline = Pipeline(bundle, choose("onnxruntime", "fp32", tmp_path))

    def ours(text):
        made = bundle.request(prompt=text, seed=7, steps=8, guidance_scale=3.5, sampler="dpmpp_2m")
        (picture,) = (e for e in pipeline.generate(made) if isinstance(e, Picture))
        return picture.pixels

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # diffusers' own deprecations
        picture = reference(
            prompt_embeds=weighted(reference, chunks),
            negative_prompt_embeds=weighted(reference, [[("", 1.0)]] * len(chunks)),
            num_inference_steps=8,
            guidance_scale=3.5,
            width=bundle.manifest.default_width,
            height=bundle.manifest.default_height,
            generator=torch.Generator().manual_seed(7),
            output_type="np",
        ).images[0]
    wanted = np.rint(picture * 255).astype(np.uint8)
    assert psnr(ours(prompt), wanted) >= SAME
    plain = " ".join(words for chunk in chunks for words, _ in chunk)
    assert psnr(ours(plain), wanted) < MOVED
