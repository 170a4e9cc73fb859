"""Draws one picture by optimum's ONNX Runtime pipeline: runs in optimum's environment, not in ours.

Takes one JSON job on standard input: bundle, family, prompt, negative_prompt, steps,
guidance_scale, latents (an .npy of f32[1, 4, h, w] before the scheduler's scaling), scheduler
("own" or "ddim"), out (an .npy to write: f32[H, W, 3] in 0..1). Prints the libraries' versions as
JSON.
"""

import json
import sys
from importlib.metadata import version

LIBRARIES = ("optimum", "optimum-onnx", "diffusers", "transformers", "onnxruntime", "torch")


def draw(job):
    import numpy as np
    import torch
    from diffusers import DDIMScheduler
    from optimum.onnxruntime import ORTStableDiffusionPipeline, ORTStableDiffusionXLPipeline

    xl = job["family"] == "sdxl"
    kind = ORTStableDiffusionXLPipeline if xl else ORTStableDiffusionPipeline
    pipeline = kind.from_pretrained(job["bundle"], export=False, provider="CPUExecutionProvider")
    pipeline.set_progress_bar_config(disable=True)
    if job["scheduler"] == "ddim":  # clipping is another picture's business: it is not in the file
        pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    latents = torch.from_numpy(np.load(job["latents"]))
    height, width = (8 * side for side in latents.shape[2:])
    text = {"prompt": job["prompt"], "negative_prompt": job["negative_prompt"]}
    made = pipeline(
        **(encoded(pipeline, text, torch) if xl else text),
        num_inference_steps=job["steps"],
        guidance_scale=job["guidance_scale"],
        latents=latents,
        height=height,
        width=width,
        output_type="np",
    )
    np.save(job["out"], made.images[0])


def encoded(pipeline, text, torch):
    """Encode by the bundle's own graphs: optimum's XL pipeline asks for each layer's result."""
    found = {}
    for prefix, words in (("", text["prompt"]), ("negative_", text["negative_prompt"])):
        hidden, pooled = [], None
        for tokenizer, encoder in (
            (pipeline.tokenizer, pipeline.text_encoder),
            (pipeline.tokenizer_2, pipeline.text_encoder_2),
        ):
            ids = tokenizer(
                words,
                padding="max_length",
                max_length=tokenizer.model_max_length,
                truncation=True,
                return_tensors="np",
            ).input_ids.astype("int64")
            outputs = [torch.from_numpy(x) for x in encoder.session.run(None, {"input_ids": ids})]
            hidden += [each for each in outputs if each.ndim == 3]
            pooled = next((each for each in outputs if each.ndim == 2), pooled)
        found[f"{prefix}prompt_embeds"] = torch.cat(hidden, dim=-1)
        found[f"{prefix}pooled_prompt_embeds"] = pooled
    return found


if __name__ == "__main__":
    draw(json.loads(sys.stdin.read()))
    sys.stdout.write(json.dumps({name: version(name) for name in LIBRARIES}) + "\n")
