"""The child process in which torch works: `python -P -m export.worker`, one job, then it ends.

A job comes as one JSON object on standard input, so that nothing stands in the argument list; what
happens goes out as one JSON object a line on standard output: {"stage", "fraction"} while it works,
{"result"} or {"error", "message", "hint"} at the end (an OSError has its "errno" in the hint's
place). When it ends, all of torch's memory is free.
"""

import errno
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from engine.errors import EngineError
from export import errors
from export.checkpoint import fingerprint
from export.ingredients import Ingredients
from export.workload import tracing_share

__all__ = ["main"]

Send = Callable[[Mapping[str, object]], None]
UNWRITTEN = "a file could not be written whole, as on a full disk"  # numpy says no reason


def main() -> None:
    """Do the job on standard input and end with status 0, or 1 after an error was reported."""
    out = _claim_stdout()

    def send(message: Mapping[str, object]) -> None:
        out.write(json.dumps(message, allow_nan=False) + "\n")
        out.flush()

    job = json.loads(sys.stdin.read())
    try:
        send({"result": JOBS[job["task"]](job, send)})
    except (errors.ExportError, EngineError) as error:
        send({"error": type(error).__name__, "message": str(error), "hint": error.hint})
        sys.exit(1)
    except MemoryError:
        send({"error": "GraphError", "message": "there is not enough memory", "hint": ""})
        sys.exit(1)
    except OSError as error:  # a full disk, above all: it keeps its number and loses its path
        said = error.strerror or UNWRITTEN
        send({"error": "OSError", "message": said, "errno": error.errno or errno.EIO})
        sys.exit(1)
    except Exception as error:  # noqa: BLE001  the border of the process: the parent must hear of it
        text = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        send({"error": "GraphError", "message": f"the exporter failed: {text}", "hint": ""})
        sys.exit(1)


def _claim_stdout() -> IO[str]:
    # Libraries print: give them standard error and keep the real standard output for messages.
    kept = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return kept


def _build(job: Mapping[str, Any], send: Send) -> object:
    """Trace the components that the job names and write them into the bundle's folder.

    job["identify"]: also hash the source, which one of several that build at the same time does.
    """
    cache = job["hash_cache"]
    checkpoint = Ingredients.from_job(job).open()
    send({"stage": "match weights", "fraction": 0.0})
    from export.graph import trace
    from export.modules import parameter_shapes
    from export.parameters import matched, precision_of
    from export.shared_weights import save_beside
    from export.weights import MODEL_NAME, fill, save

    parts = [part for part in checkpoint.recipe.components if part.name in job["parts"]]
    found = {  # before the minutes that tracing takes
        part.name: matched(
            part,
            parameter_shapes(part, checkpoint.configs[part.folder]),
            checkpoint.tensors[part.folder],
        )
        for part in parts
        if not part.shares
    }
    total = sum(tracing_share(part) for part in parts)
    done = 0
    for part in parts:
        share = tracing_share(part)
        send({"stage": f"trace {part.name}", "fraction": done / total})
        model = trace(part, checkpoint.configs[part.folder], checkpoint.sizes)
        send({"stage": f"write {part.name}", "fraction": (done + 0.8 * share) / total})
        fill(model, found[part.home])
        home = Path(job["out"]) / part.home
        if part.shares:
            save_beside(model, home / MODEL_NAME, Path(job["out"]) / part.file)
        else:
            save(model, home)
        done += share
    built: dict[str, object] = {
        "precisions": {part.name: precision_of(found[part.home]) for part in parts}
    }
    if job["identify"]:
        built["sha256"] = fingerprint(checkpoint, None if cache is None else Path(cache))
    return built


def _measure(job: Mapping[str, Any], send: Send) -> object:
    """Measure the bundle against the checkpoint."""
    checkpoint = Ingredients.from_job(job).open()
    from export.parity import measure_bundle

    measures, rgb = measure_bundle(
        checkpoint,
        Path(job["out"]),
        lambda stage, fraction: send({"stage": stage, "fraction": fraction}),
    )
    return {"measures": [asdict(measure) for measure in measures], "latent_rgb": asdict(rgb)}


def _recheck(job: Mapping[str, Any], send: Send) -> object:
    """Measure a bundle against torch modules that are filled from its own graphs."""
    from export.recheck import measure_graphs

    measures = measure_graphs(
        Path(job["out"]),
        lambda stage, fraction: send({"stage": stage, "fraction": fraction}),
    )
    return {"measures": [asdict(measure) for measure in measures]}


def _derive(job: Mapping[str, Any], send: Send) -> object:
    """Build a bundle's form for a target."""
    from export.targets.deriving import build_form

    return build_form(job, send)


JOBS: Mapping[str, Callable[[Mapping[str, Any], Send], object]] = {
    "build": _build,
    "derive": _derive,
    "measure": _measure,
    "recheck": _recheck,
}

if __name__ == "__main__":
    main()
