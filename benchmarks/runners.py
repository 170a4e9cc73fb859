"""A process that draws, as `take_turns` wants it. Ours and peers' speak the same lines."""

import base64
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.children import Child

__all__ = ["DrawingRunner"]

UInt8 = NDArray[np.uint8]


class DrawingRunner:
    """Asks a child for pictures.

    gate: how many turns' first pictures are kept, by their number.
    """

    def __init__(self, child: Child, gate: int) -> None:
        self._child = child
        self._gate = gate
        self.pictures: dict[int, UInt8] = {}
        self.joules: list[float] = []

    def turn(self, number: int) -> dict[str, list[float]]:
        """Draw turn `number`; gives seconds by stage."""
        wanted = 0 <= number < self._gate
        answer = self._child.ask({"do": "draw", "number": number, "pixels": wanted})
        if wanted and "pixels" in answer:
            width, height = answer["size"]
            data = zlib.decompress(base64.b64decode(answer["pixels"]), bufsize=3 * width * height)
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
