"""A process that draws, as `take_turns` wants it. Ours and peers' speak the same lines."""

import base64
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.children import Child
from benchmarks.errors import WorkerError
from benchmarks.scenarios import PictureScenario, prompt_of, seed_of

__all__ = ["DrawingRunner"]

UInt8 = NDArray[np.uint8]


class DrawingRunner:
    """Asks a child for pictures.

    The first picture of as many turns as the scenario compares is kept, by the turn's number.
    """

    def __init__(self, child: Child, scenario: PictureScenario) -> None:
        self._child = child
        self._scenario = scenario
        self.pictures: dict[int, UInt8] = {}
        self.joules: list[float] = []

    def turn(self, number: int) -> dict[str, list[float]]:
        """Draw turn `number`; gives seconds by stage."""
        wanted = 0 <= number < self._scenario.gate
        prompt, seed = prompt_of(self._scenario, number), seed_of(number)
        asked = {"do": "draw", "prompt": prompt, "seed": seed, "pixels": wanted}
        answer = self._child.ask(asked)
        if wanted and "pixels" in answer:
            width, height = answer["size"]
            size = 3 * width * height
            data = zlib.decompressobj().decompress(base64.b64decode(answer["pixels"]), size + 1)
            if len(data) != size:
                raise WorkerError("a picture is not the size that it was said to be")
            self.pictures[number] = np.frombuffer(data, np.uint8).reshape(height, width, 3)
        if number >= 0 and answer.get("joules") is not None:
            self.joules.append(answer["joules"])
        return answer["stages"]

    def end(self) -> dict[str, Any]:
        """Ask for what the process took in all, and end it."""
        return self._child.ask({"do": "end"})

    def close(self) -> None:
        """End it, asked or not."""
        self._child.close()
