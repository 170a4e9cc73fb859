"""diffusers' StableDiffusionPipeline: fp32; bf16 channels_last; torch.compile."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.peers.serving import StepClock, serve, versions

__all__ = ["Diffusers", "load"]

KARRAS = {"use_karras_sigmas": True}


class Diffusers:
    """The pipeline as its documentation makes it fast on a processor.

    given: `checkpoint`, a diffusers folder; `way`, one of fp32, bf16 and compile; `scenario`.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        import torch
        from diffusers.pipelines.auto_pipeline import AutoPipelineForText2Image
        from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
        from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler

        torch.set_num_threads(given["threads"])
        self._torch = torch
        self._row: Mapping[str, Any] = given["scenario"]
        way = given["way"]
        kind = torch.float32 if way == "fp32" else torch.bfloat16
        pipe: Any = AutoPipelineForText2Image.from_pretrained(
            Path(given["checkpoint"]), torch_dtype=kind, local_files_only=True
        )
        scheduler: Any = {"dpmpp_2m": DPMSolverMultistepScheduler, "euler": EulerDiscreteScheduler}[
            self._row["sampler"]
        ]
        more = KARRAS if self._row["schedule"] == "karras" else {}
        if self._row["schedule"] in {"trailing", "linspace", "leading"}:
            more = {"timestep_spacing": self._row["schedule"]}
        pipe.scheduler = scheduler.from_config(pipe.scheduler.config, **more)
        pipe.set_progress_bar_config(disable=True)
        pipe.safety_checker = None
        if way != "fp32":
            pipe.unet.to(memory_format=torch.channels_last)
            pipe.vae.to(memory_format=torch.channels_last)
        if way == "compile":
            pipe.unet = torch.compile(pipe.unet)
            pipe.vae.decode = torch.compile(pipe.vae.decode)
        self._pipe = pipe
        self.facts: dict[str, Any] = {
            "backend": "torch",
            "device": "CPU",
            "precision": "fp32" if way == "fp32" else "bf16",
            "libraries": versions("diffusers", "torch", "transformers"),
            "threads": given["threads"],
        }
        if way == "compile":
            self.draw("a warm-up that compiles", 0)

    def draw(self, prompt: str, seed: int) -> tuple[Any, list[float]]:
        """Draw one picture."""
        steps = StepClock()

        def after(_pipe: Any, _index: int, _timestep: Any, values: dict[str, Any]) -> Any:
            steps()
            return values

        row = self._row
        made = self._pipe(
            prompt,
            width=row["width"],
            height=row["height"],
            num_inference_steps=row["steps"],
            guidance_scale=row["guidance_scale"],
            generator=self._torch.Generator("cpu").manual_seed(seed),
            callback_on_step_end=after,
        )
        return made.images[0], steps.seconds[1:]  # the first one holds the text's encoding


def load(given: Mapping[str, Any]) -> Diffusers:
    """Load it as `given` says."""
    return Diffusers(given)


if __name__ == "__main__":
    serve(load)
