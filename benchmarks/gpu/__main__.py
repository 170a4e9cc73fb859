"""Measures every way to run the networks on this machine's NVIDIA card, and writes one report.

usage: python -m benchmarks.gpu [--device cuda|cpu] [--quick] [--models pocket,sd15,sdxl]
       [--pictures 1,4] [--runtimes torch,onnxruntime,tensorrt,onnxruntime-tensorrt]
       [--out FOLDER] [--work FOLDER] [--minutes 9]

It takes torch, onnxruntime-gpu or tensorrt, whichever is there, and numpy; no network, no exporter.
A row that cannot run says why. Each runtime works in a process of its own for each network; what
builds for minutes (TensorRT) comes last, with the time that is left.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu.graphs import MODELS
from benchmarks.gpu.orders import Order
from benchmarks.gpu.report import markdown
from benchmarks.gpu.rows import LATE, ROWS, reference
from benchmarks.machine import machine

__all__ = ["main"]

COUNTS, QUICK_COUNTS = (1, 4, 20, 50), (1, 4)
ROUNDS, QUICK_ROUNDS = 10, 2
LEAST = {"fp16": 40.0, "fp32": 60.0, "fp32 (TF32)": 40.0}  # dB; one wrong operator leaves 20
ROOT = Path(__file__).parents[2]


def main() -> int:
    """Run all rows; 0 when every row that ran is near fp32, 1 otherwise."""
    options = _options()
    if options.child:
        return _child(options)
    start = time.monotonic()
    options.work.mkdir(parents=True, exist_ok=True)
    results: dict[str, dict[str, Any]] = {}
    for late in (False, True):
        runtimes = [name for name in options.runtimes.split(",") if (name in LATE) == late]
        for model in options.models.split(",") if runtimes else ():
            for pictures in options.pictures.split(","):
                key = f"{model}, {pictures} picture{'s' * (pictures != '1')}"
                found = dict(_measured(options, runtimes, f"{model}:{pictures}", start))
                results[key] = results.get(key, {}) | found
                _say(f"{key}: {', '.join(_short(*each) for each in found.items())}")
    faults = [
        f"{key}, {name}: {row['psnr']} dB"
        for key, rows in results.items()
        for name, row in rows.items()
        if "absent" not in row and row["psnr"] < LEAST[row["precision"]]
    ]
    document = {
        "scenario": "acceptance on a card" + (", quick" if options.quick else ""),
        "date": datetime.now(UTC).date().isoformat(),
        "card": _card() if options.device == "cuda" else "none: a dry run on the processor",
        "driver": _driver(),
        "machine": machine(),
        "seconds": round(time.monotonic() - start, 1),
        "results": results,
        "faults": faults,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "accept-gpu.json").write_text(json.dumps(document, indent=2) + "\n", "utf-8")
    (options.out / "accept-gpu.md").write_text(markdown(document), "utf-8")
    _say(f"{options.out / 'accept-gpu.md'}; {len(faults)} faults")
    return 1 if faults else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="few steps and rounds")
    parser.add_argument("--models", default="pocket,sd15,sdxl")
    parser.add_argument("--pictures", default="1,4")
    parser.add_argument("--runtimes", default=",".join(ROWS))
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--work", type=Path, default=ROOT / "accept-work")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    unknown = set(options.models.split(",")) - set(MODELS)
    if unknown:
        parser.error(f"unknown model '{unknown.pop()}'; one of: {', '.join(MODELS)}")
    unknown = set(options.runtimes.split(",")) - set(ROWS)
    if unknown:
        parser.error(f"unknown runtime '{unknown.pop()}'; one of: {', '.join(ROWS)}")
    return options


def _measured(
    options: argparse.Namespace, runtimes: Sequence[str], network: str, start: float
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield row -> what it gave, or why it is absent. network: model:pictures."""
    for runtime in runtimes:
        rows = ROWS[runtime]
        left = options.minutes * 60 - (time.monotonic() - start)
        if left <= 0:
            yield from ((name, {"absent": "the time was up"}) for name in rows)
            continue
        told, ended = _run_child(options, f"{runtime}:{network}", left)
        for name in rows:
            yield name, told.get(name, {"absent": ended})


def _run_child(
    options: argparse.Namespace, child: str, seconds: float
) -> tuple[dict[str, dict[str, Any]], str]:
    """Give what the child reported before it ended, and how that was where it was too early."""
    arguments = [sys.executable, "-m", "benchmarks.gpu", "--child", child]
    arguments += ["--device", options.device, "--work", str(options.work)]
    arguments += ["--quick"] if options.quick else []
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH", "")])])
    try:
        done = subprocess.run(
            arguments,
            check=False,  # a row that takes the process down is one that is absent
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            text=True,
            timeout=seconds,
        )
        text, ended = done.stdout, f"its process ended with status {done.returncode}"
    except subprocess.TimeoutExpired as error:
        kept: Any = error.stdout or b""  # bytes, whatever was asked for
        text = str(kept, "utf-8", "replace") if isinstance(kept, bytes) else str(kept)
        ended = "the time was up"
    lines = (line for line in text.splitlines() if line.startswith("{"))
    return {each["row"]: each["result"] for each in map(json.loads, lines)}, ended


def _child(options: argparse.Namespace) -> int:
    """Run a runtime's rows of one network, a line of JSON for each."""
    runtime, name, pictures = options.child.split(":")
    model, count = MODELS[name], int(pictures)
    kept = options.work / f"{name}-{count}-fp32.npy"
    if not kept.exists():
        try:
            np.save(kept, reference(model, count, options.work))
        except Exception as error:  # noqa: BLE001  without it no row can be judged
            for row in ROWS[runtime]:
                _say(json.dumps({"row": row, "result": {"absent": _why(error)}}))
            return 0
    order = Order(
        model=model,
        pictures=count,
        device=options.device,
        counts=QUICK_COUNTS if options.quick else COUNTS,
        rounds=QUICK_ROUNDS if options.quick else ROUNDS,
        work=options.work,
        wanted=np.load(kept),
    )
    for row, measure in ROWS[runtime].items():
        try:
            result = measure(order)
        except Exception as error:  # noqa: BLE001  whatever a runtime raises is why it is absent
            result = {"absent": _why(error)}
        _say(json.dumps({"row": row, "result": result}))
    return 0


def _why(error: Exception) -> str:
    hint = getattr(error, "hint", "")
    why = " ".join(f"{error}{f' ({hint})' if hint else ''}".split())
    return f"{type(error).__name__}: {why[:300]}"


def _short(name: str, row: Mapping[str, Any]) -> str:
    if "absent" in row:
        return f"{name} absent"
    last = row["times"][max(row["times"], key=int)]
    return f"{name} {last['steps_a_second']}/s"


def _card() -> str:
    try:
        from engine.backends.torch import runtime

        return str(runtime().cuda.get_device_name(0))
    except Exception:  # noqa: BLE001  without torch the other binding is asked
        try:
            from engine.backends.cudadevice import CudaDevice

            return CudaDevice().name
        except Exception as error:  # noqa: BLE001  the report says so
            return f"none ({error})"


def _driver() -> str:
    try:
        return Path("/proc/driver/nvidia/version").read_text("utf-8").splitlines()[0][:120]
    except (OSError, IndexError):
        return "none"


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
