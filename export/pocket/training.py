"""The training loop that both networks share: seeded by step, averaged, checkpointed, resumable.

Step n draws everything from generators seeded by (seed, n), and the learning rate follows n, so a
run in pieces gives bit by bit what an unbroken run gives (same machine, same thread count). A kept
checkpoint (`export.pocket.keep`) holds weights alone: the optimizer starts afresh from it.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from export.errors import ExportError
from export.pocket import checkpoint
from export.pocket.optimizers import Optimizer
from export.pocket.settings import Settings

__all__ = ["Course", "Progress", "Trainer", "cosine"]


@dataclass(frozen=True, kw_only=True)
class Course:
    """What is trained and how: the loss of a step, its learning rate, the number of steps."""

    name: str
    steps: int
    loss: Callable[[int], Tensor]  # step -> scalar; forward pass included
    learning_rate: Callable[[int], float]
    samples: Callable[[int], int]  # pictures that a step sees
    ema: float
    plan: Mapping[str, object] = field(default_factory=dict)  # numbers that are not in Settings


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands; `rate` is pictures a second since this piece began."""

    step: int
    steps: int
    loss: float
    rate: float
    saved: bool = False

    def line(self, name: str) -> str:
        """Write it for a person."""
        left = f"{self.step}/{self.steps}"
        return f"{name}: step {left} loss {self.loss:.4f} {self.rate:.1f}/s{' saved' * self.saved}"


def cosine(step: int, steps: int, *, warmup: int, peak: float) -> float:
    """Rise linearly over `warmup` steps, then fall to a fiftieth of the peak as a cosine does."""
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return peak * (0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done))))


class Trainer:
    """Trains a module by a course, with its state in `WORK/NAME.safetensors`."""

    def __init__(self, module: nn.Module, course: Course, work: Path, settings: Settings) -> None:
        self._module, self._course, self._settings = module, course, settings
        self._path = work / f"{course.name}.safetensors"
        self._parameters = {n: p for n, p in module.named_parameters() if p.requires_grad}
        self._average = {n: p.detach().clone() for n, p in self._parameters.items()}
        self._optimizer = Optimizer(
            self._parameters, kind=settings.optimizer, decay=settings.weight_decay
        )
        self._step = 0
        if self._path.exists():
            self._restore()
        self._ledger = checkpoint.Ledger(work / f"{course.name}.jsonl", self._step)

    @property
    def done(self) -> bool:
        """Tell whether the course is finished."""
        return self._step >= self._course.steps

    def run(self, minutes: float) -> Iterator[Progress]:
        """Train until the course or the minutes are over; save on a clock and at the end."""
        begin = saved = said = time.monotonic()
        losses: list[float] = []
        seen = 0
        while not self.done and time.monotonic() - begin < 60.0 * minutes:
            losses.append(self._advance())
            seen += self._course.samples(self._step - 1)
            now = time.monotonic()
            due = now - saved > self._settings.checkpoint_seconds
            if due:
                self._save()
                saved = now
            if due or now - said > 15.0 or self.done:
                yield self._report(losses, seen / (now - begin), saved=due)
                losses, said = [], now
        self._save()
        if losses:
            yield self._report(losses, seen / (time.monotonic() - begin), saved=True)

    def averaged(self) -> nn.Module:
        """Put the averaged weights into the module and return it."""
        with torch.no_grad():
            for name, p in self._parameters.items():
                p.copy_(self._average[name])
        return self._module

    def _advance(self) -> float:
        """Take one step and return its loss."""
        step = self._step
        for p in self._parameters.values():
            p.grad = None
        loss = self._course.loss(step)
        loss.backward()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ExportError(
                f"the loss of step {step} is {value}", hint="the last checkpoint is whole"
            )
        torch.nn.utils.clip_grad_norm_(self._parameters.values(), self._settings.clip)
        self._optimizer.update(self._course.learning_rate(step))
        keep = min(self._course.ema, (1.0 + step) / (10.0 + step))
        averages = list(self._average.values())
        with torch.no_grad():
            cast("Any", torch)._foreach_lerp_(averages, list(self._parameters.values()), 1.0 - keep)
        self._step += 1
        return value

    def _report(self, losses: list[float], rate: float, *, saved: bool) -> Progress:
        mean = float(np.mean(losses)) if losses else float("nan")
        progress = Progress(
            step=self._step, steps=self._course.steps, loss=mean, rate=rate, saved=saved
        )
        row = {
            "step": self._step,
            "loss": round(mean, 6),
            "learning_rate": round(self._course.learning_rate(self._step - 1), 8),
            "pictures_per_second": round(rate, 2),
        }
        self._ledger.add(row)
        return progress

    def _header(self) -> dict[str, object]:
        plan: dict[str, object] = {}
        if self._course.plan:
            plan["plan"] = dict(self._course.plan)
        return {"step": self._step, "settings": self._settings.as_dict()} | plan

    def _save(self) -> None:
        """Write parameters, averages and optimizer, atomically."""
        flat = {f"parameter.{n}": p.detach() for n, p in self._parameters.items()}
        flat |= {f"average.{n}": t for n, t in self._average.items()}
        flat |= {f"optimizer.{n}": t for n, t in self._optimizer.state().items()}
        checkpoint.save(self._path, {n: t.numpy() for n, t in flat.items()}, self._header())

    def _restore(self) -> None:
        """Read the checkpoint back; refuse one of other settings."""
        arrays, header = checkpoint.load(self._path)
        same_plan = header.get("plan", {}) == self._course.plan
        if not (self._settings.agree_with(header["settings"]) and same_plan):
            raise ExportError(
                f"{self._path.name} was made with other settings",
                hint="use its profile and optimizer, or another --work folder",
            )
        flat = {name: torch.from_numpy(array) for name, array in arrays.items()}
        with torch.no_grad():
            for name, p in self._parameters.items():
                p.copy_(flat[f"parameter.{name}"])
                self._average[name].copy_(flat.get(f"average.{name}", p.detach()))
        self._step = int(header["step"])
        if header.get("weights_only"):
            return
        part = "optimizer."
        self._optimizer.restore(
            {n.removeprefix(part): t for n, t in flat.items() if n.startswith(part)}
        )
