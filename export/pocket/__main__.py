"""`python -m export.pocket STAGE --work DIR`: runs one stage of the recipe, or goes on with it."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from export.errors import ExportError
from export.pocket.settings import PROFILES, Settings, profile

__all__ = ["main"]

STAGES = (
    "data",
    "resume",
    "vae",
    "latents",
    "unet",
    "polish",
    "finish",
    "evaluate",
    "grid",
    "precisions",
    "bundle",
    "compare",
    "keep",
)
# Ended well, but the stage has more to do: run it again.
UNFINISHED = 75
# Read by the libraries when they are loaded, hence set first. Threads that wait must sleep:
# spinning ones make a VAE step 1.6 times as long beside one busy program (two cores, two threads).
# The libraries talk about things that are meant: no accelerate, no network.
_ENVIRONMENT = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
}


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m export.pocket", description=__doc__)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--work", type=Path, required=True, help="folder of all outputs")
    parser.add_argument("--minutes", type=float, default=1e6, help="stop training after so long")
    parser.add_argument("--threads", type=int, default=1, help="two only on an idle machine")
    parser.add_argument("--profile", choices=PROFILES, default="full")
    parser.add_argument("--optimizer", default="", help="for comparisons: adamw or muon")
    parser.add_argument(
        "--model", type=Path, help="evaluate, grid, compare: a diffusers folder (WORK/pocket)"
    )
    parser.add_argument(
        "--limit", type=int, default=0, help="evaluate, precisions: so many concepts"
    )
    return parser


def _run(options: argparse.Namespace, settings: Settings) -> bool:
    """Run the stage; return whether it is finished."""
    work: Path = options.work
    if options.stage == "data":
        from export.pocket import pictures

        pictures.build(work, settings, _say)
        return True
    if options.stage in {"keep", "resume"}:
        from export.pocket import keep

        if options.stage == "keep":
            keep.build(work, keep.KEPT, _say)
        else:
            keep.resume(work, keep.KEPT, settings, _say)
        return True
    if options.stage == "compare":
        from export.pocket import comparison

        report = comparison.build(work, Path(options.model or "pocket").name)
        sys.stdout.write(json.dumps(report, indent=1, sort_keys=True) + "\n")
        return True
    import torch

    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    model = options.model or work / "pocket"
    if options.stage in {"vae", "latents", "unet", "polish"}:
        return _trained(options.stage)(work, settings, options.minutes, _say)
    if options.stage == "finish":
        from export.pocket import finish

        finish.build(work, settings, _say)
    elif options.stage == "grid":
        from export.pocket import grid

        grid.build(work, settings, model, _say)
    elif options.stage == "bundle":
        from export.pocket import bundle

        bundle.build(work, _say)
    else:
        from export.pocket import measures, precisions

        if options.stage == "precisions":
            report = precisions.build(work, settings, options.limit, _say)
        else:
            report = measures.build(work, settings, model, limit=options.limit, say=_say)
        sys.stdout.write(json.dumps(report, indent=1, sort_keys=True) + "\n")
    return True


def _trained(stage: str) -> Callable[[Path, Settings, float, Callable[[str], None]], bool]:
    """Find a stage that takes minutes."""
    if stage == "vae":
        from export.pocket import autoencoder

        return autoencoder.build
    if stage == "latents":
        from export.pocket import latents

        return latents.build
    if stage == "polish":
        from export.pocket import polish

        return polish.build
    from export.pocket import denoiser

    return denoiser.build


def main(arguments: list[str] | None = None) -> int:
    """Run one stage: 0 finished, 75 more to do, 1 with one sentence on standard error."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    options = _arguments().parse_args(arguments)
    try:
        settings = profile(options.profile, optimizer=options.optimizer)
        return 0 if _run(options, settings) else UNFINISHED
    except ExportError as error:
        _say(f"{error}. {error.hint}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
