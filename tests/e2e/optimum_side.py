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
    made = pipeline(
        prompt=job["prompt"],
        negative_prompt=job["negative_prompt"],
        num_inference_steps=job["steps"],
        guidance_scale=job["guidance_scale"],
        latents=latents,
        height=height,
        width=width,
        output_type="np",
    )
    np.save(job["out"], made.images[0])


if __name__ == "__main__":
    draw(json.loads(sys.stdin.read()))
    sys.stdout.write(json.dumps({name: version(name) for name in LIBRARIES}) + "\n")
