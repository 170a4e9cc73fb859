"""Stage `compare`: the measures of two evaluated folders side by side, against the goals."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from export.errors import MissingError
from export.pocket import checkpoint

__all__ = ["GOALS", "build", "compare"]

# measure: (where in an evaluation, goal, whether more is better)
GOALS: dict[str, tuple[tuple[str, str], float, bool]] = {
    "in-set retrieval, top-1": (("in_set", "top1"), 0.99, True),
    "held-out combinations, colour": (("held_out", "colour"), 0.80, True),
    "held-out combinations, shape": (("held_out", "shape"), 0.80, True),
    "words that people type, top-1": (("synonyms", "top1"), 0.80, True),
    "background at guidance 5, mean off white": (("white", "mean_off_white"), 2.0, False),
    "VAE on unseen icons, dB": (("vae", "psnr_mean"), 29.0, True),
}
VARIETY = "distance between two seeds, of the first try's"
VARIETY_GOAL = 1.5


def build(work: Path, first: str) -> dict[str, Any]:
    """Compare WORK's `pocket` with the evaluated folder `first`; write `comparison.json`."""
    reports: list[dict[str, Any]] = []
    for name in ("pocket", first):
        path = work / f"evaluation-{name}.json"
        if not path.is_file():
            raise MissingError(f"there is no {path.name} in WORK", hint="run the stage evaluate")
        reports.append(json.loads(path.read_text("utf-8")))
    report = compare(*reports)
    checkpoint.write_json(work / "comparison.json", report)
    return report


def compare(ours: Mapping[str, Any], first: Mapping[str, Any]) -> dict[str, Any]:
    """Return each measure of both, its goal, and whether it is met.

    Seeds' distances are compared over the concepts that both draw, by the mean of Oklab
    distances: an evaluation holds one for each concept.
    """
    table: dict[str, Any] = {}
    for name, ((group, key), goal, more) in GOALS.items():
        got = ours[group].get(key)
        met = got is not None and (got >= goal if more else got <= goal)
        table[name] = {"ours": got, "first": first[group].get(key), "goal": goal, "met": met}
    a, b = ours["variety"]["each_oklab"], first["variety"]["each_oklab"]
    both = sorted(a.keys() & b.keys())
    apart = [float(np.mean([each[concept] for concept in both])) for each in (a, b)]
    ratio = round(apart[0] / apart[1], 3)
    table[VARIETY] = {
        "ours": ratio,
        "first": 1.0,
        "goal": VARIETY_GOAL,
        "met": ratio >= VARIETY_GOAL,
        "concepts": len(both),
    }
    return {
        "measures": table,
        "concepts": {"ours": ours["concepts"], "first": first["concepts"]},
        "space_accuracy": ours["space_accuracy"],
        "held_out": {key: ours["held_out"].get(key) for key in ("combinations", "of", "both")},
        "misses": {
            group: ours[group].get("misses") for group in ("in_set", "held_out", "synonyms")
        },
        "memory": {key: ours["memory"][key] for key in ("own_concept", "distance_median")},
    }
