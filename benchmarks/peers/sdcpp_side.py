"""stable-diffusion.cpp by its Python binding, on a diffusers folder with published names."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

from benchmarks.peers.serving import StepClock, serve, versions

__all__ = ["Sdcpp", "load"]

SAMPLERS: Final = {"dpmpp_2m": "dpm++2m", "euler": "euler", "euler_a": "euler_a"}


class Sdcpp:
    """The library on the CPU. given: `checkpoint`, a diffusers folder; `threads`,
    `scenario`.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._row: Mapping[str, Any] = given["scenario"]
        library: Any = import_module("stable_diffusion_cpp")
        self._net = library.StableDiffusion(
            model_path=str(given["checkpoint"]),
            n_threads=given["threads"],
            rng_type="cpu",  # torch's generator on a processor, as ours: the same noise
            sampler_rng_type="cpu",
            vae_decode_only=True,
            verbose=False,
        )
        self.facts: dict[str, Any] = {
            "backend": "ggml",
            "device": "CPU",
            "precision": "fp16",  # weights as they are stored; it adds up in fp32
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
            sample_method=SAMPLERS[row["sampler"]],
            scheduler="karras" if row["schedule"] == "karras" else "discrete",
            seed=seed,
            progress_callback=lambda *_given: steps(),
        )
        # The first call comes before the first step.
        return made[0], steps.seconds[1:]


def load(given: Mapping[str, Any]) -> Sdcpp:
    """Load it as `given` says."""
    return Sdcpp(given)


if __name__ == "__main__":
    serve(load)
