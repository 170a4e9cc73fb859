"""stable-diffusion.cpp by its Python binding, on a diffusers folder. Never run so far."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.peers.serving import StepClock, serve, versions

__all__ = ["Sdcpp", "load"]


class Sdcpp:
    """The library on the CPU. given: `checkpoint`, a diffusers folder; `threads`,
    `scenario`.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._row: Mapping[str, Any] = given["scenario"]
        library: Any = import_module("stable_diffusion_cpp")
        self._net = library.StableDiffusion(
            model_path=str(Path(given["checkpoint"])), n_threads=given["threads"], verbose=False
        )
        self.facts: dict[str, Any] = {
            "backend": "ggml",
            "device": "CPU",
            "precision": "fp16",  # weights; it multiplies in fp32
            "libraries": versions("stable-diffusion-cpp-python"),
            "threads": given["threads"],
        }

    def draw(self, prompt: str, seed: int) -> tuple[Any, list[float]]:
        """Draw one picture."""
        steps = StepClock()
        row = self._row
        made = self._net.generate_image(
            prompt=prompt,
            width=row["width"],
            height=row["height"],
            sample_steps=row["steps"],
            cfg_scale=row["guidance_scale"],
            sample_method={"dpmpp_2m": "dpm++2m", "euler": "euler"}[row["sampler"]],
            scheduler="karras" if row["schedule"] == "karras" else "discrete",
            seed=seed,
            progress_callback=lambda *_given: steps(),
        )
        return made[0], steps.seconds[1:]


def load(given: Mapping[str, Any]) -> Sdcpp:
    """Load it as `given` says."""
    return Sdcpp(given)


if __name__ == "__main__":
    serve(load)
