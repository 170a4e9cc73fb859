"""A peer's end of the pipe: the lines that `benchmarks.worker` speaks too. Standard library only.

The first line holds `scenario` (its fields), `threads` and where the model is; then each line asks
for a picture or for the end.
"""

import base64
import json
import os
import sys
import time
import zlib
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

from benchmarks.residence import peak_memory

__all__ = ["Peer", "StepClock", "serve", "versions"]


class Peer(Protocol):
    """A loaded pipeline. facts: backend, device, precision, libraries, threads."""

    facts: dict[str, Any]

    def draw(self, prompt: str, seed: int) -> tuple[Any, list[float]]:
        """Draw one picture: a PIL picture or uint8[H, W, 3], and the seconds of its steps."""
        ...


class StepClock:
    """Times steps by the calls that a pipeline makes after each of them."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._last = time.perf_counter()

    def __call__(self) -> None:
        """Note that a step ended."""
        now = time.perf_counter()
        self.seconds.append(now - self._last)
        self._last = now


def versions(*names: str) -> dict[str, str]:
    """Give the versions of the distributions that are installed."""
    found: dict[str, str] = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def serve(load: Callable[[Mapping[str, Any]], Peer]) -> None:
    """Serve standard input and output. load: makes the peer, of the first line."""
    # What a library prints goes to standard error, also what it prints past Python.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(found: Mapping[str, Any]) -> None:
        answers.write(json.dumps(found) + "\n")
        answers.flush()

    peer: Peer | None = None
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            if peer is None:
                start = time.perf_counter()
                peer = load(asked)
                answer(peer.facts | {"seconds": {"load": time.perf_counter() - start}})
            elif asked["do"] == "draw":
                answer(_draw(peer, asked))
            else:
                answer({"peak_memory": peak_memory(), "peak_gpu_memory": None, "end": True})
                return
        except Exception as error:  # noqa: BLE001 - whatever a peer raises is why it is left out
            text = " ".join(f"{type(error).__name__}: {error}".split())
            answer({"error": text[:300], "hint": ""})
            return


def _draw(peer: Peer, asked: Mapping[str, Any]) -> dict[str, Any]:
    start = time.perf_counter()
    picture, steps = peer.draw(asked["prompt"], asked["seed"])
    stages = {"picture": [time.perf_counter() - start]}
    if steps:
        stages["step"] = steps
    answer: dict[str, Any] = {"stages": stages}
    if asked["pixels"]:
        from PIL import Image

        image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
        image = image.convert("RGB")
        packed = base64.b64encode(zlib.compress(image.tobytes(), 1)).decode()
        answer |= {"size": image.size, "pixels": packed}
    return answer
