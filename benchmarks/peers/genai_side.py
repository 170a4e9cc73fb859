"""openvino-genai's Text2ImagePipeline on the bundle's networks in OpenVINO's own form."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.peers.serving import StepClock, serve, versions

__all__ = ["GenAi", "load"]


class GenAi:
    """The pipeline on the CPU. given: `openvino`, a folder that `genai_folder` made; `way`, the
    precision hint (f32 or bf16); `threads`, `scenario`.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        genai: Any = import_module("openvino_genai")
        self._row: Mapping[str, Any] = given["scenario"]
        way = given["way"]
        pipe = genai.Text2ImagePipeline(Path(given["openvino"]))
        kinds = genai.Scheduler.Type
        kind = {"dpmpp_2m": None, "euler": kinds.EULER_DISCRETE}[self._row["sampler"]]
        # It has no DPM-Solver++: DDIM asks the network as often.
        pipe.set_scheduler(
            genai.Scheduler.from_config(
                Path(given["openvino"]) / "scheduler" / "scheduler_config.json", kind or kinds.DDIM
            )
        )
        row = self._row
        pipe.reshape(1, row["height"], row["width"], row["guidance_scale"])
        pipe.compile(
            "CPU",
            INFERENCE_NUM_THREADS=given["threads"],
            INFERENCE_PRECISION_HINT=way,
            PERFORMANCE_HINT="LATENCY",
        )
        self._genai, self._pipe = genai, pipe
        self.facts: dict[str, Any] = {
            "backend": "openvino",
            "device": "CPU",
            "precision": "fp32" if way == "f32" else way,
            "libraries": versions("openvino", "openvino-genai", "openvino-tokenizers"),
            "threads": given["threads"],
        }

    def draw(self, prompt: str, seed: int) -> tuple[Any, list[float]]:
        """Draw one picture."""
        steps = StepClock()

        def after(_step: int, _count: int, _latent: Any) -> bool:
            steps()
            return False

        row = self._row
        made = self._pipe.generate(
            prompt,
            width=row["width"],
            height=row["height"],
            num_inference_steps=row["steps"],
            guidance_scale=row["guidance_scale"],
            num_images_per_prompt=1,
            generator=self._genai.CppStdGenerator(seed),
            callback=after,
        )
        return made.data[0], steps.seconds[1:]


def load(given: Mapping[str, Any]) -> GenAi:
    """Load it as `given` says."""
    return GenAi(given)


if __name__ == "__main__":
    serve(load)
