"""optimum's ORTStableDiffusionPipeline on our own bundle, which has optimum's layout."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.peers.serving import StepClock, serve, versions

__all__ = ["Optimum", "load"]


class Optimum:
    """The pipeline on ONNX Runtime's CPU provider. given: `bundle`, `threads`, `scenario`."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        import onnxruntime
        import torch

        diffusers: Any = import_module("diffusers")
        optimum: Any = import_module("optimum.onnxruntime")
        self._torch = torch
        self._row: Mapping[str, Any] = given["scenario"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = given["threads"]
        xl = self._row["model"] == "sdxl"
        name = "ORTStableDiffusionXLPipeline" if xl else "ORTStableDiffusionPipeline"
        kind = getattr(optimum, name)
        pipe = kind.from_pretrained(
            Path(given["bundle"]),
            export=False,
            provider="CPUExecutionProvider",
            session_options=options,
        )
        schedule = self._row["schedule"]
        more = {"use_karras_sigmas": True} if schedule == "karras" else {}
        if schedule in {"trailing", "linspace", "leading"}:
            more = {"timestep_spacing": schedule}
        scheduler = {
            "dpmpp_2m": diffusers.DPMSolverMultistepScheduler,
            "euler": diffusers.EulerDiscreteScheduler,
        }
        pipe.scheduler = scheduler[self._row["sampler"]].from_config(pipe.scheduler.config, **more)
        pipe.set_progress_bar_config(disable=True)
        self._pipe = pipe
        self.facts: dict[str, Any] = {
            "backend": "onnxruntime",
            "device": "CPU",
            "precision": "fp32",
            "libraries": versions("optimum", "optimum-onnx", "diffusers", "onnxruntime", "torch"),
            "threads": given["threads"],
        }

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


def load(given: Mapping[str, Any]) -> Optimum:
    """Load it as `given` says."""
    return Optimum(given)


if __name__ == "__main__":
    serve(load)
