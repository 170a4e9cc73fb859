"""One configuration in a process of its own: it is told what to draw, and tells how long it took.

A line of JSON comes in, a line goes out (`benchmarks.children` is the other end). The first line
names bundle, device and scenario; then each asks for a picture. Pictures go through the same pipe,
for the quality gate. Nothing is in the arguments, nothing lies in the clear.
"""

import base64
import json
import math
import shutil
import sys
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from benchmarks.residence import peak_memory

if TYPE_CHECKING:
    from benchmarks.timed import TimedBackend
    from engine import Bundle, Choice, Pipeline
    from engine.replicas import Replicas

__all__ = ["main", "serve", "timed_pipeline"]

# What a request takes of the scenario's row.
_FIELDS = ("width", "height", "steps", "sampler", "schedule", "guidance_scale")


def timed_pipeline(
    bundle: "Bundle", choice: "Choice"
) -> "tuple[Pipeline | Replicas, Sequence[TimedBackend]]":
    """Give what draws on the chosen device, or on all of them, and the back ends, whose loads are
    timed.
    """
    from benchmarks.timed import timed
    from engine.beside import NOTHING_BESIDE
    from engine.replicas import pipeline_for

    first, *others = (timed(each) for each in (choice.backend, *choice.others))
    each_timed = replace(choice, backend=first, others=tuple(others))
    pipeline = pipeline_for(bundle, each_timed, check_safety=True, beside=NOTHING_BESIDE)
    return pipeline, (first, *others)


class Drawer:
    """A warm pipeline with a vault of its own, whose keys are in memory."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        start = time.perf_counter()
        from benchmarks.cards import cards
        from benchmarks.energy import Meter
        from engine import Bundle, choose
        from engine.cores import physical_cores
        from safelight.studio import Studio
        from vault import MemoryKeyStore, create

        self._row: Mapping[str, Any] = given["scenario"]
        self._batch: int = given["batch"]
        self._cards = list(cards())
        self._used = [card.used() for card in self._cards]
        self._bundle: Bundle = Bundle.open(Path(given["bundle"]), hash_cache=Path(given["hashes"]))
        choice = choose(given["device"], given["precision"], Path(given["cache"]))
        pipeline, backends = timed_pipeline(self._bundle, choice)
        row = self._row
        pipeline.load(row["width"], row["height"], guided=row["guidance_scale"] != 1.0)
        self._folder = Path(given["vault"])
        self._vault = create(self._folder, keystore=MemoryKeyStore(), confirm=lambda _: None)
        self._studio = Studio(pipeline, self._vault)
        self._meter = Meter(self._cards)
        self.facts: dict[str, Any] = {
            "backend": choice.backend.name,
            "device": ", ".join(each.device for each in backends),
            "devices": len(backends),
            "precision": choice.backend.precision,
            "libraries": dict(choice.backend.libraries),
            "threads": physical_cores(),
            "seconds": {
                "load": time.perf_counter() - start,
                "compile": max(each.seconds for each in backends),
            },
        }

    def draw(self, prompt: str, seed: int, *, pixels: bool) -> dict[str, Any]:
        """Draw and seal the pictures of one request; pixels: the first one comes along."""
        from engine import Step
        from safelight.studio import Sealed

        fields: Any = {name: self._row[name] for name in _FIELDS}
        request = self._bundle.request(prompt=prompt, seed=seed, count=self._batch, **fields)
        steps: list[float] = []
        lines: list[Mapping[str, Any]] = []
        joules = self._meter.joules()
        start = time.perf_counter()
        for event in self._studio.run([request], lambda: False):
            if isinstance(event, Step):
                steps.append(event.seconds)
            elif isinstance(event, Sealed):
                lines.append(event.line)
        took = time.perf_counter() - start
        joules = self._meter.joules() - joules
        answer: dict[str, Any] = {
            "stages": {
                "text": [lines[0]["seconds"]["text"]],
                "step": steps,
                "decode": [line["seconds"]["decode"] for line in lines],
                "seal": [line["seconds"]["seal"] for line in lines],
                "picture": [took / self._batch],
            },
            "joules": joules / self._batch if math.isfinite(joules) else None,
        }
        if pixels:
            answer |= self._picture(lines[0]["id"])
        return answer

    def _picture(self, record: str) -> dict[str, Any]:
        """Open what was sealed: what is compared is what a user would get back."""
        from PIL import Image

        with Image.open(BytesIO(self._vault.read(record, "picture"))) as picture:
            data = picture.convert("RGB").tobytes()
            size = picture.size
        packed = base64.b64encode(zlib.compress(data, 1)).decode()
        return {"size": size, "pixels": packed}

    def end(self) -> dict[str, Any]:
        """Give what the process took in all, and remove its vault."""
        pairs = zip(self._cards, self._used, strict=True)
        gpu = [card.used() - before for card, before in pairs]
        self._vault.close()
        shutil.rmtree(self._folder)
        return {"peak_memory": peak_memory(), "peak_gpu_memory": max(gpu, default=None)}


def serve(lines: TextIO, answers: TextIO) -> None:
    """Do what each line asks; an error is an answer too, and ends the process."""

    def answer(found: Mapping[str, Any]) -> None:
        answers.write(json.dumps(found) + "\n")
        answers.flush()

    drawer: Drawer | None = None
    for line in lines:
        asked = json.loads(line)
        try:
            if drawer is None:
                drawer = Drawer(asked)
                answer(drawer.facts)
            elif asked["do"] == "draw":
                answer(drawer.draw(asked["prompt"], asked["seed"], pixels=asked["pixels"]))
            else:
                answer(drawer.end())
                return
        except Exception as error:  # noqa: BLE001 - the other end turns it into one sentence
            answer({"error": str(error)[:500], "hint": getattr(error, "hint", "")})
            return


def main() -> None:
    """Serve standard input and output. What a library prints goes to standard error."""
    answers, sys.stdout = sys.stdout, sys.stderr
    serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
