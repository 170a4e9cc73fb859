"""Fewer keys and values in the unet's largest self-attentions (Smith et al., ToDo, arXiv
2402.13573): those of every second row and column, so a quarter of them.

A bundle exported `--with thin` has the graph, `unet_thin`, on the unet's own weights.
"""

from typing import TYPE_CHECKING

from engine.errors import RequestError

if TYPE_CHECKING:
    from engine.manifest import Manifest
    from engine.request import GenerationRequest

__all__ = ["UNET_THIN", "check_thinning", "thins"]

UNET_THIN = "unet_thin"


def thins(request: "GenerationRequest", manifest: "Manifest") -> bool:
    """Say whether this bundle draws the request with its thin graph; a refiner without one is
    whole.
    """
    return request.kv_downsampling > 1 and UNET_THIN in manifest.components


def check_thinning(request: "GenerationRequest", manifest: "Manifest", precision: str) -> None:
    """Raise RequestError where keys and values cannot be thinned: without the graph, beside what
    has graphs of its own (ControlNets, reused features), or in int8.
    """
    if request.kv_downsampling == 1:
        return
    what = f"kv_downsampling is {request.kv_downsampling}"
    if request.controls or request.reuse_every > 1:
        other = "ControlNets" if request.controls else "reuse_every"
        raise RequestError(
            f"{what}; the thin graph goes with no {other}",
            hint=f"leave kv_downsampling at 1, or leave {other} out",
        )
    if UNET_THIN not in manifest.components:
        raise RequestError(
            f"bundle '{manifest.name}' has no thin graph, which kv_downsampling takes",
            hint="export the checkpoint again --with thin, or leave kv_downsampling at 1",
        )
    if precision == "int8":
        raise RequestError(
            f"{what}; int8 has a form of the unet itself, not of the thin one",
            hint="leave kv_downsampling at 1, or take another precision",
        )
